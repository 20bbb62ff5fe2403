"""`live`: the real program on a wire, polled, its live model retraining; Scapy's sniff beside it.

Sender, program and poller share this machine's cores. Every run starts a program of its own on a
trained data directory; its counters are read before and after the traffic, and balanced against
what the sender says and what the kernel delivered.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psutil

from benchmarks.measure import ROOT, Plan, Table, run_alone, spread, stop_all
from benchmarks.program import Program
from benchmarks.trained import LESSONS_S
from benchmarks.wire import SENDING, WATCHED, Wire, why_not
from errors import AppError

__all__ = ["measure", "tables", "why_not"]

RATE: Final = 200_000
SECONDS: Final = 10.0
SLOW_RATE: Final = 5_000
TARGET_MS: Final = 50.0
TARGET_RATIO: Final = 30.0
_FIRST_RATE: Final = 100_000
_FIRST_SNIFF_RATE: Final = 1_000
_DOUBLINGS: Final = 5
_STEP_S: Final = 3.0
_REACHED: Final = 0.95
"""Below this share of the rate asked for, the sender was the bound."""
_SETTLE_S: Final = 20.0
_LOSSES: Final = ("kernel_drops", "interface_drops", "queue_drops")


def measure(
    plan: Plan, *, rate: int = RATE, seconds: float = SECONDS, doublings: int = _DOUBLINGS
) -> dict[str, Any]:
    plan.tell("training on traffic like it")
    trained = plan.folder / "trained"
    gap_us = 1_000_000 // rate
    run_alone(["benchmarks.verdicts", "--train", str(trained), str(gap_us), str(LESSONS_S)])
    found: dict[str, list[Any]] = {"program": [], "sniff": [], "sniff_slow": []}
    with Wire() as wire:
        for turn in range(plan.runs):
            with _watching(plan, wire) as program:
                found["program"].append(_watched(wire, program, rate, seconds))
            found["sniff"].append(_sniffed(wire, rate, seconds))
            found["sniff_slow"].append(_sniffed(wire, SLOW_RATE, seconds))
            ours = found["program"][-1]
            plan.tell(
                f"turn {turn + 1} of {plan.runs}: {ours['sent']:,} sent, {ours['lost']:,} lost; "
                f"sniff lost {found['sniff'][-1]['lost']:,}, at {SLOW_RATE:,} a second "
                f"{found['sniff_slow'][-1]['lost']:,}"
            )
        with _watching(plan, wire) as program:
            steps = _doubled(
                lambda asked: _watched(wire, program, asked, _STEP_S), _FIRST_RATE, doublings
            )
        sniff_steps = _doubled(
            lambda asked: _sniffed(wire, asked, _STEP_S), _FIRST_SNIFF_RATE, doublings
        )
    return {
        "rate": rate,
        "seconds": seconds,
        "turns": found,
        "steps": steps,
        "sniff_steps": sniff_steps,
    }


@contextmanager
def _watching(plan: Plan, wire: Wire) -> Iterator[Program]:
    """The program on a copy of the trained directory, capturing."""
    data_dir = plan.folder / "live"
    shutil.copytree(plan.folder / "trained", data_dir)
    try:
        with Program(data_dir, "--interface", WATCHED, inside=wire.here) as program:
            program.wait_for(lambda told: told["capture"]["state"] == "capturing", "capturing")
            silent = [
                model["name"]
                for model in program.ask("/api/live_status")["models"]
                if model["state"] != "READY"
            ]
            if silent:
                raise AppError(f"These models do not vote: {', '.join(silent)}.")
            yield program
    finally:
        shutil.rmtree(data_dir)


def _watched(wire: Wire, program: Program, rate: int, seconds: float) -> dict[str, Any]:
    """Traffic at that rate through the program, polled and retraining; what became of it."""
    poller = program.start_beside("benchmarks.poller", program.address, "--retrain")
    try:
        before, arrived = program.ask("/api/live_status"), wire.arrived()
        cpu, _ = program.used()
        sent = _send(wire, rate, seconds)
        cpu_sending = program.used()[0]
        arrived = wire.arrived() - arrived
        after = _settled(program, before, arrived)
        cpu_after, rss = program.used()
        polled = _answer_of(poller)
    finally:
        stop_all([poller])
    counts = _differences(before["capture"], after["capture"])
    lost = sum(counts[name] for name in _LOSSES)
    unread = counts["unread"]
    return {
        "asked": rate,
        **sent,
        "arrived": arrived,
        **counts,
        "lost": lost + sent["sent"] - arrived,
        "balanced": sent["sent"] == arrived
        and arrived == counts["received"] + counts["kernel_drops"] + counts["interface_drops"]
        and counts["received"] == counts["packets"] + counts["queue_drops"]
        and counts["packets"] == counts["decoded"] + unread,
        "trainings": after["baseline"]["version"] - before["baseline"]["version"],
        "cpu_sending_s": cpu_sending - cpu,
        "cpu_after_sending_s": cpu_after - cpu_sending,
        "rss_bytes": rss,
        "polled": polled,
        "incidents": sum(after["open"].values()),
    }


def _settled(program: Program, before: dict[str, Any], arrived: int) -> dict[str, Any]:
    """The status once every frame that arrived is in a counter, or a while has passed."""
    deadline_s = time.monotonic() + _SETTLE_S
    while True:
        told: dict[str, Any] = program.ask("/api/live_status")
        counts = _differences(before["capture"], told["capture"])
        done = counts["packets"] + sum(counts[name] for name in _LOSSES)
        if done >= arrived or time.monotonic() > deadline_s:
            return told


def _differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    names = ("packets", "decoded", "received", "table_drops", "flows_ended", *_LOSSES)
    counts = {name: int(after[name] - before[name]) for name in names}
    counts["unread"] = sum(after["unread"].values()) - sum(before["unread"].values())
    return counts


def _send(wire: Wire, rate: int, seconds: float) -> dict[str, Any]:
    command = wire.there(sys.executable, "-m", "benchmarks.sender", SENDING, str(rate))
    sent = run_alone([*command, str(seconds)], timeout_s=seconds + 60)
    return {
        name: sent[name]
        for name in ("sent", "seconds", "packets_per_s", "latest_s", "mean_frame_bytes")
    }


def _sniffed(wire: Wire, rate: int, seconds: float) -> dict[str, Any]:
    """Traffic at that rate to Scapy's sniff alone."""
    process = subprocess.Popen(
        wire.here(sys.executable, "-m", "benchmarks.sniffer", WATCHED),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise AppError("Scapy's sniff did not start.")
        arrived = wire.arrived()
        sent = _send(wire, rate, seconds)
        arrived = wire.arrived() - arrived
        told = _answer_of(process)
    finally:
        stop_all([process])
    return {
        "asked": rate,
        **sent,
        "arrived": arrived,
        "received": told["received"],
        "lost": max(sent["sent"] - told["received"], 0),
        "cpu_s": told["cpu_s"],
    }


def _answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a process tells when its input ends."""
    output, _ = process.communicate(timeout=90)
    if process.returncode != 0 or not output:
        raise AppError(f"{process.args!r} ended with {process.returncode} and no answer.")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _doubled(step: Any, first: int, doublings: int) -> list[dict[str, Any]]:
    """Steps at doubled rates until something is lost or the sender can do no more."""
    steps = []
    for doubling in range(doublings):
        one = step(first << doubling)
        steps.append(one)
        if one["lost"] or one["packets_per_s"] < _REACHED * one["asked"]:
            break
    return steps


def _lossless(steps: list[dict[str, Any]]) -> float:
    """The highest rate, packets a second, at which nothing was lost; 0 for none."""
    return max((one["packets_per_s"] for one in steps if not one["lost"]), default=0.0)


def tables(result: dict[str, Any]) -> list[Table]:
    turns = result["turns"]
    ours = turns["program"]
    ratio = _lossless(result["steps"]) / max(_lossless(result["sniff_steps"]), 1.0)
    first = ours[0]
    notes = [
        f"{first['mean_frame_bytes']:.0f} bytes a frame on average; sender, program and poller "
        f"share {psutil.cpu_count()} cores.",
        "lost = sent and not received, for any reason; balanced = sent, the kernel's own counter, "
        "received, drops by cause, decoded and unread agree in every run.",
    ]
    rows = [
        ("rate asked for, packets/s", f"{result['rate']:,}", ""),
        _figure("rate reached, packets/s", ours, "packets_per_s"),
        _figure("sent", ours, "sent"),
        _figure("arrived, by the kernel's counter", ours, "arrived"),
        _figure("received by the program", ours, "received"),
        _figure("lost", ours, "lost", target="0"),
        *(
            _figure(f"of them {name.replace('_', ' ')}", ours, name)
            for name in (*_LOSSES, "table_drops")
        ),
        _figure("unread", ours, "unread"),
        ("balanced", "yes" if all(one["balanced"] for one in ours) else "NO", "yes"),
        _figure("flows ended and judged", ours, "flows_ended"),
        _trainings(ours),
        (
            "CPU s / 1 M packets, trainings and pages included",
            spread(
                [
                    (one["cpu_sending_s"] + one["cpu_after_sending_s"]) / one["sent"] * 1e6
                    for one in ours
                ]
            ).text(),
            "",
        ),
        ("resident memory, MiB", _of(ours, lambda one: one["rss_bytes"] / 2**20, ".0f"), ""),
        *(
            (
                f"poll {name}, ms",
                _of(ours, lambda one, key=key: one["polled"][key], ".1f"),
                target,
            )
            for name, key, target in (
                ("median", "p50_ms", ""),
                ("95th percentile", "p95_ms", f"< {TARGET_MS:.0f}"),
                ("longest", "max_ms", ""),
            )
        ),
        _figure_of_polls(ours),
    ]
    sniff_rows = [
        (
            f"sniff at {asked:,} packets/s",
            _of(runs, lambda one: one["packets_per_s"], ",.0f"),
            _of(runs, lambda one: one["lost"] / one["sent"] * 100, ".1f"),
            _of(runs, lambda one: one["cpu_s"] / max(one["received"], 1) * 1e6, ".0f"),
        )
        for asked, runs in ((result["rate"], turns["sniff"]), (SLOW_RATE, turns["sniff_slow"]))
    ]
    step_rows = [
        (who, f"{one['asked']:,}", f"{one['packets_per_s']:,.0f}", f"{one['lost']:,}")
        for who, steps in (("SecureFlux", result["steps"]), ("sniff", result["sniff_steps"]))
        for one in steps
    ]
    step_notes = [
        f"Lossless at most: {_lossless(result['steps']):,.0f} packets/s, sniff "
        f"{_lossless(result['sniff_steps']):,.0f}: {ratio:,.0f} times as much "
        f"(target >= {TARGET_RATIO:.0f})."
    ]
    last = result["steps"][-1]
    if not last["lost"]:
        step_notes.append("The sender, not the program, was the bound: nothing was lost.")
    return [
        Table(
            f"The program on a wire, {result['seconds']:.0f} s a run",
            ("", "", "target"),
            rows,
            notes,
        ),
        Table(
            "Scapy's sniff(prn=count, store=False) on the same wire",
            ("", "rate reached, packets/s", "lost, %", "CPU s / 1 M packets"),
            sniff_rows,
        ),
        Table(
            f"Doubled rates, {_STEP_S:.0f} s each",
            ("", "asked for, packets/s", "reached", "lost"),
            step_rows,
            step_notes,
        ),
    ]


def _of(runs: list[dict[str, Any]], value: Any, form: str) -> str:
    return spread([value(one) for one in runs]).text(form)


def _figure(
    words: str, runs: list[dict[str, Any]], name: str, target: str = ""
) -> tuple[str, str, str]:
    return words, spread([one[name] for one in runs]).text(",.0f"), target


def _trainings(runs: list[dict[str, Any]]) -> tuple[str, str, str]:
    """One that is begun is running, also where it has not come to its end."""
    begun = spread([max(one["trainings"], one["polled"]["trainings_asked"]) for one in runs])
    over = spread([one["trainings"] for one in runs])
    words = "trainings of the live model begun, of them over"
    return words, f"{begun.text('.0f')}, {over.text('.0f')}", ">= 1"


def _figure_of_polls(runs: list[dict[str, Any]]) -> tuple[str, str, str]:
    asked = sum(one["polled"]["polls"] for one in runs)
    failed = sum(one["polled"]["failures"] for one in runs)
    return "polls, of them without an answer", f"{asked:,}, {failed}", "0"

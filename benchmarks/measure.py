"""How everything here is measured: a process for each run, taken in turn, medians of all turns."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

import resource_usage
from errors import AppError

__all__ = [
    "ROOT",
    "Plan",
    "Spread",
    "Table",
    "answer",
    "cpu_s",
    "in_turn",
    "installed",
    "machine",
    "peak_bytes",
    "percentile",
    "run_alone",
    "spread",
    "stop_all",
]

ROOT: Final = Path(__file__).resolve().parents[1]
_LIBRARIES: Final = ("numpy", "numba", "scikit-learn", "scapy", "nfstream", "dpkt", "pandas")

Figures = dict[str, Any]
"""What one run of one command told; JSON."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for: packets of the captures, turns, a folder for files, who is told."""

    packets: int
    runs: int
    folder: Path
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Table:
    """A result as people read it; every cell is text. The first column is left-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of some runs."""

    median: float
    low: float
    high: float

    def text(self, form: str = ".2f") -> str:
        """`median (low-high)`, the range only where there is one."""
        if self.low == self.high:
            return format(self.median, form)
        return f"{self.median:{form}} ({self.low:{form}}-{self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """
    >>> spread([3.0, 1.0, 2.0]).text(".0f")
    '2 (1-3)'
    """
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of all do not exceed.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    ordered = sorted(values)
    return ordered[max(-int(-share * len(ordered) // 1) - 1, 0)]


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def peak_bytes() -> int:
    """The largest resident set of this process since it became this program.

    getrusage answers with the parent's where that was larger: a fork begins as its copy.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource_usage.peak_rss_bytes()


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def answer(figures: Figures) -> None:
    """Tell the measuring process what a command has found; its last line of output."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def run_alone(
    command: Sequence[str],
    *,
    timeout_s: float = 300.0,
    environment: Mapping[str, str] | None = None,
) -> Figures:
    """Run a module of ours in a process of its own; what it answered, and `wall_s` of all of it.

    command: module and arguments, or a whole command line that ends in them. AppError tells why
    it failed.
    """
    line = [sys.executable, "-m", *command] if command[0].startswith("benchmarks.") else command
    started = time.monotonic()
    try:
        done = subprocess.run(
            line,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AppError(f"{' '.join(command)} took longer than {timeout_s:.0f} s.") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise AppError(f"{' '.join(command)} failed: {last}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return {**found, "wall_s": time.monotonic() - started}


def in_turn(
    plan: Plan, commands: Mapping[str, Sequence[str]], *, timeout_s: float = 300.0
) -> dict[str, list[Figures]]:
    """Each command plan.runs times, one after the other and then again; answers by name."""
    found: dict[str, list[Figures]] = {name: [] for name in commands}
    for turn in range(plan.runs):
        for name, command in commands.items():
            figures = run_alone(command, timeout_s=timeout_s)
            found[name].append(figures)
            used = f" {figures['cpu_s']:.2f} s CPU," if "cpu_s" in figures else ""
            plan.tell(
                f"turn {turn + 1} of {plan.runs}, {name}:{used} {figures['wall_s']:.1f} s in all"
            )
    return found


def machine() -> Figures:
    """Where and when this was measured, and with which versions."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": [round(value, 2) for value in psutil.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": versions,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        told = {
            name.strip(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        if told.get("model name", "unknown") != "unknown":
            return told["model name"]
        if "vendor_id" in told:
            return f"{told['vendor_id']}, family {told.get('cpu family')}"
    return platform.processor() or platform.machine()


def stop_all(processes: Sequence[subprocess.Popen[Any]], *, patience_s: float = 15.0) -> None:
    """End processes that may still run, and wait for them."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

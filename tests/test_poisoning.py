"""An attack in the stream the live model learns from: DETECTION's figures, on two kinds of data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batches import Rows
from ml.selftest import attacks
from predict import Predictor
from settings import Settings
from training.datasets import capture_flows
from training.evaluation.poisoning import (
    CLEAN,
    SCENARIOS,
    Outcome,
    Scenario,
    measured,
    mixed,
    poisoning,
)

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "data" / "demo" / "home.pcap.gz"
STRANGER = (203 << 24) | (113 << 8) | 66  # 203.0.113.66 is nobody in the recording
STREAMED = 3400
"""The first flows leave the buffer when 1,000 others are learned, after about 2,600."""
LOSS = 0.02
LOSS_INSIDE = 0.05
"""A busy device that attacks is barred with its harmless flows, an eighth of all, which the model
then lacks on the last day: .012 and .026 of the AUC with 5 and 20 % of attack."""
FALSE_ALARMS = 0.025


# --- the bundled lab traffic: always there ------------------------------------------------------


def likened(rows: Rows, n: int, rng: np.random.Generator) -> Rows:
    """n flows like these: drawn with repetition, each at another speed and from another port."""
    out: Rows = rows[rng.integers(len(rows), size=n)].copy()
    slower = rng.lognormal(0, 0.15, n)
    for name in ("last_ns", "dir_first_ns", "dir_last_ns"):
        first = out["first_ns"] if out[name].ndim == 1 else out["first_ns"][:, None]
        stretch = slower if out[name].ndim == 1 else slower[:, None]
        out[name] = first + ((out[name] - first) * stretch).astype(np.int64)
    out["iat_mean"] *= slower[:, None]
    out["iat_m2"] *= slower[:, None] ** 2
    out["src_port"] = rng.integers(32768, 61000, n)
    return out


@functools.cache
def harmless() -> tuple[Rows, Rows]:
    """(stream, flows to judge with): the quiet part of the bundled sample, before its attacks.

    Every flow stands on one side only; both are filled up with flows like their own.
    """
    rows = capture_flows(DEMO, fewest_packets=1)
    quiet = rows[rows["first_ns"] < rows["first_ns"].min() + 390 * 10**9]
    rng = np.random.default_rng(7)
    apart = rng.random(len(quiet)) < 0.25
    stream = likened(quiet[~apart], STREAMED, rng)
    stream["first_ns"], late = _spread(stream)
    for name in ("last_ns", "dir_first_ns", "dir_last_ns"):
        stream[name] += late if stream[name].ndim == 1 else late[:, None]
    return stream, likened(quiet[apart], 600, rng)


def _spread(rows: Rows) -> tuple[Any, Any]:
    """A flow every two seconds, and by how much that moves each."""
    first_ns = rows["first_ns"].min() + np.arange(len(rows)) * 2 * 10**9
    return first_ns, first_ns - rows["first_ns"]


def outcome(kind: str, scenario: Scenario, folder: Path, *, from_inside: bool = False) -> Outcome:
    """from_inside: the attack's flows come from the device with most flows, between its own."""
    stream, judged = harmless()
    rng = np.random.default_rng(3)
    bundled = next(one for one in attacks() if one.name == kind).rows
    hidden, unseen = likened(bundled, 700, rng), likened(bundled, 200, rng)
    sources, counts = np.unique(stream["src_lo"], return_counts=True)
    hidden["src_lo"] = sources[counts.argmax()] if from_inside else STRANGER
    rows, attack = mixed(stream, hidden, scenario, rng)
    predictor = Predictor(replace(Settings(), LIVE_MODEL_PATH=str(folder)), background=False)
    return measured(predictor, rows, attack, judged, unseen)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return outcome("ssh_brute", CLEAN, tmp_path_factory.mktemp("clean"))


@pytest.mark.parametrize("scenario", SCENARIOS[1:], ids=lambda one: one.name)
def test_a_stranger_guessing_passwords_teaches_nothing(
    clean: Outcome, scenario: Scenario, tmp_path: Path
) -> None:
    assert clean.auc > 0.95
    found = outcome("ssh_brute", scenario, tmp_path)
    assert clean.auc - found.auc <= LOSS
    assert found.let_in == 0
    # Flows likened to others lie nearer to each other than real ones, so the rate itself means
    # little here; of 600 it varies by .02.
    assert found.fpr <= clean.fpr + 0.03


def test_a_bot_inside_that_calls_home_teaches_nothing(tmp_path: Path) -> None:
    """Its flows come between the harmless ones of the busiest device."""
    before, after = (
        outcome("c2_beacon", one, tmp_path / one.name, from_inside=True) for one in SCENARIOS[:2]
    )
    assert before.auc - after.auc <= LOSS
    assert after.let_in == 0


def test_the_stream_is_what_it_is_said_to_be() -> None:
    stream, _ = harmless()
    hidden = likened(attacks()[0].rows, 2000, np.random.default_rng(0))
    for scenario, first, last in zip(SCENARIOS[1:], (800, 800, 0), (3600, 4250, 500), strict=True):
        rows, attack = mixed(stream, hidden, scenario, np.random.default_rng(1))
        assert len(rows) == len(stream) + attack.sum()
        inside = attack[scenario.begin : scenario.end]
        assert inside.mean() == pytest.approx(scenario.share, abs=0.01)
        places = np.flatnonzero(attack)
        assert places.min() >= first
        assert places.max() <= last
        # An attack flow begins with the harmless one before it.
        assert (np.diff(rows["first_ns"]) >= 0).all()


# --- the tables, where they are -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["FTP-Patator", "DoS Slowloris"])
def test_the_figures_of_the_tables(shared_data: Path, attack: str) -> None:
    told = poisoning(shared_data, seeds=(0,), attacks=(attack,))
    by_name: Mapping[str, dict[str, Any]] = {one["scenario"]: one for one in told}
    assert by_name["clean"]["auc"] >= 0.98
    for name, one in by_name.items():
        assert one["loss"] <= LOSS, (name, one)
        assert one["fpr"] <= FALSE_ALARMS, (name, one)
        assert one["let_in"] <= 0.01, (name, one)
        assert one["barred"] <= 0.05, (name, one)


@pytest.mark.slow
def test_an_attack_from_inside_on_the_tables(shared_data: Path) -> None:
    told = poisoning(
        shared_data,
        seeds=(0,),
        attacks=("FTP-Patator",),
        scenarios=SCENARIOS[:3],
        from_inside=True,
    )
    for one in told:
        assert one["loss"] <= LOSS_INSIDE, one
        assert one["fpr"] <= FALSE_ALARMS, one
        assert one["let_in"] <= 0.01, one

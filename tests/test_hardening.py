"""The table of evasions, made from the bundled recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from errors import InputError
from features import LIVE, matrix
from training import hardening
from training.datasets import capture_flows
from training.evaluation.tables import Table
from training.evasion import padded

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo" / "home.pcap.gz"
CALM_S = 538.0
"""Then the attacks of the recording begin."""


def recorded(days: tuple[str, ...]) -> Table:
    """The harmless minutes as `days`, and on the last one long transfers that nobody answers."""
    rows = capture_flows(DEMO)
    first_s = (rows["first_ns"] - rows["first_ns"].min()) / 1e9
    normal = matrix(rows[first_s < CALM_S])
    day = np.array(days)[(first_s[first_s < CALM_S] // 20).astype(int) % len(days)]
    attacks = matrix(rows[first_s < CALM_S][:80])
    names = list(LIVE)
    attacks[:, names.index("Total Fwd Packets")] = 4_000
    attacks[:, names.index("Total Length Fwd Packet")] = 4_000 * 900
    attacks[:, names.index("Fwd Packet Length Max")] = 1_000
    attacks[:, names.index("Fwd Packet Length Min")] = 800
    attacks[:, names.index("Fwd Packet Length Std")] = 40
    odd = np.arange(len(normal) + len(attacks)) >= len(normal)
    return Table(
        values=np.concatenate([normal, padded(attacks, 1.0)]),
        attack=odd,
        labels=np.where(odd, "transfer", "normal"),
        days=np.concatenate([day, np.full(len(attacks), days[-1])]),
        networks=np.full(len(odd), "lab"),
        devices=np.full(len(odd), ""),
        frame=pd.DataFrame(index=np.arange(len(odd))),
    )


def test_every_evasion_is_told_of_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardening, "SEEDS", (42,))
    figures = hardening.hardening(recorded(("Monday", "Tuesday", "Wednesday")))
    for columns in (hardening.MODELS, tuple(hardening.AUTOENCODERS)):
        told = hardening.table(figures, columns).splitlines()
        assert len(told) == 2 + len(hardening.EVASIONS) + len(hardening.NOISES) + 2
        assert {line.count("|") for line in told} == {len(columns) + 2}
    for name in ("home", "industrial", "live"):
        before = figures["as they were"][name]
        assert before > 0.9
        assert all(0 <= row[name] <= 1 for row in figures.values())
        # The best of many changes hides at least what the first of them hides.
        assert figures[hardening.BEST][name] <= figures["payloads padded by half"][name]
        assert figures[hardening.HARMLESS][name] < 0.1


def test_tables_without_three_days_are_refused() -> None:
    with pytest.raises(InputError, match="three days"):
        hardening.hardening(recorded(("Monday", "Tuesday")))

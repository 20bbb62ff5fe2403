"""The table of evasions, made from the bundled recording and the bundled attacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.datasets import capture_flows
from training.hardening import (
    AUTOENCODERS,
    BEST,
    EVASIONS,
    HARMLESS,
    MODELS,
    NOISES,
    hardening,
    lab_splits,
    main,
    table,
)

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo" / "home.pcap.gz"
CALM_NS = 538 * 1_000_000_000
"""Then the attacks of the recording begin."""


def test_every_evasion_is_told_of_every_model() -> None:
    rows = capture_flows(DEMO)
    calm = rows["first_ns"] < rows["first_ns"].min() + CALM_NS
    (split,) = lab_splits(rows[calm], (42,))
    assert len(split.attacks) > 100
    assert not split.fit.attack.any()
    assert not split.line.attack.any()
    figures = hardening([split])
    for columns in (MODELS, tuple(AUTOENCODERS)):
        told = table(figures, columns).splitlines()
        assert len(told) == 2 + len(EVASIONS) + 1 + len(NOISES) + 1
        assert {line.count("|") for line in told} == {len(columns) + 2}
    for name in (*MODELS, *AUTOENCODERS):
        assert all(0 <= row[name] <= 1 for row in figures.values())
        # The best of all changes hides at least what each of them hides.
        assert all(figures[BEST][name] <= figures[what][name] for what in EVASIONS)
    for name in MODELS:
        assert figures["as they were"][name] > 5 * figures[HARMLESS][name]


def test_a_folder_without_anything_to_measure_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path)]) != 0
    told = capsys.readouterr().err
    assert "three days" in told
    assert told.count("\n") == 1

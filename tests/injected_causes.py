"""Normal flows with a known cause of oddness in them, and how often reasons name it.

One group of features that belong together takes the values of another normal flow (swap) or twenty
times its own (scale). Only flows that the model did not flag before and flags then count. The
first name is right where it lies in the group; a random name would be in 1 of 8.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batches import Deviation
from ml.explain import explain
from ml.model import Model

__all__ = ["GROUPS", "injected", "measure"]

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

ALPHA: Final = 0.01
SCALE: Final = 20.0
NAMED: Final = 3
MOST: Final = 400
"""Flagged flows of one kind that are looked at; a share is then known to 2 in 100."""
TIMED: Final = 100

GROUPS: Final = (
    ("Flow Duration", "Flow Bytes/s", "Flow Packets/s"),
    ("Total Fwd Packets", "Total Length Fwd Packet"),
    ("Total Bwd Packets", "Total Length Bwd Packet"),
    tuple(f"Fwd Packet Length {what}" for what in ("Max", "Min", "Mean", "Std")),
    tuple(f"Bwd Packet Length {what}" for what in ("Max", "Min", "Mean", "Std")),
    tuple(f"Fwd IAT {what}" for what in ("Total", "Mean", "Std", "CV")),
    tuple(f"Bwd IAT {what}" for what in ("Total", "Mean", "Std", "CV")),
    (
        *(f"{what} Packet Length" for what in ("Min", "Max")),
        *(f"Packet Length {what}" for what in ("Mean", "Std")),
        "Bytes per Packet",
    ),
    ("Init Win Fwd", "Init Win Bwd"),
    (
        *(f"{flag} Flag Count" for flag in ("FIN", "SYN", "RST", "PSH")),
        *(f"{flag} Share" for flag in ("SYN", "PSH", "RST")),
        "State RST",
    ),
    ("Bytes Ratio", "Packets Ratio"),
)
"""Features that one cause changes together; those a model lacks are left out."""


def measure(model: Model, normal: Values, seed: int) -> dict[str, float]:
    """How often reasons are right.

    normal: (n, k) features of normal flows the model was not fitted on. first_*, any3_*: the share
    of flagged flows whose first name, or one of whose first three, lies in the group that was
    changed. unflagged: the share no longer flagged when the three take the values that reasons
    call ordinary. ms_per_alert: the quickest of single flows, as they come. flagged: how many.
    """
    rng = np.random.default_rng(seed)
    flows = normal[~_flagged(model, normal)]
    figures: dict[str, float] = {}
    changed = []
    for how in ("swap", "scale"):
        values, inside = injected(model, flows, how, rng)
        told = explain(model, values, model.transformed(values))
        hits = [_hits(model, names, group) for names, group in zip(told, inside, strict=True)]
        figures[f"first_{how}"] = float(np.mean([one[:1].any() for one in hits]))
        figures[f"any3_{how}"] = float(np.mean([one.any() for one in hits]))
        changed.append(values)
    odd = np.concatenate(changed)
    figures["unflagged"] = _unflagged(model, odd)
    figures["ms_per_alert"] = min(_timed_ms(model, odd[i : i + 1]) for i in range(TIMED))
    figures["flagged"] = len(odd)
    return figures


def injected(
    model: Model, flows: Values, how: str, rng: np.random.Generator
) -> tuple[Values, Mask]:
    """At most MOST flows, each with one group swapped or scaled, that the model flags now; with
    them, (m, k), which features were in the group."""
    groups = [[name in group for name in model.features] for group in GROUPS]
    members = np.array([group for group in groups if any(group)])
    inside = members[rng.integers(0, len(members), len(flows))]
    others = flows[rng.permutation(len(flows))] if how == "swap" else flows * SCALE
    changed = np.where(inside, others, flows)
    flagged = np.flatnonzero(_flagged(model, changed))[:MOST]
    return changed[flagged], inside[flagged]


def _unflagged(model: Model, values: Values) -> float:
    without = values.copy()
    for row, told in zip(without, explain(model, values, model.transformed(values)), strict=True):
        for one in told[:NAMED]:
            row[model.features.index(one.feature)] = one.ordinary
    return 1.0 - float(_flagged(model, without).mean())


def _flagged(model: Model, values: Values) -> Mask:
    assert model.calibration is not None
    oddness = model.look(model.transformed(values)).oddness
    flagged: Mask = model.calibration.score(oddness) < model.calibration.threshold(1.0, ALPHA)
    return flagged


def _hits(model: Model, told: Sequence[Deviation], inside: Mask) -> Mask:
    """(up to 3,) whether each name lies in the group."""
    places = [model.features.index(one.feature) for one in told[:NAMED]]
    hits: Mask = inside[places]
    return hits


def _timed_ms(model: Model, values: Values) -> float:
    start = time.perf_counter()
    explain(model, values, model.transformed(values))
    return (time.perf_counter() - start) * 1e3

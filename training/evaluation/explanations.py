"""Do the reasons of an alert name what was changed, and what does naming them cost (rows 15, 16)?

One group of features of a harmless flow is swapped with another harmless flow's, or multiplied by
twenty; only flows that the model then flags, and did not before, are asked about.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features import HOME, INDUSTRIAL, LIVE
from ml.explain import explain
from ml.model import Model
from training.evaluation.candidates import ALPHA, ours_fitted
from training.evaluation.splits import Split

__all__ = ["CAUSES", "Named", "explanations"]

log = logging.getLogger("secureflux.training")

Values = NDArray[np.float64]

FACTOR: Final = 20.0
MOST: Final = 400
"""Flagged flows asked about, of each kind of change and model."""
TIMED: Final = 100
CAUSES: Final[tuple[tuple[str, ...], ...]] = (
    ("Flow Duration", "Flow Bytes/s", "Flow Packets/s"),
    ("Total Fwd Packets", "Total Bwd Packets", "Packets Ratio"),
    tuple(f"Fwd Packet Length {kind}" for kind in ("Max", "Min", "Mean", "Std"))
    + ("Total Length Fwd Packet",),
    tuple(f"Bwd Packet Length {kind}" for kind in ("Max", "Min", "Mean", "Std"))
    + ("Total Length Bwd Packet",),
    ("Fwd IAT Total", "Fwd IAT Mean", "Fwd IAT Std", "Fwd IAT CV"),
    ("Bwd IAT Total", "Bwd IAT Mean", "Bwd IAT Std", "Bwd IAT CV"),
    ("Min Packet Length", "Max Packet Length", "Packet Length Mean", "Packet Length Std"),
    ("Init Win Fwd", "Init Win Bwd"),
    tuple(f"{flag} Flag Count" for flag in ("FIN", "SYN", "RST", "PSH")),
)
"""Features that change together when one thing about a flow changes."""


@dataclass(frozen=True, slots=True)
class Named:
    """asked: flagged flows; first, any_of_3: share whose first, or one of the first three reasons
    is of the changed group; z_first: what the largest z-score would have named first (the
    specification's way); ms: one explanation, median, milliseconds of CPU."""

    model: str
    change: str
    seed: int
    asked: int
    first: float
    any_of_3: float
    z_first: float
    ms: float


def explanations(split: Split) -> list[Named]:
    """The three models' reasons on the judged day's harmless flows of a split."""
    told = []
    for name, features in (("home", HOME), ("industrial", INDUSTRIAL), ("live", LIVE)):
        log.info("Explanations of the %s model, seed %d", name, split.seed)
        model = ours_fitted(name, features, split)
        fitted, calm = split.fit.of(features), split.normal.of(features)
        for change in ("swap", "scale"):
            told.append(_named(model, change, fitted, calm, split.seed))
    return told


def _named(model: Model, change: str, fitted: Values, calm: Values, seed: int) -> Named:
    rng = np.random.default_rng(seed)
    groups = [
        [model.features.index(name) for name in group if name in model.features] for group in CAUSES
    ]
    groups = [group for group in groups if group]
    calm = calm[~_flagged(model, calm)]
    changed, causes = [], []
    for _ in range(4):
        for place, group in enumerate(groups):
            rows = calm.copy()
            other = rng.permutation(len(rows))
            rows[:, group] = (
                rows[other][:, group] if change == "swap" else (rows[:, group] * FACTOR)
            )
            odd = _flagged(model, rows) & (rows != calm).any(axis=1)
            changed.append(rows[odd])
            causes.append(np.full(int(odd.sum()), place))
        if change == "scale":
            break  # the same again
    values, cause = np.concatenate(changed), np.concatenate(causes)
    # Each group counts alike, however easily a change of it is flagged.
    chosen = np.concatenate(
        [
            rng.permutation(np.flatnonzero(cause == place))[: MOST // len(groups)]
            for place in range(len(groups))
        ]
    )
    values, cause = values[chosen], cause[chosen]
    reasons = explain(model, values, model.transformed(values))
    names = [[deviation.feature for deviation in told] for told in reasons]
    wanted = [{model.features[j] for j in groups[place]} for place in cause]
    mean, deviation = fitted.mean(axis=0), fitted.std(axis=0)
    z = np.abs(values - mean) / np.where(deviation > 0, deviation, np.inf)
    by_z = [model.features[j] for j in z.argmax(axis=1)]
    return Named(
        model.name,
        change,
        seed,
        len(values),
        first=_mean([bool(n) and n[0] in w for n, w in zip(names, wanted, strict=True)]),
        any_of_3=_mean([bool(set(n[:3]) & w) for n, w in zip(names, wanted, strict=True)]),
        z_first=_mean([name in w for name, w in zip(by_z, wanted, strict=True)]),
        ms=_cost_ms(model, values[:TIMED]),
    )


def _mean(hits: list[bool]) -> float:
    return float(np.mean(hits)) if hits else float("nan")


def _flagged(model: Model, values: Values) -> NDArray[np.bool_]:
    line = model.calibration
    assert line is not None
    oddness = model.look(model.transformed(values)).oddness
    flags: NDArray[np.bool_] = line.score(oddness) < line.threshold(1.0, ALPHA)
    return flags


def _cost_ms(model: Model, values: Values) -> float:
    """The median over single explanations, as alerts come."""
    if not len(values):
        return float("nan")
    z = model.transformed(values)
    spent = []
    for place in range(len(values)):
        start = time.process_time()
        explain(model, values[place : place + 1], z[place : place + 1])
        spent.append(time.process_time() - start)
    return float(np.median(spent)) * 1e3

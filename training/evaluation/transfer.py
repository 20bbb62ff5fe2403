"""What a model from elsewhere is worth here, and how the three models decide together.

A line moved to another network means nothing there; the first 500 harmless flows seen set it anew
(row 9). With two models from elsewhere beside the one of this network, who may decide matters more
than how well each sees (row 21).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features import HOME, INDUSTRIAL, LIVE
from ml.calibration import Calibration
from ml.model import Fitted, Model, fit
from training.evaluation.candidates import ALPHA, candidates, ours_fitted
from training.evaluation.splits import (
    Split,
    capped,
    days_of,
    local_split,
    rotations,
)
from training.evaluation.tables import Table

__all__ = [
    "FIRST",
    "Decision",
    "Moved",
    "foreign",
    "foreign_fitted",
    "moved",
    "networks_of",
    "three_models",
]

log = logging.getLogger("secureflux.training")

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

FIRST: Final = 500
"""Local flows after which the product lets a model from elsewhere vote."""
FEWEST: Final = 700
"""Harmless flows of a network that another model is tried on: FIRST, and some to judge."""
MOST_OF_ONE: Final = 1000
"""Flows of one device to fit: one chatty bridge must not be what normal means."""
WEIGHTS: Final = {"home": 0.1, "industrial": 0.1, "live": 0.8}


@dataclass(frozen=True, slots=True)
class Moved:
    """A model of one network on another's flows, at its line for 1 %: `before` with the line it
    came with, `after` with the line of the first FIRST local flows. recall: None without attacks.
    """

    model: str
    source: str
    target: str
    seed: int
    before: float
    after: float
    recall_before: float | None
    recall_after: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Three models on one network: by way of deciding (false-alarm rate, recall) of each run."""

    network: str
    home_from: str
    industrial_from: str
    told: str
    ways: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


# --- moving a line ------------------------------------------------------------------------------


def networks_of(table: Table, fewest: int = FEWEST) -> list[str]:
    """Networks with enough harmless flows; those with days first."""
    names, counts = np.unique(table.normal.networks, return_counts=True)
    kept = [str(name) for name, count in zip(names, counts, strict=True) if count >= fewest]
    dayless = {name for name in kept if not days_of(table.where(table.networks == name))}
    return sorted(kept, key=lambda name: (name in dayless, name))


def moved(table: Table, seeds: Sequence[int]) -> list[Moved]:
    """Every network's models on every other network."""
    names = networks_of(table)
    told: list[Moved] = []
    for source in names:
        for seed in seeds:
            for kind, features in (("home", HOME), ("industrial", INDUSTRIAL)):
                log.info("%s model of %s, seed %d, on other networks", kind, source, seed)
                model = foreign(table, source, kind, features, seed)
                for target in names:
                    if target != source:
                        told.append(_on(model, table, source, target, seed))
    return told


def foreign(table: Table, network: str, kind: str, features: tuple[str, ...], seed: int) -> Model:
    return foreign_fitted(table, network, kind, features, seed).model


def foreign_fitted(
    table: Table, network: str, kind: str, features: tuple[str, ...], seed: int
) -> Fitted:
    """A model of another network: its last day, or a fifth of its devices, set the line."""
    here = _fair(table.where(table.networks == network).normal, seed)
    days = days_of(here)
    if len(days) > 1:
        held = here.days == days[-1]
    else:
        groups = (
            here.devices if len(np.unique(here.devices)) > 4 else np.arange(len(here)).astype(str)
        )
        names = np.random.default_rng(seed).permutation(np.unique(groups))
        held = np.isin(groups, names[: max(1, len(names) // 5)])
    values = here.of(features)
    return fit(kind, "evaluation", features, values[~held], values[held], seed=seed)


def _fair(normal: Table, seed: int) -> Table:
    """Of one device at most MOST_OF_ONE flows."""
    kept = normal.devices == ""
    rng = np.random.default_rng(seed)
    for device in np.unique(normal.devices[~kept]):
        kept[rng.permutation(np.flatnonzero(normal.devices == device))[:MOST_OF_ONE]] = True
    return normal.where(kept)


def first_flows(normal: Table, seed: int) -> NDArray[np.intp]:
    """Places of the flows in the order in which they would be seen here: by time where the flows
    of a network have a common clock (a table with days), else at random."""
    stamps = normal.frame["ts"]
    if len(normal) and (normal.days != "").all() and stamps.notna().all():
        return np.argsort(stamps.to_numpy().astype(np.int64), kind="stable")
    return np.random.default_rng(seed).permutation(len(normal))


def recalibrated(model: Model, values: Values) -> Calibration:
    """The line of a model from elsewhere from local flows: counted anew, nothing fitted."""
    return Calibration.fit(model.look(model.transformed(values)).oddness)


def _on(model: Model, table: Table, source: str, target: str, seed: int) -> Moved:
    here = table.where(table.networks == target)
    normal, attacks = _fair(here.normal, seed), capped(here.attacks, seed)
    order = first_flows(normal, seed)
    values = normal.of(model.features)
    local = recalibrated(model, values[order[:FIRST]])
    assert model.calibration is not None
    calm = _odd(model, values[order[FIRST:]])
    odd = _odd(model, attacks.of(model.features)) if len(attacks) else None
    return Moved(
        model.name,
        source,
        target,
        seed,
        before=_share(model.calibration, calm),
        after=_share(local, calm),
        recall_before=None if odd is None else _share(model.calibration, odd),
        recall_after=None if odd is None else _share(local, odd),
    )


def _odd(model: Model, values: Values) -> Values:
    return model.look(model.transformed(values)).oddness


def _beyond(line: Calibration, oddness: Values, weight: float = 1.0) -> Flags:
    flags: Flags = line.score(oddness) < line.threshold(weight, ALPHA)
    return flags


def _share(line: Calibration, oddness: Values) -> float:
    return float(_beyond(line, oddness).mean())


# --- three models -------------------------------------------------------------------------------


def three_models(table: Table, seeds: Sequence[int]) -> Iterator[Decision]:
    """On every network with days: home and industrial from other networks with days."""
    named = [name for name in networks_of(table) if days_of(table.where(table.networks == name))]
    for network in named:
        others = [name for name in named if name != network]
        # Another edition of the same days is the last choice.
        others.sort(key=lambda name: name.split()[0] == network.split()[0])
        if not others:
            continue
        splits = [split for seed in seeds for split in rotations(table, network, seed)]
        if not splits:
            splits = [split for seed in seeds if (split := local_split(table, network, seed))]
        splits = [split for split in splits if len(split.attacks)]
        if not splits:
            continue
        told = Decision(network, others[0], others[-1], "; ".join({s.told for s in splits}))
        for split in splits:
            log.info("Three models on %s: %s, seed %d", network, split.told, split.seed)
            _decide(told, table, split)
        yield told


def _decide(told: Decision, table: Table, split: Split) -> None:
    normal, attacks = split.normal, split.attacks
    learned = split.fit.values[first_flows(split.fit, split.seed)[:FIRST]]
    scores: dict[str, tuple[Values, Values]] = {}
    lines: dict[str, Calibration] = {}
    models = {
        "home": foreign(table, told.home_from, "home", HOME, split.seed),
        "industrial": foreign(table, told.industrial_from, "industrial", INDUSTRIAL, split.seed),
        "live": ours_fitted("live", LIVE, split),
    }
    for name, model in models.items():
        own = model.calibration
        assert own is not None
        lines[name] = own if name == "live" else recalibrated(model, learned[:, model.columns])
        scores[name] = (
            _odd(model, normal.of(model.features)),
            _odd(model, attacks.of(model.features)),
        )
    votes = [
        np.stack([_beyond(lines[name], scores[name][side]) for name in models]) for side in (0, 1)
    ]
    for needed in (1, 2, 3):
        way = f"votes of at least {needed}" if needed < 3 else "votes of all 3"
        _add(told, way, votes[0].sum(axis=0) >= needed, votes[1].sum(axis=0) >= needed)
    for place, name in enumerate(models):
        _add(told, f"{name} alone", votes[0][place], votes[1][place])
    weighted = [
        np.any([_beyond(lines[name], scores[name][side], WEIGHTS[name]) for name in models], axis=0)
        for side in (0, 1)
    ]
    _add(told, "the product's: budget .8 live, .1 home, .1 industrial", weighted[0], weighted[1])
    _published(told, table, split, normal, attacks)


def _add(told: Decision, way: str, calm: Flags, odd: Flags) -> None:
    told.ways.setdefault(way, []).append((float(calm.mean()), float(odd.mean())))


def _published(told: Decision, table: Table, split: Split, normal: Table, attacks: Table) -> None:
    """The same situation with the published recipe: home and industrial from elsewhere."""
    by_name = {one.name: one for one in candidates()}
    votes = []
    for name, source in (
        ("published recipe, 21 features", told.home_from),
        ("published recipe, 27 features", told.industrial_from),
        ("published recipe, 27 features", None),
    ):
        own = split
        if source is not None:
            there = table.where(table.networks == source).normal
            own = Split(source, "", there, split.fit, split.judged, split.seed)
        judge = by_name[name].fitted(own)
        votes.append([judge.flagged(name, judge.of(part)[name]) for part in (normal, attacks)])
    for needed in (1, 2):
        _add(
            told,
            f"published recipe, votes of at least {needed}",
            np.sum([calm for calm, _ in votes], axis=0) >= needed,
            np.sum([odd for _, odd in votes], axis=0) >= needed,
        )

"""On one's own network: fitted on some days, judged on others (rows 1-6, 10 and 20)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.evaluation.candidates import OURS, PUBLISHED, Candidate, candidates
from training.evaluation.measures import Spread, by_class, recall_at, roc, spread
from training.evaluation.splits import Split, days_of, local_split, rotations
from training.evaluation.tables import Table
from training.figures import auc

__all__ = ["SIZES", "Run", "Runs", "curve_of", "learning_curve", "local_runs", "network_runs"]

log = logging.getLogger("secureflux.training")

Values = NDArray[np.float64]

SIZES = (100, 250, 500, 1000, 2000)
"""Fitted flows of the learning curve."""
RATES = np.geomspace(0.001, 1.0, 61)


@dataclass(frozen=True, slots=True)
class Run:
    """One candidate on one split with one seed; NaN where the judged days do not allow a figure.

    own_*: at the candidate's own line for 1 %, own5_*: for 5 %; at_*: at exactly that rate of
    false alarms on the judged days. curve: recall at RATES. fit_flows: how many were fitted.
    """

    candidate: str
    group: str
    split: str
    seed: int
    fit_flows: int
    normal_flows: int
    auc: float
    at_1: float
    at_5: float
    own_rate: float
    own_recall: float
    own_macro: float
    own5_rate: float
    own5_recall: float
    classes: dict[str, float] = field(default_factory=dict)
    curve: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Runs:
    """All runs on one network, and what was fitted and judged."""

    network: str
    splits: tuple[str, ...]
    attacks: dict[str, dict[str, int]]
    runs: tuple[Run, ...]

    def of(self, candidate: str) -> list[Run]:
        return [run for run in self.runs if run.candidate == candidate]

    def spread(self, candidate: str, figure: str) -> Spread:
        return spread([getattr(run, figure) for run in self.of(candidate)])

    def classes(self, candidate: str) -> dict[str, Spread]:
        """Recall at the own line of each class."""
        seen = sorted({label for run in self.of(candidate) for label in run.classes})
        return {
            label: spread([run.classes.get(label, float("nan")) for run in self.of(candidate)])
            for label in seen
        }

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(run.candidate for run in self.runs))


def network_runs(table: Table, network: str, seeds: Sequence[int]) -> Runs | None:
    """Every candidate on every rotation with every seed; None where the days are too few."""
    splits = [split for seed in seeds for split in rotations(table, network, seed)]
    return _runs(network, splits, candidates()) if splits else None


def local_runs(table: Table, network: str, seeds: Sequence[int]) -> Runs | None:
    """Every candidate on 1,000 local flows of a network (row 7)."""
    splits = [split for seed in seeds if (split := local_split(table, network, seed))]
    return _runs(network, splits, candidates()) if splits else None


def _runs(network: str, splits: Sequence[Split], judged_by: Iterable[Candidate]) -> Runs:
    runs: list[Run] = []
    for split in splits:
        log.info("%s: %s, seed %d", network, split.told, split.seed)
        for candidate in judged_by:
            runs += _judged(candidate, split)
    return Runs(
        network,
        tuple(dict.fromkeys(split.told for split in splits)),
        {split.told: _counted(split.attacks) for split in splits},
        tuple(runs),
    )


def _counted(attacks: Table) -> dict[str, int]:
    labels, counts = np.unique(attacks.labels, return_counts=True)
    return {str(label): int(count) for label, count in zip(labels, counts, strict=True)}


def _judged(candidate: Candidate, split: Split) -> Iterator[Run]:
    normal, attacks = split.normal, split.attacks
    judge = candidate.fitted(split)
    calm_of, odd_of = judge.of(normal), judge.of(attacks)
    for name in judge.lines:
        calm, odd = calm_of[name], odd_of[name]
        flagged = judge.flagged(name, odd)
        classes = by_class(attacks.labels, flagged)
        none = float("nan")
        yield Run(
            candidate=name,
            group="parts" if name != candidate.name else candidate.group,
            split=split.told,
            seed=split.seed,
            fit_flows=len(split.fit),
            normal_flows=len(normal),
            auc=auc(calm, odd) if len(odd) else none,
            at_1=recall_at(calm, odd, 0.01),
            at_5=recall_at(calm, odd, 0.05),
            own_rate=float(judge.flagged(name, calm).mean()),
            own_recall=float(flagged.mean()) if len(odd) else none,
            own_macro=float(np.mean(list(classes.values()))) if classes else none,
            own5_rate=float(judge.flagged(name, calm, 0.05).mean()),
            own5_recall=float(judge.flagged(name, odd, 0.05).mean()) if len(odd) else none,
            classes=classes,
            curve=tuple(np.interp(RATES, *roc(calm, odd)).tolist()) if len(odd) else (),
        )


def curve_of(runs: Runs, candidate: str) -> list[tuple[float, float]]:
    """(false-alarm rate, mean recall) of a candidate over its runs."""
    curves = [run.curve for run in runs.of(candidate) if run.curve]
    if not curves:
        return []
    means = np.mean(curves, axis=0)
    return [(float(x), float(y)) for x, y in zip(RATES, means, strict=True)]


def learning_curve(
    table: Table, network: str, seeds: Sequence[int]
) -> dict[int, dict[str, list[float]]] | None:
    """AUC by the number of fitted flows, of ours and the published recipe (row 10).

    The last day with attacks is judged, the flows to fit come from all others, and what sets the
    experts' own lines from the flows of those days that are left over (at least 250). Only the
    ranking is measured. Each other day with attacks is judged in turn.
    """
    here = table.where(table.networks == network)
    days = days_of(here)
    attacked = [day for day in days if here.on([day]).attack.any()]
    if len(days) < 2 or not attacked:
        return None
    chosen = [one for one in candidates() if one.name in (OURS, PUBLISHED)]
    told: dict[int, dict[str, list[float]]] = {}
    for seed in seeds:
        for day in attacked[-2:]:
            others = here.on([other for other in days if other != day]).normal
            order = np.random.default_rng(seed).permutation(len(others))
            for size in SIZES:
                if len(others) < size + 250:
                    continue
                split = Split(
                    network,
                    f"judged {day}",
                    _rows(others, order[:size]),
                    _rows(others, order[size : size + 1000]),
                    here.on([day]),
                    seed,
                )
                for candidate in chosen:
                    log.info("%s: %d flows of other days than %s", candidate.name, size, day)
                    judge = candidate.fitted(split)
                    calm, odd = (
                        judge.of(part)[candidate.name] for part in (split.normal, split.attacks)
                    )
                    figure = auc(calm, odd)
                    told.setdefault(size, {}).setdefault(candidate.name, []).append(figure)
    return told


def _rows(table: Table, places: NDArray[np.intp]) -> Table:
    mask = np.zeros(len(table), bool)
    mask[places] = True
    return table.where(mask)

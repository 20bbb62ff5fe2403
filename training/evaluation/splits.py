"""Which days are fitted, which set the line, which are judged: split by day, never by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.evaluation.tables import Table, in_order

__all__ = ["CLASS_CAP", "LOCAL", "SEEDS", "Split", "capped", "days_of", "local_split", "rotations"]

Mask = NDArray[np.bool_]

SEEDS: Final = (42, 43, 44)
CLASS_CAP: Final = 1000
"""Attack flows of one class at most, so that no flood decides a figure."""
FEWEST: Final = 100
"""Harmless flows that a day needs to be fitted or to set a line."""
LOCAL: Final = 1000
"""Harmless flows of a network that has a single day: what is learned from there."""


@dataclass(frozen=True, slots=True)
class Split:
    """One way to part a network: `fit` and `line` hold harmless flows only; `judged` all flows of
    the days that are judged."""

    network: str
    told: str
    fit: Table
    line: Table
    judged: Table
    seed: int

    @property
    def normal(self) -> Table:
        return self.judged.normal

    @property
    def attacks(self) -> Table:
        return capped(self.judged.attacks, self.seed)


def days_of(table: Table) -> list[str]:
    """The days of a network with enough harmless flows, in their order."""
    days, counts = np.unique(table.normal.days, return_counts=True)
    return in_order(
        [str(day) for day, count in zip(days, counts, strict=True) if day and count >= FEWEST]
    )


def _ways(days: list[str]) -> list[tuple[list[str], list[str], list[str]]]:
    """(fit, line, judged) of each rotation; the days that are judged come last where there are
    enough of them."""
    n = len(days)
    if n < 3:
        return []
    if n == 3:
        return [([days[i]], [days[(i + 1) % 3]], [days[(i + 2) % 3]]) for i in range(3)]
    if n == 4:
        return [
            (days[:2], [days[2]], [days[3]]),
            ([days[0], days[2]], [days[1]], [days[3]]),
            (days[1:3], [days[0]], [days[3]]),
        ]
    return [
        (days[:-3], [days[-3]], days[-2:]),
        ([*days[:-4], days[-3]], [days[-4]], days[-2:]),
        (days[1:-2], [days[-2]], [days[-1]]),
    ]


def rotations(table: Table, network: str, seed: int) -> Iterator[Split]:
    """The splits of one network by its days; none where it has a single one.

    Of n > 4 days the last two are judged, of four the last, of three each in turn. Of two days
    each is judged by the other, whose last quarter sets the line.
    """
    here = table.where(table.networks == network)
    days = days_of(here)
    if len(days) == 2:
        for learned, other in (days, days[::-1]):
            yield _quartered(here, learned, other, network, seed)
    for fit, line, judged in _ways(days):
        told = f"fit {' + '.join(fit)} | line {' + '.join(line)} | judged {' + '.join(judged)}"
        yield Split(network, told, here.on(fit).normal, here.on(line).normal, here.on(judged), seed)


def _quartered(here: Table, learned: str, judged: str, network: str, seed: int) -> Split:
    calm = here.on([learned]).normal
    order = np.arange(len(calm))
    if calm.frame["ts"].notna().all():
        order = np.argsort(calm.frame["ts"].to_numpy(), kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(order)
    cut = len(calm) * 3 // 4
    told = f"fit three quarters of {learned} | line its last quarter | judged {judged}"
    return Split(
        network, told, _taken(calm, order[:cut]), _taken(calm, order[cut:]), here.on([judged]), seed
    )


def local_split(table: Table, network: str, seed: int) -> Split | None:
    """A network of its own with little to learn from: LOCAL harmless flows of its first day, a
    fifth of them for the line, as the product does it; judged are its other days, or, where there
    is one day only, that day's other flows."""
    here = table.where(table.networks == network)
    days = days_of(here)
    if not days:
        return None
    rng = np.random.default_rng(seed)
    first = rng.permutation(np.flatnonzero((here.days == days[0]) & ~here.attack))
    if len(days) > 1:
        judged, what = here.on(days[1:]), f"judged {' + '.join(days[1:])}"
    elif len(first) >= LOCAL + FEWEST:
        rest = np.ones(len(here), bool)
        rest[first[:LOCAL]] = False
        judged, what = here.where(rest), f"judged the others of {days[0]} (it is the only day)"
    else:
        return None
    learned = first[:LOCAL]
    cut = len(learned) * 4 // 5
    told = f"fit {cut} harmless flows of {days[0]} | line {len(learned) - cut} others | {what}"
    return Split(
        network, told, _taken(here, learned[:cut]), _taken(here, learned[cut:]), judged, seed
    )


def _taken(table: Table, places: NDArray[np.intp]) -> Table:
    mask = np.zeros(len(table), bool)
    mask[places] = True
    return table.where(mask)


def capped(attacks: Table, seed: int) -> Table:
    """At most CLASS_CAP flows a class."""
    kept = np.zeros(len(attacks), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(attacks.labels):
        kept[rng.permutation(np.flatnonzero(attacks.labels == label))[:CLASS_CAP]] = True
    return attacks.where(kept)

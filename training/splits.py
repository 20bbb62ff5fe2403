"""Which flows are fitted and which set the line: whole days, plants, devices and captures."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml.model import SEED
from training.datasets import DAYS, Flows

__all__ = ["HELD_OUT", "MOST_OF_ONE", "capped", "held_out"]

MOST_OF_ONE: Final = 1000
"""Flows taken of one device or capture: one chatty bridge must not be what normal means."""
HELD_OUT: Final = 0.25
"""Part of the flows, in whole devices and captures, that is never fitted and sets the line."""


def capped(flows: Flows) -> Flows:
    """At most MOST_OF_ONE flows of each plant, device and capture, drawn at random."""
    kept = np.isin(flows.groups, DAYS)  # of one network each, none of them one device
    rng = np.random.default_rng(SEED)
    for group in np.unique(flows.groups[~kept]):
        kept[rng.permutation(np.flatnonzero(flows.groups == group))[:MOST_OF_ONE]] = True
    return flows.where(kept)


def held_out(flows: Flows) -> NDArray[np.bool_]:
    """(n,) the flows that set the line: whole groups, unless there is one alone.

    Of the days the last one, of the plants the smallest, of devices and captures some.
    """
    if len(np.unique(flows.groups)) == 1:
        # One capture: its end is the nearest there is to another day.
        return np.arange(len(flows)) >= round((1 - HELD_OUT) * len(flows))
    day, plant = np.isin(flows.groups, DAYS), np.char.startswith(flows.groups, "plant ")
    plants, sizes = np.unique(flows.groups[plant], return_counts=True)
    held = np.isin(flows.groups, [DAYS[-1], *plants[np.argsort(sizes, kind="stable")[:1]]])
    others = ~day & ~plant
    some = np.zeros(len(flows), bool)
    for group in np.random.default_rng(SEED).permutation(np.unique(flows.groups[others]))[:-1]:
        if some.sum() >= HELD_OUT * others.sum():
            break
        some |= flows.groups == group
    return held | some

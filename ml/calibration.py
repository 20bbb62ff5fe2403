"""From a model's own oddness to a score every model shares: log10 of a false-alarm rate.

score = log10(p), p the share of known-normal flows at least as odd (split conformal: the normal
flows counted here were never fitted). 0 is ordinary, -2 "1 in 100 of your normal flows look this
odd". Beyond the oddest of them p goes on by a generalized Pareto tail (Pickands 1975), so that
extreme flows stay ordered instead of all being "rarer than everything"; `beyond` marks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from errors import ModelError

__all__ = ["BINS", "Calibration", "rarity"]

Values = NDArray[np.float64]

BINS: Final = 48
"""Bars of the picture of normal scores."""
TAIL_QUANTILE: Final = 0.98
"""The tail's slope is the mean excess over this quantile of the normal flows."""
TAIL_SHAPE: Final = 0.5
"""Heavy: an exponential tail let one expert alone claim "1 in 10^14" of harmless flows from a
reference of 500, and costs nothing in detection (the same AUC and recall, measured)."""
SMALLEST_TAIL: Final = 0.05
"""Where the oddest normal flows tie, the tail would fall off a cliff; in the unit of a model's
oddness (orders of magnitude, summed over its experts) a tenth of what is usual."""
TIE: Final = 1e-6
"""Of the tail's slope: what differs by less is equally odd. Networks repeat themselves to the last
byte, and the same flow comes out some 1e-15 apart in batches of other sizes; without this a flow
that is one of many alike would now and then be odder than all of them."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of normal flows' oddness.

    oddness: (n,) float64, increasing; of held-out normal flows, higher is odder, any unit.
    smallest_tail: of the tail's slope, in the same unit.

    >>> c = Calibration.fit(np.arange(99.0))
    >>> c.score(np.array([0.0, 89.0, 98.0])).round(2).tolist(), c.threshold(1.0, 0.05).__round__(2)
    ([0.0, -0.96, -1.7], -1.3)
    """

    oddness: Values
    smallest_tail: float = SMALLEST_TAIL
    _tail: float = field(init=False)

    def __post_init__(self) -> None:
        limit = np.quantile(self.oddness, TAIL_QUANTILE)
        excess = self.oddness[self.oddness > limit] - limit
        tail = float(excess.mean()) if len(excess) else 0.0
        object.__setattr__(self, "_tail", max(tail, self.smallest_tail))

    @classmethod
    def fit(cls, oddness: Values, smallest_tail: float = SMALLEST_TAIL) -> Calibration:
        """oddness: (n,) of held-out normal flows, n >= 1, in any order."""
        oddness = np.asarray(oddness, np.float64)
        if oddness.ndim != 1 or not len(oddness) or not np.isfinite(oddness).all():
            raise ModelError("A calibration needs the scores of at least one normal flow.")
        return cls(np.sort(oddness), smallest_tail)

    def __len__(self) -> int:
        return len(self.oddness)

    def score(self, oddness: Values) -> Values:
        """(n,) -> (n,) log10(p), at most 0; lower is odder."""
        reference = len(self.oddness)
        as_odd = reference - self._less_odd(oddness)
        score: Values = np.log10((1.0 + as_odd) / (reference + 1.0))
        score += self._beyond(oddness - self.oddness[-1])
        return score

    def score_left_out(self, oddness: Values) -> Values:
        """(n,) the reference's own flows, in any order -> (n,) log10(p), each among the others.

        What a flow outside of the reference would score; counted among themselves the oddest
        would look more ordinary than they are.
        """
        reference = len(self.oddness)
        others_as_odd = reference - 1 - self._less_odd(oddness)
        score: Values = np.log10((1.0 + others_as_odd) / reference)
        score += self._beyond(oddness - self.oddness[max(reference - 2, 0)])
        return score

    def _less_odd(self, oddness: Values) -> NDArray[np.intp]:
        """(n,) -> (n,) how many flows of the reference are less odd."""
        return np.searchsorted(self.oddness, oddness - TIE * self._tail, side="left")

    def _beyond(self, excess: Values) -> Values:
        """(n,) oddness beyond the oddest -> (n,) what log10(p) loses there, at most 0."""
        relative = np.maximum(excess, 0.0) / self._tail
        lost: Values = -np.log10(1.0 + TAIL_SHAPE * relative) / TAIL_SHAPE
        return lost

    def beyond(self, oddness: Values) -> NDArray[np.bool_]:
        """(n,) odder than every normal flow of the reference."""
        odder: NDArray[np.bool_] = oddness - TIE * self._tail > self.oddness[-1]
        return odder

    @property
    def oddest(self) -> float:
        """The score of the oddest normal flow of the reference."""
        return float(np.log10(2.0 / (len(self.oddness) + 1.0)))

    def threshold(self, weight: float, alpha: float) -> float:
        """The line of a vote: a model may object to the share weight * alpha of normal flows.

        A reference of n flows knows no rate below 2 / (n + 1), so the line never asks for one.
        """
        return float(np.log10(max(weight * alpha, 2.0 / (len(self.oddness) + 1.0))))

    def oddness_at(self, score: float) -> float:
        """The oddness at which flows begin to score below `score`."""
        allowed = 10.0**score * (len(self.oddness) + 1.0) - 1.0
        # Float noise must not cost a whole flow where the line falls on one.
        place = len(self.oddness) - 1 - int(np.floor(max(allowed, 0.0) + 1e-9))
        return float(self.oddness[max(place, 0)])

    def histogram(self, threshold: float) -> dict[str, Any]:
        """The normal flows' own scores in BINS equal bars from `low` to 0, for the page.

        The axis reaches to twice the line, where a flow becomes critical, or to the oddest.
        """
        low = float(min(2.0 * threshold, self.oddest))
        counts, _ = np.histogram(self.score(self.oddness), BINS, (low, 0.0))
        return {"low": low, "high": 0.0, "counts": counts.tolist()}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"calibration_oddness": self.oddness}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Calibration | None:
        """None where the arrays hold no calibration."""
        if "calibration_oddness" not in arrays:
            return None
        return cls.fit(arrays["calibration_oddness"])


def rarity(score: float, reference: int, beyond: bool) -> dict[str, Any]:
    """A score as "1 in n", n never finer than the reference; `beyond` as Calibration.beyond."""
    if reference <= 0 or not np.isfinite(score):
        return {"n": None, "reference": 0, "beyond": False}
    # Beyond that many powers of ten floats end, and no reference reaches them.
    n = 10.0 ** min(-score, 300.0)
    return {"n": min(n, reference), "reference": reference, "beyond": bool(beyond)}

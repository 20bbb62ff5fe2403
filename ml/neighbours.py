"""Locally scaled nearest neighbours: how far a flow lies from the normal flows most like it.

s(x) = mean over the 3 nearest references of d_i / (r_i + 0.1 median r)^0.5, d_i the distance in
clipped quantile space and r_i the mean distance of reference i to its own 10 nearest. In a crowd a
small step aside is odd; where normal flows lie far apart it is not. Three neighbours instead of
one, because a single attack flow that slipped in would make its whole surroundings normal.

One matrix product finds who is near, the compiled loop picks the nearest, and only their distances
are measured exactly: the product loses the last digits where a flow lies on a reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compiled import compiled
from errors import ModelError
from ml.transform import clipped, squared_distances

__all__ = ["Neighbours", "nearest", "warm"]

Values = NDArray[np.float64]
Singles = NDArray[np.float32]

NEAREST: Final = 3
OWN_NEAREST: Final = 10
MOST: Final = 4000
"""References at most; more are drawn from at random."""
PIECE: Final = 256
"""Rows of one product, so that it stays in the processor's cache."""
SOFTENING: Final = 0.1
"""Part of the median spacing added to each reference's own, which may be 0 among copies."""
SMALLEST_SPACING: Final = 1e-6


@compiled
def nearest(
    points: Singles,
    references: Singles,
    half_squares: Singles,
    products: Singles,
    found: Values,
    places: NDArray[np.int64],
) -> None:
    """found[i], places[i]: distances of points[i] to its NEAREST nearest references, and which.

    points: (n, k); references: (m, k), half_squares: (m,) half their squared lengths;
    products: (n, m) points @ references.T; found, places: (n, NEAREST), nearest first.
    """
    for i in range(points.shape[0]):
        # |x - r|^2 / 2 without |x|^2 / 2, which is the same for all: the least is the nearest.
        first = second = third = np.float32(np.inf)
        a = b = c = 0
        for j in range(references.shape[0]):
            rank = half_squares[j] - products[i, j]
            if rank < third:
                if rank < first:
                    first, second, third = rank, first, second
                    a, b, c = j, a, b
                elif rank < second:
                    second, third = rank, second
                    b, c = j, b
                else:
                    third = rank
                    c = j
        places[i, 0] = a
        places[i, 1] = b
        places[i, 2] = c
        for best in range(NEAREST):
            total = 0.0
            for j in range(points.shape[1]):
                apart = np.float64(points[i, j]) - np.float64(references[places[i, best], j])
                total += apart * apart
            found[i, best] = np.sqrt(total)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """References and how widely each is spaced.

    references: (m, k) float32 within +-CLIP, m >= NEAREST; spacing: (m,) r_i.
    """

    references: Singles
    spacing: Values
    _half_squares: Singles = field(init=False, repr=False)
    _scales: Values = field(init=False, repr=False)

    def __post_init__(self) -> None:
        squares = (self.references.astype(np.float64) ** 2).sum(axis=1)
        object.__setattr__(self, "_half_squares", (squares / 2).astype(np.float32))
        median = max(float(np.median(self.spacing)), SMALLEST_SPACING)
        object.__setattr__(self, "_scales", np.sqrt(self.spacing + SOFTENING * median))

    @classmethod
    def fit(cls, z: Values, *, seed: int) -> Neighbours:
        """z: (n, k) transformed normal flows with at least NEAREST different ones among them."""
        rows = np.unique(clipped(z).astype(np.float32), axis=0)
        if len(rows) < NEAREST:
            rows = np.repeat(rows, NEAREST, axis=0)
        if len(rows) > MOST:
            kept = np.random.default_rng(seed).choice(len(rows), MOST, replace=False)
            rows = rows[np.sort(kept)]
        return cls(rows, _spacing(rows))

    def oddness(self, z: Values) -> Values:
        points = clipped(z).astype(np.float32)
        if points.ndim != 2 or points.shape[1] != self.references.shape[1]:
            raise ModelError(
                f"The neighbours want {self.references.shape[1]} columns, not {points.shape[1:]}."
            )
        found = np.empty((len(points), NEAREST))
        places = np.empty((len(points), NEAREST), np.int64)
        for start in range(0, len(points), PIECE):
            piece = np.ascontiguousarray(points[start : start + PIECE])
            nearest(
                piece,
                self.references,
                self._half_squares,
                piece @ self.references.T,
                found[start : start + PIECE],
                places[start : start + PIECE],
            )
        out: Values = (found / self._scales[places]).mean(axis=1)
        return out

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"neighbours": self.references, "neighbours_spacing": self.spacing}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Neighbours:
        references = np.ascontiguousarray(arrays["neighbours"], np.float32)
        spacing = np.asarray(arrays["neighbours_spacing"], np.float64)
        sound = (
            references.ndim == 2
            and spacing.ndim == 1
            and len(references) == len(spacing) >= NEAREST
            and np.isfinite(references).all()
            and np.isfinite(spacing).all()
            and (spacing >= 0).all()
        )
        if not sound:
            raise ModelError("The neighbours' arrays do not fit together.")
        return cls(references, spacing)


def _spacing(rows: Singles) -> Values:
    """(m,) mean distance of each row to its OWN_NEAREST nearest others."""
    others = min(OWN_NEAREST, len(rows) - 1)
    points = rows.astype(np.float64)
    out = np.empty(len(points))
    for start in range(0, len(points), 512):
        piece = points[start : start + 512]
        distances = squared_distances(piece, points)
        distances[np.arange(len(piece)), start + np.arange(len(piece))] = np.inf
        closest = np.partition(distances, others - 1, axis=1)[:, :others]
        out[start : start + 512] = np.sqrt(np.maximum(closest, 0.0)).mean(axis=1)
    return out


def warm() -> None:
    """Compile (or load from the cache) the loop before the first flow needs it."""
    corner = np.zeros((NEAREST, 1), np.float32)
    Neighbours(corner, np.ones(NEAREST)).oddness(np.zeros((1, 1)))

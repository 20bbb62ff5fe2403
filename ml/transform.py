"""Features of flows on one scale: mid-rank quantile-normal transform, and whitening.

Traffic features are heavy-tailed, full of ties and zero-inflated. Ranks put them on one scale;
mid ranks keep a tie in the middle of its place, where scikit-learn's QuantileTransformer sends a
column of zeros to -5.2 (measured: AUC .649 there, .720 with mid ranks, on the same forest).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from errors import ModelError
from ml.forest import interpolate

__all__ = [
    "CLIP",
    "QuantileNormal",
    "Scaler",
    "Whitening",
    "clipped",
    "finite",
    "squared_distances",
]

Values = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

KNOTS: Final = 1000
"""Knots a feature at most: 1,000 over about 7 standard deviations, 0.007 of one apart."""
CLIP: Final = 3.0
"""Distances between flows are taken within +-3: one giant transfer must not rule them."""
EIGENVALUE_FLOOR: Final = 1e-6
"""Keeps directions without spread finite; the forest ignores scale, so its height is free."""


def finite(values: Values) -> Values:
    """A copy in which NaN and infinities are 0: what a flow lacks counts as nothing."""
    out: Values = np.where(np.isfinite(values), values, 0.0)
    return out


def clipped(z: Values) -> Values:
    """Transformed values within +-CLIP, for everything that measures distances."""
    return np.clip(z, -CLIP, CLIP)


def squared_distances(points: Values, others: Values) -> Values:
    """(n, k), (m, k) -> (n, m); of equal rows some 1e-15 may be left, of either sign."""
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    distances: Values = squares - 2.0 * points @ others.T
    return distances


@dataclass(frozen=True, slots=True)
class QuantileNormal:
    """z = Phi^-1(m(x)), m the mid rank (#{v < x} + #{v = x} / 2) / n among the fitted values.

    xs, zs: the knots of all features one after the other, at most KNOTS each, increasing;
        values in between are interpolated. starts: (k + 1,) where each feature's knots begin.
    scales: (k,) the 1st to 99th percentile span; beyond the fitted range z goes on by
        log1p(excess / scale), so that "far outside" stays ordered but can't run away.

    >>> t = QuantileNormal.fit(np.array([[0.0], [0.0], [0.0], [10.0]]))
    >>> t.apply(np.array([[0.0], [10.0], [20.0]])).round(2).ravel().tolist()
    [-0.32, 1.15, 1.86]
    """

    xs: Values
    zs: Values
    starts: NDArray[np.int64]
    scales: Values
    _lowest: Values = field(init=False)
    _highest: Values = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lowest", self.xs[self.starts[:-1]])
        object.__setattr__(self, "_highest", self.xs[self.starts[1:] - 1])

    @classmethod
    def fit(cls, values: Values) -> QuantileNormal:
        """values: (n, k) features of normal flows, n >= 2."""
        values = finite(values)
        xs, zs = [], []
        for column in values.T:
            x, counts = np.unique(column, return_counts=True)
            z = ndtri((np.cumsum(counts) - counts / 2) / len(column))
            if len(x) > KNOTS:
                kept = np.unique(np.searchsorted(z, np.linspace(z[0], z[-1], KNOTS)))
                x, z = x[kept], z[kept]
            xs.append(x)
            zs.append(z)
        low, high = np.percentile(values, (1, 99), axis=0)
        span = np.ptp(values, axis=0)
        # Zero-inflated columns have no percentile span, constant ones no span at all.
        scales = np.where(high > low, high - low, np.where(span > 0, span, 1.0))
        starts = np.cumsum([0, *(len(x) for x in xs)])
        return cls(np.concatenate(xs), np.concatenate(zs), starts, scales)

    def apply(self, values: Values) -> Values:
        """(n, k) features -> (n, k) z, always finite."""
        # Always a copy: a read-only buffer would be a second signature, compiled on the spot.
        values = np.array(values, np.float64, order="C")
        if values.ndim != 2 or values.shape[1] != len(self.scales):
            raise ModelError(
                f"The transform wants {len(self.scales)} columns, not {values.shape[1:]}."
            )
        out = np.empty_like(values)
        outside = np.empty(values.shape, bool)
        interpolate(values, self.xs, self.zs, self.starts, out, outside)
        # Few values lie outside, and a logarithm costs as much as the whole interpolation.
        places = np.flatnonzero(outside)
        columns = places % values.shape[1]
        beyond = finite(values.reshape(-1)[places])
        above, below = beyond - self._highest[columns], self._lowest[columns] - beyond
        far = np.log1p(np.maximum(above, below) / self.scales[columns])
        out.reshape(-1)[places] += np.where(above > 0, far, -far)
        return out

    def to_arrays(self) -> Arrays:
        return {
            "quantile_x": self.xs,
            "quantile_z": self.zs,
            "quantile_starts": self.starts,
            "quantile_scales": self.scales,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> QuantileNormal:
        """ModelError for arrays that would lead the interpolation outside of them."""
        xs, zs, scales = (
            np.ascontiguousarray(arrays[f"quantile_{name}"], np.float64)
            for name in ("x", "z", "scales")
        )
        starts = np.ascontiguousarray(arrays["quantile_starts"], np.int64)
        sound = (
            all(array.ndim == 1 for array in (xs, zs, scales, starts))
            and len(starts) == len(scales) + 1 > 1
            and starts[0] == 0
            and starts[-1] == len(xs) == len(zs)
            and (np.diff(starts) > 0).all()
            and np.isfinite(xs).all()
            and np.isfinite(zs).all()
            # Within a feature the knots increase.
            and np.isin(np.flatnonzero(np.diff(xs) <= 0) + 1, starts).all()
            and (scales > 0).all()
        )
        if not sound:
            raise ModelError("The transform's arrays do not fit together.")
        return cls(xs, zs, starts, scales)


@dataclass(frozen=True, slots=True)
class Whitening:
    """Rotation onto the principal axes of normal traffic, each scaled to spread 1.

    An axis-parallel forest sees a broken relation between features (many packets, few bytes)
    only after a rotation. mean: (k,); matrix: (k, k), z -> (z - mean) @ matrix.
    """

    mean: Values
    matrix: Values

    @classmethod
    def fit(cls, z: Values) -> Whitening:
        covariance = np.atleast_2d(np.cov(z, rowvar=False))
        eigenvalues, vectors = np.linalg.eigh(covariance)
        return cls(z.mean(axis=0), vectors / np.sqrt(np.maximum(eigenvalues, EIGENVALUE_FLOOR)))

    def apply(self, z: Values) -> Values:
        out: Values = (z - self.mean) @ self.matrix
        return out

    def to_arrays(self) -> Arrays:
        return {"whitening_mean": self.mean, "whitening_matrix": self.matrix}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Whitening:
        mean, matrix = (
            np.asarray(arrays[f"whitening_{name}"], np.float64) for name in ("mean", "matrix")
        )
        sound = (
            matrix.shape == (len(mean), len(mean))
            and np.isfinite(mean).all()
            and np.isfinite(matrix).all()
        )
        if not sound:
            raise ModelError("The whitening's arrays do not fit together.")
        return cls(mean, matrix)


@dataclass(frozen=True, slots=True)
class Scaler:
    """Both steps behind the name people expect; what `home_scaler.pkl` and its like hold.

    `isolation_forest.score_samples(scaler.transform(X))` is a model's raw score.
    """

    quantiles: QuantileNormal
    whitening: Whitening

    def transform(self, values: Values) -> Values:
        return self.whitening.apply(self.quantiles.apply(values))

"""A mixture of Gaussians over transformed features: how densely normal flows lie around a flow.

GaussianMixture(32, full covariances, ridge 0.1) on clipped quantile space, fitted by scikit-learn
and flattened: log density = logsumexp over components of
log w + log|P| - k/2 log 2 pi - |(x - mean) P|^2 / 2, P the Cholesky factor of the precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from errors import ModelError
from ml.transform import clipped

__all__ = ["Mixture", "fit_mixture"]

Values = NDArray[np.float64]

COMPONENTS: Final = 32
ROWS_A_COMPONENT: Final = 50
"""Fewer flows do not show the shape of a component."""
RIDGE: Final = 0.1
"""Added to each variance: the clipped space is six wide, and copies of one flow have no width."""
PIECE: Final = 64
"""Rows at a time, so that what lies between stays in the processor's cache."""
ITERATIONS: Final = 10
"""As good as 60 on later days and other networks, at a third of the time (measured)."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """factors: (c, k, k) Cholesky factors of the precisions; shifts: (c, k) means @ factors;
    heights: (c,) log weight and normalisation of each component."""

    factors: Values
    shifts: Values
    heights: Values
    _side_by_side: Values = field(init=False)

    def __post_init__(self) -> None:
        """(k, c * k) the factors of all components."""
        object.__setattr__(self, "_side_by_side", np.concatenate(list(self.factors), axis=1))

    @classmethod
    def flatten(cls, estimator: Any) -> Mixture:
        """From a fitted sklearn.mixture.GaussianMixture with full covariances."""
        # As the file keeps them, so that a saved mixture sees the same.
        factors = estimator.precisions_cholesky_.astype(np.float32).astype(np.float64)
        k = factors.shape[1]
        log_determinants = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        return cls(
            factors=factors,
            shifts=np.einsum("ck,ckj->cj", estimator.means_, factors),
            heights=np.log(estimator.weights_) + log_determinants - k / 2 * np.log(2 * np.pi),
        )

    def oddness(self, z: Values) -> Values:
        """(n, k) -> (n,) minus the log density, nats."""
        points = clipped(z)
        out = np.empty(len(points))
        for start in range(0, len(points), PIECE):
            # All components at once: of a few rows, one product costs a tenth of 32.
            apart = points[start : start + PIECE] @ self._side_by_side
            apart -= self.shifts.ravel()
            apart = apart.reshape(len(apart), *self.shifts.shape)
            logs = self.heights - 0.5 * np.einsum("nck,nck->nc", apart, apart)
            # Written out: scipy's logsumexp costs more than the product.
            highest = logs.max(axis=1)
            rest = np.exp(logs - highest[:, None]).sum(axis=1)
            out[start : start + PIECE] = -highest - np.log(rest)
        return out

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "mixture_factors": self.factors.astype(np.float32),
            "mixture_shifts": self.shifts,
            "mixture_heights": self.heights,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Mixture:
        factors, shifts, heights = (
            np.asarray(arrays[f"mixture_{name}"], np.float64)
            for name in ("factors", "shifts", "heights")
        )
        c, k = shifts.shape
        sound = (
            factors.shape == (c, k, k)
            and heights.shape == (c,)
            and c > 0
            and all(np.isfinite(array).all() for array in (factors, shifts, heights))
        )
        if not sound:
            raise ModelError("The mixture's arrays do not fit together.")
        return cls(factors, shifts, heights)


def fit_mixture(z: Values, *, seed: int) -> Any:
    """(n, k) transformed normal flows -> a fitted sklearn.mixture.GaussianMixture."""
    # Imported here: scikit-learn costs 110 MiB and judging does not need it.
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = clipped(z)
    estimator = GaussianMixture(
        max(1, min(COMPONENTS, len(points) // ROWS_A_COMPONENT)),
        covariance_type="full",
        reg_covar=RIDGE,
        max_iter=ITERATIONS,
        random_state=seed,
    )
    # The k-means it begins with spins on every core: 7.8 s of CPU in place of .4 on a busy machine.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(points)

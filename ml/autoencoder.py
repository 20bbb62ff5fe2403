"""A bottleneck autoencoder: what of a flow can't be told from the rest of it.

A network (48, 10, 48) learns to repeat normal flows through ten numbers; a flow whose features do
not belong together comes out different. The oddness is the Mahalanobis length of that difference
under the differences of normal flows (Ledoit & Wolf 2004): what a feature is usually missed by
counts little (AUC .968 against .887 for the plain error, measured).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from errors import ModelError
from ml.transform import clipped

__all__ = ["Autoencoder", "fit_autoencoder"]

Values = NDArray[np.float64]

HIDDEN: Final = (48, 10, 48)
BATCH: Final = 200
STEPS: Final = 600
"""Batches learned from, however many flows there are: 60 epochs of 2,000. Twice as many fit the
normal days closer and see less (AUC .974 and .965 on a later day)."""


@dataclass(frozen=True, slots=True)
class Autoencoder:
    """weights, biases: of the layers, rectified but the last; differences of normal flows have
    mean `centre` (k,) and, times `scale` (k, k), spread 1 in every direction."""

    weights: tuple[Values, ...]
    biases: tuple[Values, ...]
    centre: Values
    scale: Values

    @classmethod
    def flatten(cls, estimator: Any, z: Values) -> Autoencoder:
        """From a fitted sklearn.neural_network.MLPRegressor and the flows it was fitted on."""
        from sklearn.covariance import ledoit_wolf

        weights = tuple(np.asarray(layer, np.float64) for layer in estimator.coefs_)
        biases = tuple(np.asarray(layer, np.float64) for layer in estimator.intercepts_)
        points = clipped(z)
        differences = points - _repeated(points, weights, biases)
        centre = differences.mean(axis=0)
        covariance, _ = ledoit_wolf(differences)
        eigenvalues, vectors = np.linalg.eigh(covariance)
        return cls(weights, biases, centre, vectors / np.sqrt(np.maximum(eigenvalues, 1e-6)))

    def oddness(self, z: Values) -> Values:
        """(n, k) -> (n,) Mahalanobis length of what the network misses."""
        points = clipped(z)
        missed = (points - _repeated(points, self.weights, self.biases) - self.centre) @ self.scale
        out: Values = np.sqrt(np.einsum("ij,ij->i", missed, missed))
        return out

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {"autoencoder_centre": self.centre, "autoencoder_scale": self.scale}
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            arrays[f"autoencoder_weight_{layer}"] = weight
            arrays[f"autoencoder_bias_{layer}"] = bias
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Autoencoder:
        layers = range(len(HIDDEN) + 1)
        weights = tuple(np.asarray(arrays[f"autoencoder_weight_{i}"], np.float64) for i in layers)
        biases = tuple(np.asarray(arrays[f"autoencoder_bias_{i}"], np.float64) for i in layers)
        centre = np.asarray(arrays["autoencoder_centre"], np.float64)
        scale = np.asarray(arrays["autoencoder_scale"], np.float64)
        k = len(centre)
        widths = [k, *(len(bias) for bias in biases)]
        sound = (
            widths[-1] == k
            and scale.shape == (k, k)
            and all(
                weight.shape == (before, after)
                for weight, before, after in zip(weights, widths[:-1], widths[1:], strict=True)
            )
            and all(np.isfinite(array).all() for array in (*weights, *biases, centre, scale))
        )
        if not sound:
            raise ModelError("The autoencoder's arrays do not fit together.")
        return cls(weights, biases, centre, scale)


def fit_autoencoder(z: Values, *, seed: int) -> Any:
    """(n, k) transformed normal flows -> a fitted sklearn.neural_network.MLPRegressor."""
    # Imported here: scikit-learn costs 110 MiB and judging does not need it.
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    points = clipped(z)
    epochs = max(1, round(STEPS / -(-len(points) // BATCH)))
    # Named: since scikit-learn 1.7 the first positional argument is the loss.
    estimator = MLPRegressor(
        hidden_layer_sizes=HIDDEN,
        batch_size=min(BATCH, len(points)),
        max_iter=epochs,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(points, points)


def _repeated(points: Values, weights: tuple[Values, ...], biases: tuple[Values, ...]) -> Values:
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        points = np.maximum(points @ weight + bias, 0.0)
    out: Values = points @ weights[-1] + biases[-1]
    return out

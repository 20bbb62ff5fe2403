"""One model of normal traffic: transform, experts, calibration, and what explanations need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from errors import ModelError
from features import COLUMNS
from ml.calibration import Calibration
from ml.forest import Forest
from ml.transform import QuantileNormal, Scaler, Whitening, clipped

__all__ = [
    "SEED",
    "Expert",
    "Fitted",
    "ForestExpert",
    "Model",
    "assemble",
    "fit",
    "fit_forest",
    "fit_scaler",
]

Values = NDArray[np.float64]

TREES: Final = 100
"""The specification's n_estimators; 200 and 400 gain nothing (measured)."""
MAX_SAMPLES: Final = 4096
"""256 rows a tree throw away the rare ways of being normal: AUC .949 there, .956 here."""
CONTAMINATION: Final = 0.01
SEED: Final = 42
FEWEST: Final = 50
"""Flows below which percentiles and a covariance of up to 39 features mean nothing."""
MEDOIDS: Final = 512
"""Normal flows kept to explain odd ones by; the distance to all of them costs 20 us a flow."""
ROUNDS: Final = 5
USUAL: Final = (1.0, 99.0)
"""Percentiles of the usual range: it holds 98 of 100 normal flows."""


class Expert(Protocol):
    """One way to see what is odd; a model's experts add up."""

    def oddness(self, z: Values) -> Values:
        """(n, k) transformed features -> (n,), higher is odder."""
        ...

    def to_arrays(self) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True, slots=True)
class ForestExpert:
    """The isolation forest on whitened features; oddness 0..1, minus scikit-learn's score."""

    whitening: Whitening
    forest: Forest

    def oddness(self, z: Values) -> Values:
        return -self.forest.score(self.whitening.apply(z))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {**self.whitening.to_arrays(), **self.forest.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ForestExpert:
        return cls(Whitening.from_arrays(arrays), Forest.from_arrays(arrays))


@dataclass(frozen=True, slots=True)
class Model:
    """What is normal for one kind of network, as arrays; it judges and never changes.

    features: canonical names, k of them. experts: their oddness adds up; the forest comes first,
    its own score stays visible. calibration: on normal flows that were not fitted.
    low, high: (k,) usual range of each feature, in its own unit.
    medoids: (r, k) float64, transformed normal flows that stand for all of them.
    manifest: what the model's file says about itself.
    """

    name: str
    version: str
    features: tuple[str, ...]
    transform: QuantileNormal
    experts: tuple[Expert, ...]
    calibration: Calibration | None
    low: Values
    high: Values
    medoids: Values
    manifest: Mapping[str, Any] = field(default_factory=dict)
    columns: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        unknown = [name for name in self.features if name not in COLUMNS]
        if unknown:
            raise ModelError(f"Model {self.name} wants features nobody computes: {unknown}.")
        places = np.array([COLUMNS.index(name) for name in self.features], np.intp)
        object.__setattr__(self, "columns", places)

    def transformed(self, values: Values) -> Values:
        """(n, k) features -> (n, k) z."""
        return self.transform.apply(values)

    def oddness(self, z: Values) -> tuple[Values, Values]:
        """(n, k) z -> (raw, oddness), each (n,).

        raw: the forest's own score, -1..0, lower is odder; oddness: of all experts together,
        higher is odder, the unit the calibration is in.
        """
        parts = [expert.oddness(z) for expert in self.experts]
        return -parts[0], np.sum(parts, axis=0)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {
            "low": self.low,
            "high": self.high,
            "medoids": self.medoids.astype(np.float32),
        }
        arrays.update(self.transform.to_arrays())
        for expert in self.experts:
            arrays.update(expert.to_arrays())
        if self.calibration is not None:
            arrays.update(self.calibration.to_arrays())
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> Model:
        """ModelError where an array is missing or they do not fit together."""
        try:
            features = tuple(manifest["features"])
            model = cls(
                name=str(manifest["name"]),
                version=str(manifest["version"]),
                features=features,
                transform=QuantileNormal.from_arrays(arrays),
                experts=(ForestExpert.from_arrays(arrays),),
                calibration=Calibration.from_arrays(arrays),
                low=arrays["low"],
                high=arrays["high"],
                medoids=arrays["medoids"].astype(np.float64),
                manifest=manifest,
            )
        except KeyError as error:
            raise ModelError(f"The model lacks {error}.") from error
        k = len(features)
        widths = {
            len(model.transform.scales),
            len(model.low),
            len(model.high),
            model.medoids.shape[1],
        }
        if widths != {k}:
            raise ModelError(f"The model names {k} features but its arrays hold {sorted(widths)}.")
        model.oddness(model.medoids[:1])
        return model


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fresh model, and the estimator and scaler it was flattened from, for people to open."""

    model: Model
    estimator: Any
    scaler: Scaler


def fit(
    name: str,
    version: str,
    features: tuple[str, ...],
    normal: Values,
    held_out: Values | None,
    *,
    seed: int = SEED,
) -> Fitted:
    """Fit a model on normal flows: scaler, forest, then what makes a model of them.

    normal: (n, k) features of the flows to fit, n >= 50. held_out: (m, k) of other normal flows,
    which set the line; None leaves the model without a calibration.
    """
    scaler = fit_scaler(normal)
    estimator = fit_forest(scaler.transform(normal), seed=seed)
    return assemble(name, version, features, scaler, estimator, normal, held_out, seed=seed)


def fit_scaler(normal: Values) -> Scaler:
    """(n, k) features of normal flows -> the transform and the whitening learned from them."""
    if len(normal) < FEWEST:
        raise ModelError(f"A model can't be fitted on {len(normal)} flows; {FEWEST} are needed.")
    quantiles = QuantileNormal.fit(normal)
    return Scaler(quantiles, Whitening.fit(quantiles.apply(normal)))


def fit_forest(white: Values, *, seed: int = SEED) -> Any:
    """(n, k) scaled features -> a fitted sklearn.ensemble.IsolationForest."""
    # Imported here: scikit-learn costs 110 MiB and judging does not need it.
    from sklearn.ensemble import IsolationForest

    return IsolationForest(
        n_estimators=TREES,
        max_samples=min(MAX_SAMPLES, len(white)),
        contamination=CONTAMINATION,
        random_state=seed,
    ).fit(white)


def assemble(
    name: str,
    version: str,
    features: tuple[str, ...],
    scaler: Scaler,
    estimator: Any,
    normal: Values,
    held_out: Values | None,
    *,
    seed: int = SEED,
) -> Fitted:
    """A model from its parts; `normal` gives usual ranges and medoids, `held_out` the line."""
    expert = ForestExpert(scaler.whitening, Forest.flatten(estimator))
    calibration = None
    if held_out is not None and len(held_out):
        calibration = Calibration.fit(expert.oddness(scaler.quantiles.apply(held_out)))
    low, high = np.percentile(normal, USUAL, axis=0)
    model = Model(
        name=name,
        version=version,
        features=features,
        transform=scaler.quantiles,
        experts=(expert,),
        calibration=calibration,
        low=low,
        high=high,
        medoids=_medoids(scaler.quantiles.apply(normal), seed),
    )
    return Fitted(model, estimator, scaler)


def _medoids(z: Values, seed: int) -> Values:
    """The flows nearest to the centres of at most MEDOIDS clusters (k-means, ROUNDS rounds).

    Written out: scikit-learn's spreads over all cores, which on a busy machine made a training of
    0.7 s last 5 s, and packets wait for those cores.
    """
    rows = np.unique(z, axis=0)
    if len(rows) <= MEDOIDS:
        return rows
    points = clipped(rows)
    centres = points[np.random.default_rng(seed).choice(len(rows), MEDOIDS, replace=False)]
    for _ in range(ROUNDS):
        cluster = _distances(points, centres).argmin(axis=1)
        sizes = np.bincount(cluster, minlength=MEDOIDS)
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, points)
        # An empty cluster stays where it is.
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    nearest: Values = rows[np.unique(_distances(points, centres).argmin(axis=0))]
    return nearest


def _distances(points: Values, centres: Values) -> Values:
    """(n, m) squared distances."""
    squares = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    distances: Values = squares - 2.0 * points @ centres.T
    return distances

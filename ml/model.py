"""One model of normal traffic: transform, experts, calibration, and what explanations need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from errors import ModelError
from features import COLUMNS
from ml.autoencoder import Autoencoder, fit_autoencoder
from ml.calibration import Calibration
from ml.experts import EXPERTS, Expert, ForestExpert
from ml.forest import Forest
from ml.mixture import Mixture, fit_mixture
from ml.neighbours import Neighbours
from ml.transform import (
    QuantileNormal,
    Scaler,
    Whitening,
    clipped,
    finite,
    squared_distances,
)

__all__ = [
    "SEED",
    "Fitted",
    "Look",
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
"""Flows below which percentiles and a covariance of up to 40 features mean nothing."""
MEDOIDS: Final = 512
"""Normal flows kept to explain odd ones by; the distance to all of them costs 20 us a flow."""
REFERENCES: Final = 2048
"""Medoids that stand for the flows of a shipped model where neighbours are measured."""
ROUNDS: Final = 5
USUAL: Final = (1.0, 99.0)
"""Percentiles of the usual range: it holds 98 of 100 normal flows."""
FOLDS: Final = 5


class Look(NamedTuple):
    """How odd flows are to a model.

    raw: (n,) the forest's own score, -1..0, lower is odder. parts: (n, experts) log10 of the share
    of held-out normal flows at least as odd to each expert. oddness: (n,) minus their weighted sum
    (Fisher 1932, as a score: the experts depend on each other), the calibration's unit.
    """

    raw: Values
    parts: Values
    oddness: Values


@dataclass(frozen=True, slots=True)
class Model:
    """What is normal for one kind of network, as arrays; it judges and never changes.

    features: canonical names, k of them. experts: by name, the forest first, its own score stays
    visible. references, weights: what each expert's oddness is counted on and what it counts, in
    the same order.
    calibration: what that of all together is counted on, normal flows that were not fitted.
    low, high: (k,) usual range of each feature, in its own unit.
    medoids: (r, k) float64, transformed normal flows that stand for all of them.
    manifest: what the model's file says about itself.
    """

    name: str
    version: str
    features: tuple[str, ...]
    transform: QuantileNormal
    experts: Mapping[str, Expert]
    references: tuple[Calibration, ...]
    weights: Values
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

    @property
    def expert_names(self) -> tuple[str, ...]:
        return tuple(self.experts)

    def look(self, z: Values) -> Look:
        """(n, k) z -> how odd each flow is."""
        own = [expert.oddness(z) for expert in self.experts.values()]
        parts = np.empty((len(z), len(own)))
        for place, (reference, oddness) in enumerate(zip(self.references, own, strict=True)):
            parts[:, place] = reference.score(oddness)
        return Look(-own[0], parts, -(parts @ self.weights))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {
            "low": self.low,
            "high": self.high,
            "medoids": self.medoids.astype(np.float32),
            "reference_oddness": np.stack([one.oddness for one in self.references]),
            "weights": self.weights,
            "reference_tails": np.array([one.smallest_tail for one in self.references]),
        }
        arrays.update(self.transform.to_arrays())
        for expert in self.experts.values():
            arrays.update(expert.to_arrays())
        if self.calibration is not None:
            arrays.update(self.calibration.to_arrays())
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> Model:
        """ModelError where an array is missing or they do not fit together."""
        try:
            for name, array in arrays.items():
                if array.dtype.kind not in "biuf":
                    raise ModelError(f"The model's array {name} does not hold plain numbers.")
            features = tuple(manifest["features"])
            model = cls(
                name=str(manifest["name"]),
                version=str(manifest["version"]),
                features=features,
                transform=QuantileNormal.from_arrays(arrays),
                experts={
                    expert: EXPERTS[expert].kind.from_arrays(arrays)
                    for expert in manifest["experts"]
                },
                references=tuple(
                    Calibration.fit(oddness, float(tail))
                    for oddness, tail in zip(
                        arrays["reference_oddness"], arrays["reference_tails"], strict=True
                    )
                ),
                weights=np.asarray(arrays["weights"], np.float64),
                calibration=Calibration.from_arrays(arrays),
                low=np.asarray(arrays["low"], np.float64),
                high=np.asarray(arrays["high"], np.float64),
                medoids=np.asarray(arrays["medoids"], np.float64),
                manifest=manifest,
            )
            model._check()
        except KeyError as error:
            raise ModelError(f"The model lacks {error}.") from error
        except (AttributeError, ValueError, TypeError, IndexError) as error:
            raise ModelError(f"The model's arrays do not fit together ({error}).") from error
        return model

    def _check(self) -> None:
        """ModelError where what a file holds is no model that can judge."""
        k, experts = len(self.features), len(self.experts)
        if not experts or next(iter(self.experts)) != "forest":
            raise ModelError("The model's experts do not begin with a forest.")
        tails = [one.smallest_tail for one in self.references]
        if len(tails) != experts or not all(0 < tail < np.inf for tail in tails):
            raise ModelError("The model's experts do not fit together.")
        if len(self.transform.scales) != k:
            raise ModelError(
                f"The model names {k} features but its transform has {len(self.transform.scales)}."
            )
        for name, array, shape in (
            ("weights", self.weights, (experts,)),
            ("low", self.low, (k,)),
            ("high", self.high, (k,)),
            ("medoids", self.medoids, (max(len(self.medoids), 1), k)),
        ):
            if array.shape != shape or not np.isfinite(array).all():
                raise ModelError(f"The model's {name} are not finite numbers of shape {shape}.")
        if not np.isfinite(self.look(self.medoids[:1]).oddness).all():
            raise ModelError("The model has no score for its own normal flows.")


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
    """A model from its parts, and the experts beside the forest, fitted on `normal`.

    The model of one's own network remembers flows themselves and has an autoencoder; what is
    shipped has medoids in their place.
    """
    if held_out is None or not len(held_out):
        # The experts are still told apart by flows they did not learn; there is no line.
        apart = np.arange(len(normal)) % FOLDS == 0
        counted, held_out = scaler.quantiles.apply(normal[apart]), None
        z = scaler.quantiles.apply(normal[~apart])
    else:
        counted, z = scaler.quantiles.apply(held_out), scaler.quantiles.apply(normal)
    experts: dict[str, Expert] = {
        "forest": ForestExpert(scaler.whitening, Forest.flatten(estimator))
    }
    own = name == "live"
    experts["neighbours"] = Neighbours.fit(z if own else _medoids(z, REFERENCES, seed), seed=seed)
    experts["mixture"] = Mixture.flatten(fit_mixture(z, seed=seed))
    if own:
        experts["autoencoder"] = Autoencoder.flatten(fit_autoencoder(z, seed=seed), z)
    references = []
    weights = np.array([EXPERTS[kind].weight for kind in experts])
    oddness = np.zeros(len(counted))
    for (kind, expert), weight in zip(experts.items(), weights, strict=True):
        seen = expert.oddness(counted)
        references.append(Calibration.fit(seen, EXPERTS[kind].smallest_tail))
        oddness -= weight * references[-1].score_left_out(seen)
    low, high = np.percentile(finite(normal), USUAL, axis=0)
    model = Model(
        name=name,
        version=version,
        features=features,
        transform=scaler.quantiles,
        experts=experts,
        references=tuple(references),
        weights=weights,
        calibration=None if held_out is None else Calibration.fit(oddness),
        low=low,
        high=high,
        medoids=_medoids(z, MEDOIDS, seed),
    )
    return Fitted(model, estimator, scaler)


def _medoids(z: Values, most: int, seed: int) -> Values:
    """The flows nearest to the centres of at most `most` clusters (k-means, ROUNDS rounds).

    Written out: scikit-learn's spreads over all cores, which on a busy machine made a training of
    0.7 s last 5 s, and packets wait for those cores.
    """
    rows = np.unique(z, axis=0)
    if len(rows) <= most:
        return rows
    points = clipped(rows)
    centres = points[np.random.default_rng(seed).choice(len(rows), most, replace=False)]
    for _ in range(ROUNDS):
        cluster = squared_distances(points, centres).argmin(axis=1)
        sizes = np.bincount(cluster, minlength=most)
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, points)
        # An empty cluster stays where it is.
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    nearest: Values = rows[np.unique(squared_distances(points, centres).argmin(axis=0))]
    return nearest

"""What is compared: our models, their parts, the published recipes, and peers from PyOD.

Each is fitted on the same harmless flows, counts its false alarms on the same held-out flows and
is judged on the same others, so that only the method differs.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features import HOME, INDUSTRIAL, LIVE
from ml.calibration import Calibration
from ml.model import Model, fit
from training.evaluation.splits import Split
from training.evaluation.tables import Table

__all__ = [
    "ALPHA",
    "OURS",
    "PUBLISHED",
    "Candidate",
    "Judge",
    "absent_peers",
    "candidates",
    "ours_fitted",
    "plain_autoencoder",
    "published_forest",
]

Values = NDArray[np.float64]
Score = Callable[[Values], Values]
Oddness = Callable[[Values], dict[str, Values]]

ALPHA: Final = 0.01
OURS: Final = "ours, live features"
PUBLISHED: Final = "published recipe, 21 features"


@dataclass(frozen=True, slots=True)
class Judge:
    """A fitted candidate, and its parts where it has any, by name.

    oddness: (n, k) features -> name -> (n,), higher is odder. lines: what false alarms are counted
    on, by name. model: ours, None for others.
    """

    features: tuple[str, ...]
    oddness: Oddness
    lines: dict[str, Calibration]
    model: Model | None = None

    def of(self, table: Table) -> dict[str, Values]:
        if not len(table):
            return dict.fromkeys(self.lines, np.empty(0))
        return self.oddness(table.of(self.features))

    def flagged(self, name: str, oddness: Values, alpha: float = ALPHA) -> NDArray[np.bool_]:
        """(n,) beyond the own line for the false-alarm rate `alpha`."""
        line = self.lines[name]
        beyond: NDArray[np.bool_] = line.score(oddness) < line.threshold(1.0, alpha)
        return beyond


@dataclass(frozen=True, slots=True)
class Candidate:
    """name: in tables; group: ours, published or peers; fitted: the judge of one split."""

    name: str
    group: str
    fitted: Callable[[Split], Judge]


def candidates() -> list[Candidate]:
    """All of them; those of PyOD only where it is installed."""
    ours = [
        Candidate(name, "ours", _ours(name, model, features))
        for name, model, features in (
            ("ours, home features", "home", HOME),
            ("ours, industrial features", "industrial", INDUSTRIAL),
            (OURS, "live", LIVE),
        )
    ]
    published = [
        Candidate(PUBLISHED, "published", _other(PUBLISHED, HOME, published_forest)),
        Candidate(
            "published recipe, 27 features",
            "published",
            _other("published recipe, 27 features", INDUSTRIAL, published_forest),
        ),
        Candidate(
            "second specification's autoencoder",
            "published",
            _other("second specification's autoencoder", INDUSTRIAL, plain_autoencoder),
        ),
    ]
    return ours + published + _peers()


def ours_fitted(model: str, features: tuple[str, ...], split: Split) -> Model:
    fit_values, line_values = split.fit.of(features), split.line.of(features)
    return fit(model, "evaluation", features, fit_values, line_values, seed=split.seed).model


def _ours(name: str, model: str, features: tuple[str, ...]) -> Callable[[Split], Judge]:
    def fitted(split: Split) -> Judge:
        ours = ours_fitted(model, features, split)
        assert ours.calibration is not None

        def oddness(values: Values) -> dict[str, Values]:
            look = ours.look(ours.transformed(values))
            parts = {
                # The forest by its own score, as the specification has it.
                f"{name}: {expert} alone": -look.raw
                if expert == "forest"
                else -look.parts[:, place]
                for place, expert in enumerate(ours.expert_names)
            }
            return {name: look.oddness, **parts}

        on_line = oddness(split.line.of(features))
        lines = {part: Calibration.fit(seen) for part, seen in on_line.items()}
        return Judge(features, oddness, {**lines, name: ours.calibration}, ours)

    return fitted


def _other(
    name: str, features: tuple[str, ...], make: Callable[[Values, int], Score]
) -> Callable[[Split], Judge]:
    """Another method on standardised features."""

    def fitted(split: Split) -> Judge:
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(split.fit.of(features))
        own = make(scaler.transform(split.fit.of(features)), split.seed)

        def oddness(values: Values) -> dict[str, Values]:
            return {name: own(scaler.transform(values))}

        on_line = oddness(split.line.of(features))[name]
        return Judge(features, oddness, {name: Calibration.fit(on_line)})

    return fitted


def published_forest(normal: Values, seed: int) -> Score:
    """The specification's: IsolationForest(100, max_samples="auto", contamination=.01)."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(
        n_estimators=100, max_samples="auto", contamination=0.01, random_state=seed
    ).fit(normal)
    return lambda values: -forest.score_samples(values)


def plain_autoencoder(normal: Values, seed: int) -> Score:
    """The second specification's: a bottleneck network, oddness the mean squared error."""
    from sklearn.neural_network import MLPRegressor

    network = MLPRegressor(hidden_layer_sizes=(32, 8, 32), max_iter=60, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(normal, normal)
    return lambda values: ((values - network.predict(values)) ** 2).mean(axis=1)


# --- peers ----------------------------------------------------------------------------------------

_PEERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "KNN": ("knn", {}),
    "LOF": ("lof", {"novelty": True}),
    "HBOS": ("hbos", {}),
    "ECOD": ("ecod", {}),
    "COPOD": ("copod", {}),
    "INNE": ("inne", {}),
}
"""PyOD's class -> its module and what differs from its defaults."""


def absent_peers() -> str | None:
    """A sentence where PyOD is not installed."""
    if _pyod() is not None:
        return None
    return "The peers are left out: PyOD is not installed (requirements-bench.txt has it)."


def _pyod() -> Any:
    try:
        return importlib.import_module("pyod")
    except ImportError:
        return None


def _peers() -> list[Candidate]:
    if _pyod() is None:
        return []
    return [
        Candidate(f"PyOD {name}", "peers", _other(f"PyOD {name}", INDUSTRIAL, _peer(name)))
        for name in _PEERS
    ]


def _peer(name: str) -> Callable[[Values, int], Score]:
    def make(normal: Values, seed: int) -> Score:
        module, options = _PEERS[name]
        kind = getattr(importlib.import_module(f"pyod.models.{module}"), name)
        options = dict(options)
        if name == "INNE":
            options["random_state"] = seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            detector = kind(**options).fit(normal)

        def oddness(values: Values) -> Values:
            return np.nan_to_num(np.asarray(detector.decision_function(values), np.float64))

        return oddness

    return make

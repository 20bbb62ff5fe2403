"""Models from elsewhere made to fit here: their scores counted on flows of this network.

A line moved to another network flags 10 to 58 of 100 normal flows instead of one; counted anew on
500 local ones it flags 0.8 to 2 (measured). Only the counting changes, not what the model learned.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from errors import ModelError
from ml.calibration import Calibration
from ml.model import Model
from ml.registry import ARRAYS, write_atomically

__all__ = ["FILE", "LOCAL_NEEDED", "FlowRate", "LocalScores"]

log = logging.getLogger("secureflux.predict")

Values = NDArray[np.float64]

LOCAL_NEEDED: Final = 500
"""Local flows a calibration takes; it knows rates down to 2 in 501."""
FILE: Final = "local_calibration.json"
SAVE_EVERY: Final = 50
"""A kill costs at most so many of the flows counted."""
DAY_S: Final = 86_400.0
SHORTEST_S: Final = 60.0


class LocalScores:
    """The oddness of flows seen here under each model from elsewhere: of the first LOCAL_NEEDED,
    and with each training of the live model of the newest never-fitted ones.

    path: the JSON that keeps them over a restart; a model's file that has changed since begins
    anew. models: by name.
    """

    def __init__(self, path: Path, models: dict[str, Model]) -> None:
        self._path = path
        self._models = models
        self._oddness: dict[str, list[float]] = {name: [] for name in models}
        self._sources: dict[str, list[str]] = {name: [] for name in models}
        self._calibrations: dict[str, Calibration] = {}
        self._unsaved = 0
        self.rate = FlowRate()
        self._load()

    def calibration(self, name: str) -> Calibration | None:
        """None until LOCAL_NEEDED flows are counted."""
        return self._calibrations.get(name)

    def collected(self, name: str) -> int:
        return min(len(self._oddness.get(name, ())), LOCAL_NEEDED)

    @property
    def open_models(self) -> list[Model]:
        """The models that still count."""
        return [model for name, model in self._models.items() if name not in self._calibrations]

    def offer(self, name: str, oddness: Values, sources: Sequence[str]) -> None:
        """Count flows of two packets or more; (n,) oddness and the n initiators' addresses."""
        self._oddness[name] += oddness.tolist()
        self._sources[name] += sources
        self._unsaved += len(oddness)
        if len(self._oddness[name]) >= LOCAL_NEEDED:
            del self._oddness[name][LOCAL_NEEDED:]
            self._complete(name)
        elif self._unsaved < SAVE_EVERY:
            return
        self.save()

    def renew(self, name: str, oddness: Values) -> None:
        """Count anew on other local flows, LOCAL_NEEDED or more; (n,) oddness of flows that no
        vote has chosen. What the first flows said wears out as the network changes."""
        self._oddness[name] = oddness.tolist()
        self._complete(name)

    def quarantine(self, sources: frozenset[str]) -> None:
        """Flows of these do not count, also those that came before; a finished count stays."""
        for model in self.open_models:
            kept = [
                (odd, source)
                for odd, source in zip(
                    self._oddness[model.name], self._sources[model.name], strict=True
                )
                if source not in sources
            ]
            self._oddness[model.name] = [odd for odd, _ in kept]
            self._sources[model.name] = [source for _, source in kept]

    def forget(self) -> None:
        """Begin anew, for another network."""
        self._calibrations = {}
        self._oddness = {name: [] for name in self._models}
        self._sources = {name: [] for name in self._models}
        self.rate = FlowRate()
        self.save()

    def save(self) -> None:
        models = {
            name: {
                "model": _identity(model),
                "oddness": self._oddness[name],
                "sources": self._sources[name],
            }
            for name, model in self._models.items()
        }
        document = {"models": models, "rate": self.rate.state()}
        try:
            write_atomically(self._path, json.dumps(document).encode())
        except OSError as error:
            # Judging goes on with what is in memory; the next save tries again.
            log.warning("%s can't be written: %s.", self._path, error.strerror)
            return
        self._unsaved = 0

    def _complete(self, name: str) -> None:
        self._sources[name] = []
        self._calibrations[name] = Calibration.fit(np.array(self._oddness[name]))

    def _load(self) -> None:
        try:
            document = json.loads(self._path.read_bytes())
            self.rate = FlowRate.from_state(document["rate"])
            for name, model in self._models.items():
                kept = document["models"].get(name)
                if kept is None or kept["model"] != _identity(model):
                    continue
                oddness = np.array(kept["oddness"], np.float64)
                complete = len(oddness) >= LOCAL_NEEDED
                if not np.isfinite(oddness).all() or (
                    not complete and len(oddness) != len(kept["sources"])
                ):
                    raise ValueError("scores that do not fit their sources")
                self._oddness[name] = oddness.tolist()
                self._sources[name] = [str(source) for source in kept["sources"]]
                if complete:
                    self._complete(name)
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError, ModelError) as error:
            log.warning("%s is damaged (%s); its models are calibrated anew.", self._path, error)
            self._calibrations = {}
            self._oddness = {name: [] for name in self._models}
            self._sources = {name: [] for name in self._models}


class FlowRate:
    """How many flows a day come here, from packet time; what is older counts less (e-fold a day).

    >>> rate = FlowRate()
    >>> for minute in range(600):
    ...     rate.add(5, 60.0 * minute)
    >>> round(rate.per_day, -2)
    7200.0
    """

    def __init__(self) -> None:
        self._flows = 0.0
        self._seconds = 0.0
        self._last_s: float | None = None

    def add(self, flows: int, now_s: float) -> None:
        if self._last_s is not None and now_s > self._last_s:
            passed_s = now_s - self._last_s
            kept = math.exp(-passed_s / DAY_S)
            self._flows *= kept
            self._seconds = self._seconds * kept + min(passed_s, DAY_S)
        # Further back is a clock that was set, not a flow that ended late.
        if self._last_s is None or now_s < self._last_s - DAY_S:
            self._last_s = now_s
        self._last_s = max(self._last_s, now_s)
        self._flows += flows

    @property
    def per_day(self) -> float:
        """At least 1; in the first minute as if a minute had passed."""
        return max(self._flows / max(self._seconds, SHORTEST_S) * DAY_S, 1.0)

    def state(self) -> dict[str, float]:
        return {"flows": self._flows, "seconds": self._seconds}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> FlowRate:
        rate = cls()
        rate._flows, rate._seconds = float(state["flows"]), float(state["seconds"])
        if not (math.isfinite(rate._flows) and math.isfinite(rate._seconds)):
            raise ValueError("a flow rate that is no number")
        return rate


def _identity(model: Model) -> str:
    """What tells one model's file from another's."""
    return str(model.manifest["sha256"][ARRAYS])

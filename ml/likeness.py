"""Whether a flow is like ones a person has judged, and which attacks are like them as well.

Distance is Euclidean between clipped, transformed features. The radius around judged flows is
measured on the model's own normal flows: 1.5 times the gap they keep from their nearest likes.
Judged one by one, the 60 oddest normal flows of the lab's quiet recording then stand for 41 % of
the odd flows of the same device and service, and hide none of the 23 bundled attacks (1 gap: 31 %,
none; 2 gaps: 57 %, two attacks; 3 gaps: 80 %, seven). Of the attack flows of CIC-IDS2017, whatever
their service, 5 in 10,000 lie within it of a false alarm (30 of a later day).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import MODELS
from errors import ModelError
from features import LIVE, matrix
from ml import selftest
from ml.model import Model
from ml.transform import clipped, squared_distances
from words import protocol_name

__all__ = ["CENTRES", "Likeness"]

log = logging.getLogger("secureflux.likeness")

Values = NDArray[np.float64]

CENTRES: Final = 12
"""Judged flows kept of one decision, chosen to stand apart; each takes about 0.5 kB."""
GAP_QUANTILE: Final = 0.95
"""The gap: the distance within which 95 of 100 of a model's medoids have another one."""
GAPS: Final = 1.5
"""The radius, in gaps."""
HIDDEN_SHARE: Final = 0.5
"""An attack counts as hidden where at least this part of what a model sees of it is."""
ALPHA: Final = 0.01
"""An attack's flow is seen by a model that gives no more than this share of normal flows."""
_REMEMBERED: Final = 256

STRENGTH: Final[Mapping[str, float]] = {
    "connect_scan": 19.6,
    "syn_flood": 12.8,
    "wan_sweep": 17.1,
    "syn_scan": 66.3,
    "ssh_brute": 1.0,
    "icmp_flood": 13.3,
    "udp_flood": 1.68,
    "udp_scan": 3.93,
    "ftp_brute": 1.17,
    "http_brute": 3.2,
    "null_scan": 60.0,
    "http_flood": 6.79,
    "v6_scan": 32.9,
    "syn_flood_rand": 8.34,
    "xmas_scan": 60.0,
    "fin_scan": 76.4,
    "slow_scan": 1.67,
}
"""How many times its line the window of each bundled attack reached in the lab's recording; the
others' windows are not told."""


@dataclass(frozen=True, slots=True)
class _Region:
    """centres: (c, k) clipped and transformed; radius: in the same space."""

    centres: Values
    radius: float

    def holds(self, z: Values) -> NDArray[np.bool_]:
        """(n, k) -> (n,)"""
        near: NDArray[np.bool_] = _distances(z, self.centres).min(axis=1) <= self.radius
        return near


class Likeness:
    """Regions around judged flows, in the space of the best model there is.

    models: those that can be used now, the one that knows this network best first. Regions are
    worked out anew for each version of a model from the flows' own values, so a retraining does
    not leave them behind. Any thread may ask.
    """

    def __init__(self, models: Callable[[], Sequence[Model]]) -> None:
        self._models = models
        self._lock = threading.RLock()  # around what is remembered
        self._regions: OrderedDict[tuple[Any, ...], _Region] = OrderedDict()
        self._gaps: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._seen: dict[tuple[str, str], dict[str, Values]] = {}

    def around(self, flows: Sequence[Sequence[float]]) -> dict[str, Any] | None:
        """What to keep of judged flows; None where none has its values, or there is no model.

        flows: each its `features`, of which those of another length are left out. Returns
        `centres` (of the same form, at most CENTRES), `radius` and `model`, which say how wide
        that is now.
        """
        values = _whole(flows)
        model = next(iter(self._models()), None)
        if model is None or not len(values):
            return None
        kept = values[_apart(self._space(model, values))]
        centres = kept.tolist()
        region = self._region(model, centres)
        name = f"{model.name} {model.version}"
        return {"centres": centres, "radius": round(region.radius, 4), "model": name}

    def like(
        self, centres: Sequence[Sequence[float]], flows: Sequence[Sequence[float]]
    ) -> list[bool]:
        """Of each flow, whether it is like one of `centres`; False where that can't be told."""
        alike = np.zeros(len(flows), bool)
        whole = np.array([_is_whole(row) for row in flows], bool)
        model = next(iter(self._models()), None)
        if model is not None and len(_whole(centres)) and whole.any():
            z = self._space(model, _whole(flows))
            alike[whole] = self._region(model, centres).holds(z)
        return [bool(one) for one in alike]

    def hidden_by(self, suppression: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The bundled attacks that a suppression would hide, were its device to run them.

        Read of it: `subpattern`, `protocol` ("IP" for any), `limit` (how many times its line a
        window is hidden up to, None where windows are not) and `centres`. Each answer has name,
        title and `hidden`, the part of what is seen of the attack, 0..1.
        """
        subpattern, protocol = suppression["subpattern"], suppression["protocol"]
        times_line, centres = suppression.get("limit"), suppression.get("centres") or []
        found = []
        try:
            attacks = selftest.attacks()
        except ModelError as error:
            log.warning("What a suppression would hide is not known. %s", error)
            return []
        model = next(iter(self._models()), None)
        flows_hidden = len(_whole(centres)) and times_line is None
        for attack in attacks:
            hidden = 0.0
            if times_line is not None and attack.pattern == subpattern:
                hidden = float(STRENGTH.get(attack.name, np.inf) <= times_line)
            if flows_hidden and model is not None and protocol in ("IP", _protocol(attack)):
                seen = self._seen_of(model)[attack.name]
                if len(seen):
                    near = self._region(model, centres).holds(seen)
                    hidden = max(hidden, float(near.mean()))
            if hidden >= HIDDEN_SHARE:
                told = {"name": attack.name, "title": attack.title, "hidden": round(hidden, 3)}
                found.append(told)
        return found

    def _seen_of(self, model: Model) -> dict[str, Values]:
        """Attack -> what of its flows the model objects to by its own line, in its space."""
        key = (model.name, model.version)
        with self._lock:
            remembered = self._seen.get(key)
        if remembered is None:
            remembered = {}
            for attack in selftest.attacks():
                values = matrix(attack.rows)
                z = model.transformed(values[:, model.columns])
                odd = np.zeros(len(z), bool)
                if model.calibration is not None:
                    score = model.calibration.score(model.look(z).oddness)
                    odd = score < model.calibration.threshold(1.0, ALPHA)
                remembered[attack.name] = clipped(z)[odd]
            with self._lock:
                self._seen = {key: remembered}
        return remembered

    def _region(self, model: Model, centres: Sequence[Sequence[float]]) -> _Region:
        key = (model.name, model.version, tuple(map(tuple, centres)))
        with self._lock:
            region = self._regions.get(key)
            if region is None:
                z = self._space(model, _whole(centres))
                region = self._regions[key] = _Region(z, GAPS * self._gap(model))
                if len(self._regions) > _REMEMBERED:
                    self._regions.popitem(last=False)
            return region

    def _gap(self, model: Model) -> float:
        key = (model.name, model.version)
        if key not in self._gaps:
            rows = clipped(model.medoids)
            apart = _distances(rows, rows)
            np.fill_diagonal(apart, np.inf)
            nearest = apart.min(axis=1) if len(rows) > 1 else np.zeros(1)
            self._gaps[key] = float(np.quantile(nearest, GAP_QUANTILE))
            if len(self._gaps) > len(MODELS):
                self._gaps.popitem(last=False)
        return self._gaps[key]

    @staticmethod
    def _space(model: Model, values: Values) -> Values:
        return clipped(model.transformed(values[:, model.columns]))


def _whole(flows: Sequence[Sequence[float]]) -> Values:
    """(n, len(LIVE)) of those that have all their values."""
    whole = [row for row in flows if _is_whole(row)]
    return np.array(whole, np.float64).reshape(-1, len(LIVE))


def _is_whole(row: Sequence[float]) -> bool:
    return len(row) == len(LIVE) and bool(np.isfinite(row).all())


def _apart(z: Values) -> NDArray[np.intp]:
    """Places of at most CENTRES rows, each the farthest from those before it."""
    chosen = [0]
    nearest = _distances(z, z[:1])[:, 0]
    while len(chosen) < min(CENTRES, len(z)) and nearest.max() > 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(z, z[chosen[-1:]])[:, 0])
    return np.array(chosen, np.intp)


def _protocol(attack: selftest.Attack) -> str:
    """In the words of suppressions."""
    return protocol_name(int(attack.rows["protocol"][0])) if len(attack) else ""


def _distances(points: Values, centres: Values) -> Values:
    """(n, m)"""
    distances: Values = np.sqrt(np.maximum(squared_distances(points, centres), 0.0))
    return distances

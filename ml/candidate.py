"""A new version beside the one that serves: may it take its place?

Both score the bundled attacks and the newest flows of the never-fitted fifth, at one common line:
with more flows to count on the line alone becomes stricter, which is no change of the model. A
version that is blind to an attack the other one sees, or that judges more than MOVED of the
harmless flows differently, does not serve.

A network may really have changed, and then no version after the change would ever serve. What
tells that from poison: the change stays (REPEATS trainings in a row moved flows the same way) while
every attack is still seen, and sources that alert often are in quarantine, so that their flows are
not among those compared. The next version then serves. An attack that is no longer seen is
outwaited only where the serving version is of no use: it objected to more than OBJECTS of the
newest flows at REPEATS trainings in a row. A person may let any kept version serve.

The first version has nothing to be compared with and serves: to hold it against attacks that first
versions elsewhere see was tried; it refused first versions of a harmless network, and the longer
there is none, the more can be taught unseen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from errors import ModelError
from features import matrix
from ml.model import Model
from ml.selftest import attacks

__all__ = ["Comparison", "beyond_share", "canary", "compare"]

log = logging.getLogger("secureflux.baseline")

Values = NDArray[np.float64]
Toward = Literal["odd", "normal"]

MOVED: Final = 0.02
OBJECTS: Final = 0.05
"""A version that objects to more of the newest never-fitted flows sees attacks by objecting to
everything: one of 600 flows of very varied traffic objected to 9 in 100, and barred all others."""
FEWEST_MOVED: Final = 5
"""Flows that must have moved at least: of 125 compared, 3 are beyond MOVED by chance."""
SEEN: Final = 0.5
"""An attack is seen where this share of its flows lies beyond the line ..."""
BLIND: Final = float(np.log10(0.05))
"""... and lost where less than half of that share is even one in 20. At the line itself the flows
of many attacks lie so close that a clean stream's next version loses and finds them again."""
FEWEST_FLOWS: Final = 4
"""Attacks of fewer flows decide nothing: one flow beside the line would be all of them."""
REPEATS: Final = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """canary: share of each attack's flows that the new version flags at its own line.
    held_out_rate: share of its never-fitted flows over its line. before_rate: share of the newest
    ones over the line of the version before, which never saw them; moved: share that the two
    judge differently; toward: where most of these went. lost: titles of the attacks it is blind
    to. refused: why it does not serve, None where it does.
    """

    canary: dict[str, float]
    held_out_rate: float
    before_rate: float | None
    moved: float | None
    toward: Toward | None
    lost: tuple[str, ...]
    refused: Literal["canary", "drift"] | None

    def told(self) -> dict[str, Any]:
        """What the metadata say of it."""
        return {
            "canary": {name: round(share, 3) for name, share in self.canary.items()},
            "canary_recall": _mean(self.canary),
            "held_out_rate": round(self.held_out_rate, 4),
            "before_rate": None if self.before_rate is None else round(self.before_rate, 4),
            "moved": None if self.moved is None else round(self.moved, 4),
            "toward": self.toward,
            "lost": list(self.lost),
            "refused": self.refused,
        }


def compare(
    candidate: Model,
    serving: Model | None,
    held_out: Values,
    newest: Values,
    *,
    weight: float,
    alpha: float,
    by_hand: bool,
    before: Sequence[Mapping[str, Any]],
) -> Comparison:
    """Whether the candidate may serve.

    held_out: (n, k) the never-fitted flows that set its line; newest: those of them that came
    after the serving version's training. by_hand: a person asked for this training, and a changed
    network is no surprise. before: what was told of the trainings before, oldest first.
    """
    line = _line(candidate, weight, alpha)
    attacked = canary(candidate)
    seen = _beyond(attacked, line)
    over = _scores(candidate, held_out) < line
    if serving is None:
        return Comparison(seen, _rate(over), None, None, None, (), None)
    common = max(line, _line(serving, weight, alpha))
    lost = _lost(_beyond(attacked, BLIND), _beyond(canary(serving), common))
    odd_before = _scores(serving, newest) < common
    odd_now = _scores(candidate, newest) < common
    differ = odd_before != odd_now
    toward: Toward | None = None
    if differ.any():
        toward = "odd" if 2 * int((differ & odd_now).sum()) > int(differ.sum()) else "normal"
    refused: Literal["canary", "drift"] | None = None
    if lost:
        outwaited = _rate(odd_before) > OBJECTS and _useless(before) >= REPEATS
        refused = None if outwaited else "canary"
    elif not by_hand and _rate(differ) > MOVED and int(differ.sum()) >= FEWEST_MOVED:
        refused = "drift" if _refusals(before, toward) < REPEATS else None
    return Comparison(seen, _rate(over), _rate(odd_before), _rate(differ), toward, lost, refused)


def beyond_share(model: Model, values: Values, weight: float, alpha: float) -> float:
    """Share of (n, k) flows beyond a model's line."""
    return _rate(_scores(model, values) < _line(model, weight, alpha))


def canary(model: Model) -> dict[str, Values]:
    """Scores of each bundled attack's flows; empty, and logged, where the attacks can't be read:
    that must not end the learning."""
    try:
        found = attacks()
    except ModelError as error:
        log.warning("%s New versions are not held against it.", error)
        return {}
    flows = matrix(np.concatenate([one.rows for one in found]))[:, model.columns]
    ends = np.cumsum([len(one) for one in found])[:-1]
    parts = np.split(_scores(model, flows), ends)
    return {one.name: part for one, part in zip(found, parts, strict=True)}


def _beyond(scores: Mapping[str, Values], line: float) -> dict[str, float]:
    """Share of each attack's flows below a line."""
    return {name: _rate(part < line) for name, part in scores.items()}


def _scores(model: Model, values: Values) -> Values:
    assert model.calibration is not None
    return model.calibration.score(model.look(model.transformed(values)).oddness)


def _line(model: Model, weight: float, alpha: float) -> float:
    assert model.calibration is not None
    return model.calibration.threshold(weight, alpha)


def _lost(now: Mapping[str, float], before: Mapping[str, float]) -> tuple[str, ...]:
    """Titles of the attacks that were seen before and are lost now."""
    if not now:
        return ()
    return tuple(
        one.title
        for one in attacks()
        if len(one) >= FEWEST_FLOWS
        and before.get(one.name, 0.0) >= SEEN
        and now[one.name] < before[one.name] / 2
    )


def _useless(before: Sequence[Mapping[str, Any]]) -> int:
    """How many of the newest trainings in a row were refused for an attack they lost, while the
    serving version objected to more than OBJECTS of the newest flows."""
    n = 0
    for training in reversed(before):
        objected = training.get("before_rate") or 0.0
        if training.get("refused") != "canary" or objected <= OBJECTS:
            break
        n += 1
    return n


def _refusals(before: Sequence[Mapping[str, Any]], toward: Toward | None) -> int:
    """How many of the newest trainings in a row did not serve because flows moved this way."""
    n = 0
    for training in reversed(before):
        if training.get("refused") != "drift" or training.get("toward") != toward:
            break
        n += 1
    return n


def _rate(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def _mean(shares: Mapping[str, float]) -> float | None:
    return round(sum(shares.values()) / len(shares), 3) if shares else None

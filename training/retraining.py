"""A static model again, with what people said on this network: made aside, checked, then served.

The shipped model stays as it is. The new version goes to `models/<name>` of the data directory and
serves from there, unless it no longer sees a bundled attack that the shipped one sees.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Final

import numpy as np

from errors import ModelError
from features import matrix
from ml.model import Model
from ml.registry import MANIFEST, load
from ml.selftest import Attack, attacks
from training.feedback import Feedback
from training.pipeline import train

__all__ = ["retrain"]

log = logging.getLogger("secureflux.training")

SEEN: Final = 0.5
"""A model sees an attack where it objects to at least this part of its flows ..."""
ALPHA: Final = 0.01
BLIND: Final = 0.05
"""... and has lost it where less than half of those is even this rare: beside the line itself flows
come and go with every training."""
FEWEST_FLOWS: Final = 4
"""Attacks of fewer flows decide nothing: one flow beside the line would be all of them."""


def retrain(
    name: str, data: Path | None, feedback: Feedback, *, shipped: Path, serving: Path, out: Path
) -> Model:
    """Train `name` on its data and the feedback, into `out`; the model.

    shipped: the folder of the model that must not be less than; serving: that of the one that
    serves now, whose number the new version's follows. ModelError where an attack would be lost;
    what serves then stays.
    """
    before = load(shipped)
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    try:
        shutil.copyfile(serving / MANIFEST, fresh / MANIFEST)
        model = train(name, data, fresh, feedback)
        lost = [attack.title for attack in attacks() if _is_lost(attack, before, model)]
        if lost:
            raise ModelError(
                f"The {name} model with this feedback would no longer see {lost[0]}"
                f"{_and_more(len(lost) - 1)}, so it does not serve. Undo the false positives that "
                "look like it."
            )
        shutil.rmtree(out, ignore_errors=True)
        fresh.replace(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    log.info("Model %s, version %s, serves from %s.", name, model.version, out)
    return model


def _is_lost(attack: Attack, before: Model, now: Model) -> bool:
    if len(attack) < FEWEST_FLOWS:
        return False
    seen = _rarer(attack, before, ALPHA)
    return seen >= SEEN and _rarer(attack, now, BLIND) < seen / 2


def _rarer(attack: Attack, model: Model, share: float) -> float:
    """The part of the attack's flows rarer than this share of normal flows."""
    if model.calibration is None:
        return 0.0
    z = model.transformed(matrix(attack.rows)[:, model.columns])
    score = model.calibration.score(model.look(z).oddness)
    return float(np.mean(score < model.calibration.threshold(1.0, share)))


def _and_more(n: int) -> str:
    return f" and {n} more" if n else ""

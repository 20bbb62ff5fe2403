"""One training of the live model: what it works on, what it makes, what is told of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from features import LIVE
from ml.candidate import Comparison, compare
from ml.drift import Drift
from ml.model import Fitted, Model, fit

__all__ = ["SURE", "Lesson", "Result", "refusal", "train"]

Values = NDArray[np.float64]

MEDIANS_OF: Final = 500
"""Flows to fit that the medians told are taken of, about; scoring all costs .2 s."""
SURE: Final = 2
"""Flows that no version judged (0), or only one made from such (1), may hold an attack from the
very beginning; they are learned until there are enough others."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one training works on, copied out of the buffer.

    normal, held_out: (n, len(LIVE)) flows to fit, and of the never-fitted fifth. newest: those of
    the latter that the serving version never saw. newest_s: time of the newest flow to fit.
    confirmed: flows a person called normal. by_hand: a person asked for it. generation: changes
    when an admin decides what serves, so that a training from before is told. serving: the model
    to compare with. before: what was told of the trainings before. drift: what has changed here.
    """

    version: int
    normal: Values
    held_out: Values
    newest: Values
    newest_s: float
    confirmed: int
    started_s: float
    by_hand: bool
    generation: int
    serving: Model | None
    before: Sequence[Mapping[str, Any]]
    drift: Drift | None
    depth: int


@dataclass(frozen=True, slots=True)
class Result:
    """A version that may serve where `comparison.refused` is None. told: its figures."""

    fitted: Fitted
    comparison: Comparison
    told: dict[str, Any]


def train(lesson: Lesson, *, weight: float, alpha: float) -> Result:
    """Fit, compare with what serves, and count what it took (seconds of this thread alone)."""
    started_s, started_cpu_s = time.monotonic(), time.thread_time()
    # On two busy cores threads that wait for each other spin: 15 s CPU instead of one and a half.
    with threadpool_limits(limits=1):
        return _trained(lesson, started_s, started_cpu_s, weight=weight, alpha=alpha)


def _trained(
    lesson: Lesson, started_s: float, started_cpu_s: float, *, weight: float, alpha: float
) -> Result:
    fitted = fit("live", str(lesson.version), LIVE, lesson.normal, lesson.held_out)
    comparison = compare(
        fitted.model,
        lesson.serving,
        lesson.held_out,
        lesson.newest,
        weight=weight,
        alpha=alpha,
        by_hand=lesson.by_hand,
        before=lesson.before,
    )
    model = fitted.model
    some = lesson.normal[:: max(len(lesson.normal) // MEDIANS_OF, 1)]
    raw, _, oddness = model.look(model.transformed(some))
    assert model.calibration is not None
    told = {
        "version": lesson.version,
        "trained_at": lesson.started_s,
        "flows": len(lesson.normal),
        "held_out": len(lesson.held_out),
        "confirmed": lesson.confirmed,
        "newest": lesson.newest_s,
        "by_hand": lesson.by_hand,
        "depth": lesson.depth,
        "compared": len(lesson.newest) if lesson.serving else 0,
        "raw_median": round(float(np.median(raw)), 4),
        # A model that knew its flows by heart would score them far above the held-out ones.
        "score_median": round(float(np.median(model.calibration.score(oddness))), 3),
        **comparison.told(),
        "drift": lesson.drift.told() if lesson.drift else None,
        "seconds": round(time.monotonic() - started_s, 3),
        "cpu_seconds": round(time.thread_time() - started_cpu_s, 3),
    }
    return Result(fitted, comparison, told)


def refusal(training: Mapping[str, Any]) -> str | None:
    """Why a version does not serve, as a sentence; None where it may, or a person
    let it."""
    version = training["version"]
    if training.get("allowed"):
        return None
    if training.get("refused") == "canary":
        lost = training["lost"]
        more = f" and {len(lost) - 1} more of the bundled attacks" if len(lost) > 1 else ""
        return f"Version {version} does not serve: it no longer sees {lost[0]}{more}."
    if training.get("refused") == "drift":
        return (
            f"Version {version} does not serve: it judges {training['moved']:.1%} of the newest "
            "flows differently. If the next trainings say the same, the network has changed and "
            "they serve."
        )
    return None

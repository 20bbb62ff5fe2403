"""From scores to votes and severities: the lines of the models and the specification's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batches import MODELS
from ml.calibration import Calibration
from ml.model import Model

__all__ = ["ANOMALY", "LOW", "NORMAL", "UNAVAILABLE", "Voter", "extreme_line", "severities"]

Values = NDArray[np.float64]

LOW, MEDIUM, HIGH, CRITICAL = range(4)
ANOMALY, NORMAL, UNAVAILABLE = 1, 0, -1

CRITICAL_FACTOR: Final = 2.0
"""The specification's: a score below twice the line is critical, whoever else votes."""
BORDERLINE_FACTOR: Final = 0.65
EXTREME_FACTOR: Final = 1.25
EXTREME_PER_DAY: Final = 0.05
"""Incidents opened by one flow alone that a day of normal traffic may cost."""
EXTREME_REFERENCE: Final = 100


@dataclass(frozen=True, slots=True)
class Voter:
    """A model that may vote now.

    calibration: what its scores are counted on here. line: its threshold. extreme: the score
    below which one flow is an incident alone.
    """

    model: Model
    calibration: Calibration
    line: float
    extreme: float


def severities(
    scores: Values, thresholds: Values
) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.bool_]]:
    """(votes, severity, borderline) of scores, by the specification's table.

    scores: (n, 3), NaN where a model does not vote; thresholds: (3,).
    CRITICAL all three vote ANOMALY, or any score < threshold * 2.0; HIGH two or more; MEDIUM one;
    LOW none, borderline where a score < threshold * 0.65.

    >>> votes, severity, borderline = severities(np.array([[-1.0, -1.4, -2.1]]), np.full(3, -2.0))
    >>> votes.tolist(), severity.tolist(), borderline.tolist()
    ([[0, 0, 1]], [1], [False])
    """
    votes = np.where(np.isnan(scores), UNAVAILABLE, (scores < thresholds).astype(np.int8))
    against = (votes == ANOMALY).sum(axis=1)
    far = (scores < thresholds * CRITICAL_FACTOR).any(axis=1)
    severity = np.where(far | (against == len(MODELS)), CRITICAL, np.minimum(against, HIGH))
    near = (scores < thresholds * BORDERLINE_FACTOR).any(axis=1)
    return votes.astype(np.int8), severity.astype(np.int8), (severity == LOW) & near


def extreme_line(calibration: Calibration, flows_per_day: float) -> float:
    """The score below which a normal day gives EXTREME_PER_DAY flows, and well beyond the oddest
    normal flow; never where the reference is too small to know its own tail."""
    if len(calibration) < EXTREME_REFERENCE:
        return -np.inf
    rare = float(np.log10(EXTREME_PER_DAY / flows_per_day))
    return min(EXTREME_FACTOR * calibration.oddest, rare)

"""Measures of a ranking and of a line, and their spread over seeds and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spread", "by_class", "number", "recall_at", "roc", "spread"]

Values = NDArray[np.float64]
Words = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and range of n runs."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n == 1:
            return number(self.mean)
        return f"{number(self.mean)} ({number(self.low)}–{number(self.high)})"


def number(value: float) -> str:
    """.987, .0123: three digits below one."""
    text = f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.4f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def spread(values: Sequence[float]) -> Spread:
    """Of the values that are numbers; NaN all over where there is none."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return Spread(float("nan"), float("nan"), float("nan"), 0)
    return Spread(float(np.mean(known)), min(known), max(known), len(known))


def recall_at(normal: Values, odd: Values, rate: float) -> float:
    """The share of attacks above the line that exactly `rate` of the judged normal flows pass.

    NaN where fewer than 10 / rate normal flows were judged: one flow would decide. Ties with the
    line are shared out by where the rate falls among them.
    """
    if len(normal) * rate < 10 or not len(odd):
        return float("nan")
    x, y = roc(normal, odd)
    return float(np.interp(rate, x, y))


def roc(normal: Values, odd: Values) -> tuple[Values, Values]:
    """(false-alarm rates, recalls) at every possible line, both rising from 0 to 1."""
    lines = np.unique(np.concatenate([normal, odd]))[::-1]
    low, high = np.sort(normal), np.sort(odd)
    x = 1.0 - np.searchsorted(low, lines, "left") / len(low)
    y = 1.0 - np.searchsorted(high, lines, "left") / len(high)
    return np.concatenate([[0.0], x]), np.concatenate([[0.0], y])


def by_class(labels: Words, flagged: NDArray[np.bool_]) -> dict[str, float]:
    """The share flagged of each class."""
    return {str(label): float(flagged[labels == label].mean()) for label in np.unique(labels)}

"""How a network's flows changed since the live model learned: which feature, since when.

Compared are the newest flows of the never-fitted fifth, which no vote has chosen, with what the
model learned. The transform gives each value its place among those (0 the least, 1 the most, ties
in the middle), so the mean place of new flows minus a half is the Mann-Whitney statistic: the
chance that a new flow has more than a learned one, less a half; 0 where nothing changed.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from features import FEATURES
from ml.model import Model
from units import amount

__all__ = ["Drift", "drift"]

Values = NDArray[np.float64]

NEWEST: Final = 200
FEWEST: Final = 100
LINE: Final = 0.20
"""A new flow has more (or less) than a learned one in 7 of 10 pairs."""
FEWEST_BEFORE: Final = 30

_FEATURE: Final = {feature.name: feature for feature in FEATURES}
_WORDS: Final = {
    "Flow Duration": ("flows here last longer", "flows here are over sooner"),
    "Total Fwd Packets": ("flows here send more packets", "flows here send fewer packets"),
    "Total Bwd Packets": ("flows here receive more packets", "flows here receive fewer packets"),
    "Total Length Fwd Packet": ("flows here send more", "flows here send less"),
    "Total Length Bwd Packet": ("flows here receive more", "flows here receive less"),
    "Flow Bytes/s": ("flows here are faster", "flows here are slower"),
    "Flow Packets/s": ("packets here come faster", "packets here come slower"),
    "Packet Length Mean": ("packets here are larger", "packets here are smaller"),
}


@dataclass(frozen=True, slots=True)
class Drift:
    """The feature that moved most.

    since_s: epoch seconds of packet time. shift: -.5..+.5, the Mann-Whitney statistic less a half.
    typical: `median` or `mean` (where most flows have the same value, their median says nothing);
    before, now: of the feature, in its own unit.
    """

    feature: str
    since_s: float
    shift: float
    typical: str
    before: float
    now: float

    def told(self) -> dict[str, Any]:
        """As JSON, with the sentence."""
        return {**asdict(self), "sentence": self.sentence}

    @property
    def sentence(self) -> str:
        """ "Since 24 Nov 10:20 flows here last longer: median 3 s, was 0.4 s." """
        about = _FEATURE[self.feature]
        label = about.label[0].lower() + about.label[1:]
        more, less = _WORDS.get(
            self.feature,
            (f"“{label}” of flows here is higher", f"“{label}” of flows here is lower"),
        )
        now, before = (amount(_short(value), about.unit) for value in (self.now, self.before))
        return (
            f"Since {_moment(self.since_s)} {more if self.shift > 0 else less}: "
            f"{self.typical} {now}, was {before}."
        )


def drift(model: Model, values: Values, times_s: Values, learned_s: float) -> Drift | None:
    """The feature whose newest values moved most from what the model learned; None where none
    moved beyond LINE, or where too few flows have come.

    values: (n, k) of the model's features, oldest first, of flows the model did not learn;
    times_s: (n,) their packet times; learned_s: time of the newest flow the model learned.
    """
    fresh = int((times_s > learned_s).sum())
    if fresh < FEWEST:
        return None
    place = ndtr(model.transformed(values))
    shifts = place[-min(fresh, NEWEST) :].mean(axis=0) - 0.5
    j = int(np.abs(shifts).argmax())
    if abs(shifts[j]) < LINE:
        return None
    since = _change(place[:, j], float(shifts[j]))
    typical, before, now = _typical(model, j, values[:since, j], values[since:, j])
    shift = round(float(shifts[j]), 3)
    return Drift(model.features[j], float(times_s[since]), shift, typical, before, now)


def _change(places: Values, shift: float) -> int:
    """Where a series changed its level: the extreme of the cumulative sum about its mean; 0 where
    it had changed before its first value."""
    at = min(int(np.abs(np.cumsum(places - places.mean())).argmax()) + 1, len(places) - 1)
    changed_before = at < FEWEST_BEFORE or (places[:at].mean() - 0.5) / shift > 0.5
    return 0 if changed_before else at


def _typical(model: Model, j: int, before: Values, now: Values) -> tuple[str, float, float]:
    if not len(before):
        # What the model learned stands for before.
        start, end = model.transform.starts[j : j + 2]
        xs, zs = model.transform.xs[start:end], model.transform.zs[start:end]
        return "median", float(np.interp(0.0, zs, xs)), float(np.median(now))
    medians = float(np.median(before)), float(np.median(now))
    if medians[0] == medians[1]:
        return "mean", float(before.mean()), float(now.mean())
    return "median", *medians


def _short(value: float) -> float:
    """Two digits are enough to say how far something moved."""
    return float(f"{value:.2g}")


def _moment(time_s: float) -> str:
    at = time.localtime(time_s)
    return f"{at.tm_mday} {time.strftime('%b %H:%M', at)}"

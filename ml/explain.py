"""Why a flow is odd: which of its features carry the oddness, in words and units.

A feature is given the value of the nearest normal flow and the flow is scored again; what the
oddness falls by is that feature's share. Replacing by the median instead breaks the relations
between features and often makes a flow odder. Named first is what has a share and stands far from
the nearest normal flow: against injected causes (one group of features swapped with another
flow's, or times 20; 2,201 flagged flows of CIC-IDS2017) the first name is then right in 85 and 89
of 100, by share alone in 80 and 79.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from batches import Deviation
from features import FEATURES
from ml.model import Model
from ml.transform import clipped

__all__ = ["explain", "glance"]

Values = NDArray[np.float64]

TOP: Final = 5
"""Deviations told of one flow at most."""
SMALLEST_SHARE: Final = 0.03
"""A feature that carries less did not matter to the score and is not named."""

_FEATURES: Final = {feature.name: feature for feature in FEATURES}


def explain(model: Model, values: Values, z: Values) -> list[list[Deviation]]:
    """The deviations of each flow, most telling first.

    values: (n, k) features; z: the same, transformed. About 0.5 ms a flow.
    """
    n, k = z.shape
    if not n:
        return []
    normal = _nearest(model, z)
    # Row i * k + j is flow i with feature j taken from its nearest normal flow.
    replaced = np.repeat(z, k, axis=0).reshape(n, k, k)
    replaced[:, np.arange(k), np.arange(k)] = normal
    _, odd = model.oddness(np.concatenate([z, normal, replaced.reshape(n * k, k)]))
    own, usual, without = odd[:n], odd[n : 2 * n], odd[2 * n :].reshape(n, k)
    falls = np.maximum(own[:, None] - without, 0.0)
    # Where the nearest normal flow is as odd itself, the largest fall is the whole.
    whole = np.maximum(own - usual, falls.max(axis=1))
    shares = np.divide(falls, whole[:, None], out=np.zeros_like(falls), where=whole[:, None] > 0)
    return _told(model, values, shares, shares * np.abs(z - normal))


def glance(model: Model, values: Values, z: Values) -> list[list[Deviation]]:
    """Deviations by distance to the nearest normal flow alone, for floods: some 20 us a flow.

    share is then the part of the distance, right about as often.
    """
    if not len(z):
        return []
    apart = np.abs(clipped(z) - clipped(_nearest(model, z)))
    whole = apart.sum(axis=1, keepdims=True)
    shares = np.divide(apart, whole, out=np.zeros_like(apart), where=whole > 0)
    return _told(model, values, shares, shares)


def _nearest(model: Model, z: Values) -> Values:
    """(n, k) the normal flow nearest to each row, transformed."""
    near = clipped(model.medoids)
    distance = (near**2).sum(axis=1) - 2.0 * clipped(z) @ near.T
    nearest: Values = model.medoids[distance.argmin(axis=1)]
    return nearest


def _told(model: Model, values: Values, shares: Values, weights: Values) -> list[list[Deviation]]:
    # Where nothing reaches it, the one feature that carries most is named all the same.
    smallest = np.minimum(SMALLEST_SHARE, shares.max(axis=1))[:, None]
    weights = np.where((shares > 0) & (shares >= smallest), weights, -1.0)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :TOP]
    return [
        [_deviation(model, int(j), float(row[j]), float(share[j])) for j in best if weight[j] >= 0]
        for best, row, share, weight in zip(order, values, shares, weights, strict=True)
    ]


def _deviation(model: Model, j: int, value: float, share: float) -> Deviation:
    feature = _FEATURES[model.features[j]]
    low, high = float(model.low[j]), float(model.high[j])
    ratio = None
    if value > high > 0:
        ratio = value / high
    elif 0 < value < low:
        ratio = low / value
    return Deviation(
        feature=feature.name,
        label=feature.label,
        unit=feature.unit,
        value=value,
        low=low,
        high=high,
        ratio=ratio,
        share=min(share, 1.0),
        log=feature.log,
    )

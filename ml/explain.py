"""Why a flow is odd: which of its features carry the oddness, and what would have been ordinary.

The flow is held against the normal flow that shares most of its features: the distance of a
feature counts up to NEAR only, so that the one feature that is far off can't choose the partner.
A feature then takes the partner's value in the odd flow, and the odd value in the partner, and all
experts score both again: what the oddness falls by there and rises by here, on average, is the
feature's share (the first and the last term of a Shapley value). Named first is what has a share
and stands far from the partner. The figures are those of docs/detection.md, "Explanations".
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
TRIED: Final = 8
"""Features scored again, those farthest from the partner; 16 name the same."""
NEAR: Final = 1.5
"""Standard deviations of normal flows from which on a feature counts as different."""
SMALLEST_SHARE: Final = 0.03
"""A feature that carries less did not matter to the score and is not named."""

_FEATURES: Final = {feature.name: feature for feature in FEATURES}


def explain(model: Model, values: Values, z: Values) -> list[list[Deviation]]:
    """The deviations of each flow, most telling first.

    values: (n, k) features; z: the same, transformed. About 1 ms a flow.
    """
    n, k = z.shape
    if not n:
        return []
    normal = _partner(model, z)
    apart = np.abs(z - normal)
    tried = np.argsort(-apart, axis=1, kind="stable")[:, :TRIED]
    flow, place = np.ogrid[:n, : tried.shape[1]]
    # without[i, c] is flow i with the c-th feature tried as its partner has it, alone[i, c] the
    # partner with that feature as flow i has it.
    without = np.repeat(z[:, None], tried.shape[1], axis=1)
    alone = np.repeat(normal[:, None], tried.shape[1], axis=1)
    without[flow, place, tried] = normal[flow, tried]
    alone[flow, place, tried] = z[flow, tried]
    rows = np.concatenate([z, normal, without.reshape(-1, k), alone.reshape(-1, k)])
    odd = model.look(rows).oddness
    own, usual = odd[:n, None], odd[n : 2 * n, None]
    without_odd, alone_odd = odd[2 * n :].reshape(2, n, -1)
    falls = np.maximum(own - without_odd, 0.0)
    rises = np.maximum(alone_odd - usual, 0.0)
    both = (falls + rises) / 2.0
    # Where the partner is as odd itself, the largest share is the whole.
    whole = np.maximum(own - usual, both.max(axis=1, keepdims=True))
    shares = np.zeros_like(z)
    shares[flow, tried] = np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)
    return _told(model, values, normal, shares, shares * apart)


def glance(model: Model, values: Values, z: Values) -> list[list[Deviation]]:
    """Deviations by distance to the partner alone, for floods: some 50 us a flow.

    share is then the part of the distance.
    """
    if not len(z):
        return []
    normal = _partner(model, z)
    apart = np.abs(clipped(z) - clipped(normal))
    whole = apart.sum(axis=1, keepdims=True)
    shares = np.divide(apart, whole, out=np.zeros_like(apart), where=whole > 0)
    return _told(model, values, normal, shares, shares)


def _partner(model: Model, z: Values) -> Values:
    """(n, k) the normal flow that shares most features with each row, transformed."""
    near = clipped(model.medoids)
    partner = np.empty_like(z)
    for place, row in enumerate(clipped(z)):
        distance = np.minimum(np.abs(near - row), NEAR).sum(axis=1)
        partner[place] = model.medoids[distance.argmin()]
    return partner


def _told(
    model: Model, values: Values, normal: Values, shares: Values, weights: Values
) -> list[list[Deviation]]:
    # Where nothing reaches it, the one feature that carries most is named all the same.
    smallest = np.minimum(SMALLEST_SHARE, shares.max(axis=1))[:, None]
    weights = np.where((shares > 0) & (shares >= smallest), weights, -1.0)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :TOP]
    return [
        [
            _deviation(model, int(j), float(row[j]), float(partner[j]), float(share[j]))
            for j in best
            if weight[j] >= 0
        ]
        for best, row, partner, share, weight in zip(
            order, values, normal, shares, weights, strict=True
        )
    ]


def _deviation(model: Model, j: int, value: float, normal: float, share: float) -> Deviation:
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
        ordinary=_in_its_unit(model, j, normal),
        ratio=ratio,
        share=min(share, 1.0),
        log=feature.log,
    )


def _in_its_unit(model: Model, j: int, z: float) -> float:
    """A normal flow's transformed value of feature j as that feature's own, to the six digits
    that medoids are kept with."""
    transform = model.transform
    knots = slice(transform.starts[j], transform.starts[j + 1])
    return float(f"{np.interp(z, transform.zs[knots], transform.xs[knots]):.6g}")

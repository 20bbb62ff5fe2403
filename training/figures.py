"""What a recipe measures on flows it never saw, by protocols without leakage.

Data is split by day, device or capture, never by row; a line is set on flows that were neither
fitted nor are judged; each class of attack counts at most CLASS_CAP flows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml.model import SEED, Model, fit
from training.datasets import FEATURES_OF, Flows

__all__ = ["FOLDS", "auc", "figures"]

Values = NDArray[np.float64]

CLASS_CAP: Final = 1000
ALPHA: Final = 0.01
FOLDS: Final = 5
LOCAL: Final = 500
"""Flows of an unseen network on which a model's line is set anew before it votes there."""
_DAYS: Final = ("Monday", "Tuesday", "Wednesday")
_FEWEST_GROUPS: Final = 3


def figures(name: str, normal: Flows, attacks: Flows | None) -> dict[str, Any]:
    """The figures of the model card; {} where the data is too little to measure on.

    normal: with the groups to split by; attacks: by class (None: only false alarms).
    """
    if name == "industrial" and set(_DAYS) <= set(normal.groups.tolist()) and attacks is not None:
        return _by_day(normal, attacks)
    if len(np.unique(normal.groups)) < _FEWEST_GROUPS:
        return {}
    return _by_group(name, normal, attacks)


def auc(normal: Values, odd: Values) -> float:
    """How often an attack flow is odder than a normal one, ties half (Mann-Whitney)."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, odd, "left") + np.searchsorted(ordered, odd, "right")
    return float(below.mean() / (2 * len(ordered)))


def _by_day(normal: Flows, attacks: Flows) -> dict[str, Any]:
    """Later days of the same network: fit before, judge Wednesday."""
    is_plant = np.char.startswith(normal.groups, "capture ")
    wednesday = attacks.where(attacks.groups == "Wednesday")
    judged = normal.where(normal.groups == "Wednesday")
    both = _fit_on(
        "industrial", normal.where(is_plant | np.isin(normal.groups, ("Monday", "Tuesday"))), None
    )
    told = {
        "auc_wednesday": _rounded(auc(_oddness(both, judged), _oddness(both, wednesday))),
        "protocol_auc": "fit on Monday, Tuesday and the Modbus polling; Wednesday's benign flows "
        "against its five classes of attack, at most 1,000 flows a class",
    }
    earlier = _fit_on(
        "industrial",
        normal.where(is_plant | (normal.groups == "Monday")),
        normal.where(normal.groups == "Tuesday"),
    )
    return {
        **told,
        "line": {
            "protocol": "fit on Monday and the Modbus polling, line of 1 % on Tuesday, judged on "
            "Wednesday",
            **_at_line(earlier, judged, wednesday),
        },
    }


def _by_group(name: str, normal: Flows, attacks: Flows | None) -> dict[str, Any]:
    """Unknown devices and captures: FOLDS folds of groups, each judged once."""
    groups = np.random.default_rng(SEED).permutation(np.unique(normal.groups))
    folds = min(FOLDS, len(groups))
    areas, lines = [], []
    for fold in range(folds):
        judged = np.isin(normal.groups, groups[fold::folds])
        lined = np.isin(normal.groups, groups[(fold + 1) % folds :: folds])
        model = _fit_on(name, normal.where(~judged & ~lined), normal.where(lined))
        unseen = normal.where(judged)
        if attacks is not None:
            areas.append(auc(_oddness(model, unseen), _oddness(model, _capped(attacks))))
        lines.append(_at_line(model, unseen, attacks))
    told: dict[str, Any] = {
        "protocol": f"{folds} folds of devices and captures: one is judged, one sets the line of "
        "1 %, the others fit; attacks are those of the recorded lab, at most 1,000 flows a class",
        "false_alarms": [line["false_alarms"] for line in lines],
    }
    if attacks is not None:
        told["auc"] = [_rounded(area) for area in areas]
        told["recall"] = [line["recall"] for line in lines]
        told["macro_recall"] = [line["macro_recall"] for line in lines]
        told["moved"] = _moved(name, normal, attacks)
    return told


def _moved(name: str, normal: Flows, attacks: Flows) -> dict[str, Any]:
    """The product's situation: a network never seen, the line from its first LOCAL flows."""
    lab = np.char.startswith(normal.groups, "lab ")
    if lab.all() or lab.sum() < 2 * LOCAL:
        return {}
    here = np.flatnonzero(lab)
    first = np.zeros(len(normal), bool)
    first[here[:LOCAL]] = True
    model = _fit_on(name, normal.where(~lab), normal.where(first))
    return {
        "protocol": f"fitted without the lab, line of 1 % from {LOCAL} harmless flows of it, "
        "judged on its others and its attacks",
        **_at_line(model, normal.where(lab & ~first), attacks),
    }


def _fit_on(name: str, normal: Flows, held_out: Flows | None) -> Model:
    values = None if held_out is None else held_out.values
    return fit(name, "figures", FEATURES_OF[name], normal.values, values).model


def _oddness(model: Model, flows: Flows) -> Values:
    return model.oddness(model.transformed(flows.values))[1]


def _at_line(model: Model, normal: Flows, attacks: Flows | None) -> dict[str, Any]:
    """False alarms and recall at the line the model set itself."""
    assert model.calibration is not None
    line = model.calibration.threshold(1.0, ALPHA)
    told: dict[str, Any] = {
        "false_alarms": _rounded(_share(model, normal, line)),
        "normal_flows": len(normal),
    }
    if attacks is not None:
        attacks = _capped(attacks)
        by_class = {
            str(label): _rounded(_share(model, attacks.where(attacks.labels == label), line))
            for label in np.unique(attacks.labels)
        }
        told["recall"] = _rounded(_share(model, attacks, line))
        told["macro_recall"] = _rounded(float(np.mean(list(by_class.values()))))
        told["by_class"] = by_class
    return told


def _share(model: Model, flows: Flows, line: float) -> float:
    assert model.calibration is not None
    return float((model.calibration.score(_oddness(model, flows)) < line).mean())


def _capped(attacks: Flows) -> Flows:
    """At most CLASS_CAP flows a class, so that no flood decides a figure."""
    kept = np.zeros(len(attacks), bool)
    rng = np.random.default_rng(SEED)
    for label in np.unique(attacks.labels):
        kept[rng.permutation(np.flatnonzero(attacks.labels == label))[:CLASS_CAP]] = True
    return attacks.where(kept)


def _rounded(value: float) -> float:
    return round(value, 4)

"""What a recipe measures on flows it never saw, by protocols without leakage.

Data is split by day, device or capture, never by row; a line is set on flows that were neither
fitted nor are judged; each class of attack counts at most CLASS_CAP flows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml.calibration import Calibration
from ml.model import SEED, Model, fit
from training.datasets import DAYS, FEATURES_OF, Flows
from training.splits import held_out

__all__ = ["FOLDS", "auc", "figures"]

Values = NDArray[np.float64]

CLASS_CAP: Final = 1000
ALPHA: Final = 0.01
FOLDS: Final = 5
LOCAL: Final = 500
"""Flows of an unseen network on which a model's line is set anew before it votes there."""
ELSEWHERE: Final = "CSE-CIC-IDS2018, original edition"
_FEWEST_GROUPS: Final = 3


def figures(
    name: str, normal: Flows, attacks: Flows | None, elsewhere: Flows | None = None
) -> dict[str, Any]:
    """The figures of the model card; {} where the data is too little to measure on.

    normal: with the groups to split by; attacks: by class (None: only false alarms).
    elsewhere: normal and attack flows of a network that is in neither.
    """
    told: dict[str, Any] = {}
    if set(DAYS) <= set(normal.groups.tolist()) and attacks is not None:
        told["later_days"] = _by_day(name, normal, attacks)
    lab = None if attacks is None else _found(attacks, attacks.groups == "lab attack")
    if len(np.unique(normal.groups[~np.isin(normal.groups, DAYS)])) >= _FEWEST_GROUPS:
        told["unknown_devices"] = _by_group(name, normal, lab)
    networks = {
        "lab": (np.char.startswith(normal.groups, "lab "), lab),
        "CIC-IDS2017": (
            np.isin(normal.groups, DAYS),
            None if attacks is None else _found(attacks, np.isin(attacks.groups, DAYS)),
        ),
    }
    moved = {
        network: _moved(name, normal.where(~here), normal.where(here), odd)
        for network, (here, odd) in networks.items()
        if _can_move(normal, here)
    }
    if elsewhere is not None and len(np.unique(normal.groups)) >= _FEWEST_GROUPS:
        harmless = elsewhere.labels == "normal"
        if harmless.sum() >= 2 * LOCAL:
            odd = _found(elsewhere, ~harmless)
            moved[ELSEWHERE] = _moved(name, normal, elsewhere.where(harmless), odd)
    if moved:
        told["another_network"] = {
            "protocol": "fitted without any flow of the network; before: the model's own line of "
            f"1 %, after: the line from the first {LOCAL} harmless flows there, judged on the "
            "others and on that network's attacks",
            **moved,
        }
    return told


def _found(flows: Flows, mask: NDArray[np.bool_]) -> Flows | None:
    return flows.where(mask) if mask.any() else None


def _can_move(normal: Flows, here: NDArray[np.bool_]) -> bool:
    """Whether a network has flows to judge after LOCAL of them, and the others flows to learn."""
    return bool(here.sum() >= 2 * LOCAL and len(np.unique(normal.groups[~here])) >= _FEWEST_GROUPS)


def auc(normal: Values, odd: Values) -> float:
    """How often an attack flow is odder than a normal one, ties half (Mann-Whitney)."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, odd, "left") + np.searchsorted(ordered, odd, "right")
    return float(below.mean() / (2 * len(ordered)))


def _by_day(name: str, normal: Flows, attacks: Flows) -> dict[str, Any]:
    """Later days of the same network: fit before, judge Wednesday."""
    tuesday, wednesday = normal.groups == DAYS[1], normal.groups == DAYS[2]
    judged, odd = normal.where(wednesday), attacks.where(attacks.groups == DAYS[-1])
    both = _fit_on(name, normal.where(~wednesday), None)
    earlier = _fit_on(name, normal.where(~tuesday & ~wednesday), normal.where(tuesday))
    return {
        "auc_wednesday": _rounded(auc(_oddness(both, judged), _oddness(both, odd))),
        "protocol_auc": "fit on everything but Wednesday; Wednesday's benign flows against its "
        "classes of attack, at most 1,000 flows a class",
        "line": {
            "protocol": "fit on everything but Tuesday and Wednesday, line of 1 % on Tuesday, "
            "judged on Wednesday",
            **_at_line(earlier, judged, odd),
        },
    }


def _by_group(name: str, normal: Flows, attacks: Flows | None) -> dict[str, Any]:
    """Unknown devices and captures: FOLDS folds of groups, each judged once."""
    day = np.isin(normal.groups, DAYS)
    groups = np.random.default_rng(SEED).permutation(np.unique(normal.groups[~day]))
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
    return told


def _moved(name: str, known: Flows, here: Flows, attacks: Flows | None) -> dict[str, Any]:
    """The product's situation: a network never seen, the line from its first LOCAL flows."""
    held = held_out(known)
    model = _fit_on(name, known.where(~held), known.where(held))
    first = np.arange(len(here)) < LOCAL
    local = Calibration.fit(_oddness(model, here.where(first)))
    unseen = here.where(~first)
    return {
        "before": _without_classes(_at_line(model, unseen, attacks)),
        "after": _at_line(replace(model, calibration=local), unseen, attacks),
    }


def _without_classes(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key != "by_class"}


def _fit_on(name: str, normal: Flows, held_out: Flows | None) -> Model:
    values = None if held_out is None else held_out.values
    return fit(name, "figures", FEATURES_OF[name], normal.values, values).model


def _oddness(model: Model, flows: Flows) -> Values:
    return model.look(model.transformed(flows.values)).oddness


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

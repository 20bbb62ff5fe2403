"""Devices that were never seen: the home model with whole devices left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features import HOME
from ml.model import fit
from training.evaluation.candidates import ALPHA
from training.evaluation.tables import Table
from training.evaluation.transfer import MOST_OF_ONE
from training.figures import FOLDS, auc

__all__ = ["Unknown", "unknown_devices"]

FEWEST = 5


@dataclass(frozen=True, slots=True)
class Unknown:
    """One fold: its devices were neither fitted nor set the line. rate: their false alarms at the
    line for 1 %; auc, recall: against the tables' attacks on networks without days."""

    network: str
    seed: int
    devices: tuple[str, ...]
    rate: float
    auc: float
    recall: float


def unknown_devices(table: Table, seeds: Sequence[int]) -> list[Unknown]:
    """FOLDS folds of the devices of each network that has at least five: one is judged, the next
    sets the line, the others are fitted."""
    told = []
    odd = table.where(table.attack & (table.days == "")).of(HOME)
    for network in np.unique(table.networks[table.devices != ""]):
        here = table.where((table.networks == network) & ~table.attack)
        for seed in seeds:
            rng = np.random.default_rng(seed)
            names = rng.permutation(np.unique(here.devices))
            if len(names) < FEWEST:
                continue
            kept = np.zeros(len(here), bool)
            for device in names:
                kept[rng.permutation(np.flatnonzero(here.devices == device))[:MOST_OF_ONE]] = True
            fair = here.where(kept)
            for fold in range(FOLDS):
                judged = np.isin(fair.devices, names[fold::FOLDS])
                line = np.isin(fair.devices, names[(fold + 1) % FOLDS :: FOLDS])
                values = fair.of(HOME)
                model = fit(
                    "home", "evaluation", HOME, values[~judged & ~line], values[line], seed=seed
                ).model
                calibration = model.calibration
                assert calibration is not None
                limit = calibration.threshold(1.0, ALPHA)
                calm = model.look(model.transformed(values[judged])).oddness
                attacks = model.look(model.transformed(odd)).oddness if len(odd) else np.empty(0)
                none = float("nan")
                told.append(
                    Unknown(
                        str(network),
                        seed,
                        tuple(str(name) for name in names[fold::FOLDS]),
                        float((calibration.score(calm) < limit).mean()),
                        auc(calm, attacks) if len(odd) else none,
                        float((calibration.score(attacks) < limit).mean()) if len(odd) else none,
                    )
                )
    return told

"""Flows that people judged, read from the data directory, and how they join a training.

Confirmed false positives that may be learned are added to the flows to fit, never to those that
set the line. Flows of attacks a person called real are measured, never fitted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from errors import InputError
from features import LIVE, select
from ml.model import Model
from ml.registry import write_atomically
from store_files import read_journal, read_snapshot

__all__ = ["GROUP", "MOST", "NAME", "Feedback", "read"]

log = logging.getLogger("secureflux.training")

Values = NDArray[np.float64]

NAME: Final = "feedback_store"
"""The document of data/ that the incident room keeps."""
GROUP: Final = "feedback"
MOST: Final = 1000
"""False positives fitted at most, the newest: as many as of one device."""
ALPHA: Final = 0.01
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Feedback:
    """normal, attacks: (n, len(LIVE)) flows of false positives and of real attacks, by time.
    incidents: how many incidents the false positives are of."""

    normal: Values
    attacks: Values
    incidents: int

    def join(self, table: Path, sources: Path, names: tuple[str, ...]) -> None:
        """Add the false positives to a training's table, to the part to fit, and to its sources.

        names: the model's features. Flows of one packet stay out, as everywhere in trainings;
        InputError where all are.
        """
        packets = select(self.normal, ("Total Fwd Packets", "Total Bwd Packets")).sum(axis=1)
        rows = select(self.normal, names)[packets >= 2]
        if not len(rows):
            raise InputError(
                "All flows of the confirmed false positives are of a single packet, which only "
                "the live model judges: there is nothing to train this model again with."
            )
        frame = pd.DataFrame(rows, columns=list(names))
        frame["group"], frame["part"] = GROUP, "fit"
        joined = pd.concat([pd.read_csv(table), frame], ignore_index=True)
        write_atomically(table, joined.to_csv(index=False).encode())
        told = json.loads(sources.read_text())
        told["feedback"] = {"flows": len(rows), "incidents": self.incidents}
        own = {"name": "false positives that people confirmed on this network", "citation": None}
        told["sources"].append({**own, "licence": "yours", "flows": len(rows)})
        write_atomically(sources, json.dumps(told, indent=2).encode())
        log.info("%d flows of confirmed false positives joined.", len(rows))

    def measured(self, model: Model) -> dict[str, Any]:
        """What the model says of the judged flows at its own line; {} without a line."""
        if model.calibration is None:
            return {}
        line = model.calibration.threshold(1.0, ALPHA)
        told: dict[str, Any] = {}
        for name, values in (
            ("false_positives_still_flagged", self.normal),
            ("real_attacks_flagged", self.attacks),
        ):
            if len(values):
                z = model.transformed(select(values, model.features))
                odd = model.calibration.score(model.look(z).oddness) < line
                told[name] = f"{int(odd.sum())} of {len(odd)}"
        return told


def read(data_dir: Path) -> Feedback:
    """What people said until now; the program may run meanwhile.

    InputError where nobody has confirmed a false positive that may be learned.
    """
    records = sorted(_records(data_dir / f"{NAME}.json").values(), key=lambda one: one["time"])
    whole = [one for one in records if len(one["features"]) == len(LIVE)]
    if len(whole) < len(records):
        log.warning(
            "%d flows are left out: another version of the program wrote them.",
            len(records) - len(whole),
        )
    normal = [one for one in whole if one["verdict"] == "false" and one["learn"]][-MOST:]
    if not normal:
        raise InputError(
            f"There is no feedback in {data_dir} to learn from: no false positive was marked with "
            '"Mark and learn" yet.'
        )
    attacks = [one for one in whole if one["verdict"] == "real"]
    return Feedback(
        _values(normal), _values(attacks), len({str(one["incident"]) for one in normal})
    )


def _values(records: list[Mapping[str, Any]]) -> Values:
    return np.array([one["features"] for one in records], np.float64).reshape(-1, len(LIVE))


def _records(path: Path) -> dict[str, Mapping[str, Any]]:
    """The document's records by id: its snapshot, and what the journal has beyond it."""
    journal = path.with_name(f"{path.stem}.journal")
    for _ in range(_TRIES):
        snapshot = read_snapshot(path, list)
        changes = read_journal(journal, snapshot.digest).changes
        # A snapshot made in between has taken the journal's changes with it.
        if read_snapshot(path, list).digest == snapshot.digest:
            break
    found = {one["id"]: one for one in map(_checked, snapshot.values) if one is not None}
    for action, argument in changes:
        if action == "delete":
            found.pop(argument, None)
        elif action == "put" and (one := _checked(argument)) is not None:
            found[one["id"]] = one
    return found


def _checked(value: object) -> Mapping[str, Any] | None:
    """The record, None where it is none."""
    wanted = {"id", "incident", "verdict", "learn", "time", "features"}
    if not isinstance(value, dict) or not wanted <= value.keys():
        return None
    features = value["features"]
    if not isinstance(features, list) or not all(isinstance(one, int | float) for one in features):
        return None
    return value if isinstance(value["time"], int | float) and np.isfinite(features).all() else None

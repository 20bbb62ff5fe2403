"""The four steps from data to a model's folder, which the scripts of this folder call.

    extract  -> flow_features.csv, sources.json      what is learned from
    scale    -> the scaler, X_scaled.npy             its transform, fitted on the part to fit
    forest   -> the isolation forest
    finish   -> threshold, model.npz, manifest.json, README.md in the model's folder

A step reads what the step before it left in the work folder.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import pandas as pd

from errors import InputError, ModelError, UsageError
from ml.model import SEED, Model, assemble, fit_forest, fit_scaler
from ml.registry import MANIFEST, NAMES, save, write_atomically
from training.card import card
from training.datasets import (
    FEATURES_OF,
    Flows,
    read_attacks,
    read_elsewhere,
    read_normal,
)
from training.feedback import GROUP, Feedback
from training.figures import figures
from training.live import train_live
from training.splits import MOST_OF_ONE, capped, held_out

__all__ = ["DATA", "MODELS_FOLDER", "WEIGHTS", "extract", "finish", "forest", "scale", "train"]

log = logging.getLogger("secureflux.training")

ROOT: Final = Path(__file__).resolve().parent.parent
DATA: Final = ROOT.parent / "shared" / "data"
MODELS_FOLDER: Final = ROOT / "ml" / "models"
WORK: Final = ROOT / "build" / "training"

SPLITS: Final = {
    "home": "by device and capture",
    "industrial": "by day and plant",
    "reduced": "by day, plant, device and capture",
}
WEIGHTS: Final = {"home": 0.1, "industrial": 0.1, "reduced": 1.0}
"""The part of the false-alarm budget a model may spend by default; the reduced one votes alone."""


def extract(name: str, data: Path, work: Path) -> None:
    """Step 1: normal flows of two packets or more, as a table one can open."""
    flows = capped(read_normal(name, data))
    frame = pd.DataFrame(flows.values, columns=list(FEATURES_OF[name]))
    frame["group"] = flows.groups
    frame["part"] = np.where(held_out(flows), "held out", "fit")
    work.mkdir(parents=True, exist_ok=True)
    write_atomically(work / _table_name(name), frame.to_csv(index=False).encode())
    sources = {"data": data.name, "sources": list(flows.sources)}
    write_atomically(work / "sources.json", json.dumps(sources, indent=2).encode())
    log.info("Step 1: %d flows of %d groups.", len(frame), frame["group"].nunique())


def scale(name: str, work: Path) -> None:
    """Step 2: the transform, learned from the part to fit."""
    normal, _ = _parts(name, work)
    scaler = fit_scaler(normal)
    joblib.dump(scaler, work / NAMES[name].scaler)
    np.save(work / _scaled_name(name), scaler.transform(normal))
    log.info("Step 2: %d flows scaled.", len(normal))


def forest(name: str, work: Path) -> None:
    """Step 3: the isolation forest on the scaled flows."""
    estimator = fit_forest(_loaded(work, _scaled_name(name), np.load))
    joblib.dump(estimator, work / NAMES[name].forest)
    log.info("Step 3: %d trees grown.", len(estimator.estimators_))


def finish(name: str, data: Path, work: Path, out: Path, feedback: Feedback | None = None) -> Model:
    """Step 4: the line from the flows never fitted, the figures, and the model's files in `out`.

    feedback: what people judged, whose false positives are in the table already.
    """
    normal, held_out = _parts(name, work)
    fitted = assemble(
        name,
        _next_version(out),
        FEATURES_OF[name],
        # Both were written by the steps before this one; no other joblib file is ever opened.
        _loaded(work, NAMES[name].scaler, joblib.load),
        _loaded(work, NAMES[name].forest, joblib.load),
        normal,
        held_out,
    )
    training = {
        "flows": len(normal),
        "held_out": len(held_out),
        "split": SPLITS[name],
        "seed": SEED,
        "most_of_one": MOST_OF_ONE,
        **json.loads(_loaded(work, "sources.json", Path.read_text)),
    }
    frame = _frame(name, work)
    # Figures are of the data that anyone can get; what was confirmed here is told beside them.
    frame = frame[frame["group"] != GROUP]
    labels = np.full(len(frame), "normal")
    flows = Flows(
        frame[list(FEATURES_OF[name])].to_numpy(np.float64),
        frame["group"].to_numpy(str),
        labels,
        (),
    )
    elsewhere = read_elsewhere(data) if name == "reduced" else None
    measured = figures(name, flows, read_attacks(name, data), elsewhere)
    if feedback is not None:
        measured["feedback"] = feedback.measured(fitted.model)
    model = save(fitted, out, weight=WEIGHTS[name], training=training, figures=measured)
    scaled = io.BytesIO()
    np.save(scaled, _loaded(work, _scaled_name(name), np.load).astype(np.float32))
    write_atomically(out / _scaled_name(name), scaled.getvalue())
    write_atomically(out / "README.md", card(model).encode())
    log.info("Step 4: model %s, version %s, is in %s.", name, model.version, out)
    return model


def train(
    name: str,
    data: Path | None = None,
    out: Path | None = None,
    feedback: Feedback | None = None,
) -> Model:
    """Make a new version of a model; the model, saved in `out`.

    name: home, industrial, reduced or live. data: the data set's layout or a folder of captures of
    normal traffic; None means DATA, for the live model the flows it has collected. out: the
    model's folder, by default the one in MODELS_FOLDER. feedback: false positives to fit as well
    (not for the live model, whose buffer they have joined).
    """
    out = out or MODELS_FOLDER / name
    if name == "live":
        return train_live(data, out)
    if name not in FEATURES_OF:
        raise UsageError(f"There is no model {name}. There are home, industrial, reduced and live.")
    data = data or DATA
    with tempfile.TemporaryDirectory(prefix="secureflux-training-") as folder:
        work = Path(folder)
        extract(name, data, work)
        if feedback is not None:
            table = work / _table_name(name)
            feedback.join(table, work / "sources.json", FEATURES_OF[name])
        scale(name, work)
        forest(name, work)
        return finish(name, data, work, out, feedback)


def _table_name(name: str) -> str:
    return f"{name}_flow_features.csv"


def _scaled_name(name: str) -> str:
    return NAMES[name].scaled or "X_scaled.npy"


def _frame(name: str, work: Path) -> Any:
    return _loaded(work, _table_name(name), pd.read_csv)


def _parts(name: str, work: Path) -> tuple[Any, Any]:
    """(flows to fit, flows held out), each (n, k) float64."""
    frame = _frame(name, work)
    values = frame[list(FEATURES_OF[name])].to_numpy(np.float64)
    held = (frame["part"] == "held out").to_numpy()
    return values[~held], values[held]


def _loaded(work: Path, name: str, read: Any) -> Any:
    try:
        return read(work / name)
    except FileNotFoundError:
        raise InputError(
            f"There is no {name} in {work}: run the steps before this one first."
        ) from None


def _next_version(out: Path) -> str:
    try:
        return str(int(json.loads((out / MANIFEST).read_text())["version"]) + 1)
    except FileNotFoundError:
        return "1"
    except (ValueError, KeyError) as error:
        raise ModelError(f"{out / MANIFEST} is damaged; remove it to train anew.") from error

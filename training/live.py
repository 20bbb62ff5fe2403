"""The live model from captures of normal traffic, for those who have some before they start."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from addresses import addresses_of
from errors import ModelError
from features import matrix
from ml.baseline import Baseline, never_fitted
from ml.model import Model
from training.datasets import capture_flows, captures_in

__all__ = ["train_live"]

log = logging.getLogger("secureflux.training")


def train_live(data: Path | None, out: Path) -> Model:
    """Put the flows of captures into the live model's buffer and train.

    data: a folder of captures of this network's normal traffic, or the layout of the data set,
    of which the lab's quiet recording is taken; None trains on what the buffer holds already.
    out: LIVE_MODEL_PATH. ModelError where fewer than 500 flows came together.
    """
    baseline = Baseline(out, background=False)
    if data is not None:
        quiet = data / "lab" / "home_lab_quiet.pcap.gz"
        paths = [quiet] if quiet.exists() else captures_in(data)
        rows = np.concatenate([capture_flows(path, fewest_packets=1) for path in paths])
        rows = rows[np.argsort(rows["last_ns"], kind="stable")]
        now_s = int(rows["last_ns"][-1]) / 1e9 if len(rows) else 0.0
        baseline.offer(matrix(rows), addresses_of(rows, "src"), never_fitted(rows), now_s)
        log.info("%d flows of %d captures.", len(rows), len(paths))
    if data is None or baseline.model is None or baseline.status()["collected"]:
        baseline.retrain()
    baseline.close()
    refused = baseline.status()["history"][-1]["refusal"]
    if refused:
        raise ModelError(f"{refused} `app.py models use` lets it serve all the same.")
    assert baseline.model is not None
    return baseline.model

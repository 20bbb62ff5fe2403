"""The live model's learning as a stream in time order, with an attack in it (rows 13, 14).

The product itself learns: its votes, its incidents and its quarantine decide what joins the
baseline. Judged are flows that were never streamed: the harmless ones of the last day, and the
later half of the attack's flows; its first half is what hides in the stream.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis import Analysis
from batches import FlowBatch, Rows
from features import HOME, INDUSTRIAL, matrix
from ml import registry
from ml.model import Model
from settings import Settings
from store import Store
from training.evaluation.candidates import ALPHA
from training.evaluation.flow_rows import flow_rows
from training.evaluation.splits import days_of
from training.evaluation.tables import Table
from training.evaluation.transfer import foreign_fitted, networks_of
from training.figures import auc

__all__ = ["HIDDEN", "SHARES", "Streamed", "streams"]

log = logging.getLogger("secureflux.training")

SHARES: Final = (0.05, 0.20)
"""Part of the stream that is the attack."""
FIRST: Final = (500, 0.30)
"""So many flows of the stream hold so large a part of attack, and the rest none."""
HIDDEN: Final = ("FTP-Patator", "Slowloris", "Portscan", "Botnet")
"""Classes that hide in the stream, where the tables have them; no flow model sees the last."""
SEEDS: Final = (42, 43)
BATCH: Final = 50
FEWEST: Final = 100


@dataclass(frozen=True, slots=True)
class Streamed:
    """attack: the class that hid in the stream; how: "none", "5 %", ... ; trainings: versions
    made. auc: of its unseen flows against the last day's; rate: false alarms at the line for 1 %.
    """

    attack: str
    how: str
    seed: int
    auc: float
    rate: float
    streamed: int
    trainings: int


def streams(table: Table, network: str) -> Iterator[Streamed]:
    """Every way of hiding each class in the harmless stream of all days but the last."""
    here = table.where(table.networks == network)
    days = days_of(here)
    known = here.frame["src_ip"].to_numpy(str) != ""
    others = [name for name in networks_of(table) if name.split()[0] != network.split()[0]]
    if len(days) < 2 or not others or not known.all():
        return
    calm, judged = here.on(days[:-1]).normal, here.on(days[-1:]).normal
    classes = {
        name: here.attacks.where(np.char.find(here.attacks.labels, name) >= 0) for name in HIDDEN
    }
    classes = {name: rows for name, rows in classes.items() if len(rows) >= FEWEST}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory(prefix="secureflux-evaluation-") as folder:
            settings = _elsewhere(table, others, Path(folder), seed)
            clean = _learned(settings, calm, None, 0.0, None, seed)
            for name, attack in classes.items():
                early, late = _halves(attack)
                yield _told(clean, name, "none", seed, judged, late, 0)
                for share in SHARES:
                    poisoned = _learned(settings, calm, early, share, None, seed)
                    yield _told(poisoned, name, f"{share:.0%}", seed, judged, late, len(early))
                first, part = FIRST
                poisoned = _learned(settings, calm, early, part, first, seed)
                how = f"{part:.0%} of the first {first}"
                yield _told(poisoned, name, how, seed, judged, late, len(early))


def _elsewhere(table: Table, others: list[str], folder: Path, seed: int) -> Settings:
    """The product's settings with home and industrial models of other networks: homes' devices
    where there are any, and a network with days."""
    home = others[-1]  # those without days, such as devices, come last
    for name, source, features in (("home", home, HOME), ("industrial", others[0], INDUSTRIAL)):
        fitted = foreign_fitted(table, source, name, features, seed)
        registry.save(fitted, folder / name, weight=0.1, training={"flows": 0}, figures={})
    return replace(
        Settings(),
        HOME_MODEL_PATH=str(folder / "home"),
        INDUSTRIAL_MODEL_PATH=str(folder / "industrial"),
    )


def _halves(attack: Table) -> tuple[Table, Table]:
    """The earlier and the later half of a class, by time."""
    order = np.argsort(attack.frame["ts"].to_numpy().astype(np.int64), kind="stable")
    early = np.zeros(len(attack), bool)
    early[order[: len(attack) // 2]] = True
    return attack.where(early), attack.where(~early)


def _learned(
    settings: Settings,
    calm: Table,
    attack: Table | None,
    share: float,
    first: int | None,
    seed: int,
) -> tuple[Model | None, int]:
    """The live model after the stream, and how many versions were made."""
    rows = _mixed(calm, attack, share, first, seed)
    with tempfile.TemporaryDirectory(prefix="secureflux-stream-") as folder:
        own = replace(settings, DATA_DIR=folder, LIVE_MODEL_PATH=str(Path(folder) / "live"))
        store = Store(Path(folder))
        try:
            analysis = Analysis(own, store, run="stream", background=False)
            for start in range(0, len(rows), BATCH):
                batch = FlowBatch(rows[start : start + BATCH])
                findings = analysis.windows.flows(batch)
                if findings:
                    analysis.incidents.add_findings(findings)
                analysis.judge(batch)
                analysis.incidents.tick(int(batch.rows["last_ns"].max()) / 1e9)
            baseline = analysis.predictor.baseline
            model, versions = baseline.model, len(baseline.status()["history"])
            analysis.predictor.close()
        finally:
            store.close()
    return model, versions


def _mixed(calm: Table, attack: Table | None, share: float, first: int | None, seed: int) -> Rows:
    """FLOW rows by time, the attack spread evenly among them; its flows begin anew, each from
    another port, where there are too few."""
    stamps = np.sort(_nanoseconds(calm))
    order = np.argsort(_nanoseconds(calm), kind="stable")
    rows = flow_rows(calm, _nanoseconds(calm))[order]
    if attack is not None:
        rng = np.random.default_rng(seed)
        span = len(rows) if first is None else round(first * (1 - share))
        count = round(share / (1 - share) * span)
        chosen = np.resize(rng.permutation(len(attack)), count)
        places = np.sort(rng.uniform(0, span - 1, count))
        begins = np.interp(places, np.arange(len(rows)), stamps).astype(np.int64)
        hidden = flow_rows(attack, np.zeros(len(attack), np.int64))[chosen]
        for name in ("first_ns", "last_ns"):
            hidden[name] += begins
        for name in ("dir_first_ns", "dir_last_ns"):
            hidden[name] += begins[:, None]
        again = np.arange(count) // max(len(attack), 1)
        hidden["src_port"] = hidden["src_port"] + again.astype(np.uint16)
        rows = np.concatenate([rows, hidden])
    rows = rows[np.argsort(rows["last_ns"], kind="stable")]
    rows["id"] = np.arange(1, len(rows) + 1)
    return rows


def _nanoseconds(table: Table) -> NDArray[np.int64]:
    stamps: NDArray[np.int64] = (
        table.frame["ts"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    )
    return stamps


def _told(
    learned: tuple[Model | None, int],
    attack: str,
    how: str,
    seed: int,
    judged: Table,
    late: Table,
    streamed: int,
) -> Streamed:
    model, versions = learned
    log.info("Stream with %s, %s, seed %d: %d versions", attack, how, seed, versions)
    none = float("nan")
    if model is None or model.calibration is None:
        return Streamed(attack, how, seed, none, none, streamed, versions)
    calm, odd = (
        model.look(model.transformed(matrix(flow_rows(part, _nanoseconds(part)))[:, model.columns]))
        for part in (judged, late)
    )
    line = model.calibration.threshold(1.0, ALPHA)
    rate = float((model.calibration.score(calm.oddness) < line).mean())
    return Streamed(attack, how, seed, auc(calm.oddness, odd.oddness), rate, streamed, versions)

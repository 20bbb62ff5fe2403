"""An attack inside the stream the live model learns from: what it lets in, and what that costs.

Rows of flows go through the product's own doors, batch after batch: models vote, sources are
barred, versions are compared. Nobody raises incidents here (windows would bar more sources than
flows alone do), so this is the harder case of `streams`. Afterwards the live model is measured on
flows that were never streamed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from addresses import addresses_of
from batches import FlowBatch, Rows
from features import INDUSTRIAL, matrix
from ml import registry
from ml.model import fit
from predict import Predictor
from settings import Settings
from training.evaluation.flow_rows import flow_rows
from training.evaluation.tables import Table, read_tables
from training.figures import auc

__all__ = [
    "CLEAN",
    "SCENARIOS",
    "Outcome",
    "Scenario",
    "measured",
    "mixed",
    "of_busiest",
    "poisoning",
]

Mask = NDArray[np.bool_]

NETWORK: Final = "cic17 improved"
ATTACKS: Final = ("FTP-Patator", "DoS Slowloris")
BATCH: Final = 50
WARM: Final = 800
"""Harmless flows before a background attack begins: the first counting of the models from
elsewhere and the first training need 500 each, a fifth of all flows being never fitted."""
FIRST: Final = 500


@dataclass(frozen=True, slots=True)
class Scenario:
    """How an attack comes: it is `share` of all flows from place `begin` of the harmless stream
    to place `end`."""

    name: str
    share: float
    begin: int = WARM
    end: int | None = None


CLEAN: Final = Scenario("clean", 0.0)
SCENARIOS: Final = (
    CLEAN,
    Scenario("5 % background", 0.05),
    Scenario("20 % background", 0.20),
    Scenario("30 % of the first 500", 0.30, 0, FIRST),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stream left.

    auc: of the live model, unseen attack flows against unseen harmless ones. fpr: share of these
    beyond its line for 1 %; recall: of those. alert_fpr: share of harmless ones with ALERT by all
    models. let_in: share of the streamed attack flows that are still in the buffer to be fitted;
    learned: the largest share of that buffer they were when a version began to serve. barred:
    share of the harmless flows whose source was barred. versions: trainings; refused: those that
    do not serve.
    """

    auc: float
    fpr: float
    recall: float
    alert_fpr: float
    let_in: float
    learned: float
    barred: float
    versions: int
    refused: int


def mixed(
    benign: Rows, attack: Rows, scenario: Scenario, rng: np.random.Generator
) -> tuple[Rows, Mask]:
    """The stream, and (n,) which of its rows are the attack's.

    benign: in the order of the stream. Attack flows are drawn without repetition, in their own
    order, at random places; where there are too few the share is what they allow.
    """
    end = len(benign) if scenario.end is None else min(scenario.end, len(benign))
    room = end - scenario.begin
    if scenario.end is not None:
        room = round(room * (1.0 - scenario.share))  # `end` counts both
    wanted = min(round(room * scenario.share / (1.0 - scenario.share)), len(attack))
    drawn = attack[np.sort(rng.choice(len(attack), wanted, replace=False))]
    after = scenario.begin + np.sort(rng.choice(room, wanted))
    late_ns = benign["first_ns"][after] - drawn["first_ns"]
    for name in ("first_ns", "last_ns"):
        drawn[name] += late_ns
    for name in ("dir_first_ns", "dir_last_ns"):
        drawn[name] += late_ns[:, None]
    rows = np.concatenate([benign, drawn])
    order = np.argsort(np.concatenate([np.arange(len(benign)) * 1.0, after + 0.5]), kind="stable")
    return rows[order], order >= len(benign)


def measured(predictor: Predictor, rows: Rows, attack: Mask, normal: Rows, unseen: Rows) -> Outcome:
    """Stream rows, then measure on `normal` and on attack flows `unseen`, none of them streamed."""
    poison = {row.tobytes() for row in matrix(rows[attack])}
    baseline = predictor.baseline
    worst, version, barred = 0.0, None, 0
    for start in range(0, len(rows), BATCH):
        batch = FlowBatch(rows[start : start + BATCH])
        predictor.learn(batch, predictor.judge(batch), set())
        if baseline.model is not None and baseline.model.version != version:
            version = baseline.model.version
            worst = max(worst, _inside(predictor, poison) / max(len(baseline.to_fit()), 1))
        harmless = batch.rows[~attack[start : start + BATCH]]
        barred += sum(source in baseline.barred for source in addresses_of(harmless, "src"))
    model = baseline.model
    assert model is not None, "the stream is too short for a training"
    assert model.calibration is not None
    odd = [
        model.look(model.transformed(matrix(part)[:, model.columns])).oddness
        for part in (normal, unseen)
    ]
    line = model.calibration.threshold(1.0, 0.01)
    fpr, recall = (float((model.calibration.score(part) < line).mean()) for part in odd)
    history = baseline.status()["history"]
    return Outcome(
        auc=auc(odd[0], odd[1]),
        fpr=fpr,
        recall=recall,
        alert_fpr=float(predictor.judge(FlowBatch(normal)).alert.mean()),
        let_in=_inside(predictor, poison) / max(int(attack.sum()), 1),
        learned=worst,
        barred=barred / max(int((~attack).sum()), 1),
        versions=len(history),
        refused=sum(bool(one["refusal"]) for one in history),
    )


def _inside(predictor: Predictor, poison: set[bytes]) -> int:
    """How many of the attack's flows the next training would fit."""
    return sum(row.tobytes() in poison for row in predictor.baseline.to_fit())


# --- on the tables at hand ----------------------------------------------------------------------


def poisoning(
    data: Path,
    *,
    seeds: Sequence[int] = (0, 1),
    attacks: Sequence[str] = ATTACKS,
    scenarios: Sequence[Scenario] = SCENARIOS,
    from_inside: bool = False,
) -> list[dict[str, Any]]:
    """Every scenario with every attack and seed: a dictionary each.

    data: folder with flows/. All days but the last are streamed, the last one's harmless flows
    judged with a quarter of the attack's that were not streamed. Home is the shipped model,
    industrial one of the network in the same table that has no days in common: both are counted
    anew on the first flows. from_inside: the attack comes from the network's busiest device,
    between its own harmless flows, instead of from a stranger.

    Keys: scenario, attack, seed, the fields of Outcome, and loss: the AUC that the clean stream
    with the same attack and seed has and this has not (None where CLEAN is not among `scenarios`).
    """
    table = read_tables(data)
    own = table.where(table.networks == NETWORK)
    last = np.char.equal(own.days, "Wednesday")
    stream, test = (_rows(own.where(mask & ~own.attack)) for mask in (~last, last))
    told = []
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = table.where((table.networks != NETWORK) & (table.days != "")).normal
        _foreign_model(elsewhere, Path(folder))
        for name, seed, scenario in _each(attacks, seeds, scenarios):
            rng = np.random.default_rng(seed)
            flows = _rows(own.where(own.labels == name))
            apart = rng.permutation(len(flows)) < len(flows) // 4
            hidden, unseen = flows[~apart], flows[apart]
            if from_inside:
                hidden = of_busiest(hidden, stream)
            rows, is_attack = mixed(stream, hidden, scenario, rng)
            with tempfile.TemporaryDirectory() as live:
                settings = replace(Settings(), LIVE_MODEL_PATH=live, INDUSTRIAL_MODEL_PATH=folder)
                outcome = measured(
                    Predictor(settings, background=False), rows, is_attack, test, unseen
                )
            told.append(
                {"scenario": scenario.name, "attack": name, "seed": seed, **asdict(outcome)}
            )
    clean = {(one["attack"], one["seed"]): one["auc"] for one in told if one["scenario"] == "clean"}
    for one in told:
        reached = clean.get((one["attack"], one["seed"]))
        one["loss"] = None if reached is None else reached - one["auc"]
    return told


def _each(
    attacks: Sequence[str], seeds: Sequence[int], scenarios: Sequence[Scenario]
) -> Iterator[tuple[str, int, Scenario]]:
    for name in attacks:
        for seed in seeds:
            for scenario in scenarios:
                yield name, seed, scenario


def _rows(table: Table) -> Rows:
    """FLOW rows by time."""
    stamps = table.frame["ts"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    rows = flow_rows(table, stamps)
    ordered: Rows = rows[np.argsort(rows["first_ns"], kind="stable")]
    return ordered


def of_busiest(attack: Rows, stream: Rows) -> Rows:
    """The attack's rows as if the device with most flows of the stream had sent them."""
    sources, counts = np.unique(stream["src_lo"], return_counts=True)
    out: Rows = attack.copy()
    out["src_lo"] = sources[counts.argmax()]
    return out


def _foreign_model(normal: Table, folder: Path) -> None:
    values = normal.of(INDUSTRIAL)
    fitted = fit("industrial", "elsewhere", INDUSTRIAL, values[::2], values[1::2])
    registry.save(fitted, folder, weight=0.1, training={"flows": len(values[::2])}, figures={})

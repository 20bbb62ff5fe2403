"""The live model's learning as a stream in time order, with an attack in it (rows 13, 14).

Streamed are the harmless flows of all days but the last, with the earlier half of an attack's flows
among them; judged are the last day's harmless flows and the attack's later half.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batches import Rows
from features import HOME, INDUSTRIAL
from ml import registry
from predict import Predictor
from settings import Settings
from training.evaluation.flow_rows import flow_rows
from training.evaluation.poisoning import (
    SCENARIOS,
    Outcome,
    Scenario,
    measured,
    mixed,
    of_busiest,
)
from training.evaluation.splits import days_of
from training.evaluation.tables import Table
from training.evaluation.transfer import foreign_fitted, networks_of

__all__ = ["HIDDEN", "WAYS", "Streamed", "streams"]

log = logging.getLogger("secureflux.training")

HIDDEN: Final = ("FTP-Patator", "Slowloris", "Portscan", "Botnet")
"""Classes that hide in the stream, where the tables have them; no flow model sees the last."""
FEWEST: Final = 100
WAYS: Final = (*((one, False) for one in SCENARIOS), (SCENARIOS[1], True))


@dataclass(frozen=True, slots=True)
class Streamed:
    """attack: the class that hid in the stream; how: the scenario's name; inside: whether the
    network's busiest device sends it, between its own harmless flows, and not a stranger."""

    attack: str
    how: str
    inside: bool
    seed: int
    outcome: Outcome


def streams(table: Table, network: str, seeds: Sequence[int]) -> Iterator[Streamed]:
    """Every way of hiding each class, with every seed; nothing where the tables lack addresses,
    times, a second day or another network."""
    here = table.where(table.networks == network)
    days = days_of(here)
    known = here.frame["src_ip"].to_numpy(str) != ""
    others = [name for name in networks_of(table) if name.split()[0] != network.split()[0]]
    if len(days) < 2 or not others or not known.all():
        return
    calm, judged = _rows(here.on(days[:-1]).normal), _rows(here.on(days[-1:]).normal)
    classes = {
        name: _rows(here.attacks.where(np.char.find(here.attacks.labels, name) >= 0))
        for name in HIDDEN
    }
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="secureflux-evaluation-") as folder:
            settings = _elsewhere(table, others, Path(folder), seed)
            for name, attack in classes.items():
                if len(attack) < FEWEST:
                    continue
                half = len(attack) // 2
                early, late = attack[:half], attack[half:]
                for scenario, inside in WAYS:
                    log.info("Stream with %s, %s, seed %d", name, scenario.name, seed)
                    hidden = of_busiest(early, calm) if inside else early
                    outcome = _streamed(settings, calm, hidden, scenario, judged, late, seed)
                    yield Streamed(name, scenario.name, inside, seed, outcome)


def _streamed(
    settings: Settings,
    calm: Rows,
    hidden: Rows,
    scenario: Scenario,
    judged: Rows,
    late: Rows,
    seed: int,
) -> Outcome:
    rows, is_attack = mixed(calm, hidden, scenario, np.random.default_rng(seed))
    with tempfile.TemporaryDirectory(prefix="secureflux-stream-") as folder:
        predictor = Predictor(replace(settings, LIVE_MODEL_PATH=folder), background=False)
        outcome = measured(predictor, rows, is_attack, judged, late)
        predictor.close()
    return outcome


def _elsewhere(table: Table, others: list[str], folder: Path, seed: int) -> Settings:
    """Settings with a home and an industrial model of other networks: of homes' devices where
    there are any (networks without days stand last), and of a network with days."""
    for name, source, features in (
        ("home", others[-1], HOME),
        ("industrial", others[0], INDUSTRIAL),
    ):
        fitted = foreign_fitted(table, source, name, features, seed)
        registry.save(fitted, folder / name, weight=0.1, training={"flows": 0}, figures={})
    return replace(
        Settings(),
        HOME_MODEL_PATH=str(folder / "home"),
        INDUSTRIAL_MODEL_PATH=str(folder / "industrial"),
    )


def _rows(table: Table) -> Rows:
    """FLOW rows by time."""
    stamps: NDArray[np.int64] = (
        table.frame["ts"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    )
    rows: Rows = flow_rows(table, stamps)[np.argsort(stamps, kind="stable")]
    return rows

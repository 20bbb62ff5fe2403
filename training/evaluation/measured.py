"""Everything that is measured in one go, and by what data it can't be."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from threadpoolctl import threadpool_limits

from training.evaluation.candidates import absent_peers
from training.evaluation.captures import Captured, Phase, captures, lab
from training.evaluation.cost import Cost, cost
from training.evaluation.devices import Unknown, unknown_devices
from training.evaluation.explanations import Named, explanations
from training.evaluation.kdd import Bench, kdd_bench
from training.evaluation.own_network import Runs, learning_curve, local_runs, network_runs
from training.evaluation.splits import SEEDS, days_of, rotations
from training.evaluation.streams import Streamed, streams
from training.evaluation.tables import Table, read_tables
from training.evaluation.transfer import Decision, Moved, moved, networks_of, three_models

__all__ = ["Measured", "Sources", "measure", "one_thread"]

log = logging.getLogger("secureflux.training")


@dataclass(frozen=True, slots=True)
class Sources:
    """data: the layout of the data set. captures: a folder with index.tsv; held_out: whether it is
    another than the one the product was made with. labs: (capture, labels) of each lab. seeds:
    everything is done once with each; streams, which cost most, with the first two."""

    data: Path
    captures: Path | None
    held_out: bool
    labs: tuple[tuple[Path, Path], ...]
    seeds: tuple[int, ...] = SEEDS


@dataclass(slots=True)
class Measured:
    """own: runs by network, the main one first; local: networks with a single day, or few.
    learning: AUC by fitted flows and candidate. seconds: of CPU, by part."""

    sources: Sources
    flows: dict[str, dict[str, int]] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    peers: str | None = None
    own: list[Runs] = field(default_factory=list)
    local: list[Runs] = field(default_factory=list)
    learning: dict[int, dict[str, list[float]]] | None = None
    moved: list[Moved] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    streamed: list[Streamed] = field(default_factory=list)
    devices: list[Unknown] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
    cost: Cost | None = None
    benches: list[Bench] = field(default_factory=list)
    captured: list[Captured] = field(default_factory=list)
    labs: list[tuple[str, list[Phase], list[str]]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def main(self) -> Runs | None:
        """The network the rows of one's own network are read from."""
        return self.own[0] if self.own else None


@contextmanager
def one_thread() -> Iterator[None]:
    """Every library computes in this thread alone: CPU seconds count work, not waiting."""
    for module in ("cluster", "ensemble", "mixture", "neural_network"):
        # Loaded before the limit, which knows only what is loaded.
        importlib.import_module(f"sklearn.{module}")
    with threadpool_limits(limits=1):
        yield


def measure(sources: Sources) -> Measured:
    """All parts that the data allow."""
    told = Measured(sources, peers=absent_peers())
    with one_thread():
        table = read_tables(sources.data)
        told.flows, told.lacking = _counted(table), table.lacking
        main = _own_networks(told, table)
        if main is not None:
            _around(told, table, main)
        with _timed(told, "moved lines"):
            told.moved = moved(table, sources.seeds)
        with _timed(told, "three models"):
            told.decisions = list(three_models(table, sources.seeds))
        with _timed(told, "unknown devices"):
            told.devices = unknown_devices(table, sources.seeds)
        with _timed(told, "KDD"):
            told.benches = list(kdd_bench(sources.data, sources.seeds))
        with _timed(told, "captures"):
            if sources.captures is not None:
                told.captured = list(captures(sources.captures))
            told.labs = [(capture.name, *lab(capture, labels)) for capture, labels in sources.labs]
    return told


def _own_networks(told: Measured, table: Table) -> str | None:
    """Networks judged by their days; the main one, the corrected edition first."""
    named = [name for name in networks_of(table) if days_of(table.where(table.networks == name))]
    by_days = [name for name in named if any(rotations(table, name, told.sources.seeds[0]))]
    by_days.sort(key=lambda name: ("improved" not in name, -told.flows[name]["harmless"]))
    with _timed(told, "own network"):
        for name in by_days:
            runs = network_runs(table, name, told.sources.seeds)
            if runs is not None:
                told.own.append(runs)
    with _timed(told, "1,000 local flows"):
        for name in named:
            # That of the main network stands in the learning curve.
            runs = local_runs(table, name, told.sources.seeds) if name not in by_days[:1] else None
            if runs is not None:
                told.local.append(runs)
    return by_days[0] if by_days else None


def _around(told: Measured, table: Table, main: str) -> None:
    """What is measured on the main network alone."""
    with _timed(told, "learning curve"):
        told.learning = learning_curve(table, main, told.sources.seeds)
    with _timed(told, "explanations"):
        for seed in told.sources.seeds:
            told.named += explanations(next(rotations(table, main, seed)))
    with _timed(told, "cost"):
        told.cost = cost(next(rotations(table, main, told.sources.seeds[0])))
    with _timed(told, "streams"):
        told.streamed = list(streams(table, main, told.sources.seeds[:2]))


def _counted(table: Table) -> dict[str, dict[str, int]]:
    counted = {}
    for name in dict.fromkeys(table.networks.tolist()):
        here = table.where(table.networks == name)
        attacks = int(here.attack.sum())
        counted[name] = {"harmless": len(here) - attacks, "attacks": attacks}
    return counted


@contextmanager
def _timed(told: Measured, part: str) -> Iterator[None]:
    start = time.process_time()
    yield
    told.seconds[part] = told.seconds.get(part, 0.0) + time.process_time() - start
    log.info("%s: %.0f s of CPU", part, told.seconds[part])

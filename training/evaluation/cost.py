"""CPU time of judging and of learning (row 17), by one thread."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from features import HOME, INDUSTRIAL, LIVE
from ml.model import Model, fit
from training.evaluation.candidates import PUBLISHED, candidates, ours_fitted
from training.evaluation.splits import Split

__all__ = ["Cost", "cost"]

FLOWS: Final = 10_000
BATCHES: Final = (500, 4096)
TIMES: Final = 3
TRAINED_ON: Final = 4000
"""Flows the live model learns from at most."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds, the median of TIMES interleaved runs: FLOWS flows through all experts of three
    models by size of batch; of each model; of one published forest; one training of the live
    model on `trained_on` flows."""

    by_batch: dict[int, float]
    by_model: dict[str, float]
    published: float
    training: float
    trained_on: int


def cost(split: Split) -> Cost:
    """On the flows of a split, repeated to FLOWS."""
    kinds = (("home", HOME), ("industrial", INDUSTRIAL), ("live", LIVE))
    models = {name: ours_fitted(name, features, split) for name, features in kinds}
    judge = next(one for one in candidates() if one.name == PUBLISHED).fitted(split)
    values = np.resize(split.judged.values, (FLOWS, len(LIVE)))
    spent: dict[tuple[str, int], list[float]] = {}
    published, trainings = [], []
    line = split.line.of(LIVE)
    learned = np.concatenate([split.fit.values, split.judged.normal.values])[:TRAINED_ON]
    for _ in range(TIMES):
        for batch in BATCHES:
            for name, model in models.items():
                spent.setdefault((name, batch), []).append(_judged(model, values, batch))
        start = time.process_time()
        judge.oddness(values[:, models["home"].columns])
        published.append(time.process_time() - start)
        start = time.process_time()
        fit("live", "evaluation", LIVE, learned, line, seed=split.seed)
        trainings.append(time.process_time() - start)
    middle = {key: float(np.median(times)) for key, times in spent.items()}
    return Cost(
        by_batch={batch: sum(middle[name, batch] for name in models) for batch in BATCHES},
        by_model={name: middle[name, BATCHES[0]] for name in models},
        published=float(np.median(published)),
        training=float(np.median(trainings)),
        trained_on=len(learned),
    )


def _judged(model: Model, values: np.ndarray, batch: int) -> float:
    start = time.process_time()
    for first in range(0, len(values), batch):
        model.look(model.transformed(values[first : first + batch][:, model.columns]))
    return time.process_time() - start

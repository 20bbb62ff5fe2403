"""`scorer`: an isolation forest's scores, compiled here beside scikit-learn's `score_samples`.

    python -m benchmarks.scorer WHO TREES FEATURES SAMPLES ROWS SCORES.npy

Both fit the same forest, from one seed, and score the same rows; the fit is not timed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Plan, Table, answer, in_turn, spread

__all__ = ["ROWS", "SHAPES", "measure", "run", "tables"]

Values = NDArray[np.float64]

SHAPES: Final = ((200, 27, 256), (100, 21, 256), (100, 40, 4096))
"""(trees, features, rows a tree is fitted on); the last is the live model's."""
ROWS: Final = 20_000
TARGET_BATCH: Final = 1.0
TARGET_SINGLE: Final = 200.0
TARGET_DIFFERENCE: Final = 1e-12
OURS, PEER = "secureflux", "sklearn"
_REPEATS: Final = 5
_SINGLES: Final = {OURS: 5_000, PEER: 100}
_CONTAMINATION: Final = 0.01


def run(who: str, shape: tuple[int, int, int], rows: int, path: Path) -> dict[str, Any]:
    """Rows a CPU second in one batch and microseconds for one row; the scores go to `path`."""
    from sklearn.ensemble import IsolationForest

    import ml.forest

    trees, features, samples = shape
    rng = np.random.default_rng(7)
    normal, judged = _flows(10_000, features, rng), _flows(rows, features, rng)
    judged[: rows // 50] *= 30.0
    estimator = IsolationForest(
        n_estimators=trees, max_samples=samples, contamination=_CONTAMINATION, random_state=7
    ).fit(normal)
    score: Callable[[Values], Values] = estimator.score_samples
    if who == OURS:
        ml.forest.warm()
        score = ml.forest.Forest.flatten(estimator).score
    scores = score(judged)
    np.save(path, scores)
    batch_s = []
    for _ in range(_REPEATS):
        began = time.process_time()
        score(judged)
        batch_s.append(time.process_time() - began)
    singles = _SINGLES[who]
    began = time.process_time()
    for place in range(singles):
        score(judged[place % rows : place % rows + 1])
    single_us = (time.process_time() - began) / singles * 1e6
    return {
        "rows_per_s": rows / statistics.median(batch_s),
        "single_us": single_us,
        "line": float(estimator.offset_),
        "cpu_s": time.process_time(),
    }


def _flows(rows: int, features: int, rng: np.random.Generator) -> Values:
    """Heavy tails, and many zeros, as features of traffic have them."""
    values: Values = rng.lognormal(3.0, 2.0, (rows, features))
    values[rng.random((rows, features)) < 0.2] = 0.0
    return values


def measure(plan: Plan, *, rows: int = ROWS) -> dict[str, Any]:
    results = []
    for shape in SHAPES:
        paths = {who: plan.folder / f"scores-{who}.npy" for who in (OURS, PEER)}
        found = in_turn(
            plan,
            {
                who: ["benchmarks.scorer", who, *map(str, shape), str(rows), str(path)]
                for who, path in paths.items()
            },
        )
        ours, theirs = (np.load(paths[who]) for who in (OURS, PEER))
        line = found[PEER][0]["line"]
        pairs = list(zip(found[OURS], found[PEER], strict=True))
        results.append(
            {
                "shape": shape,
                "rows": rows,
                "turns": found,
                "batch_ratio": [one["rows_per_s"] / other["rows_per_s"] for one, other in pairs],
                "single_ratio": [other["single_us"] / one["single_us"] for one, other in pairs],
                "difference": float(np.abs(ours - theirs).max()),
                "verdicts_differ": int(((ours < line) != (theirs < line)).sum()),
                "odd": int((theirs < line).sum()),
            }
        )
        for path in paths.values():
            path.unlink()
    return {"shapes": results}


def tables(result: dict[str, Any]) -> list[Table]:
    rows = []
    for one in result["shapes"]:
        trees, features, samples = one["shape"]
        ours, theirs = one["turns"][OURS], one["turns"][PEER]
        rows.append(
            (
                f"{trees} trees x {features}, {samples:,} rows a tree",
                spread([turn["rows_per_s"] for turn in ours]).text(",.0f"),
                spread([turn["rows_per_s"] for turn in theirs]).text(",.0f"),
                spread(one["batch_ratio"]).text(),
                spread([turn["single_us"] for turn in ours]).text(".1f"),
                spread([turn["single_us"] for turn in theirs]).text(",.0f"),
                spread(one["single_ratio"]).text(",.0f"),
                f"{one['difference']:.1e}",
                f"{one['verdicts_differ']} of {one['rows']:,}",
            )
        )
    columns = (
        *("forest", "rows / CPU s", "scikit-learn", "ratio", "one row, us", "scikit-learn, us"),
        *("ratio", "largest difference", "verdicts that differ"),
    )
    targets = (
        f"Targets: batch >= {TARGET_BATCH}, one row >= {TARGET_SINGLE:.0f}, "
        f"difference <= {TARGET_DIFFERENCE:.0e}, no verdict differs."
    )
    return [Table("Scores of an isolation forest", columns, rows, [targets])]


if __name__ == "__main__":
    who, *shape, rows, path = sys.argv[1:]
    trees, features, samples = map(int, shape)
    answer(run(who, (trees, features, samples), int(rows), Path(path)))

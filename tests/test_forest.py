from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from errors import ModelError
from ml import forest
from ml.forest import Forest, path_sums, warm


def rows(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Continuous, tied, mostly zero and constant columns."""
    x = rng.normal(size=(n, k))
    x[:, 1] = np.round(x[:, 1])
    x[:, 2] = np.where(rng.random(n) < 0.9, 0, x[:, 2])
    x[:, 3] = 4.25
    return x


CASES: dict[str, dict[str, Any]] = {
    "default": {"n_estimators": 100},
    "deep": {"n_estimators": 30, "max_samples": 3000},
    "subset of columns": {"n_estimators": 40, "max_features": 0.5},
    "two rows": {"n_estimators": 10, "max_samples": 2},
    "one row": {"n_estimators": 5, "max_samples": 1},
}


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def pair(request: pytest.FixtureRequest) -> tuple[IsolationForest, Forest]:
    x = rows(np.random.default_rng(1), 3000, 7)
    fitted = IsolationForest(random_state=42, **CASES[request.param]).fit(x)
    return fitted, Forest.flatten(fitted)


def test_scores_equal_scikit_learn(pair: tuple[IsolationForest, Forest]) -> None:
    fitted, flat = pair
    x = rows(np.random.default_rng(2), 5000, 7) * 2
    assert np.abs(flat.score(x) - fitted.score_samples(x)).max() <= 1e-12


def test_values_exactly_on_a_threshold_go_the_same_way(
    pair: tuple[IsolationForest, Forest],
) -> None:
    fitted, flat = pair
    x = np.zeros((500, 7))
    for i, tree in enumerate(fitted.estimators_[:5]):
        thresholds = tree.tree_.threshold[tree.tree_.feature >= 0][:100]
        if len(thresholds):
            x[i * 100 : i * 100 + len(thresholds)] = thresholds[:, None]
    around = np.concatenate([x, np.nextafter(x, 9), np.nextafter(x, -9)])
    assert np.abs(flat.score(around) - fitted.score_samples(around)).max() <= 1e-12


def test_unknown_values_go_the_way_scikit_learn_sends_them(
    pair: tuple[IsolationForest, Forest],
) -> None:
    fitted, flat = pair
    rng = np.random.default_rng(3)
    x = rows(rng, 2000, 7)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[0] = np.nan
    assert np.abs(flat.score(x) - fitted.score_samples(x)).max() <= 1e-12


def test_infinities_and_giants_are_scored_like_scikit_learn_scores_giants(
    pair: tuple[IsolationForest, Forest],
) -> None:
    fitted, flat = pair
    giant = np.full((1, 7), 3e38)
    assert flat.score(np.full((1, 7), np.inf)) == pytest.approx(fitted.score_samples(giant))
    assert flat.score(np.full((1, 7), -np.inf)) == pytest.approx(fitted.score_samples(-giant))


def test_a_forest_of_single_leaves() -> None:
    constant = np.full((300, 4), 2.0)
    fitted = IsolationForest(n_estimators=10, random_state=0).fit(constant)
    flat = Forest.flatten(fitted)
    assert flat.steps == 0
    x = np.random.default_rng(4).normal(size=(20, 4))
    assert np.abs(flat.score(x) - fitted.score_samples(x)).max() <= 1e-12


def test_interpreted_equals_compiled() -> None:
    x = rows(np.random.default_rng(5), 600, 7)
    flat = Forest.flatten(IsolationForest(n_estimators=20, random_state=1).fit(x))
    x = x[:60].astype(np.float32)
    x[::7, 0] = np.nan
    results = []
    for walk in (path_sums, cast(Any, path_sums).py_func):
        out = np.empty(len(x))
        places = np.empty(len(flat.roots), np.int32)
        split = (flat._splits, flat._thresholds, flat.missing_left)
        walk(*split, flat.paths, flat.roots, flat.steps, x, places, out)
        results.append(out)
    assert np.array_equal(results[0], results[1])


def test_one_signature_whatever_is_scored() -> None:
    warm()
    x = rows(np.random.default_rng(6), 300, 7)
    flat = Forest.flatten(IsolationForest(n_estimators=3, random_state=1).fit(x))
    frozen: Any = x.astype(np.float32)
    frozen.flags.writeable = False
    for values in (x, x[:1], x[:0], x[:, ::-1], np.asfortranarray(x), frozen):
        assert len(flat.score(values)) == len(values)
    again = Forest.from_arrays(flat.to_arrays())
    again.score(x)
    assert len(cast(Any, path_sums).signatures) == 1


def test_arrays_bring_the_same_forest_back() -> None:
    x = rows(np.random.default_rng(7), 500, 7)
    flat = Forest.flatten(IsolationForest(n_estimators=10, random_state=1).fit(x))
    again = Forest.from_arrays(flat.to_arrays())
    assert np.array_equal(again.score(x), flat.score(x))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("forest_child", lambda a: a + 10_000),
        ("forest_child", lambda a: -a),
        ("forest_feature", lambda a: a + 7),
        ("forest_roots", lambda a: a + 10_000),
        ("forest_paths", lambda a: a[:-1]),
        ("forest_paths", lambda a: a * np.nan),
        ("forest_threshold", lambda a: np.zeros_like(a)),
        ("forest_missing_left", lambda a: a[:-1]),
        ("forest_missing_left", lambda a: a[:, None]),
        # A value that is not known would go on from the last leaf.
        ("forest_missing_left", np.zeros_like),
        ("forest_roots", lambda a: a[:, None]),
        ("forest_normal_path", lambda a: a * np.nan),
    ],
)
def test_arrays_that_lead_outside_are_refused(name: str, change: Any) -> None:
    x = rows(np.random.default_rng(8), 300, 7)
    arrays = Forest.flatten(IsolationForest(n_estimators=3, random_state=1).fit(x)).to_arrays()
    arrays[name] = change(arrays[name])
    with pytest.raises(ModelError, match="do not fit"):
        Forest.from_arrays(arrays)


def test_a_row_of_the_wrong_width_is_refused() -> None:
    x = rows(np.random.default_rng(9), 300, 7)
    flat = Forest.flatten(IsolationForest(n_estimators=3, random_state=1).fit(x))
    with pytest.raises(ModelError, match="7 columns"):
        flat.score(x[:, :6])


def test_thresholds_are_never_rounded_up() -> None:
    values = np.array([0.1, 1 / 3, -0.1, 16777217.0, 0.5])
    below = forest._float32_below(values)
    assert (below.astype(np.float64) <= values).all()
    assert (np.nextafter(below, np.float32(np.inf)).astype(np.float64) > values).all()

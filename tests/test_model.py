from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from errors import ModelError
from features import HOME, INDUSTRIAL, LIVE
from ml.explain import explain
from ml.model import Fitted, Model, fit


def normal_flows(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Three kinds of traffic with relations between their columns."""
    kind = rng.integers(0, 3, n)
    base = np.exp(rng.normal(kind[:, None] * 2, 0.3, size=(n, k)))
    base[:, 1] = base[:, 0] * 3 + rng.normal(0, 0.05, n)
    base[:, -1] = 0
    return base


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    rng = np.random.default_rng(1)
    return fit("home", "1", HOME, normal_flows(rng, 900, 21), normal_flows(rng, 400, 21))


def test_raw_is_the_forests_own_score(fitted: Fitted) -> None:
    x = normal_flows(np.random.default_rng(2), 300, 21)
    seen = fitted.model.look(fitted.model.transformed(x))
    own = fitted.estimator.score_samples(fitted.scaler.transform(x))
    assert np.abs(seen.raw - own).max() <= 1e-12


def test_experts_add_up(fitted: Fitted) -> None:
    x = normal_flows(np.random.default_rng(2), 300, 21)
    model = fitted.model
    z = model.transformed(x)
    seen = model.look(z)
    assert model.expert_names == ("forest", "neighbours", "mixture")
    for part, expert, reference in zip(
        seen.parts.T, model.experts.values(), model.references, strict=True
    ):
        assert np.array_equal(part, reference.score(expert.oddness(z)))
    assert np.allclose(seen.oddness, -seen.parts @ [0.5, 1.0, 1.0])


def test_unseen_normal_flows_stay_under_the_line_and_broken_relations_do_not(
    fitted: Fitted,
) -> None:
    model = fitted.model
    assert model.calibration is not None
    line = model.calibration.threshold(1.0, 0.02)
    x = normal_flows(np.random.default_rng(3), 500, 21)
    scores = model.calibration.score(model.look(model.transformed(x)).oddness)
    assert (scores < line).mean() < 0.06
    # Each value alone is usual, but half the columns come from another flow.
    x[:, :10] = x[np.random.default_rng(4).permutation(500), :10]
    broken = model.calibration.score(model.look(model.transformed(x)).oddness)
    assert (broken < line).mean() > 0.2


def test_the_same_seed_gives_the_same_model() -> None:
    rng = np.random.default_rng(5)
    x = normal_flows(rng, 300, 21)
    one, two = (fit("home", "1", HOME, x, None).model.to_arrays() for _ in range(2))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert "calibration_oddness" not in one


def test_usual_ranges_hold_98_of_100_flows(fitted: Fitted) -> None:
    x = normal_flows(np.random.default_rng(6), 4000, 21)
    within = (x >= fitted.model.low) & (x <= fitted.model.high)
    assert within[:, 3].mean() == pytest.approx(0.98, abs=0.02)


def test_medoids_are_real_flows(fitted: Fitted) -> None:
    rng = np.random.default_rng(1)
    z = fitted.model.transformed(normal_flows(rng, 900, 21))
    medoids = fitted.model.medoids
    assert 100 < len(medoids) <= 512
    assert all((np.abs(z - medoid).max(axis=1) < 1e-9).any() for medoid in medoids[:20])


def test_columns_are_places_in_the_table_of_features(fitted: Fitted) -> None:
    assert [LIVE[place] for place in fitted.model.columns] == list(HOME)


def test_too_few_flows_and_unknown_features_are_refused(fitted: Fitted) -> None:
    with pytest.raises(ModelError, match="50 are needed"):
        fit("home", "1", HOME, np.zeros((10, 21)), None)
    with pytest.raises(ModelError, match="nobody computes"):
        replace(fitted.model, features=(*HOME[:-1], "Flow Colour"))


def test_flows_with_unknown_values_leave_a_usual_range() -> None:
    x = normal_flows(np.random.default_rng(7), 300, 21)
    x[5], x[6] = np.nan, np.inf
    model = fit("home", "1", HOME, x, None).model
    assert np.isfinite(model.low).all()
    assert np.isfinite(model.high).all()


def test_a_flow_scores_the_same_alone_and_among_others() -> None:
    """Also one of many alike, whose oddness is that of flows of the reference."""
    rng = np.random.default_rng(8)
    kinds = rng.lognormal(3, 2, (12, len(LIVE)))
    x = np.concatenate([rng.lognormal(3, 0.3, (400, len(LIVE))), kinds[rng.integers(0, 12, 400)]])
    x = x[rng.permutation(len(x))]
    model = fit("live", "1", LIVE, x[:600], x[600:]).model
    z = model.transformed(x[600:])
    together = model.look(z).parts
    alone = np.concatenate([model.look(z[i : i + 1]).parts for i in range(len(z))])
    assert np.abs(together - alone).max() < 1e-6


def _changes(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    yield from (array[:0], array[:-1], array[None], array[..., None], np.array(1.0))
    yield from (np.full(array.shape, "x"), array.astype(complex))
    if array.dtype.kind == "f":
        yield from (np.full(array.shape, fill) for fill in (np.nan, -np.inf))


def test_whatever_a_file_holds_it_judges_or_is_refused(fitted: Fitted) -> None:
    arrays = fitted.model.to_arrays()
    manifest: dict[str, Any] = {"name": "home", "version": "1", "features": list(HOME)}
    manifest["experts"] = list(fitted.model.expert_names)
    flows = normal_flows(np.random.default_rng(9), 5, 21)
    refused = 0
    for name, array in arrays.items():
        for changed in _changes(array):
            try:
                model = Model.from_arrays({**arrays, name: changed}, manifest)
            except ModelError:
                refused += 1
                continue
            # What a file may lack without being another: a feature's place, a tree's root.
            assert model.look(model.transformed(flows)).oddness.shape == (5,)
            explain(model, flows, model.transformed(flows))
    assert refused > 8 * len(arrays)
    for experts in ([], ["mixture", "forest"], "forest", None, [["forest"]]):
        with pytest.raises(ModelError):
            Model.from_arrays(arrays, {**manifest, "experts": experts})


def test_arrays_of_another_width_are_refused(fitted: Fitted) -> None:
    arrays = fitted.model.to_arrays()
    manifest = {"name": "home", "version": "1", "features": list(INDUSTRIAL)}
    manifest["experts"] = list(fitted.model.expert_names)
    with pytest.raises(ModelError, match="27 features"):
        type(fitted.model).from_arrays(arrays, manifest)
    del arrays["medoids"]
    with pytest.raises(ModelError, match="lacks 'medoids'"):
        type(fitted.model).from_arrays(arrays, manifest)

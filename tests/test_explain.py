from __future__ import annotations

import time

import numpy as np
import pytest

from features import INDUSTRIAL
from ml.explain import explain, glance
from ml.model import Model, fit


def normal_flows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Flows of one size each, from small to large: all columns grow together."""
    size = rng.normal(2, 1, size=(n, 1))
    return np.exp(size + rng.normal(0, 0.1, size=(n, len(INDUSTRIAL))))


@pytest.fixture(scope="module")
def model() -> Model:
    rng = np.random.default_rng(1)
    return fit("industrial", "1", INDUSTRIAL, normal_flows(rng, 1500), None).model


def test_the_injected_cause_is_named_first(model: Model) -> None:
    rng = np.random.default_rng(2)
    x = normal_flows(rng, 80)
    causes = rng.integers(0, len(INDUSTRIAL), 80)
    x[np.arange(80), causes] *= 1e5
    told = explain(model, x, model.transformed(x))
    names = [INDUSTRIAL[cause] for cause in causes]
    assert np.mean([d[0].feature == name for d, name in zip(told, names, strict=True)]) > 0.9
    quick = glance(model, x, model.transformed(x))
    assert np.mean([d[0].feature == name for d, name in zip(quick, names, strict=True)]) > 0.9


def test_a_deviation_tells_value_range_ratio_and_share(model: Model) -> None:
    x = normal_flows(np.random.default_rng(3), 1)
    x[0, 4] = 50 * model.high[4]
    first = explain(model, x, model.transformed(x))[0][0]
    assert first.feature == INDUSTRIAL[4]
    assert (first.label, first.unit, first.log) == ("Bytes received", "bytes", True)
    assert first.value == x[0, 4]
    assert (first.low, first.high) == (model.low[4], model.high[4])
    assert first.ratio == pytest.approx(50)
    assert 0 < first.share <= 1


def test_below_the_range_the_ratio_is_that_of_its_lower_end(model: Model) -> None:
    x = normal_flows(np.random.default_rng(4), 1)
    x[0, 7] = model.low[7] / 200
    told = explain(model, x, model.transformed(x))[0]
    below = next(one for one in told if one.feature == INDUSTRIAL[7])
    assert below.ratio == pytest.approx(200)
    x[0, 7] = 0
    zero = next(
        one for one in explain(model, x, model.transformed(x))[0] if one.feature == INDUSTRIAL[7]
    )
    assert zero.ratio is None


def test_features_that_do_not_matter_are_not_named(model: Model) -> None:
    x = normal_flows(np.random.default_rng(5), 30)
    x[:, 2] = 1e9
    for told in explain(model, x, model.transformed(x)):
        assert 1 <= len(told) <= 5
        assert all(one.share > 0 for one in told)
        assert len({one.feature for one in told}) == len(told)


def test_a_normal_flow_itself_has_no_deviation(model: Model) -> None:
    z = model.medoids[:3]
    assert explain(model, np.ones_like(z), z) == [[], [], []]
    assert glance(model, np.ones_like(z), z) == [[], [], []]
    assert explain(model, z[:0], z[:0]) == glance(model, z[:0], z[:0]) == []


def test_each_flow_is_explained_alone_or_in_company_alike(model: Model) -> None:
    x = normal_flows(np.random.default_rng(6), 6)
    x[:, 9] = 1e7
    together = explain(model, x, model.transformed(x))
    for i in range(6):
        alone = explain(model, x[i : i + 1], model.transformed(x[i : i + 1]))[0]
        assert [one.feature for one in alone] == [one.feature for one in together[i]]


def test_an_alert_is_explained_within_a_few_milliseconds(model: Model) -> None:
    x = normal_flows(np.random.default_rng(7), 1)
    z = model.transformed(x)
    explain(model, x, z)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        explain(model, x, z)
        best = min(best, time.perf_counter() - start)
    assert best < 0.003

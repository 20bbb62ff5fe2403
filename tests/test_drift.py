from __future__ import annotations

import time

import numpy as np
import pytest

from features import LIVE
from ml.drift import FEWEST, drift
from ml.model import Model, fit

START_S = 1_795_500_000.0
DURATION = LIVE.index("Flow Duration")
RESETS = LIVE.index("RST Flag Count")


def flows(rng: np.random.Generator, n: int) -> np.ndarray:
    values = np.exp(rng.normal(2, 1, size=(n, len(LIVE))))
    values[:, DURATION] *= 40_000  # about .3 s
    values[:, RESETS] = rng.random(n) < 0.05
    return values


@pytest.fixture(scope="module")
def model() -> Model:
    rng = np.random.default_rng(1)
    return fit("live", "1", LIVE, flows(rng, 600), flows(rng, 150)).model


def times(n: int) -> np.ndarray:
    return START_S + 60.0 * np.arange(n)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_network_has_not_changed(model: Model, seed: int) -> None:
    values = flows(np.random.default_rng(seed + 10), 400)
    assert drift(model, values, times(400), START_S - 1) is None


def test_what_changed_and_since_when(model: Model) -> None:
    values = flows(np.random.default_rng(2), 400)
    values[250:, DURATION] *= 8
    found = drift(model, values, times(400), START_S - 1)
    assert found is not None
    assert found.feature == "Flow Duration"
    assert abs(found.since_s - (START_S + 60 * 250)) < 60 * 15
    assert found.shift > 0.2
    at = time.localtime(found.since_s)
    assert found.sentence.startswith(f"Since {at.tm_mday} {time.strftime('%b %H:%M', at)} flows")
    assert "last longer: median 2" in found.sentence
    assert found.told()["sentence"] == found.sentence
    values[250:, DURATION] /= 800
    shorter = drift(model, values, times(400), START_S - 1)
    assert shorter is not None
    assert "over sooner" in shorter.sentence


def test_where_most_flows_have_the_same_value_the_mean_is_told(model: Model) -> None:
    values = flows(np.random.default_rng(3), 400)
    values[300:, RESETS] = np.arange(100) % 2 < 1 - (np.arange(100) > 97)
    found = drift(model, values[:400], times(400), START_S + 60 * 299)
    assert found is not None
    assert (found.feature, found.typical) == ("RST Flag Count", "mean")
    assert "“packets that reset” of flows here is higher: mean 0.4" in found.sentence


def test_a_change_older_than_the_flows_kept_is_held_against_what_was_learned(model: Model) -> None:
    values = flows(np.random.default_rng(5), 200)
    values[:, DURATION] *= 8
    found = drift(model, values, times(200), START_S - 1)
    assert found is not None
    assert found.since_s == START_S
    assert found.before == pytest.approx(40_000 * np.exp(2), rel=0.2)
    assert found.now == pytest.approx(8 * found.before, rel=0.2)


def test_too_few_new_flows_say_nothing(model: Model) -> None:
    values = flows(np.random.default_rng(6), 400)
    values[-FEWEST:, DURATION] *= 100
    assert drift(model, values, times(400), START_S + 60 * (400 - FEWEST)) is None

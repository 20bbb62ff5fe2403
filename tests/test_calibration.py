from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from errors import ModelError
from ml.calibration import BINS, TIE, Calibration, rarity

ODDNESS = arrays(
    np.float64, st.integers(1, 80), elements=st.floats(0, 1, allow_nan=False, width=32)
)


def test_the_score_counts_normal_flows_at_least_as_odd() -> None:
    c = Calibration.fit(np.array([0.4, 0.1, 0.2, 0.3, 0.3]))
    p = 10 ** c.score(np.array([0.0, 0.1, 0.15, 0.3, 0.4]))
    assert p == pytest.approx(np.array([6, 6, 5, 4, 2]) / 6)


def test_a_new_normal_flow_is_flagged_at_the_promised_rate() -> None:
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(200):
        c = Calibration.fit(rng.gamma(2, size=500))
        rates.append((c.score(rng.gamma(2, size=2000)) < c.threshold(1.0, 0.01)).mean())
    assert np.mean(rates) == pytest.approx(0.01, abs=0.002)


def test_beyond_the_reference_scores_go_on_in_order() -> None:
    c = Calibration.fit(np.random.default_rng(2).exponential(0.4, 999) + 0.4)
    top = c.oddness[-1]
    odd = top + np.array([0.0, 1e-6, 0.4, 4.0])
    score = c.score(odd)
    assert (np.diff(score) < 0).all()
    assert score[0] == pytest.approx(c.oddest) == pytest.approx(np.log10(2 / 1000))
    assert score[1] == pytest.approx(np.log10(1 / 1000), abs=1e-3)
    # One mean excess of the tail (0.4 here) beyond the oddest: (1 + 1/2) ** -2.
    assert 10 ** (score[2] - score[1]) == pytest.approx(1.5**-2, rel=0.4)
    # Not even far beyond does it claim what a reference of 999 can't know.
    assert score[3] > -5.5
    assert c.beyond(odd).tolist() == [False, True, True, True]


def test_a_reference_of_ties_has_a_finite_tail() -> None:
    c = Calibration.fit(np.full(100, 0.5))
    assert np.isfinite(c.score(np.array([0.6]))).all()
    assert c.score(np.array([0.5]))[0] == pytest.approx(0)


@pytest.mark.parametrize(
    ("n", "weight", "alpha", "p"),
    [(9999, 0.8, 0.01, 0.008), (500, 0.1, 0.01, 2 / 501), (99, 1.0, 0.01, 0.02)],
)
def test_the_line_is_never_finer_than_the_reference(
    n: int, weight: float, alpha: float, p: float
) -> None:
    c = Calibration.fit(np.linspace(0, 1, n))
    assert c.threshold(weight, alpha) == pytest.approx(np.log10(p))


def test_what_differs_by_rounding_alone_is_equally_odd() -> None:
    c = Calibration.fit(np.array([1.0, 2.0, 3.0, 3.0, 3.0]))
    same = np.array([3.0 - 1e-12, 3.0, 3.0 + 1e-12])
    assert c.score(same) == pytest.approx([np.log10(4 / 6)] * 3, abs=1e-9)
    assert c.score_left_out(same) == pytest.approx([np.log10(3 / 5)] * 3, abs=1e-9)
    assert c.beyond(same).tolist() == [False] * 3
    assert c.beyond(np.array([3.001])).tolist() == [True]


@pytest.mark.parametrize("oddness", [np.ones((2, 2)), np.array(1.0), np.empty(0), [np.inf]])
def test_what_is_no_reference_is_refused(oddness: Any) -> None:
    with pytest.raises(ModelError):
        Calibration.fit(oddness)


@given(ODDNESS, st.floats(0.001, 1))
def test_oddness_at_the_line_is_where_votes_begin(oddness: np.ndarray, alpha: float) -> None:
    c = Calibration.fit(oddness)
    line = c.threshold(1.0, alpha)
    raw = c.oddness_at(line)
    above = raw + 2 * TIE * c.smallest_tail * max(1.0, 20 * np.ptp(oddness))
    assert c.score(np.array([above]))[0] < line + 1e-9
    lower = c.oddness[c.oddness < raw]
    if len(lower) and line < -1e-9:
        assert c.score(lower[-1:])[0] >= line - 1e-9


@given(ODDNESS, arrays(np.float64, 20, elements=st.floats(-1, 2, width=32)))
def test_scores_fall_as_oddness_rises(oddness: np.ndarray, asked: np.ndarray) -> None:
    score = Calibration.fit(oddness).score(np.sort(asked))
    assert (np.diff(score) <= 1e-12).all()
    assert (score <= 1e-12).all()
    assert np.isfinite(score).all()


def test_the_histogram_holds_every_normal_flow_up_to_twice_the_line() -> None:
    c = Calibration.fit(np.random.default_rng(3).normal(size=400))
    line = c.threshold(1.0, 0.01)
    picture = c.histogram(line)
    assert len(picture["counts"]) == BINS
    assert sum(picture["counts"]) == 400
    assert picture["low"] == pytest.approx(2 * line)
    assert picture["high"] == 0


def test_rarity_is_never_finer_than_the_reference() -> None:
    assert rarity(-2.0, 500, False) == {
        "n": pytest.approx(100),
        "reference": 500,
        "beyond": False,
    }
    assert rarity(-7.0, 500, True) == {"n": 500, "reference": 500, "beyond": True}
    assert rarity(float("nan"), 500, False) == {"n": None, "reference": 0, "beyond": False}


def test_no_flows_are_no_calibration() -> None:
    with pytest.raises(ModelError, match="at least one"):
        Calibration.fit(np.empty(0))
    with pytest.raises(ModelError):
        Calibration.fit(np.array([0.1, np.nan]))


def test_arrays_bring_the_same_calibration_back() -> None:
    c = Calibration.fit(np.random.default_rng(4).normal(size=50))
    again = Calibration.from_arrays(c.to_arrays())
    assert again is not None
    asked = np.linspace(-3, 5, 40)
    assert np.array_equal(again.score(asked), c.score(asked))
    assert Calibration.from_arrays({}) is None


def test_the_reference_itself_is_counted_among_the_others() -> None:
    oddness = np.random.default_rng(4).exponential(0.4, 400)
    whole = Calibration.fit(oddness)
    own = whole.score_left_out(oddness)
    for place in (*np.argsort(oddness)[[0, 200, 397, 398]], 7, 8):
        others = Calibration.fit(np.delete(oddness, place))
        assert own[place] == pytest.approx(others.score(oddness[[place]])[0], abs=1e-9)
    oddest = int(oddness.argmax())
    assert own[oddest] < np.log10(1 / 400)
    # Flows of the same kind, seen later, score alike.
    later = whole.score(np.random.default_rng(5).exponential(0.4, 4000))
    assert np.median(own) == pytest.approx(np.median(later), abs=0.05)

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from scipy.special import ndtri

from errors import ModelError
from ml.forest import interpolate
from ml.transform import CLIP, KNOTS, QuantileNormal, Scaler, Whitening, clipped, finite


def traffic(rng: np.random.Generator, n: int = 3000) -> np.ndarray:
    """Columns as traffic has them: heavy tail, few values, mostly zero, constant."""
    heavy = np.exp(3 * rng.normal(size=n))
    few = rng.integers(0, 5, n).astype(float)
    mostly_zero = np.where(rng.random(n) < 0.995, 0.0, rng.integers(1, 50, n))
    return np.column_stack([heavy, few, mostly_zero, np.full(n, 7.0)])


def test_ties_get_the_middle_of_their_place() -> None:
    x = np.array([[0.0], [0.0], [0.0], [1.0], [5.0]])
    z = QuantileNormal.fit(x).apply(np.array([[0.0], [1.0], [5.0], [0.5]]))
    expected = ndtri(np.array([1.5, 3.5, 4.5]) / 5)
    assert z[:3, 0] == pytest.approx(expected)
    assert z[3, 0] == pytest.approx((expected[0] + expected[1]) / 2)


def test_a_heavy_tail_becomes_normal_within_the_knots() -> None:
    x = traffic(np.random.default_rng(1))
    fitted = QuantileNormal.fit(x)
    z = fitted.apply(x)
    assert np.diff(fitted.starts).max() <= KNOTS
    exact = ndtri((np.argsort(np.argsort(x[:, 0])) + 0.5) / len(x))
    assert np.abs(z[:, 0] - exact).max() < 0.01
    assert z[:, 0].std() == pytest.approx(1, abs=0.01)
    assert (z[:, 3] == 0).all()


def test_order_is_kept_within_and_beyond_the_fitted_range() -> None:
    x = traffic(np.random.default_rng(2))
    fitted = QuantileNormal.fit(x)
    for j in range(x.shape[1]):
        wide = np.linspace(x[:, j].min() - 1e6, x[:, j].max() + 1e6, 2000)
        grid = np.tile(x[0], (len(wide), 1))
        grid[:, j] = wide
        assert (np.diff(fitted.apply(grid)[:, j]) >= 0).all()


def test_beyond_the_range_z_grows_by_the_logarithm_of_the_excess() -> None:
    x = np.arange(1, 1001, dtype=float)[:, None]
    fitted = QuantileNormal.fit(x)
    span = np.percentile(x, 99) - np.percentile(x, 1)
    top, above, below = fitted.apply(np.array([[1000.0], [1000 + 3 * span], [1 - 3 * span]]))
    assert above[0] - top[0] == pytest.approx(np.log1p(3))
    assert below[0] == pytest.approx(-above[0])


def test_columns_without_a_percentile_span_still_have_a_scale() -> None:
    x = traffic(np.random.default_rng(3))
    fitted = QuantileNormal.fit(x)
    assert fitted.scales[2] == x[:, 2].max()
    row = x[:1].copy()
    row[0, 3] += 1
    assert fitted.apply(row)[0, 3] == pytest.approx(np.log(2))


def test_between_knots_it_is_numpys_interpolation_compiled_or_not() -> None:
    x = traffic(np.random.default_rng(9))
    fitted = QuantileNormal.fit(x)
    asked = np.quantile(x, np.linspace(0, 1, 300), axis=0) + 0.01
    asked = np.ascontiguousarray(np.minimum(asked, x.max(axis=0)))
    z = fitted.apply(asked)
    for j in range(4):
        knots = slice(fitted.starts[j], fitted.starts[j + 1])
        expected = np.interp(asked[:, j], fitted.xs[knots], fitted.zs[knots])
        assert z[:, j] == pytest.approx(expected, abs=1e-12)
    by_hand = np.empty_like(asked)
    interpreted = cast(Any, interpolate).py_func
    # Also for what is not a number.
    asked[0, 0], asked[1, 1] = np.nan, np.inf
    z = fitted.apply(asked)
    outside = np.empty(asked.shape, bool)
    interpreted(asked, fitted.xs, fitted.zs, fitted.starts, by_hand, outside)
    assert np.array_equal(z[~outside], by_hand[~outside])
    assert not outside[2:].any()
    assert len(cast(Any, interpolate).signatures) == 1
    with pytest.raises(ModelError, match="4 columns"):
        fitted.apply(asked[:, :3])


def test_what_is_not_a_number_counts_as_zero() -> None:
    x = traffic(np.random.default_rng(4))
    fitted = QuantileNormal.fit(x)
    odd = np.array([[np.nan, np.inf, -np.inf, np.nan]])
    assert np.array_equal(fitted.apply(odd), fitted.apply(np.zeros((1, 4))))
    assert np.array_equal(finite(odd), np.zeros((1, 4)))
    assert np.isnan(odd[0, 0])


def test_clipping_bounds_distances_only() -> None:
    assert clipped(np.array([-9.0, 0.5, 9.0])).tolist() == [-CLIP, 0.5, CLIP]


def test_whitening_gives_uncorrelated_columns_of_spread_one() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=(4000, 3)) @ np.array([[1, 0.9, 0], [0, 0.2, 0], [0, 0, 3.0]])
    white = Whitening.fit(z).apply(z)
    assert np.cov(white, rowvar=False) == pytest.approx(np.eye(3), abs=1e-9)


def test_a_constant_column_does_not_blow_up_the_whitening() -> None:
    z = QuantileNormal.fit(x := traffic(np.random.default_rng(6))).apply(x)
    white = Whitening.fit(z).apply(z)
    assert np.isfinite(white).all()
    # Noise in the direction without spread stays below what a forest takes for a difference.
    assert np.ptp(white, axis=0).min() < 1e-7


def test_arrays_bring_the_same_transform_back() -> None:
    x = traffic(np.random.default_rng(7))
    quantiles = QuantileNormal.fit(x)
    whitening = Whitening.fit(quantiles.apply(x))
    again = Scaler(
        QuantileNormal.from_arrays(quantiles.to_arrays()),
        Whitening.from_arrays(whitening.to_arrays()),
    )
    assert np.array_equal(again.transform(x), Scaler(quantiles, whitening).transform(x))


def test_arrays_that_do_not_fit_are_refused() -> None:
    quantiles = QuantileNormal.fit(np.random.default_rng(8).normal(size=(50, 3)))
    changes: list[tuple[str, Any]] = [
        ("x", lambda a: a[:-1]),
        ("x", lambda a: a * np.nan),
        ("x", lambda a: a[:, None]),
        ("x", lambda a: a * 0),
        ("z", lambda a: a[:, None]),
        ("starts", lambda a: a[:, None]),
        ("scales", lambda a: a[:, None]),
        ("starts", lambda a: a + 1),
        ("starts", lambda a: a[::-1]),
        ("starts", lambda a: a[:-1]),
        ("scales", lambda a: a * 0),
    ]
    for name, change in changes:
        arrays = quantiles.to_arrays()
        arrays[f"quantile_{name}"] = change(arrays[f"quantile_{name}"])
        with pytest.raises(ModelError, match="transform"):
            QuantileNormal.from_arrays(arrays)
    with pytest.raises(ModelError, match="whitening"):
        Whitening.from_arrays({"whitening_mean": np.zeros(3), "whitening_matrix": np.zeros((3, 2))})
    unknown = np.full((3, 3), np.nan)
    with pytest.raises(ModelError, match="whitening"):
        Whitening.from_arrays({"whitening_mean": np.zeros(3), "whitening_matrix": unknown})

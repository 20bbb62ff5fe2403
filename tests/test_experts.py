"""The experts beside the forest, each against scikit-learn or the definition written out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from errors import ModelError
from ml.autoencoder import Autoencoder, fit_autoencoder
from ml.experts import EXPERTS, Expert
from ml.mixture import Mixture, fit_mixture
from ml.neighbours import MOST, Neighbours
from ml.transform import clipped


def flows(n: int, k: int = 12, seed: int = 1) -> np.ndarray:
    """Two crowds, one tight, with copies among them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    z[: n // 2] = 0.2 * z[: n // 2] + 1.5
    z[::10] = z[0]
    return z


def test_neighbours_are_the_formula() -> None:
    z, x = flows(600), np.concatenate([3.0 * flows(80, seed=2), flows(600)[:50]])
    rows = np.unique(clipped(z).astype(np.float32), axis=0).astype(np.float64)
    own, _ = NearestNeighbors(n_neighbors=11).fit(rows).kneighbors(rows)
    spacing = own[:, 1:].mean(axis=1)
    far, who = (
        NearestNeighbors(n_neighbors=3)
        .fit(rows)
        .kneighbors(clipped(x).astype(np.float32).astype(np.float64))
    )
    expected = (far / np.sqrt(spacing[who] + 0.1 * np.median(spacing))).mean(axis=1)
    got = Neighbours.fit(z, seed=1).oddness(x)
    assert np.abs(got - expected).max() <= 1e-5
    assert got[:80].min() > np.median(got[80:])


def test_one_flow_and_many_measure_the_same() -> None:
    neighbours, x = Neighbours.fit(flows(900), seed=1), 2.0 * flows(700, seed=3)
    together = neighbours.oddness(x)
    alone = np.concatenate([neighbours.oddness(row[None]) for row in x[:100]])
    assert np.abs(together[:100] - alone).max() <= 1e-6


@pytest.mark.parametrize("z", [np.zeros((80, 4)), flows(2, 4)], ids=["copies of one", "two"])
def test_few_different_flows_are_enough_for_neighbours(z: np.ndarray) -> None:
    seen = Neighbours.fit(z, seed=1).oddness(np.concatenate([z[:1], z[:1] + 1.0]))
    assert np.isfinite(seen).all()
    assert seen[1] > seen[0]


def test_neighbours_remember_so_many() -> None:
    z = np.random.default_rng(1).normal(size=(MOST + 500, 4))
    assert len(Neighbours.fit(z, seed=1).references) == MOST


def test_the_mixture_is_scikit_learns() -> None:
    estimator = fit_mixture(flows(800), seed=1)
    assert estimator.n_components == 16
    x = clipped(3.0 * flows(300, seed=2))
    density = estimator.score_samples(x)
    oddness = Mixture.flatten(estimator).oddness(x)
    assert np.abs(oddness + density).max() <= 1e-4 * np.abs(density).max()


def test_the_autoencoder_is_scikit_learns() -> None:
    z = clipped(flows(600))
    estimator = fit_autoencoder(z, seed=1)
    missed = z - estimator.predict(z)
    x = clipped(2.0 * flows(200, seed=2))
    expected = np.sqrt(LedoitWolf().fit(missed).mahalanobis(x - estimator.predict(x)))
    got = Autoencoder.flatten(estimator, z).oddness(x)
    assert np.abs(got / expected - 1).max() <= 1e-6


def fitted(kind: str) -> Expert:
    z = flows(400)
    if kind == "neighbours":
        return Neighbours.fit(z, seed=1)
    if kind == "mixture":
        return Mixture.flatten(fit_mixture(z, seed=1))
    return Autoencoder.flatten(fit_autoencoder(z, seed=1), z)


@pytest.mark.parametrize("kind", ["neighbours", "mixture", "autoencoder"])
def test_arrays_bring_an_expert_back(kind: str) -> None:
    expert, x = fitted(kind), flows(60, seed=4)
    arrays = expert.to_arrays()
    again = EXPERTS[kind].kind.from_arrays(arrays)
    assert np.array_equal(again.oddness(x), expert.oddness(x))
    for name, array in arrays.items():
        with pytest.raises((ModelError, ValueError)):
            EXPERTS[kind].kind.from_arrays({**arrays, name: array[:-1]})
        with pytest.raises(ModelError):
            EXPERTS[kind].kind.from_arrays({**arrays, name: np.full_like(array, np.nan)})

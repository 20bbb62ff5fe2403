from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from errors import ModelError
from features import HOME, LIVE
from ml import registry
from ml.model import Fitted, fit


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    x = np.exp(np.random.default_rng(1).normal(size=(400, 21)))
    return fit("home", "7", HOME, x[:300], x[300:])


@pytest.fixture(scope="module")
def saved(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    registry.save(
        fitted,
        folder,
        weight=0.1,
        training={"sources": [{"name": "made here", "licence": "ours"}], "flows": 300},
        figures={"auc": 0.9},
    )
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "home"))


def test_a_saved_model_judges_the_same(fitted: Fitted, folder: Path) -> None:
    again = registry.load(folder)
    x = np.exp(np.random.default_rng(2).normal(size=(50, 21)) * 2)
    z, z_again = fitted.model.transformed(x), again.transformed(x)
    assert np.array_equal(z, z_again)
    assert np.array_equal(fitted.model.look(z).oddness, again.look(z_again).oddness)
    assert fitted.model.calibration is not None
    assert again.calibration is not None
    assert np.array_equal(fitted.model.calibration.oddness, again.calibration.oddness)
    assert (again.name, again.version, again.features) == ("home", "7", HOME)


def test_the_specifications_files_stand_beside_it(fitted: Fitted, folder: Path) -> None:
    forest = joblib.load(folder / "home_iforest.pkl")
    scaler = joblib.load(folder / "home_scaler.pkl")
    x = np.exp(np.random.default_rng(3).normal(size=(20, 21)))
    model = registry.load(folder)
    raw = model.look(model.transformed(x)).raw
    assert np.abs(forest.score_samples(scaler.transform(x)) - raw).max() <= 1e-12
    assert (folder / "home_feature_order.txt").read_text().split("\n")[:-1] == list(HOME)
    line = json.loads((folder / "home_threshold.json").read_text())
    assert model.calibration is not None
    assert line["threshold"] == pytest.approx(np.log10(max(0.001, 2 / 101)), abs=1e-6)
    assert line["reference"] == 100
    held = model.calibration.oddness
    flagged = model.calibration.score(held) < line["threshold"]
    assert (held > line["oddness_threshold"] + 1e-6).sum() == flagged.sum()


def test_the_manifest_says_what_the_model_is(folder: Path) -> None:
    manifest = registry.verify(folder)
    assert manifest["features"] == list(HOME)
    assert manifest["training"]["sources"][0]["licence"] == "ours"
    assert manifest["figures"] == {"auc": 0.9}
    assert manifest["parameters"]["random_state"] == 42
    assert manifest["libraries"]["numpy"] == np.__version__
    assert set(manifest["sha256"]) == {p.name for p in folder.iterdir()} - {"manifest.json"}


def test_saving_twice_gives_the_same_bytes(fitted: Fitted, folder: Path, tmp_path: Path) -> None:
    registry.save(fitted, tmp_path / "again", weight=0.1, training={}, figures={})
    one, two = (p / "model.npz" for p in (folder, tmp_path / "again"))
    assert one.read_bytes() == two.read_bytes()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("name", ["model.npz", "home_iforest.pkl", "home_threshold.json"])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match="sha256 differs"):
        registry.verify(folder)
    if name == "model.npz":
        with pytest.raises(ModelError, match=r"model\.npz"):
            registry.load(folder)


def test_a_joblib_file_is_never_opened(folder: Path) -> None:
    (folder / "home_iforest.pkl").write_bytes(b"not a pickle at all")
    assert registry.load(folder).name == "home"


def _rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.update(changes)
    path.write_text(json.dumps(manifest))


def _own(folder: Path, arrays: dict[str, Any] | bytes) -> None:
    """Put other arrays in place and make the manifest agree with them."""
    if isinstance(arrays, bytes):
        (folder / "model.npz").write_bytes(arrays)
    else:
        np.savez(folder / "model.npz", **arrays)
    _rewrite(folder, sha256={"model.npz": registry._digest((folder / "model.npz").read_bytes())})


def test_a_pickle_inside_the_arrays_is_not_loaded(fitted: Fitted, folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("code from a model file ran",))

    arrays: dict[str, Any] = dict(fitted.model.to_arrays())
    arrays["low"] = np.array([Bomb()], dtype=object)
    _own(folder, arrays)
    with pytest.raises(ModelError, match="damaged"):
        registry.load(folder)
    _own(folder, pickle.dumps([1, 2]))
    with pytest.raises(ModelError, match="damaged"):
        registry.load(folder)


def test_an_archive_damaged_inside_is_refused(folder: Path) -> None:
    """Whatever zipfile, zlib and numpy make of it."""
    whole = (folder / "model.npz").read_bytes()
    for place in range(40, 400, 12):
        for change in (0x01, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= change
            _own(folder, bytes(damaged))
            with contextlib.suppress(ModelError):
                registry.load(folder)
    for place in range(len(whole) - 900, len(whole)):
        _own(folder, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(ModelError):
            registry.load(folder)


def test_arrays_that_lead_outside_are_refused(fitted: Fitted, folder: Path) -> None:
    arrays = fitted.model.to_arrays()
    arrays["forest_child"] = arrays["forest_child"] + 1_000_000
    _own(folder, arrays)
    with pytest.raises(ModelError, match="can't be used"):
        registry.load(folder)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "LARGEST_BYTES", 10_000)
    with pytest.raises(ModelError, match="unpacks to"):
        registry.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 1},
        {"features": list(LIVE)},
        {"features": "all"},
        {"features": [1, 2]},
        {"sha256": {}},
        {"sha256": {"../model.npz": "0", "model.npz": "0"}},
        {"sha256": {"model.npz": "0" * 64}},
    ],
    ids=str,
)
def test_a_manifest_that_does_not_fit_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    _rewrite(folder, **changes)
    with pytest.raises(ModelError):
        registry.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}'])
def test_a_damaged_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=r"manifest\.json"):
        registry.load(folder)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no manifest\.json"):
        registry.load(tmp_path / "nothing")

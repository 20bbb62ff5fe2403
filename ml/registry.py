"""Model files: plain arrays with a manifest, which alone is loaded; joblib files for people.

A folder holds `model.npz` (arrays only, pickles refused), `manifest.json` (sha256, features,
training data, figures, versions) and, under the specification's names, the forest and scaler by
joblib, the threshold and the order of features. Nothing that could run code is ever loaded.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from errors import ModelError
from ml.model import Fitted, Model

__all__ = [
    "ARRAYS",
    "MANIFEST",
    "NAMES",
    "REDUCED_FOLDER",
    "Names",
    "load",
    "reduced_folder",
    "save",
    "verify",
    "write_atomically",
]

ARRAYS: Final = "model.npz"
MANIFEST: Final = "manifest.json"
FORMAT: Final = 2
LARGEST_BYTES: Final = 256_000_000
"""Unpacked arrays beyond this are no model of ours (a live one takes about 3 MB)."""


REDUCED_FOLDER: Final = Path(__file__).resolve().parent / "models" / "reduced"
"""The shipped model for flow files that lack most features; no setting moves it."""


@dataclass(frozen=True, slots=True)
class Names:
    """The specification's file names of one model; the reduced model's follow them."""

    forest: str
    scaler: str
    threshold: str | None = None
    order: str | None = None
    scaled: str | None = None


NAMES: Final[Mapping[str, Names]] = {
    "home": Names(
        "home_iforest.pkl",
        "home_scaler.pkl",
        "home_threshold.json",
        "home_feature_order.txt",
        "home_X_scaled.npy",
    ),
    "industrial": Names(
        "isolation_forest.pkl", "scaler.pkl", "threshold.json", "feature_order.txt", "X_scaled.npy"
    ),
    "live": Names("live_iforest.pkl", "live_scaler.pkl"),
    "reduced": Names(
        "reduced_iforest.pkl",
        "reduced_scaler.pkl",
        "reduced_threshold.json",
        "reduced_feature_order.txt",
        "reduced_X_scaled.npy",
    ),
}


def reduced_folder(data_dir: Path) -> Path:
    """Where the reduced model is: as with the others, one trained again with feedback goes before
    the shipped one."""
    retrained = data_dir / "models" / "reduced"
    return retrained if (retrained / MANIFEST).is_file() else REDUCED_FOLDER


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, also after a power cut."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def save(
    fitted: Fitted,
    folder: Path,
    *,
    weight: float,
    alpha: float = 0.01,
    training: Mapping[str, Any],
    figures: Mapping[str, Any],
) -> Model:
    """Write a model's files; the model as `load` gives it.

    weight, alpha: the line written into the threshold file. training: what it learned from, with
    sources and licences. figures: what was measured on it.
    """
    model = fitted.model
    names = NAMES[model.name]
    files = {ARRAYS: _packed(model), names.forest: _pickled(fitted.estimator)}
    files[names.scaler] = _pickled(fitted.scaler)
    threshold = _threshold(model, weight, alpha)
    if names.threshold:
        files[names.threshold] = _json(threshold)
    if names.order:
        files[names.order] = ("\n".join(model.features) + "\n").encode()
    manifest = {
        "format": FORMAT,
        "name": model.name,
        "version": model.version,
        "features": list(model.features),
        "experts": list(model.expert_names),
        "parameters": _parameters(fitted.estimator),
        "threshold": threshold,
        "training": dict(training),
        "figures": dict(figures),
        "libraries": _libraries(),
        "sha256": {name: _digest(content) for name, content in files.items()},
    }
    for name, content in files.items():
        write_atomically(folder / name, content)
    # Last: until the manifest matches, the folder is refused as a whole.
    write_atomically(folder / MANIFEST, _json(manifest))
    return replace(model, manifest=manifest)


def load(folder: Path) -> Model:
    """The model of a folder; ModelError, in one sentence, for anything that does not match."""
    manifest = _manifest(folder)
    content = _read(folder, ARRAYS)
    _match(folder, ARRAYS, content, manifest)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST_BYTES:
            raise ModelError(f"The model in {folder} unpacks to {size:,} bytes; it is not loaded.")
        with np.load(io.BytesIO(content), allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except ModelError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds
        raise ModelError(f"{folder / ARRAYS} is damaged ({error}).") from error
    try:
        return Model.from_arrays(arrays, manifest)
    except ModelError as error:
        raise ModelError(f"The model in {folder} can't be used: {error}") from error


def verify(folder: Path) -> Mapping[str, Any]:
    """Check every file the manifest names, and that the model loads; the manifest."""
    manifest = _manifest(folder)
    for name in manifest["sha256"]:
        _match(folder, name, _read(folder, name), manifest)
    load(folder)
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(_read(folder, MANIFEST))
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}).") from error
    wanted = {"format", "name", "version", "features", "experts", "sha256"}
    if not isinstance(manifest, dict) or not wanted <= manifest.keys():
        raise ModelError(f"{path} is no manifest of a model.")
    if manifest["format"] != FORMAT:
        raise ModelError(
            f"{path} has format {manifest['format']}; this version reads format {FORMAT}. "
            "Train the model again."
        )
    sha256, features = manifest["sha256"], manifest["features"]
    if (
        not isinstance(sha256, dict)
        or ARRAYS not in sha256
        or not isinstance(features, list)
        or not all(isinstance(text, str) for text in (*features, *sha256))
        or any(Path(name).name != name for name in sha256)
    ):
        raise ModelError(f"{path} is no manifest of a model.")
    return manifest


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise ModelError(f"There is no {name} in {folder}.") from None
    except OSError as error:
        raise ModelError(f"{folder / name} can't be read: {error.strerror}.") from error


def _match(folder: Path, name: str, content: bytes, manifest: Mapping[str, Any]) -> None:
    if _digest(content) != manifest["sha256"][name]:
        raise ModelError(
            f"{folder / name} is not the file its manifest describes (sha256 differs), so it is "
            "not used. Train the model again, or bring its files back from where they came from."
        )


def _threshold(model: Model, weight: float, alpha: float) -> dict[str, Any]:
    calibration = model.calibration
    if calibration is None:
        return {"threshold": None, "reference": 0, "alpha": alpha, "weight": weight}
    line = calibration.threshold(weight, alpha)
    return {
        "threshold": round(line, 6),
        "unit": "log10 of the share of normal flows at least as odd",
        "oddness_threshold": round(calibration.oddness_at(line), 6),
        "alpha": alpha,
        "weight": weight,
        "reference": len(calibration),
    }


def _parameters(estimator: Any) -> dict[str, Any]:
    told = ("n_estimators", "max_samples", "contamination", "random_state")
    return {name: estimator.get_params()[name] for name in told}


def _libraries() -> dict[str, str]:
    import joblib
    import sklearn

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "joblib": joblib.__version__,
    }


def _packed(model: Model) -> bytes:
    buffer = io.BytesIO()
    # numpy's stub takes the names for options of its own.
    np.savez_compressed(buffer, **model.to_arrays())  # type: ignore[arg-type]
    return buffer.getvalue()


def _pickled(thing: Any) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(thing, buffer, compress=("zlib", 3))
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""Versions of the live model on disk: which one serves, and the ones to go back to."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from errors import ModelError
from ml.model import Fitted, Model
from ml.registry import ARRAYS, MANIFEST, load, save, write_atomically

__all__ = ["KEPT", "METADATA", "Versions"]

log = logging.getLogger("secureflux.baseline")

METADATA: Final = "live_metadata.json"
KEPT: Final = 5
"""Versions one can go back to."""
REFUSED_KEPT: Final = 2
"""Versions that were not allowed to serve and that a person still may let serve."""
TRAININGS_TOLD: Final = 50
_FOLDER: Final = "versions"
_FORMAT: Final = 1


class Versions:
    """The folder of the live model; used by one thread at a time.

    Every version is a whole model folder under `versions/`; the serving one's files also stand at
    the top, under the specification's names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._serving, self._trainings = self._read()

    @property
    def serving(self) -> dict[str, Any] | None:
        """What is told of the version that serves."""
        return self._training(self._serving)

    @property
    def last(self) -> dict[str, Any] | None:
        """The newest training, whether it serves or not."""
        return self._trainings[-1] if self._trainings else None

    def unsure_s(self, sure: int) -> float:
        """When the newest training ran whose `depth` is below `sure`; -inf where none is told."""
        times = [
            float(one["trained_at"]) for one in self._trainings if one.get("depth", sure) < sure
        ]
        return max(times, default=-math.inf)

    @property
    def next_version(self) -> int:
        return max((int(one["version"]) for one in self._trainings), default=0) + 1

    def history(self) -> list[dict[str, Any]]:
        """Every training told of, oldest first; `serving`, and `kept` where one can go back."""
        kept = set(self._kept())
        return [
            {**one, "serving": one["version"] == self._serving, "kept": one["version"] in kept}
            for one in self._trainings
        ]

    def load_serving(self) -> Model | None:
        """The version that serves; where its files are damaged, the newest that is whole."""
        if self._serving is None:
            return None
        refused = self._refused()
        older = [v for v in self._kept() if v < self._serving and v not in refused]
        for folder in (
            self._path(self._serving),
            self._folder,
            *(self._path(version) for version in reversed(older)),
        ):
            try:
                model = load(folder)
            except ModelError as error:
                log.warning("%s", error)
                continue
            if model.name == "live" and model.version.isdecimal():
                self._serving = int(model.version)
                return model
        self._serving = None
        return None

    def write(
        self, fitted: Fitted, *, weight: float, alpha: float, told: Mapping[str, Any]
    ) -> Model:
        """Write a new version's files; it does not serve yet."""
        version = self._path(int(fitted.model.version))
        fresh = version.with_name(f".{version.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        model = save(fitted, fresh, weight=weight, alpha=alpha, training=told, figures={})
        shutil.rmtree(version, ignore_errors=True)
        fresh.replace(version)
        return model

    def discard(self, version: int) -> None:
        """Forget files that were written and shall not serve."""
        shutil.rmtree(self._path(version), ignore_errors=True)

    def serve(self, model: Model) -> None:
        """Let a written version serve, and forget the ones beyond KEPT."""
        self._tell(model)
        self._serve(int(model.version))
        self._forget_old()

    def keep(self, model: Model) -> None:
        """Keep a written version that may not serve by itself; `use` still lets it."""
        self._tell(model)
        self._write_metadata()
        self._forget_old()

    def _tell(self, model: Model) -> None:
        told = dict(model.manifest["training"])
        told["threshold"] = model.manifest["threshold"]["threshold"]
        self._trainings = [*self._trainings, told][-TRAININGS_TOLD:]

    def _forget_old(self) -> None:
        """Each kind apart: refused ones must not push out what one can go back to."""
        refused = self._refused()
        served = [version for version in self._kept() if version not in refused]
        for old in (*served[:-KEPT], *sorted(refused)[:-REFUSED_KEPT]):
            if old != self._serving:
                self.discard(old)

    def _refused(self) -> set[int]:
        """Versions on disk that no training let serve."""
        told = {
            one["version"]
            for one in self._trainings
            if one.get("refused") and not one.get("allowed")
        }
        return told & set(self._kept())

    def go_back(self) -> Model:
        """The version before the serving one serves again, after a reset the newest one.

        ModelError where there is none.
        """
        refused = self._refused()
        older = [
            v
            for v in self._kept()
            if (self._serving is None or v < self._serving) and v not in refused
        ]
        for version in reversed(older):
            try:
                return self.use(version)
            except ModelError as error:
                log.warning("%s", error)
        raise ModelError("There is no earlier version of the live model to go back to.")

    def use(self, version: int) -> Model:
        """A kept version serves from now on; ModelError where it is not kept or damaged."""
        kept = self._kept()
        if version not in kept:
            there = ", ".join(map(str, kept)) or "none"
            raise ModelError(f"Version {version} of the live model is not kept; there is {there}.")
        model = load(self._path(version))
        # Also one that was refused: from now on it is a version like others.
        self._trainings = [
            {**one, "allowed": True} if one["version"] == version and one.get("refused") else one
            for one in self._trainings
        ]
        self._serve(version)
        return model

    def serve_none(self) -> None:
        """No version serves; all that are kept stay to go back to."""
        self._serving = None
        for name in (ARRAYS, MANIFEST, "live_iforest.pkl", "live_scaler.pkl"):
            (self._folder / name).unlink(missing_ok=True)
        self._write_metadata()

    def _serve(self, version: int) -> None:
        source = self._path(version)
        for path in sorted(source.iterdir(), key=lambda path: path.name == MANIFEST):
            write_atomically(self._folder / path.name, path.read_bytes())
        self._serving = version
        self._write_metadata()

    def _write_metadata(self) -> None:
        metadata = {"format": _FORMAT, "serving": self._serving, "trainings": self._trainings}
        write_atomically(self._folder / METADATA, (json.dumps(metadata, indent=2) + "\n").encode())

    def _path(self, version: int) -> Path:
        return self._folder / _FOLDER / str(version)

    def _kept(self) -> list[int]:
        folder = self._folder / _FOLDER
        if not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())

    def _training(self, version: int | None) -> dict[str, Any] | None:
        return next((one for one in self._trainings if one["version"] == version), None)

    def _read(self) -> tuple[int | None, list[dict[str, Any]]]:
        try:
            metadata = json.loads((self._folder / METADATA).read_bytes())
            return metadata["serving"], list(metadata["trainings"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            log.warning("%s is damaged; what it told is read from the versions.", METADATA)
        return self._from_manifests()

    def _from_manifests(self) -> tuple[int | None, list[dict[str, Any]]]:
        """What the models' own files tell, for a folder without (whole) metadata."""
        found: dict[int, dict[str, Any]] = {}
        for folder in (*(self._path(version) for version in self._kept()), self._folder):
            try:
                manifest = load(folder).manifest
            except ModelError:
                continue
            told = {
                "flows": 0,
                "held_out": 0,
                "trained_at": 0.0,
                "newest": 0.0,
                **manifest["training"],
                "version": int(manifest["version"]),
                "threshold": manifest["threshold"]["threshold"],
            }
            found[told["version"]] = told
        trainings = [found[version] for version in sorted(found)]
        return (trainings[-1]["version"] if trainings else None), trainings

"""`train` makes a new version of a model, `models` lists, verifies and chooses versions."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

from errors import ModelError, UsageError
from ml.baseline import Baseline
from ml.model import Model
from ml.registry import REDUCED_FOLDER, load, verify
from settings import Settings
from store import Store

__all__ = ["add_commands"]

_SHIPPED: Final = {"home": "HOME_MODEL_PATH", "industrial": "INDUSTRIAL_MODEL_PATH"}


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", parents=parents, help="train a new version of a model")
    train.add_argument("model", choices=("home", "industrial", "reduced", "live", "all"))
    train.add_argument(
        "--data", metavar="DIR", type=Path, help="training data (default ../shared/data)"
    )
    train.set_defaults(run=run_train)
    models = commands.add_parser("models", parents=parents, help="list, verify, choose versions")
    models.add_argument("action", choices=("list", "use", "verify"), nargs="?", default="list")
    models.add_argument("version", nargs="?", metavar="VERSION", help="of the live model")
    models.set_defaults(run=run_models)


def run_train(options: argparse.Namespace, settings: Settings) -> int:
    if options.model != "live":
        for name in (*_SHIPPED, "reduced") if options.model == "all" else (options.model,):
            _told(name, _train(name, options.data, _folder(name, settings)))
    if options.model in ("live", "all"):
        return _train_live(options, settings)
    return 0


def _folder(name: str, settings: Settings) -> Path:
    return settings.path(_SHIPPED[name]) if name in _SHIPPED else REDUCED_FOLDER


def _train(name: str, data: Path | None, out: Path) -> Model:
    # Imported here: the data sets need pandas and scikit-learn, the other commands do not.
    from training.pipeline import train

    return train(name, data, out)


def _train_live(options: argparse.Namespace, settings: Settings) -> int:
    """On captures of this network, or on the flows collected; nothing may run meanwhile."""
    store = Store(settings.path("DATA_DIR"))
    try:
        data = options.data if options.model == "live" else None
        _told("live", _train("live", data, settings.path("LIVE_MODEL_PATH")))
    except ModelError as error:
        if options.model == "live":
            raise
        _say(f"live: {error}")
    finally:
        store.close()
    return 0


def _told(name: str, model: Model) -> None:
    _say(f"{name}: version {model.version}, {len(model.features)} features")


def run_models(options: argparse.Namespace, settings: Settings) -> int:
    if options.action == "use":
        return _use(options.version, settings)
    for name, setting in _SHIPPED.items():
        folder = settings.path(setting)
        manifest = verify(folder)
        if options.action == "verify":
            load(folder)
            _say(f"✓ {name}: version {manifest['version']}, every file as its manifest says")
        else:
            _say(f"{name:11} version {manifest['version']}, {len(manifest['features'])} features")
    live = Baseline(settings.path("LIVE_MODEL_PATH")).status()
    if not live["history"]:
        _say(f"live        {live['sentence']}")
    for one in live["history"]:
        serving = "serving" if one["version"] == live["version"] else ""
        trained = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["trained_at"]))
        _say(f"live        version {one['version']}, trained {trained} {serving}".rstrip())
    return 0


def _use(version: str | None, settings: Settings) -> int:
    if version is None or not version.isdigit():
        raise UsageError("Which version of the live model? `models list` shows their numbers.")
    store = Store(settings.path("DATA_DIR"))
    try:
        baseline = Baseline(settings.path("LIVE_MODEL_PATH"), background=False)
        baseline.use(int(version))
        _say(f"live: version {version} serves.")
    finally:
        store.close()
    return 0


def _say(line: str) -> None:
    print(line)  # noqa: T201

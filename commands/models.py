"""`train` makes a new version of a model, `models` lists, verifies and chooses versions."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

from errors import UsageError
from ml.baseline import Baseline
from ml.registry import load, verify
from settings import Settings
from store import Store

__all__ = ["add_commands"]

_SHIPPED: Final = {"home": "HOME_MODEL_PATH", "industrial": "INDUSTRIAL_MODEL_PATH"}


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", parents=parents, help="train a new version of a model")
    train.add_argument("model", choices=("home", "industrial", "live", "all"))
    train.add_argument(
        "--data", metavar="DIR", type=Path, help="training data (default ../shared/data)"
    )
    train.set_defaults(run=run_train)
    models = commands.add_parser("models", parents=parents, help="list, verify, choose versions")
    models.add_argument("action", choices=("list", "use", "verify"), nargs="?", default="list")
    models.add_argument("version", nargs="?", metavar="VERSION", help="of the live model")
    models.set_defaults(run=run_models)


def run_train(options: argparse.Namespace, settings: Settings) -> int:
    wanted = ("home", "industrial", "live") if options.model == "all" else (options.model,)
    for name in wanted:
        if name == "live":
            _train_live(settings)
        else:
            from training.pipeline import DATA, train

            model = train(name, options.data or DATA, settings.path(_SHIPPED[name]))
            _say(f"{name}: version {model.version}, {len(model.features)} features")
    return 0


def _train_live(settings: Settings) -> None:
    """Train on the flows collected so far; the program must not be running meanwhile."""
    store = Store(settings.path("DATA_DIR"))
    try:
        baseline = Baseline(settings.path("LIVE_MODEL_PATH"), background=False)
        baseline.retrain()
        baseline.close()
        _say(f"live: {baseline.status()['sentence']}")
    finally:
        store.close()


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

"""`train` makes a new version of a model, `models` lists, verifies and chooses versions."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any, Final

from errors import AppError, ModelError, UsageError
from ml.baseline import Baseline
from ml.model import Model
from ml.registry import MANIFEST, REDUCED_FOLDER, reduced_folder, verify
from settings import Settings
from store import Store
from units import count

__all__ = ["add_commands"]

SHIPPED_FOLDER: Final = REDUCED_FOLDER.parent
_SHIPPED: Final = ("home", "industrial", "reduced")


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", parents=parents, help="train a new version of a model")
    train.add_argument("model", choices=(*_SHIPPED, "live", "all"))
    train.add_argument(
        "--data", metavar="DIR", type=Path, help="training data (default ../shared/data)"
    )
    train.add_argument(
        "--with-feedback",
        action="store_true",
        help="add the flows of confirmed false positives; the new version stays in the data "
        "directory and serves from the next start",
    )
    train.set_defaults(run=run_train)
    models = commands.add_parser("models", parents=parents, help="list, verify, choose versions")
    models.add_argument("action", choices=("list", "use", "verify"), nargs="?", default="list")
    models.add_argument(
        "version",
        nargs="?",
        metavar="VERSION",
        help="of the live model; or `shipped`: all others as they came with the program",
    )
    models.set_defaults(run=run_models)


def run_train(options: argparse.Namespace, settings: Settings) -> int:
    static = _SHIPPED if options.model == "all" else (options.model,)
    refusal: AppError | None = None
    trained = 0
    if options.model != "live" and options.with_feedback:
        trained, refusal = _train_with_feedback(static, options, settings)
    elif options.model != "live":
        for name in static:
            _told(name, _train(name, options.data, _folder(name, settings)))
            trained += 1
    if options.model in ("live", "all"):
        # What people confirmed has joined the live model's buffer already.
        trained += _train_live(options, settings)
    return refusal.exit_code if refusal and not trained else 0


def _train_with_feedback(
    names: tuple[str, ...], options: argparse.Namespace, settings: Settings
) -> tuple[int, AppError | None]:
    """Each model that can be, where several are asked for; how many, and why the first was not."""
    from training.feedback import read
    from training.retraining import retrain

    trained = 0
    refusal = None
    data_dir = settings.path("DATA_DIR")
    for name in names:
        out = data_dir / "models" / name
        try:
            model = retrain(
                name,
                options.data,
                read(data_dir),
                shipped=SHIPPED_FOLDER / name,
                serving=out if (out / MANIFEST).is_file() else SHIPPED_FOLDER / name,
                out=out,
            )
        except AppError as error:
            if len(names) == 1:
                raise
            _say(f"{name}: {error}")
            refusal = refusal or error
            continue
        trained += 1
        told = model.manifest["training"]["feedback"]
        _say(
            f"{name}: version {model.version}, with {count(told['flows'], 'flow')} of "
            f"{count(told['incidents'], 'false positive')}, in {out}"
        )
    return trained, refusal


def _folder(name: str, settings: Settings) -> Path:
    if name == "reduced":
        return reduced_folder(settings.path("DATA_DIR"))
    return settings.path(f"{name.upper()}_MODEL_PATH")


def _train(name: str, data: Path | None, out: Path) -> Model:
    # Imported here: the data sets need pandas and scikit-learn, the other commands do not.
    from training.pipeline import train

    return train(name, data, out)


def _train_live(options: argparse.Namespace, settings: Settings) -> bool:
    """On captures of this network, or on the flows collected; nothing may run meanwhile.

    Whether there is a new version; where all models are asked for, that there is none is told.
    """
    store = Store(settings.path("DATA_DIR"))
    try:
        data = options.data if options.model == "live" else None
        _told("live", _train("live", data, settings.path("LIVE_MODEL_PATH")))
    except ModelError as error:
        if options.model == "live":
            raise
        _say(f"live: {error}")
        return False
    finally:
        store.close()
    return True


def _told(name: str, model: Model) -> None:
    _say(f"{name}: version {model.version}, {len(model.features)} features")


def run_models(options: argparse.Namespace, settings: Settings) -> int:
    if options.action == "use":
        return _use(options.version, settings)
    if options.version is not None:
        raise UsageError(
            f"A version is chosen by `models use` alone; `models {options.action}` is of all."
        )
    for name in _SHIPPED:
        folder = _folder(name, settings)
        manifest = verify(folder)
        if options.action == "verify":
            _say(f"✓ {name}: version {manifest['version']}, every file as its manifest says")
        else:
            joined = manifest.get("training", {}).get("feedback")
            also = f", with {count(joined['flows'], 'flow')} of feedback" if joined else ""
            features = len(manifest["features"])
            _say(f"{name:11} version {manifest['version']}, {features} features{also}")
    live = Baseline(settings.path("LIVE_MODEL_PATH")).status()
    if not live["history"]:
        _say(f"live        {live['sentence']}")
    for one in live["history"]:
        serving = "serving" if one["version"] == live["version"] else one["refusal"] or ""
        trained = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["trained_at"]))
        _say(f"live        version {one['version']}, trained {trained} {serving}".rstrip())
    return 0


def _use(version: str | None, settings: Settings) -> int:
    if version == "shipped":
        return _use_shipped(settings)
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


def _use_shipped(settings: Settings) -> int:
    """Versions trained with feedback go; the next start loads what came with the program."""
    retrained = [settings.path("DATA_DIR") / "models" / name for name in _SHIPPED]
    retrained = [folder for folder in retrained if (folder / MANIFEST).is_file()]
    for folder in retrained:
        shutil.rmtree(folder)
        _say(f"{folder.name}: the shipped version serves from the next start.")
    if not retrained:
        _say("The shipped versions serve already: none was trained again with feedback.")
    return 0


def _say(line: str) -> None:
    print(line)  # noqa: T201

"""`train` makes a new version of a model, `models` lists, verifies and chooses versions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from settings import Settings

__all__ = ["add_commands"]

_TRAINABLE: Final = ("home", "industrial", "live", "all")


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", parents=parents, help="train a new version of a model")
    train.add_argument("model", choices=_TRAINABLE)
    train.add_argument("--data", metavar="DIR", type=Path, help="training data")
    train.set_defaults(run=run_train)
    models = commands.add_parser("models", parents=parents, help="model versions")
    models.add_argument("action", choices=("list", "use", "verify"), nargs="?", default="list")
    models.add_argument("version", nargs="?", metavar="VERSION")
    models.set_defaults(run=run_models)


def run_train(options: argparse.Namespace, settings: Settings) -> int:
    raise NotImplementedError


def run_models(options: argparse.Namespace, settings: Settings) -> int:
    raise NotImplementedError

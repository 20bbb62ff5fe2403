"""The command line all training scripts share."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from errors import AppError
from training.pipeline import DATA, MODELS_FOLDER, WORK

__all__ = ["Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """data: what is learned from; work: what the steps hand on; out: the model's folder."""

    data: Path
    work: Path
    out: Path


def run(
    name: str, purpose: str, step: Callable[[Options], object], arguments: Sequence[str] | None
) -> int:
    """Parse, run one step of model `name`, and say what is wrong in one sentence; the exit code."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="DIR",
        help="the data set's folders (flows, captures, lab), or any folder of captures of normal "
        "traffic (default: %(default)s)",
    )
    parser.add_argument(
        "--work", type=Path, default=WORK / name, metavar="DIR", help="what the steps hand on"
    )
    parser.add_argument(
        "--out", type=Path, default=MODELS_FOLDER / name, metavar="DIR", help="the model's folder"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        step(Options(given.data, given.work, given.out))
    except AppError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0

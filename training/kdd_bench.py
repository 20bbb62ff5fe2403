"""The bench of the second specification: KDD Cup 99 and NSL-KDD, trained on normal records only.

python training/kdd_bench.py [--data DIR]
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

# A script started by its path sees its own folder only; the rooms lie a folder up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from errors import AppError
from training.evaluation.details import kdd_part
from training.evaluation.kdd import kdd_bench
from training.evaluation.measured import one_thread
from training.pipeline import DATA

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="DIR",
        help="a folder with flows/nsl_KDDTrain20.txt.gz, flows/nsl_KDDTest+.txt.gz and "
        "flows/kddcup99_10_percent.gz, or some of them (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with one_thread():
            told = list(kdd_bench(given.data))
    except AppError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write("\n".join(kdd_part(told)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`bench`: speed against peers, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from settings import Settings

__all__ = ["add_commands"]


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bench", parents=parents, help="speed against peers")
    parser.add_argument("--packets", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--runs", type=int, default=3, metavar="R")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings: Settings) -> int:
    from benchmarks.kernel import compare, table

    result = compare(
        packets=options.packets,
        runs=options.runs,
        tell=lambda line: print(line, file=sys.stderr),  # noqa: T201
    )
    print(table(result))  # noqa: T201
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0

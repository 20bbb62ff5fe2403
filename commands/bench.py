"""`bench`: speed against peers and targets, as tables and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from errors import AppError, UsageError
from settings import Settings

__all__ = ["add_commands"]


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bench",
        parents=parents,
        help="speed against peers and targets",
        description="Measures parts of the data path beside others, each run in a process of its "
        "own. Parts: kernel, verdicts, scorer, live, scaling, compile; all that can run here "
        "where none is named.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure")
    parser.add_argument(
        "--packets", type=int, default=1_000_000, metavar="N", help="of kernel and verdicts"
    )
    parser.add_argument("--runs", type=int, default=3, metavar="R", help="turns of each part")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables into this document"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings: Settings) -> int:
    from benchmarks import live
    from benchmarks.measure import Plan, machine
    from benchmarks.report import PARTS, into_document, markdown, text

    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        raise UsageError(f"bench has no part {unknown[0]!r}; there are {', '.join(PARTS)}.")
    if options.packets < 1_000 or options.runs < 1:
        raise UsageError("bench needs at least --packets 1000 and --runs 1.")
    result: dict[str, Any] = {
        "machine": machine(),
        "packets": options.packets,
        "runs": options.runs,
        "parts": {},
        "skipped": {},
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="secureflux-bench-") as folder:
        for name in [part for part in PARTS if part in (options.parts or PARTS)]:
            why = live.why_not() if name == "live" else None
            if why is not None:
                result["skipped"][name] = why
                continue
            _say(f"{name}:")
            plan = Plan(options.packets, options.runs, Path(folder), _say)
            try:
                result["parts"][name] = PARTS[name].measure(plan)
            except AppError as error:
                # What the other parts found is not lost by it.
                result["skipped"][name] = f"It failed: {error}"
    result["seconds"] = round(time.monotonic() - began, 1)
    print(text(result))  # noqa: T201
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.markdown is not None:
        there = options.markdown.exists()
        document = options.markdown.read_text(encoding="utf-8") if there else ""
        options.markdown.write_text(into_document(document, markdown(result)), encoding="utf-8")
    failed = any(why.startswith("It failed") for why in result["skipped"].values())
    return 1 if failed else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201

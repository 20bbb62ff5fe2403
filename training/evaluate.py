"""Measure how the product detects on days, devices and networks it was not fitted on, row by row.

python training/evaluate.py [--data DIR] [--captures DIR] [--lab CAPTURE LABELS]
                            [--json FILE] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# A script started by its path sees its own folder only; the rooms lie a folder up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from errors import AppError, InputError
from training.evaluation.measured import Measured, Sources, measure
from training.evaluation.pictures import pictures
from training.evaluation.report import markdown, write_part
from training.evaluation.rows import Row, rows
from training.pipeline import DATA, ROOT

__all__ = ["main", "written"]

DOCUMENT = ROOT / "docs" / "detection.md"


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("secureflux").setLevel(logging.WARNING)
    logging.getLogger("secureflux.training").setLevel(logging.INFO)
    try:
        told = measure(_sources(given))
        judged = rows(told)
        document = given.markdown
        if document is None and given.data.resolve() == DATA.resolve() and DATA.is_dir():
            document = DOCUMENT
        text = written(told, judged, document, given.json)
    except AppError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(text)
    return 0


def written(
    told: Measured, judged: Sequence[Row], document: Path | None, figures: Path | None
) -> str:
    """The report, written into a Markdown file and as JSON where they are named."""
    text = markdown(told, judged)
    if document is not None:
        write_part(document, text, pictures(told))
    if figures is not None:
        figures.write_text(json.dumps(_document(told, judged), indent=1) + "\n", encoding="utf-8")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="DIR",
        help="flows/*.parquet, captures/ and lab/, of any days and networks (default: %(default)s)",
    )
    parser.add_argument(
        "--captures",
        type=Path,
        metavar="DIR",
        help="a folder of captures with index.tsv (default: captures/ of the data)",
    )
    parser.add_argument(
        "--lab",
        nargs=2,
        type=Path,
        metavar=("CAPTURE", "LABELS"),
        help="a recorded lab and its phases (default: those of lab/ of the data)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the report between the markers of this file, pictures beside it (default: "
        "docs/detection.md where the data are the default ones, else nothing)",
    )
    return parser


def _sources(given: argparse.Namespace) -> Sources:
    development = DATA / "captures"
    captures = given.captures or given.data / "captures"
    if not (captures / "index.tsv").is_file():
        if given.captures is not None:
            raise InputError(f"There is no index.tsv in {captures}: it says what each one holds.")
        captures = None
    held_out = captures is not None and captures.resolve() != development.resolve()
    labs: tuple[tuple[Path, Path], ...]
    if given.lab is not None:
        missing = [path for path in given.lab if not path.is_file()]
        if missing:
            raise InputError(f"There is no file {missing[0]}.")
        labs = ((given.lab[0], given.lab[1]),)
    else:
        named = (
            (path, path.with_name(path.name.removesuffix(".pcap.gz") + ".labels.tsv"))
            for path in sorted((given.data / "lab").glob("*.pcap.gz"))
        )
        labs = tuple((capture, labels) for capture, labels in named if labels.is_file())
    return Sources(given.data, captures, held_out, labs)


def _document(told: Measured, judged: Sequence[Row]) -> dict[str, Any]:
    """Everything, for machines; NaN as null."""
    whole = asdict(told)
    whole["rows"] = [asdict(row) for row in judged]
    plain: dict[str, Any] = _plain(whole)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value != value:
        return None
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.exit(main())

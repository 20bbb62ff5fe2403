"""What was measured, as one Markdown document: for the terminal, for docs/detection.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from errors import InputError
from training.evaluation.candidates import OURS, PUBLISHED
from training.evaluation.details import IMAGES, details, table
from training.evaluation.measured import Measured
from training.evaluation.measures import number
from training.evaluation.own_network import Runs
from training.evaluation.rows import Row

__all__ = ["BEGIN", "END", "markdown", "write_part"]

BEGIN: Final = "<!-- measured by training/evaluate.py -->"
END: Final = "<!-- end of what training/evaluate.py measured -->"
VERDICTS: Final = {
    "goal": "goal reached",
    "must": "met",
    "short": "**falls short**",
    "": "not measured",
}


def markdown(told: Measured, rows: Sequence[Row]) -> str:
    """The whole report; its tables stand in the order of the targets."""
    parts: list[str] = [*_head(told), *_targets(rows)]
    for runs in [*told.own, *told.local]:
        parts += _network(runs, told)
    parts += details(told)
    return "\n".join(parts) + "\n"


def _head(told: Measured) -> Iterator[str]:
    yield "## Measured"
    yield ""
    yield (
        "By `python training/evaluate.py`, which prints this part and writes it here. Nothing was "
        "tuned on what a table reports by this command; where choices were made while looking at "
        "the same data (transforms, neighbours, ridge, weights of the experts, lines of patterns), "
        "these figures are no untouched test, and other days and networks will show somewhat less."
    )
    yield ""
    yield (
        "**Splits.** By day, device, network or capture, never by row; seeds "
        f"{', '.join(str(seed) for seed in told.sources.seeds)}. Fitted and counted on are "
        "harmless flows only; judged are the harmless flows and the attacks of the judged days "
        "alone, each class at most 1,000 flows; flows of one packet are left out, rows that stand "
        "twice count once."
    )
    yield ""
    for runs in [*told.own, *told.local]:
        for split in runs.splits:
            attacks = ", ".join(f"{label} {n:,}" for label, n in runs.attacks[split].items())
            yield f"- {runs.network}: {split} (attacks: {attacks or 'none'})"
    flows = "; ".join(
        f"{name} {n['harmless']:,} harmless, {n['attacks']:,} of attacks"
        for name, n in told.flows.items()
    )
    yield f"- All tables: {flows}."
    if told.lacking:
        yield f"- The tables give no {', '.join(told.lacking)}: 0 for every flow."
    if told.peers:
        yield f"- {told.peers}"
    yield (
        '- A figure is the mean of all splits and seeds with its range in brackets. "Published" '
        "is the specification's recipe (StandardScaler, IsolationForest of 100 trees, "
        "contamination 0.01) fitted, counted and judged on the same flows. The own line is the "
        "one that held-out harmless flows set for 1 %; the real rate of false alarms stands beside "
        "it."
    )
    yield ""


def _targets(rows: Sequence[Row]) -> Iterator[str]:
    yield "### Targets"
    yield ""
    yield from table(
        ("#", "figure", "must", "goal", "prototype", "here", "published, here / elsewhere", ""),
        (
            (
                row.target.number,
                row.target.figure,
                row.target.must,
                row.target.goal,
                row.target.prototype,
                row.here,
                f"{row.published_here or '–'} / {row.target.published}",
                _verdict(row),
            )
            for row in rows
        ),
    )
    noted = [row for row in rows if row.note]
    if noted:
        yield ""
        yield from (f"- Row {row.target.number}: {row.note}." for row in noted)
    yield ""


def _verdict(row: Row) -> str:
    if row.in_order is None or row.in_order == row.verdict:
        return VERDICTS[row.verdict]
    return f"{VERDICTS[row.verdict]}; days in order: {VERDICTS[row.in_order]}"


def _network(runs: Runs, told: Measured) -> Iterator[str]:
    yield f"### {runs.network}"
    yield ""
    figures = ("auc", "at_1", "at_5", "own_rate", "own_recall", "own_macro", "own5_recall")
    yield from table(
        (
            "candidate",
            "AUC",
            "recall at exactly 1 %",
            "at exactly 5 %",
            "own line: real rate",
            "recall",
            "macro recall",
            "own line for 5 %: recall",
        ),
        (
            (name, *(_or_dash(runs.spread(name, figure).mean) for figure in figures))
            for name in runs.names
        ),
    )
    yield ""
    yield "Recall at the own line for 1 %, by class:"
    yield ""
    ours, published = runs.classes(OURS), runs.classes(PUBLISHED)
    yield from table(
        ("class", "ours", "published"),
        ((label, str(ours[label]), str(published[label])) for label in ours),
    )
    yield ""
    if runs is told.main:
        yield f"![Recall by the rate of false alarms]({IMAGES}/detection-recall.svg)"
        yield f"![Recall by class]({IMAGES}/detection-classes.svg)"
        yield ""


def _or_dash(value: float) -> str:
    return number(value) if np.isfinite(value) else "–"


def write_part(path: Path, text: str, drawn: dict[str, str]) -> None:
    """Put `text` between the markers of a Markdown file, at its end where it has none, and the
    pictures into the folder images beside it."""
    try:
        whole = path.read_text(encoding="utf-8") if path.exists() else ""
        before, begin, rest = whole.partition(BEGIN)
        _, end, after = rest.partition(END)
        if begin and not end:
            raise InputError(f"{path} has the line {BEGIN} but not {END}.")
        head = before if begin else whole.rstrip("\n") + "\n\n"
        path.write_text(f"{head}{BEGIN}\n{text}{END}{after or chr(10)}", encoding="utf-8")
        folder = path.parent / IMAGES
        folder.mkdir(exist_ok=True)
        for name, content in drawn.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}.") from error

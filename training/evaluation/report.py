"""What was measured, as one Markdown document: for the terminal, for docs/detection.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from errors import InputError
from training.evaluation.candidates import OURS, PUBLISHED
from training.evaluation.kdd import LINES, Bench
from training.evaluation.measured import Measured
from training.evaluation.measures import number, spread
from training.evaluation.own_network import Runs, curve_of
from training.evaluation.plots import bars, curves
from training.evaluation.rows import Row, losses

__all__ = ["BEGIN", "END", "kdd_part", "markdown", "pictures", "write_part"]

BEGIN: Final = "<!-- measured by training/evaluate.py -->"
END: Final = "<!-- end of what training/evaluate.py measured -->"
VERDICTS: Final = {
    "goal": "goal reached",
    "must": "met",
    "short": "**falls short**",
    "": "not measured",
}
_IMAGES: Final = "images"


def markdown(told: Measured, rows: Sequence[Row]) -> str:
    """The whole report; its tables stand in the order of the targets."""
    parts: list[str] = [*_head(told), *_targets(rows)]
    for runs in [*told.own, *told.local]:
        parts += _network(runs, told)
    parts += [
        *_learning(told),
        *_moved(told),
        *_decisions(told),
        *_streams(told),
        *_devices(told),
        *_explanations(told),
        *_cost(told),
        *_captures(told),
        *kdd_part(told.benches),
    ]
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
    yield from _table(
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
                VERDICTS[row.verdict],
            )
            for row in rows
        ),
    )
    noted = [row for row in rows if row.note]
    if noted:
        yield ""
        yield from (f"- Row {row.target.number}: {row.note}." for row in noted)
    yield ""


def _network(runs: Runs, told: Measured) -> Iterator[str]:
    yield f"### {runs.network}"
    yield ""
    figures = ("auc", "at_1", "at_5", "own_rate", "own_recall", "own_macro", "own5_recall")
    yield from _table(
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
    yield from _table(
        ("class", "ours", "published"),
        ((label, str(ours[label]), str(published[label])) for label in ours),
    )
    yield ""
    if runs is told.main:
        yield f"![Recall by the rate of false alarms]({_IMAGES}/detection-recall.svg)"
        yield f"![Recall by class]({_IMAGES}/detection-classes.svg)"
        yield ""


def _learning(told: Measured) -> Iterator[str]:
    if not told.learning:
        return
    yield "### How many flows it takes"
    yield ""
    yield (
        "AUC on a day with attacks, fitted on flows of the other days (those left over count the "
        "experts; only the ranking is measured)."
    )
    yield ""
    yield from _table(
        ("fitted flows", "ours", "published"),
        (
            (f"{size:,}", str(spread(seen[OURS])), str(spread(seen[PUBLISHED])))
            for size, seen in sorted(told.learning.items())
        ),
    )
    yield ""
    yield f"![AUC by fitted flows]({_IMAGES}/detection-learning.svg)"
    yield ""


def _moved(told: Measured) -> Iterator[str]:
    if not told.moved:
        return
    yield "### A model's line on another network"
    yield ""
    yield (
        "Real false alarms at the line for 1 %, and recall: with the line the model came with, and "
        "with the line of the first 500 local flows (nothing fitted). In the order of time where "
        "the network's flows have a common clock, else drawn at random."
    )
    yield ""
    keys = dict.fromkeys((one.model, one.source, one.target) for one in told.moved)

    def row(key: tuple[str, str, str]) -> tuple[str, ...]:
        mine = [one for one in told.moved if (one.model, one.source, one.target) == key]
        recalls = [
            [x for x in values if x is not None]
            for values in ([m.recall_before for m in mine], [m.recall_after for m in mine])
        ]
        return (
            *key,
            str(spread([one.before for one in mine])),
            str(spread([one.after for one in mine])),
            " → ".join(number(float(np.mean(part))) for part in recalls if part) or "–",
        )

    yield from _table(
        ("model", "fitted on", "used on", "before", "after", "recall before → after"),
        (row(key) for key in keys),
    )
    yield ""


def _decisions(told: Measured) -> Iterator[str]:
    for decision in told.decisions:
        yield f"### Three models on {decision.network}"
        yield ""
        yield (
            f"Home fitted on {decision.home_from}, industrial on {decision.industrial_from}, both "
            f"counted anew on 500 local flows; live: {decision.told}."
        )
        yield ""
        yield from _table(
            ("decision", "real rate", "recall"),
            (
                (
                    way,
                    str(spread([rate for rate, _ in pairs])),
                    str(spread([recall for _, recall in pairs])),
                )
                for way, pairs in decision.ways.items()
            ),
        )
        yield ""


def _streams(told: Measured) -> Iterator[str]:
    if not told.streamed:
        return
    yield "### An attack inside what the live model learns from"
    yield ""
    yield (
        "Judged are the last day's harmless flows and the attack's later half, none of them "
        "streamed. Window patterns, which would bar more sources, are left out. Home and "
        "industrial come from other networks."
    )
    yield ""
    lost = losses(told.streamed)
    keys = dict.fromkeys((one.attack, one.how) for one in told.streamed)

    def row(attack: str, how: str) -> tuple[str, ...]:
        mine = [one.outcome for one in told.streamed if (one.attack, one.how) == (attack, how)]
        loss = lost.get((attack, how))
        return (
            attack,
            how,
            str(spread([one.auc for one in mine])),
            "–" if loss is None else number(loss.mean),
            str(spread([one.fpr for one in mine])),
            number(float(np.mean([one.recall for one in mine]))),
            number(float(np.mean([one.let_in for one in mine]))),
            number(float(np.mean([one.barred for one in mine]))),
            f"{sum(one.versions for one in mine)}, {sum(one.refused for one in mine)} refused",
        )

    yield from _table(
        (
            "attack",
            "how",
            "AUC",
            "loss",
            "real rate at the line for 1 %",
            "recall there",
            "attack's flows left in the buffer",
            "harmless flows barred",
            "versions",
        ),
        (row(*key) for key in keys),
    )
    yield ""
    yield f"![AUC with an attack in the stream]({_IMAGES}/detection-poisoning.svg)"
    yield ""


def _devices(told: Measured) -> Iterator[str]:
    if not told.devices:
        return
    yield "### Devices never seen"
    yield ""
    rates = spread([one.rate for one in told.devices])
    line = (
        f"The home model with whole devices left out (five folds, three seeds): {rates} of their "
        "flows are false alarms at the line for 1 % that other devices set"
    )
    areas = spread([one.auc for one in told.devices])
    if areas.n:
        recall = spread([one.recall for one in told.devices])
        line += f"; AUC against the tables' scans and plant attacks {areas}, recall {recall}"
    yield line + ". A line is worth nothing before it is counted here."
    yield ""


def _explanations(told: Measured) -> Iterator[str]:
    if not told.named:
        return
    yield "### Explanations"
    yield ""
    keys = dict.fromkeys((one.model, one.change) for one in told.named)

    def row(model: str, change: str) -> tuple[str, ...]:
        mine = [one for one in told.named if (one.model, one.change) == (model, change)]
        return (
            model,
            change,
            f"{sum(one.asked for one in mine):,}",
            str(spread([one.first for one in mine])),
            str(spread([one.any_of_3 for one in mine])),
            number(float(np.mean([one.z_first for one in mine]))),
            f"{np.mean([one.ms for one in mine]):.2f}",
        )

    yield from _table(
        ("model", "change", "flows", "first right", "one of three", "z-score first", "ms of CPU"),
        (row(*key) for key in keys),
    )
    yield ""


def _cost(told: Measured) -> Iterator[str]:
    if told.cost is None:
        return
    yield "### Cost"
    yield ""
    by_batch = ", ".join(
        f"{seconds:.2f} s in batches of {batch:,}" for batch, seconds in told.cost.by_batch.items()
    )
    by_model = ", ".join(f"{name} {s:.2f} s" for name, s in told.cost.by_model.items())
    yield (
        f"10,000 flows through all experts of three models: {by_batch} ({by_model}); one published "
        f"forest: {told.cost.published:.2f} s. One training of the live model on "
        f"{told.cost.trained_on:,} flows: {told.cost.training:.1f} s. All CPU, one thread, median "
        "of three interleaved runs."
    )
    yield ""


def _captures(told: Measured) -> Iterator[str]:
    if told.captured:
        yield "### Recorded captures"
        yield ""
        yield (
            "Each is replayed into a fresh installation; an attack is detected by an incident "
            "about an address that the index names."
        )
        yield ""
        yield from _table(
            ("capture", "kind", "told as", "about others"),
            (
                (
                    one.name,
                    "attack" if one.attack else "harmless",
                    ", ".join(one.hits) or ("**missed**" if one.attack else "–"),
                    ", ".join(one.others) or "–",
                )
                for one in told.captured
                if one.attack or one.others
            ),
        )
        yield ""
        calm = sum(not one.attack and not one.others for one in told.captured)
        yield f"{calm} harmless captures raise nothing."
        yield ""
    for name, phases, false in told.labs:
        yield f"### Lab: {name}"
        yield ""
        seen, right = sum(bool(one.named) for one in phases), sum(one.right for one in phases)
        yield (
            f"{len(phases)} phases of attack: {seen} are told, {right} by a right name; "
            f"{len(false)} false incidents" + (f" ({'; '.join(false)})." if false else ".")
        )
        yield ""
        if phases:
            yield from _table(
                ("phase", "attack", "told as", "right name"),
                (
                    (
                        one.phase,
                        one.kind,
                        ", ".join(one.named) or "**missed**",
                        "yes" if one.right else "no",
                    )
                    for one in phases
                ),
            )
            yield ""


def kdd_part(told: Sequence[Bench]) -> list[str]:
    """The bench of the second specification, also alone."""
    out = ["### KDD Cup 99 and NSL-KDD", ""]
    if not told:
        return [*out, "None of the files is at hand.", ""]
    out += [
        "Fitted on normal records of the training file (70 %, at most 14,000), line from other "
        "normal records of it, parted at random (records have no days). Numbers as they are, "
        "protocol and flag a column a word, the service by how rare it is among fitted records. "
        "The corrected test file of KDD99 is not at hand; the 10 % file is the training file "
        "itself, four fifths of it two floods, so that a figure on it says little.",
        "",
    ]

    def cells(file: str, model: str) -> tuple[str, ...]:
        mine = [one for one in told if (one.file, one.model) == (file, model)]
        lines = tuple(
            " / ".join(number(float(np.mean([one.at[alpha][i] for one in mine]))) for i in range(4))
            for alpha in LINES
        )
        classes = ", ".join(
            f"{kind} {number(float(np.mean([one.classes[kind] for one in mine])))}"
            for kind in mine[0].classes
        )
        return file, model, str(spread([one.auc for one in mine])), *lines, classes

    keys = dict.fromkeys((one.file, one.model) for one in told)
    out += _table(
        (
            "file",
            "model",
            "AUC",
            "1 %: P / R / F1 / rate",
            "5 %: P / R / F1 / rate",
            "recall at 1 %",
        ),
        (cells(*key) for key in keys),
    )
    return [*out, ""]


def _or_dash(value: float) -> str:
    return number(value) if np.isfinite(value) else "–"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for cells in body:
        yield "| " + " | ".join(cells) + " |"


def pictures(told: Measured) -> dict[str, str]:
    """Name of an SVG file -> its content."""
    drawn = {}
    runs = told.main
    if runs is not None:
        chosen = [
            (OURS, "ours"),
            ("ours, industrial features: forest alone", "our forest alone"),
            ("second specification's autoencoder", "second spec.'s autoencoder"),
            (PUBLISHED, "published recipe"),
            ("PyOD KNN", "PyOD KNN"),
        ]
        series = {short: curve_of(runs, name) for name, short in chosen if name in runs.names}
        drawn["detection-recall.svg"] = curves(
            f"Attack flows found, {runs.network}",
            series,
            x=("false alarms among harmless flows", 0.002, 0.5, True),
            y=("recall", 0.0, 1.0),
        )
        ours, published = runs.classes(OURS), runs.classes(PUBLISHED)
        drawn["detection-classes.svg"] = bars(
            "Recall at the own line for 1 %, by class",
            {label: (ours[label].mean, published[label].mean) for label in ours},
            ("ours", "published recipe"),
            y=("recall", 0.0, 1.0),
        )
    if told.learning:
        drawn["detection-learning.svg"] = curves(
            "AUC by the number of fitted flows",
            {
                short: [
                    (float(size), float(np.mean(seen[name])))
                    for size, seen in sorted(told.learning.items())
                ]
                for name, short in ((OURS, "ours"), (PUBLISHED, "published recipe"))
            },
            x=("fitted harmless flows", 100.0, 2000.0, True),
            y=("AUC", 0.5, 1.0),
        )
    if told.streamed:
        ways = list(dict.fromkeys(one.how for one in told.streamed))
        drawn["detection-poisoning.svg"] = bars(
            "AUC of the live model, an attack in its stream",
            {
                attack: [
                    float(
                        np.mean(
                            [
                                one.outcome.auc
                                for one in told.streamed
                                if (one.attack, one.how) == (attack, way)
                            ]
                        )
                    )
                    for way in ways
                ]
                for attack in dict.fromkeys(one.attack for one in told.streamed)
            },
            ways,
            y=("AUC", 0.0, 1.0),
        )
    return drawn


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
        folder = path.parent / _IMAGES
        folder.mkdir(exist_ok=True)
        for name, content in drawn.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}.") from error

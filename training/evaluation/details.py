"""The tables behind the rows, part by part, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from training.evaluation.candidates import OURS, PUBLISHED
from training.evaluation.kdd import LINES, Bench
from training.evaluation.measured import Measured
from training.evaluation.measures import number, spread
from training.evaluation.rows import losses

__all__ = ["IMAGES", "details", "kdd_part", "table"]

IMAGES: Final = "images"
"""The folder of pictures, beside the document."""


def details(told: Measured) -> Iterator[str]:
    """All parts but the targets and the networks' own tables."""
    for part in (
        _learning,
        _moved,
        _decisions,
        _streams,
        _devices,
        _explanations,
        _cost,
        _captures,
    ):
        yield from part(told)
    yield from kdd_part(told.benches)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for cells in body:
        yield "| " + " | ".join(cells) + " |"


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
    yield from table(
        ("fitted flows", "ours", "published"),
        (
            (f"{size:,}", str(spread(seen[OURS])), str(spread(seen[PUBLISHED])))
            for size, seen in sorted(told.learning.items())
        ),
    )
    yield ""
    yield f"![AUC by fitted flows]({IMAGES}/detection-learning.svg)"
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

    yield from table(
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
        yield from table(
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
        "industrial come from other networks. From inside: the network's busiest device sends the "
        "attack, between its own harmless flows."
    )
    yield ""
    lost = losses(told.streamed)
    keys = dict.fromkeys((one.attack, one.how, one.inside) for one in told.streamed)

    def row(attack: str, how: str, inside: bool) -> tuple[str, ...]:
        key = attack, how, inside
        mine = [one.outcome for one in told.streamed if (one.attack, one.how, one.inside) == key]
        loss = lost.get(key)
        return (
            attack,
            f"{how}, from inside" if inside else how,
            str(spread([one.auc for one in mine])),
            "–" if loss is None else number(loss.mean),
            str(spread([one.fpr for one in mine])),
            number(float(np.mean([one.recall for one in mine]))),
            number(float(np.mean([one.let_in for one in mine]))),
            number(float(np.mean([one.barred for one in mine]))),
            f"{sum(one.versions for one in mine)}, {sum(one.refused for one in mine)} refused",
        )

    yield from table(
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
    yield f"![AUC with an attack in the stream]({IMAGES}/detection-poisoning.svg)"
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

    yield from table(
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
        yield from table(
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
            yield from table(
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
        "protocol, service and flag a column a word (chosen on the training file's attacks). "
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
    out += table(
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

"""How far attack flows get when their sender hides them: padding, slowing down, splitting, noise.

    python training/hardening.py [--data DIR]

Prints two Markdown tables a network: the share of attack flows beyond each model's own 1 % line, as
they were and as they would have been changed; and the same of the live model's autoencoder alone,
trained as it is shipped, with noise, and for longer. Every network of the tables that has three
days is taken apart by day: one is fitted, one sets the lines, the attacks of one are judged. Of our
own lab the thirds of the quiet recording stand for days, and the bundled attacks are judged. All
over three seeds; nothing is chosen by what is printed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

# A script started by its path sees its own folder only; the rooms lie one folder up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from batches import Rows
from errors import AppError, InputError
from features import HOME, INDUSTRIAL, LIVE, matrix
from ml.autoencoder import Autoencoder, fit_autoencoder
from ml.calibration import Calibration
from ml.model import Model, fit
from ml.selftest import attacks
from ml.transform import clipped
from training.datasets import capture_flows
from training.evaluation.splits import SEEDS, Split, rotations
from training.evaluation.tables import Table, read_tables
from training.evasion import in_pieces, padded, padded_to_usual, slowed
from training.pipeline import DATA

__all__ = [
    "AUTOENCODERS",
    "EVASIONS",
    "MODELS",
    "hardening",
    "lab_splits",
    "main",
    "splits_in",
    "table",
]

log = logging.getLogger("secureflux.training")

Values = NDArray[np.float64]
Judge = Callable[[Values, float], NDArray[np.bool_]]
"""(n, all columns) flows and the noise to add -> (n,) which are beyond the line."""

ALPHA: Final = 0.01
NOISES: Final = (0.1, 0.3)
"""Noise added to transformed features, in standard deviations of normal flows."""

EVASIONS: Final[dict[str, Callable[[Values, Values], Values]]] = {
    "as they were": lambda flows, _: flows,
    "payloads padded by half": lambda flows, _: padded(flows, 1.5),
    "payloads padded to three times": lambda flows, _: padded(flows, 3.0),
    "payloads padded to the usual size": padded_to_usual,
    "slowed down 2 times": lambda flows, _: slowed(flows, 2.0),
    "slowed down 10 times": lambda flows, _: slowed(flows, 10.0),
    "slowed down 100 times": lambda flows, _: slowed(flows, 100.0),
    "split into 2 connections": lambda flows, _: in_pieces(flows, 2),
    "split into 5 connections": lambda flows, _: in_pieces(flows, 5),
    "split into 20 connections": lambda flows, _: in_pieces(flows, 20),
    "usual size, 10 times slower, in 5 connections": lambda flows, normal: in_pieces(
        slowed(padded_to_usual(flows, normal), 10.0), 5
    ),
}
"""What is done to attack flows, given all features of them and of the normal flows fitted."""

BEST: Final = "whichever of these hides the flow best"
HARMLESS: Final = "harmless flows, as they were"
MODELS: Final = ("home", "industrial", "live", "live, its autoencoder trained with noise")
AUTOENCODERS: Final = {
    "as shipped": (0.0, 1),
    "with noise": (0.3, 1),
    "four times as long": (0.0, 4),
    "with noise, four times as long": (0.3, 4),
}
"""The autoencoder alone: noise on what it is shown (never on what it is to repeat), in standard
deviations of normal flows, and how many times the shipped number of steps it learns."""


def hardening(splits: Sequence[Split]) -> dict[str, dict[str, float]]:
    """The mean share beyond the line, by evasion and model."""
    seen: dict[str, dict[str, list[float]]] = {}
    for place, split in enumerate(splits):
        log.info("%d of %d: %s, seed %d", place + 1, len(splits), split.told, split.seed)
        for name, judge in _judges(split).items():
            for what, share in _judged(split, judge).items():
                seen.setdefault(what, {}).setdefault(name, []).append(share)
    return {
        what: {name: float(np.mean(shares)) for name, shares in row.items()}
        for what, row in seen.items()
    }


def splits_in(data: Path, seeds: Sequence[int] = SEEDS) -> dict[str, list[Split]]:
    """The networks of a folder that evasions can be measured in; InputError where there is none."""
    found: dict[str, list[Split]] = {}
    if (data / "flows").is_dir():
        flows = read_tables(data)
        for network in np.unique(flows.networks):
            days = [split for seed in seeds for split in rotations(flows, str(network), seed)]
            found[str(network)] = [split for split in days if len(split.attacks)]
    quiet = data / "lab" / "home_lab_quiet.pcap.gz"
    if quiet.exists():
        found["our lab"] = lab_splits(capture_flows(quiet), seeds)
    found = {network: splits for network, splits in found.items() if splits}
    if not found:
        raise InputError(
            f"No evasion can be measured in {data}: no network in flows/*.parquet has three days, "
            "one of them with attacks, and there is no lab/home_lab_quiet.pcap.gz."
        )
    return found


def lab_splits(normal: Rows, seeds: Sequence[int]) -> list[Split]:
    """A split a seed: the thirds of harmless flows of the lab in the order of time, and the bundled
    attacks, those of their flows that all models judge."""
    import pandas as pd

    normal = normal[np.argsort(normal["first_ns"], kind="stable")]
    rows, labels = [normal], [np.full(len(normal), "normal")]
    for attack in attacks():
        several = attack.rows[attack.rows["packets"].sum(axis=1) >= 2]
        rows.append(several)
        labels.append(np.full(len(several), attack.name))
    values, label = np.concatenate([matrix(part) for part in rows]), np.concatenate(labels)
    third = np.minimum(np.arange(len(values)) * 3 // len(normal), 2)
    days = np.array(["first third", "second third", "last third"])[third]
    table = Table(
        values,
        label != "normal",
        label,
        days,
        np.full(len(values), "our lab"),
        np.full(len(values), ""),
        pd.DataFrame(index=np.arange(len(values))),
    )
    fitted, line, judged = (
        table.on([day]) for day in ("first third", "second third", "last third")
    )
    return [Split("our lab", "fit and line harmless", fitted, line, judged, seed) for seed in seeds]


def table(figures: dict[str, dict[str, float]], columns: Sequence[str]) -> str:
    """The figures of some columns as a Markdown table."""
    lines = ["| flows | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for what, row in figures.items():
        digits = 3 if what == HARMLESS else 2
        cells = [f"{row[name]:.{digits}f}" for name in columns]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _judged(split: Split, judge: Judge) -> dict[str, float]:
    odd, normal = split.attacks.values, split.fit.values
    masks = {what: judge(change(odd, normal), 0.0) for what, change in EVASIONS.items()}
    masks[BEST] = np.logical_and.reduce(list(masks.values()))
    masks |= {f"noise of {noise}": judge(odd, noise) for noise in NOISES}
    masks[HARMLESS] = judge(split.normal.values, 0.0)
    return {what: float(mask.mean()) for what, mask in masks.items()}


def _judges(split: Split) -> dict[str, Judge]:
    judges: dict[str, Judge] = {}
    for name, features in (("home", HOME), ("industrial", INDUSTRIAL), ("live", LIVE)):
        normal, line = split.fit.of(features), split.line.of(features)
        model = fit(name, "hardening", features, normal, line, seed=split.seed).model
        judges[name] = _of_model(model, split.seed)
    z, z_line = model.transformed(normal), model.transformed(line)
    for name, (noise, times) in AUTOENCODERS.items():
        other = model
        if (noise, times) != AUTOENCODERS["as shipped"]:
            other = _with_autoencoder(model, _trained(z, noise, times, split.seed), z_line)
        judges[name] = _of_autoencoder(other, split.seed)
        if name == "with noise":
            judges[MODELS[-1]] = _of_model(other, split.seed)
    return judges


def _trained(z: Values, noise: float, times: int, seed: int) -> Autoencoder:
    """An autoencoder as the shipped one, but for new noise in every epoch and their number."""
    from sklearn.base import clone

    points, rng = clipped(z), np.random.default_rng(seed)
    estimator = clone(fit_autoencoder(z, seed=seed))
    for _ in range(times * estimator.max_iter):
        estimator.partial_fit(points + noise * rng.standard_normal(points.shape), points)
    return Autoencoder.flatten(estimator, z)


def _of_model(model: Model, seed: int) -> Judge:
    assert model.calibration is not None
    return _beyond(model, model.calibration, lambda z: model.look(z).oddness, seed)


def _of_autoencoder(model: Model, seed: int) -> Judge:
    own = model.references[model.expert_names.index("autoencoder")]
    return _beyond(model, own, model.experts["autoencoder"].oddness, seed)


def _beyond(
    model: Model, calibration: Calibration, oddness: Callable[[Values], Values], seed: int
) -> Judge:
    line = calibration.threshold(1.0, ALPHA)

    def judge(values: Values, noise: float) -> NDArray[np.bool_]:
        z = model.transformed(values[:, model.columns])
        if noise:
            z = z + np.random.default_rng(seed).normal(0.0, noise, z.shape)
        beyond: NDArray[np.bool_] = calibration.score(oddness(z)) < line
        return beyond

    return judge


def _with_autoencoder(model: Model, autoencoder: Autoencoder, line: Values) -> Model:
    """The model with another autoencoder, counted on the same transformed flows `line`."""
    experts = {**model.experts, "autoencoder": autoencoder}
    references, oddness = [], np.zeros(len(line))
    for expert, old, weight in zip(experts.values(), model.references, model.weights, strict=True):
        seen = expert.oddness(line)
        references.append(Calibration.fit(seen, old.smallest_tail))
        oddness -= weight * references[-1].score_left_out(seen)
    return replace(
        model,
        experts=experts,
        references=tuple(references),
        calibration=Calibration.fit(oddness),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="DIR",
        help="a folder with flows/*.parquet, lab/home_lab_quiet.pcap.gz or both "
        "(default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with threadpool_limits(limits=1):
            told = {name: hardening(splits) for name, splits in splits_in(given.data).items()}
    except AppError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    for network, figures in told.items():
        sys.stdout.write(f"### {network}\n\n")
        for columns in (MODELS, tuple(AUTOENCODERS)):
            sys.stdout.write(table(figures, columns) + "\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

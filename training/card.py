"""The model card: what a model learned from, what it measures, what it can't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ml.mixture import Mixture
from ml.model import Model
from ml.neighbours import Neighbours
from ml.registry import NAMES

__all__ = ["card"]

_ABOUT: Final[Mapping[str, str]] = {
    "home": "Traffic of homes and small offices: phones, browsers, cameras, plugs, bridges.",
    "industrial": "Traffic of a company network over several days, and of a plant that polls its "
    "controllers by Modbus.",
    "reduced": "For files of flows that hold counts, bytes and times alone (Zeek, Argus, Suricata, "
    "NetFlow): the traffic of the home and the industrial model together.",
    "live": "Traffic of one network, learned there.",
}


def card(model: Model) -> str:
    """Markdown of the README beside the model's files."""
    manifest = model.manifest
    training, threshold = manifest["training"], manifest["threshold"]
    names = NAMES[model.name]
    sklearn = manifest["libraries"]["scikit-learn"]
    lines = [
        f"# The {model.name} model, version {model.version}",
        "",
        f"{_ABOUT[model.name]} {len(model.features)} features a flow "
        f"(`{names.order}`; definitions in docs/features.md), learned without a single attack.",
        "",
        "## How",
        "A mid-rank quantile-normal transform, and on the transformed values "
        f"{len(model.experts)} experts that never saw an attack:",
        *_experts(model),
        "",
        "Each says how odd a flow is as log10 of the share of held-out normal flows at least as "
        f"odd; these are added up ({_weights(model)}), the sum is counted on held-out normal flows "
        "again, and that is the score. "
        f"A flow is voted ANOMALY below {threshold['threshold']} (that is 1 in "
        f"{10 ** -threshold['threshold']:,.0f}). On another network that line means nothing: "
        + _elsewhere(model.name),
        "",
        "## Learned from",
        f"{training['flows']:,} flows fitted, {training['held_out']:,} held out for the line "
        f"({training['split']}). Flows of one packet are left out.",
        "",
        "| source | flows | licence | citation |",
        "|---|---|---|---|",
        *(
            f"| {source['name']} | {source['flows']:,} | {source['licence']} | "
            f"{source['citation'] or '-'} |"
            for source in training["sources"]
        ),
        "",
        f"Of one plant, device or capture at most {training['most_of_one']:,} flows are taken. The "
        "traffic itself is not part of this model and is not shipped with it: what stands for "
        f"flows are {len(model.medoids):,} medoids for explanations and "
        f"{len(_neighbours(model).references):,} for the neighbours, flows in the middle of a "
        "cluster, as transformed features without address, port or time.",
        "",
        "## Measured",
        *(_rows(manifest["figures"]) or ["Nothing: the data was too little to split."]),
        "",
        "Figures of all experts together, on flows they never saw. Per-flow models from elsewhere "
        "miss scans and floods whose single flows look ordinary, and password guessing whose flows "
        "look like logins; window patterns and the live model see those. Content attacks (SQL "
        "injection, cross-site scripting) are invisible in flows.",
        "",
        "## Files",
        "`model.npz` and `manifest.json` are what the program loads (arrays only, sha256 "
        f"checked). For people: `joblib.load('{names.scaler}')` and "
        f"`joblib.load('{names.forest}')` with scikit-learn {sklearn}; "
        "`forest.score_samples(scaler.transform(X))` is the raw score. Open them only where you "
        "trust their origin: joblib files can run code.",
        "",
        f"Train anew: `python3 run.py train {model.name} --data DIR`; it also makes "
        f"`{names.scaled}`, the scaled training flows, which is not shipped.",
        "",
    ]
    return "\n".join(lines)


def _neighbours(model: Model) -> Neighbours:
    expert = model.experts["neighbours"]
    assert isinstance(expert, Neighbours)
    return expert


def _experts(model: Model) -> Iterator[str]:
    parameters = model.manifest["parameters"]
    mixture = model.experts["mixture"]
    assert isinstance(mixture, Mixture)
    yield (
        f"- `forest`: an isolation forest ({parameters['n_estimators']} trees of at most "
        f"{parameters['max_samples']:,} flows, contamination {parameters['contamination']}, "
        f"random_state {parameters['random_state']}) on whitened values; its own score is what "
        "pages call raw."
    )
    yield (
        "- `neighbours`: the distance to the 3 nearest of the reference points below, by how "
        "widely those are spaced, on values clipped to +-3."
    )
    yield (
        f"- `mixture`: the density of {len(mixture.heights)} Gaussians with full covariances, "
        "ridge 0.1, on the same."
    )


def _weights(model: Model) -> str:
    return ", ".join(
        f"{name} times {weight:g}"
        for name, weight in zip(model.expert_names, model.weights, strict=True)
    )


def _elsewhere(name: str) -> str:
    if name == "reduced":
        return (
            "a file whose bulk lies beyond it is from a network that this model does not know, and "
            "is better counted on that bulk."
        )
    return "before this model votes there, its scores are counted anew on the first 500 flows seen."


def _rows(figures: Mapping[str, Any], indent: str = "") -> list[str]:
    return [line for name, value in figures.items() for line in _row(name, value, indent)]


def _row(name: str, value: Any, indent: str) -> Iterator[str]:
    words = name.replace("_", " ")
    if isinstance(value, Mapping):
        yield f"{indent}- {words}:"
        yield from _rows(value, indent + "  ")
    elif isinstance(value, list):
        yield f"{indent}- {words}: {', '.join(str(one) for one in value)}"
    else:
        yield f"{indent}- {words}: {value}"

"""`verdicts`: packets of a file to the verdicts of all three models on all its flows.

    python -m benchmarks.verdicts CAPTURE DATA_DIR
    python -m benchmarks.verdicts --forests CAPTURE DATA_DIR
    python -m benchmarks.verdicts --train DATA_DIR GAP_US SECONDS

All experts of the models are asked, and beside it their forests alone. The one peer, NFStream,
stops at features.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from batches import MODELS, FlowBatch
from benchmarks.kernel import PACKETS_A_FLOW
from benchmarks.measure import Plan, Table, answer, cpu_s, in_turn, installed, run_alone, spread
from benchmarks.synthetic import write_capture
from benchmarks.trained import LESSONS_S, settings_in, train, warm

__all__ = ["measure", "run", "tables"]

GAP_US: Final = 20
TARGET: Final = 8.0
"""Of the forests alone; what companion experts cost is told."""
OURS: Final = "secureflux"
FORESTS: Final = "secureflux, forests alone"
PEER: Final = "nfstream"
PIECE: Final = 4096


def run(path: Path, data_dir: Path, *, forests: bool) -> dict[str, Any]:
    """Our way, in this process: read, decode, track, and judge what ended, batch by batch.

    forests: ask the models' forests alone.
    """
    import capture
    from flow_tracker import FlowTracker
    from packets import Decoder
    from predict import Predictor

    warm()
    predictor = Predictor(settings_in(data_dir), background=False)
    vote = _by_forests(predictor) if forests else _by_all(predictor)
    started = cpu_s()
    decoder, tracker = Decoder(), FlowTracker()
    votes = dict.fromkeys(MODELS, 0)
    flows = alerts = 0
    judging_s = 0.0

    def judge(ended: FlowBatch) -> None:
        nonlocal flows, alerts, judging_s
        if not len(ended):
            return
        began = cpu_s()
        cast = vote(ended)
        judging_s += cpu_s() - began
        flows += len(ended)
        alerts += int((cast > 0).any(axis=1).sum())
        for place, name in enumerate(MODELS):
            votes[name] += int((cast[:, place] >= 0).sum())

    for frames in capture.read_capture(path):
        judge(tracker.track(decoder.decode(frames)))
    judge(tracker.flush())
    return {
        "cpu_s": cpu_s() - started,
        "judging_s": judging_s,
        "packets": decoder.packets,
        "flows": flows,
        "votes": votes,
        "alerts": alerts,
    }


Votes = Callable[[FlowBatch], Any]
"""Flows -> (n, 3) in the order of MODELS: 1 ANOMALY, 0 NORMAL, -1 UNAVAILABLE."""


def _by_all(predictor: Any) -> Votes:
    return lambda flows: predictor.judge(flows).votes


def _by_forests(predictor: Any) -> Votes:
    """Features, transform, whitening, forest, score and vote of each model, and nothing else."""
    from features import matrix

    models = {model.name: model for model in predictor.models}

    def vote(flows: FlowBatch) -> Any:
        values = matrix(flows.rows)
        votes = np.full((len(values), len(MODELS)), -1, np.int8)
        for place, name in enumerate(MODELS):
            model = models[name]
            reference = model.references[0]
            line = reference.threshold(1.0, 0.01)
            for start in range(0, len(values), PIECE):
                piece = slice(start, start + PIECE)
                z = model.transformed(values[piece, model.columns])
                votes[piece, place] = reference.score(model.experts["forest"].oddness(z)) < line
        return votes

    return vote


def measure(plan: Plan, *, lessons_s: int = LESSONS_S) -> dict[str, Any]:
    """lessons_s: seconds of traffic the live model is trained on."""
    path = write_capture(
        plan.folder / "verdicts.pcap",
        packets=plan.packets,
        flows=max(plan.packets // PACKETS_A_FLOW, 1),
        gap_us=GAP_US,
    )
    data_dir = plan.folder / "verdicts"
    plan.tell("training on traffic like it")
    run_alone(["benchmarks.verdicts", "--train", str(data_dir), str(GAP_US), str(lessons_s)])
    judged = [str(path), str(data_dir)]
    commands = {
        OURS: ["benchmarks.verdicts", *judged],
        FORESTS: ["benchmarks.verdicts", "--forests", *judged],
    }
    if installed(PEER):
        commands[PEER] = ["benchmarks.peers", PEER, str(path)]
    in_turn(Plan(plan.packets, 1, plan.folder, lambda _: None), {OURS: commands[OURS]})
    found = in_turn(plan, commands)
    path.unlink()
    return {"turns": found, "target": TARGET}


def tables(result: dict[str, Any]) -> list[Table]:
    turns = result["turns"]
    ours, forests, theirs = (turns.get(name) for name in (OURS, FORESTS, PEER))
    packets, flows = ours[0]["packets"], ours[0]["flows"]
    votes = ", ".join(f"{name} {count:,}" for name, count in ours[0]["votes"].items())

    def both(value: Callable[[dict[str, Any]], float], form: str = ".2f") -> tuple[str, str]:
        all_experts, alone = (spread([value(one) for one in way]) for way in (ours, forests))
        return all_experts.text(form), alone.text(form)

    rows = [
        ("packets, flows", f"{packets:,}, {flows:,}", "", ""),
        ("flows each model voted on", votes, "", ""),
        ("alerts", *(f"{way[0]['alerts'] / flows:.1%}" for way in (ours, forests)), ""),
        ("CPU s, file to verdicts", *both(lambda one: one["cpu_s"]), ""),
        ("of it judging", *both(lambda one: one["judging_s"]), ""),
        ("flows judged / CPU s", *both(lambda one: flows / one["judging_s"], ",.0f"), ""),
    ]
    notes = []
    if theirs is not None:
        features = spread([one["cpu_s"] for one in theirs]).text()
        rows.append(("NFStream, CPU s to features alone", features, "", ""))
        ratios = [
            spread([peer["cpu_s"] / one["cpu_s"] for peer, one in zip(theirs, way, strict=True)])
            for way in (ours, forests)
        ]
        target = f"forests alone >= {result['target']:.0f}"
        rows.append(("NFStream's CPU to ours", *(one.text(".1f") for one in ratios), target))
    else:
        notes.append("nfstream is not installed (requirements-bench.txt).")
    head = ("", "all experts", "forests alone", "target")
    return [Table("Packets of a file to verdicts of three models", head, rows, notes)]


if __name__ == "__main__":
    if sys.argv[1] == "--train":
        train(Path(sys.argv[2]), gap_us=int(sys.argv[3]), seconds=int(sys.argv[4]))
        answer({})
    else:
        path, data_dir = map(Path, sys.argv[-2:])
        answer(run(path, data_dir, forests=sys.argv[1] == "--forests"))

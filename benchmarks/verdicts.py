"""`verdicts`: packets of a file to the verdicts of all three forests on all its flows.

    python -m benchmarks.verdicts CAPTURE DATA_DIR
    python -m benchmarks.verdicts --train DATA_DIR GAP_US SECONDS

The one peer, NFStream, stops at features.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from batches import MODELS, FlowBatch
from benchmarks.kernel import PACKETS_A_FLOW
from benchmarks.measure import Plan, Table, answer, cpu_s, in_turn, installed, run_alone, spread
from benchmarks.synthetic import write_capture
from benchmarks.trained import LESSONS_S, settings_in, train, warm

__all__ = ["measure", "run", "tables"]

GAP_US: Final = 20
TARGET: Final = 8.0
OURS: Final = "secureflux"
PEER: Final = "nfstream"


def run(path: Path, data_dir: Path) -> dict[str, Any]:
    """Our way, in this process: read, decode, track, and judge what ended, batch by batch."""
    import capture
    from flow_tracker import FlowTracker
    from packets import Decoder
    from predict import Predictor

    warm()
    predictor = Predictor(settings_in(data_dir), background=False)
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
        verdicts = predictor.judge(ended)
        judging_s += cpu_s() - began
        flows += len(ended)
        alerts += int(verdicts.alert.sum())
        for place, name in enumerate(MODELS):
            votes[name] += int((verdicts.votes[:, place] >= 0).sum())

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
    commands = {OURS: ["benchmarks.verdicts", str(path), str(data_dir)]}
    if installed(PEER):
        commands[PEER] = ["benchmarks.peers", PEER, str(path)]
    in_turn(Plan(plan.packets, 1, plan.folder, lambda _: None), {OURS: commands[OURS]})
    found = in_turn(plan, commands)
    path.unlink()
    theirs = found.get(PEER)
    return {
        "turns": found,
        "ratio": [
            other["cpu_s"] / ours["cpu_s"] for other, ours in zip(theirs, found[OURS], strict=True)
        ]
        if theirs
        else None,
        "target": TARGET,
    }


def tables(result: dict[str, Any]) -> list[Table]:
    ours = result["turns"][OURS]
    packets, flows = ours[0]["packets"], ours[0]["flows"]
    cost = spread([one["cpu_s"] for one in ours])
    judging = spread([one["judging_s"] for one in ours])
    votes = ", ".join(f"{name} {count:,}" for name, count in ours[0]["votes"].items())
    rows = [
        ("packets, flows", f"{packets:,}, {flows:,}", ""),
        ("flows each model voted on", votes, ""),
        ("alerts", f"{ours[0]['alerts']:,} ({ours[0]['alerts'] / flows:.1%})", ""),
        ("CPU s, file to verdicts", cost.text(), ""),
        ("of it judging", judging.text(), ""),
        ("packets / CPU s", f"{packets / cost.median:,.0f}", ""),
        ("flows judged / CPU s", f"{flows / judging.median:,.0f}", ""),
    ]
    notes = []
    if result["ratio"] is not None:
        theirs = spread([one["cpu_s"] for one in result["turns"][PEER]])
        rows.append(("NFStream, CPU s to features alone", theirs.text(), ""))
        ratio = spread(result["ratio"]).text(".1f")
        rows.append(("NFStream's CPU to ours", ratio, f">= {result['target']:.0f}"))
    else:
        notes.append("nfstream is not installed (requirements-bench.txt).")
    return [
        Table("Packets of a file to verdicts of three forests", ("", "", "target"), rows, notes)
    ]


if __name__ == "__main__":
    if sys.argv[1] == "--train":
        train(Path(sys.argv[2]), gap_us=int(sys.argv[3]), seconds=int(sys.argv[4]))
        answer({})
    else:
        answer(run(Path(sys.argv[1]), Path(sys.argv[2])))

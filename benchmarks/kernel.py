"""`kernel`: packets of a file to the features of all its flows, beside what others offer for it.

    python -m benchmarks.kernel CAPTURE

CPU seconds count from the first packet asked for to the last feature, in all processes; loading
libraries and compiled code is not in them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Plan, Table, answer, cpu_s, in_turn, installed, spread
from benchmarks.peers import PEERS
from benchmarks.synthetic import write_capture
from features import COLUMNS

__all__ = ["PACKETS_A_FLOW", "measure", "run", "tables"]

PACKETS_A_FLOW: Final = 17
SHARES: Final = {"dpkt": 10, "scapy": 50}
"""Slow peers get this part of the packets; their cost is told per packet."""
TARGETS: Final = {"nfstream": 20.0, "numpy": 6.0}
OURS: Final = "secureflux"


def run(path: Path) -> dict[str, Any]:
    """Our way, in this process."""
    import capture
    import flow_tracker
    import packets
    from features import matrix
    from flow_tracker import FlowTracker
    from packets import Decoder

    for room in (capture, packets, flow_tracker):
        room.warm()
    started = cpu_s()
    decoder, tracker = Decoder(), FlowTracker()
    flows = 0
    for frames in capture.read_capture(path):
        ended = tracker.track(decoder.decode(frames))
        if len(ended):
            flows += len(matrix(ended.rows))
    flows += len(matrix(tracker.flush().rows))
    return {"cpu_s": cpu_s() - started, "packets": decoder.packets, "flows": flows}


def measure(plan: Plan) -> dict[str, Any]:
    """All who are installed, in turn; ratios are of CPU seconds a packet, turn by turn."""
    commands: dict[str, list[str]] = {}
    missing = []
    paths = {}
    for share in (1, *SHARES.values()):
        packets = max(plan.packets // share, 1)
        paths[share] = write_capture(
            plan.folder / f"kernel-{share}.pcap",
            packets=packets,
            flows=max(packets // PACKETS_A_FLOW, 1),
        )
    commands[OURS] = ["benchmarks.kernel", str(paths[1])]
    for name in PEERS:
        if installed(name):
            path = paths[SHARES.get(name, 1)]
            commands[name] = ["benchmarks.peers", name, str(path)]
        else:
            missing.append(name)
    # Once unmeasured: the file comes from memory for all, and compiled code is on the disk.
    run_first = {OURS: commands[OURS]}
    in_turn(Plan(plan.packets, 1, plan.folder, lambda _: None), run_first)
    found = in_turn(plan, commands)
    file_bytes = paths[1].stat().st_size
    for path in paths.values():
        path.unlink()
    return {"file_bytes": file_bytes, "rows": _rows(found), "missing": missing}


def _rows(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    def per_packet(one: dict[str, Any]) -> float:
        return float(one["cpu_s"] / one["packets"])

    rows = []
    for name, turns in found.items():
        ratios = [
            per_packet(one) / per_packet(ours) for one, ours in zip(turns, found[OURS], strict=True)
        ]
        rows.append(
            {
                "name": name,
                "packets": turns[0]["packets"],
                "flows": turns[0]["flows"],
                "cpu_s": [one["cpu_s"] for one in turns],
                "wall_s": [one["wall_s"] for one in turns],
                "cpu_s_per_million": [per_packet(one) * 1e6 for one in turns],
                "ratio": ratios,
                "target": TARGETS.get(name),
            }
        )
    return rows


def tables(result: dict[str, Any]) -> list[Table]:
    rows = []
    for row in result["rows"]:
        cost = spread(row["cpu_s_per_million"])
        target = f">= {row['target']:.0f}" if row["target"] else ""
        rows.append(
            (
                WORDS[row["name"]],
                f"{row['packets']:,}",
                f"{row['flows']:,}" if row["flows"] else "-",
                cost.text(),
                f"{1e6 / cost.median:,.0f}",
                spread(row["ratio"]).text(".1f"),
                target,
            )
        )
    notes = [f"{name} is not installed (requirements-bench.txt)." for name in result["missing"]]
    return [
        Table(
            "Packets of a file to features of its flows",
            (
                "",
                "packets",
                "flows",
                "CPU s / 1 M packets",
                "packets / CPU s",
                "CPU to ours",
                "target",
            ),
            rows,
            notes,
        )
    ]


WORDS: Final = {
    OURS: f"SecureFlux, {len(COLUMNS)} features",
    "numpy": "numpy, whole file, 27 features",
    "nfstream": "NFStream, n_meters=1, statistics",
    "dpkt": "dpkt, counts and bytes only",
    "scapy": "Scapy PcapReader, no flows",
}

if __name__ == "__main__":
    answer(run(Path(sys.argv[1])))

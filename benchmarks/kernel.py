"""Packets of a file to features of flows: our kernel beside NFStream, run in turn.

    python app.py bench [--packets N] [--runs R] [--json FILE]

Every run is a process of its own. CPU seconds count from the first packet asked for to the last
feature, in all processes (NFStream meters in a child); loading compiled code and libraries is
told apart.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.synthetic import write_capture

__all__ = ["PEERS", "compare", "table"]

ROOT: Final = Path(__file__).resolve().parents[1]


def _ours(path: str) -> dict[str, float]:
    import capture
    import flow_tracker
    import packets
    from features import matrix
    from flow_tracker import FlowTracker
    from packets import Decoder

    for room in (capture, packets, flow_tracker):
        room.warm()
    started = _cpu_s()
    decoder, tracker = Decoder(), FlowTracker()
    flows = 0
    for frames in capture.read_capture(path):
        ended = tracker.track(decoder.decode(frames))
        if len(ended):
            flows += len(matrix(ended.rows))
    flows += len(matrix(tracker.flush().rows))
    return {"cpu_s": _cpu_s() - started, "packets": decoder.packets, "flows": flows}


def _nfstream(path: str) -> dict[str, float]:
    from nfstream import NFStreamer

    started = _cpu_s()
    packets = flows = 0
    streamer = NFStreamer(
        source=path,
        statistical_analysis=True,
        n_dissections=0,
        accounting_mode=3,
        n_meters=1,
        idle_timeout=120,
        active_timeout=120,
    )
    for flow in streamer:
        flows += 1
        packets += flow.bidirectional_packets
    return {"cpu_s": _cpu_s() - started, "packets": packets, "flows": flows}


PEERS: Final[dict[str, Callable[[str], dict[str, float]]]] = {
    "secureflux": _ours,
    "nfstream": _nfstream,
}


def _cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _run(peer: str, path: Path) -> dict[str, float]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernel", peer, str(path)],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "wall_s": time.monotonic() - started}


def compare(*, packets: int, runs: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run all peers `runs` times in turn on one capture; medians and ratios to ours.

    A peer that is not installed is left out and named under `missing`.
    """
    missing = [p for p in PEERS if p != "secureflux" and importlib.util.find_spec(p) is None]
    peers = [peer for peer in PEERS if peer not in missing]
    measured: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.pcap"
        write_capture(path, packets=packets, flows=max(packets // 17, 1))
        for turn in range(runs):
            for peer in peers:
                measured[peer].append(_run(peer, path))
                tell(f"run {turn + 1} of {runs}: {peer} {measured[peer][-1]['cpu_s']:.2f} s")
    rows = []
    for peer in peers:
        cpu = [one["cpu_s"] for one in measured[peer]]
        ratios = [
            theirs["cpu_s"] / ours["cpu_s"]
            for theirs, ours in zip(measured[peer], measured["secureflux"], strict=True)
        ]
        rows.append(
            {
                "peer": peer,
                "packets": int(measured[peer][0]["packets"]),
                "flows": int(measured[peer][0]["flows"]),
                "cpu_s": statistics.median(cpu),
                "cpu_s_all": cpu,
                "packets_per_cpu_s": measured[peer][0]["packets"] / statistics.median(cpu),
                "ratio": statistics.median(ratios),
            }
        )
    return {"packets": packets, "runs": runs, "rows": rows, "missing": missing}


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{'':12}{'packets':>12}{'flows':>10}{'CPU s':>9}{'packets/s':>14}{'CPU ratio':>11}",
        *(
            f"{row['peer']:12}{row['packets']:>12,}{row['flows']:>10,}{row['cpu_s']:>9.2f}"
            f"{row['packets_per_cpu_s']:>14,.0f}{row['ratio']:>11.1f}"
            for row in result["rows"]
        ),
    ]
    for peer in result["missing"]:
        lines.append(f"{peer}: not installed (pip install -r requirements-bench.txt)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(PEERS[sys.argv[1]](sys.argv[2])) + "\n")

"""`scaling`: what a packet and a flow cost as their number grows, and a flood into a small table.

python -m benchmarks.scaling file CAPTURE
python -m benchmarks.scaling flood FLOWS CAPACITY
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from batches import FLOW, UDP, PacketBatch
from benchmarks.kernel import PACKETS_A_FLOW, run
from benchmarks.measure import Plan, Table, answer, cpu_s, in_turn, peak_bytes, spread
from benchmarks.synthetic import write_capture

__all__ = ["flood", "longest_probe", "measure", "tables"]

PACKETS: Final = (10_000, 100_000, 1_000_000, 10_000_000)
FLOWS: Final = (1_000, 10_000, 100_000, 1_000_000)
FLOW_PACKETS: Final = 1_000_000
SNAPLEN: Final = 96
"""Bytes kept of a frame: ten million whole ones would be 1.6 GB."""
FLOOD: Final = (400_000, 65_536)
TARGET: Final = 1.5
_BATCH: Final = 4096


def flood(flows: int, capacity: int) -> dict[str, Any]:
    """Single packets of `flows` flows into a table of `capacity` rows: where did all go?"""
    import flow_tracker
    from batches import PACKET, UNREAD_REASONS
    from flow_tracker import FlowTracker

    flow_tracker.warm()
    rows = np.zeros(flows, PACKET)
    rows["time_ns"] = 1_700_000_000_000_000_000 + np.arange(flows) * 1_000
    rows["protocol"] = UDP
    rows["ip_version"] = 4
    rows["src_lo"] = 0x0A000000 + np.arange(flows)
    rows["dst_lo"] = 0xC0A80001
    rows["src_port"], rows["dst_port"] = 1024 + np.arange(flows) % 60_000, 53
    tracker = FlowTracker(capacity=capacity)
    unread = np.zeros(len(UNREAD_REASONS), np.int64)
    ended = 0
    began = cpu_s()
    for start in range(0, flows, _BATCH):
        part = rows[start : start + _BATCH]
        ended += len(tracker.track(PacketBatch(part, unread, len(part), 0)))
    used = cpu_s() - began
    found = {
        "cpu_s": used,
        "packets": flows,
        "evicted": tracker.evicted,
        "active": tracker.active,
        "ended": ended,
        "longest_probe": longest_probe(tracker),
        "table_bytes": capacity * FLOW.itemsize,
    }
    found["flushed"] = len(tracker.flush())
    return found


def longest_probe(tracker: Any) -> int:
    """The longest run of taken slots in the table's hash index, over its end too."""
    taken = tracker._table.slots >= 0
    if taken.all():
        return len(taken)
    taken = np.roll(taken, -int(np.argmin(taken)))
    steps = np.diff(np.concatenate([[0], taken.astype(np.int8), [0]]))
    lengths = np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)
    return int(lengths.max(initial=0))


def measure(
    plan: Plan,
    *,
    packets: tuple[int, ...] = PACKETS,
    flows: tuple[int, ...] = FLOWS,
    flow_packets: int = FLOW_PACKETS,
    flooded: tuple[int, int] = FLOOD,
) -> dict[str, Any]:
    """Sizes of both series in turn; a series' file is made once and removed after it."""
    by_packets = _series(plan, [(count, max(count // PACKETS_A_FLOW, 1)) for count in packets])
    by_flows = _series(plan, [(flow_packets, count) for count in flows])
    told = in_turn(plan, {"flood": ["benchmarks.scaling", "flood", *map(str, flooded)]})
    return {"by_packets": by_packets, "by_flows": by_flows, "flood": told["flood"]}


def _series(plan: Plan, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    commands = {}
    for packets, flows in sizes:
        name = f"{packets:,} packets, {flows:,} flows"
        plan.tell(f"writing {name}")
        path = write_capture(
            plan.folder / f"scaling-{packets}-{flows}.pcap",
            packets=packets,
            flows=flows,
            snaplen=SNAPLEN,
        )
        commands[name] = ["benchmarks.scaling", "file", str(path)]
    try:
        found = in_turn(plan, commands)
    finally:
        for *_, path_text in commands.values():
            Path(path_text).unlink()
    return [
        {"packets": packets, "flows": flows, "turns": turns}
        for (packets, flows), turns in zip(sizes, found.values(), strict=True)
    ]


def tables(result: dict[str, Any]) -> list[Table]:
    costs = {one["packets"]: _cost(one) for one in result["by_packets"]}
    sizes = sorted(costs)
    notes = []
    if len(sizes) > 1:
        base = 100_000 if 100_000 in costs else sizes[0]
        ratio = costs[sizes[-1]] / costs[base]
        notes.append(
            f"A packet of {sizes[-1]:,} costs {ratio:.2f} times one of {base:,} "
            f"(target <= {TARGET})."
        )
    columns = ("packets", "flows", "CPU s", "ns a packet", "us a flow", "peak memory, MiB")
    told = [
        Table(title, columns, [_row(one) for one in result[series]], extra)
        for title, series, extra in (
            ("Cost as packets grow, 17 a flow", "by_packets", notes),
            ("Cost as flows grow, packets kept", "by_flows", []),
        )
    ]
    turns = result["flood"]
    first = turns[0]
    accounted = first["active"] + first["ended"]
    rows = [
        ("packets, each a flow of its own", f"{first['packets']:,}"),
        ("evicted (given out for room)", f"{first['evicted']:,}"),
        ("still in the table", f"{first['active']:,}"),
        ("evicted + active = packets", str(accounted == first["packets"])),
        ("given out at the end", f"{first['flushed']:,}"),
        (
            "packets / CPU s",
            spread([one["packets"] / one["cpu_s"] for one in turns]).text(",.0f"),
        ),
        ("longest run of the hash index", str(max(one["longest_probe"] for one in turns))),
        ("table rows, MiB", f"{first['table_bytes'] / 2**20:.0f}"),
    ]
    told.append(Table("A flood of single packets into a small table", ("", ""), rows))
    return told


def _cost(one: dict[str, Any]) -> float:
    """Median CPU seconds a packet."""
    return spread([turn["cpu_s"] / one["packets"] for turn in one["turns"]]).median


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    used = spread([turn["cpu_s"] for turn in one["turns"]])
    return (
        f"{one['packets']:,}",
        f"{one['flows']:,}",
        used.text("#.3g"),
        f"{used.median / one['packets'] * 1e9:.0f}",
        f"{used.median / one['flows'] * 1e6:.1f}",
        f"{max(turn['peak_rss_bytes'] for turn in one['turns']) / 2**20:.0f}",
    )


if __name__ == "__main__":
    if sys.argv[1] == "flood":
        answer(flood(int(sys.argv[2]), int(sys.argv[3])))
    else:
        answer({**run(Path(sys.argv[2])), "peak_rss_bytes": peak_bytes()})

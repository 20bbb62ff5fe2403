"""Our flows of a capture beside NFStream's, value by value.

    python -m tests.nfstream_flows FOLDER...

prints a table: flows of both, those that are alike in every value, and the deliberate differences
by name. NFStream 6.6 counts payloads (accounting_mode=3), deviates by n - 1 and has milliseconds
that never go back. Our tracker gets the same packets with their times cut to such milliseconds, and
then every value must be equal, not nearly; with nanoseconds, times must be equal within one.

Where the two define a flow differently, ours are pieces of NFStream's: they are put together again
with the packets that belong to no flow of ours, and the whole must be NFStream's flow.
"""

from __future__ import annotations

import gzip
import ipaddress
import pickle
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from batches import FLOW, ICMP, ICMPV6, TCP, UDP, UNREAD_REASONS, EndReason, PacketBatch, Rows
from capture import read_capture
from features import COLUMNS, extras, matrix
from flow_tracker import FlowTracker
from packets import Decoder

ROOT = Path(__file__).resolve().parents[1]
MS: Final = 1_000_000
Flow = dict[str, Any]
"""One flow of NFStream by the names of its attributes."""
End = tuple[int, int]
Conversation = tuple[End, End, int, int]
"""Both ends (address, port) in order, protocol, VLAN: what NFStream keys a flow by."""

ICMP_TYPES = "ICMP flows are keyed by type and code"
ENDED = "RST, or FIN of both sides, ends a flow"
LATE = "packets after the end belong to no flow"
DIRECTION = "what goes on after a time-out keeps its direction"
SYN_ACK = "a SYN-ACK comes from the server"
PAYLOAD = "bytes after the IP header are payload where the protocol has no ports"
DIFFERENCES: Final = (ICMP_TYPES, ENDED, LATE, DIRECTION, SYN_ACK, PAYLOAD)
"""Deliberate; a flow may show several. The first three part or thin a flow, the others do not."""

# Ours by the name of NFStream's, without the direction in front of it.
_SIDE: Final = {
    "Total {} Packets": ("packets", 1.0),
    "Total Length {} Packet": ("bytes", 1.0),
    "{} Packet Length Max": ("max_ps", 1.0),
    "{} Packet Length Min": ("min_ps", 1.0),
    "{} Packet Length Mean": ("mean_ps", 1.0),
    "{} Packet Length Std": ("stddev_ps", 1.0),
    "{} IAT Total": ("duration_ms", 1e3),
    "{} IAT Mean": ("mean_piat_ms", 1e3),
    "{} IAT Std": ("stddev_piat_ms", 1e3),
}
_WHOLE: Final = {
    "Flow Duration": ("duration_ms", 1e3),
    "Min Packet Length": ("min_ps", 1.0),
    "Max Packet Length": ("max_ps", 1.0),
    "Packet Length Mean": ("mean_ps", 1.0),
    "Packet Length Std": ("stddev_ps", 1.0),
    "FIN Flag Count": ("fin_packets", 1.0),
    "SYN Flag Count": ("syn_packets", 1.0),
    "RST Flag Count": ("rst_packets", 1.0),
    "PSH Flag Count": ("psh_packets", 1.0),
}
_OF_GAPS: Final = ("Fwd IAT Std", "Bwd IAT Std", "burstiness")
"""What the sums of pieces do not hold."""


# --- NFStream -------------------------------------------------------------------------------------


def metered(paths: Sequence[Path]) -> list[list[Flow]]:
    """NFStream's flows of each capture; in a process of its own, because it ties the one it runs
    in to one core."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "flows"
        code = "from tests.nfstream_flows import _meter; import sys; _meter(sys.argv[1:])"
        subprocess.run(
            [sys.executable, "-c", code, str(answer), *map(str, paths)],
            cwd=ROOT,
            check=True,
            timeout=300,
        )
        flows: list[list[Flow]] = pickle.loads(answer.read_bytes())
        return flows


def _meter(arguments: list[str]) -> None:
    from nfstream import NFStreamer

    answer, *paths = arguments
    found = []
    for path in map(Path, paths):
        with tempfile.NamedTemporaryFile(suffix=".pcap") as plain:
            data = path.read_bytes()
            plain.write(gzip.decompress(data) if path.suffix == ".gz" else data)
            plain.flush()
            streamer = NFStreamer(
                source=plain.name,
                statistical_analysis=True,
                n_dissections=0,
                accounting_mode=3,
                n_meters=1,
                idle_timeout=120,
                active_timeout=120,
            )
            found.append([dict(zip(flow.keys(), flow.values(), strict=True)) for flow in streamer])
    Path(answer).write_bytes(pickle.dumps(found))


def _their_values(flow: Flow, swapped: bool) -> dict[str, float]:
    sides = ("dst2src", "src2dst") if swapped else ("src2dst", "dst2src")
    values = {ours: flow[f"bidirectional_{name}"] * by for ours, (name, by) in _WHOLE.items()}
    for way, side in zip(("Fwd", "Bwd"), sides, strict=True):
        for ours, (name, by) in _SIDE.items():
            values[ours.format(way)] = flow[f"{side}_{name}"] * by
    mean, std = (flow[f"bidirectional_{name}_piat_ms"] for name in ("mean", "stddev"))
    odd = flow["bidirectional_packets"] < 3 or mean + std == 0
    values["burstiness"] = 0.0 if odd else (std - mean) / (std + mean)
    values["source MAC"], values["target MAC"] = (
        int(flow[f"{end}_mac"].replace(":", ""), 16)
        for end in (("dst", "src") if swapped else ("src", "dst"))
    )
    return values


# --- ours -----------------------------------------------------------------------------------------


def packets_of(path: Path) -> Rows:
    """The packets of a capture that are of flows."""
    decoder = Decoder()
    rows = np.concatenate([decoder.decode(frames).rows for frames in read_capture(path)])
    of_flows: Rows = rows[rows["kind"] == 0]
    return of_flows


def in_steps(packets: Rows, step_ns: int) -> Rows:
    """The same packets with times that are cut to steps and, as NFStream's, never go back."""
    packets = packets.copy()
    packets["time_ns"] = np.maximum.accumulate(packets["time_ns"] // step_ns * step_ns)
    return packets


def batch(packets: Rows) -> PacketBatch:
    return PacketBatch(packets, np.zeros(len(UNREAD_REASONS), np.int64), len(packets), 0)


def flows_of(packets: Rows) -> Rows:
    tracker = FlowTracker(capacity=1 << 15)
    ended = tracker.track(batch(packets)).rows
    assert tracker.evicted == 0
    return np.concatenate([ended, tracker.flush().rows])


def _late(packets: Rows) -> Rows:
    """Each packet of one conversation that came after its end, as a flow of its own."""
    tracker = FlowTracker(capacity=64)
    alone = [np.empty(0, FLOW)]
    for i in range(len(packets)):
        one = packets[i : i + 1]
        before = tracker.late_packets
        tracker.track(batch(one))
        if tracker.late_packets > before:
            alone.append(flows_of(one))
    return np.concatenate(alone)


def _address(row: Any, end: str) -> int:
    return int(row[f"{end}_hi"]) << 64 | int(row[f"{end}_lo"])


def _source(row: Any) -> End:
    return _address(row, "src"), int(row["src_port"])


def _conversation(row: Any) -> Conversation:
    ends = sorted((_source(row), (_address(row, "dst"), int(row["dst_port"]))))
    return ends[0], ends[1], int(row["protocol"]), int(row["vlan"])


def _their_source(flow: Flow) -> End:
    return int(ipaddress.ip_address(flow["src_ip"])), flow["src_port"]


def _their_conversation(flow: Flow) -> Conversation:
    target = (int(ipaddress.ip_address(flow["dst_ip"])), flow["dst_port"])
    ends = sorted((_their_source(flow), target))
    return ends[0], ends[1], flow["protocol"], flow["vlan_id"]


def _our_values(rows: Rows) -> list[dict[str, float]]:
    values = matrix(rows)
    further = extras(rows, values)
    found = []
    for i, row in enumerate(values):
        named = dict(zip(COLUMNS, row.tolist(), strict=True))
        named["burstiness"] = float(further["burstiness"][i])
        named["source MAC"], named["target MAC"] = (
            int(rows[name][i]) for name in ("src_mac", "dst_mac")
        )
        found.append(named)
    return found


def _whole(pieces: Rows) -> Rows:
    """(1,) the flow that the pieces would be, oldest first; without the spread of its gaps."""
    pieces = pieces[np.argsort(pieces["id"], kind="stable")]
    pieces = pieces[np.argsort(pieces["first_ns"], kind="stable")]
    whole = pieces[:1].copy()
    row = whole[0]
    turned = [_source(piece) != _source(row) for piece in pieces]
    row["last_ns"] = pieces["last_ns"].max()
    row["flag_counts"] = pieces["flag_counts"].sum(axis=0)
    for d in range(2):
        side = [piece for piece in _side(pieces, turned, d) if piece["packets"] > 0]
        if not side:
            continue
        for name in ("packets", "bytes", "square_sum"):
            row[name][d] = sum(int(piece[name]) for piece in side)
        row["length_max"][d] = max(piece["length_max"] for piece in side)
        row["length_min"][d] = min(piece["length_min"] for piece in side)
        row["dir_first_ns"][d] = min(piece["dir_first_ns"] for piece in side)
        row["dir_last_ns"][d] = max(piece["dir_last_ns"] for piece in side)
        span = row["dir_last_ns"][d] - row["dir_first_ns"][d]
        row["iat_mean"][d] = span / max(int(row["packets"][d]) - 1, 1)
    return whole


_OF_A_SIDE: Final = (
    *("packets", "bytes", "square_sum", "length_max", "length_min"),
    *("dir_first_ns", "dir_last_ns"),
)


def _side(pieces: Rows, turned: list[bool], d: int) -> Iterable[dict[str, int]]:
    for piece, turn in zip(pieces, turned, strict=True):
        yield {name: int(piece[name][1 - d if turn else d]) for name in _OF_A_SIDE}


# --- side by side ---------------------------------------------------------------------------------


@dataclass
class Comparison:
    """flows, theirs: ours and NFStream's. alike: in every value. differences: NFStream's flows by
    deliberate difference. wrong: sentences about flows that differ in anything else.

    slack_us: how far times may differ: each is cut by up to 1 ms, a gap of two so by 1 ms either
    way, and the sample deviation of a few gaps by half as much again.
    """

    flows: int = 0
    theirs: int = 0
    alike: int = 0
    slack_us: float = 0.0
    differences: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Comparison) -> None:
        self.flows += other.flows
        self.theirs += other.theirs
        self.alike += other.alike
        self.differences += other.differences
        self.wrong += other.wrong


def compared(packets: Rows, theirs: list[Flow], step_ns: int = MS) -> Comparison:
    """Our flows of `packets`, times in steps, beside NFStream's of the same capture."""
    packets = in_steps(packets, step_ns)
    rows = flows_of(packets)
    result = Comparison(len(rows), len(theirs), slack_us=0.0 if step_ns == MS else 1500.0)
    waiting: dict[tuple[Conversation, int, int], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        key = (_conversation(row), int(row["first_ns"]) // MS, int(row["packets"].sum()))
        waiting[key].append(i)
    unmatched: dict[Conversation, list[Flow]] = defaultdict(list)
    ours = _our_values(rows)
    for flow in theirs:
        conversation = _their_conversation(flow)
        begun, count = flow["bidirectional_first_seen_ms"], flow["bidirectional_packets"]
        places = waiting.get((conversation, begun, count))
        if not places:
            unmatched[conversation].append(flow)
            continue
        i = places.pop()
        wrong = len(result.wrong)
        why = _compare(result, flow, rows[i], ours[i], () if step_ns == MS else ("burstiness",))
        result.differences.update(why)
        result.alike += not why and len(result.wrong) == wrong
    left: dict[Conversation, list[int]] = defaultdict(list)
    for (conversation, _, _), places in waiting.items():
        left[conversation] += places
    keys = [_conversation(packet) for packet in packets] if unmatched else []
    for conversation in {*unmatched, *(key for key, places in left.items() if places)}:
        mine = packets[[i for i, key in enumerate(keys) if key == conversation]]
        _put_together(result, unmatched[conversation], rows[left[conversation]], mine)
    return result


def _put_together(result: Comparison, theirs: list[Flow], rows: Rows, packets: Rows) -> None:
    """Compare NFStream's flows of a conversation with the pieces that ours are of them."""
    if not theirs:
        result.wrong.append(f"only ours: {[_conversation(row) for row in rows]}")
        return
    theirs = sorted(theirs, key=lambda flow: int(flow["bidirectional_first_seen_ms"]))
    begins = [flow["bidirectional_first_seen_ms"] * MS for flow in theirs]
    late = _late(packets)
    # Late packets of flows that are alike belong to other flows of NFStream's, and to none here.
    of_rows = np.searchsorted(begins, rows["first_ns"], side="right") - 1
    of_late = np.searchsorted(begins, late["first_ns"], side="right") - 1
    for i, flow in enumerate(theirs):
        pieces, after = rows[of_rows == i], late[of_late == i]
        all_pieces = np.concatenate([pieces, after])
        if not len(all_pieces):
            result.wrong.append(f"only NFStream's: {flow['src_ip']} {flow['dst_ip']} {flow['id']}")
            continue
        whole = _whole(all_pieces)
        why = _compare(result, flow, whole[0], _our_values(whole)[0], _OF_GAPS)
        result.differences.update({*why, *_parted(result, flow, pieces, len(after) > 0)})
    if (of_rows < 0).any():
        result.wrong.append(f"ours begin before NFStream's: {theirs[0]['src_ip']}")


def _parted(result: Comparison, flow: Flow, pieces: Rows, late: bool) -> set[str]:
    """Why NFStream's one flow is several of ours, or longer than it."""
    why = {LATE} if late else set()
    kinds = set(zip(pieces["icmp_type"].tolist(), pieces["icmp_code"].tolist(), strict=True))
    if len(kinds) > 1:
        why.add(ICMP_TYPES)
    elif len(pieces) > 1:
        pieces = pieces[np.argsort(pieces["first_ns"], kind="stable")]
        if set(pieces["end_reason"][:-1].tolist()) <= {EndReason.FIN, EndReason.RST}:
            why.add(ENDED)
        else:
            result.wrong.append(f"parted without an end: {flow['src_ip']} {flow['dst_ip']}")
    return why


def _compare(
    result: Comparison, flow: Flow, row: Any, ours: dict[str, float], without: Sequence[str]
) -> set[str]:
    """The deliberate differences between a flow and ours; others become sentences."""
    why = set()
    swapped = _source(row) != _their_source(flow)
    if swapped:
        why.add(DIRECTION if row["continued"] else SYN_ACK)
        if not row["continued"] and (row["protocol"] != TCP or flow["src2dst_syn_packets"] == 0):
            result.wrong.append(f"turned: {flow['src_ip']} {flow['dst_ip']} {flow['id']}")
    theirs = _their_values(flow, swapped)
    if row["protocol"] not in (TCP, UDP, ICMP, ICMPV6):
        lengths = [name for name in theirs if "Length" in name]
        if any(ours[name] != theirs[name] for name in lengths):
            why.add(PAYLOAD)
        without = [*without, *lengths]
    names = [name for name in theirs if name not in without]
    found = np.array([ours[name] for name in names])
    expected = np.array([theirs[name] for name in names])
    times = np.array(["IAT" in name or name == "Flow Duration" for name in names])
    off = ~np.isclose(found, expected, rtol=1e-9, atol=1e-6 + result.slack_us * times)
    for place in np.flatnonzero(off).tolist():
        result.wrong.append(
            f"{flow['src_ip']}:{flow['src_port']} {flow['dst_ip']}:{flow['dst_port']} "
            f"{names[place]}: {found[place]} and not {expected[place]}"
        )
    return why


def compared_files(paths: Sequence[Path]) -> dict[str, Comparison]:
    """By name of the capture."""
    return {
        path.name.removesuffix(".gz").removesuffix(".pcap"): compared(packets_of(path), theirs)
        for path, theirs in zip(paths, metered(paths), strict=True)
    }


def total(results: Iterable[Comparison]) -> Comparison:
    found = Comparison()
    for result in results:
        found.add(result)
    return found


def table(results: dict[str, Comparison]) -> list[str]:
    """Lines: a capture each, and their sum; then what the columns stand for."""
    every = total(results.values())
    head = ("flows", "NFStream", "alike", *"abcdef", "wrong")
    lines = [f"{'':34}" + "".join(f"{name:>9}" for name in head)]
    for name, result in [*results.items(), ("all", every)]:
        numbers = (
            *(result.flows, result.theirs, result.alike),
            *(result.differences[why] for why in DIFFERENCES),
            len(result.wrong),
        )
        lines.append(f"{name:34}" + "".join(f"{number:9}" for number in numbers))
    lines += [f"{letter}  {why}" for letter, why in zip("abcdef", DIFFERENCES, strict=True)]
    return lines + every.wrong[:20]


def main(folders: list[str]) -> None:
    for folder in folders:
        paths = sorted(Path(folder).glob("*.pcap*"))
        sys.stdout.write("\n".join([folder, *table(compared_files(paths)), ""]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

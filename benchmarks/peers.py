"""What others make of a capture file, each as its authors would have it used.

    python -m benchmarks.peers NAME CAPTURE

answers packets, flows and CPU seconds. NFStream computes more columns than are used here and
meters in a process of its own. The group-by is the best plain numpy known here: the whole file at
once, no time-outs, no end of a flow by FIN. dpkt counts packets and bytes a flow, no features;
Scapy only dissects.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import answer, cpu_s

__all__ = ["PEERS", "grouped"]

Column = NDArray[Any]
Figures = dict[str, Any]

_RECORD_BYTES: Final = 16
_FILE_BYTES: Final = 24


def nfstream(path: Path) -> Figures:
    from nfstream import NFStreamer

    started = cpu_s()
    packets = flows = 0
    streamer = NFStreamer(
        source=str(path),
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
    return {"cpu_s": cpu_s() - started, "packets": packets, "flows": flows}


def numpy_whole_file(path: Path) -> Figures:
    started = cpu_s()
    packets, features = grouped(path)
    return {"cpu_s": cpu_s() - started, "packets": packets, "flows": len(features)}


def dpkt(path: Path) -> Figures:
    import dpkt

    started = cpu_s()
    flows: dict[tuple[Any, ...], list[int]] = {}
    packets = 0
    with path.open("rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            packets += 1
            ip = dpkt.ethernet.Ethernet(frame).data
            carried = ip.data
            ends = sorted(
                [(ip.src, getattr(carried, "sport", 0)), (ip.dst, getattr(carried, "dport", 0))]
            )
            counted = flows.setdefault((*ends, type(carried)), [0, 0])
            counted[0] += 1
            counted[1] += len(frame)
    return {"cpu_s": cpu_s() - started, "packets": packets, "flows": len(flows)}


def scapy(path: Path) -> Figures:
    import scapy.layers.inet6  # noqa: F401  (knows the layers of Ethernet frames)
    from scapy.utils import PcapReader

    started = cpu_s()
    with PcapReader(str(path)) as reader:
        packets = sum(1 for _ in reader)
    return {"cpu_s": cpu_s() - started, "packets": packets, "flows": 0}


# --- the group-by -------------------------------------------------------------------------------


def grouped(path: Path) -> tuple[int, NDArray[np.float64]]:
    """(packets, (flows, 27) float64) of a pcap file of Ethernet frames, microseconds.

    Columns: duration, then packets, bytes, length maximum, minimum, mean, deviation, gap total,
    mean, deviation forward and backward, the four of both directions, bytes/s, packets/s, first
    windows. Times in microseconds. What is neither TCP, UDP nor ICMP(v6) over IP is left out.
    """
    size = path.stat().st_size
    # Zeros behind the end, so that every field of a short last frame may be read.
    data = np.zeros(size + 128, np.uint8)
    with path.open("rb") as file:
        file.readinto(data.data[:size])
    packet = _decoded(data, _places(data, size))
    flow, count = _numbered(packet)
    # By flow, in the order of time within: each flow is one slice.
    order = np.argsort(flow, kind="stable")
    flow = flow[order]
    for name in ("time", "length", "window", "source", "source_port"):
        packet[name] = packet[name][order]
    first = np.searchsorted(flow, np.arange(count))
    forward = (packet["source"] == packet["source"][first][flow]) & (
        packet["source_port"] == packet["source_port"][first][flow]
    )
    whole = _direction(flow, packet, np.ones(len(flow), bool), count)
    sides = [_direction(flow, packet, side, count) for side in (forward, ~forward)]
    duration = whole["gap_total"]
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = [
            np.where(duration > 0, amount / duration * 1e6, 0.0)
            for amount in (whole["bytes"], whole["packets"])
        ]
    columns = [duration]
    for side in sides:
        columns += [side[name] for name in _SIDE]
    columns += [whole[name] for name in ("max", "min", "mean", "deviation")]
    columns += [*rates, sides[0]["window"], sides[1]["window"]]
    return len(flow), np.stack(columns, 1)


_SIDE: Final = (
    *("packets", "bytes", "max", "min", "mean", "deviation"),
    *("gap_total", "gap_mean", "gap_deviation"),
)


def _places(data: NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """(n,) where each frame begins. A record tells where the next one is: a walk, not a vector."""
    captured = struct.Struct("<I").unpack_from
    buffer = data.data
    at, found = _FILE_BYTES, []
    while at + _RECORD_BYTES <= size:
        found.append(at + _RECORD_BYTES)
        at += _RECORD_BYTES + captured(buffer, at + 8)[0]
    return np.array(found, np.int64)


def _decoded(data: NDArray[np.uint8], at: NDArray[np.int64]) -> dict[str, Column]:
    def big(place: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
        value = np.zeros(len(place), np.uint64)
        for i in range(size):
            value = value << np.uint64(8) | data[place + i]
        return value

    def little(place: NDArray[np.int64]) -> NDArray[np.int64]:
        return sum(data[place + i].astype(np.int64) << 8 * i for i in range(4))  # type: ignore[return-value]

    time = little(at - 16) * 1_000_000 + little(at - 12)
    kind = big(at + 12, 2)
    tagged = kind == 0x8100
    vlan = np.where(tagged, big(at + 14, 2) & np.uint64(0xFFF), 0)
    kind = np.where(tagged, big(at + 16, 2), kind)
    ip = at + np.where(tagged, 18, 14)
    v4, v6 = kind == 0x0800, kind == 0x86DD
    header = np.where(v6, 40, (data[ip] & 15).astype(np.int64) * 4)
    protocol = np.where(v6, data[ip + 6], data[ip + 9])
    total = np.where(v6, big(ip + 4, 2) + np.uint64(40), big(ip + 2, 2)).astype(np.int64)
    on = ip + header
    is_tcp = protocol == 6
    is_icmp = (protocol == 1) | (protocol == 58)
    transport = np.where(is_tcp, (data[on + 12] >> 4).astype(np.int64) * 4, 8)
    packet = {
        "time": time,
        "length": np.maximum(total - header - transport, 0),
        "protocol": protocol,
        "vlan": vlan,
        "source_port": np.where(is_icmp, 0, big(on, 2)),
        "target_port": np.where(is_icmp, 0, big(on + 2, 2)),
        "window": np.where(is_tcp, big(on + 14, 2), 0),
    }
    for name, v4_at, v6_at in (("source", 12, 8), ("target", 16, 24)):
        # IPv6 addresses folded to 64 bits: equal ones stay equal, and that is all a key needs.
        folded = big(ip + v6_at, 8) * np.uint64(0x9E3779B97F4A7C15) + big(ip + v6_at + 8, 8)
        packet[name] = np.where(v6, folded, big(ip + v4_at, 4))
    kept = (v4 | v6) & (is_tcp | is_icmp | (protocol == 17))
    return {name: column[kept] for name, column in packet.items()}


def _numbered(packet: dict[str, Column]) -> tuple[NDArray[np.int64], int]:
    """(flow of each packet, flows): equal numbers for equal five-tuples of either direction."""
    source, target = packet["source"], packet["target"]
    swap = (source > target) | (
        (source == target) & (packet["source_port"] > packet["target_port"])
    )
    low = np.where(swap, target, source)
    high = np.where(swap, source, target)
    ports = np.where(
        swap,
        packet["target_port"] << np.uint64(16) | packet["source_port"],
        packet["source_port"] << np.uint64(16) | packet["target_port"],
    )
    rest = ports << np.uint64(24) | packet["vlan"].astype(np.uint64) << np.uint64(8)
    rest = rest | packet["protocol"].astype(np.uint64)
    order = np.lexsort((rest, high, low))
    new = np.ones(len(order), bool)
    new[1:] = False
    for key in (low, high, rest):
        key = key[order]
        new[1:] |= key[1:] != key[:-1]
    flow = np.empty(len(order), np.int64)
    flow[order] = np.cumsum(new) - 1
    return flow, int(new.sum())


def _direction(
    flow: NDArray[np.int64], packet: dict[str, Column], mine: NDArray[np.bool_], count: int
) -> dict[str, Column]:
    """Statistics of the packets where `mine`, by flow; 0 where a flow has none."""
    flow, length, time = flow[mine], packet["length"][mine].astype(float), packet["time"][mine]
    n = np.bincount(flow, minlength=count)
    starts = np.flatnonzero(np.diff(flow, prepend=-1))
    there = flow[starts]
    total = np.bincount(flow, length, count)
    gap = np.diff(time, prepend=0).astype(float)
    gap[starts] = 0.0
    gaps = np.maximum(n - 1, 0)
    gap_total = np.bincount(flow, gap, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(n > 0, total / n, 0.0)
        gap_mean = np.where(gaps > 0, gap_total / gaps, 0.0)
        off = (gap - gap_mean[flow]) ** 2
        off[starts] = 0.0
        spread = np.bincount(flow, (length - mean[flow]) ** 2, count)
        gap_spread = np.bincount(flow, off, count)
        deviation = np.where(n > 1, np.sqrt(spread / (n - 1)), 0.0)
        gap_deviation = np.where(gaps > 1, np.sqrt(gap_spread / (gaps - 1)), 0.0)
    extremes = {name: np.zeros(count) for name in ("max", "min", "window")}
    if len(starts):
        extremes["max"][there] = np.maximum.reduceat(length, starts)
        extremes["min"][there] = np.minimum.reduceat(length, starts)
        extremes["window"][there] = packet["window"][mine][starts]
    return {
        "packets": n,
        "bytes": total,
        "mean": mean,
        "deviation": deviation,
        "gap_total": gap_total,
        "gap_mean": gap_mean,
        "gap_deviation": gap_deviation,
        **extremes,
    }


PEERS: Final[dict[str, Callable[[Path], Figures]]] = {
    "numpy": numpy_whole_file,
    "nfstream": nfstream,
    "dpkt": dpkt,
    "scapy": scapy,
}
"""By the name of the module each one needs."""

if __name__ == "__main__":
    answer(PEERS[sys.argv[1]](Path(sys.argv[2])))

"""Frames made byte by byte, so that a test says what is on the wire."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from batches import FrameBatch

START_NS = 1_700_000_000 * 1_000_000_000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
Frame = tuple[int, bytes]
"""(capture time in nanoseconds, bytes)"""


def ethernet(payload: bytes, ethertype: int = 0x0800, *, tags: Sequence[int] = ()) -> bytes:
    kinds = [0x88A8] * (len(tags) - 1) + [0x8100] * bool(tags)
    header = bytes.fromhex("02000000000b02000000000a")
    for kind, tag in zip(kinds, tags, strict=True):
        header += struct.pack("!HH", kind, tag)
    return header + struct.pack("!H", ethertype) + payload


def ipv4(src: str, dst: str, protocol: int, payload: bytes, *, fragment: int = 0) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0)
    return header + ipaddress.IPv4Address(src).packed + ipaddress.IPv4Address(dst).packed + payload


def ipv6(src: str, dst: str, protocol: int, payload: bytes) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return header + ipaddress.IPv6Address(src).packed + ipaddress.IPv6Address(dst).packed + payload


def tcp(sport: int, dport: int, flags: int, size: int = 0, window: int = 502) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, window, 0, 0) + bytes(size)


def udp(sport: int, dport: int, size: int) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + size, 0) + bytes(size)


def icmp(kind: int, code: int = 0, size: int = 56) -> bytes:
    return struct.pack("!BBHHH", kind, code, 0, 7, 1) + bytes(size)


def arp(operation: int, sender: str, target: str) -> bytes:
    return (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        + bytes.fromhex("02000000000a")
        + ipaddress.IPv4Address(sender).packed
        + bytes(6)
        + ipaddress.IPv4Address(target).packed
    )


def at(time_us: float, frame: bytes) -> Frame:
    return START_NS + round(time_us * 1000), frame


def talk(
    src: str, sport: int, dst: str, dport: int, steps: Sequence[tuple[float, str, int, int]]
) -> list[Frame]:
    """A TCP conversation: steps of (time in us, "f" or "b", flags, payload bytes)."""
    frames = []
    for time_us, way, flags, size in steps:
        if way == "f":
            packet = ipv4(src, dst, 6, tcp(sport, dport, flags, size))
        else:
            packet = ipv4(dst, src, 6, tcp(dport, sport, flags, size))
        frames.append(at(time_us, ethernet(packet)))
    return frames


def batch_of(frames: Sequence[Frame], link_type: int = 1) -> FrameBatch:
    sizes = np.array([len(frame) for _, frame in frames], np.int32)
    return FrameBatch(
        data=np.frombuffer(b"".join(frame for _, frame in frames) or b"\0", np.uint8).copy(),
        offset=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)[:-1]]).astype(np.int64)[
            : len(frames)
        ],
        captured=sizes,
        length=sizes.copy(),
        time_ns=np.array([time_ns for time_ns, _ in frames], np.int64),
        link_type=np.full(len(frames), link_type, np.int32),
        interface="test",
    )


def write_pcap(path: Path, frames: Sequence[Frame], link_type: int = 1) -> Path:
    """A classic little-endian capture file with microseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type)]
    for time_ns, frame in frames:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        parts.append(struct.pack("<IIII", seconds, rest // 1000, len(frame), len(frame)) + frame)
    path.write_bytes(b"".join(parts))
    return path


def golden() -> list[Frame]:
    """The golden flow of docs/features.md: 10.0.0.1:51000 -> 10.0.0.2:443, six packets."""
    there, back = ("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")

    def packet(time_us: int, way: str, flags: int, size: int, window: int) -> Frame:
        ends = (51000, 443) if way == "f" else (443, 51000)
        segment = tcp(*ends, flags, size, window)
        return at(time_us, ethernet(ipv4(*(there if way == "f" else back), 6, segment)))

    return [
        packet(0, "f", SYN, 0, 64240),
        packet(20_000, "b", SYN | ACK, 0, 65160),
        packet(20_100, "f", ACK, 0, 502),
        packet(20_300, "f", PSH | ACK, 120, 502),
        packet(60_300, "b", PSH | ACK, 1000, 509),
        packet(60_400, "f", RST | ACK, 0, 0),
    ]

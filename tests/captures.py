"""Captures made by hand: pcap and pcapng files, packet ring blocks, and what batches hold."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batches import FrameBatch

START_NS = 1_700_000_000_123_456_789

Frame = tuple[int, bytes, int]
"""(time in ns, bytes captured, length on the wire)."""


def some_frames(count: int, seed: int = 1) -> list[Frame]:
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(count):
        body = rng.bytes(int(rng.integers(14, 120)))
        frames.append((START_NS + i * 1_000_003, body, len(body) + int(rng.integers(0, 1400))))
    return frames


def word(value: int, size: int, order: str) -> bytes:
    return value.to_bytes(size, "big" if order == ">" else "little")


def pcap(
    frames: list[Frame],
    *,
    order: str = "<",
    nano: bool = True,
    link_type: int = 1,
    snaplen: int = 65535,
    version: tuple[int, int] = (2, 4),
    kuznetzov: bool = False,
) -> bytes:
    """A pcap file; `kuznetzov`: the variant with eight more bytes a record (microseconds)."""
    nano = nano and not kuznetzov
    magic = 0xA1B2CD34 if kuznetzov else 0xA1B23C4D if nano else 0xA1B2C3D4
    parts = [word(magic, 4, order), word(version[0], 2, order), word(version[1], 2, order)]
    parts += [bytes(8), word(snaplen, 4, order), word(link_type, 4, order)]
    for time_ns, body, length in frames:
        seconds, rest = divmod(time_ns, 10**9)
        lengths = (len(body), length) if version >= (2, 4) else (length, len(body))
        values = (seconds, rest if nano else rest // 1000, *lengths)
        parts += [word(value, 4, order) for value in values]
        parts += [b"\5\0\0\0\x08\0\1\0"] * kuznetzov + [body]
    return b"".join(parts)


def block(kind: int, body: bytes, order: str) -> bytes:
    body += bytes(-len(body) % 4)
    size = word(len(body) + 12, 4, order)
    return word(kind, 4, order) + size + body + size


def section(order: str = "<") -> bytes:
    """A section header of pcapng, its length left open."""
    head = word(0x1A2B3C4D, 4, order) + word(1, 2, order) + bytes(2) + b"\xff" * 8
    return block(0x0A0D0D0A, head, order)


def interface(
    link_type: int = 1,
    *,
    order: str = "<",
    snaplen: int = 65535,
    resolution: int | None = 9,
    offset_s: int | None = None,
) -> bytes:
    """An interface's description; resolution: if_tsresol, offset_s: if_tsoffset, None: not told."""
    body = word(link_type, 2, order) + bytes(2) + word(snaplen, 4, order)
    body += word(2, 2, order) + word(5, 2, order) + b"eth0\0" + bytes(3)
    if resolution is not None:
        body += word(9, 2, order) + word(1, 2, order) + bytes([resolution]) + bytes(3)
    if offset_s is not None:
        body += word(14, 2, order) + word(8, 2, order) + word(offset_s % 2**64, 8, order)
    return block(1, body + bytes(4), order)


def packet(
    which: int, ticks: int, body: bytes, length: int, *, order: str = "<", old: bool = False
) -> bytes:
    """An enhanced packet block (with a comment), or one of the kind before it."""
    head = word(which, 2, order) + bytes(2) if old else word(which, 4, order)
    values = (ticks >> 32, ticks & 0xFFFFFFFF, len(body), length)
    head += b"".join(word(value, 4, order) for value in values)
    comment = word(1, 2, order) + word(2, 2, order) + b"hi\0\0" + bytes(4)
    return block(2 if old else 6, head + body + bytes(-len(body) % 4) + comment, order)


def simple_packet(body: bytes, length: int, *, order: str = "<") -> bytes:
    return block(3, word(length, 4, order) + body, order)


def pcapng(frames: list[Frame], *, order: str = "<", link_types: tuple[int, ...] = (1,)) -> bytes:
    """Interfaces take turns; times in nanoseconds (if_tsresol 9)."""
    parts = [section(order)]
    parts += [interface(link_type, order=order) for link_type in link_types]
    for i, (time_ns, body, length) in enumerate(frames):
        parts.append(packet(i % len(link_types), time_ns, body, length, order=order))
    return b"".join(parts)


def content(batches: list[FrameBatch]) -> list[Frame]:
    return [
        (
            int(batch.time_ns[i]),
            batch.data[batch.offset[i] : batch.offset[i] + batch.captured[i]].tobytes(),
            int(batch.length[i]),
        )
        for batch in batches
        for i in range(len(batch))
    ]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def ring_block(
    frames: list[Frame], *, tags: bool = False, outgoing: bool = False
) -> NDArray[np.uint8]:
    """A TPACKET_V3 block as the kernel fills it; with `tags` each frame had VLAN 5."""
    parts: list[bytes] = []
    for time_ns, body, length in frames:
        seconds, rest = divmod(time_ns, 10**9)
        values = (0, seconds, rest, len(body), length, 0x51 if tags else 1)
        head = b"".join(word(value, 4, "<") for value in values) + word(82, 2, "<") + bytes(6)
        head += word(0x6005, 4, "<") + word(0x88A8, 2, "<") + bytes(10)
        head += bytes(10) + bytes([4 if outgoing else 0])
        record = head.ljust(82, b"\0") + body
        record += bytes(-len(record) % 8)
        parts.append(word(len(record), 4, "<") + record[4:])
    head = word(1, 4, "<") + word(48, 4, "<") + word(1, 4, "<")
    head += word(len(frames), 4, "<") + word(48, 4, "<")
    data = head.ljust(48, b"\0") + b"".join(parts)
    return np.frombuffer(bytearray(data.ljust(len(data) + 64, b"\0")), np.uint8)

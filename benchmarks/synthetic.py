"""Traffic of any amount made from a seed: conversations of several kinds, hundreds at once."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FRAME_BYTES", "Frames", "conversations", "write_capture"]

FRAME_BYTES: Final = 1514
"""The longest frame without its check sum (IEEE 802.3)."""
START_S: Final = 1_700_000_000
_AT_ONCE: Final = 512
_PIECE: Final = 16_384
_RECORD_BYTES: Final = 16
_LONGEST_HEADERS: Final = 14 + 4 + 40 + 20
_SIZES: Final = np.array([0.35, 0.6, 1.0, 2.05])
"""Packets of a conversation, as shares of the mean; few are long."""
_PAYLOADS: Final = np.array([0, 24, 90, 300, FRAME_BYTES - _LONGEST_HEADERS])
_PAYLOAD_SHARES: Final = np.array([0.42, 0.25, 0.2, 0.09, 0.04])
_TCP, _UDP, _ICMP = 6, 17, 1
_PORTS: Final = np.array([443, 80, 53, 1883, 502, 8080])


class Frames(NamedTuple):
    """Frames side by side, each padded to the same width.

    data: (n, width) uint8, width the longest captured frame; captured, length: (n,) int64 bytes
    of a frame in `data` and on the wire; flow: (n,) int64 number of its conversation.
    """

    data: NDArray[np.uint8]
    captured: NDArray[np.int64]
    length: NDArray[np.int64]
    flow: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.length)


class _Packets(NamedTuple):
    """flow (n,) number of the conversation; place, size (n,) which of how many packets."""

    flow: NDArray[np.int64]
    place: NDArray[np.int64]
    size: NDArray[np.int64]

    def part(self, which: Any) -> _Packets:
        return _Packets(self.flow[which], self.place[which], self.size[which])


def conversations(
    *, packets: int, flows: int, snaplen: int = FRAME_BYTES, seed: int = 1
) -> Iterator[Frames]:
    """Exactly `packets` Ethernet frames of exactly `flows` flows, in pieces.

    Of ten conversations six are TCP (with handshake and FIN where they are long enough), three
    UDP, one ICMP echo; 15 of 100 by IPv6, 10 of 100 with a VLAN tag. _AT_ONCE of them overlap;
    no two have one key.
    """
    rng = np.random.default_rng(seed)
    for block in _blocks(packets, flows, rng):
        for start in range(0, len(block.flow), _PIECE):
            yield _frames(block.part(slice(start, start + _PIECE)), snaplen, rng)


def write_capture(
    path: Path,
    *,
    packets: int,
    flows: int,
    snaplen: int = FRAME_BYTES,
    gap_us: int = 20,
    seed: int = 1,
) -> Path:
    """The conversations as a pcap file (microseconds), one packet every `gap_us`."""
    written = 0
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for frames in conversations(packets=packets, flows=flows, snaplen=snaplen, seed=seed):
            micros = (written + np.arange(len(frames))) * gap_us
            head = np.empty((len(frames), 4), "<u4")
            head[:, 0] = START_S + micros // 1_000_000
            head[:, 1] = micros % 1_000_000
            head[:, 2] = frames.captured
            head[:, 3] = frames.length
            records = np.concatenate([head.view(np.uint8), frames.data], axis=1)
            kept = np.arange(records.shape[1]) < (_RECORD_BYTES + frames.captured)[:, None]
            file.write(records[kept].tobytes())
            written += len(frames)
    return path


def _blocks(packets: int, flows: int, rng: np.random.Generator) -> Iterator[_Packets]:
    """_AT_ONCE conversations after the other, the packets of each in order, mixed at random."""
    weights = rng.choice(_SIZES, flows)
    ends = np.rint(np.cumsum(weights) / weights.sum() * (packets - flows)).astype(np.int64)
    sizes = 1 + np.diff(ends, prepend=0)
    for first in range(0, flows, _AT_ONCE):
        size = sizes[first : first + _AT_ONCE]
        flow = np.repeat(np.arange(len(size)), size)
        place = np.arange(len(flow)) - np.repeat(np.cumsum(size) - size, size)
        # Conversations as long as the block, with gaps of many lengths between their packets.
        gaps = rng.exponential(1.0 / size[flow])
        times = np.cumsum(gaps)
        times -= times[np.cumsum(size) - size][flow]
        order = np.argsort(times + rng.random(len(size))[flow], kind="stable")
        yield _Packets(first + flow, place, size[flow]).part(order)


def _frames(packets: _Packets, snaplen: int, rng: np.random.Generator) -> Frames:
    flow, n = packets.flow, len(packets.flow)
    kind = flow % 10
    protocol = np.where(kind < 6, _TCP, np.where(kind < 9, _UDP, _ICMP))
    is_v6 = flow // 10 % 20 < 3
    is_tagged = flow // 200 % 10 == 0
    is_long = (protocol == _TCP) & (packets.size >= 6)
    flags, backward, empty = _course(packets, is_long, rng)
    payload = np.where(empty, 0, rng.choice(_PAYLOADS, n, p=_PAYLOAD_SHARES))
    transport = np.where(protocol == _TCP, 20, 8)
    headers = 14 + 4 * is_tagged + np.where(is_v6, 40, 20) + transport
    length = np.maximum(headers + payload, 60)
    captured = np.minimum(length, snaplen)
    data = np.zeros((n, int(captured.max())), np.uint8)
    wide = np.zeros((n, _LONGEST_HEADERS), np.uint8)
    for tagged in (False, True):
        for v6 in (False, True):
            mine = np.flatnonzero((is_tagged == tagged) & (is_v6 == v6))
            part = _headers(
                packets.part(mine),
                protocol[mine],
                flags[mine],
                backward[mine],
                payload[mine],
                tagged=tagged,
                v6=v6,
            )
            wide[mine, : part.shape[1]] = part
    width = min(data.shape[1], _LONGEST_HEADERS)
    data[:, :width] = wide[:, :width]
    return Frames(data, captured, length, flow)


def _course(
    packets: _Packets, is_long: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """(TCP flags, sent by the server, without payload) of each packet in its conversation."""
    place, left = packets.place, packets.size - packets.place
    backward = (rng.random(len(place)) < 0.5) & (place > 0)
    flags = np.where(rng.random(len(place)) < 0.3, 0x18, 0x10)
    for at, value, by_server in ((0, 0x02, False), (1, 0x12, True), (2, 0x10, False)):
        flags[is_long & (place == at)] = value
        backward[is_long & (place == at)] = by_server
    for at, value, by_server in ((3, 0x11, False), (2, 0x11, True), (1, 0x10, False)):
        flags[is_long & (left == at)] = value
        backward[is_long & (left == at)] = by_server
    return flags, backward, is_long & ((place < 3) | (left <= 3))


def _headers(
    packets: _Packets,
    protocol: NDArray[np.int64],
    flags: NDArray[np.int64],
    backward: NDArray[np.bool_],
    payload: NDArray[np.int64],
    *,
    tagged: bool,
    v6: bool,
) -> NDArray[np.uint8]:
    """(n, bytes) the headers of frames of one layout; check sums are left 0."""
    n, flow = len(packets.flow), packets.flow
    at = 18 if tagged else 14
    ip_bytes = 40 if v6 else 20
    out = np.zeros((n, at + ip_bytes + 20), np.uint8)
    client, server = _ends(flow, v6=v6)
    out[:, :6] = np.where(backward[:, None], [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
    out[:, 6:12] = np.where(backward[:, None], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
    if tagged:
        out[:, 12:16] = [0x81, 0x00, 0x00, 0x05]
    _put(out, at - 2, np.full(n, 0x86DD if v6 else 0x0800))
    transport = np.where(protocol == _TCP, 20, 8)
    width = client.shape[1]
    addresses = at + (8 if v6 else 12)
    out[:, addresses : addresses + width] = np.where(backward[:, None], server, client)
    out[:, addresses + width : addresses + 2 * width] = np.where(backward[:, None], client, server)
    if v6:
        out[:, at] = 0x60
        _put(out, at + 4, transport + payload)
        out[:, at + 6] = np.where(protocol == _ICMP, 58, protocol)
        out[:, at + 7] = 64
    else:
        out[:, at] = 0x45
        _put(out, at + 2, 20 + transport + payload)
        _put(out, at + 4, packets.place & 0xFFFF)
        out[:, at + 8] = 64
        out[:, at + 9] = protocol
    at += ip_bytes
    is_tcp, is_icmp = protocol == _TCP, protocol == _ICMP
    ports = 1024 + flow % 60_000, _PORTS[flow % len(_PORTS)]
    source = np.where(backward, ports[1], ports[0])
    target = np.where(backward, ports[0], ports[1])
    request, reply = (128, 129) if v6 else (8, 0)
    echo = np.where(backward, reply, request) << 8
    _put(out, at, np.where(is_icmp, echo, source))
    _put(out, at + 2, np.where(is_icmp, 0, target))
    _put(out, at + 4, np.where(is_tcp, packets.place >> 16, np.where(is_icmp, 1, 8 + payload)))
    _put(out, at + 6, np.where(protocol == _UDP, 0, packets.place))
    out[:, at + 12] = np.where(is_tcp, 0x50, 0)
    out[:, at + 13] = np.where(is_tcp, flags, 0)
    _put(out, at + 14, np.where(is_tcp, 64_240, 0))
    return out


def _ends(flow: NDArray[np.int64], *, v6: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """(n, 4 or 16) addresses of client and server; every conversation has a client of its own."""
    low = np.stack([flow >> 16 & 255, flow >> 8 & 255, flow & 255], 1)
    kinds = flow % 40
    if not v6:
        client = np.concatenate([np.full((len(flow), 1), 10), low], 1)
        server = np.stack([np.full(len(flow), n) for n in (192, 168, 1)] + [1 + kinds], 1)
        return client, server
    client, server = np.zeros((len(flow), 16), int), np.zeros((len(flow), 16), int)
    client[:, 0], client[:, 13:] = 0xFD, low
    server[:, 0], server[:, 1], server[:, 15] = 0xFD, 1, 1 + kinds
    return client, server


def _put(out: NDArray[np.uint8], at: int, values: NDArray[Any]) -> None:
    """16 bits in network order."""
    out[:, at] = values >> 8 & 255
    out[:, at + 1] = values & 255

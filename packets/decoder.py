"""Frames to packets: headers of every frame decoded into one row, what can't be read counted.

A frame's bytes belong to whoever sent it: each read stands behind a check against the end of the
captured bytes, and a field that contradicts another ends in a counter, never in an exception.
A tunnel's inner packet is the row; where there is none to be read, the outer packet is.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import PACKET, UNREAD_REASONS, FrameBatch, PacketBatch, PacketKind, Rows
from compiled import Int, compiled
from packets import duplicates
from packets.duplicates import Duplicates
from packets.link_layer import ARP_LAYER, IPV4, IPV6, first_layer, next_layer
from packets.network_layer import KEPT, read_arp, read_ipv4, read_ipv6, read_transport
from packets.tunnels import TUNNELS, inside, may_carry

__all__ = ["Decoder", "decode_frames", "enter_tunnels", "warm"]

_BAD_HEADER: Final = UNREAD_REASONS.index("bad_header")
_FRAGMENT: Final = UNREAD_REASONS.index("fragment")
_DUPLICATE: Final = UNREAD_REASONS.index("duplicate")
_MAX_LAYERS: Final = 12
"""Tags, labels and the like before an IP header; more is an attack on the reader."""
_MAX_TUNNELS: Final = 4
_KIND_FLOW: Final = int(PacketKind.FLOW)
GONE: Final = 255
"""The kind of a row that turned out to be none; no other room sees it."""


@compiled
def _read_packet(
    data: NDArray[np.uint8], at: Int, end: Int, wire_end: Int, layer: Int, row: Any
) -> tuple[Int, Int]:
    """Fill `row` from the packet that begins with `layer`: (KEPT or a reason, its payload's place).

    The place is that of the IP payload, 0 for ARP.
    """
    for _ in range(_MAX_LAYERS):
        if layer == IPV4 or layer == IPV6:
            break
        if layer == ARP_LAYER:
            return read_arp(data, at, end, row), 0
        at, layer = next_layer(data, at, end, layer, row)
        if at < 0:
            return -1 - at, 0
    if layer == IPV4:
        at, protocol, size = read_ipv4(data, at, end, wire_end, row)
    elif layer == IPV6:
        at, protocol, size = read_ipv6(data, at, end, wire_end, row)
    else:
        return _BAD_HEADER, 0
    if at < 0:
        return -1 - at, 0
    return read_transport(data, at, end, protocol, size, row), at


@compiled
def decode_frames(
    data: NDArray[np.uint8],
    offset: NDArray[np.int64],
    captured: NDArray[np.int32],
    length: NDArray[np.int32],
    time_ns: NDArray[np.int64],
    link_type: NDArray[np.int32],
    rows: Rows,
    carriers: NDArray[np.int64],
    unread: NDArray[np.int64],
) -> tuple[Int, Int]:
    """Decode all frames into `rows` (at least as long as `offset`): (rows filled, carriers).

    `unread` (one int64 a reason) is counted up for the others. carriers, (n, 3): row, frame and
    place of the payload of packets that may carry another one.
    """
    kept: Int = 0
    found: Int = 0
    for i in range(len(offset)):
        start = np.int64(offset[i])
        end = start + np.int64(captured[i])
        wire_end = start + np.int64(length[i])
        row = rows[kept]
        at, layer = first_layer(data, start, end, np.int64(link_type[i]), row)
        reason: Int = -1 - at
        if at >= 0:
            reason, at = _read_packet(data, at, end, wire_end, layer, row)
        if reason != KEPT:
            unread[reason] += 1
            continue
        row["wire_length"] = length[i]
        row["time_ns"] = time_ns[i]
        if may_carry(data, at, end, row):
            carriers[found, 0] = kept
            carriers[found, 1] = i
            carriers[found, 2] = at
            found += 1
        kept += 1
    return kept, found


@compiled
def enter_tunnels(
    data: NDArray[np.uint8],
    offset: NDArray[np.int64],
    captured: NDArray[np.int32],
    length: NDArray[np.int32],
    rows: Rows,
    carriers: NDArray[np.int64],
    inner: Rows,
    unread: NDArray[np.int64],
    tunnels: NDArray[np.int64],
) -> None:
    """Put the packet inside in the place of the one that carries it, for all `carriers`, (n, 3).

    inner: (1,) scratch. tunnels: one int64 a kind, counted up for each header around a packet
    that was kept. A row whose inside is a later fragment becomes one of kind GONE.
    """
    for c in range(len(carriers)):
        place = carriers[c, 0]
        i = carriers[c, 1]
        at = carriers[c, 2]
        end = offset[i] + np.int64(captured[i])
        wire_end = offset[i] + np.int64(length[i])
        for _ in range(_MAX_TUNNELS):
            row = rows[place]
            at, layer, network, tunnel = inside(data, at, end, row)
            if tunnel < 0:
                break
            packet = inner[0]
            # Without an Ethernet header of its own an inner packet is on this link's VLAN, but its
            # sender is not the one whose hardware address stands here.
            packet["vlan"] = row["vlan"]
            packet["tunnel"] = network if network else np.int64(row["tunnel"])
            packet["src_mac"] = 0
            packet["dst_mac"] = 0
            reason, at = _read_packet(data, at, end, wire_end, layer, packet)
            if reason == _FRAGMENT:
                unread[reason] += 1
                row["kind"] = GONE
                break
            if reason != KEPT:
                break
            packet["wire_length"] = row["wire_length"]
            packet["time_ns"] = row["time_ns"]
            rows[place] = packet
            tunnels[tunnel] += 1
            if packet["kind"] != _KIND_FLOW:
                break


class Decoder:
    """Turns FrameBatches into PacketBatches and keeps the sums since it was made.

    frames, packets, wire_bytes: ints; unread: (len(UNREAD_REASONS),) int64; tunnels:
    (len(TUNNELS),) int64, headers around packets that were judged by their inside.
    frames == packets + unread.sum() holds after every batch.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.packets = 0
        self.wire_bytes = 0
        self.unread = np.zeros(len(UNREAD_REASONS), np.int64)
        self.tunnels = np.zeros(len(TUNNELS), np.int64)
        self._inner = np.zeros(1, PACKET)
        self._duplicates: Duplicates | None = None

    def watch_several(self, several: bool) -> None:
        """Whether batches come from several interfaces, which may show a packet twice."""
        self._duplicates = Duplicates() if several else None

    def decode(self, batch: FrameBatch) -> PacketBatch:
        rows = np.empty(len(batch), PACKET)
        unread = np.zeros(len(UNREAD_REASONS), np.int64)
        carriers = np.empty((len(batch), 3), np.int64)
        kept, carrying = decode_frames(
            batch.data,
            batch.offset,
            batch.captured,
            batch.length,
            batch.time_ns,
            batch.link_type,
            rows,
            carriers,
            unread,
        )
        rows = rows[:kept]
        if carrying:
            rows = self._without_tunnels(batch, rows, carriers[:carrying], unread)
        copies = self._duplicates
        if copies is not None:
            before = len(rows)
            rows = copies.without_copies(rows, batch.interface)
            unread[_DUPLICATE] = before - len(rows)
        wire_bytes = int(batch.length.sum(dtype=np.int64))
        self.frames += len(batch)
        self.packets += len(rows)
        self.wire_bytes += wire_bytes
        self.unread += unread
        return PacketBatch(rows, unread, len(batch), wire_bytes)

    def _without_tunnels(
        self, batch: FrameBatch, rows: Rows, carriers: NDArray[np.int64], unread: NDArray[np.int64]
    ) -> Rows:
        """The rows with the packets inside in the place of those that carry them."""
        fragments = unread[_FRAGMENT]
        enter_tunnels(
            batch.data,
            batch.offset,
            batch.captured,
            batch.length,
            rows,
            carriers,
            self._inner,
            unread,
            self.tunnels,
        )
        return rows if unread[_FRAGMENT] == fragments else rows[rows["kind"] != GONE]


def warm() -> None:
    """Compile (or load) the decoder before a capture opens."""
    duplicates.warm()
    frame = np.zeros(64, np.uint8)
    frame[12] = 8
    frame[14] = 0x45
    frame[23] = 4  # IP in IP, so that the search for what is inside runs too
    zeros = np.zeros(1, np.int64)
    size = np.full(1, 64, np.int32)
    link_type = np.full(1, 1, np.int32)
    Decoder().decode(FrameBatch(frame, zeros, size, size, zeros, link_type, ""))

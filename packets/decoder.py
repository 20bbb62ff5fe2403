"""Frames to packets: headers of every frame decoded into one row, what can't be read counted.

A frame's bytes belong to whoever sent it: each read stands behind a check against the end of the
captured bytes, and a field that contradicts another ends in a counter, never in an exception.
Lengths come from the IP header, never from the captured frame (Ethernet pads short frames to
60 bytes, and a snap length cuts long ones).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import (
    ICMP,
    ICMPV6,
    PACKET,
    TCP,
    UDP,
    UNREAD_REASONS,
    FrameBatch,
    PacketBatch,
    PacketKind,
    Rows,
)
from compiled import Int, compiled
from packets import duplicates
from packets.duplicates import Duplicates

__all__ = ["Decoder", "decode_frames", "warm"]

# Counters of UNREAD_REASONS; a decoded frame answers KEPT.
_KEPT: Final = -1
_LINK_TYPE: Final = UNREAD_REASONS.index("link_type")
_TRUNCATED: Final = UNREAD_REASONS.index("truncated")
_NOT_IP: Final = UNREAD_REASONS.index("not_ip")
_BAD_HEADER: Final = UNREAD_REASONS.index("bad_header")
_FRAGMENT: Final = UNREAD_REASONS.index("fragment")
_DUPLICATE: Final = UNREAD_REASONS.index("duplicate")
_KIND_FLOW: Final = int(PacketKind.FLOW)
_KIND_ARP: Final = int(PacketKind.ARP)

# Link types, as libpcap numbers them (https://www.tcpdump.org/linktypes.html).
_DLT_NULL: Final = 0
_DLT_ETHERNET: Final = 1
_DLT_LOOP: Final = 108
_DLT_SLL: Final = 113
_DLT_SLL2: Final = 276
_ETHERTYPE_IPV4: Final = 0x0800
_ETHERTYPE_ARP: Final = 0x0806
_ETHERTYPE_IPV6: Final = 0x86DD
# An IPv6 chain longer than this is not seen outside attacks (RFC 8504 §5.3 lets hosts refuse it).
_MAX_EXTENSIONS: Final = 8


@compiled
def _u16(data: NDArray[np.uint8], at: Int) -> Any:
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@compiled
def _u32(data: NDArray[np.uint8], at: Int) -> Any:
    return (_u16(data, at) << 16) | _u16(data, at + 2)


@compiled
def _bytes_as_u64(data: NDArray[np.uint8], at: Int, count: Int) -> Any:
    value = np.uint64(0)
    for i in range(count):
        value = (value << np.uint64(8)) | np.uint64(data[at + i])
    return value


@compiled
def _skip_link_layer(
    data: NDArray[np.uint8], at: Int, end: Int, link_type: Int, row: Any
) -> tuple[Int, Int]:
    """Where the network layer begins and its ethertype; a negative place is -1 - reason."""
    row["vlan"] = 0
    row["tunnel"] = 0
    row["src_mac"] = 0
    row["dst_mac"] = 0
    if link_type == _DLT_ETHERNET:
        if end - at < 14:
            return -1 - _TRUNCATED, 0
        row["dst_mac"] = _bytes_as_u64(data, at, 6)
        row["src_mac"] = _bytes_as_u64(data, at + 6, 6)
        ethertype = _u16(data, at + 12)
        at += 14
    elif link_type == _DLT_SLL:
        if end - at < 16:
            return -1 - _TRUNCATED, 0
        if _u16(data, at + 4) == 6:
            row["src_mac"] = _bytes_as_u64(data, at + 6, 6)
        ethertype = _u16(data, at + 14)
        at += 16
    elif link_type == _DLT_SLL2:
        if end - at < 20:
            return -1 - _TRUNCATED, 0
        if data[at + 11] == 6:
            row["src_mac"] = _bytes_as_u64(data, at + 12, 6)
        ethertype = _u16(data, at)
        at += 20
    else:
        if link_type == _DLT_NULL or link_type == _DLT_LOOP:
            at += 4  # the address family; the IP version says the same in one byte order
        elif link_type not in (12, 14, 101, 228, 229):  # raw IP under its several numbers
            return -1 - _LINK_TYPE, 0
        if end - at < 1:
            return -1 - _TRUNCATED, 0
        version = np.int64(data[at]) >> 4
        if version == 4:
            return at, _ETHERTYPE_IPV4
        if version == 6:
            return at, _ETHERTYPE_IPV6
        return -1 - _NOT_IP, 0
    while ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100:
        if end - at < 4:
            return -1 - _TRUNCATED, 0
        tags = (np.int64(row["vlan"]) << 12) | (_u16(data, at) & 0xFFF)
        row["vlan"] = tags & 0xFFFFFF
        ethertype = _u16(data, at + 2)
        at += 4
    return at, ethertype


@compiled
def _read_arp(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> Int:
    if end - at < 28:
        return _TRUNCATED
    if _u16(data, at) != 1 or _u16(data, at + 2) != _ETHERTYPE_IPV4:
        return _NOT_IP
    if data[at + 4] != 6 or data[at + 5] != 4:
        return _BAD_HEADER
    row["kind"] = _KIND_ARP
    row["ip_version"] = 4
    row["icmp_type"] = _u16(data, at + 6) & 0xFF
    # The sender's own claim: what ARP spoofing forges, whatever the frame's source says.
    row["src_mac"] = _bytes_as_u64(data, at + 8, 6)
    row["src_lo"] = _bytes_as_u64(data, at + 14, 4)
    row["dst_lo"] = _bytes_as_u64(data, at + 24, 4)
    row["src_hi"] = 0
    row["dst_hi"] = 0
    row["protocol"] = 0
    row["icmp_code"] = 0
    row["src_port"] = 0
    row["dst_port"] = 0
    row["payload"] = 0
    row["window"] = 0
    row["header_length"] = 28
    row["tcp_flags"] = 0
    row["ttl"] = 0
    row["seq"] = 0
    row["ack"] = 0
    row["fragment"] = 0
    row["ip_id"] = 0
    row["checksum"] = 0
    return _KEPT


@compiled
def _read_ipv4(
    data: NDArray[np.uint8], at: Int, end: Int, wire_end: Int, row: Any
) -> tuple[Int, Int, Int, Int]:
    """(where the transport begins or -1 - reason, protocol, bytes of the transport, fragment)."""
    if end - at < 20:
        return -1 - _TRUNCATED, 0, 0, 0
    header = (np.int64(data[at]) & 15) * 4
    total = _u16(data, at + 2)
    if total == 0:
        total = wire_end - at  # segmentation offload: the kernel leaves the field empty
    if np.int64(data[at]) >> 4 != 4 or header < 20 or total < header:
        return -1 - _BAD_HEADER, 0, 0, 0
    if end - at < header:
        return -1 - _TRUNCATED, 0, 0, 0
    flags_and_offset = _u16(data, at + 6)
    if flags_and_offset & 0x1FFF:
        return -1 - _FRAGMENT, 0, 0, 0
    row["ip_version"] = 4
    row["ip_id"] = _u16(data, at + 4)
    row["ttl"] = data[at + 8]
    row["src_hi"] = 0
    row["dst_hi"] = 0
    row["src_lo"] = _bytes_as_u64(data, at + 12, 4)
    row["dst_lo"] = _bytes_as_u64(data, at + 16, 4)
    row["header_length"] = header
    more_fragments = (flags_and_offset >> 13) & 1
    return at + header, np.int64(data[at + 9]), total - header, more_fragments


@compiled
def _read_ipv6(
    data: NDArray[np.uint8], at: Int, end: Int, wire_end: Int, row: Any
) -> tuple[Int, Int, Int, Int]:
    """As _read_ipv4; extension headers are walked (RFC 8200 §4) and count as header bytes."""
    if end - at < 40:
        return -1 - _TRUNCATED, 0, 0, 0
    if np.int64(data[at]) >> 4 != 6:
        return -1 - _BAD_HEADER, 0, 0, 0
    row["ip_version"] = 6
    row["ip_id"] = 0
    row["ttl"] = data[at + 7]
    row["src_hi"] = _bytes_as_u64(data, at + 8, 8)
    row["src_lo"] = _bytes_as_u64(data, at + 16, 8)
    row["dst_hi"] = _bytes_as_u64(data, at + 24, 8)
    row["dst_lo"] = _bytes_as_u64(data, at + 32, 8)
    remaining = _u16(data, at + 4)
    protocol = np.int64(data[at + 6])
    if remaining == 0:
        remaining = wire_end - at - 40  # a jumbogram or segmentation offload
    start = at
    at = at + 40
    fragment: Int = 0
    for _ in range(_MAX_EXTENSIONS):
        if protocol != 0 and protocol != 43 and protocol != 44 and protocol != 60:
            row["header_length"] = min(at - start, 65535)
            if remaining < 0:
                return -1 - _BAD_HEADER, 0, 0, 0
            return at, protocol, remaining, fragment
        if end - at < 8:
            return -1 - _TRUNCATED, 0, 0, 0
        size: Int = 8
        if protocol == 44:
            if _u16(data, at + 2) >> 3:
                return -1 - _FRAGMENT, 0, 0, 0
            fragment = _u16(data, at + 2) & 1
        else:
            size = (np.int64(data[at + 1]) + 1) * 8
        protocol = np.int64(data[at])
        at += size
        remaining -= size
    return -1 - _BAD_HEADER, 0, 0, 0


@compiled
def _read_transport(
    data: NDArray[np.uint8], at: Int, end: Int, protocol: Int, size: Int, row: Any
) -> Int:
    row["seq"] = 0
    row["ack"] = 0
    row["window"] = 0
    row["checksum"] = 0
    row["tcp_flags"] = 0
    row["icmp_type"] = 0
    row["icmp_code"] = 0
    row["src_port"] = 0
    row["dst_port"] = 0
    header: Int = 8
    if protocol == TCP:
        if end - at < 20:
            return _TRUNCATED
        header = (np.int64(data[at + 12]) >> 4) * 4
        if header < 20:
            return _BAD_HEADER
        row["seq"] = _u32(data, at + 4)
        row["ack"] = _u32(data, at + 8)
        row["tcp_flags"] = data[at + 13]
        row["window"] = _u16(data, at + 14)
        if end - at >= 18:
            row["checksum"] = _u16(data, at + 16)
    elif protocol == UDP:
        if end - at < 8:
            return _TRUNCATED
        row["checksum"] = _u16(data, at + 6)
    elif protocol == ICMP or protocol == ICMPV6:
        if end - at < 4:
            return _TRUNCATED
        row["icmp_type"] = data[at]
        row["icmp_code"] = data[at + 1]
        row["checksum"] = _u16(data, at + 2)
        header = min(8, size)
    else:
        header = 0
    if size < header:
        return _BAD_HEADER
    if protocol == TCP or protocol == UDP:
        row["src_port"] = _u16(data, at)
        row["dst_port"] = _u16(data, at + 2)
    row["protocol"] = protocol
    row["payload"] = size - header
    row["header_length"] = min(np.int64(row["header_length"]) + header, 65535)
    return _KEPT


@compiled
def _read_frame(
    data: NDArray[np.uint8], start: Int, end: Int, length: Int, link_type: Int, row: Any
) -> Int:
    """Fill `row` from one frame; KEPT, or the index of the reason why not."""
    row["wire_length"] = length
    at, ethertype = _skip_link_layer(data, start, end, link_type, row)
    if at < 0:
        return -1 - at
    if ethertype == _ETHERTYPE_ARP:
        return _read_arp(data, at, end, row)
    if ethertype == _ETHERTYPE_IPV4:
        at, protocol, size, fragment = _read_ipv4(data, at, end, start + length, row)
    elif ethertype == _ETHERTYPE_IPV6:
        at, protocol, size, fragment = _read_ipv6(data, at, end, start + length, row)
    else:
        return _NOT_IP
    if at < 0:
        return -1 - at
    row["kind"] = _KIND_FLOW
    row["fragment"] = fragment
    return _read_transport(data, at, end, protocol, size, row)


@compiled
def decode_frames(
    data: NDArray[np.uint8],
    offset: NDArray[np.int64],
    captured: NDArray[np.int32],
    length: NDArray[np.int32],
    time_ns: NDArray[np.int64],
    link_type: NDArray[np.int32],
    rows: Rows,
    unread: NDArray[np.int64],
) -> Int:
    """Decode all frames into `rows` (at least as long as `offset`); how many rows were filled.

    `unread` (one int64 a reason) is counted up for the others.
    """
    kept: Int = 0
    for i in range(len(offset)):
        start = np.int64(offset[i])
        end = start + np.int64(captured[i])
        reason = _read_frame(
            data, start, end, np.int64(length[i]), np.int64(link_type[i]), rows[kept]
        )
        if reason == _KEPT:
            rows[kept]["time_ns"] = time_ns[i]
            kept += 1
        else:
            unread[reason] += 1
    return kept


class Decoder:
    """Turns FrameBatches into PacketBatches and keeps the sums since it was made.

    frames, packets, wire_bytes: ints; unread: (len(UNREAD_REASONS),) int64.
    frames == packets + unread.sum() holds after every batch.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.packets = 0
        self.wire_bytes = 0
        self.unread = np.zeros(len(UNREAD_REASONS), np.int64)
        self._duplicates: Duplicates | None = None

    def watch_several(self, several: bool) -> None:
        """Whether batches come from several interfaces, which may show a packet twice."""
        self._duplicates = Duplicates() if several else None

    def decode(self, batch: FrameBatch) -> PacketBatch:
        rows = np.empty(len(batch), PACKET)
        unread = np.zeros(len(UNREAD_REASONS), np.int64)
        kept = decode_frames(
            batch.data,
            batch.offset,
            batch.captured,
            batch.length,
            batch.time_ns,
            batch.link_type,
            rows,
            unread,
        )
        rows = rows[:kept]
        copies = self._duplicates
        if copies is not None:
            rows = copies.without_copies(rows, batch.interface)
            unread[_DUPLICATE] = kept - len(rows)
        wire_bytes = int(batch.length.sum(dtype=np.int64))
        self.frames += len(batch)
        self.packets += len(rows)
        self.wire_bytes += wire_bytes
        self.unread += unread
        return PacketBatch(rows, unread, len(batch), wire_bytes)


def warm() -> None:
    """Compile (or load) the decoder before a capture opens."""
    duplicates.warm()
    frame = np.zeros(64, np.uint8)
    frame[12] = 8
    frame[14] = 0x45
    zeros = np.zeros(1, np.int64)
    size = np.full(1, 64, np.int32)
    link_type = np.full(1, _DLT_ETHERNET, np.int32)
    Decoder().decode(FrameBatch(frame, zeros, size, size, zeros, link_type, ""))

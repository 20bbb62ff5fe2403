"""IP and what it carries: addresses, fragments, extension headers, ports.

Lengths come from the IP header, never from the captured frame (Ethernet pads short frames to
60 bytes, and a snap length cuts long ones).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import ICMP, ICMPV6, TCP, UDP, UNREAD_REASONS, PacketKind
from compiled import Int, compiled
from packets.fields import u8, u16, u32, u48, u64
from packets.link_layer import IPV4

__all__ = ["KEPT", "read_arp", "read_ipv4", "read_ipv6", "read_transport"]

KEPT: Final = -1
"""What a frame that became a row answers; the others an index of UNREAD_REASONS."""

_TRUNCATED: Final = UNREAD_REASONS.index("truncated")
_NOT_IP: Final = UNREAD_REASONS.index("not_ip")
_BAD_HEADER: Final = UNREAD_REASONS.index("bad_header")
_FRAGMENT: Final = UNREAD_REASONS.index("fragment")
_KIND_FLOW: Final = int(PacketKind.FLOW)
_KIND_ARP: Final = int(PacketKind.ARP)

# IANA protocol numbers that mean something here beside those of batches.
_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_FRAGMENT_HEADER: Final = 44
_ESP: Final = 50
_AUTHENTICATION: Final = 51
_DESTINATION: Final = 60
_NO_NEXT_HEADER: Final = 59
_DCCP: Final = 33
_SCTP: Final = 132
_UDP_LITE: Final = 136
# An IPv6 chain longer than this is not seen outside attacks (RFC 8504 §5.3 lets hosts refuse it).
_MAX_EXTENSIONS: Final = 8
_LONGEST_HEADER: Final = 65535


@compiled
def read_arp(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> Int:
    if end - at < 28:
        return _TRUNCATED
    if u16(data, at) != 1 or u16(data, at + 2) != IPV4:
        return _NOT_IP
    if u8(data, at + 4) != 6 or u8(data, at + 5) != 4:
        return _BAD_HEADER
    row["kind"] = _KIND_ARP
    row["ip_version"] = 4
    # The sender's own claim: what ARP spoofing forges, whatever the frame's source says.
    row["src_mac"] = u48(data, at + 8)
    row["src_lo"] = u32(data, at + 14)
    row["dst_lo"] = u32(data, at + 24)
    row["src_hi"] = 0
    row["dst_hi"] = 0
    row["protocol"] = 0
    row["payload"] = 0
    row["header_length"] = 28
    row["ttl"] = 0
    row["ip_id"] = 0
    row["fragment"] = 0
    _clear_transport(row)
    row["icmp_type"] = u16(data, at + 6) & 0xFF
    return KEPT


@compiled
def read_ipv4(
    data: NDArray[np.uint8], at: Int, end: Int, wire_end: Int, row: Any
) -> tuple[Int, Int, Int]:
    """(where the transport begins or -1 - reason, protocol, bytes of the transport)."""
    if end - at < 20:
        return -1 - _TRUNCATED, 0, 0
    header = (u8(data, at) & 15) * 4
    total = u16(data, at + 2)
    if total == 0:
        total = wire_end - at  # segmentation offload: the kernel leaves the field empty
    if u8(data, at) >> 4 != 4 or header < 20 or total < header:
        return -1 - _BAD_HEADER, 0, 0
    if end - at < header:
        return -1 - _TRUNCATED, 0, 0
    flags_and_offset = u16(data, at + 6)
    if flags_and_offset & 0x1FFF:
        return -1 - _FRAGMENT, 0, 0
    row["kind"] = _KIND_FLOW
    row["ip_version"] = 4
    row["ip_id"] = u16(data, at + 4)
    row["ttl"] = data[at + 8]
    row["src_hi"] = 0
    row["dst_hi"] = 0
    row["src_lo"] = u32(data, at + 12)
    row["dst_lo"] = u32(data, at + 16)
    row["header_length"] = header
    row["fragment"] = (flags_and_offset >> 13) & 1
    protocol = u8(data, at + 9)
    if protocol == _AUTHENTICATION:
        return _skip_extensions(data, at, at + header, end, protocol, total - header, row)
    return at + header, protocol, total - header


@compiled
def read_ipv6(
    data: NDArray[np.uint8], at: Int, end: Int, wire_end: Int, row: Any
) -> tuple[Int, Int, Int]:
    """As read_ipv4; extension headers are walked (RFC 8200 §4) and count as header bytes."""
    if end - at < 40:
        return -1 - _TRUNCATED, 0, 0
    if u8(data, at) >> 4 != 6:
        return -1 - _BAD_HEADER, 0, 0
    row["kind"] = _KIND_FLOW
    row["ip_version"] = 6
    row["ip_id"] = 0
    row["ttl"] = data[at + 7]
    row["src_hi"] = u64(data, at + 8)
    row["src_lo"] = u64(data, at + 16)
    row["dst_hi"] = u64(data, at + 24)
    row["dst_lo"] = u64(data, at + 32)
    row["header_length"] = 40
    row["fragment"] = 0
    size = u16(data, at + 4)
    protocol = u8(data, at + 6)
    if size == 0 and protocol != _NO_NEXT_HEADER:
        size = wire_end - at - 40  # a jumbogram or segmentation offload
    if protocol == TCP or protocol == UDP:  # most packets: nothing to skip
        if size < 0:
            return -1 - _BAD_HEADER, 0, 0
        return at + 40, protocol, size
    return _skip_extensions(data, at, at + 40, end, protocol, size, row)


@compiled
def _skip_extensions(
    data: NDArray[np.uint8], start: Int, at: Int, end: Int, protocol: Int, size: Int, row: Any
) -> tuple[Int, Int, Int]:
    """Past IPv6's extension headers and the authentication header (RFC 4302) of either version."""
    for _ in range(_MAX_EXTENSIONS):
        by_eights = protocol in (_HOP_BY_HOP, _ROUTING, _DESTINATION)
        if protocol in (135, 139, 140):  # mobility, HIP, Shim6: where nothing follows, a protocol
            by_eights = bool(end - at >= 1 and u8(data, at) != _NO_NEXT_HEADER)
        if not by_eights and protocol != _FRAGMENT_HEADER and protocol != _AUTHENTICATION:
            if size < 0:
                return -1 - _BAD_HEADER, 0, 0
            row["header_length"] = min(at - start, _LONGEST_HEADER)
            return at, protocol, size
        if end - at < 8:
            return -1 - _TRUNCATED, 0, 0
        header: Int = 8
        if by_eights:
            header = (u8(data, at + 1) + 1) * 8
        elif protocol == _AUTHENTICATION:
            header = (u8(data, at + 1) + 2) * 4
        else:
            if u16(data, at + 2) >> 3:
                return -1 - _FRAGMENT, 0, 0
            row["fragment"] = u16(data, at + 2) & 1
        protocol = u8(data, at)
        at += header
        size -= header
    return -1 - _BAD_HEADER, 0, 0


@compiled
def _clear_transport(row: Any) -> None:
    row["seq"] = 0
    row["ack"] = 0
    row["window"] = 0
    row["checksum"] = 0
    row["tcp_flags"] = 0
    row["icmp_type"] = 0
    row["icmp_code"] = 0
    row["src_port"] = 0
    row["dst_port"] = 0


@compiled
def read_transport(
    data: NDArray[np.uint8], at: Int, end: Int, protocol: Int, size: Int, row: Any
) -> Int:
    """Ports, flags and payload length; a protocol without ports has the ports 0."""
    _clear_transport(row)
    header: Int = 8
    if protocol == TCP:
        if end - at < 20:
            return _TRUNCATED
        header = (u8(data, at + 12) >> 4) * 4
        if header < 20:
            return _BAD_HEADER
        row["seq"] = u32(data, at + 4)
        row["ack"] = u32(data, at + 8)
        row["tcp_flags"] = data[at + 13]
        row["window"] = u16(data, at + 14)
        row["checksum"] = u16(data, at + 16)
    elif protocol == UDP or protocol == _UDP_LITE:
        if end - at < 8:
            return _TRUNCATED
        row["checksum"] = u16(data, at + 6)
    elif protocol == ICMP or protocol == ICMPV6:
        if end - at < 4:
            return _TRUNCATED
        row["icmp_type"] = data[at]
        row["icmp_code"] = data[at + 1]
        row["checksum"] = u16(data, at + 2)
        header = min(8, size)
    elif protocol == _SCTP:  # RFC 9260 §3.1
        if end - at < 12:
            return _TRUNCATED
        header = 12
        row["seq"] = u32(data, at + 4)  # verification tag
        row["ack"] = u32(data, at + 8)  # checksum
    elif protocol == _DCCP:  # RFC 4340 §5.1
        if end - at < 12:
            return _TRUNCATED
        header = u8(data, at + 4) * 4
        if header < 12:
            return _BAD_HEADER
        row["checksum"] = u16(data, at + 6)
        row["seq"] = u32(data, at + 8)
    elif protocol == _ESP:  # RFC 4303 §2
        if end - at < 8:
            return _TRUNCATED
        row["ack"] = u32(data, at)  # security parameters index
        row["seq"] = u32(data, at + 4)
    else:
        header = 0
    if size < header:
        return _BAD_HEADER
    if protocol in (TCP, UDP, _SCTP, _UDP_LITE, _DCCP):
        row["src_port"] = u16(data, at)
        row["dst_port"] = u16(data, at + 2)
    row["protocol"] = protocol
    row["payload"] = size - header
    row["header_length"] = min(np.int64(row["header_length"]) + header, _LONGEST_HEADER)
    return KEPT

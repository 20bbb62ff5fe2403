"""What stands before the IP header: link types, tags, labels, PPP, Wi-Fi.

Each step answers (where the next layer begins, which it is). A layer is an ethertype or one of the
numbers above 0xFFFF below; a place below 0 is -1 - the reason why nothing can be read.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import UNREAD_REASONS
from compiled import Int, compiled
from packets.fields import u8, u16, u16_little, u48
from packets.wifi import skip_prism, skip_radiotap, skip_wifi

__all__ = [
    "ARP_LAYER",
    "CISCO_METADATA",
    "ETHERNET",
    "IP",
    "IPV4",
    "IPV6",
    "MPLS",
    "MPLS_MULTICAST",
    "PPP",
    "first_layer",
    "next_layer",
]

_LINK_TYPE: Final = UNREAD_REASONS.index("link_type")
_TRUNCATED: Final = UNREAD_REASONS.index("truncated")
_NOT_IP: Final = UNREAD_REASONS.index("not_ip")
_BAD_HEADER: Final = UNREAD_REASONS.index("bad_header")
_ENCRYPTED: Final = UNREAD_REASONS.index("encrypted")

# Layers by ethertype (IEEE 802 Numbers, IANA) ...
IPV4: Final = 0x0800
ARP_LAYER: Final = 0x0806
IPV6: Final = 0x86DD
MPLS: Final = 0x8847
MPLS_MULTICAST: Final = 0x8848
_PPPOE: Final = 0x8864
_VN_TAG: Final = 0x8926
_BACKBONE: Final = 0x88E7  # IEEE 802.1ah, MAC in MAC
_MACSEC: Final = 0x88E5
CISCO_METADATA: Final = 0x8909  # a security group's tag
# ... and those without one.
ETHERNET: Final = 0x10000
IP: Final = 0x10001  # version 4 or 6, as the header says
PPP: Final = 0x10002
_HDLC: Final = 0x10003  # Cisco's
_LLC: Final = 0x10004
_WIFI: Final = 0x10005
_WIFI_PADDED: Final = 0x10006

_LARGEST_8023_LENGTH: Final = 1500
_MAX_LABELS: Final = 16
_MAX_ATTRIBUTES: Final = 64


@compiled
def first_layer(
    data: NDArray[np.uint8], at: Int, end: Int, link_type: Int, row: Any
) -> tuple[Int, Int]:
    """By libpcap's link type (https://www.tcpdump.org/linktypes.html); clears MACs and tags."""
    row["vlan"] = 0
    row["tunnel"] = 0
    row["src_mac"] = 0
    row["dst_mac"] = 0
    # Short, so that it becomes a part of the loop over frames: most of them are Ethernet.
    if link_type == 1:
        return _ethernet(data, at, end, row)
    return _other_link(data, at, end, link_type, row)


@compiled
def _ethernet(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> tuple[Int, Int]:
    if end - at < 14:
        return -1 - _TRUNCATED, 0
    row["dst_mac"] = u48(data, at)
    row["src_mac"] = u48(data, at + 6)
    row["vlan"] = 0
    return at + 14, _type_or_length(u16(data, at + 12))


@compiled
def _other_link(
    data: NDArray[np.uint8], at: Int, end: Int, link_type: Int, row: Any
) -> tuple[Int, Int]:
    if link_type in (12, 14, 101, 228, 229):  # raw IP under its several numbers
        return at, IP
    if link_type == 0 or link_type == 108:  # loopback: the address family, in either byte order
        return at + 4, IP
    if link_type == 113:
        return _linux_cooked(data, at, end, row)
    if link_type == 276:
        return _linux_cooked_2(data, at, end, row)
    if link_type == 105:
        return at, _WIFI
    if link_type == 127:
        at, padded = skip_radiotap(data, at, end)
        return at, _WIFI_PADDED if padded else _WIFI
    if link_type == 119 or link_type == 163:
        return skip_prism(data, at, end), _WIFI
    if link_type == 192:
        return _per_packet_information(data, at, end)
    if link_type == 239:
        return _netfilter_log(data, at, end)
    if link_type == 117:  # OpenBSD's packet filter: a header that says how long it is
        if end - at < 1:
            return -1 - _TRUNCATED, 0
        return at + ((u8(data, at) + 3) & ~3), IP
    if link_type == 107:
        return _frame_relay(data, at, end)
    return _serial_line(data, at, end, link_type)


@compiled
def _serial_line(data: NDArray[np.uint8], at: Int, end: Int, link_type: Int) -> tuple[Int, Int]:
    """PPP and Cisco HDLC under their several numbers."""
    if link_type == 9:
        return at, PPP
    if link_type == 51:
        return at, _PPPOE
    if link_type == 104:
        return at, _HDLC
    if link_type == 204:  # a byte for the direction first
        return at + 1, PPP
    if link_type == 205:
        return at + 1, _HDLC
    if link_type != 50 and link_type != 166:
        return -1 - _LINK_TYPE, 0
    if end - at < 2:
        return -1 - _TRUNCATED, 0
    if link_type == 166:  # the direction stands where PPP's address would
        return at + (2 if u8(data, at + 1) == 3 else 0), PPP
    return at, _HDLC if u8(data, at) in (0x0F, 0x8F) else PPP


@compiled
def next_layer(data: NDArray[np.uint8], at: Int, end: Int, layer: Int, row: Any) -> tuple[Int, Int]:
    """One step towards IP or ARP."""
    if layer == ETHERNET:
        return _ethernet(data, at, end, row)
    if layer in (0x8100, 0x88A8, 0x9100, 0x9200):
        if end - at < 4:
            return -1 - _TRUNCATED, 0
        tags = (np.int64(row["vlan"]) << 12) | (u16(data, at) & 0xFFF)
        row["vlan"] = tags & 0xFFFFFF
        return at + 4, _type_or_length(u16(data, at + 2))
    if layer == IP:
        if end - at < 1:
            return -1 - _TRUNCATED, 0
        return _by_version(data, at)
    if layer == PPP:
        return _ppp(data, at, end)
    if layer == _PPPOE:
        if end - at < 6:
            return -1 - _TRUNCATED, 0
        if u16(data, at) != 0x1100:  # version 1, type 1, a session's data (RFC 2516)
            return -1 - _NOT_IP, 0
        return at + 6, PPP
    if layer == MPLS or layer == MPLS_MULTICAST:
        return _labels(data, at, end)
    if layer == _LLC:
        return _llc(data, at, end)
    if layer == _HDLC:
        if end - at < 4:
            return -1 - _TRUNCATED, 0
        return at + 4, u16(data, at + 2)
    if layer == _WIFI or layer == _WIFI_PADDED:
        return skip_wifi(data, at, end, layer == _WIFI_PADDED, row), _LLC
    if layer == _VN_TAG:
        if end - at < 6:
            return -1 - _TRUNCATED, 0
        return at + 6, _type_or_length(u16(data, at + 4))
    if layer == CISCO_METADATA:
        if end - at < 8:
            return -1 - _TRUNCATED, 0
        return at + 8, _type_or_length(u16(data, at + 6))
    if layer == _BACKBONE:
        return at + 4, ETHERNET
    if layer == _MACSEC:
        return -1 - _ENCRYPTED, 0
    return -1 - _NOT_IP, 0


@compiled
def _type_or_length(value: Int) -> Int:
    """IEEE 802.3: up to 1500 it is a length, and LLC follows."""
    return _LLC if value <= _LARGEST_8023_LENGTH else value


@compiled
def _by_version(data: NDArray[np.uint8], at: Int) -> tuple[Int, Int]:
    version = u8(data, at) >> 4
    if version == 4:
        return at, IPV4
    if version == 6:
        return at, IPV6
    return -1 - _NOT_IP, 0


@compiled
def _linux_cooked(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> tuple[Int, Int]:
    if end - at < 16:
        return -1 - _TRUNCATED, 0
    if u16(data, at + 4) == 6:
        row["src_mac"] = u48(data, at + 6)
    protocol = u16(data, at + 14)
    return at + 16, _LLC if protocol == 4 else protocol


@compiled
def _linux_cooked_2(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> tuple[Int, Int]:
    if end - at < 20:
        return -1 - _TRUNCATED, 0
    if u8(data, at + 11) == 6:
        row["src_mac"] = u48(data, at + 12)
    protocol = u16(data, at)
    return at + 20, _LLC if protocol == 4 else protocol


@compiled
def _ppp(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """RFC 1661, 1662: address and control may be left out, the protocol be one byte."""
    if end - at >= 2 and u16(data, at) == 0xFF03:
        at += 2
    if end - at < 2:
        return -1 - _TRUNCATED, 0
    protocol = u8(data, at)
    size: Int = 1
    if protocol & 1 == 0:
        protocol = u16(data, at)
        size = 2
    if protocol == 0x0021:
        return at + size, IPV4
    if protocol == 0x0057:
        return at + size, IPV6
    if protocol == 0x0281 or protocol == 0x0283:
        return at + size, MPLS
    return -1 - _NOT_IP, 0


@compiled
def _labels(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """MPLS (RFC 3032); below the last label IP, or Ethernet behind a control word (RFC 4448)."""
    for _ in range(_MAX_LABELS):
        if end - at < 5:
            return -1 - _TRUNCATED, 0
        last = u8(data, at + 2) & 1
        at += 4
        if last:
            if u8(data, at) >> 4 == 0:
                return at + 4, ETHERNET
            return _by_version(data, at)
    return -1 - _BAD_HEADER, 0


@compiled
def _llc(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """IEEE 802.2; an ethertype follows where SNAP says so (RFC 1042)."""
    if end - at < 8:
        return -1 - _NOT_IP, 0
    snap = u16(data, at) == 0xAAAA and u8(data, at + 2) == 3 and u16(data, at + 3) == 0
    if snap and u8(data, at + 5) in (0x00, 0xF8):
        return at + 8, u16(data, at + 6)
    return -1 - _NOT_IP, 0


@compiled
def _frame_relay(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """RFC 2427, or Cisco's way: an ethertype at once."""
    for _ in range(4):  # the address's last byte has its lowest bit set (ITU-T Q.922)
        if end - at < 1:
            return -1 - _TRUNCATED, 0
        at += 1
        if u8(data, at - 1) & 1:
            break
    if u8(data, at - 1) & 1 == 0:
        return -1 - _BAD_HEADER, 0
    if end - at < 2:
        return -1 - _TRUNCATED, 0
    if u8(data, at) != 3:  # no unnumbered information: Cisco
        return at + 2, u16(data, at)
    if u8(data, at + 1) == 0xCC:
        return at + 2, IPV4
    if u8(data, at + 1) == 0x8E:
        return at + 2, IPV6
    if end - at < 8:
        return -1 - _NOT_IP, 0
    # A byte of padding, then SNAP without an organisation.
    if u16(data, at + 1) == 0x0080 and u16(data, at + 3) == 0 and u8(data, at + 5) == 0:
        return at + 8, u16(data, at + 6)
    return -1 - _NOT_IP, 0


@compiled
def _per_packet_information(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """PPI: the receiver's notes, and the link type of what follows."""
    if end - at < 8:
        return -1 - _TRUNCATED, 0
    size, link_type = u16_little(data, at + 2), u16_little(data, at + 4)
    if size < 8:
        return -1 - _BAD_HEADER, 0
    if link_type == 1:
        return at + size, ETHERNET
    if link_type == 105:
        return at + size, _WIFI
    return -1 - _LINK_TYPE, 0


@compiled
def _netfilter_log(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """Attributes in the byte order of the machine that logged; one of them is the packet."""
    at += 4
    if end - at < 4:
        return -1 - _TRUNCATED, 0
    # Nothing says which order: the first attribute must fit, and is short.
    big = u16_little(data, at) > end - at and u16(data, at) <= end - at
    for _ in range(_MAX_ATTRIBUTES):
        if end - at < 4:
            return -1 - (_NOT_IP if end == at else _TRUNCATED), 0
        size = u16(data, at) if big else u16_little(data, at)
        kind = u16(data, at + 2) if big else u16_little(data, at + 2)
        if size < 4:
            return -1 - _BAD_HEADER, 0
        if kind & 0x7FFF == 9:  # NFULA_PAYLOAD
            return at + 4, IP
        at += (size + 3) & ~3
    return -1 - _NOT_IP, 0

"""Packets that carry packets: where the inner one begins.

A tunnel is entered only where its header is plausible in every field that has but few right
values; what runs on a tunnel's port and is none stays what it is.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import TCP, UDP, PacketKind
from compiled import Int, compiled
from packets.fields import u8, u16, u32
from packets.link_layer import (
    CISCO_METADATA,
    ETHERNET,
    IP,
    IPV4,
    IPV6,
    MPLS,
    MPLS_MULTICAST,
    PPP,
)

__all__ = ["TUNNELS", "inside", "may_carry"]

TUNNELS: Final = ("gre", "ip_in_ip", "vxlan", "geneve", "gtp", "teredo")
"""What carried the packets that are judged by their inside, in the order of the counters."""

_GRE: Final = TUNNELS.index("gre")
_IP_IN_IP: Final = TUNNELS.index("ip_in_ip")
_VXLAN: Final = TUNNELS.index("vxlan")
_GENEVE: Final = TUNNELS.index("geneve")
_GTP: Final = TUNNELS.index("gtp")
_TEREDO: Final = TUNNELS.index("teredo")
_NONE: Final = -1

_UDP_HEADER: Final = 8
_KIND_FLOW: Final = int(PacketKind.FLOW)
_MAX_GTP_EXTENSIONS: Final = 8


@compiled
def may_carry(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> bool:
    """Whether `inside` is worth asking: said of every packet, so it looks at little."""
    protocol = row["protocol"]
    if protocol == TCP:
        return False
    if protocol == UDP:
        if end - at < 16:
            return False
        target, source = row["dst_port"], row["src_port"]
        if target == 2152 or source == 2152 or target == 3544 or source == 3544:
            return True
        if target == 4789 or target == 8472 or target == 4790 or target == 6081:
            return True
        return bool(u8(data, at + _UDP_HEADER) >> 4 == 6)
    if protocol == 47 or protocol == 4 or protocol == 41 or protocol == 97 or protocol == 137:
        return bool(row["kind"] == _KIND_FLOW)
    return False


@compiled
def inside(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> tuple[Int, Int, Int, Int]:
    """What the IP payload at `at` carries: (its place, its layer, its network number, tunnel).

    The tunnel is -1 where it carries no packet. row: the outer packet.
    """
    protocol = row["protocol"]
    if protocol == UDP:
        return _inside_udp(data, at + _UDP_HEADER, end, row)
    if protocol == 47:
        return _inside_gre(data, at, end)
    if protocol == 4:
        return at, IPV4, 0, _IP_IN_IP
    if protocol == 41:
        return at, IPV6, 0, _IP_IN_IP
    if protocol == 97 and end - at >= 2 and u16(data, at) == 0x3000:  # RFC 3378
        return at + 2, ETHERNET, 0, _IP_IN_IP
    if protocol == 137:
        return at, MPLS, 0, _IP_IN_IP
    return 0, 0, 0, _NONE


@compiled
def _inside_udp(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> tuple[Int, Int, Int, Int]:
    target, source = np.int64(row["dst_port"]), np.int64(row["src_port"])
    if end - at < 8:
        return 0, 0, 0, _NONE
    if target == 4789 or target == 8472:  # RFC 7348; Linux's own number
        # One flag, perhaps a group policy; the last byte is reserved.
        if u8(data, at) & 0x7F == 0x08 and u8(data, at + 7) == 0:
            return at + 8, ETHERNET, u32(data, at + 4) >> 8, _VXLAN
    elif target == 4790:  # VXLAN-GPE: the header says what it carries
        layer = _carried_by_gpe(u8(data, at + 3))
        if u8(data, at) & 0x3E == 0x0C and u8(data, at + 7) == 0 and layer:
            return at + 8, layer, u32(data, at + 4) >> 8, _VXLAN
    elif target == 6081:  # RFC 8926
        layer = _carried(u16(data, at + 2))
        reserved = (u8(data, at) >> 6) | (u8(data, at + 1) & 0x3F) | u8(data, at + 7)
        if reserved == 0 and layer:
            options = (u8(data, at) & 0x3F) * 4
            return at + 8 + options, layer, u32(data, at + 4) >> 8, _GENEVE
    elif target == 2152 or source == 2152:
        return _inside_gtp(data, at, end, row)
    else:
        return _inside_teredo(data, at, end, np.int64(row["payload"]), target, source)
    return 0, 0, 0, _NONE


@compiled
def _carried_by_gpe(protocol: Int) -> Int:
    if protocol == 1:
        return IPV4
    if protocol == 2:
        return IPV6
    return ETHERNET if protocol == 3 else 0


@compiled
def _carried(ethertype: Int) -> Int:
    """The layer of what a header with an ethertype carries, 0 for what is no packet."""
    if ethertype == 0x6558:
        return ETHERNET
    if ethertype in (IPV4, IPV6, MPLS, MPLS_MULTICAST):
        return ethertype
    return 0


@compiled
def _inside_gre(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int, Int, Int]:
    """RFC 2784 and 2890; enhanced for PPTP (RFC 2637); ERSPAN; WCCP."""
    if end - at < 4:
        return 0, 0, 0, _NONE
    flags, kind = u16(data, at), u16(data, at + 2)
    sequence = (flags >> 12) & 1
    if flags & 7 == 1:
        if kind != 0x880B or flags & 0xFF7F != 0x3001:  # a key and data, no other option
            return 0, 0, 0, _NONE
        return at + 12 + 4 * ((flags >> 7) & 1), PPP, 0, _GRE
    if flags & 0x4FFF:  # a version unknown, source routing, or reserved bits
        return 0, 0, 0, _NONE
    at += 4 + 4 * ((flags >> 15) & 1) + 4 * ((flags >> 13) & 1) + 4 * sequence
    if kind == 0x88BE:  # ERSPAN: type I has no header of its own, type II one
        return at + 8 * sequence, ETHERNET, 0, _GRE
    if kind == 0x22EB:  # type III
        if end - at < 12:
            return 0, 0, 0, _NONE
        return at + 12 + 8 * (u8(data, at + 11) & 1), ETHERNET, 0, _GRE
    if kind == 0x883E:
        if end - at < 1:
            return 0, 0, 0, _NONE
        return at + (0 if u8(data, at) >> 4 == 4 else 4), IPV4, 0, _GRE
    if kind == CISCO_METADATA:  # here the ethertype stands before the tag, not behind it
        if end - at < 8:
            return 0, 0, 0, _NONE
        kind = u16(data, at)
        at += 8
    layer = _carried(kind)
    return at, layer, 0, _GRE if layer else _NONE


@compiled
def _inside_gtp(data: NDArray[np.uint8], at: Int, end: Int, row: Any) -> tuple[Int, Int, Int, Int]:
    """User data of GTP version 1 (3GPP TS 29.281 §5)."""
    flags = u8(data, at)
    length = u16(data, at + 2)  # some senders leave bytes behind it
    if length < 20 or (length + 8 > np.int64(row["payload"]) and row["fragment"] == 0):
        return 0, 0, 0, _NONE
    if flags & 0xF8 != 0x30 or u8(data, at + 1) != 0xFF:
        return 0, 0, 0, _NONE
    at += 8
    if flags & 7:
        if end - at < 4:
            return 0, 0, 0, _NONE
        following = u8(data, at + 3) if flags & 4 else 0
        at += 4
        for _ in range(_MAX_GTP_EXTENSIONS):
            if following == 0:
                break
            if end - at < 1:
                return 0, 0, 0, _NONE
            size = u8(data, at) * 4
            if size == 0 or end - at < size:
                return 0, 0, 0, _NONE
            following = u8(data, at + size - 1)
            at += size
        if following:
            return 0, 0, 0, _NONE
    return at, IP, 0, _GTP


@compiled
def _inside_teredo(
    data: NDArray[np.uint8], at: Int, end: Int, size: Int, target: Int, source: Int
) -> tuple[Int, Int, Int, Int]:
    """IPv6 (RFC 4380): on its own port behind up to two indications, between clients on any.

    size: bytes of the UDP payload. Any client may draw port 3544 for something else, so here as
    there the addresses and the length must be right.
    """
    own = target == 3544 or source == 3544
    if own and u16(data, at) == 1:
        indication = 13 + u8(data, at + 2) + u8(data, at + 3)
        at += indication
        size -= indication
    if own and end - at >= 8 and u16(data, at) == 0:
        at += 8
        size -= 8
    if end - at < 40 or u8(data, at) >> 4 != 6:
        return 0, 0, 0, _NONE
    length = u16(data, at + 4) + 40
    # Clients may add what belongs to no packet (RFC 6081), and first ask for a prefix.
    if length != size and not (own and length < size):
        return 0, 0, 0, _NONE
    asks = own and u16(data, at + 8) == 0xFE80
    if asks or u32(data, at + 8) == 0x20010000 or u32(data, at + 24) == 0x20010000:
        return at, IPV6, 0, _TEREDO
    return 0, 0, 0, _NONE

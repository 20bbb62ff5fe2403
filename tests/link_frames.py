"""One frame of every link type and tunnel, around the same TCP segment, made byte by byte."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from tests.frames import SYN, ethernet, ipv4, ipv6, tcp, udp

__all__ = ["INNER_PORTS", "LINKS", "TUNNELLED", "Link", "Tunnelled"]

INNER_PORTS: Final = (51000, 443)
_V4: Final = ipv4("10.0.0.1", "10.0.0.2", 6, tcp(*INNER_PORTS, SYN, 5))
_V6: Final = ipv6("2001:db8::1", "2001:db8::2", 6, tcp(*INNER_PORTS, SYN, 5))
_IN_ETHERNET: Final = ethernet(_V4)
_SNAP: Final = bytes.fromhex("aaaa030000000800")
_SENDER, _RECEIVER, _STATION = (bytes.fromhex(f"0200000000{n}") for n in ("0a", "0b", "0c"))


class Link(NamedTuple):
    """A frame; macs: (source, destination) that it must show, 0 where it shows none."""

    name: str
    link_type: int
    frame: bytes
    macs: tuple[int, int] = (0, 0)
    vlan: int = 0


class Tunnelled(NamedTuple):
    """A frame whose inside is the packet; network: what must tell one tenant from another."""

    name: str
    kind: str
    frame: bytes
    network: int = 0


def _wifi(
    flags: int, *, quality: bytes = b"", padding: bytes = b"", inside: bytes = _SNAP + _V4
) -> bytes:
    kind = 0x88 if quality else 0x08
    addresses = {
        3: _STATION + _STATION + _RECEIVER,  # between access points; the sender comes last
        1: _STATION + _SENDER + _RECEIVER,  # to the network
        2: _RECEIVER + _STATION + _SENDER,  # from it
        0: _RECEIVER + _SENDER + _STATION,
    }[flags & 3]
    last = _SENDER if flags & 3 == 3 else b""
    header = bytes([kind, flags, 0, 0]) + addresses + bytes(2) + last + quality
    return header + padding + inside


def _radiotap(frame: bytes, *, padded: bool = False) -> bytes:
    flags = 0x20 if padded else 0
    # A time stamp and the flags are present, and a second word of what is.
    head = struct.pack("<BBHII4xQB", 0, 0, 25, 0x80000003, 0, 0, flags)
    return head + frame


def _attribute(kind: int, value: bytes, order: str = "<") -> bytes:
    size = 4 + len(value)
    return struct.pack(order + "HH", size, kind) + value + bytes(-size % 4)


_LAN: Final = (0x02000000000A, 0x02000000000B)
_LABELS: Final = struct.pack("!II", 16 << 12 | 64, 17 << 12 | 1 << 8 | 64)
_NFLOG: Final = bytes([2, 0, 0, 5]) + _attribute(10, b"log\0") + _attribute(9, _V4)
_NFLOG_BIG: Final = bytes([2, 0, 0, 5]) + _attribute(10, b"log\0", ">") + _attribute(9, _V4, ">")
_SEVERAL: Final = (  # an A-MSDU: each packet behind addresses of its own
    _RECEIVER + _SENDER + struct.pack("!H", len(_SNAP + _V4)) + _SNAP + _V4 + bytes(2)
    + _SENDER + _RECEIVER + struct.pack("!H", len(_SNAP + _V4)) + _SNAP + _V4
)  # fmt: skip

LINKS: Final = (
    Link("loopback, little-endian", 0, struct.pack("<I", 2) + _V4),
    Link("loopback, big-endian", 0, struct.pack(">I", 30) + _V6),
    Link("OpenBSD loopback", 108, struct.pack(">I", 2) + _V4),
    Link("Ethernet", 1, _IN_ETHERNET, _LAN),
    Link("VLAN", 1, ethernet(_V4, tags=(7,)), _LAN, vlan=7),
    Link("QinQ", 1, ethernet(_V4, tags=(7, 9)), _LAN, vlan=7 << 12 | 9),
    *(Link(f"tag {kind:#x}", 1, ethernet(b"\0\x07\x08\0" + _V4, kind), _LAN, vlan=7)
      for kind in (0x88A8, 0x9100, 0x9200)),
    Link("LLC and SNAP", 1, ethernet(_SNAP + _V4, 8 + len(_V4)), _LAN),
    Link("VN-Tag", 1, ethernet(bytes(4) + b"\x08\0" + _V4, 0x8926), _LAN),
    Link("Cisco metadata", 1, ethernet(bytes(6) + b"\x08\0" + _V4, 0x8909), _LAN),
    Link("MAC in MAC", 1, ethernet(bytes(4) + _IN_ETHERNET, 0x88E7), _LAN),
    Link("MPLS, IPv4", 1, ethernet(_LABELS + _V4, 0x8847), _LAN),
    Link("MPLS, IPv6", 1, ethernet(_LABELS + _V6, 0x8848), _LAN),
    Link("MPLS, Ethernet", 1, ethernet(_LABELS + bytes(4) + _IN_ETHERNET, 0x8847), _LAN),
    Link("PPPoE", 1, ethernet(b"\x11\0\0\x01\0\0\0\x21" + _V4, 0x8864), _LAN),
    Link("PPPoE, short protocol", 1, ethernet(b"\x11\0\0\x01\0\0\x57" + _V6, 0x8864), _LAN),
    Link("PPP", 9, b"\0\x21" + _V4),
    Link("PPP with address", 9, b"\xff\x03\0\x57" + _V6),
    Link("PPP, serial", 50, b"\xff\x03\0\x21" + _V4),
    Link("HDLC, serial", 50, b"\x0f\0\x08\0" + _V4),
    Link("PPPoE as link type", 51, b"\x11\0\0\x01\0\0\0\x21" + _V4),
    Link("pppd", 166, b"\x01\x03\0\x21" + _V4),
    Link("PPP with direction", 204, b"\x01\xff\x03\0\x21" + _V4),
    Link("MPLS in PPP", 9, b"\x02\x81" + _LABELS + _V4),
    Link("HDLC", 104, b"\x0f\0\x08\0" + _V4),
    Link("HDLC with direction", 205, b"\x01\x0f\0\x86\xdd" + _V6),
    *(Link(f"raw IP {number}", number, _V4) for number in (12, 14, 101, 228)),
    Link("raw IP 229", 229, _V6),
    Link("Linux cooked", 113, struct.pack("!HHH", 0, 1, 6) + _SENDER + b"\0\0\x08\0" + _V4,
         (0x02000000000A, 0)),
    Link("Linux cooked 2", 276, struct.pack("!HHIHBB", 0x86DD, 0, 1, 1, 0, 6) + _SENDER + bytes(2)
         + _V6, (0x02000000000A, 0)),
    Link("Wi-Fi, to the network", 105, _wifi(1), _LAN),
    Link("Wi-Fi, from the network", 105, _wifi(2), _LAN),
    Link("Wi-Fi with quality", 105, _wifi(0, quality=bytes(2)), _LAN),
    Link("Wi-Fi with HT control", 105, _wifi(0x81, quality=bytes(6)), _LAN),
    Link("Wi-Fi between access points", 105, _wifi(3), _LAN),
    Link("Wi-Fi between access points, quality", 105, _wifi(3, quality=bytes(2)), _LAN),
    Link("Wi-Fi, several in one", 105, _wifi(2, quality=b"\x80\0", inside=_SEVERAL), _LAN),
    Link("radiotap", 127, _radiotap(_wifi(1)), _LAN),
    Link("radiotap, padded", 127,
         _radiotap(_wifi(1, quality=bytes(2), padding=bytes(2)), padded=True), _LAN),
    Link("PPI, Wi-Fi", 192, struct.pack("<BBHI", 0, 0, 12, 105) + bytes(4) + _wifi(1), _LAN),
    Link("PPI, Ethernet", 192, struct.pack("<BBHI", 0, 0, 8, 1) + _IN_ETHERNET, _LAN),
    Link("Prism", 119, b"\x44\0\0\0\x90\0\0\0" + bytes(136) + _wifi(1), _LAN),
    Link("AVS", 163, struct.pack("!II", 0x80211001, 64) + bytes(56) + _wifi(1), _LAN),
    Link("Frame Relay", 107, b"\x18\x41\x03\xcc" + _V4),
    Link("Frame Relay, IPv6, long address", 107, b"\x18\x40\x40\x41\x03\x8e" + _V6),
    Link("Frame Relay, SNAP", 107, b"\x18\x41\x03\0\x80\0\0\0\x08\0" + _V4),
    Link("Frame Relay, Cisco", 107, b"\x18\x41\x08\0" + _V4),
    Link("netfilter log", 239, _NFLOG),
    Link("netfilter log, big-endian", 239, _NFLOG_BIG),
    Link("packet filter log", 117, bytes([61]) + bytes(63) + _V4),
)  # fmt: skip


def _gre(flags: int, kind: int, options: bytes, inside: bytes) -> bytes:
    header = struct.pack("!HH", flags, kind) + options
    return ethernet(ipv4("192.0.2.1", "192.0.2.2", 47, header + inside))


def _by_udp(port: int, payload: bytes, source: int = 40000) -> bytes:
    datagram = udp(source, port, 0)[:4] + struct.pack("!HH", 8 + len(payload), 0) + payload
    return ethernet(ipv4("192.0.2.1", "192.0.2.2", 17, datagram))


def _outer(protocol: int, payload: bytes) -> bytes:
    return ethernet(ipv4("192.0.2.1", "192.0.2.2", protocol, payload))


_NETWORK: Final = 0x123456
_VNI: Final = _NETWORK.to_bytes(3, "big") + b"\0"
_TEREDO_V6: Final = ipv6("2001::1", "2001:db8::2", 6, tcp(*INNER_PORTS, SYN, 5))
_GTP_EXTENDED: Final = (
    struct.pack("!BBHI", 0x34, 0xFF, 8 + len(_V6), 1) + b"\0\0\0\x85" + b"\x01\0\0\0"
)

TUNNELLED: Final = (
    Tunnelled("GRE", "gre", _gre(0, 0x0800, b"", _V4)),
    Tunnelled("GRE, checksum, key, sequence", "gre", _gre(0xB000, 0x86DD, bytes(12), _V6)),
    Tunnelled("GRE, Ethernet", "gre", _gre(0x2000, 0x6558, bytes(4), _IN_ETHERNET)),
    Tunnelled("GRE, MPLS", "gre", _gre(0, 0x8847, b"", _LABELS + _V4)),
    Tunnelled("GRE, Cisco metadata", "gre", _gre(0, 0x8909, b"\x08\0" + bytes(6), _V4)),
    Tunnelled("ERSPAN I", "gre", _gre(0, 0x88BE, b"", _IN_ETHERNET)),
    Tunnelled("ERSPAN II", "gre", _gre(0x1000, 0x88BE, bytes(12), _IN_ETHERNET)),
    Tunnelled("ERSPAN III", "gre", _gre(0x1000, 0x22EB, bytes(16), _IN_ETHERNET)),
    Tunnelled("ERSPAN III, platform", "gre",
              _gre(0x1000, 0x22EB, bytes(15) + b"\x01" + bytes(8), _IN_ETHERNET)),
    Tunnelled("WCCP", "gre", _gre(0, 0x883E, bytes(4), _V4)),
    Tunnelled("PPTP", "gre", _gre(0x3081, 0x880B, bytes(12), b"\xff\x03\0\x21" + _V4)),
    Tunnelled("IP in IP", "ip_in_ip", _outer(4, _V4)),
    Tunnelled("6in4", "ip_in_ip", _outer(41, _V6)),
    Tunnelled("EtherIP", "ip_in_ip", _outer(97, b"\x30\0" + _IN_ETHERNET)),
    Tunnelled("MPLS in IP", "ip_in_ip", _outer(137, _LABELS + _V4)),
    Tunnelled("VXLAN", "vxlan", _by_udp(4789, b"\x08\0\0\0" + _VNI + _IN_ETHERNET), _NETWORK),
    Tunnelled("VXLAN, Linux", "vxlan", _by_udp(8472, b"\x08\0\0\0" + _VNI + _IN_ETHERNET),
              _NETWORK),
    Tunnelled("VXLAN, group policy", "vxlan",
              _by_udp(4789, b"\x88\0\0\x07" + _VNI + _IN_ETHERNET), _NETWORK),
    Tunnelled("VXLAN-GPE, Ethernet", "vxlan",
              _by_udp(4790, b"\x0c\0\0\x03" + _VNI + _IN_ETHERNET), _NETWORK),
    Tunnelled("VXLAN-GPE", "vxlan", _by_udp(4790, b"\x0c\0\0\x01" + _VNI + _V4), _NETWORK),
    Tunnelled("Geneve", "geneve",
              _by_udp(6081, b"\x02\0\x65\x58" + _VNI + bytes(8) + _IN_ETHERNET), _NETWORK),
    Tunnelled("GTP", "gtp",
              _by_udp(2152, struct.pack("!BBHI", 0x30, 0xFF, len(_V4), 1) + _V4)),
    Tunnelled("GTP with a trailer", "gtp",
              _by_udp(2152, struct.pack("!BBHI", 0x30, 0xFF, len(_V4), 1) + _V4 + bytes(28))),
    Tunnelled("GTP, extended", "gtp", _by_udp(2152, _GTP_EXTENDED + _V6, source=2152)),
    Tunnelled("Teredo", "teredo", _by_udp(3544, _TEREDO_V6)),
    Tunnelled("Teredo with a trailer", "teredo",
              _by_udp(3544, _TEREDO_V6 + b"\x04\x04" + bytes(4))),
    Tunnelled("Teredo, indications", "teredo",
              _by_udp(40000, b"\0\1\0\0" + bytes(9) + bytes(8) + _TEREDO_V6, source=3544)),
    Tunnelled("Teredo, any port", "teredo", _by_udp(3797, _TEREDO_V6)),
)  # fmt: skip

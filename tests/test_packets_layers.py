"""What stands around a packet is looked through: link types, labels, tunnels, any IP protocol."""

from __future__ import annotations

import random
import struct

import pytest

from batches import UNREAD_REASONS, PacketKind
from flow_tracker import FlowTracker
from packets import TUNNELS, Decoder
from tests.frames import ACK, SYN, arp, at, batch_of, ethernet, ipv4, ipv6, tcp, udp
from tests.link_frames import INNER_PORTS, LINKS, TUNNELLED, Link, Tunnelled

INSIDE = bytes.fromhex("02000000000d02000000000e810000090800") + ipv4(
    "10.0.0.1", "10.0.0.2", 6, tcp(*INNER_PORTS, SYN, 5)
)
"""An Ethernet frame with other addresses than those of tests.frames, and a tag."""


def decoder_of(*frames: bytes, link_type: int = 1) -> tuple[Decoder, list[dict[str, int]]]:
    """The decoder after these frames, and the rows it made of them."""
    decoder = Decoder()
    batch = decoder.decode(batch_of([at(i, frame) for i, frame in enumerate(frames)], link_type))
    assert decoder.frames == len(frames) == decoder.packets + int(decoder.unread.sum())
    names = batch.rows.dtype.names
    assert names is not None
    return decoder, [{name: int(row[name]) for name in names} for row in batch.rows]


def tunnels(decoder: Decoder) -> dict[str, int]:
    return {name: int(n) for name, n in zip(TUNNELS, decoder.tunnels, strict=True) if n}


def unread(decoder: Decoder) -> dict[str, int]:
    return {name: int(n) for name, n in zip(UNREAD_REASONS, decoder.unread, strict=True) if n}


def assert_is_the_packet(row: dict[str, int]) -> None:
    assert (row["src_port"], row["dst_port"], row["protocol"]) == (*INNER_PORTS, 6)
    assert (row["payload"], row["tcp_flags"], row["ttl"]) == (5, SYN, 64)
    assert row["src_lo"] in (0x0A000001, 1)
    assert row["kind"] == PacketKind.FLOW


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.name)
def test_every_link_type(link: Link) -> None:
    decoder, rows = decoder_of(link.frame, link_type=link.link_type)
    assert_is_the_packet(rows[0])
    assert (rows[0]["src_mac"], rows[0]["dst_mac"]) == link.macs
    assert rows[0]["vlan"] == link.vlan
    assert tunnels(decoder) == {}


@pytest.mark.parametrize("tunnel", TUNNELLED, ids=lambda tunnel: tunnel.name)
def test_the_packet_in_a_tunnel_is_judged_and_the_tunnel_counted(tunnel: Tunnelled) -> None:
    decoder, rows = decoder_of(tunnel.frame)
    assert_is_the_packet(rows[0])
    assert tunnels(decoder) == {tunnel.kind: 1}
    assert rows[0]["tunnel"] == tunnel.network
    assert rows[0]["wire_length"] == len(tunnel.frame)


@pytest.mark.parametrize("tunnel", TUNNELLED, ids=lambda tunnel: tunnel.name)
def test_a_cut_inside_leaves_the_outer_packet(tunnel: Tunnelled) -> None:
    """Wherever a snap length cuts, the frame stays one packet: inner, outer, or unread."""
    outer_headers = 14 + 20 + 20
    for size in range(outer_headers, len(tunnel.frame)):
        batch = batch_of([at(0, tunnel.frame)])
        batch.captured[0] = size
        decoder = Decoder()
        rows = decoder.decode(batch).rows
        assert len(rows) == 1
        assert rows[0]["src_lo"] in (0xC0000201, 0x0A000001, 1)


@pytest.mark.parametrize(
    ("payload", "port", "vlan", "macs"),
    [
        # An Ethernet frame inside has its own addresses and tags ...
        (b"\x08\0\0\0\0\0\5\0" + INSIDE, 4789, 9, (0x02000000000E, 0x02000000000D)),
        # ... where there is none the link's tag holds, but not its addresses.
        (b"\x0c\0\0\1\0\0\5\0" + INSIDE[18:], 4790, 3, (0, 0)),
    ],
)
def test_tags_and_addresses_are_those_next_to_the_packet(
    payload: bytes, port: int, vlan: int, macs: tuple[int, int]
) -> None:
    datagram = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    _, rows = decoder_of(ethernet(ipv4("192.0.2.1", "192.0.2.2", 17, datagram), tags=(3,)))
    assert_is_the_packet(rows[0])
    assert rows[0]["vlan"] == vlan
    assert (rows[0]["src_mac"], rows[0]["dst_mac"]) == macs
    assert rows[0]["tunnel"] == 5


def test_tunnels_in_tunnels_are_entered_up_to_a_bound() -> None:
    packet = ipv4("10.0.0.1", "10.0.0.2", 6, tcp(*INNER_PORTS, SYN, 5))
    for _ in range(3):
        packet = ipv4("192.0.2.1", "192.0.2.2", 4, packet)
    decoder, rows = decoder_of(ethernet(packet))
    assert_is_the_packet(rows[0])
    assert tunnels(decoder) == {"ip_in_ip": 3}
    for _ in range(30):
        packet = ipv4("192.0.2.1", "192.0.2.2", 4, packet)
    _, rows = decoder_of(ethernet(packet))
    assert rows[0]["protocol"] == 4


def test_a_later_fragment_in_a_tunnel_is_one_wherever_it_comes() -> None:
    later = ipv4("10.0.0.1", "10.0.0.2", 17, udp(1, 2, 3), fragment=9)
    frame = ethernet(ipv4("192.0.2.1", "192.0.2.2", 4, later))
    whole = ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(1, 2, 3)))
    decoder, rows = decoder_of(whole, frame, whole)
    assert unread(decoder) == {"fragment": 1}
    assert [row["kind"] for row in rows] == [PacketKind.FLOW] * 2


@pytest.mark.parametrize(
    ("port", "payload"),
    [
        (4789, bytes(60)),  # no VXLAN flag
        (4789, b"\x08\0\0\0\0\0\1\0" + bytes(60)),  # not IP inside
        (6081, b"\xff" * 60),
        (2152, b"\x32\x01\0\4" + bytes(8)),  # an echo of GTP
        (2152, b"\x30\xff\0\0\0\0\0\1" + INSIDE[18:]),  # GTP without content
        (2152, b"\x30\xff\1\0\0\0\0\1" + INSIDE[18:]),  # and with more than there is
        (3544, b"\x60" + bytes(30)),
        (3544, ipv6("2001:db8::1", "2001:db8::2", 6, tcp(*INNER_PORTS, SYN))),  # no client's
        (3544, ipv6("2001::1", "2001:db8::2", 6, tcp(*INNER_PORTS, SYN))[:-1]),  # too short
        (9000, b"\x60" + bytes(60)),
    ],
)
def test_what_runs_on_the_port_of_a_tunnel_and_is_none_stays_udp(port: int, payload: bytes) -> None:
    datagram = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    decoder, rows = decoder_of(ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, datagram)))
    assert (rows[0]["protocol"], rows[0]["dst_port"], rows[0]["payload"]) == (
        17,
        port,
        len(payload),
    )
    assert tunnels(decoder) == {}


@pytest.mark.parametrize("port", [4789, 8472, 4790, 6081, 2152, 3544, 40000])
def test_anything_on_the_port_of_a_tunnel_stays_udp(port: int) -> None:
    """A client may draw the port for a question to somebody else; the answer is as random."""
    rng = random.Random(port)
    frames = []
    for number in range(3000):
        payload = rng.randbytes(rng.randint(8, 200))
        ports = (port, 53) if number % 2 else (53, port)
        datagram = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
        frames.append(ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, datagram)))
    decoder, rows = decoder_of(*frames)
    assert (tunnels(decoder), unread(decoder)) == ({}, {})
    assert {row["protocol"] for row in rows} == {17}


def test_both_directions_of_a_tunnelled_conversation_are_one_flow() -> None:
    def vxlan(packet: bytes, source: int) -> bytes:
        payload = b"\x08\0\0\0\0\0\5\0" + ethernet(packet)
        datagram = struct.pack("!HHHH", source, 4789, 8 + len(payload), 0) + payload
        return ethernet(ipv4("192.0.2.1", "192.0.2.2", 17, datagram), tags=(3,))

    there = ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1000, 80, SYN))
    back = ipv4("10.0.0.2", "10.0.0.1", 6, tcp(80, 1000, SYN | ACK))
    decoder, tracker = Decoder(), FlowTracker(capacity=8)
    tracker.track(decoder.decode(batch_of([at(0, vxlan(there, 5555)), at(9, vxlan(back, 6666))])))
    flows = tracker.flush().rows
    assert flows["packets"].tolist() == [[1, 1]]


def test_arp_in_a_tunnel_is_arp() -> None:
    payload = b"\x08\0\0\0\0\0\5\0" + ethernet(arp(1, "10.0.0.1", "10.0.0.2"), 0x0806)
    datagram = struct.pack("!HHHH", 1, 4789, 8 + len(payload), 0) + payload
    _, rows = decoder_of(ethernet(ipv4("192.0.2.1", "192.0.2.2", 17, datagram)))
    assert (rows[0]["kind"], rows[0]["src_lo"]) == (PacketKind.ARP, 0x0A000001)


@pytest.mark.parametrize(
    ("protocol", "payload", "ports", "size"),
    [
        (132, struct.pack("!HHII", 36412, 38412, 7, 9) + bytes(30), (36412, 38412), 30),
        (33, struct.pack("!HHBBHI", 7, 9, 4, 0, 1, 1) + bytes(24), (7, 9), 20),
        (136, struct.pack("!HHHH", 7, 9, 8, 1) + bytes(20), (7, 9), 20),
        (50, bytes(48), (0, 0), 40),
        (59, bytes(4), (0, 0), 4),  # IPv6's "nothing follows"
        (135, b"\x3b\0\5\0" + bytes(4), (0, 0), 8),  # mobility
        (2, bytes(8), (0, 0), 8),
        (89, bytes(44), (0, 0), 44),
        (47, b"\0\0\0\0", (0, 0), 4),  # a keepalive that carries nothing
        (253, b"", (0, 0), 0),
    ],
)
def test_every_ip_protocol_makes_flows(
    protocol: int, payload: bytes, ports: tuple[int, int], size: int
) -> None:
    _, rows = decoder_of(
        ethernet(ipv4("10.0.0.1", "10.0.0.2", protocol, payload)),
        ethernet(ipv6("2001:db8::1", "2001:db8::2", protocol, payload), 0x86DD),
    )
    for row in rows:
        assert (row["src_port"], row["dst_port"], row["payload"]) == (*ports, size)
        assert row["protocol"] == protocol


def test_authentication_headers_are_passed_in_both_versions() -> None:
    segment = tcp(*INNER_PORTS, SYN, 5)
    header = struct.pack("!BBHII", 6, 4, 0, 1, 1) + bytes(12)
    _, rows = decoder_of(
        ethernet(ipv4("10.0.0.1", "10.0.0.2", 51, header + segment)),
        ethernet(ipv6("2001:db8::1", "2001:db8::2", 51, header + segment), 0x86DD),
    )
    assert [row["header_length"] for row in rows] == [20 + 24 + 20, 40 + 24 + 20]
    for row in rows:
        assert_is_the_packet(row)


@pytest.mark.parametrize("protocol", [0, 43, 60, 135, 139, 140])
def test_headers_before_the_transport_are_skipped(protocol: int) -> None:
    header = struct.pack("!BB", 6, 1) + bytes(14)
    packet = ipv6("2001:db8::1", "2001:db8::2", protocol, header + tcp(*INNER_PORTS, SYN, 5))
    _, rows = decoder_of(ethernet(packet, 0x86DD))
    assert_is_the_packet(rows[0])
    assert rows[0]["header_length"] == 40 + 16 + 20


@pytest.mark.parametrize(
    ("frame", "link_type", "reason"),
    [
        (ethernet(bytes(40), 0x88E5), 1, "encrypted"),
        (b"\x08\x41" + bytes(60), 105, "encrypted"),
        (b"\x48\x01" + bytes(60), 105, "not_ip"),  # Wi-Fi data without data
        (b"\x80\x00" + bytes(60), 105, "not_ip"),  # a beacon
        (ethernet(b"\x11\x09" + bytes(40), 0x8863), 1, "not_ip"),  # PPPoE discovery
        (ethernet(b"\x11\0\0\1\0\4\xc0\x21" + bytes(40), 0x8864), 1, "not_ip"),  # PPP's own talk
        (ethernet(b"\x42\x42\x03" + bytes(40), 43), 1, "not_ip"),  # spanning tree
        (ethernet(bytes(80), 0x8847), 1, "bad_header"),  # labels without end
        (bytes(12) + b"\x81\0\0\1" * 14 + bytes(9), 1, "bad_header"),  # tags without end
        (b"\0\0\x40\0" + bytes(8), 127, "truncated"),
        (b"\x01\0\x08\0" + bytes(8), 127, "bad_header"),
        (bytes([2, 0, 0, 5, 1, 0, 9, 0]) + bytes(20), 239, "bad_header"),
        (bytes([2, 0, 0, 5, 8, 0, 1, 0]) + bytes(4), 239, "not_ip"),  # logged without the packet
        (struct.pack("<BBHI", 0, 0, 8, 147) + bytes(40), 192, "link_type"),
        (b"\x18\x40\x40\x40" + bytes(40), 107, "bad_header"),  # an address without end
        (b"\x18\x41\x03\x81" + bytes(40), 107, "not_ip"),  # routers' own talk
        (bytes(64), 999, "link_type"),
    ],
)
def test_what_carries_no_packet_is_counted_by_reason(
    frame: bytes, link_type: int, reason: str
) -> None:
    decoder, _ = decoder_of(frame, link_type=link_type)
    assert unread(decoder) == {reason: 1}

"""Every frame ends in exactly one counter, and its fields are those on the wire."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import UNREAD_REASONS, PacketBatch, PacketKind
from packets import Decoder, decode_frames
from tests.frames import (
    ACK,
    SYN,
    arp,
    at,
    batch_of,
    ethernet,
    golden,
    icmp,
    ipv4,
    ipv6,
    tcp,
    udp,
)

TCP_FRAME = ethernet(ipv4("10.0.0.1", "10.0.0.2", 6, tcp(51000, 443, SYN, 5, 64240)))


def decoded(*frames: bytes, link_type: int = 1) -> PacketBatch:
    decoder = Decoder()
    batch = decoder.decode(batch_of([at(i, frame) for i, frame in enumerate(frames)], link_type))
    assert decoder.frames == len(frames) == len(batch) + int(batch.unread.sum())
    return batch


def reasons(batch: PacketBatch) -> dict[str, int]:
    return {name: int(n) for name, n in zip(UNREAD_REASONS, batch.unread, strict=True) if n}


def test_tcp_fields() -> None:
    row = decoded(TCP_FRAME).rows[0]
    assert (row["src_lo"], row["dst_lo"]) == (0x0A000001, 0x0A000002)
    assert (row["src_port"], row["dst_port"], row["protocol"]) == (51000, 443, 6)
    assert (row["payload"], row["header_length"], row["window"]) == (5, 40, 64240)
    assert (row["tcp_flags"], row["ttl"], row["ip_version"]) == (SYN, 64, 4)
    assert (row["src_mac"], row["dst_mac"]) == (0x02000000000A, 0x02000000000B)
    assert row["kind"] == PacketKind.FLOW


def test_length_ignores_the_padding_of_short_frames() -> None:
    bare = ethernet(ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, ACK)))
    row = decoded(bare + bytes(60 - len(bare))).rows[0]
    assert row["payload"] == 0
    assert row["wire_length"] == 60


def test_length_is_that_of_the_header_when_the_frame_is_cut() -> None:
    batch = batch_of([at(0, TCP_FRAME)])
    batch.captured[0] = 54
    assert Decoder().decode(batch).rows[0]["payload"] == 5


@pytest.mark.parametrize(
    ("tags", "vlan"), [((), 0), ((10,), 10), ((20, 10), 20 << 12 | 10), ((3, 2, 1), 2 << 12 | 1)]
)
def test_vlan_tags(tags: tuple[int, ...], vlan: int) -> None:
    frame = ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(1, 2, 3)), tags=tags)
    assert decoded(frame).rows[0]["vlan"] == vlan


def test_ipv6_with_extension_headers() -> None:
    options = bytes([6, 0]) + bytes(6)  # a hop-by-hop header; TCP follows
    row = decoded(
        ethernet(ipv6("fd00::1", "fd00::2", 0, options + tcp(1, 2, SYN, 9)), 0x86DD)
    ).rows[0]
    assert (row["src_hi"], row["src_lo"]) == (0xFD00 << 48, 1)
    assert (row["protocol"], row["payload"], row["header_length"]) == (6, 9, 68)


def test_icmp_and_arp() -> None:
    batch = decoded(
        ethernet(ipv4("10.0.0.1", "10.0.0.2", 1, icmp(8))),
        ethernet(arp(1, "10.0.0.1", "10.0.0.9"), 0x0806),
    )
    echo, request = batch.rows
    assert (echo["icmp_type"], echo["payload"], echo["src_port"]) == (8, 56, 0)
    assert request["kind"] == PacketKind.ARP
    assert (request["icmp_type"], request["dst_lo"]) == (1, 0x0A000009)


@pytest.mark.parametrize("link_type", [12, 101, 228])
def test_raw_ip(link_type: int) -> None:
    packet = ipv4("10.0.0.1", "10.0.0.2", 17, udp(53, 4000, 7))
    assert decoded(packet, link_type=link_type).rows[0]["payload"] == 7


def test_loopback_of_either_byte_order() -> None:
    packet = ipv4("127.0.0.1", "127.0.0.1", 17, udp(53, 4000, 7))
    batch = decoded(b"\x02\0\0\0" + packet, b"\0\0\0\x02" + packet, link_type=0)
    assert batch.rows["payload"].tolist() == [7, 7]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (TCP_FRAME[:13], "truncated"),
        (TCP_FRAME[:40], "truncated"),
        (ethernet(bytes(60), 0x88CC), "not_ip"),
        (ethernet(b"\x42" + bytes(39)), "bad_header"),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, 0)[:12] + bytes(8))), "bad_header"),
        (ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(1, 2, 3), fragment=1)), "fragment"),
    ],
)
def test_what_cannot_be_read_is_counted_by_reason(frame: bytes, reason: str) -> None:
    assert reasons(decoded(frame, TCP_FRAME)) == {reason: 1}


def test_a_link_type_nobody_knows() -> None:
    assert reasons(decoded(TCP_FRAME, link_type=147)) == {"link_type": 1}


@settings(max_examples=300, deadline=None)
@given(
    frame=st.sampled_from([frame for _, frame in golden()]),
    cut=st.integers(0, 60),
    flips=st.lists(st.tuples(st.integers(0, 53), st.integers(0, 255)), max_size=6),
    link_type=st.sampled_from([0, 1, 12, 101, 113, 276]),
)
def test_damaged_frames_never_read_past_their_end(
    frame: bytes, cut: int, flips: list[tuple[int, int]], link_type: int
) -> None:
    """The same frame before different bytes gives the same row: nothing behind it is read."""
    damaged = bytearray(frame)
    for place, value in flips:
        damaged[place] = value
    answers = []
    for filler in (b"\x00", b"\xff"):
        batch = batch_of([at(0, bytes(damaged[:cut]) + filler * 64)], link_type)
        batch.captured[0] = min(cut, len(damaged))
        answers.append(Decoder().decode(batch))
    first, second = answers
    assert first.unread.tolist() == second.unread.tolist()
    assert first.rows.tolist() == second.rows.tolist()


def test_one_signature() -> None:
    decoded(TCP_FRAME)
    if hasattr(decode_frames, "signatures"):
        assert len(decode_frames.signatures) == 1
    assert np.dtype(np.uint8) == batch_of([]).data.dtype

"""Copies of a packet that a second interface shows are found; retransmissions are none."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import PACKET, UNREAD_REASONS, Rows
from flow_tracker import FlowTracker
from packets import Decoder
from packets.duplicates import Duplicates, mark_copies
from tests.frames import ACK, PSH, START_NS, arp, at, batch_of, ethernet, ipv4, tcp
from tests.namespaces import Hosts, live

DUPLICATE = UNREAD_REASONS.index("duplicate")
MS = 1_000_000


def rows_of(*packets: tuple[int, float]) -> Rows:
    """Rows by (number of the packet, time in ms); the same number is the same packet."""
    rows = np.zeros(len(packets), PACKET)
    for row, (number, time_ms) in zip(rows, packets, strict=True):
        row["seq"] = number
        row["time_ns"] = START_NS + int(time_ms * MS)
    return rows


def kept(duplicates: Duplicates, interface: str, *packets: tuple[int, float]) -> list[int]:
    rows = duplicates.without_copies(rows_of(*packets), interface)
    return [int(number) for number in rows["seq"]]


@pytest.mark.parametrize(
    ("order", "stay"),
    [("AB", 1), ("BA", 1), ("AABB", 2), ("ABAB", 2), ("BBAA", 2), ("AAA", 3), ("ABBA", 2)],
)
def test_what_the_first_interface_shows_again_is_a_retransmission(order: str, stay: int) -> None:
    duplicates = Duplicates(64)
    count = sum(len(kept(duplicates, name, (7, n))) for n, name in enumerate(order))
    assert count == stay


def test_a_copy_may_come_earlier_and_later_by_a_second() -> None:
    for apart_ms, copies in ((-1000, 1), (1000, 1), (-1001, 0), (1001, 0)):
        duplicates = Duplicates(64)
        kept(duplicates, "a", (1, 5000))
        assert len(kept(duplicates, "b", (1, 5000 + apart_ms))) == 1 - copies, apart_ms


def test_a_late_batch_of_the_second_interface_is_held_against_all_retransmissions() -> None:
    duplicates = Duplicates(64)
    assert kept(duplicates, "a", (1, 0), (1, 900), (1, 1800)) == [1, 1, 1]
    assert kept(duplicates, "b", (1, 1), (1, 901), (1, 1801)) == []


def test_an_interface_takes_over_where_the_first_is_silent() -> None:
    duplicates = Duplicates(64)
    assert kept(duplicates, "a", (1, 0)) == [1]
    assert kept(duplicates, "b", (1, 500), (1, 1600), (1, 1700)) == [1, 1]
    assert kept(duplicates, "a", (1, 1650)) == []


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 900)), max_size=80),
    st.lists(st.integers(1, 12), min_size=1, max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_as_many_stay_as_the_interface_that_was_first_has_shown(
    shown: list[tuple[int, int, int]], sizes: list[int]
) -> None:
    """In any order and in batches of any size."""
    duplicates = Duplicates(256)
    counted: Counter[tuple[int, int]] = Counter((number, where) for number, where, _ in shown)
    first: dict[int, int] = {}
    stayed: Counter[int] = Counter()
    batch: list[tuple[int, float]] = []
    for n, (number, where, time_ms) in enumerate(shown):
        first.setdefault(number, where)
        batch.append((number, time_ms))
        ends = n + 1 == len(shown) or shown[n + 1][1] != where
        if ends or len(batch) >= sizes[n % len(sizes)]:
            stayed.update(kept(duplicates, f"eth{where}", *batch))
            batch = []
    assert stayed == Counter({number: counted[number, where] for number, where in first.items()})


@pytest.mark.parametrize(
    "field",
    [
        *("src_hi", "src_lo", "dst_hi", "dst_lo", "src_port", "dst_port", "protocol", "kind"),
        *("seq", "ack", "payload", "ip_id", "checksum", "tcp_flags", "icmp_type", "icmp_code"),
    ],
)
def test_whatever_no_hop_changes_tells_packets_apart(field: str) -> None:
    duplicates = Duplicates(64)
    rows = rows_of((1, 0))
    duplicates.without_copies(rows, "a")
    other = rows.copy()
    other[field] = 1 if field != "seq" else 2
    assert len(duplicates.without_copies(other, "b")) == 1
    assert len(duplicates.without_copies(rows, "b")) == 0


def test_what_hops_change_does_not() -> None:
    duplicates = Duplicates(64)
    rows = rows_of((1, 0))
    duplicates.without_copies(rows, "a")
    for field in ("ttl", "src_mac", "dst_mac", "vlan", "tunnel", "wire_length"):
        rows[field] = 1
    assert len(duplicates.without_copies(rows, "b")) == 0


def test_two_claims_of_one_address_are_no_copies() -> None:
    """What ARP spoofing looks like from two sides."""
    frame = ethernet(arp(2, "192.168.1.1", "192.168.1.9"), 0x0806)
    forged = frame.replace(bytes.fromhex("02000000000a"), bytes.fromhex("020000000066"))
    decoder = Decoder()
    decoder.watch_several(True)
    left = []
    for name, body in (("a", frame), ("b", forged), ("b", frame)):
        batch = batch_of([at(0, body)])
        batch.interface = name
        left.append(len(decoder.decode(batch)))
    assert left == [1, 1, 0]


def test_frames_are_packets_or_unread_with_copies_too() -> None:
    def routed(number: int, ttl: int) -> bytes:
        segment = tcp(40_000, 443, PSH | ACK, 100 + number)
        packet = bytearray(ipv4("10.0.0.1", "10.9.0.1", 6, segment))
        packet[8] = ttl
        return ethernet(bytes(packet))

    decoder = Decoder()
    decoder.watch_several(True)
    for name, ttl in (("lan0", 64), ("wan0", 63)):
        batch = batch_of([at(n, routed(n, ttl)) for n in range(50)] + [at(99, b"\0" * 60)])
        batch.interface = name
        found = decoder.decode(batch)
        assert found.frames == len(found) + int(found.unread.sum()) == 51
    assert (decoder.frames, decoder.packets, decoder.unread[DUPLICATE]) == (102, 50, 50)
    decoder.watch_several(False)
    assert len(decoder.decode(batch)) == 50


def test_an_interface_watched_with_its_vlan_shows_one_flow() -> None:
    """Whichever of the two is first with a packet, tagged or not."""
    decoder, tracker = Decoder(), FlowTracker(capacity=64)
    decoder.watch_several(True)
    for n in range(6):
        packet = ipv4("10.0.0.1", "10.0.0.2", 6, tcp(40_000, 443, PSH | ACK, 100 + n))
        views = [("lan0", ethernet(packet, tags=(10,))), ("lan0.10", ethernet(packet))]
        for name, frame in views if n % 3 else reversed(views):
            batch = batch_of([at(n * 1000, frame)])
            batch.interface = name
            tracker.track(decoder.decode(batch))
    assert tracker.flush().rows["packets"].tolist() == [[6, 0]]


def test_a_full_table_forgets_the_oldest() -> None:
    duplicates = Duplicates(8)
    kept(duplicates, "a", *((n, n) for n in range(9)))
    assert kept(duplicates, "b", *((n, n) for n in range(1, 9))) == []
    assert kept(duplicates, "b", (0, 0)) == [0]


def test_one_signature() -> None:
    kept(Duplicates(64), "a", (1, 0))
    assert len(getattr(mark_copies, "signatures", [0])) == 1


@pytest.mark.parametrize("entries", [1 << 17])
def test_many_packets_at_once_are_all_told(entries: int) -> None:
    """A tenth of a second of 200,000 packets a second, on both interfaces."""
    rows = np.zeros(20_000, PACKET)
    rows["time_ns"] = START_NS
    rows["seq"] = np.random.default_rng(1).permutation(len(rows))
    duplicates = Duplicates(entries)
    assert len(duplicates.without_copies(rows, "a")) == len(rows)
    assert len(duplicates.without_copies(rows, "b")) == 0


class TestReal:
    """Routers and bridges of the kernel."""

    pytestmark = live("ping", "curl")

    def test_a_router_watched_on_both_sides(self) -> None:
        with Hosts("c", "r", "s") as hosts:
            hosts.wire(("c", "eth0", "198.18.1.2/24"), ("r", "lan0", "198.18.1.1/24"))
            hosts.wire(("r", "wan0", "198.18.2.1/24"), ("s", "eth0", "198.18.2.2/24"))
            hosts.inside("r", "sysctl", "-qw", "net.ipv4.ip_forward=1")
            hosts.ip("c", "route", "add", "default", "via", "198.18.1.1")
            hosts.ip("s", "route", "add", "default", "via", "198.18.2.1")
            with hosts.watching("r", "lan0", "wan0") as told:
                hosts.inside("c", "ping", "-c", "5", "-i", "0.1", "198.18.2.2")
                # Refused: SYN and RST, each forwarded.
                hosts.inside("c", "sh", "-c", "curl -s http://198.18.2.2:81/ || true")
        pings = [flow for flow in told["flows"] if flow["protocol"] == 1]
        assert [flow["packets"] for flow in pings] == [[5, 5]]
        tries = [flow for flow in told["flows"] if flow["protocol"] == 6]
        assert [flow["packets"] for flow in tries] == [[1, 1]]
        assert told["unread"]["duplicate"] == 12
        assert set(told["frames"]) == {"lan0", "wan0"}
        assert sum(told["frames"].values()) == told["packets"] + sum(told["unread"].values())

    def test_a_bridge_watched_with_its_member(self) -> None:
        with Hosts("a", "b", "s") as hosts:
            hosts.ip("s", "link", "add", "br0", "type", "bridge")
            hosts.inside("s", "sysctl", "-qw", "net.ipv6.conf.br0.disable_ipv6=1")
            for host, address in (("a", "198.18.1.1/24"), ("b", "198.18.1.2/24")):
                hosts.wire((host, "eth0", address), ("s", f"port{host}", ""))
                hosts.ip("s", "link", "set", f"port{host}", "master", "br0")
            hosts.ip("s", "addr", "add", "198.18.1.9/24", "dev", "br0")
            hosts.ip("s", "link", "set", "br0", "up")
            with hosts.watching("s", "br0", "porta") as told:
                hosts.inside("a", "ping", "-c", "5", "-i", "0.1", "198.18.1.9")
        pings = [flow for flow in told["flows"] if flow["protocol"] == 1]
        assert [flow["packets"] for flow in pings] == [[5, 5]]
        # Ten pings, and the address resolution of each side.
        assert told["unread"]["duplicate"] >= 12
        assert sum(told["frames"].values()) == told["packets"] + sum(told["unread"].values())


@pytest.mark.skipif(bool(os.environ.get("NUMBA_DISABLE_JIT")), reason="is interpreted already")
def test_interpreted_it_marks_the_same() -> None:
    rng = np.random.default_rng(5)
    rows = np.zeros(300, PACKET)
    rows["time_ns"] = START_NS + rng.integers(0, 3_000 * MS, len(rows))
    rows["seq"] = rng.integers(0, 40, len(rows))
    rows["src_hi"] = rng.integers(0, 2**63, len(rows), np.uint64) * np.uint64(2)
    rows["src_hi"][::2] = 1
    marks = []
    for function in (mark_copies, getattr(mark_copies, "py_func", mark_copies)):
        table = (
            np.array([3, 2**64 - 5], np.uint64),
            np.zeros((16, 2), np.uint64),
            np.zeros((16, 2), np.int64),
            np.zeros(16, np.int32),
        )
        copy = np.empty((2, len(rows)), np.uint8)
        with np.errstate(over="ignore"):
            found = [int(function(rows, n, *table, copy[n])) for n in range(2)]
        assert found == copy.sum(axis=1).tolist()
        marks.append(copy)
    assert marks[0].any()
    assert (marks[0] == marks[1]).all()

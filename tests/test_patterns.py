"""Which traffic is told as a pattern, which look-alike is not, and that it stays bounded."""

from __future__ import annotations

import csv
import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addresses import LocalNetworks
from batches import (
    FLOW,
    PACKET,
    UNREAD_REASONS,
    ConnectionState,
    Finding,
    FlowBatch,
    PacketBatch,
    PacketKind,
    Rows,
)
from capture import read_capture
from flow_tracker import FlowTracker
from packets import Decoder
from patterns import RULES, Windows, warm
from patterns import guesses as window_guesses
from patterns import windows as packet_windows
from patterns.table import (
    FLOODS,
    GUESS_ANY,
    KINDS,
    TCP_HOSTS,
    find,
    index_add,
    index_remove,
)

ROOT = Path(__file__).resolve().parents[1]
START_NS = 1_700_000_000 * 10**9
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
TCP, UDP, ICMP = 6, 17, 1
EVIL, HOST = "10.0.0.66", "10.0.0.10"
Packet = dict[str, Any]


def packet(at_s: float, src: str, dst: str, protocol: int = TCP, **fields: Any) -> Packet:
    row: Packet = {"time_ns": START_NS + round(at_s * 1e9), "protocol": protocol, **fields}
    for side, text in (("src", src), ("dst", dst)):
        number = int(ipaddress.ip_address(text))
        row[f"{side}_hi"], row[f"{side}_lo"] = number >> 64, number & (1 << 64) - 1
    row["ip_version"] = ipaddress.ip_address(src).version
    return row


def tcp(at_s: float, src: str, dst: str, sport: int, dport: int, flags: int, **more: Any) -> Packet:
    return packet(at_s, src, dst, src_port=sport, dst_port=dport, tcp_flags=flags, **more)


def udp(at_s: float, src: str, dst: str, sport: int, dport: int, **more: Any) -> Packet:
    return packet(at_s, src, dst, UDP, src_port=sport, dst_port=dport, **more)


def ping(at_s: float, src: str, dst: str, kind: int = 8) -> Packet:
    return packet(at_s, src, dst, ICMP, icmp_type=kind)


def arp(at_s: float, src: str, dst: str, *, reply_to: int = 0) -> Packet:
    """Who-has from `src`, or its reply to the host with the MAC `reply_to`."""
    own_mac = int(ipaddress.ip_address(src)) | 0x0200_0000_0000
    return packet(
        at_s,
        src,
        dst,
        0,
        kind=PacketKind.ARP,
        src_mac=own_mac,
        dst_mac=reply_to or 0xFFFF_FFFF_FFFF,
        icmp_type=2 if reply_to else 1,
    )


def refused(at_s: float, src: str, dst: str, port: int, sport: int = 40000) -> list[Packet]:
    return [
        tcp(at_s, src, dst, sport, port, SYN),
        tcp(at_s + 0.0002, dst, src, port, sport, RST | ACK),
    ]


def connected(at_s: float, src: str, dst: str, port: int, sport: int) -> list[Packet]:
    """A handshake finished by the right number."""
    return [
        tcp(at_s, src, dst, sport, port, SYN, seq=7),
        tcp(at_s + 0.0002, dst, src, port, sport, SYN | ACK, seq=0xFFFFFFFF, ack=8),
        tcp(at_s + 0.0004, src, dst, sport, port, ACK, seq=8, ack=0),
    ]


def batch(packets: Iterable[Packet]) -> PacketBatch:
    listed = sorted(packets, key=lambda one: one["time_ns"])
    rows = np.zeros(len(listed), PACKET)
    for i, one in enumerate(listed):
        for name, value in one.items():
            rows[i][name] = value
    return batch_of(rows)


def batch_of(rows: Rows) -> PacketBatch:
    return PacketBatch(rows, np.zeros(len(UNREAD_REASONS), np.int64), len(rows), 0)


def small(**more: Any) -> Windows:
    return Windows(
        is_local=LocalNetworks([]), seed=1, attempts=4096, endpoints=1024, pairs=64, **more
    )


def told(packets: Iterable[Packet], *, then_s: float = 0.0) -> list[Finding]:
    """Findings of the packets, with the clock moved on by `then_s` after the last."""
    given = batch(packets)
    room = small()
    findings = room.packets(given)
    return findings + room.tick(int(given.rows["time_ns"][-1]) + round(then_s * 1e9))


def names(findings: Sequence[Finding]) -> set[str]:
    return {finding.subpattern for finding in findings}


# --- scans ---


def test_a_port_scan_is_told_while_it_runs() -> None:
    probes = [p for port in range(1, 101) for p in refused(port * 0.01, EVIL, HOST, port)]
    first = told(probes)[0]
    assert (first.pattern, first.subpattern, first.key_is) == (
        "SRC_SCAN",
        "VERTICAL_SCAN",
        "source",
    )
    assert (first.source, first.target, first.targets) == (EVIL, HOST, (HOST,))
    assert first.value == first.line == first.amounts["ports"] == 15
    assert first.ports[:2] == (15, 14)
    assert first.amounts["failed"] == first.amounts["refused"] == 15
    assert first.last_ns == START_NS + 150_000_000
    assert first.first_ns == START_NS + 10_000_000
    assert first.spoofable


def test_one_port_below_the_line_is_nothing() -> None:
    probes = [p for port in range(1, 15) for p in refused(port * 0.01, EVIL, HOST, port)]
    assert told(probes, then_s=5) == []


def test_silence_counts_as_failed_after_a_second() -> None:
    room = small()
    probes = batch(tcp(port * 0.01, EVIL, HOST, 4000, port, SYN) for port in range(1, 41))
    assert room.packets(probes) == []
    assert room.tick(START_NS + 10**9) == []
    (finding,) = room.tick(START_NS + 2 * 10**9)
    assert finding.value == 40
    assert finding.amounts["refused"] == 0
    assert finding.count == 40


def test_an_answer_that_comes_late_takes_the_failure_back() -> None:
    room = small()
    room.packets(batch(tcp(0.01 * p, EVIL, HOST, 4000, p, SYN) for p in range(1, 13)))
    late = [tcp(1.5 + 0.01 * p, HOST, EVIL, p, 4000, SYN | ACK) for p in range(1, 13)]
    again = [p for port in range(100, 106) for p in refused(2, EVIL, HOST, port)]
    assert room.packets(batch(late + again)) == []


def test_two_probes_a_second_are_a_scan_within_the_minute() -> None:
    probes = [p for i in range(30) for p in refused(i * 0.5, EVIL, HOST, 100 + i)]
    findings = told(probes)
    assert names(findings) == {"VERTICAL_SCAN"}
    assert findings[0].last_ns - START_NS < 8 * 10**9


def test_the_window_slides() -> None:
    early = [p for port in range(1, 15) for p in refused(0, EVIL, HOST, port)]
    late = [p for port in range(101, 115) for p in refused(60.1, EVIL, HOST, port)]
    assert told(early + late, then_s=5) == []
    late = [p for port in range(101, 115) for p in refused(59.0, EVIL, HOST, port)]
    assert names(told(early + late)) == {"VERTICAL_SCAN"}


def test_what_was_answered_long_ago_excuses_nothing() -> None:
    before = [p for port in range(100) for p in connected(port, EVIL, HOST, 1000 + port, 5000)]
    alive = [p for i in range(10) for p in connected(100 + i * 10, EVIL, HOST, 443, 6000 + i)]
    probes = [p for port in range(1, 17) for p in refused(200, EVIL, HOST, port)]
    assert names(told(before + alive + probes)) == {"VERTICAL_SCAN"}


def test_a_scan_over_ipv6() -> None:
    probes = [p for port in range(1, 40) for p in refused(port * 0.01, "fd77::42", "fd77::a", port)]
    assert (told(probes)[0].source, told(probes)[0].target) == ("fd77::42", "fd77::a")


def test_a_finished_handshake_proves_the_source() -> None:
    probes = [p for port in range(1, 40) for p in refused(1 + port * 0.01, EVIL, HOST, port)]
    assert told(probes)[0].spoofable
    assert not told(connected(0, EVIL, HOST, 22, 5000) + probes)[0].spoofable
    wrong = connected(0, EVIL, HOST, 22, 5000)
    wrong[2]["ack"] = 77  # what a forger who sees no answer has to guess
    assert told(wrong + probes)[0].spoofable


def test_busy_clients_and_servers_are_no_scanners() -> None:
    client = [
        p for i in range(200) for p in connected(i * 0.05, EVIL, f"198.51.100.{i}", 443, 2000 + i)
    ]
    server = [
        p for i in range(200) for p in connected(i * 0.05, f"10.1.0.{i}", HOST, 9000, 3000 + i)
    ]
    questions = [udp(i * 0.05, HOST, "9.9.9.9", 5000 + i, 53) for i in range(200)]
    answers = [udp(i * 0.05 + 0.02, "9.9.9.9", HOST, 53, 5000 + i) for i in range(200)]
    assert told(client + server + questions + answers, then_s=5) == []


def test_a_sweep_outside_needs_more_where_an_outage_looks_alike() -> None:
    def sweep(port: int, hosts: int, network: str) -> list[Finding]:
        return told(
            (tcp(i * 0.1, EVIL, f"{network}.{i}", 4000, port, SYN) for i in range(hosts)), then_s=2
        )

    assert names(sweep(443, 20, "10.0.1")) == {"HORIZONTAL_SWEEP"}
    assert names(sweep(23, 20, "93.184.216")) == {"HORIZONTAL_SWEEP"}
    assert sweep(443, 31, "93.184.216") == []
    (finding,) = sweep(443, 32, "93.184.216")[-1:]
    assert finding.line == 31.5
    assert finding.amounts["hosts"] == 32
    assert finding.ports == (443,)
    assert len(finding.targets) == 16


def test_a_sweep_is_outside_where_most_of_it_is() -> None:
    def sweep(inside: int) -> list[Finding]:
        hosts = [f"10.0.1.{i}" if i % 16 < inside else f"93.184.216.{i}" for i in range(20)]
        return told(
            (tcp(i * 0.1, EVIL, host, 4000, 443, SYN) for i, host in enumerate(hosts)), then_s=2
        )

    assert sweep(4) == []
    assert names(sweep(12)) == {"HORIZONTAL_SWEEP"}


def test_udp_ports_without_an_answer() -> None:
    scan = [udp(i * 0.1, EVIL, HOST, 4000, 100 + i) for i in range(20)]
    (finding,) = told(scan, then_s=2)[-1:]
    assert (finding.subpattern, finding.protocol, finding.amounts["ports"]) == ("UDP_SCAN", UDP, 20)
    answers = [udp(i * 0.1 + 0.01, HOST, EVIL, 100 + i, 4000) for i in range(20)]
    assert told(scan + answers, then_s=2) == []


def test_udp_look_alikes() -> None:
    traceroute = [udp(i * 0.1, EVIL, HOST, 4000, 33434 + i) for i in range(90)]
    assert told(traceroute, then_s=2) == []
    group = {"dst_mac": 0x0100_5E7F_FFFA}
    asked = [udp(i, HOST, "239.255.255.250", 4000 + i, 1900, **group) for i in range(30)]
    replies = [udp(i + 0.2, EVIL, HOST, 1900, 4000 + i) for i in range(30)]
    assert told(asked + replies, then_s=2) == []
    assert names(told(replies, then_s=2)) == {"UDP_SCAN"}


@pytest.mark.parametrize("flags", [0, FIN, FIN | PSH | URG, PSH, SYN | FIN])
def test_packets_no_connection_has(flags: int) -> None:
    probes = [tcp(i * 0.01, EVIL, HOST, 4000, 100 + i, flags) for i in range(30)]
    finding = told(probes)[0]
    assert (finding.subpattern, finding.value) == ("STEALTH_SCAN", 5)
    assert finding.target == HOST


def test_closing_a_connection_is_not_stealthy() -> None:
    ends = [tcp(i * 0.01, EVIL, HOST, 4000, 100 + i, FIN | ACK) for i in range(30)]
    resets = [tcp(1 + i * 0.01, EVIL, HOST, 4000, 100 + i, RST) for i in range(30)]
    assert told(ends + resets, then_s=2) == []


def test_pings_of_hosts_that_do_not_answer() -> None:
    pings = [ping(i * 0.1, EVIL, f"10.0.1.{i}") for i in range(20)]
    assert names(told(pings, then_s=2)) == {"ICMP_SWEEP"}
    answers = [ping(i * 0.1 + 0.01, f"10.0.1.{i}", EVIL, 0) for i in range(20)]
    assert told(pings + answers, then_s=2) == []


def test_arp_for_addresses_nobody_has() -> None:
    asked = [arp(i * 0.1, EVIL, f"10.0.0.{100 + i}") for i in range(30)]
    (finding,) = told(asked, then_s=2)[-1:]
    assert (finding.subpattern, finding.source, finding.amounts["hosts"]) == ("ARP_SWEEP", EVIL, 30)
    mac = asked[0]["src_mac"]
    replies = [arp(i * 0.1 + 0.01, f"10.0.0.{100 + i}", EVIL, reply_to=mac) for i in range(30)]
    assert told(asked + replies, then_s=2) == []
    own = [f"10.0.0.{100 + i}" for i in range(30)]  # a host that carries many addresses
    announced = [{**arp(i * 0.1, ip, ip), "src_mac": mac} for i, ip in enumerate(own)]
    assert told(announced, then_s=2) == []


# --- floods and bursts ---


def test_a_flood_from_forged_sources_is_the_targets() -> None:
    rng = np.random.default_rng(2)
    sources = [str(ipaddress.IPv4Address(int(n))) for n in rng.integers(1 << 24, 1 << 31, 1000)]
    flood = [tcp(i * 0.0025, source, HOST, 4000, 22, SYN) for i, source in enumerate(sources)]
    first, *_, last = told(flood, then_s=1.1)
    assert (first.pattern, first.subpattern, first.key_is) == ("BURST", "SYN_FLOOD", "target")
    assert (first.target, first.ports, first.spoofable) == (HOST, (22,), True)
    assert first.value > first.line == 100
    assert first.last_ns < START_NS + 10**9
    assert last.count == last.amounts["packets"] == 1000
    assert 750 < last.amounts["sources"] < 1250


def test_the_busiest_source_is_named() -> None:
    flood = [tcp(i * 0.001, EVIL, HOST, 4000 + i, 80, SYN) for i in range(999)]
    others = [tcp(0.9991 + i * 1e-6, f"10.9.0.{i}", HOST, 4000, 80, SYN) for i in range(80)]
    assert told(flood + others, then_s=1)[0].source == EVIL


def test_a_rate_below_the_line_is_no_flood_however_long() -> None:
    attempts = [tcp(i / 90, EVIL, HOST, 4000, 80, SYN) for i in range(900)]
    assert told(attempts, then_s=1) == []


def test_connections_that_complete_are_a_burst_not_a_flood() -> None:
    opened = [p for i in range(1000) for p in connected(i * 0.002, EVIL, HOST, 80, 4000 + i)]
    findings = told(opened)
    assert names(findings) == {"HTTP_BURST"}
    assert (findings[0].key_is, findings[0].source, findings[0].spoofable) == (
        "source",
        EVIL,
        False,
    )
    assert findings[0].amounts["connections"] == 200
    assert findings[0].amounts["connections_per_s"] == 20


def test_many_connections_at_once_are_no_flood_before_they_could_complete() -> None:
    at_once = [p for i in range(400) for p in connected(i * 1e-6, EVIL, HOST, 80, 4000 + i)]
    assert names(told(at_once, then_s=2)) == {"HTTP_BURST"}


def test_udp_that_is_answered_is_no_flood() -> None:
    upload = [udp(i * 0.0002, EVIL, HOST, 4000, 443) for i in range(9000)]
    assert names(told(upload)) == {"UDP_FLOOD"}
    acknowledged = [udp(i * 0.002, HOST, EVIL, 443, 4000) for i in range(900)]
    assert told(upload + acknowledged) == []


def test_pings_in_hundreds_a_second() -> None:
    flood = [ping(i * 0.002, EVIL, HOST) for i in range(400)]
    replies = [ping(i * 0.002 + 0.0001, HOST, EVIL, 0) for i in range(400)]
    (finding,) = told(flood + replies)[:1]
    assert (finding.subpattern, finding.target, finding.source) == ("ICMP_FLOOD", HOST, EVIL)


# --- guessing ---


def flow(at_s: float, port: int, sent: int, got: int, *, duration_s: float = 0.2) -> Rows:
    row = np.zeros(1, FLOW)
    end_ns = START_NS + round(at_s * 1e9)
    row["first_ns"], row["last_ns"] = end_ns - round(duration_s * 1e9), end_ns
    row["src_lo"], row["dst_lo"] = (int(ipaddress.ip_address(text)) for text in (EVIL, HOST))
    row["protocol"], row["ip_version"], row["dst_port"] = TCP, 4, port
    row["bytes"] = [[sent, got]]
    row["connection_state"] = ConnectionState.SF
    return row


def ended(flows: Sequence[Rows]) -> list[Finding]:
    return small().flows(FlowBatch(np.concatenate(flows)))


def test_alike_logins_are_guessing() -> None:
    first, *_ = ended([flow(i * 2, 22, 1600, 2200) for i in range(12)])
    assert (first.pattern, first.subpattern, first.source) == (
        "REPEATED_PAIR",
        "CREDENTIAL_GUESSING",
        EVIL,
    )
    assert (first.target, first.ports, first.spoofable) == (HOST, (22,), False)
    assert first.value == first.amounts["connections"] == 10


def test_slow_guessing_is_told_over_ten_minutes() -> None:
    findings = ended([flow(i * 20, 22, 1600, 2200) for i in range(25)])
    assert findings[0].line == 20
    assert ended([flow(i * 40, 22, 1600, 2200) for i in range(25)]) == []


def test_logins_that_do_their_work_differ() -> None:
    rng = np.random.default_rng(3)
    work = [flow(i, 22, int(n), int(n * 3)) for i, n in enumerate(rng.integers(1000, 90000, 50))]
    assert ended(work) == []


def test_any_port_where_only_what_is_sent_changes() -> None:
    passwords = [flow(i * 0.1, 8080, 139 + 4 * (i % 3), 373) for i in range(40)]
    assert ended(passwords)[0].value == 20
    polled = [flow(i * 0.1, 8080, 201, 884) for i in range(40)]
    assert ended(polled) == []
    status = [flow(i * 0.1, 8080, 139 + 4 * (i % 3), 880 + i % 9) for i in range(40)]
    assert ended(status) == []
    browsed = [flow(i * 0.1, 8080, 500 + i % 7, 700 + 391 * (i % 11)) for i in range(40)]
    assert ended(browsed) == []
    # Load on the same page after guessing is not more of it.
    assert len(ended(passwords + [flow(6 + i * 0.1, 8080, 97, 170) for i in range(40)])) == len(
        ended(passwords)
    )


# --- telling, bounds, equality ---


def test_growth_is_told_once_a_second_with_running_counts() -> None:
    probes = [p for i in range(2000) for p in refused(i * 0.005, EVIL, HOST, i + 1)]
    room = small()
    findings = [
        f for part in np.array_split(batch(probes).rows, 97) for f in room.packets(batch_of(part))
    ]
    times = [finding.last_ns for finding in findings]
    assert 9 <= len(findings) <= 12
    assert min(np.diff(times)[1:]) >= 0.99e9  # the first is told at once
    assert len({finding.first_ns for finding in findings}) == 1
    counts = [finding.count for finding in findings]
    assert counts == sorted(set(counts))
    assert room.tick(START_NS + 12 * 10**9)[-1].amounts["ports"] == 2000


def test_ordinary_traffic_after_a_scan_is_not_more_of_it() -> None:
    probes = [p for i in range(50) for p in refused(i * 0.01, EVIL, HOST, i + 1)]
    after = [p for i in range(20) for p in connected(3 + i, EVIL, HOST, 443, 5000 + i)]
    assert max(f.last_ns for f in told(probes + after, then_s=2)) < START_NS + 10**9


def test_time_that_jumps_back_begins_anew() -> None:
    room = small()
    probes = [p for i in range(10) for p in refused(1000 + i * 0.01, EVIL, HOST, i + 1)]
    assert room.packets(batch(probes)) == []
    probes = [p for i in range(10) for p in refused(i * 0.01, EVIL, HOST, 100 + i)]
    assert room.packets(batch(probes)) == []
    probes = [p for i in range(10) for p in refused(1 + i * 0.01, EVIL, HOST, 200 + i)]
    assert names(room.packets(batch(probes))) == {"VERTICAL_SCAN"}


def test_a_flood_of_sources_stays_bounded_and_is_counted() -> None:
    n = 100_000
    rows = np.zeros(n, PACKET)
    rows["time_ns"] = START_NS + np.arange(n) * 10_000
    rows["src_lo"] = np.random.default_rng(4).permutation(n) + 1
    rows["dst_lo"] = int(ipaddress.ip_address(HOST))
    rows["protocol"], rows["ip_version"], rows["tcp_flags"], rows["dst_port"] = TCP, 4, SYN, 80
    room = small()
    assert room.packets(batch_of(rows)) == []
    (finding,) = room.tick(START_NS + 10**9)
    assert (finding.subpattern, finding.count) == ("SYN_FLOOD", n)
    assert room.evicted["attempts"] == n - 4096
    rows["time_ns"] += 10**9
    rows["dst_port"] = np.arange(n) % 60_000 + 1
    room.packets(batch_of(rows))
    assert room.evicted["endpoints"] > 50_000
    # What came before is gone; what comes now is counted as ever.
    probes = [p for i in range(20) for p in refused(300 + i * 0.01, EVIL, HOST, i + 1)]
    assert names(room.packets(batch(probes))) == {"VERTICAL_SCAN"}


def mixture() -> Rows:
    """Everything at once, within twenty seconds."""
    packets = [p for i in range(60) for p in refused(i * 0.1, EVIL, HOST, i + 1)]
    packets += [tcp(2 + i * 0.004, f"10.7.{i % 99}.1", HOST, 4000, 80, SYN) for i in range(600)]
    packets += [p for i in range(300) for p in connected(i * 0.03, HOST, "10.2.0.1", 80, 4000 + i)]
    packets += [udp(i * 0.2, EVIL, "10.0.0.9", 4000, 100 + i) for i in range(60)]
    packets += [arp(i * 0.1, "10.0.0.5", f"10.0.0.{100 + i}") for i in range(60)]
    packets += [ping(i * 0.1, EVIL, f"10.0.1.{i}") for i in range(60)]
    return batch(packets).rows


MIXTURE = mixture()


def last_words(findings: Sequence[Finding]) -> dict[tuple[str, str], tuple[int, float]]:
    def key(finding: Finding) -> str:
        return finding.source if finding.key_is == "source" else finding.target

    return {(f.subpattern, key(f)): (f.count, f.value) for f in findings}


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=60))
def test_the_index_finds_what_is_in_it_and_nothing_else(steps: list[tuple[bool, int]]) -> None:
    slots, keys = np.full(16, -1, np.int32), np.zeros(8, np.uint64)
    inside: dict[int, int] = {}
    for add, number in steps:
        if add and number not in inside and len(inside) < 8:
            row = min(set(range(8)) - set(inside.values()))
            # Few keys on few slots: long runs that wrap around.
            index_add(slots, keys, np.uint64((number % 4) * 5 + 16 * number), row)
            inside[number] = row
        elif not add and number in inside:
            index_remove(slots, keys, inside.pop(number))
        for number in range(16):
            assert find(slots, keys, np.uint64((number % 4) * 5 + 16 * number)) == inside.get(
                number, -1
            )


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, len(MIXTURE)), max_size=40))
def test_the_same_is_told_whatever_the_batches(cuts: list[int]) -> None:
    whole = small().packets(batch_of(MIXTURE.copy()))
    room = small()
    parts = np.split(MIXTURE.copy(), sorted(cuts))
    assert last_words([f for part in parts for f in room.packets(batch_of(part))]) == last_words(
        whole
    )
    assert len(last_words(whole)) >= 5


def demo_rows(count: int) -> Rows:
    """The first packets of the sample traffic."""
    frames = next(iter(read_capture(ROOT / "data" / "demo" / "home.pcap.gz")))
    return Decoder().decode(frames).rows[:count]


def everything_told(rows: Rows) -> list[Finding]:
    """Findings of packets, of the flows they make and of forty alike logins."""
    room, tracker = small(), FlowTracker(capacity=4096)
    findings = room.packets(batch_of(rows))
    flows = [tracker.track(batch_of(rows)).rows, tracker.flush().rows]
    flows += [flow(i, 21, 90 + i % 9, 188) for i in range(40)]
    findings += room.flows(FlowBatch(np.concatenate(flows)))
    return findings + room.tick(int(rows["time_ns"].max()) + 2 * 10**9)


def test_compiled_equals_interpreted(tmp_path: Path) -> None:
    rows = np.concatenate([MIXTURE, demo_rows(4000)])
    path = tmp_path / "scan.npy"
    np.save(path, rows)
    script = (
        f"import sys, numpy as np; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.test_patterns import everything_told\n"
        "np.seterr(over='ignore')\n"
        f"print(everything_told(np.load({str(path)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
    )
    findings = everything_told(rows)
    assert len(names(findings)) >= 7
    assert done.stdout.strip() == repr(findings)


def test_one_signature_each() -> None:
    warm()
    small().packets(batch_of(MIXTURE.copy()))
    for loop in (
        packet_windows.count_packets,
        packet_windows.move_clock,
        window_guesses.count_flows,
    ):
        if hasattr(loop, "signatures"):
            assert len(loop.signatures) == 1


def test_the_table_of_rules_fits_the_kinds_of_windows() -> None:
    assert len(RULES) == KINDS
    assert RULES[TCP_HOSTS].subpattern == "HORIZONTAL_SWEEP"
    assert [rule.pattern for rule in RULES[FLOODS[0] : FLOODS[1] + 1]] == ["BURST"] * 4
    assert RULES[GUESS_ANY].subpattern == "CREDENTIAL_GUESSING"
    assert all(rule.line >= 1.5 * rule.benign for rule in RULES)


# --- real traffic ---


def findings_in(path: Path) -> list[Finding]:
    room = Windows(is_local=LocalNetworks([]), seed=1)
    decoder, tracker = Decoder(), FlowTracker()
    out: list[Finding] = []
    end_ns = 0
    for frames in read_capture(path):
        decoded = decoder.decode(frames)
        for part in np.array_split(decoded.rows, 16):
            if len(part):
                out += room.packets(batch_of(part))
                out += room.flows(tracker.track(batch_of(part)))
                end_ns = max(end_ns, int(part["time_ns"].max()))
    return out + room.flows(tracker.flush()) + room.tick(end_ns + 2 * 10**9)


def test_harmless_captures_are_silent(shared_data: Path) -> None:
    loud = {
        path.name.partition(".")[0]: names(findings)
        for path in sorted((shared_data / "captures" / "benign").glob("*.gz"))
        if (findings := findings_in(path))
    }
    assert loud == {"web_load_ab": {"HTTP_BURST"}}  # a load test is a burst


LAB = {
    "arp_sweep": "ARP_SWEEP",
    "connect_scan": "VERTICAL_SCAN",
    "syn_flood": "SYN_FLOOD",
    "wan_sweep": "HORIZONTAL_SWEEP",
    "syn_scan": "VERTICAL_SCAN",
    "ssh_brute": "CREDENTIAL_GUESSING",
    "icmp_flood": "ICMP_FLOOD",
    "udp_flood": "UDP_FLOOD",
    "udp_scan": "UDP_SCAN",
    "port_sweep": "ARP_SWEEP",
    "ftp_brute": "CREDENTIAL_GUESSING",
    "http_brute": "CREDENTIAL_GUESSING",
    "null_scan": "STEALTH_SCAN",
    "http_flood": "HTTP_BURST",
    "v6_scan": "VERTICAL_SCAN",
    "syn_flood_rand": "SYN_FLOOD",
    "xmas_scan": "STEALTH_SCAN",
    "fin_scan": "STEALTH_SCAN",
    "slow_scan": "VERTICAL_SCAN",
}


def test_attacks_of_the_lab_are_named_while_they_run(shared_data: Path) -> None:
    findings = findings_in(shared_data / "lab" / "home_lab.pcap.gz")
    with open(shared_data / "lab" / "home_lab.labels.tsv", encoding="utf-8") as file:
        phases = list(csv.DictReader(file, delimiter="\t"))
    named: dict[str, set[str]] = {}
    for phase in phases:
        start, end = float(phase["start_epoch"]), float(phase["end_epoch"])
        parties = {phase["attacker_ips"], phase["victim_ips"]}
        for finding in findings:
            key = finding.source if finding.key_is == "source" else finding.target
            if start <= finding.last_ns / 1e9 < end and key in parties:
                named.setdefault(phase["kind"], set()).add(finding.subpattern)
    assert {kind for kind, name in LAB.items() if name not in named.get(kind, ())} == set()
    first_attack = float(phases[1]["start_epoch"])
    assert [f for f in findings if f.last_ns / 1e9 < first_attack] == []
    decoys = float(phases[51]["start_epoch"])
    assert [f for f in findings if f.last_ns / 1e9 >= decoys] == []


def test_a_quiet_half_hour_stays_quiet(shared_data: Path) -> None:
    assert findings_in(shared_data / "lab" / "home_lab_quiet.pcap.gz") == []

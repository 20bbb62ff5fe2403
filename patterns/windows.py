"""The loop over packets that feeds the windows: what is a try, what is an answer to one.

No packet is looked at twice and most are not looked up at all: of TCP the packets that open,
refuse or finish opening a connection, of UDP and ICMP one key backwards (an answer) or forwards.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batches import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, PacketKind, Rows
from compiled import Int, compiled
from patterns.attempts import (
    ASKED,
    DUE,
    PENDING,
    Attempts,
    add_attempt,
    answer,
    count_again,
    forget_all,
    forget_old,
    join_group,
    make_room,
    prove,
    reject,
    ripen,
    tell_groups,
)
from patterns.rates import (
    Rates,
    count_in,
    count_out,
    expect_handshake,
    finish_handshake,
    tell_rates,
)
from patterns.table import (
    ARP_HOSTS,
    CONNECT_RATE,
    ICMP_HOSTS,
    ICMP_RATE,
    NS,
    STEALTH_PORTS,
    SYN_RATE,
    TCP_HOSTS,
    TCP_PORTS,
    UDP_HOSTS,
    UDP_PORTS,
    UDP_RATE,
    find,
    hash_of,
)

__all__ = ["CLOCK", "Counters", "count_packets", "move_clock"]

CLOCK: Final = 0
"""Place in Counters.clock of the newest packet time, ns; SECOND: the last one told about."""
SECOND: Final = 1

_BACK_NS: Final = 60 * NS
"""Packet time that jumps back further than this begins anew (files joined end to end)."""
_ANSWERED_SHARE: Final = 20
"""UDP is unanswered where fewer than one in so many packets comes back: QUIC's own upload is
acknowledged every second to tenth packet (RFC 9000 §13.2)."""

_KIND_ARP: Final = int(PacketKind.ARP)

# What `rest` of a key says beside the port: one bit each, above the port's 16.
_TCP_TRY: Final = 1 << 16
_UDP_TRY: Final = 2 << 16
_STEALTH_TRY: Final = 3 << 16
_ICMP_TRY: Final = 4 << 16
_ARP_TRY: Final = 5 << 16
_QUESTION: Final = 6 << 16
_GROUP: Final = 8 << 16  # plus the kind << 20


class Counters(NamedTuple):
    """All windows over packets; clock (2,) int64; seed (6,) uint64."""

    attempts: Attempts
    rates: Rates
    clock: NDArray[np.int64]
    seed: NDArray[np.uint64]


@compiled
def _to_many(packet: Any) -> bool:
    """Multicast or broadcast: asked of everybody, so an answer from nobody is no failure."""
    if (packet["dst_mac"] >> np.uint64(40)) & np.uint64(1):
        return True
    if packet["ip_version"] == 6:
        return bool(packet["dst_hi"] >> np.uint64(56) == np.uint64(0xFF))
    low = np.int64(packet["dst_lo"])
    return bool((low >> 28) == 14 or low == 0xFFFFFFFF)


@compiled
def _forward(seed: NDArray[np.uint64], packet: Any, rest: Int) -> Any:
    return hash_of(
        seed, packet["src_hi"], packet["src_lo"], packet["dst_hi"], packet["dst_lo"], rest
    )


@compiled
def _backward(seed: NDArray[np.uint64], packet: Any, rest: Int) -> Any:
    """The key of the attempt that `packet` may be an answer to."""
    return hash_of(
        seed, packet["dst_hi"], packet["dst_lo"], packet["src_hi"], packet["src_lo"], rest
    )


@compiled
def _source_group(counters: Counters, kind: Int, packet: Any, rest: Int, t: Int) -> Int:
    """The group of everything of `kind` that the source tries (on port `rest`)."""
    zero = np.uint64(0)
    rest = _GROUP | (kind << 20) | rest
    key = hash_of(counters.seed, packet["src_hi"], packet["src_lo"], zero, zero, rest)
    return join_group(counters.attempts, kind, key, packet, t)


@compiled
def _pair_group(counters: Counters, kind: Int, packet: Any, t: Int) -> Int:
    """The group of everything of `kind` that the source tries on this target."""
    key = _forward(counters.seed, packet, _GROUP | (kind << 20))
    return join_group(counters.attempts, kind, key, packet, t)


@compiled
def _count_tcp(counters: Counters, packet: Any, t: Int) -> None:
    attempts = counters.attempts
    seed = counters.seed
    flags = np.int64(packet["tcp_flags"])
    port = np.int64(packet["dst_port"])
    if flags & SYN == 0 and flags & ACK and flags & RST == 0:
        if finish_handshake(counters.rates, packet, seed):
            a = find(attempts.row_slots, attempts.row_keys, _forward(seed, packet, _TCP_TRY | port))
            if a >= 0:
                prove(attempts, a)
            zero = np.uint64(0)
            key = hash_of(seed, packet["dst_hi"], packet["dst_lo"], zero, zero, port | _TCP_TRY)
            count_out(counters.rates, SYN_RATE, key, t)
            key = _forward(seed, packet, port)
            count_in(counters.rates, CONNECT_RATE, key, packet, t, seed)
        return
    if flags & RST:
        back = _TCP_TRY | np.int64(packet["src_port"])
        a = find(attempts.row_slots, attempts.row_keys, _backward(seed, packet, back))
        if a >= 0:
            reject(attempts, a, t)
        return
    if flags & (SYN | ACK) == SYN | ACK:
        back = _TCP_TRY | np.int64(packet["src_port"])
        a = find(attempts.row_slots, attempts.row_keys, _backward(seed, packet, back))
        if a >= 0:
            answer(attempts, a)
        expect_handshake(counters.rates, packet, seed)
        return
    if flags & (SYN | FIN) == SYN:
        key = _forward(seed, packet, _TCP_TRY | port)
        a = find(attempts.row_slots, attempts.row_keys, key)
        if a < 0:
            make_room(attempts)
            by_host = _pair_group(counters, TCP_PORTS, packet, t)
            by_port = _source_group(counters, TCP_HOSTS, packet, port, t)
            a = add_attempt(attempts, key, packet, port, PENDING, by_host, by_port, t)
        count_again(attempts, a, t)
        zero = np.uint64(0)
        key = hash_of(seed, packet["dst_hi"], packet["dst_lo"], zero, zero, port | _TCP_TRY)
        count_in(counters.rates, SYN_RATE, key, packet, t, seed)
        return
    # No SYN, RST or ACK (or SYN and FIN at once): no TCP of ours ever sends that (RFC 9293
    # §3.10.7 drops it or answers with RST), so it needs no answer to be odd.
    key = _forward(seed, packet, _STEALTH_TRY | port)
    a = find(attempts.row_slots, attempts.row_keys, key)
    if a < 0:
        make_room(attempts)
        by_source = _source_group(counters, STEALTH_PORTS, packet, 0, t)
        a = add_attempt(attempts, key, packet, port, PENDING, by_source, -1, t)
        count_again(attempts, a, t)
        reject(attempts, a, t)
    else:
        count_again(attempts, a, t)


@compiled
def _is_traceroute(packet: Any) -> bool:
    """traceroute's ports (IANA 33434 and the hundred it counts up through)."""
    return bool(33_434 <= packet["dst_port"] <= 33_534)


@compiled
def _count_udp(counters: Counters, packet: Any, t: Int) -> None:
    attempts = counters.attempts
    seed = counters.seed
    port = np.int64(packet["dst_port"])
    key = _backward(seed, packet, _UDP_TRY | np.int64(packet["src_port"]))
    a = find(attempts.row_slots, attempts.row_keys, key)
    if a >= 0:
        answer(attempts, a)
        return
    zero = np.uint64(0)
    to_many = _to_many(packet)
    if to_many:
        rest = _QUESTION | np.int64(packet["src_port"])
        key = hash_of(seed, packet["src_hi"], packet["src_lo"], zero, zero, rest)
    else:
        key = _forward(seed, packet, _UDP_TRY | port)
    a = find(attempts.row_slots, attempts.row_keys, key)
    if a < 0:
        rest = _QUESTION | port
        question = hash_of(seed, packet["dst_hi"], packet["dst_lo"], zero, zero, rest)
        if find(attempts.row_slots, attempts.row_keys, question) >= 0:
            return
        make_room(attempts)
        if to_many:
            add_attempt(attempts, key, packet, port, ASKED, -1, -1, t)
            return
        by_host: Int = -1
        by_port: Int = -1
        if not _is_traceroute(packet):
            by_host = _pair_group(counters, UDP_PORTS, packet, t)
            by_port = _source_group(counters, UDP_HOSTS, packet, port, t)
        a = add_attempt(attempts, key, packet, port, PENDING, by_host, by_port, t)
    count_again(attempts, a, t)
    row = attempts.rows[a]
    if not to_many and np.int64(row["replies"]) * _ANSWERED_SHARE < row["packets"]:
        key = hash_of(seed, packet["dst_hi"], packet["dst_lo"], zero, zero, _UDP_TRY)
        count_in(counters.rates, UDP_RATE, key, packet, t, seed)


@compiled
def _count_icmp(counters: Counters, packet: Any, t: Int) -> None:
    attempts = counters.attempts
    seed = counters.seed
    kind = np.int64(packet["icmp_type"])
    is_v6 = packet["protocol"] == ICMPV6
    if kind == (129 if is_v6 else 0):
        a = find(attempts.row_slots, attempts.row_keys, _backward(seed, packet, _ICMP_TRY))
        if a >= 0:
            answer(attempts, a)
        return
    # Only requests: errors are answers to something, neighbour discovery is the link's own.
    if is_v6:
        if kind != 128:
            return
    elif kind != 8 and kind != 13 and kind != 15 and kind != 17:
        return
    if _to_many(packet):
        return
    zero = np.uint64(0)
    key = hash_of(seed, packet["dst_hi"], packet["dst_lo"], zero, zero, _ICMP_TRY)
    count_in(counters.rates, ICMP_RATE, key, packet, t, seed)
    key = _forward(seed, packet, _ICMP_TRY)
    a = find(attempts.row_slots, attempts.row_keys, key)
    if a < 0:
        make_room(attempts)
        by_source = _source_group(counters, ICMP_HOSTS, packet, 0, t)
        a = add_attempt(attempts, key, packet, 0, PENDING, by_source, -1, t)
    count_again(attempts, a, t)


@compiled
def _count_arp(counters: Counters, packet: Any, t: Int) -> None:
    """Who asks is told by the hardware address: a sweep may leave its own IP address out."""
    attempts = counters.attempts
    seed = counters.seed
    zero = np.uint64(0)
    if packet["icmp_type"] == 2:
        key = hash_of(seed, zero, packet["dst_mac"], zero, packet["src_lo"], _ARP_TRY)
        a = find(attempts.row_slots, attempts.row_keys, key)
        if a >= 0:
            answer(attempts, a)
        return
    if packet["icmp_type"] != 1 or packet["src_lo"] == packet["dst_lo"]:
        return  # a host that announces itself asks for nobody
    key = hash_of(seed, zero, packet["src_mac"], zero, packet["dst_lo"], _ARP_TRY)
    a = find(attempts.row_slots, attempts.row_keys, key)
    if a < 0:
        make_room(attempts)
        rest = _GROUP | (ARP_HOSTS << 20)
        group_key = hash_of(seed, zero, packet["src_mac"], zero, zero, rest)
        g = join_group(attempts, ARP_HOSTS, group_key, packet, t)
        a = add_attempt(attempts, key, packet, 0, PENDING, g, -1, t)
    count_again(attempts, a, t)


@compiled
def move_clock(counters: Counters, time_ns: Int) -> Any:
    """Packet time is `time_ns`: windows slide, what has grown is told; the time that holds."""
    clock = counters.clock
    if time_ns < clock[CLOCK] - _BACK_NS:
        forget_all(counters.attempts)
        clock[CLOCK] = time_ns
    t = max(clock[CLOCK], time_ns)
    clock[CLOCK] = t
    ripen(counters.attempts, t)
    if t // NS != clock[SECOND]:
        clock[SECOND] = t // NS
        tell_groups(counters.attempts, t)
        tell_rates(counters.rates, t)
    elif counters.attempts.registers[DUE]:
        tell_groups(counters.attempts, t)
    forget_old(counters.attempts, t)
    return t


@compiled
def count_packets(counters: Counters, packets: Rows) -> None:
    """Feed packets in capture order; evidence lands in the `out` of attempts and rates."""
    for i in range(len(packets)):
        packet = packets[i]
        t = move_clock(counters, packet["time_ns"])
        if packet["kind"] == _KIND_ARP:
            _count_arp(counters, packet, t)
        elif packet["protocol"] == TCP:
            _count_tcp(counters, packet, t)
        elif packet["protocol"] == UDP:
            _count_udp(counters, packet, t)
        elif packet["protocol"] == ICMP or packet["protocol"] == ICMPV6:
            _count_icmp(counters, packet, t)
        if counters.attempts.registers[DUE]:
            tell_groups(counters.attempts, t)

"""One flow's row: how a packet changes it (docs/features.md in running form)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from batches import ACK, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, ConnectionState, EndReason
from compiled import Int, compiled
from flow_table import NEXT_ID, Table, icmp_request

__all__ = [
    "BOTH_FINS",
    "MARK_ESTABLISHED",
    "MARK_RST",
    "MARK_SYN",
    "MARK_SYN_ACK",
    "add_packet",
    "begin",
    "connection_state",
]

MARK_SYN: Final = 1
MARK_SYN_ACK: Final = 2
_MARK_FIN_FORWARD: Final = 4
_MARK_FIN_BACKWARD: Final = 8
MARK_RST: Final = 16
MARK_ESTABLISHED: Final = 32  # the initiator acknowledged the SYN-ACK
BOTH_FINS: Final = _MARK_FIN_FORWARD | _MARK_FIN_BACKWARD

_MOST: Final = np.iinfo(np.int64).max

_END_ACTIVE: Final = int(EndReason.ACTIVE)
_STATE_S0: Final = int(ConnectionState.S0)
_STATE_REJ: Final = int(ConnectionState.REJ)
_STATE_SF: Final = int(ConnectionState.SF)
_STATE_RST: Final = int(ConnectionState.RST)
_STATE_EST: Final = int(ConnectionState.EST)
_STATE_MID: Final = int(ConnectionState.MID)
_STATE_ANSWERED: Final = int(ConnectionState.ANSWERED)
_STATE_UNANSWERED: Final = int(ConnectionState.UNANSWERED)


@compiled
def begin(table: Table, r: Int, packet: Any, swapped: bool) -> None:
    """Make row r the flow of `packet`; `swapped`: the packet goes backward."""
    row = table.rows[r]
    row["id"] = table.registers[NEXT_ID]
    table.registers[NEXT_ID] += 1
    t = packet["time_ns"]
    row["first_ns"] = t
    row["last_ns"] = t
    if swapped:
        row["src_hi"] = packet["dst_hi"]
        row["src_lo"] = packet["dst_lo"]
        row["dst_hi"] = packet["src_hi"]
        row["dst_lo"] = packet["src_lo"]
        row["src_mac"] = packet["dst_mac"]
        row["dst_mac"] = packet["src_mac"]
        row["src_port"] = packet["dst_port"]
        row["dst_port"] = packet["src_port"]
    else:
        row["src_hi"] = packet["src_hi"]
        row["src_lo"] = packet["src_lo"]
        row["dst_hi"] = packet["dst_hi"]
        row["dst_lo"] = packet["dst_lo"]
        row["src_mac"] = packet["src_mac"]
        row["dst_mac"] = packet["dst_mac"]
        row["src_port"] = packet["src_port"]
        row["dst_port"] = packet["dst_port"]
    for d in range(2):
        row["bytes"][d] = 0
        row["square_sum"][d] = 0
        row["wire_bytes"][d] = 0
        row["dir_first_ns"][d] = 0
        row["dir_last_ns"][d] = 0
        row["packets"][d] = 0
        row["payload_packets"][d] = 0
        row["length_max"][d] = 0
        row["length_min"][d] = 0
        row["init_window"][d] = 0
        row["ttl"][d] = 0
    for d in range(3):
        row["iat_mean"][d] = 0.0
        row["iat_m2"][d] = 0.0
        row["first_payloads"][d] = -1
    for d in range(4):
        row["flag_counts"][d] = 0
    row["jitter_sum"] = 0.0
    row["last_iat"] = 0.0
    row["vlan"] = packet["vlan"]
    row["tunnel"] = packet["tunnel"]
    row["protocol"] = packet["protocol"]
    row["ip_version"] = packet["ip_version"]
    row["icmp_type"] = 0
    row["icmp_code"] = 0
    if packet["protocol"] == ICMP or packet["protocol"] == ICMPV6:
        row["icmp_type"] = icmp_request(
            np.int64(packet["icmp_type"]), np.int64(packet["ip_version"])
        )
        row["icmp_code"] = packet["icmp_code"]
    row["marks"] = 0
    row["end_reason"] = _END_ACTIVE
    row["connection_state"] = 0
    row["continued"] = 0
    table.judged_ns[r] = 0


@compiled
def _add_gap(row: Any, which: Int, gap: float, count: Int) -> None:
    """Welford's running mean and sum of squares of the count-th gap (Knuth 4.2.2)."""
    delta = gap - row["iat_mean"][which]
    mean = row["iat_mean"][which] + delta / count
    row["iat_mean"][which] = mean
    row["iat_m2"][which] += delta * (gap - mean)


@compiled
def _add_times(row: Any, d: Int, t: Int) -> None:
    """Gaps of the direction and of the flow; a packet captured out of order counts as gap 0.

    One that is older than the flow counts from its first packet, so that no direction lasts longer
    than the flow.
    """
    t = max(t, row["first_ns"])
    seen = np.int64(row["packets"][0]) + np.int64(row["packets"][1])
    if seen > 0:
        gap = float(max(t - row["last_ns"], 0))
        _add_gap(row, 2, gap, seen)
        if seen > 1:
            row["jitter_sum"] += abs(gap - row["last_iat"])
        row["last_iat"] = gap
    if row["packets"][d] > 0:
        gap = float(max(t - row["dir_last_ns"][d], 0))
        _add_gap(row, d, gap, np.int64(row["packets"][d]))
        row["dir_last_ns"][d] = max(row["dir_last_ns"][d], t)
    else:
        row["dir_first_ns"][d] = t
        row["dir_last_ns"][d] = t
    row["last_ns"] = max(row["last_ns"], t)


@compiled
def _add_flags(row: Any, d: Int, flags: Int) -> None:
    if flags & FIN:
        row["flag_counts"][0] += 1
        row["marks"] |= _MARK_FIN_BACKWARD if d else _MARK_FIN_FORWARD
    if flags & SYN:
        row["flag_counts"][1] += 1
        row["marks"] |= MARK_SYN_ACK if flags & ACK else MARK_SYN
    elif flags & ACK and d == 0 and row["marks"] & MARK_SYN_ACK and not flags & RST:
        row["marks"] |= MARK_ESTABLISHED
    if flags & RST:
        row["flag_counts"][2] += 1
        row["marks"] |= MARK_RST
    if flags & PSH:
        row["flag_counts"][3] += 1


@compiled
def add_packet(row: Any, d: Int, packet: Any) -> None:
    length = np.int64(packet["payload"])
    _add_times(row, d, packet["time_ns"])
    if row["packets"][d] == 0:
        row["length_min"][d] = length
        row["init_window"][d] = packet["window"]
        row["ttl"][d] = packet["ttl"]
    row["packets"][d] += 1
    row["bytes"][d] += length
    # Lengths of the wire reach this sum after 2**31 packets, lengths that a file invents at once.
    row["square_sum"][d] += min(length * length, _MOST - row["square_sum"][d])
    row["wire_bytes"][d] += packet["wire_length"]
    row["length_max"][d] = max(row["length_max"][d], length)
    row["length_min"][d] = min(row["length_min"][d], length)
    if length > 0:
        row["payload_packets"][d] += 1
        n = np.int64(row["payload_packets"][0]) + np.int64(row["payload_packets"][1])
        if n <= 3:
            row["first_payloads"][n - 1] = length
    if row["protocol"] == TCP:
        _add_flags(row, d, np.int64(packet["tcp_flags"]))


@compiled
def connection_state(row: Any) -> Int:
    answered = row["packets"][1] > 0
    if row["protocol"] != TCP:
        return _STATE_ANSWERED if answered else _STATE_UNANSWERED
    marks = np.int64(row["marks"])
    payload = row["payload_packets"][0] > 0 or row["payload_packets"][1] > 0
    if not marks & (MARK_SYN | MARK_SYN_ACK):
        return _STATE_MID
    if not marks & MARK_SYN_ACK and not payload:
        return _STATE_REJ if answered and marks & MARK_RST else _STATE_S0
    if marks & MARK_RST:
        return _STATE_RST
    return _STATE_SF if marks & BOTH_FINS == BOTH_FINS else _STATE_EST

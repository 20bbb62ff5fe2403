"""Packets to bidirectional flows: one loop over packets, one row a flow, bounded for ever.

A flow is (addresses, ports, protocol, VLAN; for ICMP also type and code), either direction
(docs/features.md §1, after the corrected CICFlowMeter of Engelen et al. 2021). Rows of the table
live in one list ordered by the last packet:

    oldest ... [expired, remembered] first_open ... [open, closing, closed] ... newest

Expired rows stay for a while, so that a connection that goes on keeps its direction. Time is
packet time; `expire` moves it on by the clock where no packet comes.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batches import (
    FLOW,
    PACKET,
    ConnectionState,
    EndReason,
    FlowBatch,
    PacketBatch,
    PacketKind,
    Rows,
)
from compiled import compiled

__all__ = ["MARK_ESTABLISHED", "MARK_RST", "MARK_SYN", "MARK_SYN_ACK", "FlowTracker", "warm"]

NS: Final = 1_000_000_000
LINGER_NS: Final = NS
"""After RST or FIN/FIN a flow waits this long for packets captured out of order."""
REMEMBER_NS: Final = 600 * NS
"""An expired flow's direction is remembered this long for its continuation."""
ACTIVE_JUDGE_NS: Final = 10 * NS
"""A living flow is judged for the first time at this age, and again at this distance."""

MARK_SYN: Final = 1
MARK_SYN_ACK: Final = 2
MARK_FIN_FORWARD: Final = 4
MARK_FIN_BACKWARD: Final = 8
MARK_RST: Final = 16
MARK_ESTABLISHED: Final = 32  # the initiator acknowledged the SYN-ACK
_MARK_FINS: Final = MARK_FIN_FORWARD | MARK_FIN_BACKWARD

_FIN: Final = 1
_SYN: Final = 2
_RST: Final = 4
_PSH: Final = 8
_ACK: Final = 16
_TCP: Final = 6
_ICMP: Final = 1
_ICMPV6: Final = 58
_KIND_FLOW: Final = int(PacketKind.FLOW)

_END_ACTIVE: Final = int(EndReason.ACTIVE)
_END_QUIET: Final = int(EndReason.QUIET)
_END_FIN: Final = int(EndReason.FIN)
_END_RST: Final = int(EndReason.RST)
_END_IDLE: Final = int(EndReason.IDLE)
_END_TIMEOUT: Final = int(EndReason.TIMEOUT)
_END_SHUTDOWN: Final = int(EndReason.SHUTDOWN)
_END_EVICTED: Final = int(EndReason.EVICTED)

_STATE_S0: Final = int(ConnectionState.S0)
_STATE_REJ: Final = int(ConnectionState.REJ)
_STATE_SF: Final = int(ConnectionState.SF)
_STATE_RST: Final = int(ConnectionState.RST)
_STATE_EST: Final = int(ConnectionState.EST)
_STATE_MID: Final = int(ConnectionState.MID)
_STATE_ANSWERED: Final = int(ConnectionState.ANSWERED)
_STATE_UNANSWERED: Final = int(ConnectionState.UNANSWERED)

# What a table row is.
_FREE: Final = 0
_OPEN: Final = 1
_CLOSING: Final = 2  # ended, lingering for packets captured out of order
_CLOSED: Final = 3  # given out; stays so that late ACKs do not become flows of their own
_EXPIRED: Final = 4  # given out; stays so that a continuation keeps its direction

# Places in Table.registers.
_OLDEST: Final = 0
_NEWEST: Final = 1
_FIRST_OPEN: Final = 2
_FREE_ROW: Final = 3
_NEXT_ID: Final = 4
_CLOCK: Final = 5
_EVICTED: Final = 6
_LATE: Final = 7
_ACTIVE: Final = 8
_CLOSING_FIRST: Final = 9
_CLOSING_COUNT: Final = 10
_REGISTERS: Final = 11


class Table(NamedTuple):
    """The flow table as plain arrays, so that compiled and interpreted code share it.

    rows (n,) FLOW; key_hash (n,) uint64; older, newer (n,) int32 neighbours in the list (a free
    row's `newer` is the next free one); status (n,) uint8; judged_ns (n,) int64; index (power of
    two >= 2n,) int32 row or -1, linear probing; closing_* (n,) a ring of rows that linger;
    seed (2,) uint64, random a start, so that nobody can make keys collide on purpose.
    """

    rows: Rows
    key_hash: NDArray[np.uint64]
    older: NDArray[np.int32]
    newer: NDArray[np.int32]
    status: NDArray[np.uint8]
    judged_ns: NDArray[np.int64]
    index: NDArray[np.int32]
    closing_row: NDArray[np.int32]
    closing_id: NDArray[np.uint64]
    closing_ns: NDArray[np.int64]
    registers: NDArray[np.int64]
    seed: NDArray[np.uint64]


# --- keys ---------------------------------------------------------------------------------------


@compiled
def _mix(value: Any) -> Any:
    """The finaliser of splitmix64 (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _icmp_request(kind: int, version: int) -> int:
    """The ICMP type under which a packet is keyed: replies count to their requests' flow."""
    if version == 6:
        return 128 if kind == 129 else kind
    if kind == 0:
        return 8
    if kind == 14 or kind == 16 or kind == 18:  # timestamp, information, address mask
        return kind - 1
    return kind


@compiled
def _hash_key(packet: Any, seed: NDArray[np.uint64]) -> Any:
    """Equal for both directions; without the seed no two keys can be made to collide."""
    source = _mix(packet["src_lo"] ^ seed[0]) ^ _mix(
        packet["src_hi"] + seed[1] + np.uint64(packet["src_port"])
    )
    target = _mix(packet["dst_lo"] ^ seed[0]) ^ _mix(
        packet["dst_hi"] + seed[1] + np.uint64(packet["dst_port"])
    )
    rest = np.uint64(packet["protocol"]) | (np.uint64(packet["vlan"]) << np.uint64(8))
    if packet["protocol"] == _ICMP or packet["protocol"] == _ICMPV6:
        kind = _icmp_request(np.int64(packet["icmp_type"]), np.int64(packet["ip_version"]))
        rest |= np.uint64(kind) << np.uint64(40)
        rest |= np.uint64(packet["icmp_code"]) << np.uint64(48)
    return _mix(_mix(source ^ seed[1]) + _mix(target ^ seed[1]) + _mix(rest + seed[0]))


@compiled
def _direction(row: Any, packet: Any) -> int:
    """0 forward, 1 backward, -1 where the packet is not of this flow."""
    if (
        row["protocol"] != packet["protocol"]
        or row["ip_version"] != packet["ip_version"]
        or row["vlan"] != packet["vlan"]
    ):
        return -1
    if packet["protocol"] == _ICMP or packet["protocol"] == _ICMPV6:
        kind = _icmp_request(np.int64(packet["icmp_type"]), np.int64(packet["ip_version"]))
        if row["icmp_type"] != kind or row["icmp_code"] != packet["icmp_code"]:
            return -1
    if (
        row["src_lo"] == packet["src_lo"]
        and row["dst_lo"] == packet["dst_lo"]
        and row["src_port"] == packet["src_port"]
        and row["dst_port"] == packet["dst_port"]
        and row["src_hi"] == packet["src_hi"]
        and row["dst_hi"] == packet["dst_hi"]
    ):
        return 0
    if (
        row["src_lo"] == packet["dst_lo"]
        and row["dst_lo"] == packet["src_lo"]
        and row["src_port"] == packet["dst_port"]
        and row["dst_port"] == packet["src_port"]
        and row["src_hi"] == packet["dst_hi"]
        and row["dst_hi"] == packet["src_hi"]
    ):
        return 1
    return -1


@compiled
def _find(table: Table, packet: Any, key: Any) -> tuple[int, int]:
    """(row, direction) of the packet's flow, (-1, -1) where there is none."""
    mask = len(table.index) - 1
    slot = np.int64(key & np.uint64(mask))
    while table.index[slot] >= 0:
        r = np.int64(table.index[slot])
        if table.key_hash[r] == key:
            direction = _direction(table.rows[r], packet)
            if direction >= 0:
                return r, direction
        slot = (slot + 1) & mask
    return -1, -1


@compiled
def _index_add(table: Table, r: int) -> None:
    mask = len(table.index) - 1
    slot = np.int64(table.key_hash[r] & np.uint64(mask))
    while table.index[slot] >= 0:
        slot = (slot + 1) & mask
    table.index[slot] = r


@compiled
def _index_remove(table: Table, r: int) -> None:
    """Linear probing with backward shift, so that no tombstones pile up (Knuth 6.4, R)."""
    mask = len(table.index) - 1
    slot = np.int64(table.key_hash[r] & np.uint64(mask))
    while table.index[slot] != r:
        slot = (slot + 1) & mask
    hole = slot
    while True:
        slot = (slot + 1) & mask
        other = np.int64(table.index[slot])
        if other < 0:
            break
        home = np.int64(table.key_hash[other] & np.uint64(mask))
        if ((slot - home) & mask) >= ((slot - hole) & mask):
            table.index[hole] = other
            hole = slot
    table.index[hole] = -1


# --- the list ordered by the last packet ----------------------------------------------------------


@compiled
def _unlink(table: Table, r: int) -> None:
    older = np.int64(table.older[r])
    newer = np.int64(table.newer[r])
    if older >= 0:
        table.newer[older] = newer
    else:
        table.registers[_OLDEST] = newer
    if newer >= 0:
        table.older[newer] = older
    else:
        table.registers[_NEWEST] = older
    if table.registers[_FIRST_OPEN] == r:
        table.registers[_FIRST_OPEN] = newer


@compiled
def _append(table: Table, r: int) -> None:
    newest = table.registers[_NEWEST]
    table.older[r] = newest
    table.newer[r] = -1
    if newest >= 0:
        table.newer[newest] = r
    else:
        table.registers[_OLDEST] = r
    table.registers[_NEWEST] = r
    if table.registers[_FIRST_OPEN] < 0:
        table.registers[_FIRST_OPEN] = r


# --- a flow's row ---------------------------------------------------------------------------------


@compiled
def _begin(table: Table, r: int, packet: Any, swapped: bool) -> None:
    """Make row r the flow of `packet`; `swapped`: the packet goes backward."""
    row = table.rows[r]
    row["id"] = table.registers[_NEXT_ID]
    table.registers[_NEXT_ID] += 1
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
        row["header_bytes"][d] = 0
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
    row["protocol"] = packet["protocol"]
    row["ip_version"] = packet["ip_version"]
    row["icmp_type"] = 0
    row["icmp_code"] = 0
    if packet["protocol"] == _ICMP or packet["protocol"] == _ICMPV6:
        row["icmp_type"] = _icmp_request(
            np.int64(packet["icmp_type"]), np.int64(packet["ip_version"])
        )
        row["icmp_code"] = packet["icmp_code"]
    row["marks"] = 0
    row["end_reason"] = _END_ACTIVE
    row["connection_state"] = 0
    row["continued"] = 0
    table.judged_ns[r] = 0


@compiled
def _add_gap(row: Any, which: int, gap: float, count: int) -> None:
    """Welford's running mean and sum of squares of the count-th gap (Knuth 4.2.2)."""
    delta = gap - row["iat_mean"][which]
    mean = row["iat_mean"][which] + delta / count
    row["iat_mean"][which] = mean
    row["iat_m2"][which] += delta * (gap - mean)


@compiled
def _add_times(row: Any, d: int, t: int) -> None:
    """Gaps of the direction and of the flow; a packet captured out of order counts as gap 0."""
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
def _add_flags(row: Any, d: int, flags: int) -> None:
    if flags & _FIN:
        row["flag_counts"][0] += 1
        row["marks"] |= MARK_FIN_BACKWARD if d else MARK_FIN_FORWARD
    if flags & _SYN:
        row["flag_counts"][1] += 1
        row["marks"] |= MARK_SYN_ACK if flags & _ACK else MARK_SYN
    elif flags & _ACK and d == 0 and row["marks"] & MARK_SYN_ACK and not flags & _RST:
        row["marks"] |= MARK_ESTABLISHED
    if flags & _RST:
        row["flag_counts"][2] += 1
        row["marks"] |= MARK_RST
    if flags & _PSH:
        row["flag_counts"][3] += 1


@compiled
def _add_packet(row: Any, d: int, packet: Any) -> None:
    length = np.int64(packet["payload"])
    _add_times(row, d, packet["time_ns"])
    if row["packets"][d] == 0:
        row["length_min"][d] = length
        row["init_window"][d] = packet["window"]
        row["ttl"][d] = packet["ttl"]
    row["packets"][d] += 1
    row["bytes"][d] += length
    row["square_sum"][d] += length * length
    row["wire_bytes"][d] += packet["wire_length"]
    row["header_bytes"][d] += packet["header_length"]
    row["length_max"][d] = max(row["length_max"][d], length)
    row["length_min"][d] = min(row["length_min"][d], length)
    if length > 0:
        row["payload_packets"][d] += 1
        n = np.int64(row["payload_packets"][0]) + np.int64(row["payload_packets"][1])
        if n <= 3:
            row["first_payloads"][n - 1] = length
    if row["protocol"] == _TCP:
        _add_flags(row, d, np.int64(packet["tcp_flags"]))


@compiled
def _connection_state(row: Any) -> int:
    answered = row["packets"][1] > 0
    if row["protocol"] != _TCP:
        return _STATE_ANSWERED if answered else _STATE_UNANSWERED
    marks = np.int64(row["marks"])
    payload = row["payload_packets"][0] > 0 or row["payload_packets"][1] > 0
    if not marks & (MARK_SYN | MARK_SYN_ACK):
        return _STATE_MID
    if not marks & MARK_SYN_ACK and not payload:
        return _STATE_REJ if answered and marks & MARK_RST else _STATE_S0
    if marks & MARK_RST:
        return _STATE_RST
    return _STATE_SF if marks & _MARK_FINS == _MARK_FINS else _STATE_EST


# --- ends -----------------------------------------------------------------------------------------


@compiled
def _give_out(table: Table, r: int, reason: int, out: Rows, count: int) -> int:
    row = table.rows[r]
    row["end_reason"] = reason
    row["connection_state"] = _connection_state(row)
    out[count] = row
    table.registers[_ACTIVE] -= 1
    return count + 1


@compiled
def _start_closing(table: Table, r: int, reason: int) -> None:
    """The flow has ended; it is given out after LINGER_NS."""
    registers = table.registers
    table.status[r] = _CLOSING
    table.rows[r]["end_reason"] = reason
    place = (registers[_CLOSING_FIRST] + registers[_CLOSING_COUNT]) % len(table.closing_row)
    table.closing_row[place] = r
    table.closing_id[place] = table.rows[r]["id"]
    table.closing_ns[place] = registers[_CLOCK]
    registers[_CLOSING_COUNT] += 1


@compiled
def _give_out_closing(table: Table, out: Rows, count: int) -> int:
    """The flow that has lingered longest; a row that went on in the meantime is passed over."""
    registers = table.registers
    place = registers[_CLOSING_FIRST]
    registers[_CLOSING_FIRST] = (place + 1) % len(table.closing_row)
    registers[_CLOSING_COUNT] -= 1
    r = np.int64(table.closing_row[place])
    row = table.rows[r]
    if table.status[r] == _CLOSING and row["id"] == table.closing_id[place]:
        count = _give_out(table, r, np.int64(row["end_reason"]), out, count)
        table.status[r] = _CLOSED
    return count


@compiled
def _forget(table: Table, r: int) -> None:
    _unlink(table, r)
    _index_remove(table, r)
    table.status[r] = _FREE
    table.newer[r] = table.registers[_FREE_ROW]
    table.registers[_FREE_ROW] = r


@compiled
def _expire(table: Table, now_ns: int, idle_ns: int, out: Rows, count: int) -> tuple[int, bool]:
    """Give out what has ended by `now_ns`; (rows in out, False where out is too small)."""
    registers = table.registers
    registers[_CLOCK] = max(registers[_CLOCK], now_ns)
    clock = registers[_CLOCK]
    while (
        registers[_CLOSING_COUNT] > 0
        and table.closing_ns[registers[_CLOSING_FIRST]] + LINGER_NS <= clock
    ):
        if count >= len(out):
            return count, False
        count = _give_out_closing(table, out, count)
    r = registers[_FIRST_OPEN]
    while r >= 0 and table.rows[r]["last_ns"] + idle_ns <= clock:
        if table.status[r] == _OPEN or table.status[r] == _CLOSING:
            if count >= len(out):
                registers[_FIRST_OPEN] = r
                return count, False
            # A flow that still lingers here ended long before the clock moved on.
            reason = _END_IDLE
            if table.status[r] == _CLOSING:
                reason = np.int64(table.rows[r]["end_reason"])
            count = _give_out(table, r, reason, out, count)
        table.status[r] = _EXPIRED
        r = np.int64(table.newer[r])
    registers[_FIRST_OPEN] = r
    r = registers[_OLDEST]
    while r >= 0 and r != registers[_FIRST_OPEN]:
        if table.rows[r]["last_ns"] + REMEMBER_NS > clock:
            break
        newer = np.int64(table.newer[r])
        _forget(table, r)
        r = newer
    return count, True


# --- the loop -------------------------------------------------------------------------------------


@compiled
def _new_flow(
    table: Table, packet: Any, key: Any, swapped: bool, out: Rows, count: int
) -> tuple[int, int]:
    """(row of a fresh flow, rows in out); in a full table the longest silent one makes room."""
    r = table.registers[_FREE_ROW]
    if r < 0:
        oldest = table.registers[_OLDEST]
        if table.status[oldest] == _OPEN or table.status[oldest] == _CLOSING:
            count = _give_out(table, oldest, _END_EVICTED, out, count)
            table.registers[_EVICTED] += 1
        _forget(table, oldest)
        r = oldest
    table.registers[_FREE_ROW] = table.newer[r]
    table.key_hash[r] = key
    _begin(table, r, packet, swapped)
    _index_add(table, r)
    _append(table, r)
    table.status[r] = _OPEN
    table.registers[_ACTIVE] += 1
    return r, count


@compiled
def _restart(table: Table, r: int, packet: Any, swapped: bool, continued: bool) -> None:
    """Row r begins a new flow of the same key."""
    _unlink(table, r)
    _begin(table, r, packet, swapped)
    table.rows[r]["continued"] = 1 if continued else 0
    _append(table, r)
    table.status[r] = _OPEN
    table.registers[_ACTIVE] += 1


@compiled
def _into_flow(table: Table, r: int, d: int, packet: Any) -> None:
    """Add a packet to the open flow in row r and see whether it ends it."""
    row = table.rows[r]
    had_both_fins = np.int64(row["marks"]) & _MARK_FINS == _MARK_FINS
    _add_packet(row, d, packet)
    _unlink(table, r)
    _append(table, r)
    if row["protocol"] != _TCP:
        return
    if np.int64(packet["tcp_flags"]) & _RST:
        _start_closing(table, r, _END_RST)
    elif had_both_fins:  # this was the last acknowledgement
        _start_closing(table, r, _END_FIN)


@compiled
def _one_packet(table: Table, packet: Any, active_ns: int, out: Rows, count: int) -> int:
    t = packet["time_ns"]
    flags = np.int64(packet["tcp_flags"]) if packet["protocol"] == _TCP else 0
    opens = flags & (_SYN | _ACK | _RST) == _SYN
    key = _hash_key(packet, table.seed)
    r, d = _find(table, packet, key)
    if r < 0:
        # A SYN-ACK comes from the server: forward is the other side.
        swapped = flags & (_SYN | _ACK | _RST) == (_SYN | _ACK)
        r, count = _new_flow(table, packet, key, swapped, out, count)
        _into_flow(table, r, 1 if swapped else 0, packet)
        return count
    row = table.rows[r]
    status = table.status[r]
    if status == _OPEN:
        ended = np.int64(row["marks"]) & _MARK_FINS == _MARK_FINS
        if opens and ended:
            count = _give_out(table, r, _END_FIN, out, count)
            _restart(table, r, packet, d == 1, False)
            d = 0
        elif t - row["first_ns"] >= active_ns:
            count = _give_out(table, r, _END_TIMEOUT, out, count)
            _restart(table, r, packet, d == 1, True)
        _into_flow(table, r, d, packet)
        return count
    if opens:
        if status == _CLOSING:
            count = _give_out(table, r, np.int64(row["end_reason"]), out, count)
        _restart(table, r, packet, d == 1, False)
        _into_flow(table, r, 0, packet)
    elif status == _CLOSING and t <= row["last_ns"]:
        _add_packet(row, d, packet)
    elif status == _EXPIRED or (packet["payload"] > 0 and t - row["last_ns"] > LINGER_NS):
        # Data long after a RST means that the connection did not believe it.
        if status == _CLOSING:
            count = _give_out(table, r, np.int64(row["end_reason"]), out, count)
        _restart(table, r, packet, d == 1, True)
        _into_flow(table, r, d, packet)
    else:
        table.registers[_LATE] += 1
    return count


@compiled
def track(
    table: Table, packets: Rows, start: int, active_ns: int, idle_ns: int, out: Rows
) -> tuple[int, int]:
    """Feed packets[start:]; (first packet not fed yet, rows in out).

    It stops early where `out` is full: call again from there with an empty `out`.
    """
    count = 0
    for i in range(start, len(packets)):
        packet = packets[i]
        if packet["kind"] != _KIND_FLOW:
            continue
        count, done = _expire(table, packet["time_ns"], idle_ns, out, count)
        # One packet ends at most two flows: its own, and one that is evicted or lingers.
        if not done or count + 2 > len(out):
            return i, count
        if table.registers[_CLOSING_COUNT] >= len(table.closing_row):
            count = _give_out_closing(table, out, count)
        count = _one_packet(table, packet, active_ns, out, count)
    return len(packets), count


@compiled
def expire(table: Table, now_ns: int, idle_ns: int, out: Rows) -> tuple[int, bool]:
    return _expire(table, now_ns, idle_ns, out, 0)


@compiled
def provisional(table: Table, now_ns: int, quiet_ns: int, start: int, out: Rows) -> tuple[int, int]:
    """Copy flows that live but are worth a verdict now; (next row to look at, rows in out)."""
    count = 0
    for r in range(start, len(table.rows)):
        if table.status[r] != _OPEN:
            continue
        row = table.rows[r]
        last = row["last_ns"]
        if last <= table.judged_ns[r]:
            continue
        quiet = now_ns - last >= quiet_ns
        active = now_ns - max(row["first_ns"], table.judged_ns[r]) >= ACTIVE_JUDGE_NS
        if not quiet and not active:
            continue
        if count >= len(out):
            return r, count
        table.judged_ns[r] = now_ns
        row["connection_state"] = _connection_state(row)
        row["end_reason"] = _END_QUIET if quiet else _END_ACTIVE
        out[count] = row
        row["end_reason"] = _END_ACTIVE
        count += 1
    return len(table.rows), count


@compiled
def flush(table: Table, out: Rows) -> tuple[int, bool]:
    """Give out every flow that has not ended, oldest first; (rows in out, whether all fitted)."""
    count = 0
    r = table.registers[_OLDEST]
    while r >= 0:
        newer = np.int64(table.newer[r])
        if table.status[r] == _OPEN or table.status[r] == _CLOSING:
            if count >= len(out):
                return count, False
            row = table.rows[r]
            reason = _END_SHUTDOWN
            if table.status[r] == _CLOSING:
                reason = np.int64(row["end_reason"])
            elif np.int64(row["marks"]) & _MARK_FINS == _MARK_FINS:
                reason = _END_FIN
            count = _give_out(table, r, reason, out, count)
        _forget(table, r)
        r = newer
    table.registers[_CLOSING_COUNT] = 0
    return count, True


def _empty_table(capacity: int, seed: tuple[int, int]) -> Table:
    slots = 1 << (2 * capacity - 1).bit_length()
    registers = np.zeros(_REGISTERS, np.int64)
    for place in (_OLDEST, _NEWEST, _FIRST_OPEN):
        registers[place] = -1
    registers[_NEXT_ID] = 1
    newer = np.arange(1, capacity + 1, dtype=np.int32)
    newer[-1] = -1
    return Table(
        rows=np.zeros(capacity, FLOW),
        key_hash=np.zeros(capacity, np.uint64),
        older=np.full(capacity, -1, np.int32),
        newer=newer,
        status=np.zeros(capacity, np.uint8),
        judged_ns=np.zeros(capacity, np.int64),
        index=np.full(slots, -1, np.int32),
        closing_row=np.zeros(capacity, np.int32),
        closing_id=np.zeros(capacity, np.uint64),
        closing_ns=np.zeros(capacity, np.int64),
        registers=registers,
        seed=np.array(seed, np.uint64),
    )


class FlowTracker:
    """The flow table behind one door; used by one thread.

    capacity: rows (312 bytes each); at the limit the longest silent flow ends (EVICTED).
    active_s, idle_s, quiet_s: time-outs in seconds of packet time.

    >>> tracker = FlowTracker(capacity=16)
    >>> len(tracker.track(PacketBatch(np.zeros(0, PACKET), np.zeros(6, np.int64), 0, 0)))
    0
    """

    def __init__(
        self,
        *,
        capacity: int = 131_072,
        active_s: float = 120.0,
        idle_s: float = 120.0,
        quiet_s: float = 5.0,
    ) -> None:
        self._table = _empty_table(capacity, (secrets.randbits(64), secrets.randbits(64)))
        self._active_ns = int(active_s * NS)
        self._idle_ns = int(idle_s * NS)
        self._quiet_ns = int(quiet_s * NS)
        self.ended = 0

    @property
    def active(self) -> int:
        """Flows that have not ended."""
        return int(self._table.registers[_ACTIVE])

    @property
    def evicted(self) -> int:
        """Flows ended because the table was full."""
        return int(self._table.registers[_EVICTED])

    @property
    def late_packets(self) -> int:
        """Packets of connections that had ended: counted, added to no flow."""
        return int(self._table.registers[_LATE])

    @property
    def clock_ns(self) -> int:
        """The newest packet time seen, nanoseconds since the epoch (0 before the first)."""
        return int(self._table.registers[_CLOCK])

    def track(self, packets: PacketBatch) -> FlowBatch:
        """Feed packets in capture order; the flows that ended by them."""
        parts = []
        place = 0
        while place < len(packets):
            out = np.empty(max(1024, min(len(packets), 16384)), FLOW)
            place, count = track(
                self._table, packets.rows, place, self._active_ns, self._idle_ns, out
            )
            parts.append(out[:count])
        return self._ended(parts)

    def expire(self, now_ns: int) -> FlowBatch:
        """Move the clock on without a packet; the flows that ended by it."""
        parts = []
        done = False
        while not done:
            out = np.empty(1024, FLOW)
            count, done = expire(self._table, now_ns, self._idle_ns, out)
            parts.append(out[:count])
        return self._ended(parts)

    def provisional(self, now_ns: int) -> FlowBatch:
        """Flows that fell silent or have lived for a while since they were last judged."""
        parts = []
        place = 0
        while place < len(self._table.rows):
            out = np.empty(1024, FLOW)
            place, count = provisional(self._table, now_ns, self._quiet_ns, place, out)
            parts.append(out[:count])
        return FlowBatch(_joined(parts))

    def flush(self) -> FlowBatch:
        """End everything: the file or the program is at its end."""
        parts = []
        done = False
        while not done:
            out = np.empty(16384, FLOW)
            count, done = flush(self._table, out)
            parts.append(out[:count])
        return self._ended(parts)

    def _ended(self, parts: list[Rows]) -> FlowBatch:
        rows = _joined(parts)
        self.ended += len(rows)
        return FlowBatch(rows)


def _joined(parts: list[Rows]) -> Rows:
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, FLOW)


def warm() -> None:
    """Compile (or load) the tracker before a capture opens."""
    packet = np.zeros(1, PACKET)
    packet["protocol"] = _TCP
    packet["ip_version"] = 4
    tracker = FlowTracker(capacity=4)
    tracker.track(PacketBatch(packet, np.zeros(6, np.int64), 1, 0))
    tracker.provisional(0)
    tracker.expire(0)
    tracker.flush()

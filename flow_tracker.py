"""Packets to bidirectional flows: one loop over packets, one row a flow, bounded for ever.

A flow is (addresses, ports, protocol, VLAN; for ICMP also type and code), either direction
(docs/features.md, after the corrected CICFlowMeter of Engelen et al. 2021). An expired row stays
in the table for a while, so that a connection that goes on keeps its direction. Time is packet
time; `expire` moves it on by the clock where no packet comes.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import numpy as np

from batches import (
    ACK,
    FLOW,
    PACKET,
    RST,
    SYN,
    TCP,
    UNREAD_REASONS,
    EndReason,
    FlowBatch,
    PacketBatch,
    PacketKind,
    Rows,
)
from compiled import Int, compiled
from flow_row import BOTH_FINS, add_packet, begin, connection_state
from flow_table import (
    ACTIVE,
    CLOCK,
    CLOSED,
    CLOSING,
    CLOSING_COUNT,
    CLOSING_FIRST,
    EVICTED,
    EXPIRED,
    FIRST_OPEN,
    FREE,
    FREE_ROW,
    LATE,
    OLDEST,
    OPEN,
    Table,
    append,
    empty_table,
    find,
    hash_key,
    index_add,
    index_remove,
    unlink,
)

__all__ = ["FlowTracker", "warm"]

NS: Final = 1_000_000_000
LINGER_NS: Final = NS
"""After RST or FIN/FIN a flow waits this long for packets captured out of order."""
REMEMBER_NS: Final = 600 * NS
"""An expired flow's direction is remembered this long for its continuation."""
ACTIVE_JUDGE_NS: Final = 10 * NS
"""A living flow is judged for the first time at this age, and again at this distance."""

_MOST_PACKETS: Final = 1_000_000_000
"""Of one direction of a flow, which then ends as after a time-out. Rows count with 31 bits, flags
of both directions together; only a file whose clock stands still gets there."""

BACK_NS: Final = 60 * NS
"""Packet time that jumps back further than this begins anew: a clock that was set, or files joined
end to end. By the old clock every flow would be silent for too long at its first packet."""

_END_ACTIVE: Final = int(EndReason.ACTIVE)
_END_QUIET: Final = int(EndReason.QUIET)
_END_FIN: Final = int(EndReason.FIN)
_END_RST: Final = int(EndReason.RST)
_END_IDLE: Final = int(EndReason.IDLE)
_END_TIMEOUT: Final = int(EndReason.TIMEOUT)
_END_SHUTDOWN: Final = int(EndReason.SHUTDOWN)
_END_EVICTED: Final = int(EndReason.EVICTED)
_KIND_FLOW: Final = int(PacketKind.FLOW)


@compiled
def _end_of(table: Table, r: Int, otherwise: Int) -> Int:
    """Why the flow in row r ended, where something else than its packets ends it now."""
    row = table.rows[r]
    if table.status[r] == CLOSING:
        return np.int64(row["end_reason"])
    return _END_FIN if np.int64(row["marks"]) & BOTH_FINS == BOTH_FINS else otherwise


@compiled
def _give_out(table: Table, r: Int, reason: Int, out: Rows, count: Int) -> Int:
    row = table.rows[r]
    row["end_reason"] = reason
    row["connection_state"] = connection_state(row)
    out[count] = row
    table.registers[ACTIVE] -= 1
    return count + 1


@compiled
def _start_closing(table: Table, r: Int, reason: Int) -> None:
    """The flow has ended; it is given out after LINGER_NS."""
    registers = table.registers
    table.status[r] = CLOSING
    table.rows[r]["end_reason"] = reason
    place = (registers[CLOSING_FIRST] + registers[CLOSING_COUNT]) % len(table.closing_row)
    table.closing_row[place] = r
    table.closing_id[place] = table.rows[r]["id"]
    table.closing_ns[place] = registers[CLOCK]
    registers[CLOSING_COUNT] += 1


@compiled
def _give_out_closing(table: Table, out: Rows, count: Int) -> Int:
    """The flow that has lingered longest; a row that went on in the meantime is passed over."""
    registers = table.registers
    place = registers[CLOSING_FIRST]
    registers[CLOSING_FIRST] = (place + 1) % len(table.closing_row)
    registers[CLOSING_COUNT] -= 1
    r = np.int64(table.closing_row[place])
    row = table.rows[r]
    if table.status[r] == CLOSING and row["id"] == table.closing_id[place]:
        count = _give_out(table, r, np.int64(row["end_reason"]), out, count)
        table.status[r] = CLOSED
    return count


@compiled
def _forget(table: Table, r: Int) -> None:
    unlink(table, r)
    index_remove(table, r)
    table.status[r] = FREE
    table.newer[r] = table.registers[FREE_ROW]
    table.registers[FREE_ROW] = r


@compiled
def _expire(table: Table, now_ns: Int, idle_ns: Int, out: Rows, count: Int) -> tuple[Int, bool]:
    """Give out what has ended by `now_ns`; (rows in out, False where out is too small)."""
    registers = table.registers
    registers[CLOCK] = max(registers[CLOCK], now_ns)
    clock = registers[CLOCK]
    while (
        registers[CLOSING_COUNT] > 0
        and table.closing_ns[registers[CLOSING_FIRST]] + LINGER_NS <= clock
    ):
        if count >= len(out):
            return count, False
        count = _give_out_closing(table, out, count)
    r = registers[FIRST_OPEN]
    while r >= 0 and table.rows[r]["last_ns"] + idle_ns <= clock:
        if table.status[r] == OPEN or table.status[r] == CLOSING:
            if count >= len(out):
                registers[FIRST_OPEN] = r
                return count, False
            count = _give_out(table, r, _end_of(table, r, _END_IDLE), out, count)
        table.status[r] = EXPIRED
        r = np.int64(table.newer[r])
    registers[FIRST_OPEN] = r
    r = registers[OLDEST]
    while r >= 0 and r != registers[FIRST_OPEN]:
        if table.rows[r]["last_ns"] + REMEMBER_NS > clock:
            break
        newer = np.int64(table.newer[r])
        _forget(table, r)
        r = newer
    return count, True


@compiled
def _end_all(table: Table, out: Rows, count: Int) -> tuple[Int, bool]:
    """Give out every flow that has not ended, oldest first; (rows in out, whether all fitted)."""
    r = table.registers[OLDEST]
    while r >= 0:
        newer = np.int64(table.newer[r])
        if table.status[r] == OPEN or table.status[r] == CLOSING:
            if count >= len(out):
                return count, False
            count = _give_out(table, r, _end_of(table, r, _END_SHUTDOWN), out, count)
        _forget(table, r)
        r = newer
    table.registers[CLOSING_COUNT] = 0
    return count, True


@compiled
def _new_flow(
    table: Table, packet: Any, key: Any, swapped: bool, out: Rows, count: Int
) -> tuple[Int, Int]:
    """(row of a fresh flow, rows in out); in a full table the longest silent one makes room."""
    r = table.registers[FREE_ROW]
    if r < 0:
        oldest = table.registers[OLDEST]
        if table.status[oldest] == OPEN or table.status[oldest] == CLOSING:
            reason = _end_of(table, oldest, _END_EVICTED)
            count = _give_out(table, oldest, reason, out, count)
            table.registers[EVICTED] += 1 if reason == _END_EVICTED else 0
        _forget(table, oldest)
        r = oldest
    table.registers[FREE_ROW] = table.newer[r]
    table.key_hash[r] = key
    begin(table, r, packet, swapped)
    index_add(table, r)
    append(table, r)
    table.status[r] = OPEN
    table.registers[ACTIVE] += 1
    return r, count


@compiled
def _restart(table: Table, r: Int, packet: Any, swapped: bool, continued: bool) -> None:
    """Row r begins a new flow of the same key."""
    unlink(table, r)
    begin(table, r, packet, swapped)
    table.rows[r]["continued"] = 1 if continued else 0
    append(table, r)
    table.status[r] = OPEN
    table.registers[ACTIVE] += 1


@compiled
def _into_flow(table: Table, r: Int, d: Int, packet: Any) -> None:
    """Add a packet to the open flow in row r and see whether it ends it."""
    row = table.rows[r]
    had_both_fins = np.int64(row["marks"]) & BOTH_FINS == BOTH_FINS
    add_packet(row, d, packet)
    unlink(table, r)
    append(table, r)
    if row["protocol"] != TCP:
        return
    if np.int64(packet["tcp_flags"]) & RST:
        _start_closing(table, r, _END_RST)
    elif had_both_fins:  # this was the last acknowledgement
        _start_closing(table, r, _END_FIN)


@compiled
def _one_packet(table: Table, packet: Any, active_ns: Int, out: Rows, count: Int) -> Int:
    t = packet["time_ns"]
    flags = np.int64(packet["tcp_flags"]) if packet["protocol"] == TCP else 0
    opens = flags & (SYN | ACK | RST) == SYN
    key = hash_key(packet, table.seed)
    r, d = find(table, packet, key)
    if r < 0:
        # A SYN-ACK comes from the server: forward is the other side.
        swapped = flags & (SYN | ACK | RST) == (SYN | ACK)
        r, count = _new_flow(table, packet, key, swapped, out, count)
        _into_flow(table, r, 1 if swapped else 0, packet)
        return count
    row = table.rows[r]
    status = table.status[r]
    if status == OPEN:
        ended = np.int64(row["marks"]) & BOTH_FINS == BOTH_FINS
        if opens and ended:
            count = _give_out(table, r, _END_FIN, out, count)
            _restart(table, r, packet, False, False)
            d = 0
        elif t - row["first_ns"] >= active_ns or row["packets"][d] >= _MOST_PACKETS:
            count = _give_out(table, r, _end_of(table, r, _END_TIMEOUT), out, count)
            if ended:  # the last acknowledgement alone is no flow
                table.status[r] = CLOSED
                table.registers[LATE] += 1
                return count
            _restart(table, r, packet, d == 1, True)
        _into_flow(table, r, d, packet)
        return count
    if opens:
        if status == CLOSING:
            count = _give_out(table, r, np.int64(row["end_reason"]), out, count)
        _restart(table, r, packet, False, False)
        _into_flow(table, r, 0, packet)
    elif status == CLOSING and t <= row["last_ns"] and row["packets"][d] < _MOST_PACKETS:
        add_packet(row, d, packet)
    elif status == EXPIRED or (packet["payload"] > 0 and t - row["last_ns"] > LINGER_NS):
        # Data long after a RST means that the connection did not believe it.
        if status == CLOSING:
            count = _give_out(table, r, np.int64(row["end_reason"]), out, count)
        _restart(table, r, packet, d == 1, True)
        _into_flow(table, r, d, packet)
    else:
        table.registers[LATE] += 1
    return count


@compiled
def track(
    table: Table, packets: Rows, start: Int, active_ns: Int, idle_ns: Int, out: Rows
) -> tuple[Int, Int]:
    """Feed packets[start:]; (first packet not fed yet, rows in out).

    It stops early where `out` is full: call again from there with an empty `out`.
    """
    count: Int = 0
    for i in range(start, len(packets)):
        packet = packets[i]
        if packet["kind"] != _KIND_FLOW:
            continue
        done = True
        if packet["time_ns"] < table.registers[CLOCK] - BACK_NS:
            count, done = _end_all(table, out, count)
            if done:
                table.registers[CLOCK] = packet["time_ns"]
        if done:
            count, done = _expire(table, packet["time_ns"], idle_ns, out, count)
        # One packet ends at most two flows: its own, and one that is evicted or lingers.
        if not done or count + 2 > len(out):
            return i, count
        if table.registers[CLOSING_COUNT] >= len(table.closing_row):
            count = _give_out_closing(table, out, count)
        count = _one_packet(table, packet, active_ns, out, count)
    return len(packets), count


@compiled
def expire(table: Table, now_ns: Int, idle_ns: Int, out: Rows) -> tuple[Int, bool]:
    return _expire(table, now_ns, idle_ns, out, 0)


@compiled
def provisional(table: Table, now_ns: Int, quiet_ns: Int, start: Int, out: Rows) -> tuple[Int, Int]:
    """Copy flows that live but are worth a verdict now; (next row to look at, rows in out)."""
    count: Int = 0
    for r in range(start, len(table.rows)):
        if table.status[r] != OPEN:
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
        row["connection_state"] = connection_state(row)
        row["end_reason"] = _END_QUIET if quiet else _END_ACTIVE
        out[count] = row
        row["end_reason"] = _END_ACTIVE
        count += 1
    return len(table.rows), count


@compiled
def flush(table: Table, out: Rows) -> tuple[Int, bool]:
    return _end_all(table, out, 0)


class FlowTracker:
    """The flow table behind one door; used by one thread.

    capacity: rows (304 bytes each); at the limit the longest silent flow ends (EVICTED).
    active_s, idle_s, quiet_s: time-outs in seconds of packet time.

    >>> tracker = FlowTracker(capacity=16)
    >>> unread = np.zeros(len(UNREAD_REASONS), np.int64)
    >>> len(tracker.track(PacketBatch(np.zeros(0, PACKET), unread, 0, 0)))
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
        self._table = empty_table(capacity, (secrets.randbits(64), secrets.randbits(64)))
        self._active_ns = int(active_s * NS)
        self._idle_ns = int(idle_s * NS)
        self._quiet_ns = int(quiet_s * NS)
        self.ended = 0

    @property
    def active(self) -> int:
        """Flows that have not ended."""
        return int(self._table.registers[ACTIVE])

    @property
    def evicted(self) -> int:
        """Flows ended because the table was full."""
        return int(self._table.registers[EVICTED])

    @property
    def late_packets(self) -> int:
        """Packets of connections that had ended: counted, added to no flow."""
        return int(self._table.registers[LATE])

    def track(self, packets: PacketBatch) -> FlowBatch:
        """Feed packets in capture order; the flows that ended by them."""
        parts = []
        place: Int = 0
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
        place: Int = 0
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
            out = np.empty(max(self.active, 1024), FLOW)
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
    packet["protocol"] = TCP
    packet["ip_version"] = 4
    tracker = FlowTracker(capacity=4)
    tracker.track(PacketBatch(packet, np.zeros(len(UNREAD_REASONS), np.int64), 1, 0))
    tracker.provisional(0)
    tracker.expire(0)
    tracker.flush()

"""Attempts: who tried to reach what in the last minute, and what came of it.

A scan shows before any flow ends: it is many attempts that failed. Each distinct attempt (source,
target, port, protocol) of the last WINDOW_NS is one row of a ring in order of time; an answer
finds its row by the key read backwards. Rows count for at most two groups, the ports of one host
and the hosts on one port, so the counts of a group are exact and slide with the ring's end.
Nothing grows: a full ring forgets its oldest attempt and counts that.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batches import Rows
from compiled import Int, compiled
from patterns.table import EVIDENCE, NS, SAMPLE, find, index_add, index_remove

__all__ = [
    "ANSWERED",
    "ASKED",
    "DUE",
    "EVICTED",
    "OUT",
    "PENDING",
    "REJECTED",
    "SILENT",
    "Attempts",
    "add_attempt",
    "answer",
    "count_again",
    "empty_attempts",
    "forget_all",
    "forget_old",
    "join_group",
    "prove",
    "reject",
    "ripen",
    "tell_groups",
]

WINDOW_NS: Final = 60 * NS
"""An attempt counts this long."""
GRACE_NS: Final = NS
"""An attempt without an answer counts as failed after this long; a refused one at once."""

# What came of an attempt.
PENDING: Final = 0
SILENT: Final = 1
REJECTED: Final = 2
ANSWERED: Final = 3
ASKED: Final = 4  # a question to a group of hosts, kept to know their answers; never fails

# Places in Attempts.registers. HEAD, TAIL and RIPE count rows since the start.
HEAD: Final = 0
TAIL: Final = 1
RIPE: Final = 2
FREE: Final = 3
HOT: Final = 4
OUT: Final = 5
EVICTED: Final = 6
DUE: Final = 7  # 1: a group has passed its line and was not told yet
_REGISTERS: Final = 8

ATTEMPT: Final = np.dtype(
    [
        ("time_ns", np.int64),  # of the first packet
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("packets", np.int32),
        ("replies", np.int32),
        ("group", np.int32, (2,)),  # -1: none
        ("port", np.uint16),
        ("state", np.uint8),
    ],
    align=True,
)

GROUP: Final = np.dtype(
    [
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        ("told_ns", np.int64),
        ("events", np.int64),  # packets of failed attempts since the group was last told
        ("recents", np.int64),  # attempts that were put into `recent`, a ring
        ("src_hi", np.uint64),
        ("src_lo", np.uint64),
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("tried", np.int32),
        ("failed", np.int32),
        ("rejected", np.int32),
        ("recent", np.int32, (SAMPLE,)),  # places in the ring of attempts
        ("port", np.uint16),
        ("kind", np.uint8),
        ("ip_version", np.uint8),
        ("proven", np.uint8),
        ("hot", np.uint8),  # 1: in Attempts.hot
    ],
    align=True,
)


class Attempts(NamedTuple):
    """Everything as plain arrays, so that compiled and interpreted code share it.

    rows (n,) ATTEMPT, a ring; groups (2n,) GROUP; *_keys uint64 and *_slots int32 their indexes
    (table.find); free (2n,) int32 stack of free groups; hot (m,) int32 groups over their
    line; lines, shares (KINDS,) float64 fewest failed targets, and least failed share of all;
    out (k,) EVIDENCE.
    """

    rows: Rows
    row_keys: NDArray[np.uint64]
    row_slots: NDArray[np.int32]
    groups: Rows
    group_keys: NDArray[np.uint64]
    group_slots: NDArray[np.int32]
    free: NDArray[np.int32]
    hot: NDArray[np.int32]
    lines: NDArray[np.float64]
    shares: NDArray[np.float64]
    out: Rows
    registers: NDArray[np.int64]


def empty_attempts(
    capacity: int, lines: NDArray[np.float64], shares: NDArray[np.float64], out_rows: int
) -> Attempts:
    """`capacity` a power of two: attempts kept (about 520 bytes each with their groups)."""
    groups = 2 * capacity
    registers = np.zeros(_REGISTERS, np.int64)
    registers[FREE] = groups
    return Attempts(
        rows=np.zeros(capacity, ATTEMPT),
        row_keys=np.zeros(capacity, np.uint64),
        row_slots=np.full(2 * capacity, -1, np.int32),
        groups=np.zeros(groups, GROUP),
        group_keys=np.zeros(groups, np.uint64),
        group_slots=np.full(2 * groups, -1, np.int32),
        free=np.arange(groups - 1, -1, -1, dtype=np.int32),
        hot=np.zeros(1024, np.int32),
        lines=lines,
        shares=shares,
        out=np.zeros(out_rows, EVIDENCE),
        registers=registers,
    )


@compiled
def join_group(table: Attempts, kind: Int, key: Any, packet: Any, t: Int) -> Int:
    """The group of `key`, begun if need be; what of `packet` it is about is the kind's."""
    g = find(table.group_slots, table.group_keys, key)
    if g >= 0:
        return g
    table.registers[FREE] -= 1
    g = np.int64(table.free[table.registers[FREE]])
    index_add(table.group_slots, table.group_keys, key, g)
    group = table.groups[g]
    group["first_ns"] = t
    group["last_ns"] = t
    group["told_ns"] = 0
    group["events"] = 0
    group["src_hi"] = packet["src_hi"]
    group["src_lo"] = packet["src_lo"]
    group["dst_hi"] = packet["dst_hi"]
    group["dst_lo"] = packet["dst_lo"]
    group["tried"] = 0
    group["failed"] = 0
    group["rejected"] = 0
    group["recents"] = 0
    group["port"] = packet["dst_port"]
    group["kind"] = kind
    group["ip_version"] = packet["ip_version"]
    group["proven"] = 0
    group["hot"] = 0
    return g


@compiled
def _is_over(table: Attempts, group: Any) -> bool:
    kind = np.int64(group["kind"])
    failed = np.float64(group["failed"])
    return bool(failed >= table.lines[kind] and failed >= table.shares[kind] * group["tried"])


@compiled
def _tell(table: Attempts, g: Int, t: Int) -> None:
    """Write a row of evidence, once a second; where `out` is full the group is told later."""
    place = table.registers[OUT]
    group = table.groups[g]
    if place >= len(table.out) or t // NS == group["told_ns"] // NS:
        return
    table.registers[OUT] += 1
    row = table.out[place]
    row["first_ns"] = max(group["first_ns"], group["last_ns"] - WINDOW_NS)
    row["last_ns"] = group["last_ns"]
    row["told_ns"] = t
    row["src_hi"] = group["src_hi"]
    row["src_lo"] = group["src_lo"]
    row["dst_hi"] = group["dst_hi"]
    row["dst_lo"] = group["dst_lo"]
    row["value"] = group["failed"]
    row["events"] = group["events"]
    row["tried"] = group["tried"]
    row["failed"] = group["failed"]
    row["rejected"] = group["rejected"]
    row["proven"] = group["proven"]
    row["packets"] = 0
    row["port"] = group["port"]
    row["kind"] = group["kind"]
    row["ip_version"] = group["ip_version"]
    filled: Int = 0
    recents = group["recents"]
    for i in range(recents - 1, max(recents - SAMPLE, 0) - 1, -1):
        attempt = table.rows[np.int64(group["recent"][i % SAMPLE])]
        if attempt["group"][0] == g or attempt["group"][1] == g:
            row["sample_hi"][filled] = attempt["dst_hi"]
            row["sample_lo"][filled] = attempt["dst_lo"]
            row["sample_port"][filled] = attempt["port"]
            filled += 1
    row["sample"] = filled
    group["told_ns"] = t
    group["events"] = 0


@compiled
def _check(table: Attempts, g: Int, t: Int) -> None:
    """Whether a group that grew has passed its line."""
    group = table.groups[g]
    if group["hot"] == 1 or not _is_over(table, group):
        return
    if table.registers[HOT] >= len(table.hot):
        _tell(table, g, t)
        return
    group["hot"] = 1
    table.hot[table.registers[HOT]] = g
    table.registers[HOT] += 1
    table.registers[DUE] = 1


@compiled
def tell_groups(table: Attempts, t: Int) -> None:
    """Tell what has grown since it was last told, and let go of what is below its line."""
    table.registers[DUE] = 0
    i: Int = 0
    while i < table.registers[HOT]:
        g = np.int64(table.hot[i])
        group = table.groups[g]
        if group["hot"] == 1 and _is_over(table, group):
            if group["events"] > 0:
                _tell(table, g, t)
            i += 1
        else:
            group["hot"] = 0
            table.registers[HOT] -= 1
            table.hot[i] = table.hot[table.registers[HOT]]


@compiled
def _fail(table: Attempts, a: Int, state: Int, t: Int) -> None:
    """Attempt `a`, pending or silent, has failed (or failed more clearly)."""
    row = table.rows[a]
    was_silent = row["state"] == SILENT
    row["state"] = state
    for i in range(2):
        g = np.int64(row["group"][i])
        if g >= 0:
            group = table.groups[g]
            if not was_silent:
                if group["failed"] == 0:
                    group["first_ns"] = row["time_ns"]
                group["failed"] += 1
                group["events"] += row["packets"]
                group["last_ns"] = max(group["last_ns"], row["time_ns"])
            if state == REJECTED:
                group["rejected"] += 1
            _check(table, g, t)


@compiled
def reject(table: Attempts, a: Int, t: Int) -> None:
    """The target refused."""
    state = table.rows[a]["state"]
    if state == PENDING or state == SILENT:
        _fail(table, a, REJECTED, t)


@compiled
def answer(table: Attempts, a: Int) -> None:
    """The target answered, in time or late."""
    row = table.rows[a]
    row["replies"] += 1
    state = row["state"]
    if state == ANSWERED or state == ASKED:
        return
    row["state"] = ANSWERED
    if state == PENDING:
        return
    for i in range(2):
        g = np.int64(row["group"][i])
        if g >= 0:
            table.groups[g]["failed"] -= 1
            if state == REJECTED:
                table.groups[g]["rejected"] -= 1


@compiled
def prove(table: Attempts, a: Int) -> None:
    """The source acknowledged the target's random number: its address is its own."""
    row = table.rows[a]
    for i in range(2):
        g = np.int64(row["group"][i])
        if g >= 0:
            table.groups[g]["proven"] = 1


@compiled
def _drop_oldest(table: Attempts) -> None:
    registers = table.registers
    a = registers[TAIL] % len(table.rows)
    registers[TAIL] += 1
    registers[RIPE] = max(registers[RIPE], registers[TAIL])
    row = table.rows[a]
    index_remove(table.row_slots, table.row_keys, a)
    state = row["state"]
    for i in range(2):
        g = np.int64(row["group"][i])
        if g < 0:
            continue
        row["group"][i] = -1
        group = table.groups[g]
        group["tried"] -= 1
        if state == SILENT or state == REJECTED:
            group["failed"] -= 1
        if state == REJECTED:
            group["rejected"] -= 1
        if group["tried"] == 0:
            group["hot"] = 0
            index_remove(table.group_slots, table.group_keys, g)
            table.free[registers[FREE]] = g
            registers[FREE] += 1


@compiled
def make_room(table: Attempts) -> None:
    """Before an attempt and its groups are added: a full ring forgets its oldest."""
    if table.registers[HEAD] - table.registers[TAIL] >= len(table.rows):
        _drop_oldest(table)
        table.registers[EVICTED] += 1


@compiled
def add_attempt(
    table: Attempts,
    key: Any,
    packet: Any,
    port: Int,
    state: Int,
    group_a: Int,
    group_b: Int,
    t: Int,
) -> Int:
    """A new row, counted as tried; make_room comes before, so that its groups have a place."""
    registers = table.registers
    a: Int = registers[HEAD] % len(table.rows)
    registers[HEAD] += 1
    index_add(table.row_slots, table.row_keys, key, a)
    row = table.rows[a]
    row["time_ns"] = t
    row["dst_hi"] = packet["dst_hi"]
    row["dst_lo"] = packet["dst_lo"]
    row["packets"] = 0
    row["replies"] = 0
    row["group"][0] = group_a
    row["group"][1] = group_b
    row["port"] = port
    row["state"] = state
    for i in range(2):
        g = np.int64(row["group"][i])
        if g >= 0:
            group = table.groups[g]
            group["tried"] += 1
            group["recent"][group["recents"] % SAMPLE] = a
            group["recents"] += 1
    return a


@compiled
def count_again(table: Attempts, a: Int, t: Int) -> None:
    """One more packet of attempt `a`; those of a failed one are its group's events."""
    row = table.rows[a]
    row["packets"] += 1
    if row["state"] != SILENT and row["state"] != REJECTED:
        return
    for i in range(2):
        g = np.int64(row["group"][i])
        if g >= 0:
            table.groups[g]["events"] += 1
            table.groups[g]["last_ns"] = t


@compiled
def ripen(table: Attempts, t: Int) -> None:
    """Packet time is `t`: what has waited too long for an answer has failed."""
    registers = table.registers
    while registers[RIPE] < registers[HEAD]:
        a = registers[RIPE] % len(table.rows)
        if table.rows[a]["time_ns"] + GRACE_NS > t:
            break
        registers[RIPE] += 1
        if table.rows[a]["state"] == PENDING:
            _fail(table, a, SILENT, t)


@compiled
def forget_old(table: Attempts, t: Int) -> None:
    """Packet time is `t`: what is older than the window counts no more."""
    registers = table.registers
    while registers[TAIL] < registers[HEAD]:
        if table.rows[registers[TAIL] % len(table.rows)]["time_ns"] + WINDOW_NS > t:
            break
        _drop_oldest(table)


@compiled
def forget_all(table: Attempts) -> None:
    """Time has jumped back: nothing that was counted lies in a window any more."""
    while table.registers[TAIL] < table.registers[HEAD]:
        _drop_oldest(table)

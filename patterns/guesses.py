"""Guesses: connections of one source to one endpoint that end soon and all look alike.

Password guessing has a shape whatever the protocol and its encryption: one short connection after
another, each sending about as much as the last (the passwords differ by a few bytes) and getting
the same refusal. A row remembers the last SHAPES ended connections of its key; the statistic is
how many of the window's are alike, within a tolerance around their medians.

A device that polls looks the same, but sends the same each time; on ports that are not made for
logins only connections that differ in what they send and not in what they get count.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batches import TCP, ConnectionState, Rows
from compiled import Int, compiled
from patterns.table import (
    EVIDENCE,
    GUESS_ANY,
    GUESS_LOGIN,
    GUESS_PASSWORDS,
    GUESS_SLOW,
    NS,
    hash_of,
)

__all__ = ["EVICTED", "OUT", "Guesses", "count_flows", "empty_guesses"]

WAYS: Final = 8
SHAPES: Final = 64
"""Ended connections a row remembers."""
MINUTE_NS: Final = 60 * NS
TEN_MINUTES_NS: Final = 600 * NS
TELL_NS: Final = NS

OUT: Final = 0
EVICTED: Final = 1
CLOCK: Final = 2
_REGISTERS: Final = 3

_STATE_SF: Final = int(ConnectionState.SF)
_STATE_RST: Final = int(ConnectionState.RST)

# How far from the median what was sent and got may lie: at least so many bytes, or this part.
# A password is 1 to 32 bytes long (RFC 4616 allows more; guessing lists don't hold them).
_SENT_BYTES: Final = 32
_SENT_PART: Final = 0.15
_GOT_BYTES: Final = 16
_GOT_PART: Final = 0.05
# Passwords of a list rarely have the same length twice in a row, but one in four may, and where
# they are sent in base64 two in three: of so many connections at least one changes the size.
_CHANGES_IN: Final = 8
# A refusal has one size, a page in between and a session's end make three.
_GOT_SIZES: Final = 3
_ANY_LONGEST_NS: Final = 15 * NS
"""Servers keep an idle connection longer than a refused login (nginx 75 s, sshd 120 s)."""

GUESS: Final = np.dtype(
    [
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        ("told_ns", np.int64),
        ("events", np.int64),  # connections since the row was last told
        ("count", np.int64),
        ("time_ns", np.int64, (SHAPES,)),
        ("sent", np.int32, (SHAPES,)),
        ("got", np.int32, (SHAPES,)),
    ],
    align=True,
)


class Guesses(NamedTuple):
    """Plain arrays, as in Attempts.

    rows (n,) GUESS in sets of WAYS; keys (n,) uint64, 0 = free; logins (65536,) uint8, 1 where
    the port is made for logins; lines (KINDS,) float64 fewest alike connections; sorted (2,
    SHAPES) int32 room to sort in.
    """

    rows: Rows
    keys: NDArray[np.uint64]
    logins: NDArray[np.uint8]
    lines: NDArray[np.float64]
    sorted: NDArray[np.int32]
    out: Rows
    registers: NDArray[np.int64]


def empty_guesses(
    capacity: int, lines: NDArray[np.float64], login_ports: tuple[int, ...], out_rows: int
) -> Guesses:
    """`capacity` a power of two: endpoints remembered (about 1.1 kB each)."""
    logins = np.zeros(65_536, np.uint8)
    logins[list(login_ports)] = 1
    return Guesses(
        rows=np.zeros(capacity, GUESS),
        keys=np.zeros(capacity, np.uint64),
        logins=logins,
        lines=lines,
        sorted=np.zeros((2, SHAPES), np.int32),
        out=np.zeros(out_rows, EVIDENCE),
        registers=np.zeros(_REGISTERS, np.int64),
    )


@compiled
def _row_of(table: Guesses, key: Any, t: Int) -> Int:
    sets = len(table.keys) // WAYS
    first = np.int64((key >> np.uint64(20)) & np.uint64(sets - 1)) * WAYS
    quietest: Int = first
    for r in range(first, first + WAYS):
        if table.keys[r] == key:
            return r
        if table.rows[r]["last_ns"] < table.rows[quietest]["last_ns"]:
            quietest = r
    row = table.rows[quietest]
    if table.keys[quietest] != 0 and t - row["last_ns"] < TEN_MINUTES_NS:
        table.registers[EVICTED] += 1
    table.keys[quietest] = key
    row["count"] = 0
    row["first_ns"] = t
    row["told_ns"] = t - TELL_NS
    row["events"] = 0
    return quietest


@compiled
def _insert_sorted(values: NDArray[np.int32], n: Int, value: Int) -> None:
    """`values[:n]` is in order and has room for one more."""
    i: Int = n
    while i > 0 and values[i - 1] > value:
        values[i] = values[i - 1]
        i -= 1
    values[i] = value


@compiled
def _is_near(value: Any, middle: Any, least: Int, part: float) -> bool:
    return bool(abs(value - middle) <= max(np.float64(least), part * middle))


@compiled
def _alike(table: Guesses, row: Any, since_ns: Int, unlike_sent: bool) -> Int:
    """How many of the row's connections since then are alike.

    unlike_sent: 0 unless the size sent keeps changing while the size got hardly does. 0 too where
    the newest is none of them: what follows on guessing is not guessing.
    """
    count = row["count"]
    sent = table.sorted[0]
    got = table.sorted[1]
    n: Int = 0
    for i in range(max(count - SHAPES, 0), count):
        place = i % SHAPES
        if row["time_ns"][place] >= since_ns:
            _insert_sorted(sent, n, np.int64(row["sent"][place]))
            _insert_sorted(got, n, np.int64(row["got"][place]))
            n += 1
    if n == 0:
        return 0
    middle_sent = np.int64(sent[n // 2])
    middle_got = np.int64(got[n // 2])
    alike: Int = 0
    changes: Int = 0
    before: Int = -1
    newest: Int = -1
    for i in range(max(count - SHAPES, 0), count):
        place = i % SHAPES
        size = np.int64(row["sent"][place])
        if (
            row["time_ns"][place] >= since_ns
            and _is_near(size, middle_sent, _SENT_BYTES, _SENT_PART)
            and _is_near(np.int64(row["got"][place]), middle_got, _GOT_BYTES, _GOT_PART)
        ):
            alike += 1
            if before >= 0 and size != before:
                changes += 1
            before = size
            newest = i
    if newest != count - 1:
        return 0
    if not unlike_sent:
        return alike
    got_sizes: Int = 1
    for i in range(1, n):
        near = _is_near(np.int64(got[i]), middle_got, _GOT_BYTES, _GOT_PART)
        if near and got[i] != got[i - 1]:
            got_sizes += 1
    return alike if changes * _CHANGES_IN >= alike and got_sizes <= _GOT_SIZES else 0


@compiled
def _tell(table: Guesses, row: Any, kind: Int, alike: Int, since_ns: Int, flow: Any) -> None:
    place = table.registers[OUT]
    if place >= len(table.out):
        return
    t = row["last_ns"]
    table.registers[OUT] += 1
    out = table.out[place]
    out["first_ns"] = max(row["first_ns"], since_ns)
    out["last_ns"] = t
    out["told_ns"] = t
    out["src_hi"] = flow["src_hi"]
    out["src_lo"] = flow["src_lo"]
    out["dst_hi"] = flow["dst_hi"]
    out["dst_lo"] = flow["dst_lo"]
    out["value"] = alike
    out["events"] = row["events"]
    out["tried"] = alike
    out["failed"] = 0
    out["rejected"] = 0
    out["proven"] = 1
    out["packets"] = 0
    out["sample"] = 0
    out["port"] = flow["dst_port"]
    out["kind"] = kind
    out["ip_version"] = flow["ip_version"]
    row["told_ns"] = t
    row["events"] = 0


@compiled
def _count_flow(table: Guesses, flow: Any, seed: NDArray[np.uint64]) -> None:
    t = flow["last_ns"]
    # Flows are given out when they are over, not in order: the newest end is the clock.
    table.registers[CLOCK] = max(table.registers[CLOCK], t)
    rest = np.int64(flow["dst_port"])
    key = hash_of(seed, flow["src_hi"], flow["src_lo"], flow["dst_hi"], flow["dst_lo"], rest)
    row = table.rows[_row_of(table, key, t)]
    place = row["count"] % SHAPES
    row["time_ns"][place] = t
    row["sent"][place] = min(flow["bytes"][0], 0x7FFFFFFF)
    row["got"][place] = min(flow["bytes"][1], 0x7FFFFFFF)
    row["count"] += 1
    row["last_ns"] = t
    row["events"] += 1
    if t - row["told_ns"] < TELL_NS:
        return
    is_login = table.logins[np.int64(flow["dst_port"])] == 1
    strongest = 0
    most = 1.0
    count: Int = 0
    since_ns: Int = t
    for kind in range(GUESS_LOGIN, GUESS_ANY + 1):
        if is_login == (kind == GUESS_ANY) or row["count"] < table.lines[kind]:
            continue
        from_ns = t - (TEN_MINUTES_NS if kind == GUESS_SLOW else MINUTE_NS)
        alike = _alike(table, row, from_ns, kind >= GUESS_PASSWORDS)
        if alike >= most * table.lines[kind]:
            strongest = kind
            most = alike / table.lines[kind]
            count = alike
            since_ns = from_ns
    if strongest:
        _tell(table, row, strongest, count, since_ns, flow)


@compiled
def count_flows(table: Guesses, flows: Rows, seed: NDArray[np.uint64]) -> None:
    """Feed ended flows; what is over its line is written to `out`."""
    for i in range(len(flows)):
        flow = flows[i]
        if flow["protocol"] != TCP:
            continue
        state = flow["connection_state"]
        if state != _STATE_SF and state != _STATE_RST:
            continue
        if flow["bytes"][0] <= 0 or flow["bytes"][1] <= 0:
            continue
        duration_ns = flow["last_ns"] - flow["first_ns"]
        if duration_ns > MINUTE_NS:
            continue
        if duration_ns > _ANY_LONGEST_NS and table.logins[np.int64(flow["dst_port"])] == 0:
            continue
        _count_flow(table, flow, seed)

"""Rates: packets a second towards a host or an endpoint, over the last seconds of packet time.

Rows stand in sets of eight; in a full set the row quiet longest makes room (counted), so memory
is fixed and a look-up reads one cache line of keys. A row counts in one-second bins, keeps a
sketch of its distinct sources and a candidate for the busiest one (Boyer & Moore's majority
vote: right whenever one source sends more than half).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batches import Rows
from compiled import Int, compiled
from patterns.table import EVIDENCE, NS, SOURCE_CELLS, SYN_RATE, hash_of

__all__ = [
    "EVICTED",
    "OUT",
    "Rates",
    "count_in",
    "count_out",
    "empty_rates",
    "expect_handshake",
    "finish_handshake",
    "tell_rates",
]

WAYS: Final = 8
BINS: Final = 10
"""One-second bins of a row; a kind's window is at most this wide."""

HOT: Final = 0
OUT: Final = 1
EVICTED: Final = 2
_REGISTERS: Final = 3

RATE: Final = np.dtype(
    [
        ("second", np.int64),  # of the newest bin
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        ("told_ns", np.int64),
        ("events", np.int64),  # since the row was last told
        ("total_in", np.int64),  # sums of the bins
        ("total_out", np.int64),
        ("src_hi", np.uint64),  # candidate for the busiest source
        ("src_lo", np.uint64),
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("bins_in", np.int32, (BINS,)),
        ("bins_out", np.int32, (BINS,)),
        ("votes", np.int32),
        ("port", np.int32),  # -1: more than one
        ("kind", np.uint8),
        ("ip_version", np.uint8),
        ("hot", np.uint8),
        ("cells", np.uint8, (SOURCE_CELLS,)),
    ],
    align=True,
)


class Rates(NamedTuple):
    """Plain arrays, as in Attempts.

    rows (n,) RATE in sets of WAYS; keys (n,) uint64, 0 = free; hot (m,) int32 rows over their
    line; lines (KINDS,) float64 a second; shares (KINDS,) float64 most that may be answered;
    widths (KINDS,) int64 seconds; handshakes (k,) uint64 SYN-ACKs waiting to be acknowledged.
    """

    rows: Rows
    keys: NDArray[np.uint64]
    hot: NDArray[np.int32]
    lines: NDArray[np.float64]
    shares: NDArray[np.float64]
    widths: NDArray[np.int64]
    handshakes: NDArray[np.uint64]
    out: Rows
    registers: NDArray[np.int64]


def empty_rates(
    capacity: int,
    lines: NDArray[np.float64],
    shares: NDArray[np.float64],
    widths: NDArray[np.int64],
    out_rows: int,
) -> Rates:
    """`capacity` a power of two: rows kept (about 270 bytes each)."""
    return Rates(
        rows=np.zeros(capacity, RATE),
        keys=np.zeros(capacity, np.uint64),
        hot=np.zeros(1024, np.int32),
        lines=lines,
        shares=shares,
        widths=widths,
        handshakes=np.zeros(16_384, np.uint64),
        out=np.zeros(out_rows, EVIDENCE),
        registers=np.zeros(_REGISTERS, np.int64),
    )


@compiled
def _first_way(table: Rates, key: Any) -> Int:
    sets = len(table.keys) // WAYS
    return np.int64((key >> np.uint64(20)) & np.uint64(sets - 1)) * WAYS


@compiled
def _row_of(table: Rates, kind: Int, key: Any, t: Int) -> Int:
    """The row of `key`; a new one where there was none, in place of the quietest of its set."""
    first = _first_way(table, key)
    quietest: Int = first
    for r in range(first, first + WAYS):
        if table.keys[r] == key:
            return r
        if table.rows[r]["last_ns"] < table.rows[quietest]["last_ns"]:
            quietest = r
    row = table.rows[quietest]
    if table.keys[quietest] != 0 and t - row["last_ns"] < BINS * NS:
        table.registers[EVICTED] += 1
    table.keys[quietest] = key
    row["kind"] = kind
    row["hot"] = 0
    row["last_ns"] = 0
    row["second"] = -BINS
    return quietest


@compiled
def _begin(row: Any, packet: Any, t: Int) -> None:
    """After a silence as long as the window a row counts from nothing."""
    row["first_ns"] = t
    row["told_ns"] = 0
    row["events"] = 0
    row["total_in"] = 0
    row["total_out"] = 0
    row["dst_hi"] = packet["dst_hi"]
    row["dst_lo"] = packet["dst_lo"]
    row["votes"] = 0
    row["port"] = packet["dst_port"]
    row["ip_version"] = packet["ip_version"]
    for i in range(BINS):
        row["bins_in"][i] = 0
        row["bins_out"][i] = 0
    for i in range(SOURCE_CELLS):
        row["cells"][i] = 0


@compiled
def _move(row: Any, second: Int, width: Int) -> None:
    """Empty the bins that have left the window."""
    old = row["second"]
    while old < second:
        old += 1
        row["total_in"] -= row["bins_in"][old % width]
        row["total_out"] -= row["bins_out"][old % width]
        row["bins_in"][old % width] = 0
        row["bins_out"][old % width] = 0
    row["second"] = old


@compiled
def _count_source(table: Rates, row: Any, packet: Any, seed: NDArray[np.uint64]) -> None:
    if row["votes"] == 0:
        row["src_hi"] = packet["src_hi"]
        row["src_lo"] = packet["src_lo"]
    if row["src_lo"] == packet["src_lo"] and row["src_hi"] == packet["src_hi"]:
        row["votes"] += 1
    else:
        row["votes"] -= 1
    mixed = hash_of(seed, packet["src_hi"], packet["src_lo"], np.uint64(0), np.uint64(0), 0)
    cell = np.int64(mixed & np.uint64(SOURCE_CELLS - 1))
    rest = np.int64((mixed >> np.uint64(6)) & np.uint64(0xFFFFFFFF))
    rank: Int = 1
    while rest & 1 == 0 and rank < 32:
        rest >>= 1
        rank += 1
    if rank > row["cells"][cell]:
        row["cells"][cell] = rank


@compiled
def _is_over(table: Rates, row: Any) -> bool:
    kind = np.int64(row["kind"])
    total = np.float64(row["total_in"])
    enough = total >= table.lines[kind] * table.widths[kind]
    return bool(enough and row["total_out"] <= table.shares[kind] * total)


@compiled
def _tell(table: Rates, r: Int, t: Int) -> None:
    """Write a row of evidence, once a second; where `out` is full the row is told later."""
    place = table.registers[OUT]
    row = table.rows[r]
    if place >= len(table.out) or t // NS == row["told_ns"] // NS:
        return
    table.registers[OUT] += 1
    width = table.widths[np.int64(row["kind"])]
    out = table.out[place]
    out["first_ns"] = max(row["first_ns"], row["last_ns"] - width * NS)
    out["last_ns"] = row["last_ns"]
    out["told_ns"] = t
    out["src_hi"] = row["src_hi"]
    out["src_lo"] = row["src_lo"]
    out["dst_hi"] = row["dst_hi"]
    out["dst_lo"] = row["dst_lo"]
    out["value"] = row["total_in"] / width
    out["events"] = row["events"]
    out["tried"] = 0
    out["failed"] = 0
    out["rejected"] = 0
    out["proven"] = 0
    out["packets"] = row["total_in"]
    out["sample"] = 0
    out["port"] = row["port"]
    out["kind"] = row["kind"]
    out["ip_version"] = row["ip_version"]
    for i in range(SOURCE_CELLS):
        out["cells"][i] = row["cells"][i]
    row["told_ns"] = t
    row["events"] = 0


@compiled
def count_in(
    table: Rates, kind: Int, key: Any, packet: Any, t: Int, seed: NDArray[np.uint64]
) -> None:
    """One more packet (or finished handshake) of `kind` towards `key`."""
    r = _row_of(table, kind, key, t)
    row = table.rows[r]
    second = t // NS
    width = table.widths[kind]
    if second - row["second"] >= width or row["second"] - second >= width:
        _begin(row, packet, t)
        row["second"] = second
    _move(row, second, width)
    row["bins_in"][row["second"] % width] += 1
    row["total_in"] += 1
    row["events"] += 1
    row["last_ns"] = t
    if row["port"] != packet["dst_port"]:
        row["port"] = -1
    _count_source(table, row, packet, seed)
    if row["hot"] == 1 or not _is_over(table, row):
        return
    if table.registers[HOT] < len(table.hot):
        row["hot"] = 1
        table.hot[table.registers[HOT]] = r
        table.registers[HOT] += 1
        if kind == SYN_RATE:  # handshakes are under way: the end of the second will show
            return
    _tell(table, r, t)


@compiled
def count_out(table: Rates, kind: Int, key: Any, t: Int) -> None:
    """One of what was counted in has been answered."""
    first = _first_way(table, key)
    for r in range(first, first + WAYS):
        if table.keys[r] == key:
            row = table.rows[r]
            width = table.widths[kind]
            if t // NS - row["second"] < width:
                _move(row, t // NS, width)
                row["bins_out"][row["second"] % width] += 1
                row["total_out"] += 1
            return


@compiled
def tell_rates(table: Rates, t: Int) -> None:
    """As tell_groups: what has grown is told, what is below its line is let go."""
    i: Int = 0
    while i < table.registers[HOT]:
        row = table.rows[np.int64(table.hot[i])]
        over = row["hot"] == 1 and _is_over(table, row)
        if over and row["events"] > 0:
            _tell(table, np.int64(table.hot[i]), t)
        if over and t // NS - row["second"] < table.widths[np.int64(row["kind"])]:
            i += 1
        else:
            row["hot"] = 0
            table.registers[HOT] -= 1
            table.hot[i] = table.hot[table.registers[HOT]]


@compiled
def _handshake(packet: Any, ack: Int, backward: bool, seed: NDArray[np.uint64]) -> Any:
    """The key of "this client will acknowledge that number"."""
    if backward:
        rest = (np.int64(packet["dst_port"]) << 16) | np.int64(packet["src_port"])
        base = hash_of(
            seed, packet["dst_hi"], packet["dst_lo"], packet["src_hi"], packet["src_lo"], rest
        )
    else:
        rest = (np.int64(packet["src_port"]) << 16) | np.int64(packet["dst_port"])
        base = hash_of(
            seed, packet["src_hi"], packet["src_lo"], packet["dst_hi"], packet["dst_lo"], rest
        )
    return base ^ (np.uint64(ack) * seed[0])


@compiled
def expect_handshake(table: Rates, packet: Any, seed: NDArray[np.uint64]) -> None:
    """A SYN-ACK passed: its number must come back. A newer one may take its place (unproven)."""
    ack = (np.int64(packet["seq"]) + 1) & 0xFFFFFFFF
    key = _handshake(packet, ack, True, seed)
    table.handshakes[np.int64(key & np.uint64(len(table.handshakes) - 1))] = key


@compiled
def finish_handshake(table: Rates, packet: Any, seed: NDArray[np.uint64]) -> bool:
    """Whether this packet is the first that acknowledges a SYN-ACK's number."""
    key = _handshake(packet, np.int64(packet["ack"]), False, seed)
    place = np.int64(key & np.uint64(len(table.handshakes) - 1))
    if table.handshakes[place] != key:
        return False
    table.handshakes[place] = 0
    return True

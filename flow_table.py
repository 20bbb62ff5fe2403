"""The flow table: rows, a hash index that finds them, one list that orders them.

Rows live in one list ordered by the last packet:

    oldest ... [expired, remembered] first_open ... [open, closing, closed] ... newest
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batches import FLOW, ICMP, ICMPV6, Rows
from compiled import Int, compiled

__all__ = [
    "ACTIVE",
    "CLOCK",
    "CLOSED",
    "CLOSING",
    "CLOSING_COUNT",
    "CLOSING_FIRST",
    "EVICTED",
    "EXPIRED",
    "FIRST_OPEN",
    "FREE",
    "FREE_ROW",
    "LATE",
    "NEXT_ID",
    "OLDEST",
    "OPEN",
    "Table",
    "append",
    "empty_table",
    "find",
    "hash_key",
    "icmp_request",
    "index_add",
    "index_remove",
    "unlink",
]

# What a table row is.
FREE: Final = 0
OPEN: Final = 1
CLOSING: Final = 2  # ended, lingering for packets captured out of order
CLOSED: Final = 3  # given out; stays so that late ACKs do not become flows of their own
EXPIRED: Final = 4  # given out; stays so that a continuation keeps its direction

# Places in Table.registers.
OLDEST: Final = 0
NEWEST: Final = 1
FIRST_OPEN: Final = 2
FREE_ROW: Final = 3
NEXT_ID: Final = 4
CLOCK: Final = 5
EVICTED: Final = 6
LATE: Final = 7
ACTIVE: Final = 8
CLOSING_FIRST: Final = 9
CLOSING_COUNT: Final = 10
_REGISTERS: Final = 11


class Table(NamedTuple):
    """The flow table as plain arrays, so that compiled and interpreted code share it.

    rows (n,) FLOW; key_hash (n,) uint64; older, newer (n,) int32 neighbours in the list (a free
    row's `newer` is the next free one); status (n,) uint8; judged_ns (n,) int64; slots (power of
    two >= 2n,) int32 row or -1, linear probing; closing_* (n,) a ring of rows that linger;
    seed (2,) uint64, random a start, so that nobody can make keys collide on purpose.
    """

    rows: Rows
    key_hash: NDArray[np.uint64]
    older: NDArray[np.int32]
    newer: NDArray[np.int32]
    status: NDArray[np.uint8]
    judged_ns: NDArray[np.int64]
    slots: NDArray[np.int32]
    closing_row: NDArray[np.int32]
    closing_id: NDArray[np.uint64]
    closing_ns: NDArray[np.int64]
    registers: NDArray[np.int64]
    seed: NDArray[np.uint64]


@compiled
def _mix(value: Any) -> Any:
    """The finaliser of splitmix64 (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def icmp_request(kind: Int, version: Int) -> Int:
    """The ICMP type under which a packet is keyed: replies count to their requests' flow."""
    if version == 6:
        return 128 if kind == 129 else kind
    if kind == 0:
        return 8
    if kind == 14 or kind == 16 or kind == 18:  # timestamp, information, address mask
        return kind - 1
    return kind


@compiled
def hash_key(packet: Any, seed: NDArray[np.uint64]) -> Any:
    """Equal for both directions; without the seed no two keys can be made to collide."""
    source = _mix(packet["src_lo"] ^ seed[0]) ^ _mix(
        packet["src_hi"] + seed[1] + np.uint64(packet["src_port"])
    )
    target = _mix(packet["dst_lo"] ^ seed[0]) ^ _mix(
        packet["dst_hi"] + seed[1] + np.uint64(packet["dst_port"])
    )
    rest = np.uint64(packet["protocol"]) | (np.uint64(packet["vlan"]) << np.uint64(8))
    rest ^= _mix(np.uint64(packet["tunnel"]))
    if packet["protocol"] == ICMP or packet["protocol"] == ICMPV6:
        kind = icmp_request(np.int64(packet["icmp_type"]), np.int64(packet["ip_version"]))
        rest |= np.uint64(kind) << np.uint64(40)
        rest |= np.uint64(packet["icmp_code"]) << np.uint64(48)
    return _mix(_mix(source ^ seed[1]) + _mix(target ^ seed[1]) + _mix(rest + seed[0]))


@compiled
def _direction(row: Any, packet: Any) -> Int:
    """0 forward, 1 backward, -1 where the packet is not of this flow."""
    if (
        row["protocol"] != packet["protocol"]
        or row["ip_version"] != packet["ip_version"]
        or row["vlan"] != packet["vlan"]
        or row["tunnel"] != packet["tunnel"]
    ):
        return -1
    if packet["protocol"] == ICMP or packet["protocol"] == ICMPV6:
        kind = icmp_request(np.int64(packet["icmp_type"]), np.int64(packet["ip_version"]))
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
def find(table: Table, packet: Any, key: Any) -> tuple[Int, Int]:
    """(row, direction) of the packet's flow, (-1, -1) where there is none."""
    mask = len(table.slots) - 1
    slot = np.int64(key & np.uint64(mask))
    while table.slots[slot] >= 0:
        r = np.int64(table.slots[slot])
        if table.key_hash[r] == key:
            direction = _direction(table.rows[r], packet)
            if direction >= 0:
                return r, direction
        slot = (slot + 1) & mask
    return -1, -1


@compiled
def index_add(table: Table, r: Int) -> None:
    mask = len(table.slots) - 1
    slot = np.int64(table.key_hash[r] & np.uint64(mask))
    while table.slots[slot] >= 0:
        slot = (slot + 1) & mask
    table.slots[slot] = r


@compiled
def index_remove(table: Table, r: Int) -> None:
    """Linear probing with backward shift, so that no tombstones pile up (Knuth 6.4, R)."""
    mask = len(table.slots) - 1
    slot = np.int64(table.key_hash[r] & np.uint64(mask))
    while table.slots[slot] != r:
        slot = (slot + 1) & mask
    hole = slot
    while True:
        slot = (slot + 1) & mask
        other = np.int64(table.slots[slot])
        if other < 0:
            break
        home = np.int64(table.key_hash[other] & np.uint64(mask))
        if ((slot - home) & mask) >= ((slot - hole) & mask):
            table.slots[hole] = other
            hole = slot
    table.slots[hole] = -1


@compiled
def unlink(table: Table, r: Int) -> None:
    older = np.int64(table.older[r])
    newer = np.int64(table.newer[r])
    if older >= 0:
        table.newer[older] = newer
    else:
        table.registers[OLDEST] = newer
    if newer >= 0:
        table.older[newer] = older
    else:
        table.registers[NEWEST] = older
    if table.registers[FIRST_OPEN] == r:
        table.registers[FIRST_OPEN] = newer


@compiled
def append(table: Table, r: Int) -> None:
    newest = table.registers[NEWEST]
    table.older[r] = newest
    table.newer[r] = -1
    if newest >= 0:
        table.newer[newest] = r
    else:
        table.registers[OLDEST] = r
    table.registers[NEWEST] = r
    if table.registers[FIRST_OPEN] < 0:
        table.registers[FIRST_OPEN] = r


def empty_table(capacity: int, seed: tuple[int, int]) -> Table:
    slots = 1 << (2 * capacity - 1).bit_length()
    registers = np.zeros(_REGISTERS, np.int64)
    for place in (OLDEST, NEWEST, FIRST_OPEN):
        registers[place] = -1
    registers[NEXT_ID] = 1
    newer = np.arange(1, capacity + 1, dtype=np.int32)
    newer[-1] = -1
    return Table(
        rows=np.zeros(capacity, FLOW),
        key_hash=np.zeros(capacity, np.uint64),
        older=np.full(capacity, -1, np.int32),
        newer=newer,
        status=np.zeros(capacity, np.uint8),
        judged_ns=np.zeros(capacity, np.int64),
        slots=np.full(slots, -1, np.int32),
        closing_row=np.zeros(capacity, np.int32),
        closing_id=np.zeros(capacity, np.uint64),
        closing_ns=np.zeros(capacity, np.int64),
        registers=registers,
        seed=np.array(seed, np.uint64),
    )

"""A tracker fed what no decoder gives and what an attacker sends: it stays whole, packet by packet.

Each field at random and at its ends, sequences of a small alphabet in tables of one to four rows,
and a flood. After each batch the table is looked at from the outside. The same packets go through
compiled, interpreted and bounds-checked loops; all three must give the same flows.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields

import flow_table
from batches import ACK, FIN, PACKET, PSH, RST, SYN, UNREAD_REASONS, PacketBatch, Rows
from features import extras, matrix
from flow_table import (
    ACTIVE,
    CLOCK,
    CLOSING,
    CLOSING_COUNT,
    CLOSING_FIRST,
    EXPIRED,
    FIRST_OPEN,
    FREE,
    FREE_ROW,
    NEWEST,
    NEXT_ID,
    OLDEST,
    OPEN,
)
from flow_tracker import FlowTracker

ROOT = Path(__file__).resolve().parents[1]
NO_ROW = -1
FAR_NS = 2**62
S = 1_000_000_000


def batch(rows: Rows) -> PacketBatch:
    return PacketBatch(rows, np.zeros(len(UNREAD_REASONS), np.int64), len(rows), 0)


# --- what must hold, whatever was fed -------------------------------------------------------------


class Watched:
    """A tracker whose sums and insides are looked at after each call."""

    def __init__(self, capacity: int) -> None:
        self.tracker = FlowTracker(capacity=capacity)
        self.table = self.tracker._table
        self.fed = 0
        self.given = 0
        self.digest = hashlib.sha256()
        self.ids: set[int] = set()

    def track(self, rows: Rows) -> Rows:
        self.fed += int((rows["kind"] == 0).sum())
        return self._took(self.tracker.track(batch(rows)).rows)

    def expire(self, now_ns: int) -> Rows:
        return self._took(self.tracker.expire(now_ns).rows)

    def provisional(self, now_ns: int) -> None:
        check_flows(self.tracker.provisional(now_ns).rows)
        check_table(self.table)

    def flush(self) -> Rows:
        rows = self._took(self.tracker.flush().rows)
        assert self.tracker.active == 0
        assert (self.table.status == FREE).all()
        assert (self.table.slots == NO_ROW).all()
        return rows

    def _took(self, rows: Rows) -> Rows:
        self.digest.update(repack_fields(rows).tobytes())
        self.given += int(rows["packets"].sum(dtype=np.int64))
        ids = set(rows["id"].tolist())
        assert len(ids) == len(rows), "a flow was given out twice at once"
        assert not ids & self.ids, "a flow was given out again"
        self.ids |= ids
        living = np.isin(self.table.status, (OPEN, CLOSING))
        waiting = int(self.table.rows["packets"][living].sum(dtype=np.int64))
        assert self.fed == self.given + waiting + self.tracker.late_packets
        check_flows(rows)
        check_table(self.table)
        return rows


def check_flows(rows: Rows) -> None:
    packets = rows["packets"].sum(axis=1)
    spans = rows["dir_last_ns"] - rows["dir_first_ns"]
    assert (packets >= 1).all()
    assert (rows["first_ns"] <= rows["last_ns"]).all()
    assert (spans >= 0).all()
    assert (spans <= (rows["last_ns"] - rows["first_ns"])[:, None]).all()
    assert (rows["length_min"] <= rows["length_max"]).all()
    assert (rows["length_min"] >= 0).all()
    assert (rows["square_sum"] >= 0).all()
    assert (rows["flag_counts"] <= packets[:, None]).all()
    assert (rows["payload_packets"] <= rows["packets"]).all()
    assert (rows["iat_mean"] >= 0).all()
    assert (rows["iat_m2"] >= 0).all()
    values = matrix(rows)
    assert np.isfinite(values).all()
    assert all(np.isfinite(column).all() for column in extras(rows, values).values())


def check_table(table: flow_table.Table) -> None:
    registers, status = table.registers, table.status
    capacity = len(table.rows)
    living = np.flatnonzero(np.isin(status, (OPEN, CLOSING)))
    assert registers[ACTIVE] == len(living)

    listed = []
    r, before = int(registers[OLDEST]), NO_ROW
    while r != NO_ROW:
        assert table.older[r] == before
        listed.append(r)
        assert len(listed) <= capacity, "the list runs in a circle"
        r, before = int(table.newer[r]), r
    assert registers[NEWEST] == before
    free = []
    r = int(registers[FREE_ROW])
    while r != NO_ROW:
        free.append(r)
        assert len(free) <= capacity, "the list of free rows runs in a circle"
        r = int(table.newer[r])
    assert sorted(listed + free) == list(range(capacity))
    assert (status[free] == FREE).all()
    assert (status[listed] != FREE).all()

    # Remembered rows first, then all others: where they meet is FIRST_OPEN.
    remembered = status[listed] == EXPIRED
    first_open = int(registers[FIRST_OPEN])
    place = listed.index(first_open) if first_open != NO_ROW else len(listed)
    assert remembered[:place].all()
    assert not remembered[place:].any()

    # Each row stands in the index once, with no gap between where its key begins and its place.
    slots, mask = table.slots, len(table.slots) - 1
    assert sorted(slots[slots >= 0].tolist()) == sorted(listed)
    for slot in np.flatnonzero(slots >= 0).tolist():
        home = int(table.key_hash[slots[slot]]) & mask
        while home != slot:
            assert slots[home] >= 0, "a probe for this row would stop before it"
            home = (home + 1) & mask
    assert len({key_of(table.rows[r]) for r in listed}) == len(listed), "one key has two rows"

    ring = len(table.closing_row)
    places = [(int(registers[CLOSING_FIRST]) + i) % ring for i in range(registers[CLOSING_COUNT])]
    waiting = set(
        zip(table.closing_row[places].tolist(), table.closing_id[places].tolist(), strict=True)
    )
    for r in living.tolist():
        if status[r] == CLOSING:
            assert (r, int(table.rows[r]["id"])) in waiting
    times = table.closing_ns[places]
    assert (np.diff(times) >= 0).all()
    assert (times <= registers[CLOCK]).all()
    assert (table.rows["id"][listed] < registers[NEXT_ID]).all()


def key_of(row: np.void) -> tuple[object, ...]:
    ends = sorted(
        (int(row[f"{end}_hi"]), int(row[f"{end}_lo"]), int(row[f"{end}_port"]))
        for end in ("src", "dst")
    )
    rest = ("protocol", "ip_version", "vlan", "tunnel", "icmp_type", "icmp_code")
    return (*ends, *(int(row[name]) for name in rest))


# --- each field at random -------------------------------------------------------------------------

EDGES = {
    "payload": (0, 0, 1, 1460, 65_535, 2**31 - 1),
    "wire_length": (0, 60, 1514, 2**31 - 1),
    "src_hi": (0, 0, 2**64 - 1),
    "dst_hi": (0, 0, 2**64 - 1),
    "src_lo": (0, 1, 2, 2**32 - 1, 2**64 - 1),
    "dst_lo": (0, 1, 2, 2**32 - 1, 2**64 - 1),
    "src_port": (0, 1, 65_535),
    "dst_port": (0, 1, 65_535),
    "vlan": (0, 0, 0, 1, 2**32 - 1),
    "tunnel": (0, 0, 0, 1, 2**32 - 1),
    "protocol": (6, 6, 6, 6, 17, 1, 58, 0, 132, 255),
    "ip_version": (4, 4, 4, 6, 0, 255),
    "icmp_type": (0, 8, 13, 14, 128, 129, 255),
    "icmp_code": (0, 0, 255),
    "kind": (0, 0, 0, 0, 0, 0, 0, 1, 2, 255),
    "tcp_flags": (SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, FIN | SYN | RST, 0, 255),
    "window": (0, 65_535),
    "ttl": (0, 64, 255),
}


def hostile(rng: np.random.Generator, count: int, start_ns: int) -> Rows:
    """(count,) packets; the clock steps, stands, jumps back, to nought and to the far future."""
    rows = np.zeros(count, PACKET)
    for name in PACKET.names or ():
        info = np.iinfo(PACKET[name])
        rows[name] = rng.integers(0, info.max, count, PACKET[name], endpoint=True)
    few = rng.random(count) < 0.97  # most packets share few keys, so that flows go on
    for name, edges in EDGES.items():
        values = np.array(edges, PACKET[name])[rng.integers(0, len(edges), count)]
        rows[name] = np.where(few, values, rows[name])
    rows["payload"] &= 2**31 - 1
    steps = np.array((0, 1, 1000, 10**6, S // 2, 2 * S, 70 * S, 130 * S, -1000, -S, -50 * S))
    weights = np.array((20, 10, 10, 10, 4, 1, 0.5, 0.5, 4, 1, 0.5))
    gaps = rng.choice(steps, count, p=weights / weights.sum())
    rows["time_ns"] = np.clip(start_ns + np.cumsum(gaps), 0, FAR_NS)
    jumps = rng.random(count) < 0.002
    rows["time_ns"][jumps] = rng.choice([0, 1, FAR_NS, 1_700_000_000 * S], int(jumps.sum()))
    return rows


def run(seed: int, count: int, capacity: int) -> str:
    """The digest of all flows that `count` hostile packets become, looked at every 500."""
    rng = np.random.default_rng(seed)
    watched = Watched(capacity)
    now_ns = 0
    for _ in range(0, count, 500):
        watched.track(hostile(rng, 500, now_ns))
        now_ns = int(rng.choice([0, now_ns + 400 * S, 1_700_000_000 * S, FAR_NS - 1000 * S]))
        if rng.random() < 0.2:
            watched.expire(now_ns)
        if rng.random() < 0.2:
            watched.provisional(now_ns)
    watched.flush()
    return watched.digest.hexdigest()


RUN = """
import sys
import numpy as np
sys.path.insert(0, {root!r})
from tests.test_flow_tracker_fuzz import run
with np.errstate(over="ignore"):
    for seed, count, capacity in {runs!r}:
        print(run(seed, count, capacity), flush=True)
"""


def in_another_process(runs: list[tuple[int, int, int]], **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(root=str(ROOT), runs=runs)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def interpreted(runs: list[tuple[int, int, int]]) -> list[str]:
    return in_another_process(runs, NUMBA_DISABLE_JIT="1")


def bounds_checked(runs: list[tuple[int, int, int]]) -> list[str]:
    """In a cache of their own: numba's does not tell checked loops from others."""
    folder = f"{numba.config.CACHE_DIR}-bounds"  # type: ignore[attr-defined]
    return in_another_process(runs, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=folder)


SIZES = ((1, 1), (2, 3), (3, 16), (4, 64))
"""(seed, rows of the table)"""


def test_hostile_packets_are_the_same_flows_compiled_and_interpreted() -> None:
    few = [(seed, 1500, capacity) for seed, capacity in SIZES]
    assert interpreted(few) == [run(*each) for each in few]


@pytest.mark.slow
@pytest.mark.parametrize("another", [interpreted, bounds_checked])
def test_a_hundred_thousand_hostile_packets(
    another: Callable[[list[tuple[int, int, int]]], list[str]],
) -> None:
    many = [(seed + 10, 25_000, capacity) for seed, capacity in SIZES]
    assert another(many) == [run(*each) for each in many]


# --- sequences of a small alphabet ----------------------------------------------------------------

PACKETS = st.tuples(
    st.integers(0, 4),  # which pair of hosts
    st.booleans(),  # backwards
    st.sampled_from([SYN, SYN | ACK, ACK, FIN | ACK, RST, FIN | RST | SYN]),
    st.sampled_from([0, 1, 2**31 - 1]),
    st.sampled_from([0, 1, S - 1, S, S + 1, 119 * S, 120 * S, 121 * S, 601 * S, -S, -61 * S]),
    st.sampled_from([6, 6, 6, 17, 1]),
)
STEPS = st.lists(
    st.one_of(
        PACKETS, st.tuples(st.sampled_from(["expire", "provisional"]), st.integers(0, 200 * S))
    ),
    max_size=60,
)


@settings(max_examples=400)
@given(STEPS, st.integers(1, 4))
def test_any_sequence_leaves_the_table_whole(
    steps: list[tuple[object, ...]], capacity: int
) -> None:
    watched = Watched(capacity)
    now_ns = 1000 * S
    for step in steps:
        match step:
            case (str() as what, int() as later_ns):
                getattr(watched, what)(now_ns + later_ns)
            case (int() as pair, bool() as back, flags, payload, int() as gap_ns, protocol):
                now_ns = max(now_ns + gap_ns, 0)
                row = np.zeros(1, PACKET)
                row["time_ns"], row["payload"] = now_ns, payload
                row["protocol"], row["tcp_flags"], row["ip_version"] = protocol, flags, 4
                row["src_lo"], row["dst_lo"] = (9, pair) if back else (pair, 9)
                row["icmp_type"] = 0 if back else 8
                watched.track(row)
    watched.flush()


def test_lengths_that_a_file_invents_do_not_overflow() -> None:
    """Three packets of 2 GB each: the sum of their squares is beyond 63 bits."""
    rows = np.zeros(3, PACKET)
    rows["ip_version"], rows["protocol"], rows["payload"] = 4, 17, 2**31 - 1
    watched = Watched(2)
    watched.track(rows)
    flow = watched.flush()[0]
    assert flow["bytes"].tolist() == [3 * (2**31 - 1), 0]
    assert flow["square_sum"].tolist() == [2**63 - 1, 0]


def test_no_counter_of_a_row_runs_over() -> None:
    """A file whose clock stands still may hold more packets of one flow than 31 bits count."""
    rows = np.zeros(1, PACKET)
    rows["ip_version"], rows["protocol"], rows["payload"], rows["tcp_flags"] = 4, 6, 9, PSH
    tracker = FlowTracker(capacity=2)
    tracker.track(batch(rows))
    row = tracker._table.rows[tracker._table.registers[OLDEST]]
    for name in ("packets", "payload_packets"):
        row[name] = 1_000_000_000
    row["flag_counts"][3] = 2_000_000_000
    ended = tracker.track(batch(rows)).rows
    assert ended["packets"].tolist() == [[1_000_000_000, 1_000_000_000]]
    assert ended["flag_counts"][0, 3] == 2_000_000_000
    rows["tcp_flags"] = RST
    tracker.track(batch(rows))
    row = tracker._table.rows[tracker._table.registers[OLDEST]]
    row["packets"] = 1_000_000_000
    rows["tcp_flags"] = 0
    tracker.track(batch(rows))  # captured out of order, and one too many
    assert tracker.late_packets == 1
    assert tracker.flush().rows["packets"].tolist() == [[1_000_000_000, 1_000_000_000]]


# --- floods ---------------------------------------------------------------------------------------


def flood(count: int, seed: int) -> Rows:
    """(count,) packets of as many flows: random sources, ports and targets, a microsecond apart."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, PACKET)
    rows["time_ns"] = 1_700_000_000 * S + np.arange(count) * 1000
    rows["src_lo"] = rng.permutation(count)
    rows["dst_lo"] = 0x0A000001 + rng.integers(0, 4, count)
    rows["src_port"] = rng.integers(1024, 65536, count)
    rows["dst_port"] = rng.integers(1, 1024, count)
    rows["ip_version"], rows["protocol"], rows["tcp_flags"] = 4, 6, SYN
    return rows


def probes(table: flow_table.Table) -> np.ndarray:
    """How many slots a search looks at to find each row."""
    mask = len(table.slots) - 1
    places = np.flatnonzero(table.slots >= 0)
    homes = table.key_hash[table.slots[places]] & np.uint64(mask)
    return ((places - homes.astype(np.int64)) & mask) + 1


def test_a_flood_of_one_packet_flows_is_bounded_and_all_accounted_for() -> None:
    """400,000 flows into 65,536 rows."""
    count, capacity = 400_000, 65_536
    tracker = FlowTracker(capacity=capacity)
    rows = flood(count, seed=1)
    sizes = [array.nbytes for array in tracker._table]
    ended: deque[int] = deque()
    for start in range(0, count, 4096):
        ended.extend(tracker.track(batch(rows[start : start + 4096])).rows["id"].tolist())
        assert tracker.active <= capacity
    assert list(ended) == list(range(1, count - capacity + 1)), "the longest silent flow ends first"
    assert tracker.evicted == len(ended)
    assert tracker.active == capacity
    assert len(ended) + tracker.active == count
    assert tracker.late_packets == 0
    assert [array.nbytes for array in tracker._table] == sizes
    assert len(tracker.flush()) == capacity


@pytest.mark.parametrize("capacity", [4096, 16_384, 65_536])
def test_a_search_costs_the_same_in_a_table_of_any_size(capacity: int) -> None:
    """1.5 slots in a table whose index is half full (Knuth 6.4); the longest seen in 100 starts
    was 49. All other steps of a packet touch a fixed number of rows."""
    tracker = FlowTracker(capacity=capacity)
    tracker.track(batch(flood(2 * capacity, seed=3)))
    looked = probes(tracker._table)
    assert len(looked) == capacity
    assert 1.3 < looked.mean() < 1.7
    assert looked.max() < 200


def home_slots(tracker: FlowTracker, rows: Rows) -> np.ndarray:
    """Where the keys of `rows` begin in the index of a table that holds nothing else."""
    tracker.track(batch(rows))
    table = tracker._table
    order = np.argsort(table.rows["id"][: len(rows)])
    mask = np.uint64(len(table.slots) - 1)
    return (table.key_hash[: len(rows)][order] & mask).astype(np.int64)


def test_keys_that_collide_in_one_start_do_not_in_the_next() -> None:
    """Who finds keys that crowd one start's index cannot use them against another."""
    rows = flood(60_000, seed=2)
    first, second = FlowTracker(capacity=65_536), FlowTracker(capacity=65_536)
    assert (first._table.seed != second._table.seed).all()
    homes = home_slots(first, rows)
    chosen = rows[homes < 128]  # a 1024th of the index
    again = FlowTracker(capacity=65_536)
    again._table.seed[:] = first._table.seed
    assert (home_slots(again, chosen) < 128).all()
    others = home_slots(second, chosen)
    assert len(chosen) >= 20
    assert len(set((others // 128).tolist())) > len(chosen) // 2

"""What the windows share: the kinds of window, seeded keys, an index, rows of evidence.

A window counts one kind of thing for one key. Keys are hashed with random odd multipliers drawn
at the start (multilinear hashing, Lemire & Kaser 2014), so that nobody can aim two keys at one
place; 64 bits of hash stand for the key, since among 131,072 keys two are equal by chance with
probability 5e-10.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compiled import Int, compiled

__all__ = [
    "ARP_HOSTS",
    "CONNECT_RATE",
    "EVIDENCE",
    "FLOODS",
    "GUESS_ANY",
    "GUESS_LOGIN",
    "GUESS_PASSWORDS",
    "GUESS_SLOW",
    "ICMP_HOSTS",
    "ICMP_RATE",
    "KINDS",
    "NS",
    "SAMPLE",
    "SOURCE_CELLS",
    "STEALTH_PORTS",
    "SYN_RATE",
    "TCP_HOSTS",
    "TCP_PORTS",
    "UDP_HOSTS",
    "UDP_PORTS",
    "UDP_RATE",
    "find",
    "hash_of",
    "index_add",
    "index_remove",
    "new_seed",
]

NS: Final = 1_000_000_000

# Kinds of window, in the order of the table of rules in patterns/room.py.
TCP_PORTS: Final = 0  # ports of one host that one source asked for a connection
TCP_HOSTS: Final = 1  # hosts that one source asked for a connection on one port
UDP_PORTS: Final = 2
UDP_HOSTS: Final = 3
STEALTH_PORTS: Final = 4  # (host, port) that got TCP packets without SYN, ACK or RST
ICMP_HOSTS: Final = 5  # hosts one source pinged
ARP_HOSTS: Final = 6  # addresses one MAC asked for
SYN_RATE: Final = 7  # connection attempts to one endpoint
UDP_RATE: Final = 8  # unanswered UDP packets to one host
ICMP_RATE: Final = 9  # ICMP requests to one host
CONNECT_RATE: Final = 10  # completed connections of one source to one endpoint
GUESS_LOGIN: Final = 11  # alike ended connections to a login port, a minute
GUESS_SLOW: Final = 12  # the same over ten minutes
GUESS_PASSWORDS: Final = 13  # of those in a minute, that keep changing what they send
GUESS_ANY: Final = 14  # such connections to any other port
KINDS: Final = 15
FLOODS: Final = (SYN_RATE, CONNECT_RATE)  # first and last kind counted by rates; scans before

SAMPLE: Final = 16
"""Targets kept of one window, the newest."""
SOURCE_CELLS: Final = 64
"""Cells of the sketch that counts distinct sources (HyperLogLog; error 13 %)."""

EVIDENCE: Final = np.dtype(
    [
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        ("told_ns", np.int64),  # packet time at which this was written
        ("src_hi", np.uint64),
        ("src_lo", np.uint64),
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("value", np.float64),  # the window's statistic
        ("events", np.int64),  # packets (connections) since the window was last told
        ("tried", np.int32),  # distinct targets
        ("failed", np.int32),
        ("rejected", np.int32),  # of the failed: answered by RST
        ("proven", np.int32),  # 1: the source finished a handshake with the target
        ("packets", np.int64),  # in the window, floods only
        ("sample", np.int32),  # how many of the sample_* are filled
        ("port", np.int32),  # -1: more than one
        ("kind", np.uint8),
        ("ip_version", np.uint8),
        ("sample_hi", np.uint64, (SAMPLE,)),
        ("sample_lo", np.uint64, (SAMPLE,)),
        ("sample_port", np.uint16, (SAMPLE,)),
        ("cells", np.uint8, (SOURCE_CELLS,)),
    ],
    align=True,
)
"""One window over its line, as the compiled loops hand it out."""


def new_seed(seed: int | None) -> NDArray[np.uint64]:
    """(6,) odd multipliers; None draws them from the system's randomness."""
    numbers = np.random.default_rng(seed).integers(0, 1 << 64, 6, np.uint64)
    return numbers | np.uint64(1)


@compiled
def hash_of(seed: NDArray[np.uint64], a_hi: Any, a_lo: Any, b_hi: Any, b_lo: Any, rest: Int) -> Any:
    """A key of two addresses and a number below 2^63; never 0."""
    value = seed[0] + a_lo * seed[1] + a_hi * seed[2] + b_lo * seed[3] + b_hi * seed[4]
    value += np.uint64(rest) * seed[5]
    # The sum's high bits are the good ones: bring them down (finaliser of splitmix64).
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    value = value ^ (value >> np.uint64(29))
    return value if value != np.uint64(0) else np.uint64(1)


@compiled
def find(slots: NDArray[np.int32], keys: NDArray[np.uint64], key: Any) -> Int:
    """The row that `key` stands for, -1 where there is none; linear probing."""
    mask = len(slots) - 1
    slot = np.int64(key & np.uint64(mask))
    while slots[slot] >= 0:
        r = np.int64(slots[slot])
        if keys[r] == key:
            return r
        slot = (slot + 1) & mask
    return -1


@compiled
def index_add(slots: NDArray[np.int32], keys: NDArray[np.uint64], key: Any, r: Int) -> None:
    mask = len(slots) - 1
    slot = np.int64(key & np.uint64(mask))
    while slots[slot] >= 0:
        slot = (slot + 1) & mask
    slots[slot] = r
    keys[r] = key


@compiled
def index_remove(slots: NDArray[np.int32], keys: NDArray[np.uint64], r: Int) -> None:
    """Backward shift, so that no tombstones pile up (Knuth 6.4, algorithm R)."""
    mask = len(slots) - 1
    slot = np.int64(keys[r] & np.uint64(mask))
    while slots[slot] != r:
        slot = (slot + 1) & mask
    hole = slot
    while True:
        slot = (slot + 1) & mask
        other = np.int64(slots[slot])
        if other < 0:
            break
        home = np.int64(keys[other] & np.uint64(mask))
        if ((slot - home) & mask) >= ((slot - hole) & mask):
            slots[hole] = other
            hole = slot
    slots[hole] = -1

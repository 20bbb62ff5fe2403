"""Packets seen on two interfaces of one capture: the copies are found and judged once.

A router shows a packet where it comes in and where it goes out, a bridge on its member and on
itself. Copies are told by what no hop changes: addresses, ports, protocol, IP identification,
checksum, sequence numbers, flags, payload length; never by TTL, MAC or VLAN. Network address
translation changes addresses, and offloads the cut between packets: such copies can't be known.

A packet belongs to the interface that showed it first. Whatever that interface shows again is
a retransmission and kept; what another one shows within a second of it is a copy.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import PACKET, PacketKind, Rows
from compiled import Int, compiled

__all__ = ["Duplicates", "mark_copies", "warm"]

_ENTRIES: Final = 1 << 17
"""At 200,000 packets a second 0.6 s of them; copies come within 0.2 s, the age of two batches."""
_PROBES: Final = 8
_AGE_NS: Final = 1_000_000_000
_KIND_ARP: Final = int(PacketKind.ARP)


@compiled
def _mix(value: Any) -> Any:
    """The finaliser of splitmix64 (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _identity(packet: Any, seed: Any) -> Any:
    """64 bits of what makes a packet this one; the seed keeps others from making two alike."""
    ends = np.uint64(packet["src_port"]) | (np.uint64(packet["dst_port"]) << np.uint64(16))
    ends |= np.uint64(packet["ip_id"]) << np.uint64(32)
    ends |= np.uint64(packet["checksum"]) << np.uint64(48)
    place = np.uint64(packet["seq"]) | (np.uint64(packet["ack"]) << np.uint64(32))
    # As 32 bits without a sign: a length is never negative, but the cast must not widen one.
    kinds = np.uint64(np.uint32(packet["payload"]))
    kinds |= np.uint64(packet["protocol"]) << np.uint64(32)
    kinds |= np.uint64(packet["tcp_flags"]) << np.uint64(40)
    kinds |= np.uint64(packet["icmp_type"]) << np.uint64(48)
    kinds |= np.uint64(packet["icmp_code"]) << np.uint64(56)
    claim = np.uint64(packet["kind"])
    if packet["kind"] == _KIND_ARP:
        # Not the frame's sender but what the packet claims, which spoofing forges.
        claim |= np.uint64(packet["src_mac"]) << np.uint64(8)
    value = _mix(seed ^ packet["src_lo"])
    value = _mix((value + seed) ^ packet["src_hi"])
    value = _mix((value + seed) ^ packet["dst_lo"])
    value = _mix((value + seed) ^ packet["dst_hi"])
    value = _mix((value + seed) ^ ends)
    value = _mix((value + seed) ^ place)
    value = _mix((value + seed) ^ kinds)
    return _mix((value + seed) ^ claim)


@compiled
def mark_copies(
    rows: Rows,
    interface: Int,
    seed: NDArray[np.uint64],
    tags: NDArray[np.uint64],
    spans: NDArray[np.int64],
    owners: NDArray[np.int32],
    copy: NDArray[np.uint8],
) -> Int:
    """Set copy[i] to 1 for each row that another interface has shown; how many there are.

    The table: tags (n, 2) the 128 bits of an identity, spans (n, 2) first and last time of the
    owner, nanoseconds, owners (n,) its number; n is a power of two. A place not used is all 0.
    """
    found = np.int64(0)
    mask = np.uint64(len(owners) - 1)
    for i in range(len(rows)):
        first_tag = _identity(rows[i], seed[0])
        second_tag = _identity(rows[i], seed[1])
        time_ns = np.int64(rows[i]["time_ns"])
        place = np.int64(-1)
        oldest = np.int64(first_tag & mask)
        for probe in range(_PROBES):
            slot = np.int64((first_tag + np.uint64(probe)) & mask)
            if tags[slot, 0] == first_tag and tags[slot, 1] == second_tag:
                place = slot
                break
            if spans[slot, 1] < spans[oldest, 1]:
                oldest = slot
        known = (
            place >= 0
            and spans[place, 0] - _AGE_NS <= time_ns
            and time_ns <= spans[place, 1] + _AGE_NS
        )
        copy[i] = 0
        if not known:
            if place < 0:
                place = oldest
            tags[place, 0] = first_tag
            tags[place, 1] = second_tag
            spans[place, 0] = time_ns
            spans[place, 1] = time_ns
            owners[place] = interface
        elif owners[place] == interface:
            spans[place, 0] = min(spans[place, 0], time_ns)
            spans[place, 1] = max(spans[place, 1], time_ns)
        else:
            copy[i] = 1
            found += 1
    return found


class Duplicates:
    """The packets of the last moment and the interface that showed each first; 5 MB.

    Which packets stay is decided in the order in which batches come, not by their times: batches
    of two interfaces overlap.
    """

    def __init__(self, entries: int = _ENTRIES) -> None:
        self._seed = np.array([secrets.randbits(64) for _ in range(2)], np.uint64)
        self._tags = np.zeros((entries, 2), np.uint64)
        self._spans = np.zeros((entries, 2), np.int64)
        self._owners = np.zeros(entries, np.int32)
        self._numbers: dict[str, int] = {}

    def without_copies(self, rows: Rows, interface: str) -> Rows:
        """The rows of one batch without those that another interface has shown.

        VLAN and tunnel numbers are taken out: an interface and its VLAN show one packet under two
        of them, and whichever came first would decide which flow it belongs to.
        """
        rows["vlan"] = 0
        rows["tunnel"] = 0
        number = self._numbers.setdefault(interface, len(self._numbers))
        copy = np.empty(len(rows), np.uint8)
        # Interpreted, the hash's overflow would be warned about.
        with np.errstate(over="ignore"):
            found = mark_copies(
                rows, number, self._seed, self._tags, self._spans, self._owners, copy
            )
        return rows[copy == 0] if found else rows


def warm() -> None:
    """Compile (or load) the search before a capture opens."""
    Duplicates(_PROBES).without_copies(np.zeros(1, PACKET), "")

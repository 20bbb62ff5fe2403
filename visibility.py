"""How much of the network this computer can see: n of about m devices.

On a switch a computer gets its own traffic and what is sent to all; the unicast traffic of the
others never reaches it. Who speaks at all is heard by ARP, broadcast and multicast; whose traffic
with somebody else than this computer passes here is seen.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray

from batches import PacketBatch, PacketKind, Rows

__all__ = ["LISTEN_S", "Visibility"]

LISTEN_S: Final = 180.0
"""Before that nothing is claimed: a quiet device asks for its router's address about so often."""
KEPT_S: Final = 3600
_DEVICES: Final = 4096
_SEEN_PACKETS: Final = 5
"""A switch that has forgotten a device sends its next packet to all: one packet proves nothing."""
_LOOKS_PER_S: Final = 20.0
"""Two interfaces' batches in quiet times; of busy ones a part is let pass. A look into a full batch
takes 0.23 ms, so all of them 0.5 % of a core."""
_LOOKS_AT_ONCE: Final = 8.0
"""Looks that may be saved up: batches of several interfaces come together."""
_SAMPLE: Final = 256
"""Unicast packets looked at in a batch, and so many of those sent to all."""
_OWN_S: Final = 60.0

_LOW: Final = (1 << 64) - 1
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
"""Makes one number of an address's two halves, the same for the same address."""
_GROUP_BIT: Final = np.uint64(1 << 40)  # of the first byte of a MAC: broadcast and multicast


class Visibility:
    """Devices heard and seen in the last hour; fed by the analysis thread, read by web threads.

    Bounded: 4,096 devices. listen_s: how long nothing is claimed. Times are packet time.
    """

    def __init__(self, *, listen_s: float = LISTEN_S) -> None:
        self._lock = threading.Lock()
        self._listen_s = listen_s
        self._first_s: float | None = None
        self._now_s = 0.0
        self._asked_s = time.monotonic()
        self._looks = _LOOKS_AT_ONCE
        self._own_taken_s = -np.inf
        self._own_macs = np.empty(0, np.uint64)
        self._own_addresses = np.empty(0, np.uint64)
        self._heard: dict[int, float] = {}  # MAC -> packet time, in order of time
        self._seen: dict[int, list[float]] = {}  # MAC -> [packets counted, packet time]

    def reset(self) -> None:
        """Other interfaces show another network: forget, and listen anew."""
        with self._lock:
            self._first_s = None
            self._heard.clear()
            self._seen.clear()

    def add(self, batch: PacketBatch) -> None:
        """Look at a sample of one batch."""
        now_s = time.monotonic()
        saved = self._looks + (now_s - self._asked_s) * _LOOKS_PER_S
        self._looks = min(saved, _LOOKS_AT_ONCE)
        self._asked_s = now_s
        if not len(batch) or self._looks < 1:
            return
        self._looks -= 1
        if now_s - self._own_taken_s > _OWN_S:
            self._own_taken_s = now_s
            with contextlib.suppress(OSError):  # too many files are open to ask: the old ones stay
                self._take_own()
        rows = batch.rows
        to_all = (rows["dst_mac"] & _GROUP_BIT != 0) | (rows["kind"] == int(PacketKind.ARP))
        group = rows["src_mac"][to_all][:_SAMPLE]
        step = -(-len(rows) // _SAMPLE)
        unicast = rows[::step][~to_all[::step]]
        with self._lock:
            self._now_s = float(rows["time_ns"][-1]) / 1e9
            if self._first_s is None or self._now_s < self._first_s:
                self._first_s = self._now_s
            self._hear(np.concatenate([group, unicast["src_mac"]]))
            self._see(unicast)

    def told(self) -> dict[str, Any]:
        """{seen, heard, sentence}: devices with this computer; None while it still listens."""
        with self._lock:
            listened_s = 0.0 if self._first_s is None else self._now_s - self._first_s
            since_s = self._now_s - KEPT_S
            others = {mac for mac, at_s in self._heard.items() if at_s >= since_s}
            seen = sum(
                mac in others and count >= _SEEN_PACKETS and at_s >= since_s
                for mac, (count, at_s) in self._seen.items()
            )
        if listened_s < self._listen_s:
            return {
                "seen": None,
                "heard": None,
                "sentence": "Still listening which devices there are.",
            }
        if not others:
            return {"seen": 1, "heard": 1, "sentence": "No other device was heard yet."}
        seen, heard = seen + 1, len(others) + 1
        if seen == heard:
            sentence = f"Sees the traffic of all {heard:,} devices heard."
        else:
            sentence = (
                f"Sees the traffic of {seen:,} of about {heard:,} devices; a switch keeps the "
                "rest from this computer. Run SecureFlux on the gateway or on a mirror port."
            )
        return {"seen": seen, "heard": heard, "sentence": sentence}

    def _hear(self, macs: NDArray[np.uint64]) -> None:
        for mac in self._others(macs)[0].tolist():
            # Taken out first, so that the order is that of time and the first is the oldest.
            self._heard.pop(mac, None)
            self._heard[mac] = self._now_s
        while len(self._heard) > _DEVICES:
            oldest = next(iter(self._heard))
            del self._heard[oldest]
            self._seen.pop(oldest, None)

    def _see(self, rows: Rows) -> None:
        """Count unicast packets at both their ends, unless they are this computer's own."""
        foreign = rows[~(self._is_own(rows, "src") | self._is_own(rows, "dst"))]
        ends = np.concatenate([foreign["src_mac"], foreign["dst_mac"]])
        for mac, count in zip(*(found.tolist() for found in self._others(ends)), strict=True):
            if mac not in self._heard:
                continue
            entry = self._seen.setdefault(mac, [0.0, 0.0])
            if entry[1] < self._now_s - KEPT_S:
                entry[0] = 0.0
            entry[0] += count
            entry[1] = self._now_s

    def _others(self, macs: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The devices among these MACs, each once, and how often it stands there."""
        devices = macs[(macs != 0) & (macs & _GROUP_BIT == 0) & ~np.isin(macs, self._own_macs)]
        found, counts = np.unique(devices, return_counts=True)
        return found, counts

    def _is_own(self, rows: Rows, end: str) -> NDArray[np.bool_]:
        addresses = rows[f"{end}_hi"] * _SPREAD + rows[f"{end}_lo"]
        return np.isin(addresses, self._own_addresses)

    def _take_own(self) -> None:
        """This computer's MACs and addresses, afresh: interfaces come and go."""
        macs, addresses = set(), set()
        for entries in psutil.net_if_addrs().values():
            for entry in entries:
                if entry.family == psutil.AF_LINK:
                    digits = entry.address.replace("-", "").replace(":", "")
                    if len(digits) == 12:
                        macs.add(int(digits, 16))
                elif entry.family in (socket.AF_INET, socket.AF_INET6):
                    address = ipaddress.ip_address(entry.address.partition("%")[0])
                    high, low = int(address) >> 64, int(address) & _LOW
                    if not address.is_loopback:
                        addresses.add((high * int(_SPREAD) + low) & _LOW)
        self._own_macs = np.array(sorted(macs), np.uint64)
        self._own_addresses = np.array(sorted(addresses), np.uint64)

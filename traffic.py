"""How much traffic there was: short steps of packet time for charts, and their usual range."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import Rows

__all__ = ["STEP_S", "Traffic"]

STEP_S: Final = 5
_STEPS: Final = 720
"""One hour of steps; a chart never draws more than 720 points."""
_STEPS_FOR_RANGE: Final = 120
"""A usual range is claimed after ten minutes, not before."""
_STEPS_BACK: Final = 12
"""A minute; time that jumps back further begins a new chart."""
_DEVICES: Final = 256


class Traffic:
    """Bytes, packets and flows per step, and who sent how much in the hour.

    Written by the analysis thread, read by web threads; bounded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = np.zeros((_STEPS, 3), np.int64)  # bytes, packets, flows
        self._newest = 0  # the newest step, in steps since the epoch
        self._oldest = 0
        self._devices: dict[str, list[float]] = {}  # address -> [bytes, last step seen]

    def add_packets(self, rows: Rows) -> None:
        if not len(rows):
            return
        steps = rows["time_ns"] // (STEP_S * 1_000_000_000)
        last = int(steps.max())
        with self._lock:
            if not self._newest:
                # The first batch may span several steps where a reader had to wait.
                self._move_to(int(steps.min()))
            self._move_to(last)
            steps = np.clip(steps, self._newest - _STEPS + 1, self._newest) % _STEPS
            np.add.at(self._sums[:, 0], steps, rows["wire_length"].astype(np.int64))
            np.add.at(self._sums[:, 1], steps, 1)

    def add_flows(self, time_s: float, count: int) -> None:
        with self._lock:
            # Flows are given out long after their last packet: they move no clock back.
            self._move_to(max(int(time_s) // STEP_S, self._newest))
            self._sums[self._newest % _STEPS, 2] += count

    def add_device(self, address: str, count_bytes: int) -> None:
        """Bytes of an inside address; the least busy ones make room."""
        with self._lock:
            entry = self._devices.setdefault(address, [0.0, 0.0])
            entry[0] += count_bytes
            entry[1] = self._newest
            if len(self._devices) >= 2 * _DEVICES:
                # Many at once: under a flood each packet brings an address never seen before.
                ranked = sorted(self._devices.items(), key=lambda item: -item[1][0])
                self._devices = dict(ranked[:_DEVICES])

    def move_to(self, time_s: float) -> None:
        """Let the clock go on where no packet comes."""
        with self._lock:
            self._move_to(int(time_s) // STEP_S)

    def series(self, what: str, *, points: int) -> dict[str, Any]:
        """The newest `points` steps: {start, step_s, values, low, high, now}.

        what: "bits_per_s", "packets_per_s" or "flows_per_minute". low..high is the 1st to 99th
        percentile of the steps kept, None while there are too few.
        """
        column, factor = {
            "bits_per_s": (0, 8 / STEP_S),
            "packets_per_s": (1, 1 / STEP_S),
            "flows_per_minute": (2, 60 / STEP_S),
        }[what]
        with self._lock:
            values = self._ordered()[:, column] * factor
            newest = self._newest
        low = high = None
        if len(values) >= _STEPS_FOR_RANGE:
            low, high = (float(v) for v in np.percentile(values[:-1], (1, 99)))
        # The newest step is still filling: it is not a low point of the traffic.
        shown = values[:-1][-points:]
        return {
            "start": float((newest - len(shown)) * STEP_S),
            "step_s": STEP_S,
            "values": [round(float(value), 3) for value in shown],
            "low": low,
            "high": high,
            "now": float(shown[-1]) if len(shown) else 0.0,
        }

    def busiest(self, count: int) -> list[dict[str, Any]]:
        """Inside addresses by bytes, most first: {name, address, bytes}."""
        with self._lock:
            ranked = sorted(self._devices.items(), key=lambda item: -item[1][0])[:count]
        return [
            {"name": None, "address": address, "bytes": int(entry[0])} for address, entry in ranked
        ]

    def _ordered(self) -> NDArray[np.int64]:
        """Steps since the first, oldest first; (n <= _STEPS, 3)."""
        length = min(self._newest - self._oldest + 1, _STEPS) if self._newest else 0
        places = np.arange(self._newest - length + 1, self._newest + 1) % _STEPS
        return self._sums[places]

    def _move_to(self, step: int) -> None:
        if not self._newest or step < self._newest - _STEPS_BACK:
            self._sums[:] = 0
            self._newest = self._oldest = step
        gap = min(step - self._newest, _STEPS)
        for ahead in range(1, gap + 1):
            self._sums[(step - gap + ahead) % _STEPS] = 0
        if gap > 0:
            self._newest = step
            self._oldest = max(self._oldest, step - _STEPS + 1)
            stale = [name for name, e in self._devices.items() if e[1] < step - _STEPS]
            for name in stale:
                del self._devices[name]

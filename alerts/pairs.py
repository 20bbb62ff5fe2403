"""How often each pair of hosts talked lately, and how much of it the models objected to.

Two uses: the REPEATED_PAIR pattern (more alerts on a pair than a model with its false-alarm rate
would raise by chance) and the hourly counts of a host beside its incident. Packet time, bounded;
one thread writes, the incident room's lock covers readers.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import numpy as np

from batches import EndReason, FlowRecord, Rows

__all__ = ["HISTORY_HOURS", "FirstSeen", "HostHours", "PairWindows", "poisson_tail"]

Raw = tuple[int, int]
"""An address as its two 64-bit halves, as flow rows have it."""
Counted = tuple[Raw, Raw, float]
"""(source, target, packet time in s) of one flow."""

PAIR_ALERTS: Final = 5
"""Fewest alerts on a pair that make REPEATED_PAIR."""
PAIR_CHANCE: Final = 1e-6
"""Chance below which they are no accident of the models' false-alarm rate."""
PAIRS_KEPT: Final = 65_536
"""Pairs whose flows are counted; the one quiet longest goes first. About 0.5 kB each."""
ALERT_PAIRS_KEPT: Final = 2_048
"""Pairs whose alert flows are remembered."""
FLOWS_PER_PAIR: Final = 200
"""Alert flows remembered of one pair."""
_SLOTS: Final = 12
"""A window is counted in this many slots, so it reaches back at most one slot too far."""

PROVISIONAL_KEPT: Final = 200_000
"""Flows seen while they lived and not yet ended; more than the flow table has rows."""
ROWS_AT_ONCE: Final = 4_096
"""Rows of one batch counted one by one, about 1 us each."""

HISTORY_HOURS: Final = 24
HOSTS_KEPT: Final = 10_000
"""Hosts with hourly counts."""


def poisson_tail(k: int, mean: float) -> float:
    """P(X >= k) for X ~ Poisson(mean), by summing the tail (stable for small chances)."""
    if k <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    term = math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
    if k < mean:
        # The tail holds most of the mass: sum the other side instead.
        below, one = 0.0, math.exp(-mean)
        for i in range(k):
            below += one
            one *= mean / (i + 1)
        return max(0.0, 1.0 - below)
    total = 0.0
    while term > total * 1e-12:
        total += term
        k += 1
        term *= mean / k
    return min(1.0, total)


class FirstSeen:
    """Gives each flow of a FlowBatch once, though provisional rows come again and end."""

    def __init__(self) -> None:
        self._provisional: OrderedDict[int, None] = OrderedDict()

    def of(self, rows: Rows) -> list[Counted]:
        """The flows among `rows` ((n,) FLOW) that were not given before."""
        fresh = [
            self._is_new(flow_id, ended)
            for flow_id, ended in zip(
                rows["id"].tolist(), (rows["end_reason"] > EndReason.QUIET).tolist(), strict=True
            )
        ]
        rows = _without_flood(rows[np.array(fresh, np.bool_)])
        sources = zip(rows["src_hi"].tolist(), rows["src_lo"].tolist(), strict=True)
        targets = zip(rows["dst_hi"].tolist(), rows["dst_lo"].tolist(), strict=True)
        times = (rows["last_ns"] / 1e9).tolist()
        return list(zip(sources, targets, times, strict=True))

    def _is_new(self, flow_id: int, ended: bool) -> bool:
        if flow_id in self._provisional:
            if ended:
                del self._provisional[flow_id]
            return False
        if not ended:
            self._provisional[flow_id] = None
            if len(self._provisional) > PROVISIONAL_KEPT:
                self._provisional.popitem(last=False)
        return True


def _without_flood(rows: Rows) -> Rows:
    """Of a very large batch what repeats; pairs seen once in a flood never become REPEATED."""
    if len(rows) <= ROWS_AT_ONCE:
        return rows
    mixed = rows["src_lo"] * _MIX + (rows["src_hi"] ^ rows["dst_hi"])
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX + rows["dst_lo"]
    _, place, counts = np.unique(mixed, return_inverse=True, return_counts=True)
    keep = counts[place] > 1
    keep[:ROWS_AT_ONCE] = True
    return rows[keep]


_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


def _raw(address: str) -> Raw:
    value = int(ipaddress.ip_address(address))
    return value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF


class PairWindows:
    """Flows and alert flows of each (source, target) within the window.

    alpha: the share of all normal flows that the models may object to.
    """

    def __init__(self, window_s: float, alpha: float) -> None:
        self._window_s = window_s
        self._slot_s = window_s / _SLOTS
        self._alpha = alpha
        self._flows: OrderedDict[tuple[Raw, Raw], dict[int, int]] = OrderedDict()
        self._all: dict[int, int] = {}
        self._alerts: OrderedDict[tuple[str, str], OrderedDict[str, FlowRecord]] = OrderedDict()

    def count(self, flows: Iterable[Counted]) -> None:
        for source, target, time_s in flows:
            pair, slot = (source, target), int(time_s // self._slot_s)
            slots = self._flows.get(pair)
            if slots is None:
                slots = self._flows[pair] = {}
                if len(self._flows) > PAIRS_KEPT:
                    self._flows.popitem(last=False)
            else:
                self._flows.move_to_end(pair)
            for counts in (slots, self._all):
                counts[slot] = counts.get(slot, 0) + 1
                if len(counts) > _SLOTS + 1:
                    # Slots ahead are from before a clock was set back.
                    for old in [s for s in counts if abs(s - slot) > _SLOTS]:
                        del counts[old]

    def add_alert(self, flow: FlowRecord) -> None:
        """Remember an ALERT flow of its pair; the same flow again replaces itself."""
        pair = (flow["src_ip"], flow["dst_ip"])
        kept = self._alerts.setdefault(pair, OrderedDict())
        self._alerts.move_to_end(pair)
        kept[flow["id"]] = flow
        for flow_id in [i for i, f in kept.items() if flow["time"] - f["time"] > self._window_s]:
            del kept[flow_id]
        while len(kept) > FLOWS_PER_PAIR:
            kept.popitem(last=False)
        if len(self._alerts) > ALERT_PAIRS_KEPT:
            self._alerts.popitem(last=False)

    def repeated(self, source: str, target: str) -> tuple[list[FlowRecord], int, int] | None:
        """(alert flows, their line, flows of the pair) where chance can't explain them."""
        kept = list(self._alerts.get((source, target), OrderedDict()).values())
        newest = max((flow["time"] for flow in kept), default=0.0)
        alerts = [flow for flow in kept if newest - flow["time"] <= self._window_s]
        k = len(alerts)
        if k < PAIR_ALERTS:
            return None
        first_slot = int((newest - self._window_s) // self._slot_s)
        slots = self._flows.get((_raw(source), _raw(target)), {})
        flows = max(k, sum(n for slot, n in slots.items() if slot >= first_slot))
        # A pair's own share would be too small a yardstick: what one device does rarely and
        # always alike may use up the false alarms of the whole network.
        everyone = sum(n for slot, n in self._all.items() if slot >= first_slot)
        mean = self._alpha * max(flows, everyone)
        if poisson_tail(k, mean) >= PAIR_CHANCE:
            return None
        line = PAIR_ALERTS
        while line < k and poisson_tail(line, mean) >= PAIR_CHANCE:
            line += 1
        return alerts, line, flows


class HostHours:
    """Flows of each host by hour of packet time, over a day."""

    def __init__(self) -> None:
        self._hours: OrderedDict[Raw, dict[int, int]] = OrderedDict()
        self._since: int | None = None

    def count(self, flows: Iterable[Counted]) -> None:
        for source, _, time_s in flows:
            hour = int(time_s // 3600)
            self._since = hour if self._since is None else min(self._since, hour)
            hours = self._hours.get(source)
            if hours is None:
                hours = self._hours[source] = {}
                if len(self._hours) > HOSTS_KEPT:
                    self._hours.popitem(last=False)
            else:
                self._hours.move_to_end(source)
            hours[hour] = hours.get(hour, 0) + 1
            if len(hours) > HISTORY_HOURS:
                for old in [h for h in hours if abs(h - hour) >= HISTORY_HOURS]:
                    del hours[old]

    def of(self, host: str, now_s: float) -> tuple[float, list[int | None]]:
        """(start of the first hour, 24 counts); None where nothing was counted yet."""
        last = int(now_s // 3600)
        first = last - HISTORY_HOURS + 1
        hours = self._hours.get(_raw(host), {})
        values = [
            hours.get(hour, 0) if self._since is not None and hour >= self._since else None
            for hour in range(first, last + 1)
        ]
        return first * 3600.0, values

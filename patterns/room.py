"""Patterns between hosts: windows over packets and ended flows, told as findings.

Most attacks are invisible in one flow; what one source does to many targets, or many sources to
one target, is not. RULES says for each pattern what is counted, and from where on it is told. The
counting is compiled (patterns/windows.py and its helpers); what passes its line comes out as
rows of evidence, at most one a second and window, and becomes a Finding here.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from addresses import address_of, address_text
from batches import (
    ARP,
    FLOW,
    ICMP,
    ICMPV6,
    PACKET,
    TCP,
    UDP,
    UNREAD_REASONS,
    Finding,
    FlowBatch,
    PacketBatch,
    Rows,
)
from patterns import attempts as window_attempts
from patterns import guesses as window_guesses
from patterns import rates as window_rates
from patterns.attempts import empty_attempts
from patterns.guesses import count_flows, empty_guesses
from patterns.rates import empty_rates
from patterns.table import (
    ARP_HOSTS,
    CONNECT_RATE,
    FLOODS,
    ICMP_HOSTS,
    NS,
    SOURCE_CELLS,
    TCP_HOSTS,
    UDP_HOSTS,
    new_seed,
)
from patterns.windows import Counters, count_packets, move_clock

__all__ = ["LOGIN_PORTS", "RULES", "Rule", "Windows", "warm"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of window counts, and from where on that is told.

    share: scans: least failed share of what was tried; floods: most that may be answered.
    window_s: seconds of packet time. line: `statistic` from which on it is told, the larger of
    `floor` (a design value: fewer would be pedantic) and 1.5 × `benign`, the largest value
    measured in 40 captures of harmless traffic and the harmless half hour of a lab network;
    `benign_in` is where that was.
    """

    subpattern: str
    pattern: str
    statistic: str
    protocol: int
    window_s: int
    share: float
    floor: float
    benign: float
    benign_in: str

    @property
    def line(self) -> float:
        return max(self.floor, 1.5 * self.benign)


# fmt: off
RULES: Final = (
    Rule("VERTICAL_SCAN", "SRC_SCAN", "failed ports of one host", TCP,
         60, 0.6, 15, 2, "Skype client"),
    Rule("HORIZONTAL_SWEEP", "SRC_SCAN", "failed hosts on one port", TCP,
         60, 0.6, 15, 4, "Gnutella client"),
    Rule("UDP_SCAN", "SRC_SCAN", "silent ports of one host", UDP,
         60, 0.6, 15, 6, "Gnutella client"),
    Rule("HORIZONTAL_SWEEP", "SRC_SCAN", "silent hosts on one port", UDP,
         60, 0.6, 15, 2, "office router"),
    Rule("STEALTH_SCAN", "SRC_SCAN", "ports that got impossible packets", TCP,
         60, 0.0, 5, 0, "none"),
    Rule("ICMP_SWEEP", "SRC_SCAN", "hosts that answer no ping", ICMP,
         60, 0.5, 15, 1, "office host"),
    Rule("ARP_SWEEP", "SRC_SCAN", "addresses nobody answers for", ARP,
         60, 0.5, 20, 4, "home router"),
    Rule("SYN_FLOOD", "BURST", "attempts/s to one endpoint", TCP,
         3, 0.2, 100, 2, "web browsing"),
    Rule("UDP_FLOOD", "BURST", "unanswered packets/s to one host", UDP,
         3, 1.0, 1000, 68, "office host"),
    Rule("ICMP_FLOOD", "BURST", "requests/s to one host", ICMP,
         3, 1.0, 100, 8.4, "home browsing"),
    # A load test makes 72 connections/s: that is a burst, and told as one.
    Rule("HTTP_BURST", "BURST", "connections/s of a source to an endpoint", TCP,
         10, 1.0, 20, 3.3, "lamp polled by its app"),
    Rule("CREDENTIAL_GUESSING", "REPEATED_PAIR", "alike connections to a login port", TCP,
         60, 0.0, 10, 2, "FTP client"),
    Rule("CREDENTIAL_GUESSING", "REPEATED_PAIR", "alike connections to a login port", TCP,
         600, 0.0, 20, 4, "FTP client"),
    Rule("CREDENTIAL_GUESSING", "REPEATED_PAIR", "alike logins that send unlike sizes", TCP,
         60, 0.0, 6, 2, "remote desktop"),
    Rule("CREDENTIAL_GUESSING", "REPEATED_PAIR", "alike connections that send unlike sizes", TCP,
         60, 0.0, 20, 10, "device that reports over TLS"),
)
# fmt: on
"""One rule a kind of window, in the order of the kinds of patterns/table.py."""

OUTSIDE: Final[Mapping[int, Rule]] = {
    TCP_HOSTS: replace(RULES[TCP_HOSTS], benign=21, benign_in="switch that lost the Internet"),
    UDP_HOSTS: replace(RULES[UDP_HOSTS], benign=50, benign_in="Gnutella client"),
}
"""Sweeps beyond this network: peers on the Internet come and go, those at home do not."""
WEB_PORTS: Final = (80, 443)
"""Where a device that lost the Internet keeps trying many hosts."""

LOGIN_PORTS: Final = (21, 22, 23, 25, 110, 143, 445, 587, 993, 995, 1433, 3306, 3389, 5432, 5900)

_OUT_ROWS: Final = 2048
_EPISODES: Final = 4096
_TOUCHED: Final = 50
"""Targets and ports of a finding, at most."""
_COUNTS_HOSTS: Final = (TCP_HOSTS, UDP_HOSTS, ICMP_HOSTS, ARP_HOSTS)


@dataclass(slots=True)
class _Episode:
    """What has been told of one key: `count` events from first_ns to last_ns."""

    first_ns: int
    last_ns: int
    count: int


class Windows:
    """All windows behind one door; used by one thread, on packet time only.

    is_local: whether an address is inside this network.
    window_seconds: evidence of one key that is further apart begins to count anew.
    seed: for the tables' hash; None draws it from the system's randomness.
    attempts, endpoints, pairs: rows kept (powers of two); about 520, 270 and 1,100 bytes each.

    >>> windows = Windows(is_local=lambda address: True)
    >>> unread = np.zeros(len(UNREAD_REASONS), np.int64)
    >>> windows.packets(PacketBatch(np.zeros(0, PACKET), unread, 0, 0))
    []
    """

    def __init__(
        self,
        *,
        is_local: Callable[[str], bool],
        window_seconds: int = 120,
        seed: int | None = None,
        attempts: int = 65_536,
        endpoints: int = 16_384,
        pairs: int = 2_048,
    ) -> None:
        self._is_local = is_local
        self._episode_ns = window_seconds * NS
        self._episodes: OrderedDict[tuple[str | int, ...], _Episode] = OrderedDict()
        lines = np.array([rule.line for rule in RULES])
        shares = np.array([rule.share for rule in RULES])
        widths = np.array([rule.window_s for rule in RULES], np.int64)
        self._counters = Counters(
            attempts=empty_attempts(attempts, lines, shares, _OUT_ROWS),
            rates=empty_rates(endpoints, lines, shares, widths, _OUT_ROWS),
            clock=np.zeros(2, np.int64),
            seed=new_seed(seed),
        )
        self._guesses = empty_guesses(pairs, lines, LOGIN_PORTS, _OUT_ROWS)

    @property
    def evicted(self) -> dict[str, int]:
        """Rows that made room for newer ones before their window was over, by table."""
        counters = self._counters
        return {
            "attempts": int(counters.attempts.registers[window_attempts.EVICTED]),
            "endpoints": int(counters.rates.registers[window_rates.EVICTED]),
            "pairs": int(self._guesses.registers[window_guesses.EVICTED]),
        }

    def packets(self, batch: PacketBatch) -> list[Finding]:
        """Feed packets in capture order; what passed its line, or grew beyond it, meanwhile."""
        count_packets(self._counters, batch.rows)
        return self._packet_findings()

    def tick(self, now_ns: int) -> list[Finding]:
        """Move packet time on without a packet: unanswered attempts fail, what grew is told."""
        move_clock(self._counters, now_ns)
        return self._packet_findings()

    def flows(self, batch: FlowBatch) -> list[Finding]:
        """Feed ended flows."""
        count_flows(self._guesses, batch.rows, self._counters.seed)
        return self._take(self._guesses.out, self._guesses.registers, window_guesses.OUT)

    def _packet_findings(self) -> list[Finding]:
        attempts, rates = self._counters.attempts, self._counters.rates
        findings = self._take(attempts.out, attempts.registers, window_attempts.OUT)
        findings += self._take(rates.out, rates.registers, window_rates.OUT)
        return findings

    def _take(self, out: Rows, registers: NDArray[np.int64], place: int) -> list[Finding]:
        count = int(registers[place])
        registers[place] = 0
        told: dict[tuple[str, str, int], Finding] = {}
        for row in out[:count]:
            finding = self._finding(row)
            if finding is None:
                continue
            key = finding.subpattern, _key_address(finding), int(row["told_ns"]) // NS
            before = told.get(key)
            told[key] = finding if before is None else _joined(before, finding)
        return list(told.values())

    def _finding(self, row: np.void) -> Finding | None:
        kind = int(row["kind"])
        rule = RULES[kind]
        version = int(row["ip_version"])
        source, target = address_of(row, "src"), address_of(row, "dst")
        targets: tuple[str, ...] = (target,)
        ports: tuple[int, ...] = (int(row["port"]),) if row["port"] > 0 else ()
        if kind < FLOODS[0]:
            targets, ports = _sampled(row, version)
            rule = self._rule_of(kind, int(row["port"]), targets)
            if row["value"] < rule.line:
                return None
            target = max(targets, key=targets.count)
            targets, ports = tuple(dict.fromkeys(targets)), tuple(dict.fromkeys(ports))
        is_flood = FLOODS[0] <= kind < CONNECT_RATE
        episode = self._episode((rule.subpattern, target if is_flood else source), row)
        if kind < FLOODS[0]:
            amounts = _scan_amounts(row, episode)
        else:
            # The busiest source of a flood changes; the flood is the same.
            who = "" if is_flood else source
            here = self._episode((rule.subpattern, who, target, int(row["port"])), row)
            amounts = _flood_amounts(row, here) if is_flood else _pair_amounts(row, here)
        protocol = ICMPV6 if rule.protocol == ICMP and version == 6 else rule.protocol
        return Finding(
            pattern=rule.pattern,
            subpattern=rule.subpattern,
            source=source,
            target=target,
            key_is="target" if is_flood else "source",
            targets=targets,
            ports=ports,
            protocol=protocol,
            count=episode.count,
            amounts=amounts,
            value=float(row["value"]),
            line=rule.line,
            spoofable=kind != CONNECT_RATE and not row["proven"],
            first_ns=episode.first_ns,
            last_ns=episode.last_ns,
        )

    def _rule_of(self, kind: int, port: int, targets: tuple[str, ...]) -> Rule:
        if kind == UDP_HOSTS or (kind == TCP_HOSTS and port in WEB_PORTS):
            inside = sum(self._is_local(address) for address in targets)
            return OUTSIDE[kind] if 2 * inside < len(targets) else RULES[kind]
        return RULES[kind]

    def _episode(self, key: tuple[str | int, ...], row: np.void) -> _Episode:
        """The key's running count with this row's share added."""
        first_ns, last_ns = int(row["first_ns"]), int(row["last_ns"])
        episode = self._episodes.pop(key, None)
        if episode is None or first_ns - episode.last_ns > self._episode_ns:
            # `events` may reach back to before the window, or miss what was not worth telling.
            count = int(row["packets"]) or max(int(row["value"]), int(row["tried"]))
            episode = _Episode(first_ns, last_ns, count)
        else:
            episode.last_ns = max(episode.last_ns, last_ns)
            episode.count += int(row["events"])
        self._episodes[key] = episode
        if len(self._episodes) > _EPISODES:
            self._episodes.popitem(last=False)
        return episode


def _scan_amounts(row: np.void, episode: _Episode) -> dict[str, Any]:
    return {
        "hosts" if row["kind"] in _COUNTS_HOSTS else "ports": int(row["tried"]),
        "failed": int(row["failed"]),
        "refused": int(row["rejected"]),
        "packets": episode.count,
        "seconds": (int(row["last_ns"]) - int(row["first_ns"])) / NS,
    }


def _flood_amounts(row: np.void, here: _Episode) -> dict[str, Any]:
    return {
        "seconds": (here.last_ns - here.first_ns) / NS,
        "packets": here.count,
        "packets_per_s": float(row["value"]),
        "sources": _distinct(row["cells"]),
    }


def _pair_amounts(row: np.void, here: _Episode) -> dict[str, Any]:
    amounts: dict[str, Any] = {
        "seconds": (here.last_ns - here.first_ns) / NS,
        "connections": here.count,
    }
    if row["kind"] == CONNECT_RATE:
        amounts["connections_per_s"] = float(row["value"])
    return amounts


def _key_address(finding: Finding) -> str:
    return finding.source if finding.key_is == "source" else finding.target


def _joined(a: Finding, b: Finding) -> Finding:
    """Two windows of one key and second as one finding: the stronger, with what both touched."""
    strong, weak = (a, b) if a.value / a.line >= b.value / b.line else (b, a)
    return replace(
        strong,
        targets=tuple(dict.fromkeys(strong.targets + weak.targets))[:_TOUCHED],
        ports=tuple(dict.fromkeys(strong.ports + weak.ports))[:_TOUCHED],
        count=max(a.count, b.count),
        spoofable=a.spoofable and b.spoofable,
        first_ns=min(a.first_ns, b.first_ns),
        last_ns=max(a.last_ns, b.last_ns),
    )


def _sampled(row: np.void, version: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The newest targets of a scan and their ports, newest first."""
    n = int(row["sample"])
    targets = tuple(
        address_text(int(high), int(low), version)
        for high, low in zip(row["sample_hi"][:n], row["sample_lo"][:n], strict=True)
    )
    return targets, tuple(int(port) for port in row["sample_port"][:n] if port)


def _distinct(cells: NDArray[np.uint8]) -> int:
    """How many distinct sources made these cells (Flajolet et al. 2007, with its small range)."""
    empty = int((cells == 0).sum())
    if empty:
        few = SOURCE_CELLS * math.log(SOURCE_CELLS / empty)
        if few <= 2.5 * SOURCE_CELLS:
            return round(few)
    return round(0.709 * SOURCE_CELLS**2 / float((2.0 ** -cells.astype(np.float64)).sum()))


def warm() -> None:
    """Compile (or load) the windows before a capture opens."""
    windows = Windows(is_local=lambda _: True, attempts=16, endpoints=16, pairs=16)
    unread = np.zeros(len(UNREAD_REASONS), np.int64)
    windows.packets(PacketBatch(np.zeros(1, PACKET), unread, 1, 0))
    windows.flows(FlowBatch(np.zeros(1, FLOW)))
    windows.tick(0)

"""What a suppression covers, and where it ends.

It names a device, a service (protocol, port, target, direction) and a subpattern, and is bounded
by what was measured on the incident it came from: a window's statistic hides up to FACTOR times
what it had reached, a flow hides where it lies among the incident's own flows. Whatever is more,
or unlike, is told. Pure; what must be looked up comes in as `Surroundings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import decision_words
import words
from alerts.record import Record
from batches import Finding, FlowRecord

__all__ = [
    "FLOW_PATTERNS",
    "SCOPES",
    "Evidence",
    "Features",
    "Suppression",
    "Surroundings",
    "by_hand",
    "covers",
    "drawn_from",
    "follows",
    "in_scope",
    "learnable",
    "of_finding",
    "of_flow",
    "of_record",
]

SCOPES: Final = ("narrow", "wide")
"""narrow: same device, pattern, target and service; wide: same device, pattern and direction."""
FLOW_PATTERNS: Final = ("ANOMALY", "REPEATED_PAIR")
"""Evidence of single flows: what is like a judged one is hidden under either name."""
LASTS_S: Final = 30 * 86_400
"""A suppression lasts this long, seconds."""
FACTOR: Final = 1.5
"""Windows of one kind differ from day to day; patterns' own lines keep the same distance from the
largest harmless value."""
TIGHT_FACTOR: Final = 1.0
"""Of a suppression that is too wide and was not confirmed: the same again, and nothing more."""
FEW: Final = 10
"""Targets that are named one by one; a narrow suppression of more is for any target."""
_SCAN_FAILED: Final = ("S0", "REJ", "RST", "UNANSWERED")

Suppression = dict[str, Any]
Features = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a scope needs to know beside the evidence; quick, and safe under the room's lock.

    is_local: whether an address is inside. hardware: the hardware address that an inside address
    has now, "" where unknown. around: what to keep of judged flows (`centres`, `radius`,
    `model`), None where that can't be told. like: of each flow, whether it is like such centres.
    """

    is_local: Callable[[str], bool]
    hardware: Callable[[str], str]
    around: Callable[[Features], dict[str, Any] | None]
    like: Callable[[Features, Features], Sequence[bool]]

    def direction(self, source: str, target: str) -> str:
        """out, in, inside or outside."""
        inside = self.is_local(source), self.is_local(target)
        return {(True, True): "inside", (True, False): "out", (False, True): "in"}.get(
            inside, "outside"
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is asked to be hidden.

    source: None where sources are many. times_line: a window's statistic over its line, None for
    flows. features: of the flows it is about, empty for windows.
    """

    subpattern: str
    source: str | None
    targets: frozenset[str]
    ports: frozenset[int]
    protocol: str
    times_line: float | None
    features: Features


def of_finding(finding: Finding) -> Evidence:
    alone = finding.key_is == "source" or finding.amounts.get("sources", 0) == 1
    return Evidence(
        finding.subpattern,
        finding.source if alone else None,
        frozenset({finding.target, *finding.targets} - {""}),
        frozenset(finding.ports),
        words.protocol_name(finding.protocol),
        finding.value / finding.line if finding.line > 0 else None,
        (),
    )


def of_flow(flow: FlowRecord, subpattern: str) -> Evidence:
    return Evidence(
        subpattern,
        flow["src_ip"],
        frozenset((flow["dst_ip"],)),
        frozenset((flow["dst_port"],)),
        flow["protocol"],
        None,
        (flow.get("features") or (),),
    )


def of_record(record: Record, flows: Iterable[FlowRecord]) -> Evidence:
    """An incident as one piece of evidence; flows: those kept of it."""
    of_flows = record["subpattern"] in FLOW_PATTERNS
    return Evidence(
        record["subpattern"],
        record["src_ip"] if record["key_is"] == "source" or _one_source(record) else None,
        frozenset(record["targets"]),
        frozenset(record["ports"]),
        record["protocol"],
        None if of_flows else _times_line(record),
        tuple(flow.get("features") or () for flow in flows) if of_flows else (),
    )


def learnable(flows: Iterable[FlowRecord]) -> tuple[FlowRecord, ...]:
    """Those whose values are known whole; records from before a restart may have lost them."""
    inf = float("inf")
    return tuple(
        flow
        for flow in flows
        if flow.get("features") and all(-inf < v < inf for v in flow["features"])
    )


def drawn_from(
    record: Record,
    scope: str,
    reason: str,
    now_s: float,
    flows: Sequence[FlowRecord],
    surroundings: Surroundings,
    *,
    tight: bool = False,
) -> Suppression:
    """The suppression that judging `record` harmless makes; without an id yet.

    flows: those kept of it. tight: no wider than what was seen.
    """
    narrow = scope == "narrow"
    by_target = record["key_is"] == "target"
    targets, ports = record["targets"], record["ports"]
    source = record["src_ip"] if not by_target or _one_source(record) or tight else None
    times_line = None if record["subpattern"] in FLOW_PATTERNS else _times_line(record)
    region = surroundings.around([flow["features"] for flow in learnable(flows)])
    suppression: Suppression = {
        **_named(
            record,
            source=source,
            target=record["dst_ip"] if by_target or (narrow and len(targets) == 1) else None,
            port=ports[0] if narrow and len(ports) == 1 else None,
            protocol=record["protocol"] if narrow else "IP",
            reason=reason,
            now_s=now_s,
        ),
        "targets": targets[:] if narrow and not by_target and 1 < len(targets) <= FEW else [],
        "hardware": surroundings.hardware(source) if source else "",
        "direction": _direction(source, targets, surroundings),
        "limit": None if times_line is None else times_line * (TIGHT_FACTOR if tight else FACTOR),
        "tight": tight,
        "radius": region["radius"] if region else None,
        "model": region["model"] if region else "",
        "centres": region["centres"] if region else [],
    }
    if record["measure"]["line"] > 0 and suppression["limit"] is not None:
        suppression["line"] = record["measure"]["line"]
        suppression["up_to"] = round(suppression["limit"] * suppression["line"], 1)
    suppression["scope"] = decision_words.suppression_scope(suppression)
    return suppression


def by_hand(
    subpattern: str,
    pattern: str,
    *,
    source: str | None,
    target: str | None,
    port: int | None,
    reason: str,
    now_s: float,
) -> Suppression:
    """One that a person wrote: without bounds, as there is no incident to measure them on."""
    about = {"pattern": pattern, "subpattern": subpattern, "id": None, "last_time": 0.0}
    suppression = _named(
        about, source=source, target=target, port=port, protocol="IP", reason=reason, now_s=now_s
    )
    suppression["scope"] = decision_words.suppression_scope(suppression)
    return suppression


def _named(
    record: Mapping[str, Any],
    *,
    source: str | None,
    target: str | None,
    port: int | None,
    protocol: str,
    reason: str,
    now_s: float,
) -> Suppression:
    return {
        "id": "",
        "time": now_s,
        "timestamp": words.local_timestamp(now_s),
        "until": now_s + LASTS_S,
        "pattern": record["pattern"],
        "subpattern": record["subpattern"],
        "source": source,
        "target": target,
        "port": port,
        "protocol": protocol,
        "reason": reason,
        "incident": record["id"],
        "hits": 0,
        # Packet time of what it hid last; the incident's own evidence counts as the first.
        "last_time": record["last_time"],
    }


def in_scope(suppression: Suppression, evidence: Evidence, surroundings: Surroundings) -> bool:
    """Whether evidence is of the suppression's pattern, device and service, however strong."""
    return _same_pattern(suppression, evidence.subpattern) and _same_service(
        suppression, evidence, surroundings
    )


def covers(suppression: Suppression, evidence: Evidence, surroundings: Surroundings) -> bool:
    """Whether evidence lies wholly within the suppression."""
    if not in_scope(suppression, evidence, surroundings):
        return False
    limit, centres = suppression.get("limit"), suppression.get("centres")
    if limit is not None:
        # Both are quotients of floats: the same window again must not fall beyond itself. A flow
        # alone says nothing about a window; it may follow a hidden one.
        times_line = evidence.times_line
        return times_line is not None and times_line <= limit * (1 + 1e-9)
    if centres and evidence.times_line is None:
        return _all_like(centres, evidence.features, surroundings)
    return True


def follows(suppression: Suppression, flow: FlowRecord, surroundings: Surroundings) -> bool:
    """Whether a flow is one of those that a hidden window counted, or lies among them."""
    evidence = of_flow(flow, suppression["subpattern"])
    if not _same_service(suppression, evidence, surroundings):
        return False
    if suppression["pattern"] == "SRC_SCAN" and flow["connection_state"] in _SCAN_FAILED:
        return True
    centres = suppression.get("centres")
    if centres:
        return _all_like(centres, evidence.features, surroundings)
    return not flow["extreme"]


def _all_like(centres: Features, features: Features, surroundings: Surroundings) -> bool:
    """False where nothing is known of either."""
    return bool(centres and features) and all(surroundings.like(centres, features))


def _same_pattern(suppression: Suppression, subpattern: str) -> bool:
    if suppression["subpattern"] == subpattern:
        return True
    bounded = bool(suppression.get("centres"))
    return bounded and {suppression["subpattern"], subpattern} <= set(FLOW_PATTERNS)


def _same_service(suppression: Suppression, evidence: Evidence, surroundings: Surroundings) -> bool:
    source, target, port = (suppression[name] for name in ("source", "target", "port"))
    if source is not None and not _same_device(suppression, evidence.source, surroundings):
        return False
    if target is not None and evidence.targets != {target}:
        return False
    few = suppression.get("targets")
    if few and not evidence.targets <= set(few):
        return False
    if port is not None and evidence.ports != {port}:
        return False
    if suppression["protocol"] not in ("IP", evidence.protocol):
        return False
    direction = suppression.get("direction")
    return not direction or direction == _direction(evidence.source, evidence.targets, surroundings)


def _same_device(suppression: Suppression, source: str | None, surroundings: Surroundings) -> bool:
    """By hardware address where both are known: a device keeps its suppression under another
    address, and another device does not get it with the address."""
    if source is None:
        return False
    known = suppression.get("hardware")
    now = surroundings.hardware(source) if known else ""
    named: str = suppression["source"]
    return now == known if known and now else source == named


def _direction(
    source: str | None, targets: Iterable[str], surroundings: Surroundings
) -> str | None:
    """None where there is no one direction."""
    if source is None:
        return None
    found = {surroundings.direction(source, target) for target in targets}
    return found.pop() if len(found) == 1 else None


def _one_source(record: Record) -> bool:
    return len(record["sources"]) == 1 and record["amounts"].get("sources", 0) == 1


def _times_line(record: Record) -> float | None:
    measure = record["measure"]
    return measure["value"] / measure["line"] if measure["line"] > 0 else None

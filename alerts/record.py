"""One incident as a record, and how evidence changes it; plain functions without state or IO.

A record is what GET /alerts_data shows and alerts_store.json keeps (docs/detection.md,
"Incidents"), without `seq`, which counts changes and belongs to the ledger. Functions named
`add_*` change the record they are given: call them on a `private` copy, published records are
never changed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import waf_rules
import words
from batches import MODELS, SEVERITIES, Finding, FlowRecord

__all__ = [
    "CLOSED",
    "FALSE_POSITIVE",
    "KEPT",
    "OPEN",
    "PATTERNS",
    "Key",
    "Record",
    "Tally",
    "add_finding",
    "add_flow",
    "base_rank",
    "dress",
    "is_odder",
    "key_of",
    "key_of_finding",
    "merged",
    "odds",
    "opened",
    "private",
    "raise_severity",
    "rate_at",
    "remember",
    "severity_rank",
]

Record = dict[str, Any]
Key = tuple[str, str, str]
"""(key_is, address, subpattern): what one OPEN incident exists for at most once."""

OPEN: Final = "OPEN"
CLOSED: Final = "CLOSED"
FALSE_POSITIVE: Final = "FALSE_POSITIVE"

KEPT: Final = 50
"""Sources, targets, ports and flows an incident names at most."""
RATE_MINUTES: Final = 60
STEP_UP_RATIO: Final = 3.0
"""At three times the line the severity rises one step."""
_TALLIED_SOURCES: Final = 256

PATTERNS: Final[Mapping[str, str]] = {
    "VERTICAL_SCAN": "SRC_SCAN",
    "HORIZONTAL_SWEEP": "SRC_SCAN",
    "UDP_SCAN": "SRC_SCAN",
    "STEALTH_SCAN": "SRC_SCAN",
    "ICMP_SWEEP": "SRC_SCAN",
    "ARP_SWEEP": "SRC_SCAN",
    "LATERAL_ADMIN": "SRC_SCAN",
    "SYN_FLOOD": "BURST",
    "UDP_FLOOD": "BURST",
    "ICMP_FLOOD": "BURST",
    "AMPLIFICATION": "BURST",
    "HTTP_BURST": "BURST",
    "DDOS_MANY_SOURCES": "DISTRIBUTED",
    "SLOW_CONNECTIONS": "SLOW_CONNECTIONS",
    "CREDENTIAL_GUESSING": "REPEATED_PAIR",
    "PASSWORD_SPRAY": "REPEATED_PAIR",
    "REPEATED_PAIR": "REPEATED_PAIR",
    "DNS_TUNNEL": "TUNNEL",
    "DNS_RANDOM": "TUNNEL",
    "ICMP_TUNNEL": "TUNNEL",
    "EXFILTRATION": "EXFILTRATION",
    "BEACON": "BEACON",
    "NEW_SERVICE": "NEW_SERVICE",
    "NEW_PROTOCOL": "NEW_SERVICE",
    "NEW_DEVICE": "NEW_SERVICE",
    "ARP_CONFLICT": "NEW_SERVICE",
    "ANOMALY": "ANOMALY",
}
"""Subpattern -> family. Those nobody raises yet (docs/detection.md names them) are words that
suppressions and titles know already."""

_TECHNIQUES: Final[Mapping[str, str]] = {
    "VERTICAL_SCAN": "T1046",
    "HORIZONTAL_SWEEP": "T1046",
    "UDP_SCAN": "T1046",
    "STEALTH_SCAN": "T1046",
    "ICMP_SWEEP": "T1018",
    "ARP_SWEEP": "T1018",
    "LATERAL_ADMIN": "T1021",
    "SYN_FLOOD": "T1499.001",
    "UDP_FLOOD": "T1498.001",
    "ICMP_FLOOD": "T1498.001",
    "AMPLIFICATION": "T1498.002",
    "HTTP_BURST": "T1499.002",
    "DDOS_MANY_SOURCES": "T1498",
    "SLOW_CONNECTIONS": "T1499.002",
    "CREDENTIAL_GUESSING": "T1110.001",
    "PASSWORD_SPRAY": "T1110.003",
    "DNS_TUNNEL": "T1071.004",
    "DNS_RANDOM": "T1568.002",
    "ICMP_TUNNEL": "T1095",
    "EXFILTRATION": "T1048",
    "BEACON": "T1071",
    "NEW_DEVICE": "T1200",
    "ARP_CONFLICT": "T1557.002",
}
"""MITRE ATT&CK (enterprise) ids the patterns are consistent with."""


@dataclass(slots=True)
class Tally:
    """What a growing incident remembers beside its record; rebuilt from the record at a start.

    sources: how much evidence each source gave (bounded); window: (first_ns, last_ns, count) of
    the last finding, so that windows that overlap are not counted twice.
    """

    sources: Counter[str] = field(default_factory=Counter)
    window: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Tally:
        return cls(Counter({record["src_ip"]: int(record["count"])}))


def severity_rank(severity: str) -> int:
    return SEVERITIES.index(severity)


def key_of(record: Mapping[str, Any]) -> Key:
    if record["key_is"] == "summary":
        return "summary", "", record["subpattern"]
    side = "dst_ip" if record["key_is"] == "target" else "src_ip"
    return record["key_is"], record[side], record["subpattern"]


def key_of_finding(finding: Finding) -> Key:
    if finding.key_is == "target":
        return "target", finding.target, finding.subpattern
    return "source", finding.source, finding.subpattern


def opened(
    incident_id: str,
    rule_id: str,
    *,
    key_is: str,
    pattern: str,
    subpattern: str,
    src_ip: str,
    dst_ip: str,
    protocol: str,
    time_s: float,
) -> Record:
    """A new OPEN record without evidence; `time_s` is its first evidence's packet time."""
    return {
        "id": incident_id,
        "timestamp": words.local_timestamp(time_s),
        "time": time_s,
        "src_ip": src_ip,
        "dst_ip": dst_ip,
        "severity": "LOW",
        "scores": dict.fromkeys(MODELS),
        "final_decision": "ALERT",
        "status": OPEN,
        "explainability": {"top_deviations": []},
        "rule_recommendation": {},
        "pattern": pattern,
        "subpattern": subpattern,
        "title": "",
        "why": "",
        "short": "",
        "verdict": None,
        "models": [],
        "first_time": time_s,
        "last_time": time_s,
        "count": 0,
        "sources": [],
        "targets": [],
        "ports": [],
        "protocol": protocol,
        "technique": _TECHNIQUES.get(subpattern),
        "flows": [],
        "worst_flow": None,
        "rate": [0] * RATE_MINUTES,
        "rate_minute": int(time_s // 60),
        "rule_id": rule_id,
        "names": {"src": None, "dst": None},
        "notes": [],
        "undo": None,
        "spoofable": True,
        "closed_time": None,
        "learned": None,
        "key_is": key_is,
        "kinds": [],
        "measure": {"value": 0.0, "line": 0.0},
        "amounts": {},
        "deviations": [],
        "rarity": {},
    }


def private(record: Record) -> Record:
    """A copy whose lists and dicts may be changed (one level, as deep as `add_*` go)."""
    return {
        key: value.copy() if isinstance(value, list | dict) else value
        for key, value in record.items()
    }


# --- evidence -----------------------------------------------------------------------------------


def add_finding(record: Record, finding: Finding, tally: Tally) -> None:
    """Let a window finding join: counts, addresses, the strongest measure, the severity."""
    same_window = tally.window is not None and tally.window[0] == finding.first_ns
    added = _new_events(finding, tally)
    last_s = finding.last_ns / 1e9
    record["count"] += added
    record["last_time"] = max(record["last_time"], last_s)
    _add_rate(record, last_s, added)
    tally.sources[finding.source] += added
    if len(tally.sources) > _TALLIED_SOURCES:
        tally.sources = Counter(dict(tally.sources.most_common(_TALLIED_SOURCES // 2)))
    remember(record["sources"], finding.source)
    if record["key_is"] == "target":
        record["src_ip"] = tally.sources.most_common(1)[0][0]
    for target in (finding.target, *finding.targets):
        remember(record["targets"], target)
    for port in finding.ports:
        remember(record["ports"], port)
    if not finding.spoofable:
        record["spoofable"] = False
    _add_kind(record, "window")
    measure = {"value": float(finding.value), "line": float(finding.line)}
    amounts = {"seconds": (finding.last_ns - finding.first_ns) / 1e9, **finding.amounts}
    if same_window:
        # The same window, looked at again: it holds what it held, and more.
        for name in record["amounts"].keys() & amounts.keys() & _GROWING:
            amounts[name] = max(amounts[name], record["amounts"][name])
    if same_window or _ratio(measure) >= _ratio(record["measure"]):
        record["amounts"] = amounts
    if _ratio(measure) >= _ratio(record["measure"]):
        record["measure"] = measure
    raise_severity(record, base_rank(record["subpattern"]))


_GROWING: Final = frozenset(
    {"seconds", "ports", "hosts", "failed", "refused", "packets", "connections", "sources"}
    | {"bytes", "queries", "contacts", "packets_per_s", "connections_per_s"}
)
"""Amounts that only grow while a window is looked at."""


def _new_events(finding: Finding, tally: Tally) -> int:
    """How many of the finding's events the incident has not counted yet."""
    before, tally.window = tally.window, (finding.first_ns, finding.last_ns, finding.count)
    if before is None or finding.first_ns > before[1]:
        return finding.count
    if finding.first_ns <= before[0]:
        return max(0, finding.count - before[2])
    # A sliding window: only the part behind the last one's end is new.
    span = finding.last_ns - finding.first_ns
    fresh = max(0, finding.last_ns - before[1])
    return round(finding.count * fresh / span) if span else 0


def add_flow(record: Record, flow: FlowRecord, *, first_seen: bool, carries: bool) -> None:
    """Let an ALERT flow join as evidence.

    first_seen: False for a provisional row that is only updated. carries: the flow is what the
    incident is about; one that merely comes from the same source at the time does not keep the
    incident going, or the models' false-alarm rate would keep each one going for ever.
    """
    if first_seen:
        record["flows"] = [*record["flows"][-KEPT + 1 :], flow["id"]]
        if "window" not in record["kinds"]:
            record["count"] += 1
            _add_rate(record, flow["time"], 1)
    if carries:
        record["last_time"] = max(record["last_time"], flow["time"])
    remember(record["sources"], flow["src_ip"])
    if record["key_is"] == "source":
        remember(record["targets"], flow["dst_ip"])
    if "window" not in record["kinds"] and flow["dst_port"]:
        remember(record["ports"], flow["dst_port"])
    for side, address in (("src", "src_ip"), ("dst", "dst_ip")):
        if flow["names"].get(side) and flow[address] == record[address]:  # type: ignore[literal-required]
            record["names"][side] = flow["names"][side]
    if flow["connection_state"] in _HANDSHAKES and flow["src_ip"] == record["src_ip"]:
        record["spoofable"] = False
    if flow["extreme"] or "window" not in record["kinds"]:
        _add_kind(record, "flow")
    raise_severity(record, base_rank(record["subpattern"], flow))


_HANDSHAKES: Final = ("SF", "RST", "EST")
"""Connection states (docs/features.md) in which the source showed a return path."""


def odds(flow: Mapping[str, Any]) -> float:
    """The lowest score a model gave a flow, log10(p); inf where none did."""
    given = [flow["scores"].get(name) for name in MODELS]
    scores = [score for score in given if score is not None and math.isfinite(score)]
    return min(scores, default=math.inf)


def is_odder(flow: Mapping[str, Any], worst: Mapping[str, Any] | None) -> bool:
    return worst is None or odds(flow) < odds(worst) or flow["id"] == worst["id"]


def base_rank(subpattern: str, flow: FlowRecord | None = None) -> int:
    """The rank a pattern begins with; ANOMALY has that of its flow."""
    if subpattern == "ANOMALY":
        return severity_rank(flow["severity"]) if flow else 0
    if subpattern.startswith("NEW_"):
        return 0
    return 1 if subpattern in ("BEACON", "REPEATED_PAIR") else 2


def raise_severity(record: Record, base: int) -> None:
    """One step above `base` for strong or double evidence; an OPEN incident never falls."""
    strong = _ratio(record["measure"]) >= STEP_UP_RATIO or len(record["kinds"]) > 1
    # ANOMALY's base is a flow's own severity, in which its oddness is counted already.
    step = 1 if strong and record["subpattern"] != "ANOMALY" else 0
    rank = max(severity_rank(record["severity"]), min(base + step, len(SEVERITIES) - 1))
    record["severity"] = SEVERITIES[rank]


def _ratio(measure: Mapping[str, float]) -> float:
    """How many times its line a window statistic reached; 0 without a line."""
    return measure["value"] / measure["line"] if measure["line"] > 0 else 0.0


def _add_kind(record: Record, kind: str) -> None:
    if kind not in record["kinds"]:
        record["kinds"] = sorted([*record["kinds"], kind])


def remember(kept: list[Any], value: Any) -> None:
    """First come, first kept: an incident's first target stays its first."""
    if len(kept) < KEPT and value not in kept and value not in ("", None):
        kept.append(value)


def merged(older: Record, newer: Record) -> Record:
    """`older` with the evidence of `newer`, an incident of the same key that opened since."""
    record = private(older)
    record["count"] += newer["count"]
    record["last_time"] = max(older["last_time"], newer["last_time"])
    record["rate_minute"] = max(older["rate_minute"], newer["rate_minute"])
    end_s = record["rate_minute"] * 60.0
    pairs = zip(rate_at(older, end_s), rate_at(newer, end_s), strict=True)
    record["rate"] = [a + b for a, b in pairs]
    for name in ("sources", "targets", "ports"):
        for value in newer[name]:
            remember(record[name], value)
    record["flows"] = [*older["flows"], *newer["flows"]][-KEPT:]
    record["notes"] = [*older["notes"], *newer["notes"]]
    record["kinds"] = sorted({*older["kinds"], *newer["kinds"]})
    record["spoofable"] = older["spoofable"] and newer["spoofable"]
    record["severity"] = max(older["severity"], newer["severity"], key=severity_rank)
    if _ratio(newer["measure"]) > _ratio(older["measure"]):
        for name in ("measure", "amounts"):
            record[name] = newer[name]
    return record


# --- counts per minute --------------------------------------------------------------------------


def _add_rate(record: Record, time_s: float, n: int) -> None:
    """Count `n` events in the minute of `time_s`; the ring ends at the newest minute seen."""
    minute = int(time_s // 60)
    record["rate"] = rate_at(record, time_s)
    record["rate_minute"] = max(record["rate_minute"], minute)
    place = RATE_MINUTES - 1 - (record["rate_minute"] - minute)
    if place >= 0:
        record["rate"][place] += n


def rate_at(record: Mapping[str, Any], now_s: float) -> list[int]:
    """The counts of the last 60 minutes, the last one being the minute of `now_s`."""
    passed = int(now_s // 60) - record["rate_minute"]
    if passed <= 0:
        return list(record["rate"])
    return [*record["rate"][min(passed, RATE_MINUTES) :], *[0] * min(passed, RATE_MINUTES)]


# --- words and rule -----------------------------------------------------------------------------


def dress(
    record: Record,
    worst: FlowRecord | None,
    *,
    whitelisted: bool,
    is_local: Callable[[str], bool],
) -> None:
    """Set what follows from the rest: sentences, explanation, recommendation."""
    if worst is not None:
        record["worst_flow"] = worst["id"]
        record["scores"] = {name: worst["scores"].get(name) for name in MODELS}
        record["deviations"] = list(worst["deviations"])[:5]
        record["rarity"] = dict(worst["rarity"])
        if "window" not in record["kinds"]:
            _measure_flow(record, worst)
    if worst is not None or record["worst_flow"] is None:
        record["explainability"] = {"top_deviations": words.top_deviations(record, worst)}
    record["title"] = words.title(record)
    record["why"] = words.why(record)
    record["short"] = words.short(record)
    record["rule_recommendation"] = waf_rules.recommend(
        record, whitelisted=whitelisted, is_local=is_local
    )


def _measure_flow(record: Record, worst: FlowRecord) -> None:
    """What the sentence of an incident without a window says: the oddest flow's own amounts."""
    if record["subpattern"] == "REPEATED_PAIR":
        seconds = record["last_time"] - record["first_time"]
        record["amounts"] = {"alerts": record["count"], "seconds": seconds}
        return
    record["amounts"] = {"packets": worst["packets"], "seconds": worst["duration_s"]}
    if worst["bytes"]:
        record["amounts"]["bytes"] = worst["bytes"]

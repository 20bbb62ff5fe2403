"""Evidence finds its incident: findings and ALERT flows open one, join one, or stay in the log.

What opens an incident: a window finding; a flow that is extreme alone; more alert flows on one
pair than the models' false-alarm rate explains (REPEATED_PAIR). Any other ALERT flow joins an
open incident of its source if there is one within the window. Not locked: the incident room
calls it under its own lock, one batch at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import words
from alerts.ledger import Ledger
from alerts.pairs import PairWindows
from alerts.record import (
    CLOSED,
    FALSE_POSITIVE,
    KEPT,
    OPEN,
    Key,
    Record,
    Tally,
    add_finding,
    add_flow,
    base_rank,
    dress,
    is_odder,
    key_of,
    key_of_finding,
    opened,
    private,
    raise_severity,
    remember,
    severity_rank,
)
from alerts.suppressions import Suppressions
from alerts.whitelist import Whitelist
from batches import SEVERITIES, Finding, FlowRecord

__all__ = ["Gatherer"]

OPENINGS_PER_SECOND: Final = 100
"""Incidents opened in one second at most; what comes beyond is folded into the summary. A person
reads none of them, and dressing one costs about 100 us."""
FLOWS_REMEMBERED: Final = 50_000
"""Flow ids whose fate is remembered, so that a provisional row counts once."""
FOLDED_REMEMBERED: Final = 10_000
HIDDEN: Final = ""
"""The fate of a flow that a suppression hides; None is that of one nothing came of."""


class Gatherer:
    """Applies evidence to the ledger.

    hidden_by_whitelist: findings and flows of trusted addresses that raised nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        pairs: PairWindows,
        suppressions: Suppressions,
        whitelist: Whitelist,
        *,
        window_s: float,
        is_local: Callable[[str], bool],
        now: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._pairs = pairs
        self._suppressions = suppressions
        self._whitelist = whitelist
        self._window_s = window_s
        self._is_local = is_local
        self._now = now
        self.hidden_by_whitelist = 0
        self._drafts: dict[str, Record] = {}
        self._worst: dict[str, FlowRecord] = {}
        self._fates: OrderedDict[str, str | None] = OrderedDict()
        self._joined_later: dict[str, str] = {}
        self._folded: OrderedDict[Key, None] = OrderedDict()
        self._second = -1
        self._opened_in_second = 0

    # --- a batch

    def findings(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._finding(finding)
        self._publish()

    def flows(
        self, flows: Sequence[FlowRecord]
    ) -> tuple[list[tuple[str, FlowRecord]], dict[str, str]]:
        """Returns (incidents with a new oddest flow, earlier flows that joined only now)."""
        self._joined_later = {}
        for flow in flows:
            if flow["final_decision"] == "ALERT":
                self._flow(flow)
            else:
                self._attach(flow)
        worst = [item for item in self._worst.items() if item[0] in self._drafts]
        self._publish()
        return [w for w in worst if w[0] in self._ledger.records], self._joined_later

    def redress(self, incident_ids: Iterable[str]) -> None:
        """Work out words and recommendations again; what comes out the same stays untouched."""
        for incident_id in incident_ids:
            draft = private(self._ledger.records[incident_id])
            self._dress(draft)
            if draft != self._ledger.records[incident_id]:
                self._ledger.publish(draft)

    def _draft(self, incident_id: str) -> Record:
        draft = self._drafts.get(incident_id)
        if draft is None:
            draft = self._drafts[incident_id] = private(self._ledger.records[incident_id])
        return draft

    def _publish(self) -> None:
        self._dress_drafts()
        self._make_room()

    def _dress_drafts(self) -> None:
        for draft in self._drafts.values():
            self._dress(draft)
            self._ledger.publish(draft)
        self._drafts.clear()
        self._worst.clear()

    def _dress(self, draft: Record) -> None:
        dress(
            draft,
            self._worst.get(draft["id"]) or self._ledger.worst(draft),
            whitelisted=self.is_trusted(draft),
            is_local=self._is_local,
        )

    def is_trusted(self, record: Record) -> bool:
        """Whether a rule would hit a trusted address: the source, or the far end of a pair."""
        return self._whitelist.trusts(record["src_ip"]) or (
            record["subpattern"] in ("EXFILTRATION", "BEACON")
            and self._whitelist.trusts(record["dst_ip"])
        )

    # --- findings

    def _finding(self, finding: Finding) -> None:
        if finding.key_is == "source" and self._is_excused(finding):
            self.hidden_by_whitelist += 1
            return
        hidden = self._suppressions.of_finding(finding)
        if hidden:
            self._suppressions.hit(hidden, finding.last_ns / 1e9)
            return
        key = key_of_finding(finding)
        draft = self._open_or_draft(
            key,
            pattern=finding.pattern,
            source=finding.source,
            target=finding.target,
            protocol=words.protocol_name(finding.protocol),
            time_s=finding.first_ns / 1e9,
            rank=base_rank(finding.subpattern),
        )
        if draft is not None:
            tally = self._ledger.tallies.get(draft["id"])
            if tally is None:
                tally = self._ledger.tallies[draft["id"]] = Tally.of(draft)
            add_finding(draft, finding, tally)

    def _is_excused(self, finding: Finding) -> bool:
        """A trusted source raises no scan and no anomaly; what else it does is still told."""
        excused = finding.pattern in ("SRC_SCAN", "ANOMALY")
        return (excused or finding.subpattern == "REPEATED_PAIR") and self._whitelist.trusts(
            finding.source
        )

    # --- flows

    def _flow(self, flow: FlowRecord) -> None:
        flow_id = flow["id"]
        # A hidden flow that goes on is asked about again: it may have left what hid it.
        if self._fates.get(flow_id, HIDDEN) != HIDDEN:
            owner_id = self._fates[flow_id]
            flow["incident"] = owner_id
            owner = self._ledger.records.get(owner_id or "")
            if owner is not None and owner["status"] == OPEN:
                self._join(owner["id"], flow, first_seen=False)
            return
        if self._whitelist.trusts(flow["src_ip"]):
            self.hidden_by_whitelist += 1
            self._settle(flow_id, None)
            return
        if hidden := self._suppressions.alike(flow):
            self._hide(hidden, flow)
            return
        owner = self._owner(flow)
        named = owner is not None and owner["subpattern"] != "ANOMALY"
        if not named and (hidden := self._suppressions.followed_by(flow, self._window_s)):
            # The flows of one hidden scan would make a repeated pair of themselves.
            self._hide(hidden, flow)
            return
        self._pairs.add_alert(flow)
        if owner is not None and named:
            self._join_if_told(owner, flow)
        elif repeated := self._pairs.repeated(flow["src_ip"], flow["dst_ip"]):
            self._repeated(flow, *repeated)
        elif owner is not None:
            self._join_if_told(owner, flow)
        elif flow["extreme"] and (hidden := self._suppressions.of_flow(flow, "ANOMALY")):
            self._hide(hidden, flow)
        elif flow["extreme"]:
            self._open_for(flow, "ANOMALY")

    def _attach(self, flow: FlowRecord) -> None:
        """A flow no model objects to still shows what a window counted; the first ones do."""
        owner = self._owner(flow)
        if owner is None or "window" not in owner["kinds"] or not _shows(owner, flow):
            return
        if len(owner["flows"]) < KEPT and flow["id"] not in owner["flows"]:
            draft = self._draft(owner["id"])
            flow["incident"] = owner["id"]
            add_flow(draft, flow, first_seen=True, carries=False)
            self._ledger.keep_flow(owner["id"], {**flow}, self._ledger.worst(draft))

    def _owner(self, flow: FlowRecord) -> Record | None:
        """The open incident this flow belongs to, the best fitting one of its source."""
        found: list[tuple[bool, bool, float, str, Record]] = []
        for address, side in ((flow["src_ip"], "source"), (flow["dst_ip"], "target")):
            for record in self._ledger.open_at(address):
                record = self._drafts.get(record["id"], record)
                begun = record["first_time"] - self._window_s <= flow["time"]
                if record["key_is"] != side or not begun:
                    continue
                if flow["time"] > record["last_time"] + self._window_s:
                    continue
                covers = self._covers(record, flow)
                if covers or not flow["extreme"]:
                    windowed = "window" in record["kinds"]
                    found.append((covers, windowed, record["last_time"], record["id"], record))
        return max(found, key=lambda one: one[:4])[4] if found else None

    @staticmethod
    def _covers(record: Record, flow: FlowRecord) -> bool:
        if record["key_is"] == "target":
            return True
        targets = record["targets"]
        return flow["dst_ip"] in targets or len(targets) >= KEPT

    def _join_if_told(self, owner: Record, flow: FlowRecord) -> None:
        hidden = self._suppressions.of_flow(flow, owner["subpattern"])
        if hidden:
            self._hide(hidden, flow)
            return
        self._join(owner["id"], flow, first_seen=True)
        if owner["subpattern"] == "REPEATED_PAIR":
            repeated = self._pairs.repeated(flow["src_ip"], flow["dst_ip"])
            if repeated:
                self._measure_pair(self._draft(owner["id"]), *repeated)

    def _repeated(self, flow: FlowRecord, alerts: list[FlowRecord], line: int, flows: int) -> None:
        hidden = self._suppressions.of_flow(flow, "REPEATED_PAIR")
        if hidden:
            self._hide(hidden, flow)
            return
        draft = self._open_for(flow, "REPEATED_PAIR", time_s=min(f["time"] for f in alerts))
        if draft is None:
            return
        for earlier in alerts:
            if self._fates.get(earlier["id"]) is None and earlier["id"] != flow["id"]:
                self._joined_later[earlier["id"]] = draft["id"]
                self._join(draft["id"], earlier, first_seen=True)
        self._measure_pair(draft, alerts, line, flows)

    @staticmethod
    def _measure_pair(draft: Record, alerts: list[FlowRecord], line: int, flows: int) -> None:
        value = float(len(alerts))
        if value / line >= draft["measure"]["value"] / (draft["measure"]["line"] or 1.0):
            draft["measure"] = {"value": value, "line": float(line), "flows": flows}
            raise_severity(draft, base_rank("REPEATED_PAIR"))

    def _open_for(
        self, flow: FlowRecord, subpattern: str, time_s: float | None = None
    ) -> Record | None:
        draft = self._open_or_draft(
            ("source", flow["src_ip"], subpattern),
            pattern=subpattern,
            source=flow["src_ip"],
            target=flow["dst_ip"],
            protocol=flow["protocol"],
            time_s=flow["time"] if time_s is None else time_s,
            rank=base_rank(subpattern, flow),
        )
        if draft is None:
            self._settle(flow["id"], None)
        else:
            self._join(draft["id"], flow, first_seen=True)
        return draft

    def _join(self, incident_id: str, flow: FlowRecord, *, first_seen: bool) -> None:
        draft = self._draft(incident_id)
        flow["incident"] = incident_id
        self._settle(flow["id"], incident_id)
        carries = flow["extreme"] or (
            draft["subpattern"] == "REPEATED_PAIR" and self._covers(draft, flow)
        )
        add_flow(draft, flow, first_seen=first_seen, carries=carries)
        kept: FlowRecord = {**flow}
        worst = self._worst.get(incident_id) or self._ledger.worst(draft)
        self._ledger.keep_flow(incident_id, kept, worst)
        if is_odder(kept, worst):
            self._worst[incident_id] = kept

    def _hide(self, suppression_id: str, flow: FlowRecord) -> None:
        if self._fates.get(flow["id"]) != HIDDEN:
            self._suppressions.hit(suppression_id, flow["time"])
        self._settle(flow["id"], HIDDEN)

    def _settle(self, flow_id: str, incident_id: str | None) -> None:
        self._fates[flow_id] = incident_id
        if len(self._fates) > FLOWS_REMEMBERED:
            self._fates.popitem(last=False)

    # --- room

    def _open_or_draft(
        self,
        key: Key,
        *,
        pattern: str,
        source: str,
        target: str,
        protocol: str,
        time_s: float,
        rank: int,
    ) -> Record | None:
        """The draft of the key's OPEN incident, opened if there is none; None: it was folded."""
        incident_id = self._ledger.open_id(key)
        if incident_id is not None:
            return self._draft(incident_id)
        if not self._may_open():
            self._fold(key, source, target, rank, time_s)
            return None
        incident_id, rule_id = self._ledger.new_ids(time_s)
        record = opened(
            incident_id,
            rule_id,
            key_is=key[0],
            pattern=pattern,
            subpattern=key[2],
            src_ip=source,
            dst_ip=target,
            protocol=protocol,
            time_s=time_s,
        )
        self._ledger.publish(record)
        return self._draft(incident_id)

    def _may_open(self) -> bool:
        second = int(self._now())
        if second != self._second:
            self._second, self._opened_in_second = second, 0
        self._opened_in_second += 1
        return self._opened_in_second <= OPENINGS_PER_SECOND

    def _make_room(self) -> None:
        """At MAX_ALERTS closed ones go first, then the least severe fold into the summary."""
        ledger = self._ledger
        excess = len(ledger.records) - ledger.max_alerts
        if excess <= 0:
            return
        closed = [r for r in ledger.records.values() if r["status"] in (CLOSED, FALSE_POSITIVE)]
        closed.sort(key=lambda r: (r["verdict"] == "real", r["last_time"], r["id"]))
        for record in closed[:excess]:
            ledger.drop(record["id"], folded=False)
        excess -= len(closed)
        if excess <= 0:
            return
        small = [r for r in ledger.records.values() if r["key_is"] != "summary"]
        small.sort(key=lambda r: (severity_rank(r["severity"]), r["last_time"], r["id"]))
        has_summary = len(small) < len(ledger.records)
        for record in small[: excess + (0 if has_summary else 1)]:
            rank = severity_rank(record["severity"])
            note = f"{record['severity'].capitalize()}: {record['title']}, {record['timestamp']}"
            source, target = record["src_ip"], record["dst_ip"]
            self._fold(key_of(record), source, target, rank, record["last_time"], note=note)
            ledger.drop(record["id"], folded=True)
        self._dress_drafts()

    def _fold(
        self, key: Key, source: str, target: str, rank: int, time_s: float, note: str = ""
    ) -> None:
        """Count what there is no room for in the one summary incident; it never just vanishes."""
        summary_key = ("summary", "", "SUMMARY")
        summary_id = self._ledger.open_id(summary_key)
        if summary_id is None:
            summary_id, rule_id = self._ledger.new_ids(time_s)
            self._ledger.publish(
                opened(
                    summary_id,
                    rule_id,
                    key_is="summary",
                    pattern="ANOMALY",
                    subpattern="SUMMARY",
                    src_ip=source,
                    dst_ip=target,
                    protocol="IP",
                    time_s=time_s,
                )
            )
        draft = self._draft(summary_id)
        if key not in self._folded:
            self._folded[key] = None
            draft["count"] += 1
            if len(self._folded) > FOLDED_REMEMBERED:
                self._folded.popitem(last=False)
        remember(draft["sources"], source)
        remember(draft["targets"], target)
        draft["amounts"] = {"folded": draft["count"]}
        draft["last_time"] = max(draft["last_time"], time_s)
        rank = max(rank, severity_rank(draft["severity"]))
        draft["severity"] = SEVERITIES[rank]
        if note:
            now_s = self._now()
            draft["notes"] = [
                *draft["notes"][-KEPT + 1 :],
                {
                    "id": f"folded-{draft['count']}",
                    "time": now_s,
                    "timestamp": words.local_timestamp(now_s),
                    "text": note,
                },
            ]


_FAILED: Final = ("S0", "REJ", "RST", "UNANSWERED")


def _shows(incident: Record, flow: FlowRecord) -> bool:
    """Whether an ordinary flow is one of those that the incident's window counted."""
    if flow["protocol"] != incident["protocol"]:
        return False
    if incident["pattern"] == "SRC_SCAN":
        return flow["connection_state"] in _FAILED
    return flow["dst_port"] in incident["ports"] or not incident["ports"]

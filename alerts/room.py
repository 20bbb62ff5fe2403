"""The incident room: verdicts and window findings become a few explained incidents with a life.

`Incidents` is the door. The analysis thread adds findings and flows and ticks; web threads read
and act. Its one lock is held for memory alone: what goes to disk leaves through the ledger's
outbox, and the other rooms' callbacks are called without it. An admin's action is on disk before
it is answered, and the same request again gets the same answer.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import words
from alerts.actions import Actions
from alerts.desk import Desk
from alerts.feedback import FEEDBACK, FLOWS_KEPT, NAME, Feedback
from alerts.gather import Gatherer
from alerts.hardware import Hardware
from alerts.ledger import Ledger, Outbox
from alerts.pairs import HISTORY_HOURS, FirstSeen, HostHours, PairWindows
from alerts.record import CLOSED, FALSE_POSITIVE, OPEN, Record, rate_at, severity_rank
from alerts.scope import Features, Suppression, Surroundings
from alerts.standing import Standing
from alerts.suppressions import SUPPRESSION, Suppressions, shown
from alerts.undo import ENTRY, UndoBook
from alerts.whitelist import Whitelist, checked
from batches import SEVERITIES, Finding, FlowBatch, FlowRecord, without_features
from store import Store

__all__ = ["Incidents"]

STATUSES: Final = (OPEN, FALSE_POSITIVE, CLOSED)
LIST_LIMIT: Final = 2_000
"""Rows a list gives at most."""
WHITELIST_EVERY_S: Final = 2.0
"""How often whitelist.json is looked at; an edit is promised to count within 5 s."""
EXPIRE_EVERY_S: Final = 60.0
QUARANTINE_S: Final = 3600.0
"""A source whose open incident had no evidence for this long may be learned from again."""
REAL_QUARANTINE_S: Final = 7 * 86_400.0
"""The same for one a person called an attack: by then the live model's buffer has slid on."""

Answer = dict[str, Any]
Answers = list[Answer]
Names = list[str]


class Incidents:
    """All incidents, their evidence, what was decided about them and what is kept quiet.

    max_alerts, window_seconds: MAX_ALERTS and ALERT_WINDOW_SECONDS. local_networks: whether an
    address is inside. now: epoch seconds, the clock of decisions and of writing; windows use
    packet time. alpha: the models' false-alarm rate. learn, unlearn: put flows into the live
    baseline, and take them out again by the token. describe_models: `models[]` for the flow that
    is an incident's oddest. hidden_attacks: the bundled attacks that a suppression would hide, each
    with name, title and the part that is hidden. These run without the room's lock. around,
    like: what to keep of judged flows, and which flows are like them (alerts/scope.py); logged:
    the ALERT flows of the log; these are quick and run under it.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_alerts: int,
        window_seconds: int,
        local_networks: Callable[[str], bool],
        now: Callable[[], float] = time.time,
        alpha: float = 0.01,
        learn: Callable[[list[FlowRecord]], str] | None = None,
        unlearn: Callable[[str], None] | None = None,
        describe_models: Callable[[FlowRecord], Answers] | None = None,
        hidden_attacks: Callable[[Suppression], Answers] = lambda _: [],
        around: Callable[[Features], Answer | None] = lambda _: None,
        like: Callable[[Features, Features], Sequence[bool]] = lambda _, of: [False] * len(of),
        logged: Callable[[], Iterable[FlowRecord]] = tuple,
    ) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._clock_s = 0.0  # the newest tick; packet time in a replay
        self._describe_models = describe_models
        self._outbox = Outbox()
        self._ledger = Ledger(store, self._outbox, max_alerts=max_alerts)
        self._first_seen = FirstSeen()
        self._pairs = PairWindows(float(window_seconds), alpha)
        self._hours = HostHours()
        suppressions = store.document("suppressions", like=SUPPRESSION)
        whitelist = store.document("whitelist", kind="object")
        undo = store.document("undo_store", like=ENTRY)
        feedback = store.document(NAME, limit=FLOWS_KEPT, like=FEEDBACK)
        self._decisions = (suppressions, whitelist, undo, feedback)
        self._hardware = Hardware(local_networks)
        surroundings = Surroundings(local_networks, self._hardware, around, like)
        self._suppressions = Suppressions(suppressions, self._outbox.add, now, surroundings)
        self._whitelist = Whitelist(whitelist, self._outbox.add)
        self._undo = UndoBook(undo, self._outbox.add, now)
        self._gatherer = Gatherer(
            self._ledger,
            self._pairs,
            self._suppressions,
            self._whitelist,
            window_s=float(window_seconds),
            is_local=local_networks,
            now=now,
        )
        desk = Desk(
            self._ledger,
            self._suppressions,
            self._undo,
            Feedback(feedback, self._outbox.add),
            changing=self._changing,
            flush=self._flush,
            view=self._view,
            redress=self._gatherer.redress,
            now=now,
            clock=self._clock,
        )
        self._standing = Standing(
            desk, whitelist=self._whitelist.entries, set_whitelist=self._set_whitelist
        )
        self._actions = Actions(
            desk,
            self._standing,
            surroundings,
            learn=learn,
            unlearn=unlearn,
            hidden_attacks=hidden_attacks,
            logged=logged,
        )
        self._looked_at = self._expired_at = now()
        with self._changing():
            # The whitelist may have been edited while the program did not run.
            self._gatherer.redress([record["id"] for record in self._ledger.open_records()])

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """The room's lock; afterwards, without it, what was decided goes to the documents."""
        with self._lock:
            yield
        self._outbox.carry_out()

    def _flush(self) -> None:
        self._ledger.flush()
        for document in self._decisions:
            document.flush()

    def _clock(self) -> float:
        """The time that ages and windows are seen from: the newest tick, else the wall clock."""
        return self._clock_s or self._now()

    # --- the analysis thread

    def add_findings(self, findings: Sequence[Finding]) -> None:
        """Let window findings open incidents or join them."""
        with self._changing():
            self._gatherer.findings(findings)
            self._ledger.save(self._now())

    def add_flows(self, records: Sequence[FlowRecord]) -> dict[str, str]:
        """Let ALERT flows open incidents or join them; sets `incident` in those that did. Others
        are shown with the window incident of their source.

        Returns {flow id: incident id} of flows given earlier that belong to one only now.
        """
        with self._changing():
            worst, joined_later = self._gatherer.flows(records)
            if self._describe_models is None:
                self._ledger.save(self._now())
                return joined_later
        described = [(incident_id, self._describe_models(flow)) for incident_id, flow in worst]
        with self._changing():
            for incident_id, models in described:
                record = self._ledger.records.get(incident_id)
                if record is not None:
                    self._ledger.publish({**record, "models": models})
            self._ledger.save(self._now())
        return joined_later

    def count_flows(self, flows: FlowBatch) -> None:
        """Count all flows (ended or provisional, each once) of the pairs and hosts."""
        if not len(flows):
            return
        with self._lock:
            counted = self._first_seen.of(flows.rows)
            self._pairs.count(counted)
            self._hours.count(counted)
            self._hardware.see(flows.rows)

    def tick(self, now_s: float, *, final: bool = False) -> None:
        """Write what waits, look at whitelist.json, let old decisions expire.

        now_s: the capture's clock (packet time in a replay). final: write everything at once.
        """
        with self._changing():
            self._clock_s = now_s
            wall_s = self._now()
            if final or abs(wall_s - self._looked_at) >= WHITELIST_EVERY_S:
                self._looked_at = wall_s
                before = self._trust()
                if self._whitelist.reread(wall_s):
                    self._redress(before)
            if abs(wall_s - self._expired_at) >= EXPIRE_EVERY_S:
                self._expired_at = wall_s
                self._undo.expire(wall_s)
            self._suppressions.tick(wall_s, all_of_them=final)
            self._ledger.save(wall_s, everything=final)

    def quarantined(self) -> set[str]:
        """Sources the live baseline must not learn from now: of open incidents, of what was
        expected and goes on, and of what a person called an attack."""
        sources: set[str] = set()
        with self._lock:
            now_s = self._clock()
            for record in self._ledger.records.values():
                real = record["verdict"] == "real"
                since_s = now_s - (REAL_QUARANTINE_S if real else QUARANTINE_S)
                goes_on = record["status"] == OPEN and record["severity"] != "LOW"
                harmless = record["verdict"] == "expected"
                if record["last_time"] < since_s or not (real or goes_on or harmless):
                    continue
                if record["key_is"] == "target":
                    sources.update(record["sources"])
                elif record["key_is"] == "source":
                    sources.add(record["src_ip"])
            sources |= self._suppressions.expected_since(now_s - QUARANTINE_S)
        return sources

    def besieged(self) -> frozenset[str]:
        """Targets of open floods: what reaches them now is not normal, whoever sends it."""
        with self._lock:
            since_s = self._clock() - QUARANTINE_S
            return frozenset(
                record["dst_ip"]
                for record in self._ledger.open_records()
                if record["key_is"] == "target" and record["last_time"] >= since_s
            )

    # --- web threads: reading

    @property
    def seq(self) -> int:
        """Raised at each change of an incident; also over restarts."""
        with self._lock:
            return self._ledger.seq

    def counts(self) -> dict[str, int]:
        """OPEN incidents by severity, and incidents by status."""
        counts = dict.fromkeys((*reversed(SEVERITIES), *STATUSES), 0)
        with self._lock:
            for record in self._ledger.records.values():
                counts[record["status"]] += 1
                if record["status"] == OPEN:
                    counts[record["severity"]] += 1
        return counts

    def list(
        self,
        status: str = OPEN,
        severity: str | None = None,
        pattern: str | None = None,
        src: str | None = None,
        limit: int = 200,
        since: int | None = None,
    ) -> Answers:
        """Incidents, the most severe first, of them those with the newest evidence.

        status: OPEN, FALSE_POSITIVE, CLOSED or "all". pattern: family or subpattern. src: part
        of the source's address or name. since: only what changed after that seq, by rising seq,
        also incidents that have left the status.
        """

        def asked(record: Record) -> bool:
            names = (record["src_ip"], *record["sources"], record["names"]["src"] or "")
            return (
                (severity is None or record["severity"] == severity)
                and (pattern is None or pattern in (record["pattern"], record["subpattern"]))
                and (src is None or any(src.lower() in name.lower() for name in names))
            )

        limit = max(0, min(limit, LIST_LIMIT))
        with self._lock:
            ledger = self._ledger
            if since is None:
                kept = [r for r in ledger.records.values() if status in ("all", r["status"])]
                found = sorted(filter(asked, kept), key=_urgency, reverse=True)
                return [self._view(record) for record in found[:limit]]
            changed = [(seq, ledger.records[i]) for i, seq in ledger.seqs.items() if seq > since]
            changed += [(seq, record) for seq, record in ledger.gone if seq > since]
            changed = [item for item in changed if asked(item[1])]
            changed.sort(key=lambda item: item[0])
            return [{**self._view(record), "seq": seq} for seq, record in changed[:limit]]

    def get(self, incident_id: str) -> Answer | None:
        """One incident as the list shows it, None if there is none."""
        with self._lock:
            record = self._ledger.records.get(incident_id)
            return self._view(record) if record else None

    def detail(self, incident_id: str) -> Answer | None:
        """One incident with its flows (newest first), its oddest flow, history, rule, and what
        is hidden since it was judged harmless."""
        with self._lock:
            record = self._ledger.records.get(incident_id)
            if record is None:
                return None
            worst = self._ledger.worst(record)
            start, values = self._hours.of(record["src_ip"], self._clock())
            who = words.plain(record["names"]["src"] or record["src_ip"])
            return {
                **self._view(record),
                "flow_records": [
                    without_features(flow) for flow in self._ledger.evidence(incident_id)
                ],
                "worst": without_features(worst) if worst else None,
                "history": {
                    "unit": "flows",
                    "label": f"{who}, flows per hour, {HISTORY_HOURS} h",
                    "step_s": 3600,
                    "start": start,
                    "values": values,
                },
                "rule": record["rule_recommendation"],
                "hiding": self._suppressions.made_by(incident_id),
            }

    def notices(self) -> Names:
        """What a person should know about this room, in sentences."""
        with self._lock:
            notice = self._whitelist.notice()
        return [notice] if notice else []

    def _view(self, record: Record) -> Answer:
        shown = {**record, "seq": self._ledger.seqs.get(record["id"], 0)}
        shown["rate"] = rate_at(record, self._clock())
        shown["undo"] = record["undo"] if self._undo.can_undo(record["undo"]) else None
        return shown

    # --- web threads: deciding

    def preview_false_positive(
        self, incident_id: str, scope: str | None = None, verdict: str = "false"
    ) -> Answer | None:
        """What `mark_false_positive`, or closing as expected, would do now; None for an unknown
        incident. verdict: false or expected."""
        found = self._actions.preview(incident_id, scope, verdict)
        return found.told() if found else None

    def mark_false_positive(
        self,
        *,
        id: str | None = None,
        src_ip: str | None = None,
        dst_ip: str | None = None,
        timestamp: str | None = None,
        scope: str | None = None,
        learn: bool | None = None,
        confirm: bool = False,
    ) -> Answer:
        """Take an incident off the list, hide its like for 30 days, let the baseline learn it.

        The incident is named by `id`, or by source, first target and first time. scope: narrow
        (default) or wide. learn: None follows the preview's `learn_default`. confirm: hide its
        like although that is too wide; without it no more than what was seen is hidden.
        """
        return self._actions.mark(id, src_ip, dst_ip, timestamp, scope, learn, confirm)

    def close(
        self,
        incident_id: str,
        verdict: str | None = None,
        comment: str | None = None,
        *,
        scope: str | None = None,
        confirm: bool = False,
    ) -> Answer | None:
        """Close an incident as expected, real or without a verdict; None if it is unknown.

        What was expected hides its like as well (scope, confirm: as for a false positive).
        """
        return self._actions.close(incident_id, verdict, comment, scope, confirm)

    def reopen(self, incident_id: str) -> Answer | None:
        """Open it again; what a false positive hid and learned is taken back as well."""
        return self._actions.reopen(incident_id)

    def note(self, incident_id: str, text: str) -> Answer | None:
        """Add a note; None if the incident is unknown."""
        return self._actions.note(incident_id, text)

    def undo(self, token: str) -> Answer | None:
        """Take an action back, within seven days; None for an unknown or older token."""
        return self._actions.undo(token)

    def suppressions(self) -> Answers:
        """What is hidden now, newest first, with hits."""
        with self._lock:
            return [shown(suppression) for suppression in self._suppressions.in_force()]

    def add_suppression(
        self,
        *,
        src_ip: str | None = None,
        subpattern: str,
        dst_ip: str | None = None,
        port: int | None = None,
        reason: str = "",
    ) -> Answer:
        """Hide a pattern of a source (or, without one, at a target) for 30 days."""
        return self._standing.add_suppression(src_ip, subpattern, dst_ip, port, reason)

    def remove_suppression(self, suppression_id: str) -> Answer:
        """Tell it again."""
        return self._standing.remove_suppression(suppression_id)

    def whitelist(self) -> Names:
        """The trusted addresses and networks."""
        with self._lock:
            return self._whitelist.entries()

    @property
    def hidden_by_whitelist(self) -> int:
        """Findings and flows of trusted addresses that raised nothing since the start."""
        with self._lock:
            return self._gatherer.hidden_by_whitelist

    def add_trusted(self, entries: Sequence[str]) -> Answer:
        """Trust these as well: {"trusted_ips", "undo"}; UsageError names the first bad entry."""
        added = checked([*entries])
        return self._standing.trust(lambda before: checked([*before, *added]))

    def remove_trusted(self, entries: Sequence[str]) -> Answer:
        """Trust these no more: {"trusted_ips", "undo"}."""
        gone = set(checked([*entries]))
        return self._standing.trust(lambda before: [e for e in before if e not in gone])

    def _set_whitelist(self, entries: Sequence[str]) -> None:
        before = self._trust()
        self._whitelist.set(entries, self._now())
        self._redress(before)

    def _trust(self) -> dict[str, bool]:
        """Whether the whitelist holds back each OPEN incident's recommendation."""
        return {r["id"]: self._gatherer.is_trusted(r) for r in self._ledger.open_records()}

    def _redress(self, before: dict[str, bool]) -> None:
        """Work out recommendations again where trust changed."""
        now = self._trust()
        self._gatherer.redress([i for i, trusted in now.items() if trusted != before[i]])
        self._ledger.save(self._now(), everything=True)


def _urgency(record: Record) -> tuple[int, float, str]:
    return severity_rank(record["severity"]), record["last_time"], record["id"]

"""What an admin decides on incidents: false positive, expected, real, reopen, note, and undo.

Three verdicts end an incident. `false`: normal after all; its like is hidden and the live model
may learn it. `expected`: true and harmless; its like is hidden and nothing is learned. `real`: an
attack; its sources teach the live model nothing. Every action is safe to send twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import decision_words
import words
from alerts.desk import NOTES_KEPT, Desk, Step, text_of
from alerts.false_positive import HARMLESS, Harmless, plan
from alerts.record import CLOSED, FALSE_POSITIVE, OPEN, Record
from alerts.scope import FLOW_PATTERNS, Suppression, Surroundings
from alerts.standing import Standing
from alerts.suppressions import shown
from batches import FlowRecord
from errors import UsageError

__all__ = ["Actions"]

WEEK_S: Final = 7 * 86_400
VERDICTS: Final = (None, "expected", "real")
_STATUS: Final = {"false": FALSE_POSITIVE, "expected": CLOSED}


class Actions:
    """The admin's side of the ledger.

    learn, unlearn: the live baseline's doors. hidden_attacks: the bundled attacks a suppression
    would hide. logged: the ALERT flows of the log. All four are called without the room's lock,
    but `logged`.
    """

    def __init__(
        self,
        desk: Desk,
        standing: Standing,
        surroundings: Surroundings,
        *,
        learn: Callable[[list[FlowRecord]], str] | None,
        unlearn: Callable[[str], None] | None,
        hidden_attacks: Callable[[Suppression], Sequence[dict[str, Any]]],
        logged: Callable[[], Iterable[FlowRecord]],
    ) -> None:
        self._desk = desk
        self._standing = standing
        self._surroundings = surroundings
        self._learn = learn
        self._unlearn = unlearn
        self._hidden_attacks = hidden_attacks
        self._logged = logged

    # --- harmless: false positive and expected

    def preview(self, incident_id: str, scope: str | None, verdict: str) -> Harmless | None:
        if verdict not in HARMLESS:
            raise UsageError(f"A preview can be of false or expected, not of {verdict[:40]!r}.")
        with self._desk.changing():
            record = self._desk.ledger.records.get(incident_id)
            if record is None:
                return None
            found = self._plan(record, verdict, scope)
        return self._weighed(found)

    def mark(
        self,
        incident_id: str | None,
        src_ip: str | None,
        dst_ip: str | None,
        timestamp: str | None,
        scope: str | None,
        learn: bool | None,
        confirm: bool,
    ) -> dict[str, Any]:
        desk = self._desk
        with desk.one_action():
            with desk.changing():
                record = desk.named(incident_id, src_ip, dst_ip, timestamp)
                if record is None:
                    return _marked(None, None, _nothing())
                if record["status"] == FALSE_POSITIVE:
                    return self._marked_before(record)
                marking = self._plan(record, "false", scope)
            marking, warning = self._bounded(marking, scope, confirm)
            wanted = marking.learn_default if learn is None else learn
            learned = None
            if wanted and marking.flows and self._learn is not None:
                learned = self._learn(list(marking.flows))
            with desk.changing():
                token, changed = self._end(marking, learned, None, warning)
                kept = desk.ledger.records.get(marking.record["id"])
                return _marked(desk.view(kept) if kept else None, token, changed)

    def _plan(
        self, record: Record, verdict: str, scope: str | None, *, tight: bool = False
    ) -> Harmless:
        return plan(
            record,
            verdict,
            scope or "narrow",
            self._desk.ledger,
            self._surroundings,
            self._logged,
            now_s=self._desk.now(),
            since_s=self._desk.clock() - WEEK_S,
            can_learn=self._learn is not None,
            tight=tight,
        )

    def _weighed(self, found: Harmless) -> Harmless:
        if found.suppression is None:
            return found
        return found.weighed(self._hidden_attacks(found.suppression))

    def _bounded(
        self, found: Harmless, scope: str | None, confirm: bool
    ) -> tuple[Harmless, str | None]:
        """What is done of a plan, and the warning about it: a too wide one has to be confirmed."""
        found = self._weighed(found)
        if not found.wide or confirm:
            return found, None
        warning = " ".join(found.wide)
        if found.record["subpattern"] in FLOW_PATTERNS:
            return found.unconfirmed(), warning
        with self._desk.changing():
            record = self._desk.ledger.records.get(found.record["id"], found.record)
            tight = self._plan(record, found.verdict, scope, tight=True)
        # What it would have hidden speaks against learning its flows all the same.
        return tight.weighed(found.attacks), warning

    def _end(
        self, marking: Harmless, learned: str | None, comment: str | None, warning: str | None
    ) -> tuple[str, dict[str, Any]]:
        """Carry a plan out; the undo token and what changed."""
        desk = self._desk
        steps: list[Step] = []
        suppression = marking.suppression and {
            **marking.suppression,
            "id": desk.suppressions.new_id(),
        }
        fields = {
            "status": _STATUS[marking.verdict],
            "verdict": marking.verdict,
            "closed_time": desk.now(),
            "learned": learned,
        }
        closed = []
        for incident_id in marking.closes:
            record = desk.ledger.records.get(incident_id)
            if record is not None:  # it may have been dropped while the baseline learned
                note = comment if incident_id == marking.record["id"] else None
                steps.append(desk.change(record, fields, note=note))
                closed.append(incident_id)
        if suppression:
            steps.append(desk.suppress(suppression))
        if learned:
            steps.append({"kind": "learned", "token": learned})
        sentence = f"{words.bare(marking.record['title'])} is open again"
        if marking.record["status"] == CLOSED:
            sentence = f"{words.bare(marking.record['title'])} has its earlier verdict again"
        if learned:
            flows = words.count(len(marking.flows), "flow")
            sentence += f", and {flows} left the Live model's buffer"
        action = "false_positive" if marking.verdict == "false" else "close"
        token = desk.book.add(action, f"{sentence}.", steps)
        desk.sign(closed, token)
        changed = {
            "flows_added": len(marking.flows) if learned else 0,
            "suppression": shown(suppression) if suppression else None,
            "closed": closed,
            "warning": warning,
        }
        desk.book.answer(token, changed)
        return token, changed

    def _marked_before(self, record: Record) -> dict[str, Any]:
        entry = self._desk.book.get(record["undo"]) if record["undo"] else None
        changed = entry["answer"] if entry and entry["action"] == "false_positive" else None
        return _marked(
            self._desk.view(record),
            record["undo"] if entry else None,
            changed or {**_nothing(), "closed": [record["id"]]},
        )

    # --- close, reopen, note

    def close(
        self,
        incident_id: str,
        verdict: str | None,
        comment: str | None,
        scope: str | None,
        confirm: bool,
    ) -> dict[str, Any] | None:
        if verdict not in VERDICTS:
            raise UsageError(
                f"The verdict {str(verdict)[:40]!r} is unknown. It can be expected or real; "
                "what is neither is marked as a false positive."
            )
        text = text_of(comment) if comment else None
        desk = self._desk
        with desk.one_action():
            with desk.changing():
                record = desk.ledger.records.get(incident_id)
                if record is None:
                    return None
                if record["status"] == FALSE_POSITIVE:
                    raise UsageError(
                        "This incident is marked as a false positive. Reopen it first."
                    )
                same = record["status"] == CLOSED and record["verdict"] == verdict
                if same and (text is None or any(n["text"] == text for n in record["notes"])):
                    return self._closed_before(record)
                if verdict != "expected" or same:
                    return self._close(record, verdict, text)
                expecting = self._plan(record, "expected", scope)
            expecting, warning = self._bounded(expecting, scope, confirm)
            with desk.changing():
                _, changed = self._end(expecting, None, text, warning)
                kept = desk.ledger.records.get(incident_id)
                return {**desk.answer(kept), "changed": changed} if kept else None

    def _close(self, record: Record, verdict: str | None, text: str | None) -> dict[str, Any]:
        desk = self._desk
        steps = desk.tell_again(record["id"]) if record["verdict"] != verdict else []
        fields = {"status": CLOSED, "verdict": verdict, "closed_time": desk.now()}
        steps.append(desk.change(record, fields, note=text))
        sentence = f"{words.bare(record['title'])} is open again."
        if record["status"] == CLOSED:
            sentence = f"{words.bare(record['title'])} has its earlier verdict again."
        token = desk.book.add("close", sentence, steps)
        desk.sign([record["id"]], token)
        changed = {**_nothing(), "closed": [record["id"]]}
        desk.book.answer(token, changed)
        return {**desk.answer(desk.ledger.records[record["id"]]), "changed": changed}

    def _closed_before(self, record: Record) -> dict[str, Any]:
        entry = self._desk.book.get(record["undo"]) if record["undo"] else None
        changed = entry["answer"] if entry and entry["action"] == "close" else None
        nothing = {**_nothing(), "closed": [record["id"]]}
        return {**self._desk.answer(record), "changed": changed or nothing}

    def reopen(self, incident_id: str) -> dict[str, Any] | None:
        desk = self._desk
        with desk.one_action():
            with desk.changing():
                record = desk.ledger.records.get(incident_id)
                if record is None:
                    return None
                if record["status"] == OPEN:
                    return desk.answer(record)
                learned = record["learned"]
            if learned and self._unlearn is not None:
                self._unlearn(learned)
            with desk.changing():
                record = desk.ledger.records.get(incident_id)
                if record is None:  # dropped at MAX_ALERTS while the baseline forgot
                    return None
                steps = desk.tell_again(incident_id)
                if learned:
                    steps.append({"kind": "unlearned", "id": incident_id})
                fields = {"status": OPEN, "verdict": None, "closed_time": None, "learned": None}
                if desk.join_twin(record):
                    # Two stories became one: closing it again is the way back.
                    record = desk.ledger.records[incident_id]
                    desk.change(record, {**fields, "undo": None})
                    return desk.answer(desk.ledger.records[incident_id])
                steps.append(desk.change(record, fields))
                sentence = f"{words.bare(record['title'])} is closed again."
                desk.sign([incident_id], desk.book.add("reopen", sentence, steps))
                return desk.answer(desk.ledger.records[incident_id])

    def note(self, incident_id: str, text: str) -> dict[str, Any] | None:
        kept = text_of(text)
        desk = self._desk
        with desk.one_action(), desk.changing():
            record = desk.ledger.records.get(incident_id)
            if record is None:
                return None
            if len(record["notes"]) >= NOTES_KEPT:
                raise UsageError(
                    f"An incident holds {NOTES_KEPT} notes; this one is full, nothing was changed."
                )
            if not record["notes"] or record["notes"][-1]["text"] != kept:
                desk.change(record, {}, note=kept)
            return {"alert": desk.view(desk.ledger.records[incident_id])}

    # --- undo

    def undo(self, token: str) -> dict[str, Any] | None:
        desk = self._desk
        with desk.one_action():
            with desk.changing():
                entry = desk.book.get(token)
                if entry is None:
                    return None
                if entry["used"]:
                    return self._undone(entry)
                for step in entry["steps"]:
                    self._check(step, token)
            relearned = self._callbacks(entry["steps"])
            with desk.changing():
                hits = [self._take_back(step, relearned) for step in reversed(entry["steps"])]
                told = [count for count in hits if count is not None]
                desk.book.spend(token, hits=sum(told) if told else None)
                return self._undone(desk.book.get(token) or entry)

    def _undone(self, entry: dict[str, Any]) -> dict[str, Any]:
        ids = [step["id"] for step in entry["steps"] if step["kind"] == "alert"]
        record = self._desk.ledger.records.get(ids[0]) if ids else None
        hits = entry.get("hits")
        also = "" if hits is None else f" {decision_words.told_hits(hits)}"
        return {
            "status": "success",
            "sentence": f"{entry['sentence']}{also}",
            "hits": hits,
            "alert": self._desk.view(record) if record else None,
        }

    def _check(self, step: Step, token: str) -> None:
        """UsageError where something else was decided since."""
        if step["kind"] == "alert":
            record = self._desk.ledger.records.get(step["id"])
            if record is not None and record["undo"] != token:
                raise UsageError(
                    f"{words.bare(record['title'])} was changed since. Take back the newer "
                    "change first."
                )
        self._standing.check(step)

    def _callbacks(self, steps: list[Step]) -> dict[str, str]:
        """Let the live baseline forget or learn again; incident id -> new token."""
        learned: dict[str, str] = {}
        for step in steps:
            if step["kind"] == "learned" and self._unlearn is not None:
                self._unlearn(step["token"])
            if step["kind"] == "unlearned" and self._learn is not None:
                with self._desk.changing():
                    flows = self._desk.ledger.evidence(step["id"])
                learned[step["id"]] = self._learn([flow for flow in flows if flow["features"]])
        return learned

    def _take_back(self, step: Step, relearned: dict[str, str]) -> int | None:
        """What a suppression that goes had hidden; None where none goes."""
        desk = self._desk
        hits = None
        self._standing.take_back(step)
        if step["kind"] == "suppression":
            if step["after"]:
                gone = desk.suppressions.get(step["after"]["id"])
                hits = gone["hits"] if gone else 0
                desk.suppressions.remove(step["after"]["id"])
            if step["before"]:
                desk.suppressions.put(step["before"])
        record = desk.ledger.records.get(step.get("id", ""))
        if step["kind"] != "alert" or record is None:
            return hits
        notes = [note for note in record["notes"] if note["id"] != step["note"]]
        before = dict(step["before"])
        if step["id"] in relearned:
            before["learned"] = relearned[step["id"]]
        if before.get("status") == OPEN:
            desk.join_twin(record)
            record = desk.ledger.records[step["id"]]
        desk.publish({**record, **before, "notes": notes})
        return hits


def _nothing() -> dict[str, Any]:
    return {"flows_added": 0, "suppression": None, "closed": [], "warning": None}


def _marked(
    alert: dict[str, Any] | None, token: str | None, changed: dict[str, Any]
) -> dict[str, Any]:
    return {
        "status": "success",
        "removed": alert is not None,
        "undo": token,
        "changed": changed,
        "alert": alert,
    }

"""What an admin does to incidents: false positive, close, reopen, note, and taking it back.

Every action is one step for the reader of the documents: decided under the room's lock, on disk
before it is answered, and safe to send twice. Actions are taken one at a time (`_acting`), a
lock the analysis thread never waits for; the live baseline's callbacks run under that one alone.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import words
from alerts.false_positive import FalsePositive, plan
from alerts.ledger import Ledger
from alerts.record import CLOSED, FALSE_POSITIVE, OPEN, PATTERNS, Record, key_of, merged
from alerts.suppressions import Suppressions, drawn_from
from alerts.undo import UndoBook
from batches import FlowRecord
from errors import UsageError

__all__ = ["Actions"]

WEEK_S: Final = 7 * 86_400
TEXT_LENGTH: Final = 2_000
NOTES_KEPT: Final = 500
VERDICTS: Final = (None, "expected", "real")

Step = dict[str, Any]


class Actions:
    """The admin's side of the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        suppressions: Suppressions,
        undo: UndoBook,
        *,
        changing: Callable[[], contextlib.AbstractContextManager[None]],
        flush: Callable[[], None],
        view: Callable[[Record], dict[str, Any]],
        now: Callable[[], float],
        clock: Callable[[], float],
        learn: Callable[[list[FlowRecord]], str] | None,
        unlearn: Callable[[str], None] | None,
        set_whitelist: Callable[[list[str]], None],
        whitelist: Callable[[], list[str]],
    ) -> None:
        self._ledger = ledger
        self._suppressions = suppressions
        self._undo = undo
        self._changing = changing
        self._flush = flush
        self._view = view
        self._now = now
        self._clock = clock
        self._learn = learn
        self._unlearn = unlearn
        self._set_whitelist = set_whitelist
        self._whitelist = whitelist
        self._acting = threading.Lock()

    @contextlib.contextmanager
    def _one_action(self) -> Iterator[None]:
        """One action at a time, durable when the block ends."""
        with self._acting:
            yield
            self._flush()

    # --- false positive

    def preview(self, incident_id: str, scope: str | None) -> FalsePositive | None:
        with self._changing():
            record = self._ledger.records.get(incident_id)
            return self._plan(record, scope) if record else None

    def mark(
        self,
        incident_id: str | None,
        src_ip: str | None,
        dst_ip: str | None,
        timestamp: str | None,
        scope: str | None,
        learn: bool | None,
    ) -> dict[str, Any]:
        with self._one_action():
            with self._changing():
                record = self._named(incident_id, src_ip, dst_ip, timestamp)
                if record is None:
                    return _marked(
                        None, None, {"flows_added": 0, "suppression": None, "closed": []}
                    )
                if record["status"] == FALSE_POSITIVE:
                    return self._marked_before(record)
                marking = self._plan(record, scope)
            wanted = marking.learn_default if learn is None else learn
            learned = None
            if wanted and marking.flows and self._learn is not None:
                learned = self._learn(list(marking.flows))
            with self._changing():
                return self._mark(marking, learned)

    def _mark(self, marking: FalsePositive, learned: str | None) -> dict[str, Any]:
        steps: list[Step] = []
        now_s = self._now()
        suppression = marking.suppression and {
            **marking.suppression,
            "id": self._suppressions.new_id(),
        }
        fields = {
            "status": FALSE_POSITIVE,
            "verdict": "false",
            "closed_time": now_s,
            "learned": learned,
        }
        closed = []
        for incident_id in marking.closes:
            record = self._ledger.records.get(incident_id)
            if record is not None:  # it may have been dropped while the baseline learned
                steps.append(self._change(record, fields))
                closed.append(incident_id)
        if suppression:
            self._suppressions.put(suppression)
            steps.append({"kind": "suppression", "before": None, "after": suppression})
        if learned:
            steps.append({"kind": "learned", "token": learned})
        sentence = f"{words.bare(marking.record['title'])} is open again"
        if learned:
            sentence += (
                f", and {words.count(len(marking.flows), 'flow')} left the Live model's buffer"
            )
        token = self._undo.add("false_positive", f"{sentence}.", steps)
        self._sign(closed, token)
        changed = {
            "flows_added": len(marking.flows) if learned else 0,
            "suppression": suppression,
            "closed": closed,
        }
        self._undo.answer(token, changed)
        kept = self._ledger.records.get(marking.record["id"])
        return _marked(self._view(kept) if kept else None, token, changed)

    def _marked_before(self, record: Record) -> dict[str, Any]:
        entry = self._undo.get(record["undo"]) if record["undo"] else None
        changed = entry["answer"] if entry and entry["action"] == "false_positive" else None
        nothing = {"flows_added": 0, "suppression": None, "closed": [record["id"]]}
        return _marked(self._view(record), record["undo"] if entry else None, changed or nothing)

    def _plan(self, record: Record, scope: str | None) -> FalsePositive:
        return plan(
            record,
            scope or "narrow",
            self._ledger,
            now_s=self._now(),
            since_s=self._clock() - WEEK_S,
            can_learn=self._learn is not None,
        )

    # --- close, reopen, note

    def close(
        self, incident_id: str, verdict: str | None, comment: str | None
    ) -> dict[str, Any] | None:
        if verdict not in VERDICTS:
            raise UsageError(
                f"The verdict {str(verdict)[:40]!r} is unknown. It can be expected or real; "
                "what is neither is marked as a false positive."
            )
        text = _text(comment) if comment else None
        with self._one_action(), self._changing():
            record = self._ledger.records.get(incident_id)
            if record is None:
                return None
            if record["status"] == FALSE_POSITIVE:
                raise UsageError("This incident is marked as a false positive. Reopen it first.")
            same = record["status"] == CLOSED and record["verdict"] == verdict
            if same and (text is None or any(n["text"] == text for n in record["notes"])):
                return self._answer(record)
            fields = {"status": CLOSED, "verdict": verdict, "closed_time": self._now()}
            step = self._change(record, fields, note=text)
            sentence = f"{words.bare(record['title'])} is open again."
            if record["status"] == CLOSED:
                sentence = f"{words.bare(record['title'])} has its earlier verdict again."
            self._sign([incident_id], self._undo.add("close", sentence, [step]))
            return self._answer(self._ledger.records[incident_id])

    def reopen(self, incident_id: str) -> dict[str, Any] | None:
        with self._one_action():
            with self._changing():
                record = self._ledger.records.get(incident_id)
                if record is None:
                    return None
                if record["status"] == OPEN:
                    return self._answer(record)
                learned = record["learned"]
            if learned and self._unlearn is not None:
                self._unlearn(learned)
            with self._changing():
                record = self._ledger.records.get(incident_id)
                if record is None:  # dropped at MAX_ALERTS while the baseline forgot
                    return None
                steps: list[Step] = []
                for suppression in self._suppressions.in_force():
                    if (
                        record["status"] == FALSE_POSITIVE
                        and suppression["incident"] == incident_id
                    ):
                        self._suppressions.remove(suppression["id"])
                        steps.append({"kind": "suppression", "before": suppression, "after": None})
                if learned:
                    steps.append({"kind": "unlearned", "id": incident_id})
                fields = {"status": OPEN, "verdict": None, "closed_time": None, "learned": None}
                if self._twin(record):
                    # Two stories became one: closing it again is the way back.
                    self._change(record, {**fields, "undo": None})
                    return self._answer(self._ledger.records[incident_id])
                steps.append(self._change(record, fields))
                sentence = f"{words.bare(record['title'])} is closed again."
                self._sign([incident_id], self._undo.add("reopen", sentence, steps))
                return self._answer(self._ledger.records[incident_id])

    def note(self, incident_id: str, text: str) -> dict[str, Any] | None:
        kept = _text(text)
        with self._one_action(), self._changing():
            record = self._ledger.records.get(incident_id)
            if record is None:
                return None
            if len(record["notes"]) >= NOTES_KEPT:
                raise UsageError(
                    f"An incident holds {NOTES_KEPT} notes; this one is full, nothing was changed."
                )
            if not record["notes"] or record["notes"][-1]["text"] != kept:
                self._change(record, {}, note=kept)
            return {"alert": self._view(self._ledger.records[incident_id])}

    # --- suppressions and whitelist

    def add_suppression(
        self,
        source: str | None,
        subpattern: str,
        target: str | None,
        port: int | None,
        reason: str,
    ) -> dict[str, Any]:
        if not source and not target:
            raise UsageError("A suppression needs a source or a target. Name one address.")
        source, target = (_address(one) if one else None for one in (source, target))
        if subpattern not in PATTERNS:
            raise UsageError(
                f"The pattern {subpattern[:40]!r} is unknown. It can be {', '.join(PATTERNS)}."
            )
        with self._one_action(), self._changing():
            for known in self._suppressions.in_force():
                named = (known["subpattern"], known["source"], known["target"], known["port"])
                if named == (subpattern, source, target, port):
                    return {"suppression": known, "undo": self._undo_of(known["id"], "after")}
            wish = {
                "key_is": "source" if source else "target",
                "src_ip": source,
                "dst_ip": target,
                "targets": [target] if target else [],
                "ports": [port] if port else [],
                "pattern": PATTERNS[subpattern],
                "subpattern": subpattern,
                "protocol": "IP",
                "id": None,
                "last_time": 0.0,
            }
            drawn = drawn_from(wish, "narrow", _text(reason) if reason else "", self._now())
            suppression = {**drawn, "id": self._suppressions.new_id()}
            self._suppressions.put(suppression)
            step = {"kind": "suppression", "before": None, "after": suppression}
            sentence = f"Told again from now on: {words.bare(suppression['scope'])}."
            token = self._undo.add("suppression", sentence, [step])
            return {"suppression": suppression, "undo": token}

    def remove_suppression(self, suppression_id: str) -> dict[str, Any]:
        with self._one_action(), self._changing():
            suppression = self._suppressions.get(suppression_id)
            if suppression is None:
                return {"removed": True, "undo": self._undo_of(suppression_id, "before")}
            self._suppressions.remove(suppression_id)
            step = {"kind": "suppression", "before": suppression, "after": None}
            sentence = f"Hidden again: {words.bare(suppression['scope'])}."
            return {"removed": True, "undo": self._undo.add("suppression", sentence, [step])}

    def _undo_of(self, suppression_id: str, side: str) -> str | None:
        return self._undo.last(
            lambda step: (
                step["kind"] == "suppression" and (step[side] or {}).get("id") == suppression_id
            )
        )

    def trust(self, wanted: Callable[[list[str]], list[str]]) -> dict[str, Any]:
        """Change the whitelist to what `wanted` makes of it (already checked entries)."""
        with self._one_action(), self._changing():
            before = self._whitelist()
            after = wanted(before)
            if after == before:
                token = self._undo.last(lambda s: s["kind"] == "whitelist" and s["after"] == after)
                return {"trusted_ips": after, "undo": token}
            self._set_whitelist(after)
            step = {"kind": "whitelist", "before": before, "after": after}
            sentence = "The whitelist is what it was before."
            return {"trusted_ips": after, "undo": self._undo.add("whitelist", sentence, [step])}

    # --- undo

    def undo(self, token: str) -> dict[str, Any] | None:
        with self._one_action():
            with self._changing():
                entry = self._undo.get(token)
                if entry is None:
                    return None
                if entry["used"]:
                    return self._undone(entry)
                for step in entry["steps"]:
                    self._check(step, token)
            relearned = self._callbacks(entry["steps"])
            with self._changing():
                for step in reversed(entry["steps"]):
                    self._take_back(step, relearned)
                self._undo.spend(token)
                return self._undone(entry)

    def _undone(self, entry: dict[str, Any]) -> dict[str, Any]:
        ids = [step["id"] for step in entry["steps"] if step["kind"] == "alert"]
        record = self._ledger.records.get(ids[0]) if ids else None
        return {
            "status": "success",
            "sentence": entry["sentence"],
            "alert": self._view(record) if record else None,
        }

    def _check(self, step: Step, token: str) -> None:
        """UsageError where something else was decided since."""
        if step["kind"] == "alert":
            record = self._ledger.records.get(step["id"])
            if record is not None and record["undo"] != token:
                raise UsageError(
                    f"{words.bare(record['title'])} was changed since. Take back the newer "
                    "change first."
                )
        if step["kind"] == "whitelist" and self._whitelist() != step["after"]:
            raise UsageError("The whitelist was changed since. Take back the newer change first.")

    def _callbacks(self, steps: list[Step]) -> dict[str, str]:
        """Let the live baseline forget or learn again; incident id -> new token."""
        learned: dict[str, str] = {}
        for step in steps:
            if step["kind"] == "learned" and self._unlearn is not None:
                self._unlearn(step["token"])
            if step["kind"] == "unlearned" and self._learn is not None:
                with self._changing():
                    flows = self._ledger.evidence(step["id"])
                learned[step["id"]] = self._learn([flow for flow in flows if flow["features"]])
        return learned

    def _take_back(self, step: Step, relearned: dict[str, str]) -> None:
        if step["kind"] == "whitelist":
            self._set_whitelist(step["before"])
        if step["kind"] == "suppression":
            if step["after"]:
                self._suppressions.remove(step["after"]["id"])
            if step["before"]:
                self._suppressions.put(step["before"])
        record = self._ledger.records.get(step.get("id", ""))
        if step["kind"] != "alert" or record is None:
            return
        notes = [note for note in record["notes"] if note["id"] != step["note"]]
        before = dict(step["before"])
        if step["id"] in relearned:
            before["learned"] = relearned[step["id"]]
        if before.get("status") == OPEN:
            self._twin(record)
            record = self._ledger.records[step["id"]]
        self._publish({**record, **before, "notes": notes})

    # --- helpers, all under the room's lock

    def _named(
        self, incident_id: str | None, src: str | None, dst: str | None, timestamp: str | None
    ) -> Record | None:
        if incident_id is not None:
            return self._ledger.records.get(incident_id)
        found = [
            record
            for record in self._ledger.records.values()
            if record["timestamp"] == timestamp
            and record["dst_ip"] == dst
            and (record["src_ip"] == src or src in record["sources"])
        ]
        order = (OPEN, FALSE_POSITIVE, CLOSED)
        return min(found, key=lambda record: order.index(record["status"]), default=None)

    def _answer(self, record: Record) -> dict[str, Any]:
        shown = self._view(record)
        return {"alert": shown, "undo": shown["undo"]}

    def _change(self, record: Record, fields: dict[str, Any], note: str | None = None) -> Step:
        """Publish `record` with `fields` (and a note); the step that takes it back."""
        after = {**record, **fields}
        note_id = None
        if note is not None:
            now_s = self._now()
            note_id = secrets.token_hex(6)
            written = {"time": now_s, "timestamp": words.local_timestamp(now_s), "text": note}
            after["notes"] = [*record["notes"][-NOTES_KEPT + 1 :], {"id": note_id, **written}]
        self._publish(after)
        before = {name: record.get(name) for name in fields}
        return {
            "kind": "alert",
            "id": record["id"],
            "before": {**before, "undo": record["undo"]},
            "note": note_id,
        }

    def _sign(self, incident_ids: list[str], token: str) -> None:
        """Write the action's token into what it changed."""
        for incident_id in incident_ids:
            self._publish({**self._ledger.records[incident_id], "undo": token})

    def _publish(self, record: Record) -> None:
        self._ledger.publish(record)
        self._ledger.save_one(record["id"], self._now())

    def _twin(self, record: Record) -> bool:
        """Join the OPEN incident that has this one's key, if any, into it."""
        twin_id = self._ledger.open_id(key_of(record))
        if twin_id is None or twin_id == record["id"]:
            return False
        twin = self._ledger.records[twin_id]
        joined = merged(record, twin)
        joined["notes"] = joined["notes"][-NOTES_KEPT:]
        self._ledger.move_evidence(twin_id, record["id"])
        self._ledger.drop(twin_id, folded=True)
        self._publish(joined)
        return True


def _address(text: str) -> str:
    """As flows and findings write it, or it would never hide anything."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no address. Write an IPv4 or IPv6 address.") from None


def _text(text: str) -> str:
    kept = text.strip()
    if not kept:
        raise UsageError("The text is empty. Write what the next person should know.")
    if len(kept) > TEXT_LENGTH:
        raise UsageError(f"The text is longer than {TEXT_LENGTH:,} characters. Shorten it.")
    return kept


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

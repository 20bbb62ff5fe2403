"""What every admin action needs: one at a time, durable, and with steps that take it back.

An action is decided under the room's lock and on disk before it is answered. `one_action` is a
lock the analysis thread never waits for; the live baseline's callbacks run under that one alone.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import words
from alerts.feedback import Feedback
from alerts.ledger import Ledger
from alerts.record import CLOSED, FALSE_POSITIVE, OPEN, Record, key_of, merged
from alerts.scope import Suppression
from alerts.suppressions import Suppressions
from alerts.undo import UndoBook
from errors import UsageError

__all__ = ["NOTES_KEPT", "Desk", "Step", "text_of"]

TEXT_LENGTH: Final = 2_000
NOTES_KEPT: Final = 500

Step = dict[str, Any]


@dataclass(slots=True)
class Desk:
    """What decisions are made on.

    changing: the room's lock, and afterwards its outbox; flush: everything is on disk; view: a
    record as readers see it; redress: words and recommendation of incidents, worked out again;
    now: the clock of decisions, clock: that of the evidence.
    """

    ledger: Ledger
    suppressions: Suppressions
    book: UndoBook
    feedback: Feedback
    changing: Callable[[], contextlib.AbstractContextManager[None]]
    flush: Callable[[], None]
    view: Callable[[Record], dict[str, Any]]
    redress: Callable[[list[str]], None]
    now: Callable[[], float]
    clock: Callable[[], float]
    acting: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def one_action(self) -> Iterator[None]:
        """One action at a time, durable when the block ends."""
        with self.acting:
            yield
            self.flush()

    # All below under the room's lock.

    def named(
        self, incident_id: str | None, src: str | None, dst: str | None, timestamp: str | None
    ) -> Record | None:
        """By id, or as the specification names one."""
        if incident_id is not None:
            return self.ledger.records.get(incident_id)
        found = [
            record
            for record in self.ledger.records.values()
            if record["timestamp"] == timestamp
            and record["dst_ip"] == dst
            and (record["src_ip"] == src or src in record["sources"])
        ]
        order = (OPEN, FALSE_POSITIVE, CLOSED)
        return min(found, key=lambda record: order.index(record["status"]), default=None)

    def answer(self, record: Record) -> dict[str, Any]:
        shown = self.view(record)
        return {"alert": shown, "undo": shown["undo"]}

    def change(self, record: Record, fields: dict[str, Any], note: str | None = None) -> Step:
        """Publish `record` with `fields` (and a note); the step that takes it back."""
        after = {**record, **fields}
        note_id = None
        if note is not None:
            now_s = self.now()
            note_id = secrets.token_hex(6)
            written = {"time": now_s, "timestamp": words.local_timestamp(now_s), "text": note}
            after["notes"] = [*record["notes"][-NOTES_KEPT + 1 :], {"id": note_id, **written}]
        self.publish(after)
        before = {name: record.get(name) for name in fields}
        return {
            "kind": "alert",
            "id": record["id"],
            "before": {**before, "undo": record["undo"]},
            "note": note_id,
        }

    def sign(self, incident_ids: list[str], token: str) -> None:
        """Write the action's token into what it changed."""
        for incident_id in incident_ids:
            self.publish({**self.ledger.records[incident_id], "undo": token})

    def publish(self, record: Record) -> None:
        self.ledger.publish(record)
        if record["status"] == OPEN:
            # Whom the admin trusts may have changed while it was closed.
            self.redress([record["id"]])
        self.ledger.save_one(record["id"], self.now())
        self.feedback.follow(record, lambda: self.ledger.evidence(record["id"]))

    def suppress(self, suppression: Suppression) -> Step:
        """Put a suppression, with an id of its own, in force."""
        self.suppressions.put(suppression)
        return {"kind": "suppression", "before": None, "after": suppression}

    def tell_again(self, incident_id: str) -> list[Step]:
        """Remove the suppressions that judging this incident made."""
        steps = []
        for suppression in self.suppressions.in_force():
            if suppression["incident"] == incident_id:
                self.suppressions.remove(suppression["id"])
                steps.append({"kind": "suppression", "before": suppression, "after": None})
        return steps

    def join_twin(self, record: Record) -> bool:
        """Join the OPEN incident that has this one's key, if any, into it."""
        twin_id = self.ledger.open_id(key_of(record))
        if twin_id is None or twin_id == record["id"]:
            return False
        joined = merged(record, self.ledger.records[twin_id])
        joined["notes"] = joined["notes"][-NOTES_KEPT:]
        self.ledger.move_evidence(twin_id, record["id"])
        self.ledger.drop(twin_id, folded=True)
        self.publish(joined)
        return True


def text_of(text: str) -> str:
    """A person's text, fit to be kept; UsageError where it is not."""
    kept = text.strip()
    if not kept:
        raise UsageError("The text is empty. Write what the next person should know.")
    if len(kept) > TEXT_LENGTH:
        raise UsageError(f"The text is longer than {TEXT_LENGTH:,} characters. Shorten it.")
    return kept

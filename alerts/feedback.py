"""What people said of incidents, kept with their flows' values for trainings to come.

`data/feedback_store.json` has a record for each flow of an incident that has a verdict: `false`
(normal after all), `expected` (true and harmless) or `real` (an attack). `train --with-feedback`
reads it. A verdict that is taken back takes its flows along. Not locked: the incident room calls
it under its own lock and hands in `later`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from alerts.record import Record
from alerts.scope import learnable
from batches import FlowRecord
from store import Document

__all__ = ["FEEDBACK", "FLOWS_KEPT", "NAME", "Feedback"]

NAME: Final = "feedback_store"
FLOWS_KEPT: Final = 4_000
"""Flows of all verdicts together, the oldest go first; about 1 kB each."""

FEEDBACK: Final[dict[str, Any]] = {
    "incident": "",
    "verdict": "",
    "learn": False,
    "time": 0.0,
    "pattern": "",
    "features": [],
}
"""What a record on the disk must have. learn: a false positive that may be fitted."""


class Feedback:
    """The flows of judged incidents, as the document keeps them."""

    def __init__(self, document: Document, later: Callable[[Callable[[], None]], None]) -> None:
        self._document = document
        self._later = later
        self._of: dict[str, tuple[str, bool, tuple[str, ...]]] = {}
        for record in document.records():
            _, _, ids = self._of.get(record["incident"], ("", False, ()))
            kept = (record["verdict"], bool(record["learn"]), (*ids, record["id"]))
            self._of[record["incident"]] = kept

    def follow(self, record: Record, flows: Callable[[], Iterable[FlowRecord]]) -> None:
        """Keep what the incident's verdict is now. flows: asked for where it is a new one."""
        verdict, learn = record["verdict"] or "", bool(record["learned"])
        before, learned, ids = self._of.get(record["id"], ("", False, ()))
        if (verdict, learn) == (before, learned):
            return
        self._of.pop(record["id"], None)
        for one in ids:
            self._later(lambda one=one: self._document.delete(one))  # type: ignore[misc]
        if not verdict:
            return
        kept = [
            {
                "id": f"{record['id']}/{flow['id']}",
                "incident": record["id"],
                "verdict": verdict,
                "learn": learn,
                "time": flow["time"],
                "pattern": record["subpattern"],
                "features": list(flow["features"]),
            }
            for flow in learnable(flows())
        ]
        self._of[record["id"]] = (verdict, learn, tuple(one["id"] for one in kept))
        if kept:
            self._later(lambda: self._document.put_many(kept))

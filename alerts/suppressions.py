"""What an admin said not to tell again: which suppression hides a piece of evidence, and how much.

What one covers is told in scope.py. It hides new evidence only, ends by itself after 30 days and
counts what it hides. Not locked: the incident room calls it under its own lock and hands in
`later`, through which writes leave that lock.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from alerts.scope import (
    FLOW_PATTERNS,
    Suppression,
    Surroundings,
    covers,
    follows,
    of_finding,
    of_flow,
)
from batches import Finding, FlowRecord
from store import Document

__all__ = ["SUPPRESSION", "Suppressions", "shown"]

LIMIT: Final = 1_000
"""Suppressions kept; the oldest go first."""
_PUT_EVERY_S: Final = 1.0

SUPPRESSION: Final[dict[str, Any]] = {
    "time": 0.0,
    "until": 0.0,
    "pattern": "",
    "subpattern": "",
    "source": None,
    "target": None,
    "port": None,
    "protocol": "",
    "reason": "",
    "scope": "",
    "hits": 0,
    "last_time": 0.0,
}
"""What a suppression on the disk must have."""

Later = Callable[[Callable[[], None]], None]


def shown(suppression: Mapping[str, Any]) -> dict[str, Any]:
    """As pages and answers have it: without the flows it was measured on."""
    return {name: value for name, value in suppression.items() if name != "centres"}


class Suppressions:
    """The active suppressions and their hits."""

    def __init__(
        self,
        document: Document,
        later: Later,
        now: Callable[[], float],
        surroundings: Surroundings,
    ) -> None:
        self._document = document
        self._later = later
        self._now = now
        self._surroundings = surroundings
        self._kept: dict[str, Suppression] = {}
        self._by_anchor: dict[str, list[str]] = {}
        for suppression in document.records():
            self._keep(suppression)
        self._put_at: dict[str, float] = {}
        self._unsaved: set[str] = set()

    def in_force(self) -> list[Suppression]:
        """Newest first, those in force."""
        now_s = self._now()
        return [s for s in reversed(self._kept.values()) if s["until"] > now_s]

    def made_by(self, incident_id: str) -> dict[str, Any] | None:
        """The one that judging this incident made, as `shown`; None where it made none."""
        made = (s for s in self.in_force() if s["incident"] == incident_id)
        return next((shown(suppression) for suppression in made), None)

    def expected_since(self, time_s: float) -> set[str]:
        """Sources of what was expected and has gone on, hidden, since that packet time."""
        return {
            s["source"]
            for s in self._kept.values()
            if s.get("verdict") == "expected" and s["source"] and s["last_time"] >= time_s
        }

    def get(self, suppression_id: str) -> Suppression | None:
        return self._kept.get(suppression_id)

    def new_id(self) -> str:
        return f"sup-{secrets.token_hex(6)}"

    def put(self, suppression: Suppression) -> None:
        self._keep(suppression)
        for excess in list(self._kept)[:-LIMIT]:
            self.remove(excess)
        self._save(suppression["id"])

    def remove(self, suppression_id: str) -> None:
        suppression = self._kept.pop(suppression_id, None)
        if suppression is not None:
            for anchor in _anchors(suppression):
                anchored = self._by_anchor[anchor]
                anchored.remove(suppression_id)
                if not anchored:
                    del self._by_anchor[anchor]
            self._unsaved.discard(suppression_id)
            self._put_at.pop(suppression_id, None)
            self._later(lambda: self._document.delete(suppression_id))

    # Evidence asks in this order: is it hidden by one of its own pattern, or does it only
    # follow something that was hidden a moment ago.

    def of_finding(self, finding: Finding) -> str | None:
        """The id of the suppression that hides this finding, None if none does."""
        near = self._near(finding.source, finding.target)
        if not near:
            return None
        evidence = of_finding(finding)
        return next((s["id"] for s in near if covers(s, evidence, self._surroundings)), None)

    def of_flow(self, flow: FlowRecord, subpattern: str) -> str | None:
        """The id of the suppression that hides this flow as evidence of `subpattern`."""
        near = self._near(flow["src_ip"], flow["dst_ip"])
        if not near:
            return None
        evidence = of_flow(flow, subpattern)
        return next((s["id"] for s in near if covers(s, evidence, self._surroundings)), None)

    def alike(self, flow: FlowRecord) -> str | None:
        """The id of the suppression among whose flows this one lies, None if it lies in none."""
        for suppression in self._near(flow["src_ip"], flow["dst_ip"]):
            if suppression.get("centres") and suppression["subpattern"] in FLOW_PATTERNS:
                evidence = of_flow(flow, suppression["subpattern"])
                if covers(suppression, evidence, self._surroundings):
                    return str(suppression["id"])
        return None

    def followed_by(self, flow: FlowRecord, window_s: float) -> str | None:
        """The id of a suppression whose hidden evidence this flow belongs to.

        A flow joins the open incident of its source; where that incident was judged harmless it
        joins what is hidden, or the flows of one scan would tell it again.
        """
        for suppression in self._near(flow["src_ip"], flow["dst_ip"]):
            near = abs(flow["time"] - suppression["last_time"]) <= window_s
            if near and follows(suppression, flow, self._surroundings):
                return str(suppression["id"])
        return None

    def hit(self, suppression_id: str, time_s: float) -> None:
        """Count one piece of hidden evidence; written at most once a second."""
        before = self._kept[suppression_id]
        self._kept[suppression_id] = {
            **before,
            "hits": before["hits"] + 1,
            "last_time": max(before["last_time"], time_s),
        }
        self._unsaved.add(suppression_id)

    def tick(self, now_s: float, *, all_of_them: bool = False) -> None:
        """Write hits that wait, drop what has ended."""
        for suppression_id in [i for i, s in self._kept.items() if s["until"] <= now_s]:
            self.remove(suppression_id)
        for suppression_id in list(self._unsaved):
            waited_s = abs(now_s - self._put_at.get(suppression_id, -math.inf))
            if all_of_them or waited_s >= _PUT_EVERY_S:
                self._put_at[suppression_id] = now_s
                self._save(suppression_id)

    def _save(self, suppression_id: str) -> None:
        record = self._kept[suppression_id]
        self._unsaved.discard(suppression_id)
        self._later(lambda: self._document.put(record))

    def _keep(self, suppression: Suppression) -> None:
        if suppression["id"] not in self._kept:
            for anchor in _anchors(suppression):
                self._by_anchor.setdefault(anchor, []).append(suppression["id"])
        self._kept[suppression["id"]] = suppression

    def _near(self, source: str, target: str) -> list[Suppression]:
        """Those in force whose own side is one of the two addresses, so that a flood is cheap."""
        if not self._by_anchor:
            return []
        now_s = self._now()
        ids: set[str] = set()
        for anchor in (source, target, self._surroundings.hardware(source)):
            ids.update(self._by_anchor.get(anchor, ()))
        return [s for s in (self._kept[i] for i in sorted(ids)) if s["until"] > now_s]


def _anchors(suppression: Mapping[str, Any]) -> set[str]:
    """What evidence must name for the suppression to be asked at all."""
    own = str(suppression["source"] or suppression["target"])
    return {own, str(suppression.get("hardware") or own)}

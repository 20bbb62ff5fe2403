"""What an admin said not to tell again: which evidence a suppression hides, and how much it hid.

A suppression names a subpattern and a source (or, where sources are many, a target), and the
target and port where the incident it came from had just one. It hides new evidence only, ends
by itself after 30 days and counts what it hides. Not locked: the incident room calls it under
its own lock and hands in `later`, through which writes leave that lock.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import words
from batches import Finding, FlowRecord
from store import Document

__all__ = ["LASTS_S", "SCOPES", "SUPPRESSION", "Suppressions", "drawn_from", "hides"]

LASTS_S: Final = 30 * 86_400
"""A suppression lasts this long, seconds."""
SCOPES: Final = ("narrow", "wide")
"""narrow: same source, pattern, target and service; wide: same source and pattern."""
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

Suppression = dict[str, Any]
Later = Callable[[Callable[[], None]], None]


def drawn_from(incident: Mapping[str, Any], scope: str, reason: str, now_s: float) -> Suppression:
    """The suppression that a false positive on `incident` makes; without an id yet."""
    by_target = incident["key_is"] == "target"
    targets, ports = incident["targets"], incident["ports"]
    one_target = incident["dst_ip"] if len(targets) == 1 and scope == "narrow" else None
    suppression: Suppression = {
        "id": "",
        "time": now_s,
        "timestamp": words.local_timestamp(now_s),
        "until": now_s + LASTS_S,
        "pattern": incident["pattern"],
        "subpattern": incident["subpattern"],
        "source": None if by_target else incident["src_ip"],
        "target": incident["dst_ip"] if by_target else one_target,
        "port": ports[0] if len(ports) == 1 and scope == "narrow" else None,
        "protocol": incident["protocol"],
        "reason": reason,
        "incident": incident["id"],
        "hits": 0,
        # Packet time of what it hid last; the incident's own evidence counts as the first.
        "last_time": incident["last_time"],
    }
    suppression["scope"] = words.suppression_scope(suppression)
    return suppression


def hides(
    suppression: Mapping[str, Any],
    subpattern: str,
    source: str | None,
    targets: Iterable[str],
    ports: Iterable[int],
) -> bool:
    """Whether evidence lies wholly within the suppression; `source` None = many sources."""
    if suppression["subpattern"] != subpattern:
        return False
    if suppression["source"] is not None and suppression["source"] != source:
        return False
    if suppression["target"] is not None and set(targets) != {suppression["target"]}:
        return False
    return suppression["port"] is None or set(ports) == {suppression["port"]}


class Suppressions:
    """The active suppressions and their hits."""

    def __init__(self, document: Document, later: Later, now: Callable[[], float]) -> None:
        self._document = document
        self._later = later
        self._now = now
        self._kept: dict[str, Suppression] = {}
        self._by_anchor: dict[str, list[str]] = {}
        for suppression in document.records():
            self._keep(suppression)
        self._put_at: dict[str, float] = {}
        self._unsaved: set[str] = set()

    def in_force(self) -> list[Suppression]:
        """Newest first, those in force."""
        now_s = self._now()
        return [dict(s) for s in reversed(self._kept.values()) if s["until"] > now_s]

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
            anchored = self._by_anchor[_anchor(suppression)]
            anchored.remove(suppression_id)
            if not anchored:
                del self._by_anchor[_anchor(suppression)]
            self._unsaved.discard(suppression_id)
            self._put_at.pop(suppression_id, None)
            self._later(lambda: self._document.delete(suppression_id))

    # Evidence asks in this order: is it hidden by one of its own pattern, or does it only
    # follow something that was hidden a moment ago.

    def of_finding(self, finding: Finding) -> str | None:
        """The id of the suppression that hides this finding, None if none does."""
        source = finding.source if finding.key_is == "source" else None
        targets = {finding.target, *finding.targets} - {""}
        for suppression in self._near(finding.source, finding.target):
            if hides(suppression, finding.subpattern, source, targets, finding.ports):
                return str(suppression["id"])
        return None

    def of_flow(self, flow: FlowRecord, subpattern: str) -> str | None:
        """The id of the suppression that hides this flow as evidence of `subpattern`."""
        source, target, port = flow["src_ip"], flow["dst_ip"], flow["dst_port"]
        for suppression in self._near(source, target):
            if hides(suppression, subpattern, source, {target}, {port}):
                return str(suppression["id"])
        return None

    def followed_by(self, flow: FlowRecord, window_s: float) -> str | None:
        """The id of a suppression whose hidden evidence this flow belongs to.

        A flow joins the open incident of its source; where that incident was marked a false
        positive it joins what is hidden, or the flows of one scan would tell it again.
        """
        for suppression in self._near(flow["src_ip"], flow["dst_ip"]):
            near = abs(flow["time"] - suppression["last_time"]) <= window_s
            if near and hides(
                suppression,
                suppression["subpattern"],
                flow["src_ip"] if suppression["source"] else None,
                {flow["dst_ip"]},
                {flow["dst_port"]},
            ):
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
            self._by_anchor.setdefault(_anchor(suppression), []).append(suppression["id"])
        self._kept[suppression["id"]] = suppression

    def _near(self, source: str, target: str) -> list[Suppression]:
        """Those in force whose own side is one of the two addresses, so that a flood is cheap."""
        if not self._by_anchor:
            return []
        now_s = self._now()
        ids = {*self._by_anchor.get(source, ()), *self._by_anchor.get(target, ())}
        return [s for s in (self._kept[i] for i in sorted(ids)) if s["until"] > now_s]


def _anchor(suppression: Mapping[str, Any]) -> str:
    return str(suppression["source"] or suppression["target"])

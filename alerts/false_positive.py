"""What marking an incident as a false positive does, worked out for preview and action alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import words
from alerts.ledger import Ledger
from alerts.record import OPEN, Record
from alerts.suppressions import SCOPES, Suppression, drawn_from, hides
from batches import FlowRecord
from errors import UsageError

__all__ = ["FalsePositive", "plan"]

FAR_ABOVE: Final = 10.0
"""A deviation beyond this many times the usual range is not learned without a warning."""


@dataclass(frozen=True, slots=True)
class FalsePositive:
    """What marking an incident would do; the preview shows it, the action does it.

    closes: ids that leave OPEN, the incident itself first. flows: evidence that can be learned.
    suppression: what will be hidden from then on (None where nothing could repeat).
    hidden_7_days: incidents of the last 7 days it would have hidden, this one included.
    """

    record: Record
    closes: tuple[str, ...]
    flows: tuple[FlowRecord, ...]
    suppression: Suppression | None
    hidden_7_days: int
    warning: str | None
    learn_default: bool


def plan(
    record: Record,
    scope: str,
    ledger: Ledger,
    *,
    now_s: float,
    since_s: float,
    can_learn: bool,
) -> FalsePositive:
    """Work it out from what is known now.

    scope: narrow or wide. now_s: the time of the decision. since_s: incidents with evidence
    after it count as the last seven days'. can_learn: there is a live baseline.
    """
    if scope not in SCOPES:
        raise UsageError(f"The scope {scope[:40]!r} is unknown. It can be narrow or wide.")
    suppression = None
    closes = [record["id"]]
    hidden = 1
    if record["key_is"] != "summary":
        reason = f"{words.bare(record['title'])} was marked as a false positive"
        suppression = drawn_from(record, scope, reason, now_s)
        like = [r for r in ledger.records.values() if _would_hide(suppression, r)]
        others = [r for r in like if r["id"] != record["id"]]
        closes += [r["id"] for r in others if r["status"] == OPEN]
        hidden += sum(r["last_time"] >= since_s for r in others)
    flows = tuple(
        flow
        for incident_id in closes
        for flow in ledger.evidence(incident_id)
        if flow["features"] and all(map(math.isfinite, flow["features"]))
    )
    warning = words.learning_warning(record, _farthest(flows), _rarest(flows))
    learns = can_learn and bool(flows) and warning is None
    return FalsePositive(record, tuple(closes), flows, suppression, hidden, warning, learns)


def _would_hide(suppression: Suppression, record: Record) -> bool:
    source = record["src_ip"] if record["key_is"] == "source" else None
    return hides(suppression, record["subpattern"], source, record["targets"], record["ports"])


def _farthest(flows: tuple[FlowRecord, ...]) -> dict[str, Any] | None:
    """The deviation farthest outside its usual range, where it is beyond FAR_ABOVE."""
    far = [d for flow in flows for d in flow["deviations"] if (d["ratio"] or 0) > FAR_ABOVE]
    return max(far, key=lambda deviation: float(deviation["ratio"]), default=None)


def _rarest(flows: tuple[FlowRecord, ...]) -> int | None:
    """The reference that a flow is rarer than the whole of, None if none is."""
    beyond = [int(f["rarity"]["reference"]) for f in flows if f["rarity"].get("beyond")]
    return max(beyond, default=None)

"""What judging an incident harmless does, worked out for preview and action alike.

A false positive is normal after all: it is hidden, and the live model may learn it. What was
expected is true and harmless: it is hidden and not learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import decision_words
from alerts.ledger import Ledger
from alerts.record import OPEN, Record
from alerts.scope import (
    FLOW_PATTERNS,
    SCOPES,
    Suppression,
    Surroundings,
    covers,
    drawn_from,
    in_scope,
    learnable,
    of_flow,
    of_record,
)
from batches import FlowRecord
from errors import UsageError

__all__ = ["HARMLESS", "Harmless", "plan"]

FAR_ABOVE: Final = 10.0
"""A deviation beyond this many times the usual range is not learned without a warning."""
HARMLESS: Final = ("false", "expected")


@dataclass(frozen=True, slots=True)
class Harmless:
    """What judging an incident harmless would do; the preview shows it, the action does it.

    verdict: false or expected. closes: ids that leave OPEN, the incident itself first. flows:
    evidence that can be learned. suppression: what will be hidden from then on (None where
    nothing could repeat). hidden_incidents, hidden_flows: of the last 7 days, those it would
    have hidden, this incident included. attacks: the bundled ones it would hide. learning: why
    to think learning over, None where nothing speaks against it.
    """

    record: Record
    verdict: str
    closes: tuple[str, ...]
    flows: tuple[FlowRecord, ...]
    suppression: Suppression | None
    hidden_incidents: int
    hidden_flows: int
    learning: str | None
    can_learn: bool
    attacks: tuple[Mapping[str, Any], ...] = ()

    def unconfirmed(self) -> Harmless:
        """For a too wide one that hides single flows: this incident alone, and nothing after it."""
        own = tuple(flow for flow in self.flows if flow["incident"] == self.record["id"])
        return replace(
            self,
            closes=self.closes[:1],
            flows=own,
            suppression=None,
            hidden_incidents=1,
            hidden_flows=len(self.record["flows"]),
        )

    def weighed(self, attacks: Sequence[Mapping[str, Any]]) -> Harmless:
        """With the attacks that the suppression would hide."""
        return replace(self, attacks=tuple(attacks))

    @property
    def wide(self) -> list[str]:
        """Why its suppression is too wide; empty where it is not."""
        return decision_words.wide_warnings(self.suppression, self.attacks)

    @property
    def learn_default(self) -> bool:
        unclear = self.learning is not None or bool(self.attacks)
        return self.can_learn and bool(self.flows) and not unclear

    def told(self) -> dict[str, Any]:
        """The preview's answer."""
        suppression, wide = self.suppression, self.wide
        warnings = [*wide, *([self.learning] if self.learning else [])]
        said = decision_words.consequences(
            self.verdict,
            len(self.closes),
            len(self.flows),
            self.learn_default,
            suppression,
            (self.hidden_incidents, self.hidden_flows),
        )
        otherwise = decision_words.tight_instead(suppression) if wide and suppression else None
        bounds = ("until", "direction", "limit", "line", "up_to", "radius", "model")
        return {
            "verdict": self.verdict,
            "sentences": said,
            "closes": [*self.closes],
            "flows": len(self.flows),
            "hidden_7_days": self.hidden_incidents,
            "hidden_flows_7_days": self.hidden_flows,
            "scope": suppression["scope"] if suppression else "",
            "bounds": {name: suppression.get(name) for name in bounds} if suppression else None,
            "attacks": [dict(one) for one in self.attacks],
            "too_wide": bool(wide),
            "unconfirmed": otherwise,
            "warning": " ".join(warnings) or None,
            "warnings": warnings,
            "learn_default": self.learn_default,
        }


def plan(
    record: Record,
    verdict: str,
    scope: str,
    ledger: Ledger,
    surroundings: Surroundings,
    logged: Callable[[], Iterable[FlowRecord]],
    *,
    now_s: float,
    since_s: float,
    can_learn: bool,
    tight: bool = False,
) -> Harmless:
    """Work it out from what is known now.

    scope: narrow or wide. logged: the ALERT flows of the log. now_s: the time of the decision.
    since_s: incidents with evidence after it count as the last seven days'. can_learn: there is
    a live baseline. tight: hide no more than what was seen.
    """
    if scope not in SCOPES:
        raise UsageError(f"The scope {scope[:40]!r} is unknown. It can be narrow or wide.")
    suppression = None
    closes = [record["id"]]
    hidden = [record]
    own = ledger.evidence(record["id"])
    if record["key_is"] != "summary":
        suppression = drawn_from(
            record,
            scope,
            decision_words.reason(record["title"], verdict),
            now_s,
            own,
            surroundings,
            tight=tight,
        )
        suppression["verdict"] = verdict
        for other in ledger.records.values():
            if other["id"] != record["id"] and _hides(suppression, other, ledger, surroundings):
                if other["status"] == OPEN:
                    closes.append(other["id"])
                if other["last_time"] >= since_s:
                    hidden.append(other)
    of_flows = {flow_id for one in hidden for flow_id in one["flows"]}
    if suppression is not None and suppression["subpattern"] in FLOW_PATTERNS:
        of_flows |= _hidden_in_log(suppression, logged(), since_s, surroundings)
    flows = learnable(flow for one in closes for flow in ledger.evidence(one))
    return Harmless(
        record=record,
        verdict=verdict,
        closes=tuple(closes),
        flows=flows,
        suppression=suppression,
        hidden_incidents=len(hidden),
        hidden_flows=len(of_flows),
        learning=(
            decision_words.learning_warning(record, _farthest(flows), _rarest(flows))
            if verdict == "false"
            else None
        ),
        can_learn=can_learn and verdict == "false",
    )


def _hides(
    suppression: Suppression, record: Record, ledger: Ledger, surroundings: Surroundings
) -> bool:
    of_flows = record["subpattern"] in FLOW_PATTERNS
    flows = ledger.evidence(record["id"]) if of_flows else ()
    return covers(suppression, of_record(record, flows), surroundings)


def _hidden_in_log(
    suppression: Suppression,
    logged: Iterable[FlowRecord],
    since_s: float,
    surroundings: Surroundings,
) -> set[str]:
    """Ids of the log's flows since then that it would have hidden; those of which the values are
    not known any more do not count."""
    found = [
        flow
        for flow in logged
        if flow["time"] >= since_s
        and flow.get("features")
        and in_scope(suppression, of_flow(flow, suppression["subpattern"]), surroundings)
    ]
    # Asked at once: a busy device may have thousands.
    alike = surroundings.like(suppression["centres"], [flow["features"] for flow in found])
    return {flow["id"] for flow, like in zip(found, alike, strict=True) if like}


def _farthest(flows: tuple[FlowRecord, ...]) -> dict[str, Any] | None:
    """The deviation farthest outside its usual range, where it is beyond FAR_ABOVE."""
    far = [d for flow in flows for d in flow["deviations"] if (d["ratio"] or 0) > FAR_ABOVE]
    return max(far, key=lambda deviation: float(deviation["ratio"]), default=None)


def _rarest(flows: tuple[FlowRecord, ...]) -> int | None:
    """The reference that a flow is rarer than the whole of, None if none is."""
    beyond = [int(f["rarity"]["reference"]) for f in flows if f["rarity"].get("beyond")]
    return max(beyond, default=None)

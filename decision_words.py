"""Sentences about what a person decides on an incident: what it does, hides, and takes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from units import count, number
from words import bare, plain, title

__all__ = [
    "consequences",
    "learning_warning",
    "reason",
    "suppression_scope",
    "tight_instead",
    "told_hits",
    "wide_warnings",
]

TITLES_TOLD: Final = 3
_JUDGED: Final = {"false": "was marked as a false positive", "expected": "was expected"}


def reason(title_: str, verdict: str) -> str:
    """Why a suppression is there: "Port scan from 10.0.0.5 was expected"."""
    return f"{bare(title_)} {_JUDGED[verdict]}"


def suppression_scope(suppression: Mapping[str, Any]) -> str:
    """What a suppression hides, in words: "Port scan from 10.0.0.5 to 10.0.0.9 on port 22"."""
    source, target, port = suppression["source"], suppression["target"], suppression["port"]
    few = suppression.get("targets") or []
    target = target or (few[0] if few else None)
    named = title(
        {
            "subpattern": suppression["subpattern"],
            "pattern": suppression["pattern"],
            "src_ip": source or "any source",
            "dst_ip": target or "any target",
            "ports": [port] if port else [],
            "protocol": suppression["protocol"],
        }
    )
    # A name of two words is no name from traffic.
    named = named.replace("any-source", "any source").replace("any-target", "any target")
    # Whole words: 10.0.0.1 is not named where 10.0.0.10 is.
    parts = named.split()
    if source and plain(source) not in parts:
        parts += ["from", plain(source)]
    if target and plain(target) not in parts:
        parts += ["to", plain(target)]
    if target and few:
        # Right behind the target, or they would be taken for other sources.
        parts.insert(parts.index(plain(target)) + 1, f"and {count(len(few) - 1, 'other')}")
    if port and f"port {port}" not in named:
        parts.append(f"on port {port}")
    return " ".join(parts)


def learning_warning(
    incident: Mapping[str, Any], farthest: Mapping[str, Any] | None, reference: int | None
) -> str | None:
    """Why learning an incident's flows should be thought over; None where nothing speaks against.

    farthest: the deviation farthest beyond its usual range; reference: the number of normal
    flows that one of the flows is rarer than all of.
    """
    if farthest is not None:
        side = "below" if float(farthest["value"]) < float(farthest["low"]) else "above"
        times = number(float(farthest["ratio"]))
        who = plain((incident.get("names") or {}).get("src") or incident["src_ip"])
        return (
            f"{farthest['label']} is {times} times {side} the usual range. Learning it would "
            f"hide traffic of this kind from {who}."
        )
    if reference is not None:
        return (
            f"A flow is rarer than all {reference:,} normal flows. Learning it would make "
            "it one of them."
        )
    if incident["severity"] == "CRITICAL":
        return "This incident is critical. Learning it would let the Live model take it for normal."
    return None


def wide_warnings(
    suppression: Mapping[str, Any] | None, attacks: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Why hiding this is too wide, one sentence each; empty where it is not.

    attacks: the bundled ones it would hide, with their titles.
    """
    told = []
    if suppression is not None and suppression["source"] is None:
        told.append("It would hide this from any source.")
    if attacks:
        titles = [str(one["title"]) for one in attacks[:TITLES_TOLD]]
        if len(attacks) > TITLES_TOLD:
            titles.append(count(len(attacks) - TITLES_TOLD, "other attack"))
        told.append(f"It would also hide attacks like {_listed(titles)}.")
    return told


def tight_instead(suppression: Mapping[str, Any]) -> str:
    """What is done with a too wide suppression that is not confirmed."""
    if suppression.get("limit") is not None:
        return "Otherwise no more than what was seen is hidden."
    return "Otherwise nothing is hidden from now on."


def consequences(
    verdict: str,
    closes: int,
    flows: int,
    learns: bool,
    suppression: Mapping[str, Any] | None,
    hidden: tuple[int, int],
) -> list[str]:
    """What judging an incident harmless does, one sentence each.

    verdict: false or expected. closes: open incidents that leave the list, itself included.
    hidden: (incidents, flows) of the last 7 days that the suppression would have hidden.
    """
    said = ["This incident leaves the list. No similar one is open."]
    if closes > 1:
        said = [f"This incident and {count(closes - 1, 'similar open one')} leave the list."]
    if verdict == "expected":
        said.append("The Live model learns nothing from it.")
    elif not flows:
        said.append("The Live model learns nothing: no single flow was the evidence.")
    elif learns:
        said.append(f"{_joins(flows, 'joins', 'join')} the normal flows of the Live model.")
    else:
        said.append(f"{_joins(flows, 'joins', 'join')} the Live model only if you choose to learn.")
    if suppression is not None:
        bound = _bound(suppression)
        said.append(
            f"For 30 days this is hidden and counted: {suppression['scope']}."
            f"{f' {bound}' if bound else ''}"
        )
        incidents, of_flows = hidden
        and_flows = f" and {count(of_flows, 'flow')}" if of_flows else ""
        said.append(
            f"It would have hidden {count(incidents, 'incident')}{and_flows} of the last 7 days, "
            "this one included."
        )
    return said


def _bound(suppression: Mapping[str, Any]) -> str | None:
    """What is still told."""
    if suppression.get("up_to") is not None:
        seen = "what was seen" if suppression["tight"] else "half more than what was seen"
        return f"Anything beyond {seen} is still told."
    if suppression.get("radius") is not None:
        return "Flows that do not look like these are still told."
    return None


def told_hits(hits: int) -> str:
    """What a suppression that is taken back had hidden."""
    return f"It had hidden {count(hits, 'alert')}." if hits else "It had hidden nothing."


def _joins(flows: int, one: str, many: str) -> str:
    return f"{count(flows, 'flow')} {one if flows == 1 else many}"


def _listed(items: Sequence[str]) -> str:
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} and {items[-1]}"

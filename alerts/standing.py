"""What an admin keeps quiet by hand: suppressions and the whitelist."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import words
from alerts.desk import Desk, text_of
from alerts.record import PATTERNS
from alerts.scope import by_hand
from alerts.suppressions import shown
from errors import UsageError

__all__ = ["Standing"]


class Standing:
    """Suppressions and trusted addresses that no incident asked for.

    set_whitelist, whitelist: the list, changed and read under the room's lock.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        set_whitelist: Callable[[list[str]], None],
        whitelist: Callable[[], list[str]],
    ) -> None:
        self._desk = desk
        self._set_whitelist = set_whitelist
        self._whitelist = whitelist

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
        desk = self._desk
        with desk.one_action(), desk.changing():
            for known in desk.suppressions.in_force():
                named = (known["subpattern"], known["source"], known["target"], known["port"])
                if named == (subpattern, source, target, port):
                    undo = self._undo_of(known["id"], "after")
                    return {"suppression": shown(known), "undo": undo}
            drawn = by_hand(
                subpattern,
                PATTERNS[subpattern],
                source=source,
                target=target,
                port=port,
                reason=text_of(reason) if reason else "",
                now_s=desk.now(),
            )
            suppression = {**drawn, "id": desk.suppressions.new_id()}
            step = desk.suppress(suppression)
            sentence = f"Told again from now on: {words.bare(suppression['scope'])}."
            token = desk.book.add("suppression", sentence, [step])
            return {"suppression": shown(suppression), "undo": token}

    def remove_suppression(self, suppression_id: str) -> dict[str, Any]:
        desk = self._desk
        with desk.one_action(), desk.changing():
            suppression = desk.suppressions.get(suppression_id)
            if suppression is None:
                return {"removed": True, "undo": self._undo_of(suppression_id, "before")}
            desk.suppressions.remove(suppression_id)
            step = {"kind": "suppression", "before": suppression, "after": None}
            sentence = f"Hidden again: {words.bare(suppression['scope'])}."
            return {"removed": True, "undo": desk.book.add("suppression", sentence, [step])}

    def _undo_of(self, suppression_id: str, side: str) -> str | None:
        return self._desk.book.last(
            lambda step: (
                step["kind"] == "suppression" and (step[side] or {}).get("id") == suppression_id
            )
        )

    def trust(self, wanted: Callable[[list[str]], list[str]]) -> dict[str, Any]:
        """Change the whitelist to what `wanted` makes of it (already checked entries)."""
        desk = self._desk
        with desk.one_action(), desk.changing():
            before = self._whitelist()
            after = wanted(before)
            if after == before:
                token = desk.book.last(lambda s: s["kind"] == "whitelist" and s["after"] == after)
                return {"trusted_ips": after, "undo": token}
            self._set_whitelist(after)
            step = {"kind": "whitelist", "before": before, "after": after}
            sentence = "The whitelist is what it was before."
            return {"trusted_ips": after, "undo": desk.book.add("whitelist", sentence, [step])}

    # What undo asks.

    def check(self, step: dict[str, Any]) -> None:
        """UsageError where the whitelist was changed since."""
        if step["kind"] == "whitelist" and self._whitelist() != step["after"]:
            raise UsageError("The whitelist was changed since. Take back the newer change first.")

    def take_back(self, step: dict[str, Any]) -> None:
        if step["kind"] == "whitelist":
            self._set_whitelist(step["before"])


def _address(text: str) -> str:
    """As flows and findings write it, or it would never hide anything."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no address. Write an IPv4 or IPv6 address.") from None

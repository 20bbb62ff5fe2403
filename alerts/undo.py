"""What each admin action changed, kept for seven days so that it can be taken back.

An entry holds steps, each with the fields an action changed and what they were before; the
incident room takes them back. It also holds the action's answer, so that the same request sent
twice gets the same answer. Not locked: the incident room calls it under its own lock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from store import Document

__all__ = ["ENTRY", "KEPT_S", "UndoBook"]

KEPT_S: Final = 7 * 86_400
"""An action can be taken back for this long, seconds."""
LIMIT: Final = 5_000
"""Entries kept; the oldest go first."""

ENTRY: Final[dict[str, Any]] = {
    "time": 0.0,
    "until": 0.0,
    "action": "",
    "sentence": "",
    "steps": [],
    "answer": {},
    "used": False,
}
"""What an entry on the disk must have."""

Entry = dict[str, Any]


class UndoBook:
    """Undo entries by token."""

    def __init__(
        self,
        document: Document,
        later: Callable[[Callable[[], None]], None],
        now: Callable[[], float],
    ) -> None:
        self._document = document
        self._later = later
        self._now = now
        self._entries: dict[str, Entry] = {e["id"]: e for e in document.records()}

    def add(self, action: str, sentence: str, steps: list[dict[str, Any]]) -> str:
        """Remember an action; returns its token. `sentence` says what undoing it does."""
        token = secrets.token_hex(12)
        now_s = self._now()
        self._put(
            {
                "id": token,
                "time": now_s,
                "until": now_s + KEPT_S,
                "action": action,
                "sentence": sentence,
                "steps": steps,
                "answer": {},
                "used": False,
            }
        )
        for excess in list(self._entries)[:-LIMIT]:
            self._drop(excess)
        return token

    def get(self, token: str) -> Entry | None:
        """The entry, None when it is unknown or older than seven days."""
        entry = self._entries.get(token)
        return entry if entry and entry["until"] > self._now() else None

    def last(self, matches: Callable[[dict[str, Any]], bool]) -> str | None:
        """The newest token of an action not taken back that has a step for which this holds."""
        now_s = self._now()
        for entry in reversed(self._entries.values()):
            if not entry["used"] and entry["until"] > now_s and any(map(matches, entry["steps"])):
                return str(entry["id"])
        return None

    def can_undo(self, token: str | None) -> bool:
        entry = self.get(token) if token else None
        return entry is not None and not entry["used"]

    def answer(self, token: str, answer: dict[str, Any]) -> None:
        """Keep what was answered, for the same request sent again."""
        if entry := self._entries.get(token):
            self._put({**entry, "answer": answer})

    def spend(self, token: str, *, hits: int | None = None) -> None:
        """It was taken back. hits: what the suppression that went with it had hidden."""
        self._put({**self._entries[token], "used": True, "hits": hits})

    def expire(self, now_s: float) -> None:
        for token in [t for t, e in self._entries.items() if e["until"] <= now_s]:
            self._drop(token)

    def _put(self, entry: Entry) -> None:
        self._entries[entry["id"]] = entry
        self._later(lambda: self._document.put(entry))

    def _drop(self, token: str) -> None:
        del self._entries[token]
        self._later(lambda: self._document.delete(token))

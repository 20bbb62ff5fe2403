"""What one setting may be: its kind, range and checks, and how a value of it is read."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "About",
    "Network",
    "Value",
    "a_host",
    "a_number",
    "a_path",
    "a_text",
    "names",
    "networks",
    "one_line",
]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Value: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the table says about a setting beside its type and default.

    low, high: the allowed range, both included. form: the allowed texts in words. check: raises
    ValueError for a text that is not. path: relative values stand against the place they come
    from. page: False where the page can't save it. restart: a change needs a new start.
    """

    help: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    form: str = ""
    check: Callable[[str], object] | None = None
    path: bool = False
    page: bool = True
    restart: bool = True

    def allowed(self, kind: type[Value]) -> str:
        """What is allowed, in words."""
        if self.form:
            return self.form
        unit = f" {self.unit}" if self.unit else ""
        whole = "a whole number" if kind is int else "a number"
        return f"{whole} from {self.low:g} to {self.high:.12g}{unit}"

    def accepted(self, kind: type[Value], raw: object) -> Value:
        """`raw` in the setting's own type; ValueError where it is not allowed."""
        value = _converted(kind, raw)
        # Written so that NaN fails too.
        if isinstance(value, int | float) and not self.low <= value <= self.high:
            raise ValueError("out of range")
        if self.check and isinstance(value, str):
            self.check(value)
        return value


def _converted(kind: type[Value], raw: object) -> Value:
    """A text becomes a number where one is wanted; nothing else changes its type."""
    if kind is str:
        if not isinstance(raw, str):
            raise ValueError("it is not text")
        return raw
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError("it is not a number")
    if kind is int and isinstance(raw, float):
        raise ValueError("it is not a whole number")
    return int(raw) if kind is int else float(raw)


def names(text: str) -> tuple[str, ...]:
    """The names of a comma list, each once; ValueError for control characters."""
    one_line(text)
    entries = (entry.strip() for entry in text.split(","))
    return tuple(dict.fromkeys(entry for entry in entries if entry))


def networks(text: str) -> tuple[Network, ...]:
    """The networks of a comma list; ValueError names the entry that is none."""
    entries = (entry.strip() for entry in text.split(","))
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries if entry)


def one_line(text: str) -> None:
    """ValueError for a text with control characters."""
    if not text.isprintable():
        raise ValueError("it holds control characters")


def a_host(text: str) -> None:
    """ValueError for a text that can be no address and no host name."""
    one_line(text)
    if not text or " " in text or "/" in text:
        raise ValueError("it is no address")


def _not_empty(text: str) -> None:
    one_line(text)
    if not text.strip():
        raise ValueError("it is empty")


def a_path(help_text: str, form: str = "a folder", *, page: bool = True) -> About:
    return About(help=help_text, form=form, check=_not_empty, path=True, page=page)


def a_text(
    help_text: str, form: str, check: Callable[[str], object], *, page: bool = True
) -> About:
    return About(help=help_text, form=form, check=check, page=page)


def a_number(help_text: str, low: float, high: float, unit: str = "", **more: Any) -> About:
    return About(help=help_text, low=low, high=high, unit=unit, **more)

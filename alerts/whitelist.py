"""Addresses the admin trusts: data/whitelist.json, edited on the page or by hand.

The file keeps the specification's shape, `{"trusted_ips": ["192.168.1.1", "10.0.0.0/24"]}`;
addresses and networks, IPv4 and IPv6. An edit by hand is taken over by `reread`; a broken one
is told and the last good list stays. Not locked: the incident room calls it under its own lock.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from errors import UsageError
from store import Document

__all__ = ["Whitelist", "checked"]

LIMIT: Final = 4_096
"""Entries at most."""
_LAG_S: Final = 5.0
"""For this long a file that still shows our own last value but one is taken for a change that
is being written, not for an edit by hand."""
_CACHED: Final = 65_536
"""Addresses whose answer is remembered, so that a flood asks each one once."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_log = logging.getLogger("secureflux.alerts")


def checked(entries: Any) -> list[str]:
    """`entries` in canonical form without repeats; UsageError names the first bad one."""
    if not isinstance(entries, list | tuple):
        raise UsageError('The whitelist is no list. Write {"trusted_ips": ["192.168.1.1"]}.')
    if len(entries) > LIMIT:
        raise UsageError(f"The whitelist has more than {LIMIT:,} entries. Use networks instead.")
    return list(dict.fromkeys(str(_written(_network(entry))) for entry in entries))


def _network(entry: Any) -> _Network:
    try:
        network = ipaddress.ip_network(entry.strip(), strict=False)
    except (AttributeError, ValueError):
        raise UsageError(
            f"{str(entry)[:80]!r} is no address. Write an IPv4 or IPv6 address or a network, "
            "like 192.168.1.1, 10.0.0.0/24 or fd00::/64."
        ) from None
    if network.prefixlen == 0:
        raise UsageError(f"{entry!r} would trust every address. Name a smaller network.")
    return network


def _written(network: _Network) -> _Network | ipaddress.IPv4Address | ipaddress.IPv6Address:
    return network.network_address if network.prefixlen == network.max_prefixlen else network


class Whitelist:
    """The trusted addresses and how the file on disk follows them, or they the file."""

    def __init__(self, document: Document, later: Callable[[Callable[[], None]], None]) -> None:
        self._document = document
        self._path = document.path
        self._later = later
        self._entries: list[str] = []
        self._networks: list[_Network] = []
        self._answers: dict[str, bool] = {}
        self._notice: str | None = None
        self._stamp = _stamp(document.path)
        self._superseded: dict[str, float] = {}
        value = document.value()
        if value:
            try:
                self._take(_trusted(value))
            except UsageError as error:
                self._tell(error)

    def entries(self) -> list[str]:
        return list(self._entries)

    def notice(self) -> str | None:
        return self._notice

    def trusts(self, address: str) -> bool:
        """Whether `address` (text of an IPv4 or IPv6 address) is on the list."""
        if not self._networks:
            return False
        answer = self._answers.get(address)
        if answer is None:
            if len(self._answers) >= _CACHED:
                self._answers.clear()
            answer = self._answers[address] = self._contains(address)
        return answer

    def _contains(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def set(self, entries: Sequence[str], now_s: float) -> None:
        """Replace the list (already `checked`) and write it."""
        self._superseded = {k: t for k, t in self._superseded.items() if now_s - t < _LAG_S}
        self._superseded[_canonical(self._entries)] = now_s
        self._take(list(entries))
        self._notice = None
        value = {"trusted_ips": list(entries)}
        self._later(lambda: self._document.replace(value))

    def reread(self, now_s: float) -> bool:
        """Take over an edit by hand; True when the list changed. Cheap while the file rests."""
        stamp = _stamp(self._path)
        if stamp is None or stamp == self._stamp:
            return False
        try:
            found = _trusted(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            self._stamp = stamp
            self._tell(error)
            return False
        except UsageError as error:
            self._stamp = stamp
            self._tell(error)
            return False
        if found == self._entries:
            self._stamp, self._notice = stamp, None
            return False
        if now_s - self._superseded.get(_canonical(found), -_LAG_S) < _LAG_S:
            return False  # our own earlier snapshot; looked at again at the next call
        self._stamp = stamp
        self.set(found, now_s)
        _log.info("whitelist.json was edited by hand: %d entries now", len(found))
        return True

    def _take(self, entries: list[str]) -> None:
        self._entries = entries
        self._networks = [_network(entry) for entry in entries]
        self._answers.clear()

    def _tell(self, error: Exception) -> None:
        reason = str(error) if isinstance(error, UsageError) else f"It can't be read ({error})."
        self._notice = f"whitelist.json is not taken over, the last good list stays. {reason}"
        _log.warning(self._notice)


def _trusted(value: Any) -> list[str]:
    if not isinstance(value, dict):
        raise UsageError('The whitelist is no object. Write {"trusted_ips": ["192.168.1.1"]}.')
    return checked(value.get("trusted_ips", []))


def _canonical(entries: Sequence[str]) -> str:
    return "\n".join(entries)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino

"""Which hardware address stands behind an inside address now, as the flows show it.

A device keeps its hardware address when DHCP or IPv6 gives it another address. One that sends
from an outside address, or from many inside ones, is a router: it stands for nobody. Not locked:
the incident room calls it under its own lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from addresses import addresses_of
from batches import Rows

__all__ = ["Hardware"]

KEPT: Final = 8_192
"""Addresses and devices remembered, the one seen first goes first; about 0.2 kB each."""
ADDRESSES_OF_ONE: Final = 16
"""Inside addresses of one device: IPv4, link-local, and a week of temporary ones of IPv6."""
ROWS_AT_ONCE: Final = 1_024
"""Flows of a batch that are looked at; a flood shows its few devices as well in these."""


class Hardware:
    """Addresses to hardware addresses. is_local: whether an address is inside."""

    def __init__(self, is_local: Callable[[str], bool]) -> None:
        self._is_local = is_local
        self._of: OrderedDict[str, int] = OrderedDict()
        self._addresses: OrderedDict[int, set[str]] = OrderedDict()
        self._routers: set[int] = set()

    def see(self, rows: Rows) -> None:
        """(n,) of dtype FLOW: the sources' addresses and hardware addresses."""
        rows = rows[:ROWS_AT_ONCE]
        pairs = set(zip(addresses_of(rows, "src"), rows["src_mac"].tolist(), strict=True))
        for address, mac in pairs:
            if mac and self._of.get(address) != mac and mac not in self._routers:
                self._learn(address, mac)

    def __call__(self, address: str) -> str:
        """Like "00:11:22:33:44:55"; "" where unknown."""
        mac = self._of.get(address, 0)
        return mac.to_bytes(6, "big").hex(":") if mac and mac not in self._routers else ""

    def _learn(self, address: str, mac: int) -> None:
        if not self._is_local(address):
            self._stands_for_nobody(mac)
            return
        known = self._addresses.setdefault(mac, set())
        known.add(address)
        if len(known) > ADDRESSES_OF_ONE:
            self._stands_for_nobody(mac)
            return
        self._of[address] = mac
        if len(self._of) > KEPT:
            gone, before = self._of.popitem(last=False)
            self._addresses.get(before, set()).discard(gone)
        if len(self._addresses) > KEPT:
            self._forget(next(iter(self._addresses)))

    def _stands_for_nobody(self, mac: int) -> None:
        if len(self._routers) < KEPT:
            self._routers.add(mac)
        self._forget(mac)

    def _forget(self, mac: int) -> None:
        for address in self._addresses.pop(mac, ()):
            if self._of.get(address) == mac:
                del self._of[address]

"""Addresses: from the integers of a row to text, and which of them are inside this network."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Literal

from batches import Rows

__all__ = ["LocalNetworks", "Side", "address_of", "address_text", "addresses_of"]

Side = Literal["src", "dst"]
"""Whose address of a row."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PRIVATE: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",  # link-local, RFC 3927
        "127.0.0.0/8",
        "fc00::/7",  # unique local, RFC 4193
        "fe80::/10",  # link-local, RFC 4291
        "::1/128",
    )
)


@lru_cache(maxsize=65_536)
def address_text(high: int, low: int, version: int) -> str:
    """The canonical text of an address held as two unsigned 64-bit halves."""
    if version == 6:
        return str(ipaddress.IPv6Address((high << 64) | low))
    return socket.inet_ntoa((low & 0xFFFFFFFF).to_bytes(4, "big"))  # thrice as fast


def address_of(row: Any, side: Side) -> str:
    """The address of one row of PACKET, FLOW or evidence, as text."""
    return address_text(int(row[f"{side}_hi"]), int(row[f"{side}_lo"]), int(row["ip_version"]))


def addresses_of(rows: Rows, side: Side) -> list[str]:
    """The addresses of (n,) such rows: by columns, many times faster than row by row."""
    columns = (rows[name].tolist() for name in (f"{side}_hi", f"{side}_lo", "ip_version"))
    return [address_text(*halves) for halves in zip(*columns, strict=True)]


class LocalNetworks:
    """What is inside: the given networks, else the interfaces' own prefixes and private ranges.

    >>> inside = LocalNetworks(["203.0.113.0/24"])
    >>> inside("203.0.113.9"), inside("10.0.0.1"), inside("not an address")
    (True, False, False)
    """

    def __init__(self, networks: Iterable[str], interface_networks: Iterable[str] = ()) -> None:
        given = tuple(ipaddress.ip_network(text, strict=False) for text in networks)
        own = tuple(ipaddress.ip_network(text, strict=False) for text in interface_networks)
        self._networks = given or own + _PRIVATE
        self._known = lru_cache(maxsize=65_536)(self._is_inside)

    def __call__(self, address: str) -> bool:
        return self._known(address)

    def _is_inside(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

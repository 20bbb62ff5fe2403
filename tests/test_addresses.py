"""Addresses: integers of rows as text, and what is inside."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addresses import LocalNetworks, address_of, addresses_of
from batches import FLOW


@given(st.lists(st.ip_addresses(), min_size=1, max_size=8))
def test_addresses_of_rows_are_their_canonical_text(
    given_addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    rows = np.zeros(len(given_addresses), FLOW)
    for row, address in zip(rows, given_addresses, strict=True):
        row["src_hi"], row["src_lo"] = int(address) >> 64, int(address) & 0xFFFF_FFFF_FFFF_FFFF
        row["ip_version"] = address.version
    assert addresses_of(rows, "src") == [str(address) for address in given_addresses]
    assert [address_of(row, "src") for row in rows] == addresses_of(rows, "src")


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("192.168.1.7", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("fe80::1", True),
        ("fd12::1", True),
        ("2001:db8::1", False),
        ("8.8.8.8", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_private_ranges_are_inside_where_nothing_else_is_said(address: str, inside: bool) -> None:
    assert LocalNetworks([])(address) is inside


def test_networks_of_the_interfaces_are_inside_too() -> None:
    local = LocalNetworks([], ["198.51.100.0/24", "2001:db8::/64"])
    assert local("198.51.100.9")
    assert local("2001:db8::5")
    assert local("10.0.0.1")
    assert not local("198.51.101.9")


def test_given_networks_replace_all_others() -> None:
    local = LocalNetworks(["203.0.113.0/24"], ["198.51.100.0/24"])
    assert local("203.0.113.9")
    assert not local("198.51.100.9")
    assert not local("192.168.1.1")

"""Hardware addresses of inside addresses, and that forged ones do not fill the memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from alerts.hardware import ADDRESSES_OF_ONE, KEPT, ROWS_AT_ONCE, Hardware
from batches import FLOW, Rows

INSIDE = 0x0A000000
"""10.0.0.0"""


def sources(pairs: Iterable[tuple[int, int]]) -> Rows:
    """Flows of (IPv4 address, hardware address)."""
    told = list(pairs)
    rows = np.zeros(len(told), FLOW)
    rows["ip_version"] = 4
    rows["src_lo"], rows["src_mac"] = np.array(told, np.uint64).T
    return rows


def watching(pairs: Iterable[tuple[int, int]]) -> Hardware:
    hardware = Hardware(lambda address: address.startswith("10."))
    rows = sources(pairs)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        hardware.see(rows[start : start + ROWS_AT_ONCE])
    return hardware


def test_a_device_is_known_by_the_newest_it_was_seen_with() -> None:
    hardware = watching([(INSIDE + 1, 0xA), (INSIDE + 2, 0xB), (INSIDE + 3, 0)])
    assert hardware("10.0.0.1") == "00:00:00:00:00:0a"
    assert hardware("10.0.0.2") == "00:00:00:00:00:0b"
    assert hardware("10.0.0.3") == hardware("10.0.0.4") == ""
    hardware.see(sources([(INSIDE + 1, 0xC)]))
    assert hardware("10.0.0.1") == "00:00:00:00:00:0c"


def test_who_sends_from_outside_or_from_many_addresses_stands_for_nobody() -> None:
    many = [(INSIDE + 100 + place, 0xE) for place in range(ADDRESSES_OF_ONE + 1)]
    hardware = watching([(INSIDE + 1, 0xD), (0x08080808, 0xD), *many])
    assert hardware("10.0.0.1") == hardware("8.8.8.8") == hardware("10.0.0.100") == ""
    hardware.see(sources([(INSIDE + 1, 0xF)]))
    assert hardware("10.0.0.1") == "00:00:00:00:00:0f"


def test_forged_addresses_do_not_fill_the_memory() -> None:
    n = 2 * KEPT
    forged = [
        *((INSIDE + 1, place + 1) for place in range(n)),
        *((INSIDE + place, n + place) for place in range(n)),
        *((0x08080808, 2 * n + place) for place in range(1, n)),
        *((INSIDE + place, 0xABCDEF) for place in range(n)),
    ]
    hardware = watching(forged)
    assert max(len(hardware._of), len(hardware._addresses), len(hardware._routers)) <= KEPT
    assert max(map(len, hardware._addresses.values())) <= ADDRESSES_OF_ONE
    hardware.see(sources([(INSIDE + 7, 0x77)]))
    assert hardware("10.0.0.7") == "00:00:00:00:00:77"

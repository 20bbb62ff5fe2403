"""What stands before LLC in Wi-Fi captures: the receiver's own notes, then the 802.11 header.

A place below 0 is -1 - the reason why nothing can be read.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import UNREAD_REASONS
from compiled import Int, compiled
from packets.fields import u8, u16, u16_little, u32, u48

__all__ = ["skip_prism", "skip_radiotap", "skip_wifi"]

_TRUNCATED: Final = UNREAD_REASONS.index("truncated")
_NOT_IP: Final = UNREAD_REASONS.index("not_ip")
_BAD_HEADER: Final = UNREAD_REASONS.index("bad_header")
_ENCRYPTED: Final = UNREAD_REASONS.index("encrypted")

_PRISM_HEADER: Final = 144


@compiled
def skip_wifi(data: NDArray[np.uint8], at: Int, end: Int, padded: bool, row: Any) -> Int:
    """Where LLC begins in an IEEE 802.11 data frame; of several packets in one (A-MSDU) the first.

    padded: the receiver filled the header up to whole words.
    """
    if end - at < 2:
        return -1 - _TRUNCATED
    kind, flags = u8(data, at), u8(data, at + 1)
    if kind & 0x0F != 0x08 or kind & 0x40:  # no data frame, or one without data
        return -1 - _NOT_IP
    if flags & 0x40:
        return -1 - _ENCRYPTED
    to_network, from_network = flags & 1, flags & 2
    size: Int = 24
    if to_network and from_network:
        size = 30
    quality = size
    if kind & 0x80:
        size += 2
        if flags & 0x80:  # HT control
            size += 4
    if end - at < size:
        return -1 - _TRUNCATED
    several = kind & 0x80 and u8(data, at + quality) & 0x80
    if padded:
        size = (size + 3) & ~3
    receiver, sender = at + 4, at + 10
    if to_network:
        receiver = at + 16
    if from_network:
        sender = at + 24 if to_network else at + 16
    row["dst_mac"] = u48(data, receiver)
    row["src_mac"] = u48(data, sender)
    at += size
    if several:
        if end - at < 14:
            return -1 - _TRUNCATED
        row["dst_mac"] = u48(data, at)
        row["src_mac"] = u48(data, at + 6)
        at += 14
    return at


@compiled
def skip_radiotap(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, bool]:
    """What the receiver says of itself (https://www.radiotap.org): (802.11, whether padded)."""
    if end - at < 8:
        return -1 - _TRUNCATED, False
    size = u16_little(data, at + 2)
    if u8(data, at) != 0 or size < 8:
        return -1 - _BAD_HEADER, False
    if end - at < size:
        return -1 - _TRUNCATED, False
    present = u8(data, at + 4)
    place: Int = 8
    while u8(data, at + place - 1) & 0x80 and place + 4 <= size:  # more words of what is present
        place += 4
    if present & 1:  # a time stamp of 8 bytes, aligned
        place = ((place + 7) & ~7) + 8
    return at + size, bool(present & 2 and place < size and u8(data, at + place) & 0x20)


@compiled
def skip_prism(data: NDArray[np.uint8], at: Int, end: Int) -> Int:
    """The notes of Prism cards, always as long, or AVS's, which say how long they are."""
    if end - at < 8:
        return -1 - _TRUNCATED
    size: Int = _PRISM_HEADER
    if u16(data, at) == 0x8021 and u8(data, at + 2) == 0x10:
        size = u32(data, at + 4)
        if size < 8:
            return -1 - _BAD_HEADER
    return at + size

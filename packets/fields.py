"""Numbers out of a frame's bytes; the caller has checked that they are there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiled import Int, compiled

__all__ = ["u8", "u16", "u16_little", "u32", "u48", "u64"]

# A cast at once: a uint8 shifted by 8 is 0 interpreted and wider compiled.


@compiled
def u8(data: NDArray[np.uint8], at: Int) -> Any:
    return np.int64(data[at])


@compiled
def u16(data: NDArray[np.uint8], at: Int) -> Any:
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@compiled
def u16_little(data: NDArray[np.uint8], at: Int) -> Any:
    return np.int64(data[at]) | (np.int64(data[at + 1]) << 8)


@compiled
def u32(data: NDArray[np.uint8], at: Int) -> Any:
    return (u16(data, at) << 16) | u16(data, at + 2)


@compiled
def u48(data: NDArray[np.uint8], at: Int) -> Any:
    """Without a sign, as a hardware address is kept."""
    return (np.uint64(u16(data, at)) << np.uint64(32)) | np.uint64(u32(data, at + 2))


@compiled
def u64(data: NDArray[np.uint8], at: Int) -> Any:
    return (np.uint64(u32(data, at)) << np.uint64(32)) | np.uint64(u32(data, at + 4))

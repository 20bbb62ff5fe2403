"""A capture file of any size: many short conversations at once, made from a seed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["write_capture"]

_FRAME_BYTES: Final = 74
_RECORD: Final = np.dtype(
    [("seconds", "<u4"), ("micros", "<u4"), ("captured", "<u4"), ("length", "<u4")]
    + [("frame", np.uint8, (_FRAME_BYTES,))]
)
_PIECE: Final = 100_000


def write_capture(path: Path, *, packets: int, flows: int, seed: int = 1) -> Path:
    """Write `packets` Ethernet/IPv4 frames (two thirds TCP, one third UDP) of about `flows` flows.

    Flows overlap in time, some hundreds at once, one packet every 20 us, either direction.
    """
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for start in range(0, packets, _PIECE):
            place = np.arange(start, min(start + _PIECE, packets))
            spread = rng.normal(0, 200, len(place))
            flow = np.clip(place / packets * flows + spread, 0, flows - 1).astype(np.int64)
            file.write(_records(place, flow, rng).tobytes())
    return path


def _records(place: np.ndarray, flow: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    records = np.zeros(len(place), _RECORD)
    micros = place * 20
    records["seconds"] = 1_700_000_000 + micros // 1_000_000
    records["micros"] = micros % 1_000_000
    payload = rng.choice([0, 20, 300, 1400], len(place))
    udp = flow % 3 == 0
    header = np.where(udp, 8, 20)
    records["captured"] = _FRAME_BYTES
    records["length"] = np.maximum(14 + 20 + header + payload, _FRAME_BYTES)
    frame = records["frame"]
    frame[:, 12] = 0x08
    frame[:, 14] = 0x45
    total = 20 + header + payload
    frame[:, 16], frame[:, 17] = total >> 8, total & 255
    frame[:, 22] = 64
    frame[:, 23] = np.where(udp, 17, 6)
    backward = rng.integers(0, 2, len(place)).astype(bool)
    client = np.stack([np.full(len(flow), 10), flow >> 16 & 255, flow >> 8 & 255, flow & 255], 1)
    server = np.tile(np.array([192, 168, 1, 1]), (len(flow), 1))
    frame[:, 26:30] = np.where(backward[:, None], server, client)
    frame[:, 30:34] = np.where(backward[:, None], client, server)
    ports = 1024 + flow % 60_000, np.full(len(flow), 443)
    source = np.where(backward, ports[1], ports[0])
    target = np.where(backward, ports[0], ports[1])
    frame[:, 34], frame[:, 35] = source >> 8, source & 255
    frame[:, 36], frame[:, 37] = target >> 8, target & 255
    udp_length = 8 + payload
    frame[:, 38] = np.where(udp, udp_length >> 8, 0)
    frame[:, 39] = np.where(udp, udp_length & 255, 0)
    frame[:, 46] = np.where(udp, 0, 0x50)
    frame[:, 47] = np.where(udp, 0, 0x10)
    return records

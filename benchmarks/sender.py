"""A bounded stream of conversations on an interface of a namespace, at a given rate.

    python -m benchmarks.sender INTERFACE PACKETS_PER_S SECONDS

Frames are made beforehand and sent again and again, many with one system call (sendmmsg), past
the queue of the interface. It answers what it has sent: the rate it could not reach is not sent.
"""

from __future__ import annotations

import ctypes
import socket
import sys
import time
from typing import Any, Final

import numpy as np

from benchmarks.measure import answer
from benchmarks.synthetic import conversations

__all__ = ["FLOWS", "send"]

FLOWS: Final = 1_500
FRAMES: Final = 32_768
"""Conversations end and begin again with each round of the frames."""
_MOST_S: Final = 60.0
_BURST_S: Final = 0.0005
_LARGEST_BURST: Final = 256
_SOL_PACKET: Final = 263
_PACKET_QDISC_BYPASS: Final = 20


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr of sendmmsg(2), its struct msghdr in place."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


def send(interface: str, packets_per_s: int, seconds: float) -> dict[str, Any]:
    """Send for that long; packets and bytes sent, seconds taken, the latest burst in seconds."""
    if sys.platform != "linux":
        raise OSError("AF_PACKET is Linux's.")
    seconds = min(seconds, _MOST_S)
    parts = list(conversations(packets=FRAMES, flows=FLOWS, seed=3))
    frames = [
        row[:size] for part in parts for row, size in zip(part.data, part.captured, strict=True)
    ]
    sizes = np.array([len(frame) for frame in frames])
    data = np.concatenate(frames)
    starts = np.cumsum(sizes) - sizes
    vectors, messages = (_Vector * FRAMES)(), (_Message * FRAMES)()
    for place in range(FRAMES):
        vectors[place] = _Vector(data.ctypes.data + int(starts[place]), int(sizes[place]))
        messages[place].vectors = ctypes.pointer(vectors[place])
        messages[place].vector_count = 1
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    burst = int(min(max(packets_per_s * _BURST_S, 1), _LARGEST_BURST))
    sent = place = 0
    latest_s = 0.0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        raw.bind((interface, 0))
        began = time.monotonic()
        while True:
            now = time.monotonic() - began
            if now >= seconds:
                break
            due = sent / packets_per_s
            if due > now:
                # Sleeping is too coarse for the last stretch, and spinning takes a core.
                time.sleep(due - now)
                continue
            latest_s = max(latest_s, now - due)
            count = min(burst, FRAMES - place)
            taken = sendmmsg(raw.fileno(), ctypes.byref(messages[place]), count, 0)
            if taken < 0:
                code = ctypes.get_errno()
                if code not in (11, 105):  # EAGAIN, ENOBUFS: the receiver's queue is full
                    raise OSError(code, f"sending on {interface} failed")
                continue
            sent += taken
            place = (place + taken) % FRAMES
        took_s = time.monotonic() - began
    return {
        "sent": sent,
        "seconds": took_s,
        "packets_per_s": sent / took_s,
        "latest_s": latest_s,
        "mean_frame_bytes": float(sizes.mean()),
        "cpu_s": time.process_time(),
    }


if __name__ == "__main__":
    answer(send(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))

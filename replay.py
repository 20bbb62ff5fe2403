"""Capture files in place of an interface: the same frames, time taken from the packets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from batches import FrameBatch
from capture import CaptureStatus, read_capture

__all__ = ["Replay"]

_SLICE_NS: Final = 1_000_000_000
"""Verdicts are made at least once a second of packet time, so that a model that is trained in
the middle of a file judges what comes after it."""
_PACED_SLICE_NS: Final = 100_000_000


class Replay:
    """Capture files one after the other, as fast as they can be read or at their own pace.

    speed: packet seconds per second, 0 as fast as possible. head_s: so many seconds of packet
    time are read as fast as possible first. shift: move all times so that the head ends now (the
    sample traffic looks alive).
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        speed: float = 0.0,
        snaplen: int = 512,
        head_s: float = 0.0,
        name: str | None = None,
        shift: bool = False,
    ) -> None:
        self._paths = tuple(paths)
        self._speed = speed
        self._snaplen = snaplen
        self._name = name or ", ".join(path.name for path in paths)
        self._head_s = head_s
        self._shift = shift
        self._stopped = threading.Event()
        self._slices = self._read_slices()
        self._next: tuple[float, FrameBatch] | None = None
        self._received = 0
        self._fraction: float | None = 0.0
        self._since = time.time()
        self.finished = False
        self.damages: list[str] = []

    def start(self) -> None:
        """Nothing to open: the first file is opened by the first read, so that its error is told
        where it is read."""

    def read(self, timeout_s: float) -> FrameBatch | None:
        """The next slice of frames; None where none is due yet or the last file has ended."""
        if self._next is None and not self._stopped.is_set():
            self._next = next(self._slices, None)
        if self._next is None or self._stopped.is_set():
            self.finished = True
            self._stopped.wait(timeout_s)
            return None
        due_s, batch = self._next
        wait_s = due_s - time.monotonic()
        self._stopped.wait(max(0.0, min(wait_s, timeout_s)))
        if wait_s > timeout_s or self._stopped.is_set():
            return None
        self._next = None
        self._received += len(batch)
        return batch

    @property
    def fraction(self) -> float | None:
        """The part of all files that has been read, 0..1 (each counts alike); None: not known."""
        return self._fraction

    def stop(self) -> None:
        self._stopped.set()

    def status(self) -> CaptureStatus:
        return CaptureStatus(
            state="off" if self.finished else "capturing",
            interface=self._name,
            friendly=self._name,
            since=self._since,
            received=self._received,
            kernel_drops=0,
            interface_drops=0,
            queue_drops=0,
            error=" ".join(self.damages) or None,
            gaps=0,
            gap_s=0.0,
            beat_s=time.monotonic(),
        )

    def _read_slices(self) -> Iterator[tuple[float, FrameBatch]]:
        """(time.monotonic() at which it is due, slice) of all files."""
        started = time.monotonic()
        first_ns: int | None = None
        shift_ns = 0
        for place, path in enumerate(self._paths):
            capture = read_capture(path, snaplen=self._snaplen)
            for batch in capture:
                if not len(batch):
                    continue
                done = capture.fraction
                self._fraction = None if done is None else (place + done) / len(self._paths)
                if first_ns is None:
                    first_ns = int(batch.time_ns[0])
                    if self._shift:
                        shift_ns = time.time_ns() - first_ns - int(self._head_s * 1e9)
                for piece in _sliced(batch, _PACED_SLICE_NS if self._speed else _SLICE_NS):
                    due_s = started
                    if self._speed:
                        after_s = (int(piece.time_ns[0]) - first_ns) / 1e9 - self._head_s
                        due_s += after_s / self._speed
                    if shift_ns:
                        piece.time_ns = piece.time_ns + shift_ns
                    yield due_s, piece
            if capture.damage:
                self.damages.append(capture.damage)


def _sliced(batch: FrameBatch, width_ns: int) -> Iterator[FrameBatch]:
    """The batch in pieces of at most `width_ns` of packet time; the bytes are shared."""
    # Time that jumps back and forth must not make a piece of every frame.
    steps = np.maximum.accumulate(batch.time_ns) // width_ns
    cuts = np.flatnonzero(np.diff(steps)) + 1
    for first, last in pairwise([0, *cuts.tolist(), len(batch)]):
        yield FrameBatch(
            batch.data,
            batch.offset[first:last],
            batch.captured[first:last],
            batch.length[first:last],
            batch.time_ns[first:last],
            batch.link_type[first:last],
            batch.interface,
        )

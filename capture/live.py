"""One interface, captured in a thread of its own until it is stopped.

libpcap (or, on Linux without it, the kernel's packet ring) -> FrameBuffer -> the queue that all
interfaces of a capture share (capture/several.py). Nothing is lost silently: what the interface,
the kernel's buffer and the queue could not take is counted apart.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from batches import FrameBatch
from capture import buffer as frame_buffer
from capture import libpcap, records
from capture.buffer import FrameBuffer
from capture.network_interfaces import (
    capture_remedy,
    friendly_name,
    interface_trouble,
    known_interfaces,
    remedy_command,
)
from capture.offloads import Offloads, active_offloads, longest_frame, offloads_of
from errors import CaptureError

__all__ = [
    "CaptureState",
    "FrameSource",
    "InterfaceCapture",
    "InterfaceStatus",
    "SourceOpener",
    "open_source",
    "warm",
]

_log = logging.getLogger("secureflux.capture")

CaptureState: TypeAlias = Literal["off", "capturing", "trouble"]

# A batch goes to the reader at this many frames or this age, whichever comes first: below it,
# the fixed cost of a compiled call counts; beyond, the page lags.
_BATCH_FRAMES: Final = 4096
_BATCH_AGE_S: Final = 0.1
_RETRY_S: Final = 1.0
_LOOK_S: Final = 1.0
_STOP_S: Final = 3.0
_ETHERNET: Final = 1  # other links have headers of other lengths
_COUNTER_SPAN: Final = 1 << 32
# Scapy keeps one list of interfaces, and reads it anew at each opening.
_opening = threading.Lock()


class FrameSource(Protocol):
    """An open interface, as PcapSource and RingSource are."""

    buffer: FrameBuffer
    link_type: int

    def wait(self, timeout_s: float) -> bool: ...
    def read(self) -> int: ...
    def drops(self) -> tuple[int, int]: ...
    def close(self) -> None: ...


SourceOpener: TypeAlias = Callable[[str, str, int, int], FrameSource]


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """How the capture of one interface stands.

    friendly: what people call it. since: epoch seconds at which `state` began, None before the
        first start.
    received: frames taken from the kernel, those that a full queue then dropped included.
    kernel_drops, interface_drops, queue_drops: frames lost to the kernel's full buffer, by the
        interface, by our full queue.
    error: in "trouble", one sentence that says why.
    gaps, gap_s: interruptions since the start and how many seconds they took, a running one
        included.
    beat_s: time.monotonic() of the thread's last round; older than a few seconds = stuck.
    """

    name: str
    friendly: str
    state: CaptureState
    since: float | None
    received: int
    kernel_drops: int
    interface_drops: int
    queue_drops: int
    error: str | None
    gaps: int
    gap_s: float
    beat_s: float
    offloads: Offloads


def open_source(interface: str, bpf_filter: str, snaplen: int, frames: int) -> FrameSource:
    """The best source this system has. Raises CaptureError."""
    with _opening:
        if libpcap.library() is not None:
            from capture.device import PcapSource

            return PcapSource(interface, bpf_filter, snaplen, frames)
        if sys.platform.startswith("linux"):
            from capture.ring import RingSource

            return RingSource(interface, bpf_filter, snaplen, frames)
    raise CaptureError(
        capture_remedy(interface) or f"Capturing on {interface} needs libpcap: install it.",
        remedy=remedy_command(),
    )


class InterfaceCapture:
    """Captures one interface from `start` to `stop`.

    When the interface goes down or away, the state is "trouble" and the thread opens it again by
    itself as soon as it is back. bpf_filter: libpcap's filter language; "" lets all through.
    snaplen: bytes kept of a frame. put: takes a batch, or answers False and the batch is dropped
    and counted. opener: what opens the interface.
    """

    def __init__(
        self,
        interface: str,
        *,
        bpf_filter: str,
        snaplen: int,
        put: Callable[[FrameBatch], bool],
        opener: SourceOpener = open_source,
    ) -> None:
        self.interface = interface
        self._filter = bpf_filter
        self._snaplen = snaplen
        self._put = put
        self._opener = opener
        self._friendly = friendly_name(interface)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Everything below belongs to the capture thread; `status` reads single values of it.
        self._state: tuple[CaptureState, float | None, str | None] = ("off", None, None)
        self._watched = False
        self._received = 0
        self._queue_drops = 0
        self._drops = [0, 0, 0]  # kernel, interface, buffer (none, unless a library miscounts)
        self._last_drops = [0, 0, 0]  # what the open source said last
        self._gaps = 0
        self._gap_s = 0.0
        self._gap_began_s: float | None = None
        self._beat_s = time.monotonic()
        self._longest_frame = 0
        self._long_frames = 0
        self._offloads_on = active_offloads(interface)

    def try_opening(self) -> None:
        """Raises what `start` would, and captures nothing."""
        watched = self.interface in known_interfaces()
        if not watched or interface_trouble(self.interface) is None:
            self._opener(self.interface, self._filter, self._snaplen, _BATCH_FRAMES).close()

    def start(self) -> None:
        """Open the interface and begin.

        Raises CaptureError for a wrong filter and a missing right. An interface that is merely
        down is waited for, in state "trouble".
        """
        if self._thread is not None and self._thread.is_alive():
            return
        self._stop.clear()
        self._watched = self.interface in known_interfaces()
        source = None
        trouble = interface_trouble(self.interface) if self._watched else None
        if trouble:
            self._enter_trouble(trouble)
        else:
            source = self._open()
        self._thread = threading.Thread(
            target=self._run, args=(source,), name="packet capture", daemon=True
        )
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Let the thread end; `stop` waits for it."""
        self._stop.set()

    def stop(self) -> None:
        """End the capture; returns within a second, with the last frames handed over."""
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def status(self) -> InterfaceStatus:
        state, since, error = self._state
        began_s = self._gap_began_s
        return InterfaceStatus(
            name=self.interface,
            friendly=self._friendly,
            state=state,
            since=since,
            received=self._received,
            kernel_drops=self._drops[0],
            interface_drops=self._drops[1],
            queue_drops=self._queue_drops + self._drops[2],
            error=error,
            gaps=self._gaps,
            gap_s=self._gap_s + (time.monotonic() - began_s if began_s is not None else 0.0),
            beat_s=self._beat_s,
            offloads=offloads_of(self.interface, self._offloads_on, self._long_frames),
        )

    def _run(self, source: FrameSource | None) -> None:
        try:
            while not self._stop.is_set():
                self._beat_s = time.monotonic()
                if source is None:
                    source = self._reopen()
                    continue
                try:
                    self._pump(source)
                except CaptureError as error:
                    self._close(source)
                    source = None
                    if not self._stop.is_set():
                        self._enter_trouble(str(error))
        finally:
            if source is not None:
                self._close(source)
            if self._stop.is_set():
                self._end_gap()
                self._state = ("off", time.time(), None)
            else:
                self._enter_trouble(f"The capture of {self.interface} ended by a fault of ours.")

    def _pump(self, source: FrameSource) -> None:
        """Move frames until stopped. Raises CaptureError when the interface goes away."""
        buffer = source.buffer
        oldest_s = look_s = time.monotonic()
        while not self._stop.is_set():
            had = len(buffer)
            stored = source.read()
            self._received += stored
            now_s = self._beat_s = time.monotonic()
            if had == 0:
                oldest_s = now_s
            if buffer.room == 0 or (len(buffer) and now_s - oldest_s >= _BATCH_AGE_S):
                self._hand_over(source)
            elif not source.wait(_BATCH_AGE_S - (now_s - oldest_s if len(buffer) else 0.0)):
                self._look(source)
                self._stop.wait(_BATCH_AGE_S)  # an error that nobody explains: no busy loop
            if now_s - look_s >= _LOOK_S:
                look_s = now_s
                self._look(source)

    def _hand_over(self, source: FrameSource) -> None:
        batch = source.buffer.take(source.link_type, self.interface)
        if self._longest_frame and source.link_type == _ETHERNET:
            self._long_frames += int((batch.length > self._longest_frame).sum())
        if not self._put(batch):
            self._queue_drops += len(batch)

    def _look(self, source: FrameSource) -> None:
        """Once a second: lost frames, whether the interface still lives, its offloads."""
        self._count_drops(source)
        try:
            trouble = interface_trouble(self.interface) if self._watched else None
            on = active_offloads(self.interface)
            self._longest_frame = longest_frame(self.interface)
        except OSError:
            return  # Too many files are open to ask; the capture itself needs no further one.
        if trouble:
            raise CaptureError(trouble)
        if on != self._offloads_on:
            # What was counted came by the old way, and so does what still waits in the kernel.
            self._long_frames = self._longest_frame = 0
            self._offloads_on = on

    def _count_drops(self, source: FrameSource) -> None:
        drops = (*source.drops(), source.buffer.lost)
        for i, now in enumerate(drops):
            step = (now - self._last_drops[i]) % _COUNTER_SPAN
            # Backwards: of an interface that has just gone, or that can't be asked, libpcap counts
            # from 0 again. That is nothing to go by.
            if step < _COUNTER_SPAN // 2:
                self._drops[i] += step
                self._last_drops[i] = now

    def _open(self) -> FrameSource:
        self._longest_frame = longest_frame(self.interface)
        source = self._opener(self.interface, self._filter, self._snaplen, _BATCH_FRAMES)
        self._last_drops = [0, 0, 0]
        self._end_gap()
        self._state = ("capturing", time.time(), None)
        _log.info("capturing on %s", self.interface)
        return source

    def _reopen(self) -> FrameSource | None:
        if self._stop.wait(_RETRY_S):
            return None
        try:
            trouble = interface_trouble(self.interface) if self._watched else None
            if trouble is None:
                return self._open()
        except CaptureError as error:
            trouble = str(error)
        except OSError as error:  # too many files are open, say: it may pass
            reason = error.strerror or str(error)
            trouble = f"The interface {self.interface} can't be opened: {reason}."
        self._state = ("trouble", self._state[1], trouble)
        return None

    def _close(self, source: FrameSource) -> None:
        if len(source.buffer):
            self._hand_over(source)
        self._count_drops(source)
        source.close()

    def _enter_trouble(self, sentence: str) -> None:
        _log.warning("%s", sentence)
        self._gaps += 1
        self._gap_began_s = time.monotonic()
        self._state = ("trouble", time.time(), sentence)

    def _end_gap(self) -> None:
        if self._gap_began_s is not None:
            self._gap_s += time.monotonic() - self._gap_began_s
            self._gap_began_s = None


def warm() -> None:
    """Compile (or load) what runs per frame, so that no capture waits for a compiler."""
    frame_buffer.warm()
    records.warm()

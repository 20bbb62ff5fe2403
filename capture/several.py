"""A live capture: one thread an interface, one bounded queue, one door.

A single interface is a list of one. One that goes away leaves the others capturing.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batches import FrameBatch
from capture.live import (
    CaptureState,
    InterfaceCapture,
    InterfaceStatus,
    SourceOpener,
    open_source,
    warm,
)
from capture.network_interfaces import known_interfaces
from errors import CaptureError

__all__ = ["Capture", "CaptureStatus"]

# The queue's other bound, beside its number of batches: bytes of frames.
_QUEUE_BYTES: Final = 64 << 20
_STATES: Final[tuple[CaptureState, ...]] = ("capturing", "trouble", "off")


@dataclass(frozen=True, slots=True)
class CaptureStatus:
    """How a capture stands: the sums over its interfaces, and each of them.

    state: "capturing" while one interface is, "trouble" where none is and one has trouble.
    interface, friendly: the names, in words. since: epoch seconds at which `state` began, None
        before the first start.
    received, kernel_drops, interface_drops, queue_drops, gaps, gap_s: as of InterfaceStatus.
    error: one sentence about the interfaces in trouble, None where all is well.
    beat_s: of the thread that moved last longest ago.
    """

    state: CaptureState
    interface: str
    friendly: str
    since: float | None
    received: int
    kernel_drops: int
    interface_drops: int
    queue_drops: int
    error: str | None
    gaps: int
    gap_s: float
    beat_s: float
    interfaces: tuple[InterfaceStatus, ...] = ()


class _Queue:
    """Batches waiting for the reader, bounded by number and by bytes."""

    def __init__(self, batches: int) -> None:
        self._limit = batches
        self._batches: deque[FrameBatch] = deque()
        self._bytes = 0
        self._filled = threading.Condition()

    def put(self, batch: FrameBatch) -> bool:
        """False where the queue is full: the batch is not taken."""
        size = batch.data.nbytes
        with self._filled:
            full = len(self._batches) >= self._limit
            if full or (self._batches and self._bytes + size > _QUEUE_BYTES):
                return False
            self._batches.append(batch)
            self._bytes += size
            self._filled.notify()
        return True

    def get(self, timeout_s: float) -> FrameBatch | None:
        with self._filled:
            if not self._filled.wait_for(lambda: self._batches, timeout_s):
                return None
            batch = self._batches.popleft()
            self._bytes -= batch.data.nbytes
        return batch


class Capture:
    """Captures interfaces from `start` to `stop`; `read` gives the frames.

    interfaces: one name or several; a name given twice is captured once. bpf_filter: libpcap's
    filter language; "" lets all through. snaplen: bytes kept of a frame. queue_batches: batches
    that may wait for the reader (64 MiB at most); further ones are dropped and counted at the
    interface they came from. opener: what opens an interface.
    """

    def __init__(
        self,
        interfaces: str | Sequence[str],
        *,
        bpf_filter: str = "",
        snaplen: int = 512,
        queue_batches: int = 256,
        opener: SourceOpener = open_source,
    ) -> None:
        names = [interfaces] if isinstance(interfaces, str) else interfaces
        self.interfaces = tuple(dict.fromkeys(names))
        self._filter = bpf_filter
        self._queue = _Queue(queue_batches)
        self._parts = [
            InterfaceCapture(
                name, bpf_filter=bpf_filter, snaplen=snaplen, put=self._queue.put, opener=opener
            )
            for name in self.interfaces
        ]

    def check(self) -> None:
        """Raises what `start` would, at once, and captures nothing: every interface is opened and
        closed again. Nothing is compiled, so that pages need not wait for it."""
        self._refuse_unknown()
        for part in self._parts:
            part.try_opening()

    def _refuse_unknown(self) -> None:
        if not self.interfaces:
            raise CaptureError("No interface is named to capture from.")
        if "\0" in self._filter:  # where libpcap's text would end
            raise CaptureError(f"The filter {self._filter!r} holds a character that none may hold.")
        known = known_interfaces()
        unknown = [repr(name) for name in self.interfaces if name not in known]
        if unknown and sys.platform != "win32":  # Npcap has names that Windows does not tell
            raise CaptureError(
                f"There is no interface named {' or '.join(unknown)}. "
                f"This machine has: {', '.join(known)}."
            )

    def start(self) -> None:
        """Open every interface and begin; where one can't be captured, none is.

        Raises CaptureError for an unknown interface (naming those there are), a wrong filter and
        a missing right. An interface that is merely down is waited for, in state "trouble".
        """
        self._refuse_unknown()
        warm()  # at once where it is done: nothing compiles while frames wait
        try:
            for part in self._parts:
                part.start()
        except BaseException:
            self.stop()
            raise

    def read(self, timeout_s: float) -> FrameBatch | None:
        """The next batch, of one interface, in its order of capture; None if none came in time.

        After `stop` the batches still queued can be read.
        """
        return self._queue.get(timeout_s)

    def stop(self) -> None:
        """End the capture; returns within a second, with the last frames queued."""
        for part in self._parts:
            part.ask_to_stop()
        for part in self._parts:
            part.stop()

    def status(self) -> CaptureStatus:
        parts = tuple(part.status() for part in self._parts)
        state = next((s for s in _STATES if any(part.state == s for part in parts)), _STATES[-1])
        return CaptureStatus(
            state=state,
            interface=", ".join(self.interfaces),
            friendly=_in_words([part.friendly for part in parts]),
            since=min((p.since for p in parts if p.state == state and p.since), default=None),
            received=sum(part.received for part in parts),
            kernel_drops=sum(part.kernel_drops for part in parts),
            interface_drops=sum(part.interface_drops for part in parts),
            queue_drops=sum(part.queue_drops for part in parts),
            error=_trouble(parts),
            gaps=sum(part.gaps for part in parts),
            gap_s=sum(part.gap_s for part in parts),
            beat_s=min((part.beat_s for part in parts), default=0.0),
            interfaces=parts,
        )


def _in_words(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _trouble(parts: Sequence[InterfaceStatus]) -> str | None:
    """What is wrong, and what goes on all the same."""
    told = [part.error for part in parts if part.error]
    alive = [part.name for part in parts if part.state == "capturing"]
    if not told:
        return None
    sentence = " ".join(told)
    if not alive:
        return sentence
    goes_on = f"{_in_words(alive)} {'goes' if len(alive) == 1 else 'go'} on."
    return f"{sentence.removesuffix('.')}; {goes_on}"

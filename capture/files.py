"""Capture files as FrameBatches: pcap and pcapng of every kind, plain or gzip, in constant memory.

A window of the file's bytes is filled, walked by compiled code (capture/records.py) and filled
again. Nothing is left to libpcap here: of pcapng it refuses interfaces that differ and sections of
another byte order, it gives simple packets no time, and it takes twice as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from batches import FrameBatch
from capture.buffer import FrameBuffer
from capture.packed import GZIP_MAGIC, FileBytes
from capture.records import HEADER_BYTES, DamagedError, Layout, Stop
from errors import InputError

__all__ = ["CaptureFile", "read_capture"]

# Frames a batch: enough that a compiled call's fixed cost vanishes, small enough for 4 MiB.
_BATCH_FRAMES: Final = 8192
_WINDOW_BYTES: Final = 1 << 18

# What other files begin with; (magic, what it is, whether it holds packets).
_KNOWN: Final = (
    (b"snoop\0\0\0", "a snoop file of Solaris", True),
    (b"GMBU", "a Microsoft Network Monitor file", True),
    (b"RTSS", "a Microsoft Network Monitor file", True),
    (b"iptrace ", "an iptrace file of AIX", True),
    (b"TRSNIFF data", "a Sniffer file", True),
    (b"XCP\0", "a NetXRay file", True),
    (b"PK\x03\x04", "a zip archive", False),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", False),
    (b"\xfd7zXZ\0", "packed with xz", False),
    (b"BZh", "packed with bzip2", False),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", False),
    (b"\x04\x22\x4d\x18", "packed with lz4", False),
    (GZIP_MAGIC, "packed with gzip twice", False),
)


class CaptureFile:
    """The frames of one file, to be iterated once; at most 8,192 frames a batch.

    frames: how many have been delivered so far.
    damage: after the iteration, one sentence that says where and why reading stopped early;
        None if the file was read to its end.
    """

    def __init__(self, path: Path, snaplen: int) -> None:
        self.path = path
        self.frames = 0
        self.damage: str | None = None
        try:
            self._bytes = FileBytes(path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{path} can't be opened: {reason}.") from error
        self._buffer = FrameBuffer(_BATCH_FRAMES, snaplen)
        self._layout = Layout()
        self._layout.put(np.empty(_WINDOW_BYTES, np.uint8), 0)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Read what the file begins with; raises InputError if that is no capture's beginning."""
        self._fill(HEADER_BYTES)
        head = self._layout.window[: self._layout.end].tobytes()
        if not head and not self._bytes.error:
            packed = "holds no bytes" if self._bytes.is_packed else "is empty"
            raise InputError(f"{self.path.name} {packed}: there is nothing to read in it.")
        try:
            while not self._layout.describe():
                if not self._fill(self._layout.needed):
                    reason = self._layout.complaint(Stop.MORE).replace("last record", "header")
                    raise DamagedError(self._bytes.error or reason)
        except DamagedError as error:
            reason = self._bytes.error or str(error)
            raise _not_a_capture(self.path, head, reason) from error

    def __iter__(self) -> Iterator[FrameBatch]:
        complaint = None
        while complaint is None:
            stop = self._layout.walk(self._buffer)
            if stop is Stop.FULL:
                yield self._take()
            elif stop is Stop.MORE:
                if not self._fill(self._layout.needed):
                    break
            elif stop is Stop.HEADER:
                complaint = self._describe()
            else:
                complaint = self._layout.complaint(stop)
        if len(self._buffer):
            yield self._take()
        if complaint is None:
            complaint = self._bytes.error
        if complaint is None and self._layout.place < self._layout.end:
            complaint = self._layout.complaint(Stop.MORE)
        if complaint is not None:
            place = f"in its frame {self.frames + 1:,}"
            read = f"the {self.frames:,} before it are read" if self.frames else "nothing is read"
            self.damage = f"{self.path.name} is damaged {place} ({complaint}); {read}."
        self.close()

    def _describe(self) -> str | None:
        """Read a header within the file; what is wrong with it."""
        try:
            while not self._layout.describe():
                if not self._fill(self._layout.needed):
                    return self._bytes.error or self._layout.complaint(Stop.MORE)
        except DamagedError as error:
            return str(error)
        return None

    def _take(self) -> FrameBatch:
        batch = self._buffer.take(None, self.path.name)
        self.frames += len(batch)
        return batch

    def _fill(self, needed: int) -> bool:
        """Have `needed` bytes from the layout's place on in the window, as far as they exist."""
        layout = self._layout
        window = layout.window
        left = layout.end - layout.place
        rest = window[layout.place : layout.end]
        if needed > len(window):
            window = np.empty(needed + _WINDOW_BYTES, np.uint8)
        window[:left] = rest
        while left < needed and (read := self._bytes.read_into(window[left:])):
            left += read
        layout.put(window, left)
        return left >= needed

    @property
    def fraction(self) -> float | None:
        """The part of the file that has been read, 0..1; None where its size is not known."""
        return self._bytes.fraction

    def close(self) -> None:
        """Give the file back before its end; an iteration to the end has done it already."""
        self._bytes.close()


def _not_a_capture(path: Path, head: bytes, complaint: str) -> InputError:
    """What the file is instead, where its first bytes tell, and what to do with it."""
    for magic, kind, holds_packets in _KNOWN:
        if head.startswith(magic):
            remedy = (
                "turn it into pcapng with Wireshark's editcap (editcap -F pcapng OLD NEW)"
                if holds_packets
                else "unpack it first"
            )
            return InputError(f"{path.name} is {kind}, which is not read here: {remedy}.")
    if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head[:512]):
        complaint = "it is a text file"
    return InputError(
        f"{path.name} can't be read as a capture ({complaint}): pcap and pcapng files are, "
        "plain or packed with gzip."
    )


def read_capture(path: Path | str, *, snaplen: int = 512) -> CaptureFile:
    """Open a capture file; of each frame at most `snaplen` bytes are kept.

    Raises InputError, in one sentence, for a file that is missing, empty or no capture.
    """
    return CaptureFile(Path(path), snaplen)

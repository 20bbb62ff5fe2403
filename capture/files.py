"""Capture files as FrameBatches: pcap and pcapng, plain or gzip, in constant memory.

libpcap reads them through the same callback as a live interface. Scapy's readers (0.1 million
frames a second instead of 5) step in where libpcap can't: where it is not installed, for gzip on
Windows, and for pcapng files whose interfaces differ in link type or snap length.
"""

from __future__ import annotations

import gzip
import logging
import os
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from batches import FrameBatch
from capture import libpcap
from capture.buffer import LATEST_NS, FrameBuffer
from errors import InputError

__all__ = ["CaptureFile", "PcapReader", "ScapyReader", "read_capture"]

# Frames a batch: enough that a compiled call's fixed cost vanishes, small enough for 4 MiB.
_BATCH_FRAMES: Final = 8192
_GZIP_MAGIC: Final = b"\x1f\x8b"
_CHUNK_BYTES: Final = 256 << 10
# A longer record is damage or malice, and must not be made room for; libpcap's own limit.
_MAX_RECORD_BYTES: Final = 16 << 20
# How libpcap (1.10) begins its complaint about pcapng interfaces it can't mix in one file.
_MIXED_INTERFACES: Final = "an interface has a "


class _Unpacker:
    """Feeds a gzip file through a pipe from a thread of its own, so that nothing of it piles up.

    descriptor: the reading end. error: why the unpacking stopped early, None if it did not.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor, self._writing_end = os.pipe()
        self.error: str | None = None
        self._path = path
        self._thread = threading.Thread(target=self._run, name="unpack capture", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with open(self._writing_end, "wb", buffering=0) as pipe, gzip.open(self._path) as file:
                # read1 gives what it has; read would lose it where the stream then breaks off.
                while chunk := file.read1(_CHUNK_BYTES):
                    view = memoryview(chunk)
                    while view:
                        view = view[pipe.write(view) :]
        except BrokenPipeError:  # the reader has closed its end: nobody wants the rest
            return
        except (OSError, EOFError, zlib.error) as error:
            self.error = f"its gzip stream is broken ({error})"

    def join(self) -> None:
        """Wait for the thread's last words; the reading end must be closed or drained."""
        self._thread.join()


class PcapReader:
    """Frames by libpcap. Raises InputError at once if this is not a capture file.

    damage: after the last batch, why libpcap went no further; None at a clean end.
    """

    def __init__(self, path: Path, snaplen: int, *, gzipped: bool) -> None:
        self.damage: str | None = None
        self._unpacker = _Unpacker(path) if gzipped else None
        if self._unpacker:
            handle, complaint = libpcap.open_stream(self._unpacker.descriptor)
        else:
            handle, complaint = libpcap.open_file(path)
        self._handle = handle
        if handle is None:
            raise _not_a_capture(path, self._unpacking_error() or complaint)
        self._link_type = int(libpcap.require_library().pcap_datalink(handle))
        self._name = path.name
        self._buffer = FrameBuffer(_BATCH_FRAMES, snaplen)
        libpcap.describe_header(handle, self._buffer)

    def batches(self) -> Iterator[FrameBatch]:
        if self._handle is None:
            return
        while (stored := libpcap.dispatch(self._handle, self._buffer)) > 0:
            if self._buffer.room == 0:
                yield self._buffer.take(self._link_type, self._name)
        if stored < 0:
            self.damage = libpcap.error_text(self._handle)
        if len(self._buffer):
            yield self._buffer.take(self._link_type, self._name)
        self.close()
        self.damage = self._unpacking_error() or self.damage

    def _unpacking_error(self) -> str | None:
        """The unpacker's own complaint; only once libpcap has closed its end of the pipe."""
        if self._unpacker is None:
            return None
        self._unpacker.join()
        return self._unpacker.error

    def close(self) -> None:
        if self._handle is not None:
            libpcap.require_library().pcap_close(self._handle)
            self._handle = None


class _Watched:
    """A binary file that remembers how its last reads ended, since Scapy's readers do not.

    complaint: a read that failed or got only part of what it asked for.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.complaint: str | None = None

    def read(self, size: int) -> bytes:
        if size > _MAX_RECORD_BYTES:
            self.complaint = f"its next record claims to be {size:,} bytes long"
            return b""
        try:
            data = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            self.complaint = f"its gzip stream is broken ({error})"
            return b""
        if 0 < len(data) < size:
            self.complaint = f"its last record is cut off after {len(data)} of {size} bytes"
        return data

    def close(self) -> None:
        self._file.close()


class ScapyReader:
    """Frames by Scapy's raw readers; the same door as PcapReader, slower.

    skip: frames that another reader has delivered already.
    """

    def __init__(self, path: Path, snaplen: int, *, gzipped: bool, skip: int = 0) -> None:
        from scapy.error import Scapy_Exception
        from scapy.utils import RawPcapReader

        # What its readers would warn about ends up in `damage`.
        logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
        self.damage: str | None = None
        self._name = path.name
        self._snaplen = snaplen
        self._skip = skip
        self._file = _Watched(_open(path, gzipped=gzipped))
        try:
            self._reader: Any = RawPcapReader(cast(Any, self._file))
        except (Scapy_Exception, EOFError) as error:
            self._file.close()
            raise _not_a_capture(path, self._file.complaint or "unknown file format") from error

    def batches(self) -> Iterator[FrameBatch]:
        buffer = FrameBuffer(_BATCH_FRAMES, self._snaplen)
        link_type = -1
        for frame, frame_link_type, length, time_ns in self._frames():
            if len(buffer) and (buffer.room == 0 or frame_link_type != link_type):
                yield buffer.take(link_type, self._name)
            link_type = frame_link_type
            buffer.append(np.frombuffer(bytearray(frame), np.uint8), length, time_ns)
        if len(buffer):
            yield buffer.take(link_type, self._name)
        self.damage = self._file.complaint
        if self.damage is None and self._file.read(1):
            self.damage = "the next record contradicts itself"
        self.close()

    def _frames(self) -> Iterator[tuple[bytes, int, int, int]]:
        """(bytes, link type, length on the wire, time in ns) of each frame not to be skipped."""
        time_ns = 0
        unit_ns = 1 if getattr(self._reader, "nano", False) else 1000
        for number, (frame, meta) in enumerate(self._reader):
            if hasattr(meta, "sec"):
                link_type = self._reader.linktype & 0xFFFF  # above: length of the FCS
                time_ns = meta.sec * 1_000_000_000 + meta.usec * unit_ns
            else:
                link_type = meta.linktype
                if meta.tshigh is not None:  # a simple packet block has no time: the last one's
                    ticks = (meta.tshigh << 32) + meta.tslow
                    time_ns = min(ticks * 1_000_000_000 // meta.tsresol, LATEST_NS)
            if number >= self._skip:
                yield frame, link_type, meta.wirelen, time_ns

    def close(self) -> None:
        self._file.close()


class CaptureFile:
    """The frames of one file, to be iterated once; one link type and <= 8,192 frames a batch.

    frames: how many have been delivered so far.
    damage: after the iteration, one sentence that says where and why reading stopped early;
        None if the file was read to its end.
    """

    def __init__(self, path: Path, snaplen: int) -> None:
        self.path = path
        self.frames = 0
        self.damage: str | None = None
        self._snaplen = snaplen
        self._gzipped = _is_gzip(path)
        by_scapy = libpcap.library() is None or (
            sys.platform == "win32" and (self._gzipped or not str(path).isascii())
        )
        reader = ScapyReader if by_scapy else PcapReader
        self._reader: PcapReader | ScapyReader = reader(path, snaplen, gzipped=self._gzipped)

    def __iter__(self) -> Iterator[FrameBatch]:
        yield from self._count(self._reader)
        if (self._reader.damage or "").startswith(_MIXED_INTERFACES):
            self._reader = ScapyReader(
                self.path, self._snaplen, gzipped=self._gzipped, skip=self.frames
            )
            yield from self._count(self._reader)
        if self._reader.damage:
            place = f"in its frame {self.frames + 1:,}"
            read = f"the {self.frames:,} before it are read" if self.frames else "nothing is read"
            self.damage = f"{self.path.name} is damaged {place} ({self._reader.damage}); {read}."

    def _count(self, reader: PcapReader | ScapyReader) -> Iterator[FrameBatch]:
        for batch in reader.batches():
            self.frames += len(batch)
            yield batch

    def close(self) -> None:
        """Give the file back before its end; an iteration to the end has done it already."""
        self._reader.close()


def _is_gzip(path: Path) -> bool:
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path.name} is empty: there is nothing to read in it.")
        with path.open("rb") as file:
            return file.read(2) == _GZIP_MAGIC
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} can't be opened: {reason}.") from error


def _open(path: Path, *, gzipped: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if gzipped else path.open("rb")


def _not_a_capture(path: Path, complaint: str) -> InputError:
    return InputError(
        f"{path.name} can't be read as a capture ({complaint}): pcap and pcapng files are, "
        "plain or packed with gzip."
    )


def read_capture(path: Path | str, *, snaplen: int = 512) -> CaptureFile:
    """Open a capture file; of each frame at most `snaplen` bytes are kept.

    Raises InputError, in one sentence, for a file that is missing, empty or no capture.
    """
    return CaptureFile(Path(path), snaplen)

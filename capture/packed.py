"""The bytes of a file, plain or packed with gzip, in pieces and up to where they break off."""

from __future__ import annotations

import os
import stat
import zlib
from io import FileIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["GZIP_MAGIC", "FileBytes"]

GZIP_MAGIC: Final = b"\x1f\x8b"
_PACKED_BYTES: Final = 128 << 10
_GZIP: Final = 16 + zlib.MAX_WBITS  # header and trailer of RFC 1952


class FileBytes:
    """What is in a file, unpacked on the way where it is gzip; nothing of it piles up.

    error: after the last byte, why there are no more, None at a clean end.
    Raises OSError where the file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.error: str | None = None
        self._file: FileIO = path.open("rb", buffering=0)
        status = os.fstat(self._file.fileno())
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._packed = self._file.read(2) if self._size else b""
        self.is_packed = self._packed == GZIP_MAGIC
        if not self.is_packed and self._packed:
            self._file.seek(0)
        self._unpacker = zlib.decompressobj(_GZIP)

    @property
    def fraction(self) -> float | None:
        """The part of the file that has been read, 0..1 (of its packed bytes); None: unknown."""
        if self._size is None or self._file.closed:
            return None if self._size is None else 1.0
        return min(self._file.tell() / self._size, 1.0) if self._size else 1.0

    def read_into(self, target: NDArray[np.uint8]) -> int:
        """Fill the beginning of `target`; the bytes read, 0 at the end of what can be read."""
        try:
            if not self.is_packed:
                return self._file.readinto(target.data) or 0
            data = self._unpacked(len(target))
        except OSError as error:
            self.error = f"the disk gives no more of it ({error.strerror or error})"
            return 0
        target[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)

    def _unpacked(self, room: int) -> bytes:
        while self.error is None:
            if len(self._packed) < 2:
                self._packed += self._file.read(_PACKED_BYTES)
            if self._unpacker.eof:
                # The next member, if there is one; zeros may fill up a block of tape.
                self._packed = self._packed.lstrip(b"\0")
                if len(self._packed) < 2 and (more := self._file.read(_PACKED_BYTES)):
                    self._packed += more
                    continue
                if not self._packed:
                    return b""
                if self._packed[:2] != GZIP_MAGIC:
                    self.error = "behind its gzip stream follows something else"
                    return b""
                self._unpacker = zlib.decompressobj(_GZIP)
            if not self._packed:
                self.error = "its gzip stream is cut off"
                return b""
            before = self._unpacker.copy()
            packed = self._packed
            try:
                data = self._unpacker.decompress(packed, room)
            except zlib.error as error:
                self.error = f"its gzip stream is broken ({error})"
                return _before_the_error(before, packed)
            self._packed = self._unpacker.unused_data or self._unpacker.unconsumed_tail
            if data:
                return data
        return b""

    def close(self) -> None:
        self._file.close()


def _before_the_error(unpacker: zlib._Decompress, packed: bytes) -> bytes:
    """All that `packed` gives before the byte at which unpacking fails."""
    parts = []
    try:
        for place in range(len(packed)):
            parts.append(unpacker.decompress(packed[place : place + 1]))
    except zlib.error:
        pass
    return b"".join(parts)

"""What the store's files look like and how they are read back, whatever happened to them.

`<name>.json` is one valid JSON document: an array with one record per line, or an object. It is
only ever replaced whole. `<name>.journal` holds what changed since, one JSON object per line:

    {"sum":"1f0a93c4","put":{"id":"a","n":1}}
    {"sum":"90b1d2f7","delete":"a"}
    {"sum":"5e6f7a8b","snapshot":"<sha256>"}

`sum` is the CRC-32 of the rest of the line. A `snapshot` line says: everything above is inside
the snapshot with that digest. So a snapshot takes four steps (temporary file, snapshot line,
rename, journal emptied), and after a crash between any two of them no change is lost and none is
applied twice.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import sys
import time
import weakref
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from errors import StoreError, StoreLockedError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = [
    "DirectoryLock",
    "Journal",
    "JournalReading",
    "SnapshotReading",
    "alike",
    "encode",
    "journal_line",
    "read_journal",
    "read_snapshot",
    "set_aside",
    "write_snapshot",
]

_FILE_MODE: Final = 0o600
_SUM_HEAD: Final = b'{"sum":"'
_BODY_AT: Final = len(_SUM_HEAD) + 8 + len('",')
_LOCKED_BYTE: Final = 1 << 30  # far behind the text, which another process must be able to read


def encode(value: object) -> str:
    """Compact JSON in ASCII on one line; ValueError or TypeError for what JSON can't say."""
    return _ENCODER.encode(value)


def journal_line(action: str, argument: object) -> bytes:
    """One line of a journal, newline included."""
    body = f'"{action}":{encode(argument)}}}'.encode()
    return b'%b%08x",%b\n' % (_SUM_HEAD, zlib.crc32(body), body)


@dataclass(frozen=True, slots=True)
class SnapshotReading:
    """What a snapshot held: its values, the sha256 of its bytes, and whether it was whole.

    values: the array's elements, or the object as the only one; empty where there is no file.
    """

    values: list[object]
    digest: str
    exists: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class JournalReading:
    """The changes that the snapshot does not hold yet, in order, as (action, argument).

    length: bytes up to the end of the last complete line. damaged: complete lines that can't be
    read. torn: an incomplete last line was there.
    """

    changes: list[tuple[str, Any]]
    length: int
    damaged: int
    torn: bool


def read_snapshot(path: Path, shape: type[list[Any]] | type[dict[str, Any]]) -> SnapshotReading:
    """Everything that can be read from a document of that shape, damaged or not."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return SnapshotReading([], "", exists=False, whole=True)
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror}.") from error
    digest = hashlib.sha256(raw).hexdigest()
    try:
        value = _DECODER.decode(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        values = _salvage(raw.decode("utf-8", errors="replace")) if shape is list else []
        return SnapshotReading(values, digest, exists=True, whole=False)
    if not isinstance(value, shape):
        return SnapshotReading([], digest, exists=True, whole=False)
    values = value if isinstance(value, list) else [value]
    return SnapshotReading(values, digest, exists=True, whole=True)


def read_journal(path: Path, digest: str) -> JournalReading:
    """The journal's changes after the newest line that says it is in the snapshot `digest`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return JournalReading([], 0, damaged=0, torn=False)
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror}.") from error
    *lines, rest = raw.split(b"\n")
    changes: list[tuple[str, Any]] = []
    damaged = 0
    for line in lines:
        change = _change(line)
        if change is None:
            damaged += 1
        elif change == ("snapshot", digest):
            changes.clear()
        elif change[0] != "snapshot":
            changes.append(change)
    return JournalReading(changes, len(raw) - len(rest), damaged, torn=bool(rest))


def set_aside(path: Path) -> Path:
    """Give a damaged file a second name, `<name>.damaged-<time>`, that no snapshot replaces."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for attempt in range(1, 1000):
        suffix = "" if attempt == 1 else f"-{attempt}"
        aside = path.with_name(f"{path.stem}.damaged-{stamp}{suffix}")
        if aside.exists():
            continue
        try:
            os.link(path, aside)  # takes no space, which may be what is missing
        except OSError:
            os.replace(path, aside)
        return aside
    raise StoreError(f"{path} is damaged a thousand times in a second.")


def write_snapshot(path: Path, parts: Iterable[str], before_rename: Callable[[str], None]) -> None:
    """Replace a document in one step.

    before_rename: called with the new file's sha256 once it is on the disk under its temporary
    name. OSError leaves the old document as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    digest = hashlib.sha256()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, _FILE_MODE)
    try:
        try:
            for part in parts:
                data = part.encode("ascii")
                digest.update(data)
                _write_all(descriptor, data)
            _sync(descriptor)
        finally:
            os.close(descriptor)
        before_rename(digest.hexdigest())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


class Journal:
    """A file that only grows, and whose torn end is cut off before it grows again."""

    def __init__(self, path: Path, length: int) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._torn = True
        self.length = length

    def append(self, data: bytes) -> None:
        """Write and bring to the disk; OSError means that nothing was added."""
        descriptor = self._open()
        if self._torn:
            os.ftruncate(descriptor, self.length)
        self._torn = True
        _write_all(descriptor, data)
        _sync(descriptor)
        self._torn = False
        self.length += len(data)

    def clear(self) -> None:
        """Empty it; on the disk with the next append, and without harm if it never gets there."""
        self.length = 0
        self._torn = True
        with contextlib.suppress(OSError):
            os.ftruncate(self._open(), 0)
            self._torn = False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY
            self._descriptor = os.open(self._path, flags, _FILE_MODE)
            _sync_folder(self._path.parent)
        return self._descriptor


class DirectoryLock:
    """One owner for a directory, as long as the process lives; the system keeps the lock.

    The file `.lock` names the owner's pid and address for people; a stale one does not matter.
    """

    def __init__(self, directory: Path, address: str) -> None:
        path = directory / ".lock"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, _FILE_MODE)
        except OSError as error:
            raise StoreError(
                f"The data directory {directory} can't be written: {error.strerror}. Give another "
                f"one with --data-dir."
            ) from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            owner = _owner(self._descriptor)
            os.close(self._descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise StoreError(
                    f"The data directory {directory} can't be locked: {error.strerror}."
                ) from error
            raise StoreLockedError(
                f"The data directory {directory} is in use by {owner}. Stop that one first, or "
                f"give another directory with --data-dir."
            ) from None
        os.ftruncate(self._descriptor, 0)
        with contextlib.suppress(OSError):  # the lock holds without its text (disk full)
            text = encode({"pid": os.getpid(), "address": address}) + "\n"
            _write_all(self._descriptor, text.encode())
        if hasattr(os, "register_at_fork"):
            # A forked worker that outlives us must not keep the directory locked.
            me = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _release(me()))

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_BINARY: Final = getattr(os, "O_BINARY", 0)


def _release(lock: DirectoryLock | None) -> None:
    if lock is not None:
        lock.release()


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owner(descriptor: int) -> str:
    """Who holds the lock, in words."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        owner = json.loads(os.read(descriptor, 4096))
        pid, address = int(owner["pid"]), str(owner["address"])
    except (ValueError, KeyError, TypeError):
        return "another process"
    return f"process {pid} ({address})" if address else f"process {pid}"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(descriptor: int) -> None:
    """To the medium itself: macOS keeps what fsync gives it in the drive's own memory."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Bring names to the disk; Windows does that with the file itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _change(line: bytes) -> tuple[str, Any] | None:
    """(action, argument) of a journal line, None if it is damaged."""
    body = line[_BODY_AT:]
    if not line.startswith(b'%b%08x",' % (_SUM_HEAD, zlib.crc32(body))):
        return None
    try:
        entry = _DECODER.decode("{" + body.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    for action in ("put", "delete", "snapshot"):
        if action in entry:
            return action, entry[action]
    return None


def _salvage(text: str) -> list[object]:
    """The elements of a damaged array that parse, in order.

    After one that does not, reading goes on at the next line that begins as the first did.
    """
    found: list[object] = []
    first = re.search(r"\n[ \t]*\{", text)
    start_of_record = first.group() if first else "\n{"
    place = text.find("[") + 1
    while place < len(text):
        if text[place] in " \t\r\n,]\x00":
            place += 1
            continue
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            place = text.find(start_of_record, place)
            if place < 0:
                break
        else:
            found.append(value)
    return found


def alike(value: object, example: object) -> bool:
    """Whether two values are of one type of JSON; an example None is like everything."""
    if example is None:
        return True
    return _kind(value) == _kind(example)


def _kind(value: object) -> str:
    for types, kind in (
        (bool, "truth"),
        (int | float, "number"),
        (str, "text"),
        (list, "array"),
        (dict, "object"),
    ):
        if isinstance(value, types):
            return kind
    return "nothing"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number that JSON can say")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)

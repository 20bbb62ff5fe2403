"""Every JSON document of the data directory: in memory, on disk, and never torn.

    store = Store(Path("data"), address="http://127.0.0.1:5000")
    alerts = store.document("alerts_store", limit=1000)
    alerts.put({"id": "a1", "status": "OPEN"})
    alerts.flush()                      # returns when it is on the disk
    store.close()

A change is in memory at once and on disk with the next group (50 ms). One thread writes; the
files' form and how damage is read over are told in store_files. When the disk is full, changes
wait in memory, `flush` raises StoreError, and writing goes on by itself when there is space.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from errors import StoreError
from store_files import (
    DirectoryLock,
    Journal,
    alike,
    encode,
    journal_line,
    read_journal,
    read_snapshot,
    set_aside,
    write_snapshot,
)

__all__ = ["Document", "Record", "Store"]

log = logging.getLogger("secureflux.store")

Record = dict[str, Any]

_GROUP_S: Final = 0.050  # one fsync per group: 60,000 records/s measured, 265/s with one each
_OBJECT_GROUP_S: Final = 0.2  # an object is rewritten whole, which costs three times a line
_SNAPSHOT_S: Final = 30.0  # a snapshot of 10,000 records takes about 0.1 s of one core
_RETRY_S: Final = 0.5  # between attempts on a disk that does not take anything
_SNAPSHOT_RETRY_S: Final = 5.0  # the same where the journal still takes everything
_HEARTBEAT_S: Final = 1.0  # the writer's longest sleep
_CLOSE_S: Final = 4.0  # what closing may take of the 5 s in which the program ends
_WAITING_LINES: Final = 20_000  # beyond, a disk in trouble gets a snapshot instead of the lines
_PART: Final = 500  # records of a snapshot between two looks at the other documents
_FORMAT: Final = 1  # of the files; versions.json has it for each document


class Document:
    """One document of the store; made by Store.document. Any thread may use it.

    Records are treated as immutable: to change one, put a new dict with the same key.
    path: the file people may read, always one valid JSON document.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        key: str,
        limit: int | None,
        kind: Literal["records", "object"],
        like: Record | None = None,
    ) -> None:
        self.name = name
        self.path = store.directory / f"{name}.json"
        self.is_object = kind == "object"
        self._store = store
        self._key = key
        self._limit = limit
        self._like = like or {}
        self._records: OrderedDict[Any, Record] = OrderedDict()
        self._object: Record = {}
        # What the writer works on; guarded by the store's condition, like the records.
        self.waiting: list[bytes] = []
        self.changes = 0  # made in memory
        self.saved = 0  # of them on the disk
        self.failed = 0  # of them in the last attempt that failed
        self.attempts = 0
        self.since = 0.0  # monotonic time of the oldest change that is not on the disk
        self.behind = False  # the snapshot lacks something that the journal has
        self.only_snapshot = False  # waiting lines were dropped: the journal has a gap
        self.snapshot_at = 0.0  # monotonic time from which the next snapshot is due
        self.retry_at = 0.0
        self.trouble = ""  # why changes don't get to the disk
        self.stale = ""  # why the snapshot could not be replaced, while the journal goes on
        self.journal = self._load()

    @property
    def count(self) -> int:
        """How many records there are."""
        return len(self._records)

    def records(self) -> list[Record]:
        """All records, oldest first."""
        with self._store.changed:
            return list(self._records.values())

    def get(self, key: object) -> Record | None:
        """The record with that key."""
        with self._store.changed:
            return self._records.get(key)

    def put(self, record: Record) -> None:
        """Add a record, or replace the one with its key where that one stands."""
        self.put_many((record,))

    def put_many(self, records: Iterable[Record]) -> None:
        """Put several at once, in order."""
        lines = [(self._key_of(record), record, self._line("put", record)) for record in records]
        with self._store.changed:
            for key, record, line in lines:
                self._records[key] = record
                self._change(line)
                if self._limit is not None and len(self._records) > self._limit:
                    oldest, _ = self._records.popitem(last=False)
                    self._change(journal_line("delete", oldest))

    def delete(self, key: object) -> None:
        """Remove the record with that key, if there is one."""
        with self._store.changed:
            if self._records.pop(key, None) is not None:
                self._change(journal_line("delete", key))

    def replace(self, value: Record) -> None:
        """Give an object document a new value; the file is rewritten with the next group."""
        self._line("put", value)
        with self._store.changed:
            self._object = value
            self._change(None)

    def value(self) -> Record:
        """The value of an object document; {} before the first replace."""
        return self._object

    def flush(self, timeout_s: float = 5.0) -> None:
        """Return when every change made before is on the disk; StoreError if it can't be."""
        deadline = time.monotonic() + timeout_s
        with self._store.changed:
            target, attempts = self.changes, self.attempts
            if self.saved < target:
                self._store.hurry()
            while self.saved < target:
                if self.trouble and self.attempts > attempts and self.failed >= target:
                    raise StoreError(f"{self.trouble} It is kept in memory and written later.")
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._store.running:
                    raise StoreError(f"{self.path} was not written within {timeout_s:g} s.")
                self._store.changed.wait(min(left_s, _HEARTBEAT_S))

    def parts(self) -> tuple[int, Iterator[str]]:
        """How many changes a snapshot taken now holds, and its text in parts."""
        if self.is_object:
            return self.changes, iter([encode(self._object), "\n"])
        return self.changes, _array(list(self._records.values()))

    def due(self) -> float:
        """The monotonic time at which the writer has something to do here; infinity if never."""
        at = math.inf
        if self.changes > self.saved:
            at = self.since + (_OBJECT_GROUP_S if self.is_object else _GROUP_S)
        if self.behind:
            at = min(at, self.snapshot_at)
        return max(at, self.retry_at) if self.trouble else at

    def _change(self, line: bytes | None) -> None:
        """Count a change and hand its line to the writer; the caller holds the condition."""
        self._store.check_open()
        if self.saved == self.changes:
            self.since = time.monotonic()
            self._store.changed.notify_all()
        self.changes += 1
        if line is None:
            self.behind = True
        elif not self.only_snapshot:
            self.waiting.append(line)

    def _line(self, action: str, value: Record) -> bytes:
        try:
            return journal_line(action, value)
        except (TypeError, ValueError) as error:
            raise StoreError(f"{self.path.name} can't hold such a value: {error}.") from error

    def _key_of(self, record: Record) -> Any:
        key = record.get(self._key)
        if not isinstance(key, str | int):
            raise StoreError(f"A record of {self.path.name} needs the field {self._key}.")
        return key

    def _load(self) -> Journal:
        """Read snapshot and journal; what is damaged is told, set aside and read over."""
        snapshot = read_snapshot(self.path, dict if self.is_object else list)
        kept = [v for v in snapshot.values if isinstance(v, dict)]
        if not self.is_object:
            kept = [v for v in kept if self._fits(v)]
        if not snapshot.whole or len(kept) < len(snapshot.values):
            aside = set_aside(self.path)
            found = "nothing" if not kept else f"{len(kept)} records"
            self._store.tell(
                f"{self.path.name} was damaged: {found} could be read and kept. The damaged file "
                f"is {aside.name}."
            )
        journal = self.path.with_suffix(".journal")
        if self.is_object:
            self._object = kept[0] if kept else {}
            self.behind = not snapshot.exists or not snapshot.whole
            return Journal(journal, 0)
        for record in kept:
            self._records[record[self._key]] = record
        reading = read_journal(journal, snapshot.digest)
        damaged = reading.damaged
        for action, argument in reading.changes:
            damaged += not self._replay(action, argument)
        if damaged:
            self._store.tell(f"{journal.name}: {damaged} damaged lines were skipped.")
        if reading.torn:
            self._store.tell(
                f"{journal.name}: its last line was cut off in the middle of a write and is "
                f"dropped. Nothing that was confirmed is lost."
            )
        while self._limit is not None and len(self._records) > self._limit:
            self._records.popitem(last=False)
        self.behind = (
            not snapshot.exists
            or not snapshot.whole
            or len(self._records) != len(snapshot.values)
            or reading.length > 0
            or reading.torn
        )
        return Journal(journal, reading.length)

    def _replay(self, action: str, argument: Any) -> bool:
        """Apply one change of the journal; False if it makes no sense."""
        if action == "put" and isinstance(argument, dict) and self._fits(argument):
            self._records[argument[self._key]] = argument
            return True
        if action == "delete" and isinstance(argument, str | int):
            self._records.pop(argument, None)
            return True
        return False

    def _fits(self, record: Record) -> bool:
        """Whether a record that was read has its key, and what its room will look for in it."""
        return isinstance(record.get(self._key), str | int) and all(
            name in record and alike(record[name], example) for name, example in self._like.items()
        )


class Store:
    """The data directory: its lock, its documents and the one thread that writes them.

    address: what another instance that wants the directory is told, beside our pid.
    snapshot_s: seconds between two snapshots of a document.
    Raises StoreLockedError when another process has it, StoreError when it can't be used or was
    written by a newer version.
    """

    def __init__(
        self, directory: Path, *, address: str = "", snapshot_s: float = _SNAPSHOT_S
    ) -> None:
        self.directory = directory
        self.changed = threading.Condition()
        self.running = False
        self._snapshot_s = snapshot_s
        self._documents: dict[str, Document] = {}
        self._told: list[str] = []
        self._closing = False
        self._hurry = False
        self._heartbeat = time.monotonic()
        _make_folder(directory)
        self._lock = DirectoryLock(directory, address)
        try:
            self._versions = Document(self, "versions", key="", limit=None, kind="object")
            _check_versions(self._versions)
        except StoreError:
            self._lock.release()
            raise
        self._documents["versions"] = self._versions
        self.running = True
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def document(
        self,
        name: str,
        *,
        key: str = "id",
        limit: int | None = None,
        kind: Literal["records", "object"] = "records",
        like: Record | None = None,
    ) -> Document:
        """The document `<name>.json`, read from the disk or new.

        key: the field of a record that names it (text or whole number). limit: records kept; the
        oldest goes first. kind: an array of records, or one object. like: a record with fields
        that every record has; one that lacks them, or has another type there, is damaged. None
        in it stands for any value.
        """
        known = self._documents.get(name)
        if known is not None:
            return known
        document = Document(self, name, key=key, limit=limit, kind=kind, like=like)
        with self.changed:
            self.check_open()
            self._documents[name] = document
            self.changed.notify_all()
        self._versions.replace({**self._versions.value(), name: _FORMAT})
        return document

    def close(self) -> None:
        """Write everything, take a last snapshot, give the directory back."""
        with self.changed:
            if self._closing:
                return
            self._closing = True
            self.changed.notify_all()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            log.error("the disk did not take the last changes within %g s", _CLOSE_S)
            return
        for document in self._documents.values():
            document.journal.close()
        self._lock.release()

    def health(self) -> dict[str, Any]:
        """How the store is: for /health.

        state: ok or trouble. lag_s: age of the oldest change that is not on the disk. waiting:
        changes that are not. heartbeat_age_s: since the writer last looked. free_bytes: on the
        disk, None where the directory is gone. documents: records, journal_bytes and waiting of
        each.
        """
        now = time.monotonic()
        with self.changed:
            documents = {
                name: {
                    "records": d.count,
                    "journal_bytes": d.journal.length,
                    "waiting": d.changes - d.saved,
                }
                for name, d in self._documents.items()
            }
            behind = [d.since for d in self._documents.values() if d.changes > d.saved]
            trouble = self._wrong()
            alive = self._thread.is_alive() and not self._closing
            heartbeat = self._heartbeat
        return {
            "state": "ok" if alive and not trouble else "trouble",
            "sentence": trouble[0] if trouble else "" if alive else "The store is closed.",
            "lag_s": now - min(behind) if behind else 0.0,
            "waiting": sum(d["waiting"] for d in documents.values()),
            "heartbeat_age_s": now - heartbeat,
            "free_bytes": _free_bytes(self.directory),
            "documents": documents,
        }

    def notices(self) -> list[str]:
        """What was found damaged since the start, and what is wrong now, in sentences."""
        with self.changed:
            return [*self._told, *self._wrong()]

    def _wrong(self) -> list[str]:
        return [d.trouble or d.stale for d in self._documents.values() if d.trouble or d.stale]

    # What documents ask of their store; not for others.

    def tell(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self._told.append(sentence)

    def hurry(self) -> None:
        """Somebody waits: write now. The caller holds the condition."""
        self._hurry = True
        self.changed.notify_all()

    def check_open(self) -> None:
        if self._closing:
            raise StoreError(f"The data directory {self.directory} is closed.")

    # The writer thread.

    def _run(self) -> None:
        try:
            while not self._step():
                pass
        finally:
            with self.changed:
                self.running = False
                self.changed.notify_all()

    def _step(self) -> bool:
        """Sleep until something is due, and do it. True after the last step."""
        with self.changed:
            while True:
                self._heartbeat = now = time.monotonic()
                hurry, closing = self._hurry, self._closing
                due = min(d.due() for d in self._documents.values())
                if hurry or closing or due <= now:
                    break
                self.changed.wait(min(due - now, _HEARTBEAT_S))
            self._hurry = False
            documents = [
                d
                for d in self._documents.values()
                if hurry or closing or not d.trouble or d.retry_at <= now
            ]
        self._write_journals(documents)
        for document in documents:
            if self._wants_snapshot(document, now, hurry=hurry, closing=closing):
                others = [d for d in documents if d is not document]
                self._write_snapshot(document, others)
        return closing

    def _wants_snapshot(
        self, document: Document, now: float, *, hurry: bool, closing: bool
    ) -> bool:
        with self.changed:
            if document.is_object:
                return document.behind and (hurry or closing or document.due() <= now)
            return document.only_snapshot or (
                document.behind and (closing or document.snapshot_at <= now)
            )

    def _write_journals(self, documents: Iterable[Document]) -> None:
        for document in documents:
            with self.changed:
                if document.only_snapshot or not document.waiting:
                    continue
                lines, document.waiting = document.waiting, []
                covered = document.changes
                document.behind = True
            try:
                document.journal.append(b"".join(lines))
            except OSError as error:
                self._failed(document, lines, covered, error)
            else:
                self._succeeded(document, covered)

    def _write_snapshot(self, document: Document, others: list[Document]) -> None:
        """Replace the file of one document; the others' changes go on to the disk meanwhile."""
        with self.changed:
            covered, parts = document.parts()
            lines, document.waiting = document.waiting, []
            document.behind = False

        def interleaved() -> Iterator[str]:
            for part in parts:
                yield part
                self._write_journals(others)

        def mark(digest: str) -> None:
            if document.journal.length:
                document.journal.append(journal_line("snapshot", digest))

        try:
            write_snapshot(document.path, interleaved(), mark)
        except OSError as error:
            if document.is_object or document.only_snapshot:
                self._failed(document, lines, covered, error)
            else:
                self._stale(document, lines, error)
            return
        if not document.is_object:
            document.journal.clear()
        with self.changed:
            document.only_snapshot = False
            document.stale = ""
            document.snapshot_at = time.monotonic() + self._snapshot_s
            if document.is_object and document.changes > covered:
                document.behind = True
        self._succeeded(document, covered)

    def _succeeded(self, document: Document, covered: int) -> None:
        with self.changed:
            if document.trouble:
                log.warning("%s is written again", document.path)
                document.snapshot_at = min(document.snapshot_at, time.monotonic())
            document.trouble = ""
            document.saved = covered
            # The oldest change that is left came after the group was taken, so it is young.
            document.since = time.monotonic()
            self.changed.notify_all()

    def _stale(self, document: Document, lines: list[bytes], error: OSError) -> None:
        """The snapshot failed, but the journal may still take the lines."""
        with self.changed:
            if not document.stale:
                log.error("%s can't be replaced: %s", document.path, error)
            document.stale = f"{document.path} can't be replaced: {error.strerror}."
            document.snapshot_at = time.monotonic() + _SNAPSHOT_RETRY_S
            document.behind = True
            document.waiting[:0] = lines

    def _failed(self, document: Document, lines: list[bytes], covered: int, error: OSError) -> None:
        with self.changed:
            if not document.trouble:
                log.error("%s can't be written: %s", document.path, error)
            document.trouble = f"{document.path} can't be written: {error.strerror}."
            document.retry_at = time.monotonic() + _RETRY_S
            document.attempts += 1
            document.failed = covered
            document.behind = True
            document.waiting[:0] = lines
            if len(document.waiting) > _WAITING_LINES:
                document.waiting.clear()
                document.only_snapshot = True
            self.changed.notify_all()


def _free_bytes(directory: Path) -> int | None:
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def _array(records: list[Record]) -> Iterator[str]:
    """The text of an array, one record per line, in parts."""
    yield "["
    for start in range(0, len(records), _PART):
        lines = ",\n".join(map(encode, records[start : start + _PART]))
        yield ("\n" if start == 0 else ",\n") + lines
    yield "\n]\n"


def _make_folder(directory: Path) -> None:
    """The folder, closed to other users where it is ours alone."""
    ours = not directory.exists() or (directory / "versions.json").exists()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if ours:
            os.chmod(directory, 0o700)
    except OSError as error:
        raise StoreError(
            f"The data directory {directory} can't be made: {error.strerror}. Give another one "
            f"with --data-dir."
        ) from error


def _check_versions(versions: Document) -> None:
    for name, version in versions.value().items():
        if isinstance(version, int) and version > _FORMAT:
            raise StoreError(
                f"{versions.path} says that {name} has format {version}, written by a newer "
                f"version of this program; this one reads up to {_FORMAT}. Use the newer version, "
                f"or another directory with --data-dir."
            )

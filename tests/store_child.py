"""A second process with a store, for the tests that kill it; prints one line per confirmed step.

store_child.py DIRECTORY flood          records without end, until it is killed
store_child.py DIRECTORY crash N        OPERATIONS, but it dies inside its N-th disk operation
store_child.py DIRECTORY hold           takes the directory and waits
store_child.py DIRECTORY fork           the same, with a worker that outlives it
store_child.py DIRECTORY full LINES     meets a full disk, and space again
store_child.py DIRECTORY tight          the same, with space for the journal alone
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import store
from errors import StoreError
from store import Document, Store

LIMIT = 4
STEP = 3  # operations between two flushes

# Chosen so that none of the usual shortcuts survives: a key comes back after its deletion, a
# record that the limit drops is put again, one is replaced in its place.
OPERATIONS: list[tuple[Literal["put", "delete"], str, int]] = [
    ("put", "a", 1),
    ("put", "b", 2),
    ("put", "c", 3),
    ("put", "a", 4),
    ("delete", "a", 0),
    ("put", "a", 5),
    ("put", "d", 6),
    ("put", "e", 7),
    ("put", "b", 8),
    ("delete", "e", 0),
    ("delete", "c", 0),
    ("put", "c", 9),
    ("put", "e", 10),
    ("put", "f", 11),
    ("put", "a", 12),
]


def states() -> list[list[dict[str, Any]]]:
    """The records after none, one, two … of OPERATIONS, by a model that is plain to see."""
    model: OrderedDict[str, dict[str, Any]] = OrderedDict()
    after: list[list[dict[str, Any]]] = [[]]
    for action, key, number in OPERATIONS:
        if action == "put":
            model[key] = {"id": key, "n": number}
            if len(model) > LIMIT:
                model.popitem(last=False)
        else:
            model.pop(key, None)
        after.append(list(model.values()))
    return after


def apply(document: Document, action: Literal["put", "delete"], key: str, number: int) -> None:
    if action == "put":
        document.put({"id": key, "n": number})
    else:
        document.delete(key)


def say(text: object) -> None:
    _write(1, f"{text}\n".encode())


_write = os.write


def die_inside(nth: int) -> None:
    """Make the n-th operation on the disk the last: a write is cut in half, others don't happen."""
    counter = itertools.count()

    def guarded(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def operation(*arguments: Any) -> Any:
            if next(counter) == nth:
                if name == "write":
                    _write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os._exit(9)
            return real(*arguments)

        setattr(os, name, operation)

    for name in ("write", "fsync", "replace", "ftruncate"):
        guarded(name)


def flood(directory: Path) -> None:
    documents = Store(directory, snapshot_s=0.0)
    records = documents.document("records")
    start = len(records.records())
    for number in itertools.count(start):
        records.put({"id": f"r{number}", "text": "x" * 300})
        if number % 7 == 0:
            records.flush()
            say(number)


def crash(directory: Path, nth: int) -> None:
    documents = Store(directory, snapshot_s=0.0)
    records = documents.document("records", limit=LIMIT)
    records.flush()
    die_inside(nth)
    for done, operation in enumerate(OPERATIONS, 1):
        apply(records, *operation)
        if done % STEP == 0:
            records.flush()
            say(done)
    documents.close()
    say("closed")


def hold(directory: Path, *, fork: bool) -> None:
    documents = Store(directory, address="http://127.0.0.1:5000")
    pid = os.getpid()
    if not fork or os.fork() == 0:
        say(f"{pid} {os.getpid()}")
    sys.stdin.read()
    documents.close()


def full(directory: Path, waiting_lines: int, *, tight: bool) -> None:
    """A limit on the size of files stands for the full disk: the system refuses the same way."""
    import resource

    store.__dict__["_WAITING_LINES"] = waiting_lines
    documents = Store(directory, snapshot_s=0.0)
    records = documents.document("records")
    settings = documents.document("settings", kind="object")
    records.put({"id": 0, "text": "x" * (300_000 if tight else 10)})
    settings.replace({"a": 1})
    records.flush()
    settings.flush()
    while tight and (records.journal.length or records.path.stat().st_size < 300_000):
        time.sleep(0.01)  # the big record is in the snapshot
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    refused = 0
    for number in range(1, 101):
        records.put({"id": number, "text": "x" * 1000})
        try:
            records.flush()
        except StoreError as error:
            refused += 1
            reason = str(error)
    settings.replace({"a": "x" * 30_000})
    try:
        settings.flush()
    except StoreError:
        refused += 1
    during = json.loads(records.path.read_text()), json.loads(settings.path.read_text())
    told = documents.notices()
    state = documents.health()["state"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000 if tight else hard, hard))
    records.flush()
    settings.flush()
    deadline = time.monotonic() + 5.0
    while documents.notices() and not tight and time.monotonic() < deadline:
        time.sleep(0.01)
    result = {
        "refused": refused,
        "reason": reason,
        "records_during": len(during[0]),
        "settings_during": during[1],
        "told": told,
        "state": state,
        "state_after": documents.health()["state"],
        "told_after": documents.notices(),
    }
    say(json.dumps(result))
    os.kill(os.getpid(), 9)


if __name__ == "__main__":
    folder, mode, *rest = sys.argv[1:]
    if mode == "flood":
        flood(Path(folder))
    elif mode == "crash":
        crash(Path(folder), int(rest[0]))
    elif mode == "full":
        full(Path(folder), int(rest[0]), tight=False)
    elif mode == "tight":
        full(Path(folder), 20_000, tight=True)
    else:
        hold(Path(folder), fork=mode == "fork")

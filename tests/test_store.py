"""The store: nothing confirmed is lost, whatever is killed, full or damaged."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import StoreError, StoreLockedError
from store import Document, Store
from tests import store_child

CHILD = Path(store_child.__file__)
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals or limits")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def child(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """A second process on the directory; see store_child."""
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(directory), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def reopened(directory: Path, name: str = "records", **how: Any) -> list[dict[str, Any]]:
    """The records a new store finds; closes it again."""
    store = Store(directory)
    try:
        return store.document(name, **how).records()
    finally:
        store.close()


def on_disk(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# What it keeps


def test_records_are_kept_in_order_and_replaced_in_place(directory: Path) -> None:
    store = Store(directory)
    document = store.document("records", key="name")
    document.put_many({"name": n, "v": 1} for n in ("a", "b", "c"))
    document.put({"name": "a", "v": 2})
    document.delete("b")
    document.delete("never there")
    expected = [{"name": "a", "v": 2}, {"name": "c", "v": 1}]
    assert document.records() == expected
    assert (document.get("a"), document.get("b")) == ({"name": "a", "v": 2}, None)
    store.close()
    assert on_disk(directory / "records.json") == expected
    assert reopened(directory, key="name") == expected


def test_limit_drops_the_oldest(directory: Path) -> None:
    store = Store(directory)
    document = store.document("records", limit=3)
    for number in range(10):
        document.put({"id": number})
    assert [r["id"] for r in document.records()] == [7, 8, 9]
    store.close()
    assert [r["id"] for r in reopened(directory, limit=2)] == [8, 9]


def test_file_is_one_record_per_line_in_a_valid_array(directory: Path) -> None:
    store = Store(directory)
    store.document("records").put_many({"id": n, "text": "ü\u2028\n"} for n in range(1200))
    store.close()
    text = (directory / "records.json").read_text(encoding="utf-8")
    assert len(json.loads(text)) == 1200
    lines = text.splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("[", "]", 1202)
    assert all(json.loads(line.rstrip(","))["text"] == "ü\u2028\n" for line in lines[1:-1])


def test_new_document_is_valid_json_at_once(directory: Path) -> None:
    store = Store(directory)
    records, value = store.document("records"), store.document("whitelist", kind="object")
    records.put({"id": 1})
    records.flush()
    value.replace({"trusted_ips": []})
    value.flush()
    assert isinstance(on_disk(records.path), list)
    assert on_disk(value.path) == {"trusted_ips": []}
    assert on_disk(directory / "records.json") in ([], [{"id": 1}])
    store.close()


def test_object_is_on_disk_after_flush_and_comes_back(directory: Path) -> None:
    store = Store(directory)
    document = store.document("settings", kind="object")
    assert document.value() == {}
    for number in range(3):
        document.replace({"n": number})
        document.flush()
        assert on_disk(document.path) == {"n": number}
    store.close()
    store = Store(directory)
    assert store.document("settings", kind="object").value() == {"n": 2}
    store.close()


def test_same_name_is_the_same_document(directory: Path) -> None:
    store = Store(directory)
    assert store.document("records") is store.document("records")
    store.close()


@pytest.mark.parametrize(
    "record", [{"id": 1, "x": float("nan")}, {"id": 1, "x": object()}, {"id": 1, "x": {1, 2}}]
)
def test_what_json_can_not_say_is_refused_and_changes_nothing(
    directory: Path, record: dict[str, Any]
) -> None:
    store = Store(directory)
    document = store.document("records")
    with pytest.raises(StoreError, match=r"records\.json can't hold"):
        document.put(record)
    with pytest.raises(StoreError, match="needs the field id"):
        document.put({"name": "no key"})
    assert document.records() == []
    store.close()


def test_files_are_for_their_owner_only(directory: Path) -> None:
    store = Store(directory)
    document = store.document("records")
    document.put({"id": 1})
    document.flush()
    store.close()
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in directory.iterdir()}
    assert set(modes) == {".lock", "records.json", "records.journal", "versions.json"}
    if sys.platform != "win32":
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_closed_store_takes_nothing(directory: Path) -> None:
    store = Store(directory)
    document = store.document("records")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        document.put({"id": 1})
    assert store.health()["state"] == "trouble"


def test_threads_may_write_at_once(directory: Path) -> None:
    store = Store(directory)
    document = store.document("records")

    def write(thread: int) -> None:
        for number in range(200):
            document.put({"id": f"{thread}-{number}"})
            if number % 50 == 0:
                document.flush()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document.flush()
    assert (store.health()["waiting"], store.health()["state"]) == (0, "ok")
    store.close()
    assert len({r["id"] for r in reopened(directory)}) == 800


actions = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 6), st.integers()),
    st.tuples(st.just("delete"), st.integers(0, 6), st.just(0)),
    st.tuples(st.sampled_from(["reopen", "flush", "snapshot"]), st.just(0), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(actions, max_size=25),
    limit=st.one_of(st.none(), st.integers(1, 5)),
    snapshot_s=st.sampled_from([0.0, 30.0]),
)
def test_random_changes_equal_a_dict(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int, int]],
    limit: int | None,
    snapshot_s: float,
) -> None:
    directory = tmp_path_factory.mktemp("model")
    model: OrderedDict[str, dict[str, Any]] = OrderedDict()
    store = Store(directory, snapshot_s=snapshot_s)
    document = store.document("records", limit=limit)
    for action, number, value in steps:
        key = f"k{number}"
        if action == "put":
            model[key] = {"id": key, "v": value}
            document.put({"id": key, "v": value})
            if limit is not None and len(model) > limit:
                model.popitem(last=False)
        elif action == "delete":
            model.pop(key, None)
            document.delete(key)
        elif action == "flush":
            document.flush()
        else:
            store.close()
            store = Store(directory, snapshot_s=snapshot_s)
            document = store.document("records", limit=limit)
        assert document.records() == list(model.values())
    store.close()
    assert reopened(directory, limit=limit) == list(model.values())


# Speed


def test_two_thousand_records_a_second_are_durable_within_a_quarter_second(
    directory: Path,
) -> None:
    store = Store(directory)
    document = store.document("records", limit=5000)
    rates, waits = [], []
    for _ in range(3):  # the best of three: the machine is not ours alone
        began = time.perf_counter()
        for number in range(4000):
            document.put({"id": number, "text": "x" * 800})
        waited = time.perf_counter()
        document.flush()
        done = time.perf_counter()
        rates.append(4000 / (done - began))
        waits.append(done - waited)
    store.close()
    assert max(rates) > 2000
    assert min(waits) < 0.25


# Killed


@posix
def test_nothing_confirmed_is_lost_by_kill_nine(directory: Path) -> None:
    rng = random.Random(12)
    confirmed = -1
    for _ in range(4):
        process = child(directory, "flood")
        for _ in range(rng.randrange(20, 60)):
            confirmed = int(line_of(process.stdout))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        confirmed = max([confirmed, *(int(line) for line in rest.split())])
        assert isinstance(on_disk(directory / "records.json"), list)
        found = [r["id"] for r in reopened(directory)]
        assert found == [f"r{number}" for number in range(len(found))]
        assert len(found) > confirmed


@posix
def test_dying_inside_any_disk_operation_loses_nothing_and_repeats_nothing(
    tmp_path: Path,
) -> None:
    states = store_child.states()
    nth = 0
    ended = False
    while not ended:
        batch = [(tmp_path / f"d{n}", n) for n in range(nth, nth + 8)]
        processes = [(d, child(d, "crash", str(n))) for d, n in batch]
        nth += len(batch)
        for directory, process in processes:
            said, _ = process.communicate(timeout=20)
            steps = said.split()
            ended = "closed" in steps
            confirmed = len(states) - 1 if ended else int(steps[-1]) if steps else 0
            assert process.returncode == (0 if ended else 9)
            found = reopened(directory, limit=store_child.LIMIT)
            assert found in states[confirmed:], (directory.name, confirmed, found)
    assert nth > 30, "the operations were not guarded"


# One owner


@posix
def test_second_instance_is_refused_with_the_pid_and_address_of_the_first(directory: Path) -> None:
    process = child(directory, "hold")
    pid = line_of(process.stdout).split()[0]
    with pytest.raises(StoreLockedError, match=rf"process {pid} \(http://127\.0\.0\.1:5000\)"):
        Store(directory)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert reopened(directory) == [], "a killed owner's lock file is no obstacle"


@posix
def test_worker_of_a_killed_owner_does_not_keep_the_directory(directory: Path) -> None:
    process = child(directory, "fork")
    _, worker = line_of(process.stdout).split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.kill(int(worker), 0)
    assert reopened(directory) == []
    process.communicate()


def test_directory_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--data-dir"):
        Store(tmp_path / "file" / "data")
    with pytest.raises(StoreError, match="--data-dir"):
        Store(tmp_path / "file")


def test_newer_format_is_refused_and_left_alone(directory: Path) -> None:
    store = Store(directory)
    store.document("records").put({"id": 1})
    store.close()
    assert on_disk(directory / "versions.json") == {"records": 1}
    (directory / "versions.json").write_text('{"records": 2}')
    with pytest.raises(StoreError, match="newer version"):
        Store(directory)
    (directory / "versions.json").write_text('{"records": 1}')
    assert reopened(directory) == [{"id": 1}]


# Full


@posix
@pytest.mark.parametrize("how", [("full", "20000"), ("full", "20"), ("tight",)])
def test_full_disk_is_told_and_survived(directory: Path, how: tuple[str, ...]) -> None:
    said, _ = child(directory, *how).communicate(timeout=60)
    result = json.loads(said)
    assert result["refused"] > 50
    assert "File too large" in result["reason"]
    assert result["records_during"] >= 1
    assert result["settings_during"] == {"a": 1}
    assert result["state"] == "trouble"
    assert any("can't be" in sentence for sentence in result["told"])
    if how[0] == "full":
        assert (result["state_after"], result["told_after"]) == ("ok", [])
    found = reopened(directory)
    assert [r["id"] for r in found] == list(range(101))
    assert len(on_disk(directory / "settings.json")["a"]) == 30_000


# Damaged

RECORDS = [{"id": f"r{n}", "inner": {"id": "not a record", "n": n}} for n in range(6)]


@pytest.fixture
def whole(directory: Path) -> Path:
    """The file of six records, closed."""
    store = Store(directory)
    store.document("records").put_many(RECORDS)
    store.close()
    return directory / "records.json"


def damaged(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.damaged-*"))


def reading(directory: Path, **how: Any) -> tuple[Document, list[str]]:
    """The document as a new store reads it, and what that store tells; closed again."""
    store = Store(directory)
    document = store.document("records", **how)
    told = store.notices()
    store.close()
    return document, told


def check_damage(path: Path, kept: list[dict[str, Any]]) -> None:
    """The damage is told once, what is left is kept, the bad file stands aside."""
    bad = path.read_bytes()
    document, told = reading(path.parent)
    assert document.records() == kept
    assert len(told) == 1
    assert "records.json was damaged" in told[0]
    [aside] = damaged(path.parent)
    assert aside.name in told[0]
    assert aside.name.startswith("records.damaged-")
    assert aside.read_bytes() == bad
    assert on_disk(path) == kept
    assert reading(path.parent)[1] == []


def test_truncated_file_keeps_what_is_whole(whole: Path) -> None:
    text = whole.read_bytes()
    whole.write_bytes(text[: text.index(b'"r4"') + 20])
    check_damage(whole, RECORDS[:4])


def test_bytes_overwritten_in_the_middle_cost_their_record(whole: Path) -> None:
    text = bytearray(whole.read_bytes())
    place = text.index(b'"r2"')
    text[place : place + 8] = b"\x00\xff\xfe{\x80\x81[\x03"
    whole.write_bytes(bytes(text))
    check_damage(whole, RECORDS[:2] + RECORDS[3:])


def test_damaged_file_of_another_layout_is_read_too(whole: Path) -> None:
    text = json.dumps(RECORDS, indent=2)
    whole.write_text(text[: text.index('"r4"')].replace('"r1",', '"r1'))
    check_damage(whole, [RECORDS[0], RECORDS[2], RECORDS[3]])


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 4096, bytes(range(256)) * 8, b"{}", b"null", b"[" * 100_000, b'{"id": "x"}'],
    ids=["empty", "zeros", "binary", "object", "null", "deep", "record"],
)
def test_file_of_which_nothing_can_be_read_is_set_aside(whole: Path, content: bytes) -> None:
    whole.write_bytes(content)
    check_damage(whole, [{"id": "x"}] if content.startswith(b'[{"id"') else [])


def test_wrong_types_in_the_middle_are_left_out(whole: Path) -> None:
    mixed = [RECORDS[0], 5, "x", None, [RECORDS[1]], {"no": "key"}, {"id": None}, RECORDS[2]]
    whole.write_text(json.dumps(mixed))
    check_damage(whole, [RECORDS[0], RECORDS[2]])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_json_can_not_say_are_damage(whole: Path, number: str) -> None:
    whole.write_text(f'[\n{{"id":"a","x":{number}}},\n{{"id":"b","x":1}}\n]\n')
    check_damage(whole, [{"id": "b", "x": 1}])


def test_object_of_the_wrong_type_is_set_aside(directory: Path) -> None:
    directory.mkdir()
    (directory / "records.json").write_text("[1, 2]")
    document, told = reading(directory, kind="object")
    assert document.value() == {}
    assert len(told) == len(damaged(directory)) == 1


def test_versions_that_can_not_be_read_do_not_stop_the_start(whole: Path) -> None:
    (whole.parent / "versions.json").write_bytes(b"\x00\x01")
    document, told = reading(whole.parent)
    assert document.records() == RECORDS
    assert "versions.json was damaged" in told[0]
    assert on_disk(whole.parent / "versions.json") == {"records": 1}


@pytest.fixture
def journalled(directory: Path) -> Iterator[Path]:
    """The journal of six records of which the snapshot has none, as a killed process leaves it."""
    store = Store(directory)
    document = store.document("records")
    document.flush()
    while not document.path.exists():  # the empty snapshot; the next one is 30 s away
        document.put(RECORDS[0])
        document.flush()
    for record in RECORDS:
        document.put(record)
        document.flush()
    left = directory.parent / "left"
    left.mkdir()
    for path in directory.iterdir():
        if path.name != ".lock":
            (left / path.name).write_bytes(path.read_bytes())
    yield left / "records.journal"
    store.close()


def test_journal_alone_brings_everything_back(journalled: Path) -> None:
    document, told = reading(journalled.parent)
    assert document.records() == RECORDS
    assert told == []
    assert journalled.read_bytes() == b""


def test_torn_last_line_is_dropped_and_told(journalled: Path) -> None:
    journalled.write_bytes(journalled.read_bytes()[:-5])
    document, told = reading(journalled.parent)
    assert document.records() == RECORDS[:5]
    assert len(told) == 1
    assert "records.journal: its last line was cut off" in told[0]


@pytest.mark.parametrize("change", [b"\x00", b"7", b"\n"], ids=["zero", "digit", "newline"])
def test_damaged_line_in_the_middle_is_skipped_and_told(journalled: Path, change: bytes) -> None:
    text = bytearray(journalled.read_bytes())
    place = text.index(b'"n":2}')
    text[place + 4 : place + 5] = change
    journalled.write_bytes(bytes(text))
    document, told = reading(journalled.parent)
    assert document.records() == RECORDS[:2] + RECORDS[3:]
    assert len(told) == 1
    assert "damaged line" in told[0]


def test_journal_of_random_bytes_is_survived(journalled: Path) -> None:
    journalled.write_bytes(random.Random(1).randbytes(10_000))
    document, told = reading(journalled.parent)
    assert len(document.records()) <= 1
    assert told


def test_damaged_snapshot_and_journal_together_keep_both(journalled: Path) -> None:
    path = journalled.with_suffix(".json")
    path.write_text('[\n{"id":"old"},\n{"id":"ol')
    document, _ = reading(journalled.parent)
    assert document.records() == [{"id": "old"}, *RECORDS]

"""The engine's thread when something goes wrong: it ends, and says so."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from alerts.pairs import HostHours, PairWindows
from batches import FrameBatch
from capture import CaptureStatus
from engine import Engine
from errors import StoreError
from ml.recalibration import FlowRate
from replay import Replay
from settings import Settings
from store import Store
from tests.frames import (
    ACK,
    PSH,
    SYN,
    Frame,
    batch_of,
    ethernet,
    golden,
    ipv4,
    talk,
    udp,
    write_pcap,
)

DAY_NS = 86_400 * 10**9


def replaying(folder: Path, *captures: list[Frame]) -> Engine:
    paths = [write_pcap(folder / f"{n}.pcap", frames) for n, frames in enumerate(captures)]
    settings = replace(
        Settings(), DATA_DIR=str(folder / "data"), LIVE_MODEL_PATH=str(folder / "live")
    )
    return Engine(settings, Store(folder / "data"), Replay(paths), mode="replay")


def test_a_fault_at_the_very_end_does_not_let_others_wait_for_ever(tmp_path: Path) -> None:
    engine = replaying(tmp_path, golden())
    engine.store.close()  # the last flows find no place to be written to
    engine.start()
    assert engine.wait_finished(60)
    assert engine.failure is not None
    assert engine.exit_code == 1
    assert engine.health()["ok"] is False
    engine.stop()


def test_a_data_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    engine = replaying(tmp_path, golden())
    engine.start()
    assert engine.wait_finished(60)
    assert engine.health()["ok"] is True
    while (tmp_path / "data").exists():  # the store's thread may be replacing a file in it
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
    document = engine.store.document("anything")
    document.put({"id": "a"})
    with pytest.raises(StoreError):
        document.flush()
    health = engine.health()
    assert health["ok"] is False
    assert any("can't be written" in notice for notice in health["notices"])
    engine.stop()


def test_captures_in_the_wrong_order_are_judged_as_in_the_right_one(tmp_path: Path) -> None:
    chat = [(n * 1e6, "fb"[n % 2], PSH | ACK, 100) for n in range(60)]
    later = [(t + DAY_NS, frame) for t, frame in talk("10.0.0.5", 40_000, "10.0.0.9", 443, chat)]
    scan = [
        frame
        for port in range(1, 61)
        for frame in talk("10.0.0.66", 50_000, "10.0.0.9", port, [(port * 2e5, "f", SYN, 0)])
    ]
    scan += talk("10.0.0.5", 40_000, "10.0.0.9", 443, chat)
    engine = replaying(tmp_path, later, sorted(scan))
    engine.start()
    assert engine.wait_finished(60)
    told = engine.analysis.incidents.list(status="all")
    assert [alert["subpattern"] for alert in told] == ["VERTICAL_SCAN"]
    assert engine.analysis.tracker.ended == 62
    assert sum(engine.analysis.traffic.series("packets_per_s", points=60)["values"]) > 0
    engine.stop()
    engine.store.close()


def test_times_in_any_order_cost_no_more_than_in_the_right_one() -> None:
    pairs, hours = PairWindows(120.0, 0.01), HostHours()
    here = (0, 1)
    counted = [(here, here, 7200.0 * n) for n in range(3_000, 0, -1)]
    pairs.count(counted)
    hours.count(counted)
    assert len(pairs._all) <= 26
    assert len(hours._hours[here]) <= 48


def test_the_flow_rate_survives_a_clock_that_was_ahead_once() -> None:
    rate = FlowRate()
    rate.add(1, 4_102_444_800.0)
    for minute in range(1440):
        rate.add(5, 1_700_000_000.0 + 60 * minute)
    assert rate.per_day == pytest.approx(7200, rel=0.5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("alerts_store", [{"id": "inc-7"}, {"id": "inc-8", "status": 5}]),
        ("logs_store", [{"id": "a"}, {"id": "b", "seq": "x"}]),
        ("evidence_store", [{"id": "a", "incident": "inc-1"}]),
        ("suppressions", [{"id": "a"}]),
        ("undo_store", [{"id": "a", "until": "tomorrow"}]),
        ("alerts_counters", {"seq": "x"}),
        ("whitelist", {"trusted_ips": 5}),
    ],
)
def test_records_of_another_shape_do_not_keep_it_from_starting(
    tmp_path: Path, name: str, content: object
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / f"{name}.json").write_text(json.dumps(content))
    engine = replaying(tmp_path, golden())
    engine.start()
    assert engine.wait_finished(60)
    assert engine.failure is None
    assert engine.live_status()["open"]["CRITICAL"] == 0
    if name != "alerts_counters":
        assert any(name in notice for notice in engine.notices())
    engine.stop()
    engine.store.close()


def test_a_lost_counter_gives_no_number_twice(tmp_path: Path) -> None:
    scan = [
        frame
        for port in range(1, 61)
        for frame in talk("10.0.0.66", 50_000, "10.0.0.9", port, [(port * 2e5, "f", SYN, 0)])
    ]
    store = tmp_path / "data" / "alerts_store.json"
    for _ in range(2):
        engine = replaying(tmp_path, scan)
        engine.start()
        assert engine.wait_finished(60)
        ids = [alert["id"] for alert in engine.analysis.incidents.list(status="OPEN")]
        assert len(ids) == 1
        engine.analysis.incidents.close(ids[0])
        engine.stop()
        engine.store.close()
        (tmp_path / "data" / "alerts_counters.json").unlink()
        # Counted from 0 again, the second run's incident would be number 2.
        store.write_text(store.read_text().replace(f'"{ids[0]}"', '"inc-2"', 1))
    assert len(json.loads(store.read_text())) == 2


class Backlog:
    """A source whose reader had to wait: what it gives first lies far back."""

    def __init__(self, batches: list[FrameBatch]) -> None:
        self.batches = batches
        self.asked_in_vain = 0

    def start(self) -> None:
        """Nothing to open."""

    def read(self, timeout_s: float) -> FrameBatch | None:
        if self.batches:
            return self.batches.pop(0)
        self.asked_in_vain += 1
        time.sleep(timeout_s)
        return None

    def stop(self) -> None:
        """Nothing to close."""

    def status(self) -> CaptureStatus:
        raise NotImplementedError


class Broken(FrameBatch):
    """A batch that can't be looked at."""

    def __len__(self) -> int:
        raise RuntimeError("broken on purpose")


def broken() -> FrameBatch:
    whole = batch_of([(time.time_ns(), frame) for _, frame in golden()])
    return Broken(
        whole.data,
        whole.offset,
        whole.captured,
        whole.length,
        whole.time_ns,
        whole.link_type,
        whole.interface,
    )


@pytest.mark.parametrize(("faults", "stops"), [(1, False), (2, True)])
def test_one_fault_is_told_and_passed_by_a_second_at_once_is_not(
    tmp_path: Path, faults: int, stops: bool
) -> None:
    good = batch_of([(time.time_ns(), frame) for _, frame in golden()])
    source = Backlog([*(broken() for _ in range(faults)), good])
    settings = replace(
        Settings(), DATA_DIR=str(tmp_path / "data"), LIVE_MODEL_PATH=str(tmp_path / "live")
    )
    engine = Engine(settings, Store(tmp_path / "data"), source, mode="live")
    engine.start()
    deadline_s = time.monotonic() + 90
    while engine.failure is None and not source.asked_in_vain:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert (engine.failure is not None) is stops
    assert engine.analysis.decoder.packets == (0 if stops else len(golden()))
    assert any("The analysis failed" in notice for notice in engine.notices())
    engine.stop()
    engine.store.close()


def test_packets_that_waited_long_are_no_old_news(tmp_path: Path) -> None:
    """By the clock the flow would end between its packets, and each would begin a new chart."""
    began_ns = time.time_ns() - 150 * 10**9
    frame = ethernet(ipv4("10.0.0.5", "10.0.0.9", 17, udp(5000, 5001, 100)))
    source = Backlog([batch_of([(began_ns + n * 10**9, frame)]) for n in range(0, 100, 5)])
    settings = replace(
        Settings(), DATA_DIR=str(tmp_path / "data"), LIVE_MODEL_PATH=str(tmp_path / "live")
    )
    engine = Engine(settings, Store(tmp_path / "data"), source, mode="live")
    engine.start()
    deadline_s = time.monotonic() + 90
    while source.asked_in_vain < 2:
        assert time.monotonic() < deadline_s
    chart = engine.analysis.traffic.series("packets_per_s", points=60)["values"]
    assert chart[:20] == [0.2] * 20
    engine.stop()
    rows = engine.analysis.flow_log.newest(limit=10)
    assert [row["packets"] for row in rows] == [20]
    engine.store.close()

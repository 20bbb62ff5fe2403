"""Several interfaces are one capture: each for itself, none silently, one that goes is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capture
from batches import FrameBatch
from capture import Capture, several
from engine import Engine
from errors import CaptureError
from ml.baseline import Baseline
from packets import Decoder
from settings import Settings, load_settings
from store import Store
from tests.frames import SYN, ethernet, ipv4, tcp
from tests.namespaces import Hosts, live
from tests.test_capture import Script, ScriptedSource, loopback


def until(condition: Callable[[], bool], what: str, seconds: float = 6.0) -> None:
    deadline_s = time.monotonic() + seconds
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {seconds} s in vain: {what}"
        tick.wait(0.01)


class Ports:
    """An opener that gives each interface its own script."""

    def __init__(self, **scripts: Script) -> None:
        self.scripts = scripts
        self.opened: list[str] = []

    def __call__(self, interface: str, bpf_filter: str, snaplen: int, frames: int) -> Any:
        self.opened.append(interface)
        return self.scripts[interface](interface, bpf_filter, snaplen, frames)


@pytest.fixture
def three_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interfaces that only a script knows; what the system says of them is not asked."""
    monkeypatch.setattr(several, "known_interfaces", lambda: ["eth0", "wlan0", "Wi-Fi"])


def drained(source: Capture) -> list[FrameBatch]:
    batches = []
    while (batch := source.read(0)) is not None:
        batches.append(batch)
    return batches


@pytest.mark.usefixtures("three_names")
class TestScripted:
    def test_frames_come_from_all_and_are_summed(self) -> None:
        ports = Ports(eth0=Script([5, 6]), wlan0=Script([7]))
        live_ = Capture(["eth0", "wlan0", "eth0"], opener=ports)
        live_.start()
        until(lambda: live_.status().received == 18, "all frames are taken")
        live_.stop()
        status = live_.status()
        assert live_.interfaces == ("eth0", "wlan0")
        assert ports.opened == ["eth0", "wlan0"]
        found: dict[str, int] = {}
        for batch in drained(live_):
            found[batch.interface] = found.get(batch.interface, 0) + len(batch)
        assert found == {"eth0": 11, "wlan0": 7}
        assert status.interface == "eth0, wlan0"
        assert [part.received for part in status.interfaces] == [11, 7]
        # Each script says 4 lost in the kernel and 3 at the interface.
        assert (status.kernel_drops, status.interface_drops) == (8, 6)
        assert [part.kernel_drops for part in status.interfaces] == [4, 4]

    def test_one_that_goes_leaves_the_others_and_is_told(self) -> None:
        ports = Ports(eth0=Script(), wlan0=Script([3, "The interface wlan0 is gone."], [4]))
        live_ = Capture(["eth0", "wlan0"], opener=ports)
        live_.start()
        until(lambda: live_.status().error is not None, "the loss is told")
        status = live_.status()
        assert status.state == "capturing"
        assert status.error == "The interface wlan0 is gone; eth0 goes on."
        assert [part.state for part in status.interfaces] == ["capturing", "trouble"]
        until(lambda: live_.status().error is None, "it is back")
        until(lambda: live_.status().received == 7, "its frames come again")
        assert live_.status().gaps == 1
        live_.stop()
        assert live_.status().state == "off"

    def test_where_all_are_gone_the_capture_has_trouble(self) -> None:
        ports = Ports(eth0=Script(["eth0 is gone."]), wlan0=Script(["wlan0 is gone."]))
        live_ = Capture(["eth0", "wlan0"], opener=ports)
        live_.start()
        until(lambda: live_.status().state == "trouble", "trouble")
        assert live_.status().error == "eth0 is gone. wlan0 is gone."
        live_.stop()

    def test_where_one_cannot_be_opened_none_is_captured(self) -> None:
        first = Script()

        def opener(interface: str, bpf_filter: str, snaplen: int, frames: int) -> Any:
            if interface == "wlan0":
                raise CaptureError("The filter is wrong.")
            return first(interface, bpf_filter, snaplen, frames)

        live_ = Capture(["eth0", "wlan0"], opener=opener)
        with pytest.raises(CaptureError, match="The filter is wrong"):
            live_.start()
        assert (first.opened, first.closed) == (1, 1)
        assert live_.status().state == "off"
        assert not any(thread.name == "packet capture" for thread in threading.enumerate())

    def test_an_unknown_name_refuses_the_start_and_names_those_there_are(self) -> None:
        ports = Ports(eth0=Script(), wlan0=Script())
        with pytest.raises(CaptureError) as refused:
            Capture(["eth0", "nope0", "no pe"], opener=ports).start()
        assert str(refused.value) == (
            "There is no interface named 'nope0' or 'no pe'. This machine has: eth0, wlan0, Wi-Fi."
        )
        assert ports.opened == []
        with pytest.raises(CaptureError, match="No interface is named"):
            Capture([], opener=ports).start()

    def test_a_stopped_reader_costs_frames_and_every_one_is_counted(self) -> None:
        ports = Ports(eth0=Script([4096] * 4), wlan0=Script([4096] * 3 + [100]))
        live_ = Capture(["eth0", "wlan0"], opener=ports, queue_batches=3)
        live_.start()
        until(lambda: live_.status().received == 7 * 4096 + 100, "the queue is long full")
        live_.stop()
        status = live_.status()
        decoder = Decoder()
        decoder.watch_several(True)
        for batch in drained(live_):
            decoder.decode(batch)
        assert status.queue_drops == status.received - 3 * 4096
        assert status.received == decoder.frames + status.queue_drops
        assert decoder.frames == decoder.packets + int(decoder.unread.sum())
        assert status.queue_drops == sum(part.queue_drops for part in status.interfaces)


def test_a_setting_names_several() -> None:
    def interfaces(text: str) -> tuple[str, ...]:
        return load_settings({"INTERFACE": text}, {}).interfaces

    assert interfaces("") == ()
    assert interfaces("eth0") == ("eth0",)
    assert interfaces(" eth0, Local Area Connection* 2 ,eth0,, Wi-Fi") == (
        "eth0",
        "Local Area Connection* 2",
        "Wi-Fi",
    )
    assert load_settings({}, {"SECUREFLUX_INTERFACE": "a,b"}).interfaces == ("a", "b")


class Syns(ScriptedSource):
    """A source that gives one connection attempt a frame, each to another port."""

    def read(self) -> int:
        step = self.steps.pop(0) if self.steps else 0
        assert isinstance(step, int)
        for n in range(step):
            frame = ethernet(ipv4("10.0.0.1", "10.0.0.2", 6, tcp(1000 + n, 80, SYN)))
            self.buffer.append(np.frombuffer(frame, np.uint8), len(frame), time.time_ns())
        return step


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    settings = replace(
        Settings(), DATA_DIR=str(tmp_path / "data"), LIVE_MODEL_PATH=str(tmp_path / "live")
    )

    def opener(interface: str, bpf_filter: str, snaplen: int, frames: int) -> Any:
        source = Script([30])(interface, bpf_filter, snaplen, frames)
        return Syns(source.script, [30], source.buffer)

    source = Capture(loopback(), opener=opener)
    source.start()
    made = Engine(settings, Store(tmp_path / "data"), source, mode="live")
    yield made
    made.close()


def test_frames_of_a_capture_that_was_replaced_are_judged_and_stay_in_the_sums(
    engine: Engine,
) -> None:
    until(lambda: engine.capture_status()["received"] == 30, "the frames are taken")
    # The analysis does not read yet: all frames still wait in the queue of the old capture.
    engine.stop_capture()
    assert engine.capture_status()["received"] == 30
    engine.start()
    until(lambda: engine.analysis.counters()["packets"] == 30, "they are read all the same", 60)
    told = engine.capture_status()
    assert told["packets"] == told["received"] - told["queue_drops"]
    assert told["packets"] == told["decoded"] + sum(told["unread"].values())
    assert {"kernel_drops", "interface_drops", "queue_drops", "table_drops"} <= set(told)


@pytest.mark.usefixtures("three_names")
def test_copies_in_a_capture_that_was_replaced_are_still_told(tmp_path: Path) -> None:
    settings = replace(
        Settings(), DATA_DIR=str(tmp_path / "data"), LIVE_MODEL_PATH=str(tmp_path / "live")
    )

    def opener(interface: str, bpf_filter: str, snaplen: int, frames: int) -> Any:
        source = Script([30])(interface, bpf_filter, snaplen, frames)
        return Syns(source.script, [30], source.buffer)

    source = Capture(["eth0", "wlan0"], opener=opener)
    source.start()
    engine = Engine(settings, Store(tmp_path / "data"), source, mode="live")
    try:
        until(lambda: source.status().received == 60, "the frames are taken")
        engine.stop_capture()  # before the analysis has read a frame
        engine.start()
        until(lambda: engine.analysis.counters()["packets"] == 60, "they are read all the same", 60)
        assert engine.analysis.counters()["unread"] == {"duplicate": 30}
    finally:
        engine.close()


def test_what_is_not_read_in_time_is_counted_as_dropped(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine._DRAIN_S", 0.0)
    until(lambda: engine.capture_status()["received"] == 30, "the frames are taken")
    engine.stop_capture()
    engine.start()
    until(lambda: engine.capture_status()["queue_drops"] == 30, "they are counted", 60)
    assert engine.capture_status()["packets"] == 0


def test_a_capture_that_begins_while_the_program_ends_is_stopped(engine: Engine) -> None:
    fresh = Capture(loopback(), opener=Script([]))
    engine.stop()
    fresh.start()
    engine._replace(fresh)
    assert fresh.status().state == "off"


def test_the_end_of_the_program_judges_what_is_queued(engine: Engine) -> None:
    until(lambda: engine.capture_status()["received"] == 30, "the frames are taken")
    engine.start()
    until(lambda: not engine.is_compiling, "the loops are ready", 90)
    engine.stop()
    assert engine.analysis.counters()["flows_ended"] == 30


def test_the_capture_is_told_by_what_people_call_it(engine: Engine) -> None:
    told = engine.capture_status()
    name = capture.friendly_name(loopback())
    assert told["friendly"] == name
    assert told["interface"] == loopback()
    assert [part["friendly"] for part in told["interfaces"]] == [name]
    assert told["interfaces"][0]["offloads"]["sentence"] is None
    assert "beat_s" not in told["interfaces"][0]
    engine.start()
    until(lambda: engine.capture_status()["state"] == "capturing", "the capture is open", 90)
    told = engine.capture_status()
    assert told["sentence"] == f"Capturing on {name}."
    assert told["devices"]["sentence"] == "Still listening which devices there are."


def test_offloads_that_changed_since_the_training_are_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = loopback()
    baseline = engine.analysis.predictor.baseline
    assert baseline.offloads() == {name: []}
    assert not any("learned from" in notice for notice in engine.notices())
    for learned, words in (([], ""), (["gro", "tso"], "GRO, TSO, which now has no offload")):
        monkeypatch.setattr(Baseline, "learned_with", {name: learned, "gone0": ["lro"]})
        told = [notice for notice in engine.notices() if "learned from" in notice]
        assert [words in notice for notice in told] == [True] * bool(words)


class TestReal:
    pytestmark = live()

    def test_one_wire_is_cut_and_the_other_goes_on(self) -> None:
        with Hosts("a", "b") as hosts:
            hosts.wire(("a", "eth0", "198.18.1.1/24"), ("b", "eth0", "198.18.1.2/24"))
            hosts.wire(("a", "wan0", "198.18.2.1/24"), ("b", "eth1", "198.18.2.2/24"))
            with hosts.watching("a", "eth0", "wan0") as told:
                hosts.inside("b", "ping", "-c", "3", "-i", "0.1", "198.18.2.1")
                hosts.ip("a", "link", "del", "wan0")
                # Longer than the second after which a capture looks whether it lives.
                hosts.inside("b", "ping", "-c", "16", "-i", "0.1", "198.18.1.1")
        parts = {part["name"]: part for part in told["status"]["interfaces"]}
        assert parts["wan0"]["gaps"] == 1
        assert parts["eth0"]["gaps"] == 0
        pings = {f["dst"]: f["packets"] for f in told["flows"] if f["protocol"] == 1}
        assert pings["198.18.1.1"] == [16, 16]
        # What the kernel still gathered for the wire that was cut went with it.
        assert pings["198.18.2.1"] in ([3, 3], [2, 2], [3, 2])

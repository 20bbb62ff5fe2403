"""Batches come in time, nothing is lost silently, trouble is told and mended."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capture
from capture import network_interfaces
from capture.buffer import FrameBuffer
from capture.live import InterfaceCapture
from errors import CaptureError
from tests.captures import START_NS


class Script:
    """An opener of interfaces that play a script: how many frames each read gives, or an error."""

    def __init__(self, *scripts: Sequence[int | str]) -> None:
        self.scripts = list(scripts)
        self.opened = 0
        self.closed = 0

    def __call__(self, interface: str, bpf_filter: str, snaplen: int, frames: int) -> Any:
        steps = self.scripts[self.opened] if self.opened < len(self.scripts) else []
        self.opened += 1
        return ScriptedSource(self, steps, FrameBuffer(frames, snaplen))


class ScriptedSource:
    link_type = 1

    def __init__(self, script: Script, steps: Sequence[int | str], buffer: FrameBuffer) -> None:
        self.script = script
        self.steps = list(steps)
        self.buffer = buffer
        self.idle = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        self.idle.wait(timeout_s)
        return True

    def read(self) -> int:
        step = self.steps.pop(0) if self.steps else 0
        if isinstance(step, str):
            raise CaptureError(step)
        for _ in range(step):
            self.buffer.append(np.zeros(60, np.uint8), 60, START_NS)
        return step

    def drops(self) -> tuple[int, int]:
        return 4, 3

    def close(self) -> None:
        self.script.closed += 1


def loopback() -> str:
    return next(entry.name for entry in capture.interfaces() if entry.loopback)


def collect(live: capture.Capture, count: int) -> list[int]:
    sizes: list[int] = []
    deadline_s = time.monotonic() + 5
    while sum(sizes) < count:
        assert time.monotonic() < deadline_s, f"only {sum(sizes)} of {count} frames came"
        batch = live.read(0.2)
        if batch is not None:
            sizes.append(len(batch))
    return sizes


def test_batches_come_when_full_or_when_old() -> None:
    live = capture.Capture(loopback(), opener=Script([4096, 4096, 10, 7]))
    live.start()
    began_s = time.monotonic()
    assert collect(live, 8209) == [4096, 4096, 17]
    assert time.monotonic() - began_s < 1
    assert live.read(0.0) is None
    live.stop()
    assert live.status().received == 8209


def test_a_full_queue_drops_the_newest_and_counts_them() -> None:
    live = capture.Capture(loopback(), queue_batches=2, opener=Script([4096] * 5 + [9]))
    live.start()
    deadline_s = time.monotonic() + 5
    while live.status().queue_drops < 3 * 4096 + 9:
        assert time.monotonic() < deadline_s
    live.stop()
    assert collect(live, 2 * 4096) == [4096, 4096]
    status = live.status()
    assert (status.received, status.queue_drops, status.state) == (5 * 4096 + 9, 12_297, "off")


def test_trouble_is_told_and_mended_and_the_gap_counted() -> None:
    script = Script([5, "The cable is out."], [6])
    live = capture.Capture(loopback(), opener=script)
    live.start()
    assert collect(live, 5) == [5]
    deadline_s = time.monotonic() + 5
    while live.status().state != "trouble":
        assert time.monotonic() < deadline_s
    status = live.status()
    assert (status.error, status.gaps) == ("The cable is out.", 1)
    assert collect(live, 6) == [6]
    status = live.status()
    assert (status.state, status.error, status.gaps) == ("capturing", None, 1)
    assert 0.9 < status.gap_s < 3
    live.stop()
    assert (script.opened, script.closed) == (2, 2)
    # Each source counts from 0.
    status = live.status()
    assert (status.kernel_drops, status.interface_drops) == (8, 6)


class CountingSource(ScriptedSource):
    """A source whose counters say one pair after the other."""

    def __init__(self, *said: tuple[int, int]) -> None:
        super().__init__(Script(), [], FrameBuffer(2, 64))
        self.said = list(said)

    def drops(self) -> tuple[int, int]:
        return self.said.pop(0)


def counted(*said: tuple[int, int]) -> tuple[int, int]:
    live = unstarted()
    source = CountingSource(*said)
    for _ in said:
        live._count_drops(source)
    status = live.status()
    return status.kernel_drops, status.interface_drops


def unstarted(opener: Any = None) -> InterfaceCapture:
    return InterfaceCapture(
        loopback(), bpf_filter="", snaplen=64, put=lambda batch: True, opener=opener or Script()
    )


def test_counters_that_wrap_go_on() -> None:
    assert counted((2**31 - 1, 0), (2**32 - 2, 0), (4, 1)) == (2**32 + 4, 1)


def test_counters_that_go_back_count_nothing() -> None:
    # libpcap's counters of an interface that is gone, and of one it can't ask just now.
    assert counted((5, 0), (7, 2**32 - 1000)) == (7, 0)
    assert counted((5, 2), (0, 0), (9, 3)) == (9, 3)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of open files are Unix's")
def test_a_capture_outlives_a_time_without_free_descriptors() -> None:
    import resource

    live = unstarted(Script([]))
    live._watched = True
    source = ScriptedSource(Script(), [], FrameBuffer(2, 64))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        live._look(source)
        reopened = live._reopen()
        told = live.status().error
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert reopened is None
    assert told is not None
    assert "can't be opened" in told
    assert live._reopen() is not None
    assert live.status().state == "capturing"


def test_stopping_hands_over_the_rest() -> None:
    live = capture.Capture(loopback(), opener=Script([3]))
    live.start()
    deadline_s = time.monotonic() + 5
    while live.status().received < 3:
        assert time.monotonic() < deadline_s
    live.stop()
    assert collect(live, 3) == [3]
    assert live.status().state == "off"


def test_an_unknown_interface_is_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=rf"'nope0'.*{loopback()}"):
        capture.Capture("nope0").start()


def test_interfaces_say_what_they_are() -> None:
    found = {entry.name: entry for entry in capture.interfaces()}
    entry = found[loopback()]
    assert "127.0.0.1" in entry.addresses
    assert entry.up
    assert not entry.is_default
    assert entry.name in entry.friendly
    assert sum(entry.is_default for entry in found.values()) == (
        capture.default_interface() is not None
    )


@pytest.mark.skipif(not Path("/sbin/ip").exists(), reason="the command ip is not here")
def test_the_default_interface_is_the_systems() -> None:
    route = subprocess.run(
        ["ip", "route", "show", "default"], capture_output=True, text=True, check=True
    ).stdout.split()
    if "dev" not in route:
        pytest.skip("this machine has no default route")
    assert capture.default_interface() == route[route.index("dev") + 1]


def test_own_networks_hold_the_addresses_of_the_interfaces() -> None:
    networks = [ipaddress.ip_network(text) for text in capture.own_networks()]
    assert ipaddress.ip_network("127.0.0.0/8") in networks
    addresses = [ip for one in capture.interfaces() for ip in one.addresses]
    for address in map(ipaddress.ip_address, addresses):
        assert any(address in network for network in networks), address
    assert all(network.prefixlen for network in networks)


@pytest.mark.parametrize(
    ("address", "netmask", "network"),
    [
        ("192.0.2.7", "255.255.255.0", "192.0.2.0/24"),
        ("fe80::1%eth0", "ffff:ffff:ffff:ffff::", "fe80::/64"),
        ("2001:db8::7", None, "2001:db8::/64"),
        ("192.0.2.7", None, "192.0.2.7/32"),
        ("10.9.0.1", "0.0.0.0", None),
        ("unknown", "255.0.0.0", None),
    ],
)
def test_a_network_is_read_from_address_and_mask(
    address: str, netmask: str | None, network: str | None
) -> None:
    assert network_interfaces._network(address, netmask) == network

"""Capture files in place of an interface: at their own pace, and nobody waits longer than asked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from replay import Replay
from tests.frames import at, ethernet, ipv4, udp, write_pcap

HOUR_US = 3_600_000_000.0


def two_frames(folder: Path, gap_us: float) -> Path:
    frame = ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 53, 8)))
    return write_pcap(folder / "two.pcap", [at(0, frame), at(gap_us, frame)])


# Slowed so far down, the next frame is due later than any clock can wait for.
@pytest.mark.parametrize("speed", [1.0, 1e-12])
def test_a_long_gap_keeps_nobody_waiting(tmp_path: Path, speed: float) -> None:
    replay = Replay([two_frames(tmp_path, HOUR_US)], speed=speed)
    first = replay.read(0.0)
    assert first is not None
    assert len(first) == 1
    began_s = time.monotonic()
    assert replay.read(0.05) is None
    assert 0.04 < time.monotonic() - began_s < 5
    assert not replay.finished
    replay.stop()
    assert replay.read(5.0) is None
    assert time.monotonic() - began_s < 4
    assert replay.finished


def test_a_frame_comes_when_it_is_due(tmp_path: Path) -> None:
    replay = Replay([two_frames(tmp_path, 400_000)], speed=2.0)
    assert replay.read(0.0) is not None
    began_s = time.monotonic()
    assert replay.read(0.0) is None
    assert replay.read(5.0) is not None
    assert 0.15 < time.monotonic() - began_s < 2
    assert replay.status().received == 2
    assert replay.read(0.0) is None
    assert replay.finished

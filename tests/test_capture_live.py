"""Real interfaces: what is sent on a veth pair arrives, whole, by libpcap and by the ring."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

import capture
from batches import FrameBatch
from capture import Capture, libpcap
from capture import buffer as frame_buffer
from capture.live import FrameSource, SourceOpener, open_source
from errors import CaptureError


def why_not() -> str | None:
    """What a live test lacks here, None if all is there."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux"
    if shutil.which("ip") is None:
        return "needs the command ip"
    name = f"sfprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        return "needs network namespaces"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return None


_missing = why_not()
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(_missing is not None, reason=_missing or ""),
]

ETHERTYPE = 0x88B5  # IEEE 802: for local experiments; nothing else here sends it
OURS, THEIRS = "198.18.77.1", "198.18.77.2"  # RFC 2544: for tests of networks

SENDER = """
import socket, sys, time
name, count, per_second, tag = sys.argv[1], *map(int, sys.argv[2:])
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((name, 0))
began_s = time.monotonic()
for number in range(count):
    frame = bytes.fromhex("ffffffffffff020000000001") + bytes.fromhex("8100a005" if tag else "")
    frame += (0x88B5).to_bytes(2, "big") + number.to_bytes(4, "big")
    raw.send(frame + bytes(46 + number % 1400))
    while time.monotonic() < began_s + number / per_second:
        pass
"""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


def until(condition: Callable[[], bool], what: str, seconds: float = 6.0) -> None:
    deadline_s = time.monotonic() + seconds
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {seconds} s in vain: {what}"
        tick.wait(0.02)


class Wire:
    """A veth pair: `ours` here, `theirs` in a network namespace of its own."""

    def __init__(self) -> None:
        self.ours, self.theirs = f"sfa{os.getpid()}", f"sfb{os.getpid()}"
        self.space = f"sfns{os.getpid()}"
        run("ip", "netns", "add", self.space)
        self.connect()

    def connect(self) -> None:
        run("ip", "link", "add", self.ours, "type", "veth", "peer", "name", self.theirs)
        # No neighbour discovery between the frames that are counted.
        Path(f"/proc/sys/net/ipv6/conf/{self.ours}/disable_ipv6").write_text("1")
        run("ip", "link", "set", self.theirs, "netns", self.space)
        inside = f"net.ipv6.conf.{self.theirs}.disable_ipv6=1"
        run("ip", "netns", "exec", self.space, "sysctl", "-qw", inside)
        run("ip", "address", "add", f"{OURS}/30", "dev", self.ours)
        run("ip", "-n", self.space, "address", "add", f"{THEIRS}/30", "dev", self.theirs)
        run("ip", "-n", self.space, "link", "set", self.theirs, "up")
        run("ip", "link", "set", self.ours, "up")
        until(lambda: psutil.net_if_stats()[self.ours].isup, "the veth pair is up")

    def inside(self, *command: str) -> None:
        run("ip", "netns", "exec", self.space, *command)

    def send(self, count: int, per_second: int, *, tag: bool = False) -> None:
        """Numbered frames of 60 to 1,459 bytes from the other end."""
        arguments = [self.theirs, str(count), str(per_second), str(int(tag))]
        self.inside(sys.executable, "-c", SENDER, *arguments)

    def disconnect(self) -> None:
        run("ip", "link", "delete", self.ours)

    def remove(self) -> None:
        subprocess.run(["ip", "link", "delete", self.ours], capture_output=True, check=False)
        run("ip", "netns", "delete", self.space)


@pytest.fixture
def wire() -> Iterator[Wire]:
    frame_buffer.warm()
    wire = Wire()
    try:
        yield wire
    finally:
        wire.remove()


def open_ring(interface: str, bpf_filter: str, snaplen: int, frames: int) -> FrameSource:
    from capture.ring import RingSource

    return RingSource(interface, bpf_filter, snaplen, frames)


def readers() -> list[SourceOpener]:
    return [open_source, open_ring] if libpcap.library() is not None else [open_ring]


both_readers = pytest.mark.parametrize("opener", readers(), ids=lambda opener: str(opener.__name__))


def frames_of(batch: FrameBatch) -> Iterator[tuple[bytes, int, int]]:
    for i in range(len(batch)):
        start = int(batch.offset[i])
        body = batch.data[start : start + int(batch.captured[i])].tobytes()
        yield body, int(batch.length[i]), int(batch.time_ns[i])


def experimental(live: Capture, count: int) -> list[tuple[bytes, int, int]]:
    """The first `count` numbered frames that come (others are left out), within 6 s."""
    found: list[tuple[bytes, int, int]] = []
    marks = (ETHERTYPE.to_bytes(2, "big"), b"\x81\x00")
    deadline_s = time.monotonic() + 6
    while len(found) < count:
        assert time.monotonic() < deadline_s, f"{len(found)} of {count} frames came"
        batch = live.read(0.2)
        if batch is not None:
            assert (batch.link_type == 1).all()
            found += [frame for frame in frames_of(batch) if frame[0][12:14] in marks]
    return found


@both_readers
def test_every_frame_arrives_in_order_and_whole(wire: Wire, opener: SourceOpener) -> None:
    live = Capture(wire.ours, snaplen=100, opener=opener)
    live.start()
    before_ns = time.time_ns()
    wire.send(10_000, 20_000)
    frames = experimental(live, 10_000)
    live.stop()
    after_ns = time.time_ns()
    assert [int.from_bytes(body[14:18], "big") for body, _, _ in frames] == list(range(10_000))
    assert [length for _, length, _ in frames] == [64 + n % 1400 for n in range(10_000)]
    assert [len(body) for body, _, _ in frames] == [min(100, 64 + n % 1400) for n in range(10_000)]
    times = [time_ns for _, _, time_ns in frames]
    assert times == sorted(times)
    assert before_ns < times[0] < times[-1] < after_ns
    # Nanoseconds, not microseconds in disguise.
    assert any(time_ns % 1000 for time_ns in times)
    status = live.status()
    assert status.received >= 10_000
    assert (status.kernel_drops, status.interface_drops, status.queue_drops) == (0, 0, 0)
    # Nothing was compiled again for the live run.
    assert len(getattr(frame_buffer.walk_block, "signatures", [0])) == 1


@both_readers
def test_vlan_tags_are_in_their_place(wire: Wire, opener: SourceOpener) -> None:
    live = Capture(wire.ours, opener=opener)
    live.start()
    wire.send(5, 1000, tag=True)
    for number, (body, length, _) in enumerate(experimental(live, 5)):
        assert body[12:22].hex() == "8100a005" + "88b5" + f"{number:08x}"
        assert (len(body), length) == (68 + number, 68 + number)
    live.stop()


@pytest.mark.skipif(libpcap.library() is None, reason="filters need libpcap")
@both_readers
def test_the_filter_keeps_what_it_names(wire: Wire, opener: SourceOpener) -> None:
    live = Capture(wire.ours, bpf_filter="icmp", opener=opener)
    live.start()
    wire.send(100, 10_000)
    wire.inside("ping", "-c", "3", "-i", "0.05", OURS)
    until(lambda: live.status().received >= 6, "three pings and their answers")
    live.stop()
    batches = []
    while (batch := live.read(0)) is not None:
        batches.append(batch)
    frames = [frame for batch in batches for frame in frames_of(batch)]
    assert [body[23] for body, _, _ in frames] == [1] * 6


@pytest.mark.skipif(libpcap.library() is None, reason="filters need libpcap")
@both_readers
def test_a_wrong_filter_is_named(wire: Wire, opener: SourceOpener) -> None:
    with pytest.raises(CaptureError, match=r"'tcp prt 80'.*syntax error"):
        Capture(wire.ours, bpf_filter="tcp prt 80", opener=opener).start()


def test_a_filter_that_would_be_cut_off_is_refused() -> None:
    with pytest.raises(CaptureError, match="holds a character"):
        Capture("lo", bpf_filter="tcp\0 port 80").start()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 5000)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@both_readers
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_web_page_is_seen_in_both_directions(wire: Wire, opener: SourceOpener) -> None:
    server = HTTPServer((OURS, 0), _Page)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    live = Capture(wire.ours, opener=opener)
    live.start()
    port = server.server_address[1]
    wire.inside("curl", "--max-time", "5", "-s", f"http://{OURS}:{port}/")
    server.shutdown()
    server.server_close()
    until(lambda: live.status().received >= 8, "a handshake, a page and its end")
    live.stop()
    ports: list[tuple[int, int]] = []
    while (batch := live.read(0)) is not None:
        ports += [
            (int.from_bytes(body[34:36], "big"), int.from_bytes(body[36:38], "big"))
            for body, _, _ in frames_of(batch)
            if body[12:14] == b"\x08\x00" and body[23] == 6
        ]
    assert sum(source == port for source, _ in ports) >= 3
    assert sum(target == port for _, target in ports) >= 3


@both_readers
def test_it_stops_at_once_where_nothing_comes(wire: Wire, opener: SourceOpener) -> None:
    live = Capture(wire.ours, bpf_filter="", opener=opener)
    live.start()
    assert live.status().state == "capturing"
    assert live.read(0.3) is None
    began_s = time.monotonic()
    live.stop()
    assert time.monotonic() - began_s < 1
    assert live.status().state == "off"
    assert not any(thread.name == "packet capture" for thread in threading.enumerate())


@both_readers
def test_an_interface_that_goes_away_and_comes_back(wire: Wire, opener: SourceOpener) -> None:
    live = Capture(wire.ours, opener=opener)
    live.start()
    wire.send(3, 1000)
    experimental(live, 3)
    wire.disconnect()
    until(lambda: live.status().state == "trouble", "trouble is told")
    assert wire.ours in (live.status().error or "")
    wire.connect()
    until(lambda: live.status().state == "capturing", "it is captured again")
    wire.send(4, 1000)
    assert len(experimental(live, 4)) == 4
    status = live.status()
    live.stop()
    assert (status.gaps, status.error) == (1, None)
    assert status.gap_s > 0.5


@both_readers
def test_an_interface_that_is_made_anew_at_once(wire: Wire, opener: SourceOpener) -> None:
    live = Capture(wire.ours, opener=opener)
    live.start()
    wire.disconnect()
    wire.connect()
    until(lambda: live.status().gaps == 1, "the gap is told")
    until(lambda: live.status().state == "capturing", "it is captured again")
    wire.send(4, 1000)
    assert len(experimental(live, 4)) == 4
    live.stop()


@both_readers
def test_an_interface_that_is_down_is_waited_for(wire: Wire, opener: SourceOpener) -> None:
    run("ip", "link", "set", wire.ours, "down")
    live = Capture(wire.ours, opener=opener)
    live.start()
    assert live.status().state == "trouble"
    assert "down" in (live.status().error or "")
    run("ip", "link", "set", wire.ours, "up")
    until(lambda: live.status().state == "capturing", "it is captured")
    wire.send(2, 1000)
    assert len(experimental(live, 2)) == 2
    live.stop()


@both_readers
def test_loopback_frames_come_once(wire: Wire, opener: SourceOpener) -> None:
    live = Capture("lo", opener=opener)
    live.start()
    marker = os.urandom(16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(marker, ("127.0.0.1", 9))
    seen = 0
    deadline_s = time.monotonic() + 5
    while seen < 3 and time.monotonic() < deadline_s:
        batch = live.read(0.2)
        # The answers (port unreachable) quote the datagram: only whole UDP frames count.
        if batch is not None:
            seen += sum(body[42:] == marker for body, _, _ in frames_of(batch))
    live.stop()
    while (batch := live.read(0)) is not None:
        seen += sum(body[42:] == marker for body, _, _ in frames_of(batch))
    assert seen == 3


def as_nobody(action: Callable[[], object]) -> object:
    """What `action` gives in a process without any right (answers must be JSON)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # An error shows as an answer that is no JSON.
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(writing, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def refusal(opener: SourceOpener) -> list[str | None]:
    try:
        Capture("lo", opener=opener).start()
    except CaptureError as error:
        return [str(error), error.remedy]
    return []


@both_readers
def test_without_the_right_the_exact_command_is_told(wire: Wire, opener: SourceOpener) -> None:
    assert capture.capture_remedy("lo") is None
    assert capture.remedy_command() is None
    opener("lo", "", 64, 2).close()  # loads all there is to load, while we may read it
    sentence = as_nobody(lambda: capture.capture_remedy("lo"))
    command = as_nobody(capture.remedy_command)
    assert isinstance(sentence, str)
    assert isinstance(command, str)
    assert sentence.endswith(command)
    assert command.startswith("sudo ")
    assert sys.executable in command or str(Path(sys.executable).resolve()) in command
    assert as_nobody(partial(refusal, opener)) == [sentence, command]

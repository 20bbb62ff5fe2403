"""Files are read frame for frame whatever their dress, damage is told, nothing is lost silently."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import capture
import frame_buffer
import libpcap
from batches import FrameBatch
from capture_files import PcapReader, ScapyReader
from errors import CaptureError, InputError
from frame_buffer import FrameBuffer, callback, walk_block

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "captures"
START_NS = 1_700_000_000_123_456_789
needs_libpcap = pytest.mark.skipif(libpcap.library() is None, reason="libpcap is not installed")

Frame = tuple[int, bytes, int]
"""(time in ns, bytes captured, length on the wire)."""


def some_frames(count: int, seed: int = 1) -> list[Frame]:
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(count):
        body = rng.bytes(int(rng.integers(14, 120)))
        frames.append((START_NS + i * 1_000_003, body, len(body) + int(rng.integers(0, 1400))))
    return frames


def word(value: int, size: int, order: str) -> bytes:
    return value.to_bytes(size, "big" if order == ">" else "little")


def pcap(frames: list[Frame], *, order: str = "<", nano: bool = True, link_type: int = 1) -> bytes:
    parts = [word(0xA1B23C4D if nano else 0xA1B2C3D4, 4, order)]
    parts += [word(2, 2, order), word(4, 2, order), bytes(8)]
    parts += [word(65535, 4, order), word(link_type, 4, order)]
    for time_ns, body, length in frames:
        seconds, rest = divmod(time_ns, 10**9)
        parts += [
            word(value, 4, order)
            for value in (seconds, rest if nano else rest // 1000, len(body), length)
        ]
        parts.append(body)
    return b"".join(parts)


def block(kind: int, body: bytes, order: str) -> bytes:
    body += bytes(-len(body) % 4)
    size = word(len(body) + 12, 4, order)
    return word(kind, 4, order) + size + body + size


def pcapng(frames: list[Frame], *, order: str = "<", link_types: tuple[int, ...] = (1,)) -> bytes:
    """Interfaces take turns; times in nanoseconds (if_tsresol 9)."""
    parts = [
        block(
            0x0A0D0D0A,
            word(0x1A2B3C4D, 4, order) + word(1, 2, order) + bytes(2) + b"\xff" * 8,
            order,
        )
    ]
    resolution = word(9, 2, order) + word(1, 2, order) + b"\x09\0\0\0" + bytes(4)
    for link_type in link_types:
        head = word(link_type, 2, order) + bytes(2) + word(65535, 4, order)
        parts.append(block(1, head + resolution, order))
    for i, (time_ns, body, length) in enumerate(frames):
        values = (i % len(link_types), time_ns >> 32, time_ns & 0xFFFFFFFF, len(body), length)
        head = b"".join(word(value, 4, order) for value in values)
        parts.append(block(6, head + body, order))
    return b"".join(parts)


def content(batches: list[FrameBatch]) -> list[Frame]:
    return [
        (
            int(batch.time_ns[i]),
            batch.data[batch.offset[i] : batch.offset[i] + batch.captured[i]].tobytes(),
            int(batch.length[i]),
        )
        for batch in batches
        for i in range(len(batch))
    ]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


DRESSES: dict[str, Callable[[list[Frame]], bytes]] = {
    "little.pcap": pcap,
    "big.pcap": lambda frames: pcap(frames, order=">"),
    "little.pcap.gz": pcap,
    "little.pcapng": pcapng,
    "big.pcapng": lambda frames: pcapng(frames, order=">"),
    "big.pcapng.gz": lambda frames: pcapng(frames, order=">"),
}


@pytest.mark.parametrize("name", DRESSES)
@pytest.mark.parametrize("reader", [PcapReader, ScapyReader])
def test_every_dress_gives_the_same_frames(tmp_path: Path, name: str, reader: Any) -> None:
    if reader is PcapReader and libpcap.library() is None:
        pytest.skip("libpcap is not installed")
    frames = some_frames(200)
    path = write(tmp_path / name, DRESSES[name](frames))
    batches = list(reader(path, 512, gzipped=name.endswith(".gz")).batches())
    assert content(batches) == frames
    assert {(batch.link_type, batch.interface) for batch in batches} == {(1, name)}


def test_microseconds_are_told_in_nanoseconds(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcap", pcap(some_frames(5), nano=False))
    times = [frame[0] for frame in content(list(capture.read_capture(path)))]
    assert times == [time_ns // 1000 * 1000 for time_ns, _, _ in some_frames(5)]


def test_long_files_come_in_several_batches(tmp_path: Path) -> None:
    frames = some_frames(20_000)
    path = write(tmp_path / "x.pcap.gz", pcap(frames))
    file = capture.read_capture(path)
    batches = list(file)
    assert [len(batch) for batch in batches] == [8192, 8192, 3616]
    assert content(batches) == frames
    assert file.frames == 20_000
    assert file.damage is None


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 2**31)), max_size=20),
    st.integers(1, 200),
)
def test_the_snap_length_cuts_frames_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[tuple[bytes, int]], snaplen: int
) -> None:
    frames = [(START_NS + i, body, len(body) + extra) for i, (body, extra) in enumerate(bodies)]
    path = write(tmp_path_factory.mktemp("cut") / "x.pcap", pcap(frames))
    got = content(list(capture.read_capture(path, snaplen=snaplen)))
    assert got == [(t, body[:snaplen], min(length, 2**31 - 1)) for t, body, length in frames]


def test_whole_frames_where_asked_for(tmp_path: Path) -> None:
    frames = [(START_NS + i, bytes([i]) * 65000, 65000) for i in range(200)]
    path = write(tmp_path / "x.pcap", pcap(frames))
    assert content(list(capture.read_capture(path, snaplen=65535))) == frames


# What is damaged, the damaging, frames that are read, words of the sentence.
DAMAGES: list[tuple[str, Callable[[bytes], bytes], int, str]] = [
    ("cut in the last record.pcap", lambda data: data[:-3], 99, "in its frame 100 .*truncated"),
    ("cut in a header.pcap", lambda data: data[:34], 0, "in its frame 1 .*nothing is read"),
    ("cut.pcapng", lambda data: data[:-3], 99, "in its frame 100 "),
]


@needs_libpcap
@pytest.mark.parametrize(("name", "damaged", "count", "words"), DAMAGES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_files_are_read_up_to_the_damage(
    tmp_path: Path,
    name: str,
    damaged: Callable[[bytes], bytes],
    count: int,
    words: str,
    suffix: str,
) -> None:
    frames = some_frames(100)
    make = pcapng if name.endswith("pcapng") else pcap
    file = capture.read_capture(write(tmp_path / (name + suffix), damaged(make(frames))))
    assert content(list(file)) == frames[:count]
    assert re.search(words, file.damage or "")
    assert file.damage is not None
    assert name in file.damage


def test_a_gzip_stream_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    frames = some_frames(3000)
    path = write(tmp_path / "x.pcap.gz", pcap(frames))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    file = capture.read_capture(path)
    got = content(list(file))
    assert 0 < len(got) < 3000
    assert got == frames[: len(got)]
    assert "gzip stream is broken" in (file.damage or "")


def test_scapys_reader_tells_damage_too(tmp_path: Path) -> None:
    data = pcapng(some_frames(50))
    for name, damaged, words in (
        ("cut.pcapng", data[:-3], "cut off"),
        ("odd.pcapng", data + b"\6\0\0\0\3\0\0\0xxx", "contradicts itself"),
        ("vast.pcapng", data + b"\6\0\0\0\0\0\0\xf0xxx", "4,026,531,828 bytes long"),
    ):
        reader = ScapyReader(write(tmp_path / name, damaged), 512, gzipped=False)
        assert len(content(list(reader.batches()))) == (49 if name == "cut.pcapng" else 50)
        assert words in (reader.damage or "")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.pcap", b"", "is empty"),
        ("empty.pcap.gz", b"", "can't be read as a capture"),
        ("text.pcap", b"time,source,target\n1,2,3\n" * 20, "can't be read as a capture"),
        ("short.pcap", b"\xd4\xc3\xb2\xa1", "can't be read as a capture"),
        ("broken.pcap.gz", None, "gzip stream is broken"),
    ],
)
@pytest.mark.parametrize("with_libpcap", [True, False])
def test_what_is_no_capture_is_refused_in_one_sentence(
    tmp_path: Path, name: str, data: bytes | None, words: str, with_libpcap: bool
) -> None:
    path = tmp_path / name
    if data is None:
        path.write_bytes(b"\x1f\x8b" + b"no gzip at all" * 10)
    else:
        write(path, data)
    gzipped = name.endswith(".gz")
    if with_libpcap or "empty" in words:
        opener: Callable[[], object] = partial(capture.read_capture, path)
    else:
        opener = partial(ScapyReader, path, 512, gzipped=gzipped)
    with pytest.raises(InputError, match=words) as refusal:
        opener()
    assert str(refusal.value).count("\n") == 0
    assert name in str(refusal.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        capture.read_capture(tmp_path / "none.pcap")
    with pytest.raises(InputError, match="directory"):
        capture.read_capture(tmp_path)


def test_interfaces_of_different_kinds_are_told_apart(tmp_path: Path) -> None:
    frames = some_frames(60)
    path = write(tmp_path / "two.pcapng.gz", pcapng(frames, link_types=(1, 113)))
    file = capture.read_capture(path)
    batches = list(file)
    assert content(batches) == frames
    assert [batch.link_type for batch in batches] == [1, 113] * 30
    assert file.damage is None


def test_a_packed_giant_needs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "giant.pcap.gz"
    record = pcap([(START_NS, bytes(60_000), 60_000)])
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(record[:24])
        for _ in range(60):
            file.write(record[24:] * 40)
    script = (
        "import resource, sys, capture; capture.warm()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(len(batch) for batch in capture.read_capture(sys.argv[1])))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    count, grown_kib = map(int, run_python(script, str(path)).split())
    assert path.stat().st_size < 2 << 20
    assert count == 2400
    # 144 MB unpacked; what remains is a batch or two and the library.
    assert grown_kib < 30 << 10


def test_reading_can_be_given_up(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcap.gz", pcap(some_frames(30_000)))
    file = capture.read_capture(path)
    next(iter(file))
    file.close()
    deadline_s = time.monotonic() + 5
    while any(thread.name == "unpack capture" for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s, "the unpacking thread still runs"


def run_python(script: str, *arguments: str, **environment: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return answer.stdout


DIGEST = """
import hashlib, sys, numpy as np, capture
from frame_buffer import FrameBuffer, walk_block
digest = hashlib.sha256()
for path in sys.argv[2:]:
    for batch in capture.read_capture(path, snaplen=90):
        for column in (batch.data, batch.offset, batch.captured, batch.length, batch.time_ns):
            digest.update(column.tobytes())
buffer = FrameBuffer(64, 90)
walk_block(buffer.words, np.load(sys.argv[1]))
for column in (buffer.take(1, "ring"),):
    digest.update(column.data.tobytes() + column.time_ns.tobytes() + column.length.tobytes())
print(digest.hexdigest())
"""


@needs_libpcap
def test_interpreted_is_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "block.npy", ring_block(some_frames(20), tags=True))
    paths = [
        str(tmp_path / "block.npy"),
        str(write(tmp_path / "a.pcap", pcap(some_frames(300)))),
        str(write(tmp_path / "b.pcapng", pcapng(some_frames(300, seed=2)))),
    ]
    compiled_digest = run_python(DIGEST, *paths)
    assert len(compiled_digest) == len(hashlib.sha256().hexdigest()) + 1
    assert run_python(DIGEST, *paths, NUMBA_DISABLE_JIT="1") == compiled_digest


# --- the frame buffer ---------------------------------------------------------------------------


def put(buffer: FrameBuffer, header: NDArray[np.int32], body: bytes) -> None:
    frame = np.frombuffer(bytearray(body), np.uint8)
    pointers = [
        ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
        for array, kind in (
            (buffer.words, ctypes.c_int64),
            (header, ctypes.c_int32),
            (frame, ctypes.c_uint8),
        )
    ]
    callback()(*pointers)


@pytest.mark.parametrize(
    ("fields", "caplen_word", "scale"),
    [
        # Linux: 64-bit seconds, 64-bit fraction; macOS: the fraction in 32 bits, then 4 of noise.
        ([1_700_000_000, 0, 123_456_789, 0, 4, 1500], 4, 1),
        ([1_700_000_000, 0, 123_456, -77, 4, 1500], 4, 1000),
        # Windows: both in 32 bits. After 2038 as unsigned seconds.
        ([1_700_000_000, 123_456, 4, 1500, 9, 9], 2, 1000),
        ([4_100_000_000 - 2**32, 123_456, 4, 1500, 9, 9], 2, 1000),
    ],
)
def test_packet_headers_of_every_system(fields: list[int], caplen_word: int, scale: int) -> None:
    buffer = FrameBuffer(4, 100)
    buffer.set_header(caplen_word=caplen_word, time_scale=scale)
    put(buffer, np.array(fields, np.int32), b"abcd")
    batch = buffer.take(1, "eth0")
    fraction = 123_456_789 if scale == 1 else 123_456_000
    seconds = 4_100_000_000 if fields[0] < 0 else 1_700_000_000
    assert content([batch]) == [(seconds * 10**9 + fraction, b"abcd", 1500)]


def test_a_full_buffer_takes_nothing_and_counts_it() -> None:
    buffer = FrameBuffer(4, 16)
    guard = buffer.words.copy()
    header = np.array([1, 0, 0, 0, 40, 40], np.int32)
    buffer.set_header(caplen_word=4, time_scale=1)
    for number in range(6):
        put(buffer, header, bytes([number]) * 40)
    assert (len(buffer), buffer.room, buffer.lost) == (4, 0, 2)
    assert [body for _, body, _ in content([buffer.take(1, "")])] == [
        bytes([number]) * 16 for number in range(4)
    ]
    assert buffer.words[:4].tolist() == guard[:4].tolist()
    assert (len(buffer), buffer.room) == (0, 4)


def ring_block(frames: list[Frame], *, tags: bool = False, outgoing: bool = False) -> Any:
    """A TPACKET_V3 block as the kernel fills it; with `tags` each frame had VLAN 5."""
    parts: list[bytes] = []
    for time_ns, body, length in frames:
        seconds, rest = divmod(time_ns, 10**9)
        values = (0, seconds, rest, len(body), length, 0x51 if tags else 1)
        head = b"".join(word(value, 4, "<") for value in values) + word(82, 2, "<") + bytes(6)
        head += word(0x6005, 4, "<") + word(0x88A8, 2, "<") + bytes(10)
        head += bytes(10) + bytes([4 if outgoing else 0])
        record = head.ljust(82, b"\0") + body
        record += bytes(-len(record) % 8)
        parts.append(word(len(record), 4, "<") + record[4:])
    head = word(1, 4, "<") + word(48, 4, "<") + word(1, 4, "<")
    head += word(len(frames), 4, "<") + word(48, 4, "<")
    data = head.ljust(48, b"\0") + b"".join(parts)
    return np.frombuffer(bytearray(data.ljust(len(data) + 64, b"\0")), np.uint8)


def test_a_ring_block_is_walked_in_as_many_steps_as_it_needs() -> None:
    frames = some_frames(50)
    block = ring_block(frames)
    buffer = FrameBuffer(8, 200)
    got: list[FrameBatch] = []
    left = 1
    while left:
        left = int(walk_block(buffer.words, block))
        got.append(buffer.take(1, "eth0"))
    assert [len(batch) for batch in got] == [8] * 6 + [2]
    assert content(got) == frames
    assert buffer.lost == 0


def test_the_ring_puts_the_vlan_tag_back() -> None:
    frames = some_frames(3)
    buffer = FrameBuffer(8, 60)
    walk_block(buffer.words, ring_block(frames, tags=True))
    tagged = [
        (t, (body[:12] + b"\x88\xa8\x60\x05" + body[12:])[:60], length + 4)
        for t, body, length in frames
    ]
    assert content([buffer.take(1, "")]) == tagged


def test_loopback_frames_of_the_ring_are_taken_once() -> None:
    block = ring_block(some_frames(3), outgoing=True)
    loopback, other = FrameBuffer(8, 200, skip_outgoing=True), FrameBuffer(8, 200)
    assert walk_block(loopback.words, block) == walk_block(other.words, block) == 0
    assert (len(loopback), len(other)) == (0, 3)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_ring_block_of_nonsense_is_never_left(data: st.DataObject) -> None:
    block = ring_block(some_frames(4)).copy()
    for place in data.draw(st.lists(st.integers(8, len(block) - 1), min_size=1, max_size=8)):
        block[place] = data.draw(st.integers(0, 255))
    buffer = FrameBuffer(512, 64)
    # What lies before and behind must not get into a frame.
    memory = np.full(len(block) + 200_000, 0xEE, np.uint8)
    memory[100_000 : 100_000 + len(block)] = block
    inside = memory[100_000 : 100_000 + len(block)]
    for _ in range(10_000):
        if walk_block(buffer.words, inside) == 0:
            break
        buffer.take(1, "")
    assert len(buffer) <= 512


def test_one_compiled_version_of_each_function(tmp_path: Path) -> None:
    frame_buffer.warm()
    walk_block(FrameBuffer(8, 64).words, ring_block(some_frames(3)))
    path = write(tmp_path / "two.pcapng", pcapng(some_frames(30), link_types=(1, 113)))
    list(capture.read_capture(path))
    for function in (walk_block, frame_buffer._store, frame_buffer._little_endian):
        signatures = getattr(function, "signatures", None)
        if signatures is not None:
            # 0: loaded from the cache as a part of its caller.
            assert len(signatures) <= 1
    assert len(getattr(frame_buffer._store, "signatures", [0])) == 1


# --- shared captures ----------------------------------------------------------------------------

# A file libpcap takes one frame less from than Scapy, which keeps a frame that is cut off.
CUT_FRAMES = {"damaged_bad_caplen.pcap.gz", "damaged_truncated_last_record.pcap.gz"}


@needs_libpcap
@pytest.mark.skipif(not DATA.exists(), reason="the shared captures are not here")
def test_odd_captures_are_read_alike_by_both_readers() -> None:
    read = 0
    for path in sorted((DATA / "odd").iterdir()):
        try:
            frames = content(list(capture.read_capture(path)))
        except InputError:
            assert path.name == "solaris_snoop.snoop.gz"
            continue
        reader = ScapyReader(path, 512, gzipped=True)
        other = content(list(reader.batches()))
        if path.name in CUT_FRAMES:
            other.pop()
        if path.name == "nsec_invalid_timestamp.pcap.gz":  # 2 s of nanoseconds and more
            assert len(frames) == len(other)
            continue
        assert frames == other, path.name
        read += 1
    assert read >= 40


# --- live, without an interface -----------------------------------------------------------------


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
        return 2**32 - 1 if self.steps else 4, 3

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
    # Each source counts from 0 and 32 bits wide: (2**32 - 1, then 4) is 5 more, not less.
    status = live.status()
    assert (status.kernel_drops, status.interface_drops) == (8, 6)


def test_counters_that_wrap_go_on() -> None:
    live = capture.Capture(loopback(), opener=Script())
    source = ScriptedSource(Script(), [1], FrameBuffer(2, 64))
    live._count_drops(source)
    source.steps.clear()
    live._count_drops(source)
    assert live.status().kernel_drops == 2**32 + 4


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


# --- interfaces ---------------------------------------------------------------------------------


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

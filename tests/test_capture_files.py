"""Files are read frame for frame whatever their dress, and damage is told."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capture
from capture import libpcap
from capture.buffer import LATEST_NS
from capture.files import PcapReader, ScapyReader
from errors import InputError
from tests.captures import START_NS, Frame, content, pcap, pcapng, ring_block, some_frames, write

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "captures"
needs_libpcap = pytest.mark.skipif(libpcap.library() is None, reason="libpcap is not installed")


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
    assert {batch.interface for batch in batches} == {name}
    assert all((batch.link_type == 1).all() for batch in batches)


def test_microseconds_are_told_in_nanoseconds(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcap", pcap(some_frames(5), nano=False))
    times = [frame[0] for frame in content(list(capture.read_capture(path)))]
    assert times == [time_ns // 1000 * 1000 for time_ns, _, _ in some_frames(5)]


@pytest.mark.parametrize("reader", [PcapReader, ScapyReader])
def test_forged_times_stay_within_what_can_be_counted_with(tmp_path: Path, reader: Any) -> None:
    if reader is PcapReader and libpcap.library() is None:
        pytest.skip("libpcap is not installed")
    year_2100_ns = 4_102_444_800 * 10**9  # beyond a signed second counter of 32 bits
    times = [0, year_2100_ns, (1 << 63) - 1, (1 << 64) - 1]
    made = [(time_ns, bytes(60), 60) for time_ns in times]
    for name, data, told in (
        ("x.pcap", pcap(made[:2]), times[:2]),
        ("x.pcapng", pcapng(made), [0, year_2100_ns, LATEST_NS, LATEST_NS]),
    ):
        batches = list(reader(write(tmp_path / name, data), 512, gzipped=False).batches())
        assert [frame[0] for frame in content(batches)] == told


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
    assert [int(n) for batch in batches for n in batch.link_type] == [1, 113] * 30
    assert file.damage is None


def test_a_packed_giant_needs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "giant.pcap.gz"
    record = pcap([(START_NS, bytes(60_000), 60_000)])
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(record[:24])
        for _ in range(20):
            file.write(record[24:] * 40)
    script = (
        "import resource, sys, capture; capture.warm()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(len(batch) for batch in capture.read_capture(sys.argv[1])))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    count, grown_kib = map(int, run_python(script, str(path)).split())
    assert path.stat().st_size < 1 << 20
    assert count == 800
    # 48 MB unpacked; what remains is a batch or two and the library.
    assert grown_kib < 16 << 10


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
from capture.buffer import FrameBuffer, walk_block
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

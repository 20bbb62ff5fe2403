"""Every layout of pcap and pcapng gives its frames, all of them, in order, at the right time."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capture
from batches import FrameBatch
from capture import libpcap, records
from capture.buffer import LATEST_NS
from tests.captures import (
    START_NS,
    Frame,
    block,
    content,
    interface,
    packet,
    pcap,
    pcapng,
    ring_block,
    section,
    simple_packet,
    some_frames,
    word,
    write,
)

ROOT = Path(__file__).resolve().parent.parent

DRESSES: dict[str, Callable[[list[Frame]], bytes]] = {
    "little.pcap": pcap,
    "big.pcap": lambda frames: pcap(frames, order=">"),
    "little.pcap.gz": pcap,
    "little.pcapng": pcapng,
    "big.pcapng": lambda frames: pcapng(frames, order=">"),
    "big.pcapng.gz": lambda frames: pcapng(frames, order=">"),
}


def read(path: Path, data: bytes) -> list[FrameBatch]:
    """The batches of a file that must be read to its end."""
    file = capture.read_capture(write(path, data))
    batches = list(file)
    assert file.damage is None
    assert file.frames == sum(len(batch) for batch in batches)
    return batches


def link_types(batches: list[FrameBatch]) -> list[int]:
    return [int(number) for batch in batches for number in batch.link_type]


@pytest.mark.parametrize("name", DRESSES)
def test_every_dress_gives_the_same_frames(tmp_path: Path, name: str) -> None:
    frames = some_frames(200)
    batches = read(tmp_path / name, DRESSES[name](frames))
    assert content(batches) == frames
    assert {batch.interface for batch in batches} == {name}
    assert set(link_types(batches)) == {1}


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_variant_with_longer_records(tmp_path: Path, order: str) -> None:
    frames = [(t // 1000 * 1000, body, length) for t, body, length in some_frames(20)]
    assert content(read(tmp_path / "x.pcap", pcap(frames, order=order, kuznetzov=True))) == frames


def test_microseconds_are_told_in_nanoseconds(tmp_path: Path) -> None:
    frames = some_frames(5)
    times = [t for t, _, _ in content(read(tmp_path / "x.pcap", pcap(frames, nano=False)))]
    assert times == [time_ns // 1000 * 1000 for time_ns, _, _ in frames]


def test_old_files_have_their_lengths_the_other_way_round(tmp_path: Path) -> None:
    frames = some_frames(20)
    for minor in (2, 3):
        data = pcap(frames, version=(2, minor))
        assert content(read(tmp_path / "x.pcap", data)) == frames


def test_odd_but_valid_numbers(tmp_path: Path) -> None:
    frames = [
        (START_NS, b"", 60),
        (START_NS, b"", 0),
        (START_NS, bytes(60), 40),  # more captured than there was: the length is the larger one
        (0, bytes(10), 10),
        ((2**32 - 1) * 10**9, bytes(10), 10),  # 2106, beyond a signed counter of seconds
        (START_NS, bytes(262_144), 262_144),
    ]
    told = [(t, body, max(length, len(body))) for t, body, length in frames]
    for snaplen in (0, 65535, 2**31):
        path = write(tmp_path / "x.pcap", pcap(frames, snaplen=snaplen))
        assert content(list(capture.read_capture(path, snaplen=262_144))) == told


def test_a_fraction_of_more_than_a_second_is_added(tmp_path: Path) -> None:
    data = bytearray(pcap([(START_NS, bytes(20), 20)]))
    data[28:32] = word(3_999_999_999, 4, "<")
    (frame,) = content(read(tmp_path / "x.pcap", bytes(data)))
    assert frame[0] == START_NS // 10**9 * 10**9 + 3_999_999_999


@pytest.mark.parametrize(
    ("told", "link_type"), [(1, 1), (101, 12), (228, 228), (0x1400_0001, 1), (0x0100_0001, 1)]
)
def test_link_types_are_libpcaps(tmp_path: Path, told: int, link_type: int) -> None:
    data = pcap(some_frames(2), link_type=told)
    assert link_types(read(tmp_path / "x.pcap", data)) == [link_type] * 2
    data = pcapng(some_frames(2), link_types=(told & 0xFFFF,))
    assert link_types(read(tmp_path / "x.pcapng", data)) == [link_type] * 2


def test_interfaces_of_different_kinds_share_batches(tmp_path: Path) -> None:
    frames = some_frames(20_000)
    batches = read(tmp_path / "two.pcapng.gz", pcapng(frames, link_types=(1, 113, 101)))
    assert [len(batch) for batch in batches] == [8192, 8192, 3616]
    assert content(batches) == frames
    assert link_types(batches) == ([1, 113, 12] * 6667)[:20_000]


def test_files_joined_end_to_end(tmp_path: Path) -> None:
    frames = some_frames(100)
    small, large, rest = frames[:3], frames[3:60], frames[60:]
    for parts in (
        [pcap(small), pcap(large, order=">", link_type=113), pcapng(rest)],
        [pcapng(small, link_types=(1, 113)), pcap(large, nano=True), pcapng(rest, order=">")],
        [pcapng(small), pcapng([]), pcap([]), pcap([]), pcapng(large), pcap(rest, order=">")],
    ):
        assert content(read(tmp_path / "joined.pcap", b"".join(parts))) == frames
        assert content(read(tmp_path / "joined.pcap.gz", b"".join(parts))) == frames


def test_sections_forget_the_interfaces_before_them(tmp_path: Path) -> None:
    body = bytes(30)
    data = section() + interface(1) + interface(113) + packet(1, START_NS, body, 30)
    data += section(">") + interface(12, order=">", resolution=None)
    data += packet(0, START_NS // 1000, body, 30, order=">")
    batches = read(tmp_path / "x.pcapng", data)
    assert link_types(batches) == [113, 12]
    file = capture.read_capture(
        write(tmp_path / "y.pcapng", data + packet(1, 0, body, 30, order=">"))
    )
    assert link_types(list(file)) == [113, 12]
    assert "names an interface that is not described" in (file.damage or "")


def test_many_interfaces_and_blocks_of_other_kinds(tmp_path: Path) -> None:
    parts = [section()]
    frames = []
    for number in range(300):
        parts.append(interface(number, snaplen=number, resolution=6 + number % 4))
        parts.append(block(4, bytes(number), "<") + block(0x8000_0001, bytes(8), "<"))
        ticks = START_NS // 10 ** (3 - number % 4)
        parts.append(packet(number, ticks, bytes([number % 256]) * 20, 500, old=number % 2 == 1))
        frames.append((ticks * 10 ** (3 - number % 4), bytes([number % 256]) * 20, 500))
    parts.append(block(5, bytes(60), "<"))
    batches = read(tmp_path / "x.pcapng", b"".join(parts))
    assert content(batches) == frames
    dlt = {100: 11, 101: 12, 102: 15, 103: 16, 106: 19}
    assert link_types(batches) == [dlt.get(number, number) for number in range(300)]


def test_simple_packets_have_the_time_of_the_frame_before(tmp_path: Path) -> None:
    body = bytes(range(64))
    for order in "<>":
        data = section(order) + interface(1, order=order, snaplen=40)
        data += simple_packet(body[:40], 1000, order=order)
        data += packet(0, START_NS, body, 64, order=order)
        data += simple_packet(body[:7], 7, order=order)
        data += section(order) + interface(113, order=order, snaplen=0)
        data += simple_packet(body, 64, order=order)
        batches = read(tmp_path / "x.pcapng", data)
        assert content(batches) == [
            (0, body[:40], 1000),
            (START_NS, body, 64),
            (START_NS, body[:7], 7),
            (START_NS, body, 64),
        ]
        assert link_types(batches) == [1, 1, 1, 113]


def exact_ns(ticks: int, resolution: int | None, offset_s: int | None) -> int:
    """A time stamp by rational numbers, cut to what the program counts with."""
    power = 6 if resolution is None else resolution & 127
    base = 2 if resolution is not None and resolution & 128 else 10
    ns = min(int(Fraction(ticks, base**power) * 10**9), LATEST_NS)
    if offset_s is not None and offset_s > 0:
        ns = min(ns, max(LATEST_NS - offset_s * 10**9, 0))
    return min(max(ns + (offset_s or 0) * 10**9, 0), LATEST_NS)


@settings(max_examples=150)
@given(
    st.one_of(st.none(), st.integers(0, 27), st.integers(128, 128 + 42)),
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31)),
    st.lists(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2**40)), min_size=1),
    st.booleans(),
)
def test_times_of_every_resolution_and_offset_are_exact(
    tmp_path_factory: pytest.TempPathFactory,
    resolution: int | None,
    offset_s: int | None,
    ticks: list[int],
    big: bool,
) -> None:
    order = ">" if big else "<"
    data = section(order)
    data += interface(1, order=order, resolution=resolution, offset_s=offset_s)
    data += b"".join(packet(0, tick, b"x", 1, order=order) for tick in ticks)
    frames = content(read(tmp_path_factory.mktemp("times") / "x.pcapng", data))
    assert [frame[0] for frame in frames] == [
        exact_ns(tick, resolution, offset_s) for tick in ticks
    ]


def test_finer_resolutions_are_right_to_a_nanosecond(tmp_path: Path) -> None:
    ticks = (1 << 64) - 1
    for resolution in (*range(128 + 43, 256), *range(28, 128)):
        data = section() + interface(1, resolution=resolution) + packet(0, ticks, b"x", 1)
        ((told, _, _),) = content(read(tmp_path / "x.pcapng", data))
        if 128 <= resolution < 128 + 64:
            assert abs(told - exact_ns(ticks, resolution, None)) <= 1
        else:  # 64 bits do not hold a second of it
            assert told <= 2 * 10**9


class _Header(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_int64),
        ("fraction", ctypes.c_int64),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


def libpcap_reads(path: Path) -> tuple[list[Frame], int, bool]:
    """(frames, link type, whether it came to the end) as libpcap itself reads a plain file."""
    library = libpcap.require_library()
    opener = library.pcap_open_offline_with_tstamp_precision
    opener.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(opener(os.fsencode(path), 1, ctypes.create_string_buffer(256)))
    header = ctypes.POINTER(_Header)()
    data = ctypes.POINTER(ctypes.c_uint8)()
    frames = []
    while (answer := library.pcap_next_ex(handle, ctypes.byref(header), ctypes.byref(data))) == 1:
        one = header.contents
        seconds = one.seconds & 0xFFFFFFFF if one.seconds < 0 else one.seconds
        frames.append(
            (
                seconds * 10**9 + one.fraction,
                ctypes.string_at(data, one.captured),
                int(one.length),
            )
        )
    link_type = int(library.pcap_datalink(handle))
    library.pcap_close(handle)
    return frames, link_type, answer == -2


@pytest.mark.skipif(
    libpcap.library() is None or sys.platform != "linux", reason="needs libpcap on Linux"
)
@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**32 * 10**9 - 1), st.binary(max_size=80), st.integers(0, 2**31 - 1)
        ),
        max_size=12,
    ),
    st.sampled_from("<>"),
    st.sampled_from(["pcap", "pcap usec", "kuznetzov", "pcapng"]),
    st.sampled_from([0, 1, 9, 101, 113, 228, 276]),
    st.integers(0, 60),
)
def test_libpcap_agrees(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[Frame],
    order: str,
    kind: str,
    link_type: int,
    cut: int,
) -> None:
    frames = [(t, body, max(length, len(body))) for t, body, length in made]
    if kind == "pcapng":
        data = pcapng(frames, order=order, link_types=(link_type,))
    else:
        data = pcap(
            frames,
            order=order,
            link_type=link_type,
            nano=kind == "pcap",
            kuznetzov=kind == "kuznetzov",
        )
    # Cut somewhere behind the headers.
    path = write(tmp_path_factory.mktemp("cut") / "x.pcap", data[: max(len(data) - cut, 100)])
    file = capture.read_capture(path)
    batches = list(file)
    told, link, whole = libpcap_reads(path)
    assert content(batches) == told
    assert set(link_types(batches)) <= {link}
    assert (file.damage is None) == whole


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
        for column in (batch.data, batch.offset, batch.captured, batch.length, batch.time_ns,
                       batch.link_type):
            digest.update(column.tobytes())
buffer = FrameBuffer(64, 90)
walk_block(buffer.words, np.load(sys.argv[1]))
column = buffer.take(1, "ring")
digest.update(column.data.tobytes() + column.time_ns.tobytes() + column.length.tobytes())
print(digest.hexdigest())
"""


def test_interpreted_is_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "block.npy", ring_block(some_frames(20), tags=True))
    binary = section(">") + interface(1, order=">", resolution=128 + 50, offset_s=-7)
    binary += packet(0, (1 << 64) - 5, b"abc", 9, order=">") + simple_packet(b"abcd", 4, order=">")
    paths = [
        str(tmp_path / "block.npy"),
        str(write(tmp_path / "a.pcap", pcap(some_frames(300)))),
        str(write(tmp_path / "b.pcapng", pcapng(some_frames(300, seed=2), link_types=(1, 9)))),
        str(write(tmp_path / "c.pcapng", binary)),
    ]
    compiled_digest = run_python(DIGEST, *paths)
    assert len(compiled_digest) == len(hashlib.sha256().hexdigest()) + 1
    assert run_python(DIGEST, *paths, NUMBA_DISABLE_JIT="1") == compiled_digest


def test_one_compiled_version_of_each_function(tmp_path: Path) -> None:
    records.warm()
    for name, data in (("a.pcap", pcap), ("b.pcapng", pcapng)):
        for order in "<>":
            read(tmp_path / name, data(some_frames(30), order=order))
    signatures = getattr(records._walk, "signatures", None)
    if signatures is not None:
        assert len(signatures) == 1

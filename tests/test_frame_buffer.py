"""The frame buffer stores what compiled callers give it, and never more than it has room for."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import capture
from batches import FrameBatch
from capture import buffer as frame_buffer
from capture.buffer import FrameBuffer, callback, walk_block
from tests.captures import content, pcapng, ring_block, some_frames, write


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
    for function in (walk_block, frame_buffer.store, frame_buffer._little_endian):
        signatures = getattr(function, "signatures", None)
        if signatures is not None:
            # 0: loaded from the cache as a part of its caller.
            assert len(signatures) <= 1
    assert len(getattr(walk_block, "signatures", [0])) == 1

"""Where captured frames land: one block of memory that compiled code fills, frame by frame.

libpcap calls `callback()` once a frame of a live interface; where libpcap is missing on Linux,
`walk_block` reads the kernel's packet ring; files are walked by capture/records.py. All store a
frame by the same few lines. The block is one int64 array, so that its address alone is all a
callback needs:

    words[0 : 16]       the state below
    then                offset, time_ns (int64 each), captured, length, link_type (int32 each),
                        data (uint8)
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final, cast

import numba
import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numpy.typing import NDArray

from batches import FrameBatch
from compiled import Int, compiled

__all__ = ["LATEST_NS", "FrameBuffer", "callback", "is_full", "store", "walk_block", "warm"]

_STATE_WORDS: Final = 16
_TOTAL: Final = 0  # words of the whole block
_FRAMES: Final = 1  # frames it can hold; even, so that the data begin on a whole word
_BYTES: Final = 2  # bytes of frames it can hold
_SNAPLEN: Final = 3
_COUNT: Final = 4  # frames held
_USED: Final = 5  # bytes of frames held
_LOST: Final = 6  # frames that came although the block was full; 0 unless a library miscounts
_HEADER_WORD: Final = 7  # int32 word of pcap_pkthdr where caplen stands
_TIME_SCALE: Final = 8  # nanoseconds of one unit of the header's fraction of a second
_SKIP_OUTGOING: Final = 9  # 1: the ring's outgoing frames are not stored (loopback shows both)
_RING_PLACE: Final = 10  # where the walk of a ring block goes on, 0 = at its first frame
_RING_LEFT: Final = 11  # frames of that block not walked yet

LATEST_NS: Final = 7_258_118_400_000_000_000
"""The year 2200. A forged time stamp is cut to it: whatever is added to a time must fit int64."""

# At most this much memory for frames, whatever the snap length.
_MAX_BYTES: Final = 4 << 20

# struct tpacket_block_desc, tpacket3_hdr and sockaddr_ll (linux/if_packet.h), byte offsets.
_BLOCK_FRAMES: Final = 12
_BLOCK_FIRST: Final = 16
_RING_NEXT: Final = 0
_RING_SEC: Final = 4
_RING_NSEC: Final = 8
_RING_CAPTURED: Final = 12
_RING_LENGTH: Final = 16
_RING_STATUS: Final = 20
_RING_MAC: Final = 24
_RING_VLAN_TCI: Final = 32
_RING_VLAN_TPID: Final = 36
_RING_PACKET_TYPE: Final = 48 + 10
_VLAN_VALID: Final = 0x10
_VLAN_TPID_VALID: Final = 0x40
_OUTGOING: Final = 4


@compiled
def is_full(words: NDArray[np.int64]) -> bool:
    """Whether the next frame might not fit."""
    no_frame = words[_COUNT] >= words[_FRAMES]
    return bool(no_frame or words[_USED] + words[_SNAPLEN] > words[_BYTES])


@compiled
def store(
    words: NDArray[np.int64],
    source: NDArray[np.uint8],
    start: Int,
    captured: Int,
    length: Int,
    time_ns: Int,
    tag: Int,
    link_type: Int,
) -> None:
    """Append source[start : start + captured]; a VLAN tag >= 0 goes in behind the addresses."""
    count = words[_COUNT]
    used = words[_USED]
    frames = words[_FRAMES]
    snaplen = words[_SNAPLEN]
    if is_full(words):
        words[_LOST] += 1
        return
    data_begin = _STATE_WORDS + 3 * frames + frames // 2
    columns = words[_STATE_WORDS + 2 * frames : data_begin].view(np.int32)
    data = words[data_begin:].view(np.uint8)
    kept = np.int64(0)
    begin = start
    if tag >= 0 and captured >= 12:
        kept = min(np.int64(12), snaplen)
        for i in range(kept):
            data[used + i] = source[start + i]
        for i in range(min(np.int64(4), snaplen - kept)):
            data[used + kept + i] = (tag >> (24 - 8 * i)) & 255
        kept = min(np.int64(16), snaplen)
        begin += 12
        captured -= 12
        length += 4
    size = min(captured, snaplen - kept)
    # Slices, because an index that surely is not negative lets the compiler copy by vectors.
    target = data[used + kept : used + kept + size]
    rest = source[begin : begin + size]
    for i in range(size):
        target[i] = rest[i]
    kept += size
    words[_STATE_WORDS + count] = used
    words[_STATE_WORDS + frames + count] = min(max(time_ns, np.int64(0)), np.int64(LATEST_NS))
    columns[count] = kept
    columns[frames + count] = min(max(length, kept), np.int64(0x7FFFFFFF))
    columns[2 * frames + count] = link_type
    words[_COUNT] = count + 1
    words[_USED] = used + kept


def _on_frame(user: Any, header: Any, frame: Any) -> None:
    """libpcap's pcap_handler: user is the block, header a pcap_pkthdr, frame its bytes.

    The header begins with a timeval: seconds in 64 bits and a fraction in 32 or 64 on Linux and
    macOS (little-endian, so the low word serves both), two 32-bit numbers on Windows.
    """
    state = carray(user, _STATE_WORDS)
    words = carray(user, state[_TOTAL])
    fields = carray(header, 6)
    place = state[_HEADER_WORD]
    seconds = np.int64(fields[0]) & 0xFFFFFFFF
    fraction = np.int64(fields[1])
    if place == 4:
        seconds |= np.int64(fields[1]) << 32
        fraction = np.int64(fields[2])
    if seconds < 0:  # of a pcap file: 32 bits without a sign, which libpcap widens with one
        seconds += np.int64(1) << 32
    seconds = min(max(seconds, np.int64(0)), np.int64(LATEST_NS // 1_000_000_000))
    time_ns = seconds * 1_000_000_000 + fraction * state[_TIME_SCALE]
    captured = np.int64(fields[place]) & 0xFFFFFFFF
    length = np.int64(fields[place + 1]) & 0xFFFFFFFF
    source = carray(frame, captured)  # type: ignore[call-overload]
    store(words, source, np.int64(0), captured, length, time_ns, np.int64(-1), np.int64(-1))


@cache
def callback() -> Any:
    """The compiled pcap_handler as a ctypes function (interpreted: a plain Python one)."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        prototype = ctypes.CFUNCTYPE(
            None,
            ctypes.POINTER(ctypes.c_int64),
            ctypes.POINTER(ctypes.c_int32),
            ctypes.POINTER(ctypes.c_uint8),
        )
        return prototype(_on_frame)
    pointer: Any = types.CPointer
    pointers = [pointer(kind) for kind in (types.int64, types.int32, types.uint8)]
    signature = types.void(*pointers)
    # A static function of machine code: it stays as long as the object behind the address.
    function = numba.cfunc(signature, cache=True)(_on_frame)
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    handler = prototype(cast(int, function.address))
    handler.keep = function  # type: ignore[attr-defined]
    return handler


@compiled
def _little_endian(source: NDArray[np.uint8], at: Int, size: Int) -> Any:
    value = np.int64(0)
    for i in range(size):
        value |= np.int64(source[at + i]) << (8 * i)
    return value


@compiled
def walk_block(words: NDArray[np.int64], block: NDArray[np.uint8]) -> Int:
    """Store the frames of one TPACKET_V3 block; how many of them did not fit any more.

    0: the block is done and may go back to the kernel; else call again with an emptied buffer.
    """
    place = words[_RING_PLACE]
    left = words[_RING_LEFT]
    if place == 0:
        place = _little_endian(block, np.int64(_BLOCK_FIRST), np.int64(4))
        left = _little_endian(block, np.int64(_BLOCK_FRAMES), np.int64(4))
    end = np.int64(len(block))
    while left > 0 and place + _RING_PACKET_TYPE < end:
        if is_full(words):
            words[_RING_PLACE] = place
            words[_RING_LEFT] = left
            return np.int64(left)
        start = place + _little_endian(block, place + _RING_MAC, np.int64(2))
        captured = _little_endian(block, place + _RING_CAPTURED, np.int64(4))
        status = _little_endian(block, place + _RING_STATUS, np.int64(4))
        skipped = words[_SKIP_OUTGOING] == 1 and block[place + _RING_PACKET_TYPE] == _OUTGOING
        if not skipped and start + captured <= end:
            tag = np.int64(-1)
            if status & _VLAN_VALID:
                tpid = np.int64(0x8100)
                if status & _VLAN_TPID_VALID:
                    tpid = _little_endian(block, place + _RING_VLAN_TPID, np.int64(2))
                tag = (tpid << 16) | _little_endian(block, place + _RING_VLAN_TCI, np.int64(2))
            time_ns = _little_endian(
                block, place + _RING_SEC, np.int64(4)
            ) * 1_000_000_000 + _little_endian(block, place + _RING_NSEC, np.int64(4))
            length = _little_endian(block, place + _RING_LENGTH, np.int64(4))
            store(words, block, start, captured, length, time_ns, tag, np.int64(-1))
        left -= 1
        place += _little_endian(block, place + _RING_NEXT, np.int64(4))
    words[_RING_PLACE] = 0
    words[_RING_LEFT] = 0
    return np.int64(0)


class FrameBuffer:
    """Memory for up to `frames` frames of at most `snaplen` bytes each (4 MiB in all at most).

    `take` copies what has come into a FrameBatch of its own and empties the buffer, so a batch
    in a queue costs what its frames weigh, not what the buffer could hold.
    """

    def __init__(self, frames: int, snaplen: int, *, skip_outgoing: bool = False) -> None:
        frames += frames % 2
        n_bytes = max(snaplen, min(frames * snaplen, _MAX_BYTES))
        n_bytes += -n_bytes % 8
        data_begin = _STATE_WORDS + 3 * frames + frames // 2
        self.words = np.zeros(data_begin + n_bytes // 8, np.int64)
        words = self.words
        words[_TOTAL] = len(words)
        words[_FRAMES] = frames
        words[_BYTES] = n_bytes
        words[_SNAPLEN] = snaplen
        words[_SKIP_OUTGOING] = skip_outgoing
        self._offset = words[_STATE_WORDS : _STATE_WORDS + frames]
        self._time_ns = words[_STATE_WORDS + frames : _STATE_WORDS + 2 * frames]
        columns = words[_STATE_WORDS + 2 * frames : data_begin].view(np.int32)
        self._captured, self._length, self._link_type = columns.reshape(3, frames)
        self._data = words[data_begin:].view(np.uint8)

    def set_header(self, *, caplen_word: int, time_scale: int) -> None:
        """How this system's pcap_pkthdr looks (see `_on_frame`) and its unit of time, ns."""
        self.words[_HEADER_WORD] = caplen_word
        self.words[_TIME_SCALE] = time_scale

    def __len__(self) -> int:
        return int(self.words[_COUNT])

    @property
    def room(self) -> int:
        """Frames that surely fit yet, however long they are."""
        words = self.words
        bytes_left = int(words[_BYTES] - words[_USED])
        return min(int(words[_FRAMES] - words[_COUNT]), bytes_left // int(words[_SNAPLEN]))

    @property
    def lost(self) -> int:
        """Frames that came without room, since the buffer was made."""
        return int(self.words[_LOST])

    def append(self, frame: NDArray[np.uint8], length: int, time_ns: int) -> None:
        """Store one frame from Python (sources without a callback); needs `room`."""
        store(
            self.words,
            frame,
            np.int64(0),
            np.int64(len(frame)),
            np.int64(length),
            np.int64(time_ns),
            np.int64(-1),
            np.int64(-1),
        )

    def take(self, link_type: int | None, interface: str) -> FrameBatch:
        """What has come since the last time; link_type None: each frame's as it was stored."""
        count = len(self)
        kinds = self._link_type[:count].copy()
        if link_type is not None:
            kinds[:] = link_type
        batch = FrameBatch(
            self._data[: self.words[_USED]].copy(),
            self._offset[:count].copy(),
            self._captured[:count].copy(),
            self._length[:count].copy(),
            self._time_ns[:count].copy(),
            kinds,
            interface,
        )
        self.words[_COUNT] = 0
        self.words[_USED] = 0
        return batch


def warm() -> None:
    """Compile (or load) the callback and the ring walk on a frame of zeros."""
    buffer = FrameBuffer(2, 64)
    buffer.set_header(caplen_word=4, time_scale=1)
    header = np.array([0, 0, 0, 0, 60, 60], np.int32)
    frame = np.zeros(60, np.uint8)
    arguments: list[Any] = [buffer.words, header, frame]
    kinds = (ctypes.c_int64, ctypes.c_int32, ctypes.c_uint8)
    callback()(
        *(
            ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
            for array, kind in zip(arguments, kinds, strict=True)
        )
    )
    block = np.zeros(256, np.uint8)
    block[_BLOCK_FRAMES] = 1
    block[_BLOCK_FIRST] = 48
    block[48 + _RING_CAPTURED] = 60
    walk_block(buffer.words, block)

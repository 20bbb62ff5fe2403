"""The records of pcap and pcapng files: a compiled walk over the bytes that are at hand.

Layouts after draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. What describes frames (file
headers, sections, interfaces) is rare and read by `Layout` in Python; frames are walked here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from capture.buffer import LATEST_NS, FrameBuffer, is_full, store
from compiled import Int, compiled

__all__ = ["HEADER_BYTES", "DamagedError", "Layout", "Stop", "warm"]


class Stop(IntEnum):
    """Why a walk went no further."""

    MORE = 1  # the next record is not wholly there
    FULL = 2  # the buffer must be emptied
    HEADER = 3  # something that `Layout.describe` reads
    TOO_LONG = 4
    ODD_SIZE = 5
    BAD_TRAILER = 6
    FRAME_TOO_LONG = 7
    NO_INTERFACE = 8
    ZEROS = 9


# Constants of their own, because the compiled code takes no members of an enumeration.
_MORE: Final = int(Stop.MORE)
_FULL: Final = int(Stop.FULL)
_HEADER: Final = int(Stop.HEADER)
_TOO_LONG: Final = int(Stop.TOO_LONG)
_ODD_SIZE: Final = int(Stop.ODD_SIZE)
_BAD_TRAILER: Final = int(Stop.BAD_TRAILER)
_FRAME_TOO_LONG: Final = int(Stop.FRAME_TOO_LONG)
_NO_INTERFACE: Final = int(Stop.NO_INTERFACE)
_ZEROS: Final = int(Stop.ZEROS)

_COMPLAINTS: Final = {
    Stop.TOO_LONG: "its next record claims to be {needed:,} bytes long",
    Stop.ODD_SIZE: "the next block claims a length of {needed:,} bytes, which no block can have",
    Stop.BAD_TRAILER: "the two lengths of the next block differ",
    Stop.FRAME_TOO_LONG: "the next frame is longer than the block it stands in",
    Stop.NO_INTERFACE: "the next frame names an interface that is not described",
    Stop.ZEROS: "zeros stand where its next record should begin",
}

_STATE_WORDS: Final = 11
_PLACE: Final = 0  # where in the window the next record begins
_END: Final = 1  # bytes in the window
_NEEDED: Final = 2  # bytes the next record claims
_BIG_ENDIAN: Final = 3
_PCAPNG: Final = 4
_RECORD_HEADER: Final = 5  # bytes before a pcap record's frame
_TIME_SCALE: Final = 6  # nanoseconds of one unit of a pcap record's fraction of a second
_LINK_TYPE: Final = 7
_OLD: Final = 8  # pcap before version 2.4: its two lengths may have changed places
_LAST_NS: Final = 9  # of the frame before: simple packets have no time of their own
_INTERFACES: Final = 10  # described so far in this section

# Columns of the interfaces of a pcapng section.
_IF_LINK_TYPE: Final = 0
_IF_SNAPLEN: Final = 1  # 0: unlimited
_IF_UNIT: Final = 2  # one of the three below
_IF_FACTOR: Final = 3
_IF_OFFSET_NS: Final = 4
_IF_COLUMNS: Final = 5
_MULTIPLIED: Final = 0  # ns = ticks * factor
_DIVIDED: Final = 1  # ns = ticks // factor
_SHIFTED: Final = 2  # a tick is 2 ** -factor seconds

_MICROSECONDS: Final = 0xA1B2C3D4
_NANOSECONDS: Final = 0xA1B23C4D
_KUZNETZOV: Final = 0xA1B2CD34  # Alexey Kuznetzov's variant: eight more bytes a record
_SECTION: Final = 0x0A0D0D0A
_BYTE_ORDER: Final = 0x1A2B3C4D
_BYTE_ORDER_SWAPPED: Final = 0x4D3C2B1A
_INTERFACE: Final = 1
_OLD_PACKET: Final = 2
_SIMPLE_PACKET: Final = 3
_ENHANCED_PACKET: Final = 6

# libpcap's limits too: of the bytes of a pcap record, and of a pcapng block.
_LONGEST_FRAME: Final = 262_144
_LONGEST_BLOCK: Final = 16 << 20
_MOST_INTERFACES: Final = 65_536  # a section; more are there to fill the memory
_MOST_OPTIONS: Final = 1000  # of an interface; a file may repeat empty ones without end

HEADER_BYTES: Final = 28
"""What decides what a file is: a pcap header has 24 bytes, the smallest section block 28."""
_PCAP_HEADER_BYTES: Final = 24

# Link types of files whose numbers differ from libpcap's (its pcap-common.c).
_DLT: Final = {100: 11, 101: 12, 102: 15, 103: 16, 106: 19}

_LATEST_S: Final = LATEST_NS // 1_000_000_000


@compiled
def _word(window: NDArray[np.uint8], at: Int, big: Int) -> Any:
    a = np.int64(window[at])
    b = np.int64(window[at + 1])
    c = np.int64(window[at + 2])
    d = np.int64(window[at + 3])
    if big:
        return (a << 24) | (b << 16) | (c << 8) | d
    return (d << 24) | (c << 16) | (b << 8) | a


@compiled
def _begins_pcap(word: Int) -> bool:
    """Whether these four bytes, in either order, begin a pcap file."""
    swapped = ((word & 255) << 24) | ((word & 0xFF00) << 8) | ((word >> 8) & 0xFF00) | (word >> 24)
    return (
        word == _MICROSECONDS
        or word == _NANOSECONDS
        or word == _KUZNETZOV
        or swapped == _MICROSECONDS
        or swapped == _NANOSECONDS
        or swapped == _KUZNETZOV
    )


@compiled
def _pcap_record(
    words: NDArray[np.int64], state: NDArray[np.int64], window: NDArray[np.uint8]
) -> Any:
    """Store the frame of the record at _PLACE and step behind it (0), or why not."""
    at = state[_PLACE]
    left = state[_END] - at
    head = state[_RECORD_HEADER]
    if left < head:
        state[_NEEDED] = head
        return np.int64(_MORE)
    big = state[_BIG_ENDIAN]
    seconds = _word(window, at, big)
    fraction = _word(window, at + 4, big)
    captured = _word(window, at + 8, big)
    length = _word(window, at + 12, big)
    if captured == 0 and length == 0:
        # Files joined end to end: here stands the next one's header.
        if _begins_pcap(seconds):
            return np.int64(_HEADER)
        if seconds == 0 and fraction == 0:
            return np.int64(_ZEROS)
    if seconds == _SECTION and (captured == _BYTE_ORDER or captured == _BYTE_ORDER_SWAPPED):
        return np.int64(_HEADER)
    if state[_OLD] == 1 and captured > length:
        captured, length = length, captured
    if captured > _LONGEST_FRAME:
        state[_NEEDED] = captured
        return np.int64(_TOO_LONG)
    state[_NEEDED] = head + captured
    if left < head + captured:
        return np.int64(_MORE)
    time_ns = seconds * 1_000_000_000 + fraction * state[_TIME_SCALE]
    store(words, window, at + head, captured, length, time_ns, np.int64(-1), state[_LINK_TYPE])
    state[_LAST_NS] = time_ns
    state[_PLACE] = at + head + captured
    return np.int64(0)


@compiled
def _nanoseconds(high: Int, low: Int, interface: NDArray[np.int64]) -> Any:
    """The 64 bits of a time stamp in the units of its interface, within 0 and LATEST_NS."""
    unit = interface[_IF_UNIT]
    factor = interface[_IF_FACTOR]
    latest = np.uint64(LATEST_NS)
    ticks = (np.uint64(high) << np.uint64(32)) | np.uint64(low)
    if unit == _MULTIPLIED:
        if ticks > latest // np.uint64(factor):
            ns = np.int64(LATEST_NS)
        else:
            ns = np.int64(ticks) * factor
    elif unit == _DIVIDED:
        ns = np.int64(min(ticks // np.uint64(factor), latest))
    else:
        seconds = np.int64(min(ticks >> np.uint64(factor), np.uint64(LATEST_NS // 1_000_000_000)))
        part = np.int64(ticks & ((np.uint64(1) << np.uint64(factor)) - np.uint64(1)))
        # 10 ** 9 is 5 ** 9 (21 bits) times 2 ** 9: a part of up to 42 bits keeps all of them.
        shift = factor
        if shift > 42:
            part >>= shift - 42
            shift = np.int64(42)
        fits = shift >= 9
        part = (part * 1_953_125) >> (shift - 9) if fits else (part * 1_000_000_000) >> shift
        ns = min(seconds * 1_000_000_000 + part, np.int64(LATEST_NS))
    offset_ns = interface[_IF_OFFSET_NS]
    if offset_ns > 0:
        ns = min(ns, LATEST_NS - offset_ns)
    return max(ns + offset_ns, np.int64(0))


@compiled
def _pcapng_block(
    words: NDArray[np.int64],
    state: NDArray[np.int64],
    interfaces: NDArray[np.int64],
    window: NDArray[np.uint8],
) -> Any:
    """Store the frame of the block at _PLACE, if it has one, and step behind it (0)."""
    at = state[_PLACE]
    left = state[_END] - at
    if left < 12:
        state[_NEEDED] = 12
        return np.int64(_MORE)
    big = state[_BIG_ENDIAN]
    kind = _word(window, at, big)
    size = _word(window, at + 4, big)
    if kind == _SECTION or _begins_pcap(kind):
        return np.int64(_HEADER)
    state[_NEEDED] = size
    if size < 12 or size & 3:
        return np.int64(_ODD_SIZE)
    if size > _LONGEST_BLOCK:
        return np.int64(_TOO_LONG)
    if left < size:
        return np.int64(_MORE)
    if _word(window, at + size - 4, big) != size:
        return np.int64(_BAD_TRAILER)
    if kind == _INTERFACE:
        return np.int64(_HEADER)
    if kind == _ENHANCED_PACKET or kind == _OLD_PACKET or kind == _SIMPLE_PACKET:
        begin = at + 28
        which = np.int64(0)
        if kind == _SIMPLE_PACKET:
            begin = at + 12
        end = at + size - 4
        if begin > end:
            return np.int64(_ODD_SIZE)
        if kind == _ENHANCED_PACKET:
            which = _word(window, at + 8, big)
        elif kind == _OLD_PACKET:
            first, second = np.int64(window[at + 8]), np.int64(window[at + 9])
            which = (first << 8) | second if big else (second << 8) | first
        if which >= state[_INTERFACES]:
            return np.int64(_NO_INTERFACE)
        interface = interfaces[which]
        if kind == _SIMPLE_PACKET:
            length = _word(window, at + 8, big)
            captured = min(length, end - begin)
            if interface[_IF_SNAPLEN] > 0:
                captured = min(captured, interface[_IF_SNAPLEN])
        else:
            captured = _word(window, at + 20, big)
            length = _word(window, at + 24, big)
            if captured > end - begin:
                return np.int64(_FRAME_TOO_LONG)
            state[_LAST_NS] = _nanoseconds(
                _word(window, at + 12, big), _word(window, at + 16, big), interface
            )
        store(
            words,
            window,
            begin,
            captured,
            length,
            state[_LAST_NS],
            np.int64(-1),
            interface[_IF_LINK_TYPE],
        )
    state[_PLACE] = at + size
    return np.int64(0)


@compiled
def _walk(
    words: NDArray[np.int64],
    state: NDArray[np.int64],
    interfaces: NDArray[np.int64],
    window: NDArray[np.uint8],
) -> Any:
    """Store the frames of window[_PLACE : _END]; the Stop that ended the walk.

    words: a FrameBuffer's. state: (_STATE_WORDS,). interfaces: (n, _IF_COLUMNS), of
    which state[_INTERFACES] are this section's.
    """
    stop = np.int64(0)
    while stop == 0:
        if is_full(words):
            return np.int64(_FULL)
        if state[_PCAPNG] == 1:
            stop = _pcapng_block(words, state, interfaces, window)
        else:
            stop = _pcap_record(words, state, window)
    return stop


class DamagedError(Exception):
    """A header that makes no sense; the message is a clause of a sentence."""


class Layout:
    """How the records are laid out at this place of a file, and where they are walked.

    window: (n,) uint8 of the file's bytes, of which [place:end] are not walked yet.
    """

    def __init__(self) -> None:
        self.window = np.empty(0, np.uint8)
        self._state = np.zeros(_STATE_WORDS, np.int64)
        self._interfaces = np.zeros((8, _IF_COLUMNS), np.int64)

    @property
    def place(self) -> int:
        return int(self._state[_PLACE])

    @property
    def end(self) -> int:
        return int(self._state[_END])

    @property
    def needed(self) -> int:
        """Bytes from `place` that the next step needs."""
        return int(self._state[_NEEDED])

    def put(self, window: NDArray[np.uint8], end: int) -> None:
        """Go on in this window, from its beginning."""
        self.window = window
        self._state[_PLACE] = 0
        self._state[_END] = end

    def walk(self, buffer: FrameBuffer) -> Stop:
        """Store frames in the buffer until something else is to be done."""
        return Stop(_walk(buffer.words, self._state, self._interfaces, self.window))

    def complaint(self, stop: Stop) -> str:
        """What the reason of a stop says about the file."""
        if stop is Stop.MORE:
            left = self.end - self.place
            return f"its last record is cut off after {left:,} of {self.needed:,} bytes"
        return _COMPLAINTS[stop].format(needed=self.needed)

    def describe(self) -> bool:
        """Read the header, section or interface at `place`; False: `needed` bytes are not there.

        Raises DamagedError where it is none, or one that nothing can be read by.
        """
        begin = self._bytes(4)
        if begin == b"\n\r\r\n":
            return self._section()
        for order in "<>":
            magic = int.from_bytes(begin, "little" if order == "<" else "big")
            if magic in (_MICROSECONDS, _NANOSECONDS, _KUZNETZOV):
                return self._pcap_header(order, magic)
        if not self._state[_PCAPNG]:
            raise DamagedError("unknown file format")
        return self._interface()

    def _bytes(self, count: int, *, after: int = 0) -> bytes:
        begin = self.place + after
        return self.window[begin : min(begin + count, self.end)].tobytes()

    def _has(self, needed: int) -> bool:
        self._state[_NEEDED] = needed
        return self.end - self.place >= needed

    def _pcap_header(self, order: str, magic: int) -> bool:
        if not self._has(_PCAP_HEADER_BYTES):
            return False
        major, minor, link_type = struct.unpack(order + "4xHH12xI", self._bytes(24))
        if major != 2:
            raise DamagedError(f"version {major}.{minor} of pcap is not known")
        state = self._state
        state[_PCAPNG] = 0
        state[_BIG_ENDIAN] = order == ">"
        state[_RECORD_HEADER] = 24 if magic == _KUZNETZOV else 16
        state[_TIME_SCALE] = 1 if magic == _NANOSECONDS else 1000
        state[_OLD] = minor < 4
        link_type &= 0xFFFF  # above: whether frames end with a check sequence, and how long
        state[_LINK_TYPE] = _DLT.get(link_type, link_type)
        state[_PLACE] += _PCAP_HEADER_BYTES
        return True

    def _section(self) -> bool:
        if not self._has(HEADER_BYTES):
            return False
        head = self._bytes(16)
        order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(head[8:12])
        if order is None:
            raise DamagedError("a section does not tell its byte order")
        size, major, minor = struct.unpack(order + "4xI4xHH", head[:16])
        if size < HEADER_BYTES or size % 4 or size > _LONGEST_BLOCK:
            raise DamagedError(f"a section's header claims to be {size:,} bytes long")
        if major != 1:
            raise DamagedError(f"version {major}.{minor} of pcapng is not known")
        if not self._has(size):
            return False
        if struct.unpack(order + "I", self._bytes(4, after=size - 4)) != (size,):
            raise DamagedError("the two lengths of a section's header differ")
        self._state[_PCAPNG] = 1
        self._state[_BIG_ENDIAN] = order == ">"
        self._state[_INTERFACES] = 0
        self._state[_PLACE] += size
        return True

    def _interface(self) -> bool:
        """An interface's description; the walk has seen that it is whole."""
        order = ">" if self._state[_BIG_ENDIAN] else "<"
        size, link_type, snaplen = struct.unpack(
            order + "4xIHxxI", self._bytes(16).ljust(16, b"\0")
        )
        if size < 20:
            raise DamagedError("an interface's description is too short")
        count = int(self._state[_INTERFACES])
        if count == _MOST_INTERFACES:
            raise DamagedError(f"it describes more than {_MOST_INTERFACES:,} interfaces")
        unit, factor, offset_s = _MULTIPLIED, 1000, 0
        for code, value in _options(self._bytes(size - 20, after=16), order):
            if code == 9 and len(value) == 1:  # if_tsresol
                unit, factor = _unit(value[0])
            elif code == 14 and len(value) == 8:  # if_tsoffset
                (offset_s,) = struct.unpack(order + "q", value)
        offset_ns = min(max(offset_s, -_LATEST_S), _LATEST_S) * 1_000_000_000
        if count == len(self._interfaces):
            self._interfaces = np.concatenate([self._interfaces, self._interfaces])
        dlt = _DLT.get(link_type, link_type)
        self._interfaces[count] = (dlt, snaplen, unit, factor, offset_ns)
        self._state[_INTERFACES] += 1
        self._state[_PLACE] += size
        return True


def _options(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The options of a block; what does not fit ends them, and so do too many."""
    at = 0
    for _ in range(_MOST_OPTIONS):
        if at + 4 > len(data):
            return
        code, length = struct.unpack(order + "HH", data[at : at + 4])
        if code == 0 or at + 4 + length > len(data):
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4


def _unit(resolution: int) -> tuple[int, int]:
    """(unit, factor) of an if_tsresol: a power of ten, with the highest bit of two."""
    power = resolution & 127
    if resolution & 128:
        return _SHIFTED, min(power, 63)
    if power <= 9:
        return _MULTIPLIED, 10 ** (9 - power)
    return _DIVIDED, 10 ** min(power - 9, 18)


def warm() -> None:
    """Compile (or load) the walk on a capture without frames."""
    layout = Layout()
    header = bytearray(struct.pack("<IHHIIII", _MICROSECONDS, 2, 4, 0, 0, 0, 1))
    layout.put(np.frombuffer(header, np.uint8), len(header))
    layout.describe()
    layout.walk(FrameBuffer(2, 64))

"""Frames nobody would send by mistake: each ends in one counter, and nothing outside is read.

Frames of every link type and tunnel, and of the unusual captures where they are, are bent: bits
flipped, cut, length fields at their ends, headers of one in another. The same frames go through
compiled, interpreted and bounds-checked loops; all three must give the same packets.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from batches import PACKET, FrameBatch, PacketKind
from capture import read_capture
from errors import InputError
from packets import Decoder
from tests.frames import START_NS, arp, ethernet, icmp, ipv4, ipv6, udp
from tests.link_frames import LINKS, TUNNELLED

ROOT = Path(__file__).resolve().parents[1]
ODD = ROOT.parent / "shared" / "data" / "captures" / "odd"
LINK_TYPES = sorted({link.link_type for link in LINKS})
NAMES = [name for name in PACKET.names or () if name != "time_ns"]
EXTREMES = (b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\0\0", b"\0\1", b"\xff\xff", b"\x7f\xff")
PER_CAPTURE = 40

Seed = tuple[int, bytes]
"""(link type, frame)"""


def seeds(*, odd: bool) -> list[Seed]:
    found: list[Seed] = [(link.link_type, link.frame) for link in LINKS]
    found += [(1, tunnel.frame) for tunnel in TUNNELLED]
    found += [
        (1, ethernet(arp(1, "10.0.0.1", "10.0.0.2"), 0x0806)),
        (1, ethernet(ipv4("10.0.0.1", "10.0.0.2", 1, icmp(8)))),
        (1, ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(1, 2, 3), fragment=0x2000))),
        (1, ethernet(ipv6("2001:db8::1", "2001:db8::2", 44, b"\x11\0\0\1" + bytes(12)), 0x86DD)),
    ]
    return found + (captured() if odd else [])


def captured() -> list[Seed]:
    """The first frames of each unusual capture, cut as a live capture cuts them."""
    found = []
    for path in sorted(ODD.iterdir()):
        try:
            batch = next(iter(read_capture(path, snaplen=512)), None)
        except InputError:
            continue
        for i in range(min(len(batch), PER_CAPTURE) if batch is not None else 0):
            assert batch is not None
            start = int(batch.offset[i])
            frame = batch.data[start : start + int(batch.captured[i])].tobytes()
            found.append((int(batch.link_type[i]), frame))
    return found


def bent(rng: random.Random, known: list[Seed]) -> Seed:
    """One to four changes to one of the seeds."""
    link_type, frame = rng.choice(known)
    data = bytearray(frame)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            extreme = rng.choice(EXTREMES)
            data[place : place + len(extreme)] = extreme
        elif kind == 3:
            other = rng.choice(known)[1]
            data[place:] = other[rng.randrange(len(other) + 1) :]
        elif kind == 4:
            data[place:place] = data[rng.randrange(len(data) + 1) :][: rng.randint(1, 40)]
        else:
            link_type = rng.choice(LINK_TYPES)
        del data[600:]
    return link_type, bytes(data)


def digest(seed: int, count: int, *, odd: bool) -> str:
    """Decode `count` bent frames one by one; what came out of all of them.

    Each frame ends where its array ends, so that one byte too far is outside of it.
    """
    rng = random.Random(seed)
    known = seeds(odd=odd)
    decoder = Decoder()
    told = hashlib.sha256()
    for number in range(count):
        link_type, frame = bent(rng, known)
        length = rng.choice((len(frame), len(frame), 1514, 65_535, 2**31 - 1))
        batch = FrameBatch(
            data=np.frombuffer(frame, np.uint8).copy(),
            offset=np.zeros(1, np.int64),
            captured=np.full(1, len(frame), np.int32),
            length=np.full(1, max(length, len(frame)), np.int32),
            time_ns=np.full(1, START_NS + number, np.int64),
            link_type=np.full(1, link_type, np.int32),
            interface="",
        )
        found = decoder.decode(batch)
        assert len(found) + int(found.unread.sum()) == 1
        for row in found.rows:
            assert row["kind"] in (PacketKind.FLOW, PacketKind.ARP)
            assert row["payload"] >= 0
            assert row["time_ns"] == START_NS + number
            told.update(repr([int(row[name]) for name in NAMES]).encode())
    assert decoder.frames == count == decoder.packets + int(decoder.unread.sum())
    told.update(repr((decoder.unread.tolist(), decoder.tunnels.tolist())).encode())
    return told.hexdigest()


RUN = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from tests.test_packets_fuzz import digest
with np.errstate(over="ignore"):
    print(digest({seed}, {count}, odd={odd}))
"""


def in_another_process(seed: int, count: int, *, odd: bool, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(root=str(ROOT), seed=seed, count=count, odd=odd)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def bounds_checked(seed: int, count: int, *, odd: bool) -> str:
    """In a cache of their own: numba's does not tell checked loops from others."""
    folder = f"{numba.config.CACHE_DIR}-bounds"  # type: ignore[attr-defined]
    return in_another_process(seed, count, odd=odd, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=folder)


def test_compiled_and_interpreted_decoders_say_the_same() -> None:
    assert in_another_process(1, 20_000, odd=False, NUMBA_DISABLE_JIT="1") == digest(
        1, 20_000, odd=False
    )


def test_nothing_outside_of_a_frame_is_read() -> None:
    assert bounds_checked(2, 60_000, odd=False) == digest(2, 60_000, odd=False)


@pytest.mark.skipif(not ODD.is_dir(), reason="the unusual captures are not here")
def test_nothing_outside_of_a_frame_of_unusual_captures_is_read() -> None:
    assert bounds_checked(3, 60_000, odd=True) == digest(3, 60_000, odd=True)


def test_a_read_outside_would_be_seen() -> None:
    """The control: the same switch does raise where an index is outside."""
    code = "import numpy as np; from packets.fields import u16; u16(np.zeros(4, np.uint8), 3)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            **os.environ,
            "NUMBA_BOUNDSCHECK": "1",
            "NUMBA_CACHE_DIR": f"{numba.config.CACHE_DIR}-bounds",  # type: ignore[attr-defined]
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "IndexError" in done.stderr

"""A thousand mutated files go through reader, decoder and tracker: refused or read, never worse."""

from __future__ import annotations

import gzip
import os
import random
import sys
import threading
from pathlib import Path

import pytest

import capture
from errors import InputError
from flow_tracker import FlowTracker
from packets import Decoder
from tests.captures import Frame, pcap, pcapng, section
from tests.frames import golden

ROOT = Path(__file__).resolve().parent.parent
ODD = ROOT.parent / "shared" / "data" / "captures" / "odd"
FILES = 1200
EXTREMES = (0, 1, 3, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 262_145, 16 << 20)


def seeds() -> list[bytes]:
    frames: list[Frame] = [(time_ns, body, len(body)) for time_ns, body in golden()]
    made = [pcap(frames, order=order, nano=nano) for order in "<>" for nano in (True, False)]
    made.append(pcap(frames, kuznetzov=True))
    made += [pcapng(frames, order=order, link_types=(1, 113, 101)) for order in "<>"]
    made.append(made[-1] + section() + made[-2] + made[0])
    if ODD.is_dir():
        made += [gzip.decompress(path.read_bytes()) for path in sorted(ODD.iterdir())]
    return made


def mutated(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(min(len(out), rng.choice((40, 400, 1 << 30)))) if out else 0
        kind = rng.randrange(5)
        if kind == 0 and out:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            word = rng.choice(EXTREMES).to_bytes(4, "big" if rng.randrange(2) else "little")
            out[place & ~3 : (place & ~3) + 4] = word
        elif kind == 2:
            del out[place:]
        else:  # a piece of it once more, here or (4) as often as it likes
            start = rng.randrange(len(out) + 1)
            piece = out[start : start + 4 * rng.randrange(60)]
            out[place & ~3 : place & ~3] = piece * (1 if kind == 3 else rng.randint(1, 40))
    return bytes(out)


def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    rng = random.Random(13)
    originals = seeds()
    tracker = FlowTracker(capacity=1024, active_s=120.0, idle_s=60.0)
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    threads = threading.active_count()
    read = refused = damaged = 0
    for number in range(FILES):
        data = mutated(originals[number % len(originals)], rng)
        if number % 4 == 3:
            data = gzip.compress(data, 1)
            if number % 8 == 7:
                data = mutated(data, rng)
        path = tmp_path / "x.pcap"
        path.write_bytes(data)
        try:
            file = capture.read_capture(path)
        except InputError:
            refused += 1
            continue
        decoder = Decoder()
        frames = packets = 0
        for batch in file:
            decoded = decoder.decode(batch)
            assert len(decoded) + int(decoded.unread.sum()) == len(batch) == decoded.frames
            frames += len(batch)
            packets += len(decoded)
            tracker.track(decoded)
        tracker.flush()
        assert file.frames == frames == packets + int(decoder.unread.sum())
        # No claim makes room: the largest window is for one block of 16 MiB.
        assert len(file._layout.window) <= (16 << 20) + (1 << 19)
        read += 1
        damaged += file.damage is not None
    assert read > FILES // 3
    assert damaged > FILES // 6
    assert refused > FILES // 50
    assert threading.active_count() == threads
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.skipif(not ODD.is_dir(), reason="the shared captures are not here")
def test_odd_captures_balance_too() -> None:
    for path in sorted(ODD.iterdir()):
        decoder = Decoder()
        try:
            file = capture.read_capture(path)
        except InputError:
            continue
        packets = sum(len(decoder.decode(batch)) for batch in file)
        assert file.frames == packets + int(decoder.unread.sum()), path.name

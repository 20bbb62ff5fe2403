"""Cut the bundled sample traffic from a lab recording: whole phases, glued without gaps.

    python training/testbed/cut_demo.py home_lab.pcap.gz home_lab.labels.tsv data/demo \\
        --head home_lab_quiet.pcap.gz 390 -- 00-02 04-06 14-18 26-28 56-57

Phases are those of the labels file; packets keep their bytes, times close up where phases were
left out. The first seconds of a harmless recording of the same network may go before them. The
recordings are of the project's own lab, so they may be shipped.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import struct
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from capture import read_capture

Frame = tuple[int, int, bytes]
"""(time in ns, length on the wire, captured bytes)"""

_GLOBAL_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


def _chosen(phases: list[str]) -> set[str]:
    chosen: set[str] = set()
    for part in phases:
        first, _, last = part.partition("-")
        chosen |= {f"{number:02d}" for number in range(int(first), int(last or first) + 1)}
    return chosen


def _spans(labels: Path, chosen: set[str]) -> Iterator[tuple[int, int, int, dict[str, str]]]:
    """(start, end, nanoseconds to take off, label row) of each phase that stays."""
    cut_ns = 0
    last_end_ns = None
    with labels.open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            start_ns = round(float(row["start_epoch"]) * 1e9)
            end_ns = round(float(row["end_epoch"]) * 1e9)
            if row["phase"] not in chosen:
                continue
            if last_end_ns is not None and start_ns - last_end_ns > 100_000_000:
                cut_ns += start_ns - last_end_ns
            last_end_ns = end_ns
            yield start_ns, end_ns, cut_ns, row


def _phase_frames(
    capture: Path, spans: list[tuple[int, int, int, dict[str, str]]]
) -> Iterator[Frame]:
    place = 0
    for time_ns, length, frame in _frames(capture):
        while place < len(spans) and time_ns >= spans[place][1]:
            place += 1
        if place == len(spans):
            return
        start_ns, _, cut_ns, _ = spans[place]
        if time_ns >= start_ns:
            yield time_ns - cut_ns, length, frame


def _head_frames(capture: Path, seconds: float, end_ns: int) -> Iterator[Frame]:
    """The first `seconds` of a capture, moved so that they end at `end_ns`."""
    shift_ns = None
    for time_ns, length, frame in _frames(capture):
        if shift_ns is None:
            shift_ns = end_ns - round(seconds * 1e9) - time_ns
        if time_ns + shift_ns >= end_ns:
            return
        yield time_ns + shift_ns, length, frame


def _frames(capture: Path) -> Iterator[Frame]:
    for batch in read_capture(capture, snaplen=65535):
        for i in range(len(batch)):
            first = int(batch.offset[i])
            frame = batch.data[first : first + int(batch.captured[i])].tobytes()
            yield int(batch.time_ns[i]), int(batch.length[i]), frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("capture", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--head", nargs=2, metavar=("CAPTURE", "SECONDS"))
    parser.add_argument("phases", nargs="+", help="numbers or ranges such as 04-06")
    options = parser.parse_args()
    spans = list(_spans(options.labels, _chosen(options.phases)))
    frames = _phase_frames(options.capture, spans)
    if options.head:
        path, seconds = options.head
        frames = chain(_head_frames(Path(path), float(seconds), spans[0][0]), frames)
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        (options.out / "home.pcap.gz").open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as file,
    ):
        file.write(_GLOBAL_HEADER)
        for time_ns, length, frame in frames:
            seconds_part, rest = divmod(time_ns, 1_000_000_000)
            file.write(struct.pack("<IIII", seconds_part, rest // 1000, len(frame), length))
            file.write(frame)
    with (options.out / "home.labels.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(spans[0][3]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for start_ns, end_ns, cut_ns, row in spans:
            row["start_epoch"] = f"{(start_ns - cut_ns) / 1e9:.3f}"
            row["end_epoch"] = f"{(end_ns - cut_ns) / 1e9:.3f}"
            writer.writerow(row)


if __name__ == "__main__":
    main()

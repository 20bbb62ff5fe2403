"""`flows`: the features of every flow of a capture, as CSV or parquet."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from addresses import addresses_of
from batches import FLOW, UNREAD_REASONS, ConnectionState, EndReason, FlowBatch, Rows
from capture import read_capture
from commands.captures import refuse_unreadable
from commands.progress import Progress
from errors import AppError, InputError, UsageError
from features import COLUMNS, FEATURES, extras, matrix
from flow_tracker import FlowTracker
from packets import TUNNELS, Decoder
from settings import Settings
from words import count, duration, protocol_name, tunnels, unread

__all__ = ["add_commands", "flow_table"]

_SHOWN: Final = tuple(
    f.name for f in FEATURES if f.group in ("home", "industrial") or f.name.endswith("Flag Count")
)
_SHAPES: Final = tuple(name for name in COLUMNS if name not in _SHOWN)
# Flows written at once: a good row group for parquet, and a few ten MB of memory.
_PIECE: Final = 20_000

_PROTOCOLS: Final = pa.array([protocol_name(number) for number in range(256)])
_STATES: Final = pa.array([reason.name.lower() for reason in EndReason])
_CONNECTION_STATES: Final = pa.array([state.name for state in ConnectionState])


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "flows", parents=parents, help="features of every flow of a capture, as CSV or parquet"
    )
    parser.add_argument("captures", nargs="+", metavar="CAPTURE", type=Path)
    parser.add_argument("--out", required=True, metavar="FILE", type=Path)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings: Settings) -> int:
    out: Path = options.out
    if out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out must end in .csv or .parquet, not {out.name!r}.")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: give the name of a file.")
    partial = out.with_name(out.name + ".partial")
    for path in options.captures:
        for target in (out, partial):
            if target.exists() and path.exists() and target.samefile(path):
                raise UsageError(f"--out {out} would overwrite {path}: give another name.")
    began_s = time.monotonic()
    refuse_unreadable(options.captures)
    try:
        with Progress("packets") as progress:
            reading = _Reading(options.captures, settings, progress)
            written = _write(reading, partial, as_csv=out.suffix == ".csv")
        partial.replace(out)
    except OSError as error:
        _remove(partial)
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise AppError(f"{out} can't be written: {reason}.") from error
    except BaseException:
        _remove(partial)
        raise
    _tell(reading, written, out, time.monotonic() - began_s)
    return 0


def _remove(partial: Path) -> None:
    with contextlib.suppress(OSError):
        partial.unlink()


def _tell(reading: _Reading, written: int, out: Path, spent_s: float) -> None:
    done = f"{count(reading.packets, 'packet')}, {count(written, 'flow')} written to {out}"
    lines = [f"{done} in {duration(spent_s)}"]
    if carriers := reading.tunnel_words():
        lines.append(f"Judged by what tunnels carry: {carriers}.")
    if reasons := reading.unread_words():
        lines.append(f"Not read: {reasons}.")
    lines += [f"secureflux: {damage}" for damage in reading.damages]
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201


class _Reading:
    """The captures one after the other: rows of their ended flows, and what was read on the way.

    A capture begins and ends its own flows. packets: how many were decoded; unread: frames that
    were not, by reason; tunnels: headers of tunnels taken off, by kind; damages: a sentence for
    each capture that could not be read to its end.
    """

    def __init__(self, paths: list[Path], settings: Settings, progress: Progress) -> None:
        self._paths = paths
        self._settings = settings
        self._progress = progress
        self.frames = 0
        self.packets = 0
        self.unread = np.zeros(len(UNREAD_REASONS), np.int64)
        self.tunnels = np.zeros(len(TUNNELS), np.int64)
        self.damages: list[str] = []

    def __iter__(self) -> Iterator[Rows]:
        """Rows of dtype FLOW, as they end: memory does not grow with the captures."""
        for place, path in enumerate(self._paths):
            yield from self._read(place, path)
        if self.damages and not self.frames:
            raise InputError(" ".join(self.damages))
        if self.frames and not self.packets:
            names = ", ".join(path.name for path in self._paths)
            raise InputError(f"No packet could be read in {names}: {self.unread_words()}.")

    def _read(self, place: int, path: Path) -> Iterator[Rows]:
        decoder = Decoder()
        tracker = FlowTracker(
            capacity=self._settings.MAX_FLOWS,
            active_s=self._settings.ACTIVE_TIMEOUT_SECONDS,
            idle_s=self._settings.IDLE_TIMEOUT_SECONDS,
        )
        capture = read_capture(path, snaplen=self._settings.SNAPLEN)
        for frames in capture:
            yield tracker.track(decoder.decode(frames)).rows
            self.frames += len(frames)
            fraction = capture.fraction
            done = None if fraction is None else (place + fraction) / len(self._paths)
            self._progress.update(self.frames, done)
        yield tracker.flush().rows
        self.packets += decoder.packets
        self.unread += decoder.unread
        self.tunnels += decoder.tunnels
        if capture.damage:
            self.damages.append(capture.damage)

    def unread_words(self) -> str:
        return unread(dict(zip(UNREAD_REASONS, self.unread.tolist(), strict=True)))

    def tunnel_words(self) -> str:
        return tunnels(dict(zip(TUNNELS, self.tunnels.tolist(), strict=True)))


def _write(reading: _Reading, path: Path, *, as_csv: bool) -> int:
    """Write the table piece by piece; how many flows it holds."""
    schema = flow_table(FlowBatch(np.empty(0, FLOW))).schema
    written = 0
    with path.open("wb") as file, _writer(file, schema, as_csv=as_csv) as writer:
        for rows in _pieces(reading):
            writer.write_table(flow_table(FlowBatch(rows)))
            written += len(rows)
    return written


def _writer(file: Any, schema: pa.Schema, *, as_csv: bool) -> Any:
    if not as_csv:
        return pq.ParquetWriter(file, schema)
    # No name and no value holds a comma, a quote or a line's end.
    file.write(",".join(schema.names).encode() + b"\n")
    form = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    return pa.csv.CSVWriter(file, schema, write_options=form)


def _pieces(reading: _Reading) -> Iterator[Rows]:
    """The rows in arrays of _PIECE, the last one shorter."""
    gathered: list[Rows] = []
    missing = _PIECE
    for rows in reading:
        rest = rows
        while len(rest) >= missing:
            yield np.concatenate([*gathered, rest[:missing]])
            rest = rest[missing:]
            gathered, missing = [], _PIECE
        gathered.append(rest)
        missing -= len(rest)
    if missing < _PIECE:
        yield np.concatenate(gathered)


def flow_table(flows: FlowBatch) -> pa.Table:
    """One row a flow: who and when, 21 + 6 + 4 features, then how it ended and our own figures."""
    rows = flows.rows
    values = matrix(rows)
    features = dict(zip(COLUMNS, values.T, strict=True))
    sources = pa.array(addresses_of(rows, "src"), pa.string())
    targets = pa.array(addresses_of(rows, "dst"), pa.string())
    ports = [pa.array(rows[name].astype(np.int32)) for name in ("src_port", "dst_port")]
    numbers = pa.array(rows["protocol"].astype(np.int32))
    texts = [column.cast(pa.string()) for column in (*ports, numbers)]
    columns: dict[str, Any] = {
        "flow_id": pc.binary_join_element_wise(sources, targets, *texts, "-"),
        "src_ip": sources,
        "src_port": ports[0],
        "dst_ip": targets,
        "dst_port": ports[1],
        "protocol": _PROTOCOLS.take(numbers),
        "timestamp": _timestamps(rows["first_ns"]),
    }
    columns.update({name: features[name] for name in _SHOWN})
    columns["state"] = _STATES.take(pa.array(rows["end_reason"].astype(np.int32)))
    columns["connection_state"] = _CONNECTION_STATES.take(
        pa.array(rows["connection_state"].astype(np.int32))
    )
    columns.update(extras(rows, values))
    columns.update({name: features[name] for name in _SHAPES})
    return pa.table(columns)


def _timestamps(times_ns: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    """ISO 8601 in UTC with microseconds, by what needs no table of time zones."""
    moments = pa.array(times_ns // 1000).cast(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(moments, " ", "T"), "Z", "")

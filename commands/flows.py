"""`flows`: the features of every flow of a capture, as CSV or parquet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from addresses import addresses_of
from batches import FLOW, ConnectionState, EndReason, FlowBatch, Rows
from capture import read_capture
from commands.progress import Progress
from errors import InputError, UsageError
from features import COLUMNS, FEATURES, extras, matrix, select
from flow_tracker import FlowTracker
from packets import Decoder
from settings import Settings
from words import protocol_name

__all__ = ["add_commands", "flow_table"]

_SHOWN: Final = tuple(
    f.name for f in FEATURES if f.group in ("home", "industrial") or f.name.endswith("Flag Count")
)
_SHAPES: Final = tuple(name for name in COLUMNS if name not in _SHOWN)
_TEXTS: Final = (
    "flow_id",
    "src_ip",
    "dst_ip",
    "protocol",
    "timestamp",
    "state",
    "connection_state",
)
_PIECE: Final = 20_000


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "flows", parents=parents, help="features of every flow of a capture, as CSV or parquet"
    )
    parser.add_argument("captures", nargs="+", metavar="CAPTURE", type=Path)
    parser.add_argument("--out", required=True, metavar="FILE", type=Path)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings: Settings) -> int:
    if options.out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out must end in .csv or .parquet, not {options.out.name!r}.")
    for path in options.captures:
        if options.out.exists() and path.exists() and options.out.samefile(path):
            raise UsageError(f"--out {options.out} is one of the captures: give another name.")
    write = _write_csv if options.out.suffix == ".csv" else _write_parquet
    partial = options.out.with_name(options.out.name + ".partial")
    try:
        with Progress("packets") as progress:
            count = write(_pieces(options.captures, settings, progress), partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(options.out)
    print(f"{count:,} flows written to {options.out}", file=sys.stderr)  # noqa: T201
    return 0


def _write_csv(pieces: Iterator[pd.DataFrame], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        for piece in pieces:
            piece.to_csv(file, index=False, header=count == 0)
            count += len(piece)
        if count == 0:
            _no_flows().to_csv(file, index=False)
    return count


def _write_parquet(pieces: Iterator[pd.DataFrame], path: Path) -> int:
    count = 0
    schema = pa.schema([(name, _arrow_type(name)) for name in _no_flows().columns])
    with pq.ParquetWriter(path, schema) as writer:
        for piece in pieces:
            writer.write_table(pa.Table.from_pandas(piece, schema=schema, preserve_index=False))
            count += len(piece)
    return count


def _no_flows() -> pd.DataFrame:
    """The columns without a row."""
    return flow_table(FlowBatch(np.empty(0, FLOW)))


def _arrow_type(name: str) -> pa.DataType:
    """Types that do not depend on what is in the first rows."""
    if name in _TEXTS:
        return pa.string()
    return pa.int32() if name in ("src_port", "dst_port") else pa.float64()


def _pieces(paths: list[Path], settings: Settings, progress: Progress) -> Iterator[pd.DataFrame]:
    """Tables of some thousand flows each, as they end; memory does not grow with the file."""
    read = 0
    damages = []
    for place, path in enumerate(paths):
        if not path.is_file():
            raise InputError(f"There is no capture file {path}.")
        decoder = Decoder()
        tracker = FlowTracker(
            capacity=settings.MAX_FLOWS,
            active_s=settings.ACTIVE_TIMEOUT_SECONDS,
            idle_s=settings.IDLE_TIMEOUT_SECONDS,
        )
        capture = read_capture(path, snaplen=settings.SNAPLEN)
        for frames in capture:
            yield from _tables(tracker.track(decoder.decode(frames)).rows)
            read += len(frames)
            fraction = capture.fraction
            done = None if fraction is None else (place + fraction) / len(paths)
            progress.update(read, done)
        yield from _tables(tracker.flush().rows)
        if capture.damage:
            damages.append(capture.damage)
    if damages and not read:
        raise InputError(" ".join(damages))
    progress.clear()
    for damage in damages:
        print(f"secureflux: {damage}", file=sys.stderr)  # noqa: T201


def _tables(rows: Rows) -> Iterator[pd.DataFrame]:
    for start in range(0, len(rows), _PIECE):
        yield flow_table(FlowBatch(rows[start : start + _PIECE]))


def flow_table(flows: FlowBatch) -> pd.DataFrame:
    """One row a flow: who and when, 21 + 6 + 4 features, then how it ended and our own figures."""
    rows = flows.rows
    values = matrix(rows)
    sources, targets = addresses_of(rows, "src"), addresses_of(rows, "dst")
    protocols = [protocol_name(number) for number in rows["protocol"].tolist()]
    table: dict[str, Any] = {
        "flow_id": [
            f"{src}-{dst}-{sport}-{dport}-{number}"
            for src, dst, sport, dport, number in zip(
                sources,
                targets,
                rows["src_port"].tolist(),
                rows["dst_port"].tolist(),
                rows["protocol"].tolist(),
                strict=True,
            )
        ],
        "src_ip": sources,
        "src_port": rows["src_port"].astype("int32"),
        "dst_ip": targets,
        "dst_port": rows["dst_port"].astype("int32"),
        "protocol": protocols,
        "timestamp": pd.Series(pd.to_datetime(rows["first_ns"], unit="ns", utc=True)).dt.strftime(
            "%Y-%m-%dT%H:%M:%S.%fZ"
        ),
    }
    for place, name in enumerate(_SHOWN):
        table[name] = select(values, _SHOWN)[:, place]
    table["state"] = [EndReason(code).name.lower() for code in rows["end_reason"].tolist()]
    table["connection_state"] = [
        ConnectionState(code).name for code in rows["connection_state"].tolist()
    ]
    table.update(extras(rows, values))
    for place, name in enumerate(_SHAPES):
        table[name] = select(values, _SHAPES)[:, place]
    return pd.DataFrame(table)

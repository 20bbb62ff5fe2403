"""The table of `flows`: exact in both forms, whole or not there, and honest about what it lacks."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from batches import FLOW, UNREAD_REASONS
from benchmarks.synthetic import write_capture
from capture import read_capture
from commands.flows import run
from errors import AppError, InputError, UsageError
from features import COLUMNS, matrix
from flow_tracker import FlowTracker
from packets import TUNNELS, Decoder
from settings import Settings
from tests.captures import pcapng
from tests.frames import arp, at, ethernet, golden, ipv4, ipv6, udp, write_pcap
from words import tunnels, unread

TEXTS = ("flow_id", "src_ip", "dst_ip", "protocol", "timestamp", "state", "connection_state")


def flows(captures: Sequence[Path], out: Path) -> None:
    assert run(argparse.Namespace(captures=list(captures), out=out), Settings()) == 0


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_both_forms_hold_every_flow_to_the_last_bit(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "many.pcap", packets=60_000, flows=45_000)
    decoder, tracker = Decoder(), FlowTracker()
    parts = [tracker.track(decoder.decode(frames)).rows for frames in read_capture(capture)]
    rows = np.concatenate([np.empty(0, FLOW), *parts, tracker.flush().rows])
    for name in ("x.csv", "x.parquet"):
        flows([capture], tmp_path / name)
    table = pq.read_table(tmp_path / "x.parquet")
    told = csv_rows(tmp_path / "x.csv")
    assert len(rows) == len(told) == table.num_rows == 45_000
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 3
    assert list(told[0]) == table.column_names
    for name in table.column_names:
        column = table[name].to_pylist()
        if name in TEXTS:
            assert [row[name] for row in told] == column
            continue
        there = np.array([float(row[name]) for row in told])
        np.testing.assert_array_equal(there.view(np.int64), np.array(column, float).view(np.int64))
    values = matrix(rows)
    for place, name in enumerate(COLUMNS):
        np.testing.assert_array_equal(table[name].to_numpy(), values[:, place])
    np.testing.assert_array_equal(table["src_port"].to_numpy(), rows["src_port"])


def test_times_are_utc_with_microseconds_in_every_century(tmp_path: Path) -> None:
    frame = ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 53, 8)))
    times_ns = (999, 1_700_000_000_123_456_789, 7_258_118_399_999_999_999)
    capture = tmp_path / "times.pcapng"
    capture.write_bytes(pcapng([(time_ns, frame, len(frame)) for time_ns in times_ns]))
    flows([capture], tmp_path / "x.csv")
    assert [row["timestamp"] for row in csv_rows(tmp_path / "x.csv")] == [
        "1970-01-01T00:00:00.000000Z",
        "2023-11-14T22:13:20.123456Z",
        "2199-12-31T23:59:59.999999Z",
    ]


def test_addresses_are_canonical_and_make_the_flow_id(tmp_path: Path) -> None:
    wide = ipv6("2001:db8:0:0:1:0:0:1", "FE80::0A", 17, udp(546, 547, 8))
    odd = ipv4("10.0.0.1", "224.0.0.5", 200, bytes(24))
    frames = [at(0, ethernet(wide, 0x86DD)), at(1, ethernet(odd))]
    flows([write_pcap(tmp_path / "x.pcap", frames)], tmp_path / "x.csv")
    first, second = csv_rows(tmp_path / "x.csv")
    assert (first["src_ip"], first["dst_ip"]) == ("2001:db8::1:0:0:1", "fe80::a")
    assert first["flow_id"] == "2001:db8::1:0:0:1-fe80::a-546-547-17"
    assert (second["flow_id"], second["protocol"]) == ("10.0.0.1-224.0.0.5-0-0-200", "IP 200")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_can_not_be_written_is_told_and_leaves_nothing(tmp_path: Path, ending: str) -> None:
    capture = write_pcap(tmp_path / "golden.pcap", golden())
    with pytest.raises(AppError, match=r"nowhere.x\.\w+ can't be written: No such file"):
        flows([capture], tmp_path / "nowhere" / f"x.{ending}")
    with pytest.raises(AppError, match=r"can't be written: Not a directory"):
        flows([capture], capture / f"x.{ending}")
    (tmp_path / f"folder.{ending}").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        flows([capture], tmp_path / f"folder.{ending}")
    assert {path.name for path in tmp_path.iterdir()} == {"golden.pcap", f"folder.{ending}"}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_full_disk_leaves_the_old_table_and_no_part_of_the_new(
    tmp_path: Path, ending: str
) -> None:
    """The limit of a file's size stands for the disk's end: writing fails in the same place."""
    resource = pytest.importorskip("resource")
    capture = write_capture(tmp_path / "many.pcap", packets=5_000, flows=3_000)
    out = tmp_path / f"x.{ending}"
    out.write_bytes(b"old")
    flows([capture], tmp_path / f"whole.{ending}")  # whatever is compiled is on the disk now
    enough = (tmp_path / f"whole.{ending}").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (enough - 1, before[1]))
    try:
        with pytest.raises(AppError, match=r"x\.\w+ can't be written: File too large\.$") as told:
            flows([capture], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value.exit_code == 1
    assert out.read_bytes() == b"old"
    assert not list(tmp_path.glob("*.partial"))


def test_frames_that_carry_no_packet_are_no_table(tmp_path: Path) -> None:
    lldp = write_pcap(tmp_path / "lldp.pcap", [at(0, ethernet(bytes(60), 0x88CC))] * 3)
    with pytest.raises(InputError, match=r"No packet .* lldp\.pcap: 3 neither IP nor ARP\.$"):
        flows([lldp], tmp_path / "x.csv")
    assert not list(tmp_path.glob("x.*"))
    asks = write_pcap(
        tmp_path / "arp.pcap", [at(0, ethernet(arp(1, "10.0.0.1", "10.0.0.2"), 0x0806))]
    )
    flows([lldp, asks], tmp_path / "x.csv")
    assert csv_rows(tmp_path / "x.csv") == []


def test_all_captures_are_looked_at_before_the_first_is_read(tmp_path: Path) -> None:
    good = write_pcap(tmp_path / "golden.pcap", golden())
    wrong = tmp_path / "notes.txt"
    wrong.write_text("no capture", encoding="utf-8")
    target = tmp_path / "out"
    target.mkdir()
    os.utime(target, (0, 0))  # a file begun there would change it
    for other, words in (
        (wrong, r"notes\.txt .*text file"),
        (tmp_path / "none", "no capture file"),
        (tmp_path, "is a folder"),
        (Path(os.devnull), "is no file"),
    ):
        with pytest.raises(InputError, match=words):
            flows([good, other], target / "x.csv")
    assert target.stat().st_mtime == 0


def test_the_end_tells_what_was_read_and_what_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, bytes(24), fragment=185))
    strange = ethernet(bytes(60), 0x88CC)
    inner = ipv4("10.1.0.1", "10.1.0.2", 17, udp(1000, 53, 8))
    carried = ethernet(ipv4("10.0.0.1", "10.0.0.2", 4, inner))
    frames = [*golden(), at(70_000, later), *[at(80_000, strange)] * 2, at(90_000, carried)]
    mixed = write_pcap(tmp_path / "mixed.pcap", frames)
    cut = write_pcap(tmp_path / "cut.pcap", golden())
    cut.write_bytes(cut.read_bytes()[:-20])
    flows([mixed, cut], tmp_path / "x.parquet")
    first, second, third, fourth = capsys.readouterr().err.splitlines()
    assert first.startswith(f"12 packets, 3 flows written to {tmp_path / 'x.parquet'} in ")
    assert second == "Judged by what tunnels carry: 1 IP in IP."
    assert third == "Not read: 2 neither IP nor ARP, 1 with a later fragment."
    assert fourth.startswith("secureflux: cut.pcap is damaged in its frame 6")


def test_every_reason_and_tunnel_has_words() -> None:
    assert unread(dict.fromkeys(UNREAD_REASONS, 1_200)).count("1,200 ") == len(UNREAD_REASONS)
    assert unread(dict.fromkeys(UNREAD_REASONS, 0)) == ""
    assert tunnels(dict.fromkeys(TUNNELS, 3)).count("3 ") == len(TUNNELS)

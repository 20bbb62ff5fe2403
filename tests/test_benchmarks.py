"""Benchmarks are small programs: each part runs, and counts what is there. No time is tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capture
from batches import UNREAD_REASONS
from benchmarks import kernel, live, scaling, scorer, verdicts
from benchmarks.measure import ROOT, Plan, Table, installed, percentile, run_alone, spread
from benchmarks.peers import PEERS, grouped
from benchmarks.report import BEGIN, END, PARTS, into_document, markdown, text
from benchmarks.sender import FRAMES
from benchmarks.synthetic import FRAME_BYTES, conversations, write_capture
from benchmarks.wire import SENDING, Wire
from errors import AppError
from features import INDUSTRIAL, matrix, select
from flow_tracker import FlowTracker
from packets import Decoder

FLOWS = 300
PACKETS = 5_000


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captures") / "synthetic.pcap"
    return write_capture(path, packets=PACKETS, flows=FLOWS)


def small(tmp_path: Path, runs: int = 1) -> Plan:
    return Plan(PACKETS, runs, tmp_path, lambda _: None)


def ours(path: Path) -> tuple[Decoder, Any]:
    decoder, tracker = Decoder(), FlowTracker()
    rows = [tracker.track(decoder.decode(frames)).rows for frames in capture.read_capture(path)]
    return decoder, np.concatenate([*rows, tracker.flush().rows])


# --- traffic ------------------------------------------------------------------------------------


def test_traffic_has_exactly_the_packets_and_flows_asked_for(synthetic: Path) -> None:
    decoder, rows = ours(synthetic)
    assert (decoder.packets, len(rows)) == (PACKETS, FLOWS)
    assert dict(zip(UNREAD_REASONS, decoder.unread, strict=True)) == dict.fromkeys(
        UNREAD_REASONS, 0
    )
    assert set(rows["protocol"]) == {1, 6, 17, 58}
    assert set(rows["ip_version"]) == {4, 6}
    assert (rows["vlan"] > 0).any()
    assert (rows["flag_counts"][:, 0] >= 2).any(), "no conversation ends by FIN"


@pytest.mark.parametrize(("packets", "flows"), [(50, 50), (1_000, 3), (2_000, 700)])
def test_any_number_of_packets_a_flow(packets: int, flows: int) -> None:
    parts = list(conversations(packets=packets, flows=flows))
    assert sum(map(len, parts)) == packets
    assert len(np.unique(np.concatenate([part.flow for part in parts]))) == flows


def test_a_cut_frame_tells_its_whole_length(tmp_path: Path, synthetic: Path) -> None:
    cut = write_capture(tmp_path / "cut.pcap", packets=PACKETS, flows=FLOWS, snaplen=96)
    assert cut.stat().st_size < synthetic.stat().st_size
    _, rows = ours(cut)
    _, whole = ours(synthetic)
    assert np.array_equal(matrix(rows), matrix(whole))
    longest = max(int(part.length.max()) for part in conversations(packets=PACKETS, flows=FLOWS))
    assert longest <= FRAME_BYTES


# --- peers --------------------------------------------------------------------------------------


def test_the_group_by_finds_the_same_flows_and_features(synthetic: Path) -> None:
    packets, found = grouped(synthetic)
    _, rows = ours(synthetic)
    assert (packets, found.shape) == (PACKETS, (FLOWS, 27))
    assert found[:, 0].max() > 0
    # The names of its columns, in its order; flows of both in the order of all their values.
    sides = [
        [
            f"Total {side} Packets",
            f"Total Length {side} Packet",
            *(f"{side} Packet Length {what}" for what in ("Max", "Min", "Mean", "Std")),
            *(f"{side} IAT {what}" for what in ("Total", "Mean", "Std")),
        ]
        for side in ("Fwd", "Bwd")
    ]
    names = ["Flow Duration", *sides[0], *sides[1]]
    names += ["Max Packet Length", "Min Packet Length", "Packet Length Mean", "Packet Length Std"]
    names += ["Flow Bytes/s", "Flow Packets/s", "Init Win Fwd", "Init Win Bwd"]
    assert sorted(names) == sorted(INDUSTRIAL)
    expected = select(matrix(rows), tuple(names))
    assert in_order(found) == pytest.approx(in_order(expected), rel=1e-9, abs=1e-6)


def in_order(values: Any) -> Any:
    return values[np.lexsort(np.round(values, 3).T)]


def test_who_is_installed_agrees_on_the_flows(tmp_path: Path) -> None:
    result = kernel.measure(small(tmp_path))
    rows = {row["name"]: row for row in result["rows"]}
    assert set(rows) | set(result["missing"]) == {"secureflux", *PEERS}
    assert "secureflux" in rows
    flows = PACKETS // kernel.PACKETS_A_FLOW
    for name in set(rows) & {"secureflux", "numpy", "nfstream"}:
        assert (rows[name]["packets"], rows[name]["flows"]) == (PACKETS, flows), name
    if "dpkt" in rows:
        share = PACKETS // kernel.SHARES["dpkt"]
        assert (rows["dpkt"]["packets"], rows["dpkt"]["flows"]) == (
            share,
            share // kernel.PACKETS_A_FLOW,
        )
    assert rows["secureflux"]["ratio"] == [1.0]
    assert not list(tmp_path.iterdir()), "captures are left behind"
    shown(kernel.tables(result), 1)


# --- parts --------------------------------------------------------------------------------------


def test_all_three_models_vote_on_every_flow(tmp_path: Path) -> None:
    result = verdicts.measure(small(tmp_path), lessons_s=3)
    found = result["turns"]["secureflux"][0]
    flows = PACKETS // kernel.PACKETS_A_FLOW
    assert (found["packets"], found["flows"]) == (PACKETS, flows)
    assert found["votes"]["live"] == flows
    # Models from elsewhere do not judge a flow of a single packet.
    assert 0 < found["votes"]["home"] == found["votes"]["industrial"] <= flows
    assert found["alerts"] < flows / 4, "it was not trained on such traffic"
    forests = result["turns"][verdicts.FORESTS][0]
    assert (forests["packets"], forests["flows"]) == (PACKETS, flows)
    assert forests["judging_s"] < found["judging_s"]
    assert ("nfstream" in result["turns"]) == installed("nfstream")
    shown(verdicts.tables(result), 1)


def test_scores_are_those_of_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "SHAPES", ((10, 5, 64),))
    result = scorer.measure(small(tmp_path), rows=500)
    (shape,) = result["shapes"]
    assert shape["difference"] <= scorer.TARGET_DIFFERENCE
    assert shape["verdicts_differ"] == 0
    assert 0 < shape["odd"] < 500, "without verdicts of both kinds nothing is compared"
    shown(scorer.tables(result), 1)


def test_growing_captures_and_a_flood_keep_every_packet(tmp_path: Path) -> None:
    result = scaling.measure(
        small(tmp_path),
        packets=(2_000, 4_000),
        flows=(50, 500),
        flow_packets=1_000,
        flooded=(3_000, 256),
    )
    found = [
        (turn["packets"], turn["flows"])
        for series in ("by_packets", "by_flows")
        for one in result[series]
        for turn in one["turns"]
    ]
    assert found == [(2_000, 117), (4_000, 235), (1_000, 50), (1_000, 500)]
    assert not list(tmp_path.iterdir()), "captures are left behind"
    (flood,) = result["flood"]
    assert (flood["active"], flood["evicted"], flood["ended"]) == (256, 2_744, 2_744)
    assert flood["flushed"] == 256
    assert 1 <= flood["longest_probe"] < 256
    shown(scaling.tables(result), 3)


def test_the_longest_probe_goes_over_the_end_of_the_index() -> None:
    tracker: Any = FlowTracker(capacity=8)
    slots = tracker._table.slots
    assert scaling.longest_probe(tracker) == 0
    slots[[0, 1, 5, len(slots) - 2, len(slots) - 1]] = 1
    assert scaling.longest_probe(tracker) == 4
    slots[:] = 1
    assert scaling.longest_probe(tracker) == len(slots)


@pytest.mark.live
@pytest.mark.skipif(live.why_not() is not None, reason=live.why_not() or "")
def test_what_is_sent_arrives() -> None:
    """The sender's count is the kernel's, over more than one round of its frames."""
    with Wire() as wire:
        before = wire.arrived()
        command = wire.there(sys.executable, "-m", "benchmarks.sender", SENDING, "40000", "1.2")
        sent = run_alone(command)
        assert sent["sent"] == wire.arrived() - before
        assert sent["sent"] > FRAMES / 4


# --- what is told -------------------------------------------------------------------------------


def shown(tables: list[Table], count: int) -> None:
    """Every row has a cell for every column, as text."""
    assert len(tables) == count
    for table in tables:
        assert table.rows, table.title
        for row in table.rows:
            assert len(row) == len(table.columns), table.title
            assert all(isinstance(cell, str) for cell in row)


def test_a_command_that_fails_is_told_in_a_sentence() -> None:
    with pytest.raises(AppError, match=r"failed: .*No such file"):
        run_alone(["benchmarks.kernel", "/nowhere/at/all.pcap"])
    with pytest.raises(AppError, match="longer than 0 s"):
        run_alone([sys.executable, "-c", "input()"], timeout_s=0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_a_large_parent_does_not_count() -> None:
    ballast = np.ones(50_000_000)
    code = "from benchmarks.measure import *; answer({'peak': peak_bytes()})"
    told = run_alone([sys.executable, "-c", code])
    assert 10_000_000 < told["peak"] < ballast.nbytes


def test_spread_and_percentiles() -> None:
    assert spread([2.0]).text(".1f") == "2.0"
    assert spread([2.0, 9.0, 1.0]).text(".0f") == "2 (1-9)"
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [
        1.0,
        50.0,
        95.0,
        100.0,
    ]


def test_the_command_writes_json_and_the_marked_part_of_a_document(tmp_path: Path) -> None:
    document, figures = tmp_path / "page.md", tmp_path / "figures.json"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    command = [sys.executable, "app.py", "bench", "kernel", "--packets", "2000", "--runs", "1"]
    command += ["--json", str(figures), "--markdown", str(document)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(figures.read_text(encoding="utf-8"))
    assert list(result["parts"]) == ["kernel"]
    assert result["machine"]["libraries"]["numpy"] == np.__version__
    assert done.stdout.strip() == text(result)
    page = document.read_text(encoding="utf-8")
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert markdown(result) in page
    assert "\nold\n" not in page
    assert into_document(page, markdown(result)) == page


def test_a_part_that_does_not_exist_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "app.py", "bench", "kernle"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no part 'kernle'" in done.stderr
    assert all(name in done.stderr for name in PARTS)


def test_the_documented_figures_are_generated() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    for name in PARTS:
        assert f"`{name}`" in page

from __future__ import annotations

import gzip
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from errors import InputError
from features import COLUMNS, INDUSTRIAL, matrix
from tests.frames import START_NS, arp, at, ethernet, ipv4, tcp, write_pcap
from tests.labelled_flows import days, flows, written
from training import evaluate, kdd_bench
from training.evaluation import captures, kdd, measured, own_network, rows, splits, streams
from training.evaluation.candidates import OURS, PUBLISHED, candidates
from training.evaluation.explanations import CAUSES, explanations
from training.evaluation.flow_rows import flow_rows
from training.evaluation.measures import by_class, number, recall_at, roc, spread
from training.evaluation.own_network import curve_of, learning_curve, network_runs
from training.evaluation.plots import bars, curves
from training.evaluation.report import BEGIN, END, write_part
from training.evaluation.tables import Table, read_tables
from training.evaluation.targets import TARGETS
from training.evaluation.transfer import moved, three_models

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
HERE, ELSEWHERE = "here improved", "there orig"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """A network with three days, and another one with a single day, whose flows are larger."""
    rng = np.random.default_rng(1)
    other = flows(rng, 1300, day="2026-02-01", net="there", edition="orig", scale=60.0)
    folder = written(tmp_path_factory.mktemp("data"), *days(rng, 420), other)
    return read_tables(folder)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """As the command does it: on a busy machine a second thread of a library only spins."""
    with measured.one_thread():
        yield


# --- measures -----------------------------------------------------------------------------------


def test_recall_at_a_rate_is_read_off_the_judged_flows() -> None:
    normal = np.arange(1000.0)
    odd = np.array([999.5, 995.5, 960.5, 500.5])
    assert recall_at(normal, odd, 0.05) == pytest.approx(0.75)
    assert recall_at(normal, odd, 0.01) == pytest.approx(0.5)
    assert np.isnan(recall_at(normal[:900], odd, 0.01)), "nine flows would decide"
    assert np.isnan(recall_at(normal, np.empty(0), 0.05))


def test_a_detector_that_ties_everything_gains_nothing() -> None:
    assert recall_at(np.zeros(1000), np.zeros(50), 0.05) == pytest.approx(0.05)
    x, y = roc(np.zeros(4), np.zeros(4))
    assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)


def test_a_spread_tells_mean_and_range_and_leaves_out_what_is_no_number() -> None:
    assert str(spread([0.5, float("nan"), 0.7])) == ".600 (.500–.700)"
    assert str(spread([0.0123])) == ".0123"
    assert spread([]).n == 0
    assert number(float("nan")) == "nan"
    told = by_class(np.array(["a", "a", "b"]), np.array([True, False, True]))
    assert told == {"a": 0.5, "b": 1.0}


# --- tables -------------------------------------------------------------------------------------


def test_rows_that_stand_twice_and_flows_of_one_packet_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    some = flows(rng, 30, day="Monday")
    single = flows(rng, 4, day="Monday").assign(tot_fwd_pkts=1.0, tot_bwd_pkts=0.0)
    whole = read_tables(written(tmp_path, some, some.iloc[:7], single))
    assert len(whole) == 30
    assert whole.networks.tolist() == [HERE] * 30


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    with pytest.raises(InputError, match="no table of flows"):
        read_tables(tmp_path)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "flows" / "x.parquet")
    with pytest.raises(InputError, match="it lacks"):
        read_tables(tmp_path)


def test_rows_of_the_product_give_the_features_of_the_table_back(table: Table) -> None:
    some = table.where(np.arange(len(table)) % 7 == 0)
    again = matrix(flow_rows(some, np.zeros(len(some), np.int64)))
    for place, name in enumerate(COLUMNS):
        np.testing.assert_allclose(
            again[:, place], some.values[:, place], rtol=1e-6, atol=1e-6, err_msg=name
        )


# --- splits -------------------------------------------------------------------------------------


def test_no_day_stands_on_two_sides_of_a_split(table: Table) -> None:
    parted = list(splits.rotations(table, HERE, 42))
    assert len(parted) == 3
    for split in parted:
        sides = [set(part.days.tolist()) for part in (split.fit, split.line, split.judged)]
        assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
        assert not split.fit.attack.any()
        assert not split.line.attack.any()
    assert parted[0].told == "fit Monday | line Tuesday | judged Wednesday"
    assert set(parted[0].attacks.labels.tolist()) == {"Flood"}, "those of the judged day alone"


def test_of_five_days_the_last_two_are_judged(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    week = ("Friday", "Monday", "Thursday", "Tuesday", "Wednesday")
    whole = read_tables(written(tmp_path, *(flows(rng, 110, day=day) for day in week)))
    assert [split.told for split in splits.rotations(whole, HERE, 1)] == [
        "fit Monday + Tuesday | line Wednesday | judged Thursday + Friday",
        "fit Monday + Wednesday | line Tuesday | judged Thursday + Friday",
        "fit Tuesday + Wednesday | line Thursday | judged Friday",
    ]
    four = whole.where(whole.days != "Friday")
    judged = [split.judged for split in splits.rotations(four, HERE, 1)]
    assert [set(one.days.tolist()) for one in judged] == [{"Thursday"}] * 3
    two = whole.where(np.isin(whole.days, ["Monday", "Tuesday"]))
    first, second = splits.rotations(two, HERE, 1)
    assert (len(first.fit), len(first.line)) == (82, 28)
    assert first.fit.frame["ts"].max() < first.line.frame["ts"].min()
    assert (set(first.judged.days.tolist()), set(second.judged.days.tolist())) == (
        {"Tuesday"},
        {"Monday"},
    )
    one = whole.where(whole.days == "Monday")
    assert list(splits.rotations(one, HERE, 1)) == []


def test_a_single_day_gives_a_thousand_flows_to_learn_and_judges_the_others(table: Table) -> None:
    split = splits.local_split(table, ELSEWHERE, 42)
    assert split is not None
    assert (len(split.fit), len(split.line), len(split.normal)) == (800, 200, 300)
    stamps = [set(part.frame["ts"]) for part in (split.fit, split.line, split.normal)]
    assert not (stamps[0] & stamps[1] | stamps[0] & stamps[2] | stamps[1] & stamps[2])


def test_a_class_counts_a_thousand_flows_at_most(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "CLASS_CAP", 50)
    few = splits.capped(table.attacks, 1)
    assert np.unique(few.labels, return_counts=True)[1].tolist() == [50, 50]


# --- candidates ---------------------------------------------------------------------------------


def test_what_is_judged_leaves_no_trace_in_a_candidate(table: Table) -> None:
    """The same candidate comes out whatever the judged day holds."""
    split = next(splits.rotations(table, HERE, 42))
    changed = replace(split, judged=split.judged.where(split.judged.attack))
    probe = split.fit.where(np.arange(len(split.fit)) < 50)
    for candidate in candidates():
        if candidate.group == "peers":
            continue  # they are handed the same arrays as the published recipe
        one, other = (candidate.fitted(part).of(probe) for part in (split, changed))
        for name, seen in one.items():
            np.testing.assert_array_equal(seen, other[name], err_msg=name)


def test_candidates_are_judged_alike_and_ours_sees_what_differs(table: Table) -> None:
    runs = network_runs(table, HERE, (42,))
    assert runs is not None
    assert {OURS, PUBLISHED, f"{OURS}: forest alone"} <= set(runs.names)
    assert runs.attacks[runs.splits[0]] == {"Flood": 120}
    assert all(np.isnan(run.auc) for run in runs.of(OURS) if run.split.endswith("Monday"))
    assert runs.spread(OURS, "auc").mean > 0.95
    assert runs.spread(OURS, "auc").n == 2
    assert 0.0 <= runs.spread(OURS, "own_rate").mean < 0.04
    assert runs.classes(OURS)["Flood"].mean > 0.9
    curve = [recall for _, recall in curve_of(runs, OURS)]
    assert curve == sorted(curve)


def test_learning_takes_only_flows_of_other_days(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_network, "SIZES", (100, 500, 700))
    told = learning_curve(table, HERE, (42,))
    assert told is not None
    assert set(told) == {100, 500}, "840 flows of two days leave no room for more"
    assert all(len(seen[OURS]) == len(seen[PUBLISHED]) == 2 for seen in told.values())


# --- other networks -----------------------------------------------------------------------------


def test_a_line_is_worth_nothing_elsewhere_until_it_is_counted_there(table: Table) -> None:
    told = moved(table, (42,))
    assert {(one.source, one.target) for one in told} == {(HERE, ELSEWHERE), (ELSEWHERE, HERE)}
    for one in told:
        assert one.before > 0.3
        assert one.after < 0.05


def test_three_models_decide_in_every_way(table: Table) -> None:
    told = {one.network: one for one in three_models(table, (42,))}
    ways = told[HERE].ways
    recall = {way: np.mean([odd for _, odd in pairs]) for way, pairs in ways.items()}
    assert recall["votes of all 3"] <= recall["votes of at least 2"]
    assert recall["votes of at least 2"] <= recall["votes of at least 1"]
    assert recall["live alone"] > 0.9
    assert rows.PRODUCT in ways


# --- explanations and cost ----------------------------------------------------------------------


def test_injected_causes_cover_every_feature_but_shares(table: Table) -> None:
    grouped = {name for group in CAUSES for name in group}
    assert set(INDUSTRIAL) <= grouped
    split = next(splits.rotations(table, HERE, 42))
    told = explanations(split)
    assert {(one.model, one.change) for one in told} == {
        (model, change) for model in ("home", "industrial", "live") for change in ("swap", "scale")
    }
    scaled = [one for one in told if one.change == "scale"]
    assert all(one.asked and one.first <= one.any_of_3 <= 1 for one in scaled)
    assert min(one.any_of_3 for one in scaled) > 0.5


# --- captures -----------------------------------------------------------------------------------


def scan(source: str, start_s: float) -> list[tuple[int, bytes]]:
    """Sixty ports of one host in three seconds, each refused."""
    frames = []
    for port in range(60):
        now_us = (start_s + port * 0.05) * 1e6
        there = ipv4(source, "10.0.0.1", 6, tcp(40000 + port, 1000 + port, 2))
        back = ipv4("10.0.0.1", source, 6, tcp(1000 + port, 40000 + port, 20))
        frames += [at(now_us, ethernet(there)), at(now_us + 200, ethernet(back))]
    return frames


def index(folder: Path, *lines: tuple[str, str, str]) -> None:
    head = "file\tkind\texpected_incident\n"
    text = head + "".join("\t".join(line) + "\n" for line in lines)
    (folder / "index.tsv").write_text(text, encoding="utf-8")


def test_only_an_incident_about_who_is_named_is_a_hit(tmp_path: Path) -> None:
    write_pcap(tmp_path / "scan.pcap", scan("10.0.0.66", 1.0))
    write_pcap(tmp_path / "calm.pcap", [at(0, ethernet(arp(1, "10.0.0.5", "10.0.0.1"), 0x0806))])
    index(
        tmp_path,
        ("scan.pcap", "attack", "scan: attacker 10.0.0.66, victim 10.0.0.1, start 0.9 s"),
        ("calm.pcap", "benign", "-"),
        ("gone.pcap", "benign", "-"),
    )
    hit, calm = captures.captures(tmp_path)
    assert (hit.hits, hit.others, hit.attack) == (("VERTICAL_SCAN",), (), True)
    assert (hit.units, hit.alarmed) == (1, 1)
    assert (calm.hits, calm.others, calm.units) == ((), (), 0)
    for told in ("attacker 10.0.0.7, start 0.9 s", "attacker 10.0.0.66, start 60.0 s"):
        index(tmp_path, ("scan.pcap", "attack", told))
        (missed,) = captures.captures(tmp_path)
        assert (missed.hits, missed.others) == ((), ("VERTICAL_SCAN",))
    with pytest.raises(InputError, match=r"no index\.tsv"):
        list(captures.captures(tmp_path / "nowhere"))


def test_a_phase_of_a_lab_is_told_by_evidence_of_its_own_time(tmp_path: Path) -> None:
    write_pcap(tmp_path / "lab.pcap", scan("10.0.0.66", 1.0) + scan("10.0.0.77", 60.0))
    start_s = START_NS / 1e9
    lines = [
        ("01", "syn_scan", "10.0.0.66", start_s + 1, start_s + 4),
        ("02", "fin_scan", "10.0.0.66", start_s + 60, start_s + 64),
        ("03", "benign", "-", start_s + 70, start_s + 80),
    ]
    text = "phase\tkind\tattacker_ips\tvictim_ips\tstart_epoch\tend_epoch\n" + "".join(
        f"{phase}\t{kind}\t{who}\t10.0.0.1\t{begin}\t{end}\n"
        for phase, kind, who, begin, end in lines
    )
    (tmp_path / "lab.tsv").write_text(text)
    phases, false = captures.lab(tmp_path / "lab.pcap", tmp_path / "lab.tsv")
    assert [(one.kind, one.named, one.right) for one in phases] == [
        ("syn_scan", ("VERTICAL_SCAN",), True),
        ("fin_scan", (), False),
    ]
    assert len(false) == 1
    assert "10.0.0.77" in false[0]


# --- KDD ----------------------------------------------------------------------------------------


def kdd_file(path: Path, rng: np.random.Generator, normal: int, odd: int) -> None:
    lines = []
    for i in range(normal + odd):
        numbers = rng.normal(10, 2, 38) if i < normal else rng.normal(40, 2, 38)
        service = "http" if i < normal else "odd"
        label = "normal" if i < normal else "neptune" if i % 2 else "guess_passwd"
        cells = [f"{numbers[0]:.3f}", "tcp", service, "SF", *(f"{x:.3f}" for x in numbers[1:])]
        lines.append(",".join([*cells, label, "21"]))
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")


def test_the_bench_learns_from_normal_records_of_the_training_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flows").mkdir()
    rng = np.random.default_rng(4)
    kdd_file(tmp_path / "flows" / kdd.TRAIN, rng, 900, 300)
    kdd_file(tmp_path / "flows" / kdd.TEST, rng, 400, 200)
    told = {one.model: one for one in kdd.kdd_bench(tmp_path, (42,))}
    ours = told["ours"]
    precision, recall, f1, rate = ours.at[0.01]
    assert recall == 1.0
    assert ours.classes == {"DoS": 1.0, "R2L": 1.0}
    assert rate < 0.05
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert kdd_bench.main(["--data", str(tmp_path / "nothing")]) == 0
    assert "None of the files is at hand" in capsys.readouterr().out


# --- rows and report ----------------------------------------------------------------------------


def test_what_can_not_be_measured_is_told_with_its_reason() -> None:
    nothing = measured.Measured(measured.Sources(Path("nowhere"), None, False, ()))
    told = rows.rows(nothing)
    assert [row.target.number for row in told] == [target.number for target in TARGETS]
    assert all(row.here == "not measured" and row.note and not row.verdict for row in told)


def test_a_row_is_met_only_where_every_figure_is() -> None:
    wide, narrow = (0.5, None), (0.9, None)
    good, fair, poor = (rows.Check(value, wide, narrow) for value in (0.95, 0.6, 0.4))
    assert rows.verdict([good, good]) == "goal"
    assert rows.verdict([good, fair]) == "must"
    assert rows.verdict([good, poor]) == "short"
    assert rows.verdict([good, rows.Check(float("nan"), wide, narrow)]) == ""
    assert rows.verdict([]) == ""


def test_the_measured_part_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "detection.md"
    document.write_text("# Before\n\ntext\n")
    write_part(document, "first\n", {"a.svg": "<svg/>"})
    document.write_text(document.read_text() + "after\n")
    write_part(document, "second\n", {})
    assert document.read_text() == f"# Before\n\ntext\n\n{BEGIN}\nsecond\n{END}\nafter\n"
    assert (tmp_path / "images" / "a.svg").read_text() == "<svg/>"
    document.write_text(f"{BEGIN}\n")
    with pytest.raises(InputError, match="but not"):
        write_part(document, "third\n", {})


def test_pictures_are_small_svg_for_light_and_dark_pages() -> None:
    line = curves(
        "A & B", {"x": [(0.01, 0.2), (0.1, 0.9)]}, x=("rate", 0.01, 0.1, True), y=("y", 0, 1)
    )
    bar = bars("C", {"one class": (0.5, float("nan"))}, ("ours", "theirs"), y=("y", 0, 1))
    for picture in (line, bar):
        assert ET.fromstring(picture).tag.endswith("svg")
        assert "prefers-color-scheme:dark" in picture
        assert len(picture) < 10_000
    assert line.count("<path") == 1
    assert bar.count('height="10"') == 2, "the key names both"


@pytest.mark.slow
def test_one_command_measures_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_network, "SIZES", (100, 500))
    monkeypatch.setattr(streams, "WAYS", streams.WAYS[:2])
    rng = np.random.default_rng(5)
    other = flows(rng, 1150, day="2026-02-01", net="there", edition="orig", scale=60.0)
    gadgets = [flows(rng, 80, net="home", edition="", device=f"Device{i}") for i in range(6)]
    data = written(tmp_path, *days(rng, 420), other, *gadgets)
    told = measured.measure(measured.Sources(data, None, False, (), seeds=(42,)))
    judged = {row.target.number: row for row in rows.rows(told)}
    assert judged["1"].verdict in ("goal", "must", "short")
    assert judged["13"].verdict, "addresses, times, two days and another network are there"
    assert {one.how for one in told.streamed} >= {"clean", "5 % background"}
    assert judged["9"].here != "not measured"
    text = evaluate.written(told, list(judged.values()), tmp_path / "out.md", tmp_path / "out.json")
    assert "falls short" in text or "goal reached" in text
    assert json.loads((tmp_path / "out.json").read_text())["rows"][0]["target"]["number"] == "1"
    pictures = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert pictures == [
        f"detection-{name}.svg" for name in ("classes", "learning", "poisoning", "recall")
    ]


def test_a_folder_without_tables_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--data", str(tmp_path)]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    assert evaluate.main(["--data", str(tmp_path), "--lab", "gone", "gone"]) != 0
    assert "There is no file gone" in capsys.readouterr().err
    assert evaluate.main(["--data", str(tmp_path), "--captures", str(tmp_path)]) != 0
    assert "There is no index.tsv" in capsys.readouterr().err


def test_the_tables_at_hand_give_the_split_that_was_asked_for() -> None:
    if not (SHARED / "flows" / "flows_dev.parquet").exists():
        pytest.skip("the shared tables of flows are not here")
    whole = read_tables(SHARED)
    told = [split.told for split in splits.rotations(whole, "cic17 improved", 42)]
    assert told[0] == "fit Monday | line Tuesday | judged Wednesday"
    assert len(told) == 3
    local = splits.local_split(whole, "cic18 orig-parquet", 42)
    assert local is not None
    assert len(local.fit) + len(local.line) == splits.LOCAL

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import joblib
import numpy as np
import pytest

import ml.buffer
from batches import FLOW
from errors import ModelError
from features import LIVE
from ml import registry
from ml.baseline import NEEDED, Baseline, never_fitted
from ml.buffer import FIT, HELD, NAME, Buffer, Row
from ml.versions import KEPT, METADATA

ROOT = Path(__file__).resolve().parent.parent


def flows(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.exp(rng.normal(2, 1, size=(n, 1)) + rng.normal(0, 0.2, size=(n, len(LIVE))))


def feed(
    baseline: Baseline, n: int, *, seed: int = 0, source: str = "10.0.0.5", now_s: float = 1000.0
) -> None:
    """n flows to fit and a quarter as many that set the line."""
    values = flows(np.random.default_rng(seed), n + n // 4)
    held = np.arange(len(values)) >= n
    baseline.offer(values, [source] * len(values), held, now_s)


def lines(folder: Path) -> list[str]:
    return (folder / NAME).read_text().splitlines()


def test_the_offloads_it_learned_with_are_recorded(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    assert baseline.learned_with == {}
    baseline.offloads = lambda: {"eth0": ["gro", "tso"]}
    feed(baseline, NEEDED)
    baseline.offloads = dict
    assert baseline.learned_with == {"eth0": ["gro", "tso"]}
    baseline.close()
    again = Baseline(tmp_path, background=False)
    assert again.learned_with == {"eth0": ["gro", "tso"]}
    assert again.status()["history"][0]["offloads"] == {"eth0": ["gro", "tso"]}
    # What was learned before offloads were recorded says nothing of them.
    metadata = json.loads((tmp_path / METADATA).read_text())
    del metadata["trainings"][0]["offloads"]
    (tmp_path / METADATA).write_text(json.dumps(metadata))
    assert Baseline(tmp_path, background=False).learned_with == {}


def test_three_phases(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    assert baseline.status()["phase"] == "WARMING UP"
    feed(baseline, NEEDED - 1)
    told = baseline.status()
    assert (told["phase"], told["collected"], told["needed"]) == ("WARMING UP", 499, 500)
    assert "499 of 500" in told["sentence"]
    assert told["version"] is None
    feed(baseline, 4, now_s=1001.0)
    told = baseline.status()
    assert (told["phase"], told["version"], told["trained_at"]) == ("TRAINED", 1, 1001.0)
    assert baseline.model is not None
    assert baseline.model.features == LIVE
    assert told["history"][0]["flows"] == 503
    assert told["history"][0]["threshold"] == pytest.approx(np.log10(2 / 126), abs=1e-5)
    assert "503 normal flows" in told["sentence"]


def test_a_training_in_the_background_is_told_while_it_runs(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path)
    feed(baseline, NEEDED)
    assert baseline.phase == "LEARNING"
    assert "is learning" in baseline.status()["sentence"]
    # Flows may come in the meantime, and are not lost.
    feed(baseline, 40, now_s=1002.0)
    assert baseline.wait()
    assert baseline.phase == "TRAINED"
    assert baseline.status()["collected"] == 40
    if sys.platform == "linux":
        # The niceness is the trainer's alone.
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 0


def test_the_files_of_the_specification(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, NEEDED)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        NAME,
        METADATA,
        "live_iforest.pkl",
        "live_scaler.pkl",
        "model.npz",
        "manifest.json",
        "versions",
    }
    assert registry.verify(tmp_path)["version"] == "1"
    forest = joblib.load(tmp_path / "live_iforest.pkl")
    scaler = joblib.load(tmp_path / "live_scaler.pkl")
    x = flows(np.random.default_rng(9), 20)
    model = registry.load(tmp_path)
    assert np.allclose(
        forest.score_samples(scaler.transform(x)), model.look(model.transformed(x)).raw
    )
    metadata = json.loads((tmp_path / METADATA).read_text())
    assert metadata["serving"] == 1
    assert metadata["trainings"][0]["held_out"] == 125


def test_it_trains_again_after_500_more_and_not_within_a_minute(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, NEEDED, now_s=1000.0)
    feed(baseline, NEEDED, seed=1, now_s=1030.0)
    assert baseline.status()["version"] == 1
    feed(baseline, 1, seed=2, now_s=1061.0)
    told = baseline.status()
    assert told["version"] == 2
    assert told["history"][-1]["flows"] == 1001


def test_the_buffer_slides(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    for i in range(4):
        feed(baseline, 2100, seed=i, now_s=1000.0 + 100 * i)
    told = baseline.status()["history"]
    # What no version had judged, and what only the first one had, left when enough others came.
    assert [one["flows"] for one in told] == [2100, 2100, 2100, 4000]
    assert baseline.status()["history"][0]["held_out"] == 525
    assert told[-1]["held_out"] == 1000
    assert len(lines(tmp_path)) == 1 + 5000


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, 300)
    # Killed: nothing is closed.
    again = Baseline(tmp_path, background=False)
    assert again.status()["collected"] == 300
    feed(again, 200, seed=1, now_s=2000.0)
    assert again.status()["version"] == 1
    feed(again, 70, seed=2, now_s=2500.0)
    third = Baseline(tmp_path, background=False)
    told = third.status()
    assert (told["phase"], told["version"], told["collected"]) == ("TRAINED", 1, 70)
    assert third.model is not None
    assert again.model is not None
    x = flows(np.random.default_rng(3), 50)
    assert np.array_equal(
        third.model.look(third.model.transformed(x)).oddness,
        again.model.look(again.model.transformed(x)).oddness,
    )


def test_values_come_back_exactly(tmp_path: Path) -> None:
    values = flows(np.random.default_rng(4), 5)
    values[0, 0] = 1 / 3
    values[1, 1] = -0.0
    buffer = Buffer(tmp_path, fitted=10, held=10)
    buffer.append([Row(1.5, FIT, "fe80::1", "", "", row) for row in values])
    again = Buffer(tmp_path, fitted=10, held=10)
    assert np.array_equal(again.values(FIT), values)
    assert again.newest_s == 1.5


def test_a_torn_or_foreign_buffer_never_stops_the_start(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, fitted=10, held=10)
    buffer.append([Row(1.0, HELD, "10.0.0.1", "", "", row) for row in np.ones((3, len(LIVE)))])
    path = tmp_path / NAME
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    assert Buffer(tmp_path, fitted=10, held=10).count(HELD) == 2
    path.write_bytes(content.replace(b"1.0,1.0", b"nan,1.0", 1) + b"\x00\xff garbage\n")
    assert Buffer(tmp_path, fitted=10, held=10).count(HELD) == 2
    path.write_bytes(b"")
    buffer = Buffer(tmp_path, fitted=10, held=10)
    buffer.append([Row(1.0, HELD, "", "", "", np.ones(len(LIVE)))])
    assert Buffer(tmp_path, fitted=10, held=10).count(HELD) == 1
    path.write_text("time,colour\n1,red\n")
    buffer = Buffer(tmp_path, fitted=10, held=10)
    assert buffer.count(FIT) == buffer.count(HELD) == 0
    assert path.read_text() == "time,colour\n1,red\n"
    buffer.append([Row(1.0, FIT, "", "", "", np.ones(len(LIVE)))])
    assert Buffer(tmp_path, fitted=10, held=10).count(FIT) == 1
    assert (tmp_path / f"{NAME}.damaged").read_text() == "time,colour\n1,red\n"


def test_a_last_line_cut_anywhere_loses_that_line_alone(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, fitted=10, held=10)
    buffer.append([Row(1.0, FIT, "", "", "", np.full(len(LIVE), 0.25)) for _ in range(3)])
    path = tmp_path / NAME
    content = path.read_bytes()
    for cut in range(1, 40):
        path.write_bytes(content[:-cut])
        again = Buffer(tmp_path, fitted=10, held=10)
        # Without its newline the last number may be cut too, so the line does not count.
        assert again.count(FIT) == 2
        again.append([Row(2.0, FIT, "", "", "", np.ones(len(LIVE)))])
        assert Buffer(tmp_path, fitted=10, held=10).count(FIT) == 3
        assert path.read_bytes().count(b"\n") == 4


def test_looking_at_a_folder_changes_nothing_in_it(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, NEEDED)
    feed(baseline, 7, seed=1, now_s=1001.0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    looking = Baseline(tmp_path)
    looking.status()
    looking.close()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    # The owner's next rows still reach the file.
    feed(baseline, 1, seed=2, now_s=1002.0)
    assert Baseline(tmp_path).status()["collected"] == 8


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, fitted=20, held=5)
    for i in range(300):
        buffer.append([Row(float(i), FIT, "", "", "", np.full(len(LIVE), float(i)))])
    assert len(lines(tmp_path)) <= 1 + 2 * 25
    assert Buffer(tmp_path, fitted=20, held=5).values(FIT)[:, 0].tolist() == list(range(280, 300))


def test_what_a_quarantined_source_taught_goes(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, 300, source="10.0.0.5")
    feed(baseline, 100, source="10.0.0.66")
    baseline.quarantine(frozenset({"10.0.0.66"}))
    assert baseline.status()["collected"] == 300
    assert not any("10.0.0.66" in line for line in lines(tmp_path))
    assert len(lines(tmp_path)) == 1 + 375
    baseline.quarantine(frozenset({"10.0.0.66", "10.0.0.7"}))
    assert baseline.status()["collected"] == 300


def test_confirmed_flows_join_and_can_be_taken_out(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, 490)
    odd = flows(np.random.default_rng(5), 3) * 1000
    token = baseline.add_confirmed(odd, ["a-1", "a-2", "a-3"])
    assert baseline.status()["collected"] == 493
    # Sent twice it does no further harm.
    again = baseline.add_confirmed(odd, ["a-1", "a-2", "a-3"])
    assert baseline.status()["collected"] == 493
    assert baseline.withdraw(again) == 0
    # A quarantine of addresses does not undo what a person said.
    baseline.quarantine(frozenset({""}))
    restarted = Baseline(tmp_path, background=False)
    assert restarted.withdraw(token) == 3
    assert restarted.status()["collected"] == 490
    assert restarted.withdraw(token) == restarted.withdraw("") == 0
    restarted.add_confirmed(odd, ["a-1", "a-2", "a-3"])
    feed(restarted, 10, seed=6)
    assert restarted.status()["history"][0]["confirmed"] == 3


def test_rollback_reset_and_retrain(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    with pytest.raises(ModelError, match="0 of 500"):
        baseline.retrain()
    with pytest.raises(ModelError, match="no earlier version"):
        baseline.rollback()
    feed(baseline, NEEDED)
    baseline.retrain()
    assert baseline.status()["version"] == 2
    baseline.rollback()
    told = baseline.status()
    assert told["version"] == 1
    assert [one["serving"] for one in told["history"]] == [True, False]
    assert registry.load(tmp_path).version == "1"
    assert Baseline(tmp_path, background=False).status()["version"] == 1
    baseline.use(2)
    assert baseline.status()["version"] == 2
    with pytest.raises(ModelError, match="there is 1, 2"):
        baseline.use(9)
    baseline.reset()
    told = baseline.status()
    assert (told["phase"], told["version"], told["collected"]) == ("WARMING UP", None, 0)
    assert baseline.model is None
    assert lines(tmp_path) == lines(tmp_path)[:1]
    assert Baseline(tmp_path, background=False).model is None
    baseline.rollback()
    assert baseline.status()["version"] == 2
    feed(baseline, NEEDED, now_s=5000.0)
    assert baseline.status()["version"] == 3


def test_only_the_newest_versions_are_kept(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, NEEDED)
    for _ in range(KEPT + 1):
        baseline.retrain()
    kept = sorted(int(path.name) for path in (tmp_path / "versions").iterdir())
    assert kept == [3, 4, 5, 6, 7]
    history = baseline.status()["history"]
    assert [one["version"] for one in history if one["kept"]] == kept
    assert len(history) == 7


def test_a_damaged_version_gives_way_to_the_one_before(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, NEEDED)
    baseline.retrain()
    for folder in (tmp_path, tmp_path / "versions" / "2"):
        (folder / "model.npz").write_bytes(b"damaged")
    again = Baseline(tmp_path, background=False)
    assert again.status()["version"] == 1
    assert again.model is not None
    (tmp_path / METADATA).write_text("{")
    third = Baseline(tmp_path, background=False)
    assert third.status()["version"] == 1
    assert third.status()["history"][0]["flows"] == 500


def test_a_failing_training_is_told_and_tried_again(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    feed(baseline, NEEDED - 1)
    # A file where the folder of versions must be.
    (tmp_path / "versions").write_text("in the way")
    feed(baseline, 5, now_s=1001.0)
    told = baseline.status()
    assert told["phase"] == "WARMING UP"
    assert "failed" in told["sentence"]
    assert told["trouble"]
    (tmp_path / "versions").unlink()
    feed(baseline, 1, now_s=1030.0)
    assert baseline.model is None
    feed(baseline, 1, now_s=1070.0)
    told = baseline.status()
    assert (told["phase"], told["trouble"]) == ("TRAINED", None)


def test_a_reset_during_a_training_wins(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path)
    feed(baseline, NEEDED)
    baseline.reset()
    assert baseline.wait()
    assert baseline.model is None
    assert baseline.status()["phase"] == "WARMING UP"


def test_connections_on_one_side_of_the_split_still_get_a_line(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    values = flows(np.random.default_rng(7), NEEDED)
    baseline.offer(values, ["10.0.0.5"] * NEEDED, np.zeros(NEEDED, bool), 1000.0)
    told = baseline.status()["history"][0]
    assert (told["flows"], told["held_out"]) == (400, 100)


def test_the_never_fitted_fifth_is_stable_and_a_fifth() -> None:
    rng = np.random.default_rng(8)
    rows = np.zeros(20_000, FLOW)
    rows["src_lo"] = rng.integers(1, 1 << 32, len(rows), np.uint64)
    rows["src_port"] = rng.integers(1024, 65535, len(rows))
    rows["dst_port"] = 443
    rows["protocol"] = 6
    held = never_fitted(rows)
    assert held.mean() == pytest.approx(0.2, abs=0.01)
    rows["packets"] += 5
    rows["first_ns"] += 10**12
    assert np.array_equal(never_fitted(rows), held)
    assert np.array_equal(never_fitted(rows[17:18]), held[17:18])
    one = np.zeros(1, FLOW)
    one["src_lo"], one["src_port"], one["dst_port"], one["protocol"] = 167772161, 50001, 53, 17
    # Buffers on disk rely on it: the same flow must fall on the same side for ever.
    assert never_fitted(np.repeat(one, 2)).tolist() == [False, False]


def test_killed_while_training_it_starts_whole(tmp_path: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r}); sys.path.insert(0, {str(ROOT / "tests")!r})
from pathlib import Path
from test_baseline import feed
from ml.baseline import Baseline
baseline = Baseline(Path({str(tmp_path)!r}), background=False)
feed(baseline, 500)
print("trained", flush=True)
while True:
    baseline.retrain()
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "trained\n"
    # Into the middle of the next trainings, wherever that is.
    for _ in range(40):
        if (tmp_path / "versions" / "3").exists():
            break
        child.poll()
        threading.Event().wait(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    again = Baseline(tmp_path, background=False)
    assert again.model is not None
    assert again.status()["phase"] == "TRAINED"
    again.retrain()
    assert registry.verify(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_no_learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ml.buffer, "RETRY_S", 0.0)
    baseline = Baseline(tmp_path, background=False)
    (tmp_path / NAME).symlink_to("/dev/full")
    feed(baseline, 40)
    told = baseline.status()
    assert told["collected"] == 40
    assert "No space left" in told["trouble"]
    # With the next flows the whole file is written anew; here that replaces the link.
    feed(baseline, 20, seed=1, now_s=1001.0)
    assert baseline.status()["trouble"] is None
    assert len(lines(tmp_path)) == 1 + 50 + 25


def test_what_the_disk_does_not_take_is_not_decided(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    baseline = Baseline(folder, background=False)
    feed(baseline, NEEDED)
    shutil.rmtree(folder)
    folder.write_text("a file in the place of the folder")
    with pytest.raises(ModelError, match="can't be written"):
        baseline.reset()
    assert baseline.phase == "TRAINED"

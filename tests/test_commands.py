"""The command line as a person uses it: results, exit codes, one sentence on an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.captures import pcapng
from tests.frames import golden, write_pcap

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "app.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_flows_as_csv_and_parquet(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "golden.pcap", golden())
    for name in ("out.csv", "out.parquet"):
        run("flows", capture, "--out", tmp_path / name)
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table.columns[:7]) == (
        ["flow_id", "src_ip", "src_port", "dst_ip", "dst_port", "protocol", "timestamp"]
    )
    row = table.iloc[0]
    assert (row["src_ip"], row["dst_port"], row["protocol"]) == ("10.0.0.1", 443, "TCP")
    assert row["timestamp"] == "2023-11-14T22:13:20.000000Z"
    assert row["Fwd IAT Std"] == pytest.approx(19950.02088553627)
    assert (row["state"], row["connection_state"], row["PSH Flag Count"]) == ("rst", "RST", 2)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "out.parquet"), table, check_dtype=False, check_exact=False
    )
    assert not list(tmp_path.glob("*.partial"))


def test_an_empty_capture_gives_an_empty_table(tmp_path: Path) -> None:
    run("flows", write_pcap(tmp_path / "empty.pcap", []), "--out", tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv")
    assert len(table) == 0
    assert "Flow Duration" in table.columns


def test_flows_of_nothing_readable_and_over_a_capture_are_refused(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "golden.csv", golden())
    whole = capture.read_bytes()
    assert "would overwrite" in run("flows", capture, "--out", capture, code=2).stderr
    assert capture.read_bytes() == whole
    half_made = write_pcap(tmp_path / "out.csv.partial", golden())
    told = run("flows", half_made, "--out", tmp_path / "out.csv", code=2).stderr
    assert "would overwrite" in told
    assert half_made.read_bytes() == whole
    half_made.unlink()
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(whole[:50])
    done = run("flows", cut, "--out", tmp_path / "out.csv", code=3)
    assert done.stderr.count("\n") == 1
    assert "nothing is read" in done.stderr
    assert not list(tmp_path.glob("out.csv*"))


def test_replay_writes_its_summary(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "golden.pcap", golden())
    run("replay", capture, "--exit", "--summary", tmp_path / "s.json", "--data-dir", tmp_path / "d")
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["packets"], summary["flows"]) == (6, 1)
    assert summary["verdicts"] == {"ALERT": 0, "ALLOW": 1}
    assert summary["dropped"] == {
        "kernel": 0,
        "interface": 0,
        "queue": 0,
        "table": 0,
    }
    assert summary["baseline"]["phase"] == "WARMING UP"
    logs = json.loads((tmp_path / "d" / "logs_store.json").read_text())
    assert [row["dst_port"] for row in logs] == [443]


def test_a_forged_time_does_not_keep_the_replay_from_ending(tmp_path: Path) -> None:
    frames = [(time_ns, bytes(60), 60) for time_ns in (10**18, (1 << 63) - 1)]
    capture = tmp_path / "forged.pcapng"
    capture.write_bytes(pcapng(frames))
    run("replay", capture, "--exit", "--summary", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["packets"] == 2


def test_results_that_can_not_be_written_are_told_in_a_sentence(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "golden.pcap", golden())
    nowhere = tmp_path / "nowhere"
    for command in (
        ("flows", "--out", nowhere / "x.csv"),
        ("replay", "--exit", "--summary", nowhere / "s"),
    ):
        done = run(*command, capture, code=1)
        assert f"{nowhere}" in done.stderr
        assert "No such file" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_an_ended_replay_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "app.py", "replay", "data/demo/home.pcap.gz", "--exit", "--speed", "1x"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("secureflux-replay-*/versions.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        threading.Event().wait(0.05)
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("secureflux-replay-*"))


def test_a_damaged_capture_is_read_up_to_the_damage_and_told(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "cut.pcap", golden())
    capture.write_bytes(capture.read_bytes()[:-20])
    done = run("replay", capture, "--exit", "--summary", tmp_path / "s.json")
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["packets"] == 5
    assert summary["damage"]
    assert done.stderr.count("cut.pcap") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("replay", "nothing.pcap", "--exit"), 3, "nothing.pcap"),
        (("replay", "README.md", "--exit"), 3, "README.md"),
        (("replay", "data/demo/home.pcap.gz", "README.md", "--exit"), 3, "README.md"),
        (("flows", "README.md", "--out", "x.csv"), 3, "README.md"),
        (("flows", "README.md", "--out", "x.xls"), 2, ".csv or .parquet"),
        (("serve", "--port", "99999"), 2, "PORT"),
        (("--port", "99999"), 2, "PORT"),
        (("-v", "--interface", "nope0"), 1, "nope0"),
        (("serve", "--host", "0.0.0.0"), 2, "password"),
        (("serve", "--interface", "nope0"), 1, "nope0"),
        (("models", "use"), 2, "Which version"),
        (("serve", "--nonsense"), 2, "--nonsense"),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = run(*arguments, "--data-dir", str(tmp_path), code=code)
    told = [line for line in done.stderr.splitlines() if not line.startswith(("usage", " "))]
    assert len(told) == 1
    assert words in told[0]
    assert not (ROOT / "x.csv").exists()


def test_check_answers_each_question(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "app.py", "check", "--data-dir", str(tmp_path), "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 10, done.stderr
    assert all(line[0] in "✓✗" for line in lines)
    assert done.returncode == any(line[0] == "✗" for line in lines)
    assert "✓ Models" in done.stdout


def test_models_and_version(tmp_path: Path) -> None:
    told = run("models", "verify", "--data-dir", tmp_path).stdout
    assert all(f"✓ {name}: version" in told for name in ("home", "industrial", "reduced"))
    assert run("--version").stdout.startswith("SecureFlux ")

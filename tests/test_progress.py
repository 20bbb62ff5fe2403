"""Progress is one line on a terminal, cleared at the end, and nothing in a short run elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from replay import Replay
from tests.frames import golden, write_pcap

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import time
from commands.progress import Progress
with Progress("rows") as progress:
    began = time.monotonic()
    while (spent := time.monotonic() - began) < 1.0:
        worked = max(spent - 0.3, 0)
        progress.update(round(worked * 1000), worked / 2)
"""


needs_a_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


def shown_on_a_terminal(*arguments: str) -> str:
    """What Python with these arguments writes on a terminal that is its standard error."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:
        pass  # Linux's way to say that the other end is closed
    finally:
        os.close(ours)
    assert process.wait(60) == 0
    return shown.decode()


@needs_a_terminal
def test_a_terminal_sees_one_line_that_goes_away() -> None:
    shown = shown_on_a_terminal("-c", SCRIPT)
    assert "getting ready" in shown
    told = re.findall(r"(\d+)%, (\d+) rows, ([0-9,]+) rows/s, ([0-9.]+) (m?s) left", shown)
    assert told
    percent, rows, speed, left, unit = told[-1]
    assert abs(int(rows) - 20 * int(percent)) <= 10
    assert 850 <= int(speed.replace(",", "")) <= 1200, "what came before the first row counts"
    assert unit == "s"
    assert abs(float(left) + int(rows) / 1000 - 2.0) < 0.3
    assert "\n" not in shown
    *_, last, after = shown.split("\r")
    assert (last.strip(), after) == ("", "")


@needs_a_terminal
def test_a_replay_tells_how_far_it_is() -> None:
    shown = shown_on_a_terminal("app.py", "replay", "data/demo/home.pcap.gz", "--exit")
    assert re.search(r"\r\d+%, [0-9,]+ packets", shown)
    assert "\n" not in shown


def test_elsewhere_a_short_run_says_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""


def test_a_replay_knows_which_part_of_its_files_it_has_read(tmp_path: Path) -> None:
    frames = golden()
    long = write_pcap(tmp_path / "long.pcap", [frames[i % 6] for i in range(20_000)])
    short = write_pcap(tmp_path / "short.pcap", frames)
    replay = Replay([long, short])
    parts = [replay.fraction]
    while replay.read(0.0) is not None:
        parts.append(replay.fraction)
    known = [part for part in parts if part is not None]
    assert known == sorted(known)
    assert len(known) == len(parts)
    assert (known[0], known[-1]) == (0.0, 1.0)
    assert any(0.1 < part < 0.5 for part in known), "within the first of two files"
    assert 0.5 in known

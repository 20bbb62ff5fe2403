"""Progress is one line on a terminal, cleared at the end, and nothing in a short run elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import time
from commands.progress import Progress
with Progress("rows") as progress:
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        progress.update(1000, 0.25)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_sees_one_line_that_goes_away() -> None:
    import pty

    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "25%, 1,000 rows, " in shown
    assert " left" in shown
    assert "\n" not in shown
    *_, last, after = shown.split("\r")
    assert (last.strip(), after) == ("", "")


def test_elsewhere_a_short_run_says_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""

"""Without the right to capture: one sentence with the command, and sample traffic apart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import started

WITHOUT = ["setpriv", "--bounding-set=-net_raw,-net_admin", "--inh-caps=-net_raw,-net_admin"]


def _why_not() -> str | None:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "taking a right away needs Linux and root"
    if shutil.which("setpriv") is None:
        return "setpriv is not installed"
    tried = subprocess.run([*WITHOUT, "true"], capture_output=True)
    return None if tried.returncode == 0 else "rights can't be taken away here"


def test_sample_traffic_plays_in_a_directory_of_its_own(tmp_path: Path) -> None:
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    command = [*WITHOUT, sys.executable, "app.py", "serve", "--interface", "lo", "--port", "0"]
    command += ["--data-dir", str(tmp_path)]
    with started(command, stderr=subprocess.PIPE) as server:
        status = server.wait_for("/api/live_status", lambda found: found["seq"] > 500)
        assert status["sample"] is True
        assert status["capture"]["state"] == "sample"
        assert "setcap" in status["capture"]["remedy"]["command"]
        # The harmless head is read in one go; nothing in it is an incident.
        assert sum(status["open"].values()) == 0
        assert status["capture"]["flows_ended"] < 3000
        assert {path.name for path in tmp_path.iterdir()} == {"sample"}
        server.process.terminate()
        assert server.process.wait(20) == 0
    assert server.process.stderr is not None
    first = server.process.stderr.read().splitlines()[0]
    assert first.startswith("secureflux: This program may not capture on lo")
    assert "sudo setcap" in first

"""One version of each compiled function: a second one would be compiled while packets wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from tests.namespaces import Hosts, why_not

ROOT = Path(__file__).resolve().parents[1]

CALLED_FROM_PYTHON = {
    "capture.buffer.walk_block",
    "capture.records._walk",
    "packets.decoder.decode_frames",
    "packets.decoder.enter_tunnels",
    "packets.duplicates.mark_copies",
    "flow_tracker.track",
    "flow_tracker.expire",
    "flow_tracker.provisional",
    "flow_tracker.flush",
    "patterns.guesses.count_flows",
    "patterns.windows.move_clock",
    "patterns.windows.count_packets",
    "ml.forest.path_sums",
    "ml.forest.interpolate",
}
"""All others are called by these. Where a caller comes from the cache they come as a part of it,
and have no version of their own in the process."""

_MISSING = why_not()

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT),  # type: ignore[attr-defined]
    reason="nothing is compiled with NUMBA_DISABLE_JIT",
)


def check(command: list[str], **environment: str) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    versions = json.loads(done.stdout.splitlines()[-1])
    assert len(versions) > 100, "the compiled functions were not found"
    assert {name for name, count in versions.items() if count > 1} == set()
    assert {name for name in CALLED_FROM_PYTHON if versions[name] != 1} == set()


def test_one_version_of_each_function_after_files(tmp_path: Path) -> None:
    """With nothing compiled before: what comes from the cache tells no versions of its parts."""
    check([sys.executable, "-m", "tests.signatures_child"], NUMBA_CACHE_DIR=str(tmp_path))


@pytest.mark.live
@pytest.mark.skipif(_MISSING is not None, reason=_MISSING or "")
def test_one_version_of_each_function_after_files_and_two_interfaces() -> None:
    """In a host of its own, so that nobody else's packets are seen."""
    with Hosts("a", "b") as hosts:
        hosts.wire(("a", "w0", "198.18.79.1/30"), ("b", "w0", "198.18.79.2/30"))
        hosts.wait_for_links("a", "w0")
        child = (sys.executable, "-m", "tests.signatures_child", "lo", "w0")
        check(hosts.command("a", *child))

"""`compile`: how long a start takes, with nothing compiled and with everything in the cache.

The real `serve`, on the loopback interface where that may be captured, else without a capture.
From the start of the process: until a page answers, and until the hot loops are there and the
packets are read. Pages are polled all the while.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Plan, Table, spread
from benchmarks.poller import Poller, ask
from benchmarks.program import Program
from capture import capture_remedy
from errors import AppError

__all__ = ["measure", "tables"]

TARGETS_S: Final = {"cold": (2.0, 15.0), "cached": (2.0, 3.0)}
"""Until pages answer, until packets are read."""
_LOOPBACK: Final = "lo"
_LONGEST_S: Final = 120.0
_POLL_S: Final = 0.02
_POLLED: Final = ("/api/live_status", "/captured_data?limit=100", "/alerts_data", "/")


def measure(plan: Plan) -> dict[str, Any]:
    # Elsewhere the loopback interface has another name, or none.
    captures = sys.platform == "linux" and capture_remedy(_LOOPBACK) is None
    arguments = ("--interface", _LOOPBACK) if captures else ("--no-capture",)
    found: dict[str, list[dict[str, Any]]] = {"cold": [], "cached": []}
    for turn in range(plan.runs):
        cache = plan.folder / f"kernels-{turn}"
        for name, starts in found.items():
            starts.append(_start(plan.folder / "start", cache, arguments))
            one = starts[-1]
            plan.tell(
                f"turn {turn + 1} of {plan.runs}, {name}: pages after {one['answers_s']:.2f} s, "
                f"ready after {one['ready_s']:.2f} s"
            )
        shutil.rmtree(cache)
    return {"captures": captures, "turns": found}


def _start(data_dir: Path, cache: Path, arguments: tuple[str, ...]) -> dict[str, Any]:
    shutil.rmtree(data_dir, ignore_errors=True)
    cache.mkdir(exist_ok=True)
    with Program(data_dir, *arguments, environment={"NUMBA_CACHE_DIR": str(cache)}) as program:
        ask(program.address, "/api/live_status")
        answers_s = time.monotonic() - program.began
        poller = Poller(program.address, _POLLED)
        poller.start()
        while ask(program.address, "/api/live_status")["capture"]["state"] == "preparing":
            if time.monotonic() - program.began > _LONGEST_S:
                raise AppError(f"The program was not ready after {_LONGEST_S:.0f} s.")
            time.sleep(_POLL_S)
        ready_s = time.monotonic() - program.began
        poller.stop()
        cpu_s, rss_bytes = program.used()
    return {
        "answers_s": answers_s,
        "ready_s": ready_s,
        "cpu_s": cpu_s,
        "rss_bytes": rss_bytes,
        "polled": poller.told(),
    }


def tables(result: dict[str, Any]) -> list[Table]:
    rows = []
    for name, starts in result["turns"].items():
        answers_s, ready_s = TARGETS_S[name]
        # A start from the cache may be over before the first poll.
        polled = [one["polled"] for one in starts if one["polled"]["polls"]]
        rows.append(
            (
                {"cold": "nothing compiled", "cached": "all in the cache"}[name],
                spread([one["answers_s"] for one in starts]).text(),
                f"< {answers_s:.0f}",
                spread([one["ready_s"] for one in starts]).text(),
                f"< {ready_s:.0f}",
                spread([one["p95_ms"] for one in polled]).text(".0f") if polled else "-",
                spread([one["max_ms"] for one in polled]).text(".0f") if polled else "-",
            )
        )
    columns = (
        *("start", "s until pages answer", "target", "s until packets are read", "target"),
        *("poll p95 until then, ms", "longest poll, ms"),
    )
    notes = (
        []
        if result["captures"]
        else ["Without a capture: there is no right to one here, or it is not Linux."]
    )
    return [Table("Starts of the program", columns, rows, notes)]

"""Asks a running program for its pages, as an open browser does, and times the answers.

    python -m benchmarks.poller ADDRESS [--retrain]

Ten questions a second until its standard input ends; then it answers the times. With --retrain it
has the live model trained again as soon as a training is over, as an admin could.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import threading
import time
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.measure import answer, percentile

__all__ = ["PATHS", "Poller", "RefusedError", "ask"]

PATHS: Final = ("/api/live_status", "/captured_data?limit=100", "/alerts_data", "/live", "/")
_INTERVAL_S: Final = 0.1
_LOOK_S: Final = 0.05
_MOST_S: Final = 300.0


class RefusedError(OSError):
    """An answer with a status of 400 or more."""

    def __init__(self, path: str, status: int, told: bytes) -> None:
        super().__init__(f"{path} answered {status}: {told[:200]!r}")
        self.status = status


def ask(address: str, path: str, body: Any = None, *, timeout_s: float = 20.0) -> Any:
    """The answer to GET, or to POST where there is a body: JSON decoded, else text."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout_s)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        told = response.read()
        if response.status >= 400:
            raise RefusedError(path, response.status, told)
        kind = response.headers.get_content_type()
        return json.loads(told) if kind == "application/json" else told.decode()
    finally:
        connection.close()


class Poller:
    """Polls from `start` to `stop` in a thread of its own; each answer's seconds by path.

    failures: questions without an answer.
    """

    def __init__(self, address: str, paths: tuple[str, ...] = PATHS) -> None:
        self.seconds: dict[str, list[float]] = {path: [] for path in paths}
        self.failures = 0
        self._address = address
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(30)

    def told(self) -> dict[str, Any]:
        """Milliseconds of all answers: median, 95th percentile, longest; and how many."""
        taken = [value * 1e3 for values in list(self.seconds.values()) for value in values]
        if not taken:
            return {"polls": 0, "failures": self.failures}
        return {
            "polls": len(taken),
            "failures": self.failures,
            "p50_ms": percentile(taken, 0.5),
            "p95_ms": percentile(taken, 0.95),
            "max_ms": max(taken),
        }

    def _run(self) -> None:
        due = time.monotonic()
        number = 0
        paths = list(self.seconds)
        while not self._stopped.wait(max(due - time.monotonic(), 0.0)):
            path = paths[number % len(paths)]
            number += 1
            due += _INTERVAL_S
            began = time.perf_counter()
            try:
                ask(self._address, path)
            except OSError:
                self.failures += 1
                continue
            self.seconds[path].append(time.perf_counter() - began)


def _retrain_until_input_ends(address: str) -> int:
    """Trainings asked for, one as soon as the one before is over."""
    asked = 0
    deadline_s = time.monotonic() + _MOST_S
    while not _input_ended(_LOOK_S) and time.monotonic() < deadline_s:
        if ask(address, "/api/live_status")["baseline"]["phase"] == "TRAINED":
            try:
                ask(address, "/api/baseline/retrain", {})
            except RefusedError as refused:
                # It began one by itself since the question before.
                if refused.status != HTTPStatus.CONFLICT:
                    raise
                continue
            asked += 1
    return asked


def _input_ended(timeout_s: float) -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return bool(ready) and not sys.stdin.readline()


def main(address: str, *, retrain: bool) -> None:
    poller = Poller(address)
    poller.start()
    asked = 0
    if retrain:
        asked = _retrain_until_input_ends(address)
    else:
        deadline_s = time.monotonic() + _MOST_S
        while not _input_ended(1.0) and time.monotonic() < deadline_s:
            pass
    poller.stop()
    answer({**poller.told(), "trainings_asked": asked})


if __name__ == "__main__":
    main(sys.argv[1], retrain="--retrain" in sys.argv[2:])

"""The real program in a process of its own, asked from outside as a browser would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.measure import ROOT, stop_all
from errors import AppError

__all__ = ["Program"]

_START_S: Final = 120.0


class Program:
    """`app.py serve` with these arguments, from `with` to its end.

    inside: makes a command line run where the program runs (a namespace). address: of its pages,
    once it has told it. began: time.monotonic() at its start.
    """

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        inside: Callable[..., list[str]] = lambda *command: list(command),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._inside = inside
        command = inside(sys.executable, "app.py", "serve", "--data-dir", str(data_dir))
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            [*command, "--port", "0", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.address = ""

    def __enter__(self) -> Program:
        try:
            self.address = self._first_address()
        except BaseException:
            stop_all([self._process])
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop_all([self._process])

    def _first_address(self) -> str:
        # A program that says nothing must not be waited for without end.
        watch = threading.Timer(_START_S, self._process.kill)
        watch.start()
        told = []
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                told.append(line.strip())
                if "Running on" in line:
                    return line.split("Running on ")[1].strip()
        finally:
            watch.cancel()
        raise AppError(f"The program ended before it served: {' '.join(told) or 'no word'}")

    def ask(self, path: str, body: Any = None) -> Any:
        """The decoded JSON of an answer, asked for where the program runs."""
        code = (
            "import json, sys; from benchmarks.poller import ask; "
            "print(json.dumps(ask(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))"
        )
        command = self._inside(sys.executable, "-c", code, self.address, path, json.dumps(body))
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise AppError(f"{path}: {done.stderr.strip().splitlines()[-1]}")
        return json.loads(done.stdout)

    def wait_for(self, accept: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Ask /api/live_status until the answer is accepted; what: said where it never is."""
        deadline_s = time.monotonic() + _START_S
        while True:
            found: dict[str, Any] = self.ask("/api/live_status")
            if accept(found):
                return found
            if time.monotonic() > deadline_s:
                raise AppError(f"The program never came so far: {what}.")
            time.sleep(0.2)

    def start_beside(self, *command: str) -> subprocess.Popen[str]:
        """A module of ours where the program runs; its input is a pipe that ends it."""
        return subprocess.Popen(
            self._inside(sys.executable, "-m", *command),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def used(self) -> tuple[float, int]:
        """(CPU seconds so far, resident bytes) of the program."""
        # `ip netns exec` becomes the program; it starts no other.
        process = psutil.Process(self._process.pid)
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss

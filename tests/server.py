"""The real program in a second process, for tests that ask it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "data" / "demo" / "home.pcap.gz"
DEADLINE_S = 120.0


class Server:
    """The real program in a second process."""

    def __init__(self, process: subprocess.Popen[str], address: str, told: list[str]) -> None:
        self.process = process
        self.address = address
        self.told = told

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def wait_for(self, path: str, accept: Any) -> Any:
        """Ask until the answer is accepted; a bound, not a pace, is what fails."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            found = self.ask(path)
            if accept(found):
                return found
            assert time.monotonic() < deadline, f"{path} never came to it: {str(found)[:500]}"
            threading.Event().wait(0.05)


@contextmanager
def started(command: Sequence[str], *, stderr: int | None = None) -> Iterator[Server]:
    """The program by this command line, from its first line of output to its end."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ.copy()
    )
    try:
        told: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.strip())
            if "Running on" in line:
                break
        else:
            pytest.fail(f"the program ended before it served: {told}")
        yield Server(process, told[-1].split("Running on ")[1], told)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)


def running(*arguments: str) -> AbstractContextManager[Server]:
    """`app.py` with these arguments, on a free port."""
    return started([sys.executable, "app.py", *arguments, "--port", "0"])

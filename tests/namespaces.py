"""Hosts made of network namespaces, joined by wires, for tests with real traffic on Linux."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


class Hosts:
    """Namespaces by a short name; all are taken away at the end."""

    def __init__(self, *names: str) -> None:
        self._full = {name: f"sf{os.getpid() % 100_000}{name}" for name in names}

    def __enter__(self) -> Hosts:
        try:
            for name in self._full.values():
                run("ip", "netns", "add", name)
                run("ip", "-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"network namespaces do not work here: {error.stderr.decode()}")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._full.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def ip(self, host: str, *arguments: str) -> None:
        run("ip", "-n", self._full[host], *arguments)

    def command(self, host: str, *command: str) -> list[str]:
        """The command line that runs in that host."""
        return ["ip", "netns", "exec", self._full[host], *command]

    def inside(self, host: str, *command: str) -> str:
        done = subprocess.run(
            self.command(host, *command), check=True, capture_output=True, text=True, timeout=30
        )
        return done.stdout

    def wire(self, one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
        """A veth pair between two ends: (host, interface, address with prefix or "")."""
        ends = [(self._full[host], name) for host, name, _ in (one, other)]
        run(
            *("ip", "link", "add", ends[0][1], "netns", ends[0][0], "type", "veth"),
            *("peer", "name", ends[1][1], "netns", ends[1][0]),
        )
        for host, name, address in (one, other):
            # IPv6 would speak up by itself whenever it likes.
            self.inside(host, "sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
            if address:
                self.ip(host, "addr", "add", address, "dev", name)
            self.ip(host, "link", "set", name, "up")

    def wait_for_links(self, host: str, *interfaces: str) -> None:
        """Until the kernel has told of the links: it takes up to a second over it."""
        deadline_s = time.monotonic() + 5
        tick = threading.Event()
        for name in interfaces:
            while " state UP " not in self.inside(host, "ip", "-o", "link", "show", name):
                assert time.monotonic() < deadline_s, f"{name} has no link"
                tick.wait(0.02)

    @contextmanager
    def watching(self, host: str, *interfaces: str) -> Iterator[dict[str, Any]]:
        """Watch interfaces of a host; what is yielded is filled with all that was told at the
        end of the block (see tests/watcher_child.py)."""
        self.wait_for_links(host, *interfaces)
        command = self.command(host, sys.executable, "-m", "tests.watcher_child", *interfaces)
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        told: dict[str, Any] = {}
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == "capturing"
            yield told
            answer, _ = process.communicate("stop\n", timeout=30)
            told.update(json.loads(answer))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def why_not(*tools: str) -> str | None:
    """What a test with namespaces lacks here, None if all is there."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux"
    missing = [tool for tool in ("ip", "sysctl", *tools) if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}" if missing else None


def live(*tools: str) -> list[pytest.MarkDecorator]:
    """The marks of a module of such tests."""
    reason = why_not(*tools)
    return [pytest.mark.live, pytest.mark.skipif(reason is not None, reason=reason or "")]

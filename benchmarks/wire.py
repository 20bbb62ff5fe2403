"""Two hosts made of network namespaces and a wire between them, on Linux, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Final

from errors import AppError

__all__ = ["WATCHED", "Wire", "why_not"]

WATCHED: Final = "sfwatched"
SENDING: Final = "sfsending"
_TOOLS: Final = ("ip", "ethtool", "sysctl")


def why_not() -> str | None:
    """What is missing here for such hosts, in a sentence; None where all is there."""
    if not sys.platform.startswith("linux"):
        return "Network namespaces are Linux's."
    if os.geteuid() != 0:
        return "Making network namespaces needs root."
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: install iproute2, ethtool and procps."
    name = f"sfprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        return "Network namespaces can't be made here."
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None


class Wire:
    """`here` has the interface WATCHED, `there` the interface SENDING; offloads are off."""

    def __init__(self) -> None:
        self._here, self._there = f"sfh{os.getpid()}", f"sft{os.getpid()}"

    def __enter__(self) -> Wire:
        try:
            for space in (self._here, self._there):
                _run("ip", "netns", "add", space)
                _run("ip", "-n", space, "link", "set", "lo", "up")
            _run(
                *("ip", "link", "add", WATCHED, "netns", self._here, "type", "veth"),
                *("peer", "name", SENDING, "netns", self._there),
            )
            for space, name in ((self._here, WATCHED), (self._there, SENDING)):
                # IPv6 would speak up by itself whenever it likes.
                quiet = f"net.ipv6.conf.{name}.disable_ipv6=1"
                _run("ip", "netns", "exec", space, "sysctl", "-qw", quiet)
                switches = ("gro", "off", "gso", "off", "tso", "off")
                _run("ip", "netns", "exec", space, "ethtool", "-K", name, *switches)
                _run("ip", "-n", space, "link", "set", name, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for space in (self._here, self._there):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def here(self, *command: str) -> list[str]:
        """The command line that runs where the capture is."""
        return ["ip", "netns", "exec", self._here, *command]

    def there(self, *command: str) -> list[str]:
        """The command line that runs where the traffic comes from."""
        return ["ip", "netns", "exec", self._there, *command]

    def arrived(self) -> int:
        """Frames the kernel has delivered to WATCHED so far, by its own counter."""
        counter = f"/sys/class/net/{WATCHED}/statistics/rx_packets"
        return int(_run(*self.here("cat", counter)))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise AppError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout

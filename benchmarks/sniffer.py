"""Scapy's `sniff`, counting: what its users get from an interface.

    python -m benchmarks.sniffer INTERFACE

It says "ready", counts until its standard input ends, and answers. `prn` counts each packet;
nothing is stored.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Final

from benchmarks.measure import answer

__all__ = ["count"]

_DRAIN_S: Final = 1.0


def count(interface: str) -> dict[str, Any]:
    """Packets that came until the input ended and the socket was silent for a while, 10 s at most:
    what is read after that, a person would not wait for either."""
    from scapy.sendrecv import AsyncSniffer

    found = 0
    last_s = time.monotonic()

    def one(packet: Any) -> None:
        nonlocal found, last_s
        found += 1
        last_s = time.monotonic()

    listening = threading.Event()
    sniffer = AsyncSniffer(iface=interface, prn=one, store=False, started_callback=listening.set)
    began_s = time.process_time()
    sniffer.start()
    listening.wait(20)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    deadline_s = time.monotonic() + 10.0
    while time.monotonic() < min(last_s + _DRAIN_S, deadline_s):
        time.sleep(0.05)
    sniffer.stop()
    return {"received": found, "cpu_s": time.process_time() - began_s}


if __name__ == "__main__":
    import scapy.all  # noqa: F401  (loads what dissects, before anything is timed)

    answer(count(sys.argv[1]))

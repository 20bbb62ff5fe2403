"""The whole program in one process, over a file and, with interfaces named, live; for tests.

    python -m tests.signatures_child [INTERFACE...]

prints how many compiled versions each compiled function has afterwards, as JSON.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from capture import Capture
from compiled import KERNEL_SOURCES
from engine import Engine
from replay import Replay
from settings import Settings
from store import Store
from tests.captures import pcapng, some_frames, write

ROOT = Path(__file__).resolve().parents[1]
WAIT_S = 120.0


def main(interfaces: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        over_files(Path(folder))
        if interfaces:
            live(Path(folder), interfaces)
    sys.stdout.write(json.dumps(versions()) + "\n")


def over_files(folder: Path) -> None:
    """The sample traffic, which has attacks in it, and a file with frames of two link types."""
    mixed = write(folder / "mixed.pcapng", pcapng(some_frames(300), link_types=(1, 113)))
    sample = ROOT / "data" / "demo" / "home.pcap.gz"
    engine = made(folder / "file", Replay([sample, mixed]), "replay")
    engine.start()
    assert engine.wait_finished(WAIT_S)
    assert engine.failure is None, engine.failure
    assert engine.analysis.tracker.ended > 1000
    engine.close()


def live(folder: Path, interfaces: list[str]) -> None:
    """What this process sends to itself, seen until it has been judged."""
    source = Capture(interfaces, bpf_filter="", snaplen=512)
    source.start()
    engine = made(folder / "live", source, "live")
    engine.start()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    deadline_s = time.monotonic() + WAIT_S
    tick = threading.Event()
    while engine.analysis.decoder.packets < 20 or sum(engine.analysis.verdicts.values()) == 0:
        assert time.monotonic() < deadline_s, "nothing was captured or judged"
        sender.sendto(b"hello", ("127.0.0.1", 9))
        tick.wait(0.02)
    engine.close()
    assert engine.failure is None, engine.failure


def made(folder: Path, source: Replay | Capture, mode: str) -> Engine:
    settings = replace(
        Settings(),
        DATA_DIR=str(folder),
        LIVE_MODEL_PATH=str(folder / "live_model"),
        ACTIVE_TIMEOUT_SECONDS=1.0,
    )
    return Engine(settings, Store(folder), source, mode="live" if mode == "live" else "replay")


def versions() -> dict[str, int]:
    found = {}
    for name in KERNEL_SOURCES:
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
        for attribute, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and hasattr(
                value, "signatures"
            ):
                found[f"{module.__name__}.{attribute}"] = len(value.signatures)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])

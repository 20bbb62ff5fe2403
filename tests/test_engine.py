"""The engine's thread when something goes wrong: it ends, and says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine import Engine
from replay import Replay
from settings import Settings
from store import Store
from tests.frames import golden, write_pcap


def replaying(folder: Path) -> Engine:
    capture = write_pcap(folder / "golden.pcap", golden())
    settings = replace(
        Settings(), DATA_DIR=str(folder / "data"), LIVE_MODEL_PATH=str(folder / "live")
    )
    return Engine(settings, Store(folder / "data"), Replay([capture]), mode="replay")


def test_a_fault_at_the_very_end_does_not_let_others_wait_for_ever(tmp_path: Path) -> None:
    engine = replaying(tmp_path)
    engine.store.close()  # the last flows find no place to be written to
    engine.start()
    assert engine.wait_finished(60)
    assert engine.failure is not None
    assert engine.exit_code == 1
    engine.stop()

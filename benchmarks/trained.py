"""A data directory in which all three models vote, as after some days on a network.

The home and industrial models are the shipped ones, calibrated on local flows; the live model is
trained on the traffic that is judged afterwards, made from another seed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import capture
import flow_tracker
import ml.forest
import packets
from batches import FlowBatch
from benchmarks.synthetic import write_capture
from errors import AppError
from flow_tracker import FlowTracker
from ml.candidate import REPEATS
from packets import Decoder
from predict import Predictor
from settings import Settings

__all__ = ["LESSONS_S", "settings_in", "train", "warm"]

LESSONS_S: Final = 10
"""Of packet time; 500 flows of each second are learned from."""
_PACKETS_A_FLOW: Final = 17
_SEED: Final = 2


def settings_in(data_dir: Path) -> Settings:
    """The defaults, with everything that is learned in that directory."""
    return replace(
        Settings(), DATA_DIR=str(data_dir), LIVE_MODEL_PATH=str(data_dir / "models" / "live")
    )


def warm() -> None:
    """Load the loops that lead from frames to verdicts."""
    for room in (capture, packets, flow_tracker, ml.forest):
        room.warm()


def train(data_dir: Path, *, gap_us: int, seconds: int) -> None:
    """Fill an empty data directory from traffic with a packet every `gap_us`.

    AppError where a model does not vote after it.
    """
    warm()
    packets = seconds * 1_000_000 // gap_us
    data_dir.mkdir(parents=True, exist_ok=True)
    path = write_capture(
        data_dir / "lessons.pcap",
        packets=packets,
        flows=packets // _PACKETS_A_FLOW,
        snaplen=128,
        gap_us=gap_us,
        seed=_SEED,
    )
    predictor = Predictor(settings_in(data_dir), background=False)
    decoder, tracker = Decoder(), FlowTracker()

    def learn(flows: FlowBatch) -> None:
        if len(flows):
            predictor.learn(flows, predictor.judge(flows), set())

    for frames in capture.read_capture(path):
        learn(tracker.track(decoder.decode(frames)))
    learn(tracker.flush())
    # Again on all that was collected, until it serves: what a first version of few flows saw may
    # be ordinary in traffic as varied as this.
    for _ in range(REPEATS + 1):
        predictor.retrain_baseline()
    silent = [model["name"] for model in predictor.status()["models"] if model["state"] != "READY"]
    predictor.close()
    path.unlink()
    if silent:
        raise AppError(f"These models do not vote after {packets:,} packets: {', '.join(silent)}.")

"""Flows changed as their sender could: the same features as if the packets had been changed."""

from __future__ import annotations

import numpy as np
import pytest

from features import COLUMNS, matrix
from flow_tracker import FlowTracker
from packets import Decoder
from tests.frames import ACK, FIN, PSH, SYN, Frame, batch_of, talk
from training.evasion import in_pieces, padded, padded_to_usual, slowed

Step = tuple[float, str, int, int]

OPENING: list[Step] = [(0, "f", SYN, 0), (200, "b", SYN | ACK, 0), (350, "f", ACK, 0)]
TALK: list[Step] = [
    (1_000, "f", PSH | ACK, 120),
    (9_000, "b", PSH | ACK, 1400),
    (9_100, "f", ACK, 0),
    (70_000, "f", PSH | ACK, 40),
    (81_000, "b", PSH | ACK, 600),
]
CLOSING: list[Step] = [
    (90_000, "f", FIN | ACK, 0),
    (90_300, "b", FIN | ACK, 0),
    (90_350, "f", ACK, 0),
]


def features_of(frames: list[Frame]) -> np.ndarray:
    tracker = FlowTracker()
    rows = tracker.track(Decoder().decode(batch_of(frames))).rows
    rows = np.concatenate([rows, tracker.flush().rows])
    assert len(rows) == 1
    return matrix(rows)


def conversation(*, size: float = 1, gaps: float = 1) -> np.ndarray:
    steps = [
        (time * gaps, way, flags, round(payload * size) if way == "f" else payload)
        for time, way, flags, payload in OPENING + TALK + CLOSING
    ]
    return features_of(talk("10.0.0.1", 40_000, "10.0.0.2", 443, steps))


def told(values: np.ndarray) -> dict[str, float]:
    return dict(zip(COLUMNS, values[0].tolist(), strict=True))


def test_padding_is_what_padded_packets_give() -> None:
    assert told(padded(conversation(), 2.5)) == pytest.approx(told(conversation(size=2.5)))


def test_no_packet_is_padded_beyond_a_segment() -> None:
    changed = told(padded(conversation(), 1000))
    assert changed["Fwd Packet Length Max"] == pytest.approx(1460)
    assert changed["Max Packet Length"] == pytest.approx(1460)
    large = conversation(size=20)  # one packet of 2,400 bytes, as joined by a network card
    assert told(padded(large, 3)) == pytest.approx(told(large))


def test_padding_to_the_usual_makes_the_largest_packet_usual() -> None:
    normal = np.concatenate([conversation(size=3), conversation(size=4), conversation(size=5)])
    changed = told(padded_to_usual(conversation(), normal))
    assert changed == pytest.approx(told(conversation(size=4)))
    assert told(padded_to_usual(conversation(size=9), normal))["Fwd Packet Length Max"] == 9 * 120


def test_slowing_down_is_what_longer_gaps_give() -> None:
    assert told(slowed(conversation(), 7)) == pytest.approx(told(conversation(gaps=7)))


def test_what_is_slowed_beyond_the_active_time_out_is_told_in_records() -> None:
    whole, changed = told(conversation()), told(slowed(conversation(), 5_000))
    assert 0 < changed["Flow Duration"] <= 120e6
    assert changed["Total Fwd Packets"] < whole["Total Fwd Packets"]
    assert changed["FIN Flag Count"] == 0
    assert changed["SYN Flag Count"] == whole["SYN Flag Count"]


def test_a_piece_opens_and_closes_and_carries_its_part() -> None:
    many = [
        (time + 100_000 * i, way, flags, size) for i in range(8) for time, way, flags, size in TALK
    ]
    late = [(time + 700_000, way, flags, size) for time, way, flags, size in CLOSING]
    whole = features_of(talk("10.0.0.1", 40_000, "10.0.0.2", 443, OPENING + many + late))
    piece, one = told(in_pieces(whole, 8)), told(conversation())
    for name in ("Total Fwd Packets", "Total Bwd Packets", "SYN Flag Count", "FIN Flag Count"):
        assert abs(piece[name] - one[name]) <= 1, name
    for name in ("Total Length Fwd Packet", "Total Length Bwd Packet", "Fwd Packet Length Std"):
        assert piece[name] == pytest.approx(one[name], rel=0.3), name
    assert piece["Flow Duration"] == pytest.approx(one["Flow Duration"], rel=0.4)


@pytest.mark.parametrize("pieces", [1, 2, 5, 1000])
def test_the_identities_of_a_flow_hold_in_what_is_made_of_it(pieces: int) -> None:
    changed = told(in_pieces(slowed(padded(conversation(), 3), 1_000), pieces))
    packets = changed["Total Fwd Packets"] + changed["Total Bwd Packets"]
    payload = changed["Total Length Fwd Packet"] + changed["Total Length Bwd Packet"]
    assert changed["Flow Packets/s"] == pytest.approx(packets / changed["Flow Duration"] * 1e6)
    assert changed["Packet Length Mean"] == pytest.approx(payload / packets)
    for way in ("Fwd", "Bwd"):
        low, mean, high = (changed[f"{way} Packet Length {s}"] for s in ("Min", "Mean", "Max"))
        assert low - 1e-9 <= mean <= high + 1e-9
        assert changed[f"{way} IAT Total"] <= changed["Flow Duration"] + 1e-6


def test_one_piece_of_one_is_the_flow_itself() -> None:
    assert told(in_pieces(conversation(), 1)) == pytest.approx(told(conversation()))
    assert told(slowed(padded(conversation(), 1), 1)) == pytest.approx(told(conversation()))

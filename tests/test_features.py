"""The golden flow, the identities that hold in every flow, and the edges of the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from features import COLUMNS, FEATURES, HOME, INDUSTRIAL, LIVE, extras, matrix, select
from tests.frames import ACK, PSH, SYN, Frame, at, ethernet, golden, ipv4, talk, udp
from tests.test_flow_tracker import flows_of

GOLDEN = {
    "Flow Duration": 60400,
    "Total Fwd Packets": 4,
    "Total Bwd Packets": 2,
    "Total Length Fwd Packet": 120,
    "Total Length Bwd Packet": 1000,
    "Fwd Packet Length Max": 120,
    "Fwd Packet Length Min": 0,
    "Fwd Packet Length Mean": 30.0,
    "Fwd Packet Length Std": 60.0,
    "Bwd Packet Length Max": 1000,
    "Bwd Packet Length Min": 0,
    "Bwd Packet Length Mean": 500.0,
    "Bwd Packet Length Std": 707.1067811865476,
    "Flow Bytes/s": 18543.046357615895,
    "Flow Packets/s": 99.33774834437085,
    "Fwd IAT Total": 60400,
    "Fwd IAT Mean": 20133.333333333332,
    "Fwd IAT Std": 19950.02088553627,
    "Bwd IAT Total": 40300,
    "Bwd IAT Mean": 40300.0,
    "Bwd IAT Std": 0.0,
    "Min Packet Length": 0,
    "Max Packet Length": 1000,
    "Packet Length Mean": 186.66666666666666,
    "Packet Length Std": 401.33111848779765,
    "Init Win Fwd": 64240,
    "Init Win Bwd": 65160,
    "FIN Flag Count": 0,
    "SYN Flag Count": 2,
    "RST Flag Count": 1,
    "PSH Flag Count": 2,
}


def features_of(frames: list[Frame]) -> dict[str, float]:
    rows = flows_of(frames)
    assert len(rows) == 1
    return dict(zip(COLUMNS, matrix(rows)[0].tolist(), strict=True))


def test_the_golden_flow() -> None:
    found = features_of(golden())
    assert {name: found[name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-12)
    rows = flows_of(golden())
    assert {name: float(column[0]) for name, column in extras(rows, matrix(rows)).items()} == (
        pytest.approx(
            {
                "flow_rate_bytes_per_ms": 18.543046357615893,
                "iat_jitter_us": 24925.0,
                "packet_length_variance": 161066.66666666666,
                "burstiness": 0.19201464111988534,
            }
        )
    )


def test_later_is_the_same() -> None:
    later = [(time_ns + 10**9, frame) for time_ns, frame in golden()]
    assert features_of(later) == features_of(golden())


def test_padding_is_not_payload() -> None:
    padded = [(time_ns, frame + bytes(max(60 - len(frame), 0))) for time_ns, frame in golden()]
    assert features_of(padded) == features_of(golden())


def test_a_single_syn() -> None:
    found = features_of(golden()[:1])
    assert found["Flow Duration"] == found["Flow Bytes/s"] == found["Flow Packets/s"] == 0.0
    assert (found["SYN Flag Count"], found["Init Win Fwd"], found["Init Win Bwd"]) == (1, 64240, 0)


def test_udp_has_no_windows_and_no_flags() -> None:
    found = features_of(
        [
            at(0, ethernet(ipv4("10.0.0.1", "10.0.0.9", 17, udp(5000, 53, 30)))),
            at(900, ethernet(ipv4("10.0.0.9", "10.0.0.1", 17, udp(53, 5000, 90)))),
        ]
    )
    assert found["Init Win Fwd"] == found["Init Win Bwd"] == found["SYN Flag Count"] == 0
    assert found["Min Packet Length"] == 30


def test_an_empty_direction_has_no_smallest_packet() -> None:
    found = features_of(
        [at(t, ethernet(ipv4("10.0.0.1", "10.0.0.9", 17, udp(5000, 53, 30 + t)))) for t in (0, 9)]
    )
    assert (found["Bwd Packet Length Min"], found["Min Packet Length"]) == (0, 30)


def test_identities_hold_in_every_flow() -> None:
    rng = np.random.default_rng(1)
    frames = []
    for flow in range(40):
        times = np.cumsum(rng.integers(1, 100_000, 30))
        steps = [
            (float(t), "fb"[rng.integers(2)], PSH | ACK, int(rng.integers(0, 1460))) for t in times
        ]
        frames += talk("10.0.0.1", 20000 + flow, "10.0.0.2", 80, [(0.0, "f", SYN, 0), *steps])
    rows = flows_of(sorted(frames))
    m = {name: matrix(rows)[:, place] for place, name in enumerate(COLUMNS)}
    packets = m["Total Fwd Packets"] + m["Total Bwd Packets"]
    total = m["Total Length Fwd Packet"] + m["Total Length Bwd Packet"]
    seconds = m["Flow Duration"] / 1e6
    assert len(rows) == 40
    np.testing.assert_allclose(m["Flow Packets/s"], packets / seconds)
    np.testing.assert_allclose(m["Flow Bytes/s"], total / seconds)
    np.testing.assert_allclose(m["Packet Length Mean"], total / packets)
    np.testing.assert_allclose(m["Fwd IAT Total"], m["Fwd IAT Mean"] * (m["Total Fwd Packets"] - 1))


def test_lists_of_the_models() -> None:
    assert (len(HOME), len(INDUSTRIAL), len(LIVE)) == (21, 27, 39)
    assert INDUSTRIAL[:21] == HOME
    assert len(set(COLUMNS)) == len(COLUMNS) == len(FEATURES)
    values = np.arange(39.0)[None, :]
    assert select(values, ("Init Win Bwd", "Flow Duration")).tolist() == [[26.0, 0.0]]
    assert np.isfinite(matrix(flows_of([])[:0])).all()

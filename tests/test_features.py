"""The golden flow, the identities that hold in every flow, and the edges of the definitions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import FLOW
from features import COLUMNS, FEATURES, HOME, INDUSTRIAL, LIVE, extras, matrix, select
from tests.frames import ACK, FIN, PSH, RST, SYN, Frame, at, ethernet, golden, ipv4, talk, udp
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


def test_packets_captured_in_the_wrong_order_change_no_feature() -> None:
    frames = golden()
    swapped = features_of([*frames[:4], frames[5], frames[4]])
    assert swapped == pytest.approx(features_of(frames), rel=1e-12)


def test_a_capture_that_begins_with_the_syn_ack() -> None:
    """The client stays forward; its first window is then unknown, that of its ACK is seen."""
    found = features_of(golden()[1:])
    assert (found["Total Fwd Packets"], found["Total Bwd Packets"]) == (3, 2)
    assert (found["Init Win Fwd"], found["Init Win Bwd"]) == (502, 65160)
    assert (found["Flow Duration"], found["Fwd IAT Total"]) == (40400, 40300)


def test_a_connection_longer_than_two_minutes_is_two_flows_of_one_direction() -> None:
    steps = [(second * 1e6, "fb"[second % 2], PSH | ACK, 10) for second in range(1, 131)]
    rows = flows_of(talk("10.0.0.1", 40000, "10.0.0.2", 80, [(0.0, "f", SYN, 0), *steps]))
    found = matrix(rows)[:, : COLUMNS.index("Total Bwd Packets") + 1]
    assert found.tolist() == [[119e6, 60, 60], [10e6, 6, 5]]
    assert rows["dst_port"].tolist() == [80, 80]


def test_the_same_ports_after_fin_are_two_flows_and_no_ghost() -> None:
    handshake = ((0, "f", SYN, 0), (100, "b", SYN | ACK, 0), (200, "f", ACK, 0))
    fins = ((300, "f", FIN | ACK, 0), (400, "b", FIN | ACK, 0), (500, "f", ACK, 0))
    steps = (*handshake, *fins, (900, "f", SYN, 0), (990, "b", SYN | ACK, 0))
    found = matrix(flows_of(talk("10.0.0.1", 40000, "10.0.0.2", 80, steps)))
    assert found[:, 0].tolist() == [500, 90]
    flags = found[:, [COLUMNS.index("FIN Flag Count"), COLUMNS.index("SYN Flag Count")]]
    assert flags.tolist() == [[2, 2], [0, 2]]


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


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 65_535), st.integers(1, 2**27)), min_size=1, max_size=4),
)
def test_the_deviation_of_lengths_is_exact_however_many_they_are(
    lengths: list[tuple[int, int]],
) -> None:
    """Against fractions; (length, how many packets have it), up to half a billion packets."""
    n = sum(count for _, count in lengths)
    total = sum(length * count for length, count in lengths)
    squares = sum(length * length * count for length, count in lengths)
    row = np.zeros(1, FLOW)
    row["packets"][0], row["bytes"][0], row["square_sum"][0] = (n, 0), (total, 0), (squares, 0)
    exact = Fraction(n * squares - total * total, n * (n - 1)) if n > 1 else Fraction(0)
    for name in ("Fwd Packet Length Std", "Packet Length Std"):
        found = float(matrix(row)[0, COLUMNS.index(name)])
        assert found == pytest.approx(float(exact) ** 0.5, rel=1e-6)
        assert (found == 0.0) == (exact == 0)


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
    assert (len(HOME), len(INDUSTRIAL), len(LIVE)) == (21, 27, 40)
    assert INDUSTRIAL[:21] == HOME
    assert len(set(COLUMNS)) == len(COLUMNS) == len(FEATURES)
    values = np.arange(float(len(COLUMNS)))[None, :]
    assert select(values, ("Init Win Bwd", "Flow Duration")).tolist() == [[26.0, 0.0]]
    assert np.isfinite(matrix(flows_of([])[:0])).all()


def test_how_a_connection_failed_is_a_feature() -> None:
    answer = at(0, ethernet(ipv4("10.0.0.2", "10.0.0.1", 17, udp(53, 1000, 9))))
    question = at(-90, ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 53, 8))))
    syn = (0.0, "f", SYN, 0)
    found = {
        "S0": talk("10.0.0.1", 1000, "10.0.0.2", 80, [syn]),
        "REJ": talk("10.0.0.1", 1000, "10.0.0.2", 80, [syn, (100.0, "b", RST | ACK, 0)]),
        "RST": golden(),
        "UNANSWERED": [question],
        "": [question, answer],
    }
    for state, frames in found.items():
        told = features_of(frames)
        assert told["State RST"] == float(state == "RST")

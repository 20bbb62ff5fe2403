"""What is a flow, when does it end, and that nothing about it depends on how packets arrive."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields

from batches import FLOW, ConnectionState, EndReason, FlowBatch, Rows
from capture import read_capture
from flow_tracker import FlowTracker
from packets import Decoder
from tests.frames import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Frame,
    at,
    batch_of,
    ethernet,
    golden,
    icmp,
    ipv4,
    ipv6,
    talk,
    udp,
)

ROOT = Path(__file__).resolve().parents[1]
SECOND = 1_000_000.0


def flows_of(frames: Sequence[Frame], capacity: int = 64) -> Rows:
    tracker = FlowTracker(capacity=capacity)
    ended = tracker.track(Decoder().decode(batch_of(frames)))
    return np.concatenate([ended.rows, tracker.flush().rows])


def reasons(rows: Rows) -> list[str]:
    return [EndReason(code).name for code in rows["end_reason"]]


def states(rows: Rows) -> list[str]:
    return [ConnectionState(code).name for code in rows["connection_state"]]


def conversation(*steps: tuple[float, str, int, int], sport: int = 40000) -> list[Frame]:
    return talk("10.0.0.1", sport, "10.0.0.2", 80, steps)


HANDSHAKE = ((0, "f", SYN, 0), (100, "b", SYN | ACK, 0), (200, "f", ACK, 0))


def test_both_directions_are_one_flow() -> None:
    rows = flows_of(golden())
    assert len(rows) == 1
    assert rows[0]["packets"].tolist() == [4, 2]
    assert (reasons(rows), states(rows)) == (["RST"], ["RST"])


def test_fin_in_both_directions_ends_a_flow_with_its_last_ack() -> None:
    frames = conversation(
        *HANDSHAKE,
        (300, "f", FIN | ACK, 0),
        (400, "b", FIN | ACK, 0),
        (500, "f", ACK, 0),
        (2 * SECOND, "b", ACK, 0),  # late: belongs to no flow
    )
    tracker = FlowTracker(capacity=64)
    rows = tracker.track(Decoder().decode(batch_of(frames))).rows
    assert rows["packets"].tolist() == [[4, 2]]
    assert (reasons(rows), states(rows)) == (["FIN"], ["SF"])
    assert tracker.late_packets == 1
    assert len(tracker.flush()) == 0


def test_the_same_ports_again_are_a_second_flow() -> None:
    ends = ((300, "f", FIN | ACK, 0), (400, "b", FIN | ACK, 0))
    again = [(t + SECOND / 2, way, flags, size) for t, way, flags, size in HANDSHAKE]
    rows = flows_of(conversation(*HANDSHAKE, *ends, (500, "f", ACK, 0), *again))
    assert rows["packets"].sum(axis=1).tolist() == [6, 3]
    assert rows["continued"].tolist() == [0, 0]


def test_a_syn_ack_seen_first_comes_from_the_server() -> None:
    rows = flows_of(golden()[1:])
    assert rows["src_lo"].tolist() == [0x0A000001]
    assert rows["packets"].tolist() == [[3, 2]]
    assert rows["init_window"].tolist() == [[502, 65160]]


def test_packets_captured_in_the_wrong_order_change_nothing() -> None:
    frames = golden()
    swapped = [*frames[:4], frames[5], frames[4]]
    rows, mixed = flows_of(frames), flows_of(swapped)
    for name in ("packets", "bytes", "first_ns", "last_ns", "flag_counts", "init_window"):
        assert rows[name].tolist() == mixed[name].tolist(), name
    assert (mixed["iat_mean"] >= 0).all()


def test_a_long_connection_is_cut_and_keeps_its_direction() -> None:
    data = [(i * 10 * SECOND, "b", PSH | ACK, 10) for i in range(1, 14)]
    rows = flows_of(conversation(*HANDSHAKE, *data))
    assert reasons(rows) == ["TIMEOUT", "SHUTDOWN"]
    assert rows["continued"].tolist() == [0, 1]
    assert rows["packets"].tolist() == [[2, 12], [0, 2]]
    assert rows["src_port"].tolist() == [40000, 40000]
    assert (rows["last_ns"] - rows["first_ns"] < 120 * 10**9).all()


def test_a_silent_flow_ends_by_packet_time_and_its_continuation_keeps_the_direction() -> None:
    frames = [
        at(0, ethernet(ipv4("10.0.0.1", "10.0.0.9", 17, udp(5000, 53, 30)))),
        at(200 * SECOND, ethernet(ipv4("10.0.0.9", "10.0.0.1", 17, udp(53, 5000, 90)))),
    ]
    rows = flows_of(frames)
    assert reasons(rows) == ["IDLE", "SHUTDOWN"]
    assert rows["src_port"].tolist() == [5000, 5000]
    assert states(rows) == ["UNANSWERED", "ANSWERED"]


@pytest.mark.parametrize(
    "frames", [golden()[:1], [at(0, ethernet(ipv4("10.0.0.1", "10.0.0.9", 17, udp(5000, 53, 30))))]]
)
def test_a_silent_flow_ends_by_the_clock_where_no_packet_comes(frames: list[Frame]) -> None:
    tracker = FlowTracker(capacity=64)
    tracker.track(Decoder().decode(batch_of(frames)))
    assert len(tracker.expire(frames[0][0] + 119 * 10**9)) == 0
    assert reasons(tracker.expire(frames[0][0] + 120 * 10**9).rows) == ["IDLE"]
    assert tracker.active == 0


def test_a_clock_that_is_set_back_ends_flows_once_and_cuts_none_after() -> None:
    hour = 3600 * SECOND
    steps = [(SECOND * n, "f", ACK, 10) for n in range(5)]
    before = conversation(*[(t + hour, way, flags, size) for t, way, flags, size in steps])
    rows = flows_of([*before, *conversation(*steps)])
    assert rows["packets"].sum(axis=1).tolist() == [5, 5]
    assert (rows["last_ns"] - rows["first_ns"]).tolist() == [4 * 10**9] * 2


def test_data_long_after_a_reset_is_a_flow_of_its_own() -> None:
    """A forged RST must not blind the tracker for the rest of the connection."""
    more = [((2 + i) * SECOND, "f", PSH | ACK, 100) for i in range(3)]
    rows = flows_of(conversation(*HANDSHAKE, (300, "b", RST, 0), *more))
    assert rows["packets"].sum(axis=1).tolist() == [4, 3]
    assert rows["continued"].tolist() == [0, 1]


def test_a_syn_from_the_other_side_begins_a_flow_with_its_sender_forward() -> None:
    """Two hosts that use one pair of ports in both roles, as BGP and IKE speakers may."""
    fins = ((300, "f", FIN | ACK, 0), (400, "b", FIN | ACK, 0))
    for end in ((*fins, (500, "f", ACK, 0)), fins, ((300, "f", RST, 0),)):
        back = ((SECOND / 2, "b", SYN, 0), (SECOND / 2 + 100, "f", SYN | ACK, 0))
        rows = flows_of(conversation(*HANDSHAKE, *end, *back))
        assert rows["packets"].tolist()[1] == [1, 1]
        assert rows["src_lo"].tolist() == [0x0A000001, 0x0A000002]
        assert rows["src_port"].tolist() == [40000, 80]
        assert rows["continued"].tolist() == [0, 0]


def test_a_syn_long_after_a_silent_flow_belongs_to_its_sender() -> None:
    rows = flows_of(conversation(*HANDSHAKE, (300 * SECOND, "b", SYN, 0)))
    assert (reasons(rows), rows["src_port"].tolist()) == (["IDLE", "SHUTDOWN"], [40000, 80])
    assert rows["continued"].tolist() == [0, 0]


def test_both_sides_may_open_at_once() -> None:
    steps = ((0, "f", SYN, 0), (10, "b", SYN, 0), (90, "f", SYN | ACK, 0), (95, "b", SYN | ACK, 0))
    rows = flows_of(conversation(*steps, (150, "f", ACK, 0), (200, "b", PSH | ACK, 9)))
    assert rows["packets"].tolist() == [[3, 3]]
    assert (states(rows), rows["flag_counts"].tolist()) == (["EST"], [[0, 4, 0, 1]])


def test_a_syn_sent_again_is_the_same_attempt() -> None:
    tries = [(t * SECOND, "f", SYN, 0) for t in (0, 1, 3, 7, 15, 31, 63)]
    rows = flows_of(conversation(*tries))
    assert (rows["packets"].tolist(), states(rows)) == ([[7, 0]], ["S0"])
    rows = flows_of(conversation(*tries, (64 * SECOND, "b", SYN | ACK, 0)))
    assert (rows["packets"].tolist(), states(rows)) == ([[7, 1]], ["EST"])


def test_each_refused_attempt_is_a_flow() -> None:
    """A client that tries again half a second after a RST, as Windows does three times."""
    tries = [
        step
        for n in range(3)
        for step in (
            (n * SECOND / 2, "f", SYN, 0),
            (n * SECOND / 2 + 90, "b", RST | ACK, 0),
        )
    ]
    rows = flows_of(conversation(*tries))
    assert (rows["packets"].tolist(), states(rows)) == ([[1, 1]] * 3, ["REJ"] * 3)


def test_one_side_may_go_on_sending_after_the_fin_of_the_other() -> None:
    data = [(i * SECOND, "b", PSH | ACK, 1000) for i in range(1, 60)]
    acks = [(i * SECOND + 50, "f", ACK, 0) for i in range(1, 60)]
    end = ((60 * SECOND, "b", FIN | ACK, 0), (60 * SECOND + 50, "f", ACK, 0))
    steps = [*HANDSHAKE, (300, "f", FIN | ACK, 0), *sorted([*data, *acks]), *end]
    rows = flows_of(conversation(*steps))
    assert (rows["packets"].tolist(), rows["bytes"].tolist()) == ([[63, 61]], [[0, 59_000]])
    assert (reasons(rows), states(rows)) == (["FIN"], ["SF"])


def test_keep_alives_keep_a_connection_in_one_flow_until_the_active_time_out() -> None:
    """RFC 9293 §3.8.4: a segment without data, acknowledged; here every 45 s."""
    steps = [
        step
        for n in range(1, 6)
        for step in ((n * 45 * SECOND, "f", ACK, 0), (n * 45 * SECOND + 80, "b", ACK, 0))
    ]
    rows = flows_of(conversation(*HANDSHAKE, *steps))
    assert reasons(rows) == ["TIMEOUT", "SHUTDOWN"]
    assert rows["packets"].tolist() == [[4, 3], [3, 3]]


@pytest.mark.parametrize("silence_s", [0, 100, 130])
def test_fins_of_both_sides_end_a_flow_though_the_last_ack_is_missing_or_late(
    silence_s: int,
) -> None:
    """The acknowledgement behind a time-out is no flow of one packet."""
    late = [((100 + silence_s) * SECOND, "b", ACK, 0)] * (silence_s > 0)
    fins = ((100 * SECOND, "b", FIN | ACK, 0), (100 * SECOND, "f", FIN | ACK, 0))
    frames = conversation(*HANDSHAKE, *fins, *late)
    tracker = FlowTracker(capacity=64)
    rows = tracker.track(Decoder().decode(batch_of(frames))).rows
    if silence_s == 130:  # by then the connection is forgotten: what comes counts as going on
        assert (reasons(rows), len(tracker.flush())) == (["FIN"], 1)
        return
    rows = np.concatenate([rows, tracker.flush().rows])
    assert (reasons(rows), states(rows)) == (["FIN"], ["SF"])
    assert rows["packets"].tolist() == [[3, 2]]
    assert tracker.late_packets == len(late)


def test_udp_is_cut_after_two_minutes_and_ends_after_two_minutes_of_silence() -> None:
    def packet(second: float, way: str) -> Frame:
        ends = ("10.0.0.1", "10.0.0.9") if way == "f" else ("10.0.0.9", "10.0.0.1")
        ports = (5000, 4500) if way == "f" else (4500, 5000)
        return at(second * SECOND, ethernet(ipv4(*ends, 17, udp(*ports, 30))))

    frames = [packet(second, "fb"[second % 3 == 0]) for second in (1, 60, 119, 120, 121)]
    rows = flows_of([*frames, packet(241, "b"), packet(360.999, "f")])
    assert reasons(rows) == ["TIMEOUT", "IDLE", "SHUTDOWN"]
    assert rows["packets"].tolist() == [[2, 2], [1, 0], [1, 1]]
    assert rows["src_port"].tolist() == [5000] * 3
    assert (rows["last_ns"] - rows["first_ns"] < 120 * 10**9).all()


def test_a_clock_that_goes_back_a_little_changes_no_flow() -> None:
    """Up to a minute: the steps of a time server, several capture threads in one file."""
    steps = ((50 * SECOND, "f", SYN, 0), (50.1 * SECOND, "b", SYN | ACK, 0))
    back = ((10 * SECOND, "f", ACK, 0), (11 * SECOND, "b", PSH | ACK, 50))
    rows = flows_of(conversation(*steps, *back, (51 * SECOND, "f", ACK, 0)))
    assert rows["packets"].tolist() == [[3, 2]]
    assert (rows["last_ns"] - rows["first_ns"]).tolist() == [10**9]
    assert (rows["iat_mean"] >= 0).all()


def test_no_direction_lasts_longer_than_its_flow() -> None:
    """A packet of the other side that is older than the flow's first one."""
    rows = flows_of(
        conversation((SECOND, "f", ACK, 0), (0, "b", ACK, 0), (2 * SECOND, "b", ACK, 0))
    )
    spans = rows["dir_last_ns"] - rows["dir_first_ns"]
    assert (rows["last_ns"] - rows["first_ns"]).tolist() == [10**9]
    assert spans.tolist() == [[0, 10**9]]
    assert rows["iat_mean"].tolist() == [[0.0, 1e9, 0.5e9]]


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        (((0, "f", SYN, 0),), "S0"),
        (((0, "f", SYN, 0), (100, "b", RST | ACK, 0)), "REJ"),
        (HANDSHAKE, "EST"),
        (((0, "f", PSH | ACK, 10), (100, "b", ACK, 0)), "MID"),
    ],
)
def test_connection_state(steps: tuple[tuple[float, str, int, int], ...], state: str) -> None:
    assert states(flows_of(conversation(*steps))) == [state]


def test_an_echo_reply_belongs_to_its_request_and_an_error_does_not() -> None:
    frames = [
        at(0, ethernet(ipv4("10.0.0.1", "10.0.0.2", 1, icmp(8)))),
        at(10, ethernet(ipv4("10.0.0.2", "10.0.0.1", 1, icmp(0)))),
        at(20, ethernet(ipv4("10.0.0.2", "10.0.0.1", 1, icmp(3, 3)))),
    ]
    rows = flows_of(frames)
    assert sorted(rows["packets"].tolist()) == [[1, 0], [1, 1]]


@pytest.mark.parametrize(("request_type", "reply_type"), [(13, 14), (15, 16), (17, 18), (8, 0)])
def test_an_icmp_reply_counts_to_its_request(request_type: int, reply_type: int) -> None:
    """RFC 792 and RFC 950: echo, timestamp, information, address mask."""
    frames = [
        at(0, ethernet(ipv4("10.0.0.1", "10.0.0.2", 1, icmp(request_type)))),
        at(10, ethernet(ipv4("10.0.0.2", "10.0.0.1", 1, icmp(reply_type)))),
    ]
    rows = flows_of(frames)
    assert rows["packets"].tolist() == [[1, 1]]
    assert (rows["icmp_type"].tolist(), states(rows)) == ([request_type], ["ANSWERED"])


@pytest.mark.parametrize(
    ("types", "packets"),
    [
        ((128, 129), [[1, 1]]),  # echo (RFC 4443)
        ((135, 136), [[1, 0], [1, 0]]),  # a neighbour also speaks unasked (RFC 4861 §7.2.6)
        ((133, 134), [[1, 0], [1, 0]]),  # as does a router (§6.2.4)
    ],
)
def test_of_icmpv6_only_echo_has_a_reply(types: tuple[int, int], packets: list[list[int]]) -> None:
    frames = [
        at(0, ethernet(ipv6("fe80::1", "fe80::2", 58, icmp(types[0])), 0x86DD)),
        at(10, ethernet(ipv6("fe80::2", "fe80::1", 58, icmp(types[1])), 0x86DD)),
    ]
    assert flows_of(frames)["packets"].tolist() == packets


def test_the_vlan_belongs_to_the_key() -> None:
    packet = ipv4("10.0.0.1", "10.0.0.2", 17, udp(1, 2, 3))
    rows = flows_of([at(0, ethernet(packet, tags=(1,))), at(1, ethernet(packet, tags=(2,)))])
    assert len(rows) == 2


def test_provisional_flows_are_given_once_until_they_change() -> None:
    tracker = FlowTracker(capacity=64)
    frames = conversation(*HANDSHAKE)
    tracker.track(Decoder().decode(batch_of(frames)))
    last_ns = frames[-1][0]
    assert len(tracker.provisional(last_ns + 4 * 10**9)) == 0
    quiet = tracker.provisional(last_ns + 5 * 10**9).rows
    assert (reasons(quiet), states(quiet)) == (["QUIET"], ["EST"])
    assert len(tracker.provisional(last_ns + 6 * 10**9)) == 0
    busy = conversation(*[(i * SECOND, "f", PSH | ACK, 1) for i in range(6, 12)])
    tracker.track(Decoder().decode(batch_of(busy)))
    assert len(tracker.provisional(busy[-1][0])) == 0
    active = tracker.provisional(busy[-1][0] + 4_500_000_000).rows
    assert (reasons(active), active["id"].tolist()) == (["ACTIVE"], quiet["id"].tolist())


def test_a_full_table_ends_the_longest_silent_flow_and_counts_it() -> None:
    frames = [
        at(i * 10, ethernet(ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000 + i, 53, 30))))
        for i in range(5000)
    ]
    tracker = FlowTracker(capacity=128)
    ended = tracker.track(Decoder().decode(batch_of(frames))).rows
    assert tracker.evicted == len(ended) == 5000 - 128
    assert ended["src_port"].tolist() == list(range(1000, 6000 - 128))
    left = tracker.flush().rows
    assert len(ended) + len(left) == 5000
    assert len({*ended["id"].tolist(), *left["id"].tolist()}) == 5000


def test_a_flow_that_has_ended_is_not_told_as_evicted() -> None:
    """A full table hands out what lingers with the reason that it has."""
    refused = conversation((0, "f", SYN, 0), (1, "b", RST | ACK, 0), sport=999)
    closed = conversation(*HANDSHAKE, (300, "f", FIN | ACK, 0), (301, "b", FIN | ACK, 0))
    others = [conversation((400 + i, "f", SYN, 0), sport=1000 + i)[0] for i in range(9)]
    tracker = FlowTracker(capacity=8)
    ended = tracker.track(Decoder().decode(batch_of([*refused, *closed, *others]))).rows
    assert (reasons(ended), tracker.evicted) == (["RST", "FIN", "EVICTED"], 1)


def test_a_flow_lingers_by_its_own_end_and_not_by_that_of_the_flow_before() -> None:
    """Its packets captured out of order count, a second after the first one's RST."""
    again = ((0.9 * SECOND, "f", SYN, 0), (0.95 * SECOND, "b", RST | ACK, 0))
    other = conversation((1.5 * SECOND, "f", SYN, 0), sport=999)
    rows = flows_of(
        [
            *conversation((0, "f", SYN, 0), (100, "b", RST | ACK, 0), *again),
            *other,
            *conversation((0.93 * SECOND, "b", RST | ACK, 0)),
        ]
    )
    assert sorted(rows["packets"].tolist()) == [[1, 0], [1, 1], [1, 2]]


# --- properties -----------------------------------------------------------------------------------

Step = tuple[int, str, int, int, int]
PACKETS = st.lists(
    st.tuples(
        st.integers(0, 3),  # which pair of hosts and ports
        st.sampled_from("fb"),
        st.sampled_from([SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK]),
        st.sampled_from([0, 1, 100, 1460]),
        st.sampled_from([0, 50, 900_000, 3_000_000, 70_000_000, 130_000_000]),
    ),
    min_size=1,
    max_size=120,
)


def built(packets: list[Step]) -> list[Frame]:
    frames: list[Frame] = []
    now = 0.0
    for pair, way, flags, size, gap in packets:
        now += gap
        frames += conversation((now, way, flags, size), sport=40000 + pair)
    return frames


@settings(max_examples=150, deadline=None)
@given(PACKETS, st.integers(1, 40), st.integers(2, 4))
def test_the_same_flows_whatever_the_block_size(
    packets: list[Step], block: int, capacity: int
) -> None:
    frames = built(packets)
    whole = flows_of(frames, capacity=capacity)
    tracker, decoder = FlowTracker(capacity=capacity), Decoder()
    parts = [
        tracker.track(decoder.decode(batch_of(frames[i : i + block]))).rows
        for i in range(0, len(frames), block)
    ]
    pieces = np.concatenate([*parts, tracker.flush().rows])
    assert repack_fields(pieces).tobytes() == repack_fields(whole).tobytes()


@settings(max_examples=150, deadline=None)
@given(PACKETS)
def test_every_packet_is_in_one_flow_or_late(packets: list[Step]) -> None:
    frames = built(packets)
    tracker = FlowTracker(capacity=8)
    ended = tracker.track(Decoder().decode(batch_of(frames))).rows
    rows = np.concatenate([ended, tracker.flush().rows])
    assert int(rows["packets"].sum()) + tracker.late_packets == len(frames)
    assert (rows["last_ns"] >= rows["first_ns"]).all()
    assert tracker.active == 0


# --- compiled = interpreted -----------------------------------------------------------------------

INTERPRET = """
import os, sys
import numpy as np
sys.path.insert(0, {root!r})
from tests.test_flow_tracker import digest
for path in sys.argv[1:]:
    with np.errstate(over="ignore"):
        print(digest(path), flush=True)
"""


def digest(path: Path | str) -> str:
    """Of every flow of a capture, all fields, in the order in which they ended."""
    tracker, decoder = FlowTracker(capacity=4096), Decoder()
    parts = [tracker.track(decoder.decode(frames)).rows for frames in read_capture(path)]
    rows = repack_fields(np.concatenate([*parts, tracker.flush().rows]))
    return hashlib.sha256(rows.tobytes()).hexdigest()


def interpreted(paths: Sequence[Path]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", INTERPRET.format(root=str(ROOT)), *map(str, paths)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        check=True,
        text=True,
        timeout=600,
    )
    return done.stdout.split()


def test_compiled_equals_interpreted_bit_by_bit(tmp_path: Path) -> None:
    """Six thousand packets of the sample traffic, cut so that they are quick to interpret."""
    head = tmp_path / "head.pcap"
    with gzip.open(ROOT / "data" / "demo" / "home.pcap.gz") as file:
        head.write_bytes(file.read(800_000))
    assert interpreted([head]) == [digest(head)]


@pytest.mark.slow
def test_compiled_equals_interpreted_bit_by_bit_on_every_benign_capture(
    shared_data: Path,
) -> None:
    paths = sorted((shared_data / "captures" / "benign").glob("*.pcap.gz"))
    found = dict(zip(paths, interpreted(paths), strict=True))
    assert found == {path: digest(path) for path in paths}


def test_no_field_hides_an_attribute_of_a_record() -> None:
    assert not set(FLOW.names or ()) & set(dir(np.record))
    assert len(FlowBatch(np.zeros(3, FLOW))) == 3

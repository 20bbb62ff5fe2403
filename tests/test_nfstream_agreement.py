"""Our flows are NFStream's, but for differences that are wanted: each has a name, a test, a count.

NFStream 6.6 is another program by other people, written in C: what both say of 77 real captures is
hardly a mistake that both make. The table is printed by `python -m tests.nfstream_flows FOLDER...`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from batches import Rows
from tests.frames import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Frame,
    at,
    ethernet,
    golden,
    icmp,
    ipv4,
    ipv6,
    talk,
    tcp,
    udp,
    write_pcap,
)
from tests.nfstream_flows import (
    DIFFERENCES,
    DIRECTION,
    ENDED,
    ICMP_TYPES,
    LATE,
    PAYLOAD,
    SYN_ACK,
    Comparison,
    Flow,
    compared,
    flows_of,
    metered,
    packets_of,
    total,
)

pytest.importorskip("nfstream")

SECOND = 1_000_000.0
A, B = "10.0.0.1", "10.0.0.2"
HANDSHAKE = ((0, "f", SYN, 0), (100, "b", SYN | ACK, 0), (200, "f", ACK, 0))


# --- small captures made here ---------------------------------------------------------------------


def conversation(*steps: tuple[float, str, int, int]) -> list[Frame]:
    return talk(A, 40000, B, 80, [*HANDSHAKE, *steps])


def query(second: float, way: str = "f", tags: Sequence[int] = ()) -> Frame:
    ends, ports = ((A, B), (5000, 53)) if way == "f" else ((B, A), (53, 5000))
    return at(second * SECOND, ethernet(ipv4(*ends, 17, udp(*ports, 30)), tags=tags))


def other(protocol: int, payload: bytes) -> list[Frame]:
    return [at(t, ethernet(ipv4(A, B, protocol, payload))) for t in (0, 1000)]


INNER = ipv4("10.9.0.1", "10.9.0.2", 17, udp(7, 9, 40))
VXLAN = ethernet(INNER)
GOLDEN_PADDED = [(time_ns, frame + bytes(max(60 - len(frame), 0))) for time_ns, frame in golden()]

ALIKE = {
    "the golden flow": golden(),
    "frames padded by Ethernet": GOLDEN_PADDED,
    "VLANs belong to the key": [query(0, tags=(1,)), query(1, tags=(2,)), query(2)],
    "a first fragment counts, the others do not": [
        at(0, ethernet(ipv4(A, B, 17, udp(5000, 53, 1000), fragment=0x2000))),
        at(1000, ethernet(ipv4(A, B, 17, bytes(500), fragment=0x80))),
    ],
    "the active time-out": [query(second) for second in (0, 60, 119.999, 120)],
    "the idle time-out": [query(second) for second in (0, 119.999, 239.999)],
    "a clock that goes back": [query(second) for second in (50, 10, 51)],
    "one address at both ends": [at(t, ethernet(ipv4(A, A, 17, udp(5, 5, 9)))) for t in (0, 1000)],
    "an echo reply without its request": [
        at(0, ethernet(ipv4(B, A, 1, icmp(0)))),
        at(1000, ethernet(ipv4(A, B, 1, icmp(8)))),
    ],
    "FIN of both sides with its last ACK": conversation(
        (300, "f", PSH | ACK, 700),
        (400, "b", FIN | ACK, 0),
        (500, "f", FIN | ACK, 0),
        (600, "b", ACK, 0),
    ),
}
"""Captures of which both say the same in every value."""

UNLIKE = {
    ICMP_TYPES: [
        at(0, ethernet(ipv4(A, B, 1, icmp(8)))),
        at(1000, ethernet(ipv4(B, A, 1, icmp(0)))),
        at(2000, ethernet(ipv4(B, A, 1, icmp(3, 1)))),
    ],
    ENDED: conversation(
        (300, "b", RST, 0),
        *[(t + 5000, way, flags, size) for t, way, flags, size in HANDSHAKE],
    ),
    LATE: conversation(
        (300, "b", FIN | ACK, 0), (400, "f", FIN | ACK, 0), (500, "b", ACK, 0), (9000, "f", RST, 0)
    ),
    DIRECTION: [query(0), query(1, "b"), query(200, "b")],
    SYN_ACK: golden()[1:],
    PAYLOAD: [*other(132, bytes(40)), *other(50, bytes(60)), *other(2, bytes(8))],
}
"""By deliberate difference: a capture that shows it, and nothing else that differs."""

IPV6 = ethernet(ipv6("2001:db8::1", "2001:db8::2", 6, tcp(5000, 80, SYN, 100)), 0x86DD)
READ_ONLY_HERE = {
    "two VLAN tags": ([query(0, tags=(5, 7)), query(1, tags=(6, 7))], [1, 1], []),
    "an IPv6 packet cut by the snap length": ([at(0, IPV6), at(1000, IPV6[:80])], [2], [1]),
    "what GRE carries": (other(47, struct.pack("!HH", 0, 0x0800) + INNER), [2], [2]),
    "what VXLAN carries": (
        other(
            17, udp(5000, 4789, 8 + len(VXLAN))[:8] + struct.pack("!II", 8 << 24, 77 << 8) + VXLAN
        ),
        [2],
        [2],
    ),
}
"""Captures that NFStream does not read, or not so deep: packets of our flows, and of NFStream's."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Rows, list[Flow]]]:
    """Our packets and NFStream's flows of each capture above."""
    folder = tmp_path_factory.mktemp("captures")
    frames = {**ALIKE, **UNLIKE, **{name: each[0] for name, each in READ_ONLY_HERE.items()}}
    paths = [write_pcap(folder / f"{i}.pcap", each) for i, each in enumerate(frames.values())]
    found = zip(map(packets_of, paths), metered(paths), strict=True)
    return dict(zip(frames, found, strict=True))


@pytest.mark.parametrize("name", ALIKE)
def test_alike(name: str, made: dict[str, tuple[Rows, list[Flow]]]) -> None:
    result = compared(*made[name])
    assert result.wrong == []
    assert result.alike == result.flows == result.theirs > 0


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_alone(name: str, made: dict[str, tuple[Rows, list[Flow]]]) -> None:
    result = compared(*made[name])
    assert result.wrong == []
    assert set(result.differences) == {name}
    assert result.alike == result.theirs - result.differences[name]


@pytest.mark.parametrize("name", READ_ONLY_HERE)
def test_read_here_and_not_there(name: str, made: dict[str, tuple[Rows, list[Flow]]]) -> None:
    packets, theirs = made[name]
    _, ours_count, their_count = READ_ONLY_HERE[name]
    assert flows_of(packets)["packets"].sum(axis=1).tolist() == ours_count
    assert [flow["bidirectional_packets"] for flow in theirs] == their_count


def test_a_wrong_value_is_seen(made: dict[str, tuple[Rows, list[Flow]]]) -> None:
    """Each packet a byte longer, a millisecond later, or missing: the comparison must tell."""
    packets, theirs = made["the golden flow"]
    for field, change in (("payload", 1), ("time_ns", 1_000_000), ("tcp_flags", 1 ^ SYN)):
        for i in range(len(packets)):
            changed = packets.copy()
            changed[field][i] += change
            assert compared(changed, theirs).wrong, (field, i)
    for i in range(len(packets)):
        assert compared(packets[[j for j in range(len(packets)) if j != i]], theirs).wrong


# --- real captures --------------------------------------------------------------------------------

EXPECTED = {
    "benign": {
        "captures": 40,
        "flows": 6022,
        "NFStream": 5994,
        "alike": 5807,
        ICMP_TYPES: 4,
        ENDED: 18,
        LATE: 94,
        DIRECTION: 30,
        SYN_ACK: 0,
        PAYLOAD: 42,
    },
    "attack": {
        "captures": 37,
        "flows": 56_055,
        "NFStream": 56_044,
        "alike": 55_876,
        ICMP_TYPES: 3,
        ENDED: 4,
        LATE: 95,
        DIRECTION: 47,
        SYN_ACK: 0,
        PAYLOAD: 19,
    },
}
"""NFStream's flows by difference; a flow may show two. All others are alike in every value."""

AT_THE_TIME_OUT: dict[str, set[str]] = {"benign": {"192.168.1.1:53285"}, "attack": set()}
"""Who sends a packet 119.9992 s after a flow's first one, which in cut milliseconds are 120 s:
NFStream's active time-out parts the flow there, and ours does not."""

Corpus = dict[str, tuple[Rows, list[Flow]]]


@pytest.fixture(scope="module", params=list(EXPECTED))
def corpus(request: pytest.FixtureRequest, shared_data: Path) -> tuple[str, Corpus]:
    folder = shared_data / "captures" / request.param
    paths = sorted(folder.glob("*.pcap.gz"))
    found = zip(map(packets_of, paths), metered(paths), strict=True)
    return request.param, dict(zip([path.name for path in paths], found, strict=True))


@pytest.fixture(scope="module")
def in_milliseconds(corpus: tuple[str, Corpus]) -> tuple[dict[str, int], Comparison]:
    """What is expected of the captures, and their sum."""
    name, captures = corpus
    expected = EXPECTED[name]
    assert len(captures) == expected["captures"]
    return expected, total(compared(*each) for each in captures.values())


@pytest.mark.slow
def test_every_flow_is_alike_or_differs_by_name(
    in_milliseconds: tuple[dict[str, int], Comparison],
) -> None:
    expected, result = in_milliseconds
    assert result.wrong == []
    assert (result.flows, result.theirs) == (expected["flows"], expected["NFStream"])
    assert result.alike == expected["alike"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENCES)
def test_how_many_flows_show_a_difference(
    name: str, in_milliseconds: tuple[dict[str, int], Comparison]
) -> None:
    expected, result = in_milliseconds
    assert result.differences[name] == expected[name]


@pytest.mark.slow
def test_nanoseconds_say_the_same_within_a_millisecond(corpus: tuple[str, Corpus]) -> None:
    name, captures = corpus
    result = total(compared(*each, step_ns=1) for each in captures.values())
    assert {sentence.split()[0] for sentence in result.wrong} == AT_THE_TIME_OUT[name]
    assert result.theirs == EXPECTED[name]["NFStream"]

"""The types that flow between the rooms: frames, packets, flows, verdicts, findings.

Every room may import this module; it imports none of ours. Arrays of rows are numpy structured
arrays, so that the compiled loops and the vectorised rooms read the same memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

__all__ = [
    "ACK",
    "ARP",
    "FIN",
    "FLOW",
    "ICMP",
    "ICMPV6",
    "MODELS",
    "PACKET",
    "PSH",
    "RECORDED_FLOW",
    "RST",
    "SEVERITIES",
    "SYN",
    "TCP",
    "UDP",
    "UNREAD_REASONS",
    "ConnectionState",
    "Deviation",
    "EndReason",
    "Finding",
    "FlowBatch",
    "FlowRecord",
    "FrameBatch",
    "PacketBatch",
    "PacketKind",
    "Rows",
    "Severity",
    "VerdictBatch",
    "without_features",
]

Rows = NDArray[np.void]
"""A structured array; its dtype is named where it is made (PACKET, FLOW)."""

MODELS: Final = ("home", "industrial", "live")
"""The three models in the order of the columns of a VerdictBatch."""

Severity = Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"]
SEVERITIES: Final[tuple[Severity, ...]] = ("LOW", "MEDIUM", "HIGH", "CRITICAL")
"""By rising rank; a VerdictBatch holds the rank."""


@dataclass(slots=True)
class FrameBatch:
    """Captured frames, side by side in one buffer.

    data: (n_bytes,) uint8; frame i is data[offset[i] : offset[i] + captured[i]].
    offset, time_ns: (n,) int64; time_ns is the capture time, nanoseconds since the epoch.
    captured, length: (n,) int32 bytes kept and bytes on the wire (captured <= length).
    link_type: (n,) int32 libpcap's DLT number of each frame (1 = Ethernet).
    """

    data: NDArray[np.uint8]
    offset: NDArray[np.int64]
    captured: NDArray[np.int32]
    length: NDArray[np.int32]
    time_ns: NDArray[np.int64]
    link_type: NDArray[np.int32]
    interface: str

    def __len__(self) -> int:
        return len(self.offset)


# Protocols by their IANA numbers; ARP has none and is no IP protocol.
ARP: Final = 0
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

# Bits of TCP's flags (RFC 9293 §3.1).
FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
ACK: Final = 16


class PacketKind(IntEnum):
    """What a PACKET row stands for: only FLOW rows become flows, ARP rows feed the windows."""

    FLOW = 0
    ARP = 1


PACKET: Final = np.dtype(
    [
        ("time_ns", np.int64),
        # IPv4 addresses stand in *_lo with *_hi = 0 and ip_version = 4.
        ("src_hi", np.uint64),
        ("src_lo", np.uint64),
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("src_mac", np.uint64),
        ("dst_mac", np.uint64),
        ("seq", np.uint32),
        ("ack", np.uint32),
        ("vlan", np.uint32),  # outer tag << 12 | inner tag; 0 = untagged
        ("tunnel", np.uint32),  # network number of a VXLAN or Geneve frame; 0 = none
        ("payload", np.int32),  # transport payload in bytes, from the IP header
        ("wire_length", np.int32),
        ("src_port", np.uint16),
        ("dst_port", np.uint16),
        ("window", np.uint16),
        ("header_length", np.uint16),  # IP and transport headers together
        ("ip_id", np.uint16),  # IPv4 identification; 0 for IPv6
        ("checksum", np.uint16),  # of the transport, as sent
        ("protocol", np.uint8),  # IANA number; 0 for ARP
        ("ip_version", np.uint8),
        ("tcp_flags", np.uint8),
        ("ttl", np.uint8),
        ("icmp_type", np.uint8),  # for ARP the operation (1 request, 2 reply)
        ("icmp_code", np.uint8),
        ("kind", np.uint8),
        ("fragment", np.uint8),  # 1: first fragment of a datagram
    ],
    align=True,
)

UNREAD_REASONS: Final = (
    "link_type",  # a link type nobody here can read
    "truncated",  # the headers end before the captured bytes begin to make sense
    "not_ip",  # LLDP, STP, ... : frames that carry neither IP nor ARP
    "bad_header",  # a length or version field that contradicts itself
    "fragment",  # fragments after the first: no ports, bytes of no flow
    "encrypted",  # Wi-Fi or MACsec frames: not even their addresses can be read
    "duplicate",  # seen on another interface before
)
"""Names of the counters for frames that gave no PACKET row, in the order of the counter array."""


@dataclass(slots=True)
class PacketBatch:
    """Decoded packets: rows (n,) of dtype PACKET, in capture order.

    unread: (len(UNREAD_REASONS),) int64 frames of the same batch that gave no row, by reason.
    frames: frames looked at; frames == len(rows) + unread.sum().
    """

    rows: Rows
    unread: NDArray[np.int64]
    frames: int
    wire_bytes: int

    def __len__(self) -> int:
        return len(self.rows)


class EndReason(IntEnum):
    """How a flow ended; ACTIVE and QUIET mark provisional rows of flows that still live."""

    ACTIVE = 0
    QUIET = 1
    FIN = 2
    RST = 3
    IDLE = 4
    TIMEOUT = 5  # active time-out: the connection goes on in another flow
    SHUTDOWN = 6  # end of file or of the program
    EVICTED = 7  # the table was full


class ConnectionState(IntEnum):
    """What the packets show of the connection (docs/features.md; names after Zeek's conn.log)."""

    S0 = 0  # SYN without an answer
    REJ = 1  # SYN answered by RST
    SF = 2  # handshake and FIN in both directions
    RST = 3  # handshake, then RST
    EST = 4  # handshake, still open or timed out
    MID = 5  # began before the capture: no SYN seen
    ANSWERED = 6  # UDP, ICMP: packets in both directions
    UNANSWERED = 7


FLOW: Final = np.dtype(
    [
        ("id", np.uint64),  # counts up from 1 within one run of the tracker
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        # forward = the direction of the initiator; [0] forward, [1] backward below
        ("src_hi", np.uint64),
        ("src_lo", np.uint64),
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("src_mac", np.uint64),
        ("dst_mac", np.uint64),
        ("bytes", np.int64, (2,)),  # transport payload
        ("square_sum", np.int64, (2,)),  # of payload lengths; exact, never beyond 2**63 - 1
        ("wire_bytes", np.int64, (2,)),
        ("dir_first_ns", np.int64, (2,)),
        ("dir_last_ns", np.int64, (2,)),
        ("iat_mean", np.float64, (3,)),  # ns, Welford; [2] = both directions together
        ("iat_m2", np.float64, (3,)),
        ("jitter_sum", np.float64),  # sum |IAT_i - IAT_{i-1}|, ns, both directions
        ("last_iat", np.float64),
        ("packets", np.int32, (2,)),
        ("payload_packets", np.int32, (2,)),
        ("length_max", np.int32, (2,)),
        ("length_min", np.int32, (2,)),
        ("flag_counts", np.int32, (4,)),  # FIN, SYN, RST, PSH
        ("first_payloads", np.int32, (3,)),  # the first three payload lengths > 0; -1 missing
        ("vlan", np.uint32),
        ("tunnel", np.uint32),
        ("src_port", np.uint16),
        ("dst_port", np.uint16),
        ("init_window", np.uint16, (2,)),
        ("protocol", np.uint8),
        ("ip_version", np.uint8),
        ("icmp_type", np.uint8),
        ("icmp_code", np.uint8),
        ("ttl", np.uint8, (2,)),  # of the first packet of the direction
        ("marks", np.uint8),  # MARK_* bits of flow_row
        ("end_reason", np.uint8),
        ("connection_state", np.uint8),
        ("continued", np.uint8),  # 1: the connection had a flow before this one
    ],
    align=True,
)


@dataclass(slots=True)
class FlowBatch:
    """Flows: rows (n,) of dtype FLOW; ended ones, and provisional ones (ACTIVE, QUIET)."""

    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Deviation:
    """One feature that made a flow odd.

    value, low, high: in `unit`; low..high holds 98 of 100 normal flows.
    ordinary: the value with which the flow would have been like a normal one, in `unit`.
    ratio: value / high (or low / value below the range), None within it.
    share: part of the flow's oddness that goes away with the nearest normal flow's value, 0..1.
    log: whether a picture of it wants a logarithmic axis.
    """

    feature: str
    label: str
    unit: str
    value: float
    low: float
    high: float
    ordinary: float
    ratio: float | None
    share: float
    log: bool


@dataclass(slots=True)
class VerdictBatch:
    """Judgement of a FlowBatch, row for row; columns of the (n, 3) arrays follow MODELS.

    scores: float64 log10(p), p the share of known-normal flows at least as odd; lower = odder;
        NaN where the model is unavailable.
    raw: the forests' own scores (scikit-learn's score_samples), NaN where unavailable.
    votes: int8, 1 ANOMALY, 0 NORMAL, -1 UNAVAILABLE.
    severity: int8, the place in SEVERITIES.
    alert, borderline: bool.
    thresholds, references: (3,) the line of each model and the size of its reference (0: none).
    beyond: (n, 3) bool, rarer than the whole reference.
    extreme: bool, odd enough to be an incident alone (docs/detection.md, "Incidents").
    autoencoder: (n,) log10 p of the live model's autoencoder alone, NaN where there is none.
    deviations: one list a row, filled for alerts only.
    """

    scores: NDArray[np.float64]
    raw: NDArray[np.float64]
    votes: NDArray[np.int8]
    severity: NDArray[np.int8]
    alert: NDArray[np.bool_]
    borderline: NDArray[np.bool_]
    beyond: NDArray[np.bool_]
    thresholds: NDArray[np.float64]
    references: NDArray[np.int64]
    extreme: NDArray[np.bool_]
    autoencoder: NDArray[np.float64]
    deviations: list[list[Deviation]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.alert)

    def taken(self, keep: NDArray[np.bool_]) -> VerdictBatch:
        """The verdicts of the rows where `keep`, (n,), is true."""
        return VerdictBatch(
            scores=self.scores[keep],
            raw=self.raw[keep],
            votes=self.votes[keep],
            severity=self.severity[keep],
            alert=self.alert[keep],
            borderline=self.borderline[keep],
            beyond=self.beyond[keep],
            thresholds=self.thresholds,
            references=self.references,
            extreme=self.extreme[keep],
            autoencoder=self.autoencoder[keep],
            deviations=[self.deviations[i] for i in np.flatnonzero(keep)],
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """A window pattern over its line: evidence that names what happens between hosts.

    pattern, subpattern: family and finer name (docs/detection.md lists them).
    source, target: addresses as text; the key side (the one the incident is about) is `key_is`:
        "source", or "target" where sources are many or forged.
    targets, ports: some of what was touched (at most 50 each), busiest or newest first.
    amounts: the numbers the sentence is made of, by name (e.g. ports=412, seconds=38).
    line, value: the window statistic and the line it crossed; spoofable: no return path was seen.
    first_ns, last_ns: packet time of the window's evidence.
    """

    pattern: str
    subpattern: str
    source: str
    target: str
    key_is: str
    targets: tuple[str, ...]
    ports: tuple[int, ...]
    protocol: int
    count: int
    amounts: dict[str, Any]
    value: float
    line: float
    spoofable: bool
    first_ns: int
    last_ns: int


class FlowRecord(TypedDict):
    """One row of GET /captured_data and of logs_store.json; the names are the specification's
    where it has them. `features` stays inside: the values the live model learns from."""

    id: str
    seq: int
    timestamp: str
    time: float
    src_ip: str
    dst_ip: str
    src_port: int
    dst_port: int
    protocol: str
    service: str
    length: int
    duration_s: float
    packets: int
    bytes: int
    state: str
    connection_state: str
    scores: dict[str, float | None]
    raw: dict[str, float | None]
    model_votes: dict[str, str]
    final_decision: str
    severity: str
    borderline: bool
    extreme: bool
    explainability: dict[str, list[str]]
    deviations: list[dict[str, Any]]
    rarity: dict[str, Any]
    names: dict[str, str | None]
    incident: str | None
    features: list[float]


RECORDED_FLOW: Final[dict[str, Any]] = {
    "time": 0.0,
    "timestamp": "",
    "src_ip": "",
    "dst_ip": "",
    "src_port": 0,
    "dst_port": 0,
    "protocol": "",
    "scores": {},
    "model_votes": {},
    "final_decision": "",
    "severity": "",
    "deviations": [],
    "rarity": {},
    "names": {},
    "seq": 0,
}
"""What a FlowRecord on the disk must have, as an example (store.document's `like`)."""


def without_features(flow: Mapping[str, Any]) -> dict[str, Any]:
    """A FlowRecord as pages and documents have it: without what only the live model reads."""
    return {name: value for name, value in flow.items() if name != "features"}

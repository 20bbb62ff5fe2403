"""Flows changed as their sender could change them, with everything that follows from it.

A flow is taken apart into what its two directions sent and when, that is changed, and its features
are computed again: means, spreads, totals, rates and shares stay those of a flow that exists. What
only the receiver decides (its payloads) stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features import COLUMNS

__all__ = ["in_pieces", "padded", "padded_to_usual", "slowed"]

Values = NDArray[np.float64]

SEGMENT: Final = 1460.0
"""Payload bytes of a full TCP segment over Ethernet: no packet is padded beyond."""
ACTIVE_US: Final = 120e6
"""Where the flow tracker tells a flow that goes on (the active time-out)."""
OPENING: Final = (2.0, 1.0)
"""Empty packets, sent and received, that open a TCP connection."""

_PLACES: Final = {name: place for place, name in enumerate(COLUMNS)}
_WAYS: Final = ("Fwd", "Bwd")
_FLAGS: Final = ("FIN", "SYN", "RST", "PSH")


@dataclass(frozen=True, slots=True)
class _Way:
    """One direction of n flows, each (n,): packets, payload bytes (sum, largest, smallest, sum of
    squares), and gaps between its packets in microseconds (sum, sum of squares)."""

    packets: Values
    total: Values
    largest: Values
    smallest: Values
    squares: Values
    gap_total: Values
    gap_squares: Values


@dataclass(frozen=True, slots=True)
class _Parts:
    """duration: microseconds; flags: counts by name."""

    ways: tuple[_Way, _Way]
    duration: Values
    flags: dict[str, Values]


def padded(values: Values, factor: float | Values) -> Values:
    """The sender's payloads times `factor`, as far as a segment holds.

    values: (n, len(COLUMNS)) features of flows; factor: at least 1, one or (n,).
    """
    parts = _apart(values)
    sent, received = parts.ways
    room = SEGMENT / np.maximum(sent.largest, 1.0)
    # Packets beyond a segment were joined by the sender's card; they can grow no further.
    times = np.where(sent.largest > 0, np.maximum(np.minimum(factor, room), 1.0), 1.0)
    sent = replace(
        sent,
        total=sent.total * times,
        largest=sent.largest * times,
        smallest=sent.smallest * times,
        squares=sent.squares * times**2,
    )
    return _together(values, replace(parts, ways=(sent, received)))


def padded_to_usual(values: Values, normal: Values) -> Values:
    """Payloads padded until the largest is as large as normal flows' usually is.

    normal: (m, len(COLUMNS)) normal flows; usual is the median of those that send anything.
    """
    largest = normal[:, _PLACES["Fwd Packet Length Max"]]
    usual = float(np.median(largest[largest > 0])) if (largest > 0).any() else 0.0
    own = np.maximum(values[:, _PLACES["Fwd Packet Length Max"]], 1.0)
    return padded(values, np.maximum(usual / own, 1.0))


def slowed(values: Values, factor: float) -> Values:
    """All gaps times `factor`. Of a flow that then outlasts the active time-out the first record
    is given: its connection goes on in others."""
    parts = _apart(values)
    ways = [
        replace(way, gap_total=way.gap_total * factor, gap_squares=way.gap_squares * factor**2)
        for way in parts.ways
    ]
    parts = replace(parts, ways=(ways[0], ways[1]), duration=parts.duration * factor)
    records = np.maximum(np.ceil(parts.duration / ACTIVE_US), 1.0)
    cut = _shortened(parts, records, kept=(np.zeros(len(values)), np.zeros(len(values))))
    for flag in ("FIN", "RST"):
        cut.flags[flag] = np.where(records > 1, 0.0, cut.flags[flag])
    out = _together(values, cut)
    out[records > 1, _PLACES["State RST"]] = 0.0  # what goes on was not reset yet
    return out


def in_pieces(values: Values, pieces: int) -> Values:
    """One of the `pieces` connections among which a flow's payload is spread; each opens and
    closes as the whole did."""
    parts = _apart(values)
    opens, closing = parts.flags["SYN"] > 0, np.ceil(parts.flags["FIN"] / 2.0)
    kept = [
        np.minimum(np.where(opens, opening, 0.0) + closing, way.packets)
        for opening, way in zip(OPENING, parts.ways, strict=True)
    ]
    count = np.full(len(values), float(pieces))
    return _together(values, _shortened(parts, count, kept=(kept[0], kept[1])))


def _shortened(parts: _Parts, pieces: Values, kept: tuple[Values, Values]) -> _Parts:
    """The part of flows that one of `pieces` (n,) holds; `kept` empty packets of each direction
    are in every one."""
    carried, packets = [], []
    for way, empty in zip(parts.ways, kept, strict=True):
        rest = np.maximum(way.packets - empty, 0.0)
        carried.append(np.ceil(rest / pieces))
        packets.append(empty + carried[-1])
    before = parts.ways[0].packets + parts.ways[1].packets - kept[0] - kept[1]
    # What opens and closes takes no time to speak of.
    lasting = np.where(before > 0, _divided(carried[0] + carried[1], before), 1.0)
    after = packets[0] + packets[1]
    duration = np.where(after > 1, np.minimum(parts.duration * lasting, ACTIVE_US), 0.0)
    ways = []
    for place, way in enumerate(parts.ways):
        share = _divided(carried[place], way.packets - kept[place])
        share = np.where(carried[place] > 0, share, 1.0)
        total = way.total * share
        # A single packet that carries anything carries all there is.
        alone = (carried[place] == 1) & (share < 1)
        gaps = np.maximum(packets[place] - 1, 0) / np.maximum(way.packets - 1, 1)
        # Packets are counted up, so their gaps may have to shrink to fit into the piece.
        fitted = np.where(
            way.gap_total * gaps > duration, _divided(duration, way.gap_total * gaps), 1.0
        )
        ways.append(
            _Way(
                packets[place],
                total,
                np.where(alone, total, np.minimum(way.largest, total)),
                np.where(packets[place] == 1, total, way.smallest),
                np.where(alone, total**2, way.squares * share),
                way.gap_total * gaps * fitted,
                way.gap_squares * gaps * fitted**2,
            )
        )
    flags = dict(parts.flags)
    flags["PSH"] = np.minimum(np.ceil(flags["PSH"] / pieces), after)
    return _Parts((ways[0], ways[1]), duration, flags)


# --- features to parts and back -------------------------------------------------------------------


def _apart(values: Values) -> _Parts:
    columns = {name: values[:, place] for name, place in _PLACES.items()}
    ways = []
    for way in _WAYS:
        packets = columns[f"Total {way} Packets"]
        total, gap_total = columns[f"Total Length {way} Packet"], columns[f"{way} IAT Total"]
        ways.append(
            _Way(
                packets,
                total,
                columns[f"{way} Packet Length Max"],
                columns[f"{way} Packet Length Min"],
                _squares(total, packets, columns[f"{way} Packet Length Std"]),
                gap_total,
                _squares(gap_total, packets - 1, columns[f"{way} IAT Std"]),
            )
        )
    flags = {flag: columns[f"{flag} Flag Count"].copy() for flag in _FLAGS}
    return _Parts((ways[0], ways[1]), columns["Flow Duration"], flags)


def _together(values: Values, parts: _Parts) -> Values:
    """(n, len(COLUMNS)) the features of `parts`; those that do not follow from it (the first
    windows, how the connection ended) as in `values`."""
    sent, received = parts.ways
    packets, payload = sent.packets + received.packets, sent.total + received.total
    seconds = parts.duration / 1e6
    smallest = np.minimum(
        np.where(sent.packets > 0, sent.smallest, np.inf),
        np.where(received.packets > 0, received.smallest, np.inf),
    )
    columns = {
        "Flow Duration": parts.duration,
        "Flow Bytes/s": _divided(payload, seconds),
        "Flow Packets/s": _divided(packets, seconds),
        "Min Packet Length": np.where(np.isfinite(smallest), smallest, 0.0),
        "Max Packet Length": np.maximum(sent.largest, received.largest),
        "Packet Length Mean": _divided(payload, packets),
        "Packet Length Std": _spread(payload, packets, sent.squares + received.squares),
        "Bytes per Packet": _divided(payload, packets),
        "Bytes Ratio": np.log1p(received.total) - np.log1p(sent.total),
        "Packets Ratio": np.log1p(received.packets) - np.log1p(sent.packets),
    }
    for name, way in zip(_WAYS, parts.ways, strict=True):
        gap_mean = _divided(way.gap_total, way.packets - 1)
        gap_spread = _spread(way.gap_total, way.packets - 1, way.gap_squares)
        columns[f"Total {name} Packets"] = way.packets
        columns[f"Total Length {name} Packet"] = way.total
        columns[f"{name} Packet Length Max"] = way.largest
        columns[f"{name} Packet Length Min"] = way.smallest
        columns[f"{name} Packet Length Mean"] = _divided(way.total, way.packets)
        columns[f"{name} Packet Length Std"] = _spread(way.total, way.packets, way.squares)
        columns[f"{name} IAT Total"] = way.gap_total
        columns[f"{name} IAT Mean"] = gap_mean
        columns[f"{name} IAT Std"] = gap_spread
        columns[f"{name} IAT CV"] = _divided(gap_spread, gap_mean)
    for flag, count in parts.flags.items():
        columns[f"{flag} Flag Count"] = count
        columns[f"{flag} Share"] = _divided(count, packets)
    out = values.copy()
    for name, place in _PLACES.items():
        if name in columns:
            out[:, place] = columns[name]
    return out


def _squares(total: Values, count: Values, spread: Values) -> Values:
    """Sum of squares of `count` numbers with this sum and sample deviation."""
    return np.maximum(count - 1, 0) * spread**2 + _divided(total**2, count)


def _spread(total: Values, count: Values, squares: Values) -> Values:
    """Sample deviation of `count` numbers; 0 below two."""
    return np.sqrt(np.maximum(_divided(squares - _divided(total**2, count), count - 1), 0.0))


def _divided(numerator: Values, denominator: Values) -> Values:
    out = np.zeros(len(numerator))
    return np.divide(numerator, denominator, out=out, where=denominator > 0)

"""The one table of features: name, unit, words for explanations, and how it comes from a flow.

Definitions are those of docs/features.md (CICFlowMeter's with its defects corrected): durations
and gaps in microseconds, lengths in bytes of transport payload, sample deviations, 0 where a
direction is empty and rates 0 where the duration is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batches import ConnectionState, Rows

__all__ = [
    "COLUMNS",
    "FEATURES",
    "HOME",
    "INDUSTRIAL",
    "LIVE",
    "REDUCED",
    "Feature",
    "extras",
    "matrix",
    "select",
]

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a flow.

    name: the canonical name in files, models and JSON; label: the words on a page.
    unit: us, bytes, packets, bytes/s, packets/s, count, ratio, or "yes or no" (1 or 0).
    log: whether its values span decades, so that a picture wants a logarithmic axis.
    group: the first model whose list holds it: home, industrial or live.
    """

    name: str
    label: str
    unit: str
    group: str
    log: bool = True


FEATURES: Final[tuple[Feature, ...]] = (
    Feature("Flow Duration", "Time open", "us", "home"),
    Feature("Total Fwd Packets", "Packets sent", "packets", "home"),
    Feature("Total Bwd Packets", "Packets received", "packets", "home"),
    Feature("Total Length Fwd Packet", "Bytes sent", "bytes", "home"),
    Feature("Total Length Bwd Packet", "Bytes received", "bytes", "home"),
    Feature("Fwd Packet Length Max", "Largest packet sent", "bytes", "home"),
    Feature("Fwd Packet Length Min", "Smallest packet sent", "bytes", "home"),
    Feature("Fwd Packet Length Mean", "Mean packet sent", "bytes", "home"),
    Feature("Fwd Packet Length Std", "Spread of packets sent", "bytes", "home"),
    Feature("Bwd Packet Length Max", "Largest packet received", "bytes", "home"),
    Feature("Bwd Packet Length Min", "Smallest packet received", "bytes", "home"),
    Feature("Bwd Packet Length Mean", "Mean packet received", "bytes", "home"),
    Feature("Bwd Packet Length Std", "Spread of packets received", "bytes", "home"),
    Feature("Flow Bytes/s", "Bytes per second", "bytes/s", "home"),
    Feature("Flow Packets/s", "Packets per second", "packets/s", "home"),
    Feature("Fwd IAT Total", "Time from first to last packet sent", "us", "home"),
    Feature("Fwd IAT Mean", "Gap between packets sent", "us", "home"),
    Feature("Fwd IAT Std", "Spread of gaps between packets sent", "us", "home"),
    Feature("Bwd IAT Total", "Time from first to last packet received", "us", "home"),
    Feature("Bwd IAT Mean", "Gap between packets received", "us", "home"),
    Feature("Bwd IAT Std", "Spread of gaps between packets received", "us", "home"),
    Feature("Min Packet Length", "Smallest packet", "bytes", "industrial"),
    Feature("Max Packet Length", "Largest packet", "bytes", "industrial"),
    Feature("Packet Length Mean", "Mean packet", "bytes", "industrial"),
    Feature("Packet Length Std", "Spread of packet sizes", "bytes", "industrial"),
    Feature("Init Win Fwd", "First window of the sender", "bytes", "industrial"),
    Feature("Init Win Bwd", "First window of the receiver", "bytes", "industrial"),
    Feature("FIN Flag Count", "Packets that close", "count", "live"),
    Feature("SYN Flag Count", "Packets that open", "count", "live"),
    Feature("RST Flag Count", "Packets that reset", "count", "live"),
    Feature("PSH Flag Count", "Packets that push data", "count", "live"),
    Feature("Bytes Ratio", "Received to sent bytes", "ratio", "live", log=False),
    Feature("Packets Ratio", "Received to sent packets", "ratio", "live", log=False),
    Feature("SYN Share", "Share of packets that open", "ratio", "live", log=False),
    Feature("PSH Share", "Share of packets that push data", "ratio", "live", log=False),
    Feature("RST Share", "Share of packets that reset", "ratio", "live", log=False),
    Feature("Bytes per Packet", "Bytes per packet", "bytes", "live"),
    Feature("Fwd IAT CV", "Unevenness of gaps sent", "ratio", "live", log=False),
    Feature("Bwd IAT CV", "Unevenness of gaps received", "ratio", "live", log=False),
    Feature("State RST", "Reset after it was open", "yes or no", "live", log=False),
)

COLUMNS: Final = tuple(feature.name for feature in FEATURES)
HOME: Final = tuple(f.name for f in FEATURES if f.group == "home")
INDUSTRIAL: Final = tuple(f.name for f in FEATURES if f.group in ("home", "industrial"))
LIVE: Final = COLUMNS
REDUCED: Final = (
    "Flow Duration",
    "Total Fwd Packets",
    "Total Bwd Packets",
    "Total Length Fwd Packet",
    "Total Length Bwd Packet",
    "Fwd Packet Length Mean",
    "Bwd Packet Length Mean",
    "Flow Bytes/s",
    "Flow Packets/s",
)
"""What every record of a flow holds or lets be counted: Zeek, Argus, Suricata and NetFlow too."""

_PIECE: Final = 2048

_PLACES: Final = {name: place for place, name in enumerate(COLUMNS)}


def _divided(numerator: Column, denominator: Column) -> Column:
    """numerator / denominator, 0 where the denominator is 0."""
    out = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _sample_deviation(
    total: NDArray[np.int64], squares: NDArray[np.int64], n: NDArray[np.int64]
) -> Column:
    """Sample (n - 1) deviation from exact integer sums; 0 below two values.

    Squares are taken about the whole number below the mean: their sum is small and exact, while
    the textbook's difference of two huge numbers loses it (100 MB in packets of one size spread).
    """
    centre = total // np.maximum(n, 1)
    rest = total - centre * n
    about_centre = squares - centre * (total + rest)  # whole numbers that wrap, and so are exact
    spread = about_centre - _divided(rest.astype(np.float64) ** 2, n.astype(np.float64))
    return np.sqrt(np.maximum(_divided(spread, (n - 1).astype(np.float64)), 0.0))


def _gap_deviation(m2: Column, gaps: Column) -> Column:
    """Microseconds, from a running sum of squares in ns²; 0 below two gaps."""
    return np.sqrt(np.maximum(_divided(m2, gaps - 1), 0.0)) / 1e3


def matrix(rows: Rows) -> NDArray[np.float64]:
    """All features of flows.

    rows: (n,) of dtype FLOW. Returns (n, len(COLUMNS)) float64, columns in the order of COLUMNS,
    units as in FEATURES, always finite.
    """
    out = np.empty((len(rows), len(COLUMNS)))
    # Piece by piece, so that what is between two columns stays in the processor's cache.
    for start in range(0, len(rows), _PIECE):
        _fill(out[start : start + _PIECE], rows[start : start + _PIECE])
    return out


def _fill(out: NDArray[np.float64], rows: Rows) -> None:
    n = rows["packets"].astype(np.float64)
    sums = rows["bytes"].astype(np.float64)
    squares = rows["square_sum"]
    counts = rows["packets"].astype(np.int64)
    flags = rows["flag_counts"].astype(np.float64)
    windows = rows["init_window"].astype(np.float64)
    packets = n.sum(axis=1)
    payload = sums.sum(axis=1)
    gaps = np.maximum(n - 1, 0)
    duration_us = (rows["last_ns"] - rows["first_ns"]) / 1e3
    duration_s = duration_us / 1e6
    span_us = (rows["dir_last_ns"] - rows["dir_first_ns"]) / 1e3
    gap_mean_us = rows["iat_mean"][:, :2] / 1e3
    gap_std_us = _gap_deviation(rows["iat_m2"][:, :2], gaps)
    length_mean = _divided(sums, n)
    length_std = _sample_deviation(rows["bytes"], squares, counts)
    length_max = rows["length_max"].astype(np.float64)
    length_min = rows["length_min"].astype(np.float64)
    # An empty direction has no smallest packet, so it must not win the minimum of both.
    smallest = np.where(n > 0, length_min, np.inf).min(axis=1)

    columns = {
        "Flow Duration": duration_us,
        "Flow Bytes/s": _divided(payload, duration_s),
        "Flow Packets/s": _divided(packets, duration_s),
        "Min Packet Length": np.where(np.isfinite(smallest), smallest, 0.0),
        "Max Packet Length": length_max.max(axis=1),
        "Packet Length Mean": _divided(payload, packets),
        "Packet Length Std": _sample_deviation(
            rows["bytes"].sum(axis=1), squares.sum(axis=1), counts.sum(axis=1)
        ),
        "Bytes Ratio": np.log1p(sums[:, 1]) - np.log1p(sums[:, 0]),
        "Packets Ratio": np.log1p(n[:, 1]) - np.log1p(n[:, 0]),
        "SYN Share": _divided(flags[:, 1], packets),
        "PSH Share": _divided(flags[:, 3], packets),
        "RST Share": _divided(flags[:, 2], packets),
        "Bytes per Packet": _divided(payload, packets),
        "State RST": (rows["connection_state"] == ConnectionState.RST).astype(np.float64),
    }
    for place, flag in enumerate(("FIN", "SYN", "RST", "PSH")):
        columns[f"{flag} Flag Count"] = flags[:, place]
    for d, way in enumerate(("Fwd", "Bwd")):
        columns[f"Total {way} Packets"] = n[:, d]
        columns[f"Total Length {way} Packet"] = sums[:, d]
        columns[f"{way} Packet Length Max"] = length_max[:, d]
        columns[f"{way} Packet Length Min"] = length_min[:, d]
        columns[f"{way} Packet Length Mean"] = length_mean[:, d]
        columns[f"{way} Packet Length Std"] = length_std[:, d]
        columns[f"{way} IAT Total"] = span_us[:, d]
        columns[f"{way} IAT Mean"] = gap_mean_us[:, d]
        columns[f"{way} IAT Std"] = gap_std_us[:, d]
        columns[f"{way} IAT CV"] = _divided(gap_std_us[:, d], gap_mean_us[:, d])
        columns[f"Init Win {way}"] = windows[:, d]
    for place, name in enumerate(COLUMNS):
        out[:, place] = columns[name]


def select(values: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[np.float64]:
    """The columns `names` of a matrix made by `matrix`, in that order; (n, len(names))."""
    return values[:, [_PLACES[name] for name in names]]


def _burstiness(rows: Rows) -> Column:
    """(s - m) / (s + m) of the flow's gaps: -1 periodic, 0 Poisson, 1 bursty (Goh and Barabasi
    2008); 0 below three packets."""
    gaps = rows["packets"].sum(axis=1).astype(np.float64) - 1
    mean = rows["iat_mean"][:, 2] / 1e3
    deviation = _gap_deviation(rows["iat_m2"][:, 2], gaps)
    return np.where(gaps >= 2, _divided(deviation - mean, deviation + mean), 0.0)


def _jitter_us(rows: Rows) -> Column:
    """Mean |gap_i - gap_{i-1}| (RFC 3550 without smoothing); 0 below three packets."""
    differences = rows["packets"].sum(axis=1).astype(np.float64) - 2
    return _divided(rows["jitter_sum"] / 1e3, np.maximum(differences, 0.0))


_EXTRAS: Final[dict[str, Callable[[Rows, NDArray[np.float64]], Column]]] = {
    "flow_rate_bytes_per_ms": lambda rows, m: m[:, _PLACES["Flow Bytes/s"]] / 1e3,
    "iat_jitter_us": lambda rows, m: _jitter_us(rows),
    "packet_length_variance": lambda rows, m: m[:, _PLACES["Packet Length Std"]] ** 2,
    "burstiness": lambda rows, m: _burstiness(rows),
}


def extras(rows: Rows, values: NDArray[np.float64]) -> dict[str, Column]:
    """Shown and exported beside the features, part of no model; `values` comes from `matrix`."""
    return {name: compute(rows, values) for name, compute in _EXTRAS.items()}

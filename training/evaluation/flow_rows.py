"""Rows of a table of flows as the product's own FLOW rows, for everything that judges a stream.

`features.matrix` of these rows gives the table's features back, up to what whole numbers of bytes
round away.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batches import FLOW, TCP, EndReason, Rows
from features import COLUMNS
from training.evaluation.tables import Table, connection_states

__all__ = ["flow_rows"]

Values = NDArray[np.float64]

_WAYS: Final = ("Fwd", "Bwd")
_HEADERS: Final = 40
"""Bytes of an IPv4 and a TCP header without options, for the size on the wire."""


def flow_rows(table: Table, start_ns: NDArray[np.int64]) -> Rows:
    """(n,) FLOW rows that begin at `start_ns`, (n,) nanoseconds of the epoch."""
    rows = np.zeros(len(table), FLOW)
    column = {name: table.values[:, place] for place, name in enumerate(COLUMNS)}
    rows["id"] = np.arange(1, len(rows) + 1)
    rows["first_ns"] = start_ns
    rows["last_ns"] = start_ns + _ns(column["Flow Duration"])
    for d, way in enumerate(_WAYS):
        packets = column[f"Total {way} Packets"]
        size = column[f"Total Length {way} Packet"]
        rows["packets"][:, d] = packets
        rows["bytes"][:, d] = size
        squares = column[f"{way} Packet Length Std"] ** 2 * np.maximum(packets - 1, 0)
        rows["square_sum"][:, d] = np.rint(squares + size**2 / np.maximum(packets, 1))
        rows["length_max"][:, d] = column[f"{way} Packet Length Max"]
        rows["length_min"][:, d] = column[f"{way} Packet Length Min"]
        rows["dir_first_ns"][:, d] = start_ns
        rows["dir_last_ns"][:, d] = start_ns + _ns(column[f"{way} IAT Total"])
        rows["iat_mean"][:, d] = column[f"{way} IAT Mean"] * 1e3
        gaps = np.maximum(packets - 1, 0)
        deviation_ns = column[f"{way} IAT Std"] * 1e3
        rows["iat_m2"][:, d] = deviation_ns**2 * np.maximum(gaps - 1, 0)
        rows["init_window"][:, d] = np.clip(column[f"Init Win {way}"], 0, 65_535)
    for place, flag in enumerate(("FIN", "SYN", "RST", "PSH")):
        rows["flag_counts"][:, place] = column[f"{flag} Flag Count"]
    rows["wire_bytes"] = rows["bytes"] + _HEADERS * rows["packets"]
    frame = table.frame
    for side, ip, port in (("src", "src_ip", "src_port"), ("dst", "dst_ip", "dst_port")):
        rows[f"{side}_lo"] = [int(ipaddress.IPv4Address(text)) for text in frame[ip]]
        rows[f"{side}_port"] = frame[port].fillna(0).to_numpy(np.float64)
    rows["protocol"] = frame["protocol"].fillna(TCP).to_numpy(np.float64)
    rows["ip_version"] = 4
    rows["connection_state"] = connection_states(frame)
    # How it ended, as far as its flags tell.
    tcp = rows["protocol"] == TCP
    rows["end_reason"] = np.select(
        [tcp & (rows["flag_counts"][:, 2] > 0), tcp & (rows["flag_counts"][:, 0] > 0)],
        [int(EndReason.RST), int(EndReason.FIN)],
        int(EndReason.IDLE),
    )
    return rows


def _ns(microseconds: Values) -> NDArray[np.int64]:
    nanoseconds: NDArray[np.int64] = np.rint(microseconds * 1e3).astype(np.int64)
    return nanoseconds

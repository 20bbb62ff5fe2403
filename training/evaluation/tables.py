"""Tables of labelled flows, whatever days and networks a folder holds, as all features of a flow.

A network is one `net` in one `edition`: two editions of one data set count padding, flags and
windows differently and are never mixed. Rows that stand twice in the tables, times and addresses
included, count once; flows of one packet are left out, as by the tools that made such tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import TCP, ConnectionState
from errors import InputError
from features import COLUMNS, select

__all__ = ["Table", "connection_states", "in_order", "live_values", "read_tables"]

Values = NDArray[np.float64]
Words = NDArray[np.str_]
Mask = NDArray[np.bool_]

WEEK: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_SPELLINGS: Final = {
    "Flow Duration": "flow_duration",
    "Total Fwd Packets": "tot_fwd_pkts",
    "Total Bwd Packets": "tot_bwd_pkts",
    "Total Length Fwd Packet": "totlen_fwd",
    "Total Length Bwd Packet": "totlen_bwd",
    "Fwd Packet Length Max": "fwd_len_max",
    "Fwd Packet Length Min": "fwd_len_min",
    "Fwd Packet Length Mean": "fwd_len_mean",
    "Fwd Packet Length Std": "fwd_len_std",
    "Bwd Packet Length Max": "bwd_len_max",
    "Bwd Packet Length Min": "bwd_len_min",
    "Bwd Packet Length Mean": "bwd_len_mean",
    "Bwd Packet Length Std": "bwd_len_std",
    "Flow Bytes/s": "flow_bytes_s",
    "Flow Packets/s": "flow_pkts_s",
    "Fwd IAT Total": "fwd_iat_tot",
    "Fwd IAT Mean": "fwd_iat_mean",
    "Fwd IAT Std": "fwd_iat_std",
    "Bwd IAT Total": "bwd_iat_tot",
    "Bwd IAT Mean": "bwd_iat_mean",
    "Bwd IAT Std": "bwd_iat_std",
    "Min Packet Length": "pkt_len_min",
    "Max Packet Length": "pkt_len_max",
    "Packet Length Mean": "pkt_len_mean",
    "Packet Length Std": "pkt_len_std",
    "Init Win Fwd": "init_win_fwd",
    "Init Win Bwd": "init_win_bwd",
    "FIN Flag Count": "fin_cnt",
    "SYN Flag Count": "syn_cnt",
    "RST Flag Count": "rst_cnt",
    "PSH Flag Count": "psh_cnt",
}
"""Canonical name -> the tables' own: what a flow file gives; the other features follow from it."""


@dataclass(frozen=True, slots=True)
class Table:
    """Labelled flows.

    values: (n, len(COLUMNS)) all features. attack: (n,) bool. labels, days, networks, devices:
    (n,) text, "" where the table does not say. frame: the tables' own columns, for addresses and
    times. lacking: features these tables can't give, 0 in `values`.
    """

    values: Values
    attack: Mask
    labels: Words
    days: Words
    networks: Words
    devices: Words
    frame: Any
    lacking: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def where(self, mask: Mask) -> Table:
        return Table(
            self.values[mask],
            self.attack[mask],
            self.labels[mask],
            self.days[mask],
            self.networks[mask],
            self.devices[mask],
            self.frame[mask],
            self.lacking,
        )

    @property
    def normal(self) -> Table:
        return self.where(~self.attack)

    @property
    def attacks(self) -> Table:
        return self.where(self.attack)

    def on(self, days: Sequence[str]) -> Table:
        return self.where(np.isin(self.days, list(days)))

    def of(self, names: tuple[str, ...]) -> Values:
        """(n, len(names)) the features a model asks for."""
        return select(self.values, names)


def read_tables(data: Path) -> Table:
    """All tables of flows in `data`/flows; InputError where there is none that can be read."""
    import pandas as pd

    frames = []
    for path in sorted((data / "flows").glob("*.parquet")):
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} can't be read as a table of flows: {error}.") from error
        missing = {*_SPELLINGS.values(), "label", "attack", "net"} - set(frame.columns)
        if missing:
            raise InputError(f"{path} is no table of labelled flows: it lacks {sorted(missing)}.")
        frames.append(_plain(frame, pd))
    if not frames:
        raise InputError(f"There is no table of flows (flows/*.parquet) in {data}.")
    frame = pd.concat(frames, ignore_index=True)
    timed = frame["ts"].notna()
    twice = frame.duplicated(["net", "edition", "ts", *_SPELLINGS.values(), *_WAYS]) & timed
    several = frame[_SPELLINGS["Total Fwd Packets"]] + frame[_SPELLINGS["Total Bwd Packets"]] >= 2
    return of_frame(frame[several & ~twice].reset_index(drop=True))


_WAYS: Final = ("src_ip", "src_port", "dst_ip", "dst_port", "protocol")
_WORDS: Final = ("label", "net", "edition", "day", "device", "src_ip", "dst_ip")


def _plain(frame: Any, pd: Any) -> Any:
    """Every table with the same columns: text as text, `ts` in nanoseconds of the epoch."""
    frame = frame.copy()
    for name in _WORDS:
        column = frame[name].astype(object) if name in frame else pd.Series("", index=frame.index)
        frame[name] = column.where(column.notna(), "").astype(str)
    for name in ("src_port", "dst_port", "protocol"):
        frame[name] = pd.to_numeric(frame[name]) if name in frame else np.nan
    stamp = frame["ts"] if "ts" in frame else pd.Series(pd.NaT, index=frame.index)
    if pd.api.types.is_numeric_dtype(stamp):
        stamp = pd.to_datetime(stamp, unit="us")
    frame["ts"] = pd.to_datetime(stamp)
    frame["attack"] = frame["attack"].astype(bool)
    return frame


def of_frame(frame: Any) -> Table:
    """A Table of a frame with the tables' own columns and those of `_plain`."""
    values, lacking = live_values(frame)
    networks = (frame["net"] + " " + frame["edition"]).str.strip()
    return Table(
        values,
        frame["attack"].to_numpy(bool),
        frame["label"].to_numpy(str),
        frame["day"].to_numpy(str),
        networks.to_numpy(str),
        frame["device"].to_numpy(str),
        frame,
        lacking,
    )


def live_values(frame: Any) -> tuple[Values, tuple[str, ...]]:
    """(n, len(COLUMNS)) features of a table's rows, and the names of those it can't give (0).

    The shapes are computed as `features.matrix` does it from a flow's own counters.
    """
    known = {name: frame[key].to_numpy(np.float64) for name, key in _SPELLINGS.items()}
    packets = known["Total Fwd Packets"] + known["Total Bwd Packets"]
    sent, received = known["Total Length Fwd Packet"], known["Total Length Bwd Packet"]
    known["Bytes Ratio"] = np.log1p(received) - np.log1p(sent)
    known["Packets Ratio"] = np.log1p(known["Total Bwd Packets"]) - np.log1p(
        known["Total Fwd Packets"]
    )
    for flag in ("SYN", "PSH", "RST"):
        known[f"{flag} Share"] = _divided(known[f"{flag} Flag Count"], packets)
    known["Bytes per Packet"] = _divided(sent + received, packets)
    for way in ("Fwd", "Bwd"):
        known[f"{way} IAT CV"] = _divided(known[f"{way} IAT Std"], known[f"{way} IAT Mean"])
    states = connection_states(frame)
    for state in ConnectionState:
        known[f"State {state.name}"] = (states == state).astype(np.float64)
    values = np.zeros((len(frame), len(COLUMNS)))
    for place, name in enumerate(COLUMNS):
        if name in known:
            values[:, place] = np.nan_to_num(known[name], posinf=0.0, neginf=0.0)
    return values, tuple(name for name in COLUMNS if name not in known)


def connection_states(frame: Any) -> NDArray[np.uint8]:
    """(n,) ConnectionState of a table's rows, as far as counts of flags tell it: no SYN-ACK was
    seen where every packet that came back was a RST. A protocol that is not told counts as TCP.
    """
    tcp = frame["protocol"].fillna(TCP).to_numpy(np.float64) == TCP
    answered = (frame["tot_bwd_pkts"] > 0).to_numpy()
    opened = (frame["syn_cnt"] > 0).to_numpy()
    reset = (frame["rst_cnt"] > 0).to_numpy()
    silent = (frame["totlen_fwd"] + frame["totlen_bwd"] == 0).to_numpy()
    refused = silent & answered & reset & (frame["rst_cnt"] >= frame["tot_bwd_pkts"]).to_numpy()
    cases = (
        (~tcp & answered, ConnectionState.ANSWERED),
        (~tcp, ConnectionState.UNANSWERED),
        (~opened, ConnectionState.MID),
        (silent & ~answered, ConnectionState.S0),
        (refused, ConnectionState.REJ),
        (reset, ConnectionState.RST),
        ((frame["fin_cnt"] > 1).to_numpy(), ConnectionState.SF),
    )
    states: NDArray[np.uint8] = np.select(
        [where for where, _ in cases], [int(state) for _, state in cases], int(ConnectionState.EST)
    ).astype(np.uint8)
    return states


def _divided(numerator: Values, denominator: Values) -> Values:
    out = np.zeros(len(numerator))
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def in_order(days: Sequence[str]) -> list[str]:
    """Days as they follow each other: of a week by name, else by date."""
    return sorted(days, key=lambda day: (WEEK.index(day), "") if day in WEEK else (len(WEEK), day))

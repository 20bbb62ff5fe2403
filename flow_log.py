"""The log of judged flows: the newest rows of /captured_data and logs_store.json.

A row is kept under its flow's id: a provisional verdict and the final one are the same row, which
changes. Under a flood the detail goes first: beyond a number of rows per second of packet time
flows are judged and counted, but not listed.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from addresses import address_of
from batches import (
    MODELS,
    SEVERITIES,
    ConnectionState,
    EndReason,
    FlowBatch,
    FlowRecord,
    Rows,
    VerdictBatch,
    without_features,
)
from features import matrix
from ml.calibration import rarity
from store import Document
from words import deviation_name, local_timestamp, protocol_name, service

__all__ = ["FlowLog"]

_VOTES: Final = {1: "ANOMALY", 0: "NORMAL", -1: "UNAVAILABLE"}

ROWS_PER_SECOND: Final = 500
"""More rows than this in a second of packet time nobody reads; a row costs about 40 us."""
ALERT_ROWS_PER_SECOND: Final = 200
"""Part of ROWS_PER_SECOND that is kept free for flows with an ALERT."""


class FlowLog:
    """Newest flows with their verdicts; written by the analysis thread, read by web threads.

    document: where rows are kept over a restart; limit: rows kept; run: prefix of the rows' ids,
    different for each run of the program.
    """

    def __init__(self, document: Document, *, limit: int, run: str) -> None:
        self._document = document
        self._limit = limit
        self._run = run
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, FlowRecord] = OrderedDict()
        for record in document.records()[-limit:]:
            self._rows[record["id"]] = record  # type: ignore[assignment]
        self._seq = max((row["seq"] for row in self._rows.values()), default=0)
        self._second = 0
        self._listed_in_second = 0
        self._others_in_second = 0
        self.shed = 0

    @property
    def seq(self) -> int:
        """The newest change; rows changed later have a larger one."""
        return self._seq

    def records(self, flows: FlowBatch, verdicts: VerdictBatch) -> list[FlowRecord]:
        """Rows of what fits of these flows, alerts first; in the order of the flows, not put."""
        chosen = self._chosen(flows.rows, verdicts)
        if not len(chosen):
            return []
        rows = flows.rows[chosen]
        values = matrix(rows)
        return [
            self._record(rows[i], values[i], verdicts, int(place)) for i, place in enumerate(chosen)
        ]

    def put(self, records: Sequence[FlowRecord]) -> None:
        """Add rows or replace them; each gets the next seq."""
        if not records:
            return
        with self._lock:
            for record in records:
                self._seq += 1
                record["seq"] = self._seq
                self._rows.pop(record["id"], None)
                self._rows[record["id"]] = record
            while len(self._rows) > self._limit:
                self._rows.popitem(last=False)
        self._document.put_many(without_features(row) for row in records)

    def join(self, incidents: Mapping[str, str]) -> None:
        """Flows that belong to an incident only now: {flow id: incident id}."""
        with self._lock:
            found = [(self._rows.get(flow_id), one) for flow_id, one in incidents.items()]
        changed: list[FlowRecord] = [
            {**row, "incident": incident_id} for row, incident_id in found if row is not None
        ]
        self.put(changed)

    def newest(
        self,
        *,
        limit: int,
        since: int | None = None,
        accept: Callable[[FlowRecord], bool] = lambda row: True,
    ) -> list[FlowRecord]:
        """Rows by falling time of change; with `since` only those that changed after it."""
        found: list[FlowRecord] = []
        with self._lock:
            for row in reversed(self._rows.values()):
                if since is not None and row["seq"] <= since:
                    break
                if accept(row):
                    found.append(row)
                    if len(found) >= limit:
                        break
        return found

    def get(self, flow_id: str) -> FlowRecord | None:
        with self._lock:
            return self._rows.get(flow_id)

    def __len__(self) -> int:
        return len(self._rows)

    def _chosen(self, rows: Rows, verdicts: VerdictBatch) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Places of the flows that still fit into their second."""
        if not len(rows):
            return np.empty(0, np.intp)
        second = int(rows["last_ns"].max()) // 1_000_000_000
        if second != self._second:
            self._second, self._listed_in_second, self._others_in_second = second, 0, 0
        alerts = np.flatnonzero(verdicts.alert)
        # The oddest first, should not even the alerts fit.
        worst = np.nanmin(np.where(np.isnan(verdicts.scores), 0.0, verdicts.scores), axis=1)
        alerts = alerts[np.argsort(worst[alerts], kind="stable")]
        room = ROWS_PER_SECOND - self._listed_in_second
        alerts = alerts[: max(room, 0)]
        others = np.flatnonzero(~verdicts.alert)
        room -= len(alerts)
        spare = ROWS_PER_SECOND - ALERT_ROWS_PER_SECOND - self._others_in_second
        others = others[: max(min(room, spare), 0)]
        self._listed_in_second += len(alerts) + len(others)
        self._others_in_second += len(others)
        self.shed += len(rows) - len(alerts) - len(others)
        return np.sort(np.concatenate([alerts, others]))

    def _record(
        self, row: Any, values: np.ndarray[Any, Any], verdicts: VerdictBatch, place: int
    ) -> FlowRecord:
        protocol = protocol_name(int(row["protocol"]))
        time_s = int(row["last_ns"]) / 1e9
        votes = {name: _VOTES[int(verdicts.votes[place, m])] for m, name in enumerate(MODELS)}
        deviations = [asdict(one) for one in verdicts.deviations[place]]
        dst_port = int(row["dst_port"])
        return {
            "id": f"{self._run}-{int(row['id'])}",
            "seq": 0,
            "timestamp": local_timestamp(time_s),
            "time": time_s,
            "src_ip": address_of(row, "src"),
            "dst_ip": address_of(row, "dst"),
            "src_port": int(row["src_port"]),
            "dst_port": dst_port,
            "protocol": protocol,
            "service": service(dst_port, protocol) if dst_port else protocol,
            "length": int(row["bytes"].sum()),
            "duration_s": (int(row["last_ns"]) - int(row["first_ns"])) / 1e9,
            "packets": int(row["packets"].sum()),
            "bytes": int(row["wire_bytes"].sum()),
            "state": EndReason(int(row["end_reason"])).name.lower(),
            "connection_state": ConnectionState(int(row["connection_state"])).name,
            "scores": {
                **{name: _number(verdicts.scores[place, m]) for m, name in enumerate(MODELS)},
                "autoencoder": _number(verdicts.autoencoder[place]),
            },
            "raw": {name: _number(verdicts.raw[place, m]) for m, name in enumerate(MODELS)},
            "model_votes": votes,
            "final_decision": "ALERT" if verdicts.alert[place] else "ALLOW",
            "severity": SEVERITIES[int(verdicts.severity[place])],
            "borderline": bool(verdicts.borderline[place]),
            "extreme": bool(verdicts.extreme[place]),
            "explainability": {"top_deviations": [deviation_name(one) for one in deviations]},
            "deviations": deviations,
            "rarity": _rarity(verdicts, place),
            "names": {"src": None, "dst": None},
            "incident": None,
            "features": [float(value) for value in values],
        }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def _rarity(verdicts: VerdictBatch, place: int) -> dict[str, Any]:
    """That of the oddest available model."""
    scores = verdicts.scores[place]
    model = 0 if np.isnan(scores).all() else int(np.nanargmin(scores))
    reference = int(verdicts.references[model])
    return rarity(float(scores[model]), reference, bool(verdicts.beyond[place, model]))

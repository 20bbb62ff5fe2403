"""The log of judged flows: rows that change, what a flood leaves of them, a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from batches import FLOW, MODELS, EndReason, FlowBatch, Rows, VerdictBatch
from flow_log import ALERT_ROWS_PER_SECOND, ROWS_PER_SECOND, FlowLog
from store import Store

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def log_in(store: Store, *, limit: int = 5000, run: str = "r") -> FlowLog:
    return FlowLog(store.document("logs_store", limit=limit), limit=limit, run=run)


def flows(n: int, *, first_id: int = 1, second: int = 0) -> FlowBatch:
    rows: Rows = np.zeros(n, FLOW)
    rows["id"] = np.arange(first_id, first_id + n)
    rows["last_ns"] = START_NS + second * SECOND_NS
    rows["first_ns"] = rows["last_ns"] - SECOND_NS // 2
    rows["src_lo"], rows["dst_lo"] = 0x0A000001, 0x0A000002
    rows["src_port"], rows["dst_port"] = 50_000, 443
    rows["packets"], rows["bytes"], rows["wire_bytes"] = 3, 100, 150
    rows["protocol"], rows["ip_version"] = 6, 4
    rows["end_reason"] = int(EndReason.FIN)
    return FlowBatch(rows)


def verdicts(n: int, *, alerts: int = 0) -> VerdictBatch:
    """The first `alerts` rows are ALERT, each odder than the one before."""
    scores = np.full((n, len(MODELS)), -0.5)
    scores[:alerts, 2] = -3.0 - np.arange(alerts) / 1000
    alert = np.arange(n) < alerts
    scores[:, 0] = np.nan
    return VerdictBatch(
        scores=scores,
        raw=scores / 10,
        votes=np.where(np.isnan(scores), -1, scores < -2).astype(np.int8),
        severity=alert.astype(np.int8),
        alert=alert,
        borderline=np.zeros(n, bool),
        beyond=np.zeros((n, len(MODELS)), bool),
        thresholds=np.full(3, -2.0),
        references=np.array([0, 500, 800]),
        extreme=np.zeros(n, bool),
        autoencoder=np.full(n, np.nan),
        deviations=[[] for _ in range(n)],
    )


def test_a_row_says_who_what_and_how_odd(store: Store) -> None:
    log = log_in(store)
    (record,) = log.records(flows(1), verdicts(1, alerts=1))
    assert (record["id"], record["src_ip"], record["dst_ip"]) == ("r-1", "10.0.0.1", "10.0.0.2")
    assert (record["protocol"], record["service"], record["state"]) == ("TCP", "HTTPS", "fin")
    assert record["model_votes"] == {
        "home": "UNAVAILABLE",
        "industrial": "NORMAL",
        "live": "ANOMALY",
    }
    assert record["scores"] == {"home": None, "industrial": -0.5, "live": -3.0, "autoencoder": None}
    assert (record["severity"], record["final_decision"]) == ("MEDIUM", "ALERT")
    assert record["rarity"] == {"n": 800, "reference": 800, "beyond": False}
    assert (record["length"], record["bytes"], record["packets"]) == (200, 300, 6)


def test_a_provisional_row_is_replaced_by_the_final_one(store: Store) -> None:
    log = log_in(store)
    log.put(log.records(flows(3), verdicts(3)))
    seq = log.seq
    log.put(log.records(flows(1, first_id=2, second=1), verdicts(1, alerts=1)))
    assert len(log) == 3
    assert [row["id"] for row in log.newest(limit=10)] == ["r-2", "r-3", "r-1"]
    assert [row["id"] for row in log.newest(limit=10, since=seq)] == ["r-2"]
    log.join({"r-1": "inc-1", "r-gone": "inc-1"})
    changed = log.newest(limit=10, since=seq + 1)
    assert [(row["id"], row["incident"]) for row in changed] == [("r-1", "inc-1")]


@pytest.mark.parametrize("batches", [1, 7])
def test_a_flood_leaves_room_for_alerts(store: Store, batches: int) -> None:
    log = log_in(store)
    listed = []
    n = 4200 // batches
    for batch in range(batches):
        listed += log.records(flows(n, first_id=1 + batch * n), verdicts(n))
    assert len(listed) == ROWS_PER_SECOND - ALERT_ROWS_PER_SECOND
    late = log.records(flows(900, first_id=5000), verdicts(900, alerts=900))
    assert len(late) == ALERT_ROWS_PER_SECOND
    assert min(row["id"] for row in late) == "r-5700"  # the oddest ones
    assert log.shed == 4200 + 900 - ROWS_PER_SECOND
    assert len(log.records(flows(900, second=1), verdicts(900, alerts=900))) == ROWS_PER_SECOND
    assert log.records(flows(9, second=1), verdicts(9)) == []


def test_the_log_is_bounded_and_survives_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path)
    log = log_in(first, limit=10)
    log.put(log.records(flows(25), verdicts(25)))
    assert len(log) == 10
    first.close()
    again = Store(tmp_path)
    try:
        kept = log_in(again, limit=10, run="s")
        assert [row["id"] for row in kept.newest(limit=3)] == ["r-25", "r-24", "r-23"]
        assert kept.seq == log.seq
        assert "features" not in kept.newest(limit=1)[0]  # only the live model reads them
    finally:
        again.close()

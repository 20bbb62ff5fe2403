"""The incident room at its door, with a real store: what opens, grows and is listed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.incident_evidence import NAS, SCANNER, T0, finding, flow, flow_batch
from tests.incident_room import Room

HOST = "192.168.1.57"
CLOUD = "198.51.100.23"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    opened = Room(tmp_path / "data")
    yield opened
    opened.store.close()


# --- opening and growing


def test_a_finding_opens_an_incident_with_the_specification_fields(room: Room) -> None:
    room.incidents.add_findings([finding()])
    alert = room.only()
    assert alert["timestamp"] == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(T0))
    assert (alert["src_ip"], alert["dst_ip"], alert["time"]) == (SCANNER, NAS, T0)
    assert (alert["status"], alert["final_decision"], alert["severity"]) == (
        "OPEN",
        "ALERT",
        "HIGH",
    )
    assert alert["scores"] == {"home": None, "industrial": None, "live": None}
    assert alert["explainability"]["top_deviations"] == ["Vertical Scan Pattern"]
    rule = alert["rule_recommendation"]
    assert rule["action"] == "TEMP_BLOCK_IP"
    assert rule["scope"] == {"type": "SOURCE_IP", "value": SCANNER}
    assert rule["conditions"] == {"threshold": None, "duration_seconds": 600}
    assert rule["rule_id"] == alert["rule_id"] == f"secureflux-{int(T0)}"
    assert (alert["pattern"], alert["subpattern"], alert["technique"]) == (
        "SRC_SCAN",
        "VERTICAL_SCAN",
        "T1046",
    )
    assert alert["title"] == f"Port scan from {SCANNER}"
    assert alert["why"].startswith(f"**{SCANNER}** tried **412 ports** on **{NAS}** in 38 s.")
    assert (alert["count"], sum(alert["rate"]), len(alert["rate"])) == (412, 412, 60)


def test_evidence_of_one_source_and_pattern_grows_one_incident(room: Room) -> None:
    room.incidents.add_findings([finding()])
    first = room.only()
    room.incidents.add_findings(
        [
            finding(at=0, seconds=48, count=500, amounts={"ports": 500}, value=30.0),
            finding(at=60, count=100, target="192.168.1.21", targets=("192.168.1.21",)),
        ]
    )
    grown = room.only()
    assert grown["id"] == first["id"]
    assert grown["seq"] > first["seq"]
    # A later, weaker window does not take back what the strongest one showed.
    assert grown["count"] == 600  # the longer look at the same window adds 88, the next one 100
    assert grown["targets"] == [NAS, "192.168.1.21"]
    assert grown["dst_ip"] == NAS
    assert grown["timestamp"] == first["timestamp"]
    assert grown["last_time"] == T0 + 98
    assert "**500 ports**" in grown["why"]


def test_running_amounts_follow_while_the_strongest_statistic_stays(room: Room) -> None:
    guessing: dict[str, Any] = {"pattern": "REPEATED_PAIR", "ports": (22,)}
    for connections, value in ((20, 40.0), (186, 15.0)):
        amounts = {"connections": connections, "seconds": connections * 2}
        room.incidents.add_findings(
            [finding("CREDENTIAL_GUESSING", value=value, amounts=amounts, **guessing)]
        )
    alert = room.only()
    assert alert["why"] == (
        f"**{SCANNER}** opened **186 alike connections** to SSH on **{NAS}** in 6 min 12 s."
    )
    assert alert["measure"] == {"value": 40.0, "line": 15.0}


def test_another_source_or_pattern_is_another_incident(room: Room) -> None:
    room.incidents.add_findings(
        [finding(), finding(source="203.0.113.51"), finding("HORIZONTAL_SWEEP")]
    )
    assert len(room.incidents.list()) == 3
    assert len({alert["rule_id"] for alert in room.incidents.list()}) == 3


def test_a_flood_is_keyed_by_its_target_and_names_the_busiest_source(room: Room) -> None:
    flood: dict[str, Any] = {
        "pattern": "BURST",
        "key_is": "target",
        "spoofable": True,
        "ports": (80,),
    }
    room.incidents.add_findings(
        [
            finding("SYN_FLOOD", source="198.51.100.1", count=10, **flood),
            finding("SYN_FLOOD", source="198.51.100.2", count=900, at=60, **flood),
        ]
    )
    alert = room.only()
    assert (alert["src_ip"], alert["dst_ip"]) == ("198.51.100.2", NAS)
    assert alert["sources"] == ["198.51.100.1", "198.51.100.2"]
    assert alert["title"] == f"Burst of connection attempts to {NAS}"
    assert alert["why"].startswith("**2 sources** ")
    assert alert["rule_recommendation"]["action"] == "MONITOR_ONLY"


@pytest.mark.parametrize(
    ("subpattern", "value", "severity"),
    [
        ("NEW_DEVICE", 1.0, "LOW"),
        ("BEACON", 1.0, "MEDIUM"),
        ("VERTICAL_SCAN", 44.9, "HIGH"),
        ("VERTICAL_SCAN", 45.0, "CRITICAL"),
        ("BEACON", 45.0, "HIGH"),
        ("NEW_DEVICE", 45.0, "MEDIUM"),
        ("ARP_CONFLICT", 1.0, "HIGH"),
    ],
)
def test_severity_is_the_base_of_the_pattern_and_a_step_at_three_times_the_line(
    room: Room, subpattern: str, value: float, severity: str
) -> None:
    room.incidents.add_findings([finding(subpattern, value=value, line=15.0)])
    assert room.only()["severity"] == severity


def test_severity_only_rises_while_open(room: Room) -> None:
    room.incidents.add_flows([flow("r-1", extreme=True, severity="CRITICAL")])
    room.incidents.add_flows([flow("r-2", extreme=True, severity="MEDIUM", at=1)])
    assert (room.only()["severity"], room.only()["count"]) == ("CRITICAL", 2)


def test_two_kinds_of_evidence_that_agree_raise_one_step(room: Room) -> None:
    room.incidents.add_findings([finding()])
    plain = flow("r-1", source=SCANNER, target=NAS, at=20)
    room.incidents.add_flows([plain])
    assert plain["incident"] == room.only()["id"]
    assert room.only()["severity"] == "HIGH"  # an ordinary alert happens by chance
    room.incidents.add_flows([flow("r-2", source=SCANNER, target=NAS, at=20, extreme=True)])
    assert room.only()["severity"] == "CRITICAL"
    assert room.only()["count"] == 412  # the window counted these packets already


def test_only_an_extreme_flow_opens_an_incident_alone(room: Room) -> None:
    ordinary = flow("r-1")
    room.incidents.add_flows([ordinary, flow("r-0", final_decision="ALLOW", extreme=True)])
    assert ordinary["incident"] is None
    assert room.incidents.list() == []
    extreme = flow(
        "r-2", extreme=True, severity="CRITICAL", names={"src": "cam-garden", "dst": None}
    )
    room.incidents.add_flows([extreme])
    alert = room.only()
    assert extreme["incident"] == alert["id"]
    assert (alert["pattern"], alert["severity"], alert["count"]) == ("ANOMALY", "CRITICAL", 1)
    assert alert["scores"]["live"] == -3.0
    assert alert["models"] == [{"name": "live", "score": -3.0}]
    assert alert["title"] == "Unusual HTTPS traffic from cam-garden"
    assert alert["why"] == (
        f"**cam-garden** exchanged **1.9 GB** with **{CLOUD}** over HTTPS in 14 min. "
        "Bytes sent **1.9 GB**, usually 40 kB to 14 MB."
    )


def test_an_alert_flow_joins_its_source_within_the_window_only(room: Room) -> None:
    room.incidents.add_findings([finding()])
    inside = flow("r-1", source=SCANNER, at=38 + 120)
    outside = flow("r-2", source=SCANNER, at=38 + 120.1)
    stranger = flow("r-3", at=20)
    room.incidents.add_flows([inside, outside, stranger])
    assert inside["incident"] == room.only()["id"]
    assert outside["incident"] is None
    assert stranger["incident"] is None
    # What joins by chance does not keep the incident going.
    assert room.only()["last_time"] == T0 + 38


def test_a_provisional_row_that_comes_again_counts_once(room: Room) -> None:
    room.incidents.add_flows([flow("r-1", extreme=True, state="active")])
    room.incidents.add_flows([flow("r-1", extreme=True, score=-4.0, at=5)])
    alert = room.only()
    assert (alert["count"], alert["flows"], alert["scores"]["live"]) == (1, ["r-1"], -4.0)
    detail = room.incidents.detail(alert["id"])
    assert detail is not None
    assert [f["state"] for f in detail["flow_records"]] == ["fin"]


def test_five_alerts_on_a_quiet_pair_are_a_repeated_pair(room: Room) -> None:
    early = [flow(f"r-{i}", at=i) for i in range(4)]
    room.incidents.add_flows(early)
    assert room.incidents.list() == []
    last = flow("r-4", at=4)
    joined_later = room.incidents.add_flows([last])
    alert = room.only()
    assert (alert["subpattern"], alert["severity"], alert["count"]) == (
        "REPEATED_PAIR",
        "MEDIUM",
        5,
    )
    assert alert["title"] == f"Repeated HTTPS connections to {CLOUD}"
    assert alert["time"] == T0
    assert last["incident"] == alert["id"]
    assert joined_later == {f"r-{i}": alert["id"] for i in range(4)}
    room.incidents.add_flows([flow(f"s-{i}", at=5 + i) for i in range(10)])
    assert room.only()["severity"] == "HIGH"  # 15 alerts are three times the line


@pytest.mark.parametrize(("others", "opens"), [(5, True), (200, False)])
def test_alerts_that_a_busy_pair_explains_open_nothing(
    room: Room, others: int, opens: bool
) -> None:
    # 200 flows at a false-alarm rate of 1 % make five alerts likely: 5 % by chance.
    room.incidents.count_flows(flow_batch([(HOST, CLOUD)] * others))
    room.incidents.add_flows([flow(f"r-{i}", at=i) for i in range(5)])
    assert bool(room.incidents.list()) is opens


def test_provisional_rows_of_a_flow_count_once_for_their_pair(room: Room) -> None:
    for _ in range(60):
        room.incidents.count_flows(flow_batch([(HOST, CLOUD)], end_reason=0))
    room.incidents.add_flows([flow(f"r-{i}", at=i) for i in range(5)])
    assert room.only()["subpattern"] == "REPEATED_PAIR"


def test_flows_of_a_named_pattern_do_not_open_a_second_incident(room: Room) -> None:
    room.incidents.add_findings([finding()])
    flows = [flow(f"r-{i}", source=SCANNER, target=NAS, at=i, extreme=True) for i in range(80)]
    room.incidents.add_flows(flows)
    alert = room.only()
    assert len(alert["flows"]) == 50
    assert alert["flows"][-1] == "r-79"


def test_detail_keeps_the_newest_flows_and_the_oddest(room: Room) -> None:
    room.incidents.add_flows([flow("odd", score=-9.0)])
    room.incidents.add_flows([flow(f"r-{i}", at=1 + i / 10) for i in range(70)])
    detail = room.incidents.detail(room.only()["id"])
    assert detail is not None
    assert detail["worst"]["id"] == "odd"
    records = detail["flow_records"]
    assert len(records) == 50
    assert records[0]["id"] == "r-69"
    assert records[-1]["id"] == "odd"
    assert all("features" not in record for record in records)
    assert detail["rule"]["sentence"]
    assert len(detail["history"]["values"]) == 24


def test_history_tells_no_data_from_nothing(room: Room) -> None:
    room.incidents.tick(T0)
    room.incidents.count_flows(flow_batch([(HOST, CLOUD)] * 7 + [(NAS, CLOUD)]))
    room.incidents.count_flows(flow_batch([(HOST, CLOUD)], at=-7200, first_id=50))
    room.incidents.add_flows([flow("r-1", extreme=True)])
    detail = room.incidents.detail(room.only()["id"])
    assert detail is not None
    assert detail["history"]["values"][-4:] == [None, 1, 0, 7]


# --- lists


def test_the_list_is_ordered_filtered_and_resumable(room: Room) -> None:
    room.incidents.add_findings([finding("BEACON", pattern="BEACON", source=HOST)])
    room.incidents.add_findings([finding(), finding("HORIZONTAL_SWEEP", at=60)])
    assert [a["subpattern"] for a in room.incidents.list()] == [
        "HORIZONTAL_SWEEP",
        "VERTICAL_SCAN",
        "BEACON",
    ]
    assert len(room.incidents.list(severity="HIGH")) == 2
    assert len(room.incidents.list(pattern="SRC_SCAN")) == 2
    assert len(room.incidents.list(pattern="BEACON")) == 1
    assert [a["src_ip"] for a in room.incidents.list(src="192.168")] == [HOST]
    assert len(room.incidents.list(limit=1)) == 1
    assert room.incidents.counts() == {
        "CRITICAL": 0,
        "HIGH": 2,
        "MEDIUM": 1,
        "LOW": 0,
        "OPEN": 3,
        "FALSE_POSITIVE": 0,
        "CLOSED": 0,
    }
    seq = room.incidents.seq
    assert room.incidents.list(since=seq) == []
    gone = room.incidents.list()[0]["id"]
    room.incidents.close(gone)
    (changed,) = room.incidents.list(since=seq)
    assert (changed["id"], changed["status"]) == (gone, "CLOSED")
    assert changed["seq"] > seq


def test_the_sparkline_moves_on_with_the_clock(room: Room) -> None:
    room.incidents.add_findings([finding(seconds=1)])
    room.incidents.tick(T0 + 600)
    rate = room.only()["rate"]
    assert (rate[-11], rate[-1], sum(rate)) == (412, 0, 412)
    room.incidents.tick(T0 + 7200)
    assert sum(room.only()["rate"]) == 0

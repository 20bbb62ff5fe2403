"""The incident room at its door, with a real store: what opens, grows, hides and comes back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import UsageError
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


# --- false positives


def learnable(room: Room) -> str:
    """An incident that may be learned without a warning; its id."""
    room.incidents.add_flows(
        [flow("r-1", extreme=True, severity="MEDIUM"), flow("r-2", at=1, severity="MEDIUM")]
    )
    return str(room.only()["id"])


def test_a_false_positive_leaves_the_list_and_joins_the_baseline(room: Room) -> None:
    incident_id = learnable(room)
    preview = room.incidents.preview_false_positive(incident_id)
    assert preview is not None
    answer = room.incidents.mark_false_positive(id=incident_id)
    assert (answer["status"], answer["removed"]) == ("success", True)
    assert room.incidents.list() == []
    alert = room.only("FALSE_POSITIVE")
    assert (alert["verdict"], alert["undo"]) == ("false", answer["undo"])
    assert answer["alert"] == alert
    (learned,) = room.baseline.learned.values()
    assert {record["id"] for record in learned} == {"r-1", "r-2"}
    # The preview's numbers are those of what happened.
    assert preview["learn_default"] is True
    assert preview["closes"] == answer["changed"]["closed"] == [incident_id]
    assert preview["flows"] == answer["changed"]["flows_added"] == len(learned)
    assert preview["scope"] == answer["changed"]["suppression"]["scope"]
    assert preview["sentences"] == [
        "This incident leaves the list. No similar one is open.",
        "2 flows join the normal flows of the Live model.",
        f"For 30 days this is hidden and counted: Unusual HTTPS traffic from {HOST} to {CLOUD} "
        "on port 443.",
        "It would have hidden 1 incident and 2 flows of the last 7 days, this one included.",
    ]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"severity": "CRITICAL"}, "critical"),
        ({"ratio": 135.0}, "135 times above"),
        ({"beyond": True}, "rarer than all 4,512"),
    ],
)
def test_what_is_far_out_is_not_learned_unless_asked(
    room: Room, changed: dict[str, Any], words: str
) -> None:
    room.incidents.add_flows([flow("r-1", extreme=True, **changed)])
    preview = room.incidents.preview_false_positive(room.only()["id"])
    assert preview is not None
    assert words in preview["warning"]
    assert preview["learn_default"] is False
    answer = room.incidents.mark_false_positive(id=room.only()["id"])
    assert answer["changed"]["flows_added"] == 0
    assert room.baseline.learned == {}
    room.incidents.undo(answer["undo"])
    answer = room.incidents.mark_false_positive(id=room.only()["id"], learn=True)
    assert answer["changed"]["flows_added"] == 1


def test_a_ratio_of_ten_is_still_learned(room: Room) -> None:
    room.incidents.add_flows([flow("r-1", extreme=True, ratio=10.0)])
    preview = room.incidents.preview_false_positive(room.only()["id"])
    assert preview is not None
    assert preview["warning"] is None


def test_the_specification_names_an_incident_by_addresses_and_time(room: Room) -> None:
    room.incidents.add_findings([finding()])
    alert = room.only()
    named = {"src_ip": alert["src_ip"], "dst_ip": alert["dst_ip"], "timestamp": alert["timestamp"]}
    assert room.incidents.mark_false_positive(**{**named, "dst_ip": "10.9.9.9"})["removed"] is False
    first = room.incidents.mark_false_positive(**named)
    assert (first["removed"], first["alert"]["id"]) == (True, alert["id"])
    assert room.incidents.mark_false_positive(**named) == first


def test_undo_of_a_false_positive_restores_equal_bytes(room: Room) -> None:
    names = ("alerts_store", "evidence_store", "suppressions", "whitelist")
    incident_id = learnable(room)
    room.incidents.add_findings([finding(), finding("BEACON", source=HOST)])
    room.incidents.tick(T0, final=True)
    before = room.incidents.get(incident_id)
    room.restart()
    documents = {name: room.on_disk(name) for name in names}
    answer = room.incidents.mark_false_positive(id=incident_id)
    assert room.baseline.learned
    undone = room.incidents.undo(answer["undo"])
    assert undone is not None
    assert "open again" in undone["sentence"]
    assert room.baseline.learned == {}
    after = room.incidents.get(incident_id)
    assert before is not None
    assert after is not None
    assert {**after, "seq": 0} == {**before, "seq": 0}
    assert after["seq"] > before["seq"]
    assert room.incidents.undo(answer["undo"]) == undone
    room.restart()
    assert {name: room.on_disk(name) for name in names} == documents


def test_a_suppression_hides_new_evidence_and_says_how_much(room: Room) -> None:
    room.incidents.add_findings([finding()])
    room.incidents.mark_false_positive(id=room.only()["id"])
    room.incidents.add_findings([finding(at=60), finding(at=120)])
    late = flow("r-1", source=SCANNER, target=NAS, at=130, extreme=True, connection_state="S0")
    room.incidents.add_flows([late])
    assert room.incidents.list() == []
    assert late["incident"] is None
    (suppression,) = room.incidents.suppressions()
    assert suppression["hits"] == 3
    # Another target, another source, another pattern are told.
    room.incidents.add_findings(
        [
            finding(at=180, target="192.168.1.99", targets=("192.168.1.99",)),
            finding("HORIZONTAL_SWEEP", at=180),
            finding(at=180, source="203.0.113.9"),
        ]
    )
    assert len(room.incidents.list()) == 3
    room.pass_time(2)
    room.restart()
    assert room.incidents.suppressions()[0]["hits"] == 3
    room.time_s += 31 * 86_400
    assert room.incidents.suppressions() == []


def test_a_wide_suppression_covers_every_target_of_the_source(room: Room) -> None:
    room.incidents.add_findings([finding()])
    room.incidents.mark_false_positive(id=room.only()["id"], scope="wide")
    room.incidents.add_findings([finding(at=60, target="10.0.0.9", targets=("10.0.0.9",))])
    assert room.incidents.list() == []
    room.incidents.add_findings([finding(source="10.0.0.5")])
    with pytest.raises(UsageError, match="narrow or wide"):
        room.incidents.preview_false_positive(room.only()["id"], scope="everything")


def test_what_a_suppression_would_have_hidden_is_counted(room: Room) -> None:
    for day in range(3):
        room.incidents.add_findings([finding(at=day * 86_400)])
        room.incidents.tick(T0 + day * 86_400)
        if day < 2:
            room.incidents.close(room.only()["id"])
    preview = room.incidents.preview_false_positive(room.only()["id"])
    assert preview is not None
    assert preview["hidden_7_days"] == 3


def test_a_false_positive_reopened_is_told_again(room: Room) -> None:
    incident_id = learnable(room)
    room.incidents.mark_false_positive(id=incident_id)
    reopened = room.incidents.reopen(incident_id)
    assert reopened is not None
    assert reopened["alert"]["status"] == "OPEN"
    assert room.incidents.suppressions() == []
    assert room.baseline.learned == {}
    room.incidents.undo(reopened["undo"])
    assert room.only("FALSE_POSITIVE")["id"] == incident_id
    assert len(room.incidents.suppressions()) == 1
    assert len(room.baseline.learned) == 1


# --- close, reopen, note, undo


def test_closing_twice_answers_the_same(room: Room) -> None:
    room.incidents.add_findings([finding()])
    incident_id = room.only()["id"]
    first = room.incidents.close(incident_id, verdict="expected", comment="Our own scanner.")
    again = room.incidents.close(incident_id, verdict="expected", comment="Our own scanner.")
    assert first == again
    assert first is not None
    assert (first["alert"]["status"], first["alert"]["verdict"]) == ("CLOSED", "expected")
    assert [note["text"] for note in first["alert"]["notes"]] == ["Our own scanner."]
    room.incidents.undo(first["undo"])
    assert (room.only()["verdict"], room.only()["notes"]) == (None, [])


def test_an_older_action_is_not_taken_back_over_a_newer_one(room: Room) -> None:
    room.incidents.add_findings([finding()])
    incident_id = room.only()["id"]
    closed = room.incidents.close(incident_id)
    room.incidents.reopen(incident_id)
    assert closed is not None
    with pytest.raises(UsageError, match="changed since"):
        room.incidents.undo(closed["undo"])


def test_evidence_after_a_close_opens_anew_and_reopening_joins_the_two(room: Room) -> None:
    room.incidents.add_findings([finding()])
    first = room.only()["id"]
    closed = room.incidents.close(first)
    room.incidents.add_findings([finding(at=60, value=60.0)])
    second = room.only()["id"]
    assert second != first
    seq = room.incidents.seq
    assert closed is not None
    room.incidents.undo(closed["undo"])
    joined = room.only()
    assert (joined["id"], joined["count"], joined["severity"]) == (first, 824, "CRITICAL")
    assert joined["last_time"] == T0 + 98
    told = {alert["id"]: alert["status"] for alert in room.incidents.list(since=seq)}
    assert told == {first: "OPEN", second: "CLOSED"}


def test_notes_are_kept_and_not_doubled(room: Room) -> None:
    room.incidents.add_findings([finding()])
    incident_id = room.only()["id"]
    room.incidents.note(incident_id, " Ask Ana. ")
    answer = room.incidents.note(incident_id, "Ask Ana.")
    assert answer is not None
    assert [note["text"] for note in answer["alert"]["notes"]] == ["Ask Ana."]
    with pytest.raises(UsageError, match="empty"):
        room.incidents.note(incident_id, "  ")


def test_unknown_incidents_and_tokens_are_none(room: Room) -> None:
    assert room.incidents.get("inc-0") is None
    assert room.incidents.detail("inc-0") is None
    assert room.incidents.close("inc-0") is None
    assert room.incidents.reopen("inc-0") is None
    assert room.incidents.note("inc-0", "x") is None
    assert room.incidents.preview_false_positive("inc-0") is None
    assert room.incidents.undo("nothing") is None
    assert room.incidents.mark_false_positive(id="inc-0")["removed"] is False


def test_undo_ends_after_seven_days(room: Room) -> None:
    room.incidents.add_findings([finding()])
    closed = room.incidents.close(room.only()["id"])
    assert closed is not None
    room.time_s += 7 * 86_400
    assert room.only("CLOSED")["undo"] is None
    assert room.incidents.undo(closed["undo"]) is None
    room.pass_time(61)
    room.restart()
    assert json.loads(room.on_disk("undo_store")) == []


@pytest.mark.parametrize("action", ["close", "false_positive", "note", "suppress", "trust"])
def test_an_answered_action_is_on_disk(room: Room, tmp_path: Path, action: str) -> None:
    room.incidents.add_findings([finding()])
    incident_id = room.only()["id"]
    if action == "close":
        room.incidents.close(incident_id, verdict="real")
    elif action == "false_positive":
        room.incidents.mark_false_positive(id=incident_id)
    elif action == "note":
        room.incidents.note(incident_id, "Ask Ana.")
    elif action == "suppress":
        room.incidents.add_suppression(src_ip="10.0.0.1", subpattern="BEACON")
    else:
        room.incidents.add_trusted([SCANNER])
    # What a power cut would leave: the files as they are now, read by another store.
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in room.directory.iterdir():
        if path.suffix in (".json", ".journal"):
            (copy / path.name).write_bytes(path.read_bytes())
    other = Room(copy)
    try:
        for name in ("list", "suppressions", "whitelist"):
            asked = {"status": "all"} if name == "list" else {}
            here, there = (getattr(r.incidents, name)(**asked) for r in (room, other))
            if name == "list":
                here, there = ([{**a, "seq": 0} for a in side] for side in (here, there))
            assert there == here
    finally:
        other.store.close()


# --- suppressions and whitelist by hand


def test_suppressions_are_added_and_removed_once(room: Room) -> None:
    wish: dict[str, Any] = {"src_ip": SCANNER, "subpattern": "VERTICAL_SCAN", "reason": "Known."}
    added = room.incidents.add_suppression(**wish)
    assert room.incidents.add_suppression(**wish) == added
    room.incidents.add_findings([finding()])
    assert room.incidents.list() == []
    removed = room.incidents.remove_suppression(added["suppression"]["id"])
    assert room.incidents.remove_suppression(added["suppression"]["id"]) == removed
    room.incidents.undo(removed["undo"])
    assert room.incidents.suppressions()[0]["hits"] == 1
    with pytest.raises(UsageError, match="VERTICAL_SCAN"):
        room.incidents.add_suppression(src_ip=SCANNER, subpattern="NONSENSE")
    with pytest.raises(UsageError, match="source or a target"):
        room.incidents.add_suppression(subpattern="BEACON")


def test_a_trusted_address_raises_no_scan_or_anomaly_but_still_the_rest(room: Room) -> None:
    answer = room.incidents.add_trusted(["203.0.113.0/24", "2001:db8::5"])
    assert answer["trusted_ips"] == ["203.0.113.0/24", "2001:db8::5"]
    room.incidents.add_findings([finding(), finding(source="2001:db8::5")])
    room.incidents.add_flows([flow("r-1", source=SCANNER, extreme=True)])
    assert room.incidents.list() == []
    assert room.incidents.hidden_by_whitelist == 3
    room.incidents.add_findings([finding("ARP_CONFLICT", pattern="NEW_SERVICE")])
    assert room.only()["rule_recommendation"]["action"] == "MONITOR_ONLY"


def test_trusting_an_address_takes_its_block_back(room: Room) -> None:
    guessing = finding("CREDENTIAL_GUESSING", pattern="REPEATED_PAIR", ports=(22,))
    room.incidents.add_findings([guessing])
    assert room.only()["rule_recommendation"]["action"] == "TEMP_BLOCK_IP"
    trusted = room.incidents.add_trusted([SCANNER])
    assert room.incidents.add_trusted([SCANNER]) == trusted
    rule = room.only()["rule_recommendation"]
    assert (rule["action"], "whitelist" in rule["reason"]) == ("MONITOR_ONLY", True)
    room.incidents.undo(trusted["undo"])
    assert room.only()["rule_recommendation"]["action"] == "TEMP_BLOCK_IP"
    assert room.incidents.whitelist() == []
    room.incidents.add_trusted([SCANNER])
    assert room.incidents.remove_trusted([SCANNER])["trusted_ips"] == []


@pytest.mark.parametrize("entry", ["192.168.1.300", "a host", "0.0.0.0/0", "", 5])
def test_a_bad_entry_changes_nothing_and_names_itself(room: Room, entry: Any) -> None:
    room.incidents.add_trusted(["10.0.0.1"])
    with pytest.raises(UsageError):
        room.incidents.add_trusted(["10.0.0.2", entry])
    assert room.incidents.whitelist() == ["10.0.0.1"]


def test_the_whitelist_edited_by_hand_is_taken_over(room: Room) -> None:
    room.incidents.add_trusted(["10.0.0.1"])
    path = room.directory / "whitelist.json"
    assert json.loads(path.read_text()) == {"trusted_ips": ["10.0.0.1"]}
    path.write_text(json.dumps({"trusted_ips": ["192.168.1.1", "10.8.0.7/24"]}))
    room.pass_time(3)
    assert room.incidents.whitelist() == ["192.168.1.1", "10.8.0.0/24"]
    assert room.incidents.notices() == []
    for broken in ('{"trusted_ips": ["10.0.0.1"', '{"trusted_ips": ["nobody"]}', "[]", "\xff"):
        path.write_text(broken, encoding="latin-1")
        room.pass_time(3)
        assert room.incidents.whitelist() == ["192.168.1.1", "10.8.0.0/24"]
        (notice,) = room.incidents.notices()
        assert "last good list stays" in notice
    path.write_text(json.dumps({"trusted_ips": ["fd00::1"]}))
    room.pass_time(3)
    assert (room.incidents.whitelist(), room.incidents.notices()) == (["fd00::1"], [])


# --- restart, bounds, cost


def test_a_restart_goes_on_where_it_was(room: Room) -> None:
    room.incidents.add_findings([finding()])
    room.incidents.add_flows([flow("r-1", extreme=True)])
    room.incidents.tick(T0, final=True)
    before = {a["id"]: {**a, "seq": 0} for a in room.incidents.list()}
    details = {i: room.incidents.detail(i) for i in before}
    seq = room.incidents.seq
    room.restart()
    assert room.incidents.counts()["OPEN"] == 2
    assert {a["id"]: {**a, "seq": 0} for a in room.incidents.list()} == before
    for incident_id, detail in details.items():
        again = room.incidents.detail(incident_id)
        assert detail is not None
        assert again is not None
        assert again["flow_records"] == detail["flow_records"]
        assert again["worst"] == detail["worst"]
    assert min(a["seq"] for a in room.incidents.list(since=0)) > seq
    room.incidents.add_findings([finding(at=60), finding(source="10.0.0.77")])
    assert len(room.incidents.list()) == 3
    assert len({a["id"] for a in room.incidents.list()}) == 3


def test_at_the_bound_closed_ones_go_first_and_low_ones_fold(tmp_path: Path) -> None:
    room = Room(tmp_path / "data", max_alerts=5)
    try:
        room.incidents.add_findings([finding(source="10.0.0.1")])
        room.incidents.close(room.only()["id"])
        new: dict[str, Any] = {"pattern": "NEW_SERVICE", "value": 1.0}
        room.incidents.add_findings(
            [finding("NEW_DEVICE", source=f"10.0.1.{i}", at=i, **new) for i in range(5)]
        )
        assert len(room.incidents.list("CLOSED")) == 0
        assert len(room.incidents.list()) == 5
        seq = room.incidents.seq
        room.incidents.add_findings([finding(), finding(source="203.0.113.99")])
        opened = room.incidents.list()
        assert len(opened) == 5
        (summary,) = [a for a in opened if a["subpattern"] == "SUMMARY"]
        assert (summary["count"], summary["severity"]) == (3, "LOW")
        assert len([a for a in opened if a["severity"] == "HIGH"]) == 2
        assert [note["text"].split(",")[0] for note in summary["notes"]] == [
            f"Low: New device talking: 10.0.1.{i}" for i in range(3)
        ]
        # Readers that follow by seq learn of those that went.
        gone = [a for a in room.incidents.list(since=seq) if a["status"] == "CLOSED"]
        assert {a["src_ip"] for a in gone} == {"10.0.1.0", "10.0.1.1", "10.0.1.2"}
        room.restart()
        assert {a["id"] for a in room.incidents.list()} == {a["id"] for a in opened}
    finally:
        room.store.close()


def test_a_flood_of_findings_stays_cheap_and_bounded(room: Room) -> None:
    started = time.perf_counter()
    for second in range(4):
        for part in range(5):
            at = second + part / 5
            batch = [
                finding(source=SCANNER, target=f"10.1.{i % 256}.{i // 256}", at=at, seconds=1)
                for i in range(1000)
            ]
            room.incidents.add_findings(batch)
        room.pass_time(1)
    spent_s = time.perf_counter() - started
    room.incidents.note(room.only()["id"], "so that all before is on disk")
    written = (room.directory / "alerts_store.journal").read_bytes().count(b"\n")
    # One for the opening and one a second: not one for each of the 20,000 findings.
    assert written <= 8
    alert = room.only()
    assert len(alert["targets"]) == len(set(alert["targets"])) == 50
    assert spent_s < 20_000 * 100e-6
    assert json.loads(json.dumps(alert)) == alert


def test_a_flood_of_sources_folds_instead_of_opening_thousands(room: Room) -> None:
    batch = [finding(source=f"10.{i >> 8}.{i & 255}.1", at=0) for i in range(5000)]
    room.incidents.add_findings(batch)
    opened = room.incidents.list(limit=2000)
    (summary,) = [a for a in opened if a["subpattern"] == "SUMMARY"]
    assert len(opened) == 101
    assert (summary["count"], summary["severity"]) == (4900, "HIGH")
    assert len(summary["sources"]) == 50


def test_callbacks_run_without_the_lock_and_threads_do_not_meet_in_it(room: Room) -> None:
    # Waits for ever if the lock is held.
    room.baseline.on_learn = lambda: room.incidents.list("all")
    troubles: list[BaseException] = []

    def decide() -> None:
        try:
            for _ in range(15):
                for alert in room.incidents.list():
                    token = room.incidents.mark_false_positive(id=alert["id"], learn=True)["undo"]
                    room.incidents.undo(token)
        except (AssertionError, KeyError, RuntimeError, UsageError) as error:
            troubles.append(error)

    room.incidents.add_flows([flow("r-0", extreme=True)])
    thread = threading.Thread(target=decide)
    thread.start()
    for i in range(300):
        room.incidents.add_findings([finding(source=f"10.0.0.{i % 5}", at=i)])
        room.incidents.add_flows([flow(f"r-{i}", at=i / 10, extreme=True)])
        room.incidents.tick(T0 + i)
    thread.join(30)
    assert not thread.is_alive()
    assert troubles == []
    keys = [(a["src_ip"], a["subpattern"]) for a in room.incidents.list()]
    assert len(keys) == len(set(keys))


# --- any order of actions

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["find", "flow", "mark", "close", "reopen", "undo", "trust", "tick", "restart", "note"]
        ),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=30,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actions=ACTIONS)
def test_any_order_of_actions_keeps_the_invariants(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, int]]
) -> None:
    room = Room(tmp_path_factory.mktemp("data"), max_alerts=6)
    tokens: list[str] = []
    seqs: dict[str, int] = {}
    try:
        for place, (action, one, two) in enumerate(actions):
            last_seq = room.incidents.seq
            act(room, tokens, place, action, one, two)
            assert room.incidents.seq >= last_seq
            everything = room.incidents.list("all")
            keys = [
                (a["key_is"], a["dst_ip" if a["key_is"] == "target" else "src_ip"], a["subpattern"])
                for a in everything
                if a["status"] == "OPEN"
            ]
            assert len(keys) == len(set(keys))
            assert len(everything) <= 6
            changed = room.incidents.list("all", since=last_seq)
            assert [a["seq"] for a in changed] == sorted({a["seq"] for a in changed})
            for alert in changed:
                assert alert["seq"] > seqs.get(alert["id"], 0)
                seqs[alert["id"]] = alert["seq"]
                assert len(alert["flows"]) <= 50
        room.incidents.tick(room.time_s, final=True)
        shown = [{**a, "seq": 0} for a in room.incidents.list("all")]
        room.restart()
        assert [{**a, "seq": 0} for a in room.incidents.list("all")] == shown
    finally:
        room.store.close()


def act(room: Room, tokens: list[str], place: int, action: str, one: int, two: int) -> None:
    """One random action; `one` and `two` choose among what there is."""
    known = room.incidents.list("all")
    chosen = known[one % len(known)]["id"] if known else "inc-0"
    answer: dict[str, Any] | None = None
    if action == "find":
        subpattern = ("VERTICAL_SCAN", "BEACON", "NEW_DEVICE", "SYN_FLOOD")[one]
        side = "target" if subpattern == "SYN_FLOOD" else "source"
        room.incidents.add_findings(
            [finding(subpattern, source=f"10.0.0.{two}", at=place, key_is=side)]
        )
    elif action == "flow":
        source = f"10.0.0.{one}"
        room.incidents.add_flows(
            [flow(f"r-{place}-{i}", source=source, at=place, extreme=two > 1) for i in range(3)]
        )
    elif action == "mark":
        answer = room.incidents.mark_false_positive(id=chosen, scope="wide" if two else None)
    elif action == "close":
        answer = (
            room.incidents.close(chosen, (None, "expected", "real", None)[two])
            if room_status(known, chosen) != "FALSE_POSITIVE"
            else None
        )
    elif action == "reopen":
        answer = room.incidents.reopen(chosen)
    elif action == "note":
        room.incidents.note(chosen, f"note {two}")
    elif action == "trust":
        change = room.incidents.add_trusted if two else room.incidents.remove_trusted
        answer = change([f"10.0.0.{one}"])
    elif action == "tick":
        room.pass_time(one)
    elif action == "restart":
        room.incidents.tick(room.time_s, final=True)
        room.restart()
    elif tokens:
        token = tokens[one % len(tokens)]
        try:
            first = room.incidents.undo(token)
        except UsageError:
            return
        assert room.incidents.undo(token) == first
    if answer and answer.get("undo"):
        tokens.append(answer["undo"])


def room_status(known: list[dict[str, Any]], incident_id: str) -> str | None:
    return next((a["status"] for a in known if a["id"] == incident_id), None)

"""What an admin decides on incidents: false positive, close, reopen, note, undo, whitelist."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from errors import UsageError
from tests.incident_evidence import NAS, SCANNER, T0, finding, flow
from tests.incident_room import Room

HOST = "192.168.1.57"
CLOUD = "198.51.100.23"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    opened = Room(tmp_path / "data")
    yield opened
    opened.store.close()


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

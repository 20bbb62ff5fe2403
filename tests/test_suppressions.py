"""What a suppression hides and where it ends: device, service, measured value and radius."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batches import FlowRecord
from decision_words import suppression_scope
from features import LIVE
from ml.likeness import Likeness
from ml.model import Model, fit
from store import Store
from tests.incident_evidence import NAS, SCANNER, T0, finding, flow, flow_batch
from tests.incident_room import Room

HOST = "192.168.1.57"
CLOUD = "198.51.100.23"
DAY_S = 86_400


def values(rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
    """(n, len(LIVE)) normal flows of four kinds."""
    kinds = rng.normal(4, 2, (4, len(LIVE)))
    return np.exp(kinds[rng.integers(0, 4, n)] + rng.normal(0, 0.2, (n, len(LIVE))))


@pytest.fixture(scope="module")
def model() -> Model:
    rng = np.random.default_rng(3)
    normal = values(rng, 600)
    return fit("live", "1", LIVE, normal[:450], normal[450:]).model


@pytest.fixture
def room(tmp_path: Path, model: Model) -> Iterator[Room]:
    likeness = Likeness(lambda: [model])
    opened = Room(
        tmp_path / "data",
        around=likeness.around,
        like=likeness.like,
        hidden_attacks=likeness.hidden_by,
    )
    yield opened
    opened.store.close()


def odd(flow_id: str, at: float = 0.0, *, shift: float = 0.0, **changed: Any) -> FlowRecord:
    """An extreme flow of HOST to CLOUD; `shift` times e further out in a third of its features."""
    rng = np.random.default_rng(5)
    row = values(rng, 1)[0]
    row[::3] *= np.exp(shift)
    features = [float(value) for value in row]
    return flow(flow_id, at=at, extreme=True, features=features, **changed)


def judged(room: Room, *records: FlowRecord, **how: Any) -> dict[str, Any]:
    room.incidents.add_flows(list(records))
    return room.incidents.mark_false_positive(id=room.only()["id"], **how)


# --- windows


def test_the_same_again_is_hidden_and_a_much_bigger_one_is_told(room: Room) -> None:
    room.incidents.add_findings([finding(value=15.0)])
    preview = room.incidents.preview_false_positive(room.only()["id"])
    assert preview is not None
    assert preview["bounds"]["up_to"] == 22.5
    assert preview["bounds"]["line"] == 15.0
    assert any("Anything beyond half more" in sentence for sentence in preview["sentences"])
    room.incidents.mark_false_positive(id=room.only()["id"])
    room.incidents.add_findings([finding(value=15.0, at=60), finding(value=22.5, at=120)])
    assert room.incidents.list() == []
    assert room.incidents.suppressions()[0]["hits"] == 2
    room.incidents.add_findings([finding(value=23.0, at=180)])
    assert room.only()["subpattern"] == "VERTICAL_SCAN"


def test_the_strength_counts_where_windows_have_unlike_lines(room: Room) -> None:
    room.incidents.add_findings([finding(value=20.0, line=20.0)])
    room.incidents.mark_false_positive(id=room.only()["id"])
    room.incidents.add_findings([finding(value=20.0, line=10.0, at=60)])
    assert room.only()["measure"] == {"value": 20.0, "line": 10.0}


@pytest.mark.parametrize(
    "changed",
    [
        {"target": "192.168.1.99", "targets": ("192.168.1.99",)},
        {"targets": (NAS, "192.168.1.99")},
        {"source": "203.0.113.9"},
        {"ports": (22,)},
        {"protocol": 17},
    ],
)
def test_another_target_source_service_or_protocol_is_told(
    room: Room, changed: dict[str, Any]
) -> None:
    room.incidents.add_findings([finding(ports=(445,))])
    room.incidents.mark_false_positive(id=room.only()["id"])
    room.incidents.add_findings([finding(ports=(445,), at=60)])
    assert room.incidents.list() == []
    room.incidents.add_findings([finding(**{"ports": (445,), "at": 120, **changed})])
    assert len(room.incidents.list()) == 1


def test_a_few_targets_are_named_one_by_one(room: Room) -> None:
    known = (NAS, "192.168.1.21", "192.168.1.22")
    room.incidents.add_findings([finding(targets=known)])
    answer = room.incidents.mark_false_positive(id=room.only()["id"])
    scope = answer["changed"]["suppression"]["scope"]
    assert scope == f"Port scan from {SCANNER} to {NAS} and 2 others"
    room.incidents.add_findings([finding(at=60), finding(at=120, targets=known[:2])])
    assert room.incidents.list() == []
    room.incidents.add_findings([finding(at=180, targets=(NAS, "192.168.1.99"))])
    assert len(room.incidents.list()) == 1


def test_a_wide_one_keeps_its_direction(room: Room) -> None:
    room.incidents.add_findings([finding(source=NAS, target=CLOUD, targets=(CLOUD,))])
    room.incidents.mark_false_positive(id=room.only()["id"], scope="wide")
    other = "198.51.100.99"
    room.incidents.add_findings([finding(source=NAS, target=other, targets=(other,), at=60)])
    assert room.incidents.list() == []
    room.incidents.add_findings([finding(source=NAS, target=HOST, targets=(HOST,), at=120)])
    assert room.only()["targets"] == [HOST]


def test_a_flood_of_many_sources_is_hidden_only_where_confirmed(room: Room) -> None:
    def flood(at: float, source: str) -> Any:
        amounts = {"sources": 5, "packets": 5_000}
        return finding(
            "SYN_FLOOD", pattern="BURST", key_is="target", source=source, at=at, amounts=amounts
        )

    room.incidents.add_findings([flood(0, SCANNER)])
    incident_id = room.only()["id"]
    preview = room.incidents.preview_false_positive(incident_id)
    assert preview is not None
    assert preview["too_wide"] is True
    assert "It would hide this from any source." in preview["warnings"]
    answer = room.incidents.mark_false_positive(id=incident_id)
    assert "any source" in answer["changed"]["warning"]
    assert answer["changed"]["suppression"]["source"] == SCANNER
    room.incidents.add_findings([flood(600, "203.0.113.51")])
    assert len(room.incidents.list()) == 1
    confirmed = room.incidents.mark_false_positive(id=room.only()["id"], confirm=True)
    assert confirmed["changed"]["warning"] is None
    room.incidents.add_findings([flood(1_200, "203.0.113.52")])
    assert room.incidents.list() == []


def test_one_that_hides_a_bundled_attack_says_which_and_asks(room: Room) -> None:
    room.incidents.add_findings([finding(value=300.0)])
    preview = room.incidents.preview_false_positive(room.only()["id"])
    assert preview is not None
    assert {"connect_scan", "slow_scan"} <= {attack["name"] for attack in preview["attacks"]}
    assert "syn_scan" not in {attack["name"] for attack in preview["attacks"]}
    assert preview["too_wide"] is True
    assert "a port scan by whole connections" in preview["warning"]
    tight = room.incidents.mark_false_positive(id=room.only()["id"])["changed"]["suppression"]
    assert (tight["up_to"], tight["tight"]) == (300.0, True)
    room.incidents.add_findings([finding(value=300.0, at=60)])
    assert room.incidents.list() == []
    room.incidents.add_findings([finding(value=310.0, at=120)])
    answer = room.incidents.mark_false_positive(id=room.only()["id"], confirm=True)
    assert answer["changed"]["suppression"]["up_to"] == 465.0


def test_flows_of_a_too_wide_one_are_learned_only_if_asked(room: Room) -> None:
    """Whether it is confirmed or not: the preview said so."""
    guessing = finding("CREDENTIAL_GUESSING", pattern="REPEATED_PAIR", value=16.0, ports=(22,))
    room.incidents.add_findings([guessing])
    record = flow("r-1", at=1, source=SCANNER, target=NAS, dst_port=22, ratio=None)
    room.incidents.add_flows([{**record, "severity": "MEDIUM"}])
    incident_id = room.only()["id"]
    preview = room.incidents.preview_false_positive(incident_id)
    assert preview is not None
    assert (preview["flows"], preview["too_wide"], preview["learn_default"]) == (1, True, False)
    answer = room.incidents.mark_false_positive(id=incident_id)
    assert answer["changed"]["flows_added"] == 0
    assert room.baseline.learned == {}
    room.incidents.undo(answer["undo"])
    answer = room.incidents.mark_false_positive(id=incident_id, learn=True)
    assert answer["changed"]["flows_added"] == 1


@pytest.mark.parametrize(
    ("source", "scope"),
    [
        ("10.0.0.5", "Repeated SSH connections to 10.0.0.10 and 2 others from 10.0.0.5 on port 22"),
        ("10.0.0.1", "Repeated SSH connections to 10.0.0.10 and 2 others from 10.0.0.1 on port 22"),
    ],
)
def test_the_scope_names_both_ends(source: str, scope: str) -> None:
    suppression = {"subpattern": "CREDENTIAL_GUESSING", "pattern": "REPEATED_PAIR", "port": 22}
    suppression |= {"source": source, "target": None, "protocol": "TCP"}
    targets = ["10.0.0.10", "10.0.0.11", "10.0.0.12"]
    assert suppression_scope({**suppression, "targets": targets}) == scope


# --- flows


def test_what_is_like_the_judged_flow_is_hidden_and_what_is_not_is_told(room: Room) -> None:
    answer = judged(room, odd("r-1"))
    assert answer["changed"]["suppression"]["radius"] > 0
    assert "centres" not in answer["changed"]["suppression"]
    room.incidents.add_flows([odd("r-2", 600), odd("r-3", 700, shift=0.02)])
    assert room.incidents.list() == []
    assert room.incidents.suppressions()[0]["hits"] == 2
    beyond = odd("r-4", 800, shift=6.0)
    room.incidents.add_flows([beyond])
    assert beyond["incident"] == room.only()["id"]
    assert room.only()["flows"] == ["r-4"]


@pytest.mark.parametrize(
    "changed",
    [
        {"dst_port": 8443},
        {"target": "198.51.100.99"},
        {"source": "192.168.1.58"},
        {"protocol": "UDP"},
    ],
)
def test_the_same_flow_elsewhere_is_told(room: Room, changed: dict[str, Any]) -> None:
    judged(room, odd("r-1"))
    room.incidents.add_flows([odd("r-2", 600, **changed)])
    assert len(room.incidents.list()) == 1


def test_hidden_flows_make_no_repeated_pair(room: Room) -> None:
    judged(room, odd("r-0"))
    alike = [odd(f"r-{i}", 600.0 + i) for i in range(1, 20)]
    room.incidents.add_flows(alike)
    assert room.incidents.list() == []
    far = [{**odd(f"f-{i}", 700.0 + i, shift=6.0), "extreme": False} for i in range(4)]
    room.incidents.add_flows(far)  # type: ignore[arg-type]
    assert room.incidents.list() == [], "four alerts that are not hidden are no repeated pair"
    fifth: Any = {**odd("f-4", 705.0, shift=6.0), "extreme": False}
    room.incidents.add_flows([fifth])
    assert sorted(room.only()["flows"]) == [f"f-{i}" for i in range(5)]


def test_a_hidden_flow_that_goes_on_and_leaves_its_kind_is_told(room: Room) -> None:
    judged(room, odd("r-1"))
    room.incidents.add_flows([odd("r-2", 600)])
    room.incidents.add_flows([odd("r-2", 601)])
    assert room.incidents.suppressions()[0]["hits"] == 1
    room.incidents.add_flows([odd("r-2", 640, shift=6.0)])
    assert room.only()["flows"] == ["r-2"]


def test_an_upload_beside_a_hidden_scan_is_told(room: Room) -> None:
    scan = odd("r-1", source=SCANNER, target=NAS, connection_state="S0", at=10)
    room.incidents.add_findings([finding()])
    room.incidents.add_flows([scan])
    room.incidents.mark_false_positive(id=room.only()["id"])
    room.incidents.add_findings([finding(at=60)])
    of_scan = odd("r-2", 70, source=SCANNER, target=NAS, connection_state="S0", shift=6.0)
    room.incidents.add_flows([of_scan])
    assert room.incidents.list() == []
    upload = odd("r-3", 71, source=SCANNER, target=NAS, connection_state="SF", shift=6.0)
    room.incidents.add_flows([upload])
    assert room.only()["flows"] == ["r-3"]


def test_the_flows_of_a_hidden_scan_make_no_repeated_pair(room: Room) -> None:
    def of_scan(i: int, at: float, **changed: Any) -> FlowRecord:
        ends = {"source": SCANNER, "target": NAS, "dst_port": 1_000 + i}
        return {**odd(f"s-{i}-{at}", at, **ends, **changed), "extreme": False}  # type: ignore

    room.incidents.add_findings([finding()])
    room.incidents.mark_false_positive(id=room.only()["id"])
    room.incidents.add_findings([finding(at=600)])
    room.incidents.add_flows([of_scan(i, 610, connection_state="REJ") for i in range(20)])
    assert room.incidents.list() == []
    # Beyond its value the scan is told, and its flows with it.
    room.incidents.add_findings([finding(at=660, value=900.0)])
    room.incidents.add_flows([of_scan(i, 670, connection_state="REJ") for i in range(20, 25)])
    assert room.only()["subpattern"] == "VERTICAL_SCAN"
    assert len(room.only()["flows"]) == 5


def test_like_incidents_close_and_their_flows_are_counted(room: Room) -> None:
    room.incidents.add_flows([odd("r-1")])
    first = room.only()["id"]
    room.incidents.close(first)
    room.incidents.add_flows([odd("r-2", 600)])
    second = room.only()["id"]
    room.incidents.close(second)
    room.incidents.add_flows([odd("r-3", 1_200, shift=6.0)])
    room.incidents.tick(T0 + 1_200)
    preview = room.incidents.preview_false_positive(second)
    assert preview is not None
    assert (preview["hidden_7_days"], preview["hidden_flows_7_days"]) == (2, 2)
    assert preview["closes"] == [second]
    far = room.incidents.preview_false_positive(room.only()["id"])
    assert far is not None
    assert far["hidden_7_days"] == 1


def test_a_region_that_holds_an_attack_hides_nothing_unconfirmed(
    tmp_path: Path, model: Model
) -> None:
    likeness = Likeness(lambda: [model])
    attack = {"name": "exfil", "title": "an upload of files to a stranger", "hidden": 1.0}
    room = Room(
        tmp_path / "data",
        around=likeness.around,
        like=likeness.like,
        hidden_attacks=lambda suppression: [attack] if suppression["centres"] else [],
    )
    answer = judged(room, odd("r-1"))
    assert answer["changed"]["suppression"] is None
    assert answer["changed"]["flows_added"] == 0
    assert "an upload of files to a stranger" in answer["changed"]["warning"]
    room.incidents.add_flows([odd("r-2", 600)])
    confirmed = room.incidents.mark_false_positive(id=room.only()["id"], confirm=True)
    assert confirmed["changed"]["suppression"]["radius"] > 0
    room.incidents.add_flows([odd("r-3", 1_200)])
    assert room.incidents.list() == []
    room.store.close()


# --- devices


def seen(room: Room, address: str, mac: int, first_id: int) -> None:
    batch = flow_batch([(address, CLOUD)], first_id=first_id, src_mac=mac, ip_version=4)
    room.incidents.count_flows(batch)


def test_a_device_keeps_its_suppression_under_another_address(room: Room) -> None:
    seen(room, HOST, 0x0011_2233_4455, 1)
    judged(room, odd("r-1"))
    (suppression,) = room.incidents.suppressions()
    assert suppression["hardware"] == "00:11:22:33:44:55"
    seen(room, "192.168.1.77", 0x0011_2233_4455, 2)
    room.incidents.add_flows([odd("r-2", 600, source="192.168.1.77")])
    assert room.incidents.list() == []
    # Another device that got the old address has no part in it.
    seen(room, HOST, 0x0011_2233_4466, 3)
    room.incidents.add_flows([odd("r-3", 700)])
    assert room.only()["flows"] == ["r-3"]


def test_a_routers_hardware_address_stands_for_nobody(room: Room) -> None:
    router = 0x0011_2233_4455
    seen(room, HOST, router, 1)
    seen(room, "203.0.113.7", router, 2)
    judged(room, odd("r-1"))
    assert room.incidents.suppressions()[0]["hardware"] == ""
    room.incidents.add_flows([odd("r-2", 600, source="192.168.1.77")])
    assert len(room.incidents.list()) == 1


# --- undo, time, documents of before


def test_undo_tells_what_was_hidden_and_restores_equal_bytes(room: Room) -> None:
    names = ("alerts_store", "evidence_store", "suppressions", "feedback_store")
    room.incidents.add_flows([odd("r-1", ratio=3.0)])
    room.incidents.tick(T0, final=True)
    room.restart()
    documents = {name: room.on_disk(name) for name in names}
    answer = room.incidents.mark_false_positive(id=room.only()["id"], learn=True)
    room.incidents.add_flows([odd("r-2", 600), odd("r-3", 601)])
    assert room.incidents.list() == []
    undone = room.incidents.undo(answer["undo"])
    assert undone is not None
    assert undone["hits"] == 2
    assert undone["sentence"].endswith("It had hidden 2 alerts.")
    assert room.incidents.undo(answer["undo"]) == undone
    assert room.baseline.learned == {}
    room.restart()
    assert {name: room.on_disk(name) for name in names} == documents
    room.incidents.add_flows([odd("r-4", 1_200)])
    assert len(room.incidents.list()) == 1


def test_bounds_hold_after_a_restart_and_end_after_thirty_days(room: Room) -> None:
    judged(room, odd("r-1"))
    room.pass_time(2)
    room.restart()
    room.incidents.add_flows([odd("r-2", 600)])
    assert room.incidents.list() == []
    room.incidents.add_flows([odd("r-3", 700, shift=6.0)])
    room.incidents.close(room.only()["id"])
    room.pass_time(30 * DAY_S)
    room.incidents.add_flows([odd("r-4", 31 * DAY_S)])
    assert len(room.incidents.list()) == 1


def test_a_suppression_of_before_bounds_were_measured_still_hides(tmp_path: Path) -> None:
    old = {
        "id": "sup-1",
        "time": T0,
        "timestamp": "2026-01-26 14:30:45",
        "until": T0 + DAY_S,
        "pattern": "SRC_SCAN",
        "subpattern": "VERTICAL_SCAN",
        "source": SCANNER,
        "target": NAS,
        "port": None,
        "protocol": "TCP",
        "reason": "",
        "scope": "Port scan",
        "incident": None,
        "hits": 0,
        "last_time": 0.0,
    }
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "suppressions.json").write_text(json.dumps([old]))
    Store(folder).close()
    room = Room(folder)
    room.incidents.add_findings([finding(value=900.0)])
    assert room.incidents.list() == []
    room.store.close()

"""The incident room over restarts, under floods and threads, and in any order of actions."""

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
from tests.incident_evidence import SCANNER, T0, finding, flow
from tests.incident_room import Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    opened = Room(tmp_path / "data")
    yield opened
    opened.store.close()


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

ATTACK = {"name": "syn_scan", "title": "a port scan by half connections", "hidden": 1.0}
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
    # Every other window and every flow is like an attack, so that some have to be confirmed.
    room = Room(
        tmp_path_factory.mktemp("data"),
        max_alerts=6,
        hidden_attacks=lambda one: [ATTACK] if one["port"] is None or not one["limit"] else [],
        around=lambda flows: {"centres": [*flows][:1], "radius": 1.0, "model": "live 1"},
        like=lambda centres, flows: [row == centres[0] for row in flows],
    )
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
        answer = room.incidents.mark_false_positive(
            id=chosen, scope="wide" if two else None, confirm=one > 1
        )
    elif action == "close":
        answer = (
            room.incidents.close(
                chosen, (None, "expected", "real", "expected")[two], confirm=one > 1
            )
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

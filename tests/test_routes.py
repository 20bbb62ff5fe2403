"""The endpoints as a client sees them, on a replayed real capture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from engine import Engine
from replay import Replay
from settings import load_settings
from store import Store

DEMO = Path(__file__).resolve().parents[1] / "data" / "demo" / "home.pcap.gz"
SPECIFIED_FLOW_FIELDS = {
    "timestamp",
    "src_ip",
    "dst_ip",
    "src_port",
    "dst_port",
    "protocol",
    "length",
    "scores",
    "model_votes",
    "final_decision",
    "severity",
    "explainability",
}
SPECIFIED_ALERT_FIELDS = {
    "timestamp",
    "src_ip",
    "dst_ip",
    "severity",
    "scores",
    "final_decision",
    "status",
    "explainability",
    "rule_recommendation",
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("data")
    settings = load_settings({"DATA_DIR": str(folder)}, {})
    store = Store(folder)
    running = Engine(settings, store, Replay([DEMO]), mode="replay")
    running.start()
    assert running.wait_finished(120)
    assert running.failure is None
    yield running
    running.stop()
    store.close()


@pytest.fixture
def client(engine: Engine) -> FlaskClient:
    app = create_app(engine)
    app.testing = False  # an error must become an answer, as it does for users
    return app.test_client()


def get(client: FlaskClient, path: str, **kwargs: Any) -> Any:
    answer = client.get(path, **kwargs)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.data)


def told(answer: TestResponse) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer.data)
    return body


def worst(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = get(client, "/alerts_data")[0]
    return found


# --- flows ----------------------------------------------------------------------------------------


def test_captured_data_has_the_specified_fields_newest_first(client: FlaskClient) -> None:
    rows = get(client, "/captured_data?limit=50")
    assert len(rows) == 50
    for row in rows:
        assert set(row) >= SPECIFIED_FLOW_FIELDS
        assert "features" not in row
        assert set(row["model_votes"]) == {"home", "industrial", "live"}
        assert set(row["scores"]) == {"home", "industrial", "live", "autoencoder"}
        assert row["final_decision"] in ("ALERT", "ALLOW")
    assert [row["seq"] for row in rows] == sorted((row["seq"] for row in rows), reverse=True)


def test_captured_data_filters(client: FlaskClient) -> None:
    rows = get(client, "/captured_data?src=10.77.0.2&dst=&decision=ALLOW&limit=2000")
    assert rows
    assert all("10.77.0.2" in row["src_ip"] for row in rows)
    assert all(row["final_decision"] == "ALLOW" for row in rows)


def test_captured_data_since_gives_only_what_changed(client: FlaskClient) -> None:
    answer = client.get("/captured_data?limit=1")
    seq = int(answer.headers["X-Seq"])
    assert get(client, f"/captured_data?since={seq}") == []
    few = get(client, f"/captured_data?since={seq - 3}")
    assert [row["seq"] for row in few] == [seq, seq - 1, seq - 2]
    assert "X-Reset" not in client.get(f"/captured_data?since={seq - 3}").headers
    assert client.get(f"/captured_data?since={seq + 5}").headers["X-Reset"] == "1"
    assert client.get("/captured_data?since=0&limit=5").headers["X-Reset"] == "1"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("severity=BAD", "severity"),
        ("since=-1", "since"),
    ],
)
def test_a_wrong_query_names_its_field(client: FlaskClient, query: str, field: str) -> None:
    answer = client.get(f"/captured_data?{query}")
    assert answer.status_code == 400
    assert told(answer)["status"] == "error"
    assert told(answer)["field"] == field


def test_nothing_changed_is_304(client: FlaskClient) -> None:
    first = client.get("/captured_data?limit=3")
    again = client.get("/captured_data?limit=3", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["X-Seq"] == first.headers["X-Seq"]


# --- incidents ------------------------------------------------------------------------------------


def test_alerts_data_has_the_specified_fields(client: FlaskClient) -> None:
    alerts = get(client, "/alerts_data")
    assert alerts
    for alert in alerts:
        assert set(alert) >= SPECIFIED_ALERT_FIELDS
        assert alert["status"] == "OPEN"
        rule = alert["rule_recommendation"]
        assert set(rule["scope"]) == {"type", "value"}
        assert set(rule["conditions"]) >= {"threshold", "duration_seconds"}
        assert alert["title"]
        assert len(alert["why"].split()) <= 32


def test_the_scans_of_the_sample_are_told_with_their_source(client: FlaskClient) -> None:
    found = {(a["pattern"], a["src_ip"]) for a in get(client, "/alerts_data?status=all")}
    assert ("SRC_SCAN", "10.77.0.66") in found


def test_one_incident_in_detail(client: FlaskClient) -> None:
    alert = worst(client)
    detail = get(client, f"/api/alerts/{alert['id']}")
    assert detail["id"] == alert["id"]
    assert {"flow_records", "worst", "history", "rule"} <= set(detail)
    assert client.get("/api/alerts/nothing").status_code == 404


def test_false_positive_by_the_specifications_names_and_undo(client: FlaskClient) -> None:
    alert = worst(client)
    names = {name: alert[name] for name in ("src_ip", "dst_ip", "timestamp")}
    preview = told(client.post(f"/api/alerts/{alert['id']}/false_positive/preview"))
    answer = client.post("/mark_false_positive", json=names)
    assert answer.status_code == 200, answer.text
    assert (told(answer)["status"], told(answer)["removed"]) == ("success", True)
    assert sorted(told(answer)["changed"]["closed"]) == sorted(preview["closes"])
    assert alert["id"] not in {a["id"] for a in get(client, "/alerts_data")}
    marked = get(client, "/alerts_data?status=FALSE_POSITIVE")
    assert alert["id"] in {a["id"] for a in marked}
    undone = client.post(f"/api/undo/{told(answer)['undo']}")
    assert undone.status_code == 200, undone.text
    back = {a["id"]: a for a in get(client, "/alerts_data")}[alert["id"]]
    assert back["status"] == "OPEN"


def test_a_too_wide_suppression_is_told_and_asked_about(client: FlaskClient) -> None:
    scan = next(a for a in get(client, "/alerts_data") if a["subpattern"] == "VERTICAL_SCAN")
    path = f"/api/alerts/{scan['id']}"
    preview = told(client.post(f"{path}/false_positive/preview", json={"verdict": "expected"}))
    assert preview["too_wide"] is True
    assert "syn_scan" in {attack["name"] for attack in preview["attacks"]}
    assert preview["bounds"]["radius"] > 0
    seen = scan["measure"]["value"]
    for confirm, up_to in ((False, seen), (True, 1.5 * seen)):
        body = {"verdict": "expected", "confirm": confirm}
        closed = told(client.post(f"{path}/close", json=body))
        assert closed["alert"]["verdict"] == "expected"
        assert (closed["changed"]["warning"] is None) is confirm
        (hiding,) = get(client, "/api/suppressions")["suppressions"]
        assert hiding["up_to"] == pytest.approx(up_to)
        assert "centres" not in hiding
        assert told(client.post(f"/api/undo/{closed['undo']}"))["hits"] == 0
    wrong = client.post(f"{path}/false_positive/preview", json={"verdict": "real"})
    assert (wrong.status_code, told(wrong)["field"]) == (400, "verdict")


def test_close_is_idempotent_and_reopens(client: FlaskClient) -> None:
    alert = worst(client)
    first = client.post(f"/api/alerts/{alert['id']}/close", json={"verdict": "expected"})
    again = client.post(f"/api/alerts/{alert['id']}/close", json={"verdict": "expected"})
    assert first.status_code == again.status_code == 200
    assert told(again)["alert"]["status"] == "CLOSED"
    assert client.post(f"/api/alerts/{alert['id']}/reopen").status_code == 200
    assert worst(client)["id"] == alert["id"]


def test_a_body_with_an_unknown_name_is_refused(client: FlaskClient) -> None:
    alert = worst(client)
    answer = client.post(f"/api/alerts/{alert['id']}/close", json={"verdikt": "real"})
    assert (answer.status_code, told(answer)["field"]) == (400, "verdikt")
    for body in (b"[1]", b"{", b"[" * 100_000):
        assert client.post("/mark_false_positive", data=body).status_code == 400


def test_whitelist(client: FlaskClient) -> None:
    added = client.post("/api/whitelist", json={"trusted_ips": ["192.0.2.0/24"]})
    assert told(added)["trusted_ips"] == ["192.0.2.0/24"]
    refused = client.post("/api/whitelist", json={"trusted_ips": ["nonsense"]})
    assert refused.status_code == 400
    assert "'nonsense' is no address" in told(refused)["error"]
    removed = client.delete("/api/whitelist", json={"trusted_ips": ["192.0.2.0/24"]})
    assert told(removed)["trusted_ips"] == []


# --- status ---------------------------------------------------------------------------------------


def test_a_suppression_needs_an_address(client: FlaskClient) -> None:
    wish = {"src_ip": "zzz", "subpattern": "VERTICAL_SCAN"}
    answer = client.post("/api/suppressions", json=wish)
    assert answer.status_code == 400
    assert "no address" in told(answer)["error"]


def test_no_capture_mixes_into_a_recording(client: FlaskClient, engine: Engine) -> None:
    answer = client.post("/api/capture/start", json={"interface": "lo"})
    assert answer.status_code == 400
    assert "recording" in told(answer)["error"]
    assert engine.capture_status()["interface"] == DEMO.name


def test_live_status_and_overview(client: FlaskClient) -> None:
    status = get(client, "/api/live_status")
    assert status["capture"]["state"] == "replay"
    assert status["capture"]["packets"] > 50_000
    assert status["baseline"]["phase"] in ("WARMING UP", "LEARNING", "TRAINED")
    assert {model["name"] for model in status["models"]} == {"live", "home", "industrial"}
    overview = get(client, "/api/overview")
    assert len(overview["figures"]) == 5
    assert len(overview["hours"]) == 24
    hours = sum(
        hour[s] for hour in overview["hours"] for s in ("CRITICAL", "HIGH", "MEDIUM", "LOW")
    )
    assert hours == len(get(client, "/alerts_data?status=all"))


def test_health(client: FlaskClient) -> None:
    health = get(client, "/health")
    assert health["ok"] is True
    assert health["threads"]["analysis"]["alive"] is True
    assert health["store"]["state"] == "ok"
    assert health["capture"]["kernel_drops"] == health["capture"]["table_drops"] == 0


def test_openapi_describes_what_is_served(client: FlaskClient, engine: Engine) -> None:
    described = get(client, "/openapi.json")
    assert described["openapi"] == "3.1.0"
    paths = set(described["paths"])
    for path in ("/captured_data", "/alerts_data", "/mark_false_positive", "/api/undo/{token}"):
        assert path in paths
    rules = {rule.rule for rule in create_app(engine).url_map.iter_rules()}
    assert len(paths) == len(rules - {"/", "/live", "/static/<path:filename>"})


def test_pages(client: FlaskClient) -> None:
    for path in ("/", "/live"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.text.count("<h1") == 1
        assert len(answer.data) < 2_000_000


# --- who may ask ----------------------------------------------------------------------------------


def test_a_foreign_host_is_refused(client: FlaskClient) -> None:
    answer = client.get("/captured_data", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert client.get("/captured_data", headers={"Host": "localhost:5000"}).status_code == 200


def test_a_foreign_peer_is_refused(client: FlaskClient) -> None:
    answer = client.get("/", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({}, 200),
    ],
)
def test_a_change_must_come_from_our_own_pages(
    client: FlaskClient, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/api/whitelist", json={"trusted_ips": []}, headers=headers)
    assert answer.status_code == status


def test_every_answer_carries_the_safety_headers(client: FlaskClient) -> None:
    for path in ("/", "/captured_data", "/nothing", "/static/css/app.css"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_errors_are_one_sentence(client: FlaskClient) -> None:
    answer = client.get("/api/nothing")
    assert answer.status_code == 404
    assert told(answer) == {
        "status": "error",
        "error": "There is nothing at /api/nothing.",
        "field": None,
    }
    page = client.get("/nothing", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "<h1" in page.text
    wrong = client.post("/captured_data")
    assert wrong.status_code == 405
    large = client.post("/mark_false_positive", data=b"x" * (2 << 20))
    assert large.status_code == 413

"""The live page: flows as they are judged, the capture, the baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from flask import Blueprint, Response, jsonify, render_template
from pydantic import Field

from batches import FlowRecord, Severity, without_features
from routes.web import Body, Nothing, Query, endpoint, engine, rows, shell

__all__ = ["blueprint"]

blueprint = Blueprint("live", __name__)


class FlowQuery(Query):
    since: int | None = Field(default=None, ge=0, description="only rows changed after this seq")
    limit: int = Field(default=200, ge=1, le=2000)
    severity: Severity | None = None
    decision: Literal["ALERT", "ALLOW"] | None = None
    src: str | None = Field(default=None, max_length=100, description="part of the source address")
    dst: str | None = Field(default=None, max_length=100, description="part of the destination")


Name = Annotated[str, Field(min_length=1, max_length=200)]
MOST_INTERFACES: Final = 16


class CaptureChoice(Body):
    interface: Name | Annotated[list[Name], Field(min_length=1, max_length=MOST_INTERFACES)]
    filter: str = Field(default="", max_length=1000)


def _accepts(query: FlowQuery) -> Callable[[FlowRecord], bool]:
    def accept(row: FlowRecord) -> bool:
        return (
            (query.severity is None or row["severity"] == query.severity)
            and (query.decision is None or row["final_decision"] == query.decision)
            and (query.src is None or query.src.lower() in row["src_ip"])
            and (query.dst is None or query.dst.lower() in row["dst_ip"])
        )

    return accept


@blueprint.get("/live")
def page() -> str:
    running = engine()
    first_rows = running.analysis.flow_log.newest(limit=200)
    frame = shell("live")
    first = {
        "status": frame["status"],
        "flows": [without_features(row) for row in first_rows],
        "alerts": running.analysis.incidents.list(status="OPEN", limit=200),
        "seq": running.analysis.flow_log.seq,
        "alerts_seq": running.analysis.incidents.seq,
        "max_ui_logs": running.settings.MAX_UI_LOGS,
    }
    return render_template("online.html", shell=frame, first=first)


@endpoint(
    blueprint,
    "/captured_data",
    query=FlowQuery,
    answer=list[FlowRecord],
    summary="Newest flows with their verdicts, newest first",
)
def captured_data(query: FlowQuery) -> Response:
    flow_log = engine().analysis.flow_log
    seq = flow_log.seq
    since = query.since
    # A cursor from before a restart, or so old that rows in between may be gone.
    reset = since is not None and (since > seq or seq - since > query.limit)
    found = flow_log.newest(
        limit=query.limit, since=None if reset else since, accept=_accepts(query)
    )
    return rows([without_features(row) for row in found], seq=seq, reset=reset)


@endpoint(blueprint, "/api/live_status", summary="Capture, baseline, models, open incidents")
def live_status() -> dict[str, Any]:
    return engine().live_status()


@endpoint(
    blueprint, "/api/interfaces", answer=list[dict[str, Any]], summary="Interfaces of this computer"
)
def interfaces() -> Response:
    return jsonify([asdict(one) for one in engine().interfaces()])


@endpoint(
    blueprint,
    "/api/capture/start",
    method="POST",
    body=CaptureChoice,
    summary="Watch an interface, or a list of them",
    errors=(400, 403, 409),
)
def start_capture(body: CaptureChoice) -> dict[str, Any]:
    chosen = [body.interface] if isinstance(body.interface, str) else body.interface
    engine().start_capture(chosen, body.filter)
    return {"status": "success", "capture": engine().capture_status()}


@endpoint(
    blueprint,
    "/api/capture/stop",
    method="POST",
    body=Nothing,
    summary="Stop watching",
    errors=(400, 403),
)
def stop_capture(body: Nothing) -> dict[str, Any]:
    engine().stop_capture()
    return {"status": "success", "capture": engine().capture_status()}


@endpoint(
    blueprint,
    "/api/baseline/<any(reset,rollback,retrain):action>",
    method="POST",
    body=Nothing,
    summary="Forget, go back to the version before, or train now",
    errors=(400, 403, 409),
)
def baseline(action: str, body: Nothing) -> dict[str, Any]:
    predictor = engine().analysis.predictor
    {
        "reset": predictor.reset_baseline,
        "rollback": predictor.rollback_baseline,
        "retrain": predictor.retrain_baseline,
    }[action]()
    return {"status": "success", "baseline": predictor.status()["baseline"]}

"""Incidents: the list, one in detail, and what the admin decides about them."""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response
from pydantic import Field, model_validator

from batches import Severity
from routes.web import Body, Nothing, Query, RequestError, endpoint, engine, rows

__all__ = ["blueprint"]

blueprint = Blueprint("alerts", __name__)

CHANGES = (400, 403, 404, 409)


class AlertQuery(Query):
    status: Literal["OPEN", "FALSE_POSITIVE", "CLOSED", "all"] = "OPEN"
    severity: Severity | None = None
    pattern: str | None = Field(default=None, max_length=60)
    src: str | None = Field(default=None, max_length=100)
    limit: int = Field(default=200, ge=1, le=2000)
    since: int | None = Field(default=None, ge=0)


class FalsePositive(Body):
    id: str | None = Field(default=None, max_length=100)
    src_ip: str | None = Field(default=None, max_length=100)
    dst_ip: str | None = Field(default=None, max_length=100)
    timestamp: str | None = Field(default=None, max_length=40)
    scope: Literal["narrow", "wide"] | None = None
    learn: bool | None = None
    confirm: bool = False

    @model_validator(mode="after")
    def names_one(self) -> FalsePositive:
        if self.id is None and None in (self.src_ip, self.dst_ip, self.timestamp):
            raise ValueError("give id, or src_ip, dst_ip and timestamp")
        return self


class Decision(Body):
    verdict: Literal["expected", "real"] | None = None
    comment: str | None = Field(default=None, max_length=2000)
    scope: Literal["narrow", "wide"] | None = None
    confirm: bool = False


class Note(Body):
    text: str = Field(min_length=1, max_length=2000)


class PreviewWish(Body):
    scope: Literal["narrow", "wide"] | None = None
    verdict: Literal["false", "expected"] = "false"


class Trusted(Body):
    trusted_ips: list[str] = Field(max_length=1000)


class SuppressionId(Body):
    id: str = Field(max_length=100)


class SuppressionWish(Body):
    src_ip: str = Field(max_length=100)
    subpattern: str = Field(max_length=60)
    dst_ip: str | None = Field(default=None, max_length=100)
    port: int | None = Field(default=None, ge=1, le=65535)
    reason: str = Field(default="", max_length=500)


def _known(found: dict[str, Any] | None, alert_id: str) -> dict[str, Any]:
    if found is None:
        raise RequestError(f"There is no incident {alert_id}.", field="id", status=404)
    return found


@endpoint(
    blueprint,
    "/alerts_data",
    query=AlertQuery,
    answer=list[dict[str, Any]],
    summary="Incidents, OPEN ones unless another status is asked for",
)
def alerts_data(query: AlertQuery) -> Response:
    incidents = engine().analysis.incidents
    seq = incidents.seq
    reset = query.since is not None and query.since > seq
    found = incidents.list(
        status=query.status,
        severity=query.severity,
        pattern=query.pattern,
        src=query.src,
        limit=query.limit,
        since=None if reset else query.since,
    )
    if query.since is not None and not reset and len(found) >= query.limit:
        seq = found[-1]["seq"]  # the rest comes with the next question
    return rows(found, seq=seq, reset=reset)


@endpoint(
    blueprint,
    "/api/alerts/<alert_id>",
    summary="One incident with its flows, deviations, history, rule and notes",
    errors=(404,),
)
def one_alert(alert_id: str) -> dict[str, Any]:
    return _known(engine().analysis.incidents.detail(alert_id), alert_id)


@endpoint(
    blueprint,
    "/mark_false_positive",
    method="POST",
    body=FalsePositive,
    summary="Take an incident off the list; the baseline may learn from it",
    errors=CHANGES,
)
def mark_false_positive(body: FalsePositive) -> dict[str, Any]:
    return engine().analysis.incidents.mark_false_positive(**body.model_dump())


@endpoint(
    blueprint,
    "/api/alerts/<alert_id>/false_positive/preview",
    method="POST",
    body=PreviewWish,
    summary="What marking it, or closing it as expected, would do",
    errors=CHANGES,
)
def preview(alert_id: str, body: PreviewWish) -> dict[str, Any]:
    incidents = engine().analysis.incidents
    found = incidents.preview_false_positive(alert_id, body.scope, body.verdict)
    return _known(found, alert_id)


@endpoint(
    blueprint,
    "/api/alerts/<alert_id>/close",
    method="POST",
    body=Decision,
    summary="Close an incident, as expected, as a real attack, or without a verdict",
    errors=CHANGES,
)
def close(alert_id: str, body: Decision) -> dict[str, Any]:
    found = engine().analysis.incidents.close(alert_id, **body.model_dump())
    return _known(found, alert_id)


@endpoint(
    blueprint,
    "/api/alerts/<alert_id>/reopen",
    method="POST",
    body=Nothing,
    summary="Open an incident again",
    errors=CHANGES,
)
def reopen(alert_id: str, body: Nothing) -> dict[str, Any]:
    return _known(engine().analysis.incidents.reopen(alert_id), alert_id)


@endpoint(
    blueprint,
    "/api/alerts/<alert_id>/note",
    method="POST",
    body=Note,
    summary="Add a note",
    errors=CHANGES,
)
def note(alert_id: str, body: Note) -> dict[str, Any]:
    return _known(engine().analysis.incidents.note(alert_id, body.text), alert_id)


@endpoint(
    blueprint,
    "/api/undo/<token>",
    method="POST",
    body=Nothing,
    summary="Take a change back, up to seven days after it",
    errors=CHANGES,
)
def undo(token: str, body: Nothing) -> dict[str, Any]:
    found = engine().analysis.incidents.undo(token)
    if found is None:
        raise RequestError("There is nothing to undo under this token.", field="token", status=404)
    return found


@endpoint(blueprint, "/api/suppressions", summary="What is not told any more, and how much it hid")
def suppressions() -> dict[str, Any]:
    return {"suppressions": engine().analysis.incidents.suppressions()}


@endpoint(
    blueprint,
    "/api/suppressions",
    method="POST",
    body=SuppressionWish,
    summary="Do not tell this any more",
    errors=CHANGES,
)
def add_suppression(body: SuppressionWish) -> dict[str, Any]:
    return engine().analysis.incidents.add_suppression(**body.model_dump())


@endpoint(
    blueprint,
    "/api/suppressions",
    method="DELETE",
    body=SuppressionId,
    summary="Tell it again",
    errors=CHANGES,
)
def remove_suppression(body: SuppressionId) -> dict[str, Any]:
    return engine().analysis.incidents.remove_suppression(body.id)


@endpoint(blueprint, "/api/whitelist", answer=Trusted, summary="Trusted addresses")
def whitelist() -> dict[str, Any]:
    return {"trusted_ips": engine().analysis.incidents.whitelist()}


@endpoint(
    blueprint,
    "/api/whitelist",
    method="POST",
    body=Trusted,
    summary="Trust these addresses as well (address, CIDR, IPv6)",
    errors=CHANGES,
)
def add_trusted(body: Trusted) -> dict[str, Any]:
    return engine().analysis.incidents.add_trusted(body.trusted_ips)


@endpoint(
    blueprint,
    "/api/whitelist",
    method="DELETE",
    body=Trusted,
    summary="Trust these addresses no more",
    errors=CHANGES,
)
def remove_trusted(body: Trusted) -> dict[str, Any]:
    return engine().analysis.incidents.remove_trusted(body.trusted_ips)

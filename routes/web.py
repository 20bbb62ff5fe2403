"""What every endpoint shares: who may ask, how a request is read, how an answer looks.

An endpoint is declared with `endpoint`, which validates query and body by pydantic models and
remembers them, so that /openapi.json says what the handlers really take.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, current_app, jsonify, render_template, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import HTTPException

from errors import AppError, CaptureError, UsageError

if TYPE_CHECKING:
    from engine import Engine

__all__ = [
    "ENDPOINTS",
    "Body",
    "Endpoint",
    "Nothing",
    "Query",
    "RequestError",
    "endpoint",
    "engine",
    "guard",
    "rows",
    "shell",
]

MAX_BODY_BYTES: Final = 1 << 20
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; style-src 'self'; img-src 'self' data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'; object-src 'none'"
)

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Query(BaseModel):
    """Base of all query strings; unknown names are let through, as browsers add some."""

    model_config = ConfigDict(extra="ignore")


class Body(BaseModel):
    """Base of all JSON bodies; an unknown name is an error, it may be a misspelt one."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Body):
    """The body of a change that needs no words; an empty one will do."""


class RequestError(AppError):
    """A request that can't be served as asked: one sentence, the field it is about, a status."""

    def __init__(self, sentence: str, *, field: str | None = None, status: int = 400) -> None:
        super().__init__(sentence)
        self.field = field
        self.status = status


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of /openapi.json."""

    rule: str
    method: str
    summary: str
    query: type[Query] | None
    body: type[Body] | None
    answer: Any
    errors: tuple[int, ...] = field(default=(400,))


ENDPOINTS: Final[list[Endpoint]] = []


def engine() -> Engine:
    """The one engine of this process."""
    return cast("Engine", current_app.extensions["secureflux"]())


def endpoint(
    blueprint: Blueprint,
    rule: str,
    *,
    method: str = "GET",
    query: type[Query] | None = None,
    body: type[Body] | None = None,
    answer: Any = dict,
    summary: str,
    errors: tuple[int, ...] = (400,),
) -> Callable[[Handler], Handler]:
    """Declare an endpoint; the handler gets the validated `query` and `body` by name."""
    ENDPOINTS.append(Endpoint(rule, method, summary, query, body, answer, errors))

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        def serve(**path: Any) -> Any:
            given: dict[str, Any] = dict(path)
            if query is not None:
                # An empty field of a form means "not asked for".
                asked = {name: value for name, value in request.args.items() if value != ""}
                given["query"] = _validated(query, asked)
            if body is not None:
                given["body"] = _validated(body, _json_body())
            answered = handler(**given)
            return answered if isinstance(answered, Response) else jsonify(answered)

        blueprint.add_url_rule(rule, handler.__name__, serve, methods=[method])
        return handler

    return decorate


def _json_body() -> dict[str, Any]:
    if not request.get_data(cache=True):
        return {}
    try:
        given = request.get_json(force=True)
    except (HTTPException, RecursionError) as error:
        raise RequestError("The body is not valid JSON.") from error
    if not isinstance(given, dict):
        raise RequestError("The body must be a JSON object.")
    return given


def _validated(model: type[BaseModel], given: dict[str, Any]) -> BaseModel:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or None
        said = str(first["msg"]).removeprefix("Value error, ")
        sentence = f"{name}: {said}." if name else f"{said}."
        raise RequestError(sentence, field=name) from error


def rows(found: list[Any], *, seq: int, reset: bool) -> Response:
    """A plain array, as the specification has it; cursor and clock travel in headers."""
    answer = jsonify(found)
    answer.headers["X-Seq"] = str(seq)
    if reset:
        answer.headers["X-Reset"] = "1"
    return answer


def shell(page: str) -> dict[str, Any]:
    """What templates/base.html needs around every page."""
    running = engine()
    status = running.live_status()
    return {
        "page": page,
        "pages": [
            {"key": "overview", "label": "Overview", "href": "/", "icon": "columns-gap"},
            {"key": "live", "label": "Live", "href": "/live", "icon": "activity"},
        ],
        "product": "SecureFlux",
        "sample": running.sample,
        "status": status,
        "version": status["version"],
    }


# --- who may ask --------------------------------------------------------------------------------


def guard(app: Flask, hosts: frozenset[str]) -> None:
    """Refuse foreign peers, hosts and origins; put the safety headers on every answer.

    hosts: names under which this server is reached (lower case, without port).
    """
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES

    @app.before_request
    def refuse_strangers() -> None:
        if not _is_loopback(request.remote_addr):
            raise RequestError(
                "Only this computer may ask: other machines need a password.", status=403
            )
        name = urlsplit(f"//{request.host}").hostname or ""
        if name.lower() not in hosts:
            raise RequestError(f"This server is not called {name or 'that'}.", status=400)
        if request.method not in _SAFE_METHODS and not _is_own_origin():
            raise RequestError("A change must come from this server's own pages.", status=403)

    @app.after_request
    def add_headers(answer: Response) -> Response:
        answer.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["X-Frame-Options"] = "DENY"
        answer.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if request.endpoint != "static":
            answer.headers["X-Time"] = f"{engine().now:.3f}"
            answer.headers["Cache-Control"] = "no-cache"
            if request.method == "GET" and answer.status_code == 200 and answer.is_json:
                answer.add_etag()
                answer.make_conditional(request)
        elif "v" in request.args:
            answer.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return answer

    app.register_error_handler(Exception, _told)


def _is_loopback(address: str | None) -> bool:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _is_own_origin() -> bool:
    """A browser says where a request comes from; curl says nothing and may pass."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or origin == f"{request.scheme}://{request.host}"


def _told(error: Exception) -> tuple[Response | str, int]:
    """One sentence, never a stack trace; a page for people, JSON for programs."""
    status, named = 500, None
    sentence = "Something went wrong here; the log has the details. Nothing was changed."
    if isinstance(error, RequestError):
        status, named, sentence = error.status, error.field, str(error)
    elif isinstance(error, UsageError | CaptureError):
        status, sentence = 400, str(error)
    elif isinstance(error, AppError):
        status, sentence = 409, str(error)
    elif isinstance(error, HTTPException):
        status = error.code or 500
        sentence = {
            404: f"There is nothing at {request.path}.",
            405: f"{request.path} does not take {request.method}.",
            413: f"The body is larger than {MAX_BODY_BYTES:,} bytes.",
        }.get(status, error.description or error.name)
    else:
        current_app.logger.exception("%s %s failed", request.method, request.path)
    # Browsers ask for pages and some picture formats alike, programs for JSON or for anything.
    wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
    if request.method == "GET" and wanted == "text/html":
        return render_template("error.html", status=status, sentence=sentence), status
    return jsonify({"status": "error", "error": sentence, "field": named}), status

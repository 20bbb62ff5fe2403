"""For those who operate it: health and the description of all endpoints."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from flask import Blueprint, Response, jsonify
from pydantic import TypeAdapter

from routes.web import ENDPOINTS, Endpoint, endpoint, engine
from version import VERSION

__all__ = ["blueprint"]

blueprint = Blueprint("operation", __name__)


@endpoint(
    blueprint, "/health", summary="Threads, store and capture; 503 where one fails", errors=(503,)
)
def health() -> Response:
    told = engine().health()
    answer = jsonify(told)
    answer.status_code = 200 if told["ok"] else 503
    return answer


@endpoint(blueprint, "/openapi.json", summary="This description")
def openapi() -> dict[str, Any]:
    return _description()


@cache
def _description() -> dict[str, Any]:
    """OpenAPI 3.1, from the models that validate the requests."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {
        "Error": {
            "type": "object",
            "required": ["status", "error", "field"],
            "properties": {
                "status": {"const": "error"},
                "error": {"type": "string"},
                "field": {"type": ["string", "null"]},
            },
        }
    }
    for one in ENDPOINTS:
        path = re.sub(r"<(?:[^:<>]+\([^)]*\):|[^:<>]+:)?([^<>]+)>", r"{\1}", one.rule)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "SecureFlux", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(one: Endpoint, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    choices = re.search(r"<any\(([^)]*)\):", one.rule)
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"}
            | ({"enum": choices[1].split(",")} if choices is not None else {}),
        }
        for name in re.findall(r"{([^{}]+)}", path)
    ]
    if one.query is not None:
        asked = _schema(one.query, schemas)
        parameters += [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in asked["properties"].items()
        ]
    described: dict[str, Any] = {
        "summary": one.summary,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "Done",
                "content": {"application/json": {"schema": _schema(one.answer, schemas)}},
            }
        },
    }
    for status in one.errors:
        described["responses"][str(status)] = {
            "description": "Refused, with one sentence why",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    if one.body is not None:
        described["requestBody"] = {
            "content": {"application/json": {"schema": _schema(one.body, schemas)}}
        }
    return described


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    return schema

"""The overview page and its figures."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, render_template

import summary
from routes.web import endpoint, engine, shell

__all__ = ["blueprint"]

blueprint = Blueprint("overview", __name__)


@blueprint.get("/")
def page() -> str:
    frame = shell("overview")
    first = {"overview": summary.overview(engine()), "status": frame["status"]}
    return render_template("index.html", shell=frame, first=first)


@endpoint(blueprint, "/api/overview", summary="What the overview page shows")
def api_overview() -> dict[str, Any]:
    return summary.overview(engine())

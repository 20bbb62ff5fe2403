"""The web side: one blueprint a page; parse, ask a room, answer."""

from __future__ import annotations

from flask import Flask

from routes import alerts, live, operation, overview

__all__ = ["register"]


def register(app: Flask) -> None:
    for room in (overview, live, alerts, operation):
        app.register_blueprint(room.blueprint)

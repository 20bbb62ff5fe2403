"""The process: reads settings, builds the rooms, makes the Flask app, serves.

`python app.py [COMMAND …]` is the program; `flask --app app run [--debug]` serves it too.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType

from flask import Flask, url_for
from flask.helpers import get_debug_flag

import routes
from engine import Engine
from routes.web import guard
from settings import Settings, load_settings

__all__ = ["create_app"]

_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def create_app(engine: Engine | None = None) -> Flask:
    """The web application around a running engine.

    Without one (as `flask run` calls it) it reads the settings, starts the services itself, once,
    and stops them with the process.
    """
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    if engine is not None:
        settings = engine.settings
        app.extensions["secureflux"] = lambda: engine
    else:
        settings = load_settings({}, os.environ)
        services = _Services(settings)
        app.extensions["secureflux"] = services.engine
        # Under the reloader this module is loaded twice, and only the child serves.
        if not get_debug_flag() or os.environ.get("WERKZEUG_RUN_MAIN") == "true":
            services.engine()
    guard(app, _LOOPBACK_NAMES | {settings.HOST.lower()})
    routes.register(app)
    app.add_template_global(_asset_url(app), "asset")
    return app


class _Services:
    """The engine of `flask run`, built at the first need."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def engine(self) -> Engine:
        with self._lock:
            if self._engine is None:
                from commands.serve import build_live

                self._engine = build_live(self._settings)
                self._engine.start()
                atexit.register(self._engine.close)
                # Flask leaves SIGTERM to the system, which would end us without `atexit`.
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, _leave)
            return self._engine


def _leave(signal_number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _asset_url(app: Flask) -> Callable[[str], str]:
    """URLs of static files that change with their content, so that browsers may keep them."""

    @cache
    def fingerprint(path: Path, changed_ns: int) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]

    def asset(name: str) -> str:
        path = Path(str(app.static_folder)) / name
        if not path.is_file():
            raise FileNotFoundError(f"The template names a static file that is not there: {name}.")
        return url_for("static", filename=name, v=fingerprint(path, path.stat().st_mtime_ns))

    return asset


if __name__ == "__main__":
    from commands import main

    sys.exit(main(sys.argv[1:]))

"""`serve` watches an interface, `replay` takes capture files in its place; both serve the pages."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

import waitress

import resource_usage
import words
from capture import Capture, capture_remedy, interface_to_watch, own_networks
from commands.captures import refuse_unreadable
from commands.progress import Progress
from engine import Engine, Mode, Source
from errors import AppError, CaptureError, UsageError
from replay import Replay
from settings import ROOT, Settings
from store import Store

__all__ = ["add_commands", "build_live"]

DEMO_CAPTURE: Final = ROOT / "data" / "demo" / "home.pcap.gz"
DEMO_HEAD_S: Final = 535.0
"""The harmless beginning of the demo capture: read at once, so that there is something to see."""

_CONNECTIONS: Final = 400
"""Slow clients up to so many keep nobody out; waitress waits by select, which ends at 1024."""
_IDLE_S: Final = 30


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve", parents=parents, help="watch an interface and serve the pages (the default)"
    )
    serve.add_argument("--interface", metavar="IF", help="the interface to watch, or several: a,b")
    serve.add_argument("--filter", metavar="BPF", help="only packets that match this BPF filter")
    serve.add_argument("--host", metavar="H", help="address of the pages (default 127.0.0.1)")
    serve.add_argument("--port", metavar="P", help="port of the pages (default 5000)")
    serve.add_argument("--no-capture", action="store_true", help="serve the pages only")
    serve.set_defaults(run=run_serve)

    replay = commands.add_parser(
        "replay", parents=parents, help="the whole live way on capture files"
    )
    replay.add_argument("captures", nargs="+", metavar="CAPTURE", type=Path)
    replay.add_argument("--speed", choices=("max", "1x", "10x"), default="max")
    replay.add_argument("--exit", action="store_true", help="no pages; end when done")
    replay.add_argument("--summary", metavar="FILE", type=Path, help="write the result as JSON")
    replay.add_argument("--port", metavar="P", help="port of the pages (default 5000)")
    replay.set_defaults(run=run_replay)


# --- serve --------------------------------------------------------------------------------------


def run_serve(options: argparse.Namespace, settings: Settings) -> int:
    _refuse_other_machines(settings)
    engine = build_live(settings, capture=not options.no_capture)
    return _serve(engine)


def build_live(settings: Settings, *, capture: bool = True) -> Engine:
    """The engine that watches the chosen interfaces, not started yet.

    Where nothing may be captured it plays the sample traffic, in a data directory of its own.
    """
    if not capture:
        return _engine(settings, None, "off", None)
    interfaces = settings.interfaces or tuple(filter(None, [interface_to_watch()]))
    if not interfaces:
        _say("[i] No network interface is up; nothing is captured until one is chosen on /live.")
        return _engine(settings, None, "live", None)
    named = ", ".join(interfaces)
    remedy = capture_remedy(named)
    if remedy is None:
        source = Capture(interfaces, bpf_filter=settings.FILTER, snaplen=settings.SNAPLEN)
        try:
            source.check()  # the analysis starts it, once nothing is left to be compiled
        except CaptureError as error:
            if settings.interfaces:  # what was asked for is wrong: no sample in its place
                raise
            remedy = str(error)
        else:
            _say(f"[i] Packet capture thread started ({named})")
            return _engine(settings, source, "live", None)
    print(f"secureflux: {remedy}", file=sys.stderr)  # noqa: T201
    _say("[i] Sample traffic plays meanwhile; what it shows was recorded in a lab.")
    aside = replace(
        settings,
        DATA_DIR=str(settings.path("DATA_DIR") / "sample"),
        LIVE_MODEL_PATH=str(settings.path("DATA_DIR") / "sample" / "models" / "live"),
    )
    # The sample tells the same story at every start.
    shutil.rmtree(aside.path("DATA_DIR"), ignore_errors=True)
    sample = Replay(
        [DEMO_CAPTURE], speed=1.0, head_s=DEMO_HEAD_S, shift=True, name="sample traffic"
    )
    return _engine(aside, sample, "sample", remedy)


def _engine(settings: Settings, source: Source | None, mode: Mode, remedy: str | None) -> Engine:
    store = Store(settings.path("DATA_DIR"), address=f"http://{settings.HOST}:{settings.PORT}")
    # What was recorded elsewhere knows nothing of this machine's networks.
    networks = own_networks() if mode in ("live", "off") else ()
    try:
        with _undisturbed():
            return Engine(
                settings, store, source, mode=mode, remedy=remedy, interface_networks=networks
            )
    except BaseException:
        store.close()
        raise


@contextmanager
def _undisturbed() -> Iterator[None]:
    """SIGTERM waits for the end of the block: loading compiled code calls back into Python, and
    an exception that a signal raises in there would be lost, and with it the wish to end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    asked: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
    if asked:
        signal.raise_signal(signal.SIGTERM)


def _refuse_other_machines(settings: Settings) -> None:
    try:
        found = socket.getaddrinfo(settings.HOST, None)
    except OSError as error:
        raise UsageError(f"--host {settings.HOST} is not an address of this computer.") from error
    if not all(str(one[4][0]).startswith("127.") or one[4][0] == "::1" for one in found):
        raise UsageError(
            f"--host {settings.HOST} would let other machines in, and there is no password yet. "
            "Use 127.0.0.1 and an SSH tunnel: ssh -L 5000:127.0.0.1:5000 this-machine."
        )


def _serve(engine: Engine, *, after: Any = None) -> int:
    """Serve the pages until a signal ends it; everything is written before it returns."""
    from app import create_app

    settings = engine.settings
    counts = engine.analysis.incidents.counts()
    _say(f"[i] Loaded {counts['OPEN']} OPEN alerts from disk")
    baseline = engine.analysis.predictor.status()["baseline"]
    if baseline["phase"] == "WARMING UP":
        _say("[i] Live baseline warming up - no model found yet")
    try:
        server = waitress.create_server(
            create_app(engine),
            host=settings.HOST,
            port=settings.PORT,
            threads=8,
            ident=None,
            connection_limit=_CONNECTIONS,
            channel_timeout=_IDLE_S,
        )
    except OSError as error:
        engine.close()
        raise AppError(
            f"The pages can't be served on {settings.HOST}:{settings.PORT} "
            f"({error.strerror or error}). Give another port with --port P."
        ) from error
    port = getattr(server, "effective_port", settings.PORT)
    signal.signal(signal.SIGTERM, _leave)
    try:
        engine.start()
        _say(f" * Running on http://{settings.HOST}:{port}")
        server.run()
    finally:
        server.close()
        engine.close()
        if after is not None:
            after()
    if engine.is_compiling:
        # Everything is written; the interpreter's own end would wait for the compiler (15 s).
        os._exit(0)
    return 0


def _leave(signal_number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _say(line: str) -> None:
    """Start-up lines are results a person waits for; standard output is theirs."""
    print(line, flush=True)  # noqa: T201


# --- replay -------------------------------------------------------------------------------------


def run_replay(options: argparse.Namespace, settings: Settings) -> int:
    refuse_unreadable(options.captures)
    scratch = None
    if not options.data_dir:
        scratch = tempfile.mkdtemp(prefix="secureflux-replay-")
        settings = replace(
            settings, DATA_DIR=scratch, LIVE_MODEL_PATH=str(Path(scratch) / "models" / "live")
        )
    try:
        return _replay(options, settings)
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _replay(options: argparse.Namespace, settings: Settings) -> int:
    speed = {"max": 0.0, "1x": 1.0, "10x": 10.0}[options.speed]
    source = Replay(options.captures, speed=speed, snaplen=settings.SNAPLEN)
    engine = _engine(settings, source, "replay", None)
    started = time.monotonic()

    def write_summary() -> None:
        if options.summary is not None:
            told = _summary(engine, options.captures, source, time.monotonic() - started)
            options.summary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    if not options.exit:
        return _serve(engine, after=write_summary)
    try:
        engine.start()
        with Progress("packets") as progress:
            while not engine.wait_finished(0.2):
                progress.update(engine.analysis.decoder.frames, source.fraction)
    finally:
        engine.close()
    for damage in source.damages:
        print(f"secureflux: {damage}", file=sys.stderr)  # noqa: T201
    if engine.failure is not None:
        print(f"secureflux: {engine.failure}", file=sys.stderr)  # noqa: T201
        return engine.exit_code
    write_summary()
    if options.summary is None:
        _tell_result(engine)
    return 0


def _tell_result(engine: Engine) -> None:
    for alert in engine.analysis.incidents.list(status="all", limit=2000):
        _say(f"{alert['timestamp']}  {alert['severity']:8}  {alert['title']}")
        _say(f"    {words.bare(alert['why'])}")
    counters = engine.analysis.counters()
    _say(
        f"{engine.analysis.decoder.packets:,} packets, {counters['flows_ended']:,} flows, "
        f"{engine.analysis.verdicts['ALERT']:,} of them odd."
    )
    if counters["tunnels"]:
        _say(f"Judged by what tunnels carry: {words.tunnels(counters['tunnels'])}.")
    if counters["unread"]:
        _say(f"Not read: {words.unread(counters['unread'])}.")


def _summary(
    engine: Engine, captures: list[Path], source: Replay, seconds: float
) -> dict[str, Any]:
    """What `replay --summary` writes; counts are sums over all captures."""
    analysis = engine.analysis
    counters = analysis.counters()
    baseline = analysis.predictor.status()["baseline"]
    return {
        "capture": [path.name for path in captures],
        "packets": counters["packets"],
        "bytes": counters["bytes"],
        "first_time": analysis.first_ns / 1e9,
        "last_time": analysis.last_ns / 1e9,
        "unread": counters["unread"],
        "tunnels": counters["tunnels"],
        "dropped": {"kernel": 0, "interface": 0, "queue": 0, "table": counters["table_drops"]},
        "damage": source.damages,
        "flows": counters["flows_ended"],
        "verdicts": analysis.verdicts,
        "severity": analysis.severities,
        "incidents": analysis.incidents.list(status="all", limit=2000),
        "rules": [],
        "baseline": {name: baseline[name] for name in ("phase", "collected", "version")},
        "seconds": round(seconds, 3),
        "packets_per_s": round(counters["packets"] / seconds, 1) if seconds > 0 else 0.0,
        "peak_rss_bytes": resource_usage.peak_rss_bytes(),
    }

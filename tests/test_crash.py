"""What was acknowledged survives `kill -9` in the middle of admin actions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from pathlib import Path

import pytest

from tests.server import DEMO, ROOT, running


def test_acknowledged_actions_survive_a_kill(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path))
    acknowledged: dict[str, list[str]] = {}
    with running("replay", str(DEMO), *data) as server:
        alerts = server.wait_for("/alerts_data", lambda found: len(found) >= 3)
        server.wait_for(
            "/api/live_status", lambda found: "end is reached" in found["capture"]["sentence"]
        )
        alerts = server.ask("/alerts_data")
        victim = threading.Timer(0.5, server.process.send_signal, [signal.SIGKILL])
        closed = server.ask(f"/api/alerts/{alerts[0]['id']}/close", {"verdict": "real"})
        marked = server.ask("/mark_false_positive", {"id": alerts[1]["id"]})
        assert closed["alert"]["status"] == "CLOSED"
        assert marked["removed"] is True
        victim.start()
        try:
            for number in range(100_000):
                one = alerts[2 + number % (len(alerts) - 2)]["id"]
                text = f"note {number}"
                server.ask(f"/api/alerts/{one}/note", {"text": text})
                acknowledged.setdefault(one, []).append(text)
        except (urllib.error.URLError, ConnectionError, OSError, json.JSONDecodeError):
            pass
        assert server.process.wait(20) == -signal.SIGKILL
    assert sum(map(len, acknowledged.values())) > 5
    for path in tmp_path.glob("*.json"):
        json.loads(path.read_text())
    with running("serve", "--no-capture", *data) as server:
        every = {a["id"]: a for a in server.ask("/alerts_data?status=all&limit=2000")}
        assert every[alerts[0]["id"]]["status"] == "CLOSED"
        assert every[alerts[0]["id"]]["verdict"] == "real"
        assert every[alerts[1]["id"]]["status"] == "FALSE_POSITIVE"
        for incident, texts in acknowledged.items():
            kept = [note["text"] for note in every[incident]["notes"]]
            assert [text for text in texts if text not in kept] == []
        opened = [a for a in every.values() if a["status"] == "OPEN"]
        assert f"[i] Loaded {len(opened)} OPEN alerts from disk" in server.told
        undone = server.ask(f"/api/undo/{marked['undo']}", {})
        assert undone["status"] == "success"
        assert alerts[1]["id"] in {a["id"] for a in server.ask("/alerts_data")}


def test_a_polite_end_is_quick_and_clean(tmp_path: Path) -> None:
    with running("serve", "--no-capture", "--data-dir", str(tmp_path)) as server:
        server.wait_for("/health", lambda found: found["threads"]["analysis"]["alive"])
        started = time.monotonic()
        server.process.terminate()
        assert server.process.wait(10) == 0
        assert time.monotonic() - started < 8


def test_the_end_does_not_wait_for_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    with running("serve", "--no-capture", "--data-dir", str(tmp_path / "data")) as server:
        assert server.ask("/api/live_status")["capture"]["state"] == "preparing"
        started = time.monotonic()
        server.process.terminate()
        assert server.process.wait(30) == 0
        assert time.monotonic() - started < 8


def test_a_second_instance_is_refused_with_the_owner(tmp_path: Path) -> None:
    data = ("serve", "--no-capture", "--data-dir", str(tmp_path))
    with running(*data) as server:
        second = subprocess.run(
            [sys.executable, "app.py", *data, "--port", "0"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1
        assert str(server.process.pid) in second.stderr
        assert "Traceback" not in second.stderr


def test_slow_clients_keep_nobody_out(tmp_path: Path) -> None:
    with running("serve", "--no-capture", "--data-dir", str(tmp_path)) as server:
        port = int(server.address.rsplit(":", 1)[1])
        with contextlib.ExitStack() as slow:
            for _ in range(150):
                one = slow.enter_context(socket.create_connection(("127.0.0.1", port)))
                one.sendall(b"POST /mark_false_positive HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
            assert "threads" in server.ask("/health")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_flask_run_ends_as_cleanly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "app", "run", "--port", port],
        cwd=ROOT,
        env={
            **os.environ,
            "SECUREFLUX_DATA_DIR": str(tmp_path),
            "SECUREFLUX_INTERFACE": "lo" if sys.platform == "linux" else "lo0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any("Running on" in line for line in process.stdout)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()

"""The program stops: the page says so, keeps its figures, offers nothing; it starts: all well."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.conftest import Open
from tests.server import ROOT, Server

pytestmark = pytest.mark.browser

GONE_MS = 15_000
BACK_MS = 60_000


@contextmanager
def listening_on(port: int, folder: Path) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "app.py", "serve", "--no-capture"]
        + ["--port", str(port), "--data-dir", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )
    try:
        assert process.stdout is not None
        told = next((line for line in process.stdout if "Running on" in line), None)
        assert told, "the program ended before it served"
        yield Server(process, f"http://127.0.0.1:{port}", [told])
    finally:
        process.terminate()
        process.wait(20)


def test_bar_comes_and_goes_by_itself(tmp_path: Path, open_page: Open) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with listening_on(port, tmp_path) as server:
        watched = open_page(server)
        page = watched.visit("/live?tab=logs", "#flows-empty h3")
        page.click("#capture-menu summary")
        page.wait_for_selector("#capture-body button")
        assert page.locator("[data-needs-server]:enabled").count() > 0
        assert page.is_hidden("#bar-gone")
    page.wait_for_selector("#bar-gone:not([hidden])", timeout=GONE_MS)
    assert "No answer from" in page.inner_text("#bar-gone")
    assert page.locator("button[data-needs-server]:enabled").count() == 0
    with listening_on(port, tmp_path):
        page.wait_for_selector("#bar-gone", state="hidden", timeout=BACK_MS)
        assert page.locator("#capture-body [data-needs-server]:enabled").count() > 0
        ids = page.eval_on_selector_all("tr[data-id]", "rows => rows.map(row => row.dataset.id)")
        assert len(ids) == len(set(ids))

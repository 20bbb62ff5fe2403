"""A real Chromium in front of the real program; no answer is made up, nothing is intercepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tests.server import DEMO, Server, running

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HEIGHTS = {1440: 900, 1024: 800, 390: 844, 320: 700}
TRIES = 4
_NETWORK_CHANGED = "ERR_NETWORK_CHANGED"
"""Chromium drops requests when an interface of the machine comes or goes, as the tests with
network namespaces make happen; the page is then loaded again and judged afresh."""


@dataclass
class Watched:
    """A page and everything it complained about or asked for elsewhere."""

    page: Page
    address: str
    messages: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(f"{error}\n{error.stack}"))
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and not url.startswith(self.address):
            self.foreign.append(url)

    def visit(self, path: str, ready: str) -> Page:
        """Open a path and wait until what `ready` selects is drawn."""
        for _ in range(TRIES):
            self.messages.clear()
            self.page.goto(self.address + path)
            self.page.wait_for_selector(ready, state="attached")
            self.page.evaluate("document.fonts.ready.then(() => 0)")
            if not any(_NETWORK_CHANGED in message for message in self.messages):
                break
        return self.page


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The program after it has seen the whole demo capture: flows, incidents, calibrated models."""
    folder: Path = tmp_path_factory.mktemp("browser")
    with running("replay", str(DEMO), "--speed", "max", "--data-dir", str(folder)) as started:
        started.wait_for(
            "/api/live_status", lambda found: "end is reached" in found["capture"]["sentence"]
        )
        yield started


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield started
        started.close()


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a fresh browser profile: open_page(server, width=1440, theme="light")."""
    contexts = []

    def opened(at: Server, width: int = 1440, theme: str = "light") -> Watched:
        size: ViewportSize = {"width": width, "height": HEIGHTS[width]}
        context = browser.new_context(
            viewport=size,
            color_scheme="dark" if theme == "dark" else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        return Watched(context.new_page(), at.address)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def page(server: Server, open_page: Open) -> Watched:
    """A page of 1440 x 900 in the light theme, nothing loaded yet."""
    return open_page(server)

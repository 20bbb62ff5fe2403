"""Every page in both themes and four widths: fits, is quiet, stays at home, passes axe-core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import HEIGHTS, Open, Watched
from tests.server import Server

pytestmark = pytest.mark.browser

AXE = (Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js").read_text()
FIVE_FIGURES = "#figures .figure:nth-child(5)"
PAGES = {
    "overview": ("/", FIVE_FIGURES),
    "logs": ("/live?tab=logs", "#flow-rows tr[data-id]"),
    "alerts": ("/live?tab=alerts", "#alert-rows tr[data-id]"),
}


def violations(watched: Watched) -> list[str]:
    """What axe-core finds; fails where it found nothing to look at.

    Of hundreds of rows that are all made alike it looks at the first ones.
    """
    watched.page.evaluate(AXE)
    found: dict[str, Any] = watched.page.evaluate(
        "axe.run({exclude: [['#flow-rows tr:nth-child(n + 20)']]})"
    )
    assert len(found["passes"]) > 10, "axe-core did not run"
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def overflow_px(watched: Watched) -> int:
    """How far the document is wider than the window."""
    wide: int = watched.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wide


@pytest.mark.parametrize("width", list(HEIGHTS))
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", list(PAGES))
def test_page_fits_and_is_quiet(
    server: Server, open_page: Open, name: str, theme: str, width: int
) -> None:
    path, ready = PAGES[name]
    watched = open_page(server, width, theme)
    page = watched.visit(path, ready)
    assert page.evaluate("document.documentElement.dataset.bsTheme") == theme
    assert overflow_px(watched) <= 0
    assert page.locator("h1").count() == 1
    for landmark in ("main", "header", "nav"):
        assert page.locator(landmark).count() == 1, landmark
    assert page.get_attribute("html", "lang") == "en"
    assert watched.foreign == []
    assert violations(watched) == []
    assert watched.messages == []


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_dialog_fits_and_passes(server: Server, open_page: Open, theme: str, width: int) -> None:
    alert = server.ask("/alerts_data")[0]["id"]
    watched = open_page(server, width, theme)
    page = watched.visit(f"/live?tab=alerts&alert={alert}", "#inv-left .why")
    page.keyboard.press("f")
    page.wait_for_selector("#inv-panel:not([hidden])")
    assert overflow_px(watched) <= 0
    box = page.locator("#investigate").bounding_box()
    assert box is not None
    if width == 390:
        assert (box["x"], box["width"]) == (0, 390)
    else:
        assert box["height"] <= HEIGHTS[width]
    assert violations(watched) == []
    assert watched.messages == []


def test_help_lists_the_keys_of_pages_that_exist(page: Watched) -> None:
    shown = page.visit("/live", "#flow-rows tr[data-id]")
    shown.keyboard.press("?")
    shown.wait_for_selector("#help[open]")
    words = shown.inner_text("#help-keys")
    assert "false positive" in words
    for label in shown.locator("[data-nav] .nav-label").all_inner_texts():
        assert label in words
    assert violations(page) == []
    shown.keyboard.press("Escape")
    shown.wait_for_selector("#help:not([open])", state="attached")


def test_theme_is_kept(page: Watched) -> None:
    shown = page.visit("/", FIVE_FIGURES)
    shown.keyboard.press("t")
    assert shown.get_attribute("html", "data-bs-theme") == "dark"
    shown.keyboard.press("g")
    shown.keyboard.press("l")
    shown.wait_for_selector("#flow-rows tr[data-id]")
    assert shown.get_attribute("html", "data-bs-theme") == "dark"


def test_unknown_page_is_a_sentence(page: Watched) -> None:
    shown = page.visit("/nowhere", "h1")
    assert "/nowhere" in shown.inner_text("h1")
    assert "Traceback" not in shown.content()
    assert violations(page) == []

"""What a person can say of an incident: expected, real, and hiding what is too wide."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import HEIGHTS, Open, Watched
from tests.browser.test_pages import overflow_px, violations
from tests.server import Server

pytestmark = pytest.mark.browser

PANEL = "#inv-panel:not([hidden]) li"


def dialog(server: Server, page: Watched, subpattern: str) -> tuple[str, Any]:
    """The open incident of that pattern, and its dialog."""
    found = server.ask("/alerts_data?limit=1000")
    alert = next(one["id"] for one in found if one["subpattern"] == subpattern)
    shown = page.visit(f"/live?tab=alerts&alert={alert}", "#inv-foot button")
    return alert, shown


def press(shown: Any, within: str, words: str) -> None:
    shown.locator(f"{within} button", has_text=words).click()


def taken_back(server: Server, alert: str) -> None:
    token = server.ask(f"/api/alerts/{alert}")["undo"]
    assert server.ask(f"/api/undo/{token}", {})["alert"]["status"] == "OPEN"


def test_expected_shows_what_it_does_and_hides_its_like(server: Server, page: Watched) -> None:
    alert, shown = dialog(server, page, "ARP_SWEEP")
    foretold = server.ask(f"/api/alerts/{alert}/false_positive/preview", {"verdict": "expected"})
    press(shown, "#inv-foot", "Expected")
    shown.wait_for_selector(PANEL)
    for sentence in foretold["sentences"]:
        assert sentence.replace("**", "") in shown.inner_text("#inv-panel")
    assert shown.locator("#inv-panel button", has_text="learn").count() == 0
    shown.keyboard.press("Enter")
    shown.wait_for_selector(".toast-undo")
    assert "as expected" in shown.inner_text(".toast-box")
    kept = server.ask(f"/api/alerts/{alert}")
    assert (kept["status"], kept["verdict"]) == ("CLOSED", "expected")
    (hiding,) = server.ask("/api/suppressions")["suppressions"]
    assert hiding["incident"] == alert
    shown.click("[data-status=CLOSED]")
    shown.wait_for_selector(f"tr[data-id='{alert}'] .tag-expected")
    shown.locator(f"tr[data-id='{alert}'] [data-do=investigate]").click()
    shown.wait_for_selector("#inv-left >> text=Hidden since then")
    assert "nothing yet" in shown.inner_text("#inv-left")
    taken_back(server, alert)
    assert server.ask("/api/suppressions")["suppressions"] == []
    assert page.messages == []


def test_a_real_attack_is_kept_as_one(server: Server, page: Watched) -> None:
    alert, shown = dialog(server, page, "ARP_SWEEP")
    press(shown, "#inv-foot", "Real attack")
    shown.wait_for_selector(".toast-undo")
    assert "teaches the Live model nothing" in shown.inner_text(".toast-box")
    assert server.ask(f"/api/alerts/{alert}")["verdict"] == "real"
    shown = page.visit(f"/live?tab=alerts&status=CLOSED&alert={alert}", "#inv-foot button")
    assert shown.inner_text("#inv-time .tag-real") == "real attack"
    taken_back(server, alert)


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_too_wide_asks_first(
    server: Server, open_page: Open, theme: str, width: int
) -> None:
    watched = open_page(server, width, theme)
    alert, shown = dialog(server, watched, "VERTICAL_SCAN")
    foretold = server.ask(f"/api/alerts/{alert}/false_positive/preview", {})
    assert foretold["too_wide"] is True
    shown.keyboard.press("f")
    shown.wait_for_selector(PANEL)
    assert foretold["attacks"][0]["title"] in shown.inner_text("#inv-panel .warn")
    sure = shown.locator("#inv-panel input[type=checkbox]")
    assert not sure.is_checked()
    assert shown.locator("#inv-panel").bounding_box()["height"] <= HEIGHTS[width] * 0.7 + 1
    assert shown.locator("#inv-panel button").last.is_visible()
    assert overflow_px(watched) <= 0
    assert violations(watched) == []
    for confirmed in (False, True):
        if confirmed:
            alert, shown = dialog(server, watched, "VERTICAL_SCAN")
            shown.keyboard.press("f")
            shown.wait_for_selector(PANEL)
            shown.locator("#inv-panel label.check").click()
        press(shown, "#inv-panel", "Mark, do not learn")
        shown.wait_for_selector(".toast-undo")
        hiding = next(
            one
            for one in server.ask("/api/suppressions")["suppressions"]
            if one["incident"] == alert
        )
        assert hiding["tight"] is not confirmed
        shown.keyboard.press("u")
        shown.wait_for_selector(f"#alert-rows tr[data-id='{alert}']")
        assert server.ask("/api/suppressions")["suppressions"] == []
    assert watched.messages == []

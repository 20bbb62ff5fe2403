"""From the sentence on the overview to a decision and back again, with keys alone."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.conftest import Watched
from tests.server import Server

pytestmark = pytest.mark.browser

ORDER = ["CRITICAL", "HIGH", "MEDIUM", "LOW"]


def opened(server: Server) -> list[dict[str, Any]]:
    """Open incidents as the page orders them: worst first, then last seen."""
    found: list[dict[str, Any]] = server.ask("/alerts_data?status=OPEN&limit=1000")
    return sorted(found, key=lambda one: (ORDER.index(one["severity"]), -one["last_time"]))


def asked(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def row_ids(page: Any, body: str = "#alert-rows") -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        f"{body} tr[data-id]", "rows => rows.map(row => row.dataset.id)"
    )
    return found


def test_worst_incident_by_keys_marked_and_undone(server: Server, page: Watched) -> None:
    before = opened(server)
    shown = page.visit("/", "#incidents .incident")
    shown.keyboard.press("i")
    shown.wait_for_selector("#inv-foot button")
    alert = asked(shown)["alert"][0]
    assert ORDER.index(before[0]["severity"]) == ORDER.index(
        next(one for one in before if one["id"] == alert)["severity"]
    )
    why = shown.inner_text("#inv-left .why")
    assert len(why) > 10
    assert "**" not in why
    assert shown.evaluate("document.activeElement.id") == "inv-title"

    foretold = server.ask(f"/api/alerts/{alert}/false_positive/preview", {})
    shown.keyboard.press("f")
    shown.wait_for_selector("#inv-panel:not([hidden]) li")
    for sentence in foretold["sentences"]:
        assert sentence.replace("**", "") in shown.inner_text("#inv-panel")
    focused = shown.evaluate("document.activeElement.textContent")
    careful = foretold["warning"] or not foretold["learn_default"]
    assert focused == ("Mark, do not learn" if careful else "Mark and learn")
    shown.keyboard.press("Enter")
    shown.wait_for_selector(".toast-undo")
    shown.wait_for_selector("#investigate:not([open])", state="attached")
    after = {one["id"] for one in opened(server)}
    assert {one["id"] for one in before} - after == set(foretold["closes"])
    shown.wait_for_function(
        "gone => !gone.some(id => document.querySelector(`#alert-rows tr[data-id='${id}']`))",
        arg=foretold["closes"],
    )

    shown.keyboard.press("u")
    shown.wait_for_selector(f"#alert-rows tr[data-id='{alert}']")
    assert {one["id"] for one in opened(server)} == {one["id"] for one in before}
    assert page.messages == []


def test_rows_by_keys_escape_gives_the_focus_back(server: Server, page: Watched) -> None:
    shown = page.visit("/live?tab=alerts", "#alert-rows tr[data-id]")
    order = row_ids(shown)
    assert order == [one["id"] for one in opened(server)]
    shown.keyboard.press("j")
    shown.keyboard.press("j")
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#investigate[open]")
    assert asked(shown)["alert"] == [order[1]]
    shown.keyboard.press("j")
    shown.wait_for_function("id => location.search.includes(id)", arg=order[2])
    shown.keyboard.press("Escape")
    shown.wait_for_selector("#investigate:not([open])", state="attached")
    shown.wait_for_function("id => document.activeElement.dataset.id === id", arg=order[2])
    assert "alert" not in asked(shown)


def test_close_and_reopen(server: Server, page: Watched) -> None:
    shown = page.visit("/live?tab=alerts", "#alert-rows tr[data-id]")
    target = row_ids(shown)[-1]
    shown.locator(f"tr[data-id='{target}'] summary").click()
    shown.locator(f"tr[data-id='{target}'] .menu-item", has_text="expected").click()
    shown.wait_for_selector(f"tr[data-id='{target}']", state="detached")
    assert server.ask(f"/api/alerts/{target}")["verdict"] == "expected"
    shown.click("[data-status=CLOSED]")
    shown.wait_for_selector(f"tr[data-id='{target}']")
    assert asked(shown)["status"] == ["CLOSED"]
    shown.locator(f"tr[data-id='{target}'] [data-do=undo]").click()
    shown.wait_for_selector(f"tr[data-id='{target}']", state="detached")
    assert server.ask(f"/api/alerts/{target}")["status"] == "OPEN"
    shown.click("[data-status=OPEN]")
    shown.wait_for_selector(f"tr[data-id='{target}']")


def test_an_incident_unfolds_to_its_flows(server: Server, page: Watched) -> None:
    details = [server.ask(f"/api/alerts/{one['id']}") for one in opened(server)]
    some = next(one for one in details if one["flow_records"])
    shown = page.visit("/live?tab=alerts", f"tr[data-id='{some['id']}']")
    shown.click(f"tr[data-id='{some['id']}'] .unfold")
    shown.wait_for_selector("tr.unfolded .sub-table tbody tr")
    more = shown.locator("tr.unfolded .sub-foot button")
    if more.count():
        more.click()
    assert shown.locator("tr.unfolded .sub-table tbody tr").count() == len(some["flow_records"])


def test_selection_is_decided_together(server: Server, page: Watched) -> None:
    before = {one["id"] for one in opened(server)}
    shown = page.visit("/live?tab=alerts", "#alert-rows tr[data-id]")
    for key in ("j", "x", "j", "x"):
        shown.keyboard.press(key)
    assert "2 selected" in shown.inner_text("#selection")
    shown.keyboard.press("c")
    shown.wait_for_selector(".toast-undo")
    assert len({one["id"] for one in opened(server)}) == len(before) - 2
    shown.keyboard.press("u")
    shown.wait_for_function(
        "count => document.querySelectorAll('#alert-rows tr[data-id]').length === count",
        arg=len(before),
    )
    assert {one["id"] for one in opened(server)} == before

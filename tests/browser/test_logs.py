"""The realtime logs: filters in the address, a list that holds still, single flows."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Watched
from tests.browser.test_triage import asked, row_ids
from tests.server import Server

pytestmark = pytest.mark.browser

READY = "#flow-rows tr[data-id]"


def test_filters_stand_in_the_address_and_back_works(server: Server, page: Watched) -> None:
    source = server.ask("/captured_data?decision=ALERT&limit=1")[0]["src_ip"]
    shown = page.visit("/live?tab=logs", READY)
    everything = row_ids(shown, "#flow-rows")
    shown.select_option("#log-filters [name=decision]", "ALERT")
    shown.fill("#log-filters [name=src]", source)
    shown.click("text=Apply Filters")
    shown.wait_for_selector(".chip >> nth=1")
    assert asked(shown) == {"tab": ["logs"], "decision": ["ALERT"], "src": [source]}
    wanted = server.ask(f"/captured_data?decision=ALERT&src={source}&limit=300")
    shown.wait_for_function(
        "count => document.querySelectorAll('#flow-rows tr[data-id]').length === count",
        arg=len(wanted),
    )
    assert set(row_ids(shown, "#flow-rows")) == {one["id"] for one in wanted}

    shown.reload()
    shown.wait_for_selector(READY)
    assert shown.input_value("#log-filters [name=src]") == source
    shown.wait_for_function(
        "count => document.querySelectorAll('#flow-rows tr[data-id]').length === count",
        arg=len(wanted),
    )

    shown.click("[data-action=clear-filters]")
    shown.wait_for_selector("#log-chips", state="hidden")
    assert asked(shown) == {"tab": ["logs"]}
    shown.wait_for_function("id => document.querySelector(`[data-id='${id}']`)", arg=everything[0])
    shown.go_back()
    shown.wait_for_selector(".chip >> nth=1")
    assert asked(shown)["src"] == [source]
    assert page.messages == []


def test_no_match_names_the_nearest_filter(page: Watched) -> None:
    shown = page.visit("/live?tab=logs&decision=ALERT&dst=no-such-host", "#flows-empty h3")
    assert "Decision ALERT, destination no-such-host" in shown.inner_text("#flows-empty h3")
    shown.click("#flows-empty >> text=Use “Decision ALERT”")
    shown.wait_for_selector(READY)
    assert asked(shown) == {"tab": ["logs"], "decision": ["ALERT"]}


def test_typing_filters_and_escape_clears(page: Watched) -> None:
    shown = page.visit("/live?tab=logs", READY)
    shown.keyboard.press("/")
    shown.keyboard.type("udp")
    shown.wait_for_function("() => location.search.includes('q=udp')")
    shown.wait_for_function(
        "() => [...document.querySelectorAll('#flow-rows .t-proto')]"
        ".every(cell => /udp/i.test(cell.closest('tr').textContent))"
    )
    shown.keyboard.press("Escape")
    shown.wait_for_function("() => !location.search.includes('q=')")


def test_a_flow_opens_and_leaves_by_back(server: Server, page: Watched) -> None:
    shown = page.visit("/live?tab=logs", READY)
    shown.keyboard.press("j")
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#investigate[open] .facts")
    flow = asked(shown)["flow"][0]
    record = next(one for one in server.ask("/captured_data") if one["id"] == flow)
    assert shown.inner_text("#inv-title") == "Flow"
    assert record["src_ip"] in shown.inner_text("#inv-left")
    shown.go_back()
    shown.wait_for_selector("#investigate:not([open])", state="attached")
    assert "flow" not in asked(shown)


def test_at_most_300_rows(server: Server, page: Watched) -> None:
    shown = page.visit("/live?tab=logs&decision=ALLOW", READY)
    count = shown.locator("#flow-rows tr[data-id]").count()
    assert shown.evaluate("document.querySelectorAll('*').length") <= 6_000
    assert count == min(300, len(server.ask("/captured_data?decision=ALLOW&limit=2000")))

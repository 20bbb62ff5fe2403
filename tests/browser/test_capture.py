"""The capture's menu on the live page: every interface, its losses and offloads, and the choice."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import Open
from tests.browser.test_pages import overflow_px, violations
from tests.server import Server, running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("ip"),
        reason="capturing needs root on Linux",
    ),
]


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("watching")
    with running("serve", "--interface", "lo", "--data-dir", str(folder)) as started:
        started.wait_for("/api/live_status", lambda found: found["capture"]["state"] == "capturing")
        yield started


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_menu_fits_and_tells_each_interface(
    watching: Server, open_page: Open, theme: str, width: int
) -> None:
    watched = open_page(watching, width, theme)
    page = watched.visit("/live", "#capture-menu")
    page.click("#capture-menu summary")
    page.wait_for_selector(".capture-choice input")
    words = page.inner_text("#capture-body")
    assert "Capturing on This machine itself (lo)." in words
    assert "Still listening which devices there are." in words
    assert "by the kernel, 0 by the interface, 0 in the queue" in words
    assert page.locator(".capture-part").count() == 1
    checked = page.locator(".capture-choice input:checked")
    assert checked.evaluate_all("boxes => boxes.map(box => box.value)") == ["lo"]
    assert overflow_px(watched) <= 0
    box = page.locator("#capture-body").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert violations(watched) == []
    assert watched.messages == []


def test_several_are_chosen_and_captured(watching: Server, open_page: Open) -> None:
    others = [one for one in watching.ask("/api/interfaces") if one["up"] and one["name"] != "lo"]
    if not others:
        pytest.skip("this machine has one interface")
    name = others[0]["name"]
    page = open_page(watching).visit("/live", "#capture-menu")
    page.click("#capture-menu summary")
    page.check(f".capture-choice input[value='{name}']")
    page.click("#capture-body .btn-primary")
    page.wait_for_selector(".toast-box")
    found = watching.wait_for(
        "/api/live_status", lambda found: len(found["capture"]["interfaces"]) == 2
    )
    assert {part["name"] for part in found["capture"]["interfaces"]} == {"lo", name}
    page.reload()
    page.click("#capture-menu summary")
    page.wait_for_selector(".capture-part >> nth=1")
    command = found["capture"]["interfaces"][-1]["offloads"]["command"]
    if command:
        assert page.inner_text(".capture-part .command") == command
        assert page.locator(".capture-part button").inner_text() == "Copy command"

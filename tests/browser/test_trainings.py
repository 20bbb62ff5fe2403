"""The trainings of the live model on the live page: figures, the one that serves, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from ml.baseline import Baseline
from tests.browser.conftest import HEIGHTS, Watched
from tests.server import DEMO, Server, running
from tests.test_candidate import SCAN, normal, of_attack

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The program with a live model of two versions, of which the second may not serve."""
    folder: Path = tmp_path_factory.mktemp("learned")
    baseline = Baseline(folder / "models" / "live", background=False)
    scan = np.repeat(of_attack(SCAN), 4, axis=0)
    for now_s, values in enumerate((normal(700, 1), np.concatenate([normal(620, 2), scan]))):
        held = np.arange(len(values)) % 5 == 0
        baseline.offer(values, ["10.0.0.5"] * len(values), held, 1e9 + 1000.0 * now_s)
    baseline.close()
    assert baseline.status()["history"][-1]["refused"] == "canary"
    with running("replay", str(DEMO), "--speed", "max", "--data-dir", str(folder)) as started:
        started.wait_for("/api/live_status", lambda found: found["baseline"]["version"] == 1)
        yield started


@pytest.mark.parametrize("width", [1440, 390])
def test_every_training_is_told(learned: Server, browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": HEIGHTS[width]})
    watched = Watched(page, learned.address)
    shown = watched.visit("/live?tab=logs", "#trainings:not([hidden])")
    assert "Version 2 does not serve: it no longer sees" in shown.inner_text("#trainings-news")
    assert shown.inner_text("#trainings-serving") == "version 1 serves"
    assert shown.is_hidden("#trainings-table")
    shown.click("#trainings summary")
    rows = shown.locator("#trainings-table tbody tr")
    assert rows.count() == 2
    second, first = (rows.nth(i).inner_text().split("\t") for i in range(2))
    assert (second[0], second[-1]) == ("v2", "does not serve")
    assert (first[0], first[2], first[-1]) == ("v1", "560 + 140", "serves")
    assert second[2].startswith("1,1")
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    assert watched.messages == []
    assert watched.foreign == []
    page.close()

"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Machines that run the checks are shared and slow at times, so hypothesis keeps no time; where
# many depend on the result (CI), a failure must come from the change and not from the dice.
hypothesis.settings.register_profile(
    "checks", deadline=None, derandomize=os.environ.get("CI") == "true"
)
hypothesis.settings.load_profile("checks")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: longer than a minute; only with run.py test --soak")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of captures and flow tables beside the repository; skips where it is not."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("there is no folder shared/data beside the repository")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium for browser tests; skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("Chromium is not installed")

"""The documents say what is true: settings, commands, endpoints."""

from __future__ import annotations

import re
from pathlib import Path

import settings
from commands import _parser

ROOT = Path(__file__).resolve().parents[1]


def test_every_setting_is_documented_as_it_is() -> None:
    assert settings.markdown() in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    groups = next(a for a in _parser()._actions if hasattr(a, "choices") and a.choices)
    for command in groups.choices or ():
        assert re.search(rf"^\| `{command}\b", readme, re.MULTILINE), command


def test_links_and_pictures_of_the_documents_exist() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"

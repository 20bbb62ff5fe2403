"""The documents say what is true: settings, commands, endpoints."""

from __future__ import annotations

import doctest
import importlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

import settings
from commands import _parser
from patterns import OUTSIDE, RULES, Rule
from routes.web import ENDPOINTS

ROOT = Path(__file__).resolve().parents[1]


def test_every_setting_is_documented_as_it_is() -> None:
    assert settings.markdown() in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    groups = next(a for a in _parser()._actions if hasattr(a, "choices") and a.choices)
    for command in groups.choices or ():
        assert re.search(rf"^\| `{command}\b", readme, re.MULTILINE), command


def test_every_pattern_is_documented_with_its_line() -> None:
    text = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert _pattern_row(rule) in text, f"docs/detection.md lacks: {_pattern_row(rule)}"
    for rule in OUTSIDE.values():
        row = _pattern_row(replace(rule, statistic=f"{rule.statistic}, outside"))
        assert row in text, f"docs/detection.md lacks: {row}"


def _pattern_row(rule: Rule) -> str:
    besides = "–"
    if rule.pattern == "SRC_SCAN" and rule.share:
        besides = f"at least {rule.share:.0%} of what was tried failed"
    elif rule.pattern == "BURST" and rule.share < 1:
        besides = f"at most {rule.share:.0%} are answered"
    return (
        f"| {rule.subpattern} | {rule.statistic} | {rule.window_s} s | {besides} | "
        f"**{rule.line:g}** | {rule.benign:g} | {rule.benign_in} |"
    )


def test_every_endpoint_is_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for one in ENDPOINTS:
        row = f"| {one.method} | `{_path(one.rule)}` | {one.summary} |"
        assert row in text, f"docs/api.md lacks: {row}"


def _path(rule: str) -> str:
    """As people write it: `/a/<any(b,c):d>` is `/a/<b, c>`."""
    return re.sub(r"<any\(([^)]*)\):\w+>", lambda found: f"<{found[1].replace(',', ', ')}>", rule)


def test_documents_named_in_the_code_exist() -> None:
    for source in ROOT.rglob("*.py"):
        if source.relative_to(ROOT).parts[0] in (".venv", "build", ".cache"):
            continue
        for name in re.findall(r"docs/[a-z_]+\.md", source.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{source.relative_to(ROOT)} names {name}"


WITH_EXAMPLES = sorted(
    source.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for source in [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]
    if source.parent.name != "tests" and ">>> " in source.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_hold(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_links_and_pictures_of_the_documents_exist() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"

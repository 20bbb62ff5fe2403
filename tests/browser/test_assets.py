"""What the pages are made of: small enough, unchanged third-party files, nothing inline."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "static"
MANIFESTS = [STATIC / "vendor" / "manifest.json", Path(__file__).parent / "vendor/manifest.json"]


def gzipped(*paths: Path) -> int:
    """Bytes of the files, each compressed alone as a server sends it."""
    return sum(len(gzip.compress(path.read_bytes(), 9)) for path in paths)


def test_budget() -> None:
    """The budget of the pages' design, in kB compressed; fonts are compressed already."""
    styles = list(STATIC.glob("css/*.css"))
    scripts = list(STATIC.glob("js/*.js"))
    pictures = [*STATIC.glob("*.svg"), *STATIC.glob("vendor/**/*.svg")]
    fonts = sum(path.stat().st_size for path in STATIC.glob("vendor/**/*.woff2"))
    bootstrap = gzipped(*STATIC.glob("vendor/**/*.css"))
    assert styles
    assert scripts
    assert pictures
    assert gzipped(*styles) <= 12_000
    assert gzipped(*pictures) <= 8_000
    total = fonts + bootstrap + gzipped(*styles, *scripts, *pictures)
    assert total <= 200_000


@pytest.mark.parametrize("manifest", MANIFESTS, ids=["static", "tests"])
def test_third_party_files_are_the_ones_listed(manifest: Path) -> None:
    listed: dict[str, str] = {}
    for package in json.loads(manifest.read_text()):
        assert package["version"]
        assert any("LICENSE" in name for name in package["files"]), package["name"]
        listed |= package["files"]
    there = {
        str(path.relative_to(manifest.parent))
        for path in manifest.parent.rglob("*")
        if path.is_file() and path != manifest
    }
    assert there == set(listed)
    for name, expected in listed.items():
        found = hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest()
        assert found == expected, name


def test_templates_hold_nothing_the_policy_forbids() -> None:
    """No inline script, style or handler, no markup that escapes the escaping."""
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text()
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|\|\s*safe", text), path.name
        for tag in re.findall(r"<script[^>]*>", text):
            assert "src=" in tag or 'type="application/json"' in tag, path.name


def test_scripts_build_elements_and_never_markup() -> None:
    for path in STATIC.glob("js/*.js"):
        text = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, f"{path.name}: {word}"


def test_modules_import_each_other_by_one_address() -> None:
    """A module loaded under two addresses would run twice."""
    entries = {
        found
        for path in (ROOT / "templates").rglob("*.html")
        for found in re.findall(
            r'type="module" src="{{ asset\(\'js/([a-z]+\.js)\'\)', path.read_text()
        )
    }
    assert entries
    for path in STATIC.glob("js/*.js"):
        for imported in re.findall(r'from "([^"]+)"', path.read_text()):
            assert re.fullmatch(r"\./[a-z]+\.js", imported), f"{path.name}: {imported}"
            assert (path.parent / imported).is_file(), f"{path.name}: {imported}"
            assert Path(imported).name not in entries, f"{path.name} imports the entry {imported}"

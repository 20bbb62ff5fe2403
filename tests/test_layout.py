"""The house keeps its order: who may import whom, and what every module has."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from compiled import KERNEL_SOURCES

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {"tests", "data", "build", "node_modules"}
LONGEST = 600  # lines; 400 is the aim


class Room(NamedTuple):
    """Modules that belong together (a package stands for all in it) and the rooms they may use."""

    modules: str
    may_import: str = ""


EVERYONES = "batches compiled errors version addresses units words decision_words"
"""Types, errors and words: every room may import these; they import only each other."""

# The table of docs/architecture.md. A room may import itself and EVERYONES besides what it names.
ROOMS = {
    "settings": Room("settings setting_kinds"),
    "store": Room("store store_files"),
    "capture": Room("capture"),
    "packets": Room("packets"),
    "flow_tracker": Room("flow_tracker flow_row flow_table"),
    "features": Room("features"),
    "ml": Room("ml", "features"),
    "predict": Room("predict", "ml features settings"),
    "patterns": Room("patterns"),
    "waf_rules": Room("waf_rules"),
    "alerts": Room("alerts", "store waf_rules"),
    "flow_log": Room("flow_log", "features ml store"),
    "engine": Room(
        "engine analysis replay summary traffic visibility resource_usage",
        "settings store capture packets flow_tracker ml predict patterns alerts flow_log",
    ),
    "routes": Room("routes", "engine"),
    "app": Room(
        "app commands",
        "settings store capture packets flow_tracker features ml engine routes training benchmarks",
    ),
    "training": Room(
        "training", "settings store capture packets flow_tracker features ml predict engine"
    ),
    "benchmarks": Room(
        "benchmarks", "capture packets flow_tracker features ml predict settings engine"
    ),
    "run": Room("run"),
}


def sources() -> dict[str, Path]:
    """Module name -> file of everything that is ours and no test."""
    files = list(ROOT.glob("*.py"))
    for folder in ROOT.iterdir():
        if folder.is_dir() and folder.name not in NOT_OURS and not folder.name.startswith("."):
            files += folder.rglob("*.py")
    return {name_of(path): path for path in sorted(files)}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sources()
each_module = pytest.mark.parametrize("module", SOURCES)


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """The modules of ours that this one imports, anywhere in it."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            source = node.module or ""
            names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in SOURCES and name != module)


def room_of(module: str) -> str:
    """The room a module belongs to; `everyone` for what all may import."""
    top = module.partition(".")[0]
    if top in EVERYONES.split():
        return "everyone"
    rooms = [name for name, room in ROOMS.items() if top in room.modules.split()]
    assert len(rooms) == 1, f"{module} belongs to one room in ROOMS, not to {rooms or 'none'}"
    return rooms[0]


@each_module
def test_imports_keep_the_order(module: str) -> None:
    room = room_of(module)
    allowed = {room, "everyone"}
    if room != "everyone":
        allowed |= set(ROOMS[room].may_import.split())
    wrong = [name for name in imports(module) if room_of(name) not in allowed]
    assert not wrong, f"{module} ({room}) may not import {', '.join(wrong)}"


def test_rooms_have_an_order_at_all() -> None:
    left = {name: set(room.may_import.split()) for name, room in ROOMS.items()}
    assert set().union(*left.values()) <= set(left), "a room that does not exist is named"
    while left:
        free = {name for name, needs in left.items() if not needs & set(left)}
        assert free, f"these rooms import each other in a circle: {', '.join(sorted(left))}"
        left = {name: needs for name, needs in left.items() if name not in free}


def test_the_table_of_the_documentation_is_this_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    written: dict[frozenset[str], set[str]] = {}
    for line in re.findall(r"^\| `.*\|$", text, re.MULTILINE):
        modules, _, may_use = (cell.strip() for cell in line.strip("|").split("|"))
        names = re.findall(r"`([a-z_]+)(?:\.py|/)`", modules)
        written[frozenset(names)] = set(may_use.replace("–", "").replace(",", " ").split())
    table = {frozenset(r.modules.split()): set(r.may_import.split()) for r in ROOMS.values()}
    assert written == {**table, frozenset(EVERYONES.split()): {"each", "other"}}


def test_pages_do_not_import_each_other() -> None:
    for module in SOURCES:
        if module.startswith("routes.") and module != "routes.web":
            other = [n for n in imports(module) if n.startswith("routes.") and n != "routes.web"]
            assert not other, f"{module} imports {', '.join(other)}"


def test_nothing_is_imported_by_run() -> None:
    assert list(imports("run")) == []


@each_module
def test_module_says_what_it_is_and_what_it_offers(module: str) -> None:
    tree = tree_of(module)
    assert ast.get_docstring(tree), f"{module} has no docstring"
    offered: list[str] | None = None
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            defined |= names
            if names == {"__all__"} and node.value is not None:
                offered = list(ast.literal_eval(node.value))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(a.asname or a.name).partition(".")[0] for a in node.names}
    script = any(isinstance(n, ast.If) and "__main__" in ast.unparse(n.test) for n in tree.body)
    if len(tree.body) > 1 and not script:
        assert offered is not None, f"{module} has no __all__"
        missing = [name for name in offered if name not in defined]
        assert not missing, f"__all__ of {module} names {', '.join(missing)}"


@each_module
def test_module_imports_no_wildcard(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"{module}:{node.lineno}"


@each_module
def test_module_is_not_too_long(module: str) -> None:
    lines = SOURCES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{module} has {lines} lines; split it (aim: 400)"


def test_every_compiled_source_names_the_cache() -> None:
    """A file that is not listed could be edited while its callers keep the old machine code."""
    using = {
        SOURCES[module].relative_to(ROOT).as_posix()
        for module in SOURCES
        if "@compiled" in SOURCES[module].read_text(encoding="utf-8")
    }
    assert using | {"compiled.py"} <= set(KERNEL_SOURCES)

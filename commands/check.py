"""`check`: the doctor; one line a question, with the remedy where the answer is no."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from capture import capture_remedy, interface_to_watch, interfaces, read_offloads
from errors import AppError
from settings import ROOT, Settings

__all__ = ["add_commands"]

_PACKAGES: Final = (
    "flask",
    "waitress",
    "scapy",
    "numpy",
    "numba",
    "scikit-learn",
    "pandas",
    "joblib",
    "psutil",
    "pydantic",
    "pyarrow",
)
_FREE_BYTES: Final = 500_000_000
_EARLIEST: Final = 1_700_000_000
"""A clock before this (2023-11-14) has never been set."""

Answer = tuple[bool, str]


def add_commands(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("check", parents=parents, help="what works here and what does not")
    parser.add_argument("--interface", metavar="IF", help="the interface to watch, or several: a,b")
    parser.add_argument("--port", metavar="P", help="port of the pages (default 5000)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings: Settings) -> int:
    questions: tuple[tuple[str, Callable[[Settings], Answer]], ...] = (
        ("Python", _python),
        ("Packages", _packages),
        ("Interfaces", _interfaces),
        ("Capture right", _capture),
        ("Offloads", _offloads),
        ("Disk", _disk),
        ("Clock", _clock),
        ("Models", _models),
        ("Data directory", _data_directory),
        ("Port", _port),
    )
    failed = 0
    for name, question in questions:
        try:
            good, words = question(settings)
        except (AppError, OSError) as error:
            good, words = False, str(error)
        failed += not good
        print(f"{'✓' if good else '✗'} {name}: {words}")  # noqa: T201
    return 1 if failed else 0


def _python(settings: Settings) -> Answer:
    return sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.platform()}"


def _packages(settings: Settings) -> Answer:
    missing = []
    for name in _PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return False, f"{', '.join(missing)} missing; run `pip install -r requirements.txt`."
    return True, f"all {len(_PACKAGES)} are there."


def _interfaces(settings: Settings) -> Answer:
    found = interfaces()
    listed = ", ".join(
        f"{one.name} ({', '.join(one.addresses) or 'no address'}, "
        f"{one.packets:,} packets/s{', default' if one.is_default else ''})"
        for one in found
        if one.up
    )
    return bool(listed), listed or "none is up; connect one."


def _capture(settings: Settings) -> Answer:
    chosen = _chosen(settings)
    if not chosen:
        return False, "no interface is up; connect one, or name it with --interface IF."
    unknown = [name for name in chosen if name not in {one.name for one in interfaces()}]
    if unknown:
        return False, f"there is no interface named {', '.join(unknown)}; see the list above."
    remedy = capture_remedy(", ".join(chosen))
    return remedy is None, remedy or f"{', '.join(chosen)} may be captured."


def _offloads(settings: Settings) -> Answer:
    """No fault: most computers have some, and only the owner can weigh them."""
    told = [read_offloads(name).sentence for name in _chosen(settings)]
    return True, " ".join(filter(None, told)) or "none that changes packets is on."


def _chosen(settings: Settings) -> tuple[str, ...]:
    return settings.interfaces or tuple(filter(None, [interface_to_watch()]))


def _disk(settings: Settings) -> Answer:
    folder = settings.path("DATA_DIR")
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    words = f"{free / 1e9:,.1f} GB free"
    return free >= _FREE_BYTES, words + (
        "." if free >= _FREE_BYTES else "; half a gigabyte should be, for a day of flows."
    )


def _clock(settings: Settings) -> Answer:
    if time.time() < _EARLIEST:
        return False, "this computer's clock has never been set; set the date."
    return True, time.strftime("%Y-%m-%d %H:%M:%S %Z")


def _models(settings: Settings) -> Answer:
    from ml.registry import load, reduced_folder

    words = []
    for name, folder in (
        ("home", settings.path("HOME_MODEL_PATH")),
        ("industrial", settings.path("INDUSTRIAL_MODEL_PATH")),
        ("reduced", reduced_folder(settings.path("DATA_DIR"))),
    ):
        model = load(folder)
        words.append(f"{name} with {len(model.features)} features")
    return True, f"{', '.join(words)}; manifests hold."


def _data_directory(settings: Settings) -> Answer:
    folder = settings.path("DATA_DIR")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    probe = folder / f".check-{os.getpid()}"
    probe.write_bytes(b"")
    probe.unlink()
    inside = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    return True, f"{inside} can be written."


def _port(settings: Settings) -> Answer:
    with socket.socket(socket.AF_INET6 if ":" in settings.HOST else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.HOST, settings.PORT))
        except OSError as error:
            return False, (
                f"{settings.HOST}:{settings.PORT} is taken ({error.strerror}); "
                "give another with --port P."
            )
    return True, f"{settings.HOST}:{settings.PORT} is free."

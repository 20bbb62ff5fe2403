"""Capture files named on a command line, looked at before the long work begins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from capture import read_capture
from errors import InputError

__all__ = ["refuse_unreadable"]


def refuse_unreadable(paths: Iterable[Path]) -> None:
    """Raise InputError, in one sentence, for the first that is missing, empty or no capture."""
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path} is a folder: name the capture files in it.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no file: a capture is read twice, so save it as one.")
        if not path.is_file():
            raise InputError(f"There is no capture file {path}.")
        read_capture(path).close()

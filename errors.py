"""Every error of ours that a person may read: what went wrong, where, what to do about it.

AppError
├── SettingError        a setting's name or value is wrong            (exit 2)
├── UsageError          a command was called wrongly                  (exit 2)
├── InputError          a file given to us can't be read              (exit 3)
├── CaptureError        the interface can't be captured from
├── ModelError          a model is missing, damaged or does not fit
└── StoreError          state can't be read or written
    └── StoreLockedError    another instance owns the data directory

The message is one sentence (or a few) for people; a command prints it on standard error and ends
with `exit_code`. Anything else that escapes is a fault of the program and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AppError",
    "CaptureError",
    "InputError",
    "ModelError",
    "SettingError",
    "StoreError",
    "StoreLockedError",
    "UsageError",
]


class AppError(Exception):
    """What happened, where, and what to do; `exit_code` is what a command ends with."""

    exit_code: ClassVar[int] = 1


class SettingError(AppError):
    """A setting that does not exist or a value it does not allow."""

    exit_code = 2


class UsageError(AppError):
    """A command called with arguments that make no sense together."""

    exit_code = 2


class InputError(AppError):
    """A capture, table or upload from which nothing could be read."""

    exit_code = 3


class CaptureError(AppError):
    """The capture can't be opened or went away.

    remedy: the exact command that gives what is missing (without a prompt sign), None if there
    is no single one.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class ModelError(AppError):
    """A model that can't be loaded, verified or applied."""


class StoreError(AppError):
    """State that could not be read, or could not be brought to the disk in time."""


class StoreLockedError(StoreError):
    """The data directory belongs to a running instance; the message names its pid and address."""

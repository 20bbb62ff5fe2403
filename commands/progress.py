"""How far long work is: one line rewritten in place on a terminal, a line every 10 s elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Final

from units import amount, duration

__all__ = ["Progress"]

_TERMINAL_S: Final = 0.2
_ELSEWHERE_S: Final = 10.0


class Progress:
    """Told on standard error while the block runs; the terminal's line is cleared at its end.

    noun: what is counted ("packets", "rows").
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._began_s = self._told_s = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._shown = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.clear()

    def update(self, done: int, fraction: float | None) -> None:
        """Tell, where it is time to: `done` of the noun, `fraction` 0..1 of all (None: unknown)."""
        now_s = time.monotonic()
        if now_s - self._told_s < (_TERMINAL_S if self._on_terminal else _ELSEWHERE_S):
            return
        self._told_s = now_s
        spent_s = now_s - self._began_s
        parts = [f"{done:,} {self._noun}", amount(done / spent_s, f"{self._noun}/s")]
        if fraction:
            parts.insert(0, f"{fraction:.0%}")
            parts.append(f"{duration(spent_s * (1 - fraction) / fraction)} left")
        line = ", ".join(parts)
        if self._on_terminal:
            line = line[: shutil.get_terminal_size().columns - 1]
            sys.stderr.write("\r" + line.ljust(self._shown))
            self._shown = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away, before something else is told."""
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            sys.stderr.flush()
            self._shown = 0

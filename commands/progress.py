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

    noun: what is counted ("packets", "rows"). Speed and time left count from the first update
    that has any of it: what comes before is getting ready, and compiling.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._told_s = time.monotonic()
        self._began: tuple[float, int, float | None] | None = None
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
        if done and self._began is None:
            self._began = now_s, done, fraction
        if now_s - self._told_s < (_TERMINAL_S if self._on_terminal else _ELSEWHERE_S):
            return
        self._told_s = now_s
        line = self._line(now_s, done, fraction)
        if self._on_terminal:
            line = line[: shutil.get_terminal_size().columns - 1]
            sys.stderr.write("\r" + line.ljust(self._shown))
            self._shown = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def _line(self, now_s: float, done: int, fraction: float | None) -> str:
        if self._began is None:
            return "getting ready"
        began_s, first, first_fraction = self._began
        spent_s = now_s - began_s
        parts = [f"{done:,} {self._noun}"]
        if done > first:
            parts.append(amount((done - first) / spent_s, f"{self._noun}/s"))
        if fraction is not None:
            parts.insert(0, f"{fraction:.0%}")
            if first_fraction is not None and fraction > first_fraction:
                left_s = spent_s * (1 - fraction) / (fraction - first_fraction)
                parts.append(f"{duration(left_s)} left")
        return ", ".join(parts)

    def clear(self) -> None:
        """Take the line away, before something else is told."""
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            sys.stderr.flush()
            self._shown = 0

"""The flows the live model learns from: newest in memory, all of them in a CSV one can open."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from numpy.typing import NDArray

from features import LIVE
from ml.registry import write_atomically

__all__ = ["FIT", "HELD", "NAME", "Buffer", "Row"]

log = logging.getLogger("secureflux.baseline")

Values = NDArray[np.float64]

NAME: Final = "live_baseline_buffer.csv"
FIT: Final = "fit"
HELD: Final = "held out"
RETRY_S: Final = 5.0
"""Between attempts on a disk that takes nothing."""
_HEADER: Final = ("time", "part", "source", "confirmed", "flow", *LIVE)


@dataclass(frozen=True, slots=True)
class Row:
    """A flow to learn from.

    time_s: epoch seconds of packet time. part: FIT or HELD. source: the initiator's address, ""
    where nobody may take it out again by address. token: of a person's confirmation, else "".
    key: the confirmed flow's id, else "". values: (len(LIVE),).
    """

    time_s: float
    part: str
    source: str
    token: str
    key: str
    values: Values

    def line(self) -> str:
        """The CSV line; numbers as repr, so that they come back exactly."""
        texts = (repr(self.time_s), self.part, self.source, self.token, self.key)
        return ",".join((*texts, *map(repr, self.values.tolist()))) + "\n"

    @classmethod
    def parse(cls, cells: list[str]) -> Row:
        """ValueError where the cells are no row."""
        if len(cells) != len(_HEADER) or cells[1] not in (FIT, HELD):
            raise ValueError("no row of the buffer")
        values = np.array([float(cell) for cell in cells[5:]])
        if not np.isfinite(values).all():
            raise ValueError("a value that is no number")
        return cls(float(cells[0]), cells[1], cells[2], cells[3], cells[4], values)


class Buffer:
    """The newest rows of each part; used under its owner's lock.

    folder: where the CSV lies. fitted, held: rows kept of each part; the oldest slide out.
    A row is appended to the file at once; rows that slid out stay there until `rewrite`. Reading
    changes nothing on the disk: another process may own the folder. While the disk takes nothing
    the rows are kept in memory alone, and later the file is written anew.

    trouble: one sentence while the file can't be written, else None.
    """

    def __init__(self, folder: Path, *, fitted: int, held: int) -> None:
        self._path = folder / NAME
        self._limits = {FIT: fitted, HELD: held}
        self._rows: dict[str, deque[tuple[Row, str]]] = {
            part: deque(maxlen=limit) for part, limit in self._limits.items()
        }
        self._file: TextIO | None = None
        self._lines = 0
        # The file is not as it should be; the first change to it mends that.
        self._foreign = False
        self._torn = False
        self._retry_at_s = 0.0  # monotonic
        self.trouble: str | None = None
        self._load()

    def append(self, rows: Iterable[Row]) -> None:
        lines = []
        for row in rows:
            line = row.line()
            self._rows[row.part].append((row, line))
            lines.append(line)
        if not lines:
            return
        if self.trouble and time.monotonic() < self._retry_at_s:
            return
        if self._foreign or self._torn or self._lines > 2 * sum(self._limits.values()):
            self.rewrite()
        else:
            self._try(lambda: self._write(lines))

    def remove(self, unwanted: Callable[[Row], bool]) -> int:
        """Take rows out, also out of the file; how many of them were to be fitted."""
        gone = 0
        before = sum(len(rows) for rows in self._rows.values())
        for part, rows in self._rows.items():
            kept = [entry for entry in rows if not unwanted(entry[0])]
            if part == FIT:
                gone = len(rows) - len(kept)
            if len(kept) < len(rows):
                self._rows[part] = deque(kept, maxlen=self._limits[part])
        if sum(len(rows) for rows in self._rows.values()) < before:
            self.rewrite()
        return gone

    def clear(self) -> None:
        for rows in self._rows.values():
            rows.clear()
        self.rewrite()

    def count(self, part: str, *, after_s: float = -np.inf) -> int:
        """Rows of a part, or of them those newer than a time."""
        if after_s == -np.inf:
            return len(self._rows[part])
        return sum(row.time_s > after_s for row, _ in self._rows[part])

    def values(self, part: str) -> Values:
        """(n, len(LIVE)) float64, oldest first."""
        rows = self._rows[part]
        return np.stack([row.values for row, _ in rows]) if rows else np.empty((0, len(LIVE)))

    def times_s(self, part: str) -> Values:
        """(n,) epoch seconds of packet time of the same rows."""
        return np.array([row.time_s for row, _ in self._rows[part]], np.float64)

    def keys(self) -> set[str]:
        """Ids of the confirmed flows."""
        return {row.key for row, _ in self._rows[FIT] if row.key}

    @property
    def confirmed(self) -> int:
        """How many flows a person confirmed."""
        return sum(bool(row.token) for row, _ in self._rows[FIT])

    @property
    def newest_s(self) -> float:
        """Time of the newest row to fit; 0 where there is none."""
        return max((row.time_s for row, _ in self._rows[FIT]), default=0.0)

    def rewrite(self) -> None:
        """Make the file hold exactly what is kept."""
        self._try(self._rewrite)

    def _try(self, write: Callable[[], None]) -> None:
        """A full disk must not end the watch: it is told, and the next change tries again."""
        try:
            write()
        except OSError as error:
            if not self.trouble:
                log.warning("%s can't be written: %s.", self._path, error.strerror)
            self.trouble = f"{self._path} can't be written: {error.strerror}."
            self._retry_at_s = time.monotonic() + RETRY_S
            self._torn = True
            self.close()
        else:
            self.trouble = None

    def _rewrite(self) -> None:
        self.close()
        if self._foreign:
            aside = self._path.with_name(f"{NAME}.damaged")
            self._path.replace(aside)
            log.warning("%s does not hold these features; it is now %s.", NAME, aside.name)
        self._foreign = False
        lines = [line for rows in self._rows.values() for _, line in rows]
        write_atomically(self._path, (_header() + "".join(lines)).encode())
        self._torn = False
        self._lines = len(lines)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what it still held was told when it was written
                self._file.close()
            self._file = None

    def _write(self, lines: list[str]) -> None:
        if self._file is None:
            fresh = not self._path.exists()
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8", newline="\n")
            if fresh:
                self._file.write(_header())
        self._file.writelines(lines)
        self._file.flush()
        self._lines += len(lines)

    def _load(self) -> None:
        """Read what an earlier run left; torn and strange lines are dropped and told."""
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        if not text:
            self._torn = True
            return
        # A line without its end may have lost digits of its last number.
        whole, _, torn = text.rpartition("\n")
        header, *cells = [line.split(",") for line in whole.split("\n")]
        if tuple(header) != _HEADER:
            self._foreign = True
            return
        unread = int(bool(torn))
        for entry in cells:
            try:
                row = Row.parse(entry)
            except ValueError:
                unread += 1
                continue
            self._rows[row.part].append((row, row.line()))
        self._lines = len(cells)
        if unread:
            # A torn last line must not swallow the first one appended to it.
            self._torn = True
            log.warning("%d lines of %s could not be read and are dropped.", unread, NAME)


def _header() -> str:
    return ",".join(_HEADER) + "\n"

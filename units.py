"""Numbers as people say them: three significant digits, a unit, SI bytes, commas in counts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

__all__ = [
    "amount",
    "clock",
    "count",
    "duration",
    "local_timestamp",
    "number",
    "rarity",
    "size",
]


def number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits, thousands commas, no trailing zeros."""
    if not math.isfinite(value):
        return "no data"
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    text = f"{rounded:,.{max(decimals, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(n: int, noun: str, plural: str | None = None) -> str:
    """ "1 port", "1,240 ports": exact, with the noun in its number."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def size(value_bytes: float) -> str:
    """Bytes in SI units: "1.9 GB", "820 B"."""
    return _scaled(value_bytes, ("B", "kB", "MB", "GB", "TB", "PB"))


def duration(seconds: float) -> str:
    """A time span a person would say: "0.6 ms", "38 s", "14 min", "3 h 12 min", "2 days"."""
    if not math.isfinite(seconds):
        return "no data"
    seconds = abs(seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995e-3:
        return f"{number(seconds * 1e6)} µs"
    if seconds < 0.9995:
        return f"{number(seconds * 1e3)} ms"
    if seconds < 9.95:
        return f"{number(seconds, 2)} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 600 and whole % 60:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return count(round(minutes / 1440), "day")


def amount(value: float, unit: str) -> str:
    """`value` in `unit` for people: bytes and times are scaled, anything else is number + unit."""
    seconds_per = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
    if unit in seconds_per:
        return duration(value * seconds_per[unit])
    if unit in ("B", "bytes"):
        return size(value)
    if unit in ("B/s", "bytes/s"):
        return f"{size(value)}/s"
    if unit == "bit/s":
        return _scaled(value, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"))
    if unit == "yes or no":
        return "yes" if value >= 0.5 else "no"
    if unit in ("", "count", "ratio"):
        return number(value)
    if unit == "packets" and value == 1:
        return "1 packet"
    return f"{number(value)} {unit}"


def _scaled(value: float, units: Sequence[str]) -> str:
    if not math.isfinite(value):
        return "no data"
    step = 0
    # 999.5 would round to 1,000 of the smaller unit.
    while abs(value) >= 999.5 and step < len(units) - 1:
        value /= 1000
        step += 1
    return f"{number(value)} {units[step]}"


def rarity(n: float | None, reference: int, beyond: bool) -> str:
    """How rare a flow is among `reference` normal ones: "common", "1 in 2,300", "rarest of …"."""
    if n is None or reference <= 0:
        return "no data"
    if beyond:
        return f"rarest of {reference:,}"
    if n < 20:
        return "common"
    return f"1 in {number(min(n, reference), 2)}"


def local_timestamp(time_s: float) -> str:
    """Local time as the specification writes it: "2026-01-26 14:30:45"."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def clock(time_s: float, now_s: float) -> str:
    """ "14:32:07", with the day before it where that is not today's."""
    moment = time.localtime(time_s)
    today = time.localtime(now_s)
    if (moment.tm_year, moment.tm_yday) == (today.tm_year, today.tm_yday):
        return time.strftime("%H:%M:%S", moment)
    return time.strftime("%Y-%m-%d %H:%M:%S", moment)

"""Pictures of the report: small SVG files that can be read on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Final

__all__ = ["bars", "curves"]

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 190, 34, 44
_COLOURS: Final = 6
_LETTER: Final = 7.0
"""Width of a letter, roughly."""
_STYLE: Final = """<style>
text{font:12px system-ui,sans-serif;fill:#444}.t{font-size:14px;font-weight:600;fill:#222}
.g{stroke:#ddd}.a{stroke:#888}
.c0{stroke:#0b6e99;fill:#0b6e99}.c1{stroke:#c2410c;fill:#c2410c}.c2{stroke:#5b7f2b;fill:#5b7f2b}
.c3{stroke:#7c4dbc;fill:#7c4dbc}.c4{stroke:#8a6d1c;fill:#8a6d1c}.c5{stroke:#666;fill:#666}
path{fill:none!important;stroke-width:2}rect{stroke:none!important}
@media(prefers-color-scheme:dark){text{fill:#bbb}.t{fill:#eee}.g{stroke:#3a3a3a}.a{stroke:#777}
.c0{stroke:#5ab4dc;fill:#5ab4dc}.c1{stroke:#f0884a;fill:#f0884a}.c2{stroke:#9cc45f;fill:#9cc45f}
.c3{stroke:#b697ea;fill:#b697ea}.c4{stroke:#d6b95a;fill:#d6b95a}.c5{stroke:#aaa;fill:#aaa}}
</style>"""


def curves(
    title: str,
    series: Mapping[str, Points],
    *,
    x: tuple[str, float, float, bool],
    y: tuple[str, float, float],
) -> str:
    """Lines by name. x: (label, low, high, whether logarithmic); y: (label, low, high)."""
    x_label, x_low, x_high, logarithmic = x
    y_label, y_low, y_high = y

    def across(value: float) -> float:
        if logarithmic:
            part = math.log(value / x_low) / math.log(x_high / x_low)
        else:
            part = (value - x_low) / (x_high - x_low)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    up = _up(y_low, y_high)
    out = [*_frame(title, x_label, y_label, y_low, y_high, up)]
    ticks = _decades(x_low, x_high) if logarithmic else _even(x_low, x_high)
    for tick in ticks:
        out.append(_text(across(tick), HEIGHT - BOTTOM + 16, _plain(tick), "middle"))
    for place, (name, points) in enumerate(series.items()):
        kept = [(px, py) for px, py in points if x_low <= px <= x_high]
        line = " ".join(
            f"{'L' if i else 'M'}{across(px):.1f} {up(min(max(py, y_low), y_high)):.1f}"
            for i, (px, py) in enumerate(kept)
        )
        out.append(f'<path class="c{place % _COLOURS}" d="{line}"/>')
        out += _key(place, name)
    return _svg(title, out)


def bars(
    title: str,
    groups: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    y: tuple[str, float, float],
) -> str:
    """Bars side by side: a group of them a label, one a name; NaN leaves a gap."""
    y_label, y_low, y_high = y
    up = _up(y_low, y_high)
    out = [*_frame(title, "", y_label, y_low, y_high, up)]
    room = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    wide = room * 0.8 / max(len(names), 1)
    upright = all(len(label) * _LETTER <= room for label in groups)
    for place, (label, values) in enumerate(groups.items()):
        start = LEFT + place * room + room * 0.1
        for i, value in enumerate(values):
            if not math.isfinite(value):
                continue
            top = up(min(max(value, y_low), y_high))
            out.append(
                f'<rect class="c{i % _COLOURS}" x="{start + i * wide:.1f}" y="{top:.1f}" '
                f'width="{wide * 0.92:.1f}" height="{max(HEIGHT - BOTTOM - top, 0.5):.1f}"/>'
            )
        middle = start + room * 0.4
        if upright:
            out.append(_text(middle, HEIGHT - BOTTOM + 16, label, "middle"))
        else:
            across, down = middle + 4, HEIGHT - BOTTOM + 14
            out.append(
                f'<text x="{across:.1f}" y="{down}" text-anchor="end" '
                f'transform="rotate(-35 {across:.1f} {down})">{escape(label)}</text>'
            )
    for place, name in enumerate(names):
        out += _key(place, name)
    longest = max((len(label) for label in groups), default=0)
    return _svg(title, out, lower=0 if upright else int(longest * _LETTER * 0.5))


def _up(low: float, high: float) -> Callable[[float], float]:
    return lambda value: HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _frame(
    title: str,
    x_label: str,
    y_label: str,
    low: float,
    high: float,
    up: Callable[[float], float],
) -> list[str]:
    out = [f'<text class="t" x="{LEFT}" y="18">{escape(title)}</text>']
    for tick in _even(low, high):
        out.append(
            f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" '
            f'y2="{up(tick):.1f}"/>'
        )
        out.append(_text(LEFT - 6, up(tick) + 4, _plain(tick), "end"))
    bottom = HEIGHT - BOTTOM
    out.append(f'<line class="a" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    out.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
    middle = (TOP + bottom) / 2
    out.append(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.0f})">{escape(y_label)}</text>'
    )
    return out


def _key(place: int, name: str) -> list[str]:
    y = TOP + 12 + 20 * place
    x = WIDTH - RIGHT + 12
    return [
        f'<rect class="c{place % _COLOURS}" x="{x}" y="{y - 9}" width="10" height="10"/>',
        _text(x + 15, y, name, "start"),
    ]


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _even(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / 5 for i in range(6)]


def _decades(low: float, high: float) -> list[float]:
    ticks = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in (1, 2, 5)
    ]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _plain(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _svg(title: str, parts: Sequence[str], *, lower: int = 0) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + lower}" '
        f'role="img" aria-label="{escape(title)}">{_STYLE}' + "".join(parts) + "</svg>\n"
    )

"""How a notebook shows a schedule: a small curve as inline SVG, and the expression. Strings only, no matplotlib.

A page has many of these: a curve is as few points as follow it to a twentieth of a pixel, and letters share a style.
"""

from __future__ import annotations

import html
import math

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import Array, Node, brief
from tensorsched.schedules.views.numerals import count, labels, log_ticks, number, ticks, tidy
from tensorsched.schedules.views.phases import headings
from tensorsched.schedules.views.picture import AS_AT_START, Line, Picture, drawable, picture

_WIDTH, _HEIGHT = 420, 144
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 24, 22  # margins: of values, to the right, of phases' names, of steps
_WIDE, _HIGH = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_LETTER = 5.7  # width of a letter, about
_COLOUR = "#0072b2"  # 3:1 or more on white and on black
_MOST_EDGES = 12  # phase boundaries that are drawn; more would be a grey field
_CLOSE = 0.05  # pixels between a curve and what is drawn of it


def svg(schedule: Node) -> str | None:
    """The curve as an SVG element, 420 x 144; None if it has no picture (a value that is not finite)."""
    try:
        shown = picture([schedule], points=_WIDE)
        shown.axis()
    except ScheduleError:
        return None
    (line,), bottom = shown.lines, _HEIGHT - _BOTTOM
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    x, y, marks = _in_pixels(shown, line)
    points = " ".join(f"{_pixel(a)},{_pixel(b)}" for a, b in _simplified(x, y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{html.escape(tidy(brief(schedule)))}</title>",
        '<g font-family="sans-serif" font-size="11" fill="currentColor">',
        *(
            f'<text x="{_LEFT - 6}" y="{_pixel(at + 4)}" text-anchor="end">{label}</text>'
            for at, label in marks
        ),
        '<g text-anchor="middle">',
        *(
            f'<text x="{_pixel(_LEFT + step / shown.last * _WIDE)}" y="{_HEIGHT - 6}">{count(step)}</text>'
            for step in ticks(0, shown.last, 5)
            if step == int(step)
        ),
        *_names(shown, line),
        f'</g><text x="{_LEFT - 12}" y="{_HEIGHT - 6}" text-anchor="end">step</text></g>',
        f'<g fill="none" stroke="currentColor"><path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" opacity="0.5"/>',
        _edges(shown, line),
        "</g>",
        f'<g fill="none" stroke="{_COLOUR}" stroke-width="2"><polyline points="{points}"/>',
        _dots(shown, x, y),
        "</g></svg>",
    ]
    return "\n".join(part for part in parts if part)


def page(schedule: Node) -> str | None:
    """The curve above its expression, as HTML; None if it has no picture."""
    curve = svg(schedule)
    if curve is None:
        return None
    note = "" if drawable(schedule) is schedule else " (drawn with <code>ts.initial</code> as 1)"
    note += f" ({AS_AT_START})" if schedule.inputs() else ""
    return f"<div>{curve}<br/><code>{html.escape(tidy(brief(schedule)))}</code>{note}</div>"


def _in_pixels(shown: Picture, line: Line) -> tuple[Array, Array, list[tuple[float, str]]]:
    """The line's path, and the numbers of the value axis at their heights."""
    steps, values = line.path()
    if shown.logarithmic(None):
        low, high = shown.log_axis()
        numbers = log_ticks(low, high, 4)
        heights, written = [*map(math.log10, numbers)], [*map(number, numbers)]
        values, low, high = np.log10(np.maximum(values, low)), math.log10(low), math.log10(high)
    else:
        low, high = shown.axis()
        heights = ticks(low, high, 4)
        written = labels(heights)
    marks = [
        (_TOP + (high - at) / (high - low) * _HIGH, label) for at, label in zip(heights, written, strict=True)
    ]
    x = _LEFT + steps / shown.last * _WIDE
    y = _TOP + (high - values) / (high - low) * _HIGH
    return x.round(2), y.round(2), marks


def _names(shown: Picture, line: Line) -> list[str]:
    """The phases' names above the curve, each over the middle of its phase; without those that find no room."""
    found = headings(line.phases, shown.last)
    if not 1 < len(found) <= _MOST_EDGES:
        return []
    stops = [*(start for start, _ in found[1:]), shown.last]
    texts, free = [], float(_LEFT)
    for (start, name), stop in zip(found, stops, strict=True):
        half = len(name) * _LETTER / 2
        middle = _LEFT + (start + stop) / 2 / shown.last * _WIDE
        middle = min(max(middle, _LEFT + half), _WIDTH - _RIGHT - half)
        if middle - half >= free:
            texts.append(f'<text x="{_pixel(middle)}" y="{_TOP - 9}">{html.escape(name)}</text>')
            free = middle + half + _LETTER
    return texts


def _edges(shown: Picture, line: Line) -> str:
    """Dashed lines where phases start."""
    edges = [start for start, _ in headings(line.phases, shown.last) if start]
    if not 0 < len(edges) < _MOST_EDGES:
        return ""
    path = "".join(f"M{_pixel(_LEFT + edge / shown.last * _WIDE)} {_TOP}v{_HIGH}" for edge in edges)
    return f'<path d="{path}" opacity="0.3" stroke-dasharray="2 3"/>'


def _dots(shown: Picture, x: Array, y: Array) -> str:
    """A dot on each value of a short picture, at the beginning of its stair."""
    if not shown.single:
        return ""
    path = "".join(f"M{_pixel(a)} {_pixel(b)}h0" for a, b in zip(x[::2], y[::2], strict=True))
    return f'<path d="{path}" stroke-width="5" stroke-linecap="round"/>'


def _pixel(at: float) -> str:
    """To two decimals."""
    return f"{at:.2f}".rstrip("0").rstrip(".")


def _simplified(x: Array, y: Array) -> list[tuple[float, float]]:
    """As few of the points as are never further than `_CLOSE` from the line (Douglas and Peucker)."""
    kept = np.zeros(len(x), dtype=bool)
    kept[[0, -1]] = True
    open_ = [(0, len(x) - 1)]
    while open_:
        first, last = open_.pop()
        if last - first < 2:  # noqa: PLR2004  nothing between them
            continue
        a, b = x[last] - x[first], y[last] - y[first]
        inside = slice(first + 1, last)
        away = np.abs(a * (y[inside] - y[first]) - b * (x[inside] - x[first]))
        furthest = int(away.argmax())
        if away[furthest] > _CLOSE * math.hypot(a, b):
            kept[first + 1 + furthest] = True
            open_ += [(first, first + 1 + furthest), (first + 1 + furthest, last)]
    return list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))

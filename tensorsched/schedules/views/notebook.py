"""How a notebook shows a schedule: a small curve as inline SVG, and the expression. Strings only, no matplotlib."""

from __future__ import annotations

import html
import math

from tensorsched.errors import ScheduleError
from tensorsched.schedules.algebra import Schedule, has_initial
from tensorsched.schedules.node import Array, brief
from tensorsched.schedules.views.outline import curve, drawable, phases, ticks, window

_WIDTH, _HEIGHT = 420, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = (
    62,
    14,
    10,
    22,
)  # margins: numbers of the value axis to the left, of the steps below
_TEXT = 'font-family="sans-serif" font-size="11" fill="currentColor"'
_MOST_EDGES = 12  # phase boundaries that are drawn; more would be a grey field


def svg(schedule: Schedule) -> str | None:
    """The curve as an SVG element, 420 x 130; None if it has no picture (a value that is not finite)."""
    shown = drawable(schedule)
    try:
        last = window(shown)
        steps, values = curve(shown, last, points=_WIDTH - _LEFT - _RIGHT)
    except ScheduleError:
        return None
    low, high = _range(values)
    if not math.isfinite(high - low):
        return None
    x = _LEFT + steps / last * (_WIDTH - _LEFT - _RIGHT)
    y = _TOP + (high - values) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
    bottom = _HEIGHT - _BOTTOM
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{html.escape(brief(schedule))}</title>",
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="currentColor" opacity="0.5"/>',
    ]
    edges = [phase.start for phase in phases(shown) if 0 < phase.start < last]
    for edge in edges if len(edges) <= _MOST_EDGES else []:
        at = _LEFT + edge / last * (_WIDTH - _LEFT - _RIGHT)
        lines.append(
            f'<path d="M{at:.1f} {_TOP}V{bottom}" stroke="currentColor" opacity="0.3" stroke-dasharray="2 3"/>'
        )
    for value in ticks(low, high, 4):
        at = _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        lines.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" {_TEXT}>{value:.4g}</text>')
    for step in ticks(0, last, 5):
        at = _LEFT + step / last * (_WIDTH - _LEFT - _RIGHT)
        lines.append(
            f'<text x="{at:.1f}" y="{_HEIGHT - 6}" text-anchor="middle" {_TEXT}>{count(step)}</text>'
        )
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    lines.append(f'<polyline points="{points}" fill="none" stroke="#0072b2" stroke-width="2"/>')
    return "\n".join([*lines, "</svg>"])


def page(schedule: Schedule) -> str | None:
    """The curve above its expression, as HTML; None if it has no picture."""
    picture = svg(schedule)
    if picture is None:
        return None
    note = " (drawn with <code>ts.initial</code> as 1)" if has_initial(schedule) else ""
    return f"<div>{picture}<br/><code>{html.escape(brief(schedule))}</code>{note}</div>"


def count(steps: float) -> str:
    """A number of steps, short: 20000 -> "20k"."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= 10 * unit or (steps >= unit and steps % (unit / 10) == 0):
            return f"{steps / unit:.4g}{name}"
    return f"{steps:.4g}"


def _range(values: Array) -> tuple[float, float]:
    """What the value axis spans; never empty, and with 0 in it where the curve comes near it."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        room = abs(low) / 2 or 0.5
        return low - room, high + room
    if 0.0 < low < high / 2:
        low = 0.0
    elif low / 2 < high < 0.0:
        high = 0.0
    return low, high

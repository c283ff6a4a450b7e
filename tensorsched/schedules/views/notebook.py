"""How a notebook shows a schedule: a small curve as inline SVG, and the expression. Strings only, no matplotlib."""

from __future__ import annotations

import html

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import Node, brief
from tensorsched.schedules.views.picture import AS_AT_START, count, drawable, picture, ticks

_WIDTH, _HEIGHT = 420, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 10, 22  # margins: numbers of the value axis, and of the steps below
_WIDE, _HIGH = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_TEXT = 'font-family="sans-serif" font-size="11" fill="currentColor"'
_MOST_EDGES = 12  # phase boundaries that are drawn; more would be a grey field


def svg(schedule: Node) -> str | None:
    """The curve as an SVG element, 420 x 130; None if it has no picture (a value that is not finite)."""
    try:
        shown = picture([schedule], points=_WIDE)
        low, high = shown.axis()
    except ScheduleError:
        return None
    (line,), last, bottom = shown.lines, shown.last, _HEIGHT - _BOTTOM
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{html.escape(brief(schedule))}</title>",
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="currentColor" opacity="0.5"/>',
    ]
    edges = [phase.start for phase in line.phases if 0 < phase.start < last]
    for edge in edges if len(edges) <= _MOST_EDGES else []:
        at = _LEFT + edge / last * _WIDE
        parts.append(
            f'<path d="M{at:.1f} {_TOP}V{bottom}" stroke="currentColor" opacity="0.3" stroke-dasharray="2 3"/>'
        )
    for value in ticks(low, high, 4):
        at = _TOP + (high - value) / (high - low) * _HIGH
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" {_TEXT}>{value:.4g}</text>')
    for step in ticks(0, last, 5):
        at = _LEFT + step / last * _WIDE
        label = f"{_TEXT}>{count(step)}</text>"
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 6}" text-anchor="middle" {label}')
    x = _LEFT + line.steps / last * _WIDE
    y = _TOP + (high - line.values) / (high - low) * _HIGH
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="#0072b2" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>"])


def page(schedule: Node) -> str | None:
    """The curve above its expression, as HTML; None if it has no picture."""
    curve = svg(schedule)
    if curve is None:
        return None
    note = "" if drawable(schedule) is schedule else " (drawn with <code>ts.initial</code> as 1)"
    note += f" ({AS_AT_START})" if schedule.inputs() else ""
    return f"<div>{curve}<br/><code>{html.escape(brief(schedule))}</code>{note}</div>"

"""Curves and tables of characters: braille dots where the terminal's encoding has them, stars where not."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from tensorsched.schedules.node import Array
from tensorsched.schedules.views.numerals import count, labels, log_ticks, number, ticks
from tensorsched.schedules.views.picture import Picture

_STYLES = {"curve": "36", "other": "33", "faint": "2", "bad": "31", "bold": "1"}
_STYLES |= {"third": "35", "fourth": "32", "fifth": "34", "sixth": "31"}
CURVES = ("curve", "other", "third", "fourth", "fifth", "sixth")
"""The styles of the curves in a picture, in turn: colours of the terminal's own, which it shows on its own ground."""
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # braille: 4 rows of 2 in a cell
_BLANK = 0x2800
_LEAST_WIDTH = 20


class Style:
    """How to write to a stream: in colour or not, in braille or in ASCII."""

    def __init__(self, stream: TextIO) -> None:
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = terminal and not os.environ.get("NO_COLOR")
        try:
            "\u28ff\u2524\u253c".encode(stream.encoding or "ascii")
            self.braille = True
        except (UnicodeEncodeError, LookupError):
            self.braille = False

    def paint(self, text: str, style: str) -> str:
        """`text` in a style, where the stream shows colours."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour and text else text


def write(*lines: str) -> None:
    """Print lines, without what an ASCII stream cannot write."""
    plain = Style(sys.stdout).braille
    for line in lines:
        sys.stdout.write((line if plain else line.encode("ascii", "replace").decode()) + "\n")


def harmless(text: str) -> str:
    """Text that came from somebody else, as it may be shown: what would move a terminal's cursor is written out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def draw(
    picture: Picture,
    *,
    width: int,
    height: int,
    style: Style,
    log: bool | None = False,
    marks: Sequence[str] = ("",),
    unit: str = "step",
) -> list[str]:
    """The lines of a picture, `width` characters wide, axis numbers included.

    On a logarithmic axis (log=True, or None where it serves) what is below its lower end is drawn there.

    Args:
        picture: what to draw.
        width: characters of a line.
        height: lines of the curve.
        style: how to write to the stream.
        log: of the value axis.
        marks: the character that each curve is drawn in, "" for braille dots (or `*`). Where curves meet the one in
            braille shows, else they take turns.
        unit: what is counted along the axis below.

    Raises:
        ScheduleError: the values are too far apart.
    """
    most = max(2, min(6, height // 2))
    curves = [line.path() for line in picture.lines]
    if picture.logarithmic(log):
        low, high = picture.log_axis()
        numbers = log_ticks(low, high, most)
        written = {math.log10(at): number(at) for at in numbers}
        curves = [(steps, np.log10(np.maximum(values, low))) for steps, values in curves]
        low, high = math.log10(low), math.log10(high)
    else:
        low, high = picture.axis()
        numbers = ticks(low, high, most)
        written = dict(zip(numbers, labels(numbers), strict=True))
    margin = max(map(len, [*written.values(), unit]))
    columns = max(width - margin - 2, _LEAST_WIDTH)
    layers = [_cells(steps / picture.last, values, (low, high), columns, height) for steps, values in curves]
    rows = {round((high - at) / (high - low) * (height - 1)): written[at] for at in reversed(written)}
    bar, tick, corner, line = "│┤└─" if style.braille else "|++-"
    lines = []
    for row in range(height):
        label = rows.get(row, "").rjust(margin)
        axis = tick if row in rows else bar
        lines.append(f"{style.paint(f'{label} {axis}', 'faint')}{_row(layers, row, marks, style)}")
    below = " " * (margin + 1) + corner + line * columns
    along = f"{unit:>{margin}}{_step_axis(picture.last, margin + 2, columns)[margin:]}"
    return [*lines, style.paint(below, "faint"), style.paint(along, "faint")]


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Lines with aligned columns; the columns in `right` are flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cells(along: Array, values: Array, between: tuple[float, float], columns: int, height: int) -> Array:
    """Which dots of each character cell are set, as braille bits: (height, columns)."""
    low, high = between
    x = np.clip(along * (2 * columns - 1), 0, 2 * columns - 1)
    y = np.clip((high - values) / (high - low) * (4 * height - 1), 0, 4 * height - 1)
    dots = np.zeros((4 * height, 2 * columns), dtype=bool)
    for x0, y0, x1, y1 in zip(x, y, x[1:], y[1:], strict=False):
        steps = int(max(abs(x1 - x0), abs(y1 - y0))) + 1
        part = np.linspace(0.0, 1.0, steps + 1)
        dots[np.rint(y0 + (y1 - y0) * part).astype(int), np.rint(x0 + (x1 - x0) * part).astype(int)] = True
    blocks = dots.reshape(height, 4, columns, 2).transpose(0, 2, 1, 3)
    return np.asarray((blocks * _DOTS).sum(axis=(2, 3)), dtype=np.float64)


def _row(layers: Sequence[Array], row: int, marks: Sequence[str], style: Style) -> str:
    text = []
    for column in range(layers[0].shape[1]):
        here = [i for i, layer in enumerate(layers) if layer[row, column]]
        if not here:
            text.append(" ")
            continue
        shown = next((i for i in here if not marks[i]), here[column % len(here)])
        dots = chr(_BLANK + int(layers[shown][row, column])) if style.braille else "*"
        text.append(style.paint(marks[shown] or dots, CURVES[shown % len(CURVES)]))
    return "".join(text).rstrip()


def _step_axis(last: int, left: int, columns: int) -> str:
    line = [" "] * (left + columns + 12)
    for step in ticks(0, last, max(2, min(7, columns // 10))):
        text = count(step)
        at = max(left + round(step / last * (columns - 1)) - len(text) // 2, 0)
        if all(c == " " for c in line[max(at - 1, 0) : at + len(text) + 1]):
            line[at : at + len(text)] = text
    return "".join(line).rstrip()


def width() -> int:
    """Columns of the terminal; 80 in a pipe, or what COLUMNS says."""
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 80

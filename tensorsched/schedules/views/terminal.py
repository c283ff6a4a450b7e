"""Curves and tables of characters: braille dots where the terminal's encoding has them, stars where not."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from tensorsched.schedules.node import Array
from tensorsched.schedules.views.picture import Picture
from tensorsched.schedules.views.numerals import count, ticks

_STYLES = {"curve": "36", "other": "33", "faint": "2", "bad": "31", "bold": "1"}
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


def draw(picture: Picture, *, width: int, height: int, style: Style, log: bool | None = False) -> list[str]:
    """The lines of a picture, `width` characters wide, axis numbers included.

    On a logarithmic axis (log=True, or None where it serves) what is below its lower end is drawn there.

    Of two curves the first is drawn in braille dots (or `*`), the second in `o`; where they agree, the first shows.

    Raises:
        ScheduleError: the values are too far apart.
    """
    most = max(2, min(6, height // 2))
    logarithmic = picture.logarithmic(log)
    if logarithmic:
        low, high = (math.log10(end) for end in picture.log_axis())
        labels = {number: f"{10.0**number:.3g}" for number in ticks(low, high, most)}
    else:
        low, high = picture.axis()
        labels = {number: f"{number:.4g}" for number in ticks(low, high, most)}
    margin = max(map(len, labels.values()))
    columns = max(width - margin - 2, _LEAST_WIDTH)
    curves = [
        np.log10(np.maximum(line.values, 10.0**low)) if logarithmic else line.values for line in picture.lines
    ]
    layers = [
        _cells(line.steps / picture.last, values, (low, high), columns, height)
        for line, values in zip(picture.lines, curves, strict=True)
    ]
    rows = {
        round((high - number) / (high - low) * (height - 1)): labels[number] for number in reversed(labels)
    }
    bar, tick, corner, line = "│┤└─" if style.braille else "|++-"
    lines = []
    for row in range(height):
        label = rows.get(row, "").rjust(margin)
        axis = tick if row in rows else bar
        lines.append(f"{style.paint(f'{label} {axis}', 'faint')}{_row(layers, row, style)}")
    below = " " * (margin + 1) + corner + line * columns
    return [
        *lines,
        style.paint(below, "faint"),
        style.paint(_step_axis(picture.last, margin + 2, columns), "faint"),
    ]


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


def _row(layers: Sequence[Array], row: int, style: Style) -> str:
    text = []
    for column in range(layers[0].shape[1]):
        bits = [int(layer[row, column]) for layer in layers]
        if bits[0]:
            text.append(style.paint(chr(_BLANK + bits[0]) if style.braille else "*", "curve"))
        else:
            text.append(style.paint("o", "other") if any(bits) else " ")
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

"""`tensorsched show`: a curve of characters, and what there is to know of a schedule; or several in one picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tensorsched.cli.commands import LOG, OK
from tensorsched.cli.source import read_schedules
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief
from tensorsched.schedules.views import terminal
from tensorsched.schedules.views.numerals import number, placed, tidy
from tensorsched.schedules.views.picture import AS_AT_START, Line, Picture, picture

_MOST_PHASES = 16  # lines
_LETTERS = "abcdefghijklmnop"  # of the curves in one picture


def show(options: argparse.Namespace) -> int:
    """Curves of characters, and the numbers of the schedules."""
    if len(options.expr) > len(_LETTERS):
        raise ScheduleError(
            f"show draws up to {len(_LETTERS)} schedules, got {len(options.expr)}: leave some out"
        )
    schedules = read_schedules(options.expr)
    style = terminal.Style(sys.stdout)
    wide = options.width or min(terminal.width(), 100)
    shown = picture(schedules, last=options.steps, points=2 * wide)
    marks = _LETTERS if len(schedules) > 1 else [""]
    size = {"width": wide, "height": options.height}
    curve = terminal.draw(shown, **size, style=style, log=LOG[options.scale], marks=marks, unit=options.unit)
    heads, numbers = (
        _one(shown, schedules[0], options.unit) if len(schedules) == 1 else _several(shown, schedules)
    )
    styles = ["bold"] if len(schedules) == 1 else terminal.CURVES
    told = [style.paint(head, styles[i % len(styles)]) for i, head in enumerate(heads)]
    terminal.write(*told, *_notes(schedules, shown), "", *curve, "", *numbers)
    return OK


def _one(shown: Picture, schedule: Schedule, unit: str) -> tuple[list[str], list[str]]:
    """What stands above and below the curve of one schedule."""
    (line,) = shown.lines
    below = [*terminal.table(_facts(line, shown.last, unit)), "", *_phase_lines(line, shown.last)]
    return [tidy(brief(schedule))], below


def _several(shown: Picture, schedules: Sequence[Schedule]) -> tuple[list[str], list[str]]:
    """What stands above and below the curves of several: their letters, and the numbers of each."""
    heads = [
        f"{letter}  {tidy(brief(schedule))}" for letter, schedule in zip(_LETTERS, schedules, strict=False)
    ]
    return heads, _beside_each_other(shown)


def _notes(schedules: Sequence[Schedule], shown: Picture) -> list[str]:
    """What is drawn as something else."""
    same = all(line.schedule is schedule for line, schedule in zip(shown.lines, schedules, strict=True))
    note = [] if same else ["(initial, which only an optimizer knows, is drawn as 1)"]
    return note + [f"({AS_AT_START})"] * any(schedule.inputs() for schedule in schedules)


def _facts(line: Line, last: int, unit: str) -> list[tuple[str, str]]:
    about = "" if line.exact else " (of a selection of steps)"
    end = line.schedule.steps
    units = unit if unit.endswith("s") else f"{unit}s"
    counted = last if end == last else last + 1

    def at(value: float, step: int) -> str:
        return f"{number(value)} at {placed(step, unit)}"

    mean = number(line.area / counted)
    return [
        ("first", at(line.values[0], 0)),
        ("peak", at(*line.peak) + about),
        ("lowest", at(*line.lowest) + about),
        (
            "last",
            f"{number(line.values[-1])} from {placed(last, unit)} on (holds)"
            if end == last
            else at(line.values[-1], last),
        ),
        ("length", "unbounded" if end is None else f"{end:,} {units if end != 1 else unit}"),
        (
            "area",
            f"{number(line.area)}, the sum of the values at {units} 0..{counted - 1:,}; mean {mean}{about}",
        ),
    ]


def _phase_lines(line: Line, last: int) -> list[str]:
    rows = [("phase", "shape", "from", "to", "value", "", "")]
    for phase in line.phases[:_MOST_PHASES]:
        end = last if phase.stop is None else phase.stop
        begins = number(line.schedule(phase.start))
        ends = number(line.schedule(max(end - 1, phase.start)))
        moves = ("->", ends) if begins != ends else ("", "")
        to = "" if phase.stop is None else f"{phase.stop - 1:,}"
        shape = "" if phase.shape == phase.name else phase.shape
        rows.append((phase.name, shape, f"{phase.start:,}", to, begins, *moves))
    more = len(line.phases) - _MOST_PHASES
    return [*terminal.table(rows, right=(2, 3)), *([f"... and {more} more"] if more > 0 else [])]


def _beside_each_other(shown: Picture) -> list[str]:
    """The numbers of several schedules, by the letters of their curves."""
    rows = [("", "first", "peak", "at", "lowest", "last", "length")]
    for letter, line in zip(_LETTERS, shown.lines, strict=False):
        end = line.schedule.steps
        values = (line.values[0], line.peak[0], line.lowest[0], line.values[-1])
        first, peak, lowest, last = map(number, values)
        length = "unbounded" if end is None else f"{end:,}"
        rows.append((letter, first, peak, f"{line.peak[1]:,}", lowest, last, length))
    return terminal.table(rows, right=range(1, len(rows[0])))

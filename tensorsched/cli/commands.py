"""What each command does, from its parsed arguments to its exit status."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tensorsched.cli.source import read_schedules
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules import check as checker
from tensorsched.schedules.node import brief, evaluate
from tensorsched.schedules.validators import MAX_STEPS, cut
from tensorsched.schedules.views import terminal
from tensorsched.schedules.views.axes import new_figure
from tensorsched.schedules.views.numerals import number, tidy
from tensorsched.schedules.views.picture import AS_AT_START, Line, Picture, drawable, picture, window
from tensorsched.schedules.views.plot import compare, plot_schedule

OK, FOUND, FAILED = 0, 1, 2
"""Exit statuses, as those of diff(1): nothing to report, something found or different, could not be done."""

_CHUNK = 1 << 16  # values compared at a time
_MOST_COMPARED = 100_000_000  # steps
_MOST_PHASES = 16  # lines
_LEGEND = 60  # characters of an expression in a legend
_MOST_CHARACTERS = 500  # of a picture's side
_LETTERS = "abcdefghijklmnop"  # of the curves in one picture
_LOG = {"auto": None, "log": True, "linear": False}
_LONGEST_UNIT = 12  # characters


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
    marks = [""] if len(schedules) == 1 else _LETTERS[: len(schedules)]
    curve = terminal.draw(
        shown,
        width=wide,
        height=options.height,
        style=style,
        log=_LOG[options.scale],
        marks=marks,
        unit=options.unit,
    )
    names = [tidy(brief(schedule)) for schedule in schedules]
    if len(schedules) == 1:
        (line,) = shown.lines
        terminal.write(style.paint(names[0], "bold"), *_notes(schedules, shown), "", *curve)
        terminal.write(
            "", *terminal.table(_facts(line, shown.last, options.unit)), "", *_phase_lines(line, shown.last)
        )
    else:
        terminal.write(*_notes(schedules, shown), *curve, "", *_beside_each_other(shown, names, style, wide))
    return OK


def _notes(schedules: Sequence[Schedule], shown: Picture) -> list[str]:
    """What is drawn as something else."""
    same = all(line.schedule is schedule for line, schedule in zip(shown.lines, schedules, strict=True))
    note = [] if same else ["(initial, which only an optimizer knows, is drawn as 1)"]
    return note + [f"({AS_AT_START})"] * any(schedule.inputs() for schedule in schedules)


def _facts(line: Line, last: int, unit: str) -> list[tuple[str, str]]:
    about = "" if line.exact else " (of a selection of steps)"
    end = line.schedule.steps
    units = unit if unit.endswith("s") else f"{unit}s"
    held = f"from {unit} {last:,} on (holds)" if end == last else f"at {unit} {last:,}"
    counted = last if end == last else last + 1
    mean = number(line.area / counted)
    return [
        ("first", f"{number(line.values[0])} at {unit} 0"),
        ("peak", f"{number(line.peak[0])} at {unit} {line.peak[1]:,}{about}"),
        ("lowest", f"{number(line.lowest[0])} at {unit} {line.lowest[1]:,}{about}"),
        ("last", f"{number(line.values[-1])} {held}"),
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


def _beside_each_other(shown: Picture, names: Sequence[str], style: terminal.Style, wide: int) -> list[str]:
    """The letter of each curve, its numbers, and what it is."""
    head = ("", "first", "peak", "at", "last", "length", "schedule")
    rows = [head]
    for letter, line, name in zip(_LETTERS, shown.lines, names, strict=False):
        end = line.schedule.steps
        rows.append(
            (
                letter,
                number(line.values[0]),
                number(line.peak[0]),
                f"{line.peak[1]:,}",
                number(line.values[-1]),
                "unbounded" if end is None else f"{end:,}",
                name,
            )
        )
    lines = terminal.table(rows, right=(1, 2, 3, 4, 5))
    return [
        cut if i == 0 else style.paint(cut[0], terminal.CURVES[(i - 1) % len(terminal.CURVES)]) + cut[1:]
        for i, cut in enumerate(text if len(text) <= wide else text[: wide - 4] + " ..." for text in lines)
    ]


def plot(options: argparse.Namespace) -> int:
    """A picture file."""
    out = Path(options.output)
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ScheduleError(f"--output {cut(str(out))}: the name must end in .png, .svg or .pdf")
    if not out.absolute().parent.is_dir():
        raise ScheduleError(f"--output {cut(str(out))}: there is no such folder")
    schedules = dict(zip(options.expr, read_schedules(options.expr), strict=True))
    figure, (axes,) = new_figure()
    if len(options.expr) == 1:
        plot_schedule(
            schedules[options.expr[0]],
            steps=options.steps,
            ax=axes,
            log=_LOG[options.scale],
            unit=options.unit,
        )
    else:
        names: dict[str, Schedule] = {}
        for text, schedule in schedules.items():
            name = cut(text, _LEGEND)
            names[f"{name} ({len(names)})" if name in names else name] = schedule
        compare(names, steps=options.steps, ax=axes, log=_LOG[options.scale], unit=options.unit)
    figure.savefig(out, dpi=150)
    return OK


def diff(options: argparse.Namespace) -> int:
    """Where two schedules differ."""
    left, right = read_schedules([options.expr1, options.expr2])
    a, b = drawable(left), drawable(right)
    last = max(window(a), window(b)) if options.steps is None else options.steps
    if last >= _MOST_COMPARED:
        raise ScheduleError(
            f"diff compares every step, up to {_MOST_COMPARED}; this is {last}: pass a shorter --steps"
        )
    found = _differences(a, b, last, options.rtol)
    if found is None:
        within = f" (to a relative {options.rtol:g})" if options.rtol else ""
        terminal.write(f"the same at all steps 0..{last}{within}")
        return OK
    count, first, worst = found
    style = terminal.Style(sys.stdout)
    wide = options.width or min(terminal.width(), 100)
    shown = picture([a, b], last=last, points=2 * wide)
    facts = [
        ("steps that differ", f"{count} of {last + 1} (0..{last})"),
        ("first difference", f"step {first}: {a(first)!r} and {b(first)!r}"),
        (
            "largest difference",
            f"{abs(a(worst) - b(worst)):.6g} at step {worst}: {a(worst)!r} and {b(worst)!r}",
        ),
    ]
    terminal.write(
        f"{style.paint('curve', 'curve')}  {tidy(brief(left))}",
        f"{style.paint('ooooo', 'other')}  {tidy(brief(right))}",
        "",
        *terminal.draw(shown, width=wide, height=options.height, style=style, marks=("", "o")),
        "",
        *terminal.table(facts),
    )
    return FOUND


def _differences(a: Schedule, b: Schedule, last: int, rtol: float) -> tuple[int, int, int] | None:
    """How many of the steps 0..last differ, the first and the worst of them; None if none does."""
    count, first, worst, width = 0, None, 0, -1.0
    for low in range(0, last + 1, _CHUNK):
        high = min(low + _CHUNK, last + 1)
        x, y = evaluate(a, low, high), evaluate(b, low, high)
        with np.errstate(over="ignore"):
            gap = np.abs(x - y)
        apart = np.flatnonzero((x != y) & (gap > rtol * np.maximum(np.abs(x), np.abs(y))))
        if not apart.size:
            continue
        first = low + int(apart[0]) if first is None else first
        count += apart.size
        at = int(apart[gap[apart].argmax()])
        if gap[at] > width:
            width, worst = float(gap[at]), low + at
    return None if first is None else (count, first, worst)


def check(options: argparse.Namespace) -> int:
    """What is odd about schedules."""
    style = terminal.Style(sys.stdout)
    status = OK
    for text, schedule in zip(options.expr, read_schedules(options.expr), strict=True):
        found = checker.check(schedule, steps=options.steps, peak=options.peak)
        told = [finding for finding in found if finding.code not in options.allow]
        before = (
            f"{terminal.harmless(cut(' '.join(text.split()), _LEGEND))}: " if len(options.expr) > 1 else ""
        )
        for finding in told:
            terminal.write(f"{before}{style.paint(finding.code, 'bad')}: {finding.sentence}")
        if not told:
            terminal.write(f"{before}nothing found" + (f" ({len(found)} allowed)" if found else ""))
        status = FOUND if told else status
    return status


def step_count(text: str) -> int:
    """A command line's number of steps: an int from 1 to 2**53."""
    number = int(text.replace("_", ""))
    if not 1 <= number <= MAX_STEPS:
        raise ValueError
    return number


def characters(text: str) -> int:
    """A command line's number of characters: an int from 1 to 500."""
    number = int(text)
    if not 1 <= number <= _MOST_CHARACTERS:
        raise ValueError
    return number


def unit_name(text: str) -> str:
    """A command line's name of what is counted: up to 12 characters that can be shown."""
    if not 0 < len(text) <= _LONGEST_UNIT or not text.isprintable():
        raise ValueError
    return text


def step_selection(text: str) -> Sequence[int]:
    """A command line's choice of steps: `100`, `0:1000`, `0:1000:10` or `0,5,9`."""
    if "," in text:
        chosen: Sequence[int] = [int(part) for part in text.split(",")]
    elif ":" in text:
        bounds = [int(part) for part in text.split(":")]
        if len(bounds) > 3 or (len(bounds) == 3 and bounds[2] < 1):  # noqa: PLR2004  start, stop, stride
            raise ValueError
        chosen = range(*bounds)
    else:
        chosen = range(int(text))
    ends = (chosen[0], chosen[-1]) if isinstance(chosen, range) and chosen else chosen  # a range may be long
    if not ends or min(ends) < 0 or max(ends) > MAX_STEPS:
        raise ValueError
    return chosen


def positive(text: str) -> float:
    """A command line's number of at least 0."""
    number = float(text)
    if not 0.0 <= number < math.inf:
        raise ValueError
    return number

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
from tensorsched.schedules.views.numerals import tidy
from tensorsched.schedules.views.picture import drawable, picture, window
from tensorsched.schedules.views.plot import compare, plot_schedule

OK, FOUND, FAILED = 0, 1, 2
"""Exit statuses, as those of diff(1): nothing to report, something found or different, could not be done."""

LOG = {"auto": None, "log": True, "linear": False}
"""What --scale says of a value axis."""

_CHUNK = 1 << 16  # values compared at a time
_MOST_COMPARED = 100_000_000  # steps
_LEGEND = 60  # characters of an expression in a legend
_MOST_CHARACTERS = 500  # of a picture's side
_LONGEST_UNIT = 12  # characters


def plot(options: argparse.Namespace) -> int:
    """A picture file."""
    out = Path(options.output)
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ScheduleError(f"--output {cut(str(out))}: the name must end in .png, .svg or .pdf")
    if not out.absolute().parent.is_dir():
        raise ScheduleError(f"--output {cut(str(out))}: there is no such folder; make it first")
    schedules = dict(zip(options.expr, read_schedules(options.expr), strict=True))
    figure, (axes,) = new_figure()
    if len(options.expr) == 1:
        plot_schedule(
            schedules[options.expr[0]],
            steps=options.steps,
            ax=axes,
            log=LOG[options.scale],
            unit=options.unit,
        )
    else:
        names: dict[str, Schedule] = {}
        for text, schedule in schedules.items():
            name = cut(text, _LEGEND)
            names[f"{name} ({len(names)})" if name in names else name] = schedule
        compare(names, steps=options.steps, ax=axes, log=LOG[options.scale], unit=options.unit)
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

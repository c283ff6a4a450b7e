"""Plot data for schedules: default x-range, phase boundaries and decimated curves.

Shared by matplotlib, the notebook repr and the command line, so that they show the same thing. How far to look and
where phases start is what each node says of itself (`Node._reach`, `Node._marks`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import Array, Node, evaluate, sample
from tensorsched.schedules.validators import check_count

S = TypeVar("S", bound=Node)

EXACT = 10_000_000
"""Curves up to this many steps are evaluated at every step (80 MB); of longer ones a selection is taken."""

AS_AT_START = "inputs as at the start"
"""What a picture of a schedule with live inputs says: it is drawn with these as they start, a factor as 1."""

MOST_PHASES = 64
"""Phases that are told apart; an endless repeat has more than anyone reads."""

_SELECTED = 200_000  # steps of a selection
_SHORT = 10  # steps of a window onto something that does not change
_SMALL, _ENOUGH = 0.01, 0.4  # a log axis serves where 40 % of the curve are below a hundredth of its peak
_LOWEST, _FEW = 1e-4, 0.05  # of the peak: where a log axis is cut, if so little of the curve lies below
_TINY = 1e-300  # an axis shorter than that has no round numbers


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a schedule that one shape describes: steps start..stop-1, without end where stop is None."""

    start: int
    stop: int | None
    what: str


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One schedule in a picture."""

    schedule: Node
    """What is drawn: `ts.initial`, which has no value before `attach`, is replaced by 1."""
    steps: Array
    values: Array
    """A decimated curve, (n,) each: the first, smallest, largest and last of each run of steps, so that no spike is
    lost."""
    phases: tuple[Phase, ...]
    """Those that start within the picture."""
    peak: tuple[float, int]
    lowest: tuple[float, int]
    """A value and its step."""
    area: float
    """The sum of the values at steps 0..last, without `last` itself where the schedule ends there."""
    exact: bool
    """Whether every step was evaluated, or a selection of more than ten million."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """Several schedules at steps 0..last; made by `picture`."""

    last: int
    lines: tuple[Line, ...]

    def axis(self) -> tuple[float, float]:
        """What a linear value axis spans: never empty, and with 0 in it where the curves come near it.

        Raises:
            ScheduleError: the span is not a finite number.
        """
        low = min(line.lowest[0] for line in self.lines)
        high = max(line.peak[0] for line in self.lines)
        if low == high:
            room = abs(low) / 2 or 0.5
            return low - room, high + room
        if not math.isfinite(high - low):
            raise ScheduleError(
                f"values from {low:.3g} to {high:.3g} are too far apart to draw; scale the schedule"
            )
        if 0.0 < low < high / 2:
            low = 0.0
        elif low / 2 < high < 0.0:
            high = 0.0
        return low, high

    def logarithmic(self, asked: bool | None) -> bool:  # noqa: FBT001  handed on by name
        """Whether the value axis is one: as asked, or where much of a curve would be a flat line at 0."""
        high = max(line.peak[0] for line in self.lines)
        if asked is not None:
            return asked and high > 0.0
        values = np.concatenate([line.values for line in self.lines])
        return min(line.lowest[0] for line in self.lines) >= 0.0 and bool(
            np.mean((values > 0.0) & (values < _SMALL * high)) >= _ENOUGH
        )

    def log_axis(self) -> tuple[float, float]:
        """What a logarithmic value axis spans: up to the peak, from the smallest value above 0.

        Where only a twentieth of the curve is below 1e-4 of the peak (the end of a cosine to 0), from there.
        """
        high = max(line.peak[0] for line in self.lines)
        values = np.concatenate([line.values for line in self.lines])
        above = values[values > 0.0]
        low = max(float(above.min()), min(_LOWEST * high, float(np.quantile(above, _FEW))))
        return (low, high) if low < high else (high / 10.0, high)


def picture(schedules: Iterable[Node], *, last: int | None = None, points: int = 1000) -> Picture:
    """What is drawn of these schedules, evaluated once.

    Args:
        schedules: one or more; `ts.initial` in them counts as 1.
        last: the last step to show; default: the longest `window` among them.
        points: how wide the picture is; a line has at most four points for each.

    Raises:
        ScheduleError: a value is not finite, or last is not a whole number >= 1.
    """
    shown = [drawable(schedule) for schedule in schedules]
    end = max(map(window, shown)) if last is None else check_count("plot: steps", last, least=1)
    return Picture(end, tuple(_line(schedule, end, points) for schedule in shown))


def drawable(schedule: S) -> S:
    """The schedule with every `ts.initial` replaced by 1."""
    return cast("S", schedule._with_initial(1.0))


def window(schedule: Node) -> int:
    """The last step that a picture shows: the end of a bounded schedule, a representative range of an unbounded one.

    That is: four cycles of an endless repeat, ten timescales of an inverse square root, an exponential until a
    thousandth (or a thousandfold) is left of it, a quarter more than where anything else stops changing.
    """
    if schedule.steps:
        return schedule.steps
    reach = schedule._reach()
    return reach + (reach + 3) // 4 if schedule.constant_from is not None and reach else max(reach, _SHORT)


def phases(schedule: Node) -> tuple[Phase, ...]:
    """The phases of a schedule in order, at most 64 of them; the last may be "holds", from the end on for ever.

    A phase that takes no step does not show.
    """
    end = schedule.steps
    marks = [(math.ceil(at), what) for at, what in itertools.islice(schedule._marks(), MOST_PHASES)]
    if end is not None:
        marks = [mark for mark in marks if mark[0] < end]
        marks.append((end, "holds"))
    stops = [*(start for start, _ in marks[1:]), None]
    found = [
        Phase(start, stop, what) for (start, what), stop in zip(marks, stops, strict=True) if start != stop
    ]
    return tuple(found[:MOST_PHASES])


def _line(schedule: Node, last: int, points: int) -> Line:
    found = tuple(phase for phase in phases(schedule) if phase.start <= last)
    exact = last < EXACT
    steps, values = _every(schedule, last) if exact else _selected(schedule, last, found)
    drawn, top, bottom = _thinned(values, points), int(values.argmax()), int(values.argmin())
    ended = schedule.steps == last
    with np.errstate(over="ignore"):  # values that are finite one by one may not be so together
        if exact:
            area = float(values[:-1].sum() if ended else values.sum())
        else:
            area = float((np.diff(steps) * (values[1:] + values[:-1]) / 2).sum())
    return Line(
        schedule,
        steps[drawn].astype(np.float64),
        values[drawn],
        found,
        peak=(float(values[top]), int(steps[top])),
        lowest=(float(values[bottom]), int(steps[bottom])),
        area=area,
        exact=exact,
    )


def _every(schedule: Node, last: int) -> tuple[npt.NDArray[np.int64], Array]:
    return np.arange(last + 1), evaluate(schedule, 0, last + 1)


def _selected(schedule: Node, last: int, found: tuple[Phase, ...]) -> tuple[Array, Array]:
    """Evenly spread steps, and those around each phase: a short warm-up would lie between two of them."""
    edges = np.array([phase.start for phase in found], dtype=np.float64)
    even = np.linspace(0.0, last, _SELECTED).round()
    steps = np.unique(np.concatenate((even, edges, edges - 1.0)))
    steps = steps[(steps >= 0.0) & (steps <= last)]
    return steps, sample(schedule, steps)


def _thinned(values: Array, points: int) -> npt.NDArray[np.int64]:
    """Which values to draw: the first, smallest, largest and last of each of `points` runs."""
    if len(values) <= 4 * points:
        return np.arange(len(values))
    edges = [*np.linspace(0, len(values), points + 1).astype(np.int64)[:-1].tolist(), len(values)]
    chosen = set(edges[:-1])
    for low, high in itertools.pairwise(edges):
        part = values[low:high]
        chosen |= {low + int(part.argmin()), low + int(part.argmax()), high - 1}
    return np.array(sorted(chosen), dtype=np.int64)


# -- numbers on axes ---------------------------------------------------------------------------------------------------


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` (>= 2) round numbers within low..high: multiples of 1, 2 or 5 times a power of 10.

    The two ends where none lies between them.
    """
    span = high - low
    if not _TINY < span < math.inf:
        return [low]
    scale = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * scale for m in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if span / (m * scale) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step + 0.0 for i in range(first, last + 1)] or [low, high]


def count(steps: float) -> str:
    """A number of steps, short: 20000 -> "20k"."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= 10 * unit or (steps >= unit and steps % (unit / 10) == 0):
            return f"{steps / unit:.4g}{name}"
    return f"{steps:.4g}"

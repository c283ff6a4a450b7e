"""What a picture of schedules is drawn from: the range of steps, the curves and their axes, all evaluated once.

Shared by matplotlib, the notebook repr and the command line, so that they show the same thing. How far to look is what
each node says of itself (`Node._reach`).
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
from tensorsched.schedules.views.phases import Phase, phases

S = TypeVar("S", bound=Node)

EXACT = 10_000_000
"""Curves up to this many steps are evaluated at every step (80 MB); of longer ones a selection is taken."""

AS_AT_START = "inputs as at the start"
"""What a picture of a schedule with live inputs says: it is drawn with these as they start, a factor as 1."""

_SELECTED = 200_000  # steps of a selection
_SHORT = 10  # steps of a window onto something that does not change
_SINGLE = 60  # steps that are told apart: in a picture of more, a curve is a line
_JUMP = 4.0  # times as far as on either side: a jump, and no bend
_NOISE = 1e-12  # of the values: what rounding does to a level
_SMALL, _ENOUGH = 0.01, 0.4  # a log axis serves where 40 % of the curve are below a hundredth of its peak
_LOWEST, _FEW = 1e-4, 0.05  # of the peak: where a log axis is cut, if so little of the curve lies below


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One schedule in a picture."""

    schedule: Node
    """What is drawn: `ts.initial`, which has no value before `attach`, is replaced by 1."""
    steps: Array
    values: Array
    """A decimated curve, (n,) each: the first, smallest, largest and last of each run of steps, so that no spike is
    lost, and both sides of a jump."""
    held: npt.NDArray[np.bool_]
    """Where a value stands until the next of them, (n - 1,): in front of a jump; everywhere in a short picture."""
    phases: tuple[Phase, ...]
    """Those that start within the picture."""
    peak: tuple[float, int]
    lowest: tuple[float, int]
    """A value and its step."""
    area: float
    """The sum of the values at steps 0..last, without `last` itself where the schedule ends there."""
    exact: bool
    """Whether every step was evaluated, or a selection of more than ten million."""

    def path(self) -> tuple[Array, Array]:
        """The steps and values to draw a line through: `values`, and the corners of stairs, which jump upright."""
        stairs = np.flatnonzero(self.held)
        x = np.insert(self.steps, stairs + 1, self.steps[stairs + 1])
        return x, np.insert(self.values, stairs + 1, self.values[stairs])


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """Several schedules at steps 0..last; made by `picture`."""

    last: int
    lines: tuple[Line, ...]

    @property
    def single(self) -> bool:
        """Whether so few steps are shown that each is to be seen: a value a step, and no line between them."""
        return self.last <= _SINGLE

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
        """What a logarithmic value axis spans: up to the peak, from 1e-4 of it or from the smallest value above 0.

        Where more than a twentieth of the curves lies below 1e-4 of the peak (a range test over seven powers of ten),
        all of them are shown.
        """
        high = max(line.peak[0] for line in self.lines)
        values = np.concatenate([line.values for line in self.lines])
        above = values[values > 0.0]
        low = float(above.min())
        if low < _LOWEST * high and np.mean(above < _LOWEST * high) <= _FEW:
            low = _LOWEST * high
        return (low, high) if low < high else (high / 10.0, high)


def picture(schedules: Iterable[Node], *, last: int | None = None, points: int = 1000) -> Picture:
    """What is drawn of these schedules, evaluated once.

    Args:
        schedules: one or more; `ts.initial` in them counts as 1.
        last: the last step to show; default: the longest `window` among them.
        points: how wide the picture is; a line has at most six values for each.

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


def _line(schedule: Node, last: int, points: int) -> Line:
    found = tuple(phase for phase in phases(schedule) if phase.start <= last)
    exact = last < EXACT
    steps, values = _every(schedule, last) if exact else _selected(schedule, last, found)
    jumps, top, bottom = _jumps(values, points), int(values.argmax()), int(values.argmin())
    single = last <= _SINGLE
    drawn = np.arange(last + 1) if single else _thinned(values, points, jumps)
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
        np.full(last, fill_value=True) if single else np.isin(drawn[:-1], jumps),
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
    steps = np.unique(np.concatenate((even, edges, np.maximum(edges - 1.0, 0.0))))
    return steps, sample(schedule, steps)


def _jumps(values: Array, points: int) -> npt.NDArray[np.int64]:
    """The values behind which there is a jump; none of more than `points`, which nobody could tell from a curve."""
    with np.errstate(over="ignore"):
        change = np.abs(np.diff(values))
    beside = np.maximum(np.append(change[1:], 0.0), np.insert(change[:-1], 0, 0.0))
    found = np.flatnonzero((change > _JUMP * beside) & (change > _NOISE * np.abs(values).max()))
    return found if len(found) <= points else found[:0]


def _thinned(values: Array, points: int, jumps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which values to draw: the first, smallest, largest and last of each of `points` runs, and both sides of jumps."""
    if len(values) <= 4 * points:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), points + 1).astype(np.int64).tolist()
    chosen = {*edges[:-1], *jumps.tolist(), *(jumps + 1).tolist()}
    for low, high in itertools.pairwise(edges):
        part = values[low:high]
        chosen |= {low + int(part.argmin()), low + int(part.argmax()), high - 1}
    return np.array(sorted(chosen), dtype=np.int64)

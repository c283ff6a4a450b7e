"""What a reader of a curve needs: how far to look, where the phases are, and points that draw it.

Plots, the notebook display and the command line all ask here, so that they show the same thing.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterator

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import Combine, Schedule, Sequence, has_initial, substitute_initial
from tensorsched.schedules.node import Array, Node, brief, evaluate
from tensorsched.schedules.shapes import (
    exponential_decay,
    inverse_sqrt,
    piecewise_constant,
    piecewise_linear,
)
from tensorsched.schedules.transforms import Delay, HoldEach, Repeat, Skip, Stretch, Take

EXACT = 10_000_000
"""Curves up to this many steps are evaluated at every step (80 MB); of longer ones a selection is taken."""

MOST_PHASES = 64
"""Phases that are told apart; an endless repeat has more than anyone reads."""

_CYCLES = 4  # of an endless repeat that a window shows
_SHORT = 10  # steps of a window onto something that does not change

_TINY = 1e-300  # an axis shorter than that has no round numbers
_MOST_SKIPPED = 10_000  # phases that a skip leaves out; behind so many, phases are not told apart

_OPERATOR = {"minimum": "min", "maximum": "max"}

Mark = tuple[float, str]


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of a schedule that one shape describes: steps start..stop-1, without end where stop is None."""

    start: int
    stop: int | None
    what: str


def drawable(schedule: Schedule) -> Schedule:
    """The schedule with `ts.initial`, which has no value before `attach`, replaced by 1."""
    return substitute_initial(schedule, 1.0) if has_initial(schedule) else schedule


def window(schedule: Schedule) -> int:
    """The last step that a picture shows: the end of a bounded schedule, the telling part of an unbounded one.

    That is: four cycles of an endless repeat, ten timescales of an inverse square root, an exponential until a
    thousandth (or a thousandfold) is left of it, a quarter more than where anything else stops changing.
    """
    if schedule.steps:
        return schedule.steps
    reach = _reach(schedule)
    return reach + (reach + 3) // 4 if schedule.settled is not None and reach else max(reach, _SHORT)


def _reach(schedule: Node) -> int:
    """The last step of interest; 0 where nothing changes. Bounded: no more than 2**53."""
    if schedule.steps is not None or schedule.settled is not None:
        return min(schedule.steps or schedule.settled or 0, f.MAX_STEPS)
    match schedule:
        case Sequence():
            reach = sum(part.steps or 0 for part in schedule.parts) + _reach(schedule.parts[-1])
        case Repeat():
            marks = itertools.islice(_cycle_starts(schedule), _CYCLES + 1)
            reach = max([start for start, _ in marks][-1] - 1, 1)
        case Delay():
            reach = _reach(schedule.inner) + schedule.n
        case Skip():
            reach = max(_reach(schedule.inner) - schedule.n, 1)
        case HoldEach():
            reach = _reach(schedule.inner) * schedule.n
        case Stretch():
            reach = math.ceil(min(_reach(schedule.inner) * schedule.factor, float(f.MAX_STEPS)))
        case inverse_sqrt():
            reach = math.ceil(min(10.0 * schedule.timescale, float(f.MAX_STEPS)))
        case exponential_decay():
            pace = abs(math.log(schedule.rate))
            reach = schedule.every * (
                10 if pace == 0.0 else min(max(math.ceil(math.log(1e3) / pace), 4), 10**6)
            )
        case _:
            reach = max(map(_reach, schedule.children()), default=_SHORT)
    return min(reach, f.MAX_STEPS)


# -- phases -----------------------------------------------------------------------------------------------------------


def phases(schedule: Schedule) -> list[Phase]:
    """The phases of a schedule in order, at most 64 of them; the last may be "holds", from the end on for ever.

    A phase that takes no step does not show.
    """
    end = schedule.steps
    marks = [(math.ceil(at), what) for at, what in itertools.islice(_marks(schedule), MOST_PHASES)]
    if end is not None:
        marks = [mark for mark in marks if mark[0] < end]
        marks.append((end, "holds"))
    starts = [start for start, _ in marks]
    found = [
        Phase(start, stop, what)
        for (start, what), stop in zip(marks, [*starts[1:], None], strict=True)
        if start != stop
    ]
    return found[:MOST_PHASES]


def _marks(schedule: Node) -> Iterator[Mark]:  # noqa: C901  one case for each kind of node
    """(position, what starts there), in order, the first at 0; lazily, since some never end."""
    match schedule:
        case Sequence():
            yield from _chain_marks(schedule)
        case Combine():
            yield from _combined_marks(schedule)
        case Repeat():
            yield from _cycle_marks(schedule)
        case Delay():
            if schedule.n:
                yield 0.0, "holds"
            yield from ((at + schedule.n, what) for at, what in _marks(schedule.inner))
        case Take():
            yield from itertools.takewhile(lambda mark: mark[0] < schedule.n, _marks_and_end(schedule.inner))
        case Skip():
            yield from _later_marks(schedule)
        case HoldEach():
            yield from ((at * schedule.n, what) for at, what in _marks(schedule.inner))
        case Stretch():
            before, after = schedule.inner.steps, schedule.steps
            pace = after / before if before and after is not None else schedule.factor
            yield from ((at * pace, what) for at, what in _marks(schedule.inner))
        case _:
            boundaries: list[int] = []
            if isinstance(schedule, piecewise_constant):
                boundaries = list(schedule.boundaries)
            elif isinstance(schedule, piecewise_linear):
                boundaries = [step for step, _ in schedule.points]
            yield from ((float(at), schedule.kind) for at in dict.fromkeys([0, *boundaries]))


def _marks_and_end(schedule: Node) -> Iterator[Mark]:
    """The same, and where it holds from, for what goes on longer than this."""
    if schedule.steps is None:
        yield from _marks(schedule)
        return
    for at, what in _marks(schedule):
        if at >= schedule.steps:
            break
        yield at, what
    yield float(schedule.steps), "holds"


def _chain_marks(schedule: Sequence) -> Iterator[Mark]:
    start = 0
    for part in schedule.parts[:-1]:
        length = part.steps or 0
        for at, what in _marks(part):
            if at >= length:
                break
            yield start + at, what
        start += length
    yield from ((start + at, what) for at, what in _marks(schedule.parts[-1]))


def _combined_marks(schedule: Combine) -> Iterator[Mark]:
    """Those of both sides; a side that never changes has no say."""
    sides = [side for side in (schedule.left, schedule.right) if side.settled != 0]
    if len(sides) < 2:  # noqa: PLR2004  an operator has two sides
        yield from _marks(sides[0] if sides else schedule.left)
        return
    running = ["", ""]
    numbered = heapq.merge(*(_numbered(i, side) for i, side in enumerate(sides)), key=lambda mark: mark[0])
    for at, group in itertools.groupby(numbered, key=lambda mark: mark[0]):
        for _, i, what in group:
            running[i] = what
        a, b = running
        yield (
            at,
            f"{_OPERATOR[schedule.op]}({a}, {b})" if schedule.op in _OPERATOR else f"{a} {schedule.op} {b}",
        )


def _numbered(i: int, side: Node) -> Iterator[tuple[float, int, str]]:
    return ((at, i, what) for at, what in _marks_and_end(side))


def _cycle_starts(schedule: Repeat) -> Iterator[tuple[int, int]]:
    """(start, length) of each cycle."""
    start, length = 0, schedule.inner.steps or 1
    for _ in itertools.count() if schedule.times is None else range(schedule.times):
        yield start, length
        start, length = start + length, schedule._after(length)
        if start > f.MAX_STEPS or length < 1:
            return


def _cycle_marks(schedule: Repeat) -> Iterator[Mark]:
    first = schedule.inner.steps or 1
    for cycle, (start, length) in enumerate(_cycle_starts(schedule), start=1):
        for at, what in _marks(schedule.inner):
            if at >= first:
                break
            yield start + at * length / first, f"{what}, cycle {cycle}"


def _later_marks(schedule: Skip) -> Iterator[Mark]:
    running = ""
    # Bounded: what is left out may be a million cycles of an endless repeat.
    for at, what in itertools.islice(_marks(schedule.inner), _MOST_SKIPPED):
        if at > schedule.n:
            if running:
                yield 0.0, running
            running = ""
            yield at - schedule.n, what
        else:
            running = what
    if running:
        yield 0.0, running


# -- points -----------------------------------------------------------------------------------------------------------


def curve(schedule: Schedule, last: int, points: int = 1000) -> tuple[Array, Array]:
    """Steps and values that draw f(0), ..., f(last) in a picture `points` wide; both float64, of one shape.

    Every step of a short curve; of a longer one the first, smallest and largest of each of `points` runs of steps, so
    that no spike is lost; above ten million steps, four evenly spread ones a point, and the steps around each phase.

    Raises:
        ScheduleError: a value is not finite.
    """
    if last < EXACT:
        return _thinned(evaluate(schedule, 0, last + 1), points)
    edges = np.array([phase.start for phase in phases(schedule)], dtype=np.float64)
    even = np.linspace(0.0, last, 4 * points).round()
    steps = np.unique(np.concatenate((even, edges, edges - 1.0)))
    steps = steps[(steps >= 0.0) & (steps <= last)]
    return steps, sample(schedule, steps)


def sample(schedule: Schedule, steps: Array) -> Array:
    """The values at these steps (whole numbers >= 0, as float64).

    Raises:
        ScheduleError: a value is not finite.
    """
    with np.errstate(all="ignore"):  # what is not finite is reported below, with its step
        values = schedule._at(steps)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ScheduleError(
            f"the value at step {int(steps[bad[0]])} is {values[bad[0]]}, not a finite number; clamp the schedule or "
            f"change its end: {brief(schedule)}"
        )
    return values


def _thinned(values: Array, points: int) -> tuple[Array, Array]:
    if len(values) <= 4 * points:
        return np.arange(len(values), dtype=np.float64), values
    starts = np.linspace(0, len(values), points + 1).astype(np.int64)[:-1]
    chosen = set(starts.tolist()) | {len(values) - 1}
    for low, high in itertools.pairwise([*starts.tolist(), len(values)]):
        part = values[low:high]
        chosen |= {low + int(part.argmin()), low + int(part.argmax()), high - 1}
    steps = np.array(sorted(chosen), dtype=np.int64)
    return steps.astype(np.float64), values[steps]


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

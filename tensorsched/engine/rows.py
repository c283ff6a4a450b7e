"""Where the rows of a clock's table stand, and how far the lines between them are off the schedules.

Rows stand at a regular distance, at the marks of the schedules (on both sides of one, since a position is a whole
number: a jump is then a line of length 1, and exact), and in the middle of every line that was found to miss the
schedule, until none does. A line is tried at four points; where the schedule has one kink in it, its largest error is
at most 4/3 of what is found there.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tensorsched.engine.clock import Clock
from tensorsched.engine.layouts import Array
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief, sample

__all__ = ["Rows", "rows_of"]

Positions = npt.NDArray[np.int64]

_FEWEST = 4096  # rows, where no resolution is given
_MOST_MARKS = 1024  # of one schedule: what has more is found by trying
_MOST_BYTES = 16 * 2**20  # that rows may come to take because lines missed
_ODD = 0.381966  # tried at an odd distance: stairs of 2, 4, ... positions meet a line at the others
_TRIED = (0.25, _ODD, 0.5, 0.75)
_FACTOR = 4.0 / 3.0


@dataclasses.dataclass(frozen=True)
class Rows:
    """Positions and the values there.

    Attributes:
        positions: (N,) increasing, from 0; the last one is right for every later position.
        values: (N, C) float64, of each schedule.
        error: the largest difference between a line and its schedule that is possible, as a part of the largest value.
    """

    positions: Positions
    values: Array
    error: float


def rows_of(schedules: Sequence[Schedule], clock: Clock, reach: int) -> Rows:
    """The rows for some schedules that do not change any more from `reach` on.

    Raises:
        ScheduleError: lines between rows cannot follow a schedule within the clock's error in 16 MiB, or a value is not
            finite.
    """
    distance = clock.resolution or _default_distance(reach)
    grid = np.arange(0, reach + distance, distance, dtype=np.int64)
    if clock.between == "hold":
        return _held(schedules, clock, grid, distance)
    positions = np.unique(np.concatenate([grid, *(_marks(s, reach) for s in schedules)]))
    values = {s: _sampled(s, positions) for s in schedules}
    peaks = {s: float(np.abs(values[s]).max()) or 1.0 for s in schedules}
    most = max(2 * len(positions), _MOST_BYTES // (16 * (1 + len(schedules))))
    error = 0.0
    fresh = np.ones(len(positions) - 1, dtype=bool)  # the lines that nobody has tried
    while fresh.any():
        start = np.flatnonzero(fresh & (np.diff(positions) > 1))
        missed = np.zeros(len(positions) - 1, dtype=bool)
        for schedule in schedules:
            off = _off(schedule, positions, values[schedule], start) / peaks[schedule]
            bad = off > clock.error
            missed[start[bad]] = True
            error = max(error, float(off[~bad].max(initial=0.0)))
        at = np.flatnonzero(missed)
        if len(positions) + len(at) > most:
            raise _cannot_follow(schedules, clock, positions[at], len(positions) + len(at))
        middles = (positions[at] + positions[at + 1]) // 2
        fresh = _halves(missed)
        positions = np.insert(positions, at + 1, middles)
        values = {s: np.insert(values[s], at + 1, _sampled(s, middles)) for s in schedules}
    return Rows(positions, np.stack([values[s] for s in schedules], axis=1), error)


def _halves(missed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which lines are untried when each that missed has become two."""
    return np.repeat(missed, 1 + missed.astype(np.int64))


def _off(schedule: Schedule, positions: Positions, values: Array, start: Positions) -> Array:
    """How far the lines that begin at these rows are off the schedule at most."""
    if not start.size:
        return np.zeros(0)
    low, length = positions[start], positions[start + 1] - positions[start]
    below, rise = values[start], values[start + 1] - values[start]
    found = np.zeros(len(start))
    for part in _TRIED:
        inside = (part * length).astype(np.int64)
        if part == _ODD:
            inside |= 1
        inside = np.clip(inside, 1, length - 1)
        line = below + rise * (inside / length)
        np.maximum(found, np.abs(_sampled(schedule, low + inside) - line), out=found)
    return found * _FACTOR


def _held(schedules: Sequence[Schedule], clock: Clock, grid: Positions, distance: int) -> Rows:
    """A row at each multiple of the resolution and nowhere else: its value holds until the next."""
    values = np.stack([_sampled(s, grid) for s in schedules], axis=1)
    last = np.stack(
        [_sampled(s, grid + (distance - 1)) for s in schedules], axis=1
    )  # of each, before the next
    middle = np.stack([_sampled(s, grid + distance // 2) for s in schedules], axis=1)
    apart = np.maximum(np.abs(last - values), np.abs(middle - values)) / (np.abs(values).max(axis=0) + 1e-300)
    at, _ = np.unravel_index(int(apart.argmax()), apart.shape)
    if apart.max() > clock.error:
        raise ScheduleError(
            f"clock: held for {distance} {clock.unit}, a value is off by {apart.max():.2g} of the peak at "
            f"{int(grid[at])}, and error={clock.error:g} was asked for; pass a smaller resolution or a larger error"
        )
    return Rows(grid, values, float(apart.max()))


def _marks(schedule: Schedule, reach: int) -> Positions:
    """Where its phases start, and the position in front of each, up to `reach`."""
    marks = itertools.islice(schedule._marks_before(float(reach)), _MOST_MARKS)  # noqa: SLF001  the node's own
    around = {reach, reach - 1}
    for at, _ in marks:
        around |= {math.floor(at) - 1, math.floor(at), math.ceil(at)}
    return np.array(sorted(p for p in around if 0 <= p <= reach), dtype=np.int64)


def _sampled(schedule: Schedule, positions: Positions) -> Array:
    return sample(schedule, positions.astype(np.float64))


def _default_distance(reach: int) -> int:
    return 1 << max(0, (reach // _FEWEST).bit_length() - 1)


def _cannot_follow(
    schedules: Sequence[Schedule], clock: Clock, missed: Positions, rows: int
) -> ScheduleError:
    low, high = int(missed.min()), int(missed.max())
    named = brief(max(schedules, key=lambda s: s._size))  # noqa: SLF001  the one that is likely to be meant
    return ScheduleError(
        f"clock: between {low} and {high} {clock.unit} the schedules change faster than {rows} rows could follow "
        f"within {clock.error:g} of the peak (error); pass a larger error, or between='hold' with the resolution at "
        f"which the values should change: {named}"
    )

"""Straight lines between milestones, on events."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.checks import check_number
from tensorsched.integrations.ignite.lookahead import Forecast, Marks
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.schedules import Schedule, piecewise_linear
from tensorsched.schedules.node import Array

__all__ = ["PiecewiseLinear", "between_milestones", "check_milestones", "segment_marks", "through_milestones"]


class PiecewiseLinear(ParamScheduler):
    """Straight lines between (event, value) milestones; constant before the first and after the last.

    Two milestones at one event are a jump: the later value is used at that event.

    Args:
        optimizer: a torch optimizer, or any object with a list or tuple `param_groups`.
        param_name: the groups' key; see ParamScheduler.
        milestones_values: list of tuples (event, value), events not decreasing.
        save_history: append the groups' values to `engine.state.param_history[name]`.
        param_group_index: the one group that is meant; None (default) means all.

    Raises:
        TypeError: milestones_values is no sequence, or an event is no int.
        ScheduleError: it is empty, a pair is no tuple of two, an event is negative or less than the one before, or a
            value is not a finite number.

    Source: ignite.handlers.param_scheduler.PiecewiseLinear.

    Example:
        >>> from tensorsched.integrations.ignite import PiecewiseLinear
        >>> points = [(1, 1.0), (3, 0.5)]
        >>> PiecewiseLinear.simulate_values(num_events=5, param_name="lr", milestones_values=points)
        [[0, 1.0], [1, 1.0], [2, 0.75], [3, 0.5], [4, 0.5]]
    """

    _tabulated = True

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        milestones_values: list[tuple[int, float]],
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        super().__init__(optimizer, param_name, save_history, param_group_index=param_group_index)
        self.milestones, self.values = check_milestones(type(self).__name__, milestones_values)
        self._index = 0
        self._state_attrs += ["values", "milestones", "_index"]

    def get_param(self) -> float:
        """The value at `event_index`."""
        return float(through_milestones(self.milestones, self.values, np.array([float(self.event_index)]))[0])

    def _forecast(self, count: int) -> Forecast:
        events = float(self.event_index) + np.arange(count, dtype=np.float64)
        marks = segment_marks(self.milestones, self._index, events)
        return through_milestones(self.milestones, self.values, events), marks, [self.milestones, self.values]

    def _as_schedule(self) -> Schedule:
        return between_milestones(self.milestones, self.values, self.event_index)


def check_milestones(where: str, pairs: object) -> tuple[list[int], list[float]]:
    """The events and the values of a list of (event, value) tuples; raises as PiecewiseLinear says."""
    if not isinstance(pairs, Sequence):
        raise TypeError(f"{where}: milestones_values must be a list or tuple, got {type(pairs)}")
    if len(pairs) < 1:
        raise ScheduleError(
            f"{where}: milestones_values must have at least one (event, value) pair, got none"
        )
    milestones: list[int] = []
    values: list[float] = []
    for i, pair in enumerate(pairs):
        here = f"{where}: milestones_values[{i}]"
        if not isinstance(pair, tuple) or len(pair) != 2:  # noqa: PLR2004  a pair
            raise ScheduleError(f"{here} must be a tuple (event, value), got {pair!r}")
        if not isinstance(pair[0], numbers.Integral):
            raise TypeError(f"{here}: the event must be an int, got {type(pair[0])}")
        if pair[0] < 0:
            raise ScheduleError(f"{here}: events count from 0, so {pair[0]} is never; leave the pair out")
        if milestones and pair[0] < milestones[-1]:
            raise ScheduleError(
                f"{here}: event {pair[0]} comes before {milestones[-1]}; sort the pairs by event"
            )
        milestones.append(int(pair[0]))
        values.append(check_number(f"{here}: the value", pair[1]))
    return milestones, values


def through_milestones(milestones: Sequence[int], values: Sequence[float], events: Array) -> Array:
    """f(i) = a + (b - a) * (i - k) / (l - k) between the milestones (k, a) and (l, b) around i."""
    at, level = np.array(milestones, dtype=np.float64), np.array(values, dtype=np.float64)
    last = len(at) - 1
    before = np.searchsorted(at, events, side="right") - 1
    i, j = np.clip(before, 0, last), np.clip(before + 1, 0, last)
    width = np.where(
        i == j, 1.0, at[j] - at[i]
    )  # 1 where both are the same milestone, whose value then stays
    return level[i] + (level[j] - level[i]) * (events - at[i]) / width


def segment_marks(milestones: Sequence[int], index: int, events: Array) -> Marks:
    """Where `_index`, the segment that the event is in, changes; outside of all segments it stays."""
    inside = (events >= milestones[0]) & (events < milestones[-1])
    offsets = np.flatnonzero(inside)
    segments = np.searchsorted(np.array(milestones), events[offsets], side="right") - 1
    marks: Marks = {}
    for offset in np.flatnonzero(np.diff(segments, prepend=index)).tolist():
        marks[int(offsets[offset])] = {"_index": int(segments[offset])}
    return marks


def between_milestones(milestones: Sequence[int], values: Sequence[float], event: int) -> Schedule:
    """The same as a core expression, from `event` on."""
    points = piecewise_linear(list(zip(map(int, milestones), map(float, values), strict=True)))
    return points.skip(int(event)) if event else points

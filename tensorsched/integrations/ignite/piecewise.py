"""Straight lines between milestones, on events."""

from __future__ import annotations

import bisect
import numbers
from collections.abc import Sequence
from typing import Any, ClassVar

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.schedules import Schedule, piecewise_linear
from tensorsched.schedules.validators import refuse

__all__ = ["Milestones", "PiecewiseLinear"]


class Milestones(base.Formula):
    """The core's piecewise_linear of two lists, which programs may change in place."""

    _lists: ClassVar[tuple[str, ...]] = ("milestones", "values")

    milestones: list[int]
    values: list[float]

    def _set_milestones(self, pairs: object) -> None:
        self.milestones, self.values = _check_milestones(type(self).__name__, pairs)
        self._state_attrs += ["values", "milestones", "_index"]

    @property
    def _index(self) -> int:
        """The segment that the last event was in: of ignite's state, where it is walked along; here it follows."""
        event, at = self._position() - 1, self.milestones
        return max(bisect.bisect_right(at, min(event, at[-1] - 1)) - 1, 0)

    @_index.setter
    def _index(self, value: int) -> None:
        """Nothing: a state that is loaded has the event, too."""

    def _schedule(self) -> Schedule:
        return piecewise_linear(list(zip(map(int, self.milestones), map(float, self.values), strict=True)))


class PiecewiseLinear(Milestones, ParamScheduler):
    """Straight lines between (event, value) milestones; constant before the first and after the last.

    f(i) = a + (b - a) * (i - k) / (l - k) between the milestones (k, a) and (l, b) around i. Two milestones at one
    event are a jump: the later value is used at that event.

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

    _formula = True

    def __init__(
        self, optimizer: Any, param_name: str, milestones_values: list[tuple[int, float]], save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(optimizer, param_name, save_history, param_group_index)
        self._set_milestones(milestones_values)


def _check_milestones(where: str, pairs: object) -> tuple[list[int], list[float]]:
    """The events and the values of a list of (event, value) tuples; raises as PiecewiseLinear says."""
    where = f"{where}: milestones_values"
    given: Sequence[Any] = base.check_type(where, pairs, Sequence, "a list or tuple")
    if not given:
        raise ScheduleError(f"{where} must have at least one (event, value) pair, got none")
    milestones: list[int] = []
    values: list[float] = []
    for i, pair in enumerate(given):
        if not isinstance(pair, tuple) or len(pair) != 2:  # noqa: PLR2004  a pair
            raise refuse(f"{where}[{i}]", "a tuple (event, value)", pair)
        event = base.check_type(f"{where}[{i}]: the event", pair[0], numbers.Integral, "an int")
        if event < 0:
            raise ScheduleError(f"{where}[{i}]: events count from 0, so {event} is never; leave the pair out")
        if milestones and event < milestones[-1]:
            late = milestones[-1]
            raise ScheduleError(f"{where}[{i}]: event {event} comes before {late}; sort the pairs by event")
        milestones.append(int(event))
        values.append(base.check_number(f"{where}[{i}]: the value", pair[1]))
    return milestones, values

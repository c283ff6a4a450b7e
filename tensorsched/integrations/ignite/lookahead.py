"""Look-ahead: the next values of a scheduler, computed at once, and what changes in it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import Array

__all__ = ["Forecast", "LookAhead", "Marks", "describe", "finite_part"]

Marks = dict[int, dict[str, Any]]
"""By offset of an event: the attributes that have new values from that event on."""

Forecast = tuple[Array, Marks, list[list[Any]]]
"""Values of the next events (float64), the marks, and the lists that they were computed from."""

FIRST, MOST = 32, 1024
"""Events in the first look-ahead, and in the longest; each is twice as long as the one before."""


class LookAhead:
    """A table of the next values, read from the front.

    It holds until an attribute of the scheduler is assigned to (see `BaseParamScheduler.__setattr__`) or one of the
    lists behind it is changed in place.
    """

    __slots__ = ("at", "copies", "end", "lists", "marks", "valid", "values")

    def __init__(self, forecast: Forecast, what: str) -> None:
        values, self.marks, self.lists = forecast
        self.values: list[float] = finite_part(values, what).tolist()
        self.at, self.end = 0, len(self.values)
        self.valid = True
        self.copies = [list(live) for live in self.lists]

    @property
    def current(self) -> bool:
        """Whether the entry at `at` is there and right."""
        return self.at < self.end and self.lists == self.copies

    def step(self, state: dict[str, Any]) -> None:
        """The event has been: bring the scheduler's attributes up to date."""
        changes = self.marks.get(self.at)
        if changes is not None:
            state.update(changes)
        state["event_index"] += 1
        self.at += 1


def finite_part(values: Array, what: str) -> Array:
    """The values in front of the first that is not finite.

    Raises:
        ScheduleError: the very first is not finite: the event that would use it has come.
    """
    finite = np.isfinite(values)
    if finite.all():
        return values
    end = int(np.argmin(finite))
    if end == 0:
        raise ScheduleError(
            f"the next value of {what} is {values[0]}, not a finite number (an overflow, or an attribute that was set "
            "to such a value); nothing was changed: look at the start and end values and their multipliers"
        )
    return values[:end]


def describe(scheduler: object, state: Mapping[str, Any]) -> str:
    """Name and place of a scheduler, for messages."""
    return (
        f"{type(scheduler).__name__}({state.get('param_name')!r}) at event_index {state.get('event_index')}"
    )

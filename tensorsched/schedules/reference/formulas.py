"""The table of formulas, one for each kind of node, and the look-up in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tensorsched.errors import ScheduleError
from tensorsched.schedules.schedule import Schedule

__all__ = ["FORMULAS", "at", "formula"]

S = TypeVar("S", bound=Schedule)

FORMULAS: dict[type[Schedule], Callable[[Any, float], float]] = {}
"""The formula of each kind of node: (node, position) -> value; filled by `formula`."""


def at(schedule: Schedule, t: float) -> float:
    """The value at position t; inf or nan where the arithmetic leads there."""
    found = FORMULAS.get(type(schedule))
    if found is None:
        raise ScheduleError(
            f"no formula for {schedule.kind}: add a scalar one to tensorsched/schedules/reference/shapes.py"
        )
    return found(schedule, t)


def formula(kind: type[S]) -> Callable[[Callable[[S, float], float]], Callable[[S, float], float]]:
    """Register the decorated function as the formula of `kind`."""

    def register(function: Callable[[S, float], float]) -> Callable[[S, float], float]:
        FORMULAS[kind] = function
        return function

    return register

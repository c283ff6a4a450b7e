"""The engine of float slots with live inputs: rows of a table, and Python arithmetic over lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch

from tensorsched.engine.clock import Where
from tensorsched.engine.engine import FloatEngine
from tensorsched.engine.inputs import Inputs
from tensorsched.engine.reactive_plan import Plan, refuse_not_finite
from tensorsched.engine.table import ScheduleTable
from tensorsched.schedules import Schedule
from tensorsched.schedules.split import evaluate

__all__ = ["ReactiveFloatEngine"]


class ReactiveFloatEngine:
    """Values as Python floats: rows of the table, and arithmetic over lists.

    Args:
        schedules: by name.
        inputs: on the CPU.
        capacity: as for `tabulate`.

    Attributes:
        step_count: number of completed steps.
        column_of: for each name, where in a row its value is.
    """

    def __init__(self, schedules: Mapping[str, Schedule], inputs: Inputs, capacity: int | None) -> None:
        self._plan = Plan(schedules, inputs, torch.device("cpu"), capacity)
        self._inputs = inputs
        self.column_of = self._plan.column_of
        self.table: ScheduleTable = self._plan.table
        self._rows = FloatEngine(self.table)
        self._following: Iterator[Sequence[float]] = iter(())
        self._getters = [[_getter(columns) for columns in batch.columns] for batch in self._plan.batches]
        self._row: Sequence[float] = ()
        self._found: list[float] = []  # the values that were computed last, and those of the last step
        self._used: list[float] | None = None
        self.seek(0)
        self.row()  # whatever is not finite at the start

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """By name."""
        return self._plan.schedules

    @property
    def step_count(self) -> int:
        """Number of completed steps."""
        return self._rows.step_count

    @property
    def where(self) -> Where:
        """The step counter as a clock's counts."""
        return self._rows.where

    def go(self, where: Where) -> None:
        """Go to the step where a run stands."""
        self.seek(where.steps)

    def seek(self, step: int) -> None:
        """Set the step counter to `step`, an int >= 0."""
        self._rows.seek(step)
        self._row, self._following = self._rows.row(), self._rows.following()

    def advance(self) -> list[float]:
        """Count one completed step; its values.

        Raises:
            ScheduleError: as `row`.
        """
        self._used = self._found
        self._row = next(self._following)
        self._rows.step_count += 1
        return self._values(self._rest)

    def row(self) -> list[float]:
        """The values of the present step, with what the inputs are now.

        Raises:
            ScheduleError: one of them is not finite.
        """
        cells = self._inputs.all_cells()
        self._rest = [
            [*([cells[at] for at in which] for which in batch.cells), *map(list, batch.constants)]
            for batch in self._plan.batches
        ]
        return self._values(self._rest)

    def _values(self, rest: Sequence[list[list[float]]]) -> list[float]:
        found: list[float] = []
        for batch, getters, others in zip(self._plan.batches, self._getters, rest, strict=True):
            found += evaluate(batch.ops, [*(get(self._row) for get in getters), *others], _LISTS)
        total = sum(found)
        if total - total != 0.0:
            refuse_not_finite(found, self._plan, self._inputs, self.step_count)
        self._found = found
        return found

    def used(self) -> dict[str, float]:
        """By name what the last step that was made here used."""
        found = self._used
        return {} if found is None else {name: found[at] for name, at in self.column_of.items()}

    def forget_used(self) -> None:
        """No step was made here."""
        self._used = None


def _getter(indices: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    first = indices[0]
    return itemgetter(*indices) if len(indices) > 1 else itemgetter(slice(first, first + 1))


def _divide(a: float, b: float) -> float:
    """As IEEE and tensors do it: a division by 0 is inf or nan, which a clamp above may bring back."""
    try:
        return a / b
    except ZeroDivisionError:
        return math.nan if a == 0.0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)  # noqa: PLR0124


def _power(a: float, b: float) -> float:
    try:
        value = a**b
    except ZeroDivisionError:
        odd = b == int(b) and b % 2.0 == 1.0
        return math.copysign(math.inf, a) if odd else math.inf
    except OverflowError:
        return -math.inf if a < 0.0 and b % 2.0 == 1.0 else math.inf
    return math.nan if isinstance(value, complex) else value


def _smaller(a: float, b: float) -> float:
    return a if a < b or a != a else b  # noqa: PLR0124  nan stays nan, as in tensors


def _larger(a: float, b: float) -> float:
    return a if a > b or a != a else b  # noqa: PLR0124


def _each(function: Callable[[float, float], float]) -> Callable[[Any, Any], list[float]]:
    return lambda a, b: list(map(function, a, b))


_LISTS: dict[str, Callable[..., list[float]]] = {
    "+": lambda a, b: [x + y for x, y in zip(a, b, strict=True)],
    "-": lambda a, b: [x - y for x, y in zip(a, b, strict=True)],
    "*": lambda a, b: [x * y for x, y in zip(a, b, strict=True)],
    "/": _each(_divide),
    "**": _each(_power),
    "minimum": _each(_smaller),
    "maximum": _each(_larger),
    "where": lambda gate, a, b: [x if g != 0.0 else y for g, x, y in zip(gate, a, b, strict=True)],
}

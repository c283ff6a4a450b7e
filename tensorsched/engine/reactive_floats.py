"""The engine of float slots with live inputs: rows of a table, and Python arithmetic over lists."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from tensorsched.engine.clock import Where
from tensorsched.engine.engine import FloatEngine
from tensorsched.engine.inputs import Inputs
from tensorsched.engine.reactive_plan import Batch, Plan, refuse_not_finite
from tensorsched.engine.table import ScheduleTable
from tensorsched.schedules import Schedule
from tensorsched.schedules.split import Op, evaluate

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
        self._runs = [_Run.of(batch) for batch in self._plan.batches]
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
        self._rest = [[*(take(cells) for take in run.cells), *run.constants] for run in self._runs]
        return self._values(self._rest)

    def _values(self, rest: Sequence[list[Any]]) -> list[float]:
        found: list[float] = []
        for run, others in zip(self._runs, rest, strict=True):
            leaves = [take(self._row) for take in run.columns]
            found += run.as_list(evaluate(run.ops, leaves + others, run.arithmetic))
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


Take = Callable[[Sequence[Any]], Any]


class _Run(NamedTuple):
    """A batch of programs over lists, an entry for each; a single program over plain floats."""

    ops: Sequence[Op]
    columns: Sequence[Take]  # of a row of the table
    cells: Sequence[Take]  # of those of the inputs
    constants: Sequence[Any]
    arithmetic: Mapping[str, Callable[..., Any]]
    as_list: Callable[[Any], list[float]]

    @classmethod
    def of(cls, batch: Batch) -> _Run:
        columns, cells = ([_take(which) for which in each] for each in (batch.columns, batch.cells))
        if all(len(each) == 1 for each in (*batch.columns, *batch.cells, *batch.constants)):
            constants: list[Any] = [number for (number,) in batch.constants]
            return cls(batch.ops, columns, cells, constants, _FLOATS, lambda value: [value])
        return cls(batch.ops, columns, cells, [*map(list, batch.constants)], _LISTS, list)


def _take(which: Sequence[int]) -> Take:
    """The function that takes these items of a sequence, or the only one."""
    first, many = which[0], len(which)
    if many > 1 and len(set(which)) == 1:
        return lambda items: [items[first]] * many
    return itemgetter(*which)


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


_FLOATS: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "**": _power,
    "minimum": _smaller,
    "maximum": _larger,
    "where": lambda gate, a, b: a if gate != 0.0 else b,
}


def _each(function: Callable[..., float]) -> Callable[..., list[float]]:
    return lambda *vectors: list(map(function, *vectors))


_LISTS = {name: _each(function) for name, function in _FLOATS.items()}

"""Schedules with live inputs, compiled: a table for what depends on the step alone, and a program beside it.

    columns    float64, from a table by its own step counter, as any engine reads them
    memory     float64, the inputs (inputs.py)
    values     what the programs make of both, rounded once: what the groups hold

Schedules whose programs have the same operations run as one, over vectors: as Python arithmetic over lists
(reactive_floats.py), or as kernels (reactive_tensors.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from tensorsched.engine.inputs import Inputs
from tensorsched.engine.tabulate import replacement, tabulate
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule, constant
from tensorsched.schedules.node import brief
from tensorsched.schedules.split import Op, Program, split

__all__ = ["Batch", "Plan", "refuse_not_finite"]


class Batch(NamedTuple):
    """Programs of one structure, which run as one: each register is a vector with an entry for each program.

    Attributes:
        ops: of all of them.
        columns: for each register of a column the live column of the table, by program.
        cells: for each register of an input the cell of the memory, by program.
        constants: for each register of a number the number, by program.
    """

    ops: tuple[Op, ...]
    columns: tuple[tuple[int, ...], ...]
    cells: tuple[tuple[int, ...], ...]
    constants: tuple[tuple[float, ...], ...]


class Plan:
    """Schedules as a table and batches of programs.

    Attributes:
        schedules: by name.
        programs: the different ones, in the order of their values.
        column_of: for each name, which value is its.
        table: what depends on the step alone.
        batches: the programs.
    """

    def __init__(
        self, schedules: Mapping[str, Schedule], inputs: Inputs, device: torch.device, capacity: int | None
    ) -> None:
        self.schedules = dict(schedules)
        found = {schedule: split(schedule) for schedule in dict.fromkeys(schedules.values())}
        order: dict[Any, list[Schedule]] = {}
        for schedule, program in found.items():
            order.setdefault(program.structure, []).append(schedule)
        ordered = [schedule for alike in order.values() for schedule in alike]
        self.programs = [found[schedule] for schedule in ordered]
        at = {schedule: number for number, schedule in enumerate(ordered)}
        self.column_of = {name: at[schedule] for name, schedule in schedules.items()}
        self._first = {number: name for name, number in reversed(self.column_of.items())}
        # By register, then by program: what one operation reads then lies side by side, and takes no look-up.
        columns = {
            self._column(number, register): program.columns[register]
            for alike in order.values()
            for register in range(len(found[alike[0]].columns))
            for number, program in ((at[s], found[s]) for s in alike)
        }
        # A table counts the steps, even where there is nothing to look up.
        self.table = tabulate(
            columns or {"": constant(0.0)}, device=device, dtype=torch.float64, capacity=capacity
        )
        self.batches = [self._batch([at[s] for s in alike], inputs) for alike in order.values()]

    def _column(self, number: int, register: int) -> str:
        """The name of a column, which errors show: that of the first schedule that it is for."""
        return f"{self._first[number]}, part {register}"

    def _batch(self, numbers: Sequence[int], inputs: Inputs) -> Batch:
        programs = [self.programs[number] for number in numbers]
        live = self.table.live_column
        return Batch(
            programs[0].ops,
            tuple(
                tuple(live[self._column(number, register)] for number in numbers)
                for register in range(len(programs[0].columns))
            ),
            tuple(
                tuple(inputs.cell(program.inputs[register].name) for program in programs)
                for register in range(len(programs[0].inputs))
            ),
            tuple(
                tuple(program.constants[register] for program in programs)
                for register in range(len(programs[0].constants))
            ),
        )

    def replacement(self, schedules: Mapping[str, Schedule]) -> Callable[[], None]:
        """Check that other schedules differ in their columns only; the function returned puts these into the table.

        Raises:
            OtherProgramError: the operations, inputs or constants are others, or names that share a value would differ.
            ScheduleError: as `tabulate.replacement`.
        """
        moved = self.schedules | dict(schedules)
        wanted: dict[int, tuple[str, Program]] = {}
        for name, schedule in moved.items():
            number, program = self.column_of[name], split(schedule)
            other, first = wanted.setdefault(number, (name, program))
            if first != program:
                raise OtherProgramError(
                    f"{name!r} shares a value with {other!r}, because their schedules were equal, and must stay so: "
                    "rewrite both together, or detach() and attach() again"
                )
            old = self.programs[number]
            if old.structure != program.structure or (old.inputs, old.constants) != (
                program.inputs,
                program.constants,
            ):
                raise OtherProgramError(
                    f"{name!r} is computed on the device, perhaps in a graph, and there another schedule may differ in "
                    f"what depends on the step alone, not in its inputs, numbers or operations: {brief(schedule)}; "
                    "detach() and attach() again"
                )
        columns = {
            self._column(number, register): column
            for number, (_, program) in wanted.items()
            for register, column in enumerate(program.columns)
        }
        put: Callable[[], object] = replacement(self.table, columns, _not_looked_at) if columns else _nothing

        def commit() -> None:
            put()
            self.schedules = moved
            self.programs = [wanted[number][1] for number in range(len(self.programs))]

        return commit


class OtherProgramError(ScheduleError):
    """Tensors that are where they are cannot follow other schedules: others have to take their place."""


def _nothing() -> None:
    pass


def _not_looked_at(_: str, __: object) -> None:
    """A column is no value of a slot: its range says nothing."""


def refuse_not_finite(values: Sequence[float], plan: Plan, inputs: Inputs, step: int) -> None:
    """Raise a ScheduleError that names the first value that is inf or nan, if one is."""
    for name, at in plan.column_of.items():
        if not math.isfinite(values[at]):
            mine = {held.name for held in plan.programs[at].inputs}
            given = ", ".join(f"{key} = {value:.6g}" for key, value in inputs.values().items() if key in mine)
            raise ScheduleError(
                f"{name} is {values[at]} at step {step}, not a finite number, with {given}: write another value to "
                f"sched.inputs, or clamp the schedule: {brief(plan.schedules[name])}"
            )

"""Engines of schedules with live inputs: a table for what depends on the step alone, and a program beside it.

    columns    float64, from a table by its own step counter, as any engine reads them
    memory     float64, the inputs (inputs.py)
    values     what the programs make of both, rounded once: what the groups hold

Schedules whose programs have the same operations run as one, over vectors. On a device a step of `column * input` is
three kernels, however many slots there are: count, look up, multiply. For floats it is Python arithmetic over lists.
Nothing synchronises.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from tensorsched.engine.clock import Where
from tensorsched.engine.engine import FloatEngine, ScheduleEngine
from tensorsched.engine.inputs import Inputs
from tensorsched.engine.table import ScheduleTable
from tensorsched.engine.tabulate import replacement, tabulate
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule, constant
from tensorsched.schedules.node import brief
from tensorsched.schedules.split import Op, Program, evaluate, split, value_now

__all__ = ["ReactiveEngine", "ReactiveFloatEngine"]


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
            ScheduleError: the operations, inputs or constants are others, names that share a value would differ, or as
                `tabulate.replacement`.
        """
        moved = self.schedules | dict(schedules)
        wanted: dict[int, tuple[str, Program]] = {}
        for name, schedule in moved.items():
            number, program = self.column_of[name], split(schedule)
            other, first = wanted.setdefault(number, (name, program))
            if first != program:
                raise ScheduleError(
                    f"{name!r} shares a value with {other!r}, because their schedules were equal, and must stay so: "
                    "rewrite both together, or detach() and attach() again"
                )
            old = self.programs[number]
            if old.structure != program.structure or (old.inputs, old.constants) != (
                program.inputs,
                program.constants,
            ):
                raise ScheduleError(
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


def _nothing() -> None:
    pass


def _not_looked_at(_: str, __: object) -> None:
    """A column is no value of a slot: its range says nothing."""


# -- Python floats -----------------------------------------------------------------------------------------------------


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
        self._following: Iterator[tuple[float, ...]] = iter(())
        self._getters = [[_getter(columns) for columns in batch.columns] for batch in self._plan.batches]
        self._row: tuple[float, ...] = ()
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
            _refuse_not_finite(found, self._plan, self._inputs, self.step_count)
        self._found = found
        return found

    def used(self) -> dict[str, float]:
        """By name what the last step that was made here used."""
        found = self._used
        return {} if found is None else {name: found[at] for name, at in self.column_of.items()}

    def forget_used(self) -> None:
        """No step was made here."""
        self._used = None


def _refuse_not_finite(values: Sequence[float], plan: Plan, inputs: Inputs, step: int) -> None:
    """Raise a ScheduleError that names the first value that is inf or nan, if one is."""
    for name, at in plan.column_of.items():
        if not math.isfinite(values[at]):
            mine = {held.name for held in plan.programs[at].inputs}
            given = ", ".join(f"{key} = {value:.6g}" for key, value in inputs.values().items() if key in mine)
            raise ScheduleError(
                f"{name} is {values[at]} at step {step}, not a finite number, with {given}: write another value to "
                f"sched.inputs, or clamp the schedule: {brief(plan.schedules[name])}"
            )


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


# -- tensors -----------------------------------------------------------------------------------------------------------


class ReactiveEngine:
    """Values as 0-dim views of one buffer, computed where they are read.

    It is to slots what a `ScheduleEngine` is, and moves by one.

    Args:
        schedules: by name.
        inputs: on the device.
        capacity: as for `tabulate`.

    Attributes:
        live: (1, R) float32, a value for each different schedule.
        column_of: for each name, which value is its.
        version: the version counter of live when the engine last wrote to it.
        keeps: whether each step leaves behind what it used: from the first question on, in graphs, and on a CPU.
        seen: the version of the inputs from which the values were computed.
    """

    def __init__(self, schedules: Mapping[str, Schedule], inputs: Inputs, capacity: int | None) -> None:
        self._plan = Plan(schedules, inputs, inputs.device, capacity)
        self.inputs, self.table, self.column_of = inputs, self._plan.table, self._plan.column_of
        self._columns = ScheduleEngine(self.table)
        with torch.inference_mode(mode=False):  # it would have no version counter
            self.live = torch.zeros(1, len(self._plan.programs), dtype=torch.float32, device=inputs.device)
            self._used = torch.full_like(self.live, math.nan)  # what the last step used, where it was kept
            self._cells = self.live.view(-1).unbind(0)
            self._batches = [_Tensors(batch, inputs.device) for batch in self._plan.batches]
            self._runs = self._bound()
        self.keeps = self.on_host
        plain = self.on_host and type(self.live) is torch.Tensor  # fake tensors have no memory
        self._bytes = [memoryview(t.numpy().data).cast("B") for t in (self._used, self.live)] if plain else None
        self._unkept: int | None = None  # the version of the inputs at a step that kept nothing
        self.seek(0)
        self.refresh()

    @property
    def driver(self) -> ReactiveEngine:
        """What moves it: it does so itself."""
        return self

    @property
    def captured(self) -> bool:
        """Whether a CUDA graph advances it."""
        return self._columns.driver.captured

    @captured.setter
    def captured(self, yes: bool) -> None:
        self._columns.driver.captured = yes
        self.keeps = True

    @property
    def on_host(self) -> bool:
        """Whether the counter is in memory that the host reads."""
        return self._columns.driver.on_host

    def lose_count(self) -> None:
        """Somebody else counts, in a graph."""
        self._columns.driver.lose_count()

    @property
    def known_steps(self) -> int | None:
        """The step count without a synchronisation: None where only the device knows."""
        return self._columns.known_steps

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one completed step, unless the tensor is not 0, and compute the values. Does not synchronise."""
        if self._bytes is not None and found_inf is None:  # in CPU memory a copy of bytes costs the least
            self._bytes[0][:] = self._bytes[1]
        elif self.keeps:
            self._keep(found_inf)
        else:
            self._unkept = self.inputs.version
        self._columns.driver.advance(found_inf)
        self.fill()

    def _keep(self, found_inf: torch.Tensor | None) -> None:
        if found_inf is None:
            self._used.copy_(self.live)
        else:
            self._used.copy_(torch.where(found_inf.to(self.live.device).reshape(1) == 0, self.live, self._used))

    def used(self) -> dict[str, float]:
        """By name what the last step that was made here used. Synchronises where the device is not a CPU.

        From the first call on each step leaves that behind, one kernel more on a device; of a step before it is known
        as long as no input was written since.
        """
        if not self.keeps:
            self.keeps = True
            if self._unkept == self.inputs.version and (steps := self.known_steps):
                before, given = steps - 1, self.inputs.values()
                at = {at: name for name, at in self.column_of.items()}
                values = [value_now(self.schedules[at[number]], before, given) for number in range(len(at))]
                self._used.copy_(torch.tensor([values], dtype=torch.float64))
        row = self._used[0].tolist()
        return {name: row[at] for name, at in self.column_of.items() if not math.isnan(row[at])}

    def forget_used(self) -> None:
        """No step was made here. Does not synchronise."""
        self._used.fill_(math.nan)
        self._unkept = None

    def fill(self) -> None:
        """Compute the values of the present step, with what the inputs are now. Does not synchronise."""
        for compute in self._runs:
            compute()
        self.version, self.seen = self.live._version, self.inputs.version  # noqa: SLF001  torch has no public name

    def refresh(self) -> None:
        """As `fill`, after somebody has written to the inputs; on a CPU, where it costs no wait, values are looked at.

        Raises:
            ScheduleError: on a CPU, a value would not be finite. Nothing has changed.
        """
        if self.inputs.device.type == "cpu":
            _refuse_not_finite(self.current().tolist(), self._plan, self.inputs, self.step_count)
        self.fill()

    def seek(self, step: int) -> None:
        """Set the step counter to `step` and compute its values. Does not synchronise."""
        self._unkept = None
        self._columns.seek(step)
        self.fill()

    def reload(self) -> None:
        """The table's contents were replaced: read it again. Synchronises where the device is not a CPU."""
        self._columns.reload()
        self.fill()

    def current(self) -> torch.Tensor:
        """The values, (R,) float32, computed in plain tensor operations: for code that torch.compile traces."""
        columns, memory = self._columns.live.view(-1), self.inputs.memory
        values = [evaluate(batch.ops, batch.leaves(columns, memory), _TORCH) for batch in self._batches]
        return (values[0] if len(values) == 1 else torch.cat(values)).to(torch.float32)

    def advance_in_graph(self, found_inf: torch.Tensor | None = None) -> None:
        """As `advance`, in plain tensor operations; what ran it in a graph calls `written` afterwards."""
        self._keep(found_inf)
        self._columns.advance_in_graph(found_inf)
        self.live.copy_(self.current().view(1, -1))

    def written(self) -> None:
        """Take what live holds now for the engine's own writing."""
        self._columns.written()
        self.version, self.seen = self.live._version, self.inputs.version  # noqa: SLF001  torch has no public name

    def intact(self) -> bool:
        """Whether nobody but the engine has written to `live`. Does not synchronise."""
        return bool(self.live._version == self.version)  # noqa: SLF001  torch has no public name for it

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What a graph reads and writes in place: they stay where they are as long as the engine lives."""
        own = [tensor for batch in self._batches for tensor in batch.tensors]
        return (self.live, self._used, self.inputs.memory, *own, *self._columns.tensors)

    @property
    def step_count(self) -> int:
        """Number of completed steps. Synchronises where the device is not a CPU."""
        return self._columns.step_count

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """By name."""
        return self._plan.schedules

    @property
    def where(self) -> Where:
        """The step counter as a clock's counts. Synchronises where the device is not a CPU."""
        return self._columns.where

    def where_from(self, numbers: list[int]) -> Where:
        """The same from what `clock` holds, once it is read."""
        return self._columns.where_from(numbers)

    def go(self, where: Where) -> None:
        """Go to the step where a run stands. Does not synchronise."""
        self.seek(where.steps)

    @property
    def clock(self) -> torch.Tensor:
        """The int64 step counter, shape (1,), on the device."""
        return self._columns.clock

    def value(self, name: str) -> torch.Tensor:
        """The live value of `name`: a 0-dim tensor that is always current."""
        return self._cells[self.column_of[name]]

    def replacement(self, schedules: Mapping[str, Schedule]) -> Callable[[], None]:
        """See `Plan.replacement`."""
        put = self._plan.replacement(schedules)

        def commit() -> None:
            put()
            self.reload()

        return commit

    def _bound(self) -> list[Callable[[], object]]:
        """For each batch the function that computes its values in place: nothing is looked up any more."""
        columns, values = self._columns.live.view(-1), self.live.view(-1)
        runs: list[Callable[[], object]] = []
        start = 0
        for batch in self._batches:
            leaves = [self._leaf(take, columns) for take in batch.columns]
            leaves += [self._leaf(take, self.inputs.memory) for take in batch.cells]
            constants, out = batch.constants, values.narrow(0, start, batch.count)
            start += batch.count
            (first, *_) = batch.ops or (None,)
            if first is not None and len(batch.ops) == 1 and first.name != "where":
                runs.append(functools.partial(_one_operation, first, leaves, constants, out))
            else:
                runs.append(functools.partial(_several, batch.ops, leaves, constants, out))
        return runs

    @staticmethod
    def _leaf(take: _Take, source: torch.Tensor) -> Callable[[], torch.Tensor]:
        if take.index is not None:
            return functools.partial(take.of, source)
        view = take.of(source)
        return lambda: view


class _Take:
    """Which entries of a vector a register reads: one or a run of them, which is a view, or any."""

    def __init__(self, which: Sequence[int], device: torch.device) -> None:
        self.start, self.count, self.one = which[0], len(which), len(set(which)) == 1
        self.index: torch.Tensor | None = None
        if not self.one and list(which) != list(range(self.start, self.start + self.count)):
            self.index = torch.tensor(which, dtype=torch.int64, device=device)

    def of(self, source: torch.Tensor) -> torch.Tensor:
        """Them, (count,)."""
        if self.index is not None:
            return source.index_select(0, self.index)
        return source.narrow(0, self.start, 1 if self.one else self.count).expand(self.count)


class _Tensors:
    """A batch, with its indices and constants on a device."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self.ops = batch.ops
        self.count = max(map(len, (*batch.columns, *batch.cells, *batch.constants)))
        self.columns = [_Take(which, device) for which in batch.columns]
        self.cells = [_Take(which, device) for which in batch.cells]
        self.constants = [
            torch.tensor(numbers, dtype=torch.float64, device=device) for numbers in batch.constants
        ]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What a graph reads."""
        return [t.index for t in (*self.columns, *self.cells) if t.index is not None] + self.constants

    def leaves(self, columns: torch.Tensor, memory: torch.Tensor) -> list[torch.Tensor]:
        """The leaves of the program."""
        return [*(t.of(columns) for t in self.columns), *(t.of(memory) for t in self.cells), *self.constants]


def _one_operation(
    op: Op, leaves: Sequence[Callable[[], torch.Tensor]], constants: Sequence[torch.Tensor], out: torch.Tensor
) -> None:
    """One kernel, which rounds as it writes."""
    registers = [*(leaf() for leaf in leaves), *constants]
    _TORCH[op.name](*[registers[at] for at in op.arguments], out=out)


def _several(
    ops: Sequence[Op],
    leaves: Sequence[Callable[[], torch.Tensor]],
    constants: Sequence[torch.Tensor],
    out: torch.Tensor,
) -> None:
    out.copy_(evaluate(ops, [*(leaf() for leaf in leaves), *constants], _TORCH))


_TORCH: dict[str, Callable[..., torch.Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "/": torch.div,
    "**": torch.pow,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "where": lambda gate, a, b: torch.where(gate != 0.0, a, b),
}

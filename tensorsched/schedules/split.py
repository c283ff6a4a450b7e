"""Partial evaluation: an expression with live inputs, as columns of a table and a small program over these and inputs.

What depends on the step alone, in parts as large as they come, becomes columns. What is left is data: operations over
numbered registers, first the leaves (columns, inputs, constants), then the result of each operation; the last register
is the value. One function, `evaluate`, runs it over floats, arrays, tensors or lists of any of these: it is handed the
arithmetic.

`a >> b` needs no step at run time. The parts that depend on the step alone become one column, in which the others are
0; and for each of the others there is a column that is 1 where it runs, by which `where` chooses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import algebra
from tensorsched.schedules.algebra import Combine, constant
from tensorsched.schedules.live import Input
from tensorsched.schedules.node import brief
from tensorsched.schedules.schedule import Schedule

__all__ = ["OPERATIONS", "Op", "Program", "bounded", "evaluate", "inputs_of", "split", "value_now"]

OPERATIONS = ("+", "-", "*", "/", "**", "minimum", "maximum", "where")
"""All there are; `where` chooses by its first argument, a column of 0 and 1."""


class Op(NamedTuple):
    """One operation, and the registers that it reads."""

    name: str
    arguments: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """What is left of an expression.

    Attributes:
        columns: schedules of the step alone; registers 0, 1, ...
        inputs: the live inputs; the registers behind them.
        constants: numbers; the registers behind these.
        ops: the operations; each makes the next register.
    """

    columns: tuple[Schedule, ...]
    inputs: tuple[Input, ...]
    constants: tuple[float, ...]
    ops: tuple[Op, ...]

    @property
    def structure(self) -> tuple[int, int, int, tuple[Op, ...]]:
        """Equal for programs that can run as one, over vectors."""
        return len(self.columns), len(self.inputs), len(self.constants), self.ops


def evaluate(ops: Sequence[Op], leaves: Sequence[Any], arithmetic: Mapping[str, Callable[..., Any]]) -> Any:
    """Run a program: the value of its last register."""
    registers = list(leaves)
    for name, arguments in ops:
        registers.append(arithmetic[name](*[registers[at] for at in arguments]))
    return registers[-1]


_NUMPY: dict[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "where": lambda gate, a, b: np.where(gate != 0.0, a, b),
}


def value_now(schedule: Schedule, step: int, inputs: Mapping[str, float]) -> float:
    """The value at `step` with the inputs of these names at these values; it may be inf or nan.

    Raises:
        ScheduleError: a part that depends on the step alone is not finite.
    """
    if not schedule.inputs():
        return schedule(step)
    program = split(schedule)
    leaves = [np.float64(column(step)) for column in program.columns]
    leaves += [np.float64(inputs[node.name]) for node in program.inputs]
    leaves += [np.float64(number) for number in program.constants]
    with np.errstate(all="ignore"):
        return float(evaluate(program.ops, leaves, _NUMPY))


def inputs_of(schedules: Sequence[Schedule]) -> dict[str, Input]:
    """The live inputs in these schedules, by name.

    Raises:
        ScheduleError: two different ones have the same name.
    """
    found: dict[str, Input] = {}
    for schedule in schedules:
        for held in cast("tuple[Input, ...]", schedule.inputs()):
            other = found.setdefault(held.name, held)
            if other != held:
                raise ScheduleError(
                    f"two live inputs are named {held.name!r}: {brief(other)} and {brief(held)}; one name is one "
                    "input: give one of them another name="
                )
    return found


def bounded(schedule: Schedule, steps: int | None) -> Schedule:
    """What never settles in a schedule cut at `steps`, where it then holds its value; any other as it is."""
    if steps is None or schedule.constant_from is not None:
        return schedule
    if not schedule.inputs():
        return schedule.take(steps)
    if isinstance(schedule, Combine):
        return dataclasses.replace(
            schedule, left=bounded(schedule.left, steps), right=bounded(schedule.right, steps)
        )
    sequence = cast("algebra.Sequence", schedule)  # what else may hold an input
    last = bounded(sequence.parts[-1], max(0, steps - sequence._starts()[-1]))
    return dataclasses.replace(sequence, parts=(*sequence.parts[:-1], last))


def split(schedule: Schedule) -> Program:
    """Columns, and a program over them and the inputs. Of the step alone: one column, and nothing to do.

    Example:
        >>> import tensorsched as ts
        >>> split(ts.linear(1.0, 0.0, steps=4) * 0.5 * ts.plateau()).ops
        (Op(name='*', arguments=(0, 1)),)
    """
    return _Splitter().program(schedule)


_Ref = tuple[str, int]  # a register before the leaves are counted: its kind, and its number among those


class _Splitter:
    def __init__(self) -> None:
        self._leaves: dict[str, dict[Any, int]] = {"column": {}, "input": {}, "constant": {}}
        self._ops: dict[tuple[str, tuple[_Ref, ...]], int] = {}

    def program(self, schedule: Schedule) -> Program:
        result = self._part(schedule, _as_it_is)
        columns, inputs, constants = (tuple(self._leaves[kind]) for kind in ("column", "input", "constant"))
        first = {"column": 0, "input": len(columns), "constant": len(columns) + len(inputs)}
        first["op"] = first["constant"] + len(constants)
        ops = [Op(name, tuple(first[kind] + at for kind, at in arguments)) for name, arguments in self._ops]
        assert result[0] != "op" or result[1] == len(ops) - 1  # noqa: S101  the last register is the value
        return Program(columns, inputs, constants, tuple(ops))

    def _part(self, schedule: Schedule, in_time: Callable[[Schedule], Schedule]) -> _Ref:
        """The register of a part; `in_time` puts what depends on the part's own step onto the steps of the run."""
        if isinstance(schedule, Input):
            return self._leaf("input", schedule)
        if not schedule.inputs():
            if schedule.constant_from == 0:
                return self._leaf("constant", schedule(0))
            return self._leaf("column", in_time(schedule))
        if isinstance(schedule, Combine):
            return self._op(
                schedule.op, self._part(schedule.left, in_time), self._part(schedule.right, in_time)
            )
        return self._sequence(cast("algebra.Sequence", schedule), in_time)

    def _sequence(self, sequence: algebra.Sequence, in_time: Callable[[Schedule], Schedule]) -> _Ref:
        parts = sequence.parts
        plain = [constant(0.0, steps=part.steps) if part.inputs() else part for part in parts]
        # A part of no steps is a jump, which nothing shows of but the last, whose end holds.
        alone = [part for part in parts if not part.inputs() and (part.steps != 0 or part is parts[-1])]
        chosen = self._leaf("column", in_time(algebra.Sequence(tuple(plain)))) if alone else None
        for start, part in zip(sequence._starts(), parts, strict=True):
            if not part.inputs() or (part.steps == 0 and part is not parts[-1]):
                continue
            within = _Window(start, None if part is parts[-1] else part.steps, in_time)
            value = self._part(part, within)
            gate = self._leaf(
                "column", within(constant(1.0, steps=None if part is parts[-1] else part.steps))
            )
            chosen = value if chosen is None else self._op("where", gate, value, chosen)
        assert chosen is not None  # noqa: S101  a sequence has parts
        return chosen

    def _leaf(self, kind: str, held: Any) -> _Ref:
        numbers = self._leaves[kind]
        return kind, numbers.setdefault(held, len(numbers))

    def _op(self, name: str, *arguments: _Ref) -> _Ref:
        return "op", self._ops.setdefault((name, arguments), len(self._ops))


@dataclasses.dataclass(frozen=True)
class _Window:
    """Puts what depends on a part's own step onto the steps of the run, where it runs; elsewhere it is 0.

    A part that others follow is cut at its end, which is never used and may be inf.
    """

    start: int
    steps: int | None
    in_time: Callable[[Schedule], Schedule]

    def __call__(self, own: Schedule) -> Schedule:
        """The schedule on the steps of the run."""
        before: list[Schedule] = [constant(0.0, steps=self.start)] if self.start else []
        running = [own] if self.steps is None else [own.take(self.steps), constant(0.0)]
        return self.in_time(algebra.chain([*before, *running]))


def _as_it_is(schedule: Schedule) -> Schedule:
    return schedule

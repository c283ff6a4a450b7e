"""The engine of tensor slots with live inputs: a table on the device, and what the programs make of its live columns.

A step of `column * input` is three kernels, however many slots there are: count, look up, multiply. Nothing
synchronises.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import torch

from tensorsched.engine.clock import Where
from tensorsched.engine.engine import ScheduleEngine
from tensorsched.engine.inputs import Inputs
from tensorsched.engine.reactive_plan import Batch, Plan, refuse_not_finite
from tensorsched.schedules import Schedule
from tensorsched.schedules.split import Op, evaluate, value_now

__all__ = ["ReactiveEngine"]


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
        keeps: whether each step leaves behind what it used: on a CPU, in graphs, and from the first question on.
        version: the version counter of live when the engine last wrote to it.
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
        self._bytes = (
            [memoryview(t.numpy().data).cast("B") for t in (self._used, self.live)] if plain else None
        )
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
            self._keep(self.live, found_inf)
        else:
            self._unkept = self.inputs.version
        self._columns.driver.advance(found_inf)
        self.fill()

    def _keep(self, values: torch.Tensor, found_inf: torch.Tensor | None) -> None:
        """The values of a step that was made, before those of the next one take their place."""
        if found_inf is not None:
            values = torch.where(found_inf.to(self.live.device).reshape(1) == 0, values, self._used)
        self._used.copy_(values)

    def used(self) -> dict[str, float]:
        """By name what the last step that was made here used. Synchronises where the device is not a CPU.

        From the first call on each step leaves that behind, one kernel more on a device; of a step before it is known
        as long as no input was written since.
        """
        if not self.keeps:
            self.keeps = True
            if self._unkept == self.inputs.version and (steps := self.known_steps):
                given, at = self.inputs.values(), {at: name for name, at in self.column_of.items()}
                values = [value_now(self.schedules[at[n]], steps - 1, given) for n in range(len(at))]
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
            refuse_not_finite(self.current().tolist(), self._plan, self.inputs, self.step_count)
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
        # A graph computes what its step uses: an input may have been turned since live was filled.
        self._keep(self.current().view(1, -1), found_inf)
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

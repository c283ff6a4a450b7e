"""Engines that read a ClockTable: one for tensors, on a CPU or a device, and one for Python floats.

They count in four numbers, [position, steps, counted, used]:

    count(n)     counted += n                                     as often as one likes before a step
    advance()    used = position, position = counted, steps += 1  the step is made; live is filled at the new position

`used` is where the last step was made, for those who log what it used: -1 where none was made here.

A step that was skipped leaves them alone, so that what it consumed is counted with the next one; a clock that drops it
sets counted back to position. The numbers are one tensor of the device: nothing here synchronises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch

from tensorsched.engine.clock import Where
from tensorsched.engine.clock_table import ClockTable
from tensorsched.engine.engine import FloatEngine, ScheduleEngine
from tensorsched.engine.lines import reader, writer
from tensorsched.errors import ScheduleError
from tensorsched.schedules.validators import check_count

__all__ = ["ClockEngine", "ClockFloatEngine"]

_POSITION, _STEPS, _COUNTED, _USED = range(4)
_NONE = -1


class _Counts:
    """The four numbers and the rows as tensors, and the formulas in tensor operations, for graphs and for devices."""

    captured = False  # by a graph that counts without us: the table never moves anyway

    def lose_count(self) -> None:
        """Somebody else counts: nothing of it is kept on the host."""

    def __init__(self, table: ClockTable, live: torch.Tensor) -> None:
        device = table.device
        self._table, self._live = table, live
        self.state = torch.tensor([0, 0, 0, _NONE], dtype=torch.int64, device=device)
        self.data = torch.from_numpy(table.data).to(device)
        # How many of these are at or below a position is the row that serves it: the first row is at 0.
        self._later = torch.from_numpy(table.positions[1:]).to(device)
        self._made = torch.tensor([_COUNTED, _STEPS, _COUNTED, _POSITION], device=device)
        self._dropped = torch.tensor([_POSITION, _STEPS, _POSITION, _USED], device=device)
        self._one_step = torch.tensor([0, 1, 0, 0], device=device)
        self._one_counted = torch.tensor([0, 0, 1, 0], device=device)
        self.tensors = (
            *(self.state, self.data, self._later),
            *(self._made, self._dropped, self._one_step, self._one_counted),
        )
        self.clock = self.state
        self.version = live._version  # noqa: SLF001  torch has no public name for it
        self._drops = table.clock.skipped == "dropped"

    def count_in_graph(self, n: int | torch.Tensor) -> None:
        """Count n units; the whole tensor is written, since views that a graph writes would all be copied."""
        self.state.add_(self._one_counted * n)

    def advance_in_graph(self, found_inf: torch.Tensor | None) -> None:
        """Make a step, and fill the live values."""
        self.state.copy_(self._moved(found_inf))
        row = torch.index_select(self.data, 0, torch.searchsorted(self._later, self.state[:1], right=True))
        width = self._table.columns
        off = self.state[:1] - row[:, :1]
        self._live.copy_(torch.addcmul(row[:, 1 : 1 + width], off, row[:, 1 + width :]))

    def _moved(self, found_inf: torch.Tensor | None) -> torch.Tensor:
        """The numbers after a step."""
        made = torch.index_select(self.state, 0, self._made) + self._one_step
        if found_inf is None:
            return made
        skipped = torch.index_select(self.state, 0, self._dropped) if self._drops else self.state
        return torch.where(found_inf.reshape(1) == 0, made, skipped)

    def forget_used(self) -> None:
        """No step was made here. Does not synchronise."""
        self.state[_USED:].fill_(_NONE)

    def _reload(self) -> None:
        self.data.copy_(torch.from_numpy(self._table.data))
        self._later.copy_(torch.from_numpy(self._table.positions[1:]))


class CpuClock(_Counts):
    """Numbers and live values in CPU memory, written past torch as a CpuDriver does."""

    def __init__(self, table: ClockTable, live: torch.Tensor) -> None:
        super().__init__(table, live)
        self._numbers = memoryview(self.state.numpy().data)
        self._fill = writer(table, live)

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Make a step, unless `found_inf` is not 0, and fill the live values."""
        numbers = self._numbers
        if found_inf is not None and found_inf.item() != 0:
            if self._drops:
                self.drop()
            return
        numbers[_USED] = numbers[_POSITION]
        position = numbers[_POSITION] = numbers[_COUNTED]
        numbers[_STEPS] += 1
        self._fill(position)

    def count(self, n: int | torch.Tensor) -> None:
        """Count n units."""
        self._numbers[_COUNTED] += int(n)

    def count_to(self, position: int) -> None:
        """Have counted up to this position."""
        self._numbers[_COUNTED] = position

    def drop(self) -> None:
        """Forget what was counted for a step that was not made."""
        self._numbers[_COUNTED] = self._numbers[_POSITION]

    def go(self, where: Where) -> None:
        """Be there."""
        for index, number in enumerate(where):
            self._numbers[index] = number
        self._fill(where.position)

    def reload(self) -> None:
        """Read the table again. The tensors share its memory."""
        self._fill = writer(self._table, self._live)
        self._fill(self._numbers[_POSITION])


class DeviceClock(_Counts):
    """Numbers and live values in device memory, moved by kernels alone: six a step, and one a count."""

    def __init__(self, table: ClockTable, live: torch.Tensor) -> None:
        super().__init__(table, live)
        width = table.columns
        self._counted = self.state[_COUNTED:_USED]
        self._position = self.state[:_STEPS]
        self._next = torch.zeros_like(self.state)
        self._at = torch.zeros(1, dtype=torch.int64, device=table.device)
        self._row = torch.zeros(1, 1 + 2 * width, dtype=torch.float64, device=table.device)
        self._off = torch.zeros(1, 1, dtype=torch.float64, device=table.device)
        self._start, self._values, self._slopes = self._row.split([1, width, width], dim=1)

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Make a step, unless `found_inf` is not 0, and fill the live values."""
        if found_inf is None:
            torch.index_select(self.state, 0, self._made, out=self._next)
            torch.add(self._next, self._one_step, out=self.state)
        else:
            # GradScaler leaves it on the loss's device, another one where a model is spread over several.
            self.state.copy_(self._moved(found_inf.to(self.state.device)))
        self._fill()

    def count(self, n: int | torch.Tensor) -> None:
        """Count n units."""
        self._counted.add_(n.reshape(()).to(self.state.device) if isinstance(n, torch.Tensor) else n)

    def count_to(self, position: int) -> None:
        """Have counted up to this position."""
        self._counted.fill_(position)

    def drop(self) -> None:
        """Forget what was counted for a step that was not made."""
        self._counted.copy_(self._position)

    def go(self, where: Where) -> None:
        """Be there."""
        for index, number in enumerate(where):
            self.state[index : index + 1].fill_(number)
        self._fill()

    def reload(self) -> None:
        """Read the table again. The copy from main memory waits for the device."""
        self._reload()
        self._fill()

    def _fill(self) -> None:
        before = self._live._version  # noqa: SLF001  torch has no public name for it
        torch.searchsorted(self._later, self._position, right=True, out=self._at)
        torch.index_select(self.data, 0, self._at, out=self._row)
        torch.sub(self._position.view(1, 1), self._start, out=self._off)
        torch.addcmul(self._values, self._off, self._slopes, out=self._live)
        # The driver's own writes are added; an external one in between stays a difference.
        self.version += self._live._version - before  # noqa: SLF001  torch has no public name for it


class ClockEngine(ScheduleEngine):
    """Live values of a table on a clock: as ScheduleEngine, but what it reads at is counted.

    Example:
        >>> import tensorsched as ts
        >>> from tensorsched.engine.clock_table import tabulate_on_clock
        >>> engine = ClockEngine(tabulate_on_clock({"w": ts.linear(0.0, 1.0, steps=1000)}, ts.clock("tokens")))
        >>> engine.count(100), engine.count(150), engine.value("w").item()
        (None, None, 0.0)
        >>> engine.advance(), engine.where, engine.value("w").item()
        (None, Where(position=250, steps=1, counted=250), 0.25)
    """

    table: ClockTable  # type: ignore[assignment]  # the other table, with the same questions
    driver: CpuClock | DeviceClock  # type: ignore[assignment]  # as above

    @classmethod
    def of(cls, table: ClockTable) -> ClockEngine:
        """The engine of a table."""
        return cls(table)  # type: ignore[arg-type]  # its own kind of table

    @staticmethod
    def _driver(table: ClockTable, live: torch.Tensor) -> CpuClock | DeviceClock:  # type: ignore[override]
        return (CpuClock if table.device.type == "cpu" else DeviceClock)(table, live)

    def extended(self, table: Any) -> None:
        """There is none: more schedules have an engine of their own, with the same counts."""

    def count(self, n: int | torch.Tensor) -> None:
        """Count n units for the step that comes. Does not synchronise."""
        self.driver.count(n)

    def count_to(self, position: int) -> None:
        """Have counted up to this position. Does not synchronise."""
        self.driver.count_to(position)

    def count_in_graph(self, n: int | torch.Tensor) -> None:
        """As `count`, in plain tensor operations: for code that torch.compile traces."""
        self.driver.count_in_graph(n)

    def drop(self) -> None:
        """Forget what was counted for a step that was not made. Does not synchronise."""
        self.driver.drop()

    def seek(self, step: int) -> None:
        """Go to a position; the step count stays as it is. Synchronises where the device is not a CPU."""
        position = check_count("seek: position", step)
        self.go(Where(position, self.step_count, position))

    def go(self, where: Where) -> None:
        """Be there. Does not synchronise."""
        self.driver.go(where)
        self.written()

    def advance_in_graph(self, found_inf: torch.Tensor | None = None) -> None:
        """As `advance`, in plain tensor operations: for code that torch.compile traces. Does not synchronise."""
        self.driver.advance_in_graph(found_inf)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What a graph reads and writes in place."""
        return (self.live, *self.driver.tensors)

    @property
    def where(self) -> Where:
        """The counts. Synchronises where the device is not a CPU."""
        return self.where_from(self.driver.state.tolist())

    @property
    def step_count(self) -> int:
        """Number of completed steps. Synchronises where the device is not a CPU."""
        return int(self.driver.state[_STEPS].item())

    def where_from(self, numbers: list[int]) -> Where:
        """What `clock` holds, once it is read."""
        return Where(*numbers[:_USED])

    def used(self) -> dict[str, float]:
        """By name what the last step that was made here used. Synchronises where the device is not a CPU."""
        return _used(self.table, int(self.driver.state[_USED].item()))

    def forget_used(self) -> None:
        """No step was made here. Does not synchronise."""
        self.driver.forget_used()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (ClockEngine, self.table, self.where)


def _used(table: ClockTable, position: int) -> dict[str, float]:
    """The values at the position of the last step, as they were rounded."""
    if position == _NONE:
        return {}
    row = torch.from_numpy(table.at(position)).to(table.dtype).tolist()
    return {name: row[column] for name, column in table.live_column.items()}


def _again(kind: type[Any], table: ClockTable, where: Where) -> Any:
    """A copied or unpickled engine, at the same counts."""
    engine = kind(table)
    engine.go(where)
    return engine


class ClockFloatEngine(FloatEngine):
    """The same for values that are wanted as Python floats: no tensor at all."""

    table: ClockTable  # type: ignore[assignment]  # the other table, with the same questions

    def __init__(self, table: ClockTable) -> None:
        self.table = table
        self.step_count = self.position = self.counted = 0
        self._used = _NONE
        self._read = reader(table)

    def count(self, n: int | torch.Tensor) -> None:
        """Count n units for the step that comes."""
        self.counted += int(n)

    def count_to(self, position: int) -> None:
        """Have counted up to this position."""
        self.counted = position

    def drop(self) -> None:
        """Forget what was counted for a step that was not made."""
        self.counted = self.position

    def seek(self, step: int) -> None:
        """Go to a position; the step count stays as it is."""
        self.position = self.counted = step

    def go(self, where: Where) -> None:
        """Be there."""
        self.position, self.step_count, self.counted = where

    @property
    def where(self) -> Where:
        """The counts."""
        return Where(self.position, self.step_count, self.counted)

    def reload(self) -> None:
        """The table's contents were replaced."""
        self._read = reader(self.table)

    def row(self) -> list[float]:
        """The present value of every live column."""
        return self._read(self.position)

    def reading(self) -> Callable[[int], list[float]]:
        """The function that gives the same at any position. Ask for another one after `reload`."""
        return self._read

    def made(self) -> None:
        """A step is made: what was counted is the position."""
        self._used, self.position = self.position, self.counted
        self.step_count += 1

    def following(self) -> Iterator[list[float]]:
        """The row of each step that is made, when it is asked for: what was counted until then decides."""
        while True:
            self._used, self.position = self.position, self.counted
            yield self.row()

    def used(self) -> dict[str, float]:
        """By name what the last step that was made here used."""
        return _used(self.table, self._used)

    def forget_used(self) -> None:
        """No step was made here."""
        self._used = _NONE

    def count_in_graph(self, n: int | torch.Tensor) -> NoReturn:
        """A graph has no floats."""
        raise ScheduleError(f"a graph would count {n} once and for ever for a float slot")

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (ClockFloatEngine, self.table, self.where)

    def _pieces(self, row: int) -> NoReturn:
        raise ScheduleError(f"no row is known ahead of the count, {row} neither")

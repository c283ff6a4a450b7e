"""The step counter, the table and the live values.

The engine owns three tensors on the table's device: the step counter (int64, the only truth about where we are), the
data, and `live`, a (1, K) buffer that always holds the row of the present step. Every value handed out is a 0-dim view
of `live`: allocated once, only ever filled.

`advance()` never synchronises. On a CPU it is a copy of the row's bytes into live's memory, whatever the number of
values. On a device it is two kernels, one that counts and one that copies the row, and a third that multiplies where
the table is scaled.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from tensorsched.engine.clock import Where
from tensorsched.engine.drivers import Driver, Gather, driver
from tensorsched.engine.table import ScheduleTable
from tensorsched.errors import ScheduleError
from tensorsched.schedules.validators import check_count

__all__ = ["FloatEngine", "ScheduleEngine"]

_PIECE = (
    1 << 14
)  # bytes of rows that are taken from a table at once: where they are products, they are computed then


class ScheduleEngine:
    """Reads a table by its own step counter. Nothing here synchronises where it does not say so.

    Args:
        table: from `tabulate`.
        room: how many live values more an `extended` engine may have.

    Raises:
        ScheduleError: the table does not fit into the device's memory.

    Example:
        >>> import tensorsched as ts
        >>> engine = ts.ScheduleEngine(ts.tabulate({"kl_weight": ts.linear(0.0, 1.0, steps=4)}))
        >>> weight = engine.value("kl_weight")
        >>> engine.advance(), weight.item(), engine.step_count
        (None, 0.25, 1)
        >>> engine.seek(10**12), weight.item(), engine.step_count
        (None, 1.0, 1000000000000)
    """

    def __init__(self, table: ScheduleTable, *, room: int = 0) -> None:
        with torch.inference_mode(mode=False):  # its tensors would have no version counter
            buffer = _shareable(torch.zeros(1, table.columns + room, dtype=table.dtype, device=table.device))
            self._allocate(table, buffer, ())
        self.seek(0)

    def _allocate(self, table: ScheduleTable, buffer: torch.Tensor, cells: Sequence[torch.Tensor]) -> None:
        self.table, self._buffer = table, buffer
        self.live = buffer if table.columns == buffer.shape[1] else buffer.narrow(1, 0, table.columns)
        self._cells = (*cells, *self.live.view(-1).unbind(0)[len(cells) :])
        self.driver = self._driver(table, self.live)

    @staticmethod
    def _driver(table: ScheduleTable, live: torch.Tensor) -> Driver:
        return driver(table, live)

    @property
    def room(self) -> int:
        """How many live values more an `extended` engine may have."""
        return int(self._buffer.shape[1]) - self.table.columns

    def extended(self, table: ScheduleTable) -> ScheduleEngine | None:
        """An engine of more schedules, whose first live values are those of this one, the same tensors.

        One of the two moves at a time: it takes over by `seek`, without which it must not be used.

        Returns:
            None where there is no room, the table has this one's schedules in other columns, or others share a stored
            column with them: `rewrite` would have to change both.
        """
        known = self.table.live_column
        old = {name: at for name, at in table.live_column.items() if at < self.table.columns}
        if table.columns > self._buffer.shape[1] or table.layout.factors is not None or old != known:
            return None
        engine = ScheduleEngine.__new__(ScheduleEngine)
        with torch.inference_mode(mode=False):
            engine._allocate(table, self._buffer, self._cells)  # noqa: SLF001  another one of this class
        return engine

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one completed step and fill `live` with the next row. Does not synchronise.

        Args:
            found_inf: as GradScaler leaves it on a fused optimizer: a tensor on this device, not 0 if the optimizer
                step was skipped; then the counter stays where it is (decided on the device).
        """
        self.driver.advance(found_inf)

    def seek(self, step: int) -> None:
        """Set the step counter to `step` and fill `live` with its row. Does not synchronise.

        Raises:
            ScheduleError: step is negative or not an int.
        """
        self.driver.seek(check_count("seek: step", step))
        self.written()

    def advance_in_graph(self, found_inf: torch.Tensor | None = None) -> None:
        """As `advance`, in plain tensor operations: for code that torch.compile traces. Does not synchronise.

        What ran it in a graph calls `written` afterwards, or the next `intact` takes the graph's write for an external
        one.
        """
        self._gather.fill(self.driver.count_in_graph(found_inf))

    def written(self) -> None:
        """Take what live holds now for the engine's own writing."""
        self.driver.version = self.live._version  # noqa: SLF001  torch has no public name for it

    def reload(self, table: ScheduleTable | None = None) -> None:
        """Read the table again, whose contents were replaced, at the same step; or read a longer one instead.

        A longer one is another tensor, and brings another counter: no graph may hold the old ones. The live values
        stay the tensors that they are.

        The copy of the table synchronises, where its device is not a CPU.
        """
        if table is None or table is self.table:
            self.driver.reload()
            self.written()
            return
        step = self.step_count
        self.table, self.driver = table, driver(table, self.live)
        self.__dict__.pop("_gather", None)
        self.seek(step)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What a graph reads and writes in place: they stay where they are as long as the engine lives."""
        return (self.live, *self.driver.tensors, *self._gather.tensors)

    @functools.cached_property
    def _gather(self) -> Gather:
        return Gather(self.table, self.driver.data, self.live)

    def intact(self) -> bool:
        """Whether nobody but the engine has written to `live` (through any of its views). Does not synchronise.

        It compares the tensor's version counter, which every in-place operation of torch raises.
        """
        return bool(self.live._version == self.driver.version)  # noqa: SLF001  torch has no public name for it

    @property
    def column_of(self) -> Mapping[str, int]:
        """For each name, which of the live values is its."""
        return self.table.live_column

    def current(self) -> torch.Tensor:
        """The live values, (K,)."""
        return self.live.view(-1)

    @property
    def step_count(self) -> int:
        """Number of completed steps, read from the step counter. Synchronises where the device is not a CPU."""
        return self.driver.read()

    @property
    def known_steps(self) -> int | None:
        """The same without a synchronisation: None where only the device knows, because a graph counted there."""
        return self.driver.known

    @property
    def clock(self) -> torch.Tensor:
        """The int64 step counter, shape (1,), on the device. Move it with `seek`, not by hand."""
        return self.driver.clock

    @property
    def where(self) -> Where:
        """The step counter as a clock's counts. Synchronises where the device is not a CPU."""
        return Where.at_step(self.step_count)

    def where_from(self, numbers: list[int]) -> Where:
        """The same from what `clock` holds, once it is read."""
        return Where.at_step(numbers[0])

    def go(self, where: Where) -> None:
        """Go to the step where a run stands. Does not synchronise."""
        self.seek(where.steps)

    def value(self, name: str) -> torch.Tensor:
        """The live value of `name`: a 0-dim tensor that is always current. Does not synchronise.

        It is a view that the engine fills; read it, do not write to it. Clone it to keep a value.

        Raises:
            ScheduleError: the table has no such name.
        """
        if name not in self.table.live_column:
            known = ", ".join(map(repr, self.table.live_column))
            raise ScheduleError(f"the table has no schedule named {name!r}; it has {known}")
        return self._cells[self.table.live_column[name]]

    def __repr__(self) -> str:
        return f"ScheduleEngine({self.table!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.table, self.step_count)


def _shareable(buffer: torch.Tensor) -> torch.Tensor:
    """Live values in memory that another process can see: a worker of a DataLoader that holds one reads it as it is.

    In memory of its own, a tensor that is sent to another process is moved, and its views with it, away from where the
    driver writes.
    """
    if buffer.device.type == "cpu":
        with contextlib.suppress(
            RuntimeError, OSError
        ):  # no shared memory here: then nothing can be sent, either
            buffer.share_memory_()
    return buffer


def _again(table: ScheduleTable, step: int) -> ScheduleEngine:
    """A copied or unpickled engine: the same table, its own step counter and live values."""
    engine = ScheduleEngine(table)
    engine.seek(step)
    return engine


class FloatEngine:
    """The same for values that are wanted as Python floats: a step count and rows of the table, no tensor at all.

    Args:
        table: from `tabulate`, on the CPU; in float64 for exact values.

    Attributes:
        step_count: number of completed steps.
    """

    def __init__(self, table: ScheduleTable) -> None:
        self.table = table
        self.step_count = 0

    @property
    def where(self) -> Where:
        """The step counter as a clock's counts."""
        return Where.at_step(self.step_count)

    def go(self, where: Where) -> None:
        """Go to the step where a run stands."""
        self.seek(where.steps)

    def seek(self, step: int) -> None:
        """Set the step counter to `step`, an int >= 0."""
        self.step_count = step

    def reload(self) -> None:
        """The table's contents were replaced: nothing of them is kept here."""

    @property
    def column_of(self) -> Mapping[str, int]:
        """For each name, where in a row its value is."""
        return self.table.live_column

    def row(self) -> Sequence[float]:
        """The present value of every live column."""
        row = min(self.step_count, self.table.last)
        return tuple(self.table.layout.block(row, row + 1)[0].tolist())

    def following(self) -> Iterator[Sequence[float]]:
        """The rows of the steps after the present one, for ever: the last row stays.

        They are unpacked from the table in pieces, so that a table of 10**7 steps costs no list of 10**7. Ask for
        another iterator after `seek` and `reload`.
        """
        return itertools.chain.from_iterable(self._pieces(self.step_count + 1))

    def _pieces(self, row: int) -> Iterator[Iterable[tuple[float, ...]]]:
        table = self.table
        # Rows as tuples straight from the bytes: numpy makes a list of each row, or of each column, on the way.
        unpacker = struct.Struct(f"{table.columns}{table.host.dtype.char}")
        span = max(1, _PIECE // unpacker.size)
        while row < table.last:
            stop = min(row + span, table.last)
            # The array itself: a memoryview in a circle that is collected while an iterator reads it ends the process
            # (CPython clears it, whoever has its buffer).
            rows: Any = table.layout.block(row, stop)
            yield unpacker.iter_unpack(rows)
            row = stop
        yield itertools.repeat(unpacker.unpack(table.layout.block(table.last, table.rows).data))

"""L4: the clock, the table and the live values. Knows nothing of optimizers.

The engine owns three tensors on the table's device: the clock (int64, the number of completed steps, the only truth
about where we are), the data, and `live`, a (1, K) buffer that always holds the row of the clock's step. Every value
handed out is a 0-dim view of `live`: allocated once, only ever filled.

`advance()` never synchronises. On a CPU it is a copy of the row's bytes into live's memory (about a microsecond,
whatever the number of values). On a device it is two kernels, one that counts and one that copies the row, and a third
that multiplies where the table is scaled.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from tensorsched.engine.table import ScheduleTable
from tensorsched.errors import ScheduleError
from tensorsched.schedules.validators import MAX_STEPS, check_count

__all__ = ["ScheduleEngine"]


class ScheduleEngine:
    """Reads a table by its own clock.

    Args:
        table: from `tabulate`.

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

    def __init__(self, table: ScheduleTable) -> None:
        self.table = table
        with torch.inference_mode(mode=False):  # its tensors would have no version counter
            self._allocate(table)
        self.seek(0)

    def _allocate(self, table: ScheduleTable) -> None:
        self.live = torch.zeros(1, table.columns, dtype=table.dtype, device=table.device)
        self._cells = self.live.view(-1).unbind(0)
        on_host = _HostDriver if table.factors is None else _ScaledHostDriver
        self._driver: _Driver = (on_host if table.device.type == "cpu" else DeviceDriver)(table, self.live)

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one completed step and fill `live` with the next row. Does not synchronise.

        Args:
            found_inf: as GradScaler leaves it on a fused optimizer: a tensor on this device, not 0 if the optimizer
                step was skipped; then the clock stays where it is (decided on the device).
        """
        self._driver.advance(found_inf)

    def seek(self, step: int) -> None:
        """Set the clock to `step` and fill `live` with its row. Does not synchronise.

        Raises:
            ScheduleError: step is negative or not an int.
        """
        self._driver.seek(check_count("seek: step", step))
        self.written()

    def advance_in_graph(self, found_inf: torch.Tensor | None = None) -> None:
        """As `advance`, in plain tensor operations: for code that torch.compile traces. Does not synchronise.

        What ran it in a graph calls `written` afterwards, or the next `intact` takes the graph's write for a foreign
        one.
        """
        self._gather.fill(self._driver.count_in_graph(found_inf))

    def written(self) -> None:
        """Take what live holds now for the engine's own writing."""
        self._driver.version = self.live._version  # noqa: SLF001  torch has no public name for it

    def reload(self) -> None:
        """Read the table again, whose contents were replaced, at the same step. Does not synchronise."""
        self._driver.reload()
        self.written()

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What a graph reads and writes in place: they stay where they are as long as the engine lives."""
        return (self.live, *self._driver.tensors, *self._gather.tensors)

    @functools.cached_property
    def _gather(self) -> _Gather:
        return _Gather(self.table, self._driver.data, self.live)

    def intact(self) -> bool:
        """Whether nobody but the engine has written to `live` (through any of its views). Does not synchronise.

        It compares the tensor's version counter, which every in-place operation of torch raises.
        """
        return bool(self.live._version == self._driver.version)  # noqa: SLF001  torch has no public name for it

    @property
    def step_count(self) -> int:
        """Number of completed steps, read from the clock. Synchronises where the device is not a CPU."""
        return int(self._driver.clock.item())

    @property
    def clock(self) -> torch.Tensor:
        """The int64 clock, shape (1,), on the device. Move it with `seek`, not by hand."""
        return self._driver.clock

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


def _again(table: ScheduleTable, step: int) -> ScheduleEngine:
    """A copied or unpickled engine: the same table, its own clock and live values."""
    engine = ScheduleEngine(table)
    engine.seek(step)
    return engine


class HostEngine:
    """The same for values that are wanted as Python floats: a step count and rows of the table, no tensor at all.

    Args:
        table: from `tabulate`, on the CPU; in float64 for exact values.
    """

    def __init__(self, table: ScheduleTable) -> None:
        self.table = table
        self.step_count = 0
        self._last = table.rows - 1
        self._rows = memoryview(table.host.data).cast("B")
        # Unpacking a row from its bytes costs less than numpy's row[i].tolist().
        self._row = struct.Struct(f"{table.columns}{table.host.dtype.char}")

    def advance(self) -> None:
        """Count one completed step."""
        self.step_count += 1

    def seek(self, step: int) -> None:
        """Set the clock to `step`, an int >= 0."""
        self.step_count = step

    def reload(self) -> None:
        """The table's contents were replaced: nothing of them is kept here."""

    def row(self) -> Sequence[float]:
        """The current value of every live column."""
        step, table = self.step_count, self.table
        at = step if step < self._last else self._last  # noqa: FURB136  min() costs more
        if table.source is None or table.factors is None:
            return self._row.unpack_from(self._rows, at * self._row.size)
        return (table.host[table.source, at] * table.factors).tolist()  # type: ignore[no-any-return]


class _Driver(Protocol):
    clock: torch.Tensor
    version: int  # live's version counter when the driver last wrote to it
    data: torch.Tensor  # the table, in its own layout
    tensors: tuple[torch.Tensor, ...]  # its state

    def advance(self, found_inf: torch.Tensor | None = None) -> None: ...

    def count_in_graph(self, found_inf: torch.Tensor | None) -> torch.Tensor: ...

    def seek(self, step: int) -> None: ...

    def reload(self) -> None: ...


class _Gather:
    """The formula of a look-up in tensor operations, for graphs: live = row(min(step, last)) of either layout.

    live is read and written as a whole, never through views that are inputs of the graph: those would all be copied.
    """

    def __init__(self, table: ScheduleTable, data: torch.Tensor, live: torch.Tensor) -> None:
        self._live, self._last, self._data = live, table.rows - 1, data
        self.tensors: tuple[torch.Tensor, ...] = (data,)
        self._starts: torch.Tensor | None = None
        if table.source is not None and table.factors is not None:
            self._starts = torch.from_numpy(table.source * table.rows).to(table.device)
            self._factors = torch.from_numpy(table.factors).to(table.device)
            self.tensors += (self._starts, self._factors)

    def fill(self, step: torch.Tensor) -> None:
        """Put the row of `step`, an int64 tensor of shape (1,), into live."""
        row = torch.clamp(step, max=self._last)
        if self._starts is None:
            self._live.copy_(torch.index_select(self._data, 0, row))
        else:
            base = torch.index_select(self._data.view(-1), 0, self._starts + row)
            self._live.copy_((base * self._factors).view(1, -1))


def _count(found_inf: torch.Tensor | None) -> torch.Tensor | int:
    """What a step adds to the clock: 1, or as a tensor of shape (1,), 0 where the step was skipped."""
    return 1 if found_inf is None else (found_inf.reshape(1) == 0).to(torch.int64)


class _HostClock:
    """A clock in CPU memory, counted through a memoryview: indexing one gives a Python int and costs the least."""

    version = 0

    def __init__(self, table: ScheduleTable) -> None:
        self.clock = torch.zeros(1, dtype=torch.int64, device="cpu")
        self.data = table.to_device()
        self.tensors: tuple[torch.Tensor, ...] = (self.clock,)
        self._count = memoryview(self.clock.numpy().data)
        self._last = table.rows - 1

    def count_in_graph(self, found_inf: torch.Tensor | None) -> torch.Tensor:
        return self.clock.add_(_count(found_inf))

    def seek(self, step: int) -> None:
        raise NotImplementedError

    def reload(self) -> None:
        self.seek(self._count[0])


class _HostDriver(_HostClock):
    """Clock and live values in CPU memory, written through views of the tensors' memory.

    Copying a slice of bytes is a memcpy without numpy's set-up. live's version counter does not see these writes: every
    change of it is a foreign one (or a graph's).
    """

    def __init__(self, table: ScheduleTable, live: torch.Tensor) -> None:
        super().__init__(table)
        self._live = memoryview(live.numpy().data).cast("B")
        self._rows = memoryview(table.host.data).cast("B")
        self._width = live.numel() * live.element_size()

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        if found_inf is not None and found_inf.item() != 0:
            return
        step = self._count[0] + 1
        self._count[0] = step
        at = (step if step < self._last else self._last) * self._width  # noqa: FURB136  min() costs more
        self._live[:] = self._rows[at : at + self._width]

    def seek(self, step: int) -> None:
        self._count[0] = step
        at = min(step, self._last) * self._width
        self._live[:] = self._rows[at : at + self._width]


class _ScaledHostDriver(_HostClock):
    """As _HostDriver, for a scaled table: a row is gathered and multiplied in float64, then rounded into live."""

    def __init__(self, table: ScheduleTable, live: torch.Tensor) -> None:
        super().__init__(table)
        self._live = live.numpy()[0]
        self._host = table.host
        self._factors = np.asarray(table.factors)
        self._source = None if table.host.shape[0] == 1 else table.source  # a single column is broadcast

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        if found_inf is None or found_inf.item() == 0:
            self.seek(self._count[0] + 1)

    def seek(self, step: int) -> None:
        self._count[0] = step
        row = min(step, self._last)
        base = self._host[:, row] if self._source is None else self._host[self._source, row]
        np.multiply(base, self._factors, out=self._live, casting="same_kind")


class DeviceDriver:
    """Clock and live values in device memory, moved by kernels alone.

    One int64 tensor holds the clock and, behind it, the index of each entry to read: [step, row] for a table in the
    equal layout, [step, source_0 * rows + row, ...] for a scaled one. All of them grow by 1 a step, the indices up
    to their last row, where they stay: an index out of range would be a device assert. "Add 1, but not beyond the
    limit" is one kernel by way of nextafter: the bits of positive float64 numbers, read as integers, count up
    through all of them, and nextafter(x, limit) steps to the next one or stays at the limit. (Counting and clamping
    would be two kernels.)
    """

    def __init__(self, table: ScheduleTable, live: torch.Tensor) -> None:
        device, last = table.device, table.rows - 1
        starts = np.zeros(1, dtype=np.int64) if table.source is None else table.source * table.rows
        self._table = table
        self._starts = torch.from_numpy(starts).to(device)
        self._last = last
        self._state = torch.zeros(1 + len(starts), dtype=torch.int64, device=device)
        self._limit = torch.from_numpy(np.concatenate(([MAX_STEPS], starts + last))).to(device)
        self._state_bits, self._limit_bits = self._state.view(torch.float64), self._limit.view(torch.float64)
        self.clock, self._index = self._state.split([1, len(starts)])
        self.tensors: tuple[torch.Tensor, ...] = (self._state, self._limit)
        self.data = table.to_device()
        self._rows = self.data if table.source is None else self.data.view(-1, 1)
        self._live = live
        self.version = live._version  # noqa: SLF001  torch has no public name for it
        self._factors: torch.Tensor | None = None
        self._read = live
        if table.factors is not None:
            self._factors = torch.from_numpy(table.factors).to(device).view(1, -1)
            self._read = torch.zeros_like(self._factors).view(-1, 1)
        self._by_nextafter = _nextafter_counts(device)

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        if found_inf is None and self._by_nextafter:
            torch.nextafter(self._state_bits, self._limit_bits, out=self._state_bits)
        else:
            torch.minimum(self._state + _count(found_inf), self._limit, out=self._state)
        self._fill()

    def count_in_graph(self, found_inf: torch.Tensor | None) -> torch.Tensor:
        moved = torch.minimum(self._state + _count(found_inf), self._limit)
        self._state.copy_(moved)
        return moved[:1]

    def reload(self) -> None:
        self.data.copy_(torch.from_numpy(self._table.host))
        self._fill()

    def seek(self, step: int) -> None:
        self.clock.fill_(step)
        torch.add(self._starts, min(step, self._last), out=self._index)
        self._fill()

    def _fill(self) -> None:
        before = self._live._version  # noqa: SLF001  torch has no public name for it
        torch.index_select(self._rows, 0, self._index, out=self._read)
        if self._factors is not None:
            torch.mul(self._read.view(1, -1), self._factors, out=self._live)
        # The driver's own writes are added; a foreign one in between stays a difference.
        self.version += self._live._version - before  # noqa: SLF001  torch has no public name for it


@functools.cache
def _nextafter_counts(device: torch.device) -> bool:
    """Whether nextafter steps through the bit patterns on this device (subnormals kept, limit respected)."""
    start, limit = [0, 1, 2**40, 2**52 - 1, 7, 0], [9, 2, 2**53, 2**53, 7, 0]
    expected = [1, 2, 2**40 + 1, 2**52, 7, 0]
    try:
        state = torch.tensor(start, dtype=torch.int64, device=device)
        bound = torch.tensor(limit, dtype=torch.int64, device=device)
        bits = state.view(torch.float64)
        torch.nextafter(bits, bound.view(torch.float64), out=bits)
        return bool(state.tolist() == expected)
    except (RuntimeError, NotImplementedError):  # no float64, or no such kernel, on this device
        return False

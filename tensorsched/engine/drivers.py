"""How an engine moves: the step counter and the live values, in CPU memory or in that of a device.

A driver has

    clock      the step counter, int64, shape (1,)
    data       the table's numbers, in its own layout
    on_host    whether the counter is in memory that the host reads
    captured   whether a CUDA graph advances it, which holds these tensors' addresses
    read       the step counter as an int
    known      the same without a synchronisation, None where only the device has it
    tensors    its state: what a graph reads and writes in place
    version    the live values' version counter when the driver last wrote to them
    advance    count one step, unless `found_inf` is not 0, and fill the live values: what runs at every step

and never synchronises (but for `found_inf` on a CPU, where there is nothing to wait for).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from tensorsched.engine.table import ScheduleTable
from tensorsched.schedules.validators import MAX_STEPS

_WINDOW = 1 << 16  # bytes of rows that a CPU driver keeps ready, where they have to be computed


def _count(found_inf: torch.Tensor | None) -> torch.Tensor | int:
    """What a step adds to the counter: 1, or as a tensor of shape (1,), 0 where the step was skipped."""
    return 1 if found_inf is None else (found_inf.reshape(1) == 0).to(torch.int64)


class CpuDriver:
    """Step counter and live values in CPU memory, written through views of the tensors' memory.

    Indexing a memoryview gives a Python int and costs the least; copying a slice of bytes is a memcpy without numpy's
    set-up. The live values' version counter does not see these writes: every change of it is an external one (or a
    graph's).
    """

    advance: Callable[[torch.Tensor | None], None]

    on_host = True
    captured = False  # by a graph that counts without us: of no concern, since the count is read where it is

    def __init__(self, table: ScheduleTable, live: torch.Tensor) -> None:
        self.version = 0
        self.clock = torch.zeros(1, dtype=torch.int64, device="cpu")
        self.data = table.to_device()
        self.tensors: tuple[torch.Tensor, ...] = (self.clock,)
        self._count = memoryview(self.clock.numpy().data)
        self._build(table, memoryview(live.numpy().data).cast("B"))

    def read(self) -> int:
        """The step counter."""
        return int(self._count[0])

    known = property(read)
    """The same."""

    def lose_count(self) -> None:
        """Somebody else counts: the counter has it."""

    def _build(self, table: ScheduleTable, live: memoryview) -> None:
        """Make `advance` and `_fill`: two functions over the same rows, so that neither looks anything up."""
        count, last, width, layout = self._count, table.last, live.nbytes, table.layout
        # A stored column is a row for every step: all of them are there. Products are computed a window at a time.
        span = table.rows if layout.factors is None else max(1, _WINDOW // width)
        low = high = 0
        rows = live

        def fill(step: int) -> None:
            nonlocal low, high, rows
            low = min(step, last)
            low -= low % span
            high = min(low + span, table.rows)
            rows = memoryview(layout.block(low, high).data).cast("B")
            at = (min(step, last) - low) * width
            live[:] = rows[at : at + width]

        def advance(found_inf: torch.Tensor | None = None) -> None:
            if found_inf is not None and found_inf.item() != 0:
                return
            step = count[0] + 1
            count[0] = step
            row = step if step < last else last  # noqa: FURB136  min() costs more
            if row >= high:
                fill(step)
            else:
                at = (row - low) * width
                live[:] = rows[at : at + width]

        self.advance, self._fill = advance, fill

    def count_in_graph(self, found_inf: torch.Tensor | None) -> torch.Tensor:
        """Count one step in tensor operations that are traced; the new count."""
        return self.clock.add_(_count(found_inf))

    def seek(self, step: int) -> None:
        """Set the counter and fill the live values."""
        self._count[0] = step
        self._fill(step)

    def reload(self) -> None:
        """Read the table again, at the same step."""
        self._fill(self._count[0])


class DeviceDriver:
    """Step counter and live values in device memory, moved by kernels alone.

    One int64 tensor holds the counter and, behind it, the index of each entry to read: [step, row] for a table in the
    equal layout, [step, source_0 * rows + row, ...] for a scaled one. All of them grow by 1 a step, the indices up
    to their last row, where they stay: an index out of range would be a device assert. "Add 1, but not beyond the
    limit" is one kernel by way of nextafter: the bits of positive float64 numbers, read as integers, count up
    through all of them, and nextafter(x, limit) steps to the next one or stays at the limit. (Counting and clamping
    would be two kernels.)
    """

    on_host = False

    def __init__(self, table: ScheduleTable, live: torch.Tensor) -> None:
        device, layout = table.device, table.layout
        self._table, self._live = table, live
        self._starts = torch.from_numpy(layout.starts).to(device)
        self._state = torch.zeros(1 + len(self._starts), dtype=torch.int64, device=device)
        self._limit = torch.from_numpy(np.concatenate(([MAX_STEPS], layout.starts + table.last))).to(device)
        self._state_bits, self._limit_bits = self._state.view(torch.float64), self._limit.view(torch.float64)
        self.clock, self._index = self._state.split([1, len(self._starts)])
        self.tensors: tuple[torch.Tensor, ...] = (self._state, self._limit)
        self.data = table.to_device()
        self._entries = layout.entries(self.data)
        self.version = live._version  # noqa: SLF001  torch has no public name for it
        self._factors: torch.Tensor | None = None
        self._read = live
        if layout.factors is not None:
            self._factors = torch.from_numpy(layout.factors).to(device).view(1, -1)
            self._read = torch.zeros_like(self._factors).view(-1, 1)
        self._by_nextafter = _nextafter_counts(device)
        self.captured = False  # by a graph that counts whenever it is replayed
        self._counted, self._sure = (
            0,
            True,
        )  # the same count on the host, while nothing is decided on the device

    def read(self) -> int:
        """The step counter. Waits for the device."""
        self._counted, self._sure = int(self.clock.item()), True
        return self._counted

    @property
    def known(self) -> int | None:
        """The same without waiting; None where only the device knows."""
        return self._counted if self._sure and not self.captured else None

    def lose_count(self) -> None:
        """Somebody else counts, on the device."""
        self._sure = False

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one step, unless `found_inf` is not 0, and fill the live values."""
        self._counted += 1
        if found_inf is None and self._by_nextafter:
            torch.nextafter(self._state_bits, self._limit_bits, out=self._state_bits)
        else:
            if found_inf is not None:
                self._sure = False
                # GradScaler leaves it on the loss's device, another one where a model is spread over several.
                found_inf = found_inf.to(self.clock.device)
            torch.minimum(self._state + _count(found_inf), self._limit, out=self._state)
        self._fill()

    def count_in_graph(self, found_inf: torch.Tensor | None) -> torch.Tensor:
        """Count one step in tensor operations that are traced; the new count."""
        moved = torch.minimum(self._state + _count(found_inf), self._limit)
        self._state.copy_(moved)
        return moved[:1]

    def reload(self) -> None:
        """Read the table again, at the same step. The copy from main memory waits for the device."""
        self.data.copy_(torch.from_numpy(self._table.host))
        self._fill()

    def seek(self, step: int) -> None:
        """Set the counter and fill the live values."""
        self._counted, self._sure = step, True
        self.clock.fill_(step)
        torch.add(self._starts, min(step, self._table.last), out=self._index)
        self._fill()

    def _fill(self) -> None:
        before = self._live._version  # noqa: SLF001  torch has no public name for it
        torch.index_select(self._entries, 0, self._index, out=self._read)
        if self._factors is not None:
            torch.mul(self._read.view(1, -1), self._factors, out=self._live)
        # The driver's own writes are added; an external one in between stays a difference.
        self.version += self._live._version - before  # noqa: SLF001  torch has no public name for it


class Gather:
    """The formula of a look-up in tensor operations, for graphs: live = row(min(step, last)) of either layout.

    The live values are read and written as a whole, never through views that are inputs of the graph: those would all
    be copied.
    """

    def __init__(self, table: ScheduleTable, data: torch.Tensor, live: torch.Tensor) -> None:
        self._live, self._last, self._entries = live, table.last, table.layout.entries(data)
        self.tensors: tuple[torch.Tensor, ...] = (data,)
        self._factors: torch.Tensor | None = None
        if table.layout.factors is not None:
            self._starts = torch.from_numpy(table.layout.starts).to(table.device)
            self._factors = torch.from_numpy(table.layout.factors).to(table.device)
            self.tensors += (self._starts, self._factors)

    def fill(self, step: torch.Tensor) -> None:
        """Put the row of `step`, an int64 tensor of shape (1,), into the live values."""
        row = torch.clamp(step, max=self._last)
        if self._factors is None:
            self._live.copy_(torch.index_select(self._entries, 0, row))
        else:
            base = torch.index_select(self._entries.view(-1), 0, self._starts + row)
            self._live.copy_((base * self._factors).view(1, -1))


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


Driver = CpuDriver | DeviceDriver


def driver(table: ScheduleTable, live: torch.Tensor) -> Driver:
    """The driver for the table's device."""
    return CpuDriver(table, live) if table.device.type == "cpu" else DeviceDriver(table, live)

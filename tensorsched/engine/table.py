"""ScheduleTable: schedules compiled to a tensor indexed by step.

A table holds the rows for steps 0..last; `last` is the step from which no schedule changes any more, so the row at
min(step, last) is right for every step. Values are computed in float64 and rounded once. Equal columns are stored once,
and one live value serves all that read it; how, is the layout's business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch

from tensorsched.engine.layouts import Array, Layout, Scaled
from tensorsched.engine.memory import does_not_fit, free_bytes, readable
from tensorsched.schedules import Schedule

__all__ = ["ScheduleTable"]


@dataclasses.dataclass(frozen=True, eq=False)
class ScheduleTable:
    """Schedules compiled for one device; made by `tabulate`, read by `ScheduleEngine`. Nothing here synchronises.

    Nothing is on the device until `to_device` is called (by the engine); `nbytes` is known before.

    Attributes:
        schedules: the schedule of each name.
        live_column: index into the live values for each name; names with equal columns share one.
        rows: number of rows; the last one is right for every later step.
        device: where the tensors will be.
        dtype: of the live values, float32 or float64.
        layout: the numbers, as numpy arrays.

    Example:
        >>> import tensorsched as ts
        >>> table = ts.tabulate({"kl": ts.linear(0.0, 1.0, steps=4)})
        >>> table.rows, table.nbytes, table.to_device().flatten().tolist()
        (5, 20, [0.0, 0.25, 0.5, 0.75, 1.0])
    """

    schedules: dict[str, Schedule]
    live_column: Mapping[str, int]
    rows: int
    device: torch.device
    dtype: torch.dtype
    layout: Layout

    clock: ClassVar[None] = None  # rows are steps

    @property
    def columns(self) -> int:
        """Number of live values, K."""
        return self.layout.columns

    @property
    def nbytes(self) -> int:
        """Bytes on the device, known before anything is allocated there."""
        return self.layout.nbytes

    @property
    def host(self) -> Array:
        """The stored numbers in main memory, in the layout of the device tensor."""
        return self.layout.data

    @property
    def last(self) -> int:
        """The last row, which is right for every later step."""
        return self.rows - 1

    def value(self, name: str, step: int) -> float:
        """The value of a name at a step, before it is rounded to the live values' type."""
        return self.schedules[name](step)

    def renamed(self, schedules: dict[str, Schedule], live_column: Mapping[str, int]) -> ScheduleTable:
        """The same numbers under these names."""
        return dataclasses.replace(self, schedules=schedules, live_column=live_column)

    def to_device(self) -> torch.Tensor:
        """The stored numbers as a new tensor on `device` (on a CPU it shares the memory of `host`).

        Raises:
            ScheduleError: the device has not enough memory left.
        """
        try:
            return torch.from_numpy(self.host).to(self.device)
        except torch.OutOfMemoryError as error:
            free = free_bytes(self.device)
            raise does_not_fit(self.nbytes, self.rows, self.schedules, self.device, free) from error

    def __repr__(self) -> str:
        stored = f" from {self.host.shape[0]} scaled" if isinstance(self.layout, Scaled) else ""
        return (
            f"ScheduleTable({self.rows} rows, {len(self.schedules)} schedules in {self.columns} columns{stored}, "
            f"{self.dtype}, {readable(self.nbytes)} on {self.device})"
        )

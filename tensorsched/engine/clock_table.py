"""ClockTable: schedules compiled for a clock that does not count steps.

Row k is [position, values, slopes] in float64 and serves the positions from its own to the next row's:

    value(p) = values[k] + (p - position[k]) * slopes[k]

rounded once, to the live values' type. Behind the rows in use is room for those of other schedules, whose positions are
never reached.
"""

from __future__ import annotations

import bisect
import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from tensorsched.engine.clock import Clock
from tensorsched.engine.layouts import Array
from tensorsched.engine.memory import does_not_fit, existing_device, free_bytes, readable
from tensorsched.engine.rows import Rows, rows_of
from tensorsched.engine.sharing import NUMPY
from tensorsched.engine.tabulate import row_count
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief
from tensorsched.schedules.validators import check_count

__all__ = ["ClockTable", "replacement_on_clock", "tabulate_on_clock"]

FAR = 1 << 62  # a position that no count reaches
_SPARE_ROWS, _SPARE_BYTES = 4096, 1 << 20  # room for other schedules' kinks: the less of both


class ClockTable:
    """Schedules compiled for a clock, for one device; made by `tabulate_on_clock`.

    Attributes:
        schedules: the schedule of each name.
        live_column: index into the live values for each name; names with equal columns share one.
        clock: what the positions count.
        last: the last position at which a schedule may change, also after a rewrite.
        positions: (R,) int64, of each row; FAR in the rows that are not in use.
        data: (R, 1 + 2 K) float64, the rows.
        used: how many rows are in use.
        error: how far a line is off its schedule at most, as a part of the schedule's largest value.
        device, dtype: of the live values.
    """

    def __init__(
        self,
        schedules: dict[str, Schedule],
        live_column: Mapping[str, int],
        rows: Rows,
        *,
        clock: Clock,
        last: int,
        room: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.schedules, self.live_column = schedules, live_column
        self.clock, self.last, self.device, self.dtype = clock, last, device, dtype
        self.columns = rows.values.shape[1]
        self.positions = np.full(room, FAR, dtype=np.int64)
        self.data = np.zeros((room, 1 + 2 * self.columns), dtype=np.float64)
        self.put(rows)

    def renamed(self, schedules: dict[str, Schedule], live_column: Mapping[str, int]) -> ClockTable:
        """The same numbers under these names."""
        other = copy.copy(self)
        other.schedules, other.live_column = schedules, live_column
        return other

    def put(self, rows: Rows) -> None:
        """Let these be the rows, in place."""
        used, width = len(rows.positions), self.columns
        slopes = np.zeros_like(rows.values)
        if self.clock.between == "linear":
            slopes[:-1] = np.diff(rows.values, axis=0) / np.diff(rows.positions)[:, None]
        self.positions[:used], self.positions[used:] = rows.positions, FAR
        self.data[:used, 0] = rows.positions
        self.data[:used, 1 : 1 + width] = rows.values
        self.data[:used, 1 + width :] = slopes
        self.data[used:] = 0.0
        self.used, self.error = used, rows.error
        self._look()

    def values_of(self, name: str) -> Array:
        """A schedule's values at `positions`, of the rows in use, as float64."""
        return self.data[: self.used, 1 + self.live_column[name]]

    def _look(self) -> None:
        self._find = memoryview(self.positions.data)[: self.used]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_find"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._look()

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.data.nbytes + self.positions.nbytes

    def row_of(self, position: int) -> int:
        """Which row serves a position."""
        return bisect.bisect_right(self._find, position) - 1

    def at(self, position: int) -> Array:
        """The live values at a position, (K,) float64."""
        return self.on(self.data[self.row_of(position)], position)

    def on(self, row: Array, position: int) -> Array:
        """The same on the row that serves it."""
        width = self.columns
        found: Array = row[1 + width :] * (float(position) - row[0]) + row[1 : 1 + width]
        return found

    def value(self, name: str, position: int) -> float:
        """The value of a name at a position, before it is rounded to the live values' type."""
        return float(self.at(position)[self.live_column[name]])

    def __repr__(self) -> str:
        return (
            f"ClockTable({self.used} rows over {self.last} {self.clock.unit}, {len(self.schedules)} schedules in "
            f"{self.columns} columns, {self.dtype}, {readable(self.nbytes)} on {self.device})"
        )


def tabulate_on_clock(
    schedules: Mapping[str, Schedule],
    clock: Clock,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    capacity: int | None = None,
) -> ClockTable:
    """Compile schedules for a clock. Nothing is allocated on the device.

    Args:
        schedules: a schedule for each name; their durations are in the clock's unit.
        clock: from `clock`.
        device: where the table will be read.
        dtype: of the live values, torch.float32 (default) or torch.float64.
        capacity: make room for schedules that change up to this position, for `Attachment.rewrite`.

    Raises:
        ScheduleError: a schedule never settles, changes beyond the capacity or beyond the whole of a progress clock,
            cannot be followed within the clock's error, overflows the dtype, or the table does not fit.
    """
    where = existing_device(device)
    reach = row_count(schedules, None) - 1
    last = reach if capacity is None else max(reach, check_count("capacity", capacity))
    if capacity is not None and reach > capacity:
        raise ScheduleError(
            f"the schedules change up to {reach} {clock.unit}, which is beyond the capacity of {capacity}; pass a "
            "larger capacity, or shorten them with .take(n)"
        )
    _check_whole(clock, schedules)
    unique = list(dict.fromkeys(schedules.values()))
    regular = last // clock.resolution + 2 if clock.resolution else 0
    _check_room(regular, len(unique), schedules, where)
    rows = rows_of(unique, clock, reach)
    _check_finite(rows, unique, dtype)
    columns, kept = _shared(rows.values)
    rows = Rows(rows.positions, rows.values[:, kept], rows.error)
    live = {name: columns[unique.index(schedule)] for name, schedule in schedules.items()}
    spare = 0 if capacity is None else min(_SPARE_ROWS, _SPARE_BYTES // (16 * (1 + len(kept))))
    room = max(len(rows.positions), regular) + spare + 1
    _check_room(room, len(kept), schedules, where)
    return ClockTable(
        dict(schedules), live, rows, clock=clock, last=last, room=room, device=where, dtype=dtype
    )


def replacement_on_clock(
    table: ClockTable, schedules: Mapping[str, Schedule], look: Callable[[str, Array, Array, str], None]
) -> Callable[[], None]:
    """Compile other schedules for some names of a table; the function returned puts them there, in place.

    Engines that read the table are told by their `reload`. `look` sees the values of each of these names before
    anything has changed, with their positions and what those count.

    Raises:
        ScheduleError: they change later than the table reaches or need more rows than it has room for, or names that
            share a column would get different values. Nothing has changed.
    """
    clock, after = table.clock, {**table.schedules, **schedules}
    reach = row_count(after, None) - 1
    _check_whole(clock, after)
    representative: dict[int, str] = {}
    for name, column in table.live_column.items():
        first = representative.setdefault(column, name)
        if after[first] != after[name]:
            raise ScheduleError(
                f"{name!r} shares a column of the table with {first!r}, because their schedules were equal, and must "
                "stay so: rewrite all of them together, or detach() and attach() again"
            )
    following = [after[representative[column]] for column in range(table.columns)]
    unique = list(dict.fromkeys(following))
    rows = rows_of(unique, clock, reach)
    _check_finite(rows, unique, table.dtype)
    values = rows.values[:, [unique.index(schedule) for schedule in following]]
    if reach > table.last or len(rows.positions) >= len(table.positions):
        raise ScheduleError(
            f"the new schedules change up to {reach} {clock.unit} and need {len(rows.positions)} rows; the table ends "
            f"at {table.last} and has room for {len(table.positions) - 1} rows: pass attach(..., capacity={reach}) or "
            "more when you attach"
        )

    for name in schedules:
        look(name, values[:, table.live_column[name]], rows.positions, clock.unit)

    def commit() -> None:
        table.put(Rows(rows.positions, values, rows.error))
        table.schedules.update(schedules)

    return commit


def _check_whole(clock: Clock, schedules: Mapping[str, Schedule]) -> None:
    for name, schedule in schedules.items():
        if clock.total is not None and (schedule.settled or 0) > clock.total:
            raise ScheduleError(
                f"{name!r} changes up to {schedule.settled}, and the whole of the progress clock is {clock.total}: "
                f"write its durations as parts of that (total={clock.total}), or pass total= to ts.clock: "
                f"{brief(schedule)}"
            )


def _check_room(rows: int, columns: int, schedules: Mapping[str, Schedule], device: torch.device) -> None:
    nbytes = 16 * rows * (1 + columns)
    for place in {device, torch.device("cpu")}:
        limit = free_bytes(place)
        if limit is not None and nbytes > limit:
            raise ScheduleError(
                f"{does_not_fit(nbytes, rows, schedules, place, limit)}; or give ts.clock a larger resolution"
            )


def _check_finite(rows: Rows, unique: list[Schedule], dtype: torch.dtype) -> None:
    largest = np.abs(rows.values).max(axis=0)
    for schedule, value in zip(unique, largest, strict=True):
        if value > np.finfo(NUMPY[dtype]).max or not math.isfinite(2.0 * value):
            raise ScheduleError(
                f"a value of {value!r} overflows {dtype}; clamp the schedule: {brief(schedule)}"
            )


def _shared(values: Array) -> tuple[list[int], list[int]]:
    """For each column which one serves it, and which of them are kept: the first of equal ones."""
    seen: dict[bytes, int] = {}
    kept: list[int] = []
    columns = []
    for number in range(values.shape[1]):
        look = values[:, number].tobytes()
        if look not in seen:
            seen[look] = len(kept)
            kept.append(number)
        columns.append(seen[look])
    return columns, kept

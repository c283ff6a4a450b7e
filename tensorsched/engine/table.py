"""L3: schedules compiled to a tensor indexed by step.

A table holds the rows for steps 0..last; `last` is the step from which no schedule changes any more, so the row at
min(step, last) is right for every step. Values are computed in float64 and rounded once.

Columns are shared at two levels. Equal columns are stored once, and one element of the live buffer serves all that read
it. Where the table would be large (`SCALE_ABOVE`) columns that differ by a constant factor are stored once as well:

    equal layout    data (rows, C) in the live dtype     live = data[row]
    scaled layout   data (B, rows) in float64            live = float32(data[source, row] * factor)

The product is taken in float64, so a scaled column is still rounded only once. It costs one more small kernel a step on
a GPU, which is why small tables are stored unscaled.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tensorsched.engine.memory import existing_device, free_bytes, readable
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.algebra import Combine, constant
from tensorsched.schedules.node import brief, evaluate
from tensorsched.schedules.validators import check_count, refuse

__all__ = ["ScheduleTable", "tabulate"]

SCALE_ABOVE = 64 * 2**20
"""Bytes above which a table looks for columns that differ by a constant factor."""

PROPORTIONAL = 2.0**-50
"""Columns share when they are proportional to this relative bound: 8 float64 roundings, 2**-26 of a float32 ulp."""

_NUMPY: dict[torch.dtype, type[np.floating[Any]]] = {torch.float32: np.float32, torch.float64: np.float64}
_TINY, _HUGE = 1e-200, 1e200  # factors between these keep all bits of a product
_PROBES = 257  # rows at which two columns are compared before all of them are

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class ScheduleTable:
    """Schedules compiled for one device; made by `tabulate`, read by `ScheduleEngine`.

    Nothing is on the device until `to_device` is called (by the engine); `nbytes` is known before.

    Attributes:
        schedules: the schedule of each name.
        live_column: index into the live buffer for each name; names with equal columns share one.
        rows: number of rows; the last one is right for every later step.
        device: where the tensors will be.
        dtype: of the live values, float32 or float64.
        host: the numbers, as a numpy array in the layout of the device tensor.
        source: (K,) for the scaled layout: which row of `host` each live column reads; else None.
        factors: (K,) float64 for the scaled layout: what it is multiplied by; else None.

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
    host: Array
    source: Array | None = None
    factors: Array | None = None

    @property
    def columns(self) -> int:
        """Number of live values, K."""
        return self.host.shape[1] if self.factors is None else len(self.factors)

    @property
    def nbytes(self) -> int:
        """Bytes on the device, known before anything is allocated there."""
        extra = 0 if self.source is None or self.factors is None else self.source.nbytes + self.factors.nbytes
        return self.host.nbytes + extra

    def to_device(self) -> torch.Tensor:
        """The numbers as a new tensor on `device`, in the layout of `host` (on a CPU it shares host's memory).

        Raises:
            ScheduleError: the device has not enough memory left.
        """
        try:
            return torch.from_numpy(self.host).to(self.device)
        except torch.OutOfMemoryError as error:
            raise _does_not_fit(
                self.nbytes, self.rows, self.schedules, self.device, free_bytes(self.device)
            ) from error

    def recompute(self, schedules: Mapping[str, Schedule]) -> dict[int, Array]:
        """What the rows of `host` for these names would hold under other schedules; nothing changes yet.

        Returns:
            The new contents of each column of `host` (of each row, where it is scaled) that one of the names reads.

        Raises:
            ScheduleError: the schedules change later than the last row, are not finite in the dtype, or names that
                share a column would get different values.
        """
        rows = _row_count(schedules, None)
        if rows > self.rows:
            raise ScheduleError(
                f"the new schedules change up to step {rows - 1}, and the table ends at step {self.rows - 1}; pass "
                f"attach(..., capacity={rows - 1}) or more when you attach"
            )
        plan = _Plan({**self.schedules, **schedules}, self.rows, self.device, self.dtype, None)
        contents: dict[int, Array] = {}
        for name, schedule in plan.schedules.items():
            at = self._stored_at(name)
            if any(self._stored_at(other) == at for other in schedules):
                column = evaluate(schedule, 0, self.rows)
                rounded = plan.rounded(column, schedule)
                self._share(contents, name, rounded if self.factors is None else column)
        return contents

    def _stored_at(self, name: str) -> int:
        live = self.live_column[name]
        return live if self.source is None else int(self.source[live])

    def _share(self, contents: dict[int, Array], name: str, column: Array) -> None:
        """Put a name's column where it is stored, or find that it is the same as what is to be there already."""
        at, same = self._stored_at(name), False
        if self.factors is None:
            same = bool(np.array_equal(contents.setdefault(at, column), column))
        else:
            factor = float(self.factors[self.live_column[name]])
            bound = PROPORTIONAL if self.dtype == torch.float32 else 0.0
            same = _proportional(column, contents.setdefault(at, column / factor), factor, bound)
        if not same:
            others = [n for n in self.live_column if n != name and self._stored_at(n) == at]
            raise ScheduleError(
                f"{name!r} shares a column of the table with {', '.join(map(repr, others[:8]))}"
                f"{' and others' if len(others) > 8 else ''}, because their schedules were "  # noqa: PLR2004
                f"{'equal' if self.factors is None else 'proportional'}, and must stay so: rewrite all of them "
                "together, or detach() and attach() again"
            )

    def replace(self, schedules: Mapping[str, Schedule], contents: Mapping[int, Array]) -> None:
        """Write what `recompute` returned, in place; engines that read this table are told by `reload`."""
        for at, column in contents.items():
            if self.factors is None:
                self.host[:, at] = column
            else:
                self.host[at] = column
        self.schedules.update(schedules)

    def __repr__(self) -> str:
        layout = "" if self.factors is None else f" from {self.host.shape[0]} scaled"
        return (
            f"ScheduleTable({self.rows} rows, {len(self.schedules)} schedules in {self.columns} columns{layout}, "
            f"{self.dtype}, {readable(self.nbytes)} on {self.device})"
        )


def tabulate(
    schedules: Mapping[str, Schedule],
    *,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    scale: bool | None = None,
    max_bytes: int | None = None,
    capacity: int | None = None,
) -> ScheduleTable:
    """Compile schedules into one table.

    Args:
        schedules: a schedule for each name.
        steps: how far to tabulate schedules that never settle (they hold their value from there on); bounded ones are
            always tabulated whole.
        device: where the table will be read.
        dtype: of the live values, torch.float32 (default) or torch.float64; rounded once from float64.
        scale: share columns that differ by a constant factor: True, False, or None (default) for tables over 64 MiB.
        max_bytes: most bytes that the table may take; default: what is free on the device.
        capacity: make room for schedules that change up to this step, for `Attachment.rewrite`; default: as far as
            these schedules change.

    Returns:
        A ScheduleTable; nothing has been allocated on the device and nothing synchronises.

    Raises:
        ScheduleError: no schedules, something that is no schedule, a schedule that never settles without `steps`, a
            value that is not finite in the dtype, a device that does not exist, or a table that does not fit (into
            memory, or into the capacity).

    Example:
        >>> import tensorsched as ts
        >>> lr = ts.warmup_cosine(3e-4, total=20_000, warmup=500)
        >>> ts.tabulate({"lr": lr, "half": 0.5 * lr, "kl_weight": ts.linear(0.0, 1.0, steps=5_000)})
        ScheduleTable(20001 rows, 3 schedules in 3 columns, torch.float32, 234.4 KiB on cpu)
    """
    where = existing_device(device)
    horizon = None if steps is None else check_count("tabulate: steps", steps)
    if dtype not in _NUMPY:
        raise refuse("tabulate: dtype", "torch.float32 or torch.float64", dtype)
    rows = _row_count(schedules, horizon)
    if capacity is not None:
        if rows > check_count("capacity", capacity) + 1:
            raise ScheduleError(
                f"the schedules change up to step {rows - 1}, which is beyond the capacity of {capacity} steps; pass a "
                "larger capacity, or shorten them with .take(n)"
            )
        rows = capacity + 1
    schedules = {name: bounded(schedule, horizon) for name, schedule in schedules.items()}
    unique = list(dict.fromkeys(schedules.values()))
    plan = _Plan(schedules, rows, where, dtype, free_bytes(where) if max_bytes is None else max_bytes)
    equal_bytes = rows * len(unique) * np.dtype(_NUMPY[dtype]).itemsize
    if scale or (scale is None and equal_bytes > SCALE_ABOVE):
        table = _scaled(plan, unique, equal_bytes if scale is None else None)
        if table is not None:
            return table
    return _equal(plan, unique)


def bounded(schedule: Schedule, steps: int | None) -> Schedule:
    """A schedule that never settles, cut at `steps`, where it then holds its value; any other as it is."""
    return schedule if steps is None or schedule.settled is not None else schedule.take(steps)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is known before any value is computed."""

    schedules: Mapping[str, Schedule]
    rows: int
    device: torch.device
    dtype: torch.dtype
    limit: int | None

    def check(self, nbytes: int) -> None:
        if self.limit is not None and nbytes > self.limit:
            raise _does_not_fit(nbytes, self.rows, self.schedules, self.device, self.limit)

    def check_host(self, nbytes: int) -> None:
        """The table is computed in main memory, wherever it will be read."""
        room = free_bytes(torch.device("cpu"))
        if room is not None and nbytes > room:
            raise _does_not_fit(nbytes, self.rows, self.schedules, torch.device("cpu"), room)

    def names(self, live: Mapping[Schedule, int]) -> dict[str, int]:
        return {name: live[schedule] for name, schedule in self.schedules.items()}

    def rounded(self, column: Array, schedule: Schedule) -> Array:
        with np.errstate(over="ignore"):  # reported below, with its step
            out = column.astype(_NUMPY[self.dtype])
        bad = np.flatnonzero(~np.isfinite(out))
        if bad.size:
            raise ScheduleError(
                f"the value {float(column[bad[0]])!r} at step {int(bad[0])} overflows {self.dtype}; pass "
                "dtype=torch.float64, or "
                f"clamp it: {brief(schedule)}"
            )
        return out


def _row_count(schedules: Mapping[str, Schedule], steps: int | None) -> int:
    if not schedules or not isinstance(schedules, Mapping):
        raise refuse("tabulate: schedules", "a dict of at least one name and schedule", schedules)
    last = 0
    for name, schedule in schedules.items():
        if not isinstance(schedule, Schedule):
            raise refuse(f"tabulate: {name}", "a schedule", schedule)
        settled = schedule.settled if schedule.settled is not None else steps
        if settled is None:
            raise ScheduleError(
                f"{name!r} never settles, so its table needs a length: pass steps=n, the number of steps of the run "
                f"(after it the last value is held), or bound it with .take(n): {brief(schedule)}"
            )
        last = max(last, settled)
    return last + 1


def _equal(plan: _Plan, unique: list[Schedule]) -> ScheduleTable:
    """One column for each different column of values."""
    itemsize = np.dtype(_NUMPY[plan.dtype]).itemsize
    plan.check(plan.rows * itemsize)
    plan.check_host(plan.rows * (8 + len(unique) * itemsize))
    # Filled in place: the array of all columns is the only large one.
    host = np.empty((plan.rows, len(unique)), dtype=_NUMPY[plan.dtype])
    seen: dict[bytes, int] = {}
    live: dict[Schedule, int] = {}
    for schedule in unique:
        column = plan.rounded(evaluate(schedule, 0, plan.rows), schedule)
        digest = hashlib.sha256(column.data).digest()
        if digest not in seen:
            plan.check((len(seen) + 1) * plan.rows * itemsize)
            host[:, len(seen)] = column
            seen[digest] = len(seen)
        live[schedule] = seen[digest]
    host = np.ascontiguousarray(host[:, : len(seen)])  # a copy only where columns were equal
    return ScheduleTable(dict(plan.schedules), plan.names(live), plan.rows, plan.device, plan.dtype, host)


def _scaled(plan: _Plan, unique: list[Schedule], at_most: int | None) -> ScheduleTable | None:
    """One float64 column for all that are proportional; None if that takes no less than `at_most` bytes."""
    # Float64 has no rounding to hide a difference behind: there only equal columns count as proportional.
    bound = PROPORTIONAL if plan.dtype == torch.float32 else 0.0
    bases = _Bases(plan, bound)
    found: dict[Schedule, tuple[int, float]] = {}
    columns: dict[tuple[int, float], int] = {}
    live: dict[Schedule, int] = {}
    for schedule in unique:
        factor, expression = _split(schedule)
        if expression not in found:
            match = bases.find(expression)
            if match is None:
                if at_most is not None and (len(bases.columns) + 1) * plan.rows * 8 >= at_most:
                    return None
                match = bases.add(expression), 1.0
            found[expression] = match
        base, ratio = found[expression]
        if not _TINY < abs(ratio * factor) < _HUGE:  # the product would lose bits: a column of its own
            base, ratio, factor = bases.add(schedule), 1.0, 1.0
        if float(np.abs(bases.columns[base]).max()) * abs(ratio * factor) > torch.finfo(plan.dtype).max:
            plan.rounded(evaluate(schedule, 0, plan.rows), schedule)  # raises, naming the step
        live[schedule] = columns.setdefault((base, ratio * factor), len(columns))
    return ScheduleTable(
        dict(plan.schedules),
        plan.names(live),
        plan.rows,
        plan.device,
        plan.dtype,
        np.stack(bases.columns),
        source=np.array([base for base, _ in columns], dtype=np.int64),
        factors=np.array([factor for _, factor in columns], dtype=np.float64),
    )


def _split(schedule: Schedule) -> tuple[float, Schedule]:
    """(c, x) where the schedule is written c * x or x * c: the same float64 product at every step, so exact."""
    if isinstance(schedule, Combine) and schedule.op == "*":
        for number, rest in (schedule.children(), schedule.children()[::-1]):
            if isinstance(number, constant) and number.value != 0.0:
                return number.value, rest
    return 1.0, schedule


class _Bases:
    """The stored float64 columns, found again by what they look like at a few rows."""

    def __init__(self, plan: _Plan, bound: float) -> None:
        self.columns: list[Array] = []
        self._plan = plan
        self._bound = bound
        self._probes = np.unique(np.linspace(0, plan.rows - 1, min(plan.rows, _PROBES)).astype(np.int64))
        self._alike: dict[bytes, list[int]] = {}

    def find(self, expression: Schedule) -> tuple[int, float] | None:
        """(index, ratio) of a column that the expression is `ratio` times, at every row to the bound."""
        sample = self._sample(expression)
        column: Array | None = None
        for index in self._alike.get(self._look(sample), ()):
            base = self.columns[index]
            at = int(np.argmax(np.abs(sample)))
            divisor = base[self._probes[at]]
            ratio = float(sample[at] / divisor) if self._bound and divisor else 1.0
            column = evaluate(expression, 0, self._plan.rows) if column is None else column
            if np.isfinite(ratio) and _proportional(column, base, ratio, self._bound):
                return index, ratio
        return None

    def add(self, schedule: Schedule) -> int:
        """Compute and store the column of a schedule; its index."""
        nbytes = (len(self.columns) + 1) * self._plan.rows * 8
        self._plan.check(nbytes)
        self._plan.check_host(nbytes)
        self.columns.append(evaluate(schedule, 0, self._plan.rows))
        self._alike.setdefault(self._look(self._sample(schedule)), []).append(len(self.columns) - 1)
        return len(self.columns) - 1

    def _sample(self, schedule: Schedule) -> Array:
        with np.errstate(all="ignore"):
            return schedule._at(self._probes.astype(np.float64))  # noqa: SLF001  a sample, unchecked

    def _look(self, sample: Array) -> bytes:
        """The same for proportional samples, but for the rare one on the edge of a rounding: that is not shared."""
        largest = sample[int(np.argmax(np.abs(sample)))] if self._bound else 1.0
        with np.errstate(all="ignore"):
            return np.round(sample / largest, 9).tobytes()


def _proportional(column: Array, base: Array, ratio: float, bound: float) -> bool:
    difference = base * ratio
    difference -= column
    np.abs(difference, out=difference)
    return bool((difference <= bound * np.abs(column)).all())


def _does_not_fit(
    nbytes: int, rows: int, schedules: Mapping[str, Schedule], device: torch.device, limit: int | None
) -> ScheduleError:
    longest = sorted(schedules, key=lambda name: schedules[name].settled or rows, reverse=True)
    more = f" and {len(longest) - 3} more" if len(longest) > 3 else ""  # noqa: PLR2004  three are named
    room = "" if limit is None else f", and {readable(limit)} may be used"
    return ScheduleError(
        f"the table does not fit: it takes {nbytes} bytes ({readable(nbytes)}) or more on {device}{room}: "
        f"{rows} rows for {', '.join(map(repr, longest[:3]))}{more}. Shorten the longest with .take(n), pass a "
        "smaller steps=, tabulate fewer schedules (those that differ by a factor share a column: c * schedule), "
        "or count in epochs with .hold_each(n) and step once an epoch"
    )

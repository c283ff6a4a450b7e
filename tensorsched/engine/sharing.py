"""Which columns of a table are stored once: equal ones, and in a large table also proportional ones."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from tensorsched.engine.layouts import Array, Dtype, Equal, Scaled, proportional, tolerance
from tensorsched.engine.memory import does_not_fit, free_bytes
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.algebra import Combine, constant
from tensorsched.schedules.node import brief, evaluate

NUMPY: dict[torch.dtype, Dtype] = {torch.float32: np.float32, torch.float64: np.float64}
SCALE_ABOVE = 64 * 2**20
"""Bytes above which a table looks for columns that differ by a constant factor."""

_TINY, _HUGE = 1e-200, 1e200  # factors between these keep all bits of a product
_PROBES = 257  # rows at which two columns are compared before all of them are


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known of a table before any value is computed.

    Attributes:
        limit: most bytes that it may take on its device; None where that is not known.
    """

    schedules: Mapping[str, Schedule]
    rows: int
    device: torch.device
    dtype: torch.dtype
    limit: int | None

    @property
    def numpy(self) -> Dtype:
        """The live dtype as numpy has it."""
        return NUMPY[self.dtype]

    def check(self, nbytes: int) -> None:
        """Refuse what the device has no room for."""
        if self.limit is not None and nbytes > self.limit:
            raise does_not_fit(nbytes, self.rows, self.schedules, self.device, self.limit)

    def check_host(self, nbytes: int) -> None:
        """Refuse what main memory has no room for: the table is computed there, wherever it will be read."""
        room = free_bytes(torch.device("cpu"))
        if room is not None and nbytes > room:
            raise does_not_fit(nbytes, self.rows, self.schedules, torch.device("cpu"), room)

    def rounded(self, column: Array, schedule: Schedule) -> Array:
        """The column rounded to the live dtype; ScheduleError names the step of a value that overflows it."""
        with np.errstate(over="ignore"):  # reported below, with its step
            out = column.astype(self.numpy)
        bad = np.flatnonzero(~np.isfinite(out))
        if bad.size:
            raise ScheduleError(
                f"the value {float(column[bad[0]])!r} at step {int(bad[0])} overflows {self.dtype}; pass "
                f"dtype=torch.float64, or clamp it: {brief(schedule)}"
            )
        return out


def share_equal(plan: Plan, unique: list[Schedule]) -> tuple[Equal, dict[Schedule, int]]:
    """One column for each different column of values, and which one each schedule reads."""
    itemsize = np.dtype(plan.numpy).itemsize
    plan.check(plan.rows * itemsize)
    plan.check_host(plan.rows * (8 + len(unique) * itemsize))
    # Filled in place: the array of all columns is the only large one.
    host = np.empty((plan.rows, len(unique)), dtype=plan.numpy)
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
    return Equal(np.ascontiguousarray(host[:, : len(seen)])), live  # a copy only where columns were equal


def share_proportional(
    plan: Plan, unique: list[Schedule], at_most: int | None
) -> tuple[Scaled | None, dict[Schedule, int]]:
    """One float64 column for all that are proportional; None if that takes no less than `at_most` bytes."""
    bases = _Bases(plan, tolerance(plan.numpy))
    found: dict[Schedule, tuple[int, float]] = {}
    columns: dict[tuple[int, float], int] = {}
    live: dict[Schedule, int] = {}
    for schedule in unique:
        factor, expression = _split(schedule)
        if expression not in found:
            match = bases.find(expression)
            if match is None:
                if at_most is not None and (len(bases.columns) + 1) * plan.rows * 8 >= at_most:
                    return None, {}
                match = bases.add(expression), 1.0
            found[expression] = match
        base, ratio = found[expression]
        if not _TINY < abs(ratio * factor) < _HUGE:  # the product would lose bits: a column of its own
            base, ratio, factor = bases.add(schedule), 1.0, 1.0
        if float(np.abs(bases.columns[base]).max()) * abs(ratio * factor) > torch.finfo(plan.dtype).max:
            plan.rounded(evaluate(schedule, 0, plan.rows), schedule)  # raises, naming the step
        live[schedule] = columns.setdefault((base, ratio * factor), len(columns))
    source = np.array([base for base, _ in columns], dtype=np.int64)
    factors = np.array([factor for _, factor in columns], dtype=np.float64)
    return Scaled(np.stack(bases.columns), source, factors, plan.numpy), live


def _split(schedule: Schedule) -> tuple[float, Schedule]:
    """(c, x) where the schedule is written c * x or x * c: the same float64 product at every step, so exact."""
    if isinstance(schedule, Combine) and schedule.op == "*":
        for number, rest in (schedule.children(), schedule.children()[::-1]):
            if isinstance(number, constant) and number.value != 0.0:
                return number.value, rest
    return 1.0, schedule


class _Bases:
    """The stored float64 columns, found again by what they look like at a few rows."""

    def __init__(self, plan: Plan, bound: float) -> None:
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
            # In Python: a column of subnormal numbers has an infinite ratio, of which numpy warns.
            ratio = float(sample[at]) / float(divisor) if self._bound and divisor else 1.0
            column = evaluate(expression, 0, self._plan.rows) if column is None else column
            if np.isfinite(ratio) and proportional(column, base, ratio, self._bound):
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

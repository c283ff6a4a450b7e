"""A schedule over what steps consume: `lr.over(batch)`, where batch says how much each step consumes.

What the steps before t have consumed is a sum of whole numbers, and so exact. Sums are kept at each 4096th step, as far
as they were needed and as the batch changes; from there on they grow by the same number at every step.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.node import CALL, Array, Mark, brief, evaluate, node
from tensorsched.schedules.schedule import Schedule, check_schedule
from tensorsched.schedules.transforms import Moved, receiver

_BLOCK = 4096  # steps between two sums that are kept
_MOST = 1 << 24  # steps that are summed one by one: bounds what a document can keep its reader busy with


class Consumed:
    """C(t), what the steps before t consume together; C(0) = 0.

    Args:
        batch: what each step consumes, whole numbers of at least 0.

    Raises:
        ScheduleError: (as all of it) the batch is no such number at a step, or changes for more than 2**24 steps.
    """

    def __init__(self, batch: Schedule) -> None:
        self._batch = batch
        self._last = batch.constant_from  # from here on every step consumes the same
        self._sums = [0.0]  # C at the multiples of _BLOCK
        self._rest = 0.0 if self._last is None else float(self._sizes(self._last, self._last + 1)[0])

    def at(self, t: Array) -> Array:
        """C at positions of any shape; between two steps in proportion."""
        flat = np.minimum(t.ravel(), f.MAX_STEPS)
        if self._last is None or self._last > 0:
            out = np.empty_like(flat)
            summed = flat if self._last is None else np.minimum(flat, self._last)
            blocks = np.floor_divide(summed, _BLOCK).astype(np.int64)
            for block in np.unique(blocks).tolist():
                mine = blocks == block
                sums = self._within(block)
                out[mine] = np.interp(summed[mine] - block * _BLOCK, np.arange(len(sums)), sums)
            flat = out if self._last is None else out + (flat - summed) * self._rest
        else:
            flat = flat * self._rest
        return flat.reshape(t.shape)

    def step_of(self, amount: float) -> int | None:
        """The first step t with C(t) >= amount; None if there is none."""
        if amount <= 0:
            return 0
        while self._sums[-1] < amount and not self._is_whole():
            self._grow()
        if self._last is not None and self._is_whole():
            left = amount - float(self.at(np.array([float(self._last)]))[0])
            if left > 0:
                return (
                    None if self._rest == 0.0 else min(self._last + math.ceil(left / self._rest), f.MAX_STEPS)
                )
        block = bisect.bisect_left(self._sums, amount) - 1
        return block * _BLOCK + int(np.searchsorted(self._within(block), amount, side="left"))

    def _is_whole(self) -> bool:
        """Whether the sums reach to where the batch changes no more."""
        return self._last is not None and len(self._sums) * _BLOCK > self._last

    def _within(self, block: int) -> Array:
        """C at the steps of a block, and at the one behind it."""
        while len(self._sums) <= block:
            self._grow()
        sizes = self._sizes(block * _BLOCK, (block + 1) * _BLOCK)
        return self._sums[block] + np.concatenate([[0.0], np.cumsum(sizes)])

    def _grow(self) -> None:
        if len(self._sums) * _BLOCK > _MOST:
            raise ScheduleError(
                f"over: the batch changes for more than {_MOST} steps, which are summed one by one; cut it with "
                f".take(n), or hold it with .hold_each(n): {brief(self._batch)}"
            )
        block = len(self._sums) - 1
        self._sums.append(self._sums[-1] + float(self._sizes(block * _BLOCK, (block + 1) * _BLOCK).sum()))

    def _sizes(self, start: int, stop: int) -> Array:
        sizes = evaluate(self._batch, start, stop)
        wrong = np.flatnonzero((sizes < 0.0) | (sizes != np.floor(sizes)))
        if wrong.size:
            raise ScheduleError(
                f"over: a step consumes a whole number of at least 0, and the batch is {sizes[wrong[0]]} at step "
                f"{start + int(wrong[0])}; round it with .round() or .floor(): {brief(self._batch)}"
            )
        return sizes


@node
class Over(Moved):
    """f(t) = inner(C(t)), where C(t) is what the steps before t consume: batch(0) + ... + batch(t - 1)."""

    inner: Schedule = f.declare(check_schedule)
    batch: Schedule = f.declare(check_schedule)

    def _prepare(self) -> None:
        object.__setattr__(self, "_consumed", Consumed(self.batch))
        n = self.inner.steps
        length = None if n is None else self._total().step_of(n)
        object.__setattr__(self, "steps", length)

    def _total(self) -> Consumed:
        consumed: Consumed = self._consumed  # type: ignore[attr-defined]  # set by _prepare
        return consumed

    @property
    def constant_from(self) -> int | None:
        inner = self.inner.constant_from
        reached = None if inner is None else self._total().step_of(inner)
        # A batch that is 0 at the end leaves the inner schedule where it stands.
        if (
            reached is None
            and self.batch.constant_from is not None
            and self.batch(self.batch.constant_from) == 0.0
        ):
            return self.batch.constant_from
        return reached

    def children(self) -> tuple[Schedule, ...]:
        return (self.inner, self.batch)

    def _position(self, t: Array) -> Array:
        return self._total().at(t)

    def _moved(self, at: float) -> float:
        found = self._total().step_of(at)
        return f.MAX_STEPS if found is None else found

    def _marks(self) -> Iterator[Mark]:
        return ((float(self._moved(at)), what) for at, what in self.inner._marks())

    def _source(self) -> tuple[str, int]:
        return f"{receiver(self.inner)}.over({self.batch!r})", CALL

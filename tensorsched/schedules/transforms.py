"""Nodes that read their inner schedule at another position: delay, take, skip, hold_each, stretch.

They are built by the methods of `Schedule`. Positions stay exact whole numbers except below a `stretch`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator

import numpy as np

from tensorsched.schedules import validators as f
from tensorsched.schedules.node import CALL, Array, Mark, node
from tensorsched.schedules.schedule import Schedule, check_schedule

HUGE = sys.float_info.max
"""Caps a length in front of int(), which refuses inf; what is this long, the checks refuse."""

_MOST_SKIPPED = (
    10_000  # phases that a skip leaves out: it may be a million cycles; behind these none is told apart
)


def receiver(inner: Schedule) -> str:
    """Source of `inner` in front of a method call."""
    text, binds = inner._source()
    return text if binds >= CALL else f"({text})"


class Moved(Schedule):
    """A schedule that reads its inner one at another position: f(t) = inner(position(t)).

    A subclass has one field more: the argument of the method that builds it, which is named like its kind.
    """

    inner: Schedule

    def _position(self, t: Array) -> Array:
        """Where inner is read."""
        raise NotImplementedError

    def _moved(self, at: float) -> float:
        """The position at which inner's position `at` is read; a whole number stays an int, of any size."""
        raise NotImplementedError

    def _prepare(self) -> None:
        inner = self.inner.steps
        length = None if inner is None else f.check_count(f"{self.kind}: total length", self._length(inner))
        object.__setattr__(self, "steps", length)

    def _length(self, inner: int) -> int:
        return int(self._moved(inner))

    @property
    def constant_from(self) -> int | None:
        inner = self.inner.constant_from  # asked once: each asks its own inner one
        # What never changes is not moved. No position is beyond the exact steps: see _at.
        return inner if not inner else int(min(self._moved(inner), f.MAX_STEPS))

    def children(self) -> tuple[Schedule, ...]:
        return (self.inner,)

    def _at(self, t: Array) -> Array:
        # Whole positions are exact up to there, and a position never becomes inf.
        return self.inner._at(np.minimum(self._position(t), f.MAX_STEPS))

    def _reach_unbounded(self) -> int:
        return max(int(min(self._moved(self.inner._reach()), f.MAX_STEPS)), 1)

    def _marks(self) -> Iterator[Mark]:
        moved = ((self._moved(at), what) for at, what in self.inner._marks())
        return itertools.takewhile(lambda mark: mark[0] <= f.MAX_STEPS, moved)

    def _source(self) -> tuple[str, int]:
        _, argument = dataclasses.fields(self)  # type: ignore[arg-type]  # every concrete node is a dataclass
        return f"{receiver(self.inner)}.{self.kind}({getattr(self, argument.name)!r})", CALL


@node
class Delay(Moved):
    """f(t) = inner(max(t - n, 0)): the first value is held for n more steps."""

    inner: Schedule = f.declare(check_schedule)
    n: int = f.count()

    def _position(self, t: Array) -> Array:
        return np.maximum(t - self.n, 0.0)

    def _moved(self, at: float) -> float:
        return at + self.n

    def _marks(self) -> Iterator[Mark]:
        return itertools.chain([(0.0, "holds")] if self.n else [], super()._marks())


@node
class Take(Moved):
    """f(t) = inner(min(t, n)): exactly n steps long, whatever the length of inner."""

    inner: Schedule = f.declare(check_schedule)
    n: int = f.count()

    def _prepare(self) -> None:
        object.__setattr__(self, "steps", self.n)

    @property
    def constant_from(self) -> int | None:
        inner = self.inner.constant_from
        return self.n if inner is None else min(self.n, inner)

    def _position(self, t: Array) -> Array:
        return np.minimum(t, self.n)

    def _marks(self) -> Iterator[Mark]:
        # Of no steps at all it still has a first phase, which what goes on longer may show.
        return itertools.takewhile(lambda mark: mark[0] < self.n or not mark[0], self.inner._marks_and_end())


@node
class Skip(Moved):
    """f(t) = inner(t + n): the first n steps are left out."""

    inner: Schedule = f.declare(check_schedule)
    n: int = f.count()

    def _position(self, t: Array) -> Array:
        return t + self.n

    def _moved(self, at: float) -> float:
        return max(0, at - self.n)

    def _marks(self) -> Iterator[Mark]:
        running = ""
        for at, what in itertools.islice(self.inner._marks(), _MOST_SKIPPED):
            if at > self.n:
                if running:
                    yield 0.0, running
                running = ""
                yield at - self.n, what
            else:
                running = what
        if running:
            yield 0.0, running


@node
class HoldEach(Moved):
    """f(t) = inner(t // n): every value is held for n steps, so that inner may count epochs of n steps."""

    inner: Schedule = f.declare(check_schedule)
    n: int = f.count(least=1)

    def _position(self, t: Array) -> Array:
        return np.floor_divide(t, self.n)

    def _moved(self, at: float) -> float:
        return at * self.n


@node
class Stretch(Moved):
    """The inner curve at another pace.

    A bounded one of length n becomes m = floor(n * factor + 1/2) steps long and is read at t * n / m (at its end from
    t = m on); an unbounded one is read at t / factor. Tabulated schedules (`from_values`) are interpolated linearly.
    """

    inner: Schedule = f.declare(check_schedule)
    factor: float = f.positive()

    def _length(self, inner: int) -> int:
        return math.floor(min(inner * self.factor + 0.5, HUGE))

    def _moved(self, at: float) -> float:
        before, after = self.inner.steps, self.steps
        return at * (after / before if before and after is not None else self.factor)

    @property
    def constant_from(self) -> int | None:
        inner = self.inner.constant_from
        if self.steps is not None or not inner:
            return inner if self.steps is None else self.steps
        return math.ceil(min(inner * self.factor, f.MAX_STEPS)) + 1

    def _reach_unbounded(self) -> int:
        return math.ceil(min(self.inner._reach() * self.factor, f.MAX_STEPS))

    def _position(self, t: Array) -> Array:
        before, after = self.inner.steps, self.steps
        if before is None or after is None:
            return t / self.factor
        if after == 0:
            return np.full(t.shape, float(before))
        return np.where(t < after, t * before / after, before)

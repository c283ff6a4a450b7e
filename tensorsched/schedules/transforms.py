"""Nodes that read their inner schedule at another position: repeat, delay, take, skip, hold_each, stretch.

They are built by the methods of `Schedule`. Positions stay exact whole numbers except below a `stretch` and in a
`repeat` whose cycles change length.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import Schedule, check_schedule
from tensorsched.schedules.node import CALL, Array, brief, node

# Caps a length in front of int(), which refuses inf; what is this long, the checks refuse.
_HUGE = sys.float_info.max
_MOST_CYCLES = 100_000  # of different lengths: they are walked one by one


def _receiver(inner: Schedule) -> str:
    """Source of `inner` in front of a method call."""
    text, binds = inner._source()
    return text if binds >= CALL else f"({text})"


@node
class Repeat(Schedule):
    """The inner schedule again and again.

    Cycle k = 0, 1, ... has the length n_k with n_0 = inner.steps and n_{k+1} = int(n_k * length_mult) (as ignite; torch
    and optax agree where both are whole), reads inner at u * n_0 / n_k (u counts steps within the cycle), and
    multiplies the value by value_mult**k. With `times` it holds the last cycle's end value, else it never ends.

    Example:
        >>> import tensorsched as ts
        >>> ts.cosine(1.0, 0.0, steps=2).repeat(2, length_mult=2, value_mult=0.5).values().round(4).tolist()
        [1.0, 0.5, 0.5, 0.4268, 0.25, 0.0732]
    """

    inner: Schedule = f.declare(check_schedule)
    times: int | None = f.optional_count(least=1, default=None, kw_only=True)
    length_mult: float = f.positive(kw_only=True, default=1.0)
    value_mult: float = f.real(kw_only=True, default=1.0)

    def _prepare(self) -> None:
        length = self.inner.steps
        if length is None or length == 0:
            what = "an unbounded schedule" if length is None else "a schedule of length 0"
            raise ScheduleError(
                f"{what} cannot be repeated: {brief(self.inner)}; give it a length with .take(n)"
            )
        changes = self._changes()
        if changes and self.length_mult < 1.0 and self.times is None:
            raise ScheduleError(
                f"repeat for ever with length_mult={self.length_mult} shrinks the cycle to nothing; pass times=n"
            )
        total = None
        if self.times is not None:
            total = self._total() if changes else length * self.times
            f.check_count("repeat: total length", total)
        object.__setattr__(self, "steps", total)

    def _after(self, length: int) -> int:
        """The length of the cycle that follows one of `length` steps."""
        return int(min(length * self.length_mult, _HUGE))

    def _total(self) -> int:
        """The sum of the cycle lengths, or the first partial sum that is too long anyway."""
        total = 0
        for length in self._lengths():
            total += length
            if total > f.MAX_STEPS:
                break
        return total

    def _changes(self) -> bool:
        """Whether a cycle differs in length from the one before: if the second does not, none does."""
        length = self.inner.steps or 0
        return self._after(length) != length

    def _lengths(self) -> Iterator[int]:
        """The cycle lengths, one after the other; only where they change from cycle to cycle."""
        length = self.inner.steps or 0
        for cycle in itertools.count():
            if cycle == self.times:
                return
            if length < 1:
                raise ScheduleError(
                    f"repeat: length_mult={self.length_mult} shrinks cycle {cycle} of {brief(self.inner)} to 0 steps; "
                    "use fewer times or a larger length_mult"
                )
            if cycle == _MOST_CYCLES:
                raise ScheduleError(
                    f"repeat: length_mult={self.length_mult} gives more than {_MOST_CYCLES} cycles of different "
                    "lengths; use a length_mult further from 1, or 1"
                )
            yield length
            length = self._after(length)

    @property
    def settled(self) -> int | None:
        unchanging = self.inner.settled == 0 and self.value_mult == 1.0
        return 0 if unchanging else self.steps

    def children(self) -> tuple[Schedule, ...]:
        return (self.inner,)

    def _at(self, t: Array) -> Array:
        first = self.inner.steps or 0
        if self.steps is not None:
            t = np.minimum(t, self.steps)
        if self._changes():
            lengths = np.array(list(self._reaching(float(t.max(initial=0.0)))), dtype=np.float64)
            starts = np.concatenate(([0.0], np.cumsum(lengths)[:-1]))
            cycle = np.searchsorted(starts, t, side="right") - 1
            u, length = t - starts[cycle], lengths[cycle]
            u = np.where(u < length, u * first / length, first)  # exactly at the end there, however long
        else:
            cycle = np.floor_divide(t, first)
            if self.times is not None:
                cycle = np.minimum(cycle, self.times - 1)
            u = t - cycle * first
        out = self.inner._at(u)
        return out if self.value_mult == 1.0 else out * np.power(self.value_mult, cycle)

    def _reaching(self, last: float) -> Iterator[int]:
        """The lengths of the cycles that start at or before `last`."""
        start = 0
        for length in self._lengths():
            if start > last:
                return
            yield length
            start += length

    def _source(self) -> tuple[str, int]:
        options = [] if self.times is None else [f"{self.times}"]
        options += [
            f"{name}={getattr(self, name)!r}"
            for name in ("length_mult", "value_mult")
            if getattr(self, name) != 1.0
        ]
        return f"{_receiver(self.inner)}.repeat({', '.join(options)})", CALL


class _Warp(Schedule):
    """A schedule that reads its inner one at another position: f(t) = inner(position(t))."""

    inner: Schedule

    def _position(self, t: Array) -> Array:
        raise NotImplementedError

    def children(self) -> tuple[Schedule, ...]:
        return (self.inner,)

    def _at(self, t: Array) -> Array:
        # Whole positions are exact up to there, and a position never becomes inf.
        return self.inner._at(np.minimum(self._position(t), f.MAX_STEPS))

    def _length(self, change: Callable[[int], int]) -> None:
        """Set `steps` to the inner length after `change`; an unbounded schedule stays unbounded."""
        inner = self.inner.steps
        changed = None if inner is None else f.check_count(f"{self.kind}: total length", change(inner))
        object.__setattr__(self, "steps", changed)

    def _settles(self, change: Callable[[int], int]) -> int | None:
        """Where the inner schedule settles, after `change`; what never changes is not moved."""
        inner = self.inner.settled
        return inner if not inner else change(inner)

    def _method(self, name: str, argument: float) -> tuple[str, int]:
        return f"{_receiver(self.inner)}.{name}({argument!r})", CALL


@node
class Delay(_Warp):
    """f(t) = inner(max(t - n, 0)): the first value is held for n more steps."""

    inner: Schedule = f.declare(check_schedule)
    n: int = f.count()

    def _prepare(self) -> None:
        self._length(lambda length: length + self.n)

    @property
    def settled(self) -> int | None:
        return self._settles(lambda step: step + self.n)

    def _position(self, t: Array) -> Array:
        return np.maximum(t - self.n, 0.0)

    def _source(self) -> tuple[str, int]:
        return self._method("delay", self.n)


@node
class Take(_Warp):
    """f(t) = inner(min(t, n)): exactly n steps long, whatever the length of inner."""

    inner: Schedule = f.declare(check_schedule)
    n: int = f.count()

    def _prepare(self) -> None:
        object.__setattr__(self, "steps", self.n)

    @property
    def settled(self) -> int | None:
        inner = self.inner.settled  # asked once: each asks its own inner one
        return self.n if inner is None else min(self.n, inner)

    def _position(self, t: Array) -> Array:
        return np.minimum(t, self.n)

    def _source(self) -> tuple[str, int]:
        return self._method("take", self.n)


@node
class Skip(_Warp):
    """f(t) = inner(t + n): the first n steps are left out."""

    inner: Schedule = f.declare(check_schedule)
    n: int = f.count()

    def _prepare(self) -> None:
        self._length(lambda length: max(0, length - self.n))

    @property
    def settled(self) -> int | None:
        return self._settles(lambda step: max(0, step - self.n))

    def _position(self, t: Array) -> Array:
        return t + self.n

    def _source(self) -> tuple[str, int]:
        return self._method("skip", self.n)


@node
class HoldEach(_Warp):
    """f(t) = inner(t // n): every value is held for n steps, so that inner may count epochs of n steps."""

    inner: Schedule = f.declare(check_schedule)
    n: int = f.count(least=1)

    def _prepare(self) -> None:
        self._length(lambda length: length * self.n)

    @property
    def settled(self) -> int | None:
        return self._settles(lambda step: step * self.n)

    def _position(self, t: Array) -> Array:
        return np.floor_divide(t, self.n)

    def _source(self) -> tuple[str, int]:
        return self._method("hold_each", self.n)


@node
class Stretch(_Warp):
    """The inner curve at another pace.

    A bounded one of length n becomes m = floor(n * factor + 1/2) steps long and is read at t * n / m (at its end from
    t = m on); an unbounded one is read at t / factor. Tabulated schedules (`from_values`) are interpolated linearly.
    """

    inner: Schedule = f.declare(check_schedule)
    factor: float = f.positive()

    def _prepare(self) -> None:
        self._length(lambda length: math.floor(min(length * self.factor + 0.5, _HUGE)))

    @property
    def settled(self) -> int | None:
        if self.steps is not None:
            return self.steps
        return self._settles(lambda step: math.ceil(min(step * self.factor, _HUGE)) + 1)

    def _position(self, t: Array) -> Array:
        before, after = self.inner.steps, self.steps
        if before is None or after is None:
            return t / self.factor
        if after == 0:
            return np.full(t.shape, float(before))
        return np.where(t < after, t * before / after, before)

    def _source(self) -> tuple[str, int]:
        return self._method("stretch", self.factor)

"""Nodes that read their inner schedule at another position: repeat, delay, take, skip, hold_each, stretch.

They are built by the methods of `Schedule`. Positions stay exact whole numbers except below a `stretch` and in a
`repeat` whose cycles change length.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.node import CALL, Array, Mark, brief, node
from tensorsched.schedules.schedule import Schedule, check_schedule
from tensorsched.schedules.work import spend

# Caps a length in front of int(), which refuses inf; what is this long, the checks refuse.
_HUGE = sys.float_info.max
_MOST_CYCLES = 100_000  # of different lengths: they are walked one by one
_PIECE = 100  # that are asked for at once
_CYCLES_SHOWN = 4  # of an endless repeat in a picture
_MOST_SKIPPED = (
    10_000  # phases that a skip leaves out: it may be a million cycles; behind these none is told apart
)


def receiver(inner: Schedule) -> str:
    """Source of `inner` in front of a method call."""
    text, binds = inner._source()
    return text if binds >= CALL else f"({text})"


@node
class Repeat(Schedule):
    """The inner schedule again and again.

    Cycle k = 0, 1, ... has the length n_k with n_0 = inner.steps and n_{k+1} = int(n_k * length_mult) (as ignite; torch
    and optax agree where both are whole), or without int where round_lengths is False (timm, keras). It reads inner at
    u * n_0 / n_k (u counts steps within the cycle) and multiplies the value by value_mult**k. With `times` it holds the
    last cycle's end value, else it never ends.

    Example:
        >>> import tensorsched as ts
        >>> ts.cosine(1.0, 0.0, steps=2).repeat(2, length_mult=2, value_mult=0.5).values().round(4).tolist()
        [1.0, 0.5, 0.5, 0.4268, 0.25, 0.0732]
    """

    inner: Schedule = f.declare(check_schedule)
    times: int | None = f.optional_count(least=1, default=None, kw_only=True)
    length_mult: float = f.positive(kw_only=True, default=1.0)
    value_mult: float = f.real(kw_only=True, default=1.0)
    round_lengths: bool = f.flag(kw_only=True, default=True, later=True)

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
            total = length * self.times
            if changes:
                total = math.ceil(sum(self._last_cycle()))
            f.check_count("repeat: total length", total)
        object.__setattr__(self, "steps", total)

    def _after(self, length: float) -> float:
        """The length of the cycle that follows one of `length` steps."""
        following = min(length * self.length_mult, _HUGE)
        return int(following) if self.round_lengths else following

    def _changes(self) -> bool:
        """Whether a cycle differs in length from the one before: if the second does not, none does."""
        length = self.inner.steps or 0
        return self._after(length) != length

    def _last_cycle(self) -> tuple[float, float]:
        """(start, length) of the last cycle; in somebody else's document the way there is counted as work."""
        last: tuple[float, float] = (0, 0)
        for cycle, found in enumerate(self._cycles()):
            if cycle % _PIECE == 0:
                spend(_PIECE)
            last = found
        return last

    def _cycles(self) -> Iterator[tuple[float, float]]:
        """(start, length) of each cycle, up to the first one that starts beyond the exact steps."""
        start: float = 0
        length: float = self.inner.steps or 0
        changes = self._changes()
        for cycle in itertools.count():
            if cycle == self.times or start > f.MAX_STEPS:
                return
            if length < 1:
                raise ScheduleError(
                    f"repeat: length_mult={self.length_mult} shrinks cycle {cycle} of {brief(self.inner)} to 0 steps; "
                    "use fewer times or a larger length_mult"
                )
            # Without this bound a document of a hundred bytes could keep its reader walking for hours.
            if changes and cycle == _MOST_CYCLES:
                raise ScheduleError(
                    f"repeat: length_mult={self.length_mult} gives more than {_MOST_CYCLES} cycles of different "
                    "lengths; use a length_mult further from 1, or 1"
                )
            yield start, length
            start, length = start + length, self._after(length)

    @property
    def constant_from(self) -> int | None:
        unchanging = self.inner.constant_from == 0 and self.value_mult == 1.0
        return 0 if unchanging else self.steps

    def children(self) -> tuple[Schedule, ...]:
        return (self.inner,)

    def _at(self, t: Array) -> Array:
        first = self.inner.steps or 0
        if self.steps is not None:
            t = np.minimum(t, self.steps)
        if self._changes():
            last = float(t.max(initial=0.0))
            begun = list(itertools.takewhile(lambda cycle: cycle[0] <= last, self._cycles()))
            starts, lengths = np.array(begun, dtype=np.float64).T
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

    def _reach_unbounded(self) -> int:
        """Four cycles; the fifth starts with a jump, so that its first step is left out."""
        starts = [start for start, _ in itertools.islice(self._cycles(), _CYCLES_SHOWN + 1)]
        return max(math.ceil(starts[-1]) - 1, 1)

    def _marks(self) -> Iterator[Mark]:
        first = self.inner.steps or 1
        for cycle, (start, length) in enumerate(self._cycles(), start=1):
            for at, what in self.inner._marks_before(first):
                moved = start + float(at) * length / first
                if moved > f.MAX_STEPS:  # where nobody looks; of cycles that grow, it may be inf
                    return
                yield moved, f"{what}, cycle {cycle}"

    def _source(self) -> tuple[str, int]:
        options = [] if self.times is None else [f"{self.times}"]
        options += [
            f"{name}={getattr(self, name)!r}"
            for name in ("length_mult", "value_mult")
            if getattr(self, name) != 1.0
        ]
        if not self.round_lengths:
            options.append("round_lengths=False")
        return f"{receiver(self.inner)}.repeat({', '.join(options)})", CALL


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
        return math.floor(min(inner * self.factor + 0.5, _HUGE))

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

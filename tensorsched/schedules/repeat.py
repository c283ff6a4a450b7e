"""The node that runs its inner schedule again and again, built by `.repeat(...)`.

Positions stay exact whole numbers unless the cycles change length.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.node import CALL, Array, Mark, brief, node
from tensorsched.schedules.schedule import Schedule, check_schedule
from tensorsched.schedules.transforms import HUGE, receiver
from tensorsched.schedules.work import spend

_MOST_CYCLES = 100_000  # of different lengths: they are walked one by one
_PIECE = 100  # that are asked for at once
_CYCLES_SHOWN = 4  # of an endless repeat in a picture


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
        following = min(length * self.length_mult, HUGE)
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

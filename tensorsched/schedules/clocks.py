"""Nodes that read a bounded schedule on another clock: there and back, unevenly, over a fraction of a step.

They are built by `.mirror()`, `.warp(k)` and `.span(length)`. The others (delay, take, ...) are in `transforms`.
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
from tensorsched.schedules.transforms import Moved, receiver

_MOST_LEFT_OUT = 10_000  # phases that are over at the offset of a span; of more, none shows
_MOST_MIRRORED = 10_000  # phases that are walked backwards; of more, the way back is one


class _Bounded(Moved):
    """One that needs the length of its inner schedule."""

    def _prepare(self) -> None:
        if self.inner.steps is None:
            raise ScheduleError(
                f"{self.kind} needs a schedule with a length, and {brief(self.inner)} never ends; give it one with "
                ".take(n)"
            )
        super()._prepare()

    @property
    def constant_from(self) -> int | None:
        return 0 if self.inner.constant_from == 0 else self.steps

    @property
    def _inner_steps(self) -> int:
        return self.inner.steps or 0


@node
class Mirror(_Bounded):
    """f(t) = inner(n - |t - n|): to the end n of inner, and back to its start at 2 n."""

    inner: Schedule = f.declare(check_schedule)

    def _moved(self, at: float) -> float:
        return 2 * at

    def _position(self, t: Array) -> Array:
        n = self._inner_steps
        # On the way there it is t itself: n - |t - n| would lose its last bits where t is no whole number.
        found: Array = np.where(t <= n, t, np.maximum(2.0 * n - t, 0.0))
        return found

    def _marks(self) -> Iterator[Mark]:
        n = float(self._inner_steps)
        there = list(itertools.islice(self.inner._marks_before(n), _MOST_MIRRORED + 1))
        if not there:  # it takes no step
            yield 0.0, self.kind
            return
        yield from there
        if len(there) > _MOST_MIRRORED:
            yield n, "back"
            return
        stops = [*(at for at, _ in there[1:]), n]
        for (_, what), stop in zip(reversed(there), reversed(stops), strict=True):
            yield 2.0 * n - stop, f"{what}, back"

    def _source(self) -> tuple[str, int]:
        return f"{receiver(self.inner)}.mirror()", CALL


@node
class Warp(_Bounded):
    """f(t) = inner(n * (t / n)**k).

    The power is taken one number at a time, by the C library as in the reference: of a staircase, a last bit of the
    position would be a step.
    """

    inner: Schedule = f.declare(check_schedule)
    k: float = f.positive()

    def _moved(self, at: float) -> float:
        n = self._inner_steps
        return at if at >= n else n * (at / n) ** (1.0 / self.k)

    def _position(self, t: Array) -> Array:
        n = self._inner_steps
        out = np.full(t.shape, float(n))
        running = t < n
        out[running] = [n * math.pow(p, self.k) for p in (t[running] / max(n, 1)).tolist()]
        return out


@node
class Span(_Bounded):
    """f(t) = inner(n * (t + offset) / length): inner's n steps laid over `length`, which need not be whole."""

    inner: Schedule = f.declare(check_schedule)
    length: float = f.positive()
    offset: float = f.declare(f.check_not_negative)

    def _length(self, inner: int) -> int:  # noqa: ARG002  as long as it says, whatever inner is
        return max(0, math.ceil(self.length - self.offset))

    def _moved(self, at: float) -> float:
        n = self._inner_steps
        return max(0.0, (at * self.length / n if n else 0.0) - self.offset)

    def _position(self, t: Array) -> Array:
        passed = t + self.offset
        n = float(self._inner_steps)
        return np.where(passed < self.length, passed / self.length * n, n)

    def _marks(self) -> Iterator[Mark]:
        """Those of inner that are not over at `offset`; what runs there starts at 0."""
        inner = self.inner._marks_before(float(self._inner_steps))
        moved = ((self._moved(at), what) for at, what in inner)
        running = self.kind
        for at, what in itertools.islice(moved, _MOST_LEFT_OUT):
            if at > 0.0:
                yield 0.0, running
                yield at, what
                yield from moved
                return
            running = what
        yield 0.0, running

    def _source(self) -> tuple[str, int]:
        offset = f", {self.offset!r}" if self.offset else ""
        return f"{receiver(self.inner)}.span({self.length!r}{offset})", CALL

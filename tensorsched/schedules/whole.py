"""Values rounded to multiples: batch sizes and sequence lengths. Built by `.round()` and `.floor()`, exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tensorsched.schedules import validators as f
from tensorsched.schedules.node import CALL, Array, Mark, node
from tensorsched.schedules.schedule import Schedule, check_schedule


class _Multiple(Schedule):
    """f(t) = k(t) * to with a whole number k(t).

    k comes from the remainder that fmod gives, which is exact: 63.99999999999999 is not a multiple of 64, whatever its
    quotient by 64 rounds to.
    """

    inner: Schedule
    to: float

    def _prepare(self) -> None:
        object.__setattr__(self, "steps", self.inner.steps)

    @property
    def constant_from(self) -> int | None:
        return self.inner.constant_from

    def children(self) -> tuple[Schedule, ...]:
        return (self.inner,)

    def _below(self, values: Array) -> tuple[Array, Array]:
        """The whole number k with k * to <= value < (k + 1) * to, and what is left."""
        rest = np.fmod(values, self.to)
        k = np.rint((values - rest) / self.to)
        k = np.where(rest < 0.0, k - 1.0, k)
        return k, np.where(rest < 0.0, rest + self.to, rest)

    def _marks(self) -> Iterator[Mark]:
        return self.inner._marks()

    def _source(self) -> tuple[str, int]:
        text, binds = self.inner._source()
        receiver = text if binds >= CALL else f"({text})"
        return f"{receiver}.{self.kind}({'' if self.to == 1.0 else f'to={self.to!r}'})", CALL


@node
class Floor(_Multiple):
    """The largest multiple of `to` that is not above the inner value."""

    inner: Schedule = f.declare(check_schedule)
    to: float = f.positive(default=1.0)

    def _at(self, t: Array) -> Array:
        return self._below(self.inner._at(t))[0] * self.to


@node
class Round(_Multiple):
    """The multiple of `to` nearest to the inner value; the even one of two that are as near."""

    inner: Schedule = f.declare(check_schedule)
    to: float = f.positive(default=1.0)

    def _at(self, t: Array) -> Array:
        values = self.inner._at(t)
        rest = np.fmod(np.abs(values), self.to)
        k = np.rint((np.abs(values) - rest) / self.to)
        nearer = 2.0 * rest
        up = (nearer > self.to) | ((nearer == self.to) & (np.fmod(k, 2.0) == 1.0))
        found: Array = np.copysign((k + up) * self.to, values) + 0.0
        return found

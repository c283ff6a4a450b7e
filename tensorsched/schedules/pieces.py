"""The first steps of a schedule, and the rest: `take` and `skip` that do not nest, however often a plan is changed."""

from __future__ import annotations

import dataclasses

from tensorsched.schedules.algebra import Sequence, chain, constant
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.transforms import Skip, Take

__all__ = ["head", "tail"]


def head(schedule: Schedule, n: int) -> Schedule:
    """As `schedule.take(n)` in front of `>>`, the same values at steps 0..n-1: of a chain the parts that it needs.

    Example:
        >>> import tensorsched as ts
        >>> head(ts.linear(0.0, 1.0, steps=4) >> ts.constant(1.0, steps=4) >> ts.linear(1.0, 0.0, steps=4), 6)
        linear(0.0, 1.0, steps=4) >> constant(1.0, steps=2)
    """
    if schedule.steps == n:
        return schedule
    if isinstance(schedule, constant):
        return dataclasses.replace(schedule, steps=n)
    if isinstance(schedule, Take) and n <= schedule.n:
        return head(schedule.inner, n)
    if not isinstance(schedule, Sequence) or n == 0:
        return schedule.take(n)
    starts = schedule._starts()
    last = max(i for i, start in enumerate(starts) if start < n)
    return chain([*schedule.parts[:last], head(schedule.parts[last], n - starts[last])])


def tail(schedule: Schedule, n: int) -> Schedule:
    """As `schedule.skip(n)`, the same value at every step: of a chain the parts that are left.

    Example:
        >>> import tensorsched as ts
        >>> tail(ts.linear(0.0, 1.0, steps=4) >> ts.constant(1.0, steps=4) >> ts.linear(1.0, 0.0, steps=4), 6)
        constant(1.0, steps=2) >> linear(1.0, 0.0, steps=4)
    """
    if n == 0:
        return schedule
    if isinstance(schedule, constant):
        return (
            schedule if schedule.steps is None else constant(schedule.value, steps=max(schedule.steps - n, 0))
        )
    if isinstance(schedule, Skip):
        return schedule.inner.skip(schedule.n + n)
    if not isinstance(schedule, Sequence):
        return schedule.skip(n)
    starts = schedule._starts()
    first = max(i for i, start in enumerate(starts) if start <= n)
    return chain([tail(schedule.parts[first], n - starts[first]), *schedule.parts[first + 1 :]])

"""A bound on the work that somebody else's text or document may cause, checked before the work is done.

A short text may describe much: a repeat whose hundred thousand cycles differ in length, a recipe that looks for the
peak of ten million steps. Written in Python that is a user's own business; where text or a document is read, everything
that costs more than its characters asks here first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from tensorsched.errors import ScheduleError

__all__ = ["MOST", "bounded_work", "spend"]

MOST = 250_000
"""Of one text or document: parts, and cycles that are walked, and hundreds of steps that are looked at; seconds."""

_STEPS = 100  # that are looked at for the price of one part

_left: ContextVar[tuple[list[int], ...]] = ContextVar("_left", default=())


@contextlib.contextmanager
def bounded_work(most: int = MOST) -> Iterator[None]:
    """Within it, `spend` refuses more than this; a bound within a bound counts for both."""
    token = _left.set((*_left.get(), [most]))
    try:
        yield
    finally:
        _left.reset(token)


def spend(units: int = 1, *, steps: int = 0) -> None:
    """Ask before so many parts or cycles are made, or steps looked at; free where nothing is being read.

    Raises:
        ScheduleError: that is more than what is read may cause.
    """
    for left in _left.get():
        left[0] -= units + steps // _STEPS
        if left[0] < 0:
            raise ScheduleError(
                "reading this takes too much work (over a hundred thousand parts, cycles of different lengths, or "
                "peaks that are looked for); tabulate a part of it with from_values(part.values(n))"
            )

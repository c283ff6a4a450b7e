"""What `check` looks for: schedules that are well formed and still hardly meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules.algebra import Sequence, constant
from tensorsched.schedules.node import Array, brief, evaluate
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.transforms import Take
from tensorsched.schedules.views.picture import EXACT, drawable, window

_SLACK = 1e-9  # of the larger value: roundings are no jumps


def check(schedule: Schedule, *, steps: int | None = None, peak: float | None = None) -> list[str]:
    """What is odd about a schedule, one sentence each; empty if nothing is.

    Args:
        schedule: any; `ts.initial` in it counts as 1.
        steps: the length of the run, where it is known.
        peak: the largest value that is meant.

    Raises:
        ScheduleError: the schedule is longer than ten million steps and `steps` is not given.
    """
    schedule = drawable(schedule)
    last = window(schedule) if steps is None else max(steps - 1, 0)
    if last > EXACT:
        raise ScheduleError(
            f"check looks at every step, up to {EXACT}; this is {last}: pass a shorter --steps"
        )
    try:
        values = evaluate(schedule, 0, last + 1)
    except ScheduleError as error:
        return [f"not finite: {error}"]
    return [
        *_structure(schedule, 0, nested=False),
        *_against_the_run(schedule, steps),
        *_against_the_peak(schedule, values, peak),
        *_whole_curve(values),
    ]


def _structure(schedule: Schedule, start: int, *, nested: bool) -> Iterator[str]:
    """Jumps, phases without a step, and ends that are cut off, anywhere in the expression."""
    inside = f" (inside: {brief(schedule)})" if nested else ""
    match schedule:
        case Sequence():
            for part in schedule.parts:
                if part.steps == 0:
                    yield f"zero-length phase: {brief(part)} at step {start} takes no step{inside}"
                yield from _structure(part, start, nested=nested)
                start += part.steps or 0
            yield from _jumps(schedule, inside)
        case Take() if schedule.inner.steps is not None and schedule.inner.steps > schedule.n:
            yield (
                f"unreachable end: take({schedule.n}) cuts {brief(schedule.inner)}, which is {schedule.inner.steps} "
                "steps long"
            )
            yield from _structure(schedule.inner, start, nested=True)
        case _:
            for child in schedule.children():
                yield from _structure(cast("Schedule", child), start, nested=True)


def _jumps(schedule: Sequence, inside: str) -> Iterator[str]:
    """Where a phase starts elsewhere than the one before it ends; a staircase of constants is meant."""
    at = 0
    for before, after in zip(schedule.parts, schedule.parts[1:], strict=False):
        at += before.steps or 0
        if isinstance(before, constant) and isinstance(after, constant):
            continue
        try:
            end, begin = before(before.steps or 0), after(0)
        except ScheduleError:  # said elsewhere
            continue
        if abs(end - begin) > _SLACK * max(abs(end), abs(begin)):
            yield f"jump: from {end:.6g} to {begin:.6g} at step {at}, where {brief(after)} starts{inside}"


def _against_the_run(schedule: Schedule, steps: int | None) -> Iterator[str]:
    if steps is None:
        return
    warmup = _warmup(schedule)
    if warmup and warmup[0] >= steps:
        yield f"warm-up: it takes {warmup[0]} steps, the run {steps}: the peak {warmup[1]:.6g} is never used"
    elif schedule.steps is not None and schedule.steps > steps:
        yield (
            f"unreachable end: the schedule is {schedule.steps} steps long and the run {steps}: it stops at "
            f"{schedule(max(steps - 1, 0)):.6g} and never reaches {schedule(schedule.steps):.6g}"
        )


def _against_the_peak(schedule: Schedule, values: Array, peak: float | None) -> Iterator[str]:
    """Values above what is meant: --peak, or without it, what the warm-up leads to."""
    warmup = _warmup(schedule)
    most = warmup[1] if peak is None and warmup else peak
    if most is None:
        return
    above = np.flatnonzero(values > most + _SLACK * abs(most))
    if above.size:
        what = "--peak" if peak is not None else "the peak of the warm-up,"
        top = int(values.argmax())
        yield f"above the peak: {values[top]:.6g} at step {top} (first at step {above[0]}) is above {what} {most:.6g}"


def _warmup(schedule: Schedule) -> tuple[int, float] | None:
    """(length, end value) of a first phase that only rises, or None."""
    first = schedule.parts[0] if isinstance(schedule, Sequence) else None
    if first is None or not first.steps:
        return None
    start, middle, end = first(0), first(first.steps // 2), first(first.steps)
    return (first.steps, end) if start < end and start <= middle <= end else None


def _whole_curve(values: Array) -> Iterator[str]:
    if len(values) > 1 and (values == values[0]).all():
        yield f"never changes: {values[0]:.6g} at every step"
    below = np.flatnonzero(values < 0.0)
    if below.size:
        worst = int(values.argmin())
        yield f"below 0: {values[worst]:.6g} at step {worst} (first at step {below[0]})"

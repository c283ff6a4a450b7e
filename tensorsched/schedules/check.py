"""What `check` looks for: schedules that are well formed and still hardly meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import cast

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import Combine, Sequence, constant
from tensorsched.schedules.node import Array, brief, evaluate
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes import from_values, piecewise_constant, piecewise_linear, spline
from tensorsched.schedules.template import Template
from tensorsched.schedules.transforms import Take
from tensorsched.schedules.views.picture import EXACT, drawable, window

_SLACK = 1e-9  # of the larger value: roundings are no jumps
_LONG_RUN = 100  # steps: a warm-up of one is a mistake from there on
_NOTED = 100  # a tail at 0 of more than a hundredth of the run

CODES = {
    "not-finite": "a value is inf or nan",
    "jump": "a phase starts elsewhere than the one before it ends",
    "zero-length": "a phase takes no step",
    "unreachable-end": "the run, or a take, ends before the schedule does",
    "long-warm-up": "the warm-up is longer than the run",
    "one-step-warm-up": "a warm-up of one step in a long run: warmup=1 is a step, warmup=0.01 a fraction",
    "held-at-0": "the run goes on after the schedule has come to 0",
    "held-at-floor": "for half of the run or longer at a low value that it has come to",
    "ends-at-peak": "it rises to the end: a decay is missing",
    "sum-of-phases": "+ adds two phases that >> would put one after the other",
    "above-peak": "a value is above the peak",
    "below-0": "a value is negative",
    "never-changes": "the same value at every step",
}
"""What may be found, by the code that `--allow` takes."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about a schedule that is hardly meant.

    Args:
        code: which of `check.CODES`.
        step: where it shows, 0-based; None where it is no single step.
        sentence: what, with the numbers.

    Example:
        >>> import tensorsched as ts
        >>> [(found.code, found.step) for found in ts.check(ts.linear(1.0, -1.0, steps=10))]
        [('below-0', 6)]
    """

    code: str
    step: int | None
    sentence: str

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


def check(schedule: Schedule, *, steps: int | None = None, peak: float | None = None) -> list[Finding]:
    """What is odd about a schedule; empty if nothing is.

    Args:
        schedule: any; `ts.initial` in it counts as 1.
        steps: the length of the run, where it is known.
        peak: the largest value that is meant; default: what the warm-up leads to.

    Returns:
        Findings: jumps, phases without a step, ends that are not reached or come too early, a `+` that was meant as
        `>>`, values above the peak or below 0, and the other codes of `check.CODES`.

    Raises:
        ScheduleError: not a schedule, a total that is not known yet, steps is no whole number >= 1, peak no finite
            number, or the schedule is longer than ten million steps and `steps` is not given.

    Example:
        >>> import tensorsched as ts
        >>> lr = ts.warmup_cosine(3e-4, total=10_000, warmup=500)
        >>> ts.check(lr, steps=10_000)
        []
        >>> print(ts.check(lr, steps=20_000)[0])
        held-at-0: 0 from step 10000 on, for 10000 of the 20000 steps
    """
    if not isinstance(schedule, Schedule):
        raise f.refuse("check: schedule", "a schedule", schedule)
    if isinstance(schedule, Template):
        schedule(0)  # says what is missing
    schedule = drawable(schedule)
    peak = None if peak is None else f.check_real("check: peak", peak)
    last = window(schedule) if steps is None else f.check_count("check: steps", steps, least=1) - 1
    if last > EXACT:
        raise ScheduleError(
            f"check looks at every step, up to {EXACT}; this is {last}: pass a shorter --steps"
        )
    try:
        values = evaluate(schedule, 0, last + 1)
    except ScheduleError as error:
        return [Finding("not-finite", None, str(error))]
    return [
        *_structure(schedule, 0, nested=False),
        *_against_the_run(schedule, steps),
        *_warmup_and_end(schedule, values),
        *_against_the_peak(schedule, values, peak),
        *_tail(schedule, values, whole_run=steps is not None or schedule.steps is not None),
        *_whole_curve(values),
    ]


def _structure(schedule: Schedule, start: int, *, nested: bool) -> Iterator[Finding]:
    """Jumps, phases without a step, sums of phases, and ends that are cut off, anywhere in the expression."""
    inside = f" (inside: {brief(schedule)})" if nested else ""
    match schedule:
        case Sequence():
            for part in schedule.parts:
                if part.steps == 0:
                    yield Finding(
                        "zero-length", start, f"{brief(part)} at step {start} takes no step{inside}"
                    )
                yield from _structure(part, start, nested=nested)
                start += part.steps or 0
            yield from _jumps(schedule, inside)
        case Take() if schedule.inner.steps is not None and schedule.inner.steps > schedule.n:
            yield Finding(
                "unreachable-end",
                start + schedule.n,
                f"take({schedule.n}) cuts {brief(schedule.inner)}, which is {schedule.inner.steps} steps long",
            )
            yield from _structure(schedule.inner, start, nested=True)
        case _:
            yield from _sums(schedule, start)
            for child in schedule.children():
                yield from _structure(cast("Schedule", child), start, nested=True)


def _jumps(schedule: Sequence, inside: str) -> Iterator[Finding]:
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
            sentence = f"from {end:.6g} to {begin:.6g} at step {at}, where {brief(after)} starts{inside}"
            yield Finding("jump", at, sentence)


def _sums(schedule: Schedule, start: int) -> Iterator[Finding]:
    """A sum whose one side ends at the value where the other starts: that is what `>>` joins."""
    if not isinstance(schedule, Combine) or schedule.op != "+":
        return
    left, right = schedule.left, schedule.right
    if not left.steps or not right.steps or left.constant_from == 0 or right.constant_from == 0:
        return
    try:
        end, begin = left(left.steps), right(0)
    except ScheduleError:
        return
    if end != 0.0 and abs(end - begin) <= _SLACK * abs(end):
        yield Finding(
            "sum-of-phases",
            start + left.steps,
            f"+ adds {brief(left)} and {brief(right)} step by step, and the one ends at {end:.6g} where the other "
            "starts; write >> to run one after the other",
        )


def _against_the_run(schedule: Schedule, steps: int | None) -> Iterator[Finding]:
    if steps is None:
        return
    warmup = _warmup(schedule)
    if warmup and warmup[0] >= steps:
        sentence = f"it takes {warmup[0]} steps, the run {steps}: the peak {warmup[1]:.6g} is never used"
        yield Finding("long-warm-up", steps - 1, sentence)
    elif schedule.steps is not None and schedule.steps > steps:
        yield Finding(
            "unreachable-end",
            steps - 1,
            f"the schedule is {schedule.steps} steps long and the run {steps}: it stops at "
            f"{schedule(steps - 1):.6g} and never reaches {schedule(schedule.steps):.6g}",
        )


def _warmup_and_end(schedule: Schedule, values: Array) -> Iterator[Finding]:
    """A warm-up of one step, and a rise to the end."""
    n = len(values)
    warmup = _warmup(schedule)
    if warmup and warmup[0] == 1 and n >= _LONG_RUN:
        sentence = f"the warm-up is one of {n} steps; as a fraction of the run write warmup=0.01, not 1"
        yield Finding("one-step-warm-up", 0, sentence)
    end = schedule.steps
    # What stays where it came to is a warm-up that is meant; what still rises has lost its decay.
    if end and end < n and values[0] < values[end] == values.max() and values[end - 1] < values[end]:
        yield Finding(
            "ends-at-peak", end, f"it rises to {values[end]:.6g} at its end, step {end}, and stays there"
        )


def _tail(schedule: Schedule, values: Array, *, whole_run: bool) -> Iterator[Finding]:
    """A run that goes on at 0; or for half of it at a floor, where no constant was written for that."""
    n, last = len(values), float(values[-1])
    moving = np.flatnonzero(values != last)
    tail = n - 1 - int(moving[-1]) if moving.size else 0
    start, lasts = n - tail, f"{last:.6g} from step {n - tail} on, for {tail} of the {n} steps"
    if last == 0.0 and tail > max(1, n // _NOTED):
        yield Finding("held-at-0", start, lasts)
    if last == 0.0 or tail <= 1 or last >= values.max() or not whole_run:
        return
    ended = schedule.steps is not None and 2 * (n - schedule.steps) >= n
    if ended:
        yield Finding(
            "held-at-floor",
            start,
            f"{lasts}: the schedule is {schedule.steps} steps long, and its end is held; where that is meant, "
            f"write >> {last:.6g} behind it",
        )
    elif 2 * tail >= n and not _stays_on_purpose(schedule):
        yield Finding("held-at-floor", start, lasts)


def _stays_on_purpose(schedule: Schedule) -> bool:
    """Whether the value that it comes to was written as a constant, or is a rise that stays where it came to."""
    match schedule:
        case Schedule(constant_from=0) | piecewise_constant():
            return True
        case Sequence():
            return _stays_on_purpose(schedule.parts[-1])
        case Combine():
            return _stays_on_purpose(schedule.left) and _stays_on_purpose(schedule.right)
        case piecewise_linear() | spline():
            levels = [level for _, level in schedule.points]
            return levels[-1] == max(levels) or levels[-1] == levels[-2]
        case from_values():
            return bool(schedule.entries[-1] == max(schedule.entries))
        case _:  # one that is read at other steps is as its inner schedule
            inner = schedule.children()
            return (
                _stays_on_purpose(cast("Schedule", inner[0]))
                if inner
                else bool(getattr(schedule, "start", 0.0) < getattr(schedule, "end", 0.0))
            )


def _against_the_peak(schedule: Schedule, values: Array, peak: float | None) -> Iterator[Finding]:
    """Values above what is meant: --peak, or without it, what the warm-up leads to."""
    warmup = _warmup(schedule)
    most = warmup[1] if peak is None and warmup else peak
    if most is None:
        return
    above = np.flatnonzero(values > most + _SLACK * abs(most))
    if above.size:
        what = "--peak" if peak is not None else "the peak of the warm-up,"
        top = int(values.argmax())
        sentence = f"{values[top]:.6g} at step {top} (first at step {above[0]}) is above {what} {most:.6g}"
        yield Finding("above-peak", int(above[0]), sentence)


def _warmup(schedule: Schedule) -> tuple[int, float] | None:
    """(length, end value) of a first phase that only rises, or None."""
    first = schedule.parts[0] if isinstance(schedule, Sequence) else None
    if first is None or not first.steps:
        return None
    start, middle, end = first(0), first(first.steps // 2), first(first.steps)
    return (first.steps, end) if start < end and start <= middle <= end else None


def _whole_curve(values: Array) -> Iterator[Finding]:
    if len(values) > 1 and (values == values[0]).all():
        yield Finding("never-changes", 0, f"{values[0]:.6g} at every step")
    below = np.flatnonzero(values < 0.0)
    if below.size:
        worst = int(values.argmin())
        sentence = f"{values[worst]:.6g} at step {worst} (first at step {below[0]})"
        yield Finding("below-0", int(below[0]), sentence)

"""The oracle: `value(schedule, step)` in scalar float64, with nothing but `math`.

The tables are compared with these formulas, so they share no code with the vectorised ones: here is one small scalar
function per kind of node, shapes first, then what combines them. `t` is a position in steps (a float, 0-based; a whole
number unless a `stretch` or a growing `repeat` lies above), `n` a length in steps.

To add a shape, add its formula here. The arithmetic is IEEE's, like numpy's: a division by 0 and an overflow give inf,
which a `minimum` above may bring back; only a result that is not finite is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from tensorsched.errors import ScheduleError
from tensorsched.schedules import shapes as s
from tensorsched.schedules.algebra import Combine, Initial, Sequence, constant
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.transforms import Delay, HoldEach, Repeat, Skip, Stretch, Take
from tensorsched.schedules.validators import MAX_STEPS, check_count

__all__ = ["value"]

S = TypeVar("S", bound=Schedule)

FORMULAS: dict[type[Schedule], Callable[[Any, float], float]] = {}
"""The formula of each kind of node: (node, position) -> value; filled by `formula`."""


def value(schedule: Schedule, step: int) -> float:
    """The value of `schedule` at `step`, computed one number at a time.

    Args:
        schedule: any schedule without `ts.initial`.
        step: 0-based count of completed optimizer steps, an int in 0..2**53.

    Returns:
        f(step) as a Python float. No tensor, no device, no synchronisation. Takes microseconds at any step, except past
        many cycles of a `repeat` whose cycles change length: those are walked one by one.

    Raises:
        ScheduleError: not a schedule, a step that is negative or no int, a value that is not finite, or `ts.initial`.

    Example:
        >>> import tensorsched as ts
        >>> value(ts.linear(0.0, 1.0, steps=4) >> ts.cosine(1.0, 0.0, steps=8), 2)
        0.5
    """
    if not isinstance(schedule, Schedule):
        raise ScheduleError(
            f"value() needs a schedule, got {schedule!r}; write a number as ts.constant(number)"
        )
    result = at(schedule, float(check_count("step", step)))
    if not math.isfinite(result):
        raise ScheduleError(
            f"the value at step {step} is {result}, not a finite number (a division by 0, or an overflow); clamp the "
            f"schedule or change its end: {schedule!r}"
        )
    return result


def at(schedule: Schedule, t: float) -> float:
    """The value at position t; inf or nan where the arithmetic leads there."""
    found = FORMULAS.get(type(schedule))
    if found is None:
        raise ScheduleError(
            f"no formula for {schedule.kind}: add a scalar one to tensorsched/schedules/reference.py"
        )
    return found(schedule, t)


def formula(kind: type[S]) -> Callable[[Callable[[S, float], float]], Callable[[S, float], float]]:
    """Register the decorated function as the formula of `kind`."""

    def register(function: Callable[[S, float], float]) -> Callable[[S, float], float]:
        FORMULAS[kind] = function
        return function

    return register


# -- shapes: n is the length, p = t / n the part that has passed; from n on the end value ------------------------------


@formula(constant)
def _constant(c: constant, _t: float) -> float:
    return c.value


@formula(s.linear)
def _linear(c: s.linear, t: float) -> float:
    """f(t) = start + (end - start) * p."""
    return c.end if t >= c.steps else c.start + (c.end - c.start) * (t / c.steps)


@formula(s.cosine)
def _cosine(c: s.cosine, t: float) -> float:
    """f(t) = end + (start - end) * (1 + cos(pi * p)) / 2."""
    if t >= c.steps:
        return c.end
    if t == 0:
        return c.start
    return c.end + (c.start - c.end) * ((1.0 + math.cos(math.pi * (t / c.steps))) / 2.0)


@formula(s.polynomial)
def _polynomial(c: s.polynomial, t: float) -> float:
    """f(t) = end + (start - end) * (1 - p)**power, or of the elapsed part: start + (end - start) * p**power."""
    if t >= c.steps:
        return c.end
    if t == 0:
        return c.start
    if c.of == "elapsed":
        return c.start + (c.end - c.start) * _power(t / c.steps, c.power)
    return c.end + (c.start - c.end) * _power(1.0 - t / c.steps, c.power)


@formula(s.exponential)
def _exponential(c: s.exponential, t: float) -> float:
    """f(t) = start * (end / start)**p."""
    return c.end if t >= c.steps else c.start * _power(c.end / c.start, t / c.steps)


@formula(s.rex)
def _rex(c: s.rex, t: float) -> float:
    """f(t) = end + (start - end) * (1 - p) / (1 - d * p)."""
    if t >= c.steps:
        return c.end
    if t == 0:
        return c.start
    p = t / c.steps
    return c.end + (c.start - c.end) * ((1.0 - p) / (1.0 - c.d * p))


@formula(s.tanh)
def _tanh(c: s.tanh, t: float) -> float:
    """f(t) = end + (start - end) * (1 - tanh(lower * (1 - p) + upper * p)) / 2."""
    if t >= c.steps:
        return c.end
    if t == 0:
        return c.start
    p = t / c.steps
    return c.end + (c.start - c.end) * ((1.0 - math.tanh(c.lower * (1.0 - p) + c.upper * p)) / 2.0)


@formula(s.exponential_decay)
def _exponential_decay(c: s.exponential_decay, t: float) -> float:
    """f(t) = start * rate**(t / every); the exponent rounded down in a staircase."""
    return c.start * _power(c.rate, t // c.every if c.staircase else t / c.every)


@formula(s.inverse_sqrt)
def _inverse_sqrt(c: s.inverse_sqrt, t: float) -> float:
    """f(t) = peak * sqrt(timescale / (t + timescale))."""
    return c.peak * math.sqrt(c.timescale / (t + c.timescale))


@formula(s.piecewise_constant)
def _piecewise_constant(c: s.piecewise_constant, t: float) -> float:
    """The level after as many boundaries as are at or before t."""
    return c.levels[sum(boundary <= t for boundary in c.boundaries)]


@formula(s.piecewise_linear)
def _piecewise_linear(c: s.piecewise_linear, t: float) -> float:
    """Between the last point at or before t and the next; constant outside."""
    if t < c.points[0][0]:
        return c.points[0][1]
    passed = sum(at_step <= t for at_step, _ in c.points)
    a, low = c.points[passed - 1]
    if passed == len(c.points):
        return low
    b, high = c.points[passed]
    return low + (high - low) * ((t - a) / (b - a))


@formula(s.from_values)
def _from_values(c: s.from_values, t: float) -> float:
    """entries[t], straight lines in between, the last entry held."""
    i = int(t)
    if i >= len(c.entries) - 1:
        return c.entries[-1]
    return c.entries[i] if t == i else c.entries[i] + (c.entries[i + 1] - c.entries[i]) * (t - i)


@formula(Initial)
def _initial(_c: Initial, _t: float) -> float:
    raise ScheduleError(
        "ts.initial has no value of its own: attach() replaces it with what each param_group holds; use a number here"
    )


# -- combinators -------------------------------------------------------------------------------------------------------


@formula(Sequence)
def _sequence(c: Sequence, t: float) -> float:
    """The last part that has started, from its own start."""
    start, running, since = 0, c.parts[0], 0
    for before, part in zip(c.parts, c.parts[1:], strict=False):
        start += before.steps or 0
        if start <= t:
            running, since = part, start
    return at(running, t - since)


@formula(Combine)
def _combine(c: Combine, t: float) -> float:
    return OPERATORS[c.op](at(c.left, t), at(c.right, t))


@formula(Repeat)
def _repeat(c: Repeat, t: float) -> float:
    """Cycle k starts where cycle k - 1 ends; it reads inner at the same part of its own length, times value_mult**k."""
    first = c.inner.steps or 1  # a length of 0 is refused when a Repeat is made
    t = t if c.steps is None else min(t, c.steps)
    last = math.inf if c.times is None else c.times - 1
    if _next_length(c, first) == first:  # every cycle is as long: go straight to it
        cycle = min(t // first, last)
        u = t - cycle * first
    else:
        cycle, start, length = 0.0, 0, first
        while cycle < last and start + length <= t:
            cycle, start, length = cycle + 1.0, start + length, _next_length(c, length)
        u = (t - start) * first / length if t - start < length else first
    return at(c.inner, u) if c.value_mult == 1.0 else at(c.inner, u) * _power(c.value_mult, cycle)


def _next_length(c: Repeat, length: int) -> int:
    """Rounded down; at most the largest float64, which no step comes near."""
    return int(min(length * c.length_mult, math.nextafter(math.inf, 0.0)))


@formula(Delay)
def _delay(c: Delay, t: float) -> float:
    return at(c.inner, max(t - c.n, 0.0))


@formula(Take)
def _take(c: Take, t: float) -> float:
    return at(c.inner, min(t, c.n))


@formula(Skip)
def _skip(c: Skip, t: float) -> float:
    return at(c.inner, min(t + c.n, MAX_STEPS))


@formula(HoldEach)
def _hold_each(c: HoldEach, t: float) -> float:
    return at(c.inner, t // c.n)


@formula(Stretch)
def _stretch(c: Stretch, t: float) -> float:
    """f(t) = t * n / m for a schedule of n steps that is m steps long now, t / factor for an unbounded one."""
    before, after = c.inner.steps, c.steps
    if before is None or after is None:
        return at(c.inner, min(t / c.factor, MAX_STEPS))
    return at(c.inner, before if t >= after else t * before / after)


# -- IEEE arithmetic where Python's would raise ------------------------------------------------------------------------


def _power(x: float, y: float) -> float:
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0.0 and y % 2.0 == 1.0 else math.inf


def _divide(a: float, b: float) -> float:
    return a / b if b else a * math.copysign(math.inf, b)


def _minimum(a: float, b: float) -> float:
    return a if a <= b or math.isnan(a) else b


def _maximum(a: float, b: float) -> float:
    return a if a >= b or math.isnan(a) else b


OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "minimum": _minimum,
    "maximum": _maximum,
}

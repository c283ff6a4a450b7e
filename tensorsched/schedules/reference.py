"""The oracle: `value(schedule, step)` in scalar float64, with nothing but `math` and `fractions`.

The tables are compared with these formulas, so they share no code with the vectorised ones: here is one small scalar
function per kind of node, shapes first, then what combines them. `t` is a position in steps (a float, 0-based; a whole
number unless a `stretch` or a growing `repeat` lies above), `n` a length in steps.

A formula divides and multiplies positions exactly (`Fraction`), and calls the C library with a number in two parts:
what a float holds of it, and the rest, by which the result is corrected. No formula cancels: the values lie within 4
ulp of the exact ones, and whole numbers come out whole.

To add a shape, add its formula here. The arithmetic is IEEE's, like numpy's: a division by 0 and an overflow give inf,
which a `minimum` above may bring back; only a result that is not finite is an error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeVar, cast

from tensorsched.errors import ScheduleError
from tensorsched.schedules import shapes as s
from tensorsched.schedules.algebra import Combine, Initial, Sequence, constant
from tensorsched.schedules.clocks import Mirror, Span, Warp
from tensorsched.schedules.live import Reaction, greedy, live, plateau, spike
from tensorsched.schedules.node import brief
from tensorsched.schedules.over import Over
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.transforms import Delay, HoldEach, Repeat, Skip, Stretch, Take
from tensorsched.schedules.validators import MAX_STEPS, check_count, shown
from tensorsched.schedules.whole import Floor, Round

__all__ = ["value"]

S = TypeVar("S", bound=Schedule)

FORMULAS: dict[type[Schedule], Callable[[Any, float], float]] = {}
"""The formula of each kind of node: (node, position) -> value; filled by `formula`."""


def value(schedule: Schedule, step: int, inputs: Mapping[str, float] | None = None) -> float:
    """The value of `schedule` at `step`, computed one number at a time.

    Args:
        schedule: any schedule without `ts.initial`.
        step: 0-based count of completed optimizer steps, an int in 0..2**53.
        inputs: the values of live inputs by name; one that is not named has the value that it starts with.

    Returns:
        f(step) as a Python float. No tensor, no device, no synchronisation. Takes microseconds at any step, except past
        many cycles of a `repeat` whose cycles change length: those are walked one by one.

    Raises:
        ScheduleError: not a schedule, a step that is negative or no int, a value that is not finite, `ts.initial`, or
            an input that the schedule does not have.

    Example:
        >>> import tensorsched as ts
        >>> value(ts.linear(0.0, 1.0, steps=4) * ts.live("scale", 1.0), 2, inputs={"scale": 0.5})
        0.25
        >>> value(ts.linear(0.0, 1.0, steps=4) >> ts.cosine(1.0, 0.0, steps=8), 2)
        0.5
    """
    if not isinstance(schedule, Schedule):
        raise ScheduleError(
            f"value() needs a schedule, got {shown(schedule)}; write a number as ts.constant(number)"
        )
    names = {getattr(held, "name", "") for held in schedule.inputs()}
    if unknown := sorted(set(inputs or ()) - names):
        raise ScheduleError(f"inputs: the schedule has no live input {unknown[0]!r}; it has {sorted(names)}")
    given = cast("Schedule", schedule._with_inputs(inputs or {}))
    result = at(given, float(check_count("step", step)))
    if not math.isfinite(result):
        raise ScheduleError(
            f"the value at step {step} is {result}, not a finite number (a division by 0, or an overflow); clamp the "
            f"schedule or change its end: {brief(schedule)}"
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

HALF_PI = Fraction("1.5707963267948966192313216916397514420985846996876")


@formula(constant)
def _constant(c: constant, _t: float) -> float:
    return c.value


@formula(live)
def _live(c: live, _t: float) -> float:
    return c.initial


def _reaction(_c: Reaction, _t: float) -> float:
    """Nothing was observed."""
    return 1.0


FORMULAS |= dict.fromkeys((plateau, greedy, spike), _reaction)


@formula(s.linear)
def _linear(c: s.linear, t: float) -> float:
    """f(t) = (start * (n - t) + end * t) / n."""
    return _line(t, c.steps, c.start, c.end) if 0 < t < c.steps else _outside(c, t)


_HEIGHTS = {Fraction(1, 2): 0.5, Fraction(1, 3): 0.75}


@formula(s.cosine)
def _cosine(c: s.cosine, t: float) -> float:
    """f(t) = start * cos(pi * p / 2)**2 + end * sin(pi * p / 2)**2, from the nearer end."""
    if not 0 < t < c.steps:
        return _outside(c, t)
    first = 2.0 * t <= c.steps
    near, far = (c.start, c.end) if first else (c.end, c.start)
    passed = Fraction(t if first else c.steps - t) / c.steps
    if passed in _HEIGHTS:  # the only parts of a half wave whose height is a fraction
        return _within(c, near * _HEIGHTS[passed] + far * (1.0 - _HEIGHTS[passed]))
    angle, rest = _parts(HALF_PI * passed)
    sine, cosine = math.sin(angle), math.cos(angle)
    turned = 2.0 * sine * cosine * rest
    return _within(c, near * (cosine * cosine) + far * (sine * sine) + (far - near) * turned)


@formula(s.polynomial)
def _polynomial(c: s.polynomial, t: float) -> float:
    """f(t) = start * v + end * w with v = (1 - p)**power and v + w = 1, or w = p**power."""
    if not 0 < t < c.steps:
        return _outside(c, t)
    if c.power == 1.0:
        return _line(t, c.steps, c.start, c.end)
    left = Fraction(c.steps) - Fraction(t)
    if c.of == "elapsed":
        w, v = _power_and_rest(Fraction(t) / c.steps, left / c.steps, c.power)
    else:
        v, w = _power_and_rest(left / c.steps, Fraction(t) / c.steps, c.power)
    return _within(c, c.start * v + c.end * w)


def _power_and_rest(base: Fraction, missing: Fraction, power: float) -> tuple[float, float]:
    """base**power, and 1 minus that without cancelling; base + missing = 1."""
    raised = _raised(base, power)
    if raised <= 0.5:  # noqa: PLR2004  half: 1 - raised is exact enough below
        return raised, 1.0 - raised
    return raised, -math.expm1(power * (math.log1p(-missing) if missing < base else math.log(base)))


@formula(s.exponential)
def _exponential(c: s.exponential, t: float) -> float:
    """f(t) = start * (end / start)**p."""
    if not 0 < t < c.steps:
        return _outside(c, t)
    return _within(c, c.start * _geometric(c.end / c.start, Fraction(t) / c.steps))


@formula(s.rex)
def _rex(c: s.rex, t: float) -> float:
    """f(t) = (start * (n - t) + end * (1 - d) * t) / (n - t + (1 - d) * t)."""
    if not 0 < t < c.steps:
        return _outside(c, t)
    left, passed = c.steps - t, (1.0 - c.d) * t
    return _within(c, c.start * (left / (left + passed)) + c.end * (passed / (left + passed)))


@formula(s.tanh)
def _tanh(c: s.tanh, t: float) -> float:
    """f(t) = start / (1 + exp(2 a)) + end / (1 + exp(-2 a)) with a = lower * (1 - p) + upper * p."""
    if not 0 < t < c.steps:
        return _outside(c, t)
    p = Fraction(t) / c.steps
    a, rest = _parts(Fraction(c.lower) * (1 - p) + Fraction(c.upper) * p)
    small = math.exp(-2.0 * abs(a)) * (1.0 - 2.0 * math.copysign(rest, rest * a))
    near, far = (c.end, c.start) if a > 0.0 else (c.start, c.end)
    return _within(c, near * (1.0 / (1.0 + small)) + far * (small / (1.0 + small)))


@formula(s.exponential_decay)
def _exponential_decay(c: s.exponential_decay, t: float) -> float:
    """f(t) = start * rate**(t / every); the exponent rounded down in a staircase."""
    return c.start * (
        _power(c.rate, t // c.every) if c.staircase else _geometric(c.rate, Fraction(t) / c.every)
    )


@formula(s.power_law)
def _power_law(c: s.power_law, t: float) -> float:
    """f(t) = peak * (1 + t / timescale)**-exponent."""
    return c.peak * _raised(1 + Fraction(t) / Fraction(c.timescale), -c.exponent)


@formula(s.inverse_time)
def _inverse_time(c: s.inverse_time, t: float) -> float:
    """f(t) = start / (1 + rate * t / every); t / every rounded down in a staircase."""
    return c.start / (1.0 + c.rate * (t // c.every if c.staircase else t / c.every))


@formula(s.linear_growth)
def _linear_growth(c: s.linear_growth, t: float) -> float:
    """f(t) = start + rate * t / every; t / every rounded down in a staircase."""
    if c.staircase:
        return c.start + c.rate * (t // c.every)
    grown = c.rate * t / c.every
    return c.start + (grown if math.isfinite(grown) else c.rate * (t / c.every))


@formula(s.logarithmic)
def _logarithmic(c: s.logarithmic, t: float) -> float:
    """f(t) = (start * log((1 + n) / (1 + t)) + end * log(1 + t)) / log(1 + n)."""
    if not 0 < t < c.steps:
        return _outside(c, t)
    left, passed, whole = math.log1p((c.steps - t) / (1.0 + t)), math.log1p(t), math.log1p(c.steps)
    return _within(c, c.start * (left / whole) + c.end * (passed / whole))


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
    if t == a:
        return low
    return min(max(_line(t - a, b - a, low, high), min(low, high)), max(low, high))


@formula(s.spline)
def _spline(c: s.spline, t: float) -> float:
    """A Bezier curve between the last point at or before t and the next; its inner control values from the slopes."""
    if t <= c.points[0][0]:
        return c.points[0][1]
    passed = sum(at_step <= t for at_step, _ in c.points)
    a, low = c.points[passed - 1]
    if passed == len(c.points) or t == a:
        return low
    b, high = c.points[passed]
    before, after = _slope(c, passed - 1), _slope(c, passed)
    first, second = float(Fraction(low) + before * (b - a) / 3), float(Fraction(high) - after * (b - a) / 3)
    p, q, h = t - a, b - t, float(b - a)
    found = ((low * q * q * q + high * p * p * p) + 3.0 * p * q * (first * q + second * p)) / (h * h * h)
    return min(max(found, min(low, high)), max(low, high))


def _slope(c: s.spline, i: int) -> Fraction:
    """The slope at point i: the weighted harmonic mean of the two lines', at an end that of a parabola."""
    at_steps, levels = [step for step, _ in c.points], [Fraction(level) for _, level in c.points]
    width = [b - a for a, b in itertools.pairwise(at_steps)]
    line = [(b - a) / h for a, b, h in zip(levels, levels[1:], width, strict=False)]
    if len(line) == 1:
        return line[0]
    if 0 < i < len(line):
        a, b, h, k = line[i - 1], line[i], width[i - 1], width[i]
        return 3 * (h + k) / ((h + 2 * k) / a + (2 * h + k) / b) if a * b > 0 else Fraction(0)
    edge, inner = (0, 1) if i == 0 else (-1, -2)
    h, k = width[edge], width[inner]
    slope = ((2 * h + k) * line[edge] - h * line[inner]) / (h + k)
    if slope * line[edge] <= 0:
        return Fraction(0)
    return slope if abs(slope) <= 3 * abs(line[edge]) else 3 * line[edge]


@formula(s.from_values)
def _from_values(c: s.from_values, t: float) -> float:
    """entries[t], straight lines in between, the last entry held."""
    i = int(t)
    if i >= len(c.entries) - 1:
        return c.entries[-1]
    return c.entries[i] if t == i else c.entries[i] * (1.0 - (t - i)) + c.entries[i + 1] * (t - i)


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
        cycle, start, length = 0.0, 0.0, float(first)
        while cycle < last and start + length <= t:
            cycle, start, length = cycle + 1.0, start + length, _next_length(c, length)
        u = (t - start) * first / length if t - start < length else first
    return at(c.inner, u) if c.value_mult == 1.0 else at(c.inner, u) * _power(c.value_mult, cycle)


def _next_length(c: Repeat, length: float) -> float:
    """Rounded down, unless it keeps fractions; at most the largest float64, which no step comes near."""
    following = min(length * c.length_mult, math.nextafter(math.inf, 0.0))
    return int(following) if c.round_lengths else following


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


@formula(Mirror)
def _mirror(c: Mirror, t: float) -> float:
    n = c.inner.steps or 0
    return at(c.inner, t if t <= n else max(2.0 * n - t, 0.0))


@formula(Warp)
def _warp(c: Warp, t: float) -> float:
    """Read at n * (t / n)**k."""
    n = c.inner.steps or 0
    return at(c.inner, n * (t / n) ** c.k if t < n else n)


@formula(Span)
def _span(c: Span, t: float) -> float:
    """Read at n * (t + offset) / length."""
    n = c.inner.steps or 0
    return at(c.inner, (t + c.offset) / c.length * n if t + c.offset < c.length else n)


@formula(Over)
def _over(c: Over, t: float) -> float:
    """Read at the sum of the batch at the steps before t; once that changes no more it is a product."""
    settled = c.batch.constant_from
    summed = math.floor(t if settled is None else min(t, settled))
    *before, now = (at(c.batch, float(s)) for s in range(summed + 1))
    if not all(map(math.isfinite, (*before, now))):
        return math.nan
    consumed = sum(map(Fraction, before)) + (Fraction(t) - summed) * Fraction(now)
    return at(c.inner, float(min(consumed, MAX_STEPS)))


@formula(Floor)
def _floor(c: Floor, t: float) -> float:
    found = at(c.inner, t)
    return _multiple(found, c.to, math.floor) if math.isfinite(found) else found


@formula(Round)
def _round(c: Round, t: float) -> float:
    found = at(c.inner, t)
    return _multiple(found, c.to, round) if math.isfinite(found) else found


def _multiple(value: float, to: float, whole: Callable[[Fraction], int]) -> float:
    """Python rounds a fraction exactly, and halfway to the even number."""
    multiple, _ = _parts(Fraction(whole(Fraction(value) / Fraction(to))))
    return multiple * to


# -- what the shapes share ---------------------------------------------------------------------------------------------


def _outside(c: Any, t: float) -> float:
    """Exactly the start at step 0, exactly the end from step n on."""
    return float(c.end if t >= c.steps else c.start)


def _within(c: Any, found: float) -> float:
    """Not beyond start or end by a rounding."""
    low, high = float(min(c.start, c.end)), float(max(c.start, c.end))
    return min(max(found, low), high)


def _line(t: float, n: float, start: float, end: float) -> float:
    """From start at 0 to end at n; the division comes last, so that whole numbers stay whole."""
    found = (start * (n - t) + end * t) / n
    if not math.isfinite(found):  # the products overflow, what they are parts of does not
        found = start * ((n - t) / n) + end * (t / n)
    return min(max(found, min(start, end)), max(start, end))


def _parts(exact: Fraction) -> tuple[float, float]:
    """The nearest float64, and the rest; inf where there is none."""
    try:
        nearest = float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf, 0.0
    return nearest, float(exact - Fraction(nearest))


def _raised(base: Fraction, power: float) -> float:
    """base**power, for 0 < base."""
    nearest, rest = _parts(base)
    found = _power(nearest, power)
    return found + found * (power * rest / nearest) if math.isfinite(found) else found


def _geometric(ratio: float, exponent: Fraction) -> float:
    """ratio**exponent, for 0 < ratio."""
    nearest, rest = _parts(exponent)
    found = _power(ratio, nearest)
    return found + found * (math.log(ratio) * rest) if math.isfinite(found) else found


# -- IEEE arithmetic where Python's would raise ------------------------------------------------------------------------


def _power(x: float, y: float) -> float:
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0.0 and y % 2.0 == 1.0 else math.inf
    except ValueError:  # 0 to a negative power, or a fraction of a negative number
        return math.nan if x else math.copysign(math.inf, x) if y % 2.0 == 1.0 else math.inf


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
    "**": _power,
    "minimum": _minimum,
    "maximum": _maximum,
}

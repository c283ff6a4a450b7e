"""The formulas of what combines schedules: one after the other, step by step, at another position."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from tensorsched.errors import ScheduleError
from tensorsched.schedules.algebra import Combine, Initial, Sequence
from tensorsched.schedules.clocks import Mirror, Span, Warp
from tensorsched.schedules.live import Reaction, greedy, live, plateau, spike
from tensorsched.schedules.over import Over
from tensorsched.schedules.reference.arithmetic import OPERATORS, parts, power
from tensorsched.schedules.reference.formulas import FORMULAS, at, formula
from tensorsched.schedules.repeat import Repeat
from tensorsched.schedules.transforms import Delay, HoldEach, Skip, Stretch, Take
from tensorsched.schedules.validators import MAX_STEPS
from tensorsched.schedules.whole import Floor, Round


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
    return at(c.inner, u) if c.value_mult == 1.0 else at(c.inner, u) * power(c.value_mult, cycle)


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
    consumed: Fraction = sum(map(Fraction, before), Fraction(0)) + (Fraction(t) - summed) * Fraction(now)
    return at(c.inner, float(consumed) if consumed < MAX_STEPS else float(MAX_STEPS))


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
    multiple, _ = parts(Fraction(whole(Fraction(value) / Fraction(to))))
    return multiple * to


# -- leaves whose value somebody else gives ----------------------------------------------------------------------------


@formula(Initial)
def _initial(_c: Initial, _t: float) -> float:
    raise ScheduleError(
        "ts.initial has no value of its own: attach() replaces it with what each param_group holds; use a number here"
    )


@formula(live)
def _live(c: live, _t: float) -> float:
    return c.initial


def _reaction(_c: Reaction, _t: float) -> float:
    """Nothing was observed."""
    return 1.0


FORMULAS |= dict.fromkeys((plateau, greedy, spike), _reaction)

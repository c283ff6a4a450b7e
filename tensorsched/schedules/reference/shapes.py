"""The formulas of the shapes. To add a shape, add its formula here.

n is the length, p = t / n the part that has passed; from n on the end value. No formula cancels: the values lie within
4 ulp of the exact ones, and whole numbers come out whole.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

from tensorsched.schedules import shapes as s
from tensorsched.schedules.algebra import constant
from tensorsched.schedules.reference.arithmetic import geometric, line, outside, parts, power, raised, within
from tensorsched.schedules.reference.formulas import formula

HALF_PI = Fraction("1.5707963267948966192313216916397514420985846996876")


@formula(constant)
def _constant(c: constant, _t: float) -> float:
    return c.value


@formula(s.linear)
def _linear(c: s.linear, t: float) -> float:
    """f(t) = (start * (n - t) + end * t) / n."""
    return line(t, c.steps, c.start, c.end) if 0 < t < c.steps else outside(c, t)


_HEIGHTS = {Fraction(1, 2): 0.5, Fraction(1, 3): 0.75}


@formula(s.cosine)
def _cosine(c: s.cosine, t: float) -> float:
    """f(t) = start * cos(pi * p / 2)**2 + end * sin(pi * p / 2)**2, from the nearer end."""
    if not 0 < t < c.steps:
        return outside(c, t)
    first = 2.0 * t <= c.steps
    near, far = (c.start, c.end) if first else (c.end, c.start)
    passed = Fraction(t if first else c.steps - t) / c.steps
    if passed in _HEIGHTS:  # the only parts of a half wave whose height is a fraction
        return within(c, near * _HEIGHTS[passed] + far * (1.0 - _HEIGHTS[passed]))
    angle, rest = parts(HALF_PI * passed)
    sine, cosine = math.sin(angle), math.cos(angle)
    turned = 2.0 * sine * cosine * rest
    return within(c, near * (cosine * cosine) + far * (sine * sine) + (far - near) * turned)


@formula(s.polynomial)
def _polynomial(c: s.polynomial, t: float) -> float:
    """f(t) = start * v + end * w with v = (1 - p)**power and v + w = 1, or w = p**power."""
    if not 0 < t < c.steps:
        return outside(c, t)
    if c.power == 1.0:
        return line(t, c.steps, c.start, c.end)
    left = Fraction(c.steps) - Fraction(t)
    if c.of == "elapsed":
        w, v = _power_and_rest(Fraction(t) / c.steps, left / c.steps, c.power)
    else:
        v, w = _power_and_rest(left / c.steps, Fraction(t) / c.steps, c.power)
    return within(c, c.start * v + c.end * w)


def _power_and_rest(base: Fraction, missing: Fraction, exponent: float) -> tuple[float, float]:
    """base**exponent, and 1 minus that without cancelling; base + missing = 1."""
    found = raised(base, exponent)
    if found <= 0.5:  # noqa: PLR2004  half: 1 - found is exact enough below
        return found, 1.0 - found
    return found, -math.expm1(exponent * (math.log1p(-missing) if missing < base else math.log(base)))


@formula(s.exponential)
def _exponential(c: s.exponential, t: float) -> float:
    """f(t) = start * (end / start)**p."""
    if not 0 < t < c.steps:
        return outside(c, t)
    return within(c, c.start * geometric(c.end / c.start, Fraction(t) / c.steps))


@formula(s.rex)
def _rex(c: s.rex, t: float) -> float:
    """f(t) = (start * (n - t) + end * (1 - d) * t) / (n - t + (1 - d) * t)."""
    if not 0 < t < c.steps:
        return outside(c, t)
    left, passed = c.steps - t, (1.0 - c.d) * t
    return within(c, c.start * (left / (left + passed)) + c.end * (passed / (left + passed)))


@formula(s.tanh)
def _tanh(c: s.tanh, t: float) -> float:
    """f(t) = start / (1 + exp(2 a)) + end / (1 + exp(-2 a)) with a = lower * (1 - p) + upper * p."""
    if not 0 < t < c.steps:
        return outside(c, t)
    p = Fraction(t) / c.steps
    a, rest = parts(Fraction(c.lower) * (1 - p) + Fraction(c.upper) * p)
    small = math.exp(-2.0 * abs(a)) * (1.0 - 2.0 * math.copysign(rest, rest * a))
    near, far = (c.end, c.start) if a > 0.0 else (c.start, c.end)
    return within(c, near * (1.0 / (1.0 + small)) + far * (small / (1.0 + small)))


@formula(s.exponential_decay)
def _exponential_decay(c: s.exponential_decay, t: float) -> float:
    """f(t) = start * rate**(t / every); the exponent rounded down in a staircase."""
    return c.start * (
        power(c.rate, t // c.every) if c.staircase else geometric(c.rate, Fraction(t) / c.every)
    )


@formula(s.power_law)
def _power_law(c: s.power_law, t: float) -> float:
    """f(t) = peak * (1 + t / timescale)**-exponent."""
    return c.peak * raised(1 + Fraction(t) / Fraction(c.timescale), -c.exponent)


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
        return outside(c, t)
    left, passed, whole = math.log1p((c.steps - t) / (1.0 + t)), math.log1p(t), math.log1p(c.steps)
    return within(c, c.start * (left / whole) + c.end * (passed / whole))


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
    return min(max(line(t - a, b - a, low, high), min(low, high)), max(low, high))


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

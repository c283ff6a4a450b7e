"""The reference against the formulas at 50 digits: within the bound that `rounding` derives."""

from __future__ import annotations

import functools
import itertools
import math
import time

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

import tensorsched as ts
from tensorsched import ScheduleError, reference
from tests.rounding import SHAPE_ULPS, U, analyse, scale
from tests.strategies import SHAPES, shapes, steps_to_try


def mix(a, b, w):
    """From a at w = 0 to b at w = 1."""
    return a * (1 - w) + b * w


def ramp(curve):
    """A bounded shape by its curve over p = t / n."""
    return lambda s, t: s.end if t >= s.steps else curve(s, t / s.steps)


def interpolate(points, t):
    after = next((i for i, (step, _) in enumerate(points) if step > t), len(points))
    if after in (0, len(points)):
        return points[max(after - 1, 0)][1]
    (a, low), (b, high) = points[after - 1 : after + 1]
    return mix(low, high, (t - a) / (b - a))


def pchip(points, t):
    """As scipy's PchipInterpolator writes it: Hermite's cubic, with the slopes of Fritsch and Butland."""
    after = next((i for i, (step, _) in enumerate(points) if step > t), len(points))
    if after in (0, len(points)):
        return points[max(after - 1, 0)][1]
    h = [b - a for (a, _), (b, _) in itertools.pairwise(points)]
    d = [(y - x) / (b - a) for (a, x), (b, y) in itertools.pairwise(points)]
    slopes = [edge(h, d), *map(inner, h, h[1:], d, d[1:]), edge(h[::-1], d[::-1])]
    (a, low), (b, high) = points[after - 1 : after + 1]
    x, width = (t - a) / (b - a), b - a
    return (
        low * (1 + 2 * x) * (1 - x) ** 2
        + high * x**2 * (3 - 2 * x)
        + width * x * (1 - x) * (slopes[after - 1] * (1 - x) - slopes[after] * x)
    )


def inner(h0, h1, d0, d1):
    if d0 * d1 <= 0:
        return 0
    w0, w1 = 2 * h1 + h0, h1 + 2 * h0
    return (w0 + w1) / (w0 / d0 + w1 / d1)


def edge(h, d):
    if len(d) == 1:
        return d[0]
    slope = ((2 * h[0] + h[1]) * d[0] - h[0] * d[1]) / (h[0] + h[1])
    if mpmath.sign(slope) != mpmath.sign(d[0]):
        return 0
    return 3 * d[0] if mpmath.sign(d[0]) != mpmath.sign(d[1]) and abs(slope) > abs(3 * d[0]) else slope


# Each formula on 50-digit numbers, written differently than in the package: s the schedule's fields, t the step.
TRUTH = {
    "constant": lambda s, _: s.value,
    "linear": ramp(lambda s, p: mix(s.start, s.end, p)),
    "cosine": ramp(lambda s, p: mix(s.end, s.start, mpmath.cos(mpmath.pi * p / 2) ** 2)),
    "polynomial": ramp(
        lambda s, p: (
            mix(s.start, s.end, p**s.power) if s.of == "elapsed" else mix(s.end, s.start, (1 - p) ** s.power)
        )
    ),
    "exponential": ramp(lambda s, p: mpmath.exp(mix(mpmath.log(s.start), mpmath.log(s.end), p))),
    "rex": ramp(lambda s, p: mix(s.end, s.start, (1 - p) / (1 - p * s.d))),
    "tanh": ramp(
        lambda s, p: mix(s.end, s.start, 1 / (1 + mpmath.exp(2 * mix(s.lower, s.upper, p))) if p else 1)
    ),
    "exponential_decay": lambda s, t: (
        s.start * mpmath.exp(mpmath.log(s.rate) * (mpmath.floor(t / s.every) if s.staircase else t / s.every))
    ),
    "logarithmic": ramp(
        lambda s, p: mix(s.start, s.end, mpmath.log(1 + p * s.steps) / mpmath.log(1 + s.steps))
    ),
    "power_law": lambda s, t: s.peak / ((s.timescale + t) / s.timescale) ** s.exponent,
    "inverse_time": lambda s, t: (
        s.start * s.every / (s.every + s.rate * (t - t % s.every if s.staircase else t))
    ),
    "linear_growth": lambda s, t: (
        (s.start * s.every + s.rate * (t - t % s.every if s.staircase else t)) / s.every
    ),
    "inverse_sqrt": lambda s, t: s.peak * mpmath.sqrt(s.timescale) / mpmath.sqrt(s.timescale + t),
    "piecewise_constant": lambda s, t: s.levels[len([b for b in s.boundaries if b <= t])],
    "piecewise_linear": lambda s, t: interpolate(s.points, t),
    "spline": lambda s, t: pchip(s.points, t),
    "from_values": lambda s, t: s.entries[min(int(t), len(s.entries) - 1)],
}


class Fields:
    """A schedule's fields as 50-digit numbers."""

    def __init__(self, schedule) -> None:
        self._schedule = schedule

    def __getattr__(self, name):
        return _digits(getattr(self._schedule, name))


def _digits(held):
    if isinstance(held, tuple):
        return tuple(map(_digits, held))
    return mpf(held) if isinstance(held, (int, float)) and not isinstance(held, bool) else held


def truth(schedule, step):
    return mpf(TRUTH[schedule.kind](Fields(schedule), mpf(step)))


@pytest.fixture(autouse=True, scope="module")
def fifty_digits():
    with mpmath.workdps(50):
        yield


def within(schedule, step, exact, factor: float = 1.0) -> bool:
    reading = analyse(schedule, step)
    if not math.isfinite(reading.value):
        return exact == 0 or abs(exact) > 1e308  # 0 * inf is nan
    assert reading.value == reference.value(schedule, step)
    return abs(exact - mpf(reading.value) * mpf(factor)) <= reading.error


@pytest.mark.parametrize("kind", TRUTH)
def test_each_formula(kind):
    @given(SHAPES[kind])
    def check(schedule):
        for step in steps_to_try(schedule):
            assert within(schedule, step, truth(schedule, step)), step

    check()


@pytest.mark.parametrize("kind", [kind for kind in TRUTH if kind != "from_values"])
def test_each_value_lies_within_four_ulp(kind):
    """At every step, of the table and of the reference alike; near the end of a fall to 0 as well."""

    @given(SHAPES[kind])
    @settings(max_examples=30)
    def check(schedule):
        last = min(schedule.steps or 60, 60)
        long = schedule.steps or 10**6
        for step in {*range(last + 1), *(long * k // 11 for k in range(12)), max(long - 1, 0)}:
            exact = truth(schedule, step)
            if 1e-290 < abs(exact) < 1e300:
                ulp = math.ulp(scale(schedule, step, float(exact)))
                for value in (schedule(step), reference.value(schedule, step)):
                    assert abs(exact - mpf(value)) <= SHAPE_ULPS * mpf(ulp), (step, value, exact)

    check()


def test_what_used_to_cancel():
    """By up to 5,781 and 10**7 ulp, when they were written start + (end - start) * p."""
    for schedule in (
        ts.linear(1e-5, 0, steps=20_000),
        ts.cosine(3e-4, 0, steps=20_000),
        ts.rex(1, 0, steps=999),
    ):
        for step in range(schedule.steps - 300, schedule.steps):
            exact = truth(schedule, step)
            for value in (schedule(step), reference.value(schedule, step)):
                assert abs(exact - mpf(value)) <= SHAPE_ULPS * mpf(math.ulp(float(exact)))


@given(
    st.integers(-(10**6), 10**6),
    st.integers(1, 10**4),
    st.integers(-50, 50),
    st.sampled_from(["linear", "polynomial"]),
)
def test_whole_numbers_are_whole(start, steps, slope, kind):
    line = getattr(ts, kind)(start, start + slope * steps, steps=steps)
    for step in {0, 1, steps // 2, steps // 3, steps - 1, steps}:
        assert line(step) == reference.value(line, step) == start + slope * step


def test_the_ends_and_level_curves_are_exact():
    for a, b in ((0.1, 0.7), (0.7, 0.1), (1 / 3, 1 / 3)):
        for made in (
            ts.linear,
            ts.cosine,
            ts.exponential,
            ts.rex,
            ts.tanh,
            ts.logarithmic,
            functools.partial(ts.polynomial, power=0.3),
        ):
            curve = made(a, b, steps=49)
            values = [*curve.values(60).tolist(), *(reference.value(curve, t) for t in range(60))]
            assert (values[0], values[49], values[59]) == (a, b, b)
            assert min(a, b) <= min(values)
            assert max(values) <= max(a, b)


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "minimum": min,
    "maximum": max,
}
MAKE = {**OPERATORS, "minimum": ts.minimum, "maximum": ts.maximum}


@given(shapes, shapes, shapes, st.sampled_from([*OPERATORS]), st.sampled_from([*OPERATORS]))
def test_small_trees(a, b, c, first, second):
    try:
        tree = MAKE[second](MAKE[first](a, b), c)
    except ScheduleError:
        return  # a division by the constant 0
    for step in steps_to_try(tree):
        reading = analyse(tree, step)
        if math.isfinite(reading.value + reading.error):
            x, y, z = (truth(s, step) for s in (a, b, c))
            assert abs(OPERATORS[second](OPERATORS[first](x, y), z) - mpf(reading.value)) <= reading.error


@given(shapes, shapes, st.integers(0, 50), st.integers(1, 9))
def test_small_trees_on_another_clock(a, b, n, each):
    tree = (a.take(n) >> b.skip(n).delay(3)).hold_each(each)
    for step in steps_to_try(tree):
        t = step // each
        assert within(tree, step, truth(a, t) if t < n else truth(b, n + max(t - n - 3, 0)))


@pytest.mark.parametrize(
    ("steps", "times", "length_mult", "value_mult"), [(7, 4, 1.0, 0.5), (6, 5, 1.5, -0.9), (8, 3, 0.5, 3.0)]
)
def test_repeat(steps, times, length_mult, value_mult):
    tree = ts.cosine(2, 1, steps=steps).repeat(times, length_mult=length_mult, value_mult=value_mult)
    start, length = 0, steps
    for cycle in range(times):
        for u in range(length + (cycle == times - 1)):
            wave = 1 + (1 + mpmath.cos(mpmath.pi * u / length)) / 2
            # analyse() takes positions as exact: that of a longer cycle is rounded twice, |cosine'| * n <= pi / 2
            position = 2 * U * mpmath.pi / 2 * abs(value_mult) ** cycle
            reading = analyse(tree, start + u)
            assert abs(wave * mpf(value_mult) ** cycle - mpf(reading.value)) <= reading.error + position
        start, length = start + length, int(length * length_mult)
    assert tree.steps == start


@pytest.mark.parametrize("factor", [2.0, 0.75, 3.1])
def test_stretch(factor):
    tree = ts.cosine(2, 1, steps=40).stretch(factor)
    for t in range(tree.steps + 1):
        wave = 1 + (1 + mpmath.cos(mpmath.pi * t / tree.steps)) / 2
        assert abs(wave - mpf(reference.value(tree, t))) <= analyse(tree, t).error + 2 * U * mpmath.pi / 2


# -- the bound is not a blank cheque ----------------------------------------------------------------------------------

TYPICAL = {
    "linear": ts.linear(0.1, 0.7, steps=1000),
    "cosine": ts.cosine(0.7, 0.1, steps=1000),
    "polynomial": ts.polynomial(0.7, 0.1, 0.9, steps=1000),
    "exponential": ts.exponential(0.1, 0.7, steps=1000),
    "rex": ts.rex(0.7, 0.1, steps=1000),
    "tanh": ts.tanh(0.7, 0.1, lower=-1, upper=2, steps=1000),
    "exponential_decay": ts.exponential_decay(0.1, 0.7, every=1000),
    "inverse_sqrt": ts.inverse_sqrt(0.1, timescale=300),
    "piecewise_linear": ts.piecewise_linear([(0, 0.1), (700, 0.7), (1000, 0.1)]),
}


@pytest.mark.parametrize("kind", TYPICAL)
def test_a_perturbed_formula_is_found(kind):
    """A relative change of 100 u, a hundred-trillionth, is more than rounding can do."""
    schedule = TYPICAL[kind]
    for step in range(1, 1000, 37):
        assert within(schedule, step, truth(schedule, step))
        assert not within(schedule, step, truth(schedule, step), factor=1 + 100 * U)


@pytest.mark.parametrize("kind", TYPICAL)
def test_a_formula_off_by_one_step_is_found(kind):
    schedule = TYPICAL[kind]
    assert not any(within(schedule, step, truth(schedule, step + 1)) for step in range(1, 999, 37))


@pytest.mark.parametrize("kind", TYPICAL)
def test_a_frozen_value_is_found(kind):
    schedule = TYPICAL[kind]
    assert not any(
        within(ts.constant(schedule(0)), step, truth(schedule, step)) for step in range(1, 999, 37)
    )


# -- the function itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-1, 1.0, 0.5, True, None, "3", 2**53 + 1, np.float64(1.0)])
def test_a_bad_step(step):
    with pytest.raises(ScheduleError, match=r"step must be (a whole number|at most 2\*\*53)"):
        reference.value(ts.constant(1.0), step)


@pytest.mark.parametrize("step", [3, np.int32(3), np.uint64(3)])
def test_any_integer_is_a_step(step):
    assert reference.value(ts.linear(0, 1, steps=4), step) == 0.75


@pytest.mark.parametrize(
    ("schedule", "step", "found"),
    [
        (1.0 / ts.linear(1, 0, steps=4), 4, "inf"),
        (-1.0 / ts.linear(1, 0, steps=4), 4, "-inf"),
        (ts.linear(1, 0, steps=4) / ts.linear(1, 0, steps=4), 4, "nan"),
        (ts.exponential_decay(1.0, 2.0, every=1), 2000, "inf"),
        (ts.constant(1.0, steps=3).repeat(value_mult=-10.0), 3 * 309, "-inf"),
        (ts.constant(1.0, steps=3).repeat(value_mult=-10.0), 3 * 310, "inf"),
        (ts.minimum(1.0, ts.linear(1, 0, steps=1) / ts.linear(1, 0, steps=1)), 1, "nan"),
        (ts.maximum(ts.linear(1, 0, steps=1) / ts.linear(1, 0, steps=1), 1.0), 1, "nan"),
        (1e308 * ts.constant(10.0), 0, "inf"),
    ],
)
@pytest.mark.parametrize("read", [ts.Schedule.__call__, reference.value], ids=["table", "reference"])
def test_a_value_that_is_not_finite(schedule, step, found, read):
    with pytest.raises(
        ScheduleError, match=rf"the value at step {step} is {found}, not a finite number .*clamp"
    ):
        read(schedule, step)


@pytest.mark.parametrize("number", [1.0, None, "linear"])
def test_what_is_no_schedule(number):
    with pytest.raises(ScheduleError, match=r"needs a schedule, got .*ts\.constant\(number\)"):
        reference.value(number, 0)


@pytest.mark.parametrize(
    "schedule", [ts.initial, ts.initial * ts.linear(0, 1, steps=4), ts.linear(0, 1, steps=4) >> ts.initial]
)
def test_initial_has_no_value(schedule):
    with pytest.raises(ScheduleError, match=r"ts\.initial has no value of its own.*attach"):
        reference.value(schedule, 9)


def test_a_kind_without_a_formula(monkeypatch):
    monkeypatch.delitem(reference.FORMULAS, ts.linear)
    with pytest.raises(
        ScheduleError,
        match=r"no formula for linear: add a scalar one to tensorsched/schedules/reference/shapes\.py",
    ):
        reference.value(2.0 * ts.linear(0, 1, steps=4), 0)


def test_a_far_step_costs_no_more_than_a_near_one():
    tree = (ts.cosine(1, 0, steps=7).repeat() + ts.linear(0, 1, steps=9).repeat(length_mult=1.5)).hold_each(3)
    start = time.perf_counter()
    for step in range(10**12, 10**12 + 100):
        reference.value(tree, step)
    assert time.perf_counter() - start < 1.0  # seconds: some 20 us a call, and an hour if it walked the steps

"""What holds for every schedule, over random expressions."""

from __future__ import annotations

import copy
import functools
import json
import math
import operator
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import Phase, assume, example, find, given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched import ScheduleError, reference
from tensorsched.schedules import algebra
from tensorsched.schedules.live import Input
from tensorsched.schedules.node import NODES
from tests.rounding import Reading, analyse
from tests.strategies import SHAPES, bounded, combinators, counts, lengths, schedules, shapes, steps_to_try

NAMESPACE = {**vars(ts), **vars(algebra)}


def outcome(function, *args) -> float | None:
    """The value, or None where it is refused as not finite."""
    try:
        return function(*args)
    except ScheduleError as error:
        assert "not a finite number" in str(error)  # noqa: PT017  every other refusal is a failure
        return None


def agrees(value: float | None, reading: Reading) -> bool:
    """Whether a table's value is one that the reference and its rounding errors leave possible."""
    if not math.isfinite(reading.value):
        return value is None or not reading.exact
    if value is None:
        return not math.isfinite(reading.error)
    return abs(value - reading.value) <= reading.apart


def same(a: ts.Schedule, b: ts.Schedule, steps) -> bool:
    return all(outcome(a, t) == outcome(b, t) for t in steps)


# -- values and the reference -----------------------------------------------------------------------------------------


@given(schedules())
def test_values_are_the_references(schedule):
    for t in steps_to_try(schedule):
        reading = analyse(schedule, t)
        assert agrees(outcome(schedule, t), reading), (t, schedule(t), reading)


# Only + - * / on the values, so that position and value must be the reference's to the last bit.
EXACT = st.one_of(
    *(
        SHAPES[kind]
        for kind in ("constant", "linear", "piecewise_constant", "piecewise_linear", "spline", "from_values")
    )
)
GROUPS = {**SHAPES, **combinators(EXACT)}


@pytest.mark.parametrize("group", GROUPS)
def test_each_kinds_values_are_the_references(group):
    @given(GROUPS[group])
    def check(schedule):
        for t in steps_to_try(schedule):
            reading = analyse(schedule, t)
            assert agrees(outcome(schedule, t), reading), (t, schedule(t), reading)
            assert (
                reading.exact or group in SHAPES or "value_mult" in repr(schedule) or "**" in repr(schedule)
            )

    check()


@given(schedules())
def test_the_float32_value_is_the_references_to_one_ulp(schedule):
    largest = float(np.finfo(np.float32).max)
    for t in steps_to_try(schedule):
        reading = analyse(schedule, t)
        if not abs(reading.value) + reading.error < largest:  # or nan
            continue
        live, expected = np.float32(schedule(t)), np.float32(reference.value(schedule, t))
        assert abs(float(live) - float(expected)) <= float(np.spacing(abs(expected))) + reading.apart


@given(schedules())
def test_a_frozen_value_is_not_the_references(schedule):
    readings = [analyse(schedule, t) for t in steps_to_try(schedule)]
    frozen = readings[0].value
    assume(any(abs(reading.value - frozen) > reading.apart + readings[0].apart for reading in readings))
    assert not all(agrees(frozen, reading) for reading in readings)


@given(schedules(), st.integers(0, 70))
def test_values_are_the_single_calls(schedule, n):
    try:
        values = schedule.values(n)
    except ScheduleError:
        assert None in [outcome(schedule, t) for t in range(n)]
    else:
        assert values.dtype == np.float64
        assert values.tolist() == [schedule(t) for t in range(n)]


def test_every_kind_of_node_has_a_group():
    any_one = settings(max_examples=50, phases=[Phase.generate])
    drawn = {find(group, lambda _: True, settings=any_one).kind for group in GROUPS.values()}
    live = {
        kind for kind, node in NODES.items() if issubclass(node, Input)
    }  # drawn by strategies.live_expressions
    assert drawn == set(NODES) - live - {"initial"}


# -- length and end ---------------------------------------------------------------------------------------------------


@given(schedules())
def test_a_schedule_that_ends_is_constant_from_there(schedule):
    assert schedule.steps is None or (
        schedule.constant_from is not None and schedule.constant_from <= schedule.steps
    )
    assert schedule.settled == schedule.constant_from  # its name in 0.1


@given(schedules())
def test_constant_from_there_it_is(schedule):
    start = schedule.constant_from
    assume(start is not None and start < 2**52)
    later = [t for t in steps_to_try(schedule) if t >= start] + [start + 1, start + 7, 2**53]
    assert same(
        schedule, ts.constant(value) if (value := outcome(schedule, start)) is not None else schedule, later
    )


# -- laws -------------------------------------------------------------------------------------------------------------


@given(bounded(), bounded(), schedules())
def test_sequence_is_associative(a, b, c):
    left, right = (a >> b) >> c, a >> (b >> c)
    assert left == right
    assert repr(left) == repr(right)
    assert same(left, right, steps_to_try(left))
    assert left.steps == (None if c.steps is None else a.steps + b.steps + c.steps)


@given(shapes, schedules())
def test_nothing_in_front_changes_nothing(a, b):
    assert same(a.take(0) >> b, b, steps_to_try(b))


@given(bounded(), schedules())
def test_a_sequence_is_its_parts(a, b):
    both = a >> b
    assert same(both.take(a.steps), a, [t for t in steps_to_try(a) if t < a.steps])
    assert same(both.skip(a.steps), b, steps_to_try(b))
    assert outcome(both.take(a.steps), a.steps) == outcome(b, 0)


@given(schedules(), lengths, lengths)
def test_take_skip_and_delay_move_the_clock(s, n, m):
    steps = steps_to_try(s)
    assert s.take(n).steps == n
    assert same(s.take(n).take(m), s.take(min(n, m)), steps)
    assert same(s.skip(n).skip(m), s.skip(n + m), steps)
    assert same(s.delay(n).delay(m), s.delay(n + m), steps)
    assert same(s.delay(n).skip(n), s, steps)
    assert [outcome(s.skip(n), t) for t in steps] == [outcome(s, t + n) for t in steps]
    assert [outcome(s.delay(n), t) for t in steps] == [outcome(s, max(t - n, 0)) for t in steps]
    assert [outcome(s.take(n), t) for t in steps] == [outcome(s, min(t, n)) for t in steps]


@given(schedules(), counts, counts)
def test_hold_each_is_integer_division(s, n, m):
    held, steps = s.hold_each(n), steps_to_try(s.hold_each(n))
    assert held.steps == (None if s.steps is None else s.steps * n)
    assert [outcome(held, t) for t in steps] == [outcome(s, t // n) for t in steps]
    assert same(held.hold_each(m), s.hold_each(n * m), steps)


@given(bounded(), st.integers(1, 4))
def test_a_plain_repeat_is_the_remainder(s, times):
    assume(s.steps)
    for t in steps_to_try(s.repeat(times)):
        if t < s.steps * times:
            assert outcome(s.repeat(times), t) == outcome(s.repeat(), t) == outcome(s, t % s.steps)
        else:
            assert outcome(s.repeat(times), t) == outcome(s, s.steps)


@given(schedules(), schedules(), st.sampled_from(["+", "-", "*", "minimum", "maximum"]))
def test_a_combination_is_step_by_step(a, b, op):
    both, numpy = algebra.Combine(a, b, op=op), algebra._OPS[op]
    for t in steps_to_try(both):
        x, y = outcome(a, t), outcome(b, t)
        if x is not None and y is not None:
            with np.errstate(over="ignore"):
                expected = float(numpy(x, y))
            assert outcome(both, t) == (expected if math.isfinite(expected) else None)


@given(bounded(), st.integers(0, 3))
def test_a_mirror_goes_there_and_back(s, n):
    both = s.mirror()
    assert both.steps == 2 * s.steps
    for t in steps_to_try(both):
        assert outcome(both, t) == outcome(s, t if t <= s.steps else max(2 * s.steps - t, 0))
    if s.steps:
        assert same(both.mirror(), both.repeat(2), [t for t in steps_to_try(both) if t < both.steps])
    assert same(s.span(s.steps + n), s, [0]) if s.steps + n else True


@given(bounded())
def test_warping_by_one_and_spanning_the_length_change_nothing(s):
    assume(0 < s.steps < 100)
    assert s.warp(1.0).steps == s.span(s.steps).steps == s.steps
    edges = [0, s.steps, s.steps + 7]
    assert same(s.warp(1.0), s, edges)
    assert same(s.span(s.steps), s, edges)


@given(schedules(), st.sampled_from([1.0, 64.0, 0.25]))
def test_a_multiple_is_the_nearest_or_the_one_below(s, to):
    for t in steps_to_try(s):
        value = outcome(s, t)
        if value is None:
            continue
        exact = Fraction(value) / Fraction(to)
        assert s.floor(to)(t) == math.floor(exact) * to
        assert s.round(to)(t) == round(exact) * to


@given(st.lists(bounded(), min_size=1, max_size=4))
def test_a_chain_is_one_after_the_other(parts):
    assert ts.chain(parts) == functools.reduce(operator.rshift, parts)


@given(schedules())
def test_stretching_by_one_changes_nothing(s):
    whole = [t for t in steps_to_try(s) if s.steps is None or t * s.steps < 2**53]  # t * n / n is exact there
    assert same(s.stretch(1.0), s, whole)
    assert s.stretch(1.0).steps == s.steps


# -- text and documents -----------------------------------------------------------------------------------------------


def copies(schedule):
    """Every way out and back in."""
    return [
        eval(repr(schedule), NAMESPACE),  # noqa: S307  it is our own
        ts.from_dict(schedule.to_dict()),
        ts.from_json(schedule.to_json()),
        ts.from_json(schedule.to_json(indent=2).encode()),
        ts.from_dict(json.loads(json.dumps(schedule.to_dict()))),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
    ]


@given(schedules())
@example(ts.initial * ts.linear(1, 0, steps=4))
@example(ts.constant(1.0) + ts.constant(2.0))
@example(-ts.linear(1, 0, steps=4) - (ts.initial - 1.0) / 3)
def test_a_schedule_survives_every_way_out_and_in(schedule):
    for other in copies(schedule):
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert repr(other) == repr(schedule)
        assert other.fingerprint == schedule.fingerprint
        assert (other.steps, other.constant_from) == (schedule.steps, schedule.constant_from)


@given(schedules(), schedules())
@example(ts.linear(0, 1, steps=3), ts.linear(0, 1, steps=4))
@example(ts.linear(0, 1, steps=3), ts.linear(0, 1.0000000000000002, steps=3))
@example(ts.constant(0.0), ts.constant(-0.0))
@example(ts.constant(1.0), ts.constant(1.0, steps=1))
@example(ts.minimum(1.0, ts.constant(2.0)), ts.maximum(1.0, ts.constant(2.0)))
def test_equal_schedules_and_only_they_share_a_fingerprint(a, b):
    assert (a == b) == (a.fingerprint == b.fingerprint) == (repr(a) == repr(b))

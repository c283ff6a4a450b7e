"""The head and the tail of a schedule: the values of take and skip, without their nesting."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.schedules.pieces import head, tail
from tests.strategies import schedules


def finite(schedule: ts.Schedule, n: int) -> np.ndarray | None:
    try:
        return schedule.values(n)
    except ts.ScheduleError:
        return None


@given(schedule=schedules(), cut=st.integers(0, 40))
def test_head_and_tail_have_the_values_of_take_and_skip(schedule, cut):
    values = finite(schedule, 80)
    if values is None:
        return
    assert (head(schedule, cut) >> 0.0).values(cut).tobytes() == values[:cut].tobytes()
    assert head(schedule, cut).steps == cut
    assert tail(schedule, cut).values(80 - cut).tobytes() == values[cut:].tobytes()
    assert (head(schedule, cut) >> tail(schedule, cut)).values(80).tobytes() == values.tobytes()


def test_a_plan_that_is_changed_a_thousand_times_does_not_nest():
    plan: ts.Schedule = ts.constant(1.0)
    for now in range(1, 1_000):
        plan = head(plan, now) >> ts.linear(1.0, 0.0, steps=5_000)
        plan = head(plan, now) >> ts.constant(0.5, steps=3) >> tail(plan, now)
    assert plan._depth < 6
    nested: ts.Schedule = ts.cosine(1.0, 0.0, steps=5_000)
    for _ in range(200):
        nested = tail(nested, 1)
        nested = head(nested, nested.steps)
    assert nested == ts.cosine(1.0, 0.0, steps=5_000).skip(200)

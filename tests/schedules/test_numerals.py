"""Numbers in pictures are as people write them, and none is made another one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.schedules.node import brief
from tensorsched.schedules.views.numerals import at, labels, log_ticks, number, placed, scientific, tidy
from tests import strategies

WRITTEN = [
    (0.1 + 0.2, "0.3"), (2.9999999999e-4, "3e-4"), (3e-4, "3e-4"), (2.5e-4, "2.5e-4"), (0.001, "1e-3"), (0.025, "0.025"),
    (0.0, "0"), (-0.0, "0"), (1.0, "1"), (-3e-4, "-3e-4"), (3072.0, "3072"), (100_000.0, "100000"), (1e9, "1e9"),
    (4194304.0, "4194304"), (9.6e14, "9.6e14"), (1 / 3, "0.333333"), (123.456789, "123.457"), (math.inf, "inf"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), WRITTEN, ids=str)
def test_a_number_is_written_the_shorter_way(value, text):
    assert number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_no_other_number(value):
    assert math.isclose(float(number(value)), value, rel_tol=5e-6)
    assert math.isclose(float(number(value, 12)), value, rel_tol=5e-12)


def test_an_expression_is_written_without_noise():
    assert tidy("linear(0.30000000000000004, 0.0, steps=20000)") == "linear(0.3, 0, steps=20000)"
    assert tidy(repr(ts.multistep(0.1, [30, 60]))) == "piecewise_constant((0.1, 0.01, 1e-3), (30, 60))"
    assert tidy("live('a1.0')") == "live('a1.0')"  # a name
    assert tidy("5e-324") == "5e-324"


@given(strategies.schedules())
@settings(max_examples=100)
def test_a_tidy_expression_is_the_same_to_twelve_digits(schedule):
    text = brief(schedule)
    if "..." in text:
        return
    assert tidy(repr(ts.parse(tidy(text)))) == tidy(text)


def test_labels_of_one_axis_are_of_one_kind_and_differ():
    assert labels([0.0, 1e-4, 2e-4, 3e-4]) == ["0", "1e-4", "2e-4", "3e-4"]
    assert labels([0.0, 0.1, 0.2, 0.30000000000000004]) == ["0", "0.1", "0.2", "0.3"]
    assert labels([0.0, 0.002, 0.012]) == ["0", "0.002", "0.012"]
    assert labels([1e-3, 1.00001e-3]) == ["1e-3", "1.00001e-3"]
    assert labels([1.0, 1.0000001]) == ["1", "1.0000001"]
    assert labels([0.0, 2e6, 4e6]) == ["0", "2e6", "4e6"]
    assert labels([]) == []


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((1e-4, 1.0), [1e-4, 1e-3, 1e-2, 1e-1, 1.0]), ((1e-7, 10.0), [1e-7, 1e-5, 1e-3, 1e-1, 10.0]),
        ((1e-3, 0.02), [1e-3, 2e-3, 5e-3, 1e-2, 2e-2]), ((0.21, 0.48), [0.3, 0.4]),
    ],
)  # fmt: skip
def test_ticks_of_a_log_axis(ends, expected):
    assert log_ticks(*ends, 5) == pytest.approx(expected)


@given(st.floats(1e-300, 1e300), st.floats(1.001, 1e9), st.integers(2, 8))
def test_ticks_of_a_log_axis_lie_within_it(low, times, most):
    high = min(low * times, 1.7e308)
    found = log_ticks(low, high, most)
    assert 1 <= len(found) <= most
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in found)


def test_steps_are_said_exactly():
    assert [at(n) for n in (0, 999, 1000, 16_000, 16_500, 16_050, 250_000_000_000)] == [
        "0", "999", "1k", "16k", "16.5k", "16,050", "250B",
    ]  # fmt: skip
    assert [placed(6000, "step"), placed(6000, "tokens")] == ["step 6,000", "6,000 tokens"]
    assert scientific(2.5e-4) == "2.5e-4"

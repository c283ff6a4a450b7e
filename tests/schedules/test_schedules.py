"""Schedules by example: values worked out by hand, lengths, text, and what a schedule is as a Python object."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tensorsched as ts
from tensorsched import ScheduleError, reference
from tensorsched.schedules import algebra
from tensorsched.schedules import validators as fields
from tensorsched.schedules.live import Input
from tensorsched.schedules.node import NODES, SHAPES, node
from tensorsched.schedules.parse import parse
from tensorsched.schedules.recipes.curves import half_life
from tensorsched.schedules.validators import MAX_STEPS
from tensorsched.schedules.views.phases import phases
from tests import strategies
from tests.schedules import test_reference

SQRT2 = math.sqrt(2.0)
up = ts.linear(0.0, 1.0, steps=4)
down = ts.linear(1.0, 0.0, steps=2)
table = ts.from_values([3.0, 1.0, 2.0])
NAMESPACE = {**vars(ts), **vars(algebra)}

# (expression, its steps, its constant_from, its values from step 0 on)
EXAMPLES = {
    # shapes: the start at 0, the end at n and for ever; of length 0, a jump to the end
    "constant(2)": (None, 0, [2, 2]),
    "constant(2, steps=3)": (3, 0, [2, 2, 2, 2]),
    "linear(0, 1, steps=4)": (4, 4, [0, 0.25, 0.5, 0.75, 1, 1]),
    "linear(0, 1, steps=1)": (1, 1, [0, 1, 1]),
    "linear(5, 1, steps=0)": (0, 0, [1, 1]),
    "cosine(2, 0, steps=4)": (4, 4, [2, 1 + SQRT2 / 2, 1, 1 - SQRT2 / 2, 0, 0]),
    "cosine(0, 6, steps=3)": (3, 3, [0, 1.5, 4.5, 6, 6]),
    "cosine(2, 7, steps=0)": (0, 0, [7, 7]),
    "polynomial(1, 0, 2, steps=4)": (4, 4, [1, 9 / 16, 1 / 4, 1 / 16, 0, 0]),
    "polynomial(1, 0, 0.5, steps=4, of='elapsed')": (4, 4, [1, 0.5, 1 - SQRT2 / 2, 1 - math.sqrt(3) / 2, 0, 0]),
    "polynomial(1, 3, steps=2)": (2, 2, [1, 2, 3, 3]),
    "polynomial(1, 3, 3, steps=0)": (0, 0, [3, 3]),
    "polynomial(1, 3, 3, steps=0, of='elapsed')": (0, 0, [3, 3]),
    "exponential(1, 16, steps=4)": (4, 4, [1, 2, 4, 8, 16, 16]),
    "exponential(-8, -1, steps=3)": (3, 3, [-8, -4, -2, -1, -1]),
    "exponential(2, 5, steps=0)": (0, 0, [5, 5]),
    "rex(1, 0, steps=4)": (4, 4, [1, 6 / 7, 2 / 3, 2 / 5, 0, 0]),
    "rex(3, 1, d=0.9, steps=2)": (2, 2, [3, 1 + 2 / 1.1, 1, 1]),
    "rex(3, 1, steps=0)": (0, 0, [1, 1]),
    "tanh(1, 0, lower=-2, upper=2, steps=2)": (2, 2, [1, 0.5, 0, 0]),
    "tanh(2, 4, lower=-6, upper=3, steps=3)": (3, 3, [2, 3 + math.tanh(-3), 3, 4, 4]),
    "tanh(3, 1, steps=0)": (0, 0, [1, 1]),
    "exponential_decay(8, 0.25, every=2)": (None, None, [8, 4, 2, 1, 0.5]),
    "exponential_decay(8, 0.25, every=2, staircase=True)": (None, None, [8, 8, 2, 2, 0.5]),
    "inverse_sqrt(6, timescale=1)": (None, None, [6, 6 / SQRT2, 6 / math.sqrt(3), 3]),
    "piecewise_constant([1, 2, 3], [1, 3])": (None, 3, [1, 2, 2, 3, 3]),
    "piecewise_constant([1], [])": (None, 0, [1, 1]),
    "piecewise_constant([1, 2], [0])": (None, 0, [2, 2]),
    "piecewise_linear([(1, 0), (3, 1), (3, 5), (5, 3)])": (5, 5, [0, 0, 0.5, 5, 4, 3, 3]),
    "piecewise_linear([(2, 7)])": (2, 2, [7, 7, 7, 7]),
    "piecewise_linear([(0, 1), (0, 2)])": (0, 0, [2, 2]),
    "from_values([3, 1, 2])": (3, 2, [3, 1, 2, 2]),
    "from_function(lambda t: t * t, 3)": (3, 2, [0, 1, 4, 4]),
    # one after the other: the next part starts at the step where this one reaches its end
    "up >> down": (6, 6, [0, 0.25, 0.5, 0.75, 1, 0.5, 0, 0]),
    "down >> constant(7)": (None, 2, [1, 0.5, 7, 7]),
    "down >> 7": (None, 2, [1, 0.5, 7, 7]),
    "table >> constant(7, steps=2)": (5, 3, [3, 1, 2, 7, 7, 7]),
    "down >> linear(9, 8, steps=0) >> constant(7, steps=1)": (3, 2, [1, 0.5, 7, 7]),
    "down >> linear(9, 8, steps=0)": (2, 2, [1, 0.5, 8, 8]),
    # step by step
    "up + down": (4, 4, [1, 0.75, 0.5, 0.75, 1, 1]),
    "1 - up": (4, 4, [1, 0.75, 0.5, 0.25, 0]),
    "up - 1": (4, 4, [-1, -0.75, -0.5, -0.25, 0]),
    "-up": (4, 4, [0, -0.25, -0.5, -0.75, -1]),
    "2 * up * up": (4, 4, [0, 0.125, 0.5, 1.125, 2, 2]),
    "up / 4": (4, 4, [0, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 1 / 4]),
    "3 / (1 + up)": (4, 4, [3, 3 / 1.25, 2, 3 / 1.75, 1.5]),
    "minimum(up, 0.5)": (4, 4, [0, 0.25, 0.5, 0.5, 0.5]),
    "maximum(0.5, up)": (4, 4, [0.5, 0.5, 0.5, 0.75, 1]),
    "up.clamp(0.3, 0.6)": (4, 4, [0.3, 0.3, 0.5, 0.6, 0.6]),
    "up.clamp(high=down)": (4, 4, [0, 0.25, 0, 0, 0]),
    "up.clamp()": (4, 4, [0, 0.25, 0.5, 0.75, 1]),
    "minimum(exponential_decay(1, 2, every=1), 5)": (None, None, [1, 2, 4, 5, 5]),
    # another clock
    "up.repeat()": (None, None, [0, 0.25, 0.5, 0.75, 0, 0.25]),
    "down.repeat(2)": (4, 4, [1, 0.5, 1, 0.5, 0, 0]),
    "down.repeat(2, value_mult=-2)": (4, 4, [1, 0.5, -2, -1, 0, 0]),
    "down.repeat(2, length_mult=2)": (6, 6, [1, 0.5, 1, 0.75, 0.5, 0.25, 0, 0]),
    "linear(1, 0, steps=4).repeat(3, length_mult=0.5)": (7, 7, [1, 0.75, 0.5, 0.25, 1, 0.5, 1, 0, 0]),
    "linear(3, 0, steps=3).repeat(length_mult=1.5)": (None, None, [3, 2, 1, 3, 2.25, 1.5, 0.75, 3, 2.5]),
    "constant(2, steps=3).repeat(5)": (15, 0, [2, 2]),
    "up.delay(2)": (6, 6, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]),
    "constant(2).delay(3)": (None, 0, [2, 2]),
    "up.take(2)": (2, 2, [0, 0.25, 0.5, 0.5]),
    "up.take(6)": (6, 4, [0, 0.25, 0.5, 0.75, 1, 1, 1]),
    "inverse_sqrt(1, timescale=1).take(3)": (3, 3, [1, 1 / SQRT2, 1 / math.sqrt(3), 0.5, 0.5]),
    "up.skip(3)": (1, 1, [0.75, 1, 1]),
    "up.skip(9)": (0, 0, [1, 1]),
    "table.hold_each(2)": (6, 4, [3, 3, 1, 1, 2, 2, 2]),
    "down.hold_each(3)": (6, 6, [1, 1, 1, 0.5, 0.5, 0.5, 0, 0]),
    "up.stretch(2)": (8, 8, [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1]),
    "up.stretch(0.5)": (2, 2, [0, 0.5, 1, 1]),
    "up.stretch(0.1)": (0, 0, [1, 1]),
    "up.stretch(0.125)": (1, 1, [0, 1, 1]),
    "table.stretch(2)": (6, 6, [3, 2, 1, 1.5, 2, 2, 2]),
    "piecewise_constant([1, 2], [2]).stretch(1.5)": (None, 4, [1, 1, 1, 2, 2]),
    "inverse_sqrt(1, timescale=1).stretch(2)": (None, None, [1, 1 / math.sqrt(1.5), 1 / SQRT2]),
}  # fmt: skip
ALIASES = {"up": up, "down": down, "table": table}


def build(source: str) -> ts.Schedule:
    return eval(source, {**NAMESPACE, **ALIASES})  # noqa: S307  the tables of this file


@pytest.mark.parametrize("source", EXAMPLES)
@pytest.mark.parametrize("read", [ts.Schedule.__call__, reference.value], ids=["table", "reference"])
def test_values(source, read):
    schedule, (steps, constant_from, expected) = build(source), EXAMPLES[source]
    assert (schedule.steps, schedule.constant_from) == (steps, constant_from)
    # The expected values are themselves rounded once or twice: 4 ulp is what both sides' few operations may add up to.
    assert [read(schedule, t) for t in range(len(expected))] == pytest.approx(
        expected, rel=2**-50, abs=2**-52
    )
    if steps is not None:
        assert (
            read(schedule, steps + 10**6) == read(schedule, steps) == pytest.approx(expected[-1], rel=2**-50)
        )


@pytest.mark.parametrize("source", [s for s, (_, _, values) in EXAMPLES.items() if len(set(values)) > 1])
def test_a_frozen_value_is_not_the_schedule(source):
    expected = EXAMPLES[source][2]
    frozen = ts.constant(build(source)(0))
    assert frozen.values(len(expected)).tolist() != pytest.approx(expected, rel=2**-50, abs=2**-52)


@pytest.mark.parametrize("source", ["linear", "cosine", "polynomial", "exponential"])
@pytest.mark.parametrize(("start", "end"), [(0.1, 0.3), (3e-4, 7e-7), (1 / 3, 1e-12)])
def test_the_ends_are_exact(source, start, end):
    schedule = getattr(ts, source)(start, end, steps=7)
    assert (schedule(0), schedule(7), schedule(10**12)) == (start, end, end)


def test_the_design_s_own_example():
    lr = ts.linear(0.0, 1.0, steps=4) >> ts.cosine(1.0, 0.0, steps=8)
    assert (lr.steps, lr(0), lr(4), lr(12), lr(10**12)) == (12, 0.0, 1.0, 0.0, 0.0)
    assert lr == ts.warmup_cosine(peak=1.0, total=12, warmup=4)


# -- far out ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [ts.Schedule.__call__, reference.value], ids=["table", "reference"])
@pytest.mark.parametrize(
    ("source", "step", "expected"),
    [
        ("from_values([1, 2, 3]).repeat()", 10**12, 2.0),  # 10**12 = 1 mod 3
        ("from_values([1, 2, 3]).repeat().hold_each(10**6)", 2 * 10**6 - 1, 2.0),
        ("linear(0, 1, steps=2**53)", 2**52, 0.5),
        ("from_values([1, 2, 3]).repeat().skip(2**53)", 2**53, 3.0),  # positions stop at 2**53 = 2 mod 3
        ("from_values([1, 2, 3]).repeat().stretch(1e-308)", 10**12, 3.0),
        (
            "(linear(0, 1, steps=6498426791) >> constant(7, steps=0)).stretch(2.215584969833783)",
            14397816726,
            7.0,
        ),  # at its very end
        ("(down >> constant(7, steps=0)).repeat(length_mult=1e300)", 2**53, 1.0),
        ("down.repeat(length_mult=2)", 10**12, 2.0 - (10**12 + 2) / 2**39),  # in the cycle of 2**39 steps
        ("minimum(exponential_decay(1, 2, every=1), 5)", 10**12, 5.0),  # 2**(10**12) is inf
    ],
)
def test_far_steps(source, step, expected, read):
    assert read(build(source), step) == expected


@pytest.mark.parametrize(
    "source",
    [
        "cosine(1, 0, steps=50).repeat()",
        "cosine(1, 3, steps=100) >> polynomial(3, 1, 2, steps=50) >> tanh(1, 0, steps=30)",
        "exponential(1, 3, steps=90).stretch(1.7)",
        "polynomial(1, 3, 0.5, steps=150, of='elapsed')",
        "from_values([0.1 * t for t in range(150)]).stretch(0.7).repeat()",
    ],
)
def test_values_in_several_pieces_join_without_a_seam(source, monkeypatch):
    """Long schedules are evaluated in chunks, and curves with many temporaries in smaller blocks: no bit depends on it."""
    whole = build(source).values(200)
    monkeypatch.setattr("tensorsched.schedules.node._CHUNK", 70)
    monkeypatch.setattr("tensorsched.schedules.shapes.weights._BLOCK", 7)
    assert build(source).values(200).tolist() == whole.tolist()
    assert len(set(whole.tolist())) > 40


@pytest.mark.parametrize("shape", [(0,), (), (3, 0), (3, 4)])
def test_positions_of_any_shape(shape):
    """Also of none: a part of a sequence that no step of a chunk is in."""
    at = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    for source in ("cosine(1, 3, steps=7)", "exponential(1, 3, steps=7)", "tanh(1, 0, steps=7)", "table"):
        found = build(source)._at(at)
        assert found.shape == shape
        assert found.ravel().tolist() == [build(source)(t) for t in range(at.size)]


# -- what a number may be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.float64(2), np.int64(2)])
def test_any_number_is_a_value(number):
    assert ts.constant(number) == ts.minimum(number, up).left == ts.constant(2.0)
    assert number * up == 2.0 * up
    assert up * number == up * 2.0
    assert type((number * up).left.value) is float


@pytest.mark.parametrize("steps", [4, np.int64(4), np.uint8(4)])
def test_any_integer_is_a_number_of_steps(steps):
    assert ts.linear(0, 1, steps=steps) == up
    assert type(ts.linear(0, 1, steps=steps).steps) is int
    assert up(steps) == 1.0


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2],
        (3.0, 1.0, 2.0),
        np.array([3, 1, 2]),
        np.array([3.0, 1.0, 2.0]),
        torch.tensor([3.0, 1.0, 2.0]),
    ],
)
def test_any_one_dimensional_sequence_is_a_table(values):
    assert ts.from_values(values) == table
    assert hash(ts.from_values(values)) == hash(table)


def test_the_callers_list_is_not_kept():
    values = [3.0, 1.0, 2.0]
    schedule = ts.from_values(values)
    values[0] = 9.0
    assert schedule == table


def test_a_function_is_tabulated_once():
    calls: list[int] = []
    schedule = ts.from_function(lambda t: float(calls.append(t) or t), 3)
    schedule.values(9)
    assert calls == [0, 1, 2]


def test_minus_zero_is_zero():
    assert math.copysign(1.0, ts.constant(-0.0).value) == 1.0
    assert math.copysign(1.0, ts.from_values([-0.0]).entries[0]) == 1.0


# -- text -------------------------------------------------------------------------------------------------------------

# what is written, what is printed; None where they are the same
TEXTS = {
    "linear(0.0, 1.0, steps=4)": None,
    "constant(2.0)": None,
    "polynomial(1.0, 0.0, steps=4)": None,
    "polynomial(1.0, 0.0, 2.0, steps=4, of='elapsed')": None,
    "exponential_decay(1.0, 0.5, every=2, staircase=True)": None,
    "from_values((1.0,))": None,
    "piecewise_constant((1.0, 2.0), (3,))": None,
    "0.5 * linear(0.0, 1.0, steps=4)": None,
    "linear(0.0, 1.0, steps=4) / 3.0": None,
    "constant(1.0) + 2.0": None,
    "constant(1.0) + constant(2.0, steps=3)": None,
    "1.0 / constant(2.0, steps=3)": "constant(1.0) / constant(2.0, steps=3)",
    "constant(1.0, steps=2) >> constant(2.0)": None,
    "constant(1.0, steps=2) >> 2": "constant(1.0, steps=2) >> constant(2.0)",
    "-linear(0.0, 1.0, steps=4)": "-1.0 * linear(0.0, 1.0, steps=4)",
    "initial * linear(0.0, 1.0, steps=4)": None,
    "initial - (initial - 1.0)": None,
    "initial / (initial / 2.0)": None,
    "initial / initial / 2.0": None,
    "(initial + 1.0) * 2.0": None,
    "2.0 * (constant(3.0, steps=2) >> initial)": None,
    "1.0 - initial + 2.0": None,
    "minimum(initial, 1.0)": None,
    "maximum(1.0, minimum(initial + 1.0, 3.0))": None,
    "initial.clamp(1, 2)": "maximum(minimum(initial, 2.0), 1.0)",
    "linear(0.0, 1.0, steps=4).repeat()": None,
    "linear(0.0, 1.0, steps=4).repeat(3, length_mult=2.0, value_mult=0.5)": None,
    "(linear(0.0, 1.0, steps=4) >> constant(1.0, steps=2)).repeat(2)": None,
    "(initial + 1.0).delay(3).take(4).skip(1).hold_each(2).stretch(1.5)": None,
    "(linear(0.0, 1.0, steps=1) >> linear(1.0, 0.0, steps=1)) >> (linear(0.0, 1.0, steps=1) >> initial)": (
        "linear(0.0, 1.0, steps=1) >> linear(1.0, 0.0, steps=1) >> linear(0.0, 1.0, steps=1) >> initial"
    ),
}


@pytest.mark.parametrize(("source", "text"), TEXTS.items())
def test_repr_is_the_source(source, text):
    schedule = build(source)
    assert repr(schedule) == str(schedule) == (text or source)
    assert build(repr(schedule)) == schedule


# -- a schedule as an object ------------------------------------------------------------------------------------------


def test_equal_schedules_are_equal_and_hash_alike():
    assert len({ts.linear(0, 1, steps=4), ts.linear(0.0, 1.0, steps=4), up}) == 1
    assert up not in {ts.linear(0, 1, steps=5), ts.cosine(0, 1, steps=4), ts.polynomial(0, 1, steps=4)}
    assert up != "linear(0.0, 1.0, steps=4)"
    assert ts.minimum(up, 1) != ts.maximum(up, 1)


@pytest.mark.parametrize(
    "schedule", [up, up >> down, up + down, up.repeat(2), up.take(2), ts.initial], ids=repr
)
def test_a_schedule_cannot_be_changed(schedule):
    for name in ("steps", "constant_from", "start", "inner", "anything"):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
            setattr(schedule, name, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del schedule.steps


def test_the_result_is_a_plain_float():
    assert type(up(2)) is float
    assert type(reference.value(up, 2)) is float
    assert up.values(3).dtype == np.float64
    assert up.values().shape == (4,)
    assert up.values(0).shape == (0,)


def test_values_are_the_callers_own():
    first = table.values(3)
    first[:] = 0.0
    assert table.values(3).tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("other", ["1", None, [1], True, 1j, np.array([1.0, 2.0])])
@pytest.mark.parametrize("op", ["+", "-", "*", "/", ">>"])
def test_operators_leave_what_is_no_number_to_python(op, other):
    for expression in (f"up {op} other", f"other {op} up"):
        with pytest.raises(TypeError):
            eval(expression, {"up": up, "other": other})  # noqa: S307  this test's own


def test_long_chains_do_not_nest():
    chain = up
    for _ in range(999):
        chain = chain >> up
    assert chain.steps == 4000
    assert chain(3999) == 0.75
    assert ts.from_json(chain.to_json()) == chain


def test_the_deepest_expression_works():
    deep: ts.Schedule = up
    for _ in range(99):
        deep = deep.delay(1)
    assert deep(99) == 0.0
    assert reference.value(deep, 103) == 1.0
    assert ts.from_json(deep.to_json()) == deep == build(repr(deep))
    with pytest.raises(ScheduleError, match="nested more than 100 levels deep"):
        deep.delay(1)


def test_every_kind_has_a_reference_formula():
    assert set(reference.FORMULAS) == set(NODES.values())


def test_a_new_shape_is_one_class_and_one_formula(monkeypatch):
    for registry in (NODES, SHAPES):
        monkeypatch.setitem(registry, "halving", None)  # so that what is registered here goes again

    @node
    class halving(ts.Schedule):  # noqa: N801  a shape
        start: float = fields.real()
        steps: int = fields.count(kw_only=True)

        def _at(self, t):
            return self.start * 0.5 ** np.minimum(t, self.steps)

    monkeypatch.setitem(reference.FORMULAS, halving, lambda c, t: c.start * 0.5 ** min(t, c.steps))
    schedule = 2.0 * halving(8, steps=2).repeat(2) >> halving(1, steps=1)
    assert schedule.values(7).tolist() == [16.0, 8.0, 16.0, 8.0, 1.0, 0.5, 0.5]
    assert [reference.value(schedule, t) for t in range(7)] == schedule.values(7).tolist()
    assert ts.from_json(schedule.to_json()) == schedule == parse(repr(schedule))
    assert eval(repr(schedule), {"halving": halving}) == schedule  # noqa: S307  our own
    assert [phase.what for phase in phases(schedule)][:2] == ["halving, cycle 1", "halving, cycle 2"]
    with pytest.raises(ScheduleError, match="halving: start must be a finite number, got nan"):
        halving(math.nan, steps=2)


def test_a_shape_is_four_edits():
    """Nothing in the package names the newest shape but its class and its formula; in the tests, two tables.

    (The package's page lists it and the gallery shows it, which tests ask for; and a line of `rounding` says at what a
    line that crosses 0 is measured.)
    """
    package = Path(ts.__file__).parent
    named = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "linear_growth" in path.read_text(encoding="utf-8")
    }
    assert named - {"__init__.py"} == {
        "schedules/shapes/decays.py",
        "schedules/shapes/__init__.py",
        "schedules/reference/shapes.py",
    }
    shapes = {name for name, kind in SHAPES.items() if not issubclass(kind, Input)}
    assert shapes == set(strategies.SHAPES) == set(test_reference.TRUTH)


def test_every_shape_and_recipe_is_public():
    for name in (*SHAPES, *ts.schedules.recipes.__all__):
        assert name in ts.__all__
        assert name in ts.schedules.__all__
        assert getattr(ts, name) is getattr(ts.schedules, name)
    assert {"linear", "rex", "tanh", "constant"} <= SHAPES.keys() <= NODES.keys()


def test_nothing_but_the_public_names_comes_with_the_shapes():
    """`*` brings no module and no helper that a shape is written with, such as np or the decorator `node`."""
    assert ts.schedules.node is sys.modules["tensorsched.schedules.node"]
    for module in (ts, ts.schedules):
        assert not {"np", "f", "Array", "Callable", "functools", "SHAPES"} & vars(module).keys()


def test_the_longest_schedule():
    assert ts.linear(0, 1, steps=MAX_STEPS)(MAX_STEPS) == 1.0
    assert (ts.linear(0, 1, steps=MAX_STEPS - 1) >> ts.constant(1, steps=1)).steps == MAX_STEPS


# -- recipes are expressions ------------------------------------------------------------------------------------------

# (call, the expression that it stands for)
RECIPES = {
    "warmup_constant(1, warmup=4)": "linear(0, 1, steps=4) >> constant(1)",
    "warmup_constant(1, warmup=0)": "linear(0, 1, steps=0) >> constant(1)",
    "warmup_constant(1, warmup=4, start=0.5)": "linear(0.5, 1, steps=4) >> constant(1)",
    "warmup_constant(1, warmup=4, ramp='skip_start')": "linear(0, 1, steps=4).skip(1) >> constant(1, steps=1) >> 1",
    "warmup_constant(1, warmup=4, ramp='reach_early')": "linear(0, 1, steps=3) >> constant(1, steps=1) >> 1",
    "warmup_linear(1, total=10, warmup=4)": "linear(0, 1, steps=4) >> linear(1, 0, steps=6)",
    "warmup_linear(1, total=10, warmup=0.4, floor=0.1)": "linear(0, 1, steps=4) >> linear(1, 0.1, steps=6)",
    "warmup_cosine(1, total=10, warmup=4)": "linear(0, 1, steps=4) >> cosine(1, 0, steps=6)",
    "warmup_cosine(1, total=10, warmup=10)": "linear(0, 1, steps=10) >> cosine(1, 0, steps=0)",
    "warmup_cosine(1, total=10, warmup=4, last_step_ends=True)": "linear(0, 1, steps=4) >> cosine(1, 0, steps=5)",
    "warmup_inverse_sqrt(1, warmup=4)": "linear(0, 1, steps=4) >> inverse_sqrt(1, timescale=4)",
    "warmup_inverse_sqrt(1, warmup=0)": "linear(0, 1, steps=0) >> inverse_sqrt(1, timescale=10_000)",
    "warmup_inverse_sqrt(1, warmup=4, timescale=9)": "linear(0, 1, steps=4) >> inverse_sqrt(1, timescale=9)",
    "noam(4, warmup=16)": "linear(0, 0.125, steps=16) >> inverse_sqrt(0.125, timescale=16)",
    "noam(4, warmup=16, factor=2, first_count=1)": "(linear(0, 0.25, steps=16) >> inverse_sqrt(0.25, timescale=16)).skip(1)",
    "wsd(1, total=8, warmup=2, decay=4)": "linear(0, 1, steps=2) >> constant(1, steps=2) >> linear(1, 0, steps=4)",
    "wsd(1, total=8, warmup=0.25, decay=0.5, shape='cosine')": "linear(0, 1, steps=2) >> constant(1, steps=2) >> cosine(1, 0, steps=4)",
    "wsd(1, total=8, warmup=2, decay=4, shape='1-sqrt', floor=0.5)": (
        "linear(0, 1, steps=2) >> constant(1, steps=2) >> polynomial(1, 0.5, 0.5, steps=4, of='elapsed')"
    ),
    "wsd(1, total=8, warmup=2, decay=4, shape='rex')": "linear(0, 1, steps=2) >> constant(1, steps=2) >> rex(1, 0, steps=4)",
    "wsd(1, total=8, warmup=2, decay=4, shape=tanh, floor=0.5, last_step_ends=True)": (
        "linear(0, 1, steps=2) >> constant(1, steps=2) >> tanh(1, 0.5, steps=3)"
    ),
    "wsd(1, total=8, warmup=2, decay=4, shape=lambda a, b, steps: polynomial(a, b, 2, steps=steps))": (
        "linear(0, 1, steps=2) >> constant(1, steps=2) >> polynomial(1, 0, 2, steps=4)"
    ),
    "one_cycle(1, total=10, rise=2, start=0.5, end=0.25, shape=exponential)": (
        "exponential(0.5, 1, steps=2) >> exponential(1, 0.25, steps=8)"
    ),
    "one_cycle(1, total=10)": "cosine(0.04, 1, steps=3) >> cosine(1, 4e-6, steps=7)",
    "one_cycle(1, total=10, rise=2, start=0.5, end=0, shape='linear', three_phase=True)": (
        "linear(0.5, 1, steps=2) >> linear(1, 0.5, steps=2) >> linear(0.5, 0, steps=6)"
    ),
    "one_cycle(1, total=10, rise=3, last_step_ends=True)": "cosine(0.04, 1, steps=2) >> cosine(1, 4e-6, steps=7)",
    "warm_restarts(1, period=3)": "cosine(1, 0, steps=3).repeat()",
    "warm_restarts(1, period=3, floor=0.5, length_mult=2, peak_mult=0.5)": (
        "0.5 + cosine(0.5, 0, steps=3).repeat(length_mult=2, value_mult=0.5)"
    ),
    "cyclic(1, 3, up=2)": "(linear(1, 3, steps=2) >> linear(3, 1, steps=2)).repeat()",
    "cyclic(1, 3, up=2, down=5, mode='triangular2')": (
        "1 + (linear(0, 2, steps=2) >> linear(2, 0, steps=5)).repeat(value_mult=0.5)"
    ),
    "cyclic(1, 3, up=2, mode='exp_range', gamma=0.9)": (
        "1 + (linear(0, 2, steps=2) >> linear(2, 0, steps=2)).repeat() * exponential_decay(1, 0.9, every=1)"
    ),
    "step_decay(1, every=3)": "exponential_decay(1, 0.1, every=3, staircase=True)",
    "multistep(1, [2, 5], factor=0.5)": "piecewise_constant([1, 0.5, 0.25], [2, 5])",
    "multistep(1, [])": "piecewise_constant([1], [])",
}  # fmt: skip


@pytest.mark.parametrize(("call", "expression"), RECIPES.items())
def test_a_recipe_is_its_expression(call, expression):
    assert build(call) == build(expression)


GOES_FROM_START_TO_END = {
    name for name, shape in SHAPES.items() if {"start", "end", "steps"} <= shape.__dataclass_fields__.keys()
}


@pytest.mark.parametrize("name", sorted(GOES_FROM_START_TO_END))
def test_a_recipe_takes_every_shape_that_goes_from_start_to_end(name):
    shape = getattr(ts, name)
    expected = up >> ts.constant(1.0, steps=6) >> shape(1.0, 0.5, steps=8)
    for given in (shape, name):
        assert ts.wsd(1.0, total=18, warmup=4, decay=8, floor=0.5, shape=given) == expected
        assert ts.one_cycle(2.0, total=8, rise=0, start=1.0, end=0.5, shape=given)(8) == 0.5
    assert parse(f"wsd(1, total=18, warmup=4, decay=8, floor=0.5, shape='{name}')") == expected


def test_the_shapes_are_their_sources():
    """The formulas as their authors write them; theirs are inexact at the ends, where ours are start and end."""
    rex, tanh = ts.rex(0.7, 0.1, d=0.9, steps=50), ts.tanh(0.7, 0.1, lower=-6.0, upper=3.0, steps=50)
    for t in range(1, 50):
        z = (50 - t) / 50
        assert rex(t) == pytest.approx(0.1 + 0.6 * (z / (1 - 0.9 + 0.9 * z)), rel=1e-14)  # REX_LR
        p = t / 50
        assert tanh(t) == pytest.approx(
            0.1 + 0.5 * 0.6 * (1 - math.tanh(-6.0 * (1.0 - p) + 3.0 * p)), rel=1e-14
        )  # timm
    assert (rex(0), rex(50), tanh(0), tanh(50)) == (0.7, 0.1, 0.7, 0.1)


def test_a_mirror_between_two_steps_is_the_schedule_itself_to_the_bit():
    there = ts.power_law(1.0, 0.5, timescale=0.5).take(1000)
    for step in range(1, 50):
        assert there.mirror().stretch(3.0)(step) == there.stretch(3.0)(step)


def test_one_step_is_asked_for_and_no_other():
    schedule = 1.0 / ts.linear(1.0, 0.0, steps=4)
    assert schedule(3) == 4.0
    with pytest.raises(ts.ScheduleError):
        schedule(4)


def test_half_life_does_not_fall_below_a_floor_of_1():
    fall = half_life(8.0, 1.0, 2, steps=40, rising=False)
    assert fall.values(60).min() == 1.0

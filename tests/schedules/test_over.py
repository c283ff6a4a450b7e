"""`lr.over(batch)`: read at what the steps before consumed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorsched as ts
from tests.strategies import batches, bounded


@given(batches, st.integers(0, 400))
def test_it_ends_at_the_first_step_that_has_consumed_the_length(batch, length):
    curve = ts.linear(0.0, 1.0, steps=length).over(batch)
    consumed = [0, *itertools.accumulate(batch.values(700).astype(int).tolist())]
    assert curve.steps == next((t for t, c in enumerate(consumed) if c >= length), curve.steps)
    assert np.array_equal(curve._position(np.arange(700.0)), np.array(consumed[:700], dtype=float))


@given(bounded(), st.integers(1, 9))
def test_over_a_constant_is_every_nth_step(schedule, n):
    curve = schedule.over(n)
    assert curve.steps == -(-schedule.steps // n)
    t = np.array([0.0, 1.0, 2.0, curve.steps, curve.steps + 3])
    with np.errstate(all="ignore"):
        assert np.array_equal(curve._at(t), schedule._at(t * n), equal_nan=True)


def test_a_megatron_ramp_decays_completely_and_a_count_of_steps_does_not():
    """Batch size 32, 64, 96, ... for 1000 samples each, then 256: as --rampup-batch-size 32 32 7000."""
    ramp = ts.batch_steps(" ".join(f"{1_000 * i}:{32 * (i + 1)}" for i in range(8)), each=1)
    lr = ts.warmup_cosine(1.0, total=100_000, warmup=2_000)
    planned = lr.over(ramp)
    consumed = 0
    for t in range(planned.steps + 1):
        assert planned(t) == lr(consumed)
        consumed += int(ramp(t))
    assert planned(planned.steps) == 0.0
    naive = lr.stretch(1 / 256)
    assert naive.steps < planned.steps
    assert max(abs(naive(t) - planned(t)) for t in range(planned.steps)) > 0.1


def test_it_is_text_json_and_a_picture():
    curve = ts.warmup_cosine(3e-4, total=10**9, warmup=10**7).over(ts.batch_steps("0:768 250:1536") * 4096)
    assert ts.parse(repr(curve)) == curve == ts.from_json(curve.to_json())
    assert curve.fingerprint == ts.parse(repr(curve)).fingerprint
    assert [what for _, what in curve._marks()] == ["linear", "cosine"]
    assert curve.plot() is not None
    assert ts.tabulate({"lr": curve}).rows == curve.steps + 1


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (0.5, "a whole number of at least 0, and the batch is 0.5 at step 0"),
        (-1, "the batch is -1.0 at step 0"),
        (ts.linear(1, 2, steps=3), "at step 1; round it with"),
        (ts.inverse_sqrt(9.0, timescale=1).floor() + 1, "more than 16777216 steps"),
        (ts.initial * 2.0, "no value of its own"),
    ],
)
def test_a_batch_that_is_none_is_an_error_where_it_is_written(batch, text):
    with pytest.raises(ts.ScheduleError, match=text):
        ts.linear(0.0, 1.0, steps=10**12).over(batch)


@pytest.mark.parametrize(
    ("each", "text"), [(0, "batch_steps: each"), (1.5, "batch_steps: each"), (1, "with each, a batch")]
)
def test_batch_steps_by_what_is_consumed_needs_whole_batches(each, text):
    with pytest.raises(ts.ScheduleError, match=text):
        ts.batch_steps("0:0.5 9:2", each=each)


def test_a_batch_that_ends_at_0_stays_where_it_is():
    curve = ts.linear(0.0, 1.0, steps=10).over(ts.piecewise_constant([2, 0], [3]))
    assert (curve.steps, curve.constant_from) == (None, 3)
    assert curve.values(6).tolist() == [0.0, 0.2, 0.4, 0.6, 0.6, 0.6]

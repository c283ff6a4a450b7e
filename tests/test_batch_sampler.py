"""BatchSampler: every batch as large as planned, across passes, ahead of the training, and from any step."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

import tensorsched as ts
from tests.strategies import levels


class Data:
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index):
        return index


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 30), levels)
def test_it_is_the_stream_cut_by_the_plan(size, passes, step, plan):
    values, boundaries = plan
    batch = ts.piecewise_constant([1 + int(abs(v)) % 5 for v in values], boundaries)
    sampler = ts.BatchSampler(range(size), batch, passes=passes)
    stream, wanted = iter(list(range(size)) * passes), []
    for t in itertools.count():
        found = list(itertools.islice(stream, int(batch(t))))
        if len(found) < batch(t):
            break
        wanted.append(found)
    assert len(sampler) == len(wanted)
    assert list(sampler) == wanted
    sampler.seek(step)
    assert list(sampler) == wanted[step:]
    assert sampler.step == max(step, len(wanted))


def test_a_loader_with_workers_is_ahead_and_gets_the_planned_sizes():
    batch = ts.piecewise_constant([2, 3], [3])
    sampler = ts.BatchSampler(range(10), batch, passes=3)
    loader = DataLoader(Data(), batch_sampler=sampler, num_workers=2)
    found = iter(loader)
    sizes = [len(next(found)) for _ in range(2)]
    assert sampler.step > 2, "it was asked ahead"
    sizes += [len(b) for b in found]
    assert sizes == [2, 2, 2, *[3] * 8]
    assert len(loader) == len(sampler) == 11


def test_lengths_come_with_the_indices_and_passes_are_told():
    data = list(range(8))
    inner = DistributedSampler(data, num_replicas=2, rank=1, seed=3)
    sampler = ts.BatchSampler(inner, 3, length=ts.batch_steps("0:16 2:32"))
    found = list(itertools.islice(sampler, 4))
    assert [length for batch in found for _, length in batch] == [16] * 6 + [32] * 6
    orders = []
    for number in range(3):
        inner.set_epoch(number)
        orders += list(inner)
    assert [index for batch in found for index, _ in batch] == orders
    assert orders[:4] != orders[4:8]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ts.BatchSampler(iter(range(3)), 2), "knows its length"),
        (lambda: ts.BatchSampler([], 2), "at least one index"),
        (lambda: ts.BatchSampler(range(3), 0.5), "whole number"),
        (lambda: ts.BatchSampler(range(3), 0), "BatchSampler: batch at step 0"),
        (lambda: ts.BatchSampler(range(3), "2"), "finite number"),
        (lambda: ts.BatchSampler(range(3), 1, passes=0), "passes"),
        (lambda: ts.BatchSampler(range(3), 1).seek(-1), "seek: step"),
        (
            lambda: list(ts.BatchSampler(range(3), ts.linear(1, 4, steps=2), passes=5)),
            r"the batch is 2\.5 at step 1",
        ),
        (lambda: list(ts.BatchSampler(range(3), 1, length=ts.constant(0.5), passes=1)), "length at step 0"),
    ],
)
def test_what_is_no_plan_is_an_error(call, text):
    with pytest.raises(ts.ScheduleError, match=text):
        call()


def test_one_without_an_end_has_no_length():
    with pytest.raises(TypeError, match="never ends"):
        len(ts.BatchSampler(range(3), 1))

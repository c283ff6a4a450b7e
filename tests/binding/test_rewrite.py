"""Attachment.rewrite: other schedules in the tables that there are, in place, at the same step."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

import tensorsched as ts
from tests.strategies import schedules

LR = ts.linear(1.0, 0.5, steps=8)


def two_groups() -> optim.AdamW:
    return optim.AdamW(
        [{"params": [nn.Parameter(torch.ones(2))]}, {"params": [nn.Parameter(torch.ones(2))], "lr": 0.5}]
    )


def held(optimizer: Any, key: str = "lr") -> list[float]:
    return [float(group[key]) for group in optimizer.param_groups]


def followed(sched: ts.Attachment) -> list[ts.Schedule]:
    return [slot.schedule for slot in sched.slots] + list(sched.free.values())


@pytest.mark.parametrize("resident", [True, False])
def test_the_clock_goes_on_under_the_new_schedule(resident):
    optimizer = two_groups()
    sched = ts.attach(optimizer, lr=LR, resident=resident, capacity=16)
    first = optimizer.param_groups[0]["lr"]
    for _ in range(3):
        optimizer.step()
    longer = ts.linear(1.0, 0.25, steps=16)
    sched.rewrite(lr=longer)
    assert (sched.step_count, held(optimizer)) == (3, [longer(3)] * 2)
    assert (optimizer.param_groups[0]["lr"] is first) == resident, "the tensor is filled, not replaced"
    for step in range(4, 20):
        optimizer.step()
        assert held(optimizer) == [longer(step)] * 2
        assert longer(step) != LR(step), "the control"
    sched.detach()
    assert held(optimizer) == [0.25, 0.25]


@given(old=schedules(), new=schedules(), at=st.integers(0, 40))
def test_after_a_rewrite_all_is_as_if_it_had_been_attached_so(old, new, at):
    old, new = old.take(30), new.take(30)
    parameter = [nn.Parameter(torch.ones(1))]
    rewritten, attached = optim.SGD(parameter), optim.SGD(parameter)
    try:
        expected = ts.attach(attached, lr=new, capacity=30, free={"x": new}, allow_out_of_range=True)
        sched = ts.attach(rewritten, lr=old, capacity=30, free={"x": old}, allow_out_of_range=True)
    except ts.ScheduleError:  # beyond float32
        return
    for each in (sched, expected):
        each.seek(at)
    sched.rewrite(lr=new, free={"x": new})
    assert held(rewritten) == held(attached)
    assert torch.equal(sched.value("x"), expected.value("x"))
    assert [sched.step_count, *followed(sched)] == [expected.step_count, *followed(expected)]
    assert str(sched) == str(expected)


def test_one_group_one_element_and_initial():
    optimizer = two_groups()
    sched = ts.attach(optimizer, lr=[LR, 2.0 * LR], betas=(ts.linear(0.8, 0.9, steps=8), None))
    sched.rewrite(lr=[None, ts.initial * LR], betas=(ts.linear(0.5, 0.6, steps=8), None))
    assert held(optimizer) == [1.0, 0.5]
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)


def test_only_groups_that_have_a_schedule_get_a_new_one():
    optimizer = two_groups()
    sched = ts.attach(optimizer, lr=[None, LR])
    sched.rewrite(lr=0.25)
    assert held(optimizer) == [1e-3, 0.25]


@pytest.mark.parametrize("scaled", [True, False])
def test_columns_that_are_shared_are_rewritten_together(monkeypatch, scaled):
    if scaled:
        monkeypatch.setattr("tensorsched.engine.sharing.SCALE_ABOVE", 0)
    optimizer = two_groups()
    free = {"a": 0.25 * LR, "b": 0.125 * LR} if scaled else {"a": LR}
    second = 2.0 * LR if scaled else LR
    sched = ts.attach(optimizer, lr=[LR, second], resident=True, free=free)
    table = sched._mode.engines[0].table
    assert (table.host.shape[0] if scaled else table.host.shape[1]) == 1
    new = ts.cosine(1.0, 0.5, steps=8)
    before = (held(optimizer), table.host.copy(), sched.state_dict())
    with pytest.raises(
        ts.ScheduleError, match=r"'lr\[group \d\]' shares a column .*rewrite all of them together"
    ):
        sched.rewrite(lr=[new, None])
    assert held(optimizer) == before[0]
    assert (table.host == before[1]).all()
    assert sched.state_dict() == before[2]
    sched.rewrite(
        lr=[new, 2.0 * new if scaled else new],
        free={k: f * new for k, f in zip(free, (0.25, 0.125) if scaled else (1.0,), strict=False)},
    )
    sched.seek(3)
    expected = torch.tensor([new(3), (2.0 if scaled else 1.0) * new(3)]).tolist()
    assert held(optimizer) == expected


BAD = [
    ({"weight_decay": LR}, ts.BindingError, "weight_decay[group 0] has no schedule that could be replaced"),
    ({"lr": [None, LR, LR]}, ts.BindingError, "lr: the list has 3 entries"),
    ({"rl": LR}, ts.BindingError, "group 0 has no hyperparameter 'rl'"),
    ({"free": {"kl": LR}}, ts.BindingError, "'kl' was not given to attach()"),
    ({}, ts.BindingError, "given nothing to schedule"),
    ({"lr": ts.noam(8, warmup=4)}, ts.ScheduleError, "never settles"),
    ({"lr": ts.constant(1e300)}, ts.ScheduleError, "overflows"),
]


@pytest.mark.parametrize(("new", "kind", "text"), BAD, ids=[text[:24] for *_, text in BAD])
def test_what_does_not_fit_is_an_error_and_changes_nothing(new, kind, text):
    optimizer = two_groups()
    sched = ts.attach(optimizer, lr=LR, resident=True)
    optimizer.step()
    before = (held(optimizer), sched.state_dict(), str(sched))
    with pytest.raises(kind, match=re.escape(text) if ".*" not in text else text):
        sched.rewrite(**new)
    assert (held(optimizer), sched.state_dict(), str(sched)) == before


def test_a_schedule_beyond_the_capacity_is_an_error_at_attach():
    with pytest.raises(
        ts.ScheduleError, match="change up to step 8, which is beyond the capacity of 7 steps"
    ):
        ts.attach(two_groups(), lr=LR, capacity=7)


def test_copies_keep_the_new_schedules_and_the_room():
    optimizer = two_groups()
    sched = ts.attach(optimizer, lr=LR, capacity=20)
    sched.rewrite(lr=ts.linear(1.0, 0.0, steps=16))
    other, twin = copy.deepcopy((optimizer, sched))
    twin.rewrite(lr=ts.linear(1.0, 0.0, steps=20))
    other.step()
    assert (held(other), held(optimizer)) == ([0.95, 0.95], [1.0, 1.0])


def test_the_room_of_the_first_schedule_stays_after_a_shorter_one_and_a_compiled_step():
    optimizer = two_groups()
    sched = ts.attach(optimizer, lr=LR)
    sched.rewrite(lr=ts.linear(1.0, 0.5, steps=4))
    ts.compile_step(sched)
    sched.rewrite(lr=LR)
    assert held(optimizer) == [1.0, 1.0]
    other, twin = copy.deepcopy((optimizer, sched))
    twin.rewrite(lr=ts.linear(1.0, 0.0, steps=8))
    assert held(other) == [1.0, 1.0]

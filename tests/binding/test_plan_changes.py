"""Resuming under other schedules, growing a plan, and groups that come late."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tests.binding.test_attach import LR, M, train, two_groups

COOL = LR.take(6) >> ts.linear(LR(6), 0.0, steps=4)
KINDS = pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])


def run(lr: Any, steps: int = 0, **options: Any) -> tuple[optim.Optimizer, ts.Attachment]:
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=lr, **options)
    train(optimizer, steps=steps)
    return optimizer, sched


def rates(optimizer: optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


@KINDS
def test_saved_goes_on_with_the_schedules_of_the_state(tensor):
    a, before = run(COOL, 8, resident=tensor)
    b, sched = run(LR, 0, resident=tensor, capacity=40)
    sched.load_state_dict(before.state_dict(), on_mismatch="saved")
    for _ in range(3):
        assert (sched.step_count, rates(b)) == (before.step_count, rates(a))
        train(a, steps=1), train(b, steps=1)
    assert sched.slots[0].schedule == COOL
    sched.load_state_dict(before.state_dict())  # and they are its own now


def test_keep_step_would_have_undone_the_cool_down():
    """Control: this is what 'saved' is for."""
    _, before = run(COOL, 10)
    b, sched = run(LR)
    sched.load_state_dict(before.state_dict(), on_mismatch="keep_step")
    assert rates(b)[0] == LR(10) > COOL(10) == 0.0


def test_saved_needs_the_same_names_and_says_how():
    _, before = run([LR, None], 3)
    _, sched = run(LR)
    with pytest.raises(
        ts.BindingError, match=r"'lr\[group 1\]' is not in the state; .*schedules_of\(state\)"
    ):
        sched.load_state_dict(before.state_dict(), on_mismatch="saved")
    assert (sched.step_count, sched.slots[0].schedule) == (0, LR)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (COOL, "agree up to step 5: the plan was changed for what comes after"),
        (LR * (1 + 2**-45), "differ by rounding only, at most 9.09495e-13 of a value up to step 5"),
        (0.5 * LR, r"differ before step 5, so with 'keep_step' lr\[group 0\] would jump from .* to"),
        ([LR, None], r"Attach what it was saved with \(\*\*ts.schedules_of"),
    ],
    ids=["later", "rounding", "other", "names"],
)
def test_the_error_says_what_the_difference_means_for_this_step(now, text):
    _, before = run(LR, 5)
    optimizer, sched = run(now)
    with pytest.raises(ts.BindingError, match=text):
        sched.load_state_dict(before.state_dict())
    assert optimizer is sched.optimizer


def test_the_schedules_of_a_state_attach_as_they_were():
    optimizer = two_groups(optim.AdamW)
    sched = ts.attach(optimizer, lr=[LR, None], betas=(None, M), weight_decay=0.5, free={"kl": LR})
    train(optimizer, steps=4)
    again = two_groups(optim.AdamW)
    other = ts.attach(again, **ts.schedules_of(sched.state_dict()))
    assert other._schedules() == sched._schedules()
    other.load_state_dict(sched.state_dict())
    assert other.step_count == 4


def test_floats_need_no_room_to_follow_a_longer_plan():
    optimizer, sched = run(LR, 3)
    longer = ts.linear(0.1, 0.0, steps=5_000)
    sched.rewrite(lr=[longer, 0.5 * longer])  # columns that were shared part, too
    train(optimizer, steps=1)
    assert (sched.step_count, rates(optimizer)) == (4, [longer(4), 0.5 * longer(4)])


def test_a_rewrite_that_fails_for_tensors_changes_nothing_of_the_floats():
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, free={"kl": LR})
    step = ts.compile_step(sched)  # it holds the address of the table, which cannot grow then
    with pytest.raises(ts.ScheduleError, match="capacity"):
        sched.rewrite(lr=ts.linear(1.0, 0.0, steps=500), free={"kl": ts.linear(1.0, 0.0, steps=500)})
    assert sched.schedule("lr") == LR
    step.release()
    train(optimizer, steps=1)
    assert rates(optimizer)[0] == LR(1)


# -- late groups -------------------------------------------------------------------------------------------------------


def add(optimizer: optim.Optimizer, count: int = 1, **options: Any) -> None:
    for _ in range(count):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]} | options)


@KINDS
def test_a_group_without_a_rule_is_adopted_later(tensor):
    optimizer, sched = run(LR, 3, resident=tensor)
    add(optimizer, 2, lr=0.7)
    with pytest.raises(ts.BindingError, match=r"call sched.adopt\(lr=schedule"):
        optimizer.step()
    sched.adopt(lr=[0.5 * LR, None])
    optimizer.step()
    assert rates(optimizer) == pytest.approx([LR(4), LR(4), 0.5 * LR(4), 0.7], rel=1e-7)
    add(optimizer)
    sched.adopt(lr=ts.initial * LR)
    add(optimizer)
    sched.adopt()
    optimizer.step()
    assert sched.step_count == 5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"lr": [LR, LR]}, "lr: the list has 2 entries and 1 param_groups were added"),
        ({"rl": LR}, "has no hyperparameter 'rl'"),
    ],
)
def test_what_adopt_refuses_changes_nothing(arguments, text):
    optimizer, sched = run(LR, 2)
    with pytest.raises(ts.BindingError, match="there are none; see rewrite"):
        sched.adopt(lr=LR)
    add(optimizer)
    before = dict(optimizer.param_groups[2])
    with pytest.raises(ts.BindingError, match=text):
        sched.adopt(**arguments)
    assert optimizer.param_groups[2] == before
    assert len(sched.slots) == 2


def test_a_thousand_late_groups_are_one_look_each():
    """Linear: the schedules that are read are as many as the groups."""
    optimizer = two_groups(optim.SGD)
    read = []
    sched = ts.attach(optimizer, lr=LR, new_groups=lambda group: read.append(group) or {"lr": 0.5 * LR})
    add(optimizer, 1_000)
    optimizer.step()
    assert (len(read), len(sched.slots)) == (1_000, 1_002)
    assert optimizer.param_groups[1_001]["lr"] == 0.5 * LR(1)

"""Live inputs when something changes: metrics that are refused, inputs that go and come, and what is given back."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tests.binding.test_attach import train, two_groups

BASE = ts.linear(1.0, 0.0, steps=10)
FALLS = ts.plateau(factor=0.5, patience=0) - 0.75  # out of range once it was reduced
KINDS = pytest.mark.parametrize("resident", [False, True], ids=["float", "tensor"])


def sgd(lr: ts.Schedule, **options) -> tuple[optim.SGD, ts.Attachment]:
    optimizer = two_groups(optim.SGD)
    return optimizer, ts.attach(optimizer, lr=lr, **options)


def lr(optimizer: optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


# -- metrics -----------------------------------------------------------------------------------------------------------


@KINDS
def test_a_metric_that_leads_out_of_range_is_taken_back(resident):
    """Otherwise the next step would use the value that was refused, and the run go on from it."""
    optimizer, sched = sgd(FALLS, resident=resident)
    sched.observe(1.0)
    before = sched.state_dict()
    for _ in range(2):
        with pytest.raises(ts.BindingError, match=r"at least 0, and is -0\.25"):
            sched.observe(2.0)
        assert sched.state_dict() == before
        assert lr(optimizer) == 0.25
    train(optimizer, steps=2)
    assert lr(optimizer) == sched.log()["lr/0"] == 0.25
    sched.observe(0.5)
    assert sched.inputs["plateau"].item() == 1.0, "better than before: nothing to reduce"


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_plan_is_shown_a_metric_as_a_whole_or_not_at_all(order):
    runs = {"a": sgd(BASE * ts.plateau(factor=0.5, patience=0)), "b": sgd(FALLS)}
    plan = ts.Plan({name: runs[name][1] for name in order})
    plan.observe(1.0)
    before = plan.state_dict()
    with pytest.raises(ts.BindingError, match=r"b: lr\[group 0\] must be at least 0"):
        plan.observe(2.0)
    assert plan.state_dict() == before
    assert (lr(runs["a"][0]), lr(runs["b"][0])) == (1.0, 0.25)
    runs["b"][1].detach()
    with pytest.raises(ts.BindingError, match="b: this schedule is detached"):
        plan.observe(2.0)
    assert lr(runs["a"][0]) == 1.0
    runs["a"][1].observe(2.0)
    assert lr(runs["a"][0]) == 0.5, "the control: alone it decides"


# -- names -------------------------------------------------------------------------------------------------------------


def test_an_input_that_is_not_there_is_named_with_those_that_are():
    _, sched = sgd(BASE * ts.live("x", 1.0))
    with pytest.raises(ts.BindingError, match=r"no live input is named 'gone'; there are 'x'"):
        sched.inputs["gone"].fill_(0.5)
    assert sched.inputs.get("gone") is None
    assert "gone" not in sched.inputs
    _, plain = sgd(BASE)
    with pytest.raises(ts.BindingError, match=r"named 'x'; these schedules have none \(ts\.live"):
        plain.inputs["x"]


def test_an_element_of_what_is_no_tuple():
    optimizer = optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "name": "g1"}], lr=0.1)
    sched = ts.attach(optimizer, lr=BASE)
    with pytest.raises(
        ts.BindingError, match=r"'lr' of group 'g1', element 0 \(it is one number and no tuple"
    ):
        sched.value("lr", "g1", 0)
    with pytest.raises(ts.BindingError, match=r"no slot is 'lr' of group 3; there are lr\[group 0\]"):
        sched.value("lr", 3)


# -- inputs that go, and come again ------------------------------------------------------------------------------------


def test_a_handle_stays_good_while_its_input_is_gone_and_the_input_begins_anew():
    """A run that is resumed while it is gone has nothing of it either: both go on alike."""
    optimizer, sched = sgd(BASE * ts.live("x", 1.0))
    handle = sched.inputs["x"]
    handle.fill_(0.5)
    train(optimizer, steps=1)
    sched.rewrite(lr=BASE)
    handle.fill_(0.25)
    train(optimizer, steps=1)
    assert lr(optimizer) == BASE(2)
    resumed, again = sgd(BASE)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (sched, again):
        each.rewrite(lr=BASE * ts.live("x", 1.0))
    assert lr(optimizer) == lr(resumed) == BASE(2)
    assert sched.inputs["x"].item() == 1.0
    handle.fill_(0.5)
    train(optimizer, steps=1)
    assert (sched.log()["lr/0"], lr(optimizer)) == (0.5 * BASE(2), 0.5 * BASE(3))


def test_one_that_came_by_a_rewrite_is_in_the_optimizer_s_checkpoint():
    optimizer, sched = sgd(BASE)
    train(optimizer, steps=2)
    sched.rewrite(lr=BASE * ts.plateau(factor=0.5, patience=0))
    entries = {k for k in optimizer.param_groups[1] if k.startswith("schedule_input.")}
    assert "schedule_input.plateau.value" in entries, "placeholders, for formats that only read what is there"
    sched.observe(1.0)
    sched.observe(2.0)
    assert lr(optimizer) == 0.5 * BASE(2)
    resumed, _ = sgd(BASE * ts.plateau(factor=0.5, patience=0))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert lr(resumed) == 0.5 * BASE(2)
    sched.rewrite(lr=BASE)
    assert not any(k.startswith("schedule_input.") for k in optimizer.param_groups[1])


# -- giving back -------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("wrong", [math.inf, math.nan, -1.0])
@pytest.mark.parametrize("how", ["detach", "hand_over"])
def test_what_no_step_would_take_is_not_left_in_the_group(resident, wrong, how):
    optimizer, sched = sgd(BASE * ts.live("x", 1.0), resident=resident, free={"kl": BASE})
    train(optimizer, steps=2)
    sched.inputs["x"].fill_(wrong)
    sched.detach() if how == "detach" else sched.hand_over("lr")
    assert [type(g["lr"]) for g in optimizer.param_groups] == [float, float]
    assert lr(optimizer) == pytest.approx(BASE(2), rel=2**-23)


@KINDS
def test_what_was_turned_and_fits_is_given_back(resident):
    optimizer, sched = sgd(BASE * ts.live("x", 1.0), resident=resident)
    sched.inputs["x"].fill_(0.5)
    sched.detach()
    assert lr(optimizer) == 0.5

"""check(model): parameters that no optimizer has, or two have, and groups that follow nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding.coverage import CODES

LR = ts.linear(0.1, 0.0, steps=9)


def found(plan: ts.Plan, *models: nn.Module) -> dict[str, str]:
    findings = plan.check(*models)
    assert {finding.code for finding in findings} <= CODES.keys()
    assert all(finding.step is None for finding in findings)
    return {finding.code: finding.sentence for finding in findings}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))


def test_nothing_is_odd_where_each_parameter_has_one_optimizer():
    model = net()
    a, b = (
        optim.Muon([model[1].weight]),
        optim.SGD([p for p in model.parameters() if p is not model[1].weight]),
    )
    assert found(ts.Plan(a=ts.attach(a, lr=LR), b=ts.attach(b, lr=LR)), model) == {}


def test_what_nobody_trains_is_named():
    model = net()
    a, b = optim.SGD(model[0].parameters()), optim.SGD([model[2].bias])
    plan = ts.Plan(a=ts.attach(a, lr=LR), b=ts.attach(b, lr=LR))
    assert found(plan, model) == {
        "no-optimizer": "1.weight, 1.bias, 2.weight are in no optimizer, and will not be trained; add them, or set "
        "requires_grad=False"
    }
    model[1].requires_grad_(requires_grad=False)
    assert found(plan, model)["no-optimizer"].startswith("2.weight is in no optimizer")


def test_what_two_train_is_named():
    model = net()
    a = optim.SGD(model.parameters())
    b = optim.SGD([{"params": [model[1].bias], "name": "bias"}])
    plan = ts.Plan(a=ts.attach(a, lr=LR), b=ts.attach(b, lr=LR))
    assert found(plan, model) == {
        "in-two": "1.bias is in group 0 of a and in group 0 ('bias') of b, and would be stepped by each"
    }


def test_what_is_frozen_and_what_the_model_does_not_have():
    model = net()
    a = optim.SGD(model.parameters())
    plan = ts.Plan(a=ts.attach(a, lr=LR))
    model[0].requires_grad_(requires_grad=False)
    assert found(plan, model) == {
        "frozen": "group 0 of a has 0.weight, 0.bias, which do not require grad and will not be trained"
    }
    other = copy.deepcopy(net())
    assert found(plan, other) == {
        "no-optimizer": "0.weight, 0.bias, 1.weight, 1.bias, 2.weight and 1 more are in no optimizer, and will not be "
        "trained; add them, or set requires_grad=False",
        "not-in-the-model": "group 0 of a has 6 parameters that the model does not have, of shape (3, 2), (3,), (3, 3), "
        "(3,), (1, 3) and 1 more; was the model copied, wrapped or sharded after its optimizer was built?",
    }


def test_a_single_one_is_spoken_of_as_one():
    model = net()
    a = optim.SGD([*model.parameters(), nn.Parameter(torch.ones(7))])
    model[2].bias.requires_grad_(requires_grad=False)
    sentences = found(ts.Plan(a=ts.attach(a, lr=LR)), model)
    assert sentences["frozen"].startswith("group 0 of a has 2.bias, which does not require grad")
    assert sentences["not-in-the-model"].startswith(
        "group 0 of a has 1 parameter that the model does not have, of shape (7,);"
    )


def test_groups_that_follow_nothing():
    model = net()
    a = optim.SGD([{"params": layer.parameters()} for layer in model])
    sched = ts.attach(a, lr=[LR, None, None], momentum=[None, None, LR])
    plan = ts.Plan(a=sched)
    assert [f.sentence for f in plan.check(model)] == [
        "the lr of group 1 of a follows no schedule and stays as it is",
        "the lr of group 2 of a follows no schedule (only momentum has one) and stays as it is",
    ]
    ts.attach(a, lr=[None, LR, LR])
    assert plan.check(model) == [], "another attachment drives it"


def test_several_models_and_tied_parameters():
    g, d = net(), net()
    d[1].weight = g[1].weight
    a, b = optim.SGD(g.parameters()), optim.SGD([p for p in d.parameters() if p is not g[1].weight])
    plan = ts.Plan(g=ts.attach(a, lr=LR), d=ts.attach(b, lr=LR), together=False)
    assert found(plan, g, d) == {}
    b.param_groups[0]["params"].pop()
    assert found(plan, g, d)["no-optimizer"].startswith("model 1: 2.bias is in no optimizer")
    assert "not-in-the-model" in found(plan, g)


def test_one_attachment_checks_itself():
    model = net()
    optimizer = optim.SGD([model[0].weight])
    sched = ts.attach(optimizer, momentum=LR)
    assert [str(finding) for finding in sched.check(model[0])] == [
        "no-optimizer: bias is in no optimizer, and will not be trained; add it, or set requires_grad=False",
        "follows-nothing: the lr of group 0 follows no schedule (only momentum has one) and stays as it is",
    ]
    with pytest.raises(ts.BindingError, match="expected the model"):
        sched.check(optimizer)


@pytest.mark.parametrize("models", [(), (1,), (net(), None), (net().parameters(),)])
def test_what_is_no_model_is_an_error(models):
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))])
    plan = ts.Plan(a=ts.attach(optimizer, lr=LR))
    with pytest.raises(ts.BindingError, match="check"):
        plan.check(*models)

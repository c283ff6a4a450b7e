"""Plans on clocks that do not count steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn, optim

import tensorsched as ts

LR = ts.linear(1.0, 0.0, steps=1024)
TOKENS = ts.clock("tokens", resolution=64)


class Run:
    def __init__(self, **clock: Any) -> None:
        self.a = optim.SGD([nn.Parameter(torch.ones(3))])
        self.b = optim.SGD([nn.Parameter(torch.ones(3))], momentum=0.5)
        self.plan = ts.Plan(
            a=ts.attach(self.a, lr=LR, clock=TOKENS),
            b=ts.attach(self.b, lr=0.5 * LR, **{"clock": TOKENS} | clock),
        )
        for optimizer in (self.a, self.b):
            optimizer.param_groups[0]["params"][0].grad = torch.ones(3)

    def step(self) -> None:
        self.a.step()
        self.b.step()

    @property
    def lrs(self) -> list[float]:
        return [float(o.param_groups[0]["lr"]) for o in (self.a, self.b)]

    @property
    def parameters(self) -> torch.Tensor:
        return torch.cat([o.param_groups[0]["params"][0].detach() for o in (self.a, self.b)])


def test_all_that_have_a_clock_count():
    run = Run()
    for _ in range(3):
        run.plan.count(128)
        run.step()
    assert run.lrs == [LR(384), 0.5 * LR(384)]
    assert run.plan.step_counts == {"a": 3, "b": 3}
    mixed = Run(clock=None)
    mixed.plan.count(256)
    mixed.step()
    assert mixed.lrs == [LR(256), 0.5 * LR(1)]


def test_a_plan_without_a_clock_does_not_count():
    optimizer = optim.SGD([nn.Parameter(torch.ones(3))])
    with pytest.raises(ts.BindingError, match="is for clocks that do not count steps"):
        ts.Plan(a=ts.attach(optimizer, lr=LR)).count(3)


def test_a_change_that_fails_leaves_the_position_the_steps_and_what_was_counted():
    run = Run()
    run.plan.count(128)
    run.step()
    run.plan.count(64)
    state = run.plan.state_dict()
    with pytest.raises(ts.BindingError, match="b: weight_decay"):
        run.plan.rewrite(lr=0.5, b={"weight_decay": 0.1})
    assert run.plan.state_dict() == state
    run.step()
    assert run.lrs == [LR(192), 0.5 * LR(192)]
    broken = {**state, "attachments": {**state["attachments"], "b": {}}}
    with pytest.raises(ts.ScheduleError, match="b: format"):
        run.plan.load_state_dict(broken)
    assert run.lrs == [LR(192), 0.5 * LR(192)]
    assert run.plan.step_counts == {"a": 2, "b": 2}
    run.plan.seek(512)
    assert run.lrs == [0.5, 0.25]


def test_in_one_graph_and_nothing_steps_where_one_was_not_counted():
    run, eager = Run(), Run()
    step = ts.compile_step(run.plan, backend="aot_eager")
    for _ in range(5):
        for each, call in ((run, step), (eager, eager.step)):
            each.plan.count(128)
            call()
    assert torch.allclose(run.parameters, eager.parameters, rtol=2**-20, atol=0.0)
    assert run.lrs == eager.lrs == [LR(640), 0.5 * LR(640)]
    before = run.parameters
    run.plan["a"].count(128)
    with pytest.raises(ts.BindingError, match="count"):
        step()
    assert torch.equal(run.parameters, before)
    assert run.plan.step_counts == {"a": 5, "b": 5}
    first = Run()
    eagerly = ts.compile_step(first.plan, backend="aot_eager")
    first.plan["a"].count(128)
    with pytest.raises(ts.BindingError, match="count"):
        eagerly()
    assert torch.equal(first.parameters, torch.ones(6))
    torch._dynamo.reset()


def test_a_count_reaches_all_that_count_or_none():
    run = Run(clock=ts.clock(progress=True))  # which is not counted, but told
    run.plan.count(64)
    run.plan["b"].progress(0.5)
    run.step()
    assert [sched.position for sched in run.plan.attachments.values()] == [64, 500_000]
    with pytest.raises(ts.ScheduleError, match="count: n"):
        run.plan.count(-1)
    with pytest.raises(ts.BindingError, match="nothing was counted"):
        run.a.step()


def test_nothing_is_counted_where_the_second_refuses():
    run = Run()
    run.plan["b"].detach()
    with pytest.raises(ts.BindingError, match="detached"):
        run.plan.count(64)
    with pytest.raises(ts.BindingError, match="nothing was counted"):
        run.a.step()


def test_one_number_is_no_place_of_different_clocks():
    run = Run(clock=None)
    with pytest.raises(ts.BindingError, match=r"'a' counts tokens, 'b' counts steps.*plan\['a'\]\.seek"):
        run.plan.seek(64)
    assert run.lrs == [1.0, 0.5]
    same = Run()
    same.plan.seek(512)
    assert same.lrs == [0.5, 0.25]


@pytest.mark.parametrize("clock", [{}, {"clock": None}])
def test_a_trainer_does_not_send_a_clock_to_a_step(clock):
    run = Run(**clock)
    face = run.plan.lr_scheduler()
    run.plan.count(64)
    run.step()
    face.step_update(1)
    before = run.lrs
    with pytest.raises(ts.BindingError, match="on a clock of tokens"):
        face.step_update(7)
    assert run.lrs == before

"""What a plan hands on to each of its attachments by name, where attachments have it."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tensorsched.plan import forwarded


class Run:
    def __init__(self) -> None:
        self.a = optim.SGD([nn.Parameter(torch.ones(3))], lr=torch.tensor(0.1))
        self.b = optim.AdamW([nn.Parameter(torch.ones(3))])
        self.plan = ts.Plan(
            a=ts.attach(self.a, lr=ts.wsd(1.0, total=20, warmup=2, decay=0.2), capacity=100),
            b=ts.attach(self.b, lr=ts.wsd(0.5, total=20, warmup=2, decay=0.2), weight_decay=ts.constant(0.1)),
        )

    def step(self, count: int) -> None:
        for _ in range(count):
            self.a.step()
            self.b.step()

    @property
    def lrs(self) -> list[float]:
        return [float(optimizer.param_groups[0]["lr"]) for optimizer in (self.a, self.b)]


def test_what_attachments_have_is_handed_on_and_nothing_else():
    for name in forwarded._TABLE:
        assert hasattr(ts.Plan, name) == hasattr(ts.Attachment, name)
    for name, method in forwarded.forwarded().items():
        assert getattr(ts.Plan, name).__doc__.startswith(f"As `Attachment.{name}`, ")
        assert method.__name__ == name


def test_it_is_done_by_all_or_by_none(monkeypatch):
    """With a method that any attachment has: the second refuses, and the first is where it was."""
    run = Run()
    run.step(2)

    def change(sched: ts.Attachment, value: float) -> float:
        if sched.optimizer is run.b and value < 0:
            raise ts.BindingError("no")
        sched.rewrite(lr=abs(value))
        return value

    monkeypatch.setattr(ts.Attachment, "change", change, raising=False)
    monkeypatch.setitem(forwarded._TABLE, "change", (forwarded._change, "of all"))
    made = forwarded.forwarded()["change"]
    with pytest.raises(ts.BindingError, match=r"^b: no$"):
        made(run.plan, -0.25)
    assert run.lrs == [1.0, 0.5]
    made(run.plan, 0.25)
    assert run.lrs == [0.25, 0.25]
    assert run.plan.step_counts == {"a": 2, "b": 2}


def test_all_cool_down_from_their_own_values_or_none_does():
    run = Run()
    run.step(4)
    state, history = run.plan.state_dict(), run.plan.history()
    with pytest.raises(ts.BindingError, match="a: cool_down: nothing is scheduled under 'weight_decay'"):
        run.plan.cool_down(4, keys=["lr", "weight_decay"])
    with pytest.raises(ts.BindingError, match=r"b: eps"):
        run.plan.rewrite(lr=0.125, b={"eps": 1.0})
    assert run.plan.state_dict() == state
    assert run.plan.history() == history
    run.plan.cool_down(4)
    run.step(2)
    assert run.lrs == [0.5, 0.25]
    run.step(2)
    assert run.lrs == [0.0, 0.0]


def test_all_are_extended():
    run = Run()
    run.step(4)
    before = run.lrs
    run.plan.extend(10)
    assert run.lrs == before
    run.step(14)
    assert run.lrs == [1.0, 0.5], "at step 18 the decay of the shorter run was half over"


def test_each_has_its_history():
    run = Run()
    run.step(3)
    run.plan.rewrite(lr=ts.constant(0.25))
    assert {name: [change.what for change in changes] for name, changes in run.plan.history().items()} == {
        "a": ["attach", "rewrite"], "b": ["attach", "rewrite"]
    }  # fmt: skip


def test_one_log_for_all():
    run = Run()
    run.step(3)
    assert run.plan.log() == {"a/lr/0": 1.0, "b/lr/0": 0.5, "b/weight_decay/0": 0.1}


def test_what_only_reads_asks_nothing_of_one_that_is_detached():
    run = Run()
    run.step(3)
    run.plan["a"].detach()
    assert run.plan.log() == {"b/lr/0": 0.5, "b/weight_decay/0": 0.1}
    assert list(run.plan.history()) == ["a", "b"]

"""One LRScheduler over several optimizers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, SequentialLR

import tensorsched as ts

A, B = ts.warmup_cosine(0.1, total=12, warmup=3), ts.linear(0.05, 0.0, steps=12)


class Run:
    def __init__(self, lr: Any = 0.1) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.a = optim.SGD(self.model[0].parameters(), lr=lr, momentum=0.9)
        self.b = optim.AdamW([{"params": [self.model[2].weight]}, {"params": [self.model[2].bias]}])
        self.optimizers = [self.a, self.b]
        self.plan = ts.Plan(a=ts.attach(self.a, lr=A), b=ts.attach(self.b, lr=[B, 2.0 * B]))

    @property
    def held(self) -> list[float]:
        return [float(g["lr"]) for optimizer in self.optimizers for g in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


def lrs(a: int, b: int) -> list[float]:
    return [A(a), B(b), 2.0 * B(b)]


@pytest.fixture(params=[False, True], ids=["float", "tensor"])
def run(request) -> Run:
    return Run(torch.tensor(0.1) if request.param else 0.1)


def near(wanted: list[float]) -> Any:
    return pytest.approx(wanted, rel=2**-23)


def test_it_is_a_scheduler_of_torch_and_moves_each_when_its_optimizer_has_stepped(run):
    scheduler = run.plan.lr_scheduler()
    assert isinstance(scheduler, LRScheduler)
    assert scheduler is run.plan.lr_scheduler()
    assert scheduler.optimizer is run.a
    assert scheduler.base_lrs == near([0.1, 1e-3, 1e-3])
    for step in range(6):
        assert scheduler.get_last_lr() == near(lrs(step, step))
        assert run.held == near(lrs(step, step))
        run.step()
        assert run.held == near(lrs(step, step)), "moves with the trainer's call"
        scheduler.step()
        scheduler.step()
        assert scheduler.last_epoch == step + 1
    run.b.step()
    scheduler.step()
    assert run.plan.step_counts == {"a": 6, "b": 7}
    assert scheduler.get_last_lr() == near(lrs(6, 7))


def test_a_load_that_fails_leaves_the_steps_that_wait_to_be_counted(run):
    scheduler = run.plan.lr_scheduler()
    run.step()
    scheduler.step()
    run.step()
    state = run.plan.state_dict()
    state["attachments"]["b"]["step"] = -1
    with pytest.raises(ts.ScheduleError, match="b: step must be"):
        run.plan.load_state_dict(state)
    scheduler.step()
    assert run.plan.step_counts == {"a": 2, "b": 2}
    assert run.held == near(lrs(2, 2))


def test_going_to_a_step(run):
    scheduler = run.plan.lr_scheduler()
    scheduler.last_epoch = 4
    assert (run.held, scheduler._step_count) == (near(lrs(4, 4)), 5)
    scheduler.step_update(9)
    assert run.held == near(lrs(9, 9))
    run.plan.seek(2)
    assert scheduler.last_epoch == 2
    with pytest.raises(ts.BindingError, match="winds its schedulers back"):
        SequentialLR(run.a, [LambdaLR(run.a, lambda _: 1.0), scheduler], milestones=[3])


def test_sequential_lr_is_refused_and_leaves_every_group_as_it_was(run):
    face = run.plan.lr_scheduler()
    before = run.held
    with pytest.raises(ts.BindingError, match="SequentialLR"):
        SequentialLR(run.a, [face, face], milestones=[3])
    assert run.held == before


def test_its_state_is_the_plan_s(run):
    scheduler = run.plan.lr_scheduler()
    for _ in range(5):
        run.step()
        scheduler.step()
    other = Run()
    again = other.plan.lr_scheduler()
    again.load_state_dict(scheduler.state_dict())
    assert scheduler.state_dict() == run.plan.state_dict()
    assert (other.held, again.last_epoch) == (lrs(5, 5), 5)
    other.step()
    again.step()
    assert other.held == lrs(6, 6)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_copies_wait_as_the_original_does(run, how):
    scheduler = run.plan.lr_scheduler()
    run.step()
    other, again = how((run, scheduler))
    assert other.plan.lr_scheduler() is again
    again.step()
    assert (again.last_epoch, scheduler.last_epoch) == (1, 0)
    assert other.held == near(lrs(1, 1))
    scheduler.step()
    assert scheduler.last_epoch == 1


def test_a_compiled_step_and_a_face_exclude_each_other(run):
    step = ts.compile_step(run.plan, backend="aot_eager")
    with pytest.raises(ts.BindingError, match="a: a compiled step counts by itself"):
        run.plan.lr_scheduler()
    step.release()
    run.plan.lr_scheduler()
    with pytest.raises(ts.BindingError, match="makes the schedule wait for a trainer"):
        ts.compile_step(run.plan, backend="aot_eager")


def test_a_plan_of_which_one_cannot_wait_makes_none_wait():
    run = Run()
    run.plan["b"].detach()
    with pytest.raises(ts.BindingError, match="b: this schedule is detached"):
        run.plan.lr_scheduler()
    run.a.step()
    assert run.plan["a"].step_count == 1, "a still moves by itself"


def test_accelerate_takes_it_once_for_two_optimizers():
    """As two LambdaLR: the same parameters to the bit, with gradient accumulation."""

    def trained(*, ours: bool) -> list[torch.Tensor]:
        run = Run()
        if ours:
            schedulers: list[Any] = [run.plan.lr_scheduler()]
        else:
            run.plan.detach()
            for optimizer in run.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = 1.0
                    group.pop("initial_lr", None)
            schedulers = [LambdaLR(run.a, A), LambdaLR(run.b, [B, 2.0 * B])]
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        model, *prepared = accelerator.prepare(run.model, *run.optimizers, *schedulers)
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            with accelerator.accumulate(model):
                accelerator.backward(model(torch.randn(8, 3, generator=generator)).square().mean())
                for part in prepared:
                    part.step()
                for part in prepared[:2]:
                    part.zero_grad()
        if ours:
            assert run.plan.step_counts == {"a": 10, "b": 10}
        return [p.detach().clone() for p in run.model.parameters()]

    assert all(torch.equal(p, q) for p, q in zip(trained(ours=True), trained(ours=False), strict=True))

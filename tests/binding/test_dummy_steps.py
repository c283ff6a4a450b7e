"""Steps that make an optimizer's state are no steps: torch's, torchtitan's, DeepSpeed's, by copies of what they do."""

from __future__ import annotations

import gc
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import optim
from torch.distributed.checkpoint import state_dict as dcp

import tensorsched as ts
from tensorsched.binding import callers
from tests.binding.test_attach import LR, WD, equal, set_gradients, train, two_groups

KINDS = pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])


def zero_gradients(optimizer: optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)


def init_optim_state(optimizer: optim.Optimizer) -> None:
    """What torchtitan's function of this name does (2026: components/checkpoint_utils, after torch's private one)."""
    if optimizer.state or any(p.grad is not None for g in optimizer.param_groups for p in g["params"]):
        return
    zero_gradients(optimizer)
    held = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(0.0) if isinstance(group["lr"], torch.Tensor) else 0.0
    optimizer.step(closure=None)
    for group, lr in zip(optimizer.param_groups, held, strict=True):
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)


class DeepSpeed:
    """What DeepSpeed's ZeRO 1 and 2, and its bf16 optimizer, do when they are built (0.19)."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.initialize_optimizer_states()

    def initialize_optimizer_states(self) -> None:
        zero_gradients(self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class DeepSpeed3(DeepSpeed):
    """Its ZeRO 3: a step for each sub-group, alone in its param_group."""

    def initialize_optimizer_states(self) -> None:
        zero_gradients(self.optimizer)
        held = [group["params"] for group in self.optimizer.param_groups]
        for index, params in enumerate(held):
            for group in self.optimizer.param_groups:
                group["params"] = []
            for p in params:
                self.optimizer.param_groups[index]["params"] = [p]
                self.optimizer.step()
            self.optimizer.param_groups[index]["params"] = []
        for group, params in zip(self.optimizer.param_groups, held, strict=True):
            group["params"] = params
        self.optimizer.zero_grad(set_to_none=True)


def materialize(optimizer: optim.Optimizer) -> None:
    """As torchtitan's, under a name that nobody knows: known by the lr of 0."""
    zero_gradients(optimizer)
    held = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, lr in zip(optimizer.param_groups, held, strict=True):
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)


MAKERS: dict[str, Any] = {
    "torch": dcp._init_optim_state,
    "torchtitan": init_optim_state,
    "DeepSpeed": DeepSpeed,
    "DeepSpeed, ZeRO 3": DeepSpeed3,
    "another name": materialize,
}
FALLING = ts.linear(0.5, 0.1, steps=8)


@KINDS
@pytest.mark.parametrize("advance", ["auto", "manual"])
@pytest.mark.parametrize("maker", MAKERS)
def test_it_makes_the_state_and_counts_nothing(maker, advance, tensor):
    optimizer = two_groups(optim.Adam)
    sched = ts.attach(optimizer, lr=FALLING, advance=advance, resident=tensor)
    before = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    MAKERS[maker](optimizer)
    assert sched.step_count == 0
    assert optimizer.state, "it was made"
    assert equal(before, [p.detach() for group in optimizer.param_groups for p in group["params"]])
    train(optimizer, steps=1)
    if advance == "manual":
        sched.step()
    assert sched.step_count == 1
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(FALLING(1), rel=2**-23)


@pytest.mark.parametrize("maker", ["torch", "torchtitan"])
def test_an_optimizer_that_never_has_state_is_asked_again_and_again(maker):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=FALLING)
    for count in range(3):
        optimizer.zero_grad()
        MAKERS[maker](optimizer)
        assert sched.step_count == count
        train(optimizer, steps=1)


def test_a_warm_up_from_zero_is_training():
    """Its first step has an lr of 0 and an optimizer without state; its gradients tell."""
    optimizer = two_groups(optim.Adam)
    sched = ts.attach(optimizer, lr=ts.linear(0.0, 1.0, steps=4))
    train(optimizer, steps=2)
    assert sched.step_count == 2


def test_a_real_step_in_a_function_with_such_a_name_counts():
    def init_my_optim_states(optimizer: optim.Optimizer) -> None:
        train(optimizer, steps=1)

    optimizer = two_groups(optim.Adam)
    sched = ts.attach(optimizer, lr=FALLING)
    init_my_optim_states(optimizer)
    assert sched.step_count == 1


def test_zero_gradients_alone_are_training_too():
    optimizer = two_groups(optim.Adam)
    sched = ts.attach(optimizer, lr=FALLING)
    zero_gradients(optimizer)
    optimizer.step()
    assert sched.step_count == 1


def test_a_foreign_zero_is_an_error_as_ever():
    optimizer = two_groups(optim.Adam)
    ts.attach(optimizer, lr=FALLING)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    with pytest.raises(ts.BindingError, match="no longer follows its schedule"):
        train(optimizer, steps=1)


# -- sched.step() by hand ----------------------------------------------------------------------------------------------


UNCOUNTED = r"SGD.step\(\) was not since the last time, so nothing is counted"


@pytest.fixture
def no_scaler(monkeypatch):
    """As in a process without one: those that other tests leave for the garbage collector are enabled."""
    gc.collect()
    monkeypatch.setattr(callers, "_SCALERS", ("GradScaler",))
    for each in gc.get_objects():
        if issubclass(type(each), torch.amp.GradScaler):  # some objects lie about their class, and warn
            monkeypatch.setattr(each, "_enabled", False)


@pytest.mark.usefixtures("no_scaler")
def test_a_step_by_hand_before_the_first_optimizer_step_is_refused():
    """Gradient accumulation as Accelerate does it: the wrapper steps every third time, the loop calls sched.step()."""
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, advance="manual")
    text = r"SGD.step\(\) was not yet, so the schedule would run ahead.*accelerator\.sync_gradients"
    for _ in range(2):
        with pytest.raises(ts.BindingError, match=text):
            sched.step()
    assert sched.step_count == 0
    for _ in range(3):
        train(optimizer, steps=1)
        sched.step()
    assert (sched.step_count, optimizer.param_groups[0]["lr"]) == (3, LR(3))


@pytest.mark.usefixtures("no_scaler")
def test_a_step_that_is_left_out_in_the_middle_of_a_run_is_no_reason_to_end_it():
    """Whoever leaves out steps whose gradients are not finite calls sched.step() all the same."""
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, advance="manual")

    def loop() -> None:
        for finite in (True, False, True, False, True):
            if finite:
                train(optimizer, steps=1)
            sched.step()

    with pytest.warns(UserWarning, match=UNCOUNTED) as said:
        loop()
    assert len(said) == 1
    assert (sched.step_count, optimizer.param_groups[0]["lr"]) == (3, LR(3))


@pytest.mark.usefixtures("no_scaler")
@pytest.mark.parametrize("enabled", [True, False])
def test_the_first_step_that_grad_scaler_skips_is_not_counted_and_no_error(enabled):
    """The scale that it begins with is too large for most models: the first steps are skipped."""
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, advance="manual")
    scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    set_gradients(optimizer, 0)
    optimizer.param_groups[0]["params"][0].grad[:] = math.inf
    if enabled:
        scaler.scale(torch.zeros(()))
        scaler.step(optimizer)
        with pytest.warns(UserWarning, match=UNCOUNTED):
            sched.step()
        scaler.update()
    else:  # then it skips nothing, and it was forgotten to step
        with pytest.raises(ts.BindingError, match="was not yet"):
            sched.step()
    assert sched.step_count == 0
    train(optimizer, steps=1)
    sched.step()
    assert sched.step_count == 1


@pytest.mark.parametrize("kind", ["no hooks", "own step", "fused_backward"])
def test_where_steps_are_not_reported_every_call_counts(kind):
    optimizer: Any = two_groups(optim.SGD)
    if kind == "no hooks":
        optimizer = SimpleNamespace(param_groups=[{"lr": 0.1, "params": []}])
    elif kind == "own step":
        optimizer.step = lambda: None
    else:
        optimizer.fused_backward = lambda: None
    sched = ts.attach(optimizer, lr=LR, advance="manual")
    for _ in range(3):
        sched.step()
    assert sched.step_count == 3

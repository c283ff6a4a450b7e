"""A decoupled weight decay on the device: to the bit what torch does with floats, masked, refused where it would differ."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding import hooks
from tensorsched.binding.decay import obstacle
from tensorsched.binding.slots import Slot
from tests.binding.test_attach import (
    equal,
    fake_cuda,
    floats_by_hand,
    on_cuda,
    parameters,
    set_gradients,
    two_groups,
)

__all__ = ["fake_cuda"]  # a fixture, found by its name

STEPS = 8
LR = ts.linear(0.125, 0.0, steps=8)  # exact in float32: what an optimizer does with lr itself is the same
WD = ts.linear(0.3, 0.01, steps=7)
BOTH = {"lr": LR, "weight_decay": WD}
IMPLEMENTATIONS = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
DECOUPLED = {
    optim.AdamW: {},
    optim.Adam: {"decoupled_weight_decay": True},
    optim.NAdam: {"decoupled_weight_decay": True},
    optim.RAdam: {"decoupled_weight_decay": True},
}


def decaying(kind: type = optim.AdamW, **options: Any) -> tuple[Any, ts.Attachment]:
    optimizer = two_groups(kind, **({"fused": True} | options if kind is optim.AdamW else options))
    return optimizer, ts.attach(optimizer, resident=True, **BOTH)


def trained(optimizer: Any, steps: range = range(STEPS), before: Any = lambda _: None) -> list[torch.Tensor]:
    for step in steps:
        set_gradients(optimizer, step)
        before(step)
        optimizer.step()
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("kind", [optim.AdamW, optim.Adam])
def test_it_trains_as_torchs_fused_step_with_floats_to_the_bit(kind):
    options = DECOUPLED[kind] | {"fused": True}
    optimizer, by_hand = two_groups(kind, **options), two_groups(kind, **options)
    sched = ts.attach(optimizer, resident=True, **BOTH)
    assert all(slot.decays for slot in sched.slots if slot.place.key == "weight_decay")
    reached = trained(optimizer)
    assert equal(reached, trained(by_hand, before=floats_by_hand(by_hand, BOTH)))
    frozen, still = two_groups(kind, **options), BOTH | {"weight_decay": ts.constant(WD(0))}
    assert not equal(reached, trained(frozen, before=floats_by_hand(frozen, still))), "the control"


@pytest.mark.parametrize("how", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", DECOUPLED, ids=lambda kind: kind.__name__)
def test_a_decay_alone_is_that_of_each_implementation_of_torch_to_the_bit(kind, how):
    if how == "fused" and kind not in (optim.AdamW, optim.Adam):
        return  # torch has no such kernel
    schedules = {"lr": ts.cosine(0.1, 0.001, steps=7), "weight_decay": WD}  # of any digits
    optimizer = two_groups(kind, foreach=False, **DECOUPLED[kind])
    by_hand = two_groups(kind, **DECOUPLED[kind], **IMPLEMENTATIONS[how])
    ts.attach(optimizer, resident=True, **schedules)
    set_by_hand = floats_by_hand(by_hand, schedules)
    start = [p.detach().clone() for p in parameters_of(optimizer)]
    for step in range(STEPS):
        set_by_hand(step)
        for each in (optimizer, by_hand):
            for p in parameters_of(each):
                p.grad = torch.zeros_like(p)  # no update: what is left is the decay
            each.step()
        assert equal([*parameters_of(optimizer)], [*parameters_of(by_hand)])
    assert not any(torch.equal(p, was) for p, was in zip(parameters_of(optimizer), start, strict=True))


def test_with_any_lr_the_factor_is_the_product_in_float64_rounded_once():
    lr, wd = ts.linear(0.1, 0.013, steps=9), ts.cosine(0.3, 0.01, steps=9)
    optimizer = optim.AdamW(parameters(), fused=True)
    sched = ts.attach(optimizer, lr=lr, weight_decay=wd, resident=True)
    (slot,) = (slot for slot in sched.slots if slot.decays)
    for step in range(12):
        (engine,) = sched._mode.engines
        expected = torch.tensor(1.0 - lr(step) * wd(step), dtype=torch.float32)
        assert engine.value(slot.factor).item() == expected.item()
        optimizer.step()


def test_without_a_gradient_a_parameter_does_not_decay():
    optimizer, _ = decaying()
    first, *others = (p for group in optimizer.param_groups for p in group["params"])
    before = [p.detach().clone() for p in (first, *others)]
    for p in others:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(first, before[0])
    assert not any(torch.equal(p, was) for p, was in zip(others, before[1:], strict=True))


def test_while_the_step_runs_the_group_holds_0_and_otherwise_the_live_value():
    optimizer, sched = decaying()
    seen = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["weight_decay"]))
    trained(optimizer, range(3))
    assert seen == [0.0] * 3
    held = optimizer.param_groups[0]["weight_decay"]
    assert held is sched.value("weight_decay")
    assert held.item() == pytest.approx(WD(3), rel=2**-24)
    assert "1 - lr * weight_decay" in str(sched)


def test_a_step_that_raises_leaves_nothing_behind():
    optimizer, by_hand = two_groups(optim.AdamW, fused=True), two_groups(optim.AdamW, fused=True)
    sched = ts.attach(optimizer, resident=True, **BOTH)

    def fails(*_: Any) -> None:
        raise RuntimeError("no")

    handle = optimizer.register_step_pre_hook(fails)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None  # so that nothing has decayed
    with pytest.raises(RuntimeError, match="no"):
        optimizer.step()
    handle.remove()
    assert equal(trained(optimizer), trained(by_hand, before=floats_by_hand(by_hand, BOTH)))
    assert sched.step_count == STEPS


def test_somebody_elses_value_is_an_error_before_anything_decays():
    optimizer, _ = decaying()
    trained(optimizer, range(2))
    optimizer.param_groups[1]["weight_decay"] = 0.0
    before = [p.detach().clone() for p in parameters_of(optimizer)]
    with pytest.raises(ts.BindingError, match=r"weight_decay\[group 1\] no longer follows"):
        optimizer.step()
    assert equal([p.detach() for p in parameters_of(optimizer)], before)


def parameters_of(optimizer: Any) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


# -- closures, GradScaler, trainers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False])
def test_a_closure_computes_its_gradients_before_the_decay(by_name):
    optimizer, by_hand = two_groups(optim.AdamW, fused=True), two_groups(optim.AdamW, fused=True)
    ts.attach(optimizer, resident=True, **BOTH)
    set_by_hand = floats_by_hand(by_hand, BOTH)
    for step in range(STEPS):
        set_by_hand(step)
        for each in (optimizer, by_hand):

            def closure(each: Any = each) -> torch.Tensor:
                each.zero_grad()
                loss = sum((p**3).sum() for p in parameters_of(each))
                loss.backward()
                return loss

            loss = each.step(closure=closure) if by_name else each.step(closure)
            assert loss.requires_grad
    assert equal([*parameters_of(optimizer)], [*parameters_of(by_hand)])


@pytest.mark.parametrize("advance", ["hook", "face"])
def test_a_step_that_gradscaler_skips_decays_nothing(advance):
    optimizer, by_hand = two_groups(optim.AdamW, fused=True), two_groups(optim.AdamW, fused=True)
    sched = ts.attach(optimizer, resident=True, **BOTH)
    face = sched.lr_scheduler() if advance == "face" else None
    scalers = [torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=100) for _ in range(2)]
    set_by_hand, done = floats_by_hand(by_hand, BOTH), 0
    for step in range(STEPS):
        set_by_hand(done)
        for each, scaler in zip((optimizer, by_hand), scalers, strict=True):
            set_gradients(each, step)
            scaler.scale(torch.zeros(()))  # or it has no scale
            if step in (2, 5):
                parameters_of(each)[-1].grad[0] = torch.inf
            scaler.step(each)
            scaler.update()
        done += step not in (2, 5)
        if face is not None:
            face.step()
        assert sched.step_count == done
        assert equal([*parameters_of(optimizer)], [*parameters_of(by_hand)])
    assert done == STEPS - 2


# -- saved, copied, given back -----------------------------------------------------------------------------------------


def test_a_checkpoint_has_the_weight_decay_of_the_schedule_and_resumes_to_the_bit():
    optimizer, _ = decaying()
    whole = trained(optimizer)
    optimizer, _ = decaying()
    trained(optimizer, range(3))
    state = copy.deepcopy(optimizer.state_dict())
    weights = [p.detach().clone() for p in parameters_of(optimizer)]
    assert [group["weight_decay"] for group in state["param_groups"]] == [WD(3)] * 2
    again, sched = decaying()
    with torch.no_grad():
        for p, weight in zip(parameters_of(again), weights, strict=True):
            p.copy_(weight)
    again.load_state_dict(state)
    assert sched.step_count == 3
    assert equal(trained(again, range(3, STEPS)), whole)
    plain = two_groups(optim.AdamW, fused=True)
    plain.load_state_dict(state)
    assert plain.param_groups[0]["weight_decay"] == WD(3)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_by_itself(how):
    optimizer, sched = decaying()
    trained(optimizer, range(3))
    other, other_sched = how((optimizer, sched))
    reached = trained(optimizer, range(3, STEPS))
    assert other_sched.step_count == 3
    assert equal(trained(other, range(3, STEPS)), reached)


def test_detach_gives_the_number_back():
    optimizer, sched = decaying()
    trained(optimizer, range(3))
    sched.detach()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [WD(3)] * 2
    by_hand, other = decaying()
    trained(by_hand, range(3))
    other.detach()
    assert equal(trained(optimizer, range(2)), trained(by_hand, range(2)))


def test_rewrite_of_either_changes_the_decay():
    for key, new in (("lr", ts.constant(0.25)), ("weight_decay", ts.constant(0.5))):
        optimizer, by_hand = two_groups(optim.AdamW, fused=True), two_groups(optim.AdamW, fused=True)
        sched = ts.attach(optimizer, resident=True, capacity=20, **BOTH)
        trained(optimizer, range(3))
        trained(by_hand, range(3), floats_by_hand(by_hand, BOTH))
        sched.rewrite(**{key: new})
        reached = trained(optimizer, range(3, STEPS))
        set_by_hand = floats_by_hand(by_hand, BOTH | {key: new})
        assert equal(reached, trained(by_hand, range(3, STEPS), set_by_hand))


def test_a_late_group_decays_too():
    optimizer, sched = decaying()
    trained(optimizer, range(2))
    late = nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [late]})
    sched.adopt(lr=LR, weight_decay=WD)
    late.grad = torch.zeros(3)
    optimizer.step()
    assert torch.equal(late, torch.full((3,), 1.0) * torch.tensor(1.0 - LR(2) * WD(2), dtype=torch.float32))
    late.grad = torch.zeros(3)
    optimizer.step()
    assert late[0] < 1.0 - LR(2) * WD(2)


def test_in_a_compiled_step_and_eager_steps_between_it_decays_once():
    def make() -> tuple[Any, ts.Attachment]:
        optimizer = two_groups(optim.AdamW, foreach=False)
        return optimizer, ts.attach(optimizer, resident=True, **BOTH)

    (optimizer, sched), (eager, _) = make(), make()
    step = ts.compile_step(sched, backend="aot_eager")
    for number in range(STEPS):
        for each in (optimizer, eager):
            set_gradients(each, number)
        eager.step()
        optimizer.step() if number in (0, 4) else step()
    for a, b in zip(parameters_of(optimizer), parameters_of(eager), strict=True):
        # The graph's 1 - lr * weight_decay is made of float32 numbers: three roundings a step more, and those of its
        # bias correction, of numbers below 1.
        assert (a - b).abs().max() < STEPS * 8 * 2.0**-24 * (1 + b.abs().max())
    torch._dynamo.reset()


# -- refused where it would differ -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "schedules", "text"),
    [
        (
            lambda: optim.AdamW(parameters(), fused=True),
            {"weight_decay": WD},
            "needs the lr of the same group",
        ),
        (
            lambda: optim.AdamW([nn.Parameter(p.detach().double()) for p in parameters()], fused=True),
            BOTH,
            "float64 would be rounded",
        ),
        (
            lambda: optim.AdamW([nn.Parameter(p.detach().bfloat16()) for p in parameters()], fused=True),
            BOTH,
            "bfloat16 would be rounded",
        ),
        (lambda: optim.Adam(parameters(), fused=True), BOTH, "part of the gradient"),
    ],
)
def test_where_it_would_differ_it_is_refused(make, schedules, text):
    optimizer = make()
    lr = Slot(ts.attach(optimizer, lr=LR).slots[0].place, LR, "lr" in schedules, "", 0.1)
    assert text in obstacle(optimizer, optimizer.param_groups[0], WD, lr, auto=True)


def test_manual_advance_keeps_the_number():
    optimizer = optim.AdamW(parameters(), fused=True)
    sched = ts.attach(optimizer, resident=True, advance="manual", **BOTH)
    assert not any(slot.decays for slot in sched.slots)


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize(
    ("kind", "options", "schedules", "text"),
    [
        (optim.AdamW, {}, {"weight_decay": WD}, "needs the lr of the same group"),
        (optim.Adam, {}, BOTH, "part of the gradient"),
        (optim.SGD, {}, BOTH, "reads weight_decay on the host"),
        (
            optim.AdamW,
            {},
            BOTH | {"betas": (None, ts.constant(0.99))},
            r"betas\[1\]\[group 0\] cannot be a tensor",
        ),
    ],
)
def test_resident_on_a_gpu_is_refused_with_the_reason(kind, options, schedules, text):
    optimizer = on_cuda(kind, fused=True, **options)
    with pytest.raises(ts.BindingError, match=text):
        ts.attach(optimizer, resident=True, **schedules)
    assert isinstance(optimizer.param_groups[0]["weight_decay"], (int, float))


@pytest.mark.usefixtures("fake_cuda")
def test_on_a_gpu_a_fused_decay_is_asked_for_or_comes_with_capturable():
    for options, resident, decays in (
        ({}, "auto", False),
        ({}, True, True),
        ({"capturable": True}, "auto", True),
        ({"capturable": True}, False, False),
    ):
        sched = ts.attach(on_cuda(optim.AdamW, fused=True, **options), resident=resident, **BOTH)
        assert sched.slots[1].decays is decays, (options, resident)


@pytest.mark.parametrize(
    ("schedules", "text"),
    [
        ({"weight_decay": WD}, r"weight_decay\[group 0\] is a float slot.* Attach with resident=True"),
        (
            {"betas": (None, ts.constant(0.99))},
            r"betas\[1\]\[group 0\] is a float slot.* Build .* fused=False",
        ),
    ],
)
def test_a_capture_names_what_a_fused_kernel_would_bake_in(schedules, text, monkeypatch):
    monkeypatch.setattr(hooks, "capturing", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    optimizer = optim.AdamW(parameters(), fused=True)
    ts.attach(optimizer, **schedules)
    with pytest.raises(ts.BindingError, match=text):
        optimizer.step()


def test_with_a_trainers_face_the_schedule_moves_when_that_is_stepped():
    optimizer, sched = decaying()
    face = sched.lr_scheduler()
    set_gradients(optimizer, 0)
    optimizer.step()
    assert sched.step_count == 0
    face.step()
    assert sched.step_count == 1

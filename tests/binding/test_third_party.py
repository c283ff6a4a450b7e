"""Optimizers from other packages: the value that they use is the schedule's, and wrappers are told what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import optim

import tensorsched as ts
from tests.binding.test_attach import (
    equal,
    fake_cuda,
    floats_by_hand,
    hooks_of,
    on_cuda,
    parameters,
    set_gradients,
    two_groups,
)

__all__ = ["fake_cuda"]  # a fixture, found by its name

STEPS = 12
LR = ts.linear(0.02, 0.1, steps=5) >> ts.cosine(0.1, 0.01, steps=6)
WD = ts.linear(0.2, 0.0, steps=9)
BETAS = (ts.linear(0.8, 0.95, steps=8), ts.linear(0.9, 0.99, steps=8))


def package(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is an optional test dependency")


def run(
    optimizer: Any,
    before: Callable[[int], None] = lambda _: None,
    after: Callable[[int], None] = lambda _: None,
) -> list[torch.Tensor]:
    """Train on fixed gradients and return the parameters."""
    for step in range(STEPS):
        set_gradients(optimizer, step)
        before(step)
        optimizer.step()
        after(step)
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


# -- optimizers --------------------------------------------------------------------------------------------


def lion() -> Any:
    return two_groups(package("lion_pytorch").Lion, weight_decay=0.1)


def adamw_schedule_free() -> Any:
    optimizer = two_groups(package("schedulefree").AdamWScheduleFree, weight_decay=0.1)
    optimizer.train()
    return optimizer


def sgd_schedule_free() -> Any:
    optimizer = two_groups(package("schedulefree").SGDScheduleFree, weight_decay=0.1)
    optimizer.train()
    return optimizer


OPTIMIZERS = [
    (lion, {"lr": LR, "weight_decay": WD, "betas": BETAS}),
    (adamw_schedule_free, {"lr": LR, "weight_decay": WD, "betas": (None, BETAS[1])}),
    (sgd_schedule_free, {"lr": LR, "weight_decay": WD, "momentum": BETAS[0]}),
]


def still(schedule: Any) -> Any:
    return (
        tuple(s and ts.constant(s(0)) for s in schedule)
        if isinstance(schedule, tuple)
        else ts.constant(schedule(0))
    )


@pytest.mark.parametrize(("make", "schedules"), OPTIMIZERS)
def test_trains_to_the_bit_as_with_floats_set_by_hand(make, schedules):
    optimizer, by_hand = make(), make()
    sched = ts.attach(optimizer, **schedules)
    reached = run(optimizer)
    assert sched.step_count == STEPS
    assert equal(reached, run(by_hand, floats_by_hand(by_hand, schedules)))
    for key in schedules:
        partner = make()
        frozen = schedules | {key: still(schedules[key])}
        assert not equal(reached, run(partner, floats_by_hand(partner, frozen))), f"the control: {key}"


def test_schedule_free_reports_the_value_that_it_used():
    optimizer = adamw_schedule_free()
    ts.attach(optimizer, lr=LR)
    used = []
    run(optimizer, after=lambda _: used.append(optimizer.param_groups[0]["scheduled_lr"]))
    assert used == [LR(step) for step in range(STEPS)]


def test_schedule_free_goes_on_after_evaluation_and_a_checkpoint():
    optimizer, by_hand = adamw_schedule_free(), adamw_schedule_free()
    sched = ts.attach(optimizer, lr=LR)

    def evaluate_and_save(of: Any) -> Callable[[int], None]:
        def after(step: int) -> None:
            if step % 4 == 3:
                of.eval()
                of.load_state_dict(of.state_dict())
                of.train()

        return after

    reached = run(optimizer, after=evaluate_and_save(optimizer))
    assert sched.step_count == STEPS
    assert equal(reached, run(by_hand, floats_by_hand(by_hand, {"lr": LR}), evaluate_and_save(by_hand)))


def test_a_tensor_of_an_unknown_optimizer_becomes_a_float_on_a_cpu():
    """It may keep the tensor (LBFGS does), and a live view would change under its hands."""
    optimizer, by_hand = (
        two_groups(package("lion_pytorch").Lion, lr=torch.tensor(0.1), weight_decay=0.1) for _ in range(2)
    )
    mine = optimizer.param_groups[0]["lr"]
    sched = ts.attach(optimizer, lr=LR)
    assert equal(run(optimizer), run(by_hand, floats_by_hand(by_hand, {"lr": LR})))
    sched.detach()
    assert optimizer.param_groups[0]["lr"] is mine
    assert mine.item() == torch.tensor(LR(STEPS)).item()


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("name", ["lion_pytorch.Lion", "schedulefree.AdamWScheduleFree"])
def test_on_a_gpu_an_unknown_optimizer_gets_host_slots_and_print_says_why(name):
    module, _, kind = name.partition(".")
    sched = ts.attach(on_cuda(getattr(package(module), kind)), lr=LR, weight_decay=WD)
    assert not any(slot.tensor for slot in sched.slots)
    assert f"float: nothing is known of how {kind} reads lr" in str(sched).splitlines()
    sched.detach()
    with pytest.raises(
        ts.BindingError, match=rf"lr\[group 0\] cannot be a tensor slot.*nothing is known of how {kind}"
    ):
        ts.attach(sched.optimizer, lr=LR, resident=True)


# -- wrappers ----------------------------------------------------------------------------------------------


def schedule_free_wrapper() -> tuple[Any, Any]:
    base = two_groups(optim.SGD, weight_decay=0.1)
    wrapper = package("schedulefree").ScheduleFreeWrapper(base, momentum=0.9)
    wrapper.train()
    return wrapper, base


def lookahead() -> tuple[Any, Any]:
    base = two_groups(optim.AdamW)
    return package("pytorch_optimizer").Lookahead(base, k=3), base


WRAPPERS = [(schedule_free_wrapper, "base"), (lookahead, "optimizer")]


@pytest.mark.parametrize(("make", "attribute"), WRAPPERS)
def test_a_wrapper_is_refused_with_the_ways_out(make, attribute):
    wrapper, base = make()
    assert getattr(wrapper, attribute) is base
    held = [dict(group) for group in base.param_groups]
    with pytest.raises(
        ts.BindingError,
        match=rf"{type(wrapper).__name__} has no step hooks .* pass advance='manual' and call sched\.step\(\) after each "
        rf"optimizer step, or attach to the optimizer that it wraps \(its \.{attribute}\)",
    ):
        ts.attach(wrapper, lr=LR)
    assert [dict(group) for group in base.param_groups] == held
    assert hooks_of(base) == 0


@pytest.mark.parametrize(("make", "attribute"), WRAPPERS)
def test_the_first_way_out_is_to_step_by_hand(make, attribute):
    (wrapper, base), (by_hand, _), (partner, _) = (make() for _ in range(3))
    sched = ts.attach(wrapper, lr=LR, weight_decay=WD, advance="manual")
    schedules = {"lr": LR, "weight_decay": WD}
    reached = run(wrapper, after=lambda _: sched.step())
    assert getattr(wrapper, attribute) is base
    assert sched.step_count == STEPS
    assert equal(reached, run(by_hand, floats_by_hand(by_hand, schedules)))
    frozen = {key: still(schedule) for key, schedule in schedules.items()}
    assert not equal(reached, run(partner, floats_by_hand(partner, frozen))), "the control"
    saved = wrapper.state_dict()
    wrapper.load_state_dict(saved)
    run(wrapper, after=lambda _: sched.step())
    assert base.param_groups[0]["lr"] == LR(2 * STEPS)


def test_the_second_way_out_is_the_optimizer_inside():
    (wrapper, base), (by_hand, _) = lookahead(), lookahead()
    sched = ts.attach(base, lr=LR, weight_decay=WD)
    assert equal(run(wrapper), run(by_hand, floats_by_hand(by_hand, {"lr": LR, "weight_decay": WD})))
    assert sched.step_count == STEPS


def test_a_wrapper_that_reads_the_group_after_the_inner_step_sees_the_next_value():
    """Why the text names the manual way first: schedulefree's wrapper weighs its average by the lr it then finds."""
    (inside, base), (by_hand, _) = schedule_free_wrapper(), schedule_free_wrapper()
    sched = ts.attach(base, lr=LR)
    largest = []
    run(inside, after=lambda _: largest.append(base.param_groups[0]["lr_max"]))
    assert sched.step_count == STEPS
    exact: list[float] = []
    set_groups = floats_by_hand(by_hand, {"lr": LR})
    run(by_hand, set_groups, lambda _: exact.append(by_hand.param_groups[0]["lr_max"]))
    rising = range(1, 5)
    assert [exact[step] for step in rising] == [LR(step) for step in rising]
    assert [largest[step] for step in rising] == [LR(step + 1) for step in rising]


# -- accelerate --------------------------------------------------------------------------------------------


@pytest.fixture
def accelerator():
    accelerate = package("accelerate")
    yield accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


@pytest.mark.parametrize("resident", [True, False])
def test_accelerate_s_state_dict_round_trip_leaves_the_slots_bound(accelerator, resident):
    optimizer, by_hand = two_groups(optim.AdamW), two_groups(optim.AdamW)
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, resident=resident)
    number = torch.tensor if resident else float
    wrapped = accelerator.prepare_optimizer(optimizer, device_placement=True)
    assert wrapped is not optimizer
    for group in (0, 1):
        assert wrapped.param_groups[group]["lr"] == sched.value("lr", group)
    reached = run(wrapped)
    assert sched.step_count == STEPS
    schedules = {"lr": LR, "weight_decay": WD}
    assert equal(reached, run(by_hand, floats_by_hand(by_hand, schedules, number)))


def test_accelerate_s_optimizer_is_refused_with_the_way_out(accelerator):
    wrapped = accelerator.prepare_optimizer(two_groups(optim.SGD), device_placement=True)
    with pytest.raises(
        ts.BindingError, match=r"AcceleratedOptimizer has no step hooks .*wraps \(its \.optimizer\)"
    ):
        ts.attach(wrapped, lr=LR)
    sched = ts.attach(wrapped.optimizer, lr=LR)
    run(wrapped)
    assert sched.step_count == STEPS


@pytest.mark.parametrize("fused", [True, False])
def test_accelerate_skips_a_step_under_amp(accelerator, fused):
    assert accelerator.device.type == "cpu"
    module = package("accelerate.optimizer")
    optimizer = two_groups(optim.AdamW, fused=fused)
    sched = ts.attach(optimizer, lr=LR)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    wrapped = module.AcceleratedOptimizer(optimizer, device_placement=True, scaler=scaler)
    overflows, taken = {0, 3, 4}, 0
    for step in range(STEPS):
        set_gradients(wrapped, step)
        if step in overflows:
            optimizer.param_groups[0]["params"][0].grad[0, 0] = torch.inf
        wrapped.step()
        taken += step not in overflows
        assert fused or wrapped.step_was_skipped == (step in overflows)  # of fused steps it cannot tell
        assert sched.step_count == taken
        assert wrapped.param_groups[1]["lr"] == LR(taken)


def test_accelerate_s_gradient_accumulation_counts_optimizer_steps(accelerator):
    model = torch.nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    sched = ts.attach(optimizer, lr=LR)
    model, wrapped = accelerator.prepare(model, optimizer)
    counts = []
    for x in parameters(6):
        with accelerator.accumulate(model):
            accelerator.backward(model(x.detach()).square().mean())
            wrapped.step()
            wrapped.zero_grad()
        counts.append(sched.step_count)
    assert counts == [0, 1, 1, 2, 2, 3]
    assert optimizer.param_groups[0]["lr"] == LR(3)

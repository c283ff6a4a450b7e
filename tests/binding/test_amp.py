"""GradScaler, gradient accumulation, closures and several optimizers: a step that is skipped is not counted.

A hand-written loop without any scaler is the reference. Scales are powers of two, so scaling and unscaling gradients
changes no bit of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tests.binding.test_attach import (
    HOW,
    LR,
    WD,
    equal,
    fake_cuda,
    floats_by_hand,
    on_cuda,
    set_gradients,
    two_groups,
)
from tests.binding.test_torch_optim import HostReads

__all__ = ["fake_cuda"]  # a fixture, found by its name

STEPS = 12
# Not SGD's first step: torch's fused SGD then keeps a momentum buffer that nothing has written to.
SKIPPED = {optim.SGD: {1, 3, 4, 8}, optim.AdamW: {0, 3, 4, 8}}
KINDS = {"SGD": (optim.SGD, {"momentum": 0.9}), "AdamW": (optim.AdamW, {})}
# torch refuses a tensor lr for AdamW's foreach without capturable.
CASES = [
    pytest.param(*KINDS[kind], how, resident, id=f"{kind}-{how}-{'resident' if resident else 'host'}")
    for kind in KINDS
    for how in HOW
    for resident in (False, True)
    if (kind, how, resident) != ("AdamW", "foreach", True)
]


def build(kind: type, options: dict[str, Any], how: str) -> Any:
    return two_groups(kind, **options, **HOW[how])


def parameters_of(optimizer: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def scaler(**options: Any) -> torch.amp.GradScaler:
    made = torch.amp.GradScaler("cpu", init_scale=4.0, **options)
    made.scale(torch.ones(()))  # makes its tensors
    return made


def scaled_step(
    grad_scaler: torch.amp.GradScaler, optimizer: Any, step: int, *, overflow: bool, unscale: bool = False
) -> None:
    """What an iteration under AMP comes to: gradients of the scaled loss, inf in one of them if it overflowed."""
    set_gradients(optimizer, step)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad *= grad_scaler.get_scale()
    if overflow:
        optimizer.param_groups[1]["params"][0].grad[0, 0] = torch.inf
    if unscale:  # as for clipping: found_inf is known earlier, whether to step is still the scaler's
        grad_scaler.unscale_(optimizer)
    grad_scaler.step(optimizer)


def loop_by_hand(
    optimizer: Any, schedules: dict[str, Any], number: Callable[[float], Any], counted: Iterable[int]
) -> list[torch.Tensor]:
    """The same iterations without a scaler; `counted` says which of them move the schedule on."""
    set_groups, count, counted = floats_by_hand(optimizer, schedules, number), 0, set(counted)
    for step in range(STEPS):
        set_groups(count)
        if step not in SKIPPED[type(optimizer)]:
            set_gradients(optimizer, step)
            optimizer.step()
        count += step in counted
    return parameters_of(optimizer)


@pytest.mark.parametrize("clip", [False, True], ids=["", "unscale_"])
@pytest.mark.parametrize(("kind", "options", "how", "resident"), CASES)
def test_a_skipped_step_is_not_counted(kind, options, how, resident, clip):
    optimizer, by_hand, naive = (build(kind, options, how) for _ in range(3))
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    grad_scaler, taken, skipped = scaler(), 0, SKIPPED[kind]
    for step in range(STEPS):
        assert sched.step_count == taken
        expected = torch.tensor(LR(taken)).item() if resident else LR(taken)
        assert [float(group["lr"]) for group in optimizer.param_groups] == [expected, expected]
        scaled_step(grad_scaler, optimizer, step, overflow=step in skipped, unscale=clip)
        grad_scaler.update()
        taken += step not in skipped
    number = torch.tensor if resident else float
    reached = parameters_of(optimizer)
    assert sched.step_count == STEPS - len(skipped)
    assert not hasattr(optimizer, "found_inf")
    completed = set(range(STEPS)) - skipped
    assert equal(reached, loop_by_hand(by_hand, {"lr": LR}, number, completed))
    assert not equal(reached, loop_by_hand(naive, {"lr": LR}, number, range(STEPS))), (
        "the control: a schedule that counts iterations"
    )


def test_resident_and_host_slots_of_one_optimizer_stay_together():
    optimizer, by_hand = (build(*KINDS["AdamW"], "fused") for _ in range(2))
    on_device = ts.attach(optimizer, lr=LR, resident=True)
    on_host = ts.attach(optimizer, weight_decay=WD, resident=False)
    grad_scaler = scaler()
    for step in range(STEPS):
        scaled_step(grad_scaler, optimizer, step, overflow=step in SKIPPED[optim.AdamW])
        grad_scaler.update()
        assert on_device.step_count == on_host.step_count
    exact = floats_by_hand(by_hand, {"weight_decay": WD})
    as_tensors = floats_by_hand(by_hand, {"lr": LR}, torch.tensor)
    count = 0
    for step in range(STEPS):
        if step not in SKIPPED[optim.AdamW]:
            exact(count)
            as_tensors(count)
            set_gradients(by_hand, step)
            by_hand.step()
            count += 1
    assert equal(parameters_of(optimizer), parameters_of(by_hand))


@pytest.mark.parametrize("how", HOW)
def test_a_scaler_that_is_switched_off_skips_nothing(how):
    optimizer = build(*KINDS["SGD"], how)
    sched = ts.attach(optimizer, lr=LR)
    grad_scaler = torch.amp.GradScaler("cpu", enabled=False)
    for step in range(STEPS):
        set_gradients(optimizer, step)
        grad_scaler.step(optimizer)
        grad_scaler.update()
    assert sched.step_count == STEPS


@pytest.mark.parametrize("how", HOW)
def test_by_hand_one_asks_the_scaler(how):
    """advance="manual": the attribute is gone when scaler.step() returns; the scale tells."""
    optimizer = build(*KINDS["SGD"], how)
    sched = ts.attach(optimizer, lr=LR, advance="manual")
    grad_scaler = scaler()
    for step in range(STEPS):
        scaled_step(grad_scaler, optimizer, step, overflow=step in SKIPPED[optim.SGD])
        before = grad_scaler.get_scale()
        grad_scaler.update()
        if grad_scaler.get_scale() >= before:
            sched.step()
    assert sched.step_count == STEPS - len(SKIPPED[optim.SGD])


# -- found_inf itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("found", [1.0, 2.0, 8.0])
def test_found_inf_is_a_sum_over_devices(found, resident):
    optimizer = build(*KINDS["SGD"], "fused")
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    counts = []
    for value in (0.0, found, 0.0):
        set_gradients(optimizer, 0)
        optimizer.found_inf, optimizer.grad_scale = torch.tensor(value), None
        optimizer.step()
        counts.append(sched.step_count)
    assert counts == [1, 1, 2]


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_on_a_gpu_found_inf_is_read_on_the_device_for_resident_slots_alone(device):
    found_inf = torch.zeros((), device=device)  # the loss's device, another one where a model spans several
    counts = []
    for resident in (True, False):
        sched = ts.attach(on_cuda(optim.AdamW, fused=True), lr=LR, resident=resident)
        with HostReads() as reads:
            sched._mode.after_step(sched, found_inf)
        counts.append(reads.count)
        assert ("each step reads found_inf, a synchronisation" in sched.slots[0].why) == (not resident)
    assert counts == [0, 1], "float slots must read it: the control that a read is seen"


# -- other loops -------------------------------------------------------------------------------------------


def model_and_data() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return (
        model,
        torch.randn(24, 4, 3, generator=generator),
        torch.randn(24, 4, 2, generator=generator),
    )


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_gradient_accumulation_counts_optimizer_steps(how, resident):
    every, overflowing = 3, {7}
    parameters = []
    for attached in (True, False):
        model, xs, ys = model_and_data()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **HOW[how])
        set_groups = floats_by_hand(optimizer, {"lr": LR}, torch.tensor if resident else float)
        sched = ts.attach(optimizer, lr=LR, resident=resident) if attached else None
        grad_scaler, count = scaler(), 0
        for batch, (x, y) in enumerate(zip(xs, ys, strict=True)):
            loss = ((model(x) - y) ** 2).mean() / every
            (grad_scaler.scale(loss) if attached else loss).backward()
            if batch in overflowing and attached:
                model.weight.grad[0, 0] = torch.inf
            if (batch + 1) % every:
                continue
            overflowed = bool(overflowing & set(range(batch + 1 - every, batch + 1)))
            if attached:
                grad_scaler.step(optimizer)
                grad_scaler.update()
            elif not overflowed:
                set_groups(count)
                optimizer.step()
            count += not overflowed
            optimizer.zero_grad()
            assert sched is None or sched.step_count == count
        assert count == 7
        parameters.append([p.detach().clone() for p in model.parameters()])
    assert equal(*parameters)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_a_closure_runs_at_its_step_s_value_and_counts_once(how, resident):
    optimizer, by_hand = (build(*KINDS["SGD"], how) for _ in range(2))
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    seen = []
    for step in range(STEPS):

        def closure(step: int = step) -> float:
            set_gradients(optimizer, step)
            seen.append(float(optimizer.param_groups[0]["lr"]))
            return float(step)

        assert optimizer.step(closure) == float(step)
    assert sched.step_count == STEPS
    number = torch.tensor if resident else float
    assert seen == [float(number(LR(step))) for step in range(STEPS)]
    set_groups = floats_by_hand(by_hand, {"lr": LR}, number)
    for step in range(STEPS):
        set_groups(step)
        set_gradients(by_hand, step)
        by_hand.step()
    assert equal(parameters_of(optimizer), parameters_of(by_hand))


def test_a_closure_that_runs_often_counts_once():
    p = nn.Parameter(torch.full((3,), 4.0))
    optimizer = optim.LBFGS([p], max_iter=4)
    sched = ts.attach(optimizer, lr=ts.linear(0.1, 0.4, steps=5))
    seen: list[list[float]] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (p**4).sum()
        loss.backward()
        seen[-1].append(optimizer.param_groups[0]["lr"])
        return loss

    for step in range(5):
        seen.append([])
        optimizer.step(closure)
        assert sched.step_count == step + 1
        assert len(seen[-1]) > 1
        assert set(seen[-1]) == {ts.linear(0.1, 0.4, steps=5)(step)}


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_two_optimizers_under_one_scaler_count_their_own_steps(how, resident):
    """As for a GAN: two steps of the critic to one of the generator, overflows in one or the other."""
    schedules = {"critic": LR, "generator": 0.5 * LR}
    made = {name: build(*KINDS["SGD"], how) for name in schedules}
    by_hand = {name: build(*KINDS["SGD"], how) for name in schedules}
    attached = {name: ts.attach(made[name], lr=lr, resident=resident) for name, lr in schedules.items()}
    number = torch.tensor if resident else float
    set_groups = {name: floats_by_hand(by_hand[name], {"lr": lr}, number) for name, lr in schedules.items()}
    overflows = {"critic": {1, 5}, "generator": {4}}
    taken = dict.fromkeys(schedules, 0)
    grad_scaler = scaler()
    for step in range(STEPS):
        for name in ("critic",) if step % 2 else ("critic", "generator"):
            overflow = step in overflows[name]
            scaled_step(grad_scaler, made[name], step, overflow=overflow)
            if not overflow:
                set_groups[name](taken[name])
                set_gradients(by_hand[name], step)
                by_hand[name].step()
                taken[name] += 1
        grad_scaler.update()
        assert {name: sched.step_count for name, sched in attached.items()} == taken
    assert taken == {"critic": 10, "generator": 5}
    for name in schedules:
        assert equal(parameters_of(made[name]), parameters_of(by_hand[name]))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_a_wrapper_that_saves_and_loads_around_each_step(how, resident):
    """As Accelerate does once when it prepares an optimizer; here before every step and after it."""
    optimizer, by_hand = (build(*KINDS["SGD"], how) for _ in range(2))
    sched = ts.attach(optimizer, lr=LR, resident=resident)

    def step_of_wrapper() -> None:
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())

    set_groups = floats_by_hand(by_hand, {"lr": LR}, torch.tensor if resident else float)
    for step in range(STEPS):
        set_gradients(optimizer, step)
        step_of_wrapper()
        set_groups(step)
        set_gradients(by_hand, step)
        by_hand.step()
        assert sched.step_count == step + 1
        assert all(isinstance(group["lr"], torch.Tensor) == resident for group in optimizer.param_groups)
    assert equal(parameters_of(optimizer), parameters_of(by_hand))

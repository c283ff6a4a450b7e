"""Every optimizer of torch.optim, in every implementation that runs on a CPU, with every hyperparameter scheduled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding.known import record_of, supports_tensor
from tensorsched.binding.torch_optim import RECORDS
from tests.binding.test_attach import equal, floats_by_hand

STEPS = 6
HOW = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
LOOP_ONLY = (optim.LBFGS, optim.Muon, optim.SparseAdam)
FUSED = (optim.Adagrad, optim.Adam, optim.AdamW, optim.SGD)


class Row(NamedTuple):
    """An optimizer, the constructor's options, and a schedule that shows for each hyperparameter it has."""

    kind: type[optim.Optimizer]
    options: dict[str, Any]
    schedules: dict[str, Any]


def ramp(start: float, stop: float) -> ts.Schedule:
    return ts.linear(start, stop, steps=STEPS)


LR, WD, EPS = ramp(0.1, 0.03), ramp(0.2, 0.01), ramp(1e-3, 1e-1)
BETAS = (ramp(0.7, 0.9), ramp(0.8, 0.95))
ADAM = {"lr": LR, "weight_decay": WD, "betas": BETAS, "eps": EPS}
SGD = {"lr": LR, "weight_decay": WD, "momentum": ramp(0.6, 0.9)}
RMSPROP = {"lr": LR, "weight_decay": WD, "momentum": ramp(0.6, 0.9), "alpha": ramp(0.8, 0.95), "eps": EPS}
MUON = {"lr": LR, "weight_decay": WD, "momentum": ramp(0.6, 0.9), "eps": ramp(10.0, 30.0),
        "ns_coefficients": (ramp(3.44, 3.2), ramp(-4.77, -4.4), ramp(2.03, 1.8))}  # fmt: skip
# Values at which each hyperparameter matters: eps1 above a mean square, eps2 above a parameter's RMS, d below an
# update's RMS, step_sizes that are reached, tolerances that end the iteration on the way.
ROWS = {
    "Adadelta": Row(optim.Adadelta, {}, {"lr": ramp(1.0, 0.3), "rho": ramp(0.7, 0.9), "eps": EPS, "weight_decay": WD}),
    "Adafactor": Row(optim.Adafactor, {"eps": (1e-3, 1e-3)},
                     {"lr": ramp(0.05, 0.01), "weight_decay": WD, "beta2_decay": ramp(-0.8, -0.5),
                      "eps": (ramp(0.5, 2.0), ramp(2.0, 5.0)), "d": ramp(0.1, 0.5)}),
    "Adagrad": Row(optim.Adagrad, {}, {"lr": LR, "lr_decay": ramp(0.1, 0.5), "eps": EPS, "weight_decay": WD}),
    "Adam": Row(optim.Adam, {}, ADAM),
    "Adam amsgrad": Row(optim.Adam, {"amsgrad": True}, ADAM),
    "AdamW": Row(optim.AdamW, {}, ADAM),
    "Adamax": Row(optim.Adamax, {}, ADAM),
    "ASGD": Row(optim.ASGD, {}, {"lr": LR, "lambd": ramp(1e-2, 1e-1), "alpha": ramp(0.5, 0.9), "t0": ramp(0.5, 3.0),
                                 "weight_decay": WD}),
    # In several rows, because each limit hides the others.
    "LBFGS": Row(optim.LBFGS, {"max_iter": 3, "history_size": 3},
                 {"lr": ramp(0.2, 0.5), "tolerance_grad": ramp(1e-3, 1.0)}),
    "LBFGS max_iter": Row(optim.LBFGS, {"history_size": 3}, {"lr": ramp(0.2, 0.5), "max_iter": ramp(4.0, 1.0)}),
    "LBFGS other": Row(optim.LBFGS, {"history_size": 3, "max_iter": 6},
                       {"tolerance_change": ramp(1e-3, 0.5), "max_eval": ramp(5.0, 2.0)}),
    "Muon": Row(optim.Muon, {"ns_steps": 2}, MUON),
    "Muon plain": Row(optim.Muon, {"nesterov": False, "ns_steps": 2}, MUON),
    "NAdam": Row(optim.NAdam, {}, ADAM | {"momentum_decay": ramp(0.004, 0.1)}),
    "NAdam decoupled": Row(optim.NAdam, {"decoupled_weight_decay": True}, ADAM | {"momentum_decay": ramp(0.004, 0.1)}),
    "RAdam": Row(optim.RAdam, {}, ADAM | {"betas": (ramp(0.7, 0.9), ramp(0.98, 0.99))}),
    "RMSprop": Row(optim.RMSprop, {}, RMSPROP),
    "RMSprop centered": Row(optim.RMSprop, {"centered": True}, RMSPROP),
    "Rprop": Row(optim.Rprop, {"lr": 0.02},
                 {"etas": (ramp(0.3, 0.6), ramp(1.5, 1.1)), "step_sizes": (ramp(1e-3, 1e-2), ramp(0.05, 0.02))}),
    "SGD": Row(optim.SGD, {}, SGD | {"dampening": ramp(0.1, 0.5)}),
    "SGD nesterov": Row(optim.SGD, {"nesterov": True, "momentum": 0.9}, SGD),
    "SparseAdam": Row(optim.SparseAdam, {}, {"lr": LR, "betas": BETAS, "eps": EPS}),
}  # fmt: skip


def cases() -> Iterator[Any]:
    for name, row in ROWS.items():
        for how in HOW:
            if how == "loop" or (row.kind not in LOOP_ONLY and (how != "fused" or row.kind in FUSED)):
                yield pytest.param(row, how, id=f"{name}-{how}")


def singles(schedules: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each hyperparameter alone, by name, as attach takes it; of a tuple one element after the other."""
    for key, schedule in schedules.items():
        if isinstance(schedule, tuple):
            for i, part in enumerate(schedule):
                yield f"{key}[{i}]", {key: tuple(part if j == i else None for j in range(len(schedule)))}
        else:
            yield key, {key: schedule}


def cases_by_key() -> Iterator[Any]:
    for case in cases():
        row, how = case.values
        for name, alone in singles(row.schedules):
            yield pytest.param(row, how, name, alone, id=f"{case.id}-{name}")


def merged(schedules: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """`schedules` with the one in `alone` in its place."""
    ((key, new),) = alone.items()
    old = schedules[key]
    whole = (
        tuple(o if n is None else n for o, n in zip(old, new, strict=True)) if isinstance(new, tuple) else new
    )
    return schedules | {key: whole}


def each(schedule: Any, change: Callable[[ts.Schedule], Any]) -> Any:
    """`change` of a schedule, or of each one in a tuple."""
    return tuple(s and change(s) for s in schedule) if isinstance(schedule, tuple) else change(schedule)


def frozen(schedules: dict[str, Any]) -> dict[str, Any]:
    return {key: each(schedule, lambda s: ts.constant(s(0))) for key, schedule in schedules.items()}


def build(row: Row, how: str, dtype: torch.dtype = torch.float32) -> optim.Optimizer:
    generator = torch.Generator().manual_seed(0)
    ps = [nn.Parameter(torch.randn(4, 3, generator=generator, dtype=dtype)) for _ in range(2)]
    flags = {} if row.kind in LOOP_ONLY else HOW[how]
    return row.kind(ps, **flags, **row.options)


def one_step(optimizer: optim.Optimizer, step: int) -> None:
    ps = optimizer.param_groups[0]["params"]
    if isinstance(optimizer, optim.LBFGS):

        def closure() -> torch.Tensor:
            for i, p in enumerate(ps):
                p.grad = (i + 1) * (p.detach() - 0.1 * step)
            return sum((p.grad**2).sum() for p in ps)

        optimizer.step(closure)
        return
    generator = torch.Generator().manual_seed(step + 1)
    for p in ps:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        if isinstance(optimizer, optim.SparseAdam):
            p.grad = (p.grad * (p.grad > -1.0)).to_sparse()  # some entries are absent
    optimizer.step()


def train(optimizer: optim.Optimizer, by_hand: Callable[[int], None] | None = None) -> list[torch.Tensor]:
    """All parameters, flat, after each step; and ASGD's averages, which are what its t0 is for."""
    reached = []
    for step in range(STEPS):
        if by_hand is not None:
            by_hand(step)
        one_step(optimizer, step)
        averages = [state["ax"] for state in optimizer.state.values() if "ax" in state]
        tensors = [*optimizer.param_groups[0]["params"], *averages]
        reached.append(torch.cat([t.detach().flatten() for t in tensors]))
    return reached


def train_by_hand(
    row: Row,
    how: str,
    schedules: dict[str, Any],
    number: Callable[[float], Any] = float,
    dtype: torch.dtype = torch.float32,
) -> list[torch.Tensor]:
    """What people do without a scheduler; hyperparameters that are not in `schedules` stay where theirs begin."""
    optimizer = build(row, how, dtype)
    floats_by_hand(optimizer, row.schedules)(0)
    return train(optimizer, floats_by_hand(optimizer, schedules, number))


def train_resident(
    row: Row, how: str, alone: dict[str, Any], dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    optimizer = build(row, how, dtype)
    floats_by_hand(optimizer, row.schedules)(0)
    ts.attach(optimizer, resident=True, **alone)
    return train(optimizer)


def test_every_optimizer_of_torch_is_here():
    public = {k for k in vars(optim).values() if isinstance(k, type) and issubclass(k, optim.Optimizer)}
    assert {row.kind for row in ROWS.values()} == public - {optim.Optimizer}


@pytest.mark.parametrize(("row", "how"), list(cases()))
def test_host_slots_train_to_the_bit_as_floats_set_by_hand(row, how):
    optimizer = build(row, how)
    sched = ts.attach(optimizer, allow_out_of_range=True, **row.schedules)  # d below 1, where it clips
    reached = train(optimizer)
    assert not any(slot.tensor for slot in sched.slots)
    assert sched.step_count == STEPS
    assert equal(reached, train_by_hand(row, how, row.schedules))
    for name, alone in singles(row.schedules):
        others_move = merged(row.schedules, frozen(alone))
        assert not equal(reached, train_by_hand(row, how, others_move)), f"the control: {name} is not used"


@pytest.mark.parametrize(("row", "how", "name", "alone"), list(cases_by_key()))
def test_resident_slots_train_to_the_bit_as_float32_tensors_set_by_hand(row, how, name, alone):
    optimizer = build(row, how)
    if supports_tensor(optimizer, optimizer.param_groups[0], name).raises:
        with pytest.raises(ts.BindingError, match="cannot be a tensor slot"):
            ts.attach(optimizer, resident=True, **alone)
        return
    reached = train_resident(row, how, alone)
    assert equal(reached, train_by_hand(row, how, alone, torch.tensor))
    assert not equal(reached, train_by_hand(row, how, frozen(alone), torch.tensor)), (
        "the control: a frozen value"
    )


# -- how far float32 hyperparameters can lead from float64 ones --------------------------------------------

U = 2.0**-24
"""Unit roundoff of float32: rounding to it, and each operation in it, changes a number relatively by at most U."""
OPERATIONS = 8
"""At most so many float32 operations does torch do in a step on scalars that a hyperparameter is part of."""
BFLOAT16 = {(optim.Muon, key) for key in ("momentum", "ns_coefficients", "eps")}
"""Reach the parameters through bfloat16, a step function, so no bound below its 2**-8 exists: left out here."""


def bound(row: Row, how: str, alone: dict[str, Any], exact: list[torch.Tensor]) -> float:
    """The largest difference to `exact` that a float32 tensor in the place of a float64 float can make, first order.

    The parameters are float64, so only the hyperparameter h and the scalars that torch makes of it are in float32.

    1. h_t itself becomes h_t (1 + d), |d| <= U, in all its uses at once. Its effect is at most
       U * sum_t |h_t dp/dh_t|, measured by one finite difference for each step t. Twice that, because a difference of
       2**-12 is no derivative.
    2. Each operation on a scalar s (1 - h, h**t, 1 - h**t, lr / (1 - h**t), ...) makes it s (1 + d). Then an update is
       off by U of its size, times 1 / (1 - h) where s is a difference to 1 of a decay rate's power, or where a
       momentum sums up such updates: OPERATIONS * U / (1 - max h) * sum_t |p_t+1 - p_t|.
    3. lr, weight_decay and lambd are also in a factor 1 - lr * weight_decay of the parameters: their rounding is one
       of the whole parameter, OPERATIONS * U * sum_t |p_t|.
    """
    ((key, schedules),) = alone.items()
    measured = 0.0
    for step in range(STEPS):
        bump = ts.from_values([1.0 + 2.0**-12 * (step == s) for s in range(STEPS)])
        moved = train_by_hand(
            row, how, {key: each(schedules, lambda s, by=bump: s * by)}, dtype=torch.float64
        )
        measured += farthest(moved, exact) * 2.0**12
    parts = schedules if isinstance(schedules, tuple) else (schedules,)
    top = max(s(step) for s in parts if s is not None for step in range(STEPS))
    rates = {"betas", "momentum", "alpha", "rho", "dampening"}
    memory = 1.0 / (1.0 - top) if key in rates else 1.0
    moves = sum((b - a).abs().max().item() for a, b in pairwise(exact))
    sizes = sum(p.abs().max().item() for p in exact) if key in {"lr", "weight_decay", "lambd"} else 0.0
    return U * (2.0 * measured + OPERATIONS * (memory * moves + sizes))


def farthest(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("row", "how", "name", "alone"),
    [c for c in cases_by_key() if (c.values[0].kind, c.values[2].partition("[")[0]) not in BFLOAT16],
)
def test_resident_slots_stay_within_float32_rounding_of_float64_floats(row, how, name, alone):
    optimizer = build(row, how)
    if supports_tensor(optimizer, optimizer.param_groups[0], name).raises:
        return  # refused, see above
    exact = train_by_hand(row, how, alone, dtype=torch.float64)
    limit = bound(row, how, alone, exact)
    assert farthest(train_resident(row, how, alone, torch.float64), exact) <= limit
    still = train_by_hand(row, how, frozen(alone), dtype=torch.float64)
    assert limit < 0.01 * farthest(still, exact), "the control: a frozen value is far outside the bound"


# -- what attach refuses -----------------------------------------------------------------------------------


def test_a_hyperparameter_without_effect_is_refused():
    rprop, adagrad = build(ROWS["Rprop"], "loop"), build(ROWS["Adagrad"], "loop")
    for optimizer, key, text in (
        (
            rprop,
            "lr",
            r"lr\[group 0\]: a schedule would have no effect: Rprop reads lr only once.*step_sizes or etas",
        ),
        (adagrad, "initial_accumulator_value", r"no effect: Adagrad reads it only when it makes its state"),
    ):
        with pytest.raises(ts.BindingError, match=text):
            ts.attach(optimizer, **{key: LR})
        assert key in record_of(optimizer).no_effect


@pytest.mark.parametrize("how", ["loop", "foreach"])
@pytest.mark.parametrize(("kind", "key"), [(k, key) for k, r in RECORDS.items() for key in r.no_effect])
def test_it_truly_has_no_effect(kind, key, how):
    row = ROWS[kind.__name__]
    optimizers = [build(row, how) for _ in range(4)]

    def change_after(start: int, key: str, optimizer: optim.Optimizer) -> Callable[[int], None]:
        def set_group(step: int) -> None:
            if step >= start:
                optimizer.param_groups[0][key] = LR(step)

        return set_group

    unchanged = train(optimizers[0])
    assert equal(unchanged, train(optimizers[1], change_after(1, key, optimizers[1])))
    if kind is optim.Rprop:
        assert not equal(unchanged, train(optimizers[2], change_after(0, key, optimizers[2]))), (
            "its first lr counts"
        )
    else:
        assert not equal(unchanged, train(optimizers[3], change_after(1, "lr", optimizers[3]))), (
            "another key does"
        )


@pytest.mark.parametrize(("kind", "key"), [(k, key) for k, r in RECORDS.items() for key in sorted(r.counts)])
def test_a_count_is_refused_because_torch_needs_an_int(kind, key):
    row = ROWS[kind.__name__]
    optimizer, plain = build(row, "loop"), build(row, "loop")
    with pytest.raises(
        ts.BindingError, match=rf"{key}\[group 0\]: {kind.__name__} needs an int and a schedule gives"
    ):
        ts.attach(optimizer, **{key: ramp(3.0, 5.0)})
    plain.param_groups[0][key] = 3.0
    with pytest.raises(TypeError, match=r"int|float"):
        train(plain)


def test_lbfgs_would_see_a_live_lr_change_behind_its_back():
    row = ROWS["LBFGS"]
    live, by_value = build(row, "loop"), build(row, "loop")
    view = torch.tensor(0.0)
    schedule = row.schedules["lr"]

    def fill(step: int) -> None:
        live.param_groups[0]["lr"] = view.fill_(schedule(step))

    assert not equal(
        train(live, fill), train(by_value, floats_by_hand(by_value, {"lr": schedule}, torch.tensor))
    )
    assert "lr" in RECORDS[optim.LBFGS].floats_only
    held_a_tensor = build(row, "loop")
    held_a_tensor.param_groups[0]["lr"] = torch.tensor(0.2)
    ts.attach(held_a_tensor, lr=schedule)
    assert type(held_a_tensor.param_groups[0]["lr"]) is float
    by_floats = build(row, "loop")
    assert equal(train(held_a_tensor), train(by_floats, floats_by_hand(by_floats, {"lr": schedule})))


def test_adafactor_foreach_takes_a_tensor_d_only_until_it_clips():
    row = ROWS["Adafactor"]
    optimizer = build(row, "foreach")
    optimizer.param_groups[0]["d"] = torch.tensor(1.0)
    with pytest.raises(TypeError, match="expected Tensor as element"):
        train(optimizer)
    assert "d" in RECORDS[optim.Adafactor].floats_only


def test_asgd_uses_each_lr_one_step_later_as_it_does_with_floats():
    """Of torch, not of the schedule: ASGD's step makes the next step's eta from lr."""
    row = ROWS["ASGD"]
    first, last = (build(row, "loop") for _ in range(2))
    reached = train(first)

    def change_at_the_end(step: int) -> None:
        last.param_groups[0]["lr"] = 0.5 if step == STEPS - 1 else 0.01

    assert equal(reached, train(last, change_at_the_end))


# -- subclasses --------------------------------------------------------------------------------------------


class Clipped(optim.SGD):
    """The usual way to extend an optimizer: its step() calls the step() of its parent."""

    def step(self, closure: Any = None) -> Any:
        for p in self.param_groups[0]["params"]:
            p.grad.clamp_(-1.0, 1.0)
        return super().step(closure)


@pytest.mark.parametrize("resident", [True, False])
def test_a_subclass_that_calls_its_parent_s_step_counts_each_step_once(resident):
    row = Row(Clipped, {}, SGD)
    build(ROWS["SGD"], "loop")  # torch wraps SGD.step when it sees an SGD: from now on hooks run for both
    optimizer = build(row, "loop")
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    reached = train(optimizer)
    assert len(calls) == 2 * STEPS, "the control: a hook that counts is off by a factor of two"
    assert sched.step_count == STEPS
    plain = build(row, "loop")
    assert equal(
        reached, train(plain, floats_by_hand(plain, {"lr": LR}, torch.tensor if resident else float))
    )


def test_a_step_that_raised_leaves_the_count_right():
    build(ROWS["SGD"], "loop")
    optimizer = build(Row(Clipped, {}, SGD), "loop")
    sched = ts.attach(optimizer, lr=LR)
    optimizer.param_groups[0]["params"][0].grad = None
    with pytest.raises(AttributeError):
        optimizer.step()
    assert sched.step_count == 0
    train(optimizer)
    assert sched.step_count == STEPS

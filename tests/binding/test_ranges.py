"""Values that an optimizer's constructor refuses are refused when a schedule would reach them, with the step."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding.ranges import RANGES, Range

ROWS = [(kind, part) for kind, parts in RANGES.items() for part in parts]
IDS = [f"{kind.__name__} {part}" for kind, part in ROWS]


def build(kind: type[optim.Optimizer], **options: object) -> optim.Optimizer:
    shape = (2, 2) if kind is optim.Muon else (2,)
    return kind([nn.Parameter(torch.ones(shape))], **options)


def constructor(kind: type[optim.Optimizer], part: str, value: float) -> optim.Optimizer:
    """An optimizer whose constructor was given this value for one part; a default for the rest of a tuple."""
    key, _, element = part.partition("[")
    if not element:
        return build(kind, **{key: value})
    whole = list(inspect.signature(kind).parameters[key].default)
    whole[int(element[:-1])] = value
    return build(kind, **{key: tuple(whole)})


# -- against torch's own constructors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "part"), ROWS, ids=IDS)
def test_the_range_is_the_constructors(kind, part):
    limits = RANGES[kind][part]
    tried = set()
    for end in {limits.low, limits.high} - {math.inf, -math.inf}:
        for value in (
            end,
            math.nextafter(end, -math.inf),
            math.nextafter(end, math.inf),
            end - 1.0,
            end + 1.0,
        ):
            # A rounding is let through, which a constructor does not: the neighbours are asked for without that.
            inside = limits.low <= value <= limits.high
            inside &= not (limits.open_low and value == limits.low) and not (
                limits.open_high and value == limits.high
            )
            tried.add(inside)
            if inside:
                constructor(kind, part, value)
            else:
                with pytest.raises(ValueError, match=r"Invalid|should be"):
                    constructor(kind, part, value)
    assert tried == {True, False}


@pytest.mark.parametrize("kind", [k for k in RANGES if k is not optim.SparseAdam], ids=lambda k: k.__name__)
def test_what_is_in_no_row_is_not_checked_by_torch(kind):
    """Control, of what is missing: the constructor takes any value there."""
    for key, parameter in inspect.signature(kind).parameters.items():
        number = isinstance(parameter.default, float)
        if (
            number
            and key in build(kind).param_groups[0]
            and key not in RANGES[kind]
            and key not in NOT_OF_A_STEP
        ):
            build(kind, **{key: -1.0})


NOT_OF_A_STEP = {
    "initial_accumulator_value",
    "tolerance_grad",
    "tolerance_change",
}  # read once, or by a line search


# -- at attach --------------------------------------------------------------------------------------------------------

CASES = [
    (optim.SGD, {"lr": ts.linear(1.0, -1.0, steps=10)}, "lr[group 0] must be at least 0, and is -0.2 at step 6: linear(1.0, -1.0, steps=10); change it, for example with .clamp(0) (to climb a gradient, build the optimizer with maximize=True), or pass attach(..., allow_out_of_range=True)"),
    (optim.SGD, {"lr": -0.1}, "lr[group 0] must be at least 0, and is -0.1 at step 0"),
    (optim.SGD, {"momentum": ts.linear(0.5, -0.5, steps=4)}, "momentum[group 0] must be at least 0, and is -0.25 at step 3"),
    (optim.AdamW, {"betas": (None, ts.linear(0.9, 1.0, steps=8))}, "betas[1][group 0] must be in [0, 1), and is 1.0 at step 8"),
    (optim.AdamW, {"betas": (ts.linear(0.9, -0.9, steps=2), None)}, "betas[0][group 0] must be in [0, 1), and is -0.9 at step 2"),
    (optim.AdamW, {"weight_decay": ts.linear(0.1, 0.0, steps=4) - 0.05}, "weight_decay[group 0] must be at least 0, and is -0.025 at step 3"),
    (optim.RMSprop, {"alpha": ts.constant(-1.0)}, "alpha[group 0] must be at least 0"),
    (optim.Adadelta, {"rho": ts.constant(1.5)}, "rho[group 0] must be in [0, 1], and is 1.5 at step 0: constant(1.5); change it, for example with .clamp(0, high=1)"),
    (optim.Adafactor, {"beta2_decay": ts.linear(-1.0, 1.0, steps=4)}, "beta2_decay[group 0] must be at most 0, and is 0.5 at step 3"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "wanted", "says"), CASES, ids=[f"{k.__name__} {next(iter(w))}" for k, w, _ in CASES]
)
@pytest.mark.parametrize("resident", [False, True])
def test_attach_names_the_step(kind, wanted, says, resident):
    resident = resident and kind is not optim.Adafactor  # which reads it on the host
    optimizer = build(kind)
    before = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    with pytest.raises(ts.BindingError) as caught:
        ts.attach(optimizer, resident=resident, **wanted)
    said = re.sub(r"-0\.\d{8,}", lambda number: f"{float(number[0]):.6g}", str(caught.value))  # of float32
    assert said.startswith(says)
    assert {key: value for key, value in optimizer.param_groups[0].items() if key != "params"} == before
    sched = ts.attach(optimizer, resident=resident, allow_out_of_range=True, **wanted)
    assert sched.step_count == 0


def test_the_ends_that_belong_to_the_range_are_used():
    optimizer = build(optim.AdamW)
    ts.attach(optimizer, lr=ts.linear(0.1, 0.0, steps=4), weight_decay=0.0, betas=(0.0, 0.0), eps=0.0)
    for _ in range(6):
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_a_rounding_below_0_is_no_sign():
    rounded = ts.linear(0.3, 0.3, steps=4) - 0.1 - ts.linear(0.0, 0.2, steps=4)
    assert rounded(4) == 0.3 - 0.1 - 0.2 < 0.0
    ts.attach(build(optim.SGD), lr=rounded)
    with pytest.raises(ts.BindingError, match="at step 4"):
        ts.attach(build(optim.SGD), lr=rounded - 1e-9)


def test_of_an_optimizer_that_is_not_known_only_lr_and_betas_are():
    class Mine(optim.AdamW):
        pass

    optimizer = build(Mine)
    optimizer.param_groups[0]["temperature"] = 1.0
    ts.attach(optimizer, weight_decay=-1.0, eps=-1.0, temperature=-1.0)
    for wanted in ({"lr": -1.0}, {"betas": (None, 1.0)}):
        with pytest.raises(ts.BindingError, match="allow_out_of_range=True"):
            ts.attach(optimizer, **wanted)


def test_a_free_name_may_have_any_value():
    ts.attach(build(optim.SGD), lr=0.1, free={"kl": ts.linear(1.0, -1.0, steps=4)})


@pytest.mark.parametrize("scale", [1, 200_000])
def test_one_column_among_many_is_found(scale):
    """Columns that are equal or proportional are stored once, and each has its own sign."""
    optimizer = optim.SGD([{"params": [nn.Parameter(torch.ones(1))]} for _ in range(6)])
    curve = ts.warmup_cosine(1.0, total=8 * scale, warmup=2)
    factors = [1.0, 0.5, 2.0, -0.25, 3.0, 0.1]
    with pytest.raises(ts.BindingError, match=r"lr\[group 3\] must be at least 0, and is -0\.125 at step 1"):
        ts.attach(optimizer, lr=[factor * curve for factor in factors])
    ts.attach(optimizer, lr=[abs(factor) * curve for factor in factors])


# -- later on ---------------------------------------------------------------------------------------------------------

BAD = ts.linear(1.0, -1.0, steps=4)


@pytest.mark.parametrize("resident", [False, True])
def test_every_later_door_checks_too(resident):
    optimizer = build(optim.SGD)
    good = ts.linear(1.0, 0.5, steps=4)
    sched = ts.attach(optimizer, lr=good, resident=resident)
    with pytest.raises(ts.BindingError, match=r"lr\[group 0\] must be at least 0, and is -0\.5 at step 3"):
        sched.rewrite(lr=BAD)
    ascending = build(optim.SGD)
    other = ts.attach(ascending, lr=BAD, resident=resident, allow_out_of_range=True)
    with pytest.raises(ts.BindingError, match="at step 3"):
        sched.load_state_dict(other.state_dict(), on_mismatch="saved")
    optimizer.step()
    assert (float(optimizer.param_groups[0]["lr"]), sched.step_count) == (good(1), 1)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ts.BindingError, match=r"lr\[group 1\].* at step 3"):
        sched.adopt(lr=BAD)
    sched.adopt(lr=good)
    other.rewrite(lr=0.5 * BAD)  # who means it, means it later as well
    assert float(ascending.param_groups[0]["lr"]) == 0.5


def test_late_groups_are_checked():
    optimizer = build(optim.SGD)
    sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.5, steps=4), new_groups={"lr": BAD})
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ts.BindingError, match=r"lr\[group 1\].* at step 3"):
        optimizer.step()
    assert sched.step_count == 0


@given(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), st.booleans())
def test_what_is_attached_is_what_the_constructor_takes(start, end, resident):
    """The table against the constructor, value by value."""
    schedule = ts.linear(start, end, steps=5)
    refused = None
    for value in schedule.values(6):
        try:
            optim.SGD([torch.zeros(1)], lr=float(np.float32(value) if resident else value))
        except ValueError as error:
            refused = error
    optimizer = build(optim.SGD)
    if refused is None:
        ts.attach(optimizer, lr=schedule, resident=resident)
    elif min(schedule.values(6)) < -1e-9:
        with pytest.raises(ts.BindingError):
            ts.attach(optimizer, lr=schedule, resident=resident)


def test_how_a_range_is_said():
    assert [str(r) for r in (Range(), Range(open_low=True), Range(0.0, 1.0, open_high=True), Range(-math.inf, 0.0))] == [
        "at least 0", "above 0", "in [0, 1)", "at most 0",
    ]  # fmt: skip

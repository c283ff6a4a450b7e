"""What a hostile reading of eight merged branches found: no single author had tested these together."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch

import tensorsched as ts
from tests.binding.test_dummy_steps import init_optim_state, no_scaler
from tests.binding.test_hostile_rebuilt import LINE, lrs, sgd

__all__ = ["no_scaler"]

_CIRCLE = """
import gc, torch, tensorsched as ts
from tensorsched.engine import FloatEngine, tabulate
rows = FloatEngine(tabulate({"lr": ts.linear(1.0, 0.0, steps=50)}, dtype=torch.float64)).following()
next(rows)
circle = [rows]
circle.append(circle)
del rows, circle
gc.collect()
print("alive")
"""


def test_the_garbage_collector_may_find_the_rows_of_floats_in_a_circle() -> None:
    """Released compiled steps, and trainers that hold their optimizer, are such; it was a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", _CIRCLE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
def test_on_a_clock_groups_that_join_do_not_bring_back_what_the_plan_before_used(tensor: bool) -> None:
    optimizer = sgd()
    sched = ts.attach(
        optimizer,
        lr=ts.linear(1.0, 0.0, steps=1000),
        clock=ts.clock("tokens"),
        resident=tensor,
        capacity=2000,
    )

    def step() -> dict[str, float]:
        sched.count(125)
        before = {f"lr/{index}": lr for index, lr in enumerate(lrs(optimizer))}
        optimizer.step()
        return before

    used = step()
    sched.rewrite(lr=ts.linear(0.5, 0.0, steps=1000))
    assert sched.log() == used
    used = step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    sched.adopt(lr=ts.linear(0.25, 0.0, steps=1000))
    assert sched.log() == used == {"lr/0": 0.4375}, "the new group has used nothing yet"
    for again in (sched, copy.deepcopy([optimizer, sched])[1]):
        assert again.log() == used
    assert step() == sched.log() == {"lr/0": 0.375, "lr/1": 0.1875}


@pytest.mark.parametrize("live", [False, True])
def test_a_plan_is_rewritten_between_adopting_groups_and_the_next_compiled_step(live: bool) -> None:
    factor: Any = ts.live("scale", 1.0) if live else 1.0
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=LINE * factor, capacity=50)
    step = ts.compile_step(sched, backend="eager")
    step()
    step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))]})
    sched.adopt(lr=0.5 * LINE * factor)
    sched.rewrite(lr=lambda old, _: 0.5 * old)
    optimizer.param_groups[1]["params"][0].grad = torch.ones(3)
    assert lrs(optimizer) == pytest.approx([0.4, 0.2])
    before = [group["params"][0].detach().clone() for group in optimizer.param_groups]
    step()
    moved = [(b - g["params"][0])[0].item() for b, g in zip(before, optimizer.param_groups, strict=True)]
    assert moved == pytest.approx([0.4, 0.2], rel=1e-6)
    assert lrs(optimizer) == pytest.approx([0.35, 0.175])


@pytest.mark.usefixtures("no_scaler")
@pytest.mark.parametrize("by", ["state", "optimizer", "copy"])
def test_the_first_step_by_hand_after_resuming_may_be_left_out(by: str) -> None:
    """Whoever leaves out steps with gradients that are not finite: the run is not at its start."""
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=LINE, advance="manual")
    for _ in range(3):
        optimizer.step()
        sched.step()
    if by == "copy":
        optimizer, again = copy.deepcopy([optimizer, sched])
    else:
        saved, optimizer = optimizer.state_dict(), sgd()
        again = ts.attach(optimizer, lr=LINE, advance="manual")
        if by == "state":
            again.load_state_dict(sched.state_dict())
        else:
            optimizer.load_state_dict(saved)
    with pytest.warns(UserWarning, match="nothing is counted"):
        again.step()
    assert again.step_count == 3
    optimizer.step()
    again.step()
    assert (again.step_count, lrs(optimizer)) == (4, [LINE(4)])


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
def test_a_step_that_only_makes_state_and_raises_hides_no_other(tensor: bool) -> None:
    """Out of memory while the state is made, a smaller batch, and on: the first real step was not counted."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    sched = ts.attach(optimizer, lr=LINE, resident=tensor)

    def no_memory(*_: Any) -> None:
        raise MemoryError

    handle = optimizer.register_step_pre_hook(no_memory)
    with pytest.raises(MemoryError):
        init_optim_state(optimizer)
    handle.remove()
    sched.seek(0)  # the lr that init_optim_state did not give back
    parameter.grad = torch.ones(3)
    for count in (1, 2):
        optimizer.step()
        assert sched.step_count == count
    assert lrs(optimizer) == pytest.approx([LINE(2)])


@pytest.mark.parametrize("first", ["attached", "loaded"])
def test_attachments_with_equal_schedules_find_their_own_steps(first: str) -> None:
    """Free names may be the same in both; each goes on where it was itself."""

    def attach(optimizer: Any) -> list[Any]:
        return [ts.attach(optimizer, free={"weight": LINE}) for _ in range(3)]

    optimizer = sgd()
    scheds = attach(optimizer)
    for step, sched in enumerate(scheds, start=3):
        sched.seek(step)
    saved, optimizer = copy.deepcopy(optimizer.state_dict()), sgd()
    again = attach(optimizer) if first == "attached" else []
    optimizer.load_state_dict(saved)
    again = again or attach(optimizer)
    assert [sched.step_count for sched in again] == [3, 4, 5]
    optimizer.step()
    saved, optimizer = copy.deepcopy(optimizer.state_dict()), sgd()
    again = attach(optimizer)
    optimizer.load_state_dict(saved)
    assert [sched.step_count for sched in again] == [4, 5, 6], "and their entries are still theirs"


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
def test_a_write_within_a_rounding_of_float32_is_undone_before_it_is_used(tensor: bool) -> None:
    """Such a write is no error, since what was read from a float32 tensor has that rounding; nor is it used."""
    optimizer = sgd()
    ts.attach(optimizer, lr=LINE, resident=tensor)
    optimizer.step()
    group = optimizer.param_groups[0]
    expected = float(group["lr"])

    def write(factor: float) -> None:
        if tensor:
            group["lr"].mul_(factor)
        else:
            group["lr"] *= factor

    write(1 + 2 ** (-23 if tensor else -24))
    assert float(group["lr"]) != expected, "the control: it was written"
    used: list[float] = []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(float(o.param_groups[0]["lr"])))
    optimizer.step()
    assert used == [expected]
    write(1 + 2**-21)
    with pytest.raises(ts.BindingError, match="no longer follows its schedule"):
        optimizer.step()


@pytest.mark.parametrize("how", ["turned", "observed"])
def test_whoever_writes_the_same_lr_again_may_turn_an_input_too(how: str) -> None:
    """Fine-tuning loops write lr * lr_scale before each step, with a scale of 1: the same number, another object."""
    optimizer = sgd(2)
    reacts = ts.live("scale", 1.0) if how == "turned" else ts.plateau(factor=0.5, patience=0)
    sched = ts.attach(optimizer, lr=LINE * reacts)

    def turn() -> None:
        if how == "turned":
            sched.inputs["scale"].fill_(0.5)
        else:
            sched.observe(1.0)
            sched.observe(2.0)

    optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] *= 1.0
    turn()
    optimizer.step()
    assert sched.log() == {"lr/0": 0.45, "lr/1": 0.45}
    optimizer.param_groups[1]["lr"] *= 1.5
    turn()
    with pytest.raises(ts.BindingError, match="no longer follows"):
        optimizer.step()

"""What a hostile week found, each with the case that showed it."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding import registry

LR = ts.linear(0.5, 0.0, steps=40)
KINDS = pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])


def sgd(groups: int = 1, size: int = 3, **options: Any) -> optim.SGD:
    made = [{"params": [nn.Parameter(torch.ones(size))]} for _ in range(groups)]
    optimizer = optim.SGD(made, lr=0.5, **options)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(size)
    return optimizer


# -- memory and locks --------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("kept", ["nothing", "sched", "detached"])
def test_del_frees_an_attached_optimizer_without_the_garbage_collector(kept, tensor):
    sgd()  # torch's first optimizer in a process imports Dynamo from its constructor, whose frames stay in a cycle
    gc.collect()
    gc.disable()
    try:
        optimizer = sgd(2, momentum=0.9)
        sched = ts.attach(optimizer, lr=LR, momentum=ts.linear(0.9, 0.5, steps=9), resident=tensor)
        optimizer.step()
        if kept == "detached":
            sched.detach()
        gone = weakref.ref(optimizer), weakref.ref(sched)
        if kept == "nothing":
            del sched
        del optimizer
        assert gone[0]() is None
        assert (gone[1]() is None) == (kept == "nothing")
    finally:
        gc.enable()


def test_a_schedule_without_its_optimizer_can_be_saved_and_says_so_otherwise():
    sched = ts.attach(sgd(), lr=LR)
    assert sched.state_dict()["step"] == 0
    with pytest.raises(ts.BindingError, match="the optimizer of this schedule is gone; keep a reference"):
        sched.seek(3)


def test_a_finaliser_that_detaches_while_the_registry_is_locked_does_not_wait_for_itself():
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=LR)
    done = threading.Event()

    def inside() -> None:
        with registry._LOCK:  # as where an allocation under the lock runs the finaliser
            sched.detach()
        done.set()

    threading.Thread(target=inside, daemon=True).start()
    assert done.wait(10.0)


# -- interruptions -----------------------------------------------------------------------------------------------------


def interrupt_after(lines: int, call: Any) -> bool:
    """Call something, and raise KeyboardInterrupt in it after so many lines of our package; whether it came to that."""
    left = lines

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if "tensorsched" not in frame.f_code.co_filename or "/tests/" in frame.f_code.co_filename:
            return None
        if frame.f_code.co_name in {"_resynchronise", "_bind", "seek"}:
            return None  # a second interrupt, while the first is dealt with, is another story
        if event == "line":
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGINT)
        return trace

    # What runs in the background of a shell ignores the signal from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGINT, before)
    return False


@pytest.mark.parametrize("options", [{"resident": False}, {"resident": True}, {"free": {"kl": LR}}], ids=str)
def test_an_interrupt_at_any_line_leaves_counters_and_slots_together(options):
    interrupted = 0
    for line in range(1, 60):
        optimizer = sgd(3, momentum=0.9)
        sched = ts.attach(optimizer, lr=LR, momentum=ts.linear(0.9, 0.5, steps=9), **options)
        optimizer.step()
        interrupted += interrupt_after(line, optimizer.step)
        step = sched.step_count
        assert step in (1, 2)
        assert {part.engine.step_count for part in sched._mode.parts} == {step}
        optimizer.step()
        assert sched.step_count == step + 1
        assert all(float(g["lr"]) == pytest.approx(LR(step + 1), rel=1e-7) for g in optimizer.param_groups)
        if "free" in options:
            assert sched.value("kl").item() == pytest.approx(LR(step + 1), rel=1e-7)
    assert interrupted > 15, "the control: interrupts do come"


# -- hooks of others ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_in_a_hook_that_was_there_before_ours_has_the_step():
    optimizer, saved = sgd(), []
    optimizer.register_step_post_hook(lambda *_: saved.append(sched.state_dict()["step"]))
    sched = ts.attach(optimizer, lr=LR)
    for _ in range(3):
        optimizer.step()
    assert saved == [1, 2, 3]


def step_from(module: str, optimizer: Any) -> None:
    """Call step() from a module of that name."""
    scope = {"__name__": module, "optimizer": optimizer}
    exec("def step(): optimizer.step()", scope)  # noqa: S102  our own text
    scope["step"]()


@pytest.mark.parametrize(
    ("module", "groups"),
    [("deepspeed.runtime.zero.stage3", 1), ("deepspeed.runtime.zero.stage_1_and_2", 2)],
)
def test_who_makes_one_step_of_several_calls_is_refused_at_the_first(module, groups):
    optimizer = sgd(groups)
    sched = ts.attach(optimizer, lr=LR)
    before = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    with pytest.raises(ts.BindingError, match=r"DeepSpeed does not call SGD.step\(\) once a step"):
        step_from(module, optimizer)
    assert sched.step_count == 0
    assert all(map(torch.equal, before, (p for group in optimizer.param_groups for p in group["params"])))
    step_from("deepspeed.runtime.zero.stage_1_and_2" if groups == 1 else "trainer", optimizer)
    assert sched.step_count == 1, "the control: not everybody is refused"


class WritesAfterTorch(torch.optim.SGD):
    """Its load_state_dict goes on after torch's, and writes over what a hook of that has bound."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["lr"] = 0.7


@pytest.mark.parametrize("kind", [WritesAfterTorch, torch.optim.SGD])
def test_what_a_load_state_dict_of_its_own_writes_is_bound_over_and_what_others_write_is_not(kind):
    optimizer = kind([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    sched = ts.attach(optimizer, lr=LR)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    if kind is WritesAfterTorch:
        assert optimizer.param_groups[0]["lr"] == 0.7
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == LR(2)
    optimizer.param_groups[0]["lr"] = 0.7
    with pytest.raises(ts.BindingError, match=r"lr\[group 0\] no longer follows its schedule"):
        optimizer.step()
    assert sched.step_count == (2 if kind is WritesAfterTorch else 1)


def test_a_hook_of_somebody_else_that_raises_leaves_the_step_counted():
    optimizer = sgd()

    def fails(*_: Any) -> None:
        raise OSError("no space left")

    handle = optimizer.register_step_post_hook(fails)
    sched = ts.attach(optimizer, lr=LR)
    with pytest.raises(OSError, match="no space"):
        optimizer.step()
    handle.remove()
    optimizer.step()
    assert (sched.step_count, optimizer.param_groups[0]["lr"]) == (2, LR(2))


@pytest.mark.parametrize("when", ["pre", "post"])
@pytest.mark.parametrize("first", [True, False])
def test_detach_in_a_hook(when, first):
    optimizer = sgd()

    def detach(o: Any, *_: Any) -> None:
        ts.detach(o)

    register = getattr(optimizer, f"register_step_{when}_hook")
    if first:
        register(detach)
    sched = ts.attach(optimizer, lr=LR)
    if not first:
        register(detach)
    for _ in range(3):
        optimizer.step()
    assert not sched.attached
    optimizer.param_groups[0]["lr"] = 0.125
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.125
    ts.attach(optimizer, lr=LR)


def test_detach_gives_a_learned_lr_back():
    lr = torch.tensor(0.5, requires_grad=True)
    optimizer = optim.SGD([nn.Parameter(torch.ones(3))], lr=lr)
    ts.attach(optimizer, lr=ts.linear(0.25, 0.0, steps=4)).detach()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == 0.25


# -- groups ------------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("change", ["reorder", "exchange"])
def test_groups_that_change_places_are_an_error_while_their_values_coincide(change, size, tensor):
    optimizer = sgd(2, size)
    up, down = ts.linear(0.0, 0.5, steps=9), ts.linear(0.0, 0.1, steps=9)
    sched = ts.attach(optimizer, lr=[up, down], resident=tensor)
    groups = optimizer.param_groups
    if change == "reorder":
        groups.reverse()
    else:
        groups.append(groups[0] | {"params": [nn.Parameter(torch.ones(size))]})
        del groups[0]
    if tensor:  # what is in the other place holds the other's tensor
        for index, group in enumerate(groups):
            group["lr"] = sched.value("lr", index)
    with pytest.raises(ts.BindingError, match=r"group 0 holds other parameters.*reordered or exchanged"):
        optimizer.step()
    assert sched.step_count == 0


def test_groups_that_are_copies_of_themselves_go_on():
    optimizer = sgd(2)
    sched = ts.attach(optimizer, lr=LR)
    optimizer.param_groups[:] = [dict(group) for group in optimizer.param_groups]
    optimizer.step()
    assert (sched.step_count, optimizer.param_groups[1]["lr"]) == (1, LR(1))


@KINDS
def test_two_groups_that_are_added_between_two_steps(tensor):
    optimizer = sgd(1)
    ts.attach(optimizer, lr=LR, resident=tensor, new_groups={"lr": 0.5 * LR})
    optimizer.step()
    for _ in range(2):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    optimizer.step()
    assert [float(g["lr"]) for g in optimizer.param_groups] == pytest.approx([LR(2), LR(2) / 2, LR(2) / 2])


# -- other doors -------------------------------------------------------------------------------------------------------


class TwoSteps(optim.SGD):
    """As sharpness-aware optimizers."""

    def first_step(self) -> None:
        pass

    def second_step(self) -> None:
        optim.SGD.step.__wrapped__(self)


class Fused(optim.SGD):
    """As LOMO."""

    def fused_backward(self, loss: Any, lr: float) -> None:
        pass


class Releasing(optim.SGD):
    """As optimizers with gradient release."""

    @torch.no_grad()
    def step(self, closure: Any = None, param: torch.Tensor | None = None) -> None:
        del closure, param
        super().step()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (TwoSteps, r"stepped by first_step\(\) and second_step\(\).*base_optimizer\) with advance='manual'"),
        (Fused, r"stepped by fused_backward\(\).*advance='manual'"),
    ],
)
def test_an_optimizer_that_is_stepped_by_another_door_is_refused(kind, text):
    optimizer = kind([nn.Parameter(torch.ones(3))], lr=0.5)
    with pytest.raises(ts.BindingError, match=text):
        ts.attach(optimizer, lr=LR)
    ts.attach(optimizer, lr=LR, advance="manual").step()
    assert optimizer.param_groups[0]["lr"] == LR(1)


@pytest.mark.parametrize("by", ["name", "position"])
def test_a_step_for_a_single_parameter_is_refused(by):
    optimizer = Releasing([p := nn.Parameter(torch.ones(3))], lr=0.5)
    sched = ts.attach(optimizer, lr=LR)
    with pytest.raises(ts.BindingError, match=r"for a single parameter.*once an iteration"):
        optimizer.step(param=p) if by == "name" else optimizer.step(None, p)
    assert sched.step_count == 0
    optimizer.step()
    assert sched.step_count == 1

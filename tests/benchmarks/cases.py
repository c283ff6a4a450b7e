"""What is timed: torch's schedulers and ours, on fresh optimizers with the same parameters and rates."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from timing import Competitor
from torch.optim import lr_scheduler

import tensorsched as ts
from tensorsched.engine import sharing

COSINE = "torch CosineAnnealingLR, float lr"
SEQUENTIAL = "torch SequentialLR(linear, cosine), float lr"
TENSOR = "torch CosineAnnealingLR, tensor lr"
ENGINE = "ours, ScheduleEngine.advance()"
TENSOR_SLOTS = "ours, tensor slots"
FLOAT_SLOTS = "ours, float slots"
TENSOR_HOOKS = "ours, tensor slots, both hooks"
FLOAT_HOOKS = "ours, float slots, both hooks"
CHECK = "ours, tensor slots, the check alone"
WRITES = "a bare loop of writes"
SAME_WRITES = "a bare loop of writes of one value"

FLOOR = "no schedule"
CONTROL = "no schedule, again"
EMPTY_HOOKS = "two empty hooks"
HAND_HOOKS = "two hooks by hand"
TORCH = "torch CosineAnnealingLR"
TENSOR_FLOOR = "no schedule, tensor lr"
TENSOR_TORCH = "torch CosineAnnealingLR, tensor lr"
ADDED_TO: Mapping[str, str] = {
    TORCH: FLOOR,
    FLOAT_SLOTS: FLOOR,
    HAND_HOOKS: FLOOR,
    EMPTY_HOOKS: FLOOR,
    CONTROL: FLOOR,
    TENSOR_TORCH: TENSOR_FLOOR,
    TENSOR_SLOTS: TENSOR_FLOOR,
}
"""What a competitor of part 2 is compared with: the same optimizer, which holds the same kind of lr, alone."""

SCALED, EQUAL = "scaled", "equal"

Make = Callable[[], dict[str, ts.Schedule]]

STEPS = 10_000
WHOLE_STEPS = 1_000_000  # long enough that no block of whole optimizer steps comes to its end
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "AdamW": torch.optim.AdamW,
}
IMPLEMENTATIONS = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def schedule_steps(groups: int) -> list[Competitor]:
    """Part 1: torch and ours, moving the learning rate of `groups` groups by one step. Others: peers.py."""
    return [
        _cosine(COSINE, tiny_sgd(groups)),
        _sequential(tiny_sgd(groups)),
        _cosine(TENSOR, tiny_sgd(groups, tensor=True)),
        _writes(tiny_sgd(groups)),
        _same_writes(tiny_sgd(groups)),
        _engine(groups),
        *attached_steps(groups),
        _hooks(TENSOR_HOOKS, tiny_sgd(groups), _shared_cosine(STEPS), resident=True),
        _hooks(FLOAT_HOOKS, tiny_sgd(groups), _shared_cosine(STEPS), resident=False),
        _check(tiny_sgd(groups)),
    ]


def attached_steps(groups: int) -> list[Competitor]:
    """sched.step() of ours, with tensor slots and with float slots."""
    return [
        _attached(TENSOR_SLOTS, tiny_sgd(groups), resident=True),
        _attached(FLOAT_SLOTS, tiny_sgd(groups), resident=False),
    ]


def _rates(groups: int) -> list[float]:
    return [0.1 * (1 + index / groups) for index in range(groups)]


def tiny_sgd(groups: int, *, tensor: bool = False) -> torch.optim.Optimizer:
    """One parameter of one element in each group: only the schedule's cost grows with the groups."""
    rates = [torch.tensor(rate) if tensor else rate for rate in _rates(groups)]
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def _cosine(name: str, optimizer: torch.optim.Optimizer) -> Competitor:
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    optimizer.step()  # there are no gradients; the scheduler warns unless the optimizer steps first
    return Competitor(name, scheduler.step)


def _sequential(optimizer: torch.optim.Optimizer) -> Competitor:
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=500)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS - 500)
    scheduler = lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[500])
    optimizer.step()
    return Competitor(SEQUENTIAL, scheduler.step)


def _engine(groups: int) -> Competitor:
    curve = ts.cosine(1.0, 0.0, steps=STEPS)
    table = ts.tabulate({f"lr{index}": rate * curve for index, rate in enumerate(_rates(groups))})
    engine = ts.ScheduleEngine(table)
    return Competitor(ENGINE, engine.advance, lambda: engine.seek(0))


def _attached(name: str, optimizer: torch.optim.Optimizer, *, resident: bool) -> Competitor:
    optimizer.step = optimizer.step  # a step of its own: sched.step() counts every call
    sched = ts.attach(optimizer, lr=_shared_cosine(STEPS), advance="manual", resident=resident)

    def rewind(
        kept: torch.optim.Optimizer = optimizer,
    ) -> None:  # a schedule does not keep its optimizer alive
        del kept
        sched.seek(0)

    return Competitor(name, sched.step, rewind)


def _shared_cosine(steps: int) -> ts.Schedule:
    return ts.initial * ts.cosine(1.0, 0.0, steps=steps)


def _hooks(name: str, optimizer: torch.optim.Optimizer, lr: Any, *, resident: bool) -> Competitor:
    """What an attachment in auto mode does at a step: the check before it; the check of floats, and the move, after it.

    With advance="manual" the same happens in two places: tensor slots are checked in the hook before the next
    optimizer.step(), not in sched.step().
    """
    sched = ts.attach(optimizer, lr=lr, resident=resident)
    (before,) = optimizer._optimizer_step_pre_hooks.values()
    (after,) = optimizer._optimizer_step_post_hooks.values()
    args, kwargs = (optimizer,), {}

    def step() -> None:
        before(optimizer, args, kwargs)
        after(optimizer, args, kwargs)

    return Competitor(name, step, lambda: sched.seek(0))


def _check(optimizer: torch.optim.Optimizer) -> Competitor:
    """How much a group costs a tensor slot: nothing but the check looks at every group."""
    sched = ts.attach(optimizer, lr=_shared_cosine(STEPS), resident=True)
    return Competitor(CHECK, lambda: sched._mode.check(optimizer.param_groups))


def _writes(optimizer: torch.optim.Optimizer) -> Competitor:
    """The least that writes a value to every group: they are there already, and nothing is checked or counted."""
    groups = optimizer.param_groups
    rates = _rates(len(groups))
    # Other objects at every step: CPython skips the write of an object that is there already.
    rows = itertools.cycle([tuple(rate * (1.0 - step / STEPS) for rate in rates) for step in range(16)])

    def step() -> None:
        for group, value in zip(groups, next(rows)):  # noqa: B905  strict=True would be slower
            group["lr"] = value

    return Competitor(WRITES, step)


def _same_writes(optimizer: torch.optim.Optimizer) -> Competitor:
    groups, value = optimizer.param_groups, 0.1

    def step() -> None:
        for group in groups:
            group["lr"] = value

    return Competitor(SAME_WRITES, step)


def whole_steps(kind: str, implementation: str, groups: int = 2, *, tiny: bool = False) -> list[Competitor]:
    """Part 2: the optimizer alone, with schedules, and alone once more.

    All step the same parameters with the same gradients and the same state: where those lie in memory is worth some per
    cent of a step, more than any schedule. The second bare optimizer shows how well the benchmark can tell them apart.
    Tensor slots only where the optimizer takes a tensor lr as it is; what that costs the optimizer is no schedule's
    doing, so they have a floor of their own.
    """
    names = [FLOOR, *(name for name in ADDED_TO if ADDED_TO[name] == FLOOR)]
    if implementation == "fused":
        names += [TENSOR_FLOOR, TENSOR_TORCH, TENSOR_SLOTS]
    made = _optimizers(kind, implementation, groups, tiny=tiny, count=len(names))
    return [Competitor(name, _WHOLE[name](optimizer)) for name, optimizer in zip(names, made, strict=True)]


def _alone(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    return lambda: optimizer.step()  # noqa: PLW0108  a Python function, as those of the schedulers


def _alone_tensor(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """The lr of every group is a view of one tensor, as tensor slots are."""
    groups = optimizer.param_groups
    for group, rate in zip(groups, torch.tensor([g["lr"] for g in groups]).unbind(0), strict=True):
        group["lr"] = rate
    return _alone(optimizer)


def _with_torch(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=WHOLE_STEPS)

    def step_both() -> None:
        optimizer.step()
        scheduler.step()

    return step_both


def _with_torch_tensor(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    return _with_torch(optimizer)


def _with_floats(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    ts.attach(optimizer, lr=_shared_cosine(WHOLE_STEPS), resident=False)
    return _alone(optimizer)


def _with_tensors(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    ts.attach(optimizer, lr=_shared_cosine(WHOLE_STEPS), resident=True)
    return _alone(optimizer)


def _with_empty_hooks(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """What torch's own calling of hooks costs."""

    def hook(optimizer: object, args: object, kwargs: object) -> None:
        pass

    optimizer.register_step_pre_hook(hook)
    optimizer.register_step_post_hook(hook)
    return _alone(optimizer)


def _with_hand_hooks(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """The least that any code costs which looks at every group before a step and writes to every group after it."""
    rates = [group["lr"] for group in optimizer.param_groups]
    rows = itertools.cycle([tuple(rate * (1.0 - step / STEPS) for rate in rates) for step in range(16)])
    last = tuple(rates)

    def before(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:  # noqa: ARG001
        for group, value in zip(optimizer.param_groups, last):  # noqa: B905  strict=True would be slower
            if group["lr"] is not value:
                raise RuntimeError

    def after(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:  # noqa: ARG001
        nonlocal last
        last = next(rows)
        for group, value in zip(optimizer.param_groups, last):  # noqa: B905
            group["lr"] = value

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    return _alone(optimizer)


_WHOLE: Mapping[str, Callable[[torch.optim.Optimizer], Callable[[], object]]] = {
    FLOOR: _alone,
    CONTROL: _alone,
    EMPTY_HOOKS: _with_empty_hooks,
    HAND_HOOKS: _with_hand_hooks,
    TORCH: _with_torch,
    FLOAT_SLOTS: _with_floats,
    TENSOR_FLOOR: _alone_tensor,
    TENSOR_TORCH: _with_torch_tensor,
    TENSOR_SLOTS: _with_tensors,
}


def _optimizers(
    kind: str, implementation: str, groups: int, *, tiny: bool, count: int
) -> list[torch.optim.Optimizer]:
    """Optimizers for the same parameters, with gradients that stay as they are: 64 of 32 x 32, or one of 4 a group."""
    generator = torch.Generator().manual_seed(0)
    shape, number = ((4,), groups) if tiny else ((32, 32), 64)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(number)]
    for param in params:
        param.grad = torch.randn(shape, generator=generator)
    more: dict[str, Any] = IMPLEMENTATIONS[implementation] | ({"momentum": 0.9} if kind == "SGD" else {})
    made = []
    for _ in range(count):
        parts = [{"params": params[i::groups], "lr": 1e-3 / (1 + i)} for i in range(groups)]
        made.append(OPTIMIZERS[kind](parts, **more))
    made[0].step()  # makes the state
    for other in made[1:]:
        other.state = made[0].state
    return made


def tables(rows: int, groups: int) -> dict[str, Make]:
    """Part 4: what is tabulated, written in three ways; each makes its schedules anew."""
    warmup, factors = rows // 100, [0.9**index for index in range(groups)]

    def one() -> dict[str, ts.Schedule]:
        return {"lr": ts.warmup_cosine(3e-4, total=rows, warmup=warmup)}

    def factored() -> dict[str, ts.Schedule]:
        curve = ts.warmup_cosine(3e-4, total=rows, warmup=warmup)
        return {f"lr{index}": factor * curve for index, factor in enumerate(factors)}

    def separate() -> dict[str, ts.Schedule]:
        peaks = enumerate(3e-4 * factor for factor in factors)
        return {f"lr{index}": ts.warmup_cosine(peak, total=rows, warmup=warmup) for index, peak in peaks}

    return {
        "1 schedule": one,
        f"{groups} groups: factor * schedule": factored,
        f"{groups} groups: warmup_cosine(peak_i)": separate,
    }


def layouts(groups: int, steps: int) -> dict[str, list[Competitor]]:
    """Part 3: tensor slots whose columns are proportional, in a table that stores each and in one that stores one.

    A table does the latter by itself from 64 MiB on. From the engine alone to all that happens at a step.
    """
    curve = ts.cosine(1.0, 0.0, steps=steps)
    schedules = {f"lr{index}": rate * curve for index, rate in enumerate(_rates(groups))}
    found: dict[str, list[Competitor]] = {
        "ScheduleEngine.advance()": [],
        "sched.step()": [],
        "both hooks": [],
    }
    for name, scale in ((EQUAL, False), (SCALED, True)):
        engine = ts.ScheduleEngine(ts.tabulate(schedules, scale=scale))
        found["ScheduleEngine.advance()"].append(Competitor(name, engine.advance, _start(engine)))
        with _scaling(scale):
            lr = list(schedules.values())
            optimizer = tiny_sgd(groups)
            optimizer.step = optimizer.step  # a step of its own: sched.step() counts every call
            sched = ts.attach(optimizer, lr=lr, advance="manual", resident=True)
            found["both hooks"].append(_hooks(name, tiny_sgd(groups), lr, resident=True))
        found["sched.step()"].append(Competitor(name, sched.step, _start(sched, optimizer)))
    return found


def _start(one: Any, *kept: object) -> Callable[[], object]:
    def rewind(_: object = kept) -> None:  # a schedule does not keep its optimizer alive
        one.seek(0)

    return rewind


@contextlib.contextmanager
def _scaling(scale: bool) -> Iterator[None]:
    """Tables of any size, or of none, store columns that are proportional once."""
    before = sharing.SCALE_ABOVE
    sharing.SCALE_ABOVE = 0 if scale else 2**62
    try:
        yield
    finally:
        sharing.SCALE_ABOVE = before

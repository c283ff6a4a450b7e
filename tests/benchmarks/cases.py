"""What is timed: torch's schedulers and ours, on fresh optimizers with the same parameters and rates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from timing import Competitor
from torch.optim import lr_scheduler

import tensorsched as ts

COSINE = "torch CosineAnnealingLR, float lr"
SEQUENTIAL = "torch SequentialLR(linear, cosine), float lr"
TENSOR = "torch CosineAnnealingLR, tensor lr"
ENGINE = "ours, ScheduleEngine.advance()"
RESIDENT = "ours, attached, resident"
HOST = "ours, attached, host"

FLOOR = "no schedule"
TORCH = "torch CosineAnnealingLR"
OURS = "ours, attached"

STEPS = 10_000
WHOLE_STEPS = 1_000_000  # long enough that no block of whole optimizer steps comes to the end
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW}
IMPLEMENTATIONS = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def schedule_steps(groups: int) -> list[Competitor]:
    """Part 1: everyone who can move the learning rate of `groups` groups by one step."""
    return [
        _cosine(COSINE, _tiny_sgd(groups)),
        _sequential(_tiny_sgd(groups)),
        _cosine(TENSOR, _tiny_sgd(groups, tensor=True)),
        _engine(groups),
        _attached(RESIDENT, _tiny_sgd(groups), resident=True),
        _attached(HOST, _tiny_sgd(groups), resident=False),
    ]


def _rates(groups: int) -> list[float]:
    return [0.1 * (1 + index / groups) for index in range(groups)]


def _tiny_sgd(groups: int, *, tensor: bool = False) -> torch.optim.Optimizer:
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
    curve = ts.initial * ts.cosine(1.0, 0.0, steps=STEPS)
    sched = ts.attach(optimizer, lr=curve, advance="manual", resident=resident)
    return Competitor(name, sched.step, lambda: sched.seek(0))


def whole_steps(optimizer: str, implementation: str) -> list[Competitor]:
    """Part 2: the optimizer alone, with torch's scheduler, and with an attached schedule."""
    return [_bare(optimizer, implementation), _with_torch(optimizer, implementation), _with_ours(optimizer, implementation)]


def _model_optimizer(optimizer: str, implementation: str) -> torch.optim.Optimizer:
    """64 parameters of 32 x 32 in two groups, with gradients that stay as they are."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(32, 32, generator=generator)) for _ in range(64)]
    for param in params:
        param.grad = torch.randn(32, 32, generator=generator)
    groups = [{"params": params[:32], "lr": 1e-3}, {"params": params[32:], "lr": 1e-4}]
    more = {"momentum": 0.9} if optimizer == "SGD" else {}
    return OPTIMIZERS[optimizer](groups, **more, **IMPLEMENTATIONS[implementation])


def _bare(optimizer: str, implementation: str) -> Competitor:
    optim = _model_optimizer(optimizer, implementation)

    def step() -> None:
        optim.step()

    return Competitor(FLOOR, step)


def _with_torch(optimizer: str, implementation: str) -> Competitor:
    optim = _model_optimizer(optimizer, implementation)
    scheduler = lr_scheduler.CosineAnnealingLR(optim, T_max=WHOLE_STEPS)

    def step() -> None:
        optim.step()
        scheduler.step()

    return Competitor(TORCH, step)


def _with_ours(optimizer: str, implementation: str) -> Competitor:
    optim = _model_optimizer(optimizer, implementation)
    ts.attach(optim, lr=ts.initial * ts.cosine(1.0, 0.0, steps=WHOLE_STEPS))

    def step() -> None:
        optim.step()

    return Competitor(OURS, step)


def tables(rows: int, groups: int) -> dict[str, Callable[[], dict[str, ts.Schedule]]]:
    """Part 3: what is tabulated, written in three ways; each makes its schedules anew."""
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


def settle() -> Sequence[str]:
    """One thread, and no warnings about the order of steps: part 1 steps schedulers alone."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")
    return ("torch.set_num_threads(1)", "gc disabled")

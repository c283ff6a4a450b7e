"""What is timed: torch's schedulers and ours, on fresh optimizers with the same parameters and rates."""

from __future__ import annotations

from collections.abc import Callable

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
CONTROL = "no schedule, again"

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
        _engine(groups),
        *attached_steps(groups),
    ]


def attached_steps(groups: int) -> list[Competitor]:
    """Ours, resident and host."""
    return [
        _attached(RESIDENT, tiny_sgd(groups), resident=True),
        _attached(HOST, tiny_sgd(groups), resident=False),
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
    curve = ts.initial * ts.cosine(1.0, 0.0, steps=STEPS)
    sched = ts.attach(optimizer, lr=curve, advance="manual", resident=resident)
    return Competitor(name, sched.step, lambda: sched.seek(0))


def whole_steps(kind: str, implementation: str) -> list[Competitor]:
    """Part 2: the optimizer alone, with torch's scheduler, with an attached schedule, and alone once more.

    All step the same parameters with the same gradients and the same state: where those lie in memory is worth some per
    cent of a step, more than any schedule. The second bare optimizer shows how well the benchmark can tell them apart.
    """
    bare, with_torch, with_ours, again = _optimizers(kind, implementation, count=4)
    scheduler = lr_scheduler.CosineAnnealingLR(with_torch, T_max=WHOLE_STEPS)
    ts.attach(with_ours, lr=ts.initial * ts.cosine(1.0, 0.0, steps=WHOLE_STEPS))

    def step_both() -> None:
        with_torch.step()
        scheduler.step()

    return [
        Competitor(FLOOR, lambda: bare.step()),  # noqa: PLW0108  step_both is a Python function too
        Competitor(TORCH, step_both),
        Competitor(OURS, lambda: with_ours.step()),  # noqa: PLW0108
        Competitor(CONTROL, lambda: again.step()),  # noqa: PLW0108
    ]


def _optimizers(kind: str, implementation: str, count: int) -> list[torch.optim.Optimizer]:
    """Optimizers for the same 64 parameters of 32 x 32 in two groups, with gradients that stay as they are."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(32, 32, generator=generator)) for _ in range(64)]
    for param in params:
        param.grad = torch.randn(32, 32, generator=generator)
    more = IMPLEMENTATIONS[implementation] | ({"momentum": 0.9} if kind == "SGD" else {})
    made = []
    for _ in range(count):
        groups = [{"params": params[:32], "lr": 1e-3}, {"params": params[32:], "lr": 1e-4}]
        made.append(OPTIMIZERS[kind](groups, **more))
    made[0].step()  # makes the state
    for other in made[1:]:
        other.state = made[0].state
    return made


def tables(rows: int, groups: int) -> dict[str, Make]:
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

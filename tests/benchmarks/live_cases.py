"""Part 9: reacting to a metric, beside torch's ReduceLROnPlateau, on fresh optimizers of the same groups."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import STEPS, tiny_sgd
from timing import Competitor
from torch.optim import lr_scheduler

import tensorsched as ts

TORCH = "torch ReduceLROnPlateau"
FLOAT_SLOTS, TENSOR_SLOTS = "ours, float slots", "ours, tensor slots"
KINDS = ("observing", "reducing", "a step and observing")
"""A metric that improves; one that does not, and reduces every lr each time; the first, and a cosine moves by a step."""

FACTOR = 1.0 - 1e-6  # so that the reductions of a whole race, a million, leave something to reduce


def competitors(kind: str, groups: int) -> list[Competitor]:
    """torch's scheduler (and its cosine), and ours."""
    return [_torch(kind, groups), *(_ours(kind, groups, resident=resident) for resident in (False, True))]


def _metric(kind: str) -> Callable[[], float]:
    if kind == "reducing":
        return lambda: 1.0
    falling = iter(range(1 << 40, 0, -1))  # each better than the one before: the threshold is 0
    return lambda: float(next(falling))


def _torch(kind: str, groups: int) -> Competitor:
    optimizer, metric = tiny_sgd(groups), _metric(kind)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=FACTOR, patience=0, threshold=0.0, eps=0.0)
    if kind != KINDS[2]:
        return Competitor(TORCH, lambda: plateau.step(metric()))
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    optimizer.step()  # there are no gradients; the scheduler warns unless the optimizer steps first

    def both() -> None:
        cosine.step()
        plateau.step(metric())

    return Competitor(TORCH, both)


def _ours(kind: str, groups: int, *, resident: bool) -> Competitor:
    optimizer, metric = tiny_sgd(groups), _metric(kind)
    factor = ts.plateau(factor=FACTOR, patience=0, threshold=0.0, eps=0.0)
    curve = ts.cosine(1.0, 0.0, steps=STEPS)
    lr = [rate * curve * factor for rate in (0.1 * (1 + index / groups) for index in range(groups))]
    optimizer.step = optimizer.step  # a step of its own: sched.step() counts every call
    sched = ts.attach(optimizer, lr=lr, advance="manual", resident=resident)

    def both() -> None:
        if kind == KINDS[2]:
            sched.step()
        sched.observe(metric())

    def rewind(
        kept: torch.optim.Optimizer = optimizer,
    ) -> None:  # a schedule does not keep its optimizer alive
        del kept
        sched.seek(0)

    return Competitor(TENSOR_SLOTS if resident else FLOAT_SLOTS, both, rewind)

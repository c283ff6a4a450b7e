"""Schedulers of torch whose values are a formula of the step, as core expressions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from torch.optim import lr_scheduler as torch_lr

from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule, cosine, exponential_decay, linear, piecewise_constant, polynomial

__all__ = ["expressions"]

BOUND = 1e-9
"""How far a value of torch's recursions and its expression may be apart, of the largest value, in 10,000 steps."""

_RECORD = "use tensorsched.record(scheduler, steps), or from_values of simulate_values"


def _levels(base: float, scheduler: torch_lr.MultiStepLR) -> Schedule:
    at = sorted(scheduler.milestones)  # a Counter: a milestone that is given twice counts twice
    powers = itertools.accumulate((scheduler.milestones[step] for step in at), initial=0)
    return piecewise_constant([base * scheduler.gamma**power for power in powers], at)


def _wave(base: float, s: torch_lr.CosineAnnealingLR) -> Schedule:
    """Down, and up again: torch's goes on behind T_max."""
    return (cosine(base, s.eta_min, steps=s.T_max) >> cosine(s.eta_min, base, steps=s.T_max)).repeat()


def _restarts(base: float, s: torch_lr.CosineAnnealingWarmRestarts) -> Schedule:
    return cosine(base, s.eta_min, steps=s.T_0).repeat(length_mult=s.T_mult)


_EXPRESSIONS: dict[type, Callable[[float, Any], Schedule]] = {
    torch_lr.StepLR: lambda base, s: exponential_decay(base, s.gamma, every=s.step_size, staircase=True),
    torch_lr.MultiStepLR: _levels,
    torch_lr.ExponentialLR: lambda base, s: exponential_decay(base, s.gamma, every=1),
    torch_lr.ConstantLR: lambda base, s: piecewise_constant([base * s.factor, base], [s.total_iters]),
    torch_lr.LinearLR: lambda base, s: linear(
        base * s.start_factor, base * s.end_factor, steps=s.total_iters
    ),
    torch_lr.PolynomialLR: lambda base, s: polynomial(base, 0.0, s.power, steps=s.total_iters),
    torch_lr.CosineAnnealingLR: _wave,
    torch_lr.CosineAnnealingWarmRestarts: _restarts,
}


def expressions(scheduler: torch_lr.LRScheduler) -> list[Schedule]:
    """The core expression of a scheduler for each group, read at its number of steps: f(0) is its first value.

    To within 1e-9 of the largest value in 10,000 steps: most of torch's are recursions, which gather rounding errors.

    Raises:
        ScheduleError: it has none (its values come from a function, a metric, or code of its own), or the lr that it is
            at is not what its arguments say.
    """
    kind = type(scheduler)
    if kind not in _EXPRESSIONS:
        able = ", ".join(each.__name__ for each in _EXPRESSIONS)
        raise ScheduleError(f"{kind.__name__} has no equivalent core expression, {able} have; {_RECORD}")
    found = [_EXPRESSIONS[kind](float(base), scheduler) for base in scheduler.base_lrs]
    for schedule, lr in zip(found, scheduler.get_last_lr(), strict=True):
        expected = schedule(int(scheduler.last_epoch))
        if not math.isclose(expected, float(lr), rel_tol=BOUND, abs_tol=BOUND * abs(schedule(0))):
            raise ScheduleError(
                f"{kind.__name__} has no equivalent core expression: after {scheduler.last_epoch} steps its arguments "
                f"give {expected}, and it is at {float(lr)}, changed by hand or a case of torch's own; {_RECORD}"
            )
    return found

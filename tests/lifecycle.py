"""What the lifecycle machines share: a run's plan as plain lists, a value for each step, and how changes change them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tensorsched.schedules import Schedule, reference

STEPS = 300
"""More than a machine makes; every list is that long, and its last value is held."""

Values = list[float]


def new_group(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"params": [nn.Parameter(torch.randn(3, 2, generator=generator)) for _ in range(2)]}


def values_of(schedule: Schedule) -> Values:
    """By the reference, which is not what fills the tables."""
    return [reference.value(schedule, step) for step in range(STEPS)]


def at(values: Values, step: int) -> float:
    return values[min(step, STEPS - 1)]


def scaled(values: Values, factor: float) -> Values:
    return [factor * value for value in values]


def cooled_down(values: Values, now: int, steps: int, to: float) -> Values:
    start = at(values, now)
    down = [start + (to - start) * step / steps for step in range(steps)]
    return (values[:now] + down + [to] * STEPS)[:STEPS]


def held(values: Values, now: int, steps: int) -> Values:
    return (values[:now] + [at(values, now)] * steps + values[now:])[:STEPS]


def is_over(values: Values, now: int) -> bool:
    """Whether nothing is left that changes."""
    return len(set(values[now:])) <= 1


def follows(value: float, values: Values, step: int, *, tensor: bool) -> bool:
    """Whether `value` is that of the step, up to rounding.

    A change of plan rounds a few times in float64, of values up to the largest of the plan; a tensor slot to float32, in
    which two equal groups may be one column.
    """
    expected = at(values, step)
    rounding = 2.0**-24 if tensor else 0.0
    most = max(map(abs, values))
    return abs(value - expected) <= abs(expected) * rounding + most * 64 * 2.0**-53 + 2.0**-149

"""The factor that falls when a metric has stopped improving."""

# ruff: noqa: N801  called like a function, prints like one (see shapes)
from __future__ import annotations

import math
from typing import Any

from tensorsched.schedules import validators as f
from tensorsched.schedules.live.inputs import Arithmetic, Cells, check_name
from tensorsched.schedules.live.reactions import (
    Reaction,
    check_factor,
    check_low,
    check_part,
    is_better,
    lowered,
)
from tensorsched.schedules.node import node


@node
class plateau(Reaction):
    """A factor that starts at 1 and is multiplied by `factor` when a metric has stopped improving.

    Each `sched.observe(metric)` counts. An observation is better if it beats the best one by the threshold; after more
    than `patience` that are not, the scale becomes max(scale * factor, min_scale), and the next `cooldown`
    observations count as none. NaN is never better. The decisions are those of torch's ReduceLROnPlateau at lr = 1.

    Args:
        mode: "min" (a loss) or "max" (an accuracy).
        factor: above 0 and below 1.
        patience: observations without an improvement that are borne.
        threshold: what an improvement must come to: of the best value ("rel") or as it is ("abs").
        threshold_mode: "rel": better than best * (1 - threshold), in mode "max" best * (1 + threshold); "abs": than
            best - threshold, best + threshold.
        cooldown: observations after a reduction that count as none.
        min_scale: the scale never falls below it.
        eps: a reduction by no more than this is not made (torch's, divided by your lr: torch compares lrs).
        smoothing: 0 (the default): the metric as it is; otherwise the part s of s * mean + (1 - s) * metric that is
            looked at instead. What is not finite is not averaged, and counts as no improvement.
        name: by which `sched.inputs` and `sched.observe(name=...)` know it.

    Raises:
        ScheduleError: an argument is out of range.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.constant(0.5) * ts.plateau(factor=0.5, patience=0))
        >>> for loss in (1.0, 1.0):
        ...     optimizer.step(), sched.observe(loss)
        (None, None)
        (None, None)
        >>> optimizer.param_groups[0]["lr"]
        0.25
    """

    mode: str = f.choice("min", "max", default="min", kw_only=True)
    factor: float = f.declare(check_factor, default=0.1, kw_only=True)
    patience: int = f.count(default=10, kw_only=True)
    threshold: float = f.real(default=1e-4, kw_only=True)
    threshold_mode: str = f.choice("rel", "abs", default="rel", kw_only=True)
    cooldown: int = f.count(default=0, kw_only=True)
    min_scale: float = f.declare(check_low, default=0.0, kw_only=True)
    eps: float = f.real(default=1e-8, kw_only=True)
    smoothing: float = f.declare(check_part, default=0.0, kw_only=True)
    name: str = f.declare(check_name, default="plateau", kw_only=True)

    def _cells(self) -> Cells:
        cells = {
            "value": 1.0,
            "best": math.inf if self.mode == "min" else -math.inf,
            "bad": 0.0,
            "cooldown": 0.0,
        }
        return cells | ({"mean": 0.0, "seen": 0.0} if self.smoothing else {})

    def _observed(self, cells: Cells, x: Any, m: Arithmetic) -> Cells:
        after = dict(cells)
        if self.smoothing:
            x, after["mean"], after["seen"] = _averaged(cells, x, self.smoothing, m)
        better = is_better(self, x, cells["best"])
        after["best"] = m.where(better, x, cells["best"])
        cooling = cells["cooldown"] > 0.0
        cooldown = m.where(cooling, cells["cooldown"] - 1.0, cells["cooldown"])
        bad = m.where(cooling, 0.0, m.where(better, 0.0, cells["bad"] + 1.0))
        reduce = bad > self.patience
        after["value"] = lowered(self, reduce, cells["value"], m)
        after["cooldown"] = m.where(reduce, float(self.cooldown), cooldown)
        after["bad"] = m.where(reduce, 0.0, bad)
        return after


def _averaged(cells: Cells, x: Any, part: float, m: Arithmetic) -> tuple[Any, Any, Any]:
    """What is looked at instead of x, the mean, and whether there is one. What is not finite is not averaged."""
    mean, seen = cells["mean"], cells["seen"]
    found = m.where(seen > 0.0, part * mean + (1.0 - part) * x, x)
    finite = x - x == 0.0
    return m.where(finite, found, x), m.where(finite, found, mean), m.where(finite, seen * 0.0 + 1.0, seen)

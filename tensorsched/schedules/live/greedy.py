"""The factor that falls while a metric does not improve, and rises while it does."""

# ruff: noqa: N801  called like a function, prints like one (see shapes)
from __future__ import annotations

import math
from typing import Any

from tensorsched.schedules import validators as f
from tensorsched.schedules.live.inputs import Arithmetic, Cells, check_name
from tensorsched.schedules.live.reactions import (
    Reaction,
    check_factor,
    check_high,
    check_low,
    is_better,
    lowered,
)
from tensorsched.schedules.node import node

_WIDEST = 1000  # observations of a window: they are on the device, and each observation moves them


@node
class greedy(Reaction):
    """A factor that starts at 1, falls while a metric does not improve and rises while it does.

    After more than `patience` observations in a row that are better, the scale becomes min(scale / factor, max_scale),
    and the next `warmup` observations count as none; after more than `patience` that are not,
    max(scale * factor, min_scale), and the next `cooldown` count as none. After `reset_start` reductions at min_scale
    everything starts anew at 1. The decisions are those of transformers' GreedyLR at lr = 1.

    Args:
        mode: "min" (a loss) or "max" (an accuracy).
        factor: above 0 and below 1.
        patience: observations of one kind in a row that change nothing.
        threshold: what an improvement must come to, see `plateau`.
        threshold_mode: "abs" or "rel", see `plateau`.
        cooldown: observations after a reduction that count as none.
        warmup: observations after a rise that count as none.
        min_scale: the scale never falls below it.
        max_scale: nor rises above it; 1 (the default) is back at the plan.
        eps: a change by no more than this is not made.
        window: the mean of this many observations is looked at instead of the last one; 0 (the default): none.
        reset_start: see above.
        name: by which `sched.inputs` and `sched.observe(name=...)` know it.

    Raises:
        ScheduleError: an argument is out of range.

    Source: transformers.optimization.GreedyLR (Subramanian et al. 2025, arXiv 2512.14527).

    Example:
        >>> import tensorsched as ts
        >>> 3e-4 * ts.greedy(patience=20, window=50)
        0.0003 * greedy(patience=20, window=50)
    """

    mode: str = f.choice("min", "max", default="min", kw_only=True)
    factor: float = f.declare(check_factor, default=0.95, kw_only=True)
    patience: int = f.count(default=10, kw_only=True)
    threshold: float = f.real(default=1e-6, kw_only=True)
    threshold_mode: str = f.choice("rel", "abs", default="abs", kw_only=True)
    cooldown: int = f.count(default=0, kw_only=True)
    warmup: int = f.count(default=0, kw_only=True)
    min_scale: float = f.declare(check_low, default=1e-3, kw_only=True)
    max_scale: float = f.declare(check_high, default=1.0, kw_only=True)
    eps: float = f.real(default=1e-8, kw_only=True)
    window: int = f.count(default=0, kw_only=True)
    reset_start: int = f.count(default=500, kw_only=True)
    name: str = f.declare(check_name, default="greedy", kw_only=True)

    def _prepare(self) -> None:
        super()._prepare()
        if self.window > _WIDEST:
            raise f.refuse("greedy: window", f"at most {_WIDEST} observations", self.window)

    def _cells(self) -> Cells:
        cells: Cells = {
            "value": 1.0,
            "best": math.inf if self.mode == "min" else -math.inf,
            "bad": 0.0,
            "good": 0.0,
        }
        cells |= {"cooldown": 0.0, "warmup": 0.0, "left": float(self.reset_start)}
        return cells | ({"sum": 0.0, "count": 0.0, "window": [0.0] * self.window} if self.window else {})

    def _observed(self, cells: Cells, x: Any, m: Arithmetic) -> Cells:
        after = dict(cells)
        if self.window:
            x = self._mean(cells, x, after, m)
        cooling, warming = cells["cooldown"] > 0.0, cells["warmup"] > 0.0
        idle, better = cooling | warming, is_better(self, x, cells["best"])
        after["best"] = m.where(idle, cells["best"], m.where(better, x, cells["best"]))
        good = m.where(idle, 0.0, m.where(better, cells["good"] + 1.0, 0.0))
        bad = m.where(idle, 0.0, m.where(better, 0.0, cells["bad"] + 1.0))
        up, down = good > self.patience, bad > self.patience
        cooldown = m.where(cooling, cells["cooldown"] - 1.0, cells["cooldown"])
        warmup = m.where(cooling, cells["warmup"], m.where(warming, cells["warmup"] - 1.0, cells["warmup"]))
        after["cooldown"] = m.where(down, float(self.cooldown), cooldown)
        after["warmup"] = m.where(up, float(self.warmup), warmup)
        after["good"], after["bad"] = m.where(up, 0.0, good), m.where(down, 0.0, bad)
        higher = cells["value"] / self.factor
        higher = m.where(higher > self.max_scale, self.max_scale, higher)
        raised = m.where(up & (higher - cells["value"] > self.eps), higher, cells["value"])
        after["value"] = m.where(down, lowered(self, down, cells["value"], m), raised)
        at_least = down & (after["value"] <= self.min_scale)
        left = m.where(at_least, cells["left"] - 1.0, cells["left"])
        after["left"] = m.where(up, float(self.reset_start), left)
        reset = at_least & (after["left"] <= 0.0)
        # All but the cooldown, which GreedyLR sets after its reset.
        anew = {name: start for name, start in self._cells().items() if name not in {"cooldown", "window"}}
        return after | {name: m.where(reset, start, after[name]) for name, start in anew.items()}

    def _mean(self, cells: Cells, x: Any, after: Cells, m: Arithmetic) -> Any:
        """Of the last observations, as transformers' StreamingAverage sums them up."""
        oldest, after["window"] = m.shifted(cells["window"], x)
        full = cells["count"] >= self.window
        total = cells["sum"] + x
        after["sum"] = m.where(full, total - oldest, total)
        after["count"] = m.where(full, cells["count"], cells["count"] + 1.0)
        return after["sum"] / after["count"]

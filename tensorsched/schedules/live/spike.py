"""The factor that is cut when a loss jumps."""

# ruff: noqa: N801  called like a function, prints like one (see shapes)
from __future__ import annotations

from typing import Any

from tensorsched.schedules import validators as f
from tensorsched.schedules.live.inputs import Arithmetic, Cells, check_name
from tensorsched.schedules.live.reactions import Reaction, check_above, check_factor, check_part
from tensorsched.schedules.node import node


@node
class spike(Reaction):
    """A factor that starts at 1 and is multiplied by `factor` for good when a loss jumps above its running mean.

    An observation is a spike if it is above `above` * mean, or not finite, and at least `hold` others came since the
    start and since the last cut. At most `times` cuts are made. The mean is average * mean + (1 - average) * loss; a
    spike that was cut, and what is not finite, does not enter it.

    Args:
        above: how many times the mean, above 1. The loss must be positive for that to mean something.
        factor: what is left at each cut, above 0 and below 1.
        times: most cuts, at least 1.
        hold: observations before the first cut, and between two.
        average: the part of the old mean in the new one, at least 0 and below 1.
        name: by which `sched.inputs` and `sched.observe(name=...)` know it.

    Raises:
        ScheduleError: an argument is out of range.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.constant(0.5) * ts.spike(above=3.0, hold=2))
        >>> for loss in (1.0, 1.0, 5.0):
        ...     sched.observe(loss)
        >>> optimizer.param_groups[0]["lr"]
        0.25
    """

    above: float = f.declare(check_above, default=2.0, kw_only=True)
    factor: float = f.declare(check_factor, default=0.5, kw_only=True)
    times: int = f.count(least=1, default=3, kw_only=True)
    hold: int = f.count(default=100, kw_only=True)
    average: float = f.declare(check_part, default=0.99, kw_only=True)
    name: str = f.declare(check_name, default="spike", kw_only=True)

    def _cells(self) -> Cells:
        return {"value": 1.0, "mean": 0.0, "seen": 0.0, "since": 0.0, "cuts": 0.0}

    def _observed(self, cells: Cells, x: Any, m: Arithmetic) -> Cells:
        finite = x - x == 0.0
        high = m.where(finite, x - self.above * cells["mean"], cells["mean"] * 0.0 + 1.0) > 0.0
        ready = (cells["since"] >= self.hold) & (cells["cuts"] < self.times) & (cells["seen"] > 0.0)
        cut = ready & high
        kept = m.where(finite, m.where(cut, 0.0, cells["seen"] * 0.0 + 1.0), cells["seen"] * 0.0) > 0.0
        mean = m.where(cells["seen"] > 0.0, self.average * cells["mean"] + (1.0 - self.average) * x, x)
        return {
            "value": m.where(cut, cells["value"] * self.factor, cells["value"]),
            "mean": m.where(kept, mean, cells["mean"]),
            "seen": m.where(kept, cells["seen"] + 1.0, cells["seen"]),
            "since": m.where(cut, 0.0, cells["since"] + 1.0),
            "cuts": m.where(cut, cells["cuts"] + 1.0, cells["cuts"]),
        }

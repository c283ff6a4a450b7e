"""Live inputs: numbers that the run itself gives, as nodes of an expression.

`live` is a number that is turned by hand. `plateau`, `greedy` and `spike` are factors that start at 1 and react to a
metric, which `Attachment.observe` shows them. An expression with one of them is no function of the step alone: `split`
cuts it into columns of a table, which are, and a few operations over these and the inputs.

A reaction is written once, branch-free, for Python floats and for tensors on a device: `_observed` maps the numbers
that it remembers (its cells) and a metric to new ones, with the operators that both have and an `Arithmetic` for the
rest. Nothing here synchronises, and nothing here knows of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tensorsched.schedules import validators as f
from tensorsched.schedules.node import Array, Node, node
from tensorsched.schedules.schedule import Schedule

__all__ = ["Arithmetic", "Input", "Reaction", "greedy", "live", "plateau", "spike"]

Cells = dict[str, Any]
"""What an input remembers, by name: a number each (a float, or a 0-dim tensor), or several (a list, or a tensor)."""


class Arithmetic(NamedTuple):
    """What a reaction needs beside the operators, for floats or for tensors.

    Attributes:
        where: (condition, a, b) -> a where the condition holds, else b; at least one of them is no literal.
        shifted: (window, x) -> the first of the window, and the window without it and with x at its end.
    """

    where: Callable[[Any, Any, Any], Any]
    shifted: Callable[[Any, Any], tuple[Any, Any]]


FLOATS = Arithmetic(lambda condition, a, b: a if condition else b, lambda w, x: (w[0], [*w[1:], x]))
"""Of Python floats."""


def _check_name(where: str, value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier() or len(value) > _LONGEST:
        raise f.refuse(where, f"a name such as 'lr_scale' (an identifier, at most {_LONGEST} letters)", value)
    return value


def _check_factor(where: str, value: object) -> float:
    number = f.check_positive(where, value)
    if number >= 1.0:
        raise f.refuse(where, "above 0 and below 1", value)
    return number


def _check_part(where: str, value: object) -> float:
    number = f.check_real(where, value)
    if not 0.0 <= number < 1.0:
        raise f.refuse(where, "at least 0 and below 1", value)
    return number


def _check_low(where: str, value: object) -> float:
    number = f.check_real(where, value)
    if not 0.0 <= number <= 1.0:
        raise f.refuse(where, "in 0..1: the scale starts at 1", value)
    return number


def _check_high(where: str, value: object) -> float:
    number = f.check_real(where, value)
    if number < 1.0:
        raise f.refuse(where, "at least 1: the scale starts there", value)
    return number


def _check_above(where: str, value: object) -> float:
    number = f.check_real(where, value)
    if number <= 1.0:
        raise f.refuse(where, "above 1", value)
    return number


_LONGEST = 40  # letters of a name, as of a word in text


class Input(Schedule):
    """A leaf whose value the run gives. Without a run it has the value that it starts with: in pictures, in `values`.

    Attributes:
        name: by which an attachment knows it; one name is one input, wherever it stands.
    """

    name: str

    def _prepare(self) -> None:
        object.__setattr__(self, "_inputs", (self,))

    @property
    def constant_from(self) -> int | None:
        return 0

    def _cells(self) -> Cells:
        """What it remembers at the start: its value, and more."""
        raise NotImplementedError

    @property
    def _start(self) -> float:
        return float(self._cells()["value"])

    def _at(self, t: Array) -> Array:
        return np.full(t.shape, self._start)

    def _with_inputs(self, values: Mapping[str, float]) -> Node:
        return live(self.name, values[self.name]) if self.name in values else self


@node
class live(Input):  # noqa: N801  called like a function, prints like one (see shapes)
    """A number that is turned by hand during the run: write `sched.inputs[name]`, and the next step uses it.

    Args:
        name: by which `sched.inputs` has it, an identifier.
        initial: what it is until somebody writes another one.

    Raises:
        ScheduleError: name is no identifier, or initial is not finite.

    It stands under + - * / ** >> minimum, maximum and clamp; what moves time (repeat, delay, take, ...) refuses it. In
    front of >> it needs a length: `ts.constant(1.0, steps=n) * ts.live(...)`.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4) * ts.live("lr_scale", 1.0))
        >>> _ = sched.inputs["lr_scale"].fill_(0.5)
        >>> optimizer.step(), optimizer.param_groups[0]["lr"]
        (None, 0.375)
    """

    name: str = f.declare(_check_name)
    initial: float = f.real()

    def _cells(self) -> Cells:
        return {"value": self.initial}


class Reaction(Input):
    """A factor that starts at 1 and follows a metric: `Attachment.observe` shows it one."""

    def _observed(self, cells: Cells, x: Any, m: Arithmetic) -> Cells:
        """The cells after a metric `x`."""
        raise NotImplementedError


def _is_better(reaction: Any, x: Any, best: Any) -> Any:
    """As torch's ReduceLROnPlateau: its four comparisons, in its arithmetic."""
    if reaction.mode == "min":
        if reaction.threshold_mode == "rel":
            return x < best * (1.0 - reaction.threshold)
        return x < best - reaction.threshold
    if reaction.threshold_mode == "rel":
        return x > best * (1.0 + reaction.threshold)
    return x > best + reaction.threshold


@node
class plateau(Reaction):  # noqa: N801
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
    factor: float = f.declare(_check_factor, default=0.1, kw_only=True)
    patience: int = f.count(default=10, kw_only=True)
    threshold: float = f.real(default=1e-4, kw_only=True)
    threshold_mode: str = f.choice("rel", "abs", default="rel", kw_only=True)
    cooldown: int = f.count(default=0, kw_only=True)
    min_scale: float = f.declare(_check_low, default=0.0, kw_only=True)
    eps: float = f.real(default=1e-8, kw_only=True)
    smoothing: float = f.declare(_check_part, default=0.0, kw_only=True)
    name: str = f.declare(_check_name, default="plateau", kw_only=True)

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
        better = _is_better(self, x, cells["best"])
        after["best"] = m.where(better, x, cells["best"])
        cooling = cells["cooldown"] > 0.0
        cooldown = m.where(cooling, cells["cooldown"] - 1.0, cells["cooldown"])
        bad = m.where(cooling, 0.0, m.where(better, 0.0, cells["bad"] + 1.0))
        reduce = bad > self.patience
        after["value"] = _lowered(self, reduce, cells["value"], m)
        after["cooldown"] = m.where(reduce, float(self.cooldown), cooldown)
        after["bad"] = m.where(reduce, 0.0, bad)
        return after


def _averaged(cells: Cells, x: Any, part: float, m: Arithmetic) -> tuple[Any, Any, Any]:
    """What is looked at instead of x, the mean, and whether there is one. What is not finite is not averaged."""
    mean, seen = cells["mean"], cells["seen"]
    found = m.where(seen > 0.0, part * mean + (1.0 - part) * x, x)
    finite = x - x == 0.0
    return m.where(finite, found, x), m.where(finite, found, mean), m.where(finite, seen * 0.0 + 1.0, seen)


def _lowered(reaction: Any, when: Any, scale: Any, m: Arithmetic) -> Any:
    lower = scale * reaction.factor
    lower = m.where(lower < reaction.min_scale, reaction.min_scale, lower)
    return m.where(when & (scale - lower > reaction.eps), lower, scale)


@node
class greedy(Reaction):  # noqa: N801
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
    factor: float = f.declare(_check_factor, default=0.95, kw_only=True)
    patience: int = f.count(default=10, kw_only=True)
    threshold: float = f.real(default=1e-6, kw_only=True)
    threshold_mode: str = f.choice("rel", "abs", default="abs", kw_only=True)
    cooldown: int = f.count(default=0, kw_only=True)
    warmup: int = f.count(default=0, kw_only=True)
    min_scale: float = f.declare(_check_low, default=1e-3, kw_only=True)
    max_scale: float = f.declare(_check_high, default=1.0, kw_only=True)
    eps: float = f.real(default=1e-8, kw_only=True)
    window: int = f.count(default=0, kw_only=True)
    reset_start: int = f.count(default=500, kw_only=True)
    name: str = f.declare(_check_name, default="greedy", kw_only=True)

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
        idle, better = cooling | warming, _is_better(self, x, cells["best"])
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
        after["value"] = m.where(down, _lowered(self, down, cells["value"], m), raised)
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


_WIDEST = 1000  # observations of a window: they are on the device, and each observation moves them


@node
class spike(Reaction):  # noqa: N801
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

    above: float = f.declare(_check_above, default=2.0, kw_only=True)
    factor: float = f.declare(_check_factor, default=0.5, kw_only=True)
    times: int = f.count(least=1, default=3, kw_only=True)
    hold: int = f.count(default=100, kw_only=True)
    average: float = f.declare(_check_part, default=0.99, kw_only=True)
    name: str = f.declare(_check_name, default="spike", kw_only=True)

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

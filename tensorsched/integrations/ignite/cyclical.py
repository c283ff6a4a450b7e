"""Values that go through the same curve again and again: linear and cosine cycles, with an optional warm-up between.

A cycle is one core expression, the curve and behind it the warm-up, read at `event_index`. At its end the attributes
turn to the next one's: `_turn` says how, and nothing else does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.integrations.ignite.ahead import Forecast
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.schedules import Schedule, constant, cosine, linear, maximum
from tensorsched.schedules.node import evaluate

__all__ = ["CosineAnnealingScheduler", "CyclicalScheduler", "LinearCyclicalScheduler"]

_STATE = (
    "start_value", "end_value", "cycle_size", "cycle_mult", "cycle", "start_value_mult", "end_value_mult",
    "warmup_duration", "total_cycle_size",
)  # fmt: skip
_LEAST_CYCLE = 2

Shape = Callable[..., Schedule]
"""From a cycle's start_value, end_value and steps=cycle_size to its curve: `cosine`, `linear`."""


class CyclicalScheduler(ParamScheduler):
    """A value that runs through cycles; subclasses define `get_param()` from `event_index` and the attributes below.

    With s, e and n the cycle's start_value, end_value and cycle_size, and w its warmup_duration: the curve of
    `get_param` at the events 0..n (0..n-1 without warm-up), then e + (next s - e) * (i - n) / w at the events
    i = n+1..n+w-1. After n + w events the next cycle starts: n and w become int(n * cycle_mult) and
    int(w * cycle_mult), s and e are multiplied by start_value_mult and end_value_mult, and event_index is 0 again.

    Args:
        optimizer: a torch optimizer, or any object with a list or tuple `param_groups`.
        param_name: the groups' key; see ParamScheduler.
        start_value: value at the start of a cycle.
        end_value: value at the end (linear, not monotonic: in the middle) of a cycle.
        cycle_size: length of the first cycle in events, a whole number of at least 2.
        cycle_mult: each cycle is this much longer than the one before, rounded down. Below 1 it is shorter, and the
            event at which no cycle is left is an error.
        start_value_mult: factor of start_value from cycle to cycle.
        end_value_mult: factor of end_value from cycle to cycle.
        warmup_duration: events from a cycle's end value to the next one's start value.
        save_history: append the groups' values to `engine.state.param_history[name]`.
        param_group_index: the one group that is meant; None (default) means all.

    Raises:
        TypeError: the optimizer has no sequence `param_groups`, or a duration is no number.
        ScheduleError: cycle_size is below 2 or not whole, warmup_duration is negative or not whole, or a value is not
            finite; and at an event, the cycle has shrunk to nothing, or an attribute was set so that the event lies in
            no cycle.

    Source: ignite.handlers.param_scheduler.CyclicalScheduler; Smith 2017 (arXiv 1506.01186).
    """

    def __init__(
        self, optimizer: Any, param_name: str, start_value: float, end_value: float, cycle_size: int,
        cycle_mult: float = 1.0, start_value_mult: float = 1.0, end_value_mult: float = 1.0, warmup_duration: int = 0,
        save_history: bool = False, param_group_index: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(optimizer, param_name, save_history, param_group_index)
        where = f"{type(self).__name__}: "
        self.start_value = base.check_number(where + "start_value", start_value)
        self.end_value = base.check_number(where + "end_value", end_value)
        self.cycle_size = base.check_events(where + "cycle_size", cycle_size, least=_LEAST_CYCLE)
        self.cycle_mult = base.check_number(where + "cycle_mult", cycle_mult)
        self.cycle = 0
        self.start_value_mult = base.check_number(where + "start_value_mult", start_value_mult)
        self.end_value_mult = base.check_number(where + "end_value_mult", end_value_mult)
        self.warmup_duration = base.check_events(where + "warmup_duration", warmup_duration, least=0)
        self.total_cycle_size = self.warmup_duration + self.cycle_size
        self._state_attrs += _STATE

    def _get_param(self) -> Any:
        """At the end of a cycle the next one's attributes; then the warm-up's value, or what `get_param()` says."""
        turn = _turn(vars(self))
        _check_inside(vars(self) | turn)
        for attribute, value in turn.items():
            setattr(self, attribute, value)
        if self.event_index <= self.cycle_size:
            return self.get_param()
        progress = (self.event_index - self.cycle_size) / self.warmup_duration
        return self.end_value + (self.start_value - self.end_value) * progress

    def _shape(self) -> Shape:
        """The curve of a cycle."""
        raise NotImplementedError

    def _forecast(self, count: int) -> Forecast:
        """To where an attribute changes: at n, and at n + w."""
        turn = _turn(vars(self))
        state = vars(self) | turn
        _check_inside(state)
        index, size, warmup = (int(state[name]) for name in ("event_index", "cycle_size", "warmup_duration"))
        stop = min(size if index < size else int(state["total_cycle_size"]), index + count)
        cycle = (self._shape(), state["start_value"], state["end_value"], size, warmup)
        return _values(*cycle, index, stop), turn

    def _schedule(self) -> Schedule:
        if self.warmup_duration and self.cycle_mult != 1.0:
            reason = "cycle_mult rounds the cycle and its warm-up separately; use warmup_duration=0 or cycle_mult=1"
            raise ScheduleError(f"{type(self).__name__} has no equivalent core expression: {reason}")
        first, second = self.start_value, self.end_value
        grow, fall = self.start_value_mult, self.end_value_mult
        if self.event_index > self.cycle_size and grow:  # start_value is the next cycle's already
            first /= grow
        # Each of the two values has its own share in every cycle where they go apart, as their factors do.
        shares = [(first, second, grow)] if grow == fall else [(first, 0.0, grow), (0.0, second, fall)]
        cycles = [
            _cycle(self._shape(), start, end, start * grow, int(self.cycle_size), int(self.warmup_duration))
            .repeat(length_mult=self.cycle_mult, value_mult=mult)
            for start, end, mult in shares
        ]  # fmt: skip
        return cycles[0] if len(cycles) == 1 else cycles[0] + cycles[1]


class LinearCyclicalScheduler(CyclicalScheduler):
    """Straight lines: with p = i / n, f(i) = e + (s - e) * |p - 1/2| * 2, that is s, then e at mid-cycle, then s again.

    With `monotonic` one line a cycle: f(i) = s + (e - s) * p. The other arguments are CyclicalScheduler's.

    Args:
        *args: CyclicalScheduler's.
        monotonic: one line a cycle, from start_value towards end_value.
        **kwargs: CyclicalScheduler's.

    Raises:
        ScheduleError: warmup_duration without monotonic; and what CyclicalScheduler raises.

    Source: ignite.handlers.param_scheduler.LinearCyclicalScheduler.

    Example:
        >>> import torch
        >>> from tensorsched.integrations.ignite import LinearCyclicalScheduler
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        >>> scheduler = LinearCyclicalScheduler(optimizer, "lr", 0.0, 1.0, 4)
        >>> for _ in range(3):
        ...     scheduler(None)
        ...     print(optimizer.param_groups[0]["lr"])
        0.0
        0.5
        1.0
    """

    _formula = True

    def __init__(self, *args: Any, monotonic: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.monotonic = monotonic
        if self.warmup_duration > 0 and not monotonic:
            reason = "without it the cycle goes back to its start value by itself"
            raise ScheduleError(f"{type(self).__name__}: warmup_duration needs monotonic=True: {reason}")

    def get_param(self) -> float:
        """The formula at `event_index`, without a warm-up: also beyond n, and what a user's own class builds on."""
        progress = self.event_index / self.cycle_size
        if self.monotonic:
            return self.start_value + (self.end_value - self.start_value) * progress
        return self.end_value + (self.start_value - self.end_value) * abs(progress - 0.5) * 2

    def _shape(self) -> Shape:
        return linear if self.monotonic else _there_and_back


class CosineAnnealingScheduler(CyclicalScheduler):
    """Half a cosine wave a cycle: with p = i / n, f(i) = s + (e - s) / 2 * (1 - cos(pi * p)).

    The arguments are CyclicalScheduler's. Without a warm-up the end value itself is not reached: the next cycle starts.

    Source: ignite.handlers.param_scheduler.CosineAnnealingScheduler; Loshchilov and Hutter 2017 (arXiv 1608.03983).

    Example:
        >>> import torch
        >>> from tensorsched.integrations.ignite import CosineAnnealingScheduler
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        >>> scheduler = CosineAnnealingScheduler(optimizer, "lr", 0.0, 1.0, 4)
        >>> for _ in range(5):
        ...     scheduler(None)
        ...     print(round(optimizer.param_groups[0]["lr"], 4))
        0.0
        0.1464
        0.5
        0.8536
        0.0
    """

    _formula = True

    def get_param(self) -> float:
        """The formula at `event_index`, without a warm-up: also beyond n, and what a user's own class builds on."""
        wave = 1 - math.cos(math.pi * self.event_index / self.cycle_size)
        return self.start_value + ((self.end_value - self.start_value) / 2) * wave

    def _shape(self) -> Shape:
        return cosine


def _there_and_back(start: float, end: float, *, steps: int) -> Schedule:
    # |1 - 2p|: also right where the middle of the cycle lies between two events.
    share = maximum(linear(1.0, -1.0, steps=steps), linear(-1.0, 1.0, steps=steps))
    return constant(end) + (start - end) * share


def _cycle(shape: Shape, start: float, end: float, then: float, size: int, warmup: int) -> Schedule:
    """The curve of one cycle, with the warm-up from `end` to `then` behind it."""
    curve = shape(start, end, steps=size)
    return curve >> linear(end, then, steps=warmup) if warmup else curve


@functools.lru_cache(maxsize=64)  # cycles that do not change are evaluated once, however short they are
def _values(
    shape: Shape, start: float, end: float, size: int, warmup: int, first: int, stop: int
) -> list[float]:
    """The values of a cycle at the events first..stop-1. Behind n, `start` is the next cycle's."""
    cycle = _cycle(shape, start, end, start, size, warmup)
    return evaluate(cycle, first, stop).tolist()  # type: ignore[no-any-return]  # of float64


def _turn(state: Mapping[str, Any]) -> dict[str, Any]:
    """What changes in a cyclical scheduler's attributes before the event that `state` is at."""
    index, turn = state["event_index"], {}
    if index != 0 and index == state["cycle_size"]:
        turn["start_value"] = state["start_value"] * state["start_value_mult"]
    if index != 0 and index == state["total_cycle_size"]:
        size, warmup = (int(state[n] * state["cycle_mult"]) for n in ("cycle_size", "warmup_duration"))
        turn |= {"cycle_size": size, "warmup_duration": warmup, "total_cycle_size": size + warmup}
        turn |= {"event_index": 0, "cycle": state["cycle"] + 1}
        turn["end_value"] = state["end_value"] * state["end_value_mult"]
    return turn


def _check_inside(state: Mapping[str, Any]) -> None:
    """ScheduleError where no cycle is left, or an attribute was set so that the event lies in none."""
    index, size, total = state["event_index"], state["cycle_size"], state["total_cycle_size"]
    if size >= 1 and index >= 0 and (index <= size or (state["warmup_duration"] > 0 and index < total)):
        return
    what = f"event_index {index} lies in no cycle of cycle_size {size} and total_cycle_size {total}"
    if size >= 1:
        raise ScheduleError(f"{what}; when you assign to one of these attributes, set the others to match")
    way_out = "end the run before, let another scheduler follow with ConcatScheduler, or set cycle_mult to 1"
    raise ScheduleError(f"{what}: cycle_mult has shrunk the cycle to nothing: {way_out}")

"""Values that go through the same curve again and again: linear and cosine cycles, with an optional warm-up between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.checks import check_events, check_growth, check_number
from tensorsched.integrations.ignite.lookahead import Forecast, Marks, describe
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.schedules import Schedule, constant, cosine, linear, maximum
from tensorsched.schedules.node import Array

__all__ = ["CosineAnnealingScheduler", "CyclicalScheduler", "LinearCyclicalScheduler"]

_PARTS = (
    "start_value",
    "end_value",
    "cycle_size",
    "cycle_mult",
    "cycle",
    "start_value_mult",
    "end_value_mult",
)
_STATE = (*_PARTS, "warmup_duration", "total_cycle_size")
_LEAST_CYCLE = 2


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
        cycle_mult: each cycle is this much longer than the one before, rounded down; at least 1.
        start_value_mult: factor of start_value from cycle to cycle.
        end_value_mult: factor of end_value from cycle to cycle.
        warmup_duration: events from a cycle's end value to the next one's start value.
        save_history: append the groups' values to `engine.state.param_history[name]`.
        param_group_index: the one group that is meant; None (default) means all.

    Raises:
        TypeError: the optimizer has no sequence `param_groups`, or a duration is no number.
        ScheduleError: cycle_size is below 2 or not whole, cycle_mult is below 1 (it would shrink a cycle to nothing),
            warmup_duration is negative or not whole, or a value is not finite.

    Source: ignite.handlers.param_scheduler.CyclicalScheduler; Smith 2017 (arXiv 1506.01186).
    """

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        start_value: float,
        end_value: float,
        cycle_size: int,
        cycle_mult: float = 1.0,
        start_value_mult: float = 1.0,
        end_value_mult: float = 1.0,
        warmup_duration: int = 0,
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        super().__init__(
            optimizer, param_name, save_history=save_history, param_group_index=param_group_index
        )
        where = f"{type(self).__name__}: "
        self.start_value = check_number(where + "start_value", start_value)
        self.end_value = check_number(where + "end_value", end_value)
        self.cycle_size = check_events(where + "cycle_size", cycle_size, least=_LEAST_CYCLE)
        self.cycle_mult = check_growth(where + "cycle_mult", cycle_mult)
        self.cycle = 0
        self.start_value_mult = check_number(where + "start_value_mult", start_value_mult)
        self.end_value_mult = check_number(where + "end_value_mult", end_value_mult)
        self.warmup_duration = check_events(where + "warmup_duration", warmup_duration, least=0)
        self.total_cycle_size = self.warmup_duration + self.cycle_size
        self._state_attrs += _STATE

    def _begin_event(self) -> None:
        """At the end of a cycle: the next one's attributes."""
        for attribute, value in _turn(self.__dict__).items():
            setattr(self, attribute, value)

    def _get_param(self) -> Any:
        """The warm-up's value during one, else what `get_param()` says."""
        if self.event_index <= self.cycle_size:
            return self.get_param()
        _check_inside(self, self.__dict__)
        progress = (self.event_index - self.cycle_size) / self.warmup_duration
        return self.end_value + (self.start_value - self.end_value) * progress

    def _curve(self, start: Any, end: Any, progress: Any) -> Any:
        """The cycle's formula, of numbers and of arrays; progress is event_index / cycle_size."""
        raise NotImplementedError

    def _forecast(self, count: int) -> Forecast:
        state = {name: self.__dict__[name] for name in (*_STATE, "event_index")}
        marks: Marks = {}
        runs: list[
            tuple[float, ...]
        ] = []  # (first offset, length, event_index there, and the cycle's s, e, n, w)
        filled = 0
        while filled < count:
            changes = _turn(state)
            if changes:
                marks[filled] = changes
                state.update(changes)
            index = state["event_index"]
            if filled and not _is_inside(state):
                break  # it is an error when that event has come
            _check_inside(self, state)
            length = min(_until_change(state), count - filled)
            values = (state["start_value"], state["end_value"], state["cycle_size"], state["warmup_duration"])
            runs.append((filled, length, index, *values))
            state["event_index"] = index + length
            filled += length
        return self._evaluate(np.array(runs, dtype=np.float64), filled), marks, []

    def _evaluate(self, runs: Array, count: int) -> Array:
        """The values of all runs: each row repeated for its events, then the formula once for all."""
        first, _, index, start, end, size, warmup = np.repeat(runs.T, runs[:, 1].astype(np.int64), axis=1)
        event = index + (np.arange(count) - first)
        with np.errstate(all="ignore"):  # what is not finite is refused by the look-ahead
            values: Array = self._curve(start, end, event / size)
            late = event > size
            if late.any():
                values[late] = (end + (start - end) * ((event - size) / warmup))[late]
        return values

    def _as_schedule(self) -> Schedule:
        if self.warmup_duration and self.cycle_mult != 1.0:
            raise ScheduleError(
                f"{describe(self, self.__dict__)} has no equivalent core expression: cycle_mult rounds the cycle and "
                "its warm-up separately; use warmup_duration=0 or cycle_mult=1, or from_values of simulate_values"
            )
        late = self.event_index > self.cycle_size  # then start_value is the next cycle's already
        size, warmup = int(self.cycle_size), int(self.warmup_duration)
        first, second = float(self.start_value), float(self.end_value)
        grow, fall = float(self.start_value_mult), float(self.end_value_mult)
        if late and grow != 0.0:
            first /= grow
        if grow == fall:
            cycle = self._cycle(first, second, size, first * grow, warmup)
            whole = cycle.repeat(length_mult=self.cycle_mult, value_mult=grow)
        else:  # the two values go apart: each has its own share in every cycle
            shares = (
                self._cycle(first, 0.0, size, first * grow, warmup),
                self._cycle(0.0, second, size, 0.0, warmup),
            )
            parts = [
                share.repeat(length_mult=self.cycle_mult, value_mult=mult)
                for share, mult in zip(shares, (grow, fall), strict=True)
            ]
            whole = parts[0] + parts[1]
        return whole.skip(int(self.event_index)) if self.event_index else whole

    def _cycle(self, start: float, end: float, size: int, then: float, warmup: int) -> Schedule:
        """One cycle of the core's shapes, with the warm-up from `end` to `then` behind it."""
        curve = self._core_curve(start, end, size)
        return curve >> linear(end, then, steps=warmup) if warmup else curve

    def _core_curve(self, start: float, end: float, size: int) -> Schedule:
        raise NotImplementedError


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

    _tabulated = True

    def __init__(self, *args: Any, monotonic: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.monotonic = monotonic
        if self.warmup_duration > 0 and not monotonic:
            raise ScheduleError(
                "LinearCyclicalScheduler: warmup_duration needs monotonic=True: without it the cycle goes back to its "
                "start value by itself"
            )

    def get_param(self) -> float:
        """The value at `event_index`, without a warm-up's."""
        return float(self._curve(self.start_value, self.end_value, self.event_index / self.cycle_size))

    def _curve(self, start: Any, end: Any, progress: Any) -> Any:
        if self.monotonic:
            return start + (end - start) * progress
        return end + (start - end) * abs(progress - 0.5) * 2

    def _core_curve(self, start: float, end: float, size: int) -> Schedule:
        if self.monotonic:
            return linear(start, end, steps=size)
        # |1 - 2p|: also right where the middle of the cycle lies between two events.
        there_and_back = maximum(linear(1.0, -1.0, steps=size), linear(-1.0, 1.0, steps=size))
        return constant(end) + (start - end) * there_and_back


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

    _tabulated = True

    def get_param(self) -> float:
        """The value at `event_index`, without a warm-up's."""
        return float(self._curve(self.start_value, self.end_value, self.event_index / self.cycle_size))

    def _curve(self, start: Any, end: Any, progress: Any) -> Any:
        return start + ((end - start) / 2) * (1 - np.cos(math.pi * progress))

    def _core_curve(self, start: float, end: float, size: int) -> Schedule:
        return cosine(start, end, steps=size)


def _turn(state: Mapping[str, Any]) -> dict[str, Any]:
    """What changes in a cyclical scheduler's attributes before the event that `state` is at."""
    index = state["event_index"]
    changes: dict[str, Any] = {}
    if index == 0:
        return changes
    if index == state["cycle_size"] and state["start_value_mult"] != 1.0:
        changes["start_value"] = state["start_value"] * state["start_value_mult"]
    if index == state["total_cycle_size"]:
        changes["event_index"] = 0
        changes["cycle"] = state["cycle"] + 1
        if state["end_value_mult"] != 1.0:
            changes["end_value"] = state["end_value"] * state["end_value_mult"]
        if state["cycle_mult"] != 1.0:
            size, warmup = (int(state[n] * state["cycle_mult"]) for n in ("cycle_size", "warmup_duration"))
            changes |= {"cycle_size": size, "warmup_duration": warmup, "total_cycle_size": size + warmup}
    return changes


def _until_change(state: Mapping[str, Any]) -> int:
    """Events until the formula or an attribute changes: at n, behind n, and at n + w."""
    index = state["event_index"]
    later = [state[n] for n in ("cycle_size", "total_cycle_size") if state[n] > index]
    if index == state["cycle_size"]:
        return 1
    return math.ceil(min(later) - index)  # type: ignore[no-any-return]  # numbers, as checked


def _is_inside(state: Mapping[str, Any]) -> bool:
    """Whether the event lies in the cycle that the attributes describe."""
    index, size = state["event_index"], state["cycle_size"]
    in_warmup = state["warmup_duration"] > 0 and index < state["total_cycle_size"]
    return bool(size >= 1 and index >= 0 and (index <= size or in_warmup))


def _check_inside(scheduler: object, state: Mapping[str, Any]) -> None:
    """ScheduleError where an attribute was set so that the event lies in no cycle."""
    if not _is_inside(state):
        index, size, total = state["event_index"], state["cycle_size"], state["total_cycle_size"]
        raise ScheduleError(
            f"{type(scheduler).__name__}: event_index {index} lies in no cycle of cycle_size {size} and "
            f"total_cycle_size {total}; when you assign to one of these attributes, set the others to match"
        )

"""Values in an engine's state: `engine.state.<param_name>`.

Unlike an optimizer's, these count the event first: the first event sets f(1).
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.base import BaseParamScheduler, record
from tensorsched.integrations.ignite.checks import check_events, check_number
from tensorsched.integrations.ignite.lazy import default_event
from tensorsched.integrations.ignite.lookahead import Forecast
from tensorsched.integrations.ignite.piecewise import (
    between_milestones,
    check_milestones,
    segment_marks,
    through_milestones,
)
from tensorsched.schedules import Schedule, exponential_decay, piecewise_constant
from tensorsched.schedules.node import Array

__all__ = [
    "ExpStateScheduler",
    "LambdaStateScheduler",
    "MultiStepStateScheduler",
    "PiecewiseLinearStateScheduler",
    "StateParamScheduler",
    "StepStateScheduler",
]


class StateParamScheduler(BaseParamScheduler):
    """A handler that sets `engine.state.<param_name>` at every event. Subclasses define `get_param()`.

    Args:
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: the attribute must be new: `attach` refuses one that exists. Without it, `attach` warns where it
            is missing.

    Source: ignite.handlers.state_param_scheduler.StateParamScheduler.
    """

    def __init__(
        self,
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(param_name, save_history)
        self.create_new = create_new

    def attach(self, engine: Any, event: Any = None) -> None:
        """Let `engine` call this handler at `event`, by default Events.ITERATION_COMPLETED.

        Raises:
            ScheduleError: create_new, and the state has such an attribute.
            ModuleNotFoundError: no event is given and ignite is not installed.
        """
        event = default_event("ITERATION_COMPLETED") if event is None else event
        if not hasattr(engine.state, self.param_name):
            if not self.create_new:
                warnings.warn(
                    f"engine.state has no {self.param_name!r} yet: {type(self).__name__} makes it; pass "
                    "create_new=True if that is meant",
                    UserWarning,
                    stacklevel=2,
                )
            setattr(engine.state, self.param_name, None)
        elif self.create_new:
            raise ScheduleError(
                f"engine.state has a {self.param_name!r} already, perhaps another handler's; choose another name, or "
                "pass create_new=False to set it"
            )
        if self.save_history:
            if getattr(engine.state, "param_history", None) is None:
                engine.state.param_history = {}
            engine.state.param_history.setdefault(self.param_name, [])
        engine.add_event_handler(event, self)

    def __call__(self, engine: Any) -> None:
        """One event: count it, then set the value."""
        if self._tabulated:
            ahead = self._look()
            value: Any = ahead.values[ahead.at]
            ahead.step(self.__dict__)
        else:
            self.event_index += 1
            value = self.get_param()
        setattr(engine.state, self.param_name, value)
        if self.save_history:
            record(engine, self.param_name, value)

    @classmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """[[i, value], ...]: what the first `num_events` events of a scheduler with these arguments set.

        Example:
            >>> from tensorsched.integrations.ignite import ExpStateScheduler
            >>> ExpStateScheduler.simulate_values(num_events=2, param_name="p", initial_value=1.0, gamma=0.5)
            [[0, 0.5], [1, 0.25]]
        """
        arguments = {key: value for key, value in scheduler_kwargs.items() if key != "save_history"}
        scheduler = cls(save_history=False, **arguments)
        engine = SimpleNamespace(state=SimpleNamespace())
        rows = []
        for i in range(num_events):
            scheduler(engine)
            rows.append([i, getattr(engine.state, scheduler.param_name)])
        return rows


class _Formula(StateParamScheduler):
    """Values that are a formula of the event: tabulated."""

    def _formula(self, events: Array) -> Array:
        """The value at each event."""
        raise NotImplementedError

    def get_param(self) -> Any:
        """The value at `event_index`."""
        return float(self._formula(np.array([float(self.event_index)]))[0])

    def _forecast(self, count: int) -> Forecast:
        with np.errstate(all="ignore"):  # what is not finite is refused by the look-ahead
            return self._formula(self._events(count)), {}, []

    def _events(self, count: int) -> Array:
        """The next events: the one that comes is counted before it is used."""
        return float(self.event_index + 1) + np.arange(count, dtype=np.float64)


class LambdaStateScheduler(StateParamScheduler):
    """f(i) = lambda_obj(i), for i = 1, 2, ...

    Args:
        lambda_obj: called with the event.
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: see StateParamScheduler.

    Raises:
        ScheduleError: lambda_obj cannot be called.

    Source: ignite.handlers.state_param_scheduler.LambdaStateScheduler.
    """

    def __init__(
        self,
        lambda_obj: Callable[[int], Any],
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(param_name, save_history, create_new)
        if not callable(lambda_obj):
            raise ScheduleError(f"lambda_obj must be callable, got {type(lambda_obj)}")
        self.lambda_obj = lambda_obj
        self._state_attrs += ["lambda_obj"]

    def get_param(self) -> Any:
        """lambda_obj(event_index)."""
        return self.lambda_obj(self.event_index)


class PiecewiseLinearStateScheduler(_Formula):
    """Straight lines between (event, value) milestones, for the events 1, 2, ...; see PiecewiseLinear.

    Args:
        milestones_values: list of tuples (event, value), events not decreasing.
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: see StateParamScheduler.

    Raises:
        TypeError: milestones_values is no sequence, or an event is no int.
        ScheduleError: as PiecewiseLinear.

    Source: ignite.handlers.state_param_scheduler.PiecewiseLinearStateScheduler.
    """

    _tabulated = True

    def __init__(
        self,
        milestones_values: list[tuple[int, float]],
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(param_name, save_history, create_new)
        self.milestones, self.values = check_milestones(type(self).__name__, milestones_values)
        self._index = 0
        self._state_attrs += ["values", "milestones", "_index"]

    def _formula(self, events: Array) -> Array:
        return through_milestones(self.milestones, self.values, events)

    def _forecast(self, count: int) -> Forecast:
        events = self._events(count)
        return (
            self._formula(events),
            segment_marks(self.milestones, self._index, events),
            [self.milestones, self.values],
        )

    def _as_schedule(self) -> Schedule:
        return between_milestones(self.milestones, self.values, self.event_index + 1)


class ExpStateScheduler(_Formula):
    """f(i) = initial_value * gamma**i, for i = 1, 2, ...

    Args:
        initial_value: value in front of the first event.
        gamma: factor from event to event.
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: see StateParamScheduler.

    Raises:
        ScheduleError: a value is not a finite number.

    Source: ignite.handlers.state_param_scheduler.ExpStateScheduler; the closed form of torch's ExponentialLR.
    """

    _tabulated = True

    def __init__(
        self,
        initial_value: float,
        gamma: float,
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(param_name, save_history, create_new)
        self.initial_value = check_number(f"{type(self).__name__}: initial_value", initial_value)
        self.gamma = check_number(f"{type(self).__name__}: gamma", gamma)
        self._state_attrs += ["initial_value", "gamma"]

    def _power(self, events: Array) -> Array:
        """How often the value has been multiplied by gamma."""
        return events

    def _formula(self, events: Array) -> Array:
        result: Array = self.initial_value * np.power(float(self.gamma), self._power(events))
        return result

    def _as_schedule(self) -> Schedule:
        return exponential_decay(self.initial_value, self.gamma, every=1).skip(self.event_index + 1)


class StepStateScheduler(ExpStateScheduler):
    """f(i) = initial_value * gamma**(i // step_size), for i = 1, 2, ...

    Args:
        initial_value: value in front of the first change.
        gamma: factor from change to change.
        step_size: events from change to change, at least 1.
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: see StateParamScheduler.

    Raises:
        TypeError: step_size is no number.
        ScheduleError: a value is not a finite number, or step_size is below 1 or not whole.

    Source: ignite.handlers.state_param_scheduler.StepStateScheduler; torch's StepLR.
    """

    _tabulated = True

    def __init__(
        self,
        initial_value: float,
        gamma: float,
        step_size: int,
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(initial_value, gamma, param_name, save_history, create_new)
        self.step_size = check_events(f"{type(self).__name__}: step_size", step_size, least=1)
        self._state_attrs += ["step_size"]

    def _power(self, events: Array) -> Array:
        return np.floor_divide(events, self.step_size)

    def _as_schedule(self) -> Schedule:
        steps = exponential_decay(self.initial_value, self.gamma, every=self.step_size, staircase=True)
        return steps.skip(self.event_index + 1)


class MultiStepStateScheduler(ExpStateScheduler):
    """f(i) = initial_value * gamma**k, k the number of milestones <= i, for i = 1, 2, ...

    Args:
        initial_value: value in front of the first milestone.
        gamma: factor at each milestone.
        milestones: events, not decreasing.
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: see StateParamScheduler.

    Raises:
        ScheduleError: a value is not a finite number, or milestones are negative, no ints or not in order.

    Source: ignite.handlers.state_param_scheduler.MultiStepStateScheduler; torch's MultiStepLR.
    """

    _tabulated = True

    def __init__(
        self,
        initial_value: float,
        gamma: float,
        milestones: list[int],
        param_name: str,
        save_history: bool = False,
        create_new: bool = False,
    ) -> None:
        super().__init__(initial_value, gamma, param_name, save_history, create_new)
        self.milestones = _check_ordered(milestones)
        self._state_attrs += ["milestones"]

    def _power(self, events: Array) -> Array:
        return np.searchsorted(np.array(self.milestones), events, side="right").astype(np.float64)

    def _forecast(self, count: int) -> Forecast:
        values, marks, _ = super()._forecast(count)
        return values, marks, [self.milestones]

    def _as_schedule(self) -> Schedule:
        at = sorted(set(self.milestones))
        levels = [self.initial_value, *self._formula(np.array(at, dtype=np.float64)).tolist()]
        return piecewise_constant(levels, at).skip(self.event_index + 1)


def _check_ordered(milestones: object) -> list[int]:
    if not isinstance(milestones, Sequence):
        raise TypeError(f"milestones must be a list of ints, got {type(milestones)}")
    if not all(isinstance(item, numbers.Integral) and int(item) >= 0 for item in milestones):
        raise ScheduleError(f"milestones must be events, ints of at least 0, got {milestones!r}")
    if any(later < earlier for earlier, later in pairwise(milestones)):
        raise ScheduleError(f"milestones must not decrease, got {milestones!r}; sort them")
    return list(milestones)

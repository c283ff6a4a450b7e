"""Values in an engine's state: `engine.state.<param_name>`.

Unlike an optimizer's, these count the event first: the first event sets f(1).
"""

from __future__ import annotations

import bisect
import numbers
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.integrations.ignite.piecewise import Milestones
from tensorsched.schedules import Schedule, exponential_decay, piecewise_constant
from tensorsched.schedules.validators import check_real, refuse

__all__ = [
    "ExpStateScheduler", "LambdaStateScheduler", "MultiStepStateScheduler", "PiecewiseLinearStateScheduler",
    "StateParamScheduler", "StepStateScheduler",
]  # fmt: skip


class StateParamScheduler(base.BaseParamScheduler):
    """A handler that sets `engine.state.<param_name>` at every event. Subclasses define `get_param()`.

    Args:
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: the attribute must be new: `attach` refuses one that exists. Without it, `attach` warns where it
            is missing.

    Source: ignite.handlers.state_param_scheduler.StateParamScheduler.
    """

    _event: ClassVar[str] = "ITERATION_COMPLETED"

    def __init__(self, param_name: str, save_history: bool = False, create_new: bool = False) -> None:
        super().__init__(param_name, save_history)
        self.create_new = create_new

    def attach(self, engine: Any, event: Any = None) -> None:
        """Let `engine` call this handler at `event`, by default Events.ITERATION_COMPLETED.

        Raises:
            ScheduleError: create_new, and the state has such an attribute.
            ModuleNotFoundError: no event is given and ignite is not installed.
        """
        if not hasattr(engine.state, self.param_name):
            if not self.create_new:
                what = f"engine.state has no {self.param_name!r} yet: {type(self).__name__} makes it"
                warnings.warn(f"{what}; pass create_new=True if that is meant", UserWarning, stacklevel=2)
            setattr(engine.state, self.param_name, None)
        elif self.create_new:
            what = f"engine.state has a {self.param_name!r} already, perhaps another handler's"
            raise ScheduleError(f"{what}; choose another name, or pass create_new=False to set it")
        if self.save_history:
            base.record(engine, self.param_name)
        super().attach(engine, event)

    def __call__(self, engine: Any) -> None:
        """One event: count it, then set the value. Does not synchronise."""
        if self._formula:
            ahead = self._look()
            (value,) = ahead.rows[ahead.at]
            ahead.passed()
        else:
            self.event_index += 1
            value = self.get_param()
        setattr(engine.state, self.param_name, value)
        if self.save_history:
            base.record(engine, self.param_name, value)

    def _position(self) -> int:
        return int(self.event_index) + 1  # the event is counted before it is used

    @classmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """[[i, value], ...]: what the first `num_events` events of a scheduler with these arguments set.

        Example:
            >>> from tensorsched.integrations.ignite import ExpStateScheduler
            >>> ExpStateScheduler.simulate_values(num_events=2, param_name="p", initial_value=1.0, gamma=0.5)
            [[0, 0.5], [1, 0.25]]
        """
        scheduler = cls(**(scheduler_kwargs | {"save_history": False}))
        engine, name = SimpleNamespace(state=SimpleNamespace()), scheduler.param_name
        rows = []
        for i in range(num_events):
            scheduler(engine)
            rows.append([i, getattr(engine.state, name)])
        return rows


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

    Example:
        >>> from tensorsched.integrations.ignite import LambdaStateScheduler
        >>> LambdaStateScheduler.simulate_values(num_events=2, param_name="p", lambda_obj=lambda i: 10 * i)
        [[0, 10], [1, 20]]
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


class PiecewiseLinearStateScheduler(Milestones, StateParamScheduler):
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

    Example:
        >>> from tensorsched.integrations.ignite import PiecewiseLinearStateScheduler
        >>> points = [(1, 1.0), (3, 0.5)]
        >>> PiecewiseLinearStateScheduler.simulate_values(num_events=3, param_name="p", milestones_values=points)
        [[0, 1.0], [1, 0.75], [2, 0.5]]
    """

    _formula = True

    def __init__(
        self, milestones_values: list[tuple[int, float]], param_name: str, save_history: bool = False,
        create_new: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(param_name, save_history, create_new)
        self._set_milestones(milestones_values)


class ExpStateScheduler(base.Formula, StateParamScheduler):
    """f(i) = initial_value * gamma**i, for i = 1, 2, ..., in Python's floats: ignite's values to the last bit.

    Args:
        initial_value: value in front of the first event.
        gamma: factor from event to event.
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: see StateParamScheduler.

    Raises:
        ScheduleError: a value is not a finite number; also at an event whose value is not.

    Source: ignite.handlers.state_param_scheduler.ExpStateScheduler; the closed form of torch's ExponentialLR.

    Example:
        >>> from tensorsched.integrations.ignite import ExpStateScheduler
        >>> ExpStateScheduler.simulate_values(num_events=3, param_name="p", initial_value=1.0, gamma=0.5)
        [[0, 0.5], [1, 0.25], [2, 0.125]]
    """

    _formula = True

    def __init__(
        self, initial_value: float, gamma: float, param_name: str, save_history: bool = False,
        create_new: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(param_name, save_history, create_new)
        self.initial_value = base.check_number(f"{type(self).__name__}: initial_value", initial_value)
        self.gamma = base.check_number(f"{type(self).__name__}: gamma", gamma)
        self._state_attrs += ["initial_value", "gamma"]

    def _power(self, event: int) -> int:
        """How often the value has been multiplied by gamma."""
        return event

    def _values(self, first: int, stop: int) -> list[float]:
        # Not the expression's: numpy's power differs from Python's, and so from ignite's, in the last bit.
        powers = map(self._power, range(first, stop))
        return [check_real("the value", self.initial_value * self.gamma**power) for power in powers]

    def _schedule(self) -> Schedule:
        return exponential_decay(self.initial_value, self.gamma, every=1)


class StepStateScheduler(ExpStateScheduler):
    """f(i) = initial_value * gamma**(i // step_size), for i = 1, 2, ..., in Python's floats: ignite's to the last bit.

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

    Example:
        >>> from tensorsched.integrations.ignite import StepStateScheduler
        >>> arguments = {"param_name": "p", "initial_value": 1.0, "gamma": 0.5, "step_size": 2}
        >>> StepStateScheduler.simulate_values(num_events=4, **arguments)
        [[0, 1.0], [1, 0.5], [2, 0.5], [3, 0.25]]
    """

    _formula = True

    def __init__(
        self, initial_value: float, gamma: float, step_size: int, param_name: str, save_history: bool = False,
        create_new: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(initial_value, gamma, param_name, save_history, create_new)
        self.step_size = base.check_events(f"{type(self).__name__}: step_size", step_size, least=1)
        self._state_attrs += ["step_size"]

    def _power(self, event: int) -> int:
        return event // self.step_size

    def _schedule(self) -> Schedule:
        return exponential_decay(self.initial_value, self.gamma, every=self.step_size, staircase=True)


class MultiStepStateScheduler(ExpStateScheduler):
    """f(i) = initial_value * gamma**k, k the number of milestones <= i, in Python's floats: ignite's to the last bit.

    Args:
        initial_value: value in front of the first milestone.
        gamma: factor at each milestone.
        milestones: events, not decreasing.
        param_name: name of the attribute.
        save_history: append each value to `engine.state.param_history[param_name]`.
        create_new: see StateParamScheduler.

    Raises:
        TypeError: milestones is no sequence.
        ScheduleError: a value is not a finite number, or milestones are negative, no ints or not in order.

    Source: ignite.handlers.state_param_scheduler.MultiStepStateScheduler; torch's MultiStepLR.

    Example:
        >>> from tensorsched.integrations.ignite import MultiStepStateScheduler
        >>> arguments = {"param_name": "p", "initial_value": 1.0, "gamma": 0.5, "milestones": [2, 3]}
        >>> MultiStepStateScheduler.simulate_values(num_events=4, **arguments)
        [[0, 1.0], [1, 0.5], [2, 0.25], [3, 0.25]]
    """

    _formula = True
    _lists: ClassVar[tuple[str, ...]] = ("milestones",)

    def __init__(
        self, initial_value: float, gamma: float, milestones: list[int], param_name: str,
        save_history: bool = False, create_new: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(initial_value, gamma, param_name, save_history, create_new)
        given: Sequence[Any] = base.check_type("milestones", milestones, Sequence, "a list of ints")
        if not all(isinstance(item, numbers.Integral) and int(item) >= 0 for item in given):
            raise refuse("milestones", "events, ints of at least 0", milestones)
        if sorted(given) != list(given):
            raise ScheduleError(f"milestones must not decrease, got {milestones!r}; sort them")
        self.milestones = list(given)
        self._state_attrs += ["milestones"]

    def _power(self, event: int) -> int:
        return bisect.bisect_right(self.milestones, event)

    def _schedule(self) -> Schedule:
        at = sorted(set(self.milestones))
        return piecewise_constant([self.initial_value, *(self._values(a, a + 1)[0] for a in at)], at)

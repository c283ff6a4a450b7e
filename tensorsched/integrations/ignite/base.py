"""What every handler shares: the event counter, the state, the look-ahead, the plot.

Events count from 0 in `event_index`: it is used, then incremented. The class names, the constructors' order and the
state are ignite 0.5.5's (`ignite.handlers.param_scheduler`).
"""

from __future__ import annotations

import math
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any, ClassVar

import numpy as np
import torch

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.ahead import Ahead, Forecast
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import evaluate
from tensorsched.schedules.validators import check_real, refuse

__all__ = ["Ahead", "BaseParamScheduler", "Formula"]


class BaseParamScheduler(metaclass=ABCMeta):
    """A handler that sets a named value at every event.

    Args:
        param_name: name of the value.
        save_history: append each value to `engine.state.param_history[name]`.

    Attributes:
        event_index: the event that comes next, from 0; may be assigned to.
        save_history: whether values are appended to `engine.state.param_history`; may be assigned to.

    A handler whose values are a formula of its attributes has the next ones evaluated ahead. Assigning to any attribute
    drops them, so that the next event sees the new value.
    """

    _event: ClassVar[str] = "ITERATION_STARTED"  # when `attach` has a handler called, where nobody says
    _formula: ClassVar[bool] = False  # whether _forecast and _schedule say what get_param says
    _lists: ClassVar[tuple[str, ...]] = ()  # attributes whose lists the formula reads
    _ahead: Ahead | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A subclass may override the formula: only the class that says so itself is evaluated ahead.
        cls._formula = cls.__dict__.get("_formula", False)

    def __init__(self, param_name: str, save_history: bool = False) -> None:
        self.param_name = param_name
        self.event_index = 0
        self.save_history = save_history
        self._state_attrs = ["event_index", "param_name", "save_history"]

    def __setattr__(self, name: str, value: Any) -> None:
        # Without this, a program that sets scheduler.end_value between two events would train on for up to a thousand
        # events with the values of the old one.
        if self._ahead is not None:
            self._forget()
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_ahead"}

    def _forget(self) -> None:
        """Drop the values ahead, whoever reads them: a ParamGroupScheduler sees that there are no rows left."""
        ahead = self.__dict__.pop("_ahead", None)
        if ahead is not None:
            ahead.rows = ()

    def state_dict(self) -> dict[str, Any]:
        """The state under ignite's names, plain numbers and strings where the scheduler holds such."""
        held = {name: getattr(self, name) for name in self._state_attrs if hasattr(self, name)}
        return {k: copy(v.state_dict() if hasattr(v, "state_dict") else v) for k, v in held.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; nothing changes if it is refused.

        Raises:
            TypeError: it is no mapping.
            ValueError: an entry is missing.
        """
        check_state(self, state_dict, self._state_attrs)
        for name in self._state_attrs:
            value, load = state_dict[name], getattr(getattr(self, name), "load_state_dict", None)
            if isinstance(value, Mapping) and load is not None:
                load(value)
            else:
                # A copy: what goes on here must not change the checkpoint that it came from.
                setattr(self, name, copy(value) if isinstance(value, list) else value)

    def attach(self, engine: Any, event: Any = None) -> None:
        """Let `engine` call this handler at `event`; the default is ignite's for this class.

        ITERATION_STARTED for what sets an entry of param groups, ITERATION_COMPLETED for what sets an attribute of the
        engine's state, EPOCH_STARTED for a batch size.

        Raises:
            ModuleNotFoundError: no event is given and ignite is not installed.
        """
        engine.add_event_handler(_default_event(self._event) if event is None else event, self)

    @abstractmethod
    def get_param(self) -> Any:
        """The value at `event_index`: a number, or a list with one for each group."""

    @classmethod
    @abstractmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """[[event, value], ...] of the first `num_events` events of a scheduler with these arguments."""

    @classmethod
    def plot_values(cls, num_events: int, **scheduler_kwargs: Any) -> Any:
        """Draw what `simulate_values` gives into the current axes; the list of matplotlib lines.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        from tensorsched.schedules.views.axes import require_matplotlib

        require_matplotlib()
        import matplotlib.pyplot as plt

        rows = cls.simulate_values(num_events=num_events, **scheduler_kwargs)
        label = scheduler_kwargs.get("param_name", "learning rate")
        lines = plt.plot([row[0] for row in rows], [row[1:] for row in rows], label=label)
        plt.legend()
        plt.grid(which="both")
        return lines

    def as_schedule(self) -> Schedule | list[Schedule | None]:
        """The core expression f such that f(t) is what event t from now sets; a list where groups differ.

        Raises:
            ScheduleError: there is none, because the values are not a formula of the event alone.
        """
        if not self._formula:  # a subclass may have overridden what the expression would be made of
            what = f"{type(self).__name__} has no equivalent core expression: its values come from code of its own"
            raise ScheduleError(
                f"{what}; use tensorsched.from_values([value for _, value in simulate_values(...)])"
            )
        position = self._position()
        return self._schedule().skip(position) if position else self._schedule()

    # -- of a formula ---------------------------------------------------------------------------------------------

    def _position(self) -> int:
        """Where the schedule is read at the next event."""
        return int(self.event_index)

    def _schedule(self) -> Schedule:
        """The core expression of the attributes; the event sets its value at `_position`."""
        raise NotImplementedError

    def _values(self, first: int, stop: int) -> list[float]:
        """The values at these positions; ScheduleError where one is not finite."""
        return evaluate(self._schedule(), first, stop).tolist()  # type: ignore[no-any-return]  # of float64

    def _forecast(self, count: int) -> Forecast:
        """What the next events set, at least one and at most `count`."""
        first = self._position()
        try:
            return self._values(first, first + count), {}
        except (ScheduleError, OverflowError):  # of some of these; an error when that event has come
            return self._values(first, first + 1), {}

    def _look(self) -> Ahead:
        """The values ahead, evaluated anew where there are none, or they have ended."""
        ahead = self._ahead
        return ahead if ahead is not None and ahead.serves(self) else Ahead(self, [self], ahead)


class Formula(BaseParamScheduler):
    """A handler whose `get_param()` is its schedule at `event_index`."""

    def get_param(self) -> float:
        """The value at `event_index`."""
        return self._values(self.event_index, self.event_index + 1)[0]


def record(engine: Any, name: str, *values: Any) -> None:
    """Append values to engine.state.param_history[name], making both where they are missing."""
    if getattr(engine.state, "param_history", None) is None:
        engine.state.param_history = {}
    engine.state.param_history.setdefault(name, []).extend(values)


def _default_event(name: str) -> Any:
    """The event `Events.<name>` of ignite: the only place that imports it."""
    try:
        from ignite.engine import Events
    except ImportError as error:
        what = f"attach() without an event means ignite's Events.{name}, which is not installed"
        raise ModuleNotFoundError(f"{what}: pip install pytorch-ignite, or pass an event") from error
    return Events[name]


# -- checks: errors name the argument, the rule and the value ---------------------------------------------------------


def check_type(where: str, value: object, kind: Any, what: str) -> Any:
    """The value; ignite's TypeError unless it is of that kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{where} must be {what}, got {type(value)}")
    return value


def check_number(where: str, value: object) -> float:
    """A finite number as Python has it: a tensor may change, and a checkpoint cannot hold a number of numpy's."""
    one = isinstance(value, torch.Tensor) and value.numel() == 1
    return check_real(where, value.item() if one else value)  # type: ignore[attr-defined]  # a tensor


def check_events(where: str, value: object, *, least: int) -> int:
    """A whole number of events; a float is let through if it is whole (ignite takes len(loader) * 1.0)."""
    number: Any = check_type(where, value, (int, float, np.integer, np.floating), "a whole number of events")
    if not math.isfinite(number) or number != int(number) or number < least:
        raise refuse(where, f"a whole number of at least {least} events", value)
    return int(number)


def check_names(where: str, names: object) -> list[str] | tuple[str, ...]:
    """A list or tuple of str, with ignite's exceptions."""
    given: list[str] | tuple[str, ...] = check_type(where, names, (list, tuple), "a list or tuple")
    if not all(isinstance(name, str) for name in given):
        raise refuse(where, "a list or tuple of str", names)
    return given


def check_state(scheduler: object, state_dict: object, needed: Iterable[str]) -> None:
    """TypeError unless it is a mapping, ScheduleError unless it has all these entries."""
    state = check_type("state_dict", state_dict, Mapping, "a dict")
    for name in needed:
        if name not in state:
            what = f"the state has no {name!r}, it holds {list(state)}"
            raise ScheduleError(f"{what}; load what state_dict() of a {type(scheduler).__name__} gave")

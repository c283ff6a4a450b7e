"""What every handler shares: the event counter, the state and the look-ahead.

Events count from 0 in `event_index`: it is used, then incremented. The class names, the constructors' order and the
state are ignite 0.5.5's (`ignite.handlers.param_scheduler`).
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.lazy import matplotlib_pyplot
from tensorsched.integrations.ignite.lookahead import FIRST, MOST, Forecast, LookAhead, describe
from tensorsched.schedules import Schedule

__all__ = ["BaseParamScheduler", "check_state", "load_all", "member_states", "record"]


class BaseParamScheduler(metaclass=ABCMeta):
    """A handler that sets a named value at every event.

    Args:
        param_name: name of the value.
        save_history: append each value to `engine.state.param_history[name]`.

    Attributes:
        event_index: the event that comes next, from 0; may be assigned to.

    A scheduler whose values are a formula of its attributes tabulates them ahead (`_forecast`); assigning to any
    attribute drops that table, so that the next event sees the new value.
    """

    _tabulated: ClassVar[bool] = False
    _ahead: Any = None  # the LookAhead, or the table of a ParamGroupScheduler, that covers the next events

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A subclass may override the formula: it is tabulated only if it says so itself.
        cls._tabulated = cls.__dict__.get("_tabulated", False)

    def __init__(self, param_name: str, save_history: bool = False) -> None:
        self.param_name = param_name
        self.event_index = 0
        self._save_history = save_history
        self._state_attrs = ["event_index", "param_name", "save_history"]

    def __setattr__(self, name: str, value: Any) -> None:
        if self._ahead is not None:
            self._forget()
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"_ahead", "_writer"}}

    def _forget(self) -> None:
        """Drop the table, whoever reads it."""
        ahead = self.__dict__.pop("_ahead", None)
        if ahead is not None:
            ahead.valid = False

    @property
    def save_history(self) -> bool:
        """Whether values are appended to `engine.state.param_history`."""
        return self._save_history

    @save_history.setter
    def save_history(self, value: bool) -> None:
        self._save_history = value

    def state_dict(self) -> dict[str, Any]:
        """The state under ignite's names, plain numbers and strings where the scheduler holds such."""
        state: dict[str, Any] = {}
        for name in self._state_attrs:
            if hasattr(self, name):
                value = getattr(self, name)
                state[name] = copy(value.state_dict() if hasattr(value, "state_dict") else value)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; nothing changes if it is refused.

        Raises:
            TypeError: it is no mapping.
            ValueError: an entry is missing.
        """
        check_state(self, state_dict)
        for name in self._state_attrs:
            value, held = state_dict[name], vars(self).get(name)
            if held is not None and isinstance(value, Mapping) and hasattr(held, "load_state_dict"):
                held.load_state_dict(value)
            else:
                # A copy: what goes on here must not change the checkpoint that it came from.
                setattr(self, name, copy(value) if isinstance(value, list) else value)

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
        plt = matplotlib_pyplot()
        rows = cls.simulate_values(num_events=num_events, **scheduler_kwargs)
        columns = [row[1:] if len(row) != 2 else row[1] for row in rows]  # noqa: PLR2004  [event, value]
        label = scheduler_kwargs.get("param_name", "learning rate")
        lines = plt.plot([row[0] for row in rows], columns, label=label)
        plt.legend()
        plt.grid(which="both")
        return lines

    def as_schedule(self) -> Schedule | list[Schedule | None]:
        """The core expression f such that f(t) is what event t from now sets; a list where groups differ.

        Raises:
            ScheduleError: there is none, because the values are not a formula of the event alone.
        """
        if not self._tabulated:  # a subclass may have overridden what the expression would be made of
            raise ScheduleError(
                f"{type(self).__name__} has no equivalent core expression: its values come from code of its own; "
                "tabulate them with tensorsched.from_values([value for _, value in ...simulate_values(...)])"
            )
        return self._as_schedule()

    # -- the table ------------------------------------------------------------------------------------------------

    def _forecast(self, count: int) -> Forecast:
        """The next `count` values from `event_index` on; see `lookahead`."""
        raise NotImplementedError

    def _as_schedule(self) -> Schedule:
        """See `as_schedule`."""
        raise NotImplementedError

    def _look(self) -> LookAhead:
        """The table, at the entry of the next event; computed anew where there is none, or it has ended."""
        ahead = self._ahead
        length = FIRST
        if type(ahead) is LookAhead:
            if ahead.current:
                return ahead
            if ahead.at == ahead.end:
                length = min(2 * ahead.end, MOST)
        self._forget()
        ahead = LookAhead(self._forecast(length), describe(self, self.__dict__))
        self.__dict__["_ahead"] = ahead
        return ahead


def record(engine: Any, name: str, value: Any) -> None:
    """Append to engine.state.param_history[name], making both where they are missing."""
    if getattr(engine.state, "param_history", None) is None:
        engine.state.param_history = {}
    engine.state.param_history.setdefault(name, []).append(value)


def check_state(scheduler: BaseParamScheduler, state_dict: object) -> None:
    """TypeError unless it is a mapping, ScheduleError unless it has all that the scheduler itself needs."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a dict, got {type(state_dict)}")
    for name in scheduler._state_attrs:  # noqa: SLF001  the same module
        if name not in state_dict:
            raise ScheduleError(
                f"the state has no {name!r}, which {type(scheduler).__name__} needs; it holds {list(state_dict)}. "
                "Load what state_dict() of a scheduler of the same class gave"
            )


def member_states(state_dict: Mapping[str, Any], count: int) -> Sequence[Any]:
    """The entry "schedulers" of a state; TypeError or ScheduleError unless it is there and holds `count`."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a dict, got {type(state_dict)}")
    if "schedulers" not in state_dict:
        raise ScheduleError(f"the state has no 'schedulers'; it holds {list(state_dict)}")
    states: Sequence[Any] = state_dict["schedulers"]
    if len(states) != count:
        raise ScheduleError(f"the state is of {len(states)} schedulers, where there are {count} here")
    return states


def load_all(schedulers: Sequence[Any], states: Sequence[Mapping[str, Any]]) -> None:
    """Load one state into each scheduler; if one refuses, all are as before."""
    before = [scheduler.state_dict() for scheduler in schedulers]
    try:
        for scheduler, state in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(state)
    except Exception:
        for scheduler, state in zip(schedulers, before, strict=True):
            scheduler.load_state_dict(state)
        raise

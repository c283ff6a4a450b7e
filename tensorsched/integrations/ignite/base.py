"""What every handler shares: the event counter, the state, the look-ahead; and the handlers of an optimizer's values.

Events count from 0 in `event_index`: it is used, then incremented. The class names, the constructors' order and the
state are ignite 0.5.5's (`ignite.handlers.param_scheduler`).
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar

import torch

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.lazy import default_event, matplotlib_pyplot
from tensorsched.integrations.ignite.lookahead import FIRST, MOST, Forecast, LookAhead, changed, describe
from tensorsched.integrations.ignite.places import WINDOW, Writer, check_places, put, read
from tensorsched.schedules import Schedule

__all__ = ["BaseParamScheduler", "ParamScheduler", "check_state", "load_all", "member_states", "record"]


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

    def as_schedule(self) -> Schedule | list[Schedule]:
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
            if ahead.at < ahead.end:
                if not (ahead.watched and changed(ahead.watched)):
                    return ahead
            else:
                length = min(2 * ahead.end, MOST)
        self._forget()
        ahead = LookAhead(self._forecast(length), describe(self, self.__dict__))
        self.__dict__["_ahead"] = ahead
        return ahead


class ParamScheduler(BaseParamScheduler):
    """A handler that sets one entry of an optimizer's param groups at every event.

    The value is absolute: whatever the groups held, or another scheduler wrote, is replaced. A group that holds a
    tensor keeps it, filled with the value on its device. Subclasses define `get_param()`.

    Args:
        optimizer: a torch optimizer, or any object with a list or tuple `param_groups`.
        param_name: the groups' key ("lr"), an element of a tuple ("betas[0]"), or a label for an entry of its own
            beside a key ("lr (base)").
        save_history: append the groups' values to `engine.state.param_history[name]` at every event.
        param_group_index: the one group that is meant; None (default) means all.

    Raises:
        TypeError: the optimizer has no sequence `param_groups`.
        ScheduleError: no such group, or a group has no such entry.

    Source: ignite.handlers.param_scheduler.ParamScheduler.
    """

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:
        super().__init__(param_name, save_history)
        groups = getattr(optimizer, "param_groups", None)
        if not isinstance(optimizer, torch.optim.Optimizer) and not isinstance(groups, Sequence):
            raise TypeError(
                "optimizer must be a torch.optim.Optimizer or have a list or tuple `param_groups`, "
                f"got {type(optimizer)}"
            )
        self.optimizer = optimizer
        self.param_group_index = param_group_index
        self._state_attrs += ["param_group_index"]
        self._check_places()

    def _check_places(self) -> None:
        check_places(self.optimizer.param_groups, self.param_name, self.param_group_index)

    def attach(self, engine: Any, event: Any = None) -> None:
        """Let `engine` call this handler at `event`, by default Events.ITERATION_STARTED.

        Raises:
            ModuleNotFoundError: no event is given and ignite is not installed.
        """
        engine.add_event_handler(default_event("ITERATION_STARTED") if event is None else event, self)

    def __call__(self, engine: Any, name: str | None = None) -> None:
        """One event: put the value into the groups. Does not synchronise, but to read tensors for the history.

        Args:
            engine: the ignite Engine whose `state` takes the history, or None.
            name: of the history; default `param_name`.

        Raises:
            ValueError: `get_param()` gave a list that has not one value for each group.
        """
        if self._tabulated:
            ahead = self._look()
            self._write(ahead.values[ahead.at])
        else:
            ahead = None
            self._begin_event()
            self._write(self._get_param())
        if engine is not None and self.save_history:
            self._record(engine, name)
        if ahead is None:
            self.event_index += 1
        else:
            ahead.step(self.__dict__)

    def _begin_event(self) -> None:
        """What changes in the attributes before the event, where no table says so."""

    def _record(self, engine: Any, name: str | None) -> None:
        values = [read(group, self.param_name) for group in self.optimizer_param_groups]
        record(engine, self.param_name if name is None else name, values)

    def _get_param(self) -> Any:
        """What the event sets; classes between this one and a user's may refine it."""
        return self.get_param()

    def _write(self, value: Any) -> None:
        groups, name = self.optimizer_param_groups, self.param_name
        if len(groups) > WINDOW or type(value) is not float:
            self._write_many(groups, value)
            return
        for group in groups:
            if type(group.get(name)) is float:  # what `put` does, without a call
                group[name] = value
            else:
                put(group, name, value)

    def _write_many(self, groups: Sequence[dict[str, Any]], value: Any) -> None:
        if isinstance(value, list) and len(value) != len(groups):
            raise ScheduleError(
                f"get_param() gave {len(value)} values for {len(groups)} param groups; return a number for all, or "
                "a list with one for each"
            )
        writer = self.__dict__.get("_writer")
        if writer is None:
            writer = self.__dict__["_writer"] = Writer()
        if isinstance(value, list):
            writer.write_row(groups, [self.param_name], value)
        else:
            writer.write(groups, self.param_name, value)

    @property
    def optimizer_param_groups(self) -> Sequence[dict[str, Any]]:
        """The groups that are meant."""
        groups: Sequence[dict[str, Any]] = self.optimizer.param_groups
        return groups if self.param_group_index is None else [groups[self.param_group_index]]

    @classmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """[[event, value], ...] of the first `num_events` events of a scheduler with these arguments.

        Args:
            num_events: how many.
            **scheduler_kwargs: the constructor's, without optimizer; an optimizer and save_history are left aside.

        Example:
            >>> from tensorsched.integrations.ignite import LinearCyclicalScheduler
            >>> LinearCyclicalScheduler.simulate_values(
            ...     num_events=3, param_name="lr", start_value=0.0, end_value=1.0, cycle_size=4
            ... )
            [[0, 0.0], [1, 0.5], [2, 1.0]]
        """
        arguments = {k: v for k, v in scheduler_kwargs.items() if k not in {"optimizer", "save_history"}}
        index = arguments.get("param_group_index")
        groups = index + 1 if isinstance(index, int) and index >= 0 else 1
        optimizer = _simulated_optimizer(arguments.get("param_name", "lr"), groups)
        scheduler = cls(optimizer=optimizer, save_history=False, **arguments)
        values = []
        for event in range(num_events):
            scheduler(None)
            values.append([event, read(scheduler.optimizer_param_groups[0], scheduler.param_name)])
        return values


def _simulated_optimizer(param_name: object, groups: int) -> torch.optim.Optimizer:
    """An optimizer of nothing, each group of which has an entry of this name."""
    made = [{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(groups)]
    optimizer = torch.optim.SGD(made, lr=0.01)
    for group in optimizer.param_groups:
        group.setdefault(str(param_name), 0.01)
    return optimizer


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

"""Handlers that set an entry of an optimizer's param groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.base import BaseParamScheduler, record
from tensorsched.integrations.ignite.lazy import default_event
from tensorsched.integrations.ignite.lookahead import LookAhead
from tensorsched.integrations.ignite.places import WINDOW, Writer, check_places, put, read

__all__ = ["ParamScheduler"]


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
        if not self._tabulated:
            self._begin_event()
            self._write(self._get_param())
            if engine is not None and self.save_history:
                self._record(engine, name)
            self.event_index += 1
            return
        ahead = self._ahead
        # `ahead.current` and `ahead.step`, written out: at one group a call is a tenth of what an event costs.
        if type(ahead) is not LookAhead or ahead.at >= ahead.end or ahead.lists != ahead.copies:
            ahead = self._look()
        at, state = ahead.at, self.__dict__
        self._write(ahead.values[at])
        if engine is not None and self.save_history:
            self._record(engine, name)
        if at in ahead.marks:
            state.update(ahead.marks[at])
        state["event_index"] += 1
        ahead.at = at + 1

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

"""From a core schedule to a handler; the way back is `as_schedule()` of every handler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.integrations.ignite.param import ParamScheduler, read
from tensorsched.schedules import Schedule
from tensorsched.schedules.algebra import check_schedule, has_initial, substitute_initial

__all__ = ["ScheduleHandler", "from_schedule"]


class ScheduleHandler(base.Formula, ParamScheduler):
    """A handler for any core schedule: event i sets schedule(i). Made by `from_schedule`.

    Its state also holds the schedule's fingerprint, and a state of another schedule is refused.
    """

    _formula = True

    def __init__(
        self, optimizer: Any, param_name: str, schedule: Schedule, save_history: bool = False,
        param_group_index: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(optimizer, param_name, save_history, param_group_index)
        self.schedule = check_schedule("schedule", schedule)
        if has_initial(schedule):
            held = {read(group, param_name) for group in self.optimizer_param_groups}
            if len(held) != 1:
                raise ScheduleError(
                    f"ts.initial stands for one value, but the groups hold {sorted(held)} under {param_name!r}; make "
                    "one handler a group with param_group_index=, and a ParamGroupScheduler of them"
                )
            self.schedule = substitute_initial(schedule, held.pop())

    def state_dict(self) -> dict[str, Any]:
        """ParamScheduler's, and the schedule's fingerprint."""
        return super().state_dict() | {"fingerprint": self.schedule.fingerprint}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; nothing changes if it is refused.

        Raises:
            TypeError: it is no mapping.
            ValueError: an entry is missing, or it is of another schedule.
        """
        base.check_state(self, state_dict, self._state_attrs)
        saved = state_dict.get("fingerprint")
        if saved != self.schedule.fingerprint:
            raise ScheduleError(
                f"the state is of another schedule (fingerprint {saved}) than {self.schedule!r}; "
                "build the handler from the schedule that was saved, or set event_index by hand"
            )
        super().load_state_dict(state_dict)

    def _schedule(self) -> Schedule:
        return self.schedule


def from_schedule(
    optimizer: Any, param_name: str, schedule: Schedule, *, save_history: bool = False,
    param_group_index: int | None = None,
) -> ScheduleHandler:  # fmt: skip
    """An ignite handler for any core schedule: event i sets schedule(i).

    Args:
        optimizer: a torch optimizer, or any object with a list or tuple `param_groups`.
        param_name: the groups' key; see ParamScheduler.
        schedule: what the value follows. `ts.initial` in it stands for what the groups hold now.
        save_history: append the groups' values to `engine.state.param_history[name]`.
        param_group_index: the one group that is meant; None (default) means all.

    Returns:
        A handler; attach it to an engine. Its events do not synchronise.

    Raises:
        TypeError: the optimizer has no sequence `param_groups`.
        ScheduleError: it is no schedule, there is no such group or entry, or `ts.initial` differs by group.

    Example:
        >>> import torch, tensorsched as ts
        >>> from tensorsched.integrations.ignite import from_schedule
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> handler = from_schedule(optimizer, "lr", ts.initial * ts.linear(1.0, 0.0, steps=2))
        >>> for _ in range(3):
        ...     handler(None)
        ...     print(optimizer.param_groups[0]["lr"])
        1.0
        0.5
        0.0
    """
    return ScheduleHandler(optimizer, param_name, schedule, save_history, param_group_index)

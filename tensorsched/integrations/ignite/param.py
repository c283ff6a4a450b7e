"""Handlers that set an entry of an optimizer's param groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tensorsched.binding.movers import fill_all, fill_each
from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.param_groups import Place, as_float, known_keys
from tensorsched.recording.scheduler_copy import Group, StandIn, double
from tensorsched.schedules.validators import refuse

__all__ = ["ParamScheduler", "after_event", "each", "on_copies", "read"]

_LABEL = re.compile(r"(.+?) \(.*\)")


class ParamScheduler(base.BaseParamScheduler):
    """A handler that sets one entry of an optimizer's param groups at every event.

    The value is absolute: whatever the groups held, or another scheduler wrote, is replaced. A group that holds a
    tensor keeps it, filled with the value on its device. Subclasses define `get_param()`.

    Args:
        optimizer: a torch optimizer, or any object with a list or tuple `param_groups`.
        param_name: the groups' key ("lr"), an element of a tuple ("betas[0]"), or a label for an entry of its own
            beside a key ("lr (base)"). A group that holds no hyperparameter at all takes any name.
        save_history: append the groups' values to `engine.state.param_history[name]` at every event.
        param_group_index: the one group that is meant; None (default) means all.

    Raises:
        TypeError: the optimizer has no sequence `param_groups`.
        ScheduleError: no such group, or a group has no such entry.

    Source: ignite.handlers.param_scheduler.ParamScheduler.
    """

    def __init__(
        self, optimizer: Any, param_name: str, save_history: bool = False, param_group_index: int | None = None
    ) -> None:  # fmt: skip
        super().__init__(param_name, save_history)
        held = getattr(optimizer, "param_groups", None)
        groups = base.check_type(
            "optimizer.param_groups", held, Sequence, "a list or tuple, as a torch optimizer's"
        )
        if param_group_index is not None and param_group_index not in range(-len(groups), len(groups)):
            rule = f"None or an int that counts one of the {len(groups)} param_groups from 0"
            raise refuse("param_group_index", rule, param_group_index)
        self.optimizer = optimizer
        self.param_group_index = param_group_index
        self._state_attrs += ["param_group_index"]
        _check_part(self.optimizer_param_groups, param_name)

    def __call__(self, engine: Any, name: str | None = None) -> None:
        """One event: put the value into the groups. Does not synchronise, but to read tensors for the history.

        Args:
            engine: the ignite Engine whose `state` takes the history, or None.
            name: of the history; default `param_name`.

        Raises:
            ValueError: `get_param()` gave a list that has not one value for each group.
        """
        # `Ahead.serves` and `Ahead.passed`, written out: at one group, calls are most of what an event costs.
        ahead = self._ahead
        if (
            ahead is None or ahead.owner is not self or ahead.at >= len(ahead.rows) or ahead.lists != ahead.copies
        ):  # fmt: skip
            if not self._formula:
                self._write(self._get_param())
                self._record(engine, name)
                self.event_index += 1
                return
            ahead = base.Ahead(self, [self], ahead)
        state, at = self.__dict__, ahead.at
        row, index, groups = ahead.rows[at], state["param_group_index"], self.optimizer.param_groups
        fill_all(groups if index is None else (groups[index],), state["param_name"], ahead.last[0], row[0])
        if self.save_history:
            self._record(engine, name)
        if not at:
            state.update(ahead.turns[0])
        state["event_index"] += 1
        ahead.last, ahead.at = row, at + 1

    def _get_param(self) -> Any:
        """What the event sets, where nothing is looked ahead; a cycle turns here."""
        return self.get_param()

    def _write(self, value: Any) -> None:
        groups, part = self.optimizer_param_groups, self.param_name
        if not isinstance(value, list):
            fill_all(groups, part, None, value)
        elif len(value) == len(groups):
            fill_each(groups, [part] * len(groups), [None] * len(groups), value)
        else:
            what = f"get_param() gave {len(value)} values for {len(groups)} param groups"
            raise ScheduleError(f"{what}; return a number for all, or a list with one for each")

    def _record(self, engine: Any, name: str | None) -> None:
        if self.save_history and engine is not None:
            held = [read(group, self.param_name) for group in self.optimizer_param_groups]
            base.record(engine, self.param_name if name is None else name, held)

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
            **scheduler_kwargs: the constructor's, without optimizer; an optimizer and save_history are ignored.

        Example:
            >>> from tensorsched.integrations.ignite import LinearCyclicalScheduler
            >>> LinearCyclicalScheduler.simulate_values(
            ...     num_events=3, param_name="lr", start_value=0.0, end_value=1.0, cycle_size=4
            ... )
            [[0, 0.0], [1, 0.5], [2, 1.0]]
        """
        index = scheduler_kwargs.get("param_group_index")
        held = {"params": [], str(scheduler_kwargs.get("param_name", "lr")): 0.01}
        groups = [Group(held) for _ in range(index + 1 if isinstance(index, int) and index >= 0 else 1)]
        scheduler = cls(**(scheduler_kwargs | {"optimizer": StandIn(groups, {}), "save_history": False}))
        return [[event, after_event(scheduler)[0]] for event in range(num_events)]


def after_event(scheduler: ParamScheduler, *parts: str) -> list[Any]:
    """What its groups hold after its next event, under its own name or these."""
    scheduler(None)
    names = parts or (scheduler.param_name,)
    return [read(group, name) for name in names for group in scheduler.optimizer_param_groups]


def read(group: dict[str, Any], part: str) -> Any:
    """What the group holds there; of a tensor its number (which synchronises with its device), since it will change."""
    held = Place.parse(part, 0, group).read((group,))
    number = as_float(held)
    return held if number is None else number


def on_copies(schedulers: Sequence[Any]) -> list[Any]:
    """Copies of schedulers (of torch or ours) for simulations: these, and the optimizers behind, stay as they are."""
    # What `double` reaches is copied six objects deep, and shared below: what is innermost goes first, all else finds
    # its copy. (Without that, simulating a ConcatScheduler in a ConcatScheduler in ... stepped the real ones.)
    family, copied = [inner for scheduler in schedulers for inner in _inside(scheduler)], list(schedulers)
    while left := [held for s in copied for held in each(s.optimizer) if not isinstance(held, StandIn)]:
        (family, copied), _ = double((family, copied), left[0])
    return copied


def _inside(scheduler: Any) -> list[Any]:
    """A scheduler behind all that it is made of: handlers, torch's schedulers, those that torch chains."""
    held = [*getattr(scheduler, "schedulers", ()), *getattr(scheduler, "_schedulers", ())]
    held += [scheduler.lr_scheduler] if hasattr(scheduler, "lr_scheduler") else []
    return [*(inner for one in held for inner in _inside(one)), scheduler]


def each(held: Any) -> list[Any]:
    """What a scheduler holds as a list: a ParamGroupScheduler has several optimizers and param_names, others one."""
    return held if isinstance(held, list) else [held]


def _check_part(groups: Sequence[dict[str, Any]], part: object) -> None:
    """ScheduleError for a name that a group does not know.

    A name such as "lr (base)" is a label: an entry of its own, beside a key that must exist.
    """
    if not isinstance(part, str):
        raise refuse("param_name", "a str such as 'lr'", part)
    label = _LABEL.fullmatch(part)
    for group in groups:
        bare = not group.keys() - {"params"}  # an optimizer of another kind: nothing to misspell
        if not (bare or Place.parse(part, 0, group).exists((group,)) or (label and label[1] in group)):
            what = f"no param group entry {part!r} to schedule: {known_keys(group, part)}"
            raise ScheduleError(
                f"{what}; a tuple's element is written 'betas[0]', an entry for show 'lr (base)'"
            )

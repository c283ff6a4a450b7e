"""Schedulers side by side, one for each param group, with one table for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.base import load_all, member_states
from tensorsched.integrations.ignite.copies import quiet_steps, replicas
from tensorsched.integrations.ignite.lazy import default_event
from tensorsched.integrations.ignite.lookahead import describe, finite_part
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.integrations.ignite.places import Writer, read
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import Array

__all__ = ["ParamGroupScheduler"]

TABULATE_FROM = 3
"""Members from which a ParamGroupScheduler tabulates them together: fewer are cheaper to call."""

FIRST_ROWS, MOST_ROWS, MOST_NUMBERS = 32, 1024, 2**18
"""Events in its first table and in its longest; numbers in a table."""


class ParamGroupScheduler:
    """Schedulers side by side, one for each param group.

    Args:
        schedulers: parameter schedulers, usually with a param_group_index each.
        names: one a scheduler, for the history and the state; default: the param_names.
        save_history: append the values to `engine.state.param_history[name]`.

    The next values of all members are tabulated together: an event costs one look-up, a write for each group, and no
    call of a member.

    Raises:
        TypeError: schedulers is no sequence, or names no list or tuple.
        ScheduleError: something in schedulers is none, a name is no str, or there are more or fewer names.

    Source: ignite.handlers.param_scheduler.ParamGroupScheduler.
    """

    def __init__(
        self,
        schedulers: Sequence[ParamScheduler],
        names: Sequence[str] | None = None,
        save_history: bool = False,
    ) -> None:
        names = _check_members(schedulers, names)
        self.schedulers = schedulers
        self.names = names
        self.save_history = save_history
        self.optimizer = [s.optimizer for s in schedulers]
        self.param_name = [s.param_name for s in schedulers]
        self._table: _GroupTable | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_table": None}

    def __call__(self, engine: Any, name: str | None = None) -> None:  # noqa: ARG002  each has its own name
        """One event of every scheduler."""
        if len(self.schedulers) >= TABULATE_FROM:
            table = self._table
            if table is None or table.members is not self.schedulers or not table.usable:
                table = self._tabulate()
            if table is not None:
                table.step()
                return
        for scheduler, own_name in zip(self.schedulers, self.names):  # noqa: B905  as many, see the constructor
            scheduler(engine, own_name)

    def attach(self, engine: Any, event: Any = None) -> None:
        """Let `engine` call this handler at `event`, by default Events.ITERATION_STARTED.

        Raises:
            ModuleNotFoundError: no event is given and ignite is not installed.
        """
        engine.add_event_handler(default_event("ITERATION_STARTED") if event is None else event, self)

    def _tabulate(self) -> _GroupTable | None:
        """The table of the next events; None if the members must be called one by one."""
        before, self._table = self._table, None
        if not _GroupTable.fits(self.schedulers):
            return None
        rows = min(2 * before.rows, MOST_ROWS) if before is not None and before.valid else FIRST_ROWS
        self._table = _GroupTable(self.schedulers, min(rows, max(MOST_NUMBERS // len(self.schedulers), 1)))
        return self._table

    @property
    def optimizer_param_groups(self) -> list[dict[str, Any]]:
        """The groups that the schedulers mean, one scheduler after the other."""
        return [group for scheduler in self.schedulers for group in scheduler.optimizer_param_groups]

    @property
    def save_history(self) -> bool:
        """Whether the schedulers keep a history; assigning sets it for all."""
        return self.schedulers[0].save_history

    @save_history.setter
    def save_history(self, value: bool) -> None:
        for scheduler in self.schedulers:
            scheduler.save_history = value

    def get_param(self) -> list[Any]:
        """The value of every scheduler."""
        return [scheduler.get_param() for scheduler in self.schedulers]

    def state_dict(self) -> dict[str, Any]:
        """{"schedulers": [(name, state), ...]}."""
        return {"schedulers": [(n, s.state_dict()) for n, s in zip(self.names, self.schedulers, strict=True)]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; nothing changes if it is refused.

        Raises:
            TypeError: it is no mapping.
            ValueError: it has other names, or another number of schedulers.
        """
        states = member_states(state_dict, len(self.schedulers))
        for wanted, (name, _) in zip(self.names, states, strict=True):
            if name != wanted:
                raise ScheduleError(
                    f"the state is of a scheduler named {name!r}, where this one has {wanted!r}"
                )
        load_all(self.schedulers, [state for _, state in states])

    @classmethod
    def simulate_values(
        cls, num_events: int, schedulers: Sequence[ParamScheduler], **kwargs: Any
    ) -> list[list[Any]]:
        """[[event, value of scheduler 0, of scheduler 1, ...], ...] of the next events; run on copies.

        These are the values that the events set. (ignite's are those of `get_param()` before each event, which differ
        at the start of a cycle and in a warm-up.)
        """
        _check_members(schedulers, kwargs.get("names"))
        with quiet_steps():
            members = cls(replicas(schedulers), **(kwargs | {"save_history": False})).schedulers
            rows: list[list[Any]] = []
            for event in range(num_events):
                rows.append([event])
                for member in members:
                    member(None)
                    rows[-1].append(_set_by(member))
        return rows

    def as_schedule(self) -> Schedule | list[Schedule | None]:
        """The core expressions, one a param group, as `tensorsched.attach(optimizer, lr=[...])` takes them.

        None for a group that no scheduler means; a single expression where all groups have the same.

        Raises:
            ScheduleError: one of the schedulers has none, or means all groups, or the same as another.
        """
        by_group: list[Any] = [None] * len(self.schedulers[0].optimizer.param_groups)
        for scheduler in self.schedulers:
            index = scheduler.param_group_index
            if index is None or by_group[index] is not None:
                raise ScheduleError(
                    f"{describe(scheduler, scheduler.__dict__)} does not have a param group for itself, so these "
                    "schedulers have no core expression: give each its param_group_index"
                )
            by_group[index] = scheduler.as_schedule()
        return by_group[0] if all(part == by_group[0] for part in by_group) else by_group


class _GroupTable:
    """The next values of all members as one matrix, (events, members), and what changes in them on the way.

    Holds until a member is called by itself, has an attribute assigned to, or has a list changed in place.
    """

    def __init__(self, schedulers: Sequence[ParamScheduler], rows: int) -> None:
        columns: list[Array] = []
        marks: dict[int, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
        lists: list[list[Any]] = []
        for scheduler in schedulers:
            values, changes, live = scheduler._forecast(rows)  # noqa: SLF001  a table looks into its members
            columns.append(finite_part(values, describe(scheduler, scheduler.__dict__)))
            for offset, change in changes.items():
                marks.setdefault(offset, []).append((scheduler.__dict__, change))
            lists += live
        self.rows = min(map(len, columns))
        self._matrix = np.stack([column[: self.rows] for column in columns], axis=1)
        self._marks = marks
        self.members = schedulers
        if isinstance(schedulers, list):
            lists.append(schedulers)
        self._lists, self._copies = lists, [list(live) for live in lists]
        self._states = [scheduler.__dict__ for scheduler in schedulers]
        self._optimizer = schedulers[0].optimizer
        self._pick = itemgetter(*(scheduler.param_group_index for scheduler in schedulers))
        names = [scheduler.param_name for scheduler in schedulers]
        self._names = names[:1] if len(set(names)) == 1 else names
        self._writer = Writer()
        self.valid = True
        self.at = 0
        for scheduler in schedulers:
            scheduler._forget()  # noqa: SLF001
        for state in self._states:
            state["_ahead"] = self

    @staticmethod
    def fits(schedulers: Sequence[ParamScheduler]) -> bool:
        """Whether every member is tabulated, means one group of the same optimizer, and keeps no history."""
        optimizer = schedulers[0].optimizer
        return all(
            s._tabulated  # noqa: SLF001
            and not s.save_history
            and s.param_group_index is not None
            and s.optimizer is optimizer
            for s in schedulers
        ) and len({id(s) for s in schedulers}) == len(schedulers)

    @property
    def usable(self) -> bool:
        return self.valid and self.at < self.rows and self._lists == self._copies

    def step(self) -> None:
        """One event: the row into the groups, and the members' attributes up to date."""
        at = self.at
        self._writer.write_row(
            self._pick(self._optimizer.param_groups), self._names, self._matrix[at].tolist()
        )
        for state, change in self._marks.get(at, ()):
            state.update(change)
        for state in self._states:
            state["event_index"] += 1
        self.at = at + 1


def _check_members(schedulers: object, names: object) -> list[str] | tuple[str, ...]:
    """The names; raises as ParamGroupScheduler says."""
    if not isinstance(schedulers, Sequence):
        raise TypeError(f"schedulers must be a list or tuple, got {type(schedulers)}")
    for i, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, ParamScheduler):
            raise ScheduleError(f"schedulers[{i}] must be a parameter scheduler, got {type(scheduler)}")
    names = [s.param_name for s in schedulers] if names is None else names
    if not isinstance(names, (list, tuple)):
        raise TypeError(f"names must be a list or tuple, got {type(names)}")
    if not all(isinstance(name, str) for name in names):
        raise ScheduleError(f"names must be a list or tuple of str, got {names!r}")
    if len(names) != len(schedulers):
        raise ScheduleError(f"{len(schedulers)} schedulers need as many names, got {len(names)}")
    return names


def _set_by(scheduler: ParamScheduler) -> Any:
    """The value that its last event set, a list where its groups differ."""
    values = [read(group, scheduler.param_name) for group in scheduler.optimizer_param_groups]
    return values if any(value != values[0] for value in values) else values[0]

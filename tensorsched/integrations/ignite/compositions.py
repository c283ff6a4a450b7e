"""Schedulers of schedulers: side by side, one for each param group, and one after the other."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tensorsched.binding.movers import fill_each
from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.integrations.ignite.ahead import Ahead
from tensorsched.integrations.ignite.param import ParamScheduler, after_event, each, on_copies
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import refuse

__all__ = ["ConcatScheduler", "ParamGroupScheduler", "one_or_each"]

Expressions = list[Schedule | None]
"""One a param group; None for a group that nobody means."""


class Composite:
    """What schedulers of schedulers have in common."""

    schedulers: Sequence[Any]

    @property
    def save_history(self) -> bool:
        """Whether the schedulers keep a history; assigning sets it for all."""
        return bool(self.schedulers[0].save_history)

    @save_history.setter
    def save_history(self, value: bool) -> None:
        for scheduler in self.schedulers:
            scheduler.save_history = value

    def _load(self, states: Sequence[Any]) -> None:
        """Load one state into each scheduler; if one refuses, all are as before."""
        if len(states) != len(self.schedulers):
            raise refuse("the state", f"of {len(self.schedulers)} schedulers", states)
        loads = [scheduler.load_state_dict for scheduler in self.schedulers]
        before = [scheduler.state_dict() for scheduler in self.schedulers]
        try:
            _ = [load(state) for load, state in zip(loads, states, strict=True)]
        except Exception:
            _ = [load(state) for load, state in zip(loads, before, strict=True)]
            raise


class ParamGroupScheduler(Composite):
    """Schedulers side by side, one for each param group.

    The next values of all are looked ahead together: an event costs one look-up, a look at each group and a write, and
    no call of a scheduler. Where one has code of its own or keeps a history, they are called one by one.

    Args:
        schedulers: parameter schedulers, usually with a param_group_index each.
        names: one a scheduler, for the history and the state; default: the param_names.
        save_history: append the values to `engine.state.param_history[name]`.

    Raises:
        TypeError: schedulers is no sequence, or names no list or tuple.
        ScheduleError: something in schedulers is none, a name is no str, or there are more or fewer names.

    Source: ignite.handlers.param_scheduler.ParamGroupScheduler.

    Example:
        >>> from tensorsched.integrations.ignite import CosineAnnealingScheduler, ParamGroupScheduler
        >>> import torch
        >>> optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(2)], lr=0.5)
        >>> ends = [CosineAnnealingScheduler(optimizer, "lr", 0.0, 1.0 + i, 4, param_group_index=i) for i in range(2)]
        >>> ParamGroupScheduler.simulate_values(num_events=3, schedulers=ends)[2]
        [2, 0.5, 1.0]
    """

    _ahead: Ahead | None = None
    _event: ClassVar[str] = "ITERATION_STARTED"
    attach = base.BaseParamScheduler.attach

    def __init__(
        self, schedulers: Sequence[ParamScheduler], names: Sequence[str] | None = None, save_history: bool = False
    ) -> None:  # fmt: skip
        self.names = _check_side_by_side(schedulers, names)
        self.schedulers = schedulers
        self.save_history = save_history
        self.optimizer = [s.optimizer for s in schedulers]
        self.param_name = [s.param_name for s in schedulers]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ahead": None}

    def __call__(self, engine: Any, name: str | None = None) -> None:  # noqa: ARG002  each has its own name
        """One event of every scheduler. Does not synchronise, but to read tensors for the history."""
        ahead = self._ahead
        if ahead is None or not ahead.serves(self.schedulers):
            if not _can_look_together(self.schedulers):
                for scheduler, own_name in zip(self.schedulers, self.names, strict=True):
                    scheduler(engine, own_name)
                return
            ahead = self._ahead = Ahead(self.schedulers, self.schedulers, ahead)
            # Assigning to them drops the rows, so they are as right as these.
            self._indices = [s.param_group_index for s in self.schedulers]
            self._parts = [s.param_name for s in self.schedulers]
        groups = self.schedulers[0].optimizer.param_groups
        meant = [groups[index] for index in self._indices]
        fill_each(meant, self._parts, ahead.last, ahead.rows[ahead.at])
        ahead.passed()

    @property
    def optimizer_param_groups(self) -> list[dict[str, Any]]:
        """The groups that the schedulers mean, one scheduler after the other."""
        return [group for scheduler in self.schedulers for group in scheduler.optimizer_param_groups]

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
        base.check_state(self, state_dict, ["schedulers"])
        names = [name for name, _ in state_dict["schedulers"]]
        if len(names) == len(self.names) and names != list(self.names):
            theirs, ours = (", ".join(map(repr, each)) for each in (names, self.names))
            raise ScheduleError(f"the state is of schedulers named {theirs}, where these are named {ours}")
        self._load([state for _, state in state_dict["schedulers"]])

    @classmethod
    def simulate_values(
        cls, num_events: int, schedulers: Sequence[ParamScheduler], **kwargs: Any
    ) -> list[list[Any]]:
        """[[event, value of scheduler 0, of scheduler 1, ...], ...] of the next events; run on copies.

        These are the values that the events set. (ignite's are those of `get_param()` before each event, which differ
        at the start of a cycle and in a warm-up.)

        Raises:
            TypeError, ScheduleError: what the constructor raises.
        """
        _check_side_by_side(schedulers, kwargs.get("names"))
        members = cls(on_copies(schedulers), **(kwargs | {"save_history": False})).schedulers
        return [[event, *map(_set_by, members)] for event in range(num_events)]

    def as_schedule(self) -> Schedule | Expressions:
        """The core expressions, one a param group, as `tensorsched.attach(optimizer, lr=[...])` takes them.

        None for a group that no scheduler means; a single expression where all groups have the same.

        Raises:
            ScheduleError: one of the schedulers has none, or means a group that another means, too.
        """
        columns = [_by_group(scheduler, scheduler.as_schedule()) for scheduler in self.schedulers]
        rows = [[part for part in row if part is not None] for row in zip(*columns, strict=True)]
        if any(len(row) > 1 for row in rows):
            what = "these schedulers have no core expression, because some mean the same param group"
            raise ScheduleError(f"{what}: give each its param_group_index")
        return one_or_each([row[0] if row else None for row in rows])


class ConcatScheduler(Composite, ParamScheduler):
    """Schedulers one after the other, each from its own event 0, for the given numbers of events; the last has no end.

    Args:
        schedulers: two or more, ParamGroupSchedulers among them if you like, of one optimizer and one param_name.
        durations: how many events each but the last runs; 0 leaves one out.
        save_history: append the groups' values to `engine.state.param_history[name]`.

    Raises:
        TypeError: schedulers is no sequence or holds something else, durations is no list or tuple.
        ScheduleError: fewer than two schedulers, durations that are no ints, negative or of another number, or
            schedulers of different optimizers or param_names.

    Source: ignite.handlers.param_scheduler.ConcatScheduler.

    Example:
        >>> import torch
        >>> from tensorsched.integrations.ignite import ConcatScheduler, LinearCyclicalScheduler, PiecewiseLinear
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        >>> warmup = PiecewiseLinear(optimizer, "lr", [(0, 0.0), (2, 1.0)])
        >>> cycles = LinearCyclicalScheduler(optimizer, "lr", 1.0, 0.0, 4)
        >>> ConcatScheduler.simulate_values(5, [warmup, cycles], [2])
        [[0, 0.0], [1, 0.5], [2, 1.0], [3, 0.5], [4, 0.0]]
    """

    def __init__(
        self, schedulers: Sequence[Any], durations: Sequence[int], save_history: bool = False
    ) -> None:
        optimizer, param_name = _check_concat(schedulers, durations)
        self.schedulers = schedulers
        self.durations = durations
        self._start(0)
        super().__init__(optimizer, param_name, save_history)
        self._state_attrs += ["_current_duration", "durations", "_scheduler_index"]

    def _start(self, index: int) -> None:
        self._scheduler_index, self._current_scheduler = index, self.schedulers[index]
        self._current_duration = self.durations[index] if index < len(self.durations) else -1

    def __call__(self, engine: Any, name: str | None = None) -> None:
        """One event, of the scheduler whose turn it is. Does not synchronise, but to read tensors for the history."""
        while self._current_duration == 0:
            self._start(self._scheduler_index + 1)
        self._current_scheduler(engine, name)
        self._current_duration -= 1

    @property
    def optimizer_param_groups(self) -> Sequence[dict[str, Any]]:
        """The groups that the present scheduler means."""
        return self._current_scheduler.optimizer_param_groups  # type: ignore[no-any-return]

    def get_param(self) -> Any:
        """The present scheduler's value."""
        return self._current_scheduler.get_param()

    def state_dict(self) -> dict[str, Any]:
        """The own state, and those of all schedulers under "schedulers"."""
        return super().state_dict() | {"schedulers": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; nothing changes if it is refused.

        Raises:
            TypeError: it is no mapping.
            ValueError: an entry is missing, or it has another number of schedulers.
        """
        base.check_state(self, state_dict, ["schedulers", *self._state_attrs])
        self._load(state_dict["schedulers"])
        super().load_state_dict(state_dict)
        self._current_scheduler = self.schedulers[self._scheduler_index]

    @classmethod
    def simulate_values(  # type: ignore[override]  # ignite's arguments
        cls, num_events: int, schedulers: Sequence[Any], durations: Sequence[int],
        param_names: Sequence[str] | None = None,
    ) -> list[list[Any]]:  # fmt: skip
        """[[event, value, ...], ...]: for each name in param_names the value of each group; run on copies.

        Args:
            num_events: how many.
            schedulers: as for the constructor; they and their optimizer stay as they are.
            durations: as for the constructor.
            param_names: which entries of the groups; default: the schedulers' param_name.

        Raises:
            TypeError: param_names is no list or tuple.
            ScheduleError: a param_name is no str; and what the constructor raises.
        """
        _, own_name = _check_concat(schedulers, durations)
        names = base.check_names("param_names", [own_name] if param_names is None else param_names)
        scheduler = cls(on_copies(schedulers), durations)
        return [[event, *after_event(scheduler, *names)] for event in range(num_events)]

    def as_schedule(self) -> Schedule | Expressions:
        """The core expression f such that f(t) is what event t from now sets; a list with one a group, if they differ.

        Raises:
            ScheduleError: one of the schedulers has none, or they mean different groups.
        """
        coming = self.schedulers[self._scheduler_index :]
        lengths = [self._current_duration, *self.durations[self._scheduler_index + 1 :]][: len(coming) - 1]
        parts = [scheduler.as_schedule() for scheduler in coming]
        columns = list(zip(*map(_by_group, coming, parts), strict=True))
        if any({part is None for part in column} == {True, False} for column in columns):
            raise ScheduleError("there is no core expression: the schedulers mean different param groups")
        chains = [None if column[0] is None else _chain(column, lengths) for column in columns]
        listed = any(isinstance(part, list) for part in parts)
        return one_or_each([chain for chain in chains if listed or chain is not None])


def one_or_each(found: Expressions) -> Schedule | Expressions:
    """One expression where all groups have the same."""
    first = found[0]
    return first if first is not None and all(part == first for part in found) else found


def _by_group(scheduler: Any, found: Schedule | Expressions) -> Expressions:
    """What a scheduler's `as_schedule()` found, one a group of the optimizer."""
    if isinstance(found, list):
        return found
    meant = set(map(id, scheduler.optimizer_param_groups))
    return [found if id(group) in meant else None for group in each(scheduler.optimizer)[0].param_groups]


def _chain(parts: Sequence[Schedule], lengths: Sequence[int]) -> Schedule:
    """The first parts for their lengths, then the last."""
    pieces = [part.take(length) for part, length in zip(parts[:-1], lengths, strict=True)]
    return functools.reduce(lambda a, b: a >> b, [*pieces, parts[-1]])


def _set_by(scheduler: ParamScheduler) -> Any:
    """The value that its next event sets, a list where its groups differ."""
    values = after_event(scheduler)
    return values if any(value != values[0] for value in values) else values[0]


def _can_look_together(schedulers: Sequence[ParamScheduler]) -> bool:
    """Whether a row of values is all that an event is: a history is read by each, and a group is written to once."""
    return len(set(map(id, schedulers))) == len(schedulers) and all(
        s._formula and not s.save_history and s.param_group_index is not None  # noqa: SLF001  one of us
        and s.optimizer is schedulers[0].optimizer
        for s in schedulers
    )  # fmt: skip


def _check_side_by_side(schedulers: object, names: object) -> list[str] | tuple[str, ...]:
    """The names; raises as ParamGroupScheduler says."""
    members: Sequence[Any] = base.check_type("schedulers", schedulers, Sequence, "a list or tuple")
    for i, scheduler in enumerate(members):
        if not isinstance(scheduler, ParamScheduler):
            raise refuse(f"schedulers[{i}]", "a parameter scheduler", scheduler)
    given = base.check_names("names", [s.param_name for s in members] if names is None else names)
    if len(given) != len(members):
        raise ScheduleError(f"{len(members)} schedulers need as many names, got {len(given)}")
    return given


def _check_concat(schedulers: object, durations: object) -> tuple[Any, str]:
    """The optimizer and the param_name of all; raises as ConcatScheduler says, before anything is taken over."""
    members: Sequence[Any] = base.check_type("schedulers", schedulers, Sequence, "a list or tuple")
    lengths: Sequence[Any] = base.check_type("durations", durations, (list, tuple), "a list or tuple of ints")
    if len(members) < 2 or len(members) != len(lengths) + 1:  # noqa: PLR2004  fewer need no ConcatScheduler
        rule = "ConcatScheduler needs at least two schedulers, and one duration less: the last one has no end"
        raise ScheduleError(f"{rule}; got {len(members)} and {len(lengths)}")
    for i, duration in enumerate(lengths):
        if not isinstance(duration, numbers.Integral) or duration < 0:
            raise refuse(f"durations[{i}]", "a whole number of at least 0 events", duration)
    for i, scheduler in enumerate(members):
        base.check_type(f"schedulers[{i}]", scheduler, (ParamScheduler, Composite), "a parameter scheduler")
    held = [optimizer for scheduler in members for optimizer in each(scheduler.optimizer)]
    names = {name for scheduler in members for name in each(scheduler.param_name)}
    if any(optimizer is not held[0] for optimizer in held) or len(names) > 1:
        raise ScheduleError("the schedulers of a ConcatScheduler must have one optimizer and one param_name")
    return held[0], names.pop()

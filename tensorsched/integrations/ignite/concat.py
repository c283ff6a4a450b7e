"""Schedulers one after the other."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.base import check_state, load_all, member_states
from tensorsched.integrations.ignite.copies import quiet_steps, replicas
from tensorsched.integrations.ignite.groups import ParamGroupScheduler
from tensorsched.integrations.ignite.lookahead import describe
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.integrations.ignite.places import read
from tensorsched.schedules import Schedule

__all__ = ["ConcatScheduler"]


class ConcatScheduler(ParamScheduler):
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
        self,
        schedulers: Sequence[Any],
        durations: Sequence[int],
        save_history: bool = False,
    ) -> None:
        _check_concat(schedulers, durations)
        self.schedulers = schedulers
        self.durations = durations
        self._scheduler_index = 0
        self._setup_scheduler()
        optimizer = _the_same("optimizer", [s.optimizer for s in schedulers])
        param_name = _the_same("param_name", [s.param_name for s in schedulers])
        super().__init__(optimizer, param_name, save_history=save_history)
        self.save_history = save_history
        self._state_attrs += ["_current_duration", "durations", "_scheduler_index"]

    def _check_places(self) -> None:
        """Each member has checked its own."""

    def _setup_scheduler(self) -> None:
        index = self._scheduler_index
        self._current_scheduler = self.schedulers[index]
        self._current_duration = self.durations[index] if index < len(self.durations) else -1

    def __call__(self, engine: Any, name: str | None = None) -> None:
        """One event, of the scheduler whose turn it is."""
        while self._current_duration == 0:
            self._scheduler_index += 1
            self._setup_scheduler()
        self._current_scheduler(engine, name)
        self._current_duration -= 1

    @property
    def optimizer_param_groups(self) -> Sequence[dict[str, Any]]:
        """The groups that the present scheduler means."""
        groups: Sequence[dict[str, Any]] = self._current_scheduler.optimizer_param_groups
        return groups

    @property
    def save_history(self) -> bool:
        """Whether the present scheduler keeps a history; assigning sets it for all."""
        return bool(self._current_scheduler.save_history)

    @save_history.setter
    def save_history(self, value: bool) -> None:
        for scheduler in self.schedulers:
            scheduler.save_history = value

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
        states = member_states(state_dict, len(self.schedulers))
        check_state(self, state_dict)
        load_all(self.schedulers, states)
        super().load_state_dict(state_dict)
        self._current_scheduler = self.schedulers[self._scheduler_index]

    @classmethod
    def simulate_values(  # type: ignore[override]  # ignite's arguments
        cls,
        num_events: int,
        schedulers: Sequence[Any],
        durations: Sequence[int],
        param_names: Sequence[str] | None = None,
    ) -> list[list[Any]]:
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
        if param_names is not None and not isinstance(param_names, (list, tuple)):
            raise TypeError(f"param_names must be a list or tuple, got {type(param_names)}")
        if param_names is not None and not all(isinstance(name, str) for name in param_names):
            raise ScheduleError(f"param_names must be a list or tuple of str, got {param_names!r}")
        _check_concat(schedulers, durations)
        _the_same("optimizer", [s.optimizer for s in schedulers])
        with quiet_steps():
            scheduler = cls(replicas(schedulers), durations)
            names = [scheduler.param_name] if param_names is None else param_names
            rows = []
            for event in range(num_events):
                scheduler(None)
                groups = scheduler.optimizer_param_groups
                rows.append([event, *(read(group, name) for name in names for group in groups)])
        return rows

    def as_schedule(self) -> Schedule | list[Schedule | None]:
        """The core expression f such that f(t) is what event t from now sets; a list with one a group, if they differ.

        Raises:
            ScheduleError: one of the schedulers has none, or they mean different groups.
        """
        coming = self.schedulers[self._scheduler_index :]
        meant = _groups_meant(coming)
        parts = [scheduler.as_schedule() for scheduler in coming]
        lists = [part for part in parts if isinstance(part, list)]
        if any(None in part for part in lists) or (len(meant) > 1 and not meant <= {"each", None}):
            raise ScheduleError(
                f"{describe(self, self.__dict__)} has no core expression: its schedulers mean different param groups"
            )
        lengths = [self._current_duration, *self.durations[self._scheduler_index + 1 :]][: len(coming) - 1]
        if not lists:
            return _chain(parts, lengths)
        rows = [part if isinstance(part, list) else [part] * len(lists[0]) for part in parts]
        chains: list[Any] = [_chain(column, lengths) for column in zip(*rows, strict=True)]
        return chains[0] if all(chain == chains[0] for chain in chains) else chains


def _groups_meant(schedulers: Sequence[Any]) -> set[int | str | None]:
    """The param_group_index of each scheduler; "each" for a ParamGroupScheduler."""
    meant: set[int | str | None] = set()
    for scheduler in schedulers:
        if isinstance(scheduler, ParamGroupScheduler):
            meant.add("each")
        elif isinstance(scheduler, ConcatScheduler):
            meant |= _groups_meant(scheduler.schedulers)
        else:
            index = scheduler.param_group_index
            meant.add(None if index is None else index % len(scheduler.optimizer.param_groups))
    return meant


def _check_concat(schedulers: object, durations: object) -> None:
    """Raises as ConcatScheduler says, before anything is taken over."""
    if not isinstance(schedulers, Sequence):
        raise TypeError(f"schedulers must be a list or tuple, got {type(schedulers)}")
    if len(schedulers) < 2:  # noqa: PLR2004  fewer need no ConcatScheduler
        raise ScheduleError(f"ConcatScheduler needs at least two schedulers, got {len(schedulers)}")
    if not isinstance(durations, (list, tuple)):
        raise TypeError(f"durations must be a list or tuple of ints, got {type(durations)}")
    for i, duration in enumerate(durations):
        if not isinstance(duration, numbers.Integral) or duration < 0:
            raise ScheduleError(
                f"durations[{i}] must be a whole number of at least 0 events, got {duration!r}"
            )
    if len(schedulers) != len(durations) + 1:
        raise ScheduleError(
            f"{len(schedulers)} schedulers need {len(schedulers) - 1} durations (the last one has no end), got "
            f"{len(durations)}"
        )
    for i, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, (ParamScheduler, ParamGroupScheduler)):
            raise TypeError(f"schedulers[{i}] must be a parameter scheduler, got {type(scheduler)}")


def _the_same(what: str, held: Sequence[Any]) -> Any:
    """What all schedulers hold; a ParamGroupScheduler holds a list."""
    flat = list(itertools.chain.from_iterable(item if isinstance(item, list) else [item] for item in held))
    if any(item is not flat[0] and (not isinstance(item, str) or item != flat[0]) for item in flat):
        raise ScheduleError(f"the schedulers of a ConcatScheduler must have the same {what}")
    return flat[0]


def _chain(parts: Sequence[Any], lengths: Sequence[int]) -> Schedule:
    """The first parts for their lengths, then the last."""
    whole: Schedule = parts[-1]
    for part, length in zip(reversed(parts[:-1]), reversed(lengths), strict=True):
        whole = part.take(length) >> whole
    return whole

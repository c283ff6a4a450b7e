"""Param_groups that were added since an attachment was made: they follow schedules of their own, at the same step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorsched.binding.arguments import read_group, read_schedules, with_total
from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.bound_groups import begun, other_groups
from tensorsched.binding.group_names import entry_of_group, list_by_group
from tensorsched.binding.placement import NewGroups, live_device, place_slots, together
from tensorsched.binding.registry import refuse_claimed
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import shown

__all__ = ["read_adopted", "read_late", "take_in"]

Groups = Sequence[dict[str, Any]]


def read_late(groups: Groups, first: int, rule: NewGroups | None, total: int | None) -> dict[Place, Schedule]:
    """What the rule of `attach(new_groups=...)` has for the groups from `first` on.

    Raises:
        BindingError: there is no rule, or it does not fit.
        ScheduleError: a number that is not finite.
    """
    if rule is None:
        raise other_groups(len(groups), first)
    schedules: dict[Place, Schedule] = {}
    for index in range(first, len(groups)):
        wanted = rule(groups[index]) if callable(rule) else rule
        if not isinstance(wanted, Mapping):
            raise BindingError(f"new_groups must give a dict for group {index}, got {shown(wanted)}")
        for key, value in with_total(wanted, total).items():
            entry = entry_of_group(groups, index, key, value) if isinstance(value, Mapping) else value
            if entry is not None:
                schedules |= read_group(groups, index, key, entry)
    return schedules


def read_adopted(groups: Groups, first: int, hyperparameters: Mapping[str, Any]) -> dict[Place, Schedule]:
    """What `Attachment.adopt` was given for the groups from `first` on.

    Raises:
        BindingError: no group was added, or a key or list does not fit.
        ScheduleError: a number that is not finite.
    """
    new = len(groups) - first
    if not new:
        raise BindingError(
            "adopt() is for param_groups that were added since attach(), and there are none; see rewrite()"
        )
    entries = {}
    for key, given in hyperparameters.items():
        value = list_by_group(groups[first:], key, given) if isinstance(given, Mapping) else given
        if isinstance(value, list) and len(value) != new:
            raise BindingError(
                f"{key}: the list has {len(value)} entries and {new} param_groups were added; give one for each"
            )
        entries[key] = [None] * first + (value if isinstance(value, list) else [value] * new)
    return read_schedules(groups, entries) if entries else {}


def take_in(sched: AttachmentBase, groups: Groups, schedules: Mapping[Place, Schedule]) -> None:
    """The groups there are now are the attachment's, and those that are new follow these schedules, at the same step.

    Raises:
        BindingError: a place follows another attachment, or cannot follow a schedule. Nothing has changed.
        ScheduleError: a schedule cannot be tabulated. Nothing has changed.
    """
    sched._require_attached()
    device, options = live_device(groups), sched._options
    refuse_claimed(sched.optimizer, schedules)
    slots = together(place_slots(sched.optimizer, schedules, options, device, sched.slots), device)
    extended = sched._eager.extended(slots, device, options.capacity)
    where = sched._mode.where
    sched._history.add("adopt", where.position, after={slot.name: slot.schedule for slot in slots})
    sched._use_eager()
    sched._began_before |= begun(schedules, groups)
    sched._mode = sched._eager = extended
    sched._places += [slot.place for slot in slots]
    sched._group_count = len(groups)
    sched._known_as = None
    sched._carrier.mark(groups, sched._originals(), sched._numbered())
    sched._make_graphs_stale()
    extended.go(where)
    sched._bind()

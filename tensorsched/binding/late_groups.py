"""Param_groups that were added since an attachment was made: they follow schedules of their own, at the same step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorsched.binding.arguments import read_group, read_schedules, with_total
from tensorsched.binding.carried import carries, initial_key
from tensorsched.binding.group_names import entry_of_group, list_by_group
from tensorsched.binding.modes import Driving
from tensorsched.binding.placement import NewGroups, live_device, place_slots, together
from tensorsched.binding.registry import refuse_claimed
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import shown

__all__ = ["begun", "other_groups", "read_adopted", "read_late", "refuse_other_groups", "take_in"]

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
            raise BindingError(f"{key}: the list has {len(value)} entries and {new} param_groups were added")
        entries[key] = [None] * first + (value if isinstance(value, list) else [value] * new)
    return read_schedules(groups, entries) if entries else {}


def take_in(sched: Driving, groups: Groups, schedules: Mapping[Place, Schedule]) -> None:
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


def begun(places: Iterable[Place], groups: Sequence[Mapping[str, Any]]) -> set[Place]:
    """The places whose initial_lr somebody else has written, such as a torch scheduler: it stays there."""
    return {p for p in places if initial_key(p.key) in groups[p.group] and not carries(groups[p.group])}


def refuse_other_groups(bound: Groups, groups: Groups) -> None:
    """The groups that were bound must be there, in their order; others behind them are not ours yet.

    Raises:
        BindingError: a group is missing, or in another place.
    """
    if len(groups) < len(bound):
        raise other_groups(len(groups), len(bound))
    for index, (mine, group) in enumerate(zip(bound, groups, strict=False)):
        if mine is not group and not _same_parameters(mine, group):
            raise BindingError(
                f"group {index} holds other parameters than when the schedule was attached: param_groups were "
                "reordered or exchanged, and each would follow another one's schedule; put them back in order, or "
                "call detach(), attach() again and seek() to the step"
            )


def other_groups(count: int, bound: int) -> BindingError:
    """The error for an optimizer that has more groups, or fewer, than were bound."""
    way_out = "call detach() and attach() again, which starts at step 0: seek() to the step that it had"
    if count > bound:
        way_out = (
            "call sched.adopt(lr=schedule, ...) for what is new, or pass new_groups={'lr': schedule, ...} (or a "
            "function of the group that returns such a dict) to attach() beforehand"
        )
    return BindingError(
        f"the optimizer has {count} param_groups and had {bound} when the schedule was attached; {way_out}"
    )


def _same_parameters(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    mine, theirs = a.get("params", ()), b.get("params", ())
    return len(mine) == len(theirs) and all(x is y for x, y in zip(mine, theirs, strict=True))

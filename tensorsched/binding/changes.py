"""Other schedules for an attachment in the middle of a run: functions of the old ones, cool-downs, longer runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tensorsched.binding.group_names import list_by_group
from tensorsched.binding.slots import Slot
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule, constant
from tensorsched.schedules.node import brief
from tensorsched.schedules.pieces import head, tail
from tensorsched.schedules.recipes.common import Shape, option
from tensorsched.schedules.recipes.curves import phase
from tensorsched.schedules.validators import check_count, check_real, shown

__all__ = ["chosen", "cooled", "extended", "resolved", "resolved_free"]

Function = Callable[[Schedule, int], Schedule | float]


def resolved(
    groups: Sequence[Mapping[str, Any]], slots: Iterable[Slot], wanted: Mapping[str, Any], now: int
) -> dict[str, Any]:
    """What `rewrite` was given, with every function of (old, now) replaced by what it gives for each slot.

    Raises:
        BindingError: a function for a place that has no schedule, or that does not take (old, now).
    """
    old = {slot.place: slot for slot in slots}
    found: dict[str, Any] = {}
    for key, value in wanted.items():
        if isinstance(value, Mapping) and any(map(_has_function, value.values())):
            value = list_by_group(groups, key, value, complete=False)  # noqa: PLW2901  entries by name are a list
        if isinstance(value, list):
            found[key] = [_entry(old, groups, Place(i, key), part, now) for i, part in enumerate(value)]
        elif _has_function(value):
            mine = {place.group for place in old if place.key == key}
            if not mine:
                raise _nothing_to_replace(key)
            found[key] = [
                _entry(old, groups, Place(i, key), value, now) if i in mine else None
                for i in range(len(groups))
            ]
        else:
            found[key] = value
    return found


def _entry(
    old: Mapping[Place, Slot], groups: Sequence[Mapping[str, Any]], place: Place, value: Any, now: int
) -> Any:
    """What is meant for one key of one group: a schedule, or a tuple of them."""
    if not _has_function(value):
        return value
    mine = {p.element: slot for p, slot in old.items() if p[:2] == place[:2]}
    if isinstance(value, tuple):
        return tuple(
            _called(part, mine.get(i), place._replace(element=i), now) if _is_function(part) else part
            for i, part in enumerate(value)
        )
    if not mine or None in mine:
        return _called(value, mine.get(None), place, now)
    elements = range(len(groups[place.group][place.key]))
    return tuple(_called(value, mine[i], place, now) if i in mine else None for i in elements)


def resolved_free(old: Mapping[str, Schedule], wanted: Any, now: int) -> Any:
    """The same for names that belong to no group."""
    if not isinstance(wanted, Mapping):
        return wanted  # refused where it is read
    found = {}
    for name, value in wanted.items():
        if _is_function(value) and name in old:
            _check_function(value, name)
            found[name] = value(old[name], now)
        else:
            found[name] = value
    return found


def cooled(
    schedule: Schedule, now: int, steps: int, to: float, shape: Shape, *, live: float | None = None
) -> Schedule:
    """The schedule up to `now`, then from its value there to another one.

    With live inputs that value is given. What was before is then in the history alone: it follows from no expression.

    Raises:
        ScheduleError: a value is not finite, steps is no count, or the shape does not go from one value to another.
    """
    n, end = check_count("cool_down: steps", steps), check_real("cool_down: to", to)
    if live is not None:
        schedule = constant(live)
    down = phase("cool_down: shape", shape, schedule(now), end, n)
    return head(schedule, now) >> down if now else down


def extended(schedule: Schedule, now: int, steps: int, how: str) -> Schedule | None:
    """The schedule with what is left of it `steps` longer; None where nothing is left that changes.

    Raises:
        ScheduleError: steps is no count, how is another word, or it depends on live inputs.
    """
    n = check_count("extend: steps", steps)
    option("extend: how", how, ("stretch", "hold"))
    if schedule.inputs():
        raise ScheduleError(
            f"extend: {brief(schedule)} depends on live inputs, which have a value at the present step only, so it "
            "cannot be made longer as a whole: rewrite() it, with what depends on the step alone made longer"
        )
    settled = schedule.constant_from
    if settled is None or settled <= now:
        return None
    if n == 0:
        return schedule
    rest = tail(schedule, now)
    if how == "hold":
        longer = constant(schedule(now), steps=n) >> rest
    else:
        end = settled if schedule.steps is None else schedule.steps
        longer = head(rest, end - now).span(end - now + n)
    return head(schedule, now) >> longer if now else longer


def chosen(
    what: str, keys: object, slots: Iterable[Slot], free: Mapping[str, Schedule]
) -> dict[str, Schedule]:
    """The schedules, by column, of the slots and free names that `keys` names: all of them where it is None.

    Raises:
        BindingError: a key that nothing is scheduled under.
    """
    every = [(slot.place.key, slot.place.part, slot.name, slot.schedule) for slot in slots]
    every += [(name, name, name, schedule) for name, schedule in free.items()]
    if keys is None:
        return {name: schedule for _, _, name, schedule in every}
    asked = [keys] if isinstance(keys, str) else keys
    if not isinstance(asked, (list, tuple)) or not asked or not all(isinstance(k, str) for k in asked):
        raise BindingError(f"{what}: keys must be a name such as 'lr', or a list of names, got {shown(keys)}")
    for key in asked:
        if not any(key in (whole, part) for whole, part, *_ in every):
            known = ", ".join(dict.fromkeys(whole for whole, *_ in every))
            raise BindingError(
                f"{what}: nothing is scheduled under {shown(key)}; there are schedules for {known}"
            )
    return {n: s for whole, part, n, s in every if whole in asked or part in asked}


def _is_function(value: object) -> bool:
    return callable(value) and not isinstance(value, (Schedule, type))


def _has_function(value: object) -> bool:
    return any(map(_is_function, value)) if isinstance(value, tuple) else _is_function(value)


def _called(function: Function, slot: Slot | None, place: Place, now: int) -> Schedule | float:
    if slot is None:
        raise _nothing_to_replace(place.name)
    _check_function(function, slot.name)
    return function(slot.schedule, now)


def _check_function(function: Function, where: str) -> None:
    try:
        inspect.signature(function).bind(None, 0)
    except TypeError:
        raise BindingError(
            f"{where}: a function for rewrite() takes (old, now), the schedule so far and the step count, and returns "
            f"a schedule; got {shown(function)} (a function of the step: ts.from_function(fn, steps))"
        ) from None
    except ValueError:  # one without a signature: the call tells
        return


def _nothing_to_replace(where: str) -> BindingError:
    return BindingError(
        f"{where} has no schedule that could be replaced; rewrite() changes what attach() scheduled"
    )

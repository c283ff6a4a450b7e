"""What a plan is given: attachments, changes, states."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tensorsched.binding.attachment import Attachment
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.schedules.validators import cut, named, refuse, shown

FORMAT, VERSION = "tensorsched/plan", 1
_ENTRIES = {"format", "version", "attachments"}


@contextlib.contextmanager
def about(name: str) -> Iterator[None]:
    """Say in an error which attachment it is about."""
    try:
        yield
    except (BindingError, ScheduleError) as error:
        kind = BindingError if isinstance(error, BindingError) else ScheduleError
        raise kind(f"{name}: {error}") from None


def read_attachments(given: Any, named: Mapping[str, Any]) -> dict[str, Attachment]:
    """The attachments by name.

    Raises:
        BindingError: as `Plan`.
    """
    if given is not None and not isinstance(given, Mapping):
        raise BindingError(
            f"Plan: give each attachment a name, ts.Plan(muon=ts.attach(...), adamw=ts.attach(...)); got {shown(given)}"
        )
    if twice := (given or {}).keys() & named.keys():
        raise BindingError(f"Plan: {min(twice)!r} is given twice; give each attachment a name of its own")
    found: dict[str, Attachment] = {}
    optimizers: dict[int, str] = {}
    for name, sched in {**(given or {}), **named}.items():
        if not isinstance(name, str) or not name:
            raise BindingError(f"Plan: a name must be a string, got {shown(name)}")
        if not isinstance(sched, Attachment):
            raise BindingError(f"Plan: {name} must be what ts.attach() returned, got {shown(sched)}")
        if not sched.attached:
            raise BindingError(f"Plan: {name} is detached and controls nothing; attach() again")
        with about(name):
            optimizer = sched.optimizer
        if other := optimizers.get(id(optimizer)):
            what = "the same attachment" if found[other] is sched else "of one optimizer"
            raise BindingError(
                f"Plan: {other} and {name} are {what}; give each optimizer once, and attach all of its schedules in "
                "one call"
            )
        optimizers[id(optimizer)] = name
        found[name] = sched
    if not found:
        raise BindingError(
            "Plan: it needs at least one attachment: ts.Plan(muon=ts.attach(...), adamw=ts.attach(...))"
        )
    keys = {key for sched in found.values() for group in sched.optimizer.param_groups for key in group}
    if clash := found.keys() & keys:
        raise BindingError(f"Plan: {min(clash)!r} is a hyperparameter of an optimizer; give another name")
    return found


def share_out(attachments: Mapping[str, Attachment], changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each attachment gets of `rewrite`'s arguments, those for all and its own.

    Raises:
        BindingError: nothing, or a name that is no attachment's and no scheduled hyperparameter's.
    """
    if not changes:
        raise BindingError("rewrite() was given nothing to schedule; pass for example lr=ts.constant(1e-4)")
    found: dict[str, dict[str, Any]] = {name: {} for name in attachments}
    for key, value in changes.items():
        if key in attachments:
            if not isinstance(value, Mapping):
                raise BindingError(
                    f"{key} is an attachment of the plan: give it a dict of hyperparameters, got {shown(value)}"
                )
            continue
        takers = [n for n, s in attachments.items() if key in {slot.place.key for slot in s.slots}]
        if not takers:
            raise BindingError(
                f"{key!r} has a schedule in none of {', '.join(attachments)}, and is the name of none; "
                "rewrite() changes what attach() scheduled"
            )
        for name in takers:
            found[name][key] = value
    for name in found.keys() & changes.keys():
        found[name] |= changes[name]
    return {name: arguments for name, arguments in found.items() if arguments}


def read_state(state: Any, names: Collection[str]) -> Mapping[str, Any]:
    """The state of each attachment.

    Raises:
        ScheduleError: the state is malformed; the message starts with the field.
        BindingError: it has other names.
    """
    if not isinstance(state, Mapping):
        raise refuse("state", "the dict that state_dict() returned", state)
    if not isinstance(state.get("format"), str) or state["format"] != FORMAT:
        hint = " (one attachment's: plan[name].load_state_dict)" if "step" in state else ""
        raise refuse("format", f"{FORMAT!r}{hint}", state.get("format"))
    if type(state.get("version")) is not int or state["version"] != VERSION:
        raise refuse("version", str(VERSION), state.get("version"))
    if wrong := sorted(set(state) ^ _ENTRIES, key=str):
        what = "missing from" if wrong[0] in _ENTRIES else "unknown entry of"
        raise ScheduleError(f"{named(wrong[0])}: {what} the state")
    states = state["attachments"]
    if not isinstance(states, Mapping):
        raise refuse("attachments", "a dict", states)
    if set(states) != set(names):
        raise BindingError(
            f"this state is of a plan of {cut(', '.join(map(named, states)), 400)}, and this plan is of "
            f"{', '.join(names)}; give the same names, or load each part by "
            "plan[name].load_state_dict(state['attachments'][name])"
        )
    return states


def refuse_different_units(attachments: Mapping[str, Attachment]) -> None:
    """Refuse one number as the place of attachments that count different things.

    Raises:
        BindingError: they do.
    """
    units = {
        name: "steps" if (tally := sched._mode.tally) is None else tally.clock.unit
        for name, sched in attachments.items()
    }
    if len(set(units.values())) > 1:
        listed = ", ".join(f"{name!r} counts {unit}" for name, unit in units.items())
        raise BindingError(
            f"seek: {listed}, so one number is not where all of them go on; seek each one: plan[{next(iter(units))!r}]"
            ".seek(...)"
        )

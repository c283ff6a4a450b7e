"""Loading an attachment's state: what is gone on with where it was saved under other schedules, and what to say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tensorsched.binding.clocked import read_clock
from tensorsched.binding.history import History
from tensorsched.binding.state_format import parse_state
from tensorsched.engine import Clock, Inputs, Where
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief, sample
from tensorsched.schedules.split import inputs_of
from tensorsched.schedules.validators import cut, refuse, shown

ON_MISMATCH = ("error", "saved", "keep_step", "restart")
_HORIZON = 1 << 20  # most steps over which two schedules are compared
_CHUNK = 1 << 16
_MOST_SHOWN = 10  # schedules that differ, in an error
_MOST_GROUPS = 100_000  # and elements of a tuple: whoever damages a name is not to fill the memory
_ROUNDING = 2.0**-40
_NAME = re.compile(r"(?P<key>.+?)(\[(?P<element>\d{1,4})\])?\[group (?P<group>\d{1,9})\]")  # of Place.name


def read_state(
    state: Any, schedules: Mapping[str, Schedule], on_mismatch: str, clock: Clock | None = None
) -> tuple[Where, dict[str, Schedule], dict[str, dict[str, Any]], History]:
    """Where to continue from, by name the schedules to follow instead of the present ones; the inputs; the run so far.

    Raises:
        ScheduleError: the state is malformed; the message starts with the field.
        BindingError: it was saved under other schedules, and on_mismatch is "error"; or is "saved", and it lacks a name
            or has another; or the clock that it was saved on is another.
    """
    if on_mismatch not in ON_MISMATCH:
        raise refuse(
            "load_state_dict: on_mismatch", "one of " + ", ".join(map(repr, ON_MISMATCH)), on_mismatch
        )
    step, saved, history = parse_state(state)
    where = read_clock(state, clock, step)
    # On a clock of billions, every row is compared and not every unit.
    every = 1 if clock is None else max(1, _reach(saved, schedules) // _HORIZON)
    differences = _differences(saved, schedules, every)
    inputs = state.get("inputs", {})
    if not differences:
        return where, {}, _cells_of(schedules, inputs, exact=True), history
    if on_mismatch in ("keep_step", "restart"):
        goes_on, kept = (where, inputs) if on_mismatch == "keep_step" else (Where.at_step(0), {})
        after: dict[str, Schedule | None] = {name: s for name, s in schedules.items() if saved.get(name) != s}
        after |= dict.fromkeys(saved.keys() - schedules.keys())
        what = f"load_state_dict(on_mismatch={on_mismatch!r})"
        history.add(what, where.position, goes_on=goes_on.position, after=after)
        return goes_on, {}, _cells_of(schedules, kept, exact=False), history
    if on_mismatch == "saved":
        if lost := sorted(saved.keys() ^ schedules.keys()):
            raise BindingError(
                f"load_state_dict: on_mismatch='saved' takes over schedules of the same names, and {shown(lost[0])} is "
                f"{'not scheduled now' if lost[0] in saved else 'not in the state'}; attach with "
                "**ts.schedules_of(state)"
            )
        return where, saved, _cells_of(saved, inputs, exact=True), history
    raise BindingError(
        f"this state (step {where.position}) was saved under other schedules:\n"
        + "\n".join(f"  {line}" for line in differences[:_MOST_SHOWN])
        + (f"\n  ... and {len(differences) - _MOST_SHOWN} more" if len(differences) > _MOST_SHOWN else "")
        + f"\n{_advice(saved, schedules, where.position, every)} "
        "If ts.initial is in them: attach before the optimizer's checkpoint is "
        "loaded, which changes what the groups hold"
    )


def _cells_of(schedules: Mapping[str, Schedule], state: Any, *, exact: bool) -> dict[str, dict[str, Any]]:
    """What the live inputs in these schedules remember according to a state; see `Inputs.read`."""
    nodes = inputs_of(list(schedules.values()))
    return Inputs(nodes, torch.device("cpu")).read(state, exact=exact) if nodes else {}


def _advice(saved: Mapping[str, Schedule], present: Mapping[str, Schedule], step: int, every: int) -> str:
    """What the differences mean for a run that goes on at `step`, and which way out fits."""
    ways = (
        "on_mismatch='saved' goes on with the schedules of the state, 'keep_step' with the new ones from step "
        f"{step}, 'restart' with the new ones from step 0."
    )
    if saved.keys() != present.keys():
        return f"Attach what it was saved with (**ts.schedules_of(state)), or choose: {ways}"
    pairs = [(saved[name], present[name]) for name in saved]
    last = min(step, every * _HORIZON)
    if any(schedule.inputs() for pair in pairs for schedule in pair):
        return f"With 'keep_step' an input of the same name goes on where its numbers fit, others start anew: {ways}"
    if all(first_difference(a, b, last, every) is None for a, b in pairs):
        return (
            f"They agree up to step {step}: the plan was changed for what comes after. Pass 'keep_step' if the new "
            f"plan is meant, 'saved' if not: {ways}"
        )
    if all(_rounding_apart(a, b, last, every) for a, b in pairs):
        return f"They differ by rounding only, at most {_ROUNDING:g} of a value up to step {step}: {ways}"
    name, (a, b) = next((n, p) for n, p in zip(saved, pairs, strict=True) if p[0] != p[1])
    jump = f"{name} would jump from {a(step)!r} to {b(step)!r}"
    return f"They differ before step {step}, so with 'keep_step' {jump}: {ways}"


def _rounding_apart(a: Schedule, b: Schedule, last: int, every: int) -> bool:
    steps = np.arange(0, last + 1, every).astype(np.float64)
    x, y = sample(a, steps), sample(b, steps)
    return bool((np.abs(x - y) <= _ROUNDING * np.maximum(np.abs(x), np.abs(y))).all())


def schedules_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The schedules in a state that `Attachment.state_dict` returned, as `attach` takes them.

    Args:
        state: from `sched.state_dict()`, loaded again.

    Returns:
        A dict for `attach(optimizer, **ts.schedules_of(state))`: for each hyperparameter a list with a schedule for
        each group (None where a group has none), a tuple in the place of a schedule where elements of a tuple have one,
        and under "free" the schedules that belong to no group.

    Raises:
        ScheduleError: the state is malformed; the message starts with the field.

    Does not synchronise.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(0.1, 0.0, steps=4), betas=(ts.linear(0.8, 0.9, steps=4), None))
        >>> ts.schedules_of(sched.state_dict())
        {'lr': [linear(0.1, 0.0, steps=4)], 'betas': [(linear(0.8, 0.9, steps=4), None)]}
    """
    saved = parse_state(state).schedules
    places: dict[str, dict[int, dict[int | None, Schedule]]] = {}
    free: dict[str, Schedule] = {}
    for name, schedule in saved.items():
        if (found := _NAME.fullmatch(name)) is None:
            free[name] = schedule
            continue
        element = None if found["element"] is None else int(found["element"])
        places.setdefault(found["key"], {}).setdefault(int(found["group"]), {})[element] = schedule
    count = 1 + max((group for groups in places.values() for group in groups), default=0)
    if count > _MOST_GROUPS:  # as many entries are listed for each hyperparameter
        raise ScheduleError(
            f"schedules: a name is of group {shown(count - 1)}, and groups are at most {_MOST_GROUPS}"
        )
    result: dict[str, Any] = {
        key: [_entry(groups.get(index)) for index in range(count)] for key, groups in places.items()
    }
    return result | ({"free": free} if free else {})


def _entry(found: Mapping[int | None, Schedule] | None) -> Any:
    if found is None or None in found:
        return None if found is None else found[None]
    length = max(2, 1 + max(element for element in found if element is not None))  # betas are two
    return tuple(found.get(element) for element in range(length))


def _reach(*known: Mapping[str, Schedule]) -> int:
    return max((s.settled or 0 for schedules in known for s in schedules.values()), default=0)


def _differences(saved: Mapping[str, Schedule], present: Mapping[str, Schedule], every: int) -> list[str]:
    """One line for each name under which the values are not the same at every step."""
    lines = []
    for name in [*saved, *(name for name in present if name not in saved)]:
        if name not in present:
            lines.append(
                f"{cut(name) if name.isprintable() else shown(name)}: saved {brief(saved[name])}, not scheduled now"
            )
        elif name not in saved:
            lines.append(f"{name}: not in the state, now {brief(present[name])}")
        elif saved[name] != present[name]:
            lines += _compared(name, saved[name], present[name], every)
    return lines


def _compared(name: str, saved: Schedule, present: Schedule, every: int) -> list[str]:
    """Nothing if two different expressions have the same value at every step, else one line."""
    if saved.inputs() or present.inputs():  # no step tells whether they are equal
        return [
            f"{name}: saved {brief(saved)}, now {brief(present)}; what depends on live inputs must be the same"
        ]
    settled = [schedule.constant_from for schedule in (saved, present)]
    last = None if None in settled else max(step for step in settled if step is not None)
    horizon = every * _HORIZON
    step = first_difference(saved, present, horizon if last is None else min(last, horizon), every)
    if step is not None:
        found = f"they first differ at step {step}: {saved(step)!r} and {present(step)!r}"
    elif every > 1 or last is None or last > _HORIZON:
        found = f"they are equal for {horizon} steps, but need not stay so"
    else:
        return []
    return [f"{name}: saved {brief(saved)}, now {brief(present)}; {found}"]


def first_difference(a: Schedule, b: Schedule, last: int, every: int = 1) -> int | None:
    """The first step of 0, every, 2 every, ..., last at which two schedules have different values, or None."""
    for start in range(0, last + 1, _CHUNK * every):
        steps = np.arange(start, min(last + 1, start + _CHUNK * every), every)
        at = steps.astype(np.float64)
        different = np.flatnonzero(sample(a, at) != sample(b, at))
        if different.size:
            return int(steps[different[0]])
    return None

"""An attachment's state as plain numbers and strings: the step counter, and the schedules that it counted for.

Nothing of the table is saved. The schedules are, so that a checkpoint that is loaded under other ones is an error which
shows both, and not a run that quietly trains on with the wrong values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorsched.errors import BindingError, ScheduleError
from tensorsched.schedules import Schedule, from_dict
from tensorsched.schedules.node import brief, evaluate
from tensorsched.schedules.validators import check_count, refuse, shown

FORMAT = "tensorsched/attachment"
VERSION = 1
ON_MISMATCH = ("error", "keep_step", "restart")
_ENTRIES = {"format", "version", "step", "schedules", "documents"}
_HORIZON = 1 << 20  # most steps over which two schedules are compared
_CHUNK = 1 << 16


def write_state(step: int, schedules: Mapping[str, Schedule]) -> dict[str, Any]:
    """The state: dicts, lists, strings, ints, floats and bools only."""
    fingerprints = {schedule: schedule.fingerprint for schedule in set(schedules.values())}
    return {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "schedules": {name: fingerprints[schedule] for name, schedule in schedules.items()},
        "documents": {fingerprint: schedule.to_dict() for schedule, fingerprint in fingerprints.items()},
    }


def read_state(state: Any, schedules: Mapping[str, Schedule], on_mismatch: str) -> int:
    """The step to continue from.

    Raises:
        ScheduleError: the state is malformed; the message starts with the field.
        BindingError: it was saved under other schedules, and on_mismatch is "error".
    """
    if on_mismatch not in ON_MISMATCH:
        raise refuse(
            "load_state_dict: on_mismatch", "one of " + ", ".join(map(repr, ON_MISMATCH)), on_mismatch
        )
    step, saved = _parse(state)
    differences = _differences(saved, schedules)
    if not differences or on_mismatch == "keep_step":
        return step
    if on_mismatch == "restart":
        return 0
    raise BindingError(
        f"this state (step {step}) was saved under other schedules:\n"
        + "\n".join(f"  {line}" for line in differences)
        + "\nAttach the schedules that it was saved with, or pass on_mismatch='keep_step' (the new ones, from step "
        f"{step}) or 'restart' (the new ones, from step 0). If ts.initial is in them: attach before the optimizer's "
        "checkpoint is loaded, which changes what the groups hold"
    )


def _parse(state: Any) -> tuple[int, dict[str, Schedule]]:
    if not isinstance(state, Mapping):
        raise refuse("state", "the dict that state_dict() returned", state)
    if state.get("format") != FORMAT:
        raise refuse("format", repr(FORMAT), state.get("format"))
    version = state.get("version")
    if type(version) is not int or version != VERSION:
        newer = type(version) is int and version > VERSION
        raise refuse(
            "version", f"{VERSION}{' (update tensorsched to read a newer one)' if newer else ''}", version
        )
    if set(state) != _ENTRIES:
        wrong = min(map(str, set(state) ^ _ENTRIES))
        raise ScheduleError(
            f"{wrong}: {'missing from' if wrong in _ENTRIES else 'unknown entry of'} the state"
        )
    step = check_count("step", state["step"])
    for part in ("schedules", "documents"):
        if not isinstance(state[part], Mapping):
            raise refuse(part, "a dict", state[part])
    known = {
        fingerprint: _parse_schedule(fingerprint, entry) for fingerprint, entry in state["documents"].items()
    }
    saved: dict[str, Schedule] = {}
    for name, fingerprint in state["schedules"].items():
        if not isinstance(name, str):
            raise refuse("schedules: a name", "a string", name)
        if not isinstance(fingerprint, str) or fingerprint not in known:
            raise refuse(f"schedules[{name!r}]", "the fingerprint of one of the documents", fingerprint)
        saved[name] = known[fingerprint]
    return step, saved


def _parse_schedule(fingerprint: Any, document: Any) -> Schedule:
    where = f"documents[{shown(fingerprint)}]"
    try:
        schedule = from_dict(document)
    except ScheduleError as error:
        raise ScheduleError(f"{where}.{error}") from None
    if fingerprint != schedule.fingerprint:
        raise refuse(where, f"under the fingerprint of its schedule, {schedule.fingerprint!r},", fingerprint)
    return schedule


def _differences(saved: Mapping[str, Schedule], present: Mapping[str, Schedule]) -> list[str]:
    """One line for each name under which the values are not the same at every step."""
    lines = []
    for name in [*saved, *(name for name in present if name not in saved)]:
        if name not in present:
            lines.append(f"{name}: saved {brief(saved[name])}, not scheduled now")
        elif name not in saved:
            lines.append(f"{name}: not in the state, now {brief(present[name])}")
        elif saved[name] != present[name]:
            lines += _compared(name, saved[name], present[name])
    return lines


def _compared(name: str, saved: Schedule, present: Schedule) -> list[str]:
    """Nothing if two different expressions have the same value at every step, else one line."""
    settled = [schedule.settled for schedule in (saved, present)]
    last = None if None in settled else max(step for step in settled if step is not None)
    step = first_difference(saved, present, _HORIZON if last is None else min(last, _HORIZON))
    if step is not None:
        found = f"they first differ at step {step}: {saved(step)!r} and {present(step)!r}"
    elif last is None or last > _HORIZON:
        found = f"they are equal for {_HORIZON} steps, but need not stay so"
    else:
        return []
    return [f"{name}: saved {brief(saved)}, now {brief(present)}; {found}"]


def first_difference(a: Schedule, b: Schedule, last: int) -> int | None:
    """The first step of 0..last at which two schedules have different values, or None."""
    for start in range(0, last + 1, _CHUNK):
        stop = min(last + 1, start + _CHUNK)
        different = np.flatnonzero(evaluate(a, start, stop) != evaluate(b, start, stop))
        if different.size:
            return start + int(different[0])
    return None

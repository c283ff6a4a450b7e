"""An attachment's state as plain numbers and strings: the step counter, the schedules, and how they came to be.

Nothing of the table is saved. The schedules are, so that a checkpoint that is loaded under other ones is an error which
shows both, and not a run that quietly trains on with the wrong values.

Version 2 has the same keys whatever the schedules are, and lists of numbers and strings under them: formats that save
entry by entry, such as torch.distributed.checkpoint's, find each one they look for under any other schedules.

    {"format", "version": 2, "step": 7,
     "schedules": [["lr[group 0]", 0], ...]       what each name follows, as an index into documents
     "documents": ['{"format": ...', ...]         schedules, as JSON
     "history": [[0, "attach", 0, [["lr[group 0]", 0], ...]], ...]}     step, what, where it went on, what from then on

A clock that does not count steps, and live inputs, add an entry each. Version 1, which is read too, had dicts by name
and by fingerprint, and no history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tensorsched.binding.history import History
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule, from_dict, from_json
from tensorsched.schedules.validators import check_count, named, refuse, shown
from tensorsched.schedules.work import MOST, bounded_work

__all__ = ["Saved", "parse_state", "write_state"]

FORMAT = "tensorsched/attachment"
VERSION = 2
_FIRST = {"format", "version", "step", "schedules", "documents"}  # the entries of version 1
_MOST_WORK = 8 * MOST  # of all its documents together: a group may have a schedule of its own
_ENTRIES = {1: _FIRST, 2: _FIRST | {"history"}}


class Saved(NamedTuple):
    """What a state holds.

    Attributes:
        step: completed steps.
        schedules: what each name followed.
        history: how that came to be; of version 1 all that is known is that it was so at `step`.
    """

    step: int
    schedules: dict[str, Schedule]
    history: History


def write_state(
    step: int, schedules: Mapping[str, Schedule], history: History, inputs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The state: a dict of numbers, strings and lists of them; that of live inputs is there where there are."""
    documents: dict[Schedule, int] = {}

    def index(schedule: Schedule) -> int:
        return documents.setdefault(schedule, len(documents))

    return {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "schedules": [[name, index(schedule)] for name, schedule in schedules.items()],
        "history": history.to_state(index),
        # Last: those that the two lines above have asked the index of.
        "documents": [schedule.to_json() for schedule in documents],
    } | ({} if inputs is None else {"inputs": dict(inputs)})


def parse_state(state: Any) -> Saved:
    """What a state holds, checked.

    Raises:
        ScheduleError: it is malformed; the message starts with the field.
    """
    if not isinstance(state, Mapping):
        raise refuse("state", "the dict that state_dict() returned", state)
    if not isinstance(state.get("format"), str) or state["format"] != FORMAT:
        raise refuse("format", repr(FORMAT), state.get("format"))
    version = state.get("version")
    if type(version) is not int or version not in _ENTRIES:
        newer = type(version) is int and version > VERSION
        raise refuse(
            "version",
            f"1 or {VERSION}{' (update tensorsched to read a newer one)' if newer else ''}",
            version,
        )
    if (found := set(state) - {"clock", "inputs"}) != _ENTRIES[version]:
        wrong = min(found ^ _ENTRIES[version], key=str)
        raise ScheduleError(
            f"{named(wrong)}: {'missing from' if wrong in _ENTRIES[version] else 'unknown entry of'} the state"
        )
    step = check_count("step", state["step"])
    if version == 1:
        saved = _parse_first(state)
        return Saved(step, saved, History(saved, step))
    with bounded_work(_MOST_WORK):
        documents = [_parse_document(at, t) for at, t in enumerate(_items("documents", state["documents"]))]
    found_names = _parse_names("schedules", state["schedules"], documents)
    if lost := [name for name, schedule in found_names.items() if schedule is None]:
        raise refuse(f"schedules[{lost[0]!r}]", "the index of one of the documents", None)
    entries = [_parse_change(at, e, documents) for at, e in enumerate(_items("history", state["history"]))]
    if not entries:
        raise refuse("history", "a list of at least one change", state["history"])
    return Saved(step, {name: s for name, s in found_names.items() if s is not None}, History.of(entries))


def _items(where: str, value: object) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise refuse(where, "a list", value)
    return value


def _parse_document(at: int, text: object) -> Schedule:
    if not isinstance(text, str):
        raise refuse(f"documents[{at}]", "the JSON of a schedule", text)
    try:
        return from_json(text)
    except ScheduleError as error:
        raise ScheduleError(f"documents[{at}].{error}") from None


def _parse_names(where: str, value: object, documents: Sequence[Schedule]) -> dict[str, Schedule | None]:
    found: dict[str, Schedule | None] = {}
    for pair in _items(where, value):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):  # noqa: PLR2004
            raise refuse(where, "a list of [name, index]", pair)
        name, index = pair
        if name in found:
            raise ScheduleError(f"{where}: {shown(name)} is there twice")
        if index is not None and (type(index) is not int or not 0 <= index < len(documents)):
            raise refuse(f"{where}[{shown(name)}]", "the index of one of the documents", index)
        found[name] = None if index is None else documents[index]
    return found


def _parse_change(
    at: int, entry: object, documents: Sequence[Schedule]
) -> tuple[int, str, int, dict[str, Schedule | None]]:
    where = f"history[{at}]"
    if not isinstance(entry, (list, tuple)) or len(entry) != 4 or not isinstance(entry[1], str):  # noqa: PLR2004
        raise refuse(where, "[step, what, where it went on, names]", entry)
    step, what, goes_on, names = entry
    return (
        check_count(f"{where}: step", step),
        what,
        check_count(f"{where}: where it went on", goes_on),
        _parse_names(where, names, documents),
    )


def _parse_first(state: Mapping[str, Any]) -> dict[str, Schedule]:
    """The schedules of version 1: {name: fingerprint}, {fingerprint: document}."""
    for part in ("schedules", "documents"):
        if not isinstance(state[part], Mapping):
            raise refuse(part, "a dict", state[part])
    with bounded_work(_MOST_WORK):
        known = {
            fingerprint: _parse_schedule(fingerprint, entry)
            for fingerprint, entry in state["documents"].items()
        }
    saved: dict[str, Schedule] = {}
    for name, fingerprint in state["schedules"].items():
        if not isinstance(name, str):
            raise refuse("schedules: a name", "a string", name)
        if not isinstance(fingerprint, str) or fingerprint not in known:
            raise refuse(f"schedules[{name!r}]", "the fingerprint of one of the documents", fingerprint)
        saved[name] = known[fingerprint]
    return saved


def _parse_schedule(fingerprint: Any, document: Any) -> Schedule:
    where = f"documents[{shown(fingerprint)}]"
    try:
        schedule = from_dict(document)
    except ScheduleError as error:
        raise ScheduleError(f"{where}.{error}") from None
    if fingerprint != schedule.fingerprint:
        raise refuse(where, f"under the fingerprint of its schedule, {schedule.fingerprint!r},", fingerprint)
    return schedule

"""Plain dict / JSON -> schedule; the way out is `Schedule.to_dict`. Loading never executes code.

A document is `{"format": "tensorsched/schedule", "version": 1, "schedule": NODE}`; a NODE is `{"kind": "linear", ...}`
with the node's constructor arguments by name, nested where an argument is a schedule. What is read back goes through
the same checks as a constructor call; an error names the path inside the document.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import FORMAT, MAX_DEPTH, NODES, VERSION, Node
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.validators import shown

__all__ = ["from_dict", "from_json"]


def from_dict(document: Mapping[str, Any]) -> Schedule:
    """The schedule that a document describes; `from_dict(s.to_dict()) == s`.

    Raises:
        ScheduleError: not such a document, a newer version, an unknown kind, a missing or unknown argument, a wrong
            type or a NaN; the message starts with the path of the offending part.

    Example:
        >>> import tensorsched as ts
        >>> ts.from_dict(ts.linear(1.0, 0.0, steps=4).to_dict())
        linear(1.0, 0.0, steps=4)
    """
    if not isinstance(document, Mapping):
        raise ScheduleError(f"a schedule document must be a dict, got {type(document).__name__}")
    if document.get("format") != FORMAT:
        raise ScheduleError(
            f"format: must be {FORMAT!r}, got {shown(document.get('format'))}; is this a to_dict() document?"
        )
    version = document.get("version")
    if version != VERSION or isinstance(version, (bool, float)):
        newer = isinstance(version, int) and version > VERSION
        way_out = "update tensorsched" if newer else "write it again with to_dict()"
        raise ScheduleError(
            f"version: this tensorsched reads version {VERSION}, got {shown(version)}; {way_out}"
        )
    if extra := set(document) - {"format", "version", "schedule"}:
        raise ScheduleError(f"{_name(extra)}: unknown entry of a schedule document")
    return _decode(document.get("schedule"), "schedule", 1)  # type: ignore[return-value]  # every node is a Schedule


def from_json(text: str | bytes) -> Schedule:
    """The schedule that a JSON document describes; `from_json(s.to_json()) == s`.

    Raises:
        ScheduleError: as `from_dict`, or the text is no JSON (NaN, Infinity and doubled keys are not).

    Example:
        >>> import tensorsched as ts
        >>> ts.from_json(ts.noam(512, warmup=4000).to_json()) == ts.noam(512, warmup=4000)
        True
    """
    try:
        document = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_doubles)
    except ScheduleError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise ScheduleError(f"not a JSON document: {error}") from None
    return from_dict(document)


def _decode(entry: Any, path: str, depth: int) -> Node:
    if not isinstance(entry, Mapping):
        raise ScheduleError(f"{path}: must be a dict that describes a schedule, got {type(entry).__name__}")
    if depth > MAX_DEPTH:  # a deeper document would end in a RecursionError, not in one that names a path
        raise ScheduleError(f"{path[:60]}...: nested more than {MAX_DEPTH} levels deep")
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in NODES:
        raise ScheduleError(f"{path}.kind: unknown kind {shown(kind)}; known are {', '.join(sorted(NODES))}")
    fields = dataclasses.fields(NODES[kind])  # type: ignore[arg-type]  # a dataclass
    known = {field.name for field in fields}
    needed = {field.name for field in fields if not field.metadata.get("later")}
    given = set(entry) - {"kind"}
    if given - known:
        raise ScheduleError(f"{path}.{_name(given - known)}: {kind} has no such argument")
    if needed - given:
        raise ScheduleError(f"{path}.{_name(needed - given)}: missing; {kind} needs it")
    arguments = {name: _decode_argument(entry[name], f"{path}.{name}", depth) for name in sorted(given)}
    try:
        return NODES[kind](**arguments)
    except ScheduleError as error:
        raise ScheduleError(f"{path}: {error}") from None


def _decode_argument(value: Any, path: str, depth: int) -> Any:
    if isinstance(value, Mapping):
        return _decode(value, path, depth + 1)
    if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        return [_decode(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    return value


def _name(names: set[Any]) -> str:
    return min(map(str, names))


def _no_constant(text: str) -> NoReturn:
    raise ScheduleError(f"not a schedule document: {text} is not a finite number")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    # json takes the last of two equal keys: of an edited document half an edit would be lost.
    if len(made) != len(pairs):
        doubled = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ScheduleError(f"not a schedule document: the key {doubled!r} occurs twice in one object")
    return made

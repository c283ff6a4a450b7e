"""Plain dict / JSON -> schedule; the way out is `Schedule.to_dict`. Loading never executes code.

Two forms are read. What people write in a config is a call by name: `{"kind": "warmup_cosine", "peak": "3e-4", ...}`,
any shape or recipe, with defaults, and with numbers in strings (YAML reads 3e-4 as one). What a program wrote is a
document, in which nothing is left out:

A document is `{"format": "tensorsched/schedule", "version": 1, "schedule": NODE}`; a NODE is `{"kind": "linear", ...}`
with the node's constructor arguments by name, nested where an argument is a schedule. What is read back goes through
the same checks as a constructor call; an error names the path inside the document.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import FORMAT, MAX_DEPTH, NODES, VERSION, Node
from tensorsched.schedules.parse import FUNCTIONS, parse
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.validators import cut, named, shown
from tensorsched.schedules.words import hint
from tensorsched.schedules.work import bounded_work, spend

__all__ = ["from_dict", "from_json"]

_LONGEST_PATH = 120
_NUMBER = re.compile(r"[+-]?(\d[\d_]{0,20}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)


def from_dict(document: Mapping[str, Any]) -> Schedule:
    """The schedule that a document or a config describes; `from_dict(s.to_dict()) == s`.

    Args:
        document: what `to_dict` gave; or the name of a shape or recipe as `kind` beside its arguments, of which a
            schedule may be such a dict again, a number may stand in a string ("3e-4"; with an exponent and a whole
            value it counts steps: "1e5"), and "?" is a number that is not known yet (see `Template`).

    Raises:
        ScheduleError: not such a document, a newer version, an unknown kind, a missing or unknown argument, a wrong
            type or a NaN; the message starts with the path of the offending part.

    Example:
        >>> import tensorsched as ts
        >>> ts.from_dict(ts.linear(1.0, 0.0, steps=4).to_dict())
        linear(1.0, 0.0, steps=4)
        >>> ts.from_dict({"kind": "warmup_cosine", "peak": "3e-4", "total": "1e4", "warmup": 0.1})
        linear(0.0, 0.0003, steps=1000) >> cosine(0.0003, 0.0, steps=9000)
    """
    with bounded_work():
        return _read(document)


def _read(document: Any) -> Schedule:
    if not isinstance(document, Mapping):
        raise ScheduleError(f"a schedule document must be a dict, got {type(document).__name__}")
    if "kind" in document and "format" not in document:
        return _configured(document, "", 1)
    if not isinstance(document.get("format"), str) or document["format"] != FORMAT:
        raise ScheduleError(
            f"format: must be {FORMAT!r}, got {shown(document.get('format'))}; is this a to_dict() document?"
        )
    version = document.get("version")
    if type(version) is not int or version != VERSION:
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


def _configured(entry: Mapping[Any, Any], path: str, depth: int) -> Schedule:
    """A call by name; `path` is empty, or where it stands and a colon."""
    if depth > MAX_DEPTH:
        raise ScheduleError(f"{_where(path)}nested more than {MAX_DEPTH} levels deep")
    spend()
    kind = entry["kind"]
    if not isinstance(kind, str) or kind not in FUNCTIONS:
        near = hint(kind, FUNCTIONS) if isinstance(kind, str) else ""
        raise ScheduleError(f"{_where(path)}unknown kind {shown(kind)}{near}")
    options = {name: value for name, value in entry.items() if name != "kind"}
    # A name stands in messages from here on, and in text where a ? is beside it. (A constructor has its self.)
    if wrong := [
        name for name in options if not isinstance(name, str) or not name.isidentifier() or name == "self"
    ]:
        raise ScheduleError(f"{_where(path)}{kind} has no argument {shown(wrong[0])}")
    if any(isinstance(value, str) and value == "?" for value in options.values()):
        written = ", ".join(f"{name}={_scalar(name, value)}" for name, value in options.items())
        return parse(f"{kind}({written})")
    made = {name: _configured_argument(value, f"{path}{cut(name)}", depth) for name, value in options.items()}
    try:
        return FUNCTIONS[kind](**made)
    except ScheduleError as error:
        raise ScheduleError(f"{_where(path)}{error}") from None


def _scalar(name: str, value: Any) -> str:
    made = _number(value)
    if isinstance(made, str) and made == "?":
        return "?"
    if not isinstance(made, (int, float, str)):
        raise ScheduleError(
            f"{name}: beside a ? there is room for numbers and words only, got {shown(value)}"
        )
    return repr(made)


def _configured_argument(value: Any, path: str, depth: int) -> Any:
    if isinstance(value, Mapping) and "kind" in value:
        return _configured(value, f"{path}: ", depth + 1)
    if isinstance(value, (list, tuple)):
        if depth > MAX_DEPTH:
            raise ScheduleError(f"{_where(path)}: nested more than {MAX_DEPTH} levels deep")
        return [_configured_argument(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    return _number(value)


def _number(value: Any) -> Any:
    """The number that a string holds; anything else as it is."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return value
    text = value.strip().replace("_", "")
    if text.lstrip("+-").isdigit():
        return int(text)
    number = float(text)
    return int(number) if "." not in text and number.is_integer() else number


def _decode(entry: Any, path: str, depth: int) -> Node:
    spend()
    if not isinstance(entry, Mapping):
        raise ScheduleError(
            f"{_where(path)}: must be a dict that describes a schedule, got {type(entry).__name__}"
        )
    if depth > MAX_DEPTH:  # a deeper document would end in a RecursionError, not in one that names a path
        raise ScheduleError(f"{_where(path)}: nested more than {MAX_DEPTH} levels deep")
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in NODES:
        raise ScheduleError(
            f"{_where(path)}.kind: unknown kind {shown(kind)}; known are {', '.join(sorted(NODES))}"
        )
    fields = dataclasses.fields(NODES[kind])  # type: ignore[arg-type]  # a dataclass
    known = {field.name for field in fields}
    needed = {field.name for field in fields if not field.metadata.get("later")}
    given = set(entry) - {"kind"}
    if given - known:
        raise ScheduleError(f"{_where(path)}.{_name(given - known)}: {kind} has no such argument")
    if needed - given:
        raise ScheduleError(f"{_where(path)}.{_name(needed - given)}: missing; {kind} needs it")
    arguments = {name: _decode_argument(entry[name], f"{path}.{name}", depth) for name in sorted(given)}
    try:
        return NODES[kind](**arguments)
    except ScheduleError as error:
        raise ScheduleError(f"{_where(path)}: {error}") from None


def _decode_argument(value: Any, path: str, depth: int) -> Any:
    if isinstance(value, Mapping):
        return _decode(value, path, depth + 1)
    if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        return [_decode(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    return value


def _where(path: str) -> str:
    """A path as a message shows it: its end, where it is long."""
    return path if len(path) <= _LONGEST_PATH else f"...{path[3 - _LONGEST_PATH :]}"


def _name(names: set[Any]) -> str:
    """The first of the names, as a message shows it."""
    return min(map(named, names))


def _no_constant(text: str) -> NoReturn:
    raise ScheduleError(f"not a schedule document: {text} is not a finite number")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    # json takes the last of two equal keys: of an edited document half an edit would be lost.
    if len(made) != len(pairs):
        (doubled, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ScheduleError(f"not a schedule document: the key {shown(doubled)} occurs twice in one object")
    return made

"""Where a schedule comes from on the command line: an expression, a JSON file, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule, from_json
from tensorsched.schedules.parse import parse
from tensorsched.schedules.validators import cut, shown

_MOST_BYTES = 64 * 2**20  # of a document


def read_schedule(text: str) -> Schedule:
    """The schedule that an argument names: an expression, a path that ends in .json, or - for standard input.

    What comes from standard input may be an expression or a JSON document.

    Raises:
        ScheduleError: it is none of these, or not well formed.
    """
    if text == "-":
        return _either(_read_input())
    if text.lower().endswith(".json"):
        return _within(text, from_json, _read_file(text))
    return parse(text)


def read_schedules(texts: Sequence[str]) -> list[Schedule]:
    """The schedules that several arguments name, in order.

    Raises:
        ScheduleError: as `read_schedule`, or more than one comes from standard input.
    """
    if texts.count("-") > 1:
        raise ScheduleError(
            "only one of the schedules can come from standard input; name a file for the others"
        )
    return [read_schedule(text) for text in texts]


def _either(text: str) -> Schedule:
    document = text.lstrip().startswith("{")
    return _within("standard input", from_json if document else parse, text)


def _within(where: str, read: object, text: str) -> Schedule:
    """What `read` makes of the text; an error starts with where it comes from."""
    try:
        return read(text)  # type: ignore[operator, no-any-return]  # parse or from_json
    except ScheduleError as error:
        raise ScheduleError(f"{cut(where)}: {error}") from None


def _read_input() -> str:
    try:
        text = sys.stdin.read(_MOST_BYTES + 1)
    except UnicodeDecodeError as error:
        raise ScheduleError(f"standard input is not text: {error}") from None
    if len(text) > _MOST_BYTES:
        raise ScheduleError(f"standard input has more than {_MOST_BYTES} characters; is it a schedule?")
    return text


def _read_file(name: str) -> str:
    try:
        path = Path(name)
        if path.stat().st_size > _MOST_BYTES:
            raise ScheduleError(f"{cut(name)} has more than {_MOST_BYTES} bytes; is it a schedule?")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScheduleError(f"{cut(name)} is not text: {error}") from None
    except OSError as error:
        raise ScheduleError(f"{cut(name)} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a null byte
        raise ScheduleError(f"{shown(name)} is no file name: {error}") from None

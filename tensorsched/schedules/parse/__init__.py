"""Text -> schedule, for configs and the command line: the library's own expression syntax, and nothing else of Python.

The text is parsed by Python's `ast`, and the tree is walked with a list of what is allowed: numbers, `+ - * / >>` and
`**` (between small numbers), the names of shapes and recipes (also as `ts.name`), the methods of a schedule, and as
their arguments lists and tuples of numbers, words, True, False and None. Nothing is evaluated by Python, no attribute
is looked up by a name from the text, and the text's length, nesting and numbers are bounded before they are used. What
is refused is shown with a caret under the column.

`parse(repr(schedule)) == schedule` for every schedule whose text is short enough.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from tensorsched.errors import ScheduleError
from tensorsched.schedules.algebra import constant
from tensorsched.schedules.parse.names import FUNCTIONS as FUNCTIONS
from tensorsched.schedules.parse.names import METHODS as METHODS
from tensorsched.schedules.parse.reader import Reader
from tensorsched.schedules.parse.text import MAX_TEXT as MAX_TEXT
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.template import Template
from tensorsched.schedules.validators import refuse, shown
from tensorsched.schedules.work import bounded_work

__all__ = ["argument", "parse"]


def parse(text: str, **known: float) -> Schedule:
    """The schedule that the text describes, for example `linear(0, 3e-4, steps=500) >> cosine(3e-4, 0, steps=9500)`.

    Args:
        text: a Python expression over the shapes, recipes and operators of this package; line breaks are white
            space. `name=?` stands for a number that is not known yet.
        known: the numbers that stand for `?`, by the name in front of it.

    Returns:
        The schedule; a number alone is a constant. With a `?` that is not known a `Template`: `.bind(total=n)` makes
        the schedule.

    Raises:
        ScheduleError: anything else. The message says what, and points at the column.

    Example:
        >>> import tensorsched as ts
        >>> ts.parse("0.5 * ts.warmup_cosine(3e-4, total=100, warmup=0.1)")
        0.5 * (linear(0.0, 0.0003, steps=10) >> cosine(0.0003, 0.0, steps=90))
        >>> ts.parse("cosine(1, 0, steps=?)").bind(steps=4)
        cosine(1.0, 0.0, steps=4)
    """
    if not isinstance(text, str):
        raise refuse("parse: text", "text", text)
    with bounded_work():
        return _parse(text, known)


def _parse(text: str, known: Mapping[str, float]) -> Schedule:
    reader = Reader(text, known)
    missing = tuple(name for name in dict.fromkeys(reader.holes.values()) if name not in known)
    if missing:
        reader.check_names()
        if {"steps", "total"}.issuperset(missing):  # whatever these are, what is wrong elsewhere shows
            reader.read(check=True)
        return Template(text.strip(), missing, parse)
    value = reader.read()
    if not isinstance(value, (Schedule, int, float)) or isinstance(value, bool):
        raise ScheduleError(f"an expression must be a schedule or a number, got {shown(value)}")
    return value if isinstance(value, Schedule) else constant(value)


def argument(text: str | float | Schedule) -> Schedule:
    """`parse` for argparse: `parser.add_argument("--lr", type=ts.argument)`; argparse shows the message as it is.

    For jsonargparse and Lightning's command line, which write the configuration as well, a type of its own:
    `register_type(ts.Schedule, serializer=repr, deserializer=ts.argument)`, then `lr: ts.Schedule`.

    Args:
        text: what stands on the command line; `?` for a number that is not known yet. A schedule is given back, since
            jsonargparse calls a type again with what came of it; a number is a constant, as in its config files.

    Returns:
        The schedule, or a `Template`.

    Raises:
        argparse.ArgumentTypeError: the text is no schedule; the message points at the column.
        ScheduleError: it is neither text nor any of the others.

    Example:
        >>> import argparse, tensorsched as ts
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--lr", type=ts.argument)
        >>> parser.parse_args(["--lr", "cosine(3e-4, 0, steps=100)"]).lr
        cosine(0.0003, 0.0, steps=100)
    """
    if isinstance(text, Schedule):
        return text
    if not isinstance(text, str):
        return constant(text)
    try:
        return parse(text)
    except ScheduleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

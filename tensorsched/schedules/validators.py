"""Validators and converters for the fields of schedule nodes: one rule per kind of field.

A node is a frozen dataclass whose fields are declared with the functions below. Each puts its check into the field's
metadata; the check normalises what the user passed (ints to floats, arrays to tuples) or refuses it with the
argument's name, the value and the reason. Documents that `serialize` reads go through the same checks.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tensorsched.errors import ScheduleError

MAX_STEPS = 2**53
"""Durations and steps stay below this, so that every position is an exact float64."""

_SHOWN = 80  # characters of a refused value that an error repeats


def cut(text: str, most: int = _SHOWN) -> str:
    """What an error repeats of a text: at most 80 characters of it."""
    return text if len(text) <= most else text[: most - 3] + "..."


def shown(value: object) -> str:
    """What an error repeats of a value: its repr, at most 80 characters of it."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or an int of more digits than Python prints
        return f"<{type(value).__name__} too large to show>"
    return cut(text)


def named(name: object) -> str:
    """What an error repeats of somebody's name for something: as it is where it is one, else as a value."""
    return cut(name) if isinstance(name, str) and name.isidentifier() else shown(name)


def refuse(where: str, rule: str, value: object) -> ScheduleError:
    """The one sentence that every argument error is made of: which argument, what it must be, what it was."""
    return ScheduleError(f"{where} must be {rule}, got {shown(value)}")


def check_real(where: str, value: object) -> float:
    """A finite number as a Python float; -0.0 becomes 0.0 so that equal schedules print and hash alike."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise refuse(where, "a finite number", value)
    try:
        number = float(value) + 0.0
    except OverflowError:
        raise refuse(where, "a finite number that fits a float64", value) from None
    if not math.isfinite(number):
        raise refuse(where, "a finite number", value)
    return number


def check_positive(where: str, value: object) -> float:
    """A finite number above zero."""
    number = check_real(where, value)
    if number <= 0.0:
        raise refuse(where, "a number above 0", value)
    return number


def check_not_negative(where: str, value: object) -> float:
    """A finite number of at least 0."""
    number = check_real(where, value)
    if number < 0.0:
        raise refuse(where, "a number of at least 0", value)
    return number


def check_count(where: str, value: object, *, least: int = 0) -> int:
    """A whole number of steps, `least <= value <= 2**53`; a float is refused even if it is whole."""
    # To Python True is an int: steps=True would be a schedule of one step.
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise refuse(where, f"a whole number of steps (an int of at least {least})", value)
    count = int(value)
    if count < least:
        raise refuse(where, f"a whole number of steps of at least {least}", value)
    if count > MAX_STEPS:
        raise refuse(where, f"at most 2**53 = {MAX_STEPS} steps", value)
    return count


def check_flag(where: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise refuse(where, "True or False", value)
    return bool(value)


def is_number(value: object) -> bool:
    """Whether it is a number, not a flag."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def is_whole(value: object) -> bool:
    """Whether it is a number of steps, not a fraction."""
    return isinstance(value, numbers.Integral)


def check_text(where: str, value: object) -> str:
    """A str."""
    if not isinstance(value, str):
        raise refuse(where, "text", value)
    return value


def items(where: str, value: object, what: str) -> list[Any]:
    """The entries of a list, a tuple or a one-dimensional array."""
    if hasattr(value, "__array__"):  # numpy arrays and CPU tensors alike
        try:
            array = np.asarray(value)
        except (
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:  # a tensor that needs grad, is on a GPU, is bfloat16
            raise ScheduleError(
                f"{where} cannot be read as numbers: {error}; pass a list or a numpy array"
            ) from None
        value = array.tolist() if array.ndim else value
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise refuse(where, f"a one-dimensional sequence of {what}", value)
    return list(value)


def check_reals(where: str, value: object) -> tuple[float, ...]:
    """A non-empty sequence (or 1-d array) of finite numbers, as a tuple of floats."""
    entries = items(where, value, "finite numbers")
    if not entries:
        raise refuse(where, "a sequence of at least one number", value)
    # The common case, a million values at a time: one by one they take a second.
    if set(map(type, entries)) == {float} and np.isfinite(array := np.array(entries)).all():
        return tuple((array + 0.0).tolist())
    return tuple(check_real(f"{where}[{i}]", item) for i, item in enumerate(entries))


def check_boundaries(where: str, value: object) -> tuple[int, ...]:
    """Steps that never decrease; may be empty."""
    steps = tuple(check_count(f"{where}[{i}]", item) for i, item in enumerate(items(where, value, "steps")))
    if any(later < earlier for earlier, later in itertools.pairwise(steps)):
        raise refuse(where, "steps in increasing order", value)
    return steps


def check_points(where: str, value: object) -> tuple[tuple[int, float], ...]:
    """A non-empty sequence of (step, value) pairs whose steps never decrease; an equal step is a jump."""
    points: list[tuple[int, float]] = []
    for i, item in enumerate(items(where, value, "(step, value) pairs")):
        pair = items(f"{where}[{i}]", item, "a step and a value")
        if len(pair) != 2:  # noqa: PLR2004  a pair has two parts
            raise refuse(f"{where}[{i}]", "a (step, value) pair", item)
        step = check_count(f"{where}[{i}] step", pair[0])
        points.append((step, check_real(f"{where}[{i}] value", pair[1])))
        if i and step < points[i - 1][0]:
            raise refuse(where, "in order of their steps", value)
    if not points:
        raise refuse(where, "at least one (step, value) pair", value)
    return tuple(points)


def _choice(options: Iterable[str]) -> Callable[[str, Any], str]:
    allowed = tuple(options)

    def check(where: str, value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise refuse(where, "one of " + ", ".join(map(repr, allowed)), value)
        return value

    return check


def declare(check: Callable[[str, Any], Any], **options: Any) -> Any:
    """A dataclass field that is normalised by `check`."""
    return dataclasses.field(metadata={"check": check}, **options)


def real(**options: Any) -> Any:
    """A field that holds a finite float."""
    return declare(check_real, **options)


def positive(**options: Any) -> Any:
    """A field that holds a float above zero."""
    return declare(check_positive, **options)


def count(*, least: int = 0, **options: Any) -> Any:
    """A field that holds a number of steps."""
    return declare(lambda where, value: check_count(where, value, least=least), **options)


def optional_count(*, least: int = 0, **options: Any) -> Any:
    """A field that holds a number of steps or None."""
    return declare(
        lambda where, value: None if value is None else check_count(where, value, least=least), **options
    )


def flag(*, later: bool = False, **options: Any) -> Any:
    """A field that holds True or False; one that came later than the format is not in every document."""
    return dataclasses.field(metadata={"check": check_flag, "later": later}, **options)


def choice(*words: str, **options: Any) -> Any:
    """A field that holds one of a few words."""
    return declare(_choice(words), **options)


def reals() -> Any:
    """A field that holds a tuple of floats."""
    return declare(check_reals)


def boundaries() -> Any:
    """A field that holds a tuple of steps that never decrease."""
    return declare(check_boundaries)


def points() -> Any:
    """A field that holds a tuple of (step, value) pairs."""
    return declare(check_points)

"""What goes from one value to another within a recipe: shapes, and the curves that papers on cool-downs name.

With x = t / n the part that has passed, a cool-down is start - (start - end) * (1 - D(x)), and D is:

| name | D(x) | source |
| --- | --- | --- |
| "1-sqrt" | 1 - sqrt(x) | Haegele et al. 2024 (arXiv 2405.18392); Megatron "minus_sqrt", torchtitan "sqrt" |
| "minus_power(p)" | 1 - x**p | the same, for any p; epfml's "square" is p = 2 |
| "square" | 1 - x**2 | epfml/schedules-and-scaling |
| "power(p)" | (1 - x)**p | arXiv 2602.06797; torch PolynomialLR |
| "mirror_cosine" | 2 * (1 - x) - (1 + cos(pi * x)) / 2 | epfml/schedules-and-scaling |
| "lowered_linear(a)" | a * (1 - x), a = 0.7 | Dremov et al. 2025 (arXiv 2508.01483): falls to a at once |
| "half_life(T)" | 0.5**(t / T), not below `end` | MiniCPM (arXiv 2404.06395); it does not reach `end` |

A warm-up runs the first five backwards: D(1 - x), from `start` up to the peak (so do transformers' warm-up types).
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, cast

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.node import SHAPES, brief
from tensorsched.schedules.schedule import Schedule, maximum
from tensorsched.schedules.shapes import cosine, exponential_decay, linear, polynomial

Curve = Callable[..., Schedule]
"""What goes from one value to another: curve(start, end, steps=n), such as `linear`, `rex` or a partial of one."""

_CALL = re.compile(r"\s*([\w-]+)\s*(?:\(\s*([^()\s]+)\s*\))?\s*")


def minus_power(start: float, end: float, p: float, *, steps: int, rising: bool) -> Schedule:
    """1 - x**p."""
    return polynomial(start, end, p, steps=steps, of="remaining" if rising else "elapsed")


def power(start: float, end: float, p: float, *, steps: int, rising: bool) -> Schedule:
    """(1 - x)**p."""
    return polynomial(start, end, p, steps=steps, of="elapsed" if rising else "remaining")


def mirror_cosine(start: float, end: float, *, steps: int, rising: bool) -> Schedule:  # noqa: ARG001  it is symmetric
    """2 * (1 - x) - (1 + cos(pi * x)) / 2: the cosine mirrored at the straight line."""
    return 2.0 * linear(start, end, steps=steps) - cosine(start, end, steps=steps)


def lowered_linear(start: float, end: float, a: float = 0.7, *, steps: int, rising: bool) -> Schedule:
    """A * (1 - x)."""
    if rising:
        raise ScheduleError(
            "lowered_linear starts with a jump down: it is no warm-up; take another warmup_shape"
        )
    return linear(start * a + end * (1.0 - a), end, steps=steps)


def half_life(start: float, end: float, T: int, *, steps: int, rising: bool) -> Schedule:  # noqa: N803  the paper's
    """0.5**(t / T), not below end."""
    if rising:
        raise ScheduleError("half_life only falls: it is no warm-up; take another warmup_shape")
    fall = exponential_decay(start, 0.5, every=T).take(steps)
    return fall if end == 0.0 else maximum(fall, end)


CURVES: dict[str, Curve] = {
    "1-sqrt": functools.partial(minus_power, p=0.5),
    "half_life": half_life,
    "lowered_linear": lowered_linear,
    "minus_power": minus_power,
    "mirror_cosine": mirror_cosine,
    "power": power,
    "square": functools.partial(minus_power, p=2.0),
}
"""The table above; each is called as curve(start, end, *its number, steps=n, rising=...)."""


def phase(
    where: str, shape: str | Curve | Schedule, start: float, end: float, steps: int, *, rising: bool = False
) -> Schedule:
    """From start to end by a shape, or by the name of one.

    Args:
        where: what errors call the argument, such as "wsd: shape".
        shape: called as shape(start, end, steps=n); or the name of a curve above, with its number, or of a shape with
            these arguments; or a schedule from 1 to 0, which is stretched to the length.
        start: its value at step 0.
        end: its value from its last step on.
        steps: its length.
        rising: a curve above is run backwards, as a warm-up.

    Raises:
        ScheduleError: shape is neither, cannot be called like that, or makes something of another length.
    """
    if isinstance(shape, Schedule):
        return _scaled(where, shape, start, end, steps)
    curve: Any = functools.partial(_named(where, shape), rising=rising) if _is_curve(shape) else shape
    if not callable(curve):
        if not isinstance(shape, str) or shape not in _from_start_to_end():
            known = ", ".join(map(repr, [*_from_start_to_end(), *CURVES]))
            raise f.refuse(where, f"one of {known}, or a shape", shape)
        curve = _from_start_to_end()[shape]
    try:
        inspect.signature(curve).bind(start, end, steps=steps)
    except (TypeError, ValueError) as error:  # such as ts.constant, which has no end
        raise ScheduleError(
            f"{where} must go from start to end: shape(start, end, steps=n), got {f.shown(shape)}: {error}"
        ) from None
    try:
        made = curve(start, end, steps=steps)
    except ScheduleError as error:
        raise ScheduleError(f"{where}: {error}") from None
    if not isinstance(made, Schedule) or made.steps != steps:
        raise f.refuse(where, f"a shape that makes a schedule of the {steps} steps it is given", shape)
    return made


def _is_curve(shape: object) -> bool:
    found = _CALL.fullmatch(shape) if isinstance(shape, str) else None
    return found is not None and found[1] in CURVES


def _named(where: str, text: object) -> Curve:
    """A curve of the table, with the number in its parentheses."""
    found = _CALL.fullmatch(str(text))
    if found is None or found[2] is None:
        return CURVES[found[1] if found else str(text)]
    name, written = found[1], found[2]
    try:
        number: float = int(written) if name == "half_life" else float(written)
    except ValueError:
        raise f.refuse(where, f"{name} with a number in parentheses", text) from None
    keyword = next(iter(list(inspect.signature(CURVES[name]).parameters)[2:]))
    if keyword not in {"p", "a", "T"} or isinstance(CURVES[name], functools.partial):
        raise f.refuse(where, f"{name}, which takes no number", text)
    return functools.partial(CURVES[name], **{keyword: number})


def _scaled(where: str, shape: Schedule, start: float, end: float, steps: int) -> Schedule:
    """A schedule from 1 to 0, from start to end in so many steps."""
    length = shape.steps
    if not length or shape(0) != 1.0 or shape(length) != 0.0:
        raise ScheduleError(
            f"{where} must go from 1 at step 0 to 0 at its end, as a schedule with a length, got {brief(shape)}; or "
            "give a shape: shape(start, end, steps=n)"
        )
    fall = shape if length == steps else shape.span(steps) if steps else shape.take(0)
    if steps == 0:
        return linear(start, end, steps=0)
    return start * fall if end == 0.0 else start * fall + end * (1.0 - fall)


def _from_start_to_end() -> dict[str, Curve]:
    """The shapes that go from start to end, by name."""
    return {name: cast("Curve", made) for name, made in SHAPES.items() if _has_ends(name)}


@functools.cache  # reading the signatures of all shapes anew would be half of what a recipe takes
def _has_ends(shape: str) -> bool:
    return {"start", "end", "steps"} <= set(inspect.signature(SHAPES[shape]).parameters)

"""The oracle: `value(schedule, step)` in scalar float64, with nothing but `math` and `fractions`.

The tables are compared with these formulas, so they share no code with the vectorised ones: there is one small scalar
function per kind of node, in `shapes` and in `combinators`. `t` is a position in steps (a float, 0-based; a whole
number unless a `stretch` or a growing `repeat` lies above), `n` a length in steps.

Only a result that is not finite is an error: what is inf or nan on the way there may be brought back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import brief
from tensorsched.schedules.reference import combinators as combinators
from tensorsched.schedules.reference import shapes as shapes
from tensorsched.schedules.reference.formulas import FORMULAS as FORMULAS
from tensorsched.schedules.reference.formulas import at as at
from tensorsched.schedules.reference.formulas import formula as formula
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.validators import check_count, shown

__all__ = ["value"]


def value(schedule: Schedule, step: int, inputs: Mapping[str, float] | None = None) -> float:
    """The value of `schedule` at `step`, computed one number at a time.

    Args:
        schedule: any schedule without `ts.initial`.
        step: 0-based count of completed optimizer steps, an int in 0..2**53.
        inputs: the values of live inputs by name; one that is not named has the value that it starts with.

    Returns:
        f(step) as a Python float. No tensor, no device, no synchronisation. Takes microseconds at any step, except past
        many cycles of a `repeat` whose cycles change length: those are walked one by one.

    Raises:
        ScheduleError: not a schedule, a step that is negative or no int, a value that is not finite, `ts.initial`, or
            an input that the schedule does not have.

    Example:
        >>> import tensorsched as ts
        >>> value(ts.linear(0.0, 1.0, steps=4) * ts.live("scale", 1.0), 2, inputs={"scale": 0.5})
        0.25
        >>> value(ts.linear(0.0, 1.0, steps=4) >> ts.cosine(1.0, 0.0, steps=8), 2)
        0.5
    """
    if not isinstance(schedule, Schedule):
        raise ScheduleError(
            f"value() needs a schedule, got {shown(schedule)}; write a number as ts.constant(number)"
        )
    names = {getattr(held, "name", "") for held in schedule.inputs()}
    if unknown := sorted(set(inputs or ()) - names):
        raise ScheduleError(f"inputs: the schedule has no live input {unknown[0]!r}; it has {sorted(names)}")
    given = cast("Schedule", schedule._with_inputs(inputs or {}))
    result = at(given, float(check_count("step", step)))
    if not math.isfinite(result):
        raise ScheduleError(
            f"the value at step {step} is {result}, not a finite number (a division by 0, or an overflow); clamp the "
            f"schedule or change its end: {brief(schedule)}"
        )
    return result

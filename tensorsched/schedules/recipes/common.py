"""What recipes share: durations, checks that name the user's argument, and the warm-up that is followed by a decay."""

from __future__ import annotations

import numbers

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import constant
from tensorsched.schedules.recipes.curves import Curve, phase
from tensorsched.schedules.schedule import Schedule

RAMPS = ("from_start", "skip_start", "reach_early")
Shape = str | Curve | Schedule


def duration(where: str, value: float, total: int | None = None) -> int:
    """A duration in steps; a float is a fraction of `total`."""
    if isinstance(value, numbers.Real) and not isinstance(value, (numbers.Integral, bool)):
        fraction = f.check_real(where, value)
        if total is None or not 0.0 <= fraction <= 1.0:
            scope = (
                "whole steps: there is no total that it could be a fraction of"
                if total is None
                else "in [0, 1]"
            )
            raise ScheduleError(f"{where} must be {scope}, got {value!r}; pass an int for steps")
        return round(total * fraction)
    steps = f.check_count(where, value)
    if total is not None and steps > total:
        raise ScheduleError(
            f"{where} is {steps} steps, longer than the total of {total}; shorten it or raise total"
        )
    return steps


def option(where: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in allowed:
        raise f.refuse(where, "one of " + ", ".join(map(repr, allowed)), value)
    return value


def numbers_of(name: str, **values: float) -> tuple[float, ...]:
    """Finite numbers, in order; an error names the argument as the user knows it."""
    return tuple(f.check_real(f"{name}: {argument}", value) for argument, value in values.items())


def climb(  # noqa: PLR0917  the recipes' arguments, handed on
    name: str, start: float, peak: float, warmup: int, ramp: str, shape: Shape = "linear"
) -> Schedule:
    """The warm-up, `warmup` steps long, by one of the three conventions of the package's docstring."""
    option(f"{name}: ramp", ramp, RAMPS)
    if ramp == "from_start" or warmup == 0:
        return phase(f"{name}: warmup_shape", shape, start, peak, warmup, rising=True)
    if ramp == "skip_start":
        whole = phase(f"{name}: warmup_shape", shape, start, peak, warmup, rising=True)
        return whole.skip(1) >> constant(peak, steps=1)
    early = phase(f"{name}: warmup_shape", shape, start, peak, warmup - 1, rising=True)
    return early >> constant(peak, steps=1)


def warmup_decay(  # noqa: PLR0917  the recipes' arguments, handed on
    name: str,
    levels: tuple[float, float, float],
    total: int,
    warmup: float,
    decay: float | None,
    shape: Shape,
    ramp: str,
    last_step_ends: bool,  # noqa: FBT001  handed on from a named argument
    warmup_shape: Shape = "linear",
) -> Schedule:
    """From start to peak, stay there until `decay` steps are left, down to floor; a decay of None: no stay."""
    start, peak, floor = levels
    n = f.check_count(f"{name}: total", total)
    w = duration(f"{name}: warmup", warmup, n)
    if w == n > 0 and not f.is_whole(warmup):
        raise ScheduleError(
            f"{name}: warmup={warmup!r} is a fraction, here all {n} steps of the total, and leaves none for the decay; "
            f"write warmup=1 for one step, or a smaller fraction (warmup={n} if you mean all of it)"
        )
    d = n - w if decay is None else duration(f"{name}: decay", decay, n)
    if w + d > n:
        raise ScheduleError(
            f"{name}: warmup ({w}) and decay ({d}) are {w + d} steps, longer than the total of {n}; shorten "
            "one, or raise total"
        )
    # The end value belongs to step total-1.
    early = int(f.check_flag(f"{name}: last_step_ends", last_step_ends))
    down = phase(f"{name}: shape", shape, peak, floor, max(0, d - early))
    up = climb(name, start, peak, w, ramp, warmup_shape)
    return up >> down if decay is None else up >> constant(peak, steps=n - w - d) >> down

"""The schedules that people ask for by name: each an expression over the shapes and the algebra, and nothing else.

A recipe is public (as `ts.name`, in `parse` and on the command line) by standing in `__all__`.

Durations are steps (int) or, where a `total` is given, a fraction of it (float in [0, 1], rounded to a step).

Where libraries disagree on an endpoint, the default is tensorsched's own rule (a segment reaches its end value at its
length) and a named argument gives the other convention:

* `ramp="from_start"` (default): the warm-up is `start` at step 0 and `peak` at step `warmup` (optax, Megatron, keras,
  transformers). `"skip_start"`: step 0 already takes the first step of the ramp, so that `peak` is used at warmup-1
  and at warmup (torchtitan). `"reach_early"`: `start` at step 0 and `peak` at warmup-1, a slope of 1/(warmup-1)
  (ignite, mmengine).
* `last_step_ends=True`: the end value is used at step total-1 instead of from step total on (torch OneCycleLR,
  mmengine).
* transformers' cosine_with_min_lr shifts the whole curve by one: `warmup_cosine(...).skip(1)`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import constant
from tensorsched.schedules.node import SHAPES
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes import (
    cosine,
    exponential_decay,
    inverse_sqrt,
    linear,
    piecewise_constant,
    polynomial,
)

__all__ = [
    "cyclic",
    "multistep",
    "noam",
    "one_cycle",
    "step_decay",
    "warm_restarts",
    "warmup_constant",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
    "wsd",
]

RAMPS = ("from_start", "skip_start", "reach_early")

Curve = Callable[..., Schedule]
"""What goes from one value to another: curve(start, end, steps=n), such as `linear`, `rex` or a partial of one."""


def _steps(where: str, value: float, total: int | None = None) -> int:
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


def _option(where: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise f.refuse(where, "one of " + ", ".join(map(repr, allowed)), value)
    return value


def phase(where: str, shape: str | Curve, start: float, end: float, steps: int) -> Schedule:
    """From start to end by a shape, or by the name of one.

    Args:
        where: what errors call the argument, such as "wsd: shape".
        shape: called as shape(start, end, steps=n); or "1-sqrt", or the name of a shape with these arguments.
        start: its value at step 0.
        end: its value from its last step on.
        steps: its length.

    Raises:
        ScheduleError: shape is neither, cannot be called like that, or makes something of another length.
    """
    curve: Any = shape if callable(shape) else _named_curves().get(shape)
    if curve is None:
        raise f.refuse(where, f"one of {', '.join(map(repr, _named_curves()))}, or a shape", shape)
    try:
        inspect.signature(curve).bind(start, end, steps=steps)
    except (TypeError, ValueError) as error:  # such as ts.constant, which has no end
        raise ScheduleError(
            f"{where} must go from start to end: shape(start, end, steps=n), got {f.shown(shape)}: {error}"
        ) from None
    made = curve(start, end, steps=steps)
    if not isinstance(made, Schedule) or made.steps != steps:
        raise f.refuse(where, f"a shape that makes a schedule of the {steps} steps it is given", shape)
    return made


def _named_curves() -> dict[object, Curve]:
    """What goes from start to end, by its name in `SHAPES`; and the cool-down that papers call "1-sqrt"."""
    named: dict[object, Any] = {
        name: made for name, made in SHAPES.items() if {"start", "end", "steps"} <= _takes(made)
    }
    return {**named, "1-sqrt": functools.partial(polynomial, power=0.5, of="elapsed")}


def _takes(shape: Callable[..., object]) -> set[str]:
    return set(inspect.signature(shape).parameters)


def _ramp(name: str, start: float, peak: float, warmup: int, ramp: str) -> Schedule:
    """The warm-up, `warmup` steps long, by one of the three conventions of the module docstring."""
    _option(f"{name}: ramp", ramp, RAMPS)
    if ramp == "from_start" or warmup == 0:
        return linear(start, peak, steps=warmup)
    if ramp == "skip_start":
        return linear(start, peak, steps=warmup).skip(1) >> constant(peak, steps=1)
    return linear(start, peak, steps=warmup - 1) >> constant(peak, steps=1)


def _warmup_decay(  # noqa: PLR0917  the recipes' arguments, handed on
    name: str,
    levels: tuple[float, float, float],
    total: int,
    warmup: float,
    decay: float | None,
    shape: str | Curve,
    ramp: str,
    last_step_ends: bool,  # noqa: FBT001  handed on from a named argument
) -> Schedule:
    """From levels[0] to levels[1], stay there until `decay` steps are left, down to levels[2]; all of them: no stay."""
    start, peak, floor = levels
    n = f.check_count(f"{name}: total", total)
    w = _steps(f"{name}: warmup", warmup, n)
    d = n - w if decay is None else _steps(f"{name}: decay", decay, n)
    if w + d > n:
        raise ScheduleError(
            f"{name}: warmup ({w}) and decay ({d}) are {w + d} steps, longer than the total of {n}"
        )
    early = int(
        f.check_flag(f"{name}: last_step_ends", last_step_ends)
    )  # the end value belongs to step total-1
    down = phase(f"{name}: shape", shape, peak, floor, max(0, d - early))
    up = _ramp(name, start, peak, w, ramp)
    return up >> down if decay is None else up >> constant(peak, steps=n - w - d) >> down


def warmup_constant(peak: float, *, warmup: int, start: float = 0.0, ramp: str = "from_start") -> Schedule:
    """Linear warm-up, then `peak` for ever: `linear(start, peak, steps=warmup) >> constant(peak)`.

    Args:
        peak: the value after the warm-up.
        warmup: its length in steps.
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).

    Raises:
        ScheduleError: a value is not finite, or warmup is not a whole number >= 0.

    Example:
        >>> import tensorsched as ts
        >>> ts.warmup_constant(1.0, warmup=4).values(6).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return _ramp("warmup_constant", start, peak, _steps("warmup_constant: warmup", warmup), ramp) >> constant(
        peak
    )


def warmup_linear(
    peak: float,
    *,
    total: int,
    warmup: float,
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
    last_step_ends: bool = False,
) -> Schedule:
    """Linear warm-up, then linear decay: `linear(start, peak, steps=warmup) >> linear(peak, floor, steps=...)`.

    Args:
        peak: value at step `warmup`.
        total: length in steps, warm-up included.
        warmup: steps, or a fraction of total.
        floor: value reached at `total` and held (torch's eta_min, Megatron's min_lr, optax's end_value).
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).
        last_step_ends: use the end value at step total-1 (mmengine) instead of from step total on.

    Raises:
        ScheduleError: a value is not finite, or warmup is longer than total.

    Source: transformers get_linear_schedule_with_warmup (BERT).

    Example:
        >>> import tensorsched as ts
        >>> ts.warmup_linear(1.0, total=6, warmup=2).values(7).tolist()
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    levels = (start, peak, floor)
    return _warmup_decay("warmup_linear", levels, total, warmup, None, linear, ramp, last_step_ends)


def warmup_cosine(
    peak: float,
    *,
    total: int,
    warmup: float,
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
    last_step_ends: bool = False,
) -> Schedule:
    """Linear warm-up, then cosine decay: `linear(start, peak, steps=warmup) >> cosine(peak, floor, steps=...)`.

    Args:
        peak: value at step `warmup`.
        total: length in steps, warm-up included.
        warmup: steps, or a fraction of total.
        floor: value reached at `total` and held (torch's eta_min, Megatron's min_lr, optax's end_value).
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).
        last_step_ends: use the end value at step total-1 (mmengine) instead of from step total on.

    Raises:
        ScheduleError: a value is not finite, or warmup is longer than total.

    Source: optax.warmup_cosine_decay_schedule, Megatron "cosine", transformers get_cosine_schedule_with_warmup.

    Example:
        >>> import tensorsched as ts
        >>> ts.warmup_cosine(3e-4, total=20_000, warmup=0.025, floor=3e-5)
        linear(0.0, 0.0003, steps=500) >> cosine(0.0003, 3e-05, steps=19500)
    """
    levels = (start, peak, floor)
    return _warmup_decay("warmup_cosine", levels, total, warmup, None, cosine, ramp, last_step_ends)


def warmup_inverse_sqrt(
    peak: float, *, warmup: int, timescale: float | None = None, start: float = 0.0, ramp: str = "from_start"
) -> Schedule:
    """Linear warm-up, then inverse square root: `linear(start, peak, steps=warmup) >> inverse_sqrt(peak, timescale)`.

    Args:
        peak: value at step `warmup`.
        warmup: its length in steps.
        timescale: see `inverse_sqrt`; default `warmup`, or 10_000 without a warm-up (as transformers).
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).

    Raises:
        ScheduleError: a value is not finite, or warmup is not a whole number >= 0.

    Source: transformers get_inverse_sqrt_schedule.

    Example:
        >>> import tensorsched as ts
        >>> ts.warmup_inverse_sqrt(1.0, warmup=1).values(5).tolist()
        [0.0, 1.0, 0.7071067811865476, 0.5773502691896257, 0.5]
    """
    w = _steps("warmup_inverse_sqrt: warmup", warmup)
    scale = (w or 10_000) if timescale is None else timescale
    return _ramp("warmup_inverse_sqrt", start, peak, w, ramp) >> inverse_sqrt(peak, timescale=scale)


def noam(d_model: int, *, warmup: int, factor: float = 1.0, first_count: int = 0) -> Schedule:
    """The Transformer's: factor * d_model**-0.5 * min(c**-0.5, c * warmup**-1.5), where c = t + first_count.

    Args:
        d_model: model width, an int >= 1.
        warmup: steps until the peak, an int >= 1.
        factor: multiplies everything.
        first_count: 0 (default): the first update uses 0, the peak is at step `warmup`. 1: the paper's step_num, which
            starts at 1, so that everything happens one step earlier (annotated transformer, NeMo).

    Raises:
        ScheduleError: d_model or warmup is not a whole number >= 1, or first_count is neither 0 nor 1.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 5.3.

    Example:
        >>> import tensorsched as ts
        >>> ts.noam(4, warmup=1).values(5).tolist()
        [0.0, 0.5, 0.3535533905932738, 0.28867513459481287, 0.25]
    """
    width = f.check_count("noam: d_model", d_model, least=1)
    w = f.check_count("noam: warmup", warmup, least=1)
    if f.check_count("noam: first_count", first_count) > 1:
        raise f.refuse("noam: first_count", "0 or 1", first_count)
    peak = f.check_real("noam: factor", factor) / (width**0.5 * w**0.5)
    schedule = linear(0.0, peak, steps=w) >> inverse_sqrt(peak, timescale=w)
    return schedule.skip(1) if first_count else schedule


def wsd(
    peak: float,
    *,
    total: int,
    warmup: float,
    decay: float,
    shape: str | Curve = "linear",
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
    last_step_ends: bool = False,
) -> Schedule:
    """Warm-up, stable, decay: linear to peak, constant, then down to floor during the last `decay` steps.

    Args:
        peak: value of the stable phase.
        total: length in steps, all phases included.
        warmup: steps, or a fraction of total.
        decay: steps, or a fraction of total.
        shape: of the decay: "linear", "cosine", "1-sqrt" (floor + (peak - floor) * (1 - sqrt(t / decay))), a shape such
            as `ts.rex` or its name, or anything that is called like one: shape(start, end, steps=n).
        floor: value reached at `total` and held (torch's eta_min, Megatron's min_lr, optax's end_value).
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).
        last_step_ends: use the end value at step total-1 (mmengine) instead of from step total on.

    Raises:
        ScheduleError: a value is not finite, warm-up and decay together are longer than total, or shape does not go
            from one value to another.

    Source: MiniCPM (arXiv 2404.06395), Haegele et al. 2024 (arXiv 2405.18392); Megatron and torchtitan "WSD".

    Example:
        >>> import tensorsched as ts
        >>> ts.wsd(1.0, total=8, warmup=2, decay=4).values(9).tolist()
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    levels = (start, peak, floor)
    return _warmup_decay("wsd", levels, total, warmup, decay, shape, ramp, last_step_ends)


def one_cycle(
    peak: float,
    *,
    total: int,
    rise: float = 0.3,
    start: float | None = None,
    end: float | None = None,
    shape: str | Curve = "cosine",
    three_phase: bool = False,
    last_step_ends: bool = False,
) -> Schedule:
    """Up to the peak and down again: start -> peak -> end, or in three phases start -> peak -> start -> end.

    Args:
        peak: the largest (for momentum: the smallest) value.
        total: length in steps.
        rise: length of the first phase (torch's pct_start): steps, or a fraction of total; the second of three phases
            is as long.
        start: value at step 0; default peak / 25.
        end: value reached at `total` and held; default start / 10_000.
        shape: of every phase: "cosine", "linear", a shape such as `ts.rex` or its name, or anything that is called
            like one: shape(start, end, steps=n).
        three_phase: come back to `start` first, then go down to `end`.
        last_step_ends: torch OneCycleLR's ends: the peak at rise-1, the end value at total-1 (in three phases the
            return at 2*rise-2); torch's values where its pct_start * total is whole, since torch keeps the fraction
            of a step. Default: the peak at `rise` (as optax), the end at `total`.

    Momentum's mirror image is `one_cycle(0.85, start=0.95, end=0.95, ...)`.

    Raises:
        ScheduleError: a value is not finite, the phases are longer than total, or shape does not go from one value to
            another.

    Source: Smith and Topin 2017 (arXiv 1708.07120); torch OneCycleLR (div_factor=25, final_div_factor=1e4), optax
    cosine_onecycle_schedule.

    Example:
        >>> import tensorsched as ts
        >>> ts.one_cycle(1.0, total=8, rise=2, start=0.5, end=0.0, shape="linear").values(9).tolist()[:4]
        [0.5, 0.75, 1.0, 0.8333333333333334]
    """
    n = f.check_count("one_cycle: total", total)
    up = _steps("one_cycle: rise", rise, n)
    low = f.check_real("one_cycle: peak", peak) / 25.0 if start is None else start
    final = f.check_real("one_cycle: start", low) / 1e4 if end is None else end
    if f.check_flag("one_cycle: last_step_ends", last_step_ends):
        up, n = max(0, up - 1), max(0, n - 1)
    made = functools.partial(phase, "one_cycle: shape", shape)
    levels = (
        [low, peak, low, final] if f.check_flag("one_cycle: three_phase", three_phase) else [low, peak, final]
    )
    down = n - up * (len(levels) - 2)
    if down < 0:
        raise ScheduleError(
            f"one_cycle: two phases of {up} steps are longer than the total of {n}; shorten rise"
        )
    climb = [made(a, b, up) for a, b in itertools.pairwise(levels[:-1])]
    return functools.reduce(operator.rshift, [*climb, made(levels[-2], levels[-1], down)])


def warm_restarts(
    peak: float, *, period: int, floor: float = 0.0, length_mult: float = 1.0, peak_mult: float = 1.0
) -> Schedule:
    """SGDR: cosine from peak to floor, restarted after each period; unbounded (`.take(n)` bounds it).

    Args:
        peak: value at the start of the first period.
        period: its length in steps, an int >= 1.
        floor: value that each period approaches (torch's eta_min); it is never shown, since the next one starts there.
        length_mult: each period is this much longer than the one before, rounded down (torch T_mult, ignite
            cycle_mult).
        peak_mult: multiplies peak - floor from period to period (keras m_mul, timm cycle_decay).

    Raises:
        ScheduleError: a value is not finite, period is not a whole number >= 1, or length_mult shrinks it.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983); torch CosineAnnealingWarmRestarts, keras CosineDecayRestarts.

    Example:
        >>> import tensorsched as ts
        >>> ts.warm_restarts(1.0, period=2, length_mult=2.0).values(6).round(4).tolist()
        [1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464]
    """
    if peak_mult == 1.0:
        return cosine(peak, floor, steps=period).repeat(length_mult=length_mult)
    height = f.check_real("warm_restarts: peak", peak) - f.check_real("warm_restarts: floor", floor)
    return floor + cosine(height, 0.0, steps=period).repeat(length_mult=length_mult, value_mult=peak_mult)


def cyclic(
    base: float,
    peak: float,
    *,
    up: int,
    down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """Triangles between base and peak, for ever.

    Args:
        base: the lower value, at step 0.
        peak: the upper value, at step `up`.
        up: steps from base to peak, an int >= 1.
        down: steps back; default `up`.
        mode: "triangular"; "triangular2" halves the height each cycle; "exp_range" multiplies it by gamma**t.
        gamma: for "exp_range".

    Raises:
        ScheduleError: a value is not finite, or up is not a whole number >= 1.

    Source: Smith 2017 (arXiv 1506.01186); torch CyclicLR.

    Example:
        >>> import tensorsched as ts
        >>> ts.cyclic(0.0, 1.0, up=2, mode="triangular2").values(8).tolist()
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]
    """
    rising = f.check_count("cyclic: up", up, least=1)
    falling = rising if down is None else f.check_count("cyclic: down", down)
    if _option("cyclic: mode", mode, ("triangular", "triangular2", "exp_range")) == "triangular":
        return (linear(base, peak, steps=rising) >> linear(peak, base, steps=falling)).repeat()
    height = f.check_real("cyclic: peak", peak) - f.check_real("cyclic: base", base)
    triangle = linear(0.0, height, steps=rising) >> linear(height, 0.0, steps=falling)
    if mode == "triangular2":
        return base + triangle.repeat(value_mult=0.5)
    return base + triangle.repeat() * exponential_decay(1.0, gamma, every=1)


def step_decay(start: float, *, every: int, factor: float = 0.1) -> Schedule:
    """Multiply by `factor` every `every` steps: `exponential_decay(start, factor, every=every, staircase=True)`.

    Args:
        start: value at step 0.
        every: number of steps (torch's step_size), an int >= 1.
        factor: above 0 (torch's gamma).

    Raises:
        ScheduleError: a value is not finite, or every is not a whole number >= 1.

    Source: torch StepLR.

    Example:
        >>> import tensorsched as ts
        >>> ts.step_decay(1.0, every=2, factor=0.5).values(5).tolist()
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return exponential_decay(start, factor, every=every, staircase=True)


def multistep(start: float, milestones: Sequence[int], *, factor: float = 0.1) -> Schedule:
    """Multiply by `factor` at each milestone: levels start * factor**i, changed *at* the milestone.

    Args:
        start: value at step 0.
        milestones: strictly increasing steps.
        factor: any finite number (torch's gamma).

    Raises:
        ScheduleError: a value is not finite, or the milestones do not increase.

    Source: torch MultiStepLR, optax.piecewise_constant_schedule.

    Example:
        >>> import tensorsched as ts
        >>> ts.multistep(1.0, [2, 3], factor=0.5).values(5).tolist()
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    level, ratio = f.check_real("multistep: start", start), f.check_real("multistep: factor", factor)
    at = f.check_boundaries("multistep: milestones", milestones)
    try:
        levels = [level * ratio**i for i in range(len(at) + 1)]
    except OverflowError:
        raise ScheduleError(
            f"multistep: factor={ratio!r} to the power of {len(at)} milestones overflows"
        ) from None
    return piecewise_constant(levels, at)

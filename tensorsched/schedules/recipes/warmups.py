"""A warm-up, then a decay."""

from __future__ import annotations

import functools
import math

from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import constant
from tensorsched.schedules.recipes.common import Shape, climb, duration, numbers_of, warmup_decay
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes import cosine, inverse_sqrt, linear, polynomial
from tensorsched.schedules.words import worded


@worded
def warmup_constant(
    peak: float, *, warmup: int, start: float = 0.0, ramp: str = "from_start", warmup_shape: Shape = "linear"
) -> Schedule:
    """Linear warm-up, then `peak` for ever: `linear(start, peak, steps=warmup) >> constant(peak)`.

    Args:
        peak: the value after the warm-up.
        warmup: its length in steps.
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).
        warmup_shape: as wsd's shape, run upwards (transformers' warmup_type).

    Raises:
        ScheduleError: a value is not finite, or warmup is not a whole number >= 0.

    Example:
        >>> import tensorsched as ts
        >>> ts.warmup_constant(1.0, warmup=4).values(6).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    start, peak = numbers_of("warmup_constant", start=start, peak=peak)
    w = duration("warmup_constant: warmup", warmup)
    return climb("warmup_constant", start, peak, w, ramp, warmup_shape) >> constant(peak)


@worded
def warmup_linear(
    peak: float,
    *,
    total: int,
    warmup: float,
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
    last_step_ends: bool = False,
    warmup_shape: Shape = "linear",
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
        warmup_shape: as wsd's shape, run upwards (transformers' warmup_type).

    Raises:
        ScheduleError: a value is not finite, or warmup is longer than total.

    Source: transformers get_linear_schedule_with_warmup (BERT).

    Example:
        >>> import tensorsched as ts
        >>> ts.warmup_linear(1.0, total=6, warmup=2).values(7).tolist()
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    start, peak, floor = numbers_of("warmup_linear", start=start, peak=peak, floor=floor)
    levels = (start, peak, floor)
    return warmup_decay(
        "warmup_linear", levels, total, warmup, None, linear, ramp, last_step_ends, warmup_shape
    )


@worded
def warmup_cosine(
    peak: float,
    *,
    total: int,
    warmup: float,
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
    last_step_ends: bool = False,
    warmup_shape: Shape = "linear",
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
        warmup_shape: as wsd's shape, run upwards (transformers' warmup_type).

    Raises:
        ScheduleError: a value is not finite, or warmup is longer than total.

    Source: optax.warmup_cosine_decay_schedule, Megatron "cosine", transformers get_cosine_schedule_with_warmup.

    Example:
        >>> import tensorsched as ts
        >>> ts.warmup_cosine(3e-4, total=20_000, warmup=0.025, floor=3e-5)
        linear(0.0, 0.0003, steps=500) >> cosine(0.0003, 3e-05, steps=19500)
    """
    start, peak, floor = numbers_of("warmup_cosine", start=start, peak=peak, floor=floor)
    levels = (start, peak, floor)
    return warmup_decay(
        "warmup_cosine", levels, total, warmup, None, cosine, ramp, last_step_ends, warmup_shape
    )


@worded
def warmup_polynomial(
    peak: float,
    *,
    total: int,
    warmup: float,
    power: float = 1.0,
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
    last_step_ends: bool = False,
    warmup_shape: Shape = "linear",
) -> Schedule:
    """Linear warm-up, then floor + (peak - floor) * (1 - t / n)**power over the n steps that are left.

    Args:
        peak: value at step `warmup`.
        total: length in steps, warm-up included.
        warmup: steps, or a fraction of total.
        power: above 0; 1 is `warmup_linear`.
        floor: value reached at `total` and held (torch's eta_min, Megatron's min_lr, optax's end_value).
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).
        last_step_ends: use the end value at step total-1 (mmengine) instead of from step total on.
        warmup_shape: as wsd's shape, run upwards (transformers' warmup_type).

    Raises:
        ScheduleError: a value is not finite, or warmup is longer than total.

    Source: transformers get_polynomial_decay_schedule_with_warmup(lr_end=floor, power), NeMo PolynomialDecayAnnealing.

    Example:
        >>> import tensorsched as ts
        >>> ts.warmup_polynomial(1.0, total=6, warmup=2, power=2).values(7).tolist()
        [0.0, 0.5, 1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    start, peak, floor = numbers_of("warmup_polynomial", start=start, peak=peak, floor=floor)
    levels = (start, peak, floor)
    shape = functools.partial(polynomial, power=f.check_positive("warmup_polynomial: power", power))
    return warmup_decay(
        "warmup_polynomial", levels, total, warmup, None, shape, ramp, last_step_ends, warmup_shape
    )


@worded
def decay_to_zero(peak: float, *, total: int, warmup: float = 0.1, start: float = 0.0) -> Schedule:
    """Linear warm-up, then straight to exactly 0: `warmup_linear` with floor=0, under the name of its paper.

    Args:
        peak: value at step `warmup`.
        total: length in steps, warm-up included.
        warmup: steps, or a fraction of total (default a tenth).
        start: value at step 0.

    Raises:
        ScheduleError: a value is not finite, or warmup is longer than total.

    Source: Bergsma et al. 2025, "Straight to Zero" (arXiv 2502.15938), D2Z.

    Example:
        >>> import tensorsched as ts
        >>> ts.decay_to_zero(1.0, total=10, warmup=2)
        linear(0.0, 1.0, steps=2) >> linear(1.0, 0.0, steps=8)
    """
    start, peak = numbers_of("decay_to_zero", start=start, peak=peak)
    levels = (start, peak, 0.0)
    return warmup_decay("decay_to_zero", levels, total, warmup, None, linear, "from_start", False)  # noqa: FBT003


@worded
def wave(
    peak: float,
    *,
    total: int,
    warmup: float,
    cycles: float = 0.5,
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
) -> Schedule:
    """Linear warm-up, then `cycles` whole cosine waves: floor + (peak - floor) * (1 + cos(2 * pi * cycles * p)) / 2.

    p is the part of what follows the warm-up. A wave goes down to the floor *and back up*; half a wave is
    `warmup_cosine`. From `total` on the value there is held.

    Args:
        peak: value at step `warmup`, and at the end of each whole wave.
        total: length in steps, warm-up included.
        warmup: steps, or a fraction of total.
        cycles: waves, above 0 (transformers' num_cycles); need not be whole.
        floor: value in the valleys.
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).

    Raises:
        ScheduleError: a value is not finite, cycles is not above 0, or warmup is longer than total.

    Source: transformers get_cosine_schedule_with_warmup(num_cycles).

    Example:
        >>> import tensorsched as ts
        >>> ts.wave(1.0, total=8, warmup=0, cycles=2).values(9).round(4).tolist()
        [1.0, 0.5, 0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 1.0]
    """
    start, peak, floor = numbers_of("wave", start=start, peak=peak, floor=floor)
    n = f.check_count("wave: total", total)
    w = duration("wave: warmup", warmup, n)
    waves = f.check_positive("wave: cycles", cycles)
    if waves > f.MAX_STEPS:  # far beyond one a step; its double may not be finite
        raise f.refuse("wave: cycles", "at most 2**53", waves)
    halves = math.ceil(2.0 * waves)
    swing = cosine(peak, floor, steps=1).mirror().repeat((halves + 1) // 2).take(halves)
    up = climb("wave", start, peak, w, ramp)
    if n == w:
        return up >> cosine(peak, floor, steps=0)
    return up >> swing.span((n - w) * (halves / (2.0 * waves))).take(n - w)


@worded
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
    start, peak = numbers_of("warmup_inverse_sqrt", start=start, peak=peak)
    w = duration("warmup_inverse_sqrt: warmup", warmup)
    scale = (
        (w or 10_000) if timescale is None else f.check_positive("warmup_inverse_sqrt: timescale", timescale)
    )
    return climb("warmup_inverse_sqrt", start, peak, w, ramp) >> inverse_sqrt(peak, timescale=scale)


@worded
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

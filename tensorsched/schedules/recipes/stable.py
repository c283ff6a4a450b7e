"""A warm-up, a long middle, and a decay at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import chain, constant
from tensorsched.schedules.recipes.common import Shape, climb, duration, numbers_of, warmup_decay
from tensorsched.schedules.recipes.curves import phase
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes import power_law
from tensorsched.schedules.words import worded

_LARGEST_EXPONENT = 700.0  # of which exp is finite


@worded
def wsd(
    peak: float,
    *,
    total: int,
    warmup: float,
    decay: float,
    shape: Shape = "linear",
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
    last_step_ends: bool = False,
    warmup_shape: Shape = "linear",
) -> Schedule:
    """Warm-up, stable, decay: linear to peak, constant, then down to floor during the last `decay` steps.

    Args:
        peak: value of the stable phase.
        total: length in steps, all phases included.
        warmup: steps, or a fraction of total.
        decay: steps, or a fraction of total.
        shape: of the decay. The name of a curve: "linear", "cosine", "exponential" (needs a floor above 0), "1-sqrt",
            "minus_power(p)" (1 - x**p), "power(p)" ((1 - x)**p), "square", "mirror_cosine", "lowered_linear(0.7)",
            "half_life(T)"; a shape such as `ts.rex` or its name; anything that is called like one: shape(start, end,
            steps=n); or a schedule from 1 to 0, such as `ts.rex(1, 0, steps=100)`, which is laid over the decay.
        floor: value reached at `total` and held (torch's eta_min, Megatron's min_lr, optax's end_value).
        start: value at step 0.
        ramp: "from_start" (default: `start` at step 0, the peak at step warmup), "skip_start" (step 0 takes the ramp's
            first step; the peak at warmup-1 and at warmup) or "reach_early" (the peak at warmup-1).
        last_step_ends: use the end value at step total-1 (mmengine) instead of from step total on.
        warmup_shape: of the warm-up: as shape, run upwards (transformers' warmup_type).

    Raises:
        ScheduleError: a value is not finite, warm-up and decay together are longer than total, or shape does not go
            from one value to another.

    Source: MiniCPM (arXiv 2404.06395), Haegele et al. 2024 (arXiv 2405.18392); Megatron and torchtitan "WSD"; the
    curves: `recipes.curves`.

    Example:
        >>> import tensorsched as ts
        >>> ts.wsd(1.0, total=8, warmup=2, decay=4).values(9).tolist()
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    start, peak, floor = numbers_of("wsd", start=start, peak=peak, floor=floor)
    levels = (start, peak, floor)
    return warmup_decay("wsd", levels, total, warmup, decay, shape, ramp, last_step_ends, warmup_shape)


@worded
def wsd_s(
    peak: float | Sequence[float],
    *,
    periods: Sequence[int],
    warmup: float,
    decay: float = 0.1,
    shape: Shape = "linear",
    floor: float = 0.0,
    start: float = 0.0,
    ramp: str = "from_start",
) -> Schedule:
    """WSD-S: several decays in one run, each of which ends a usable model; training goes on from the decayed weights.

    Every period stays at its peak, then goes down to floor during its last `decay` steps; the next one starts at its
    peak at once. Only the first has a warm-up.

    Args:
        peak: the stable value; or one for each period, if later ones are to be lower.
        periods: the length of each period in steps.
        warmup: steps, or a fraction of the first period.
        decay: steps, or a fraction of each period.
        shape: of the decays, as in `wsd`.
        floor: value at the end of each period; only the last one's is ever used, since the next period starts there.
        start: value at step 0.
        ramp: of the warm-up, as in `wsd`.

    Raises:
        ScheduleError: a value is not finite, the counts do not fit, or a period is shorter than its phases.

    Source: Wen et al. 2024 (arXiv 2410.05192), WSD-S; OLMo-core WSDS(period_lengths, decay_fraction).

    Example:
        >>> import tensorsched as ts
        >>> ts.wsd_s([1.0, 0.5], periods=[4, 4], warmup=1, decay=2).values(9).tolist()
        [0.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.0]
    """
    periods = f.items("wsd_s: periods", periods, "lengths in steps")
    if not periods:
        raise f.refuse("wsd_s: periods", "at least one length in steps", periods)
    peaks = (
        (f.check_real("wsd_s: peak", peak),) * len(periods)
        if f.is_number(peak)
        else f.check_reals("wsd_s: peak", peak)
    )
    if len(peaks) != len(periods):
        raise ScheduleError(
            f"wsd_s: {len(peaks)} peaks for {len(periods)} periods; give one for each, or a number"
        )
    start, low = numbers_of("wsd_s", start=start, floor=floor)
    parts: list[Schedule] = []
    for i, (level, length) in enumerate(zip(peaks, periods, strict=True)):
        n = f.check_count(f"wsd_s: periods[{i}]", length, least=1)
        w = 0 if parts else duration("wsd_s: warmup", warmup, n)
        d = duration("wsd_s: decay", decay, n)
        if w + d > n:
            raise ScheduleError(
                f"wsd_s: warmup ({w}) and decay ({d}) are longer than periods[{i}], {n} steps; shorten one"
            )
        head = [] if parts else [climb("wsd_s", start, level, w, ramp)]
        parts += [*head, constant(level, steps=n - w - d), phase("wsd_s: shape", shape, level, low, d)]
    return chain(parts)


@worded
def infinite(
    peak: float,
    *,
    warmup: int,
    cooldown: int,
    level: float,
    total: int | None = None,
    decay: float | None = None,
    floor: float | None = None,
    cooldown_shape: Shape = "cosine",
    shape: Shape = "exponential",
    start: float = 0.0,
) -> Schedule:
    """The infinite schedule: warm-up to peak, cool down to a level, stay there as long as you like, then anneal.

    With p from 0 to 1 in each phase: peak * p; level + (peak - level) / 2 * (1 + cos(pi * p)); level; and
    level * (floor / level)**p. Without a `total` it stays at the level for ever: the run that goes on when more data
    comes.

    Args:
        peak: value at step `warmup` (eta_max).
        warmup: its length in steps.
        cooldown: steps from peak to level.
        level: the constant value (eta_const).
        total: length in steps with the annealing; default: none, and no annealing.
        decay: length of the annealing: steps, or a fraction of total.
        floor: value reached at total (eta_min); default level / 100.
        cooldown_shape: "cosine" (the paper's), or as wsd's shape.
        shape: of the annealing: "exponential" (the paper's), or as wsd's shape.
        start: value at step 0.

    Raises:
        ScheduleError: a value is not finite, only one of total and decay is given, or the phases are longer than total.

    Source: Ibrahim et al. 2024 (arXiv 2403.08763); the formulas as in the code for Singh et al. 2025 (arXiv 2503.02844,
    several of the same authors), whose other cooldowns are "linear" and an inverse square root.

    Example:
        >>> import tensorsched as ts
        >>> ts.infinite(1.0, warmup=2, cooldown=2, level=0.5, total=8, decay=2, floor=0.125).values(9).tolist()
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.5, 0.5, 0.25, 0.125]
    """
    start, peak, level = numbers_of("infinite", start=start, peak=peak, level=level)
    w, c = duration("infinite: warmup", warmup), duration("infinite: cooldown", cooldown)
    head = climb("infinite", start, peak, w, "from_start") >> phase(
        "infinite: cooldown_shape", cooldown_shape, peak, level, c
    )
    if total is None and decay is None:
        return head >> constant(level)
    if total is None or decay is None:
        raise ScheduleError(
            "infinite: total and decay come together: the annealing is the last `decay` of the total; pass both or none"
        )
    n = f.check_count("infinite: total", total)
    d = duration("infinite: decay", decay, n)
    if w + c + d > n:
        raise ScheduleError(
            f"infinite: warmup ({w}), cooldown ({c}) and decay ({d}) are {w + c + d} steps, longer than the total of "
            f"{n}; shorten one or raise total"
        )
    low = level / 100.0 if floor is None else f.check_real("infinite: floor", floor)
    return head >> constant(level, steps=n - w - c - d) >> phase("infinite: shape", shape, level, low, d)


@worded
def power(
    peak: float,
    *,
    warmup: int,
    scale: float,
    exponent: float = 0.51,
    tokens: float = 1.0,
    total: int | None = None,
    decay: float | None = None,
    shape: Shape = "exponential",
    floor: float | None = None,
    start: float = 0.0,
) -> Schedule:
    """The Power scheduler: min(peak, scale * (tokens * t)**-exponent) after a warm-up; the same curve for every total.

    Args:
        peak: the largest value (eta_max; the paper uses 0.02 with muP).
        warmup: steps, linear from start.
        scale: a * beta, where beta is the batch size in sequences (the paper fits a = 4.6 for muP).
        exponent: -b, above 0 (the paper fits b = -0.51).
        tokens: of one step: t steps are tokens * t tokens.
        total: length in steps with a decay at the end; default: none, and no end.
        decay: the last steps, or a fraction of total (the paper: 0.1).
        shape: of this decay: "exponential" (default), or as wsd's shape.
        floor: value reached at total; default a hundredth of the value where the decay starts.
        start: value at step 0.

    Raises:
        ScheduleError: a value is not finite or not above 0, only one of total and decay is given, or the phases are
            longer than total.

    Source: Shen et al. 2024 (arXiv 2408.13359): eta(n) = min(eta_max, beta * a * n**b), n tokens; OLMo-core PowerLR.

    Example:
        >>> import tensorsched as ts
        >>> ts.power(1.0, warmup=2, scale=2.0, exponent=0.5).values(17)[[0, 1, 2, 4, 16]].tolist()
        [0.0, 0.5, 1.0, 1.0, 0.5]
    """
    (start,) = numbers_of("power", start=start)
    top, factor = f.check_positive("power: peak", peak), f.check_positive("power: scale", scale)
    b, each = f.check_positive("power: exponent", exponent), f.check_positive("power: tokens", tokens)
    w = duration("power: warmup", warmup)
    # From there on the power law is below the peak; in logarithms, since a power of 1 / b may overflow.
    falls = math.ceil(math.exp(min((math.log(factor) - math.log(top)) / b - math.log(each), 36.0)))
    begins = f.check_count("power: warmup and stable steps", max(w, falls, 1))
    value = min(top, factor * math.exp(min(-b * (math.log(each) + math.log(begins)), _LARGEST_EXPONENT)))
    reached = top if begins > w else value
    stable = [constant(top, steps=begins - w)] if begins > w else []
    curve = chain(
        [climb("power", start, reached, w, "from_start"), *stable, power_law(value, b, timescale=begins)]
    )
    if total is None and decay is None:
        return curve
    if total is None or decay is None:
        raise ScheduleError(
            "power: total and decay come together: the decay is the last part of the total; pass both, or neither"
        )
    n = f.check_count("power: total", total)
    d = duration("power: decay", decay, n)
    if w + d > n:
        raise ScheduleError(
            f"power: warmup ({w}) and decay ({d}) are {w + d} steps, longer than the total of {n}; shorten "
            "one, or raise total"
        )
    high = curve(n - d)
    low = high / 100.0 if floor is None else f.check_real("power: floor", floor)
    return curve.take(n - d) >> phase("power: shape", shape, high, low, d)

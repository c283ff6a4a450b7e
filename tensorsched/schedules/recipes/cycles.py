"""Up and down: once, or again and again."""

from __future__ import annotations

import functools
import itertools
import math
import operator

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import chain
from tensorsched.schedules.recipes.common import Shape, duration, numbers_of, option
from tensorsched.schedules.recipes.curves import phase
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes import cosine, exponential_decay, linear
from tensorsched.schedules.words import worded


@worded
def one_cycle(
    peak: float,
    *,
    total: int,
    rise: float = 0.3,
    start: float | None = None,
    end: float | None = None,
    shape: Shape = "cosine",
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
        last_step_ends: torch OneCycleLR's clock, for every total and pct_start: phases end at rise-1 (in three phases
            also at 2*rise-2) and at total-1, where a `rise` that is a fraction keeps its fraction of a step. Default:
            the peak at `rise`, rounded (as optax), the end at `total`.

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
    (top,) = numbers_of("one_cycle", peak=peak)
    low = top / 25.0 if start is None else f.check_real("one_cycle: start", start)
    final = low / 1e4 if end is None else f.check_real("one_cycle: end", end)
    three = f.check_flag("one_cycle: three_phase", three_phase)
    levels = [low, top, low, final] if three else [low, top, final]
    up = duration("one_cycle: rise", rise, n)
    if f.check_flag("one_cycle: last_step_ends", last_step_ends):
        first = float(up) if f.is_whole(rise) else rise * n
        last = float(max(n - 1, 0))
        ends = [first - 1.0, 2.0 * first - 2.0, last] if three else [first - 1.0, last]
        return between_steps(levels, ends, shape)
    down = n - up * (len(levels) - 2)
    if down < 0:
        raise ScheduleError(
            f"one_cycle: two phases of {up} steps are longer than the total of {n}; shorten rise"
        )
    made = functools.partial(phase, "one_cycle: shape", shape)
    climb = [made(a, b, up) for a, b in itertools.pairwise(levels[:-1])]
    return functools.reduce(operator.rshift, [*climb, made(levels[-2], levels[-1], down)])


def between_steps(levels: list[float], ends: list[float], shape: Shape) -> Schedule:
    """Phases that end between two steps, as torch's do: each step belongs to the first phase that has not ended."""
    parts: list[Schedule] = []
    begins, since, last = 0.0, 0, int(ends[-1])
    for (a, b), end in zip(itertools.pairwise(levels), ends, strict=True):
        until = min(max(math.ceil(end), since), last)
        if begins == since < end == until:
            parts.append(phase("one_cycle: shape", shape, a, b, until - since))
        elif end == until == last and (begins < last or not last) and since == last:
            parts.append(phase("one_cycle: shape", shape, a, b, 0))  # its end is its only step
        elif end > begins and (until > since or begins < last == since):
            part = phase("one_cycle: shape", shape, a, b, 1).span(end - begins, since - begins)
            parts.append(part if part.steps == until - since else part.take(until - since))
        begins, since = end, until
    return chain(parts)


@worded
def warm_restarts(
    peak: float,
    *,
    period: int,
    floor: float = 0.0,
    length_mult: float = 1.0,
    peak_mult: float = 1.0,
    mult_of: str = "height",
    round_lengths: bool = True,
) -> Schedule:
    """SGDR: cosine from peak to floor, restarted after each period; unbounded (`.take(n)` bounds it).

    Args:
        peak: value at the start of the first period.
        period: its length in steps, an int >= 1.
        floor: value that each period approaches (torch's eta_min); it is never shown, since the next one starts there.
        length_mult: each period is this much longer than the one before, rounded down (torch T_mult, ignite
            cycle_mult).
        peak_mult: a factor from period to period.
        mult_of: what it multiplies: "height", peak - floor (default; keras m_mul), or "peak" itself, above the same
            floor (timm cycle_decay).
        round_lengths: False: a period keeps its fraction of a step (timm, keras); True (the default): rounded down.

    Raises:
        ScheduleError: a value is not finite, period is not a whole number >= 1, or length_mult shrinks it.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983); torch CosineAnnealingWarmRestarts, keras CosineDecayRestarts.

    Example:
        >>> import tensorsched as ts
        >>> ts.warm_restarts(1.0, period=2, length_mult=2.0).values(6).round(4).tolist()
        [1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464]
    """
    peak, floor = numbers_of("warm_restarts", peak=peak, floor=floor)
    n = f.check_count("warm_restarts: period", period, least=1)
    option("warm_restarts: mult_of", mult_of, ("height", "peak"))
    peak_mult = f.check_real("warm_restarts: peak_mult", peak_mult)
    again = functools.partial(Schedule.repeat, length_mult=length_mult, round_lengths=round_lengths)
    if peak_mult == 1.0:
        return again(cosine(peak, floor, steps=n))
    if mult_of == "height":
        return floor + again(cosine(peak - floor, 0.0, steps=n), value_mult=peak_mult)
    falling = again(cosine(peak, 0.0, steps=n), value_mult=peak_mult)
    return falling if floor == 0.0 else falling + again(cosine(0.0, floor, steps=n))


@worded
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
    base, peak = numbers_of("cyclic", base=base, peak=peak)
    rising = f.check_count("cyclic: up", up, least=1)
    falling = rising if down is None else f.check_count("cyclic: down", down)
    if option("cyclic: mode", mode, ("triangular", "triangular2", "exp_range")) == "triangular":
        return (linear(base, peak, steps=rising) >> linear(peak, base, steps=falling)).repeat()
    height = peak - base
    triangle = linear(0.0, height, steps=rising) >> linear(height, 0.0, steps=falling)
    if mode == "triangular2":
        return base + triangle.repeat(value_mult=0.5)
    return base + triangle.repeat() * exponential_decay(
        1.0, f.check_positive("cyclic: gamma", gamma), every=1
    )

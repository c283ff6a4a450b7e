"""Levels that change at given steps."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.recipes.common import numbers_of
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes import exponential_decay, piecewise_constant
from tensorsched.schedules.words import worded

_PAIR = re.compile(r"(\d{1,18})([KMBTkmbt]?):(\d{1,18}(?:\.\d+)?)", re.ASCII)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@worded
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
    (start,) = numbers_of("step_decay", start=start)
    ratio, n = (
        f.check_positive("step_decay: factor", factor),
        f.check_count("step_decay: every", every, least=1),
    )
    return exponential_decay(start, ratio, every=n, staircase=True)


@worded
def multistep(start: float, milestones: Sequence[int], *, factor: float = 0.1) -> Schedule:
    """Multiply by `factor` at each milestone: levels start * factor**i, changed *at* the milestone.

    Args:
        start: value at step 0.
        milestones: steps in order; one that occurs twice multiplies twice.
        factor: any finite number (torch's gamma).

    Raises:
        ScheduleError: a value is not finite, or the milestones decrease.

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
            f"multistep: factor={ratio!r} to the power of {len(at)} milestones overflows; take a smaller one"
        ) from None
    return piecewise_constant(levels, at)


@worded
def batch_steps(text: str, *, each: int | None = None) -> Schedule:
    """Levels written as Megatron writes them: "0:768 250:1536" is 768 at first, and 1536 from step 250 on.

    Args:
        text: `position:value` pairs, the first at 0; positions in order, with K, M, B or T for thousands to trillions.
            They count what the schedule's clock counts: steps, or tokens with a clock of tokens.
        each: positions count what is consumed, and one of the batch consumes so much: 1 where they are samples, the
            sequence length where they are tokens. The schedule then counts steps: a level starts at the first step
            by which its position was reached. Default: positions are what the schedule counts.

    Raises:
        ScheduleError: a pair that is none, a first position that is not 0, positions that decrease, each that is no
            whole number of at least 1, or with it a level that is no whole number of at least 1.

    Source: Megatron-LM --step-batch-size-schedule "0:768 250B:1536 500B:3072".

    Example:
        >>> import tensorsched as ts
        >>> ts.batch_steps("0:768 1K:1536")
        piecewise_constant((768.0, 1536.0), (1000,))
        >>> ts.batch_steps("0:2 5:4", each=1).values(6).tolist()
        [2.0, 2.0, 2.0, 4.0, 4.0, 4.0]
    """
    pairs = [
        _PAIR.fullmatch(part) for part in f.check_text("batch_steps: text", text).replace(",", " ").split()
    ]
    found = [(int(pair[1]) * _UNITS[pair[2].upper()], float(pair[3])) for pair in pairs if pair]
    if not pairs or len(found) != len(pairs) or found[0][0] != 0:
        raise f.refuse("batch_steps: text", "pairs such as '0:768 250B:1536', the first at 0", text)
    boundaries = f.check_boundaries("batch_steps: positions", [position for position, _ in found[1:]])
    levels = [value for _, value in found]
    if each is not None:
        boundaries = _steps_at(boundaries, levels, f.check_count("batch_steps: each", each, least=1))
    return piecewise_constant(levels, boundaries)


def _steps_at(positions: Sequence[int], levels: Sequence[float], each: int) -> tuple[int, ...]:
    """The step by which each position was consumed, at whole levels in between."""
    step = consumed = 0
    steps = []
    for position, level in zip(positions, levels, strict=False):
        if level < 1.0 or not level.is_integer():
            raise f.refuse("batch_steps: with each, a batch", "a whole number of at least 1", level)
        taken = max(0, -((consumed - position) // (int(level) * each)))
        step, consumed = step + taken, consumed + taken * int(level) * each
        steps.append(step)
    return tuple(steps)

"""Hyperparameters that follow another one: weight decay from the learning rate, batch size against it."""

from __future__ import annotations

import itertools

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import constant
from tensorsched.schedules.node import Array, brief, evaluate, sample
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes import piecewise_constant
from tensorsched.schedules.words import worded
from tensorsched.schedules.work import spend

_PIECE = 1 << 16
_EXACT = 1 << 22  # steps looked at one by one for a peak; of longer schedules an even selection


@worded
def adamc(lr: Schedule, wd: float, *, peak: float | None = None) -> Schedule:
    """Corrected weight decay: wd * lr(t) / peak, for layers that a normalisation follows.

    AdamW multiplies it by lr again, so that the decay of a step is lr**2 / peak * wd: the ratio of gradient to weight
    norm then no longer grows as the learning rate falls. Other layers keep the constant wd.

    Args:
        lr: the learning rate's schedule.
        wd: the weight decay at the peak.
        peak: the largest learning rate; default: that of lr.

    Raises:
        ScheduleError: lr is no schedule, wd is not finite, or there is no peak above 0.

    Source: Defazio 2025 (arXiv 2506.02285), AdamC.

    Example:
        >>> import tensorsched as ts
        >>> ts.adamc(ts.linear(2.0, 0.0, steps=4), 0.1).values(5).tolist()
        [0.1, 0.07500000000000001, 0.05, 0.025, 0.0]
    """
    decay = f.check_real("adamc: wd", wd)
    return lr * (decay / _peak("adamc", lr, peak))


@worded
def independent(lr: Schedule, wd: float, *, peak: float | None = None, follow: bool = True) -> Schedule:
    """Independent weight decay: the part of the weights that a step takes does not depend on the peak learning rate.

    torch's AdamW takes lr(t) * weight_decay of the weights. With weight_decay = wd / peak that is wd * lr(t) / peak: wd
    at the peak, whatever the peak is, and in the shape of the schedule (follow=True). With follow=False it is wd at
    every step: weight_decay = wd / lr(t), which has no value where lr is 0.

    Args:
        lr: the learning rate's schedule.
        wd: the part of the weights taken at the peak, such as 1e-4.
        peak: the largest learning rate; default: that of lr.
        follow: whether the decay follows the schedule's shape.

    Raises:
        ScheduleError: lr is no schedule, wd is not finite, or there is no peak above 0.

    Source: Wortsman et al. 2023 (arXiv 2309.14322), section 3.2.2, "Independent weight decay" (follow=True: the decay
    is multiplied by the schedule and not by the peak); Loshchilov and Hutter 2019 (arXiv 1711.05101) for a decay apart
    from the learning rate.

    Example:
        >>> import tensorsched as ts
        >>> ts.independent(ts.linear(0.5, 0.25, steps=4), 1e-3), ts.independent(ts.constant(0.5), 0.25, follow=False)(0)
        (constant(0.002), 0.5)
    """
    decay = f.check_real("independent: wd", wd)
    if f.check_flag("independent: follow", follow):
        return constant(decay / _peak("independent", lr, peak))
    _peak("independent", lr, peak)
    return decay / lr


@worded
def seesaw(
    lr: Schedule, factor: float = 2.0, *, peak: float | None = None, most: float | None = None
) -> tuple[Schedule, Schedule]:
    """Seesaw: where lr would be divided by `factor`, divide it by sqrt(factor) and multiply the batch by factor.

    The decay of lr becomes a staircase: after its peak, each time that it has fallen by another factor, the learning
    rate is divided by sqrt(factor) and the batch multiplied by factor. lr counts what its clock counts, which must be
    tokens or samples: a run with a larger batch takes fewer steps.

    Args:
        lr: the learning rate's schedule for a constant batch; warm-up included, which is kept.
        factor: of one stair, above 1 (the paper: 2).
        peak: the largest learning rate; default: that of lr.
        most: the largest multiple of the batch (the critical batch size); default: none. From there on the learning
            rate is divided by factor, as in lr.

    Returns:
        (lr, batch): the learning rate, and what the batch size is multiplied with.

    Raises:
        ScheduleError: lr is no schedule, has no end, no peak above 0, or rises after its peak; factor is not above 1.

    Source: Meterez et al. 2025 (arXiv 2510.14717), algorithm 1.

    Example:
        >>> import tensorsched as ts
        >>> lr, batch = ts.seesaw(ts.linear(1.0, 0.1, steps=9), 2.0)
        >>> batch.values(9).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 4.0]
        >>> lr.values(9).round(4).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.7071, 0.7071, 0.7071, 0.5]
    """
    top, ratio = _peak("seesaw", lr, peak), f.check_positive("seesaw: factor", factor)
    limit = np.inf if most is None else f.check_positive("seesaw: most", most)
    if ratio <= 1.0:
        raise f.refuse("seesaw: factor", "a number above 1", factor)
    if lr.steps is None or lr.steps > _EXACT:
        raise ScheduleError(
            f"seesaw: lr must have a length of at most {_EXACT}, got {brief(lr)}; count in larger units (stretch)"
        )
    values = evaluate(lr, 0, lr.steps + 1)
    begins = (
        int(np.flatnonzero(values >= top * (1.0 - 1e-9))[-1]) if (values >= top * (1.0 - 1e-9)).any() else 0
    )
    falling = values[begins:]
    if (np.diff(falling) > 1e-12 * top).any():
        raise ScheduleError(f"seesaw: lr must not rise after its peak at step {begins}: {brief(lr)}")
    levels, batches, boundaries = [top], [1.0], []
    for stair in itertools.count(1):
        below = np.flatnonzero(falling <= top / ratio**stair * (1.0 + 1e-12))
        if not below.size or falling[below[0]] <= 0.0:
            break
        grows = batches[-1] * ratio <= limit
        boundaries.append(begins + int(below[0]))
        batches.append(batches[-1] * ratio if grows else batches[-1])
        levels.append(levels[-1] / (ratio**0.5 if grows else ratio))
    stairs = piecewise_constant(levels, boundaries)
    batch = piecewise_constant(batches, boundaries)
    return (lr.take(begins) >> stairs.skip(begins)) if begins else stairs, batch


def _peak(name: str, lr: Schedule, given: float | None) -> float:
    """The largest value of lr, or what the user says it is."""
    if not isinstance(lr, Schedule):
        raise f.refuse(f"{name}: lr", "a schedule", lr)
    if given is not None:
        return f.check_positive(f"{name}: peak", given)
    last = max(lr._reach(), lr.steps or 0)
    spend(steps=min(last, _EXACT))
    steps: Array = (
        np.arange(last + 1, dtype=np.float64) if last < _EXACT else np.linspace(0, last, _EXACT).round()
    )
    looked_at = np.concatenate((steps, _edges(lr, last)))
    # Piece by piece: each node in lr holds arrays of this length at a time.
    pieces = (looked_at[start : start + _PIECE] for start in range(0, len(looked_at), _PIECE))
    top = max(float(sample(lr, piece).max()) for piece in pieces)
    if top <= 0.0:
        raise ScheduleError(f"{name}: lr has no value above 0: {brief(lr)}; pass peak")
    return top


def _edges(lr: Schedule, last: int) -> Array:
    """Where phases start: a short one would lie between two steps of a selection."""
    marks = itertools.islice(lr._marks(), 1000)
    return np.array([np.ceil(at) for at, _ in marks if at <= last], dtype=np.float64)

"""Schedulers of torch whose values are a formula of the step, as core expressions."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as torch_lr

from tensorsched.errors import ScheduleError
from tensorsched.recording.record import Place, Recording, by_key, record
from tensorsched.schedules import (
    Schedule,
    chain,
    constant,
    cosine,
    exponential_decay,
    linear,
    piecewise_constant,
    polynomial,
)
from tensorsched.schedules.recipes.cycles import between_steps, cyclic

__all__ = ["expression", "expressions"]

BOUND = 1e-9
"""How far a value of torch's recursions and its expression may be apart, of the largest value, in 10,000 steps."""

_RECORD = "use tensorsched.record(scheduler, steps), or from_values of simulate_values"
_LOOKED_AT = 2_000  # steps that are compared before an expression is handed out
_VALUES_READ = 20_000  # in all groups

Columns = dict[Place, Schedule]


# -- one scheduler, one learning rate ---------------------------------------------------------------------------------


def _levels(base: float, scheduler: torch_lr.MultiStepLR) -> Schedule:
    at = sorted(
        step for step in scheduler.milestones if step >= 0
    )  # a Counter: one that is given twice counts twice
    powers = itertools.accumulate((scheduler.milestones[step] for step in at), initial=0)
    return piecewise_constant([base * scheduler.gamma**power for power in powers], at)


def _wave(base: float, s: torch_lr.CosineAnnealingLR) -> Schedule:
    """Down, and up again: torch's goes on behind T_max."""
    return cosine(base, s.eta_min, steps=s.T_max).mirror().repeat()


def _restarts(base: float, s: torch_lr.CosineAnnealingWarmRestarts) -> Schedule:
    return cosine(base, s.eta_min, steps=s.T_0).repeat(length_mult=s.T_mult)


def _factor(base: float, s: torch_lr.ConstantLR) -> Schedule:
    low = base * s.factor
    return piecewise_constant([low, base], [s.total_iters]) if s.total_iters else constant(low)


def _line(base: float, s: torch_lr.LinearLR) -> Schedule:
    low = base * s.start_factor
    return linear(low, base * s.end_factor, steps=s.total_iters) if s.total_iters else constant(low)


def _power(base: float, s: torch_lr.PolynomialLR) -> Schedule:
    return polynomial(base, 0.0, s.power, steps=s.total_iters) if s.total_iters else constant(base)


# Of those with total_iters=0, torch keeps the first value for ever.
_FACTORS: dict[type, Callable[[float, Any], Schedule]] = {
    torch_lr.StepLR: lambda base, s: exponential_decay(base, s.gamma, every=s.step_size, staircase=True),
    torch_lr.MultiStepLR: _levels,
    torch_lr.ExponentialLR: lambda base, s: exponential_decay(base, s.gamma, every=1),
    torch_lr.ConstantLR: _factor,
    torch_lr.LinearLR: _line,
    torch_lr.PolynomialLR: _power,
}
"""These multiply the lr that they find, so that several of them multiply each other."""

_EXPRESSIONS = _FACTORS | {
    torch_lr.CosineAnnealingLR: _wave,
    torch_lr.CosineAnnealingWarmRestarts: _restarts,
}


# -- with a momentum, or made of others -------------------------------------------------------------------------------


def _single(s: Any) -> Columns:
    return {(i, "lr", None): _EXPRESSIONS[type(s)](float(base), s) for i, base in enumerate(s.base_lrs)}


def _with_momentum(s: Any, i: int, lr: Schedule, momentum: Callable[[], Schedule]) -> Columns:
    key, element = ("betas", 0) if s.cycle_momentum and s.use_beta1 else ("momentum", None)
    return {(i, "lr", None): lr} | ({(i, key, element): momentum()} if s.cycle_momentum else {})


def _momentum(made: Callable[[float, float], Schedule], s: torch_lr.CyclicLR, i: int) -> Schedule:
    return made(float(s.max_momentums[i]), float(s.base_momentums[i]))


def _cyclic(s: torch_lr.CyclicLR) -> Columns:
    up, total = round(s.total_size * s.step_ratio), round(s.total_size)
    if s._scale_fn_custom is not None or total != s.total_size or up / total != s.step_ratio:
        raise ScheduleError("a scale_fn, or a fraction of a step, has none")
    made = functools.partial(cyclic, up=up, down=total - up, mode=s.mode, gamma=s.gamma)
    columns: Columns = {}
    for i, (low, high) in enumerate(zip(s.base_lrs, s.max_lrs, strict=True)):
        columns |= _with_momentum(
            s, i, made(float(low), float(high)), functools.partial(_momentum, made, s, i)
        )
    return columns


def _one_cycle(s: torch_lr.OneCycleLR) -> Columns:
    phases = s._schedule_phases
    shape = {"cos": "cosine", "linear": "linear"}[s._anneal_func_type]
    ends = [float(phase["end_step"]) for phase in phases]

    def through(group: Mapping[str, Any], what: str) -> Schedule:
        names = [phases[0][f"start_{what}"], *(phase[f"end_{what}"] for phase in phases)]  # type: ignore[literal-required]
        return between_steps([float(group[name]) for name in names], ends, shape)

    columns: Columns = {}
    for i, group in enumerate(s.optimizer.param_groups):
        columns |= _with_momentum(s, i, through(group, "lr"), functools.partial(through, group, "momentum"))
    return columns


def _sequence(s: torch_lr.SequentialLR) -> Columns:
    parts = [_columns(part) for part in s._schedulers]
    if any(key != "lr" for columns in parts for _, key, _ in columns):
        raise ScheduleError("one of its schedulers moves a momentum, too")
    lengths = [b - a for a, b in itertools.pairwise([0, *s._milestones])]

    def part(column: Schedule, length: int) -> Schedule:
        return column if column.steps == length else column.take(length)

    *before, last = parts
    return {
        place: chain([*(part(cols[place], n) for cols, n in zip(before, lengths, strict=True)), column])
        for place, column in last.items()
    }


def _chained(s: torch_lr.ChainedScheduler) -> Columns:
    parts = s._schedulers
    if any(type(part) not in _FACTORS for part in parts):
        raise ScheduleError("one of its schedulers does not just multiply the lr")
    bases = [float(base) for base in parts[0].base_lrs]
    first, *more = parts
    return {
        (i, "lr", None): functools.reduce(
            operator.mul,
            [_FACTORS[type(first)](base, first), *(_FACTORS[type(part)](1.0, part) for part in more)],
        )
        for i, base in enumerate(bases)
    }


_COLUMNS: dict[type, Callable[[Any], Columns]] = {
    **dict.fromkeys(_EXPRESSIONS, _single),
    torch_lr.CyclicLR: _cyclic,
    torch_lr.OneCycleLR: _one_cycle,
    torch_lr.SequentialLR: _sequence,
    torch_lr.ChainedScheduler: _chained,
}


def _columns(scheduler: Any) -> Columns:
    """The expressions from the scheduler's own start.

    Raises:
        ScheduleError: with what is in the way, for `expression` to say of which scheduler.
    """
    if type(scheduler) not in _COLUMNS:
        able = ", ".join(each.__name__ for each in _COLUMNS)
        raise ScheduleError(f"only {able} have one, not {type(scheduler).__name__}")
    return _COLUMNS[type(scheduler)](scheduler)


def _of_all_groups(scheduler: Any) -> Columns:
    columns = _columns(scheduler)
    if len({i for i, _, _ in columns}) != len(_groups(scheduler)):
        raise ScheduleError("a group was added after it was made, which it moves in its own way")
    return columns


# -- public -----------------------------------------------------------------------------------------------------------


def expression(scheduler: Any) -> dict[str, Any]:
    """A scheduler of torch as core expressions for `attach`: what prints, saves, stretches and goes on past any length.

    Step 0 is where the scheduler stands now, as with `record`. The expression is the exact curve, rounded once.
    torch's OneCycleLR and CosineAnnealingWarmRestarts agree with it to within 3e-15 of the largest value;
    CyclicLR's rounding grows with the cycles made; the others are recursions in torch, which gather a few roundings
    a step: 1e-9 of the largest value in 10,000 steps (some 2e-7 a step where the lr is a float32 tensor). `record`
    gives torch's own values, bit for bit. Past the last step of OneCycleLR, where torch raises, the end is held.
    The next steps (up to 2,000) are compared with a recording before the expression is handed out. Touches neither
    the scheduler nor its optimizer; reads lr tensors on the host, which synchronises.

    Args:
        scheduler: StepLR, MultiStepLR, ConstantLR, LinearLR, ExponentialLR, PolynomialLR, CosineAnnealingLR,
            CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR, a SequentialLR of such without a momentum, a
            ChainedScheduler of the first six.

    Returns:
        A dict for `ts.attach(optimizer, **found)`, as `record` returns it.

    Raises:
        ScheduleError: it has none: its values come from a function (LambdaLR, MultiplicativeLR, and with them all of
            transformers' schedulers), a metric, or code of its own; or what it will write in the next steps is not what
            its arguments say (its lr was changed by hand).

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=1.0)
        >>> ts.expression(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100, eta_min=0.1))
        {'lr': cosine(1.0, 0.1, steps=100).mirror().repeat()}
    """
    name = type(scheduler).__name__
    try:
        columns, done = _of_all_groups(scheduler), _steps_done(scheduler)
        columns = {place: column.skip(done) if done else column for place, column in columns.items()}
    except ScheduleError as error:
        raise ScheduleError(
            f"{name} has no equivalent expression: {error}; take its values with ts.record(scheduler, steps)"
        ) from None
    made = by_key(columns, _groups(scheduler))
    _compare(scheduler, columns, done)
    return Recording(made)


def _groups(scheduler: Any) -> list[dict[str, Any]]:
    """The param_groups that a scheduler of torch writes."""
    optimizer = getattr(scheduler, "optimizer", None) or scheduler._schedulers[0].optimizer
    groups: list[dict[str, Any]] = optimizer.param_groups
    return groups


def _steps_done(scheduler: Any) -> int:
    if isinstance(scheduler, torch_lr.ChainedScheduler):  # it counts nothing itself
        return int(scheduler._schedulers[0].last_epoch)
    return int(scheduler.last_epoch)


def _compare(scheduler: Any, columns: Columns, done: int) -> None:
    """That a recording of the next steps agrees: what its arguments say is what it will do."""
    count = min(
        _LOOKED_AT, _VALUES_READ // len(columns) + 50, max(each._reach() for each in columns.values()) + 2
    )
    if isinstance(scheduler, torch_lr.OneCycleLR):
        count = max(1, min(count, scheduler.total_steps - done))
    written = record(scheduler, count)
    for (i, key, element), column in columns.items():
        entry = written.get(key)
        entry = entry[i] if isinstance(entry, list) else entry
        entry = entry[element] if isinstance(entry, tuple) and element is not None else entry
        held = _groups(scheduler)[i][key]
        now = float(held if element is None else held[element])
        theirs = np.full(count, now) if entry is None else entry.values(count)
        ours = column.values(count)
        apart = np.abs(theirs - ours) > _bound(held, count) * max(np.abs(theirs).max(), np.abs(ours).max())
        if apart.any():
            t = int(apart.argmax())
            raise ScheduleError(
                f"{type(scheduler).__name__} has no equivalent expression: {t} steps from now its arguments give "
                f"{ours[t]} for the {key} of group {i}, and it writes {theirs[t]}: changed by hand, or a case of "
                "torch's own; take its values with ts.record(scheduler, steps)"
            )


def _bound(held: Any, count: int) -> Any:
    """Of the largest value: BOUND, or what torch rounds in each step where the lr is a tensor of less precision."""
    if not isinstance(held, torch.Tensor):
        return BOUND
    return np.maximum(BOUND, 4.0 * torch.finfo(held.dtype).eps * (2.0 + np.arange(count)))


def expressions(scheduler: torch_lr.LRScheduler) -> list[Schedule]:
    """The core expression of a scheduler for each group, read at its number of steps: f(0) is its first value.

    To within 1e-9 of the largest value in 10,000 steps: most of torch's are recursions, which gather rounding errors.

    Raises:
        ScheduleError: it has none (its values come from a function, a metric, or code of its own), or the lr that it is
            at is not what its arguments say.
    """
    kind = type(scheduler)
    if kind not in _EXPRESSIONS:
        able = ", ".join(each.__name__ for each in _EXPRESSIONS)
        raise ScheduleError(f"{kind.__name__} has no equivalent core expression, {able} have; {_RECORD}")
    found = [_EXPRESSIONS[kind](float(base), scheduler) for base in scheduler.base_lrs]
    for schedule, lr in zip(found, scheduler.get_last_lr(), strict=True):
        expected = schedule(int(scheduler.last_epoch))
        if not math.isclose(expected, float(lr), rel_tol=BOUND, abs_tol=BOUND * abs(schedule(0))):
            raise ScheduleError(
                f"{kind.__name__} has no equivalent core expression: after {scheduler.last_epoch} steps its arguments "
                f"give {expected}, and it is at {float(lr)}, changed by hand or a case of torch's own; {_RECORD}"
            )
    return found

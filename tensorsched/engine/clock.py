"""Clocks that do not count steps: tokens, samples, the part of a time budget that is used up.

A schedule is then a function of a *position* on the clock, and its durations are in the clock's unit. Where the clock
stands is three counts, `Where`: the engine keeps them in memory, or on the device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from tensorsched.errors import ScheduleError
from tensorsched.schedules.validators import check_count, check_real, refuse

__all__ = ["Clock", "Where", "clock"]

BETWEEN = ("linear", "hold")
SKIPPED = ("counted", "dropped")
_ERROR = 1e-6  # of the peak, by default
_WHOLE = 1_000_000


class Where(NamedTuple):
    """Where a run stands.

    Attributes:
        position: what the completed optimizer steps have consumed: where the schedules are read.
        steps: completed optimizer steps.
        counted: what was counted in all; what is beyond the position belongs to the step that comes.
    """

    position: int
    steps: int
    counted: int

    @classmethod
    def at_step(cls, step: int) -> Where:
        """Where a clock that counts steps stands."""
        return cls(step, step, step)

    def after(self, pending: int) -> Where:
        """The same once an optimizer step that was made is counted too: 1 if there is one, 0 if not."""
        if not pending:
            return self
        position = max(self.counted, self.position + 1)
        return Where(position, self.steps + 1, position)


@dataclasses.dataclass(frozen=True)
class Clock:
    """What schedules count, where that is not steps; made by `clock`. It is plain data: nothing here synchronises.

    Attributes:
        unit: its name, in messages and in saved states.
        resolution: a row of the table stands at least each so many units; None: 4096 rows or more in all.
        between: what is used between two rows, "linear" or "hold".
        error: how far that may be off the schedule, as a part of its largest value; inf for "hold".
        skipped: what becomes of the units of a step that GradScaler skipped.
        total: of a progress clock, the position that stands for 1; else None.
        progress: of a progress clock, the function that is asked before each step; None: `sched.progress` says it.

    Example:
        >>> import tensorsched as ts
        >>> ts.clock("samples", resolution=1024)
        clock('samples', resolution=1024)
    """

    unit: str
    resolution: int | None = None
    between: str = "linear"
    error: float = _ERROR
    skipped: str = "counted"
    total: int | None = None
    progress: Callable[[], float] | None = None

    def position_of(self, part: Any) -> int:
        """The position of a progress clock at this part of the whole, which is a number in [0, 1].

        Raises:
            ScheduleError: it is not.
        """
        share = check_real("progress", part.item() if hasattr(part, "item") else part)
        if not 0.0 <= share <= 1.0:
            raise refuse("progress", "a number in [0, 1] (cap what runs over: min(x, 1.0))", share)
        return math.floor(share * (self.total or 0) + 0.5)

    def __repr__(self) -> str:
        if self.total is not None:
            shown = (
                "True" if self.progress is None else getattr(self.progress, "__name__", repr(self.progress))
            )
            return f"clock(progress={shown}, total={self.total})"
        options = [f"resolution={self.resolution}"] if self.resolution is not None else []
        options += [f"between={self.between!r}"] if self.between != "linear" else []
        options += [f"error={self.error!r}"] if self.error not in {_ERROR, math.inf} else []
        options += [f"skipped={self.skipped!r}"] if self.skipped != "counted" else []
        return f"clock({', '.join([repr(self.unit), *options])})"


def clock(
    unit: str | None = None,
    *,
    resolution: int | None = None,
    between: str = "linear",
    error: float | None = None,
    skipped: str = "counted",
    progress: Callable[[], float] | bool | None = None,
    total: int | None = None,
) -> Clock:
    """A clock for `attach(..., clock=...)`: what schedules count in the place of optimizer steps.

    With `clock("tokens")` the durations of the schedules are tokens, and `sched.count(n)` before each
    `optimizer.step()` says how many that step consumes. The (t+1)-th step uses f(p) with p the units of the t steps
    before it, as Megatron and Composer do.

    The table has a row at least each `resolution` units, and others where the line between two of them would miss the
    schedule: at its kinks, and on both sides of a jump. `print(sched)` shows how far off it is at most.

    Args:
        unit: what is counted: "tokens", "samples", any name.
        resolution: the largest distance of two rows, in units; default: a power of two that gives 4096 to 8192 rows.
            For between="hold" it has to be given.
        between: "linear" (default) interpolates between two rows. "hold" keeps the row's value until the next one:
            f(p - p % resolution).
        error: the largest difference between schedule and line that is allowed, as a part of the schedule's largest
            value; default 1e-6, and no limit for "hold".
        skipped: "counted" (default): what a step that GradScaler skipped consumed is counted with the next step that
            is made, since its data is gone (OLMo and Composer count so). "dropped": it is not counted (Megatron,
            DeepSpeed).
        progress: a clock of the part of the run that is over, for time budgets: a function without arguments that
            returns it, a number in [0, 1], and is asked before each optimizer step; or True, and `sched.progress(x)`
            says it.
        total: of a progress clock, the duration that stands for the whole run; default 1,000,000.

    Returns:
        The Clock; it holds no count, may serve several attachments, and nothing of it synchronises.

    Raises:
        ScheduleError: an argument is out of range, or does not go with the others.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> lr = ts.warmup_cosine(3e-4, total=10**12, warmup=10**9)
        >>> sched = ts.attach(optimizer, lr=lr, clock=ts.clock("tokens"))
        >>> sched.count(500_000_000), optimizer.step()
        (None, None)
        >>> sched.position, sched.step_count, sched.value("lr")
        (500000000, 1, 0.00015)
        >>> ts.clock(progress=True).total
        1000000
    """
    if between not in BETWEEN:
        raise refuse("clock: between", "'linear' or 'hold'", between)
    if skipped not in SKIPPED:
        raise refuse("clock: skipped", "'counted' or 'dropped'", skipped)
    if resolution is not None:
        resolution = check_count("clock: resolution", resolution, least=1)
    elif between == "hold":
        raise ScheduleError(
            "clock: between='hold' changes the value each `resolution` units: pass resolution=n"
        )
    if error is not None and check_real("clock: error", error) <= 0.0:
        raise refuse("clock: error", "a part of the largest value, above 0", error)
    limit = float(error if error is not None else math.inf if between == "hold" else _ERROR)
    if progress is None or progress is False:
        if not isinstance(unit, str) or not unit.strip():
            raise refuse("clock: unit", "what is counted, such as 'tokens', or pass progress=...", unit)
        if total is not None:
            raise ScheduleError(
                "clock: total= is the whole of a progress clock; leave it out (the schedules have their own total), or "
                "pass progress="
            )
        return Clock(unit.strip(), resolution, between, limit, skipped)
    return _progress_clock(Clock("progress", resolution, between, limit, skipped), unit, progress, total)


def _progress_clock(made: Clock, unit: str | None, progress: Any, total: int | None) -> Clock:
    if not callable(progress) and progress is not True:
        raise refuse("clock: progress", "a function that returns a number in [0, 1], or True", progress)
    if unit is not None:
        raise ScheduleError(
            "clock: a progress clock counts parts of the run, so it takes no unit; leave out one of both"
        )
    whole = check_count("clock: total", _WHOLE if total is None else total, least=1)
    ask = None if progress is True else progress
    return dataclasses.replace(made, total=whole, progress=ask)

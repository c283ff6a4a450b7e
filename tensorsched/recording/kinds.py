"""What kind of scheduler it is: what it drives, how it is stepped, and which cannot be recorded."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tensorsched.errors import ScheduleError
from tensorsched.recording.scheduler_copy import double

__all__ = ["Stepper", "check_counts", "check_known_before", "members", "optimizer_of", "stepper"]

_HOLDS = (
    "_schedulers",
    "schedulers",
    "lr_scheduler",
    "scheduler",
)  # under these names schedulers hold schedulers
_MAKES_ITS_OWN = {
    "GreedyLR": "follows a metric of the training",
    "AdafactorSchedule": "shows what Adafactor(relative_step=True) works out from its own state at each step",
}  # beside all that have Plateau in their name
_DEEPEST = 10  # schedulers in schedulers


@dataclasses.dataclass(frozen=True)
class Stepper:
    """`advance(t)` makes a scheduler write the values of its step t; `before_first`: for step 0 too."""

    advance: Callable[[int], object]
    before_first: bool = False


def members(scheduler: Any) -> tuple[Any, ...]:
    """The schedulers of a list, or the one that was given.

    Raises:
        ScheduleError: the list is empty, or would step a scheduler twice.
    """
    if not isinstance(scheduler, (list, tuple)):
        return (scheduler,)
    if not scheduler:
        raise ScheduleError("record() needs a scheduler, or a list of them, got an empty list")
    seen: dict[int, Any] = {}
    for member in scheduler:
        own = {id(part): part for part in _parts(member)}
        for key in own.keys() & seen.keys():
            raise ScheduleError(
                f"{type(own[key]).__name__} is in the list twice, by itself or inside another scheduler, and would be "
                "stepped twice; list only what your training loop steps"
            )
        seen |= own
    return tuple(scheduler)


def _parts(scheduler: Any, depth: int = 0) -> Iterator[Any]:
    """A scheduler and all that it is made of; bounded, for one that holds itself."""
    yield scheduler
    for name in _HOLDS if depth < _DEEPEST else ():
        inner = vars(scheduler).get(name) if hasattr(scheduler, "__dict__") else None
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            if part is not None:
                yield from _parts(part, depth + 1)


# -- what cannot be recorded ------------------------------------------------------------------------------------------


def check_known_before(scheduler: Any) -> None:
    """That its values are a function of the step, as far as can be seen.

    Raises:
        ScheduleError: it, or a scheduler inside it, follows a metric, the optimizer's state or a trainer's clock.
    """
    for part in _parts(scheduler):
        why = _follows(part)
        if why:
            raise ScheduleError(
                f"{type(part).__name__} {why}, so what it will write is not known before; "
                "keep it for that hyperparameter (attach schedules to others), or write down the curve that you "
                "expect, for example with ts.warmup_cosine; what follows a metric may be a factor in it, as in lr * "
                "ts.plateau(patience=10) and sched.observe(metric)"
            )
        if any(map(_reads_a_clock, getattr(part, "lr_lambdas", None) or ())):
            raise ScheduleError(
                f"{type(part).__name__} asks a trainer for the time (Composer's schedulers do), which stands still "
                "while it is recorded; write it as an expression: the page 'Coming from another library' has a row for "
                "each"
            )


def _follows(scheduler: Any) -> str | None:
    if isinstance(scheduler, type):
        return None
    names = [kind.__name__ for kind in type(scheduler).__mro__]
    for name in names:
        if "Plateau" in name:
            return "follows a metric of the training"
        if name in _MAKES_ITS_OWN:
            return _MAKES_ITS_OWN[name]
    step = getattr(scheduler, "step", None)
    told = hasattr(scheduler, "step_update") or not callable(step)
    asks = not told and set(_required(step)) - {"increment"}
    return "follows a metric of the training" if asks else None


def _required(method: Any) -> list[str]:
    """What a step cannot be made without being told."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(method).parameters.values()
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind in kinds]


def _reads_a_clock(fn: Any) -> bool:
    """Whether a function has closed over a trainer's state, from which it reads the time."""
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            held = cell.cell_contents
        except ValueError:  # empty so far
            continue
        if hasattr(held, "timestamp") and hasattr(held, "max_duration"):
            return True
    return False


# -- what it drives ---------------------------------------------------------------------------------------------------


def optimizer_of(schedulers: Sequence[Any]) -> Any:
    """The one optimizer that they all drive.

    Raises:
        ScheduleError: they drive none, or several.
    """
    found = [optimizer for scheduler in schedulers for optimizer in _optimizers(scheduler)]
    first = found[0]
    if any(optimizer is not first for optimizer in found):
        what = type(schedulers[0]).__name__ if len(schedulers) == 1 else "the list"
        inside = " (its .schedulers)" if hasattr(schedulers[0], "schedulers") else ""
        raise ScheduleError(
            f"{what} drives {len({id(each) for each in found})} optimizers; record the scheduler of each one by itself"
            f"{inside}, and attach to each"
        )
    return first


def _optimizers(scheduler: Any) -> list[Any]:
    found = getattr(scheduler, "optimizer", None)
    inner = getattr(scheduler, "schedulers", None)
    if (
        found is None
        and isinstance(inner, (list, tuple))
        and inner
        and callable(getattr(scheduler, "step", None))
    ):
        return [
            optimizer for each in inner for optimizer in _optimizers(each)
        ]  # a container, such as torchtitan's
    each = list(found) if isinstance(found, (list, tuple)) else [found]
    groups = [getattr(optimizer, "param_groups", None) for optimizer in each]
    if not groups or not all(isinstance(group, Sequence) and len(group) for group in groups):
        if hasattr(scheduler, "param_groups"):
            raise ScheduleError(
                f"record() takes a scheduler, and {type(scheduler).__name__} is an optimizer: write "
                "ts.record(scheduler, steps); to schedule the optimizer, ts.attach(optimizer, lr=schedule)"
            )
        raise ScheduleError(
            f"record() needs a scheduler with an optimizer, and {type(scheduler).__name__} has none; {_hint(scheduler)}"
        )
    return each


def _hint(scheduler: Any) -> str:
    if getattr(scheduler, "scheduler", None) is not None:
        return "pass the scheduler inside it, its .scheduler"
    if callable(scheduler) and not isinstance(scheduler, type):
        return "of a function of the step (optax, keras), ts.from_function(fn, steps) makes a schedule"
    return "pass the scheduler itself"


# -- how it is stepped ------------------------------------------------------------------------------------------------


def stepper(scheduler: Any, increment: int | None, at: int) -> Stepper:
    """What makes a scheduler write the values of a step.

    Args:
        scheduler: the copy that is driven.
        increment: what a `step(increment)` is given.
        at: the step at which one that keeps no count stands now.

    Raises:
        ScheduleError: it cannot be stepped, or needs an increment and has none.
    """
    if callable(scheduler) and (hasattr(scheduler, "get_param") or hasattr(scheduler, "schedulers")):
        return Stepper(lambda _: scheduler(None), before_first=True)  # ignite's, called before each iteration
    if hasattr(scheduler, "step_update"):
        told = _told(scheduler)
        return Stepper(lambda t: told(at + t))
    step = getattr(scheduler, "step", None)
    if not callable(step):
        raise ScheduleError(
            f"record() needs a scheduler that can be stepped, and {type(scheduler).__name__} has no step()"
        )
    if "increment" not in _required(step):
        return Stepper(lambda _: step())
    if increment is None:
        raise ScheduleError(
            f"{type(scheduler).__name__}.step(increment) counts in units of its own; pass increment=, what one "
            "optimizer step adds: the samples of a global batch for Megatron-LM's loop, 1 where it counts steps"
        )
    return Stepper(lambda _: step(increment))


def takes_increment(scheduler: Any) -> bool:
    """Whether its step must be told by how much."""
    step = getattr(scheduler, "step", None)
    return callable(step) and "increment" in _required(step)


def _told(scheduler: Any) -> Callable[[int], object]:
    """The method that is told the count: timm's."""
    method: Callable[[int], object] = (
        scheduler.step if getattr(scheduler, "t_in_epochs", False) else scheduler.step_update
    )
    return method


def check_counts(scheduler: Any, optimizer: Any, at: int | None) -> None:
    """That a scheduler which is told the count, and keeps none, stands at `at` (None: at its start).

    Raises:
        ScheduleError: the groups hold other values, or the optimizer has made steps and `at` is not given.
    """
    if not hasattr(scheduler, "step_update"):
        return
    name, way_out = type(scheduler).__name__, "pass at=, the count that it was last given (0 for a new one)"
    if at is None and getattr(optimizer, "state", None):
        raise ScheduleError(f"{name} keeps no count, and its optimizer has already made steps; {way_out}")
    copied, stand_in = double(scheduler, optimizer)
    _told(copied)(at or 0)
    first = _first_values(scheduler) if not at else []
    for i, (group, held) in enumerate(zip(stand_in.param_groups, optimizer.param_groups, strict=True)):
        for key in group.written & held.keys():
            allowed = [group[key], *([first[i]] if first and key == scheduler.param_group_field else [])]
            if all(float(held[key]) != float(value) for value in allowed):
                raise ScheduleError(
                    f"{name} keeps no count, and {key!r} of group {i} is {float(held[key])!r}, not its value at step "
                    f"{at or 0}, {float(allowed[-1])!r}; {way_out}"
                )


def _first_values(scheduler: Any) -> list[float]:
    """What timm's constructors write, which is not always the value at count 0."""
    if not hasattr(scheduler, "base_values"):
        return []
    scales = [group.get("lr_scale", 1.0) for group in scheduler.optimizer.param_groups]
    warm = getattr(scheduler, "warmup_t", 0)
    bases = [scheduler.warmup_lr_init] * len(scales) if warm else scheduler.base_values
    return [base * scale for base, scale in zip(bases, scales, strict=True)]

"""torch's own schedulers as handlers, and a warm-up in front of any scheduler."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim import lr_scheduler as torch_lr

from tensorsched.binding.movers import fill
from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.integrations.ignite.compositions import ConcatScheduler, ParamGroupScheduler, one_or_each
from tensorsched.integrations.ignite.param import ParamScheduler, after_event, on_copies
from tensorsched.integrations.ignite.piecewise import PiecewiseLinear
from tensorsched.recording.expressions import expressions
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import refuse

__all__ = ["LRScheduler", "create_lr_scheduler_with_warmup"]


class LRScheduler(ParamScheduler):
    """A scheduler of `torch.optim.lr_scheduler` as a handler: event i sets the value that it has after i steps.

    The torch scheduler is stepped by its own `step()`, from the second event on and just before the value is needed;
    do not step it yourself. What another scheduler wrote into the groups in between (a warm-up) does not count:
    its own last value is put back first.

    Args:
        lr_scheduler: any scheduler of torch, but for ReduceLROnPlateau, which needs a metric.
        save_history: append the groups' values to `engine.state.param_history["lr"]`.
        use_legacy: for Events.ITERATION_COMPLETED: event i sets the value after i + 1 steps. Warns.

    Raises:
        TypeError: it is no scheduler of torch.
        ScheduleError: it is ReduceLROnPlateau.

    ignite calls `get_lr()` and counts `last_epoch` instead, which on torch >= 2.8 gives wrong values for Exponential,
    Multiplicative, Linear, Constant, Polynomial and Cosine schedules, and none for Sequential and Chained ones.

    Source: ignite.handlers.param_scheduler.LRScheduler.

    Example:
        >>> import torch
        >>> from tensorsched.integrations.ignite import LRScheduler
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> handler = LRScheduler(torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5))
        >>> for _ in range(4):
        ...     handler(None)
        ...     optimizer.step()
        ...     print(optimizer.param_groups[0]["lr"])
        1.0
        1.0
        0.5
        0.5
    """

    def __init__(
        self, lr_scheduler: torch_lr.LRScheduler, save_history: bool = False, use_legacy: bool = False
    ) -> None:
        _check_torch_scheduler(lr_scheduler)
        super().__init__(lr_scheduler.optimizer, "lr", save_history)
        self.lr_scheduler = lr_scheduler
        self._lead = 1 if use_legacy else 0  # steps before the first event
        self._has_stepped = False
        if use_legacy:
            where = "attach this scheduler to Events.ITERATION_COMPLETED, not to ITERATION_STARTED"
            what = f"use_legacy=True: {where}, or the first lr of the optimizer is skipped"
            warnings.warn(what, UserWarning, stacklevel=2)
        self._state_attrs += ["lr_scheduler"]

    def __call__(self, engine: Any, name: str | None = None) -> None:
        """One event: step the torch scheduler where a step is due, which puts its value into the groups.

        Synchronises where torch's own step does: if an lr is a tensor on a device.
        """
        if self.event_index or self._lead:
            self._step()
        else:
            self._write(self._last())
        if self.save_history:
            self._record(engine, name)
        vars(self)["event_index"] += 1  # nothing is looked ahead that this would concern

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; nothing changes if it is refused.

        Raises:
            TypeError: it is no mapping.
            ValueError: an entry is missing, or it is of ignite's LRScheduler, whose torch scheduler was never stepped.
        """
        base.check_state(self, state_dict, self._state_attrs)
        inner = state_dict["lr_scheduler"]
        # WarmRestarts is kept as an object by ignite; the others' last_epoch runs ahead of the steps that torch counts.
        restarts = isinstance(self.lr_scheduler, torch_lr.CosineAnnealingWarmRestarts)
        stepped = isinstance(inner, Mapping) and (
            restarts or inner.get("_step_count") != 1 or inner["last_epoch"] <= 1
        )
        if not stepped:
            what = "the state is of ignite's LRScheduler, which counts epochs without stepping the torch scheduler"
            way_out = f"step a new torch scheduler {state_dict['event_index']} times before wrapping it"
            raise ScheduleError(f"{what}: its values cannot go on from there; {way_out}")
        super().load_state_dict(state_dict)

    def _step(self) -> None:
        scheduler = self.lr_scheduler
        for group, last in zip(self.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            if group["lr"] is not last:  # somebody else's, or a tensor, of which torch keeps a copy
                fill(group, "lr", last)
        if self._has_stepped:
            scheduler.step()
            return
        with (
            warnings.catch_warnings()
        ):  # torch's advice to call optimizer.step() first: that is for the engine to decide
            advice = "Detected call of `lr_scheduler.step|Seems like `optimizer.step"
            warnings.filterwarnings("ignore", message=advice, category=UserWarning)
            scheduler.step()
        self._has_stepped = True

    def _last(self) -> Any:
        values = list(self.lr_scheduler.get_last_lr())
        return values[0] if len(values) == 1 else values

    def get_param(self) -> Any:
        """The value of the next event; found on a copy, the torch scheduler is not moved."""
        if not (self.event_index or self._lead):
            return self._last()
        (ahead,) = on_copies([self])
        ahead._step()  # noqa: SLF001  one of us
        return ahead._last()  # noqa: SLF001

    @classmethod
    def simulate_values(  # type: ignore[override]  # ignite's arguments
        cls, num_events: int, lr_scheduler: torch_lr.LRScheduler, **kwargs: Any
    ) -> list[list[Any]]:
        """[[event, value of group 0, of group 1, ...], ...] of the next events; run on a copy.

        Raises:
            TypeError: it is no scheduler of torch.
        """
        _check_torch_scheduler(lr_scheduler)
        scheduler = cls(on_copies([lr_scheduler])[0], **(kwargs | {"save_history": False}))
        return [[event, *after_event(scheduler)] for event in range(num_events)]

    def as_schedule(self) -> Schedule | list[Schedule | None]:
        """The core expression f such that f(t) is what event t from now sets; a list where groups differ.

        To within 1e-9 of the largest value in 10,000 events.

        Raises:
            ScheduleError: the torch scheduler has none: it is not StepLR, MultiStepLR, ConstantLR, LinearLR,
                ExponentialLR, PolynomialLR, CosineAnnealingLR or CosineAnnealingWarmRestarts, or was changed by hand.
        """
        found = expressions(self.lr_scheduler)
        done = int(self.lr_scheduler.last_epoch) + (1 if self.event_index or self._lead else 0)
        return one_or_each([schedule.skip(done) if done else schedule for schedule in found])


def _check_torch_scheduler(lr_scheduler: object) -> None:
    """TypeError unless it is a scheduler of torch, ScheduleError if it is one that needs a metric."""
    base.check_type(
        "lr_scheduler", lr_scheduler, torch_lr.LRScheduler, "a scheduler of torch.optim.lr_scheduler"
    )
    if isinstance(lr_scheduler, torch_lr.ReduceLROnPlateau):
        use = (
            "use ReduceLROnPlateauScheduler(optimizer, metric_name, ...), or ts.attach(optimizer, lr=lr * "
            "ts.plateau(...)) and sched.observe(metric)"
        )
        raise ScheduleError(
            f"ReduceLROnPlateau needs a metric at every step, which LRScheduler has not; {use}"
        )


def create_lr_scheduler_with_warmup(
    lr_scheduler: ParamScheduler | torch_lr.LRScheduler, warmup_start_value: float, warmup_duration: int,
    warmup_end_value: float | None = None, save_history: bool = False, output_simulated_values: list[Any] | None = None,
) -> ConcatScheduler:  # fmt: skip
    """A straight line from warmup_start_value to warmup_end_value, at event warmup_duration - 1, then a scheduler.

    Where the scheduler's own first value is the end value, that is not shown twice. Where a torch scheduler's is
    another, it is shown once, in one more event after the warm-up.

    Args:
        lr_scheduler: what follows, a handler or a torch scheduler.
        warmup_start_value: value at event 0.
        warmup_duration: its length in events, at least 2.
        warmup_end_value: default: each group's own lr.
        save_history: append the groups' values to `engine.state.param_history["lr"]`.
        output_simulated_values: a list, such as `[None] * 100`, whose entries are replaced by [event, value, ...].

    Returns:
        A ConcatScheduler; its `as_schedule()` is a core expression where what follows has one.

    Raises:
        TypeError: lr_scheduler is neither, warmup_duration is no int, or output_simulated_values is no list.
        ScheduleError: warmup_duration is below 2, or a value is not a finite number.

    Source: ignite.handlers.param_scheduler.create_lr_scheduler_with_warmup.

    Example:
        >>> import torch
        >>> from tensorsched.integrations.ignite import create_lr_scheduler_with_warmup
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
        >>> values = [None] * 5
        >>> _ = create_lr_scheduler_with_warmup(halving, 0.0, 3, output_simulated_values=values)
        >>> values
        [[0, 0.0], [1, 0.5], [2, 1.0], [3, 0.5], [4, 0.25]]
    """
    kinds = (ParamScheduler, torch_lr.LRScheduler)
    base.check_type("lr_scheduler", lr_scheduler, kinds, "a ParamScheduler or a scheduler of torch")
    base.check_type("warmup_duration", warmup_duration, int, "an int")
    base.check_type(
        "output_simulated_values", output_simulated_values, list | None, "a list such as [None] * 100"
    )
    if warmup_duration < 2:  # noqa: PLR2004  a line has two ends
        raise refuse("warmup_duration", "at least 2 events", warmup_duration)
    if isinstance(lr_scheduler, ParamScheduler):
        main, first = lr_scheduler, lr_scheduler.get_param()
    else:
        main, first = LRScheduler(lr_scheduler), None
        main._lead = 1  # noqa: SLF001  the warm-up ends with its first value
    lines = _lines(main, first, warmup_start_value, warmup_duration, warmup_end_value)
    ramps = [PiecewiseLinear(main.optimizer, "lr", line, param_group_index=i) for i, line in enumerate(lines)]
    schedulers = [ParamGroupScheduler(ramps), main]
    durations = [lines[-1][-1][0] + 1]
    combined = ConcatScheduler(schedulers, durations, save_history=save_history)
    if output_simulated_values is not None:
        shown = ConcatScheduler.simulate_values(len(output_simulated_values), schedulers, durations)
        output_simulated_values[:] = shown
    return combined


def _lines(
    scheduler: ParamScheduler, first: Any, start: float, duration: int, end: float | None
) -> list[list[tuple[int, float]]]:
    """The warm-up of each group.

    In front of a torch scheduler (`first` is None) it is an event longer for all where one's own lr is not the end
    value: that has to be shown. In front of a handler it is an event shorter where that starts with the end value.
    """
    rates = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    ends = rates if end is None else [end] * len(rates)
    lines = []
    for rate, own_end in zip(rates, ends, strict=True):
        line = [(0, start), (duration - 1, own_end)]
        if first is None and rates != ends:
            line.append((duration, rate))
        elif first is not None and first == own_end:
            before = own_end - (own_end - start) / (duration - 1)
            line[1:] = [(duration - 2, before)] if duration > 2 else []  # noqa: PLR2004  else only event 0 is left
        lines.append(line)
    return lines

"""torch's own schedulers as handlers, and a warm-up in front of any scheduler."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim import lr_scheduler as torch_schedulers

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite.base import check_state
from tensorsched.integrations.ignite.concat import ConcatScheduler
from tensorsched.integrations.ignite.copies import quiet_steps, replicas
from tensorsched.integrations.ignite.groups import ParamGroupScheduler
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.integrations.ignite.piecewise import PiecewiseLinear
from tensorsched.integrations.ignite.places import put

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
        self,
        lr_scheduler: torch_schedulers.LRScheduler,
        save_history: bool = False,
        use_legacy: bool = False,
    ) -> None:
        check_torch_scheduler(lr_scheduler)
        super().__init__(lr_scheduler.optimizer, "lr", save_history=save_history)
        self.lr_scheduler = lr_scheduler
        self._lead = 1 if use_legacy else 0  # steps before the first event
        self._has_stepped = False
        if use_legacy:
            warnings.warn(
                "use_legacy=True: attach this scheduler to Events.ITERATION_COMPLETED, not to ITERATION_STARTED, or "
                "the first lr of the optimizer is skipped",
                UserWarning,
                stacklevel=2,
            )
        self._state_attrs += ["lr_scheduler"]

    def __call__(self, engine: Any, name: str | None = None) -> None:
        """One event: step the torch scheduler where a step is due, which puts its value into the groups."""
        if not (self.event_index or self._lead):
            self._write(self._get_param())
        elif self._has_stepped:
            self._step()
        else:
            with quiet_steps():  # whether optimizer.step() has been called before is for the engine to decide
                self._step()
            self._has_stepped = True
        if engine is not None and self.save_history:
            self._record(engine, name)
        self.__dict__["event_index"] += 1  # nothing is tabulated that this would concern

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; nothing changes if it is refused.

        Raises:
            TypeError: it is no mapping.
            ValueError: an entry is missing, or it is of ignite's LRScheduler, whose torch scheduler was never stepped.
        """
        check_state(self, state_dict)
        inner = state_dict["lr_scheduler"]
        # WarmRestarts is kept as an object by ignite; the others' last_epoch runs ahead of the steps that torch counts.
        counts = isinstance(inner, Mapping) and not isinstance(
            self.lr_scheduler, torch_schedulers.CosineAnnealingWarmRestarts
        )
        if not isinstance(inner, Mapping) or (
            counts and inner.get("_step_count") == 1 and inner.get("last_epoch", 0) > 1
        ):
            raise ScheduleError(
                "the state is of ignite's LRScheduler, which counts epochs without stepping the torch scheduler: its "
                "values cannot go on from there; build the scheduler anew and call step() of the torch scheduler "
                f"{state_dict['event_index']} times before wrapping it"
            )
        super().load_state_dict(state_dict)

    def _step(self) -> None:
        scheduler = self.lr_scheduler
        for group, last in zip(self.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            if group["lr"] is not last:  # somebody else's, or a tensor, of which torch keeps a copy
                put(group, "lr", last)
        scheduler.step()

    def _get_param(self) -> Any:
        values = list(self.lr_scheduler.get_last_lr())
        return values[0] if len(values) == 1 else values

    def get_param(self) -> Any:
        """The value of the next event; found on a copy, the torch scheduler is not moved."""
        if not (self.event_index or self._lead):
            return self._get_param()
        (ahead,) = replicas([self])
        with quiet_steps():
            ahead._step()  # noqa: SLF001  one of us
        return ahead._get_param()  # noqa: SLF001

    @classmethod
    def simulate_values(  # type: ignore[override]  # ignite's arguments
        cls, num_events: int, lr_scheduler: torch_schedulers.LRScheduler, **kwargs: Any
    ) -> list[list[Any]]:
        """[[event, value of group 0, of group 1, ...], ...] of the next events; run on a copy.

        Raises:
            TypeError: it is no scheduler of torch.
        """
        check_torch_scheduler(lr_scheduler)
        rows = []
        with quiet_steps():
            scheduler = cls(replicas([lr_scheduler])[0], **(kwargs | {"save_history": False}))
            for event in range(num_events):
                scheduler(None)
                rows.append([event, *(float(group["lr"]) for group in scheduler.optimizer.param_groups)])
        return rows


def check_torch_scheduler(lr_scheduler: object) -> None:
    """TypeError unless it is a scheduler of torch, ScheduleError if it is one that needs a metric."""
    if not isinstance(lr_scheduler, torch_schedulers.LRScheduler):
        raise TypeError(
            f"lr_scheduler must be a scheduler of torch.optim.lr_scheduler, got {type(lr_scheduler)}"
        )
    if isinstance(lr_scheduler, torch_schedulers.ReduceLROnPlateau):
        raise ScheduleError(
            "ReduceLROnPlateau needs a metric at every step, which LRScheduler has not; use "
            "ReduceLROnPlateauScheduler(optimizer, metric_name, ...)"
        )


def create_lr_scheduler_with_warmup(
    lr_scheduler: ParamScheduler | torch_schedulers.LRScheduler,
    warmup_start_value: float,
    warmup_duration: int,
    warmup_end_value: float | None = None,
    save_history: bool = False,
    output_simulated_values: list[Any] | None = None,
) -> ConcatScheduler:
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
    if not isinstance(lr_scheduler, (ParamScheduler, torch_schedulers.LRScheduler)):
        raise TypeError(
            f"lr_scheduler must be a ParamScheduler or a scheduler of torch, got {type(lr_scheduler)}"
        )
    if not isinstance(warmup_duration, int):
        raise TypeError(f"warmup_duration must be an int, got {type(warmup_duration)}")
    if warmup_duration < 2:  # noqa: PLR2004  a line has two ends
        raise ScheduleError(f"warmup_duration must be at least 2 events, got {warmup_duration}")
    if output_simulated_values is not None and not isinstance(output_simulated_values, list):
        raise TypeError(
            f"output_simulated_values must be a list such as [None] * 100, got {type(output_simulated_values)}"
        )
    if isinstance(lr_scheduler, torch_schedulers.LRScheduler):
        main: ParamScheduler = _one_step_ahead(lr_scheduler)
        lines = _lines_to_torch(main.optimizer, warmup_start_value, warmup_duration, warmup_end_value)
    else:
        main = lr_scheduler
        lines = _lines_to_handler(main, warmup_start_value, warmup_duration, warmup_end_value)
    ramps = [
        PiecewiseLinear(main.optimizer, "lr", line, save_history=save_history, param_group_index=i)
        for i, line in enumerate(lines)
    ]
    schedulers = [ParamGroupScheduler(ramps, save_history=save_history), main]
    durations = [lines[-1][-1][0] + 1]
    combined = ConcatScheduler(schedulers, durations, save_history=save_history)
    if output_simulated_values is not None:
        events = len(output_simulated_values)
        output_simulated_values[:] = ConcatScheduler.simulate_values(events, schedulers, durations)
    return combined


Line = list[tuple[int, float]]


def _one_step_ahead(lr_scheduler: torch_schedulers.LRScheduler) -> LRScheduler:
    """The warm-up shows the torch scheduler's first value: its own first event is the one after a step."""
    main = LRScheduler(lr_scheduler)
    main._lead = 1  # noqa: SLF001  one of us
    return main


def _ends(optimizer: Any, end: float | None) -> list[float]:
    return [float(group["lr"]) if end is None else end for group in optimizer.param_groups]


def _lines_to_torch(optimizer: Any, start: float, duration: int, end: float | None) -> list[Line]:
    """The warm-up of each group in front of a torch scheduler, one event longer where one's first value is another."""
    firsts, ends = _ends(optimizer, None), _ends(optimizer, end)
    lines: list[Line] = [[(0, start), (duration - 1, own_end)] for own_end in ends]
    if firsts != ends:
        for line, first in zip(lines, firsts, strict=True):
            line.append((duration, first))
    return lines


def _lines_to_handler(
    scheduler: ParamScheduler, start: float, duration: int, end: float | None
) -> list[Line]:
    """The warm-up of each group, one event shorter where the scheduler starts with the end value itself."""
    first = scheduler.get_param()
    lines: list[Line] = []
    for own_end in _ends(scheduler.optimizer, end):
        line = [(0, start), (duration - 1, own_end)]
        if first == own_end:
            line.pop()
            if duration > 2:  # noqa: PLR2004  else only event 0 is left
                line.append((duration - 2, own_end - (own_end - start) / (duration - 1)))
        lines.append(line)
    return lines

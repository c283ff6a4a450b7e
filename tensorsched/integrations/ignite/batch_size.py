"""A batch size that changes while training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch.utils.data import BatchSampler, DataLoader

from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.schedules.validators import refuse

__all__ = ["BatchSizeScheduler"]


class BatchSizeScheduler(base.BaseParamScheduler):
    """Sets the batch size of a DataLoader's batch sampler: event i sets scheduler_fn(i).

    Args:
        dataloader: a DataLoader with a BatchSampler.
        scheduler_fn: called with the event, from 0; returns an int of at least 1.
        save_history: append the sizes to `engine.state.param_history["batch_size"]`.

    Raises:
        TypeError: dataloader is no DataLoader, or scheduler_fn cannot be called.
        ScheduleError: it has no BatchSampler; and at an event, the size is no int of at least 1.

    Source: ignite.handlers.param_scheduler.BatchSizeScheduler.
    """

    _event: ClassVar[str] = "EPOCH_STARTED"

    def __init__(
        self, dataloader: DataLoader[Any], scheduler_fn: Callable[[int], int], save_history: bool = False
    ) -> None:
        super().__init__("batch_size", save_history)
        base.check_type("dataloader", dataloader, DataLoader, "a torch.utils.data.DataLoader")
        base.check_type("scheduler_fn", scheduler_fn, Callable, "callable")
        if not isinstance(dataloader.batch_sampler, BatchSampler):
            raise ScheduleError("the dataloader has no BatchSampler, so no batch size; give it batch_size=n")
        self.dataloader = dataloader
        self.scheduler_fn = scheduler_fn

    def __call__(self, engine: Any) -> None:
        """One event: set the batch size; the DataLoader uses it when it is next iterated over. Does not synchronise."""
        value: object = self.get_param()
        if not isinstance(value, int) or value < 1:
            raise refuse(f"scheduler_fn({self.event_index})", "an int of at least 1, the batch size", value)
        self.dataloader.batch_sampler.batch_size = value  # type: ignore[union-attr]  # checked above
        if self.save_history and engine is not None:
            base.record(engine, self.param_name, value)
        self.event_index += 1

    def get_param(self) -> int:
        """The batch size of the next event."""
        return self.scheduler_fn(self.event_index)

    @classmethod
    def simulate_values(cls, num_events: int, **scheduler_kwargs: Any) -> list[list[Any]]:
        """[[event, batch size], ...] of the first `num_events` events.

        Raises:
            ScheduleError: scheduler_fn is missing.
        """
        if "scheduler_fn" not in scheduler_kwargs:
            raise ScheduleError("simulate_values() of a BatchSizeScheduler needs scheduler_fn=...")
        fn = scheduler_kwargs["scheduler_fn"]
        return [[event, fn(event)] for event in range(num_events)]

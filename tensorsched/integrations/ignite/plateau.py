"""A learning rate that follows a metric."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tensorsched.binding.movers import fill_each
from tensorsched.errors import ScheduleError
from tensorsched.integrations.ignite import base
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.schedules.validators import refuse

__all__ = ["ReduceLROnPlateauScheduler"]


class ReduceLROnPlateauScheduler(ParamScheduler):
    """torch's ReduceLROnPlateau as a handler: multiplies the lr by `factor` when a metric has stopped improving.

    Args:
        optimizer: a torch optimizer.
        metric_name: a metric in `engine.state.metrics` of the engine that this is attached to.
        trainer: the engine whose `state.param_history` takes the history.
        save_history: append the groups' lr to `trainer.state.param_history["lr"]`.
        param_group_index: the one group that is meant; None (default) means all.
        **scheduler_kwargs: ReduceLROnPlateau's; `verbose` is ignored.

    Raises:
        TypeError: the optimizer is none of torch, or min_lr is no float where param_group_index is given.
        ValueError: what ReduceLROnPlateau refuses; and at an event, the engine has no such metric.

    Unlike ignite's, min_lr counts with and without param_group_index, and the state holds no method.

    Beside `ts.attach`, which needs no handler, `lr * ts.plateau(...)` and `sched.observe(metric)` do the same within a
    schedule, on the device where the lr is there.

    Source: ignite.handlers.param_scheduler.ReduceLROnPlateauScheduler.

    Example:
        >>> from tensorsched.integrations.ignite import ReduceLROnPlateauScheduler
        >>> ReduceLROnPlateauScheduler.simulate_values(3, [1.0, 1.0, 1.0], init_lr=0.5, patience=1, factor=0.5)
        [[0, 0.5], [1, 0.5], [2, 0.25]]
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, metric_name: str, trainer: Any = None, save_history: bool = False,
        param_group_index: int | None = None, **scheduler_kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(optimizer, "lr", save_history, param_group_index)
        self.metric_name = metric_name
        self.trainer = trainer
        if param_group_index is not None:
            base.check_type("min_lr", scheduler_kwargs.get("min_lr", 0.0), float, "one float")
        if "verbose" in scheduler_kwargs:
            warnings.warn("`verbose` is ignored; use save_history=True", UserWarning, stacklevel=2)
        kwargs = {key: value for key, value in scheduler_kwargs.items() if key != "verbose"}
        self.scheduler = ReduceLROnPlateau(optimizer, **kwargs)
        self._state_attrs += ["metric_name", "scheduler"]

    def __call__(self, engine: Any, name: str | None = None) -> None:
        """One event: show the metric to the torch scheduler, which may reduce the lr.

        Synchronises if the metric is a tensor on a device, or an lr is.
        """
        metrics = getattr(engine.state, "metrics", None) or {}
        if self.metric_name not in metrics:
            what = f"engine.state.metrics has no {self.metric_name!r}, it holds {list(metrics)}"
            raise ScheduleError(f"{what}; attach the metric to the engine that calls this handler")
        meant = set(map(id, self.optimizer_param_groups))
        others = [group for group in self.optimizer.param_groups if id(group) not in meant]
        kept = [float(group["lr"]) for group in others]
        self.scheduler.step(metrics[self.metric_name])
        fill_each(others, ["lr"] * len(kept), [None] * len(kept), kept)  # torch reduces every group
        super().__call__(self.trainer, name)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; nothing changes if it is refused. A method in it, of ignite's, is ignored.

        Raises:
            TypeError: it is no mapping.
            ValueError: an entry is missing.
        """
        base.check_state(self, state_dict, self._state_attrs)
        plain = {key: value for key, value in state_dict["scheduler"].items() if not callable(value)}
        super().load_state_dict({**state_dict, "scheduler": plain})

    def get_param(self) -> Any:
        """The lr of the group, or of all in a list."""
        values = [group["lr"] for group in self.optimizer_param_groups]
        return values[0] if len(values) == 1 else values

    @classmethod
    def simulate_values(  # type: ignore[override]  # ignite's arguments
        cls, num_events: int, metric_values: list[float], init_lr: float, **scheduler_kwargs: Any
    ) -> list[list[Any]]:
        """[[event, lr], ...] for these values of the metric, from init_lr.

        Raises:
            ScheduleError: there are not num_events values.
        """
        if len(metric_values) != num_events:
            raise refuse("metric_values", f"num_events={num_events} numbers", metric_values)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=init_lr)
        own = {"optimizer": optimizer, "metric_name": "metric", "save_history": False}
        scheduler, state = cls(**(scheduler_kwargs | own)), SimpleNamespace(metrics={})
        rows = []
        for event, state.metrics["metric"] in enumerate(metric_values):
            scheduler(SimpleNamespace(state=state))
            rows.append([event, optimizer.param_groups[0]["lr"]])
        return rows

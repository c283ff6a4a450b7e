"""Copies of schedulers for simulations: the schedulers, and the optimizer behind them, stay as they are."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["StandIn", "quiet_steps", "replicas"]


class StandIn:
    """What a scheduler touches of an optimizer: the hyperparameters of its groups, copied."""

    def __init__(self, optimizer: Any) -> None:
        self.param_groups = [
            {key: value if key == "params" else copy.deepcopy(value) for key, value in group.items()}
            for group in optimizer.param_groups
        ]
        self.defaults = dict(getattr(optimizer, "defaults", {}))

    def step(self) -> None:
        """Nothing; but schedulers of torch look whether there is one."""


def replicas(schedulers: Sequence[Any]) -> list[Any]:
    """Deep copies of schedulers (of torch or ours), on stand-ins for their optimizers."""
    memo: dict[int, Any] = {}
    for scheduler in schedulers:
        held = scheduler.optimizer
        for optimizer in held if isinstance(held, list) else [held]:
            memo.setdefault(id(optimizer), StandIn(optimizer))
    return [copy.deepcopy(scheduler, memo) for scheduler in schedulers]


@contextlib.contextmanager
def quiet_steps() -> Iterator[None]:
    """Without torch's advice to call optimizer.step() first: on a copy there is nothing to step."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        warnings.filterwarnings("ignore", message="Seems like `optimizer.step", category=UserWarning)
        yield

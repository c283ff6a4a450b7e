"""The words that people bring to `attach` from elsewhere, each answered with what to write here."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import torch

from tensorsched.errors import BindingError
from tensorsched.param_groups import known_keys
from tensorsched.schedules.node import Node, brief
from tensorsched.schedules.validators import shown

__all__ = ["hint_for_key", "hint_for_list", "hint_for_value", "named_only"]

P = ParamSpec("P")
R = TypeVar("R")

SAME = {
    "learning_rate": "lr",
    "max_lr": "lr",
    "peak_lr": "lr",
    "base_lr": "lr",
    "init_lr": "lr",
    "wd": "weight_decay",
    "weight_decay_rate": "weight_decay",
    "epsilon": "eps",
    "beta1": "betas=({}, None)",
    "b1": "betas=({}, None)",
    "beta2": "betas=(None, {})",
    "b2": "betas=(None, {})",
}
"""Other names of hyperparameters; where a tuple holds it, how that is written."""

_COSINE = "lr=ts.cosine(peak, floor, steps=n)"
_STAIRS = "lr=ts.step_decay(start, every=n, factor=gamma)"
_WARMUP = "lr=ts.warmup_cosine(peak, total=n, warmup=w)"
_RESTARTS = "lr=ts.warm_restarts(peak, period=n, length_mult=m)"
_CYCLE = "lr=ts.one_cycle(peak, total=n, rise=r)"
SCHEDULERS = {
    "T_max": _COSINE,
    "eta_min": _COSINE,
    "gamma": _STAIRS,
    "step_size": _STAIRS,
    "milestones": "lr=ts.multistep(start, milestones, factor=gamma)",
    "total_iters": "lr=ts.linear(start, end, steps=n)",
    "start_factor": "lr=ts.linear(start, end, steps=n)",
    "end_factor": "lr=ts.linear(start, end, steps=n)",
    "T_0": _RESTARTS,
    "T_mult": _RESTARTS,
    "pct_start": _CYCLE,
    "div_factor": _CYCLE,
    "final_div_factor": _CYCLE,
    "total_steps": _WARMUP,
    "num_training_steps": _WARMUP,
    "warmup": _WARMUP,
    "warmup_steps": _WARMUP,
    "warmup_ratio": _WARMUP,
    "num_warmup_steps": _WARMUP,
    "lr_lambda": "lr=ts.initial * ts.from_function(lr_lambda, steps=n)",
    "lr_scheduler_type": _WARMUP,
    "schedule": "lr=schedule",
    "scheduler": "attach(optimizer, **ts.record(scheduler, steps))",
    "lr_scheduler": "attach(optimizer, **ts.record(scheduler, steps))",
}
"""What other libraries' schedulers are told, and the schedule that is told it here."""


def named_only(written: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A call that takes one thing by position, and answers where it is given more, or none.

    Args:
        written: the call as it is meant, with {} for the schedule.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> R:
            if len(args) + ("optimizer" in options) == 1:
                return function(*args, **options)
            value = next((arg for arg in args if isinstance(arg, (Node, numbers.Real))), None)
            example = written.format("schedule" if value is None else _value(value))
            raise BindingError(
                f"{function.__name__}() takes every hyperparameter by its name: write {example}"
            )

        return call

    return decorate


def _value(value: Any) -> str:
    return brief(value) if isinstance(value, Node) else shown(value)


def hint_for_key(group: Mapping[str, Any], key: str) -> str:
    """What to write instead of a key that the group does not have."""
    same = SAME.get(key)
    if same is not None and same.partition("=")[0] in group:
        return f"write {same.format('schedule') if '=' in same else f'{same}=schedule'}"
    if key in SCHEDULERS:
        return f"that is said to a schedule, or to another library's scheduler; write {SCHEDULERS[key]}"
    return known_keys(group, key)


def hint_for_list(groups: Sequence[Mapping[str, Any]], key: str, value: Sequence[Any]) -> str:
    """What a list may have been meant as that has not one entry for each group."""
    held = groups[0].get(key) if groups else None
    if isinstance(held, (tuple, list)) and len(value) == len(held):
        parts = ", ".join(map(_value, value))
        return f"; for the elements of {key} write a tuple: {key}=({parts})"
    if len(value) > 1 and all(isinstance(part, numbers.Real) for part in value):
        return f"; if it holds a value for each step, write {key}=ts.from_values({shown(list(value))})"
    return ""


def hint_for_value(key: str, value: object) -> str:
    """What to write instead of something that is neither a schedule nor a number."""
    if isinstance(value, torch.optim.lr_scheduler.LRScheduler):
        return (
            " (a torch scheduler drives the optimizer by itself; attach(optimizer, **ts.record(scheduler, steps)) "
            "takes its values over)"
        )
    shape = getattr(value, "shape", (2,) if isinstance(value, list) else None)
    if shape is not None:
        one = all(n == 1 for n in shape)  # a tensor on a device is not read for a message
        return (
            f" (one number: write {key}=value.item())"
            if one
            else f" (values: write {key}=ts.from_values(values))"
        )
    readers: tuple[tuple[bool, str], ...] = (
        (isinstance(value, str), f"ts.parse({shown(value)})"),
        (isinstance(value, Mapping), "ts.from_dict(config)"),
        (callable(value), "ts.from_function(fn, steps=n)"),
    )
    return next((f" (write {key}={reader})" for fits, reader in readers if fits), "")

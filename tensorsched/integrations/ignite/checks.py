"""What constructor arguments must be, where ignite has no word on it: errors name the argument, the rule, the value."""

from __future__ import annotations

import math

import numpy as np
import torch

from tensorsched.errors import ScheduleError
from tensorsched.schedules.validators import check_real, refuse

__all__ = ["check_events", "check_growth", "check_number"]


def check_number(where: str, value: object) -> float:
    """A finite number as Python has it: a tensor may change, and a checkpoint cannot hold a number of numpy's."""
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        value = value.item()
    check_real(where, value)
    return value  # type: ignore[return-value]  # checked


def check_events(where: str, value: object, *, least: int) -> int:
    """A whole number of events; a float is let through if it is whole (ignite takes len(loader) * 1.0)."""
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{where} must be a whole number of events, got {type(value)}")
    if not (math.isfinite(value) and value == int(value) and value >= least):
        raise refuse(where, f"a whole number of at least {least} events", value)
    return int(value)


def check_growth(where: str, value: object) -> float:
    """A factor of a cycle's length, at least 1."""
    mult = check_number(where, value)
    if mult < 1.0:
        raise ScheduleError(
            f"{where} must be at least 1, got {mult!r}: rounded down from cycle to cycle, the cycle shrinks below 2 "
            "events and then to none; chain shorter cycles with ConcatScheduler, or use from_schedule() with "
            "a .repeat(times, length_mult=...)"
        )
    return mult

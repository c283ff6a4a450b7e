"""What reactions to a metric share: when one is better, how far a scale falls, what their arguments may be."""

from __future__ import annotations

from typing import Any

from tensorsched.schedules import validators as f
from tensorsched.schedules.live.inputs import Arithmetic, Cells, Input


class Reaction(Input):
    """A factor that starts at 1 and follows a metric: `Attachment.observe` shows it one."""

    def _observed(self, cells: Cells, x: Any, m: Arithmetic) -> Cells:
        """The cells after a metric `x`."""
        raise NotImplementedError


def is_better(reaction: Any, x: Any, best: Any) -> Any:
    """As torch's ReduceLROnPlateau: its four comparisons, in its arithmetic."""
    if reaction.mode == "min":
        if reaction.threshold_mode == "rel":
            return x < best * (1.0 - reaction.threshold)
        return x < best - reaction.threshold
    if reaction.threshold_mode == "rel":
        return x > best * (1.0 + reaction.threshold)
    return x > best + reaction.threshold


def lowered(reaction: Any, when: Any, scale: Any, m: Arithmetic) -> Any:
    """The scale times the reaction's factor where `when` holds, unless that is too small a change to be made."""
    lower = scale * reaction.factor
    lower = m.where(lower < reaction.min_scale, reaction.min_scale, lower)
    return m.where(when & (scale - lower > reaction.eps), lower, scale)


def check_factor(where: str, value: object) -> float:
    """A factor that makes less of it: above 0 and below 1."""
    number = f.check_positive(where, value)
    if number >= 1.0:
        raise f.refuse(where, "above 0 and below 1", value)
    return number


def check_part(where: str, value: object) -> float:
    """The part of an old mean in a new one."""
    number = f.check_real(where, value)
    if not 0.0 <= number < 1.0:
        raise f.refuse(where, "at least 0 and below 1", value)
    return number


def check_low(where: str, value: object) -> float:
    """The least that a scale may be."""
    number = f.check_real(where, value)
    if not 0.0 <= number <= 1.0:
        raise f.refuse(where, "in 0..1: the scale starts at 1", value)
    return number


def check_high(where: str, value: object) -> float:
    """The most that a scale may be."""
    number = f.check_real(where, value)
    if number < 1.0:
        raise f.refuse(where, "at least 1: the scale starts there", value)
    return number


def check_above(where: str, value: object) -> float:
    """How many times a mean is too much."""
    number = f.check_real(where, value)
    if number <= 1.0:
        raise f.refuse(where, "above 1", value)
    return number

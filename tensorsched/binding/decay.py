"""A decoupled weight decay that stays on the device: its own multiplication, before the step of the optimizer.

torch's fused kernels take weight_decay as a number, and the others look at it on the host, so a captured step keeps the
one of the capture. But decoupled it is nothing but p *= 1 - lr * weight_decay, before anything else: a column of the
table, float64 rounded once. The parameters that have a gradient are multiplied by its live value in the optimizer's
pre-hook, unless GradScaler's found_inf says that the step is skipped, and the group holds 0 while the step runs.

To the bit what torch's for-loop and foreach implementations do with floats. torch's fused CUDA kernel computes
p - lr * weight_decay * p instead: at most three roundings, 3 * 2**-24 of p, lie between a step of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.known import record_of
from tensorsched.binding.parts import TensorSlots
from tensorsched.binding.slots import Slot
from tensorsched.schedules import Schedule

__all__ = ["Decay", "decay_of", "obstacle"]

_NONE = 0.0  # this very object: nobody else puts it there


def obstacle(
    optimizer: object, group: Mapping[str, Any], schedule: Schedule, lr: Slot | None, *, auto: bool
) -> str:
    """Why the weight decay of a group cannot be a multiplication of its own with the same effect; "" if it can.

    `schedule` is the weight decay's, `lr` what the attachment has for the group's lr; `auto` says that it hears of
    every step before it is made.
    """
    name = type(optimizer).__name__
    if not group.get(record_of(optimizer).decoupled):
        return (
            f"the weight decay of {name} is part of the gradient here (L2), and no multiplication of its own"
        )
    if lr is None or not lr.tensor:
        return "it needs the lr of the same group in a tensor slot: schedule both in one attach(), a constant lr too"
    if schedule.inputs() or lr.schedule.inputs():
        return "a decay that depends on live inputs is left to the optimizer's own step"
    if other := {p.dtype for p in group["params"]} - {torch.float32}:
        return (
            f"parameters of {min(map(str, other))} would be rounded once more, which swallows a small decay"
        )
    return "" if auto else "it needs advance='auto' and an optimizer with torch's step hooks"


class Decay:
    """The weight decays of an attachment that are multiplications.

    Args:
        slots: those that decay.
        part: with their live values.
    """

    def __init__(self, slots: Sequence[Slot], part: TensorSlots) -> None:
        self._slots = [(slot.place, part.value(slot), part.engine.value(slot.factor)) for slot in slots]

    def apply(self, optimizer: Any) -> None:
        """Multiply the parameters that have a gradient, and let the groups hold 0. Does not synchronise."""
        found_inf = getattr(optimizer, "found_inf", None)
        groups = optimizer.param_groups
        members: dict[int, tuple[torch.Tensor, list[torch.Tensor]]] = {}  # equal factors are one live value
        for place, _, factor in self._slots:
            group = groups[place.group]
            members.setdefault(id(factor), (factor, []))[1].extend(
                p for p in group["params"] if p.grad is not None
            )
            group[place.key] = _NONE
        with torch.no_grad():
            for factor, parameters in members.values():
                if found_inf is not None:  # GradScaler leaves it to a fused optimizer to skip the step
                    skipped = found_inf.to(factor.device).reshape(()) != 0
                    factor = torch.where(skipped, torch.ones_like(factor), factor)  # noqa: PLW2901
                if parameters:
                    torch._foreach_mul_(parameters, factor)  # the documented name; there is no public one

    def put_back(self, groups: Sequence[dict[str, Any]]) -> None:
        """Let the groups hold the live values again, where they hold what `apply` put there."""
        for place, view, _ in self._slots:
            if place.group < len(groups) and groups[place.group].get(place.key) is _NONE:
                groups[place.group][place.key] = view


def decay_of(parts: Sequence[Any]) -> list[Decay]:
    """What the slots of an attachment have to multiply, for each of its parts."""
    found = []
    for part in parts:
        slots = [slot for slot in part.slots if slot.decays]
        if slots:
            found.append(Decay(slots, part))
    return found

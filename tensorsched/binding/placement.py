"""Where each slot's value lives, resident or host: the policy over the facts in `support`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.request import Request
from tensorsched.binding.slots import Slot, held
from tensorsched.binding.support import COUNTS, NEVER_RESIDENT, NO_EFFECT, ROWS, device_of, judge
from tensorsched.errors import BindingError

NewGroups = Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user chose at `attach`, kept for groups that are added later."""

    auto: bool
    resident: bool | str
    steps: int | None
    new_groups: NewGroups | None


def engine_device(groups: Sequence[Mapping[str, Any]]) -> torch.device:
    """The device of the live values: that of the first group whose parameters share one."""
    return next((device for device in map(device_of, groups) if device is not None), torch.device("cpu"))


def place_slot(
    optimizer: object,
    group: Mapping[str, Any],
    request: Request,
    *,
    resident: bool | str,
    device: torch.device,
) -> Slot:
    """Decide where the value of a request lives.

    Raises:
        BindingError: the optimizer never uses the value or needs an int, or resident=True would need a synchronisation.
    """
    name = request.key if request.element is None else f"{request.key}[{request.element}]"
    if reason := NO_EFFECT.get((type(optimizer), name)):
        raise BindingError(f"{request.name}: a schedule would have no effect: {reason}")
    if (type(optimizer), name) in COUNTS:
        raise BindingError(
            f"{request.name}: {type(optimizer).__name__} needs an int and a schedule gives floats; "
            "set it in the group yourself"
        )
    verdict = judge(optimizer, group, request.key, request.element)
    original = held(group, request.key, request.element)
    here = (
        device_of(group) if list(group.get("params", ())) else device
    )  # a group without parameters fits anywhere
    why = verdict.why if here == device else f"its parameters are on {here}, the live values on {device}"
    free = verdict.free and here == device
    if resident is True and (reason := NEVER_RESIDENT.get((type(optimizer), name))):
        raise BindingError(f"{request.name} cannot be resident: {reason}; pass resident='auto' (a host slot)")
    if resident is True and (verdict.raises or here != device or (not free and device.type != "cpu")):
        raise BindingError(
            f"{request.name} cannot be resident without a synchronisation at every step: {why}; pass resident='auto' "
            "(a host slot, which needs none), or build the optimizer with capturable=True or fused=True"
        )
    if isinstance(resident, bool):
        chosen, why = resident, f"resident={resident}"
    elif device.type == "cpu":
        # An optimizer that is not known may keep the tensor (schedulefree does, as its largest lr): a view would move.
        chosen = isinstance(original, torch.Tensor) and not verdict.raises and type(optimizer) in ROWS
        why = "the group held a tensor" if chosen else "on a CPU a float is exact and fastest"
    else:
        chosen = free
    if not chosen and _reads_found_inf(group) and device.type != "cpu":
        why += "; with a GradScaler each step reads found_inf, a synchronisation"
    return Slot(request, chosen, why, original, _template(group, request))


def _reads_found_inf(group: Mapping[str, Any]) -> bool:
    """Whether GradScaler leaves it to the optimizer (fused) to skip a step."""
    return bool(group.get("fused"))


def _template(group: Mapping[str, Any], request: Request) -> Any:
    """The whole tuple that an element belongs to: a checkpoint may lack the key."""
    return None if request.element is None else group[request.key]

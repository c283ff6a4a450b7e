"""Where each slot's value lives, resident or host: the policy over the facts in `support`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.arguments import Request, param_groups, read_requests
from tensorsched.binding.slots import Slot, held, put
from tensorsched.binding.torch_optim import COUNTS, NEVER_RESIDENT, NO_EFFECT, ROWS, device_of, judge
from tensorsched.engine.tabulate import bounded
from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule

NewGroups = Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user chose at `attach`, kept for groups that are added later."""

    auto: bool
    resident: bool | str
    steps: int | None
    new_groups: NewGroups | None
    capacity: int | None = None


def engine_device(groups: Sequence[Mapping[str, Any]]) -> torch.device:
    """The device of the live values: that of the first group whose parameters share one."""
    return next((device for device in map(device_of, groups) if device is not None), torch.device("cpu"))


def place_slot(
    optimizer: object, group: Mapping[str, Any], request: Request, options: Options, device: torch.device
) -> Slot:
    """Decide where the value of a request lives.

    Raises:
        BindingError: the optimizer never uses the value or needs an int, or resident=True would need a synchronisation.
    """
    _refuse_unusable(optimizer, request)
    # What the table holds past its end, the schedule says too.
    request = dataclasses.replace(request, schedule=bounded(request.schedule, options.steps))
    resident = options.resident
    verdict = judge(optimizer, group, request.key, request.element)
    original = held(group, request.key, request.element)
    here = (
        device_of(group) if list(group.get("params", ())) else device
    )  # without parameters it fits anywhere
    why = verdict.why if here == device else f"its parameters are on {here}, the live values on {device}"
    free = verdict.free and here == device
    if resident is True:
        _refuse_resident(
            optimizer,
            request,
            why,
            works=not verdict.raises and here == device and (free or device.type == "cpu"),
        )
    if isinstance(resident, bool):
        chosen, why = resident, f"resident={resident}"
    elif device.type == "cpu":
        # An optimizer that is not known may keep the tensor, as LBFGS does, and a view moves behind its back.
        chosen = isinstance(original, torch.Tensor) and not verdict.raises and type(optimizer) in ROWS
        why = "the group held a tensor" if chosen else "on a CPU a float is exact and fastest"
    else:
        chosen = free
    if (
        not chosen and group.get("fused") and device.type != "cpu"
    ):  # GradScaler leaves skipping to fused optimizers
        why += "; with a GradScaler each step reads found_inf, a synchronisation"
    # The whole tuple that an element belongs to is kept too: a checkpoint may lack the key.
    return Slot(request, chosen, why, original, None if request.element is None else group[request.key])


def read_rewrite(
    optimizer: Any, slots: Sequence[Slot], wanted: Mapping[str, Any], steps: int | None
) -> dict[tuple[int, str, int | None], Schedule]:
    """The new schedule of each slot that `Attachment.rewrite` was given one for.

    Raises:
        BindingError: a place that has no slot, or as `read_requests`.
    """
    if not wanted:
        return {}
    groups = [dict(group) for group in param_groups(optimizer)]
    places = {slot.place for slot in slots}
    for slot in slots:  # ts.initial is what was there at attach
        if slot.request.key in groups[slot.request.group]:
            put(groups[slot.request.group], slot.request.key, slot.request.element, slot.original)
    scheduled: dict[str, set[int]] = {}
    for slot in slots:
        scheduled.setdefault(slot.request.key, set()).add(slot.request.group)
    # One schedule for all means all that are scheduled.
    entries = {
        key: value
        if isinstance(value, list) or key not in scheduled
        else [value if index in scheduled[key] else None for index in range(len(groups))]
        for key, value in wanted.items()
    }
    requests = read_requests(groups, entries)
    for request in requests:
        if request.place not in places:
            raise BindingError(
                f"{request.name} has no schedule that could be replaced; rewrite() changes what attach() scheduled"
            )
    return {request.place: bounded(request.schedule, steps) for request in requests}


def _refuse_unusable(optimizer: object, request: Request) -> None:
    place = (type(optimizer), request.part)
    if reason := NO_EFFECT.get(place):
        raise BindingError(f"{request.name}: a schedule would have no effect: {reason}")
    if place in COUNTS:
        raise BindingError(
            f"{request.name}: {type(optimizer).__name__} needs an int and a schedule gives floats; "
            "set it in the group yourself"
        )


def _refuse_resident(optimizer: object, request: Request, why: str, *, works: bool) -> None:
    if reason := NEVER_RESIDENT.get((type(optimizer), request.part)):
        raise BindingError(f"{request.name} cannot be resident: {reason}; pass resident='auto' (a host slot)")
    if not works:
        raise BindingError(
            f"{request.name} cannot be resident without a synchronisation at every step: {why}; pass resident='auto' "
            "(a host slot, which needs none), or build the optimizer with capturable=True or fused=True"
        )

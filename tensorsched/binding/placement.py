"""Which slots are tensors and which are floats: the policy over the facts in `torch_optim`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.arguments import read_schedules
from tensorsched.binding.group_names import list_by_group
from tensorsched.binding.ranges import range_of
from tensorsched.binding.slots import Slot
from tensorsched.binding.torch_optim import record_of, supports_tensor
from tensorsched.engine import Clock
from tensorsched.engine.tabulate import bounded
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, common_device, param_groups
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
    on_mismatch: str = "error"
    total: int | None = None
    allow_out_of_range: bool = False
    clock: Clock | None = None


def live_device(groups: Sequence[Mapping[str, Any]]) -> torch.device:
    """The device of the live values: that of the first group whose parameters share one."""
    return next((device for device in map(common_device, groups) if device is not None), torch.device("cpu"))


def place_slot(
    optimizer: Any, place: Place, schedule: Schedule, options: Options, device: torch.device
) -> Slot:
    """Decide whether the value of a place is a tensor, on `device`, or a float.

    Raises:
        BindingError: the optimizer never uses the value or needs an int, or resident=True would need a synchronisation.
    """
    _refuse_unusable(optimizer, place)
    group = optimizer.param_groups[place.group]
    support = supports_tensor(optimizer, group, place.part)
    original = place.read(optimizer.param_groups)
    # A group without parameters fits anywhere.
    here = common_device(group) if list(group.get("params", ())) else device
    why = support.why if here == device else f"its parameters are on {here}, the live values on {device}"
    no_sync = support.no_sync and here == device
    if options.resident is True:
        works = not support.raises and here == device and (no_sync or device.type == "cpu")
        _refuse_resident(optimizer, place, why, works=works)
    if isinstance(options.resident, bool):
        tensor, why = options.resident, f"resident={options.resident}"
    elif device.type == "cpu":
        # An optimizer that is not known may keep the tensor, as LBFGS does, and a view moves behind its back.
        tensor = (
            isinstance(original, torch.Tensor) and not support.raises and bool(record_of(optimizer).reads)
        )
        why = "the group held a tensor" if tensor else "on a CPU a float is exact and fastest"
    else:
        tensor = no_sync
    # GradScaler leaves it to fused optimizers to skip a step.
    if not tensor and group.get("fused") and device.type != "cpu":
        why += "; with a GradScaler each step reads found_inf, a synchronisation"
    template = None if place.element is None else group[place.key]
    # What the table holds past its end, the schedule says too.
    limits = None if options.allow_out_of_range else range_of(optimizer, place.part)
    return Slot(place, bounded(schedule, options.steps), tensor, why, original, template, limits)


def read_rewrite(
    optimizer: Any, slots: Sequence[Slot], wanted: Mapping[str, Any], steps: int | None
) -> dict[Place, Schedule]:
    """The new schedule of each slot that `Attachment.rewrite` was given one for.

    Raises:
        BindingError: a place that has no slot, or as `read_schedules`.
    """
    if not wanted:
        return {}
    groups = [dict(group) for group in param_groups(optimizer)]
    scheduled: dict[str, set[int]] = {}
    for slot in slots:
        if slot.place.key in groups[slot.place.group]:
            slot.place.write(groups, slot.original)  # ts.initial is what was there at attach
        scheduled.setdefault(slot.place.key, set()).add(slot.place.group)
    wanted = {
        key: list_by_group(groups, key, value, complete=False) if isinstance(value, Mapping) else value
        for key, value in wanted.items()
    }
    # One schedule for all means all that are scheduled.
    entries = {
        key: value
        if isinstance(value, list) or key not in scheduled
        else [value if index in scheduled[key] else None for index in range(len(groups))]
        for key, value in wanted.items()
    }
    schedules = read_schedules(groups, entries)
    places = {slot.place for slot in slots}
    for place in schedules:
        if place not in places:
            raise BindingError(
                f"{place.name} has no schedule that could be replaced; rewrite() changes what attach() scheduled"
            )
    return {place: bounded(schedule, steps) for place, schedule in schedules.items()}


def _refuse_unusable(optimizer: object, place: Place) -> None:
    record = record_of(optimizer)
    if reason := record.no_effect.get(place.part):
        raise BindingError(f"{place.name}: a schedule would have no effect: {reason}")
    if place.part in record.counts:
        raise BindingError(
            f"{place.name}: {type(optimizer).__name__} needs an int and a schedule gives floats; "
            "set it in the group yourself"
        )


def _refuse_resident(optimizer: object, place: Place, why: str, *, works: bool) -> None:
    if reason := record_of(optimizer).floats_only.get(place.part):
        raise BindingError(
            f"{place.name} cannot be a tensor slot: {reason}; pass resident='auto' (a float slot)"
        )
    if not works:
        raise BindingError(
            f"{place.name} cannot be a tensor slot without a synchronisation at every step: {why}; pass "
            "resident='auto' (a float slot, which needs none), or build the optimizer with capturable=True or "
            "fused=True"
        )

"""Which slots are tensors and which are floats: the policy over the facts in `torch_optim`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.arguments import read_schedules
from tensorsched.binding.decay import obstacle
from tensorsched.binding.filled import obstacle as cannot_fill
from tensorsched.binding.filled import refuse_shared
from tensorsched.binding.group_names import list_by_group
from tensorsched.binding.hooks import has_hooks
from tensorsched.binding.known import UNKNOWN, record_of, supports_tensor
from tensorsched.binding.ranges import range_of
from tensorsched.binding.slots import Slot
from tensorsched.engine import Clock
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, common_device, param_groups
from tensorsched.schedules import Schedule
from tensorsched.schedules.split import bounded

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


def place_slots(
    optimizer: Any,
    schedules: Mapping[Place, Schedule],
    options: Options,
    device: torch.device,
    before: Sequence[Slot] = (),
) -> list[Slot]:
    """Decide for each place whether it holds a tensor on `device`, a float, or the tensor that it has.

    `before` are the slots that the attachment has already.

    Raises:
        BindingError: the optimizer never uses a value, needs an int, raises on what resident= asks for, or would have
            to synchronise for it; or places that follow different schedules hold one tensor.
    """
    if maker := getattr(optimizer, record_of(optimizer).tensor_maker or "_", None):
        maker()  # as its own step would do, in the place of what was put there
    lr = {
        place.group: place_slot(optimizer, place, schedule, options, device)
        for place, schedule in schedules.items()
        if place.part == "lr"
    }
    slots = [
        lr[place.group]
        if place.part == "lr"
        else place_slot(optimizer, place, schedule, options, device, lr.get(place.group))
        for place, schedule in schedules.items()
    ]
    refuse_shared(optimizer.param_groups, [*before, *slots])
    return slots


def place_slot(  # noqa: PLR0917  of one place; the rest is the same for all
    optimizer: Any,
    place: Place,
    schedule: Schedule,
    options: Options,
    device: torch.device,
    lr: Slot | None = None,
) -> Slot:
    """The slot of one place; `lr` is that of the same group."""
    _refuse_unusable(optimizer, place)
    group = optimizer.param_groups[place.group]
    support = supports_tensor(optimizer, group, place.part)
    original = place.read(optimizer.param_groups)
    template = None if place.element is None else group[place.key]
    # What the table holds past its end, the schedule says too.
    limits = None if options.allow_out_of_range else range_of(optimizer, place.part)
    slot = Slot(place, bounded(schedule, options.steps), False, "", original, template, limits)  # noqa: FBT003
    # A group without parameters fits anywhere.
    here = common_device(group) if list(group.get("params", ())) else device
    why = support.why if here == device else f"its parameters are on {here}, the live values on {device}"
    no_sync = support.no_sync and here == device
    if reason := _must_stay(optimizer, slot, options):
        return dataclasses.replace(slot, filled=True, why=reason)
    if reason := record_of(optimizer).tensors_only.get(place.part, ""):
        _refuse_float(optimizer, place, reason, options, works=here == device)
        return dataclasses.replace(slot, tensor=True, why=reason)
    works = not support.raises and here == device and (no_sync or device.type == "cpu")
    by_itself = "not a decay"
    if place.part == "weight_decay" and not no_sync and record_of(optimizer).decoupled:
        by_itself = obstacle(optimizer, group, schedule, lr, auto=options.auto and has_hooks(optimizer))
    if not by_itself and _wants_decay(group, options, device):
        return dataclasses.replace(slot, tensor=True, decays=True, why=_DECAYS)
    if options.resident is True:
        _refuse_resident(optimizer, place, why, works=works, by_itself=by_itself)
    tensor = no_sync
    if isinstance(options.resident, bool):
        tensor, why = options.resident, f"resident={options.resident}"
    elif device.type == "cpu":
        # An optimizer that is not known may keep the tensor, as LBFGS does, and a view moves behind its back.
        tensor = (
            isinstance(original, torch.Tensor) and not support.raises and bool(record_of(optimizer).reads)
        )
        why = "the group held a tensor" if tensor else "on a CPU a float is exact and fastest"
    # GradScaler leaves it to fused optimizers to skip a step.
    if not tensor and group.get("fused") and device.type != "cpu":
        why += "; with a GradScaler each step reads found_inf, a synchronisation"
    return dataclasses.replace(slot, tensor=tensor, why=why)


_DECAYS = (
    "the parameters are multiplied by 1 - lr * weight_decay before the step, which the optimizer makes with 0"
)


def _must_stay(optimizer: Any, slot: Slot, options: Options) -> str:
    """Why the tensor that a place holds must stay the object that it is; "" if it need not, or there is none.

    Raises:
        BindingError: it must, and cannot be filled.
    """
    record, held, place = record_of(optimizer), slot.original, slot.place
    if not isinstance(held, torch.Tensor):
        return ""
    name = type(optimizer).__name__
    if place.part in record.filled:
        reason = f"{name} wants the tensor that it has"
        if options.resident is False:
            raise BindingError(
                f"{place.name} cannot be a float slot: {name} wants the tensor that it has, filled in place; pass "
                "resident='auto'"
            )
    elif record is UNKNOWN and options.resident == "auto":
        reason = f"the group held a tensor, and nothing is known of what else {name} does with it"
    else:
        return ""
    if wrong := cannot_fill(held, slot.schedule):
        raise BindingError(f"{place.name} cannot follow a schedule: {wrong}")
    return reason


def _wants_decay(group: Mapping[str, Any], options: Options, device: torch.device) -> bool:
    """Whether a weight decay that can be a multiplication of its own is to be one.

    By itself only where a capture is meant: it costs one more pass over the parameters.
    """
    if options.resident == "auto":
        return bool(group.get("capturable")) and device.type != "cpu"
    return options.resident is True


def together(slots: Sequence[Slot], device: torch.device) -> list[Slot]:
    """The slots, of which those with live inputs are all tensors or all floats: the inputs have one home.

    On a CPU there is none to choose: floats and tensors read the same memory.
    """
    reactive = [slot for slot in slots if slot.schedule.inputs()]
    host = next((slot for slot in reactive if not slot.tensor), None)
    if host is None or device.type == "cpu":
        return list(slots)
    why = f"it depends on live inputs, and so does {host.name}, which is a float slot"
    return [
        dataclasses.replace(slot, tensor=False, why=why) if slot.schedule.inputs() and slot.tensor else slot
        for slot in slots
    ]


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


def _refuse_float(optimizer: object, place: Place, reason: str, options: Options, *, works: bool) -> None:
    name = type(optimizer).__name__
    if options.resident is False:
        raise BindingError(f"{place.name} of {name} cannot be a float slot: {reason}; pass resident='auto'")
    if not works:
        raise BindingError(
            f"{place.name} of {name} must be a tensor on the parameters' device ({reason}), and the parameters of this "
            "attachment are on several; give each device an optimizer of its own"
        )


def _refuse_resident(optimizer: object, place: Place, why: str, *, works: bool, by_itself: str) -> None:
    if reason := record_of(optimizer).floats_only.get(place.part):
        raise BindingError(
            f"{place.name} cannot be a tensor slot: {reason}; pass resident='auto' (a float slot)"
        )
    if works:
        return
    if place.part == "weight_decay" and record_of(optimizer).decoupled:
        raise BindingError(
            f"{place.name} cannot be a tensor slot: {why}, and {by_itself}; pass resident='auto' (a float slot)"
        )
    raise BindingError(
        f"{place.name} cannot be a tensor slot without a synchronisation at every step: {why}; pass "
        "resident='auto' (a float slot, which needs none), or build the optimizer with capturable=True or "
        "fused=True"
    )

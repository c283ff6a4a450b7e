"""Slots: which places of the param_groups follow a schedule, and what these places hold.

A *tensor slot* is bound once: the group holds a 0-dim view of the engine's live values, and nothing is written after
that. A *float slot* holds a Python float, exact float64, that is written after each step. A *filled slot* holds the
tensor that was there before (filled.py). What feeds them is in parts.py and reactive_parts.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.ranges import Range, may_be
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, as_float
from tensorsched.schedules import Schedule

__all__ = [
    "Slot",
    "displaced",
    "factors",
    "found_at",
    "give_back",
    "holds",
    "is_near",
    "present_values",
    "same_number",
    "taken_over",
    "with_schedules",
]


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place that follows a schedule.

    Attributes:
        place: where it is.
        schedule: what it follows.
        tensor: whether it is a tensor slot; otherwise a float slot, or a filled one.
        why: it is that, in words.
        original: what the place held before.
        template: of an element, the whole tuple that held it: a checkpoint may lack the key.
        limits: the values that it may have; None: any.
        filled: whether it is a filled slot: `original` stays in its place.
        decays: of a weight_decay in a tensor slot: the parameters are multiplied by 1 - lr * weight_decay before each
            step, during which the group holds 0 (decay.py).
    """

    place: Place
    schedule: Schedule
    tensor: bool
    why: str
    original: Any
    template: Any = None
    limits: Range | None = None
    filled: bool = False
    decays: bool = False

    @property
    def name(self) -> str:
        """Name of its column: `lr[group 0]`."""
        return self.place.name

    @property
    def factor(self) -> str:
        """Name of the column 1 - lr * weight_decay, where it decays."""
        return f"1 - lr * {self.name}"


def with_schedules(slots: Sequence[Slot], schedules: Mapping[str, Schedule]) -> tuple[Slot, ...]:
    """The slots, with other schedules where there are some for their columns."""
    return tuple(dataclasses.replace(s, schedule=schedules.get(s.name, s.schedule)) for s in slots)


def factors(slots: Sequence[Slot]) -> dict[str, Schedule]:
    """The columns 1 - lr * weight_decay of the slots that decay, each product and difference rounded as in Python."""
    lr = {slot.place.group: slot.schedule for slot in slots if slot.place.part == "lr"}
    return {slot.factor: 1.0 - lr[slot.place.group] * slot.schedule for slot in slots if slot.decays}


def give_back(slots: Sequence[Slot], groups: Sequence[dict[str, Any]], present: Mapping[str, float]) -> None:
    """Put the present value into every place as what it held before: a float, or the very tensor that was there."""
    # Everything else that holds the same tensor: other slots' originals, and places that are none of ours.
    mine = {slot.place for slot in slots}
    users = [id(slot.original) for slot in slots]
    users += [
        id(value)
        for index, group in enumerate(groups)
        for key, value in group.items()
        if isinstance(value, torch.Tensor) and Place(index, key) not in mine
    ]
    for slot in slots:
        index, key, element = slot.place
        if index >= len(groups) or (element is not None and key not in groups[index]):
            continue  # somebody took the group, or the tuple, away
        value: Any = present[slot.name]
        if slot.filled:
            value = _filled(slot.original, value)
        elif isinstance(slot.original, torch.Tensor) and slot.original.is_floating_point():
            # torch gives one default tensor to all groups that name none: it cannot hold each one's value.
            own = users.count(id(slot.original)) == 1
            # Not through autograd: a learned lr is a leaf that requires grad.
            value = _filled(slot.original, value) if own else torch.full_like(slot.original, value)
        slot.place.write(groups, value)


def _filled(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor.detach().fill_(value)
    return tensor


def holds(
    slot: Slot, groups: Sequence[Mapping[str, Any]], expected: float, view: torch.Tensor | float
) -> bool:
    """Whether a place holds what its slot must: the `view` itself, or a float; and the value that is expected."""
    found = slot.place.read(groups) if slot.place.exists(groups) else None
    if found is not view if slot.tensor or slot.filled else isinstance(found, torch.Tensor):
        return False
    return is_near(slot, groups, expected)


def is_near(slot: Slot, groups: Sequence[Mapping[str, Any]], expected: float) -> bool:
    """Whether a place holds the value that is expected of its slot, as a float or a tensor."""
    number = as_float(slot.place.read(groups)) if slot.place.exists(groups) else None
    return number is not None and same_number(number, expected)


def same_number(found: float, expected: float) -> bool:
    """Whether both are the same but for float32: what is read from a tensor has one rounding, what was written too.

    A write within that is no error, and is not used either: what finds it puts the exact value back before the step.
    """
    return abs(found - expected) <= abs(expected) * 2**-23 + 2**-149


def found_at(slot: Slot, groups: Sequence[Mapping[str, Any]]) -> str:
    """What a place holds, for messages."""
    found = slot.place.read(groups) if slot.place.exists(groups) else None
    if isinstance(found, torch.Tensor):
        return f"a tensor of {found.tolist()!r} on {found.device}"
    return "nothing" if found is None else repr(found)


def taken_over(slot: Slot, groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether torch's SWALR is there to write this slot, which it is made for: its mark is in the group."""
    return slot.place.key == "lr" and "swa_lr" in groups[slot.place.group]


def displaced(slot: Slot, groups: Sequence[Mapping[str, Any]], expected: float, at: str) -> BindingError:
    """The error for a slot that somebody else has written to; `at` is where the run stands, in words."""
    return BindingError(
        f"{slot.name} no longer follows its schedule: at {at} the schedule put {expected!r} there "
        f"and it now holds {found_at(slot, groups)}. Something else writes it, such as a torch scheduler on the same "
        f"optimizer; remove that writer, or call hand_over({slot.place.part!r}) if it is to have this hyperparameter"
    )


def present_values(
    slots: Iterable[Slot], groups: Sequence[dict[str, Any]], at: Callable[[str], float]
) -> dict[str, float]:
    """What each of these has now; or holds, where a live input was turned to what no step would take."""
    found = {}
    for slot in slots:
        found[slot.name] = at(slot.name)
        if slot.schedule.inputs() and not may_be(slot, found[slot.name]) and slot.place.exists(groups):
            held = as_float(slot.place.read(groups))
            found[slot.name] = found[slot.name] if held is None else held
    return found

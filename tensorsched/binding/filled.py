"""Filled slots: the tensor that a group holds stays the object that it is, and is filled after every step.

For optimizers that raise on anything but a tensor (torchao), that put their own back (dion), or whose captured step
reads it at its address. A tensor on the host is filled from floats, one on a device from live values beside it there,
without a synchronisation. Groups that hold one tensor together can follow one schedule only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tensorsched.binding.movers import Groups, Mover, filled_mover
from tensorsched.binding.parts import FloatSlots, TensorSlots, float_slots, tensor_engine
from tensorsched.binding.slots import Slot
from tensorsched.engine import Clock
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule

__all__ = ["filled_slots", "obstacle", "refuse_shared"]


class _Filled:
    """What both kinds of filled slots say of them."""

    def accept(self, slots: Sequence[Slot]) -> None:
        """Refuse schedules that differ where the tensor is one."""
        _refuse_different(slots)

    def value(self, slot: Slot) -> torch.Tensor:
        """The tensor that a slot must hold."""
        return slot.original  # type: ignore[no-any-return]  # of a filled slot it is a tensor


class FilledFloats(_Filled, FloatSlots):
    """Filled slots whose tensors are on the host: the engine has their values as Python floats."""

    def bind(self, groups: Groups) -> Mover:
        """Put the tensors into the optimizer's groups, filled; what fills them from now on."""
        engine, slots = self.engine, self.slots
        column = engine.table.live_column
        targets = [(_plain(slot.original), column[slot.name]) for slot in _distinct(slots)]
        following, row = engine.following(), engine.row()

        def forward(found_inf: torch.Tensor | None) -> bool | None:
            nonlocal row
            if found_inf is not None and found_inf.item() != 0:
                return None
            row = next(following)
            engine.step_count += 1
            return True

        def fill() -> None:
            for tensor, entry in targets:
                tensor.fill_(row[entry])

        return filled_mover(groups, {slot.place: slot.original for slot in slots}, forward, fill)


class FilledTensors(_Filled, TensorSlots):
    """Filled slots whose tensors are on a device, filled from the engine's live values there."""

    may_part = False

    def bind(self, groups: Groups) -> Mover:
        """Put the tensors into the optimizer's groups, filled; what fills them from now on."""
        engine, slots = self.engine, self.slots
        mine = _distinct(slots)
        targets = [_plain(slot.original) for slot in mine]
        # Of one shape, and where they are of one type, they are one kernel.
        live = [engine.value(slot.name).view(slot.original.shape) for slot in mine]
        advance: Callable[[torch.Tensor | None], None] = engine.driver.advance

        def forward(found_inf: torch.Tensor | None) -> bool | None:
            advance(found_inf)
            return True  # skipped or not, which the device knows: then it fills in what is there

        def fill() -> None:
            torch._foreach_copy_(targets, live)  # the documented name; there is no public one

        return filled_mover(groups, {slot.place: slot.original for slot in slots}, forward, fill)


def filled_slots(
    slots: Sequence[Slot], capacity: int | None, clock: Clock | None = None
) -> list[FloatSlots | TensorSlots]:
    """Tables, engines and slots, for each device that has such tensors; nothing of the optimizer changes.

    Raises:
        BindingError: a value is out of its slot's range.
        ScheduleError: a schedule cannot be tabulated, or does not fit into the capacity.
    """
    parts: list[FloatSlots | TensorSlots] = []
    for device in dict.fromkeys(slot.original.device for slot in slots):
        mine = [slot for slot in slots if slot.original.device == device]
        if on_host(device):
            parts.append(FilledFloats(float_slots(mine, capacity, clock).engine, mine))
            continue
        single = all(slot.original.dtype == torch.float32 for slot in mine)
        dtype = (
            torch.float32 if single else torch.float64
        )  # what is wider, or narrower, is rounded as it is filled in
        columns = {slot.name: slot.schedule for slot in mine}
        engine = tensor_engine(columns, mine, device, capacity, dtype=dtype, clock=clock)
        parts.append(FilledTensors(engine, mine))
    return parts


def on_host(device: torch.device) -> bool:
    """Whether a tensor there is filled from a Python float: nothing has to be waited for."""
    return device.type == "cpu"


def obstacle(held: torch.Tensor, schedule: Schedule) -> str:
    """Why a tensor cannot be filled with the values of a schedule; "" if it can."""
    if schedule.inputs():
        return "it is a filled slot, which follows the step alone, and the schedule depends on live inputs"
    if not held.is_floating_point():
        return f"it holds a tensor of {held.dtype}, and a schedule gives floats"
    if held.is_inference():
        return "its tensor was made in inference mode, and may not be written to; clone() it outside"
    return ""


def refuse_shared(groups: Groups, slots: Sequence[Slot]) -> None:
    """Refuse slots whose tensor something else in the groups holds too, unless that follows the same schedule.

    Raises:
        BindingError: filling the one would change the other.
    """
    filled = {slot.place: slot for slot in slots if slot.filled}
    if not filled:
        return
    users: dict[tuple[Any, ...], Place] = {}
    for place, tensor in _tensors(groups):
        slot, first = filled.get(place), users.setdefault(_memory(tensor), place)
        before = filled.get(first)
        if place == first or (slot is None and before is None):
            continue
        if slot is None or before is None or slot.schedule != before.schedule:
            raise _shared(first, place)


def _refuse_different(slots: Sequence[Slot]) -> None:
    """The same among slots alone, which hold the tensors that they held before.

    Raises:
        BindingError: filling the one would change the other.
    """
    users: dict[tuple[Any, ...], Slot] = {}
    for slot in slots:
        first = users.setdefault(_memory(slot.original), slot)
        if first.schedule != slot.schedule:
            raise _shared(first.place, slot.place)


def _shared(a: Place, b: Place) -> BindingError:
    return BindingError(
        f"{a.name} and {b.name} hold the same tensor, which is filled in place, so they cannot follow different "
        "schedules; give each group its own before attach(): for g in optimizer.param_groups: "
        f"g[{b.key!r}] = g[{b.key!r}].clone()"
    )


def _tensors(groups: Groups) -> Iterator[tuple[Place, torch.Tensor]]:
    for index, group in enumerate(groups):
        for key, held in group.items():
            if key == "params":
                continue
            if isinstance(held, torch.Tensor):
                yield Place(index, key), held
            elif isinstance(held, (tuple, list)):
                for element, part in enumerate(held):
                    if isinstance(part, torch.Tensor):
                        yield Place(index, key, element), part


def _memory(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What two tensors have in common that are one number in memory."""
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return tensor.untyped_storage()._cdata, tensor.storage_offset()  # fake tensors have no pointer
    return (id(tensor),)


def _distinct(slots: Sequence[Slot]) -> list[Slot]:
    """One slot for each tensor."""
    return list({id(slot.original): slot for slot in slots}.values())


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as it can be written to: a learned lr is a leaf that requires grad."""
    return tensor.detach() if tensor.requires_grad else tensor

"""Slots: which places of the param_groups follow a schedule, and the engines that feed them.

A *tensor slot* is bound once: the group holds a 0-dim view of the engine's live values, and nothing is written after
that. A *float slot* holds a Python float, exact float64, that is written after each step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import torch

from tensorsched.binding.movers import Groups, Mover, float_mover, tensor_mover
from tensorsched.binding.ranges import Range, refuse_out_of_range, refuse_values
from tensorsched.engine import (
    Clock,
    ClockEngine,
    ClockFloatEngine,
    FloatEngine,
    ScheduleEngine,
    replacement_on_clock,
    tabulate,
    tabulate_on_clock,
)
from tensorsched.engine.layouts import Array
from tensorsched.engine.tabulate import SharedColumnError, replacement, row_count
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, as_float
from tensorsched.schedules import Schedule

__all__ = ["FloatSlots", "Slot", "Slots", "TensorSlots", "float_slots", "tensor_slots"]


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place that follows a schedule.

    Attributes:
        place: where it is.
        schedule: what it follows.
        tensor: whether it is a tensor slot; otherwise a float slot.
        why: it is that, in words.
        original: what the place held before.
        template: of an element, the whole tuple that held it: a checkpoint may lack the key.
        limits: the values that it may have; None: any.
    """

    place: Place
    schedule: Schedule
    tensor: bool
    why: str
    original: Any
    template: Any = None
    limits: Range | None = None

    @property
    def name(self) -> str:
        """Name of its column: `lr[group 0]`."""
        return self.place.name


class FloatSlots:
    """Float slots, and the engine that has their values as Python floats."""

    tensor: Literal[False] = False

    def __init__(self, engine: FloatEngine, slots: Sequence[Slot]) -> None:
        self.engine = engine
        self.slots = tuple(slots)

    def drop(self, places: Collection[Place]) -> None:
        """Leave some of the slots alone from now on, and forget what they followed."""
        self.engine.table, self.slots = _less(self.engine.table, self.slots, places)

    def become(self, other: FloatSlots) -> None:
        """Be these slots, at the present step."""
        other.engine.go(self.engine.where)
        self.engine, self.slots = other.engine, other.slots

    def bind(self, groups: Groups) -> Mover:
        """Put the present values into the optimizer's groups; what moves them from now on."""
        column = self.engine.table.live_column
        columns = {slot.place: column[slot.name] for slot in self.slots}
        return float_mover(groups, columns, self.engine)

    def value(self, slot: Slot) -> float:
        """The value that a slot must hold now."""
        return self.engine.row()[self.engine.table.live_column[slot.name]]


class TensorSlots:
    """Tensor slots, and the engine whose live values they are views of. Free names have such views and no place."""

    tensor: Literal[True] = True

    def __init__(self, engine: ScheduleEngine, slots: Sequence[Slot]) -> None:
        self.engine = engine
        self.slots = tuple(slots)

    def drop(self, places: Collection[Place]) -> None:
        """Leave some of the slots alone from now on, and forget what they followed."""
        self.engine.table, self.slots = _less(self.engine.table, self.slots, places)

    def become(self, other: TensorSlots) -> None:
        """Be these slots, at the present step."""
        other.engine.go(self.engine.where)
        self.engine, self.slots = other.engine, other.slots

    def bind(self, groups: Groups) -> Mover:
        """Put the views into the optimizer's groups; what moves them from now on."""
        views = {slot.place: self.value(slot) for slot in self.slots}
        return tensor_mover(groups, views, self.engine)

    def value(self, slot: Slot) -> torch.Tensor:
        """The view that a slot must hold."""
        return self.engine.value(slot.name)


Slots = FloatSlots | TensorSlots


def float_slots(slots: Sequence[Slot], capacity: int | None, clock: Clock | None = None) -> FloatSlots:
    """A table, an engine and slots; nothing of the optimizer changes.

    Raises:
        ScheduleError: a schedule cannot be tabulated, or does not fit into the capacity.
        BindingError: a value is out of its slot's range.
    """
    columns = {slot.name: slot.schedule for slot in slots}
    if clock is not None:
        on_clock = tabulate_on_clock(columns, clock, dtype=torch.float64, capacity=capacity)
        refuse_out_of_range(slots, on_clock)
        return FloatSlots(ClockFloatEngine(on_clock), slots)
    table = tabulate(columns, dtype=torch.float64, capacity=capacity)
    refuse_out_of_range(slots, table)
    return FloatSlots(FloatEngine(table), slots)


def tensor_slots(
    slots: Sequence[Slot],
    free: Mapping[str, Schedule],
    device: torch.device,
    capacity: int | None,
    *,
    room: int = 0,
    clock: Clock | None = None,
) -> TensorSlots:
    """As `float_slots`, with the live values, those of the free names among them, on a device; room for more values."""
    columns = dict(free) | {slot.name: slot.schedule for slot in slots}
    if clock is not None:
        # In graphs it stands alone, whatever is beside it, and so without room.
        on_clock = tabulate_on_clock(columns, clock, device=device, capacity=capacity)
        refuse_out_of_range(slots, on_clock)
        return TensorSlots(ClockEngine.of(on_clock), slots)
    table = tabulate(columns, device=device, capacity=capacity)
    refuse_out_of_range(slots, table)
    return TensorSlots(ScheduleEngine(table, room=room), slots)


def _less(table: Any, slots: Sequence[Slot], places: Collection[Place]) -> tuple[Any, tuple[Slot, ...]]:
    """A table without the names of some slots, whose columns stay, and the other slots."""
    gone = {slot.name for slot in slots if slot.place in places}
    schedules = {name: s for name, s in table.schedules.items() if name not in gone}
    columns = {name: at for name, at in table.live_column.items() if name not in gone}
    return table.renamed(schedules, columns), tuple(slot for slot in slots if slot.place not in places)


def rewritten(slots: Slots, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:
    """Check that other schedules, by column, can be followed at the same step; the function returned does it.

    Floats get another table. Tensors stay the objects that they are: what they follow has to fit into the table that
    there is, or with `grow` into a longer one with the same columns. Only slots that shared a column, and a tensor with
    it, and part now, get new ones, unless a free name has one of them: somebody holds that.

    Raises:
        BindingError: a value is out of its slot's range.
        ScheduleError: a schedule cannot be tabulated; of tensors, they need more rows than the table has, or names that
            share a column would differ.
    """
    moved = tuple(dataclasses.replace(s, schedule=schedules.get(s.name, s.schedule)) for s in slots.slots)
    table = slots.engine.table
    if isinstance(slots, FloatSlots):
        floats = float_slots(moved, _room(moved, table.last), table.clock)
        return lambda: slots.become(floats)
    at = {slot.name: slot for slot in moved}

    def look(name: str, values: Array, positions: Array | None = None, unit: str = "step") -> None:
        if name in at:  # not a free name
            refuse_values(at[name], schedules[name], values, positions, unit)

    engine = slots.engine
    if isinstance(engine, ClockEngine):
        replace: Callable[[], Any] = replacement_on_clock(engine.table, schedules, look)
    else:
        try:
            replace = replacement(engine.table, schedules, look, grow=grow)
        except SharedColumnError:
            if not grow or len(table.schedules) > len(moved):
                raise
            tensors = tensor_slots(moved, {}, table.device, _room(moved, table.last), room=engine.room)
            return lambda: slots.become(tensors)

    def commit() -> None:
        slots.engine.reload(replace())
        slots.slots = moved

    return commit


def _room(slots: Sequence[Slot], last: int) -> int:
    """The last step, or position, at which one of these changes, or could have."""
    return max(row_count({slot.name: slot.schedule for slot in slots}, None) - 1, last)


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
        if isinstance(slot.original, torch.Tensor) and slot.original.is_floating_point():
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
    if found is not view if slot.tensor else isinstance(found, torch.Tensor):
        return False
    return is_near(slot, groups, expected)


def is_near(slot: Slot, groups: Sequence[Mapping[str, Any]], expected: float) -> bool:
    """Whether a place holds the value that is expected of its slot, as a float or a tensor."""
    number = as_float(slot.place.read(groups)) if slot.place.exists(groups) else None
    return number is not None and same_number(number, expected)


def same_number(found: float, expected: float) -> bool:
    """Whether both are the same but for float32: what is read from a tensor has one rounding, what was written too."""
    return abs(found - expected) <= abs(expected) * 2**-23 + 2**-149


def found_at(slot: Slot, groups: Sequence[Mapping[str, Any]]) -> str:
    """What a place holds, for messages."""
    found = slot.place.read(groups) if slot.place.exists(groups) else None
    if isinstance(found, torch.Tensor):
        return f"a tensor of {found.tolist()!r} on {found.device}"
    return "nothing" if found is None else repr(found)


def displaced(slot: Slot, groups: Sequence[Mapping[str, Any]], expected: float, at: str) -> BindingError:
    """The error for a slot that somebody else has written to; `at` is where the run stands, in words."""
    return BindingError(
        f"{slot.name} no longer follows its schedule: at {at} the schedule put {expected!r} there "
        f"and it now holds {found_at(slot, groups)}. Something else writes it, such as a torch scheduler on the same "
        f"optimizer; remove that writer, or call hand_over({slot.place.part!r}) if it is to have this hyperparameter"
    )

"""Slots: which places of the param_groups follow a schedule, and the engines that feed them.

A *tensor slot* is bound once: the group holds a 0-dim view of the engine's live values, and nothing is written after
that. A *float slot* holds a Python float, exact float64, that is written after each step. A *filled slot* holds the
tensor that was there before (filled.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, Literal, Self, TypeVar

import torch

from tensorsched.binding.movers import (
    Groups,
    Mover,
    float_mover,
    reactive_float_mover,
    reactive_tensor_mover,
    tensor_mover,
)
from tensorsched.binding.ranges import Range, refuse_out_of_range, refuse_values, refuser
from tensorsched.engine import (
    Clock,
    ClockEngine,
    ClockFloatEngine,
    FloatEngine,
    Inputs,
    ReactiveEngine,
    ReactiveFloatEngine,
    ScheduleEngine,
    replacement_on_clock,
    tabulate,
    tabulate_on_clock,
)
from tensorsched.engine.layouts import Array
from tensorsched.engine.tabulate import SharedColumnError, replacement, row_count
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.param_groups import Place, as_float
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import evaluate
from tensorsched.schedules.split import inputs_of, value_now

__all__ = ["FloatSlots", "Slot", "Slots", "TensorSlots", "float_slots", "tensor_slots"]


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


Engine = TypeVar("Engine", bound="FloatEngine | ScheduleEngine")
Reacting = TypeVar("Reacting", bound="ReactiveFloatEngine | ReactiveEngine")


class _Tabulated(Generic[Engine]):
    """Slots whose values are a table's, and the engine that reads it."""

    def __init__(self, engine: Engine, slots: Sequence[Slot]) -> None:
        self.engine = engine
        self.slots = tuple(slots)

    def drop(self, places: Collection[Place]) -> None:
        """Leave some of the slots alone from now on, and forget what they followed."""
        self.engine.table, self.slots = _less(self.engine.table, self.slots, places)

    def become(self, other: Self) -> None:
        """Be these slots, at the present step."""
        other.engine.go(self.engine.where)
        self.engine, self.slots = other.engine, other.slots

    @property
    def columns(self) -> Mapping[str, int]:
        """For each name which of the engine's values is its."""
        return self.engine.table.live_column

    def at(self, name: str, position: int) -> float:
        """The value of a slot or free name at a position, before it is rounded."""
        return self.engine.table.value(name, position)

    def accept(self, slots: Sequence[Slot]) -> None:
        """Look at the slots as they would be with other schedules; any will do here."""


class FloatSlots(_Tabulated[FloatEngine]):
    """Float slots, and the engine that has their values as Python floats."""

    tensor: Literal[False] = False

    def bind(self, groups: Groups) -> Mover:
        """Put the present values into the optimizer's groups; what moves them from now on."""
        column = self.engine.table.live_column
        columns = {slot.place: column[slot.name] for slot in self.slots}
        return float_mover(groups, columns, self.engine)

    def value(self, slot: Slot) -> torch.Tensor | float:
        """The value that a slot must hold now."""
        return self.engine.row()[self.engine.table.live_column[slot.name]]


class TensorSlots(_Tabulated[ScheduleEngine]):
    """Tensor slots, and the engine whose live values they are views of. Free names have such views and no place."""

    tensor: Literal[True] = True

    def bind(self, groups: Groups) -> Mover:
        """Put the views into the optimizer's groups; what moves them from now on."""
        views = {slot.place: self.value(slot) for slot in self.slots}
        return tensor_mover(groups, views, self.engine)

    def value(self, slot: Slot) -> torch.Tensor:
        """The view that a slot must hold."""
        return self.engine.value(slot.name)


class _Reactive(Generic[Reacting]):
    """Slots whose values depend on live inputs too, and the engine that computes them."""

    def __init__(self, engine: Reacting, slots: Sequence[Slot], inputs: Inputs) -> None:
        self.engine = engine
        self.slots = tuple(slots)
        self.inputs = inputs
        self.refresh: Callable[[Groups], None] = lambda _: None

    @property
    def columns(self) -> Mapping[str, int]:
        """For each name which of the engine's values is its."""
        return self.engine.column_of

    def at(self, name: str, position: int) -> float:
        """The value of a slot or free name at a position, with the inputs as they are. Synchronises on a device."""
        return value_now(self.engine.schedules[name], position, self.inputs.values())

    def drop(self, places: Collection[Place]) -> None:
        """Leave some of the slots alone from now on."""
        self.slots = tuple(slot for slot in self.slots if slot.place not in places)


class ReactiveFloatSlots(_Reactive[ReactiveFloatEngine]):
    """Float slots whose values depend on live inputs too."""

    tensor = False

    def bind(self, groups: Groups) -> Mover:
        """Put the present values into the optimizer's groups; what moves them from now on."""
        columns = {slot.place: self.engine.column_of[slot.name] for slot in self.slots}
        refuse = refuser(zip(self.slots, columns.values(), strict=True))
        mover, self.refresh = reactive_float_mover(groups, columns, self.engine, self.inputs, refuse)
        return mover

    def value(self, slot: Slot) -> float:
        """The value that a slot must hold now."""
        return self.engine.row()[self.engine.column_of[slot.name]]

    def rewritten(self, schedules: Mapping[str, Schedule]) -> Callable[[], None]:
        """See `rewritten`. Other inputs join those that there are."""
        moved = with_schedules(self.slots, schedules)
        nodes = inputs_of([slot.schedule for slot in moved])
        self.inputs.check(nodes)
        # With inputs of its own first: if anything is wrong with them, nothing has changed.
        reactive_float_slots(moved, Inputs(self.inputs.nodes | nodes, self.inputs.device), None)

        def exchange() -> None:
            self.inputs.extend(nodes)
            other = reactive_float_slots(moved, self.inputs, None).engine
            other.seek(self.engine.step_count)
            self.engine, self.slots = other, moved

        return exchange


class ReactiveTensorSlots(_Reactive[ReactiveEngine]):
    """Tensor slots, and free names, whose values depend on live inputs too."""

    tensor = True

    def bind(self, groups: Groups) -> Mover:
        """Put the views into the optimizer's groups; what moves them from now on."""
        views = {slot.place: self.value(slot) for slot in self.slots}
        columns = [self.engine.column_of[slot.name] for slot in self.slots]
        mover, refresh = reactive_tensor_mover(groups, views, self.engine)
        refuse = refuser(zip(self.slots, columns, strict=True))

        def checked(groups: Groups) -> None:
            if self.inputs.device.type == "cpu":  # elsewhere it would have to wait
                refuse(self.engine.current().tolist())
            refresh(groups)

        self.refresh = checked
        return mover

    def value(self, slot: Slot) -> torch.Tensor:
        """The view that a slot must hold."""
        return self.engine.value(slot.name)

    def rewritten(self, schedules: Mapping[str, Schedule]) -> Callable[[], None]:
        """See `rewritten`."""
        moved = with_schedules(self.slots, schedules)
        _refuse_at_start([slot for slot in moved if slot.name in schedules], self.engine.table.rows)
        replace = self.engine.replacement(schedules)

        def commit() -> None:
            replace()
            self.slots = moved

        return commit


Slots = FloatSlots | TensorSlots | ReactiveFloatSlots | ReactiveTensorSlots


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
    columns = dict(free) | {slot.name: slot.schedule for slot in slots} | factors(slots)
    if clock is not None:
        # In graphs it stands alone, whatever is beside it, and so without room.
        on_clock = tabulate_on_clock(columns, clock, device=device, capacity=capacity)
        refuse_out_of_range(slots, on_clock)
        return TensorSlots(ClockEngine.of(on_clock), slots)
    table = tabulate(columns, device=device, capacity=capacity)
    refuse_out_of_range(slots, table)
    return TensorSlots(ScheduleEngine(table, room=room), slots)


def factors(slots: Sequence[Slot]) -> dict[str, Schedule]:
    """The columns 1 - lr * weight_decay of the slots that decay, each product and difference rounded as in Python."""
    lr = {slot.place.group: slot.schedule for slot in slots if slot.place.part == "lr"}
    return {slot.factor: 1.0 - lr[slot.place.group] * slot.schedule for slot in slots if slot.decays}


def reactive_float_slots(slots: Sequence[Slot], inputs: Inputs, capacity: int | None) -> ReactiveFloatSlots:
    """As `float_slots`, of slots with live inputs, which are on the CPU."""
    columns = {slot.name: slot.schedule for slot in slots}
    engine = ReactiveFloatEngine(columns, inputs, capacity)
    _refuse_at_start(slots, engine.table.rows)
    return ReactiveFloatSlots(engine, slots, inputs)


def reactive_tensor_slots(
    slots: Sequence[Slot], free: Mapping[str, Schedule], inputs: Inputs, capacity: int | None
) -> ReactiveTensorSlots:
    """As `tensor_slots`, of slots and free names with live inputs, which are on the device."""
    columns = dict(free) | {slot.name: slot.schedule for slot in slots}
    engine = ReactiveEngine(columns, inputs, capacity)
    _refuse_at_start(slots, engine.table.rows)
    return ReactiveTensorSlots(engine, slots, inputs)


def _refuse_at_start(slots: Sequence[Slot], rows: int) -> None:
    """Check what slots with live inputs would hold if nobody turned one; `refuse_now` looks when somebody does."""
    for schedule, slot in {slot.schedule: slot for slot in slots if slot.limits is not None}.items():
        refuse_values(slot, schedule, evaluate(schedule, 0, rows))


def _less(table: Any, slots: Sequence[Slot], places: Collection[Place]) -> tuple[Any, tuple[Slot, ...]]:
    """A table without the names of some slots, whose columns stay, and the other slots."""
    gone = {name for slot in slots if slot.place in places for name in (slot.name, slot.factor)}
    schedules = {name: s for name, s in table.schedules.items() if name not in gone}
    columns = {name: at for name, at in table.live_column.items() if name not in gone}
    return table.renamed(schedules, columns), tuple(slot for slot in slots if slot.place not in places)


def with_schedules(slots: Sequence[Slot], schedules: Mapping[str, Schedule]) -> tuple[Slot, ...]:
    """The slots, with other schedules where there are some for their columns."""
    return tuple(dataclasses.replace(s, schedule=schedules.get(s.name, s.schedule)) for s in slots)


def rewritten(slots: Slots, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:
    """Check that other schedules, by column, can be followed at the same step; the function returned does it.

    Floats get another table. Tensors stay the objects that they are: what they follow has to fit into the table that
    there is, or with `grow` into a longer one with the same columns. Only slots that shared a column, and a tensor with
    it, and part now, get new ones, unless a free name has one of them: somebody holds that.

    Raises:
        BindingError: a value is out of its slot's range, or filled slots that have one tensor would follow different
            ones.
        ScheduleError: a schedule cannot be tabulated; of tensors, they need more rows than the table has, or names that
            share a column would differ.
    """
    if isinstance(slots, (ReactiveFloatSlots, ReactiveTensorSlots)):
        return slots.rewritten(schedules)
    if changed := [name for name, schedule in schedules.items() if schedule.inputs()]:
        raise ScheduleError(
            f"{changed[0]!r} is a tensor that depends on the step alone, perhaps in a graph, and cannot come to follow "
            "a live input: detach() and attach() again"
        )
    moved = with_schedules(slots.slots, schedules)
    slots.accept(moved)
    table = slots.engine.table
    if isinstance(slots, FloatSlots):
        floats = float_slots(moved, _room(moved, table.last), table.clock)
        return lambda: slots.become(floats)
    present, at = table.schedules, {slot.name: slot for slot in moved}
    also = {name: factor for name, factor in factors(moved).items() if factor != present[name]}

    def look(name: str, values: Array, positions: Array | None = None, unit: str = "step") -> None:
        if name in at:  # neither a free name nor a factor
            refuse_values(at[name], schedules[name], values, positions, unit)

    engine = slots.engine
    if isinstance(engine, ClockEngine):
        replace: Callable[[], Any] = replacement_on_clock(engine.table, {**schedules, **also}, look)
    else:
        grow = grow and not engine.driver.captured
        try:
            replace = replacement(engine.table, {**schedules, **also}, look, grow=grow)
        except SharedColumnError:
            if (
                not grow
                or type(slots) is not TensorSlots
                or table.schedules.keys() - at.keys() - factors(moved).keys()
            ):
                raise  # a graph, or the tensor of a filled slot, or of a free name
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
    """Whether both are the same but for float32: what is read from a tensor has one rounding, what was written too."""
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

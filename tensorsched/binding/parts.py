"""Parts of a mode: slots that follow the step alone, and the engine whose table has their values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, Literal, Self, TypeVar

import torch

from tensorsched.binding.movers import Groups, Mover, float_mover, tensor_mover
from tensorsched.binding.ranges import refuse_out_of_range, refuse_values
from tensorsched.binding.slots import Slot, factors, with_schedules
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
from tensorsched.engine.reactive_plan import OtherProgramError
from tensorsched.engine.tabulate import SharedColumnError, replacement, row_count
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule

__all__ = ["FloatSlots", "TensorSlots", "float_slots", "tensor_engine", "tensor_slots"]

Engine = TypeVar("Engine", bound="FloatEngine | ScheduleEngine")


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

    def _moved(self, schedules: Mapping[str, Schedule]) -> tuple[Slot, ...]:
        """The slots, as they would be with these schedules.

        Raises:
            BindingError: filled slots that have one tensor would follow different ones.
            OtherProgramError: one depends on live inputs.
        """
        if live := [name for name, schedule in schedules.items() if schedule.inputs()]:
            raise OtherProgramError(
                f"{live[0]!r} is a tensor that depends on the step alone, perhaps in a graph, and cannot come to "
                "follow a live input: detach() and attach() again"
            )
        moved = with_schedules(self.slots, schedules)
        self.accept(moved)
        return moved


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

    def rewritten(self, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:  # noqa: ARG002
        """Check that other schedules, by column, can be followed at the same step; the function returned does it.

        Floats get another table.

        Raises:
            BindingError: a value is out of its slot's range, or as `_moved`.
            ScheduleError: a schedule cannot be tabulated, or as `_moved`.
        """
        moved, table = self._moved(schedules), self.engine.table
        floats = float_slots(moved, _room(moved, table.last), table.clock)
        return lambda: self.become(floats)


class TensorSlots(_Tabulated[ScheduleEngine]):
    """Tensor slots, and the engine whose live values they are views of. Free names have such views and no place."""

    tensor: Literal[True] = True
    may_part = True  # slots that shared a tensor may get one each

    def bind(self, groups: Groups) -> Mover:
        """Put the views into the optimizer's groups; what moves them from now on."""
        views = {slot.place: self.value(slot) for slot in self.slots}
        return tensor_mover(groups, views, self.engine)

    def value(self, slot: Slot) -> torch.Tensor:
        """The view that a slot must hold."""
        return self.engine.value(slot.name)

    def rewritten(self, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:
        """Check that other schedules, by column, can be followed at the same step; the function returned does it.

        Tensors stay the objects that they are: what they follow has to fit into the table that there is, or with `grow`
        into a longer one with the same columns. Only slots that shared a column, and a tensor with it, and part now,
        get new ones, unless a free name has one of them: somebody holds that.

        Raises:
            BindingError: a value is out of its slot's range, or as `_moved`.
            ScheduleError: a schedule cannot be tabulated, they need more rows than the table has, names that share a
                column would differ, or as `_moved`.
        """
        moved, engine, table = self._moved(schedules), self.engine, self.engine.table
        at, columns = {slot.name: slot for slot in moved}, factors(moved)
        wanted = {**schedules, **{n: factor for n, factor in columns.items() if factor != table.schedules[n]}}

        def look(name: str, values: Array, positions: Array | None = None, unit: str = "step") -> None:
            if name in at:  # neither a free name nor a factor
                refuse_values(at[name], schedules[name], values, positions, unit)

        if isinstance(engine, ClockEngine):
            replace: Callable[[], Any] = replacement_on_clock(engine.table, wanted, look)
        else:
            grow = grow and not engine.driver.captured
            try:
                replace = replacement(engine.table, wanted, look, grow=grow)
            except SharedColumnError:
                free = table.schedules.keys() - at.keys() - columns.keys()
                if not grow or free or not self.may_part:
                    raise
                tensors = tensor_slots(moved, {}, table.device, _room(moved, table.last), room=engine.room)
                return lambda: self.become(tensors)

        def commit() -> None:
            engine.reload(replace())
            self.slots = moved

        return commit


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
    return TensorSlots(tensor_engine(columns, slots, device, capacity, room=room, clock=clock), slots)


def tensor_engine(
    columns: Mapping[str, Schedule],
    slots: Sequence[Slot],
    device: torch.device,
    capacity: int | None,
    *,
    dtype: torch.dtype = torch.float32,
    room: int = 0,
    clock: Clock | None = None,
) -> ScheduleEngine:
    """The engine of these columns on a device; errors as of `float_slots`."""
    if clock is not None:
        # In graphs it stands alone, whatever is beside it, and so without room.
        on_clock = tabulate_on_clock(columns, clock, device=device, dtype=dtype, capacity=capacity)
        refuse_out_of_range(slots, on_clock)
        return ClockEngine.of(on_clock)
    table = tabulate(columns, device=device, dtype=dtype, capacity=capacity)
    refuse_out_of_range(slots, table)
    return ScheduleEngine(table, room=room)


def _less(table: Any, slots: Sequence[Slot], places: Collection[Place]) -> tuple[Any, tuple[Slot, ...]]:
    """A table without the names of some slots, whose columns stay, and the other slots."""
    gone = {name for slot in slots if slot.place in places for name in (slot.name, slot.factor)}
    schedules = {name: s for name, s in table.schedules.items() if name not in gone}
    columns = {name: at for name, at in table.live_column.items() if name not in gone}
    return table.renamed(schedules, columns), tuple(slot for slot in slots if slot.place not in places)


def _room(slots: Sequence[Slot], last: int) -> int:
    """The last step, or position, at which one of these changes, or could have."""
    return max(row_count({slot.name: slot.schedule for slot in slots}, None) - 1, last)

"""Parts of a mode whose values depend on live inputs too: slots, and the engine that computes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

import torch

from tensorsched.binding.movers import Groups, Mover, reactive_float_mover, reactive_tensor_mover
from tensorsched.binding.parts import FloatSlots, TensorSlots
from tensorsched.binding.ranges import refuse_values, refuser
from tensorsched.binding.slots import Slot, with_schedules
from tensorsched.engine import Inputs, ReactiveEngine, ReactiveFloatEngine
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import evaluate
from tensorsched.schedules.split import inputs_of, value_now

__all__ = [
    "Part",
    "ReactiveFloatSlots",
    "ReactiveTensorSlots",
    "reactive_float_slots",
    "reactive_tensor_slots",
]

Reacting = TypeVar("Reacting", bound="ReactiveFloatEngine | ReactiveEngine")


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

    def rewritten(self, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:  # noqa: ARG002
        """As of any part. Other inputs join those that there are."""
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

    def rewritten(self, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:  # noqa: ARG002
        """As of any part; the table keeps its length."""
        moved = with_schedules(self.slots, schedules)
        _refuse_at_start([slot for slot in moved if slot.name in schedules], self.engine.table.rows)
        replace = self.engine.replacement(schedules)

        def commit() -> None:
            replace()
            self.slots = moved

        return commit


Part = FloatSlots | TensorSlots | ReactiveFloatSlots | ReactiveTensorSlots
"""Whatever a mode has slots in."""


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
    """Check what slots with live inputs would hold if nobody turned one; `refuser` looks when somebody does."""
    for schedule, slot in {slot.schedule: slot for slot in slots if slot.limits is not None}.items():
        refuse_values(slot, schedule, evaluate(schedule, 0, rows))

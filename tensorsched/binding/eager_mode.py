"""Eager mode: the optimizer's own step runs, between its hooks; how it is built from slots, and rebuilt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.clocked import Tally
from tensorsched.binding.decay import decay_of
from tensorsched.binding.filled import filled_slots
from tensorsched.binding.modes import Driving, Mode, Standing, commits
from tensorsched.binding.movers import NEVER, Groups, Mover
from tensorsched.binding.parts import FloatSlots, TensorSlots, float_slots, tensor_slots
from tensorsched.binding.reactive_parts import (
    Part,
    ReactiveFloatSlots,
    ReactiveTensorSlots,
    reactive_float_slots,
    reactive_tensor_slots,
)
from tensorsched.binding.slots import Slot, with_schedules
from tensorsched.engine import Clock, Inputs
from tensorsched.engine.reactive_plan import OtherProgramError
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule
from tensorsched.schedules.split import inputs_of

__all__ = ["EagerMode", "eager_mode"]


class EagerMode(Mode):
    """The optimizer's own step runs, between its hooks."""

    def bind(self, optimizer: Any, groups: Groups) -> None:
        """Put every slot's value into `groups`, whatever they hold."""
        super().bind(optimizer, groups)
        self.decays = decay_of(self.parts)

    def fast(self, sched: Standing) -> Mover:
        """The mover itself, unless compiled steps want their values back after each step, or parameters decay."""
        if self.decays:
            return NEVER
        check = NEVER.check if sched._doubt or sched._unseen else self.check
        if sched._face is not None:
            mover: Mover = sched._face.mover(check)
            return mover
        return Mover(check, self.advance if sched._graph is None else NEVER.advance)

    def before_step(self, sched: Driving) -> None:
        """A slot does not hold what was put there: raises, or the value is the same; or there is something to say.

        An input that was turned is put into effect here.
        """
        self.before_closure(sched)
        if sched.attached:
            sched._mode.decay(sched.optimizer)  # of the groups that were adopted just now, too

    def before_closure(self, sched: Driving) -> None:
        """The same, without a decay."""
        sched._say()
        self.require_counted()
        groups = sched.optimizer.param_groups
        for decay in self.decays:  # a step that raised has left its 0
            decay.put_back(groups)
        if sched._face is not None:
            sched._face.before(groups)
            if not sched.attached:
                return
            groups = sched._whole(groups)
        self.refresh(groups)
        if not self.check(groups):
            sched._settle()

    def after_step(self, sched: Driving, found_inf: torch.Tensor | None) -> None:
        """Move on; the hooks have tried and failed, or have left it to us."""
        for decay in self.decays:
            decay.put_back(sched.optimizer.param_groups)
        if self.decays and sched._face is not None:
            sched._face.mover(self.check).advance(sched.optimizer.param_groups, found_inf)
            return
        self.move(sched, found_inf)
        if sched._graph is not None:
            sched._graph.resume(sched)  # compiled steps look for the values there

    def without(self, places: Collection[Place], free: Collection[str]) -> EagerMode:
        """This mode and fewer slots, at the same step; the tensors of the others, and of free names, stay."""
        for part in self.parts:
            part.drop(places)
        other = copy.copy(self)
        parts = [part for part in self.parts if part.slots or any(name in part.columns for name in free)]
        other._hold(parts, self.tally)
        return other

    def rewrite(self, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:
        """As any mode's; slots may begin to follow live inputs, or cease to, or follow them by other operations.

        Tensor slots get other tensors then, unless a captured graph or the holder of a free name has the present ones.
        """
        floats = [
            part for part in self.parts if type(part) in {FloatSlots, ReactiveFloatSlots}
        ]  # no filled ones
        kinds = [
            bool(s.schedule.inputs()) != bool(schedules[s.name].inputs())
            for part in floats
            for s in part.slots
            if s.name in schedules
        ]
        if not any(kinds):
            try:
                return super().rewrite(schedules, grow=grow)
            except OtherProgramError:
                if not grow:
                    raise
        if self.tally is not None:
            raise _on_a_clock()
        moving = floats + [part for part in self.parts if grow and _may_move(part, schedules)]
        return self._regrouped(moving, schedules, grow=grow)

    def _regrouped(
        self, moving: Sequence[Part], schedules: Mapping[str, Schedule], *, grow: bool
    ) -> Callable[[], None]:
        """As `rewrite`, with new parts for the slots of these."""
        others = [part for part in self.parts if part not in moving]
        puts = commits(others, schedules, grow=grow)
        moved = with_schedules([slot for part in moving for slot in part.slots], schedules)
        nodes = inputs_of([slot.schedule for slot in moved])
        tensors = [part.engine.table.device for part in moving if part.tensor]
        device = tensors[0] if tensors else torch.device("cpu")
        home = device if all(slot.tensor for slot in moved if slot.schedule.inputs()) else torch.device("cpu")
        inputs = self.home or Inputs({}, home)
        if inputs.device.type != "cpu" and inputs.device != home:
            raise ScheduleError(
                "live inputs on a device cannot be followed by float slots without a synchronisation at every step: "
                "detach() and attach() again"
            )
        inputs.check(nodes)
        trial = Inputs(inputs.nodes | nodes, inputs.device)
        try:
            capacity: int | None = self.room
            eager_mode(moved, {}, device, capacity, inputs=trial)  # whatever is wrong with them
        except ScheduleError:
            capacity = None  # they reach further than what there was
            eager_mode(moved, {}, device, capacity, inputs=trial)

        def commit() -> None:
            where = self.where
            inputs.extend(nodes)
            for each in puts:
                each()
            self._hold([*others, *eager_mode(moved, {}, device, capacity, inputs=inputs).parts], None)
            self.go(where)

        return commit

    def extended(self, slots: Sequence[Slot], device: torch.device, capacity: int | None) -> EagerMode:
        """This mode and more slots, at the same step; the tensors of this one stay what they are."""
        if not slots:
            return self
        clock = None if self.tally is None else self.tally.clock
        more = eager_mode(slots, {}, device, capacity, clock, inputs=self.inputs)
        more.go(self.where)
        return EagerMode([*self.parts, *more.parts], self.tally)


def eager_mode(
    slots: Sequence[Slot],
    free: Mapping[str, Schedule],
    device: torch.device,
    capacity: int | None,
    clock: Clock | None = None,
    *,
    inputs: Inputs | None = None,
) -> EagerMode:
    """Tables and engines for these slots and free names; nothing of the optimizer changes.

    Raises:
        ScheduleError: a schedule cannot be tabulated, or does not fit into the capacity; two inputs have one name.
        BindingError: floats and tensors on a device would have to react together, or on a clock.
    """
    tensors = [slot for slot in slots if slot.tensor and not slot.schedule.inputs()]
    filled = [slot for slot in slots if slot.filled]
    floats = [slot for slot in slots if not (slot.tensor or slot.filled) and not slot.schedule.inputs()]
    plain = {name: schedule for name, schedule in free.items() if not schedule.inputs()}
    parts: list[Part] = []
    if tensors or plain:
        # A graph has the float slots beside them, in one row: one engine moves all of it.
        parts.append(tensor_slots(tensors, plain, device, capacity, room=len(floats), clock=clock))
    if floats:
        parts.append(float_slots(floats, capacity, clock))
    parts += filled_slots(filled, capacity, clock)
    reactive = [slot for slot in slots if slot.schedule.inputs()]
    reacting = {name: schedule for name, schedule in free.items() if schedule.inputs()}
    if reactive or reacting:
        if clock is not None:
            raise _on_a_clock()
        parts += _reactive_parts(reactive, reacting, device, capacity, inputs)
    return EagerMode(parts, None if clock is None else Tally(clock))


def _on_a_clock() -> BindingError:
    return BindingError(
        "live inputs and a clock other than the optimizer's steps do not go together: attach what depends on the run "
        "in a call of its own without clock=, or leave the inputs out"
    )


def _reactive_parts(
    slots: Sequence[Slot],
    free: Mapping[str, Schedule],
    device: torch.device,
    capacity: int | None,
    inputs: Inputs | None,
) -> list[Part]:
    """Those with live inputs. Floats want these on the CPU, tensors on their own device: there is one home."""
    floats = [slot for slot in slots if not slot.tensor]
    tensors = [slot for slot in slots if slot.tensor]
    home = torch.device("cpu") if floats else device
    if ((tensors or free) and home != device) or (inputs is not None and inputs.device != home):
        what = floats[0].name if floats else (tensors[0].name if tensors else next(iter(free)))
        raise BindingError(
            f"{what}: of what depends on live inputs some are float slots ({floats[0].why if floats else 'before'}), "
            f"which read their inputs on the host, and some are tensors on {device}, which cannot wait for them; pass "
            "resident=True where every slot may be a tensor, resident=False for floats, or attach them in two calls "
            "with inputs of other names"
        )
    nodes = inputs_of([*(slot.schedule for slot in slots), *free.values()])
    if inputs is None:
        inputs = Inputs(nodes, home)
    inputs.extend(nodes)
    parts: list[Part] = []
    if tensors or free:
        parts.append(reactive_tensor_slots(tensors, free, inputs, capacity))
    if floats:
        parts.append(reactive_float_slots(floats, inputs, capacity))
    return parts


def _may_move(part: Part, schedules: Mapping[str, Schedule]) -> bool:
    """Whether the slots of a part of tensors may have others, and some of them have to."""
    if not isinstance(part, (TensorSlots, ReactiveTensorSlots)) or part.engine.driver.captured:
        return False
    mine = {slot.name for slot in part.slots}
    if mine != part.columns.keys() or any(slot.decays or slot.filled for slot in part.slots):
        return False  # somebody may hold the tensor of a free name, or that was there; a decay reads its group's lr
    wanted = {name: s for name, s in schedules.items() if name in mine}
    if not wanted:
        return False
    try:
        part.rewritten(wanted, grow=True)
    except OtherProgramError:
        return True
    return False

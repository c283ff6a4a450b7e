"""Mode: where an attachment's values live while steps run, and what it does at each event of the optimizer.

An attachment is in one mode. It begins, and most stay, in an `EagerMode`. `compile_step` hands in another
(tensorsched/compiled/graph_mode.py), whose slots are all tensor slots. Modes of one attachment share the engines of the
slots that are tensors anyway, and of the free names: whoever holds one of their tensors (a loss, say) goes on holding a
live one, whichever mode is in use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import torch

from tensorsched.binding.capture import refuse_frozen_capture
from tensorsched.binding.carried import Carrier
from tensorsched.binding.clocked import Tally, watched
from tensorsched.binding.decay import Decay, decay_of
from tensorsched.binding.filled import filled_slots
from tensorsched.binding.history import History
from tensorsched.binding.movers import NEVER, Groups, Mover, joined
from tensorsched.binding.slots import (
    FloatSlots,
    ReactiveFloatSlots,
    ReactiveTensorSlots,
    Slot,
    Slots,
    TensorSlots,
    float_slots,
    reactive_float_slots,
    reactive_tensor_slots,
    rewritten,
    tensor_slots,
    with_schedules,
)
from tensorsched.engine import (
    Clock,
    ClockEngine,
    ClockFloatEngine,
    Inputs,
    ReactiveEngine,
    ScheduleEngine,
    Where,
)
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule
from tensorsched.schedules.split import inputs_of

__all__ = ["Driving", "EagerMode", "HandedMode", "Mode", "eager_mode"]


class Driving(Protocol):
    """What modes, hooks and the registry ask of an attachment, which stands above them."""

    free: dict[str, Schedule]
    _mode: Mode
    _eager: EagerMode
    _graph: HandedMode | None
    _options: Any  # what the user chose at attach: `placement.Options`, a module above this one
    _places: list[Place]
    _group_count: int
    _began_before: set[Place]
    _found_inf: torch.Tensor | None
    _carrier: Carrier
    _history: History
    _stepped: bool
    _known_as: int | None
    _doubt: str
    _told: int
    _read_from: tuple[str, Where] | None
    attached: bool
    _face: Any  # of a trainer: the schedule moves when that is stepped
    _unseen: bool  # whether no step has been made yet: who makes it is looked at once

    @property
    def step_count(self) -> int:
        """Completed steps."""

    @property
    def position(self) -> int:
        """Where the schedules are read."""

    def seek(self, step: int) -> None:
        """Go to a step."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def load_state_dict(self, state: Mapping[str, Any], *, on_mismatch: str = ...) -> None:
        """Go on from it."""

    def _advance(self, found_inf: torch.Tensor | None) -> None: ...
    def _now(self, key: str, step: int) -> list[float]: ...

    @property
    def optimizer(self) -> Any:
        """What it drives."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The places that it has schedules for."""

    def _drives(self, optimizer: object) -> bool: ...

    def detach(self) -> None:
        """Give the optimizer back."""

    def _bind(self) -> None: ...
    def _made(self) -> int | torch.Tensor: ...
    def _require_attached(self) -> None: ...
    def _refuse_other_groups(self, groups: Sequence[dict[str, Any]]) -> None: ...
    def _originals(self) -> dict[Place, Any]: ...
    def _fingerprint(self) -> int: ...
    def _words(self, where: Where) -> str: ...
    def _state(self, where: Where) -> dict[str, Any]: ...
    def _take_in_new_groups(self) -> None: ...
    def _settle(self) -> None: ...
    def _whole(self, groups: Groups) -> Groups: ...
    def _left_to_swalr(self) -> bool: ...
    def _next(self) -> Where: ...
    def _say(self) -> None: ...
    def _resynchronise(self) -> None: ...
    def _saved(self, groups: Sequence[dict[str, Any]]) -> None: ...
    def _loaded(self) -> None: ...
    def _use_eager(self, *, for_good: bool = False) -> None: ...
    def _make_graphs_stale(self) -> None: ...
    def _numbered(self) -> list[str]: ...
    def _schedules(self) -> dict[str, Schedule]: ...


class Mode:
    """Slots and the engines that feed them, which all count the same steps; and what happens at a step.

    Attributes:
        parts: the slots, by engine.
        in_graph: whether the groups hold what compiled steps read.
        decays: the weight decays that are multiplied by before an eager step; most attachments have none.
        tally: whether something was counted for the step that comes; None where steps are counted.
    """

    in_graph = False
    decays: Sequence[Decay] = ()
    check: Callable[[Groups], bool]
    advance: Callable[[Groups, torch.Tensor | None], bool | None]

    def __init__(self, parts: Sequence[Slots], tally: Tally | None = None) -> None:
        self._hold(parts, tally)

    def _hold(self, parts: Sequence[Slots], tally: Tally | None) -> None:
        self.parts = tuple(parts)
        self.tally = tally
        self.floats = any(not part.tensor for part in self.parts)
        self.reactive = [p for p in self.parts if isinstance(p, (ReactiveFloatSlots, ReactiveTensorSlots))]
        # All read the same ones: there is one home of them on a device.
        self.inputs: Inputs | None = self.reactive[0].inputs if self.reactive else None
        self._part_of = {slot.place: part for part in self.parts for slot in part.slots}
        # A float engine's count is there without a synchronisation.
        self._counter = min(self.parts, key=lambda part: part.tensor)

    @property
    def slot_at(self) -> dict[Place, Slot]:
        """Every slot by its place."""
        return {slot.place: slot for part in self.parts for slot in part.slots}

    @property
    def room(self) -> int:
        """The last step at which a rewritten schedule may change."""
        return max(part.engine.table.last for part in self.parts)

    @property
    def engines(self) -> list[ScheduleEngine | ReactiveEngine]:
        """The engines with tensors."""
        return [part.engine for part in self.parts if isinstance(part, (TensorSlots, ReactiveTensorSlots))]

    @property
    def step_count(self) -> int:
        """Completed steps. Synchronises where all slots are tensor slots on a device that is no CPU."""
        return self._counter.engine.step_count

    @property
    def where(self) -> Where:
        """Where the run stands. Synchronises as `step_count`."""
        return self._counter.engine.where

    @property
    def counter(self) -> int | torch.Tensor:
        """The position, without a synchronisation: a copy of the counter where only the device knows it.

        On a clock it synchronises as `step_count`.
        """
        if self.tally is not None:
            return self.where.position
        known = self.known_steps
        return self.engines[0].clock.clone() if known is None else known

    @property
    def known_steps(self) -> int | None:
        """Completed steps where the host knows them, else None."""
        engine = self._counter.engine
        if not isinstance(engine, ScheduleEngine):
            return engine.step_count
        if isinstance(engine, ClockEngine):
            return None
        return engine.known_steps if engine.driver.on_host or not self.in_graph else None

    def seek(self, step: int) -> None:
        """Set every engine to `step`, or to that position of its clock; the groups follow at the next `bind`."""
        for part in self.parts:
            part.engine.seek(step)

    def go(self, where: Where) -> None:
        """Set every engine to where a run stands; the groups follow at the next `bind`."""
        for part in self.parts:
            part.engine.go(where)

    def at(self, name: str, position: int) -> float:
        """What a slot or free name has at a position, or step, before it is rounded to the slot's type."""
        return next(part for part in self.parts if name in part.columns).at(name, position)

    @property
    def clocks(self) -> list[ClockEngine | ClockFloatEngine]:
        """The engines that are told what to count."""
        if self.tally is None:
            return []
        return [part.engine for part in self.parts]  # type: ignore[misc]  # on a clock all of them are such

    def count(self, n: int | torch.Tensor) -> None:
        """Count n units for the step that comes. Does not synchronise."""
        for engine in self.clocks:
            engine.count(n)

    def bind(self, optimizer: Any, groups: Groups) -> None:  # noqa: ARG002  graph mode sets flags of the optimizer's
        """Put every slot's value into `groups`, the optimizer's own or the first of them, whatever they hold."""
        movers = [part.bind(groups) for part in self.parts]
        mover = joined(movers, floats=self.floats)
        if self.tally is not None:
            mover = watched(mover, self.tally, self.clocks, floats=self.floats)
        self.check, self.advance = mover

    def require_counted(self) -> None:
        """Refuse a step for which nothing was counted, where something must be.

        Raises:
            BindingError: the clock would stand still.
        """
        if self.tally is not None:
            self.tally.require(self.clocks)

    def expected(self, slot: Slot) -> torch.Tensor | float:
        """What the group must hold at this slot."""
        return self._part_of[slot.place].value(slot)

    def free_value(self, name: str) -> torch.Tensor:
        """The live tensor of a free name."""
        return next(e.value(name) for e in self.engines if name in e.column_of)

    def rewrite(self, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:
        """Check that these schedules, by column, fit into the tables; the function returned puts them there.

        Args:
            schedules: by name.
            grow: whether a table of tensors may be replaced by a longer one: no compiled step has its address.

        Raises:
            ScheduleError: they need more rows than a table has, or names that share a column would differ.
        """
        commits = _commits(self.parts, schedules, grow=grow)

        def commit() -> None:
            for each in commits:
                each()

        return commit

    def refresh(self, groups: Groups) -> None:
        """Put what the live inputs are now into effect; slots that somebody wrote to are left as they are.

        Raises:
            ScheduleError: on a CPU, a value would not be finite.
        """
        for part in self.reactive:
            part.refresh(groups)

    def fast(self, sched: Driving) -> Mover:  # noqa: ARG002  of the eager mode
        """What the hooks call first at a step; where it returns False they call `before_step` or `after_step`."""
        return NEVER

    # -- events -------------------------------------------------------------------------------------------------------

    def decay(self, optimizer: Any) -> None:
        """Multiply the parameters that have a gradient, and let their groups hold no weight decay. No sync."""
        for each in self.decays:
            each.apply(optimizer)

    def before_closure(self, sched: Driving) -> None:
        """As `before_step`, but the decay comes after a closure."""
        self.before_step(sched)

    def before_step(self, sched: Driving) -> None:
        """The optimizer is about to step: whoever else wrote to a slot is found now."""
        raise NotImplementedError

    def after_step(self, sched: Driving, found_inf: torch.Tensor | None) -> None:
        """It has stepped, unless `found_inf` is not 0."""
        raise NotImplementedError

    def before_capture(self, sched: Driving) -> None:
        """The step that comes is captured into a CUDA graph: every replay must use new values, and train everything.

        Raises:
            BindingError: a slot is a float, or a parameter has no gradient yet.
        """
        refuse_frozen_capture(sched.optimizer, self.slot_at.values())
        # Into the graph: each replay begins with what the inputs are then.
        self.refresh(sched.optimizer.param_groups)
        for engine in self.engines:
            engine.driver.captured = True

    def saved(self, groups: Sequence[dict[str, Any]]) -> None:
        """The groups of a state_dict, in which the values are plain already: what else must not be in them."""

    def saved_state(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        """A state_dict whose groups are as they are saved: its state must be where the optimizer's own would be."""

    def hide(self, optimizer: Any, *, hidden: bool) -> None:
        """For the dummy step by which torch.distributed.checkpoint makes state: what it must not see."""


class HandedMode(Mode):
    """What an attachment asks of the mode that `compile_step` hands in."""

    @property
    def in_use(self) -> bool:
        """Whether there is a compiled step."""
        raise NotImplementedError

    @property
    def flags(self) -> list[dict[str, Any]]:
        """What the mode has replaced in each group, to be put back in a copy."""
        raise NotImplementedError

    def leave(self, optimizer: Any, *, for_good: bool) -> Where | None:
        """Another mode takes over: undo what this one needs in the groups; where it stands, if it had to be read."""
        raise NotImplementedError

    def resume(self, sched: Any) -> None:
        """An eager step has been made in between: take over again, if there is still a use."""
        raise NotImplementedError

    def make_stale(self) -> None:
        """What compiled steps know of the optimizer is no longer so."""
        raise NotImplementedError

    def check_rewrite(self, schedules: Mapping[Place, Schedule]) -> None:
        """Refuse schedules that compiled steps cannot follow."""
        raise NotImplementedError


class EagerMode(Mode):
    """The optimizer's own step runs, between its hooks."""

    def bind(self, optimizer: Any, groups: Groups) -> None:
        """Put every slot's value into `groups`, whatever they hold."""
        super().bind(optimizer, groups)
        self.decays = decay_of(self.parts)

    def fast(self, sched: Driving) -> Mover:
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
        if self.advance(sched.optimizer.param_groups, found_inf) is False:
            sched._settle()
            self.advance(sched.optimizer.param_groups, found_inf)
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
        """As any mode's; float slots may begin to follow live inputs, or cease to."""
        plain = {FloatSlots, ReactiveFloatSlots}  # not what fills the optimizer's own tensors
        floats = [part for part in self.parts if type(part) in plain]
        slots = [slot for part in floats for slot in part.slots]
        if not any(
            s.name in schedules and bool(s.schedule.inputs()) != bool(schedules[s.name].inputs())
            for s in slots
        ):
            return super().rewrite(schedules, grow=grow)
        if self.tally is not None:
            raise _on_a_clock()
        others = [part for part in self.parts if part not in floats]
        commits = _commits(others, schedules, grow=grow)
        moved = with_schedules(slots, schedules)
        nodes = inputs_of([slot.schedule for slot in moved])
        inputs = self.inputs or Inputs({}, torch.device("cpu"))
        if inputs.device.type != "cpu":
            raise ScheduleError(
                "live inputs on a device cannot be followed by float slots without a synchronisation at every step: "
                "detach() and attach() again"
            )
        inputs.check(nodes)
        _float_parts(moved, Inputs(inputs.nodes | nodes, inputs.device), None)  # whatever is wrong with them

        def commit() -> None:
            where = self.where
            inputs.extend(nodes)
            for each in commits:
                each()
            self._hold([*others, *_float_parts(moved, inputs, None)], None)
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
    parts: list[Slots] = []
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


def _commits(
    parts: Sequence[Slots], schedules: Mapping[str, Schedule], *, grow: bool
) -> list[Callable[[], None]]:
    """What puts other schedules into each part that has some of them."""
    return [
        rewritten(part, mine, grow=grow)
        for part in parts
        if (mine := {name: schedule for name, schedule in schedules.items() if name in part.columns})
    ]


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
) -> list[Slots]:
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
    parts: list[Slots] = []
    if tensors or free:
        parts.append(reactive_tensor_slots(tensors, free, inputs, capacity))
    if floats:
        parts.append(reactive_float_slots(floats, inputs, capacity))
    return parts


def _float_parts(slots: Sequence[Slot], inputs: Inputs, capacity: int | None) -> list[Slots]:
    plain = [slot for slot in slots if not slot.schedule.inputs()]
    reactive = [slot for slot in slots if slot.schedule.inputs()]
    parts: list[Slots] = [float_slots(plain, capacity)] if plain else []
    return [*parts, reactive_float_slots(reactive, inputs, capacity)] if reactive else parts

"""Mode: where an attachment's values live while steps run, and what it does at each event of the optimizer.

An attachment is in one mode. It begins, and most stay, in an `EagerMode`. `compile_step` hands in another
(tensorsched/compiled/graph_mode.py), whose slots are all tensor slots. Modes of one attachment share the engines of the
slots that are tensors anyway, and of the free names: whoever holds one of their tensors (a loss, say) goes on holding a
live one, whichever mode is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from tensorsched.binding.capture import refuse_frozen_capture
from tensorsched.binding.clocked import Tally, watched
from tensorsched.binding.decay import Decay
from tensorsched.binding.movers import NEVER, Groups, Mover, joined
from tensorsched.binding.parts import TensorSlots
from tensorsched.binding.reactive_parts import Part, ReactiveFloatSlots, ReactiveTensorSlots
from tensorsched.binding.slots import Slot
from tensorsched.engine import (
    ClockEngine,
    ClockFloatEngine,
    Inputs,
    ReactiveEngine,
    ScheduleEngine,
    Where,
)
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule

__all__ = ["Driving", "HandedMode", "Mode", "Standing", "commits"]


class Standing(Protocol):
    """What of an attachment decides how its hooks begin."""

    _graph: HandedMode | None
    _doubt: str  # what is to be said before the next step
    _unseen: bool  # whether no step has been made yet: who makes it is looked at once
    _face: Any  # of a trainer: the schedule moves when that is stepped


class Driving(Standing, Protocol):
    """What modes and hooks ask of an attachment, which stands above them (base.py, events.py, resuming.py)."""

    attached: bool
    _mode: Mode
    _found_inf: torch.Tensor | None
    _stepped: bool

    @property
    def optimizer(self) -> Any:
        """What it drives."""

    def _bind(self) -> None: ...
    def _say(self) -> None: ...
    def _settle(self) -> None: ...
    def _whole(self, groups: Groups) -> Groups: ...
    def _resynchronise(self) -> None: ...
    def _use_eager(self) -> None: ...
    def _saved(self, groups: Sequence[dict[str, Any]]) -> None: ...
    def _loaded(self) -> None: ...


class Mode:
    """Slots and the engines that feed them, which all count the same steps; and what happens at a step.

    Attributes:
        parts: the slots, by engine.
        in_graph: whether the groups hold what compiled steps read.
        decays: the weight decays that are multiplied by before an eager step; most attachments have none.
        tally: whether something was counted for the step that comes; None where steps are counted.
    """

    in_graph = False
    home: Inputs | None = None
    decays: Sequence[Decay] = ()
    check: Callable[[Groups], bool]
    advance: Callable[[Groups, torch.Tensor | None], bool | None]

    def __init__(self, parts: Sequence[Part], tally: Tally | None = None) -> None:
        self._hold(parts, tally)

    def _hold(self, parts: Sequence[Part], tally: Tally | None) -> None:
        self.parts = tuple(parts)
        self.tally = tally
        self.floats = any(not part.tensor for part in self.parts)
        self.reactive = [p for p in self.parts if isinstance(p, (ReactiveFloatSlots, ReactiveTensorSlots))]
        # All read the same ones: there is one home of them on a device.
        self.inputs: Inputs | None = self.reactive[0].inputs if self.reactive else None
        self.home = self.inputs or self.home  # handles stay good until these are in use again
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
        for part in self.parts:  # all are on a clock, or none
            part.engine.count(n)  # type: ignore[union-attr]

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

    def move(self, sched: Driving, found_inf: torch.Tensor | None) -> None:
        """Move on; where somebody wrote to a slot meanwhile, see who it was first."""
        groups = sched.optimizer.param_groups
        if self.advance(groups, found_inf) is False:
            sched._settle()
            self.advance(groups, found_inf)

    def rewrite(self, schedules: Mapping[str, Schedule], *, grow: bool) -> Callable[[], None]:
        """Check that these schedules, by column, fit into the tables; the function returned puts them there.

        Args:
            schedules: by name.
            grow: whether a table of tensors may be replaced by a longer one: no compiled step has its address.

        Raises:
            ScheduleError: they need more rows than a table has, or names that share a column would differ.
        """
        puts = commits(self.parts, schedules, grow=grow)

        def commit() -> None:
            for each in puts:
                each()

        return commit

    def refresh(self, groups: Groups) -> None:
        """Put what the live inputs are now into effect; slots that somebody wrote to are left as they are.

        Raises:
            ScheduleError: on a CPU, a value would not be finite.
        """
        for part in self.reactive:
            part.refresh(groups)

    def fast(self, sched: Standing) -> Mover:  # noqa: ARG002  of the eager mode
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

    captured: bool  # whether a CUDA graph of the user's reads its tensors

    def remake(self) -> None:
        """What compiled steps read is in other tensors from now on."""

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

    def check_rewrite(self, moved: Sequence[tuple[Slot, Schedule]]) -> None:
        """Refuse schedules that compiled steps cannot follow."""
        raise NotImplementedError


def commits(
    parts: Sequence[Part], schedules: Mapping[str, Schedule], *, grow: bool
) -> list[Callable[[], None]]:
    """What puts other schedules into each part that has some of them."""
    return [
        part.rewritten(mine, grow=grow)
        for part in parts
        if (mine := {name: schedule for name, schedule in schedules.items() if name in part.columns})
    ]

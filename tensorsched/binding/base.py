"""What an attachment is made of, and the changes of it that everything else is made of.

The methods of `Attachment` (methods/) and what its hooks and modes call (events.py, resuming.py) are functions of an
`AttachmentBase`. They stand above this module; it stands above the modes, the slots and the hooks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.bound_groups import begun, other_groups, refuse_other_groups
from tensorsched.binding.carried import Carrier, fingerprint_of
from tensorsched.binding.clocked import Tally
from tensorsched.binding.eager_mode import EagerMode, eager_mode
from tensorsched.binding.group_names import index_of_group
from tensorsched.binding.history import History
from tensorsched.binding.hooks import Hooks, has_hooks
from tensorsched.binding.kept import LastUsed
from tensorsched.binding.modes import HandedMode, Mode
from tensorsched.binding.named_inputs import by_name
from tensorsched.binding.placement import Options, live_device
from tensorsched.binding.slots import Slot, give_back, present_values
from tensorsched.binding.workers import refuse_in_worker
from tensorsched.engine import Where
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, param_groups
from tensorsched.schedules import Schedule
from tensorsched.schedules.split import bounded

__all__ = ["AttachmentBase"]


class AttachmentBase:
    """The state of an attachment, and how it passes from one to the next.

    Making one touches nothing of the optimizer, and all that can fail in making an attachment fails here.

    Args:
        optimizer: whose hyperparameters follow.
        slots: which of them, from `placement`.
        free: the schedules that belong to none, by name.
        options: what the user chose at `attach`.

    Raises:
        BindingError: a free name is that of a slot, or as `eager_mode`.
        ScheduleError: as `eager_mode`.
    """

    def __init__(
        self,
        optimizer: Any,
        slots: Sequence[Slot],
        free: Mapping[str, Schedule],
        options: Options,
    ) -> None:
        self.free = {name: bounded(schedule, options.steps) for name, schedule in free.items()}
        if clash := self.free.keys() & {slot.name for slot in slots}:
            raise BindingError(f"free: {min(clash)!r} is the name of a slot; rename it")
        groups = param_groups(optimizer)
        self.attached = True
        self._options = options
        # Where the values are.
        self._eager: EagerMode = eager_mode(
            slots, self.free, live_device(groups), options.capacity, options.clock
        )
        self._mode: Mode = self._eager
        self._graph: HandedMode | None = None  # handed in by compile_step
        # Which optimizer, and what of it.
        self._optimizer = _weakly(optimizer)
        self._places = [slot.place for slot in slots]
        self._group_count = len(groups)
        self._bound: Sequence[dict[str, Any]] = ()  # the groups that hold the values, from `_bind` on
        self._began_before = begun(self._places, groups)
        self._hooks = Hooks()
        # What the optimizer's checkpoint carries, and what is to be known of the run's past.
        self._carrier = Carrier(clocked=options.clock is not None)
        self._known_as: int | None = None
        self._history = History({slot.name: slot.schedule for slot in slots} | self.free)
        self._last = LastUsed()
        self._read_from: tuple[str, Where] | None = (
            None  # which file said it, "optimizer" or "state": resuming
        )
        self._told = -1  # the step, or position, at which the user last said where to go on
        self._doubt = ""  # what is to be said before the next step, unless a seek settles it
        # Who makes steps, and who counts them.
        self._unseen = options.auto  # no step has been made yet: who makes it is looked at once
        self._face: Any = None  # of a trainer (lr_scheduler.py): the schedule moves when that is stepped
        self._found_inf: torch.Tensor | None = None  # of the last optimizer.step(), for step() by hand
        self._uncertain = True  # whether step() by hand counts without an optimizer step that was reported,
        self._stepped = True  # and whether one waits for it
        self._ever_stepped = False  # whether one was reported
        self._told_uncounted = False

    @property
    def optimizer(self) -> Any:
        """Whose hyperparameters follow the schedules. It is not kept alive by them. Does not synchronise.

        Raises:
            BindingError: it is gone.
        """
        optimizer = self._optimizer()
        if optimizer is None:
            raise BindingError("the optimizer of this schedule is gone; keep a reference to it")
        return optimizer

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every scheduled (group, key, element): its place, its schedule, whether it is a tensor slot, and why.

        Does not synchronise.
        """
        at = self._mode.slot_at
        return tuple(at[place] for place in self._places)

    @property
    def step_count(self) -> int:
        """Completed optimizer steps. Synchronises where all slots are tensor slots on a device that is no CPU.

        Raises:
            BindingError: it is read in a worker of a DataLoader, where it would stand still.
        """
        refuse_in_worker("step_count")
        return self._mode.step_count

    @property
    def position(self) -> int:
        """Where the schedules are read: on a clock what the completed steps have consumed, else `step_count`.

        Synchronises as `step_count` does.
        """
        return self._mode.where.position

    @property
    def inputs(self) -> Mapping[str, torch.Tensor]:
        """The live inputs in the schedules by name, each a 0-dim float64 tensor; write it and the next step uses it.

        `sched.inputs["lr_scale"].fill_(0.5)`: any operation of torch in place. It is on the device of the tensor slots
        that depend on it, where a captured step reads it too; where float slots do, on the CPU (ask again after
        `compile_step`, which puts it on the device). A factor that reacts to a metric is written the same way; what
        else it remembers stays.

        Raises:
            BindingError: the schedule is detached; or there is no input of that name.

        Does not synchronise.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=0.5 * ts.live("lr_scale", 1.0))
            >>> sched.inputs["lr_scale"].fill_(0.5).item()
            0.5
            >>> optimizer.step(), optimizer.param_groups[0]["lr"]
            (None, 0.25)
        """
        self._require_attached()
        return by_name(self._mode.inputs)

    def detach(self) -> None:
        """Give the optimizer back: plain floats with the current values in the groups, every hook removed.

        Where a group held a tensor before, that same tensor gets the current value. A second call does nothing.

        May synchronise, as `step_count`.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.5)
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
            >>> optimizer.step(), sched.detach(), optimizer.param_groups[0]["lr"], sched.attached
            (None, None, 0.75, False)
        """
        if not self.attached:
            return
        self.attached = False
        if (optimizer := self._optimizer()) is None:
            return  # gone, and with it all that there was to give back
        self._hooks.remove(optimizer)
        self._make_graphs_stale()
        where = self._mode.where
        if self._graph is not None and self._mode.in_graph:
            # Without binding: groups may have been taken away, which is a reason to detach.
            self._graph.leave(optimizer, for_good=True)
            self._mode = self._eager
            self._mode.go(where)
        groups = optimizer.param_groups
        present = present_values(self.slots, groups, lambda name: self._mode.at(name, where.position))
        give_back(self.slots, groups, present)
        self._carrier.unmark(groups, [place for place in self._places if place not in self._began_before])

    # -- from one state to the next -----------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Put every slot's value into the optimizer's present param_groups, whatever they hold."""
        groups = param_groups(self.optimizer)
        if len(groups) < self._group_count:
            raise other_groups(len(groups), self._group_count)
        for slot in self.slots:
            if slot.template is not None:  # a checkpoint without the key may have taken it away
                groups[slot.place.group].setdefault(slot.place.key, slot.template)
        # A group that was added, and that nobody has said anything about, is none of ours: the next check says so.
        self._bound = groups[: self._group_count]
        self._mode.bind(self.optimizer, self._bound)
        self._tell_hooks()

    def _tell_hooks(self) -> None:
        """What the hooks do first at a step has changed: the mode was bound, or there is something to say."""
        self._hooks.follow(self._mode.fast(self))

    def _go(self, where: Where) -> None:
        """Be there, as we were told."""
        self._told, self._doubt, self._read_from = where.position, "", None
        self._ever_stepped |= self._stepped or where.steps > 0
        self._stepped = self._uncertain  # a step that waits to be counted is none of those
        self._mode.go(where)
        if self._mode.tally is not None:
            self._mode.tally.moved(where)
        self._bind()
        if self._face is not None:
            self._face.moved()

    def _use(self, mode: Mode, where: Where | None = None) -> None:
        """Be in another mode, at the same place, which is read from the one before where it is not given."""
        if mode.inputs is not None and self._mode.inputs is not None:
            mode.inputs.follow(self._mode.inputs)
        if mode.parts != self._mode.parts:  # else the same engines count on
            self._last.switch(self._mode, mode)
            mode.go(self._mode.where if where is None else where)
        self._mode = mode
        self._bind()

    def _use_eager(self, *, for_good: bool = False) -> None:
        """Be in eager mode, for a step or for good."""
        if self._graph is not None and self._mode.in_graph:
            self._use(self._eager, self._graph.leave(self.optimizer, for_good=for_good))

    def _make_graphs_stale(self) -> None:
        """What compiled steps know of this optimizer is no longer so."""
        if self._graph is not None:
            self._graph.make_stale()

    def _resynchronise(self) -> None:
        """A step was interrupted half-way: all counters and slots go to the step that one of them has reached."""
        furthest = max(self._mode.parts, key=lambda part: part.engine.step_count)
        self._mode.go(furthest.engine.where)
        self._bind()

    # -- what it is asked ---------------------------------------------------------------------------------------------

    def _made(self) -> int | torch.Tensor:
        """Steps that were made, of which the last may wait to be counted, by a trainer or by hand; or the position."""
        by_hand = self._hooks.active and not self._options.auto and not self._uncertain
        waits = self._stepped if by_hand else self._face is not None and self._face._stepped
        return self._mode.counter + int(waits and self._options.clock is None)

    def _next(self) -> Where:
        """Where the next optimizer step stands, also if a trainer has yet to count the one that was made."""
        return self._mode.where.after(0 if self._face is None else self._face.pending)

    def _words(self, where: Where) -> str:
        clock = self._options.clock
        return f"step {where.steps}" + ("" if clock is None else f", {clock.unit} {where.position:,}")

    def _schedules(self) -> dict[str, Schedule]:
        return {slot.name: slot.schedule for slot in self.slots} | self.free

    def _originals(self) -> dict[Place, Any]:
        return {slot.place: slot.original for slot in self.slots}

    def _numbered(self) -> list[str]:
        return [] if self._mode.inputs is None else self._mode.inputs.names()

    def _reactions(self) -> list[str]:
        return [] if self._mode.inputs is None else self._mode.inputs.reactions

    def _fingerprint(self) -> int:
        if self._known_as is None:
            self._known_as = fingerprint_of(self._schedules(), self._options.clock)
        return self._known_as

    def _group(self, group: int | str) -> int:
        return index_of_group(self.optimizer.param_groups, group) if isinstance(group, str) else group

    def _on_clock(self, call: str) -> Tally:
        self._require_attached()
        tally = self._mode.tally
        if tally is None:
            raise BindingError(
                f"{call}() is for clocks that do not count steps, and these schedules do: pass clock=ts.clock(...) to "
                "attach()"
            )
        tally.refuse_other_call(call)
        return tally

    def _require_attached(self) -> None:
        if not self.attached:
            raise BindingError("this schedule is detached and controls nothing; attach() again")

    def _refuse_other_groups(self, groups: Sequence[dict[str, Any]]) -> None:
        refuse_other_groups(self._bound, groups)

    def _drives(self, optimizer: object) -> bool:
        return self.attached and self._optimizer() is optimizer


def _weakly(optimizer: Any) -> Callable[[], Any]:
    """A reference that does not keep an optimizer alive that holds us by its hooks: the two would wait in a circle."""
    return weakref.ref(optimizer) if has_hooks(optimizer) else lambda: optimizer

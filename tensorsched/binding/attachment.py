"""Attachment: the schedules on one optimizer, from `attach` on."""

from __future__ import annotations

import dataclasses
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.arguments import read_free
from tensorsched.binding.carried import Carrier, fingerprint_of
from tensorsched.binding.checkpoint import read_state, write_state
from tensorsched.binding.hooks import Hooks, has_hooks
from tensorsched.binding.late_groups import (
    begun,
    other_groups,
    read_adopted,
    read_late,
    refuse_other_groups,
    take_in,
)
from tensorsched.binding.lr_scheduler import AttachmentLR
from tensorsched.binding.modes import EagerMode, HandedMode, Mode, eager_mode
from tensorsched.binding.placement import Options, live_device, read_rewrite
from tensorsched.binding.registry import attachments_of, forget, remember
from tensorsched.binding.resuming import go_on_from, loaded, saved
from tensorsched.binding.slots import Slot, displaced, give_back, holds, same_number
from tensorsched.binding.summary import slot_table
from tensorsched.engine.tabulate import bounded
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, as_float, param_groups, put_back
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import check_count
from tensorsched.schedules.views.plot import plot_parts

__all__ = ["Attachment"]


class Attachment:
    """The schedules on one optimizer: what `attach` returns.

    `print(sched)` shows every slot: where it is, its value now, its schedule, and why it is a tensor or a float. A deep
    copy or a pickle of it belongs to a copy of its optimizer and goes on from the same step.

    Attributes:
        free: the schedules that belong to no hyperparameter, by name.
        attached: False after `detach`.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
        >>> print(sched)
        step 0, advances after each optimizer.step()
        group  key  slot   value  schedule
        0      lr   float  1      linear(1.0, 0.0, steps=4)
        float: on a CPU a float is exact and fastest
        >>> sched.seek(3)
        >>> sched.step_count, sched.value("lr"), sched.state_dict()["step"]
        (3, 0.25, 3)
        >>> sched.detach()
    """

    def __init__(
        self, optimizer: Any, slots: Sequence[Slot], free: Mapping[str, Schedule], options: Options
    ) -> None:
        self._optimizer = _weakly(optimizer)
        self.free = {name: bounded(schedule, options.steps) for name, schedule in free.items()}
        self.attached = True
        self._options = options
        self._found_inf: torch.Tensor | None = None  # of the last optimizer.step(), for step() by hand
        # Everything that can fail comes first; the optimizer is touched by _bind() and the hooks alone.
        if clash := self.free.keys() & {slot.name for slot in slots}:
            raise BindingError(f"free: {min(clash)!r} is the name of a slot; rename it")
        groups = param_groups(optimizer)
        self._eager: EagerMode = eager_mode(slots, self.free, live_device(groups), options.capacity)
        self._mode: Mode = self._eager
        self._graph: HandedMode | None = None  # handed in by compile_step
        self._places = [slot.place for slot in slots]
        self._group_count = len(groups)
        self._carrier = Carrier.beside(other._carrier for other in attachments_of(optimizer))
        self._known_as: int | None = None
        self._doubt = ""  # what is to be said before the next step, unless a seek settles it
        self._face: AttachmentLR | None = None  # of a trainer: the schedule moves when that is stepped
        self._told = -1  # the step at which the user last said where to go on
        carried = self._carrier.read(groups)
        self._began_before = begun(self._places, groups)
        self._hooks = Hooks()
        self._bind()
        self._hooks.register(optimizer, self, auto=options.auto)
        if self._hooks.active:
            self._carrier.mark(groups, self._originals())
        go_on_from(self, carried)
        self._bind()
        for other in attachments_of(optimizer):
            other._make_graphs_stale()  # a compiled step of it must look again at what else is there
        remember(self)

    @property
    def optimizer(self) -> Any:
        """Whose hyperparameters follow the schedules. It is not kept alive by its schedules.

        Raises:
            BindingError: it is gone.
        """
        optimizer = self._optimizer()
        if optimizer is None:
            raise BindingError("the optimizer of this schedule is gone; keep a reference to it")
        return optimizer

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every scheduled (group, key, element): its place, its schedule, whether it is a tensor slot, and why."""
        at = self._mode.slot_at
        return tuple(at[place] for place in self._places)

    @property
    def step_count(self) -> int:
        """Completed optimizer steps. Synchronises where all slots are tensor slots on a device that is no CPU."""
        return self._mode.step_count

    def value(self, name: str, group: int = 0, element: int | None = None) -> torch.Tensor | float:
        """What a slot or free name holds now: a float, or of a tensor slot or a free name the 0-dim live tensor.

        Of a filled slot it is the group's own tensor.

        Args:
            name: the param_group key, or a name from `free`.
            group: index of the param_group.
            element: index into a tuple such as betas; not needed where only one element is scheduled.

        Raises:
            BindingError: no such slot.

        Does not synchronise.
        """
        if name in self.free:
            return self._mode.free_value(name)
        found = [s for s in self.slots if s.place[:2] == (group, name) and element in (None, s.place.element)]
        if len(found) != 1:
            raise BindingError(
                f"{'no' if not found else 'more than one'} slot is {name!r} of group {group}"
                f"{'' if element is None else f', element {element}'}; there are {', '.join(self._schedules())}"
            )
        return self._mode.expected(found[0])

    def step(self) -> None:
        """Advance by one step (only with advance="manual"), after `optimizer.step()`. Does not synchronise.

        With a GradScaler prefer advance="auto": a step that it skipped on the host is not seen from here.

        Raises:
            BindingError: the schedule advances by itself, is detached, or something else wrote to a slot.
        """
        if self._options.auto or not self.attached:
            self._require_attached()
            raise BindingError(
                "this schedule advances by itself after each optimizer.step(), so step() would count twice; "
                "pass advance='manual' to attach() to call it yourself"
            )
        # Floats are checked as they are written. Tensors are, before the next optimizer.step(), where that is reported.
        if not self._hooks.active and not self._mode.check(self.optimizer.param_groups):
            self._settle()
        self._advance(self._found_inf)
        self._found_inf = None

    def seek(self, step: int) -> None:
        """Continue as if `step` steps had been completed; the groups hold that step's values at once.

        Raises:
            ScheduleError: step is negative or not an int.
            BindingError: the schedule is detached.

        Does not synchronise.
        """
        self._require_attached()
        at = check_count("seek: step", step)
        self._take_in_new_groups()
        self._told, self._doubt = at, ""
        self._mode.seek(at)
        self._bind()
        if self._face is not None:
            self._face.moved()

    def state_dict(self) -> dict[str, Any]:
        """The step counter and the schedules that it counts for: plain numbers, strings, lists and dicts.

        Loads with `torch.load(weights_only=True)`, on any device. Synchronises as `step_count` does.
        """
        self._take_in_new_groups()
        return write_state(self.step_count, self._schedules())

    def load_state_dict(self, state: Mapping[str, Any], *, on_mismatch: str | None = None) -> None:
        """Continue from a saved step. The order with `optimizer.load_state_dict` does not matter.

        (An object without torch's hooks cannot tell that it was loaded: call this, or `seek`, after its own loading.)

        Args:
            state: what `state_dict()` returned.
            on_mismatch: what to do if it was saved under other schedules: "error", "saved" (the schedules of the state,
                from the saved step), "keep_step" (these schedules, from the saved step) or "restart" (these schedules,
                from step 0). Default: what was given to `attach`, which is "error" by default.

        Raises:
            ScheduleError: the state is malformed; the message starts with the field. Nothing has changed.
            BindingError: it was saved under other schedules (both are shown, and the first step at which they
                differ), or this one is detached. Nothing has changed.
        """
        self._require_attached()
        self._take_in_new_groups()
        how = self._options.on_mismatch if on_mismatch is None else on_mismatch
        step, schedules = read_state(state, self._schedules(), how)
        if schedules:
            self._follow(schedules)
        self.seek(step)

    def rewrite(self, *, free: Mapping[str, Schedule | float] | None = None, **hyperparameters: Any) -> None:
        """Follow other schedules from now on, at the same step: extend a run, cool down now, change the peak.

        The tables are overwritten in place, so compiled steps and captured graphs go on with the new values, without
        recompiling or capturing again. Steps are counted from the start of the run as before: to cool down from here,
        pass `old.take(now) >> ts.linear(old(now), 0.0, steps=1000)` with `now = sched.step_count`.

        Args:
            free: other schedules for names that were given to `attach` as `free`.
            **hyperparameters: as for `attach`, for slots that have a schedule; the others keep theirs. `ts.initial` is
                what the group held when it was attached.

        Raises:
            BindingError: a slot or name that has no schedule yet, or a value that does not fit. Nothing has changed.
            ScheduleError: the schedules change later than the tables reach (`attach(..., capacity=steps)`), or slots
                that share a column of the table, because their schedules are equal, would get different ones. Nothing
                has changed.

        Synchronises where a slot is a tensor slot on a device that is no CPU: the table is copied there.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4), capacity=8)
            >>> optimizer.step()
            >>> sched.rewrite(lr=ts.linear(1.0, 0.0, steps=8)), sched.step_count, optimizer.param_groups[0]["lr"]
            (None, 1, 0.875)
        """
        self._require_attached()
        self._take_in_new_groups()
        steps = self._options.steps
        schedules = read_rewrite(self.optimizer, self.slots, hyperparameters, steps)
        names = read_free(param_groups(self.optimizer), free) if free is not None else {}
        if unknown := names.keys() - self.free.keys():
            raise BindingError(
                f"free: {min(unknown)!r} was not given to attach(), so nothing holds its value"
            )
        names = {name: bounded(schedule, steps) for name, schedule in names.items()}
        if not schedules and not names:
            raise BindingError(
                "rewrite() was given nothing to schedule; pass for example lr=ts.constant(1e-4)"
            )
        self._follow({place.name: schedule for place, schedule in schedules.items()} | names)

    def lr_scheduler(self) -> AttachmentLR:
        """A torch LRScheduler over these schedules, for trainers: from now on they move when the trainer steps it.

        At most once for each optimizer step that was not skipped, however often it is called. Its state_dict is this
        attachment's, with the `on_mismatch` that was given to `attach`.

        Returns:
            The scheduler, the same one at each call: isinstance(..., torch.optim.lr_scheduler.LRScheduler).

        Raises:
            BindingError: it was attached with advance="manual", has a compiled step, or is detached.

        Does not synchronise, but where `step_count` does.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> scheduler = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4)).lr_scheduler()
            >>> optimizer.step(), scheduler.step(), scheduler.step(), scheduler.get_last_lr()
            (None, None, None, [0.75])
        """
        self._require_attached()
        if not self._options.auto:
            raise BindingError(
                "lr_scheduler() needs to know of the optimizer's steps: attach with advance='auto' (the default)"
            )
        if self._mode.in_graph:
            raise BindingError(
                "a compiled step counts by itself, so the schedule cannot wait for a trainer: call release() on what "
                "compile_step() returned first, or use it without lr_scheduler()"
            )
        if self._face is None:
            self._face = AttachmentLR(self, self._options.on_mismatch)
            self._hooks.follow(self._mode.fast(self))
        return self._face

    def adopt(self, **hyperparameters: Any) -> None:
        """Let the param_groups that were added since follow schedules too, from the step where the others are.

        Args:
            **hyperparameters: as for `attach`, for the new groups alone: a schedule for each of them, or a list with an
                entry for each (None leaves one alone, as does no argument at all).

        Raises:
            BindingError: no group was added, or a key or list does not fit. Nothing has changed.
            ScheduleError: a schedule cannot be tabulated. Nothing has changed.

        May synchronise, as `attach`.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
            >>> optimizer.step()
            >>> optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3))]})
            >>> sched.adopt(lr=ts.linear(0.1, 0.0, steps=4)), optimizer.param_groups[1]["lr"]
            (None, 0.07500000000000001)
        """
        self._require_attached()
        groups = param_groups(self.optimizer)
        self._refuse_other_groups(groups)
        take_in(self, groups, read_adopted(groups, self._group_count, hyperparameters))

    def plot(self, *, steps: int | None = None, log: bool | None = None) -> list[Any]:
        """Draw every slot and free name over the steps, the current one marked, with matplotlib.

        Args:
            steps: the last step to show; default: as far as the longest schedule needs.
            log: logarithmic value axes: True, False, or None (default) where it shows more.

        Returns:
            The matplotlib Axes, a panel for each hyperparameter and for each free name. Synchronises as `step_count`
            does.

        Raises:
            ModuleNotFoundError: matplotlib is not installed (`pip install 'tensorsched[plot]'`).
        """
        parts: dict[str, dict[Schedule, list[int]]] = {}
        for slot in self.slots:
            parts.setdefault(slot.place.part, {}).setdefault(slot.schedule, []).append(slot.place.group)
        parts |= {f"{name} (free)": {schedule: []} for name, schedule in self.free.items()}
        return list(plot_parts(parts, self.step_count, steps=steps, log=log))

    def detach(self) -> None:
        """Give the optimizer back: plain floats with the current values in the groups, every hook removed.

        Where a group held a tensor before, that same tensor gets the current value. A second call does nothing.
        """
        if not self.attached:
            return
        self.attached = False
        forget(self)
        if (optimizer := self._optimizer()) is None:
            return  # gone, and with it all that there was to give back
        self._hooks.remove(optimizer)
        self._make_graphs_stale()
        step = self.step_count
        if self._graph is not None and self._mode.in_graph:
            # Without binding: groups may have been taken away, which is a reason to detach.
            self._graph.leave(optimizer, for_good=True)
            self._mode = self._eager
            self._mode.seek(step)
        groups = optimizer.param_groups
        give_back(self.slots, groups, step)
        self._carrier.unmark(groups, [place for place in self._places if place not in self._began_before])

    def __str__(self) -> str:
        return slot_table(
            self.slots, self.free, self.step_count, auto=self._options.auto, attached=self.attached
        )

    def __repr__(self) -> str:
        optimizer = self._optimizer()
        to = "an optimizer that is gone" if optimizer is None else type(optimizer).__name__
        return f"<Attachment of {len(self.slots)} slots to {to}>"

    def __reduce__(self) -> tuple[Any, ...]:
        self._require_attached()
        at = self._eager.slot_at
        slots = [at[place] for place in self._places]
        flags = self._graph.flags if self._graph is not None and self._mode.in_graph else []
        room = self._eager.room
        return _again, (self.optimizer, slots, self.free, self._options, self.step_count, room, flags)

    # -- what the hooks, the modes and compiled steps call ------------------------------------------------------------

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
        self._hooks.follow(self._mode.fast(self))

    def _follow(self, schedules: Mapping[str, Schedule]) -> None:
        """Follow other schedules, by column, in every mode there is, at the same step."""
        if self._graph is not None:
            self._graph.check_rewrite({p: schedules[p.name] for p in self._places if p.name in schedules})
        modes = [self._eager] if self._graph is None else [self._eager, self._graph]
        for commit in [mode.rewrite(schedules) for mode in modes]:
            commit()
        self.free |= {name: schedules[name] for name in self.free.keys() & schedules.keys()}
        self._known_as = None
        self._bind()

    def _settle(self) -> None:
        """A check has failed: name the slot that somebody wrote to, or find that all is as it should be.

        A write of the same value is no harm, and groups that are new may be adopted.

        Raises:
            BindingError: a slot holds something else, or a param_group was added and nothing says what it gets.
                Nothing has changed.
        """
        self._require_attached()
        groups = self.optimizer.param_groups
        self._refuse_other_groups(groups)
        step = self.step_count
        for slot in self.slots:
            if not holds(slot, groups, step, self._mode.expected(slot)):
                raise displaced(slot, groups, step)
        for name, schedule in self.free.items():
            found, expected = self._mode.free_value(name).item(), schedule(step)
            if not same_number(found, expected):
                raise BindingError(
                    f"free: somebody wrote to {name!r}: at step {step} its schedule has {expected!r} and it holds "
                    f"{found!r}. Its tensor is for reading (clone() it to change it); seek({step}) puts the value back"
                )
        if len(groups) > self._group_count:
            self._adopt(groups)
        self._mode.seek(step)
        self._bind()

    def _advance(self, found_inf: torch.Tensor | None) -> None:
        """One step further, unless the tensor is not 0."""
        self._require_attached()
        groups = self.optimizer.param_groups
        try:
            if self._mode.advance(groups, found_inf) is False:
                self._settle()
                self._mode.advance(groups, found_inf)
        except KeyboardInterrupt:
            self._resynchronise()
            raise

    def _now(self, key: str, step: int) -> list[float]:
        """What each group has under a key at `step`, the present one: of a tensor what its table says."""
        tensors = {
            slot.place: slot for slot in self.slots if (slot.tensor or slot.filled) and slot.place.key == key
        }
        groups = self.optimizer.param_groups
        return [
            tensors[place].schedule(step)
            if (place := Place(index, key)) in tensors
            else as_float(group[key]) or 0.0
            for index, group in enumerate(groups)
        ]

    def _resynchronise(self) -> None:
        """A step was interrupted half-way: all counters and slots go to the step that one of them has reached."""
        step = max(part.engine.step_count for part in self._mode.parts)
        self._mode.seek(step)
        self._bind()

    def _drives(self, optimizer: object) -> bool:
        return self._optimizer() is optimizer

    def _saved(self, groups: Sequence[dict[str, Any]]) -> None:
        saved(self, groups)

    def _loaded(self) -> None:
        loaded(self)

    def _say(self) -> None:
        """Warn, once and before it matters, of what a checkpoint left in doubt."""
        if self._doubt:
            doubt, self._doubt = self._doubt, ""
            self._hooks.follow(self._mode.fast(self))
            warnings.warn(doubt, UserWarning, stacklevel=2)

    def _originals(self) -> dict[Place, Any]:
        return {slot.place: slot.original for slot in self.slots}

    def _fingerprint(self) -> int:
        if self._known_as is None:
            self._known_as = fingerprint_of(self._schedules())
        return self._known_as

    def _make_graphs_stale(self) -> None:
        """What compiled steps know of this optimizer is no longer so."""
        if self._graph is not None:
            self._graph.make_stale()

    def _use(self, mode: Mode, step: int | None = None) -> None:
        """Be in another mode, at the same step, which is read from the one before where it is not given."""
        if mode.parts != self._mode.parts:  # else the same engines count on
            mode.seek(self.step_count if step is None else step)
        self._mode = mode
        self._bind()

    def _use_eager(self, *, for_good: bool = False) -> None:
        """Be in eager mode, for a step or for good."""
        if self._graph is not None and self._mode.in_graph:
            self._use(self._eager, self._graph.leave(self.optimizer, for_good=for_good))

    def _take_in_new_groups(self) -> None:
        """Adopt late groups now where `new_groups` says how (otherwise the next step raises); refuse lost ones."""
        if self._optimizer() is None:
            return  # gone: what it held can still be saved
        groups = self.optimizer.param_groups
        self._refuse_other_groups(groups)
        if self._options.new_groups is not None and len(groups) > self._group_count:
            self._adopt(groups)

    def _adopt(self, groups: Sequence[dict[str, Any]]) -> None:
        """Schedule the hyperparameters of groups that were added since, as `new_groups` says."""
        self._require_attached()
        take_in(self, groups, read_late(groups, self._group_count, self._options.new_groups))

    def _refuse_other_groups(self, groups: Sequence[dict[str, Any]]) -> None:
        refuse_other_groups(self._bound, groups)

    def _schedules(self) -> dict[str, Schedule]:
        return {slot.name: slot.schedule for slot in self.slots} | self.free

    def _require_attached(self) -> None:
        if not self.attached:
            raise BindingError("this schedule is detached and controls nothing; attach() again")


def _weakly(optimizer: Any) -> Callable[[], Any]:
    """A reference that does not keep an optimizer alive that holds us by its hooks: the two would wait in a circle."""
    return weakref.ref(optimizer) if has_hooks(optimizer) else lambda: optimizer


def _again(  # noqa: PLR0917  pickle's
    optimizer: Any,
    slots: Sequence[Slot],
    free: Mapping[str, Schedule],
    options: Options,
    step: int,
    room: int,
    flags: Sequence[dict[str, Any]],
) -> Attachment:
    """An attachment from its copied or unpickled parts, at its step, with the same room for other schedules."""
    put_back(optimizer.param_groups, flags)  # no compiled step is copied with it
    attachment = Attachment(optimizer, slots, free, dataclasses.replace(options, capacity=room))
    attachment._optimizer = lambda: optimizer  # copied with it: perhaps nobody else holds this one
    attachment._options = options  # groups that are added later are not bound to that room
    attachment.seek(step)
    return attachment

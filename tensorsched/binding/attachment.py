"""Attachment: what controls an optimizer's scheduled hyperparameters from `attach` on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.graph_mode import GraphMode
from tensorsched.binding.lifecycle import Hooks, displaced
from tensorsched.binding.placement import Options, engine_device, place_slot, read_rewrite
from tensorsched.binding.report import slot_table
from tensorsched.binding.request import Request, as_float, param_groups, read_free, read_requests
from tensorsched.binding.slots import Slot, held, put
from tensorsched.binding.state import read_state, write_state
from tensorsched.binding.wiring import Wiring
from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule
from tensorsched.schedules.fields import check_count, shown
from tensorsched.table import bounded

__all__ = ["Attachment"]

_ATTACHMENTS: weakref.WeakSet[Attachment] = weakref.WeakSet()
_LOCK = threading.Lock()  # of the set above: optimizers may be attached from several threads


def attachments_of(optimizer: object) -> list[Attachment]:
    """All that control this optimizer."""
    with _LOCK:
        return [attachment for attachment in _ATTACHMENTS if attachment.optimizer is optimizer]


def refuse_claimed(optimizer: object, requests: Sequence[Request]) -> None:
    """One slot has one schedule.

    Raises:
        BindingError: another attachment has a schedule for one of these.
    """
    claimed = {slot.place for other in attachments_of(optimizer) for slot in other.slots}
    for request in requests:
        if request.place in claimed:
            raise BindingError(
                f"{request.name} already follows the schedule of another attachment; call detach() on that one first "
                "(ts.detach(optimizer) detaches all), or give this one other keys"
            )


class Attachment:
    """The schedules on one optimizer: what `attach` returns.

    `print(sched)` shows every slot: where it is, its value now, its schedule, and why it is resident or not. A deep
    copy or a pickle of it belongs to a copy of its optimizer and goes on from the same step.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
        >>> print(sched)
        step 0, advances after each optimizer.step()
        group  key  where  value  schedule
        0      lr   host   1      linear(1.0, 0.0, steps=4)
        host: on a CPU a float is exact and fastest
        >>> sched.seek(3)
        >>> sched.step_count, sched.value("lr"), sched.state_dict()["step"]
        (3, 0.25, 3)
        >>> sched.detach()
    """

    def __init__(
        self, optimizer: Any, slots: Sequence[Slot], free: Mapping[str, Schedule], options: Options
    ) -> None:
        self.optimizer = optimizer
        self.free = {name: bounded(schedule, options.steps) for name, schedule in free.items()}
        self.found_inf: torch.Tensor | None = None  # of the last optimizer.step(), for step() by hand
        self._options = options
        self._suspect = False
        # Everything that can fail comes first; the optimizer is touched by bind() and the hooks alone.
        if clash := self.free.keys() & {slot.name for slot in slots}:
            raise BindingError(f"free: {min(clash)!r} is the name of a slot; rename it")
        groups = param_groups(optimizer)
        self._wiring = self._eager = Wiring.build(slots, self.free, engine_device(groups), options.capacity)
        self._places = [slot.place for slot in slots]
        self._group_count = len(groups)
        self._graph: GraphMode | None = None
        self.in_graph_step = False  # set while a compiled step runs between the optimizer's hooks
        self.generation = 0  # counts what makes a graph of the step stale
        self.revision = 0  # counts rewrites
        self.attached = True
        self.bind()
        self._hooks = Hooks(optimizer, self, auto=options.auto)
        with _LOCK:
            _ATTACHMENTS.add(self)

    # -- what users call ------------------------------------------------------------------------------------------

    @property
    def step_count(self) -> int:
        """Completed optimizer steps. Synchronises where all slots are resident on a device that is no CPU."""
        return self._wiring.step_count

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every scheduled (group, key, element), where it lives and why."""
        at = self._wiring.slot_at
        return tuple(at[place] for place in self._places)

    def value(self, name: str, group: int = 0, element: int | None = None) -> torch.Tensor | float:
        """What a slot or free name holds now, without a sync: a 0-dim live tensor if resident or free, else a float.

        Args:
            name: the param_group key, or a name from `free`.
            group: index of the param_group.
            element: index into a tuple such as betas; not needed where only one element is scheduled.

        Raises:
            BindingError: no such slot.
        """
        if name in self.free:
            return self._wiring.free_value(name)
        found = [s for s in self.slots if s.place[:2] == (group, name) and element in (None, s.place[2])]
        if len(found) != 1:
            raise BindingError(
                f"{'no' if not found else 'more than one'} slot is {name!r} of group {group}"
                f"{'' if element is None else f', element {element}'}; there are {', '.join(self._schedules())}"
            )
        return self._wiring.expected(found[0])

    def step(self) -> None:
        """Advance by one step (only with advance="manual"), after `optimizer.step()`. Does not synchronise.

        With a GradScaler prefer advance="auto": a step that it skipped on the host is not seen from here.

        Raises:
            BindingError: the schedule advances by itself, is detached, or something else wrote to a slot.
        """
        self._require_attached()
        if self._options.auto:
            raise BindingError(
                "this schedule advances by itself after each optimizer.step(), so step() would count twice; "
                "pass advance='manual' to attach() to call it yourself"
            )
        # What writes to a resident slot is still seen by the check before the next optimizer.step(); a host slot is
        # about to be overwritten.
        if self._wiring.writes_floats or not self._hooks.active:
            self.verify()
        found_inf, self.found_inf = self.found_inf, None
        self.advance(found_inf)

    def seek(self, step: int) -> None:
        """Continue as if `step` steps had been completed; the groups hold that step's values at once.

        Raises:
            ScheduleError: step is negative or not an int.
            BindingError: the schedule is detached.
        """
        self._require_attached()
        at = check_count("seek: step", step)
        self.take_in_new_groups()
        self._wiring.seek(at)
        self.bind()

    def state_dict(self) -> dict[str, Any]:
        """Where the clock is and which schedules it counts for: plain numbers, strings, lists and dicts.

        Loads with `torch.load(weights_only=True)`, on any device. Synchronises as `step_count` does.
        """
        self.take_in_new_groups()
        return write_state(self.step_count, self._schedules())

    def load_state_dict(self, state: Mapping[str, Any], *, on_mismatch: str = "error") -> None:
        """Continue from a saved step. The order with `optimizer.load_state_dict` does not matter: the clock decides.

        (An object without torch's hooks cannot tell that it was loaded: call this, or `seek`, after its own loading.)

        Args:
            state: what `state_dict()` returned.
            on_mismatch: what to do if it was saved under other schedules: "error" (default), "keep_step" (these
                schedules, from the saved step) or "restart" (these schedules, from step 0).

        Raises:
            ScheduleError: the state is malformed; the message starts with the field. Nothing has changed.
            BindingError: it was saved under other schedules (both are shown, and the first step at which they
                differ), or this one is detached. Nothing has changed.
        """
        self._require_attached()
        self.take_in_new_groups()
        self.seek(read_state(state, self._schedules(), on_mismatch))

    def rewrite(self, *, free: Mapping[str, Schedule | float] | None = None, **hyperparameters: Any) -> None:
        """Follow other schedules from now on, while the clock goes on: extend a run, cool down now, change the peak.

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

        Synchronises where all slots are resident on a device that is no CPU.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4), capacity=8)
            >>> optimizer.step()
            >>> sched.rewrite(lr=ts.linear(1.0, 0.0, steps=8)), sched.step_count, optimizer.param_groups[0]["lr"]
            (None, 1, 0.875)
        """
        self._require_attached()
        self.take_in_new_groups()
        schedules = read_rewrite(self.optimizer, self.slots, hyperparameters, self._options.steps)
        names = read_free(param_groups(self.optimizer), free or {}) if free is not None else {}
        if unknown := names.keys() - self.free.keys():
            raise BindingError(
                f"free: {min(unknown)!r} was not given to attach(), so nothing holds its value"
            )
        names = {name: bounded(schedule, self._options.steps) for name, schedule in names.items()}
        if not schedules and not names:
            raise BindingError(
                "rewrite() was given nothing to schedule; pass for example lr=ts.constant(1e-4)"
            )
        wirings = [self._eager] if self._graph is None else [self._eager, self._graph.wiring]
        for commit in [wiring.rewrite(schedules, names) for wiring in wirings]:
            commit()
        self.free |= names
        self.revision += 1
        self.bind()

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
        # Drawing lies above this layer; the test of the layers knows of this import, by name.
        from tensorsched.plot import plot_slots  # noqa: PLC0415

        return list(plot_slots(self.slots, self.free, self.step_count, steps=steps, log=log))

    def detach(self) -> None:
        """Give the optimizer back: plain floats with the current values in the groups, every hook removed.

        Where a group held a tensor before, that same tensor gets the current value. A second call does nothing.
        """
        if not self.attached:
            return
        self.attached = False
        with _LOCK:
            _ATTACHMENTS.discard(self)
        self._hooks.remove()
        self.generation += 1
        step = self.step_count
        if self._graph is not None and self._wiring is self._graph.wiring:
            self._graph.leave(self.optimizer)
        groups = self.optimizer.param_groups
        originals = [id(slot.original) for slot in self.slots]
        for slot in self.slots:
            index, key, element = slot.place
            if index < len(groups) and (element is None or key in groups[index]):
                value: Any = slot.schedule(step)
                if isinstance(slot.original, torch.Tensor) and slot.original.is_floating_point():
                    # torch gives one default tensor to all groups that name none: it cannot hold each one's value.
                    own = originals.count(id(slot.original)) == 1
                    value = slot.original.fill_(value) if own else torch.full_like(slot.original, value)
                put(groups[index], key, element, value)

    # -- what the hooks call --------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Put every slot's value into the optimizer's present param_groups, whatever they hold."""
        groups = param_groups(self.optimizer)
        if len(groups) < self._group_count:
            raise self._other_groups(len(groups))
        for slot in self.slots:
            if slot.template is not None:  # a checkpoint without the key may have taken it away
                groups[slot.request.group].setdefault(slot.request.key, slot.template)
        self._wiring.bind(groups)
        if self._graph is not None and self._wiring is self._graph.wiring:
            self._graph.enter(groups)

    def loaded(self) -> None:
        """The optimizer's groups and state were replaced by a checkpoint's."""
        self.generation += 1
        self.bind()

    @property
    def writes_floats(self) -> bool:
        """Whether there are host slots, which the next advance will overwrite."""
        return self._wiring.writes_floats

    def verify(self) -> None:
        """Check that the slots hold what was put there, and take in groups that are new.

        Raises:
            BindingError: a slot holds something else, or a param_group was added and nothing says what it gets.
                Nothing has changed.
        """
        groups = self.optimizer.param_groups
        if len(groups) != self._group_count:
            self._adopt(groups)
        try:
            intact = not self._suspect and self._wiring.intact(groups)
        except (KeyError, IndexError, TypeError):  # a key, or an element of a tuple, is gone
            intact = False
        if not intact:
            self._name_displaced(groups)

    def refuse_frozen_capture(self) -> None:
        """Check that every replay of the step that is being captured will use new values, and train every parameter.

        Raises:
            BindingError: a slot is a float on the host, or a parameter has no gradient yet.
        """
        for slot in self.slots:
            if not slot.resident:
                raise BindingError(
                    f"{slot.name} is a host slot ({slot.why}): a CUDA graph would replay today's value for ever. Use "
                    "ts.compile_step(sched), which keeps every value on the device, or build the optimizer with "
                    "capturable=True and attach again"
                )
        for index, group in enumerate(self.optimizer.param_groups):
            for number, parameter in enumerate(group["params"]):
                if parameter.requires_grad and parameter.grad is None:
                    raise BindingError(
                        f"parameter {number} of group {index}, of shape {tuple(parameter.shape)}, requires grad and "
                        "has no .grad yet: the CUDA graph would leave it out of every replay. Run a backward pass "
                        "before the capture (and zero_grad(set_to_none=False) after it), or set requires_grad=False"
                    )

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one step and fill the slots, unless `found_inf` is not 0; after a step in a graph, which did both."""
        if self.in_graph_step:
            for engine in self._wiring.engines:
                engine.written()
        else:
            self._wiring.advance(found_inf)

    def write_plain(self, groups: Sequence[dict[str, Any]]) -> None:
        """Replace the live views in the groups of a state_dict by the floats that they stand for."""
        if self._graph is not None and self._wiring is self._graph.wiring:
            self._graph.write_plain(groups)
        on_device = [slot for slot in self.slots if slot.resident and slot.request.group < len(groups)]
        step = self.step_count if on_device else 0
        for slot in on_device:
            put(groups[slot.request.group], slot.request.key, slot.request.element, slot.schedule(step))

    def take_in_new_groups(self) -> None:
        """Adopt late groups now where `new_groups` says how (otherwise the next step raises); refuse lost ones."""
        groups = self.optimizer.param_groups
        if len(groups) < self._group_count:
            raise self._other_groups(len(groups))
        if self._options.new_groups is not None and len(groups) > self._group_count:
            self._adopt(groups)

    def _adopt(self, groups: Sequence[dict[str, Any]]) -> None:
        """Schedule the hyperparameters of groups that were added since, as `new_groups` says."""
        self._require_attached()
        first, rule = self._group_count, self._options.new_groups
        if rule is None or len(groups) < first:
            raise self._other_groups(len(groups))
        device = engine_device(groups)
        slots: list[Slot] = []
        for index in range(first, len(groups)):
            wanted = rule(groups[index]) if callable(rule) else rule
            if not isinstance(wanted, Mapping):
                raise BindingError(f"new_groups must give a dict for group {index}, got {shown(wanted)}")
            alone = {key: [None] * index + [value] for key, value in wanted.items() if value is not None}
            requests = read_requests(groups[: index + 1], alone) if alone else []
            refuse_claimed(self.optimizer, requests)
            slots += [place_slot(self.optimizer, groups[index], r, self._options, device) for r in requests]
        wiring = self._eager.extended(slots, device, self._options.capacity)
        self.use_eager()
        self._wiring = self._eager = wiring
        self._graph = None  # of the groups that there were
        self._places += [slot.place for slot in slots]
        self._group_count = len(groups)
        self.generation += 1
        self.bind()

    def _other_groups(self, count: int) -> BindingError:
        way_out = "call detach() and attach() again"
        if count > self._group_count:
            way_out = (
                "pass new_groups={'lr': schedule, ...} (or a function of the group that returns such a dict) to "
                f"attach(), or {way_out}"
            )
        return BindingError(
            f"the optimizer has {count} param_groups and had {self._group_count} when the schedule was attached; "
            f"{way_out}"
        )

    def _name_displaced(self, groups: Sequence[dict[str, Any]]) -> None:
        """Find the slot that holds something else than its value, and raise; a write of the same value is no harm."""
        self._require_attached()
        self._suspect = True  # until every slot has been found to be right
        step = self.step_count
        for slot in self.slots:
            index, key, element = slot.place
            try:
                found = held(groups[index], key, element)
            except (KeyError, IndexError, TypeError):
                found = None
            expected, number = slot.schedule(step), as_float(found)
            same = (
                found is self._wiring.expected(slot) if slot.resident else not isinstance(found, torch.Tensor)
            )
            # Two float32 roundings: what is read from a resident slot has one, and so may what was written.
            near = number is not None and abs(number - expected) <= abs(expected) * 2**-23 + 2**-149
            if not (same and near):
                raise displaced(slot.name, expected, found, step)
        self._suspect = False
        self.seek(step)

    # -- what compiled steps call ---------------------------------------------------------------------------------

    @property
    def advances_by_itself(self) -> bool:
        """Whether it was attached with advance="auto"."""
        return self._options.auto

    def use_graph(self, why: str) -> Wiring:
        """Make every slot resident, for steps that run in a graph, until `use_eager` or `detach`.

        Raises:
            BindingError: it is detached.
        """
        self._require_attached()
        if self._graph is None:
            device = engine_device(self.optimizer.param_groups)
            self._graph = GraphMode(
                self.optimizer, self._eager.on_device(device, why, self._options.capacity)
            )
        if self._wiring is not self._graph.wiring:
            step = self.step_count
            self._wiring = self._graph.wiring
            self.seek(step)
        return self._wiring

    def use_eager(self) -> None:
        """Put the slots back where they were before `use_graph`, at the same step."""
        if self._graph is None or self._wiring is not self._graph.wiring:
            return
        step = self.step_count
        self._graph.leave(self.optimizer)
        self._wiring = self._eager
        self._wiring.seek(step)
        self._wiring.bind(self.optimizer.param_groups[: self._group_count])

    # -- text and copies ------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return slot_table(
            self.slots, self.free, self.step_count, auto=self._options.auto, attached=self.attached
        )

    def __repr__(self) -> str:
        return f"<Attachment of {len(self.slots)} slots to {type(self.optimizer).__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        self._require_attached()
        at = self._eager.slot_at
        slots = [at[place] for place in self._places]
        return _again, (self.optimizer, slots, self.free, self._options, self.step_count)

    def _schedules(self) -> dict[str, Schedule]:
        return {slot.name: slot.schedule for slot in self.slots} | self.free

    def _require_attached(self) -> None:
        if not self.attached:
            raise BindingError("this schedule is detached and controls nothing; attach() again")


def _again(
    optimizer: Any, slots: Sequence[Slot], free: Mapping[str, Schedule], options: Options, step: int
) -> Attachment:
    """An attachment from its copied or unpickled parts, at its step."""
    attachment = Attachment(optimizer, slots, free, options)
    attachment.seek(step)
    return attachment

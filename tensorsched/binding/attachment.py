"""Attachment: what controls an optimizer's scheduled hyperparameters from `attach` on."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.lifecycle import Hooks, displaced
from tensorsched.binding.placement import Options, engine_device, place_slot
from tensorsched.binding.report import slot_table
from tensorsched.binding.request import Request, as_float, param_groups, read_requests
from tensorsched.binding.slots import HostWriter, ResidentBinder, Slot, held, put
from tensorsched.binding.state import read_state, write_state
from tensorsched.engine import HostEngine, ScheduleEngine
from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule
from tensorsched.schedules.fields import check_count
from tensorsched.table import tabulate

__all__ = ["Attachment"]

ATTACHMENTS: weakref.WeakSet[Attachment] = weakref.WeakSet()
"""All that are attached, so that two do not claim one slot."""


class Attachment:
    """The schedules on one optimizer: what `attach` returns.

    `print(sched)` shows every slot: where it is, its value now, its schedule, and why it is resident or not. A deep
    copy or a pickle of it belongs to a copy of its optimizer and goes on from the same step.
    """

    def __init__(
        self, optimizer: Any, slots: Sequence[Slot], free: Mapping[str, Schedule], options: Options
    ) -> None:
        self.optimizer = optimizer
        self.free = dict(free)
        self._options = options
        # Everything that can fail comes first; the optimizer is touched by bind() and the hooks alone.
        self._build(slots)
        self._attached = True
        self.bind()
        self._hooks = Hooks(optimizer, self, auto=options.auto)
        ATTACHMENTS.add(self)

    def _build(self, slots: Sequence[Slot]) -> None:
        """Tables, engines and writers for these slots; nothing of the optimizer changes."""
        on_device = [slot for slot in slots if slot.resident]
        on_host = [slot for slot in slots if not slot.resident]
        resident: ResidentBinder | None = None
        host: HostWriter | None = None
        if on_device or self.free:
            columns = self.free | {slot.name: slot.schedule for slot in on_device}
            device = engine_device(param_groups(self.optimizer))
            table = tabulate(columns, steps=self._options.steps, device=device)
            resident = ResidentBinder(ScheduleEngine(table), on_device)
        if on_host:
            columns = {slot.name: slot.schedule for slot in on_host}
            table = tabulate(columns, steps=self._options.steps, dtype=torch.float64)
            host = HostWriter(HostEngine(table), on_host)
        self.slots = tuple(slots)
        self._resident, self._host = resident, host
        self._binders = [binder for binder in (resident, host) if binder is not None]
        self._engines: list[HostEngine | ScheduleEngine] = [binder.engine for binder in self._binders]

    # -- what users call ------------------------------------------------------------------------------------------

    @property
    def step_count(self) -> int:
        """Completed optimizer steps. Synchronises where all slots are resident on a device that is no CPU."""
        return self._engines[-1].step_count  # the host's, if there is one: both count the same steps

    def value(self, name: str, group: int = 0, element: int | None = None) -> torch.Tensor | float:
        """What a slot or free name holds now, without a sync: a 0-dim live tensor if resident or free, else a float.

        Args:
            name: the param_group key, or a name from `free`.
            group: index of the param_group.
            element: index into a tuple such as betas; not needed where only one element is scheduled.

        Raises:
            BindingError: no such slot.
        """
        if name in self.free and self._resident is not None:
            return self._resident.engine.value(name)
        found = [s for s in self.slots if s.place[:2] == (group, name) and element in (None, s.place[2])]
        if len(found) != 1:
            raise BindingError(
                f"{'no' if not found else 'more than one'} slot is {name!r} of group {group}"
                f"{'' if element is None else f', element {element}'}; there are {', '.join(self._schedules())}"
            )
        return self._expected(found[0])

    def step(self) -> None:
        """Advance by one step (only with advance="manual"), after `optimizer.step()`. Does not synchronise.

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
        if self._host is not None or not self._hooks.active:
            self.verify()
        self.advance(getattr(self.optimizer, "found_inf", None))

    def seek(self, step: int) -> None:
        """Continue as if `step` steps had been completed; the groups hold that step's values at once.

        Raises:
            ScheduleError: step is negative or not an int.
            BindingError: the schedule is detached.
        """
        self._require_attached()
        at = check_count("seek: step", step)
        for engine in self._engines:
            engine.seek(at)
        self.bind()

    def state_dict(self) -> dict[str, Any]:
        """Where the clock is and which schedules it counts for: plain numbers, strings, lists and dicts.

        Loads with `torch.load(weights_only=True)`, on any device. Synchronises as `step_count` does.
        """
        return write_state(self.step_count, self._schedules())

    def load_state_dict(self, state: Mapping[str, Any], *, on_mismatch: str = "error") -> None:
        """Continue from a saved step. The order with `optimizer.load_state_dict` does not matter: the clock decides.

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
        self.seek(read_state(state, self._schedules(), on_mismatch))

    def detach(self) -> None:
        """Give the optimizer back: plain floats with the current values in the groups, every hook removed.

        Where a group held a tensor before, that same tensor gets the current value. A second call does nothing.
        """
        if not self._attached:
            return
        self._hooks.remove()
        step = self.step_count
        groups = param_groups(self.optimizer)
        for slot in self.slots:
            value = slot.schedule(step)
            restored = slot.original.fill_(value) if isinstance(slot.original, torch.Tensor) else value
            put(groups[slot.request.group], slot.request.key, slot.request.element, restored)
        self._attached = False
        ATTACHMENTS.discard(self)

    # -- what the hooks call --------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Put every slot's value into the optimizer's present param_groups, whatever they hold."""
        self._groups = param_groups(self.optimizer)
        self._group_count = len(self._groups)
        for slot in self.slots:
            if slot.template is not None:  # a checkpoint without the key may have taken it away
                self._groups[slot.request.group].setdefault(slot.request.key, slot.template)
        for binder in self._binders:
            binder.bind(self._groups)

    def verify(self) -> None:
        """Check that the slots hold what was put there, and take in groups that are new.

        Raises:
            BindingError: a slot holds something else, or a param_group was added and nothing says what it gets.
                Nothing has changed.
        """
        groups = self.optimizer.param_groups
        if len(groups) != self._group_count:
            self._adopt(groups)
        elif groups is not self._groups:
            self.bind()
        for binder in self._binders:
            if not binder.intact():
                self._name_displaced()

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one step and fill the slots, unless `found_inf` is not 0. Reads it on the host for host slots only."""
        if self._host is not None:
            if found_inf is not None and found_inf.item() != 0:
                return
            found_inf = None
            self._host.engine.advance()
            self._host.write()
        if self._resident is not None:
            engine = self._resident.engine
            # GradScaler leaves it on the loss's device, which is another one where a model is spread over several.
            engine.advance(found_inf if found_inf is None else found_inf.to(engine.clock.device))

    def write_plain(self, groups: Sequence[dict[str, Any]]) -> None:
        """Replace the live views in the groups of a state_dict by the floats that they stand for."""
        on_device = [slot for slot in self.slots if slot.resident]
        step = self.step_count if on_device else 0
        for slot in on_device:
            put(groups[slot.request.group], slot.request.key, slot.request.element, slot.schedule(step))

    def _adopt(self, groups: Sequence[dict[str, Any]]) -> None:
        """Schedule the hyperparameters of groups that were added since, as `new_groups` says."""
        self._require_attached()
        first, rule = self._group_count, self._options.new_groups
        if rule is None or len(groups) < first:
            raise BindingError(
                f"the optimizer has {len(groups)} param_groups and had {first} when the schedule was attached; pass "
                "new_groups={'lr': schedule, ...} (or a function of the group that returns such a dict) to attach(), "
                "or call detach() and attach() again"
            )
        device = engine_device(groups)
        slots = list(self.slots)
        for index in range(first, len(groups)):
            wanted = rule(groups[index]) if callable(rule) else rule
            alone = {key: [None] * index + [value] for key, value in wanted.items()}
            requests = read_requests(groups[: index + 1], alone) if alone else []
            slots += [self._place(groups[index], r, device) for r in requests]
        step = self.step_count
        self._build(slots)
        self.seek(step)

    def _place(self, group: Mapping[str, Any], request: Request, device: torch.device) -> Slot:
        return place_slot(self.optimizer, group, request, resident=self._options.resident, device=device)

    def _name_displaced(self) -> None:
        """Find the slot that holds something else than its value, and raise; a write of the same value is no harm."""
        self._require_attached()
        step = self.step_count
        for slot in self.slots:
            group, key, element = slot.place
            found = held(self._groups[group], key, element)
            expected = slot.schedule(step)
            same = found is self._expected(slot) if slot.resident else not isinstance(found, torch.Tensor)
            number = as_float(found)
            # Two float32 roundings: what is read from a resident slot has one, and so may what was written.
            if not same or number is None or abs(number - expected) > abs(expected) * 2**-23 + 2**-149:
                raise displaced(slot.name, expected, found, step)
        self.bind()

    # -- text and copies ------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return slot_table(
            self.slots, self.free, self.step_count, auto=self._options.auto, attached=self._attached
        )

    def __repr__(self) -> str:
        return f"<Attachment of {len(self.slots)} slots to {type(self.optimizer).__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        self._require_attached()
        return _again, (self.optimizer, self.slots, self.free, self._options, self.step_count)

    def _schedules(self) -> dict[str, Schedule]:
        return {slot.name: slot.schedule for slot in self.slots} | self.free

    def _expected(self, slot: Slot) -> torch.Tensor | float:
        binder = self._resident if slot.resident else self._host
        assert binder is not None  # noqa: S101  there is one for each kind of slot that exists
        return binder.value(slot)

    def _require_attached(self) -> None:
        if not self._attached:
            raise BindingError("this schedule is detached and controls nothing; attach() again")


def _again(
    optimizer: Any, slots: Sequence[Slot], free: Mapping[str, Schedule], options: Options, step: int
) -> Attachment:
    """An attachment from its copied or unpickled parts, at its step."""
    attachment = Attachment(optimizer, slots, free, options)
    attachment.seek(step)
    return attachment

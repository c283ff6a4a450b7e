"""Attachment: what controls an optimizer's scheduled hyperparameters from `attach` on."""

from __future__ import annotations

import threading
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
from tensorsched.schedules.fields import check_count, shown
from tensorsched.table import bounded, tabulate

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
        self._build(slots, len(param_groups(optimizer)))
        self._attached = True
        self.bind()
        self._hooks = Hooks(optimizer, self, auto=options.auto)
        with _LOCK:
            _ATTACHMENTS.add(self)

    def _build(self, slots: Sequence[Slot], group_count: int) -> None:
        """Tables, engines and writers for these slots; nothing of the optimizer changes."""
        if clash := self.free.keys() & {slot.name for slot in slots}:
            raise BindingError(f"free: {min(clash)!r} is the name of a slot; rename it")
        on_device = [slot for slot in slots if slot.resident]
        on_host = [slot for slot in slots if not slot.resident]
        resident: ResidentBinder | None = None
        host: HostWriter | None = None
        if on_device or self.free:
            columns = self.free | {slot.name: slot.schedule for slot in on_device}
            device = engine_device(param_groups(self.optimizer))
            table = tabulate(columns, device=device)
            resident = ResidentBinder(ScheduleEngine(table), on_device)
        if on_host:
            columns = {slot.name: slot.schedule for slot in on_host}
            table = tabulate(columns, dtype=torch.float64)
            host = HostWriter(HostEngine(table), on_host)
        self.slots = tuple(slots)
        self._group_count = group_count
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
        if self._host is not None or not self._hooks.active:
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
        self._take_in_new_groups()
        for engine in self._engines:
            engine.seek(at)
        self.bind()

    def state_dict(self) -> dict[str, Any]:
        """Where the clock is and which schedules it counts for: plain numbers, strings, lists and dicts.

        Loads with `torch.load(weights_only=True)`, on any device. Synchronises as `step_count` does.
        """
        self._take_in_new_groups()
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
        self._take_in_new_groups()
        self.seek(read_state(state, self._schedules(), on_mismatch))

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
        if not self._attached:
            return
        self._attached = False
        with _LOCK:
            _ATTACHMENTS.discard(self)
        self._hooks.remove()
        step = self.step_count
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
        for binder in self._binders:
            binder.bind(groups)

    @property
    def writes_floats(self) -> bool:
        """Whether there are host slots, which the next advance will overwrite."""
        return self._host is not None

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
            intact = not self._suspect and all([binder.intact(groups) for binder in self._binders])  # noqa: C419
        except (KeyError, IndexError, TypeError):  # a key, or an element of a tuple, is gone
            intact = False
        if not intact:
            self._name_displaced(groups)

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
        on_device = [slot for slot in self.slots if slot.resident and slot.request.group < len(groups)]
        step = self.step_count if on_device else 0
        for slot in on_device:
            put(groups[slot.request.group], slot.request.key, slot.request.element, slot.schedule(step))

    def _take_in_new_groups(self) -> None:
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
        slots = list(self.slots)
        for index in range(first, len(groups)):
            wanted = rule(groups[index]) if callable(rule) else rule
            if not isinstance(wanted, Mapping):
                raise BindingError(f"new_groups must give a dict for group {index}, got {shown(wanted)}")
            alone = {key: [None] * index + [value] for key, value in wanted.items() if value is not None}
            requests = read_requests(groups[: index + 1], alone) if alone else []
            refuse_claimed(self.optimizer, requests)
            slots += [place_slot(self.optimizer, groups[index], r, self._options, device) for r in requests]
        step = self.step_count
        self._build(slots, len(groups))
        self.seek(step)

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
            same = found is self._expected(slot) if slot.resident else not isinstance(found, torch.Tensor)
            # Two float32 roundings: what is read from a resident slot has one, and so may what was written.
            near = number is not None and abs(number - expected) <= abs(expected) * 2**-23 + 2**-149
            if not (same and near):
                raise displaced(slot.name, expected, found, step)
        self._suspect = False
        self.seek(step)

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

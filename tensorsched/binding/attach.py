"""attach(): put schedules on an optimizer's hyperparameters; Attachment: what controls them from then on."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.lifecycle import Hooks, displaced, has_hooks
from tensorsched.binding.report import slot_table
from tensorsched.binding.request import Request, as_float, param_groups, read_requests
from tensorsched.binding.slots import HostWriter, ResidentBinder, Slot, held, put
from tensorsched.binding.support import device_of, judge
from tensorsched.engine import HostEngine, ScheduleEngine
from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule
from tensorsched.schedules.fields import check_count, refuse
from tensorsched.table import tabulate

__all__ = ["Attachment", "attach"]

_ATTACHMENTS: weakref.WeakSet[Attachment] = weakref.WeakSet()


def attach(
    optimizer: Any,
    *,
    advance: str = "auto",
    resident: bool | str = "auto",
    steps: int | None = None,
    free: Mapping[str, Schedule] | None = None,
    **hyperparameters: Any,
) -> Attachment:
    """Let schedules set an optimizer's hyperparameters; from now on they advance with its steps.

    The groups hold the values of step 0 when this returns; after each `optimizer.step()` they hold the next ones.

    Args:
        optimizer: a torch optimizer, or any object with a `param_groups` list of dicts.
        advance: "auto" (default): after each `optimizer.step()`, by torch's hook. "manual": when you call
            `sched.step()`.
        resident: "auto" (default) keeps a value in a device tensor where the optimizer reads it there without a
            synchronisation, and as a Python float elsewhere; on a CPU always as a float, unless the group held a
            tensor. True or False forces one or the other.
        steps: length of the run, for schedules that never settle (inverse_sqrt, endless repeats).
        free: schedules by name that belong to no param_group (a loss weight, an EMA decay): `sched.value(name)` is a
            tensor that is always current.
        **hyperparameters: a param_group key each (lr, weight_decay, momentum, betas, ...). The value is a schedule or a
            number for every group, a list with one for each group (None leaves a group alone), or, for a key that holds
            a tuple, a tuple with one for each element (None leaves an element alone). `ts.initial` in a schedule stands
            for what the group holds now.

    Returns:
        The Attachment; keep it to look at it, save it or detach it. It works without being kept.

    Raises:
        BindingError: the optimizer has no param_groups, a key or list does not fit, a slot already follows another
            schedule, `resident=True` would synchronise, or "auto" has no hook to advance by. The optimizer is as
            before.
        ScheduleError: a schedule cannot be tabulated. The optimizer is as before.

    May synchronise (it reads what the groups hold); the steps afterwards do not where the slots are resident or
    plain host slots, see `print(sched)`.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))], lr=1e-3)
        >>> sched = ts.attach(optimizer, lr=ts.linear(0.0, 1e-3, steps=4) >> ts.cosine(1e-3, 0.0, steps=96))
        >>> optimizer.step(), optimizer.param_groups[0]["lr"], sched.step_count
        (None, 0.00025, 1)
    """
    groups = param_groups(optimizer)
    if advance not in ("auto", "manual"):
        raise _bad_option("advance", "'auto' or 'manual'", advance)
    if resident not in ("auto", True, False):
        raise _bad_option("resident", "'auto', True or False", resident)
    if advance == "auto" and not has_hooks(optimizer):
        raise BindingError(
            f"{type(optimizer).__name__} has no step hooks (it is no torch.optim.Optimizer), so nothing would "
            "advance the "
            "schedule; pass advance='manual' and call sched.step() after each optimizer step"
        )
    requests = read_requests(groups, hyperparameters)
    _refuse_claimed(optimizer, requests)
    device = next((d for d in map(device_of, groups) if d is not None), torch.device("cpu"))
    slots = [
        _slot(optimizer, groups[request.group], request, resident=resident, device=device)
        for request in requests
    ]
    return Attachment(optimizer, slots, dict(free or {}), device, steps, auto=advance == "auto")


class Attachment:
    """The schedules on one optimizer: what `attach` returns.

    `print(sched)` shows every slot: where it is, its value now, its schedule, and why it is resident or not.
    """

    def __init__(
        self,
        optimizer: Any,
        slots: Sequence[Slot],
        free: dict[str, Schedule],
        device: torch.device,
        steps: int | None,
        *,
        auto: bool,
    ) -> None:
        on_device = [slot for slot in slots if slot.resident]
        on_host = [slot for slot in slots if not slot.resident]
        device_columns = free | {slot.request.name: slot.request.schedule for slot in on_device}
        host_columns = {slot.request.name: slot.request.schedule for slot in on_host}
        self.optimizer = optimizer
        self.slots = tuple(slots)
        self.free = free
        self.auto = auto
        # Everything that can fail comes first; the optimizer is touched by bind() and the hooks alone.
        self._resident: ResidentBinder | None = None
        self._host: HostWriter | None = None
        if device_columns:
            engine = ScheduleEngine(tabulate(device_columns, steps=steps, device=device))
            self._resident = ResidentBinder(engine, on_device)
        if host_columns:
            table = tabulate(host_columns, steps=steps, dtype=torch.float64)
            self._host = HostWriter(HostEngine(table), on_host)
        self._binders = [binder for binder in (self._resident, self._host) if binder is not None]
        self._engines = [binder.engine for binder in self._binders]
        self._attached = True
        self.bind()
        self._hooks = Hooks(optimizer, self, auto=auto)
        _ATTACHMENTS.add(self)

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
        found = [s for s in self.slots if s.request.key == name and s.request.group == group]
        if element is not None:
            found = [s for s in found if s.request.element == element]
        if len(found) != 1:
            raise BindingError(
                f"{'no' if not found else 'more than one'} slot is {name!r} of group {group}"
                f"{'' if element is None else f', element {element}'}; there are {', '.join(self._names())}"
            )
        return self._expected(found[0])

    def step(self) -> None:
        """Advance by one step (only with advance="manual"), after `optimizer.step()`. Does not synchronise.

        Raises:
            BindingError: the schedule advances by itself, is detached, or something else wrote to a slot.
        """
        if self.auto:
            raise BindingError(
                "this schedule advances by itself after each optimizer.step(), so step() would count twice; "
                "pass advance='manual' to attach() to call it yourself"
            )
        self._require_attached()
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
        if self._host is not None:
            self._host.write()

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
            value = slot.request.schedule(step)
            restored = slot.original.fill_(value) if isinstance(slot.original, torch.Tensor) else value
            put(groups[slot.request.group], slot.request.key, slot.request.element, restored)
        self._attached = False
        _ATTACHMENTS.discard(self)

    # -- what the hooks call --------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Put every slot's value into the optimizer's present param_groups."""
        self._groups = param_groups(self.optimizer)
        self._group_count = len(self._groups)
        for binder in self._binders:
            binder.bind(self._groups)

    def verify(self) -> None:
        """Check that the slots hold what was put there, and that the groups are the ones that were bound.

        Raises:
            BindingError: a slot holds something else, or a param_group was added. Nothing has changed.
        """
        groups = self.optimizer.param_groups
        if groups is not self._groups or len(groups) != self._group_count:
            self._require_attached()
            if len(groups) != self._group_count:
                raise BindingError(
                    f"the optimizer has {len(groups)} param_groups and had {self._group_count} when the schedule was "
                    "attached; call detach() and attach() again, with a schedule for the new group"
                )
            self.bind()
        for binder in self._binders:
            if not binder.intact():
                self._name_displaced()

    def _name_displaced(self) -> None:
        """Find the slot that holds something else than its value, and raise; a write of the same value is no harm."""
        for slot in self.slots:
            group, key, element = slot.place
            found = held(self._groups[group], key, element)
            expected = slot.request.schedule(self.step_count)
            same = found is self._expected(slot) if slot.resident else not isinstance(found, torch.Tensor)
            number = as_float(found)
            if not same or number is None or abs(number - expected) > abs(expected) * 2**-22:
                raise displaced(slot.request.name, expected, found, self.step_count)
        self.seek(self.step_count)

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one step and fill the slots, unless `found_inf` is not 0. Reads it on the host for host slots only.

        Raises:
            BindingError: a host slot holds something else than what was put there. The clock has not moved.
        """
        if self._host is None:
            if self._resident is not None:
                self._resident.engine.advance(found_inf)
            return
        if found_inf is not None and found_inf.item() != 0:
            return
        for engine in self._engines:
            engine.advance()
        if not self._host.replace():
            step = self.step_count - 1
            for engine in self._engines:
                engine.seek(step)
            self._name_displaced()

    def write_plain(self, groups: Sequence[dict[str, Any]]) -> None:
        """Replace the live views in the groups of a state_dict by the floats that they stand for."""
        if any(slot.resident for slot in self.slots):
            step = self.step_count
            for slot in self.slots:
                if slot.resident:
                    put(
                        groups[slot.request.group],
                        slot.request.key,
                        slot.request.element,
                        slot.request.schedule(step),
                    )

    # -- text -----------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return slot_table(self.slots, self.free, self.step_count, auto=self.auto, attached=self._attached)

    def __repr__(self) -> str:
        return f"<Attachment of {len(self.slots)} slots to {type(self.optimizer).__name__}>"

    def _names(self) -> list[str]:
        return [*(slot.request.name for slot in self.slots), *self.free]

    def _expected(self, slot: Slot) -> torch.Tensor | float:
        binder = self._resident if slot.resident else self._host
        assert binder is not None  # noqa: S101  there is one for each kind of slot that exists
        return binder.value(slot)

    def _require_attached(self) -> None:
        if not self._attached:
            raise BindingError("this schedule is detached and controls nothing; attach() again")


def _bad_option(name: str, rule: str, value: object) -> BindingError:
    return BindingError(str(refuse(f"attach: {name}", rule, value)))


def _refuse_claimed(optimizer: object, requests: Sequence[Request]) -> None:
    claimed = {
        slot.place: other for other in _ATTACHMENTS if other.optimizer is optimizer for slot in other.slots
    }
    for request in requests:
        if request.place in claimed:
            raise BindingError(
                f"{request.name} already follows the schedule of another attachment; call detach() on that one "
                "first, or "
                "give this one other keys"
            )


def _slot(
    optimizer: object, group: dict[str, Any], request: Request, *, resident: bool | str, device: torch.device
) -> Slot:
    """Decide where a slot's value lives."""
    verdict = judge(optimizer, group, request.key, request.element)
    original = held(group, request.key, request.element)
    here = device_of(group)
    stays = here == device  # the engine has one device; a group elsewhere would copy at each step
    why = verdict.why
    if resident is True:
        if verdict.raises or not stays or (not verdict.free and device.type != "cpu"):
            reason = verdict.why if stays else f"its parameters are on {here}, the live values on {device}"
            raise BindingError(
                f"{request.name} cannot be resident without a synchronisation at every step: {reason}; pass "
                "resident='auto' "
                "(a host slot, which needs none), or build the optimizer with capturable=True or fused=True"
            )
        chosen = True
    elif resident is False:
        chosen, why = False, "resident=False"
    elif device.type == "cpu":
        chosen = isinstance(original, torch.Tensor) and not verdict.raises
        why = "the group held a tensor" if chosen else "on a CPU a float is exact and fastest"
    else:
        chosen = verdict.free and stays
        why = verdict.why if stays else f"its parameters are not all on {device}"
    return Slot(request, chosen, why, original)

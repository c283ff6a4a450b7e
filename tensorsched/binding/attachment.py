"""Attachment: what controls an optimizer's scheduled hyperparameters from `attach` on, as users see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.arguments import param_groups, read_free
from tensorsched.binding.checkpoint import read_state, write_state
from tensorsched.binding.controls import Controls, forget
from tensorsched.binding.placement import Options, read_rewrite
from tensorsched.binding.slots import Slot, put
from tensorsched.binding.summary import slot_table
from tensorsched.compiled.graph_mode import restore
from tensorsched.engine.table import bounded
from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule
from tensorsched.schedules.views.plot import plot_parts

__all__ = ["Attachment"]


class Attachment(Controls):
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
        self._wiring.advance(found_inf)

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
        for step in self.graph_users:
            step.check_rewrite(schedules)
        wirings = [self._eager] if self._graph is None else [self._eager, self._graph.wiring]
        for commit in [wiring.rewrite(schedules, names) for wiring in wirings]:
            commit()
        self.free |= names
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
        parts: dict[str, dict[Schedule, list[int]]] = {}
        for slot in self.slots:
            parts.setdefault(slot.request.part, {}).setdefault(slot.schedule, []).append(slot.request.group)
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
        self._hooks.remove()
        self.generation += 1
        step = self.step_count
        self.use_eager(for_good=True)
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

    def __str__(self) -> str:
        return slot_table(
            self.slots, self.free, self.step_count, auto=self._options.auto, attached=self.attached
        )

    def __repr__(self) -> str:
        return f"<Attachment of {len(self.slots)} slots to {type(self.optimizer).__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        self._require_attached()
        at, graph = self._eager.slot_at, self._graph
        slots = [at[place] for place in self._places]
        flags = graph.flags if graph is not None and self.graph_active else []
        return _again, (
            self.optimizer,
            slots,
            self.free,
            self._options,
            self.step_count,
            self._eager.room,
            flags,
        )


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
    restore(optimizer.param_groups, flags)  # no compiled step is copied with it
    attachment = Attachment(optimizer, slots, free, dataclasses.replace(options, capacity=room))
    attachment._options = options  # noqa: SLF001  groups that are added later are not bound to that room
    attachment.seek(step)
    return attachment

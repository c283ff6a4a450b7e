"""Attachment: the schedules on one optimizer, from `attach` on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tensorsched.binding import events, resuming
from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.carried import shared_out
from tensorsched.binding.history import History
from tensorsched.binding.hooks import unreported
from tensorsched.binding.kept import LastUsed
from tensorsched.binding.methods import changing, reading, running, saving
from tensorsched.binding.placement import Options
from tensorsched.binding.registry import attachments_of, remember
from tensorsched.binding.slots import Slot
from tensorsched.engine import Where
from tensorsched.param_groups import param_groups, put_back
from tensorsched.schedules import Schedule

__all__ = ["Attachment"]


class Attachment(AttachmentBase):
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
        others = attachments_of(optimizer)
        super().__init__(optimizer, slots, free, options)  # all that can fail; then the optimizer is touched
        groups = param_groups(optimizer)
        known = [(self._carrier, self._fingerprint())]
        (carrier,) = (self._carrier,) = shared_out(known, groups[0], [other._carrier for other in others])
        # Read before placeholders are put in their place.
        carried, numbers = carrier.read(groups), carrier.read_inputs(groups)
        other_clock = carried is None and bool(groups[0].get(carrier.schedules))
        self._bind()  # before the hooks, which take over the mover of what is bound
        self._hooks.register(optimizer, self, auto=options.auto)
        self._uncertain = self._stepped = not self._hooks.active or unreported(optimizer)
        if self._hooks.active:
            carrier.mark(groups, self._originals(), self._numbered())
        resuming.go_on_from(self, carried, numbers)
        if other_clock:
            self._doubt = (
                f"the optimizer's checkpoint was saved under schedules on another clock, and these begin at "
                f"{self._words(self._mode.where)}: load the schedule's own state, call seek(), or attach with the "
                "clock of before"
            )
        self._bind()  # the values of the step that was gone on from; and the hooks hear of a doubt
        for other in others:
            other._make_graphs_stale()  # a compiled step of it must look again at what else is there
        remember(self)

    # Every name of it, by what it is for; each is written in the module that it comes from.

    # What it is.
    free: dict[str, Schedule]
    attached: bool
    optimizer = AttachmentBase.optimizer
    slots = AttachmentBase.slots
    step_count = AttachmentBase.step_count
    position = AttachmentBase.position
    # Looking at it.
    value = reading.value
    schedule = reading.schedule
    history = reading.history
    used = reading.used
    log = reading.log
    plot = reading.plot
    check = reading.check
    __str__ = reading.text
    # What a run tells it.
    step = running.step
    count = running.count
    progress = running.progress
    inputs = AttachmentBase.inputs
    observe = running.observe
    lr_scheduler = running.lr_scheduler
    # Changing the plan.
    rewrite = changing.rewrite
    cool_down = changing.cool_down
    extend = changing.extend
    adopt = changing.adopt
    hand_over = changing.hand_over
    detach = AttachmentBase.detach
    # Going elsewhere, and going on.
    seek = saving.seek
    state_dict = saving.state_dict
    load_state_dict = saving.load_state_dict
    # What its hooks, its modes and compiled steps call.
    _say = events.say
    _settle = events.settle
    _whole = events.whole
    _take_in_new_groups = events.take_in_new_groups
    _saved = resuming.saved
    _loaded = resuming.loaded

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
        inputs = None if self._mode.inputs is None else self._mode.inputs.state()
        last = self._last.all(self._mode)
        more = (self._mode.where, room, flags, self._history.copy(), self._stepped, last, inputs)
        return _again, (self.optimizer, slots, self.free, self._options, *more)


def _again(  # noqa: PLR0917  pickle's
    optimizer: Any,
    slots: Sequence[Slot],
    free: Mapping[str, Schedule],
    options: Options,
    where: Where,
    room: int,
    flags: Sequence[dict[str, Any]],
    history: History,
    stepped: bool,  # noqa: FBT001
    last: Mapping[str, float],
    inputs: Mapping[str, Any] | None = None,
) -> Attachment:
    """An attachment from its copied or unpickled parts, at its step, with the same room for other schedules."""
    put_back(optimizer.param_groups, flags)  # no compiled step is copied with it
    attachment = Attachment(optimizer, slots, free, dataclasses.replace(options, capacity=room))
    attachment._optimizer = lambda: optimizer  # copied with it: perhaps nobody else holds this one
    if attachment._mode.inputs is not None:
        attachment._mode.inputs.load(attachment._mode.inputs.read(inputs))
    attachment._options = options  # groups that are added later are not bound to that room
    attachment._go(where)
    attachment._history, attachment._stepped, attachment._last = history, stepped, LastUsed(last)
    return attachment

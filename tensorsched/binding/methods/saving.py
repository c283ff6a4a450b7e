"""Where a run stands: going elsewhere, what a checkpoint keeps, and going on from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.checkpoint import read_state
from tensorsched.binding.clocked import write_clock
from tensorsched.binding.events import take_in_new_groups
from tensorsched.binding.following import follow
from tensorsched.binding.resuming import apart
from tensorsched.binding.state_format import write_state
from tensorsched.engine import Where
from tensorsched.schedules.validators import check_count

__all__ = ["load_state_dict", "seek", "state_dict"]


def seek(sched: AttachmentBase, step: int) -> None:
    """Continue as if `step` steps had been completed; the groups hold that step's values at once.

    On a clock it is a position, in its unit; the step count stays as it is, and what was counted is forgotten.

    Raises:
        ScheduleError: step is negative or not an int.
        BindingError: the schedule is detached.

    Does not synchronise.
    """
    sched._require_attached()
    at = check_count("seek: step", step)
    take_in_new_groups(sched)
    sched._history.add("seek", sched._made(), goes_on=at)
    if sched._options.clock is None:
        sched._go(Where.at_step(at))
    else:
        sched._go(Where(at, sched.step_count, at))


def state_dict(sched: AttachmentBase) -> dict[str, Any]:
    """The step counter, the schedules that it counts for, and every change of them: plain numbers and strings.

    Loads with `torch.load(weights_only=True)`, on any device. Its keys are the same for all schedules, as formats
    want that save entry by entry (torch.distributed.checkpoint). Synchronises as `step_count` does.
    """
    take_in_new_groups(sched)
    return _state(sched, sched._next())


def load_state_dict(
    sched: AttachmentBase, state: Mapping[str, Any], *, on_mismatch: str | None = None
) -> None:
    """Continue from a saved step, with its history. The order with `optimizer.load_state_dict` does not matter.

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

    May synchronise, as `step_count`; with "saved" as `rewrite`.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
        >>> optimizer.step()
        >>> state = sched.state_dict()  # torch.save(state, path)
        >>> ts.detach(optimizer)
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
        >>> sched.load_state_dict(state), sched.step_count, sched.value("lr")
        (None, 1, 0.75)
    """
    sched._require_attached()
    take_in_new_groups(sched)
    how = sched._options.on_mismatch if on_mismatch is None else on_mismatch
    where, schedules, cells, history = read_state(state, sched._schedules(), how, sched._options.clock)
    restarts = how == "restart" and where.position == 0  # on purpose
    other = "" if restarts else apart(sched, "state", where)
    if schedules:
        follow(sched, schedules)
    if sched._mode.inputs is not None:
        sched._mode.inputs.load(cells)
    sched._last.forget(sched._mode)
    sched._go(where)
    sched._history = history
    sched._read_from = None if restarts else ("state", where)
    if other:
        sched._doubt = f"{other} {sched._words(where)}"
        sched._hooks.follow(sched._mode.fast(sched))


def _state(sched: AttachmentBase, where: Where) -> dict[str, Any]:
    inputs = None if sched._mode.inputs is None else sched._mode.inputs.state()
    return write_state(where.steps, sched._schedules(), sched._history, inputs) | write_clock(
        sched._options.clock, where
    )

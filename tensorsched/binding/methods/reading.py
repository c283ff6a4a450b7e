"""Looking at an attachment: its values and schedules, what was used, what was changed, pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.coverage import coverage
from tensorsched.binding.group_names import check_address, group_names
from tensorsched.binding.history import Change, Used
from tensorsched.binding.last_used import last_used
from tensorsched.binding.slots import Slot
from tensorsched.binding.summary import slot_table
from tensorsched.binding.workers import refuse_in_worker
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule
from tensorsched.schedules.check import Finding
from tensorsched.schedules.node import brief
from tensorsched.schedules.validators import shown
from tensorsched.schedules.views.plot import plot_parts

__all__ = ["check", "history", "log", "plot", "schedule", "text", "used", "value"]

_AS_NOW = ", with its inputs as they are now"


def value(
    sched: AttachmentBase, name: str, group: int | str = 0, element: int | None = None
) -> torch.Tensor | float:
    """What a slot or free name holds now: a float, or of a tensor slot or a free name the 0-dim live tensor.

    Of a filled slot it is the group's own tensor.

    Args:
        name: the param_group key, or a name from `free`.
        group: index of the param_group, or what it holds under "name".
        element: index into a tuple such as betas; not needed where only one element is scheduled.

    Raises:
        BindingError: no such slot or group, or it is asked for in a worker of a DataLoader: every value would stand
            still there. The tensor of a free name may be handed to the data set: workers see what it holds.

    Does not synchronise.
    """
    refuse_in_worker("value()")
    check_address(name, group, element)
    if name in sched.free:
        return sched._mode.free_value(name)
    return sched._mode.expected(_slot(sched, name, group, element))


def schedule(sched: AttachmentBase, name: str, group: int | str = 0, element: int | None = None) -> Schedule:
    """The schedule that a slot or free name follows; `ts.initial` in it is a number by now.

    Args:
        name: the param_group key, or a name from `free`.
        group: index of the param_group, or its name.
        element: index into a tuple such as betas; not needed where only one element is scheduled.

    Raises:
        BindingError: no such slot.

    Does not synchronise.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.5)
        >>> ts.attach(optimizer, lr=ts.initial * ts.linear(1.0, 0.0, steps=4)).schedule("lr")
        0.5 * linear(1.0, 0.0, steps=4)
    """
    check_address(name, group, element)
    return sched.free[name] if name in sched.free else _slot(sched, name, group, element).schedule


def history(sched: AttachmentBase) -> list[Change]:
    r"""Every change of the run, from `attach` on, in order: what was done at which step, and what followed what.

    It is part of `state_dict`, and of the run that loads it.

    Returns:
        A list of `Change`s: step, what, goes_on (another step where the counter was set), and schedules (by name,
        before and after), and unit: on a clock step and goes_on are positions. `print(*sched.history(), sep="\n")`
        shows a line each.

    Synchronises as `step_count` where a change was made while only the device knew the step.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.constant(1.0))
        >>> optimizer.step(), sched.cool_down(4)
        (None, None)
        >>> print(*sched.history(), sep="\n")
        step 0, attach: lr[group 0]: no schedule -> constant(1.0)
        step 1, cool_down: lr[group 0]: constant(1.0) -> constant(1.0, steps=1) >> linear(1.0, 0.0, steps=4)
    """
    clock = sched._options.clock
    return sched._history.changes("step" if clock is None else clock.unit)


def used(
    sched: AttachmentBase,
    name: str,
    group: int | str = 0,
    element: int | None = None,
    *,
    at: Sequence[int] | None = None,
) -> Used:
    """What a slot or free name really used at every completed step of the run, across changes and checkpoints.

    On a clock that is told by the position; at which positions steps were made is not kept (log `sched.position`).

    Args:
        name: the param_group key, or a name from `free`.
        group: index of the param_group, or its name.
        element: index into a tuple such as betas; not needed where only one element was scheduled.
        at: the steps, or positions, that are wanted, ints that the run has passed; of those that it has passed twice
            the last time counts.

    Returns:
        `Used`, two arrays with an entry for each completed step that is known of, in the order in which they were
        made: steps (int64) and values (float64; a tensor slot used their rounding to float32). Steps come twice
        where the run was set back. Unknown is what was before a `seek` at the start, or before a checkpoint of the
        optimizer alone, or of version 1. On a clock steps are up to 1024 evenly spaced positions from each change of
        the plan to the next, and values what a step there used, within the clock's `error`.

    Raises:
        BindingError: nothing of that name was ever scheduled, or not at one of `at`; or the values depend on live
            inputs, and what these were at each step is not kept: `log()` after each tells.
        ScheduleError: `at` is no list of whole numbers.

    Synchronises as `step_count` does.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.constant(1.0))
        >>> optimizer.step(), sched.cool_down(2), optimizer.step(), optimizer.step()
        (None, None, None, None)
        >>> steps, values = sched.used("lr")  # plt.plot(steps, values)
        >>> values.tolist()
        [1.0, 1.0, 0.5]
    """
    column = _column(sched, name, group, element)
    if live := [s for s in sched._history.ever(column) if s.inputs()]:
        raise BindingError(
            f"used() is not known of a schedule with live inputs ({brief(live[0])}): what these were at each step is "
            "not kept; call sched.log() after each optimizer.step() and keep that"
        )
    refuse_in_worker("used()")
    now, clock = sched.position, sched._options.clock
    each = clock.resolution or 1 if clock is not None and clock.between == "hold" else 1
    if at is not None:
        return sched._history.used_at(column, now, at, each)
    if clock is not None:
        return sched._history.used_on_clock(column, now, each)
    return sched._history.used(column, now)


def log(sched: AttachmentBase) -> dict[str, float]:
    """What the last completed step used, as plain floats, for a logger.

    TensorBoard: `for name, value in sched.log().items(): writer.add_scalar(name, value, sched.step_count)`;
    Weights & Biases: `wandb.log(sched.log())`; Lightning: `self.log_dict(sched.log())`.

    Returns:
        A value for each slot, "lr/0" of group 0, "lr/decay" where groups have different "name"s, "betas[1]/0" of an
        element, and for each free name, "kl". Of a tensor slot the float32 that it held. Nothing before the first
        step that is known of (`used`), and nothing when all was handed over or is detached: others' steps follow.
        On a clock, and with live inputs, nothing before the first step since a checkpoint was loaded; and of tensor
        slots with live inputs on a device nothing at the first call, if an input was written since the last step: from
        then on each step leaves there what it used.

    Raises:
        BindingError: it is asked for in a worker of a DataLoader.

    Does not synchronise where all slots are float slots. Of tensor slots on a device that is no CPU it reads the device
    where only that knows: the step, after a fused step under GradScaler and while steps run in a graph; the position of
    a clock; values that depend on live inputs. (What a group holds between two steps is what the next one uses.)

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4), free={"kl": ts.constant(0.5)})
        >>> sched.log(), optimizer.step(), sched.log()
        ({}, None, {'lr/0': 1.0, 'kl': 0.5})
    """
    refuse_in_worker("log()")
    return last_used(sched) if sched.attached else {}


def check(sched: AttachmentBase, *models: torch.nn.Module) -> list[Finding]:
    """What is odd about which group has which parameter, as `Plan.check`; empty if nothing is.

    Args:
        *models: all that the optimizer trains.

    Returns:
        Findings: parameters that no group has, that two have, that are frozen or of another model; groups whose lr
        follows no schedule.

    Raises:
        BindingError: no model, or something that is none.

    Does not synchronise.

    Example:
        >>> import torch, tensorsched as ts
        >>> model = torch.nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD([{"params": [model.weight], "name": "matrix"}, {"params": [model.bias]}])
        >>> print(*ts.attach(optimizer, lr=[ts.linear(0.1, 0.0, steps=9), None]).check(model))
        follows-nothing: the lr of group 1 follows no schedule and stays as it is
    """
    return coverage({"": sched.optimizer}, models)


def plot(sched: AttachmentBase, *, steps: int | None = None, log: bool | None = None) -> list[Any]:
    """Draw every slot and free name over the steps, the current one marked, with matplotlib.

    Up to the current step that is what was used (see `used`), from there on the plan.
    What depends on live inputs is drawn with these as they are now, and labelled so.

    Args:
        steps: the last step to show; default: as far as the longest schedule needs.
        log: logarithmic value axes: True, False, or None (default) where it shows more.

    Returns:
        The matplotlib Axes, a panel for each hyperparameter and for each free name. Synchronises as `step_count`
        does.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (`pip install 'tensorsched[plot]'`).
    """
    inputs = sched._mode.inputs
    values = {} if inputs is None else inputs.values()
    reactive = {s.place.part for s in sched.slots if s.schedule.inputs()}
    parts: dict[str, dict[Schedule, list[int]]] = {}
    now = sched.position

    def fixed(schedule: Schedule) -> Schedule:
        return cast("Schedule", schedule._with_inputs(values))

    drawn: dict[Any, Schedule] = {}  # slots that followed the same all along are drawn once
    for slot in sched.slots:
        part = slot.place.part + (_AS_NOW if slot.place.part in reactive else "")
        followed = sched._history.followed(slot.name)
        if followed not in drawn:
            drawn[followed] = sched._history.drawn(slot.name, slot.schedule, now, fixed)
        parts.setdefault(part, {}).setdefault(drawn[followed], []).append(slot.place.group)
    for name, schedule in sched.free.items():
        line = sched._history.drawn(name, schedule, now, fixed)
        parts[f"{name} (free){_AS_NOW if schedule.inputs() else ''}"] = {line: []}
    clock = sched._options.clock
    return list(plot_parts(parts, now, steps=steps, log=log, unit="step" if clock is None else clock.unit))


def text(sched: AttachmentBase) -> str:
    """What `print(sched)` shows: every slot, free name and live input, and where the run stands."""
    where, mode = sched._mode.where, sched._mode
    values = {} if mode.inputs is None else mode.inputs.values()
    optimizer = sched._optimizer()
    text = slot_table(
        sched.slots,
        sched.free,
        {} if mode.inputs is None else {n: (node, values[n]) for n, node in mode.inputs.nodes.items()},
        lambda name: mode.at(name, where.position),
        sched._words(where),
        names=[] if optimizer is None else group_names(optimizer.param_groups),
        auto=sched._options.auto,
        attached=sched.attached,
    )
    return text if mode.tally is None else f"{text}\n{mode.tally.shown(mode.clocks)}"


def _slot(sched: AttachmentBase, name: str, group: int | str, element: int | None) -> Slot:
    index = sched._group(group)
    found = [s for s in sched.slots if s.place[:2] == (index, name) and element in (None, s.place.element)]
    if len(found) != 1:
        one = element is not None and any(s.place == (index, name, None) for s in sched.slots)
        raise BindingError(
            f"{'no' if not found else 'more than one'} slot is {shown(name)} of group {shown(group)}"
            f"{'' if element is None else f', element {shown(element)}'}"
            f"{' (it is one number and no tuple: leave element out)' if one else ''}; "
            f"there are {', '.join(sched._schedules())}"
        )
    return found[0]


def _column(sched: AttachmentBase, name: str, group: int | str, element: int | None) -> str:
    """The name of what is, or was, scheduled there."""
    check_address(name, group, element)
    ever = sched._history.names() | sched._schedules().keys()
    if name in sched.free or (element is None and name in ever):
        return name
    column = Place(sched._group(group), name, element).name
    return column if column in ever else _slot(sched, name, group, element).name

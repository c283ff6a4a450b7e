"""Changing the plan in the middle of a run: other schedules, a way down, a longer run, more groups, fewer slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorsched.binding.arguments import read_free, with_total
from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.changes import chosen, cooled, extended, resolved, resolved_free
from tensorsched.binding.doors import named_only
from tensorsched.binding.events import take_in_new_groups
from tensorsched.binding.following import follow
from tensorsched.binding.group_names import check_address
from tensorsched.binding.late_groups import read_adopted, take_in
from tensorsched.binding.placement import read_rewrite
from tensorsched.binding.slots import Slot, give_back, present_values
from tensorsched.errors import BindingError
from tensorsched.param_groups import param_groups
from tensorsched.schedules import Schedule
from tensorsched.schedules.recipes.common import Shape
from tensorsched.schedules.split import bounded
from tensorsched.schedules.validators import shown

__all__ = ["adopt", "cool_down", "extend", "hand_over", "rewrite"]


@named_only("sched.rewrite(lr={})")
def rewrite(
    sched: AttachmentBase, /, *, free: Mapping[str, Any] | None = None, **hyperparameters: Any
) -> None:
    """Follow other schedules from now on, at the same step: extend a run, cool down now, change the peak.

    The tables are overwritten in place, so compiled steps and captured graphs go on with the new values, without
    recompiling or capturing again. Where there is neither, a table grows as the schedules need. Steps are counted
    from the start of the run as before.

    Args:
        free: other schedules for names that were given to `attach` as `free`.
        **hyperparameters: as for `attach`, for slots that have a schedule; the others keep theirs. `ts.initial` is
            what the group held when it was attached. In the place of a schedule may stand a function of (old, now),
            the schedule so far and the step count, which is called for every slot and returns its new schedule.

    Raises:
        BindingError: a slot or name that has no schedule yet, or a value that does not fit. Nothing has changed.
        ScheduleError: a compiled step or a captured graph reads the table, and the schedules change later than it
            reaches (`attach(..., capacity=steps)`), or tensor slots that share a column of it, because their
            schedules are equal, would get different ones; so would one that shares it with a free name. Nothing has
            changed.

    What `value` gave for a slot stays current, but for tensor slots whose schedules were equal and part now: ask
    for it again. Synchronises where a slot is a tensor slot on a device that is no CPU: the table is copied there.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
        >>> optimizer.step()
        >>> sched.rewrite(lr=ts.linear(1.0, 0.0, steps=8)), sched.step_count, optimizer.param_groups[0]["lr"]
        (None, 1, 0.875)
        >>> sched.rewrite(lr=lambda old, now: old.take(now) >> 0.5 * old.skip(now))
        >>> optimizer.param_groups[0]["lr"], sched.schedule("lr")
        (0.4375, linear(1.0, 0.0, steps=8).take(1) >> 0.5 * linear(1.0, 0.0, steps=8).skip(1))
    """
    sched._require_attached()
    take_in_new_groups(sched)
    groups, now = param_groups(sched.optimizer), sched.position
    steps, total = sched._options.steps, sched._options.total
    wanted = resolved(groups, sched.slots, hyperparameters, now)
    schedules = read_rewrite(sched.optimizer, sched.slots, with_total(wanted, total), steps)
    names = (
        read_free(groups, with_total(resolved_free(sched.free, free, now), total)) if free is not None else {}
    )
    if unknown := names.keys() - sched.free.keys():
        raise BindingError(f"free: {min(unknown)!r} was not given to attach(), so nothing holds its value")
    names = {name: bounded(schedule, steps) for name, schedule in names.items()}
    if not schedules and not names:
        raise BindingError("rewrite() was given nothing to schedule; pass for example lr=ts.constant(1e-4)")
    _change(sched, "rewrite", {place.name: schedule for place, schedule in schedules.items()} | names)


def cool_down(
    sched: AttachmentBase,
    steps: int,
    to: float = 0.0,
    shape: Shape = "linear",
    keys: str | Sequence[str] = "lr",
) -> None:
    """Go down from now on: from the present value of each slot to another one, in so many steps, and stay there.

    The same as `rewrite(lr=lambda old, now: old.take(now) >> ...)`. From one checkpoint of the stable phase of a
    long run, several models can be made: load it, cool down over as many steps as you like, and load it again (from
    its file: torch trains on in the tensors that it was given) for the next one, or to go on. Each is to the bit
    the run that would have been planned with `wsd` (Haegele et al. 2024, arXiv 2405.18392).

    Args:
        steps: its length, an int >= 0 (in the unit of the clock, where there is one); 0 is a jump.
        to: the value reached then, and held.
        shape: of the way down, as in `wsd`: "linear", "cosine", "1-sqrt" (the paper's), ..., a shape, or a schedule
            from 1 to 0.
        keys: which hyperparameters (every group that has a schedule for one), or free names.

    Raises:
        BindingError: nothing is scheduled under a key. Nothing has changed.
        ScheduleError: an argument is out of range; or as `rewrite`, where a compiled step or a captured graph reads
            the table. Nothing has changed.

    Synchronises as `rewrite` does.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(0.0, 1.0, steps=2) >> ts.constant(1.0))
        >>> for _ in range(3): optimizer.step()
        >>> stable = optimizer.state_dict(), sched.state_dict()  # and the model's
        >>> for length in (2, 4):
        ...     optimizer.load_state_dict(stable[0])
        ...     sched.load_state_dict(stable[1], on_mismatch="saved")  # not the cool-down of the last branch
        ...     sched.cool_down(length, shape="cosine")
        ...     for _ in range(length): optimizer.step()
        ...     print(sched.used("lr").values.round(3).tolist())
        [0.0, 0.5, 1.0, 1.0, 0.5]
        [0.0, 0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    sched._require_attached()
    take_in_new_groups(sched)
    now = sched.position
    old = chosen("cool_down", keys, sched.slots, sched.free)
    live = {name: sched._mode.at(name, now) for name, s in old.items() if s.inputs()}
    cool = {name: cooled(s, now, steps, to, shape, live=live.get(name)) for name, s in old.items()}
    _change(sched, "cool_down", cool)


def extend(
    sched: AttachmentBase, steps: int, how: str = "stretch", keys: str | Sequence[str] | None = None
) -> None:
    """Make the run longer by so many steps; every slot goes on from its present value.

    Args:
        steps: how much later the end comes, an int >= 0.
        how: "stretch" (default): what is left of each curve takes that much longer, in all its phases. A cosine
            goes on down to the same end; the stable phase and the decay of `wsd` keep their proportion. "hold": it
            stays at the present value for `steps`, and then goes on as planned: a longer stable phase.
        keys: which hyperparameters or free names; None (default): all whose schedules still change.

    Raises:
        BindingError: nothing is scheduled under a key, or nothing is left that changes: the run is over
            (`rewrite`). Nothing has changed.
        ScheduleError: an argument is out of range; or as `rewrite`, where a compiled step or a captured graph reads
            the table. Nothing has changed.

    Synchronises as `rewrite` does.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
        >>> sched.seek(2)
        >>> sched.extend(2)
        >>> sched.schedule("lr").values(7).tolist()
        [1.0, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0]
    """
    sched._require_attached()
    take_in_new_groups(sched)
    now = sched.position
    old = chosen("extend", keys, sched.slots, sched.free)
    longer = {name: extended(s, now, steps, how) for name, s in old.items()}
    schedules = {name: schedule for name, schedule in longer.items() if schedule is not None}
    if not schedules:
        raise BindingError(
            f"extend: at step {now} nothing is left of {', '.join(old)} that changes; pass what comes now to "
            "rewrite(), such as lr=lambda old, now: old.take(now) >> ts.cosine(old(now), 0.0, steps=1000)"
        )
    _change(sched, "extend", schedules)


def hand_over(sched: AttachmentBase, *keys: str, group: int | str | None = None) -> None:
    """Let somebody else have these hyperparameters from now on: SWALR, a finder of learning rates, you.

    The groups keep their present values, as plain floats (or in the tensors that they held before `attach`), and
    nobody watches them any more. With nothing left to schedule this is `detach`.

    Args:
        *keys: such as "lr"; or of one element of a tuple, "betas[1]".
        group: index or name of the one param_group that is meant; None (default): every group.

    Raises:
        BindingError: no slot is meant, or this one is detached. Nothing has changed.

    May synchronise, as `step_count`.

    Example:
        >>> import torch, tensorsched as ts
        >>> from torch.optim.swa_utils import SWALR
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], weight_decay=0.1)
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=8), weight_decay=ts.linear(0.1, 0.0, steps=8))
        >>> optimizer.step(), sched.hand_over("lr")
        (None, None)
        >>> swa = SWALR(optimizer, swa_lr=0.05, anneal_epochs=1)
        >>> optimizer.step(), swa.step(), optimizer.param_groups[0]["lr"], round(sched.value("weight_decay"), 6)
        (None, None, 0.05, 0.075)
    """
    sched._require_attached()
    take_in_new_groups(sched)
    for key in keys:
        check_address(key, 0 if group is None else group)
    index = None if group is None else sched._group(group)
    meant = [
        s
        for s in sched.slots
        if (s.place.key in keys or s.place.part in keys) and index in (None, s.place.group)
    ]
    if not keys or not meant:
        raise BindingError(
            f"hand_over: no slot is {' or '.join(map(shown, keys)) or 'named'}"
            f"{'' if group is None else f' of group {shown(group)}'}; "
            f"there are {', '.join(s.name for s in sched.slots)}"
        )
    step = sched._made()
    if len(meant) == len(sched.slots) and not sched.free:
        sched.detach()
    else:
        _let_go(sched, meant)
    sched._history.add("hand_over", step, after=dict.fromkeys(slot.name for slot in meant))


@named_only("sched.adopt(lr={})")
def adopt(sched: AttachmentBase, /, **hyperparameters: Any) -> None:
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
    sched._require_attached()
    groups = param_groups(sched.optimizer)
    sched._refuse_other_groups(groups)
    take_in(
        sched,
        groups,
        read_adopted(groups, sched._group_count, with_total(hyperparameters, sched._options.total)),
    )


def _change(sched: AttachmentBase, what: str, schedules: Mapping[str, Schedule]) -> None:
    """Follow other schedules, by column, and keep what was followed before."""
    before, step = sched._schedules(), sched._made()
    follow(sched, schedules)
    after = {name: schedule for name, schedule in schedules.items() if schedule != before[name]}
    sched._history.add(what, step, after=after)


def _let_go(sched: AttachmentBase, slots: Sequence[Slot]) -> None:
    """The groups keep the present values of these slots, of which the attachment knows nothing any more.

    Raises:
        BindingError: a weight_decay that stays multiplies by 1 - lr * weight_decay, and the lr would go. Nothing has
            changed.
    """
    places = {slot.place for slot in slots}
    mode, position = sched._mode, sched.position
    present = present_values(slots, sched.optimizer.param_groups, lambda name: mode.at(name, position))
    going = {slot.place.group for slot in slots if slot.place.part == "lr"}
    if left := [s for s in sched.slots if s.decays and s.place.group in going and s.place not in places]:
        raise BindingError(
            f"hand_over: {left[0].name} decays by 1 - lr * weight_decay, which needs its group's lr: hand over both"
        )
    sched._use_eager()
    sched._mode = sched._eager = sched._eager.without(places, sched.free.keys())
    sched._places = [place for place in sched._places if place not in places]
    groups = param_groups(sched.optimizer)
    give_back(slots, groups, present)
    sched._carrier.forget(groups, places - sched._began_before)
    sched._known_as = None
    sched._make_graphs_stale()
    sched._bind()

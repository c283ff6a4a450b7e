"""What happens at an optimizer's steps: what the hooks, the modes and a trainer's face ask of an attachment."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.callers import refuse_pieces
from tensorsched.binding.late_groups import read_late, take_in
from tensorsched.binding.slots import displaced, holds, same_number, taken_over
from tensorsched.errors import BindingError
from tensorsched.param_groups import as_float

__all__ = ["advance", "left_to_swalr", "say", "settle", "take_in_new_groups", "whole"]


def advance(sched: AttachmentBase, found_inf: torch.Tensor | None) -> None:
    """One step further, unless the tensor is not 0."""
    sched._require_attached()
    groups = sched.optimizer.param_groups
    try:
        if sched._mode.advance(groups, found_inf) is False:
            settle(sched)
            sched._mode.advance(groups, found_inf)
    except KeyboardInterrupt:
        sched._resynchronise()
        raise


def settle(sched: AttachmentBase) -> None:
    """A check has failed: name the slot that somebody wrote to, or find that all is as it should be.

    A write of the same value is no harm, and groups that are new may be adopted.

    Raises:
        BindingError: a slot holds something else, or a param_group was added and nothing says what it gets.
            Nothing has changed.
    """
    sched._require_attached()
    groups = whole(sched, sched.optimizer.param_groups)
    sched._refuse_other_groups(groups)
    where, mode = sched._mode.where, sched._mode
    for slot in sched.slots:
        expected = mode.at(slot.name, where.position)
        if not holds(slot, groups, expected, mode.expected(slot)):
            if left_to_swalr(sched):
                return
            raise displaced(slot, groups, expected, sched._words(where))
    for name in sched.free:
        found, expected = mode.free_value(name).item(), mode.at(name, where.position)
        if not same_number(found, expected):
            raise BindingError(
                f"free: somebody wrote to {name!r}: at {sched._words(where)} its schedule has {expected!r} and it "
                f"holds {found!r}. Its tensor is for reading (clone() it to change it); seek({where.position}) "
                "puts the value back"
            )
    if groups is sched._bound:
        return  # the others are put aside for the moment, and this is not the time to bind
    if len(groups) > sched._group_count:
        _adopt(sched, groups)
    sched._mode.go(where)
    sched._bind()


def left_to_swalr(sched: AttachmentBase) -> bool:
    """Detach, and leave the values that there are, if torch's SWALR is there and has all that we have."""
    where, slots, groups = sched._mode.where, sched.slots, sched._bound
    if sched.free or not all(taken_over(slot, groups) for slot in slots):
        return False
    held = [as_float(slot.place.read(groups)) for slot in slots]
    step = sched._made()
    sched.detach()
    sched._history.add("SWALR", step, after=dict.fromkeys(slot.name for slot in slots))
    for slot, value in zip(slots, held, strict=True):
        if value is not None:
            slot.place.fill(groups, value)
    warnings.warn(
        f"SWALR has taken over lr at {sched._words(where)}, and the schedule is detached; before a run is resumed "
        "from here, attach no schedule to lr",
        UserWarning,
        stacklevel=2,
    )
    return True


def whole(sched: AttachmentBase, groups: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """All groups, where a trainer steps some of them at a time (DeepSpeed's ZeRO); otherwise these."""
    some = sched._face is not None and 0 < len(groups) < sched._group_count
    return sched._bound if some and all(any(g is b for b in sched._bound) for g in groups) else groups


def say(sched: AttachmentBase) -> None:
    """Warn, once and before it matters, of what a checkpoint left in doubt; look once at who makes steps."""
    if sched._unseen:
        if sched._face is None:
            refuse_pieces(sched.optimizer, sched._group_count)
        sched._unseen = False
        sched._tell_hooks()
    if sched._doubt:
        doubt, sched._doubt = sched._doubt, ""
        sched._tell_hooks()
        warnings.warn(doubt, UserWarning, stacklevel=2)


def take_in_new_groups(sched: AttachmentBase) -> None:
    """Adopt late groups now where `new_groups` says how (otherwise the next step raises); refuse lost ones."""
    if sched._optimizer() is None:
        return  # gone: what it held can still be saved
    groups = sched.optimizer.param_groups
    sched._refuse_other_groups(groups)
    if sched._options.new_groups is not None and len(groups) > sched._group_count:
        _adopt(sched, groups)


def _adopt(sched: AttachmentBase, groups: Sequence[dict[str, Any]]) -> None:
    """Schedule the hyperparameters of groups that were added since, as `new_groups` says."""
    sched._require_attached()
    options = sched._options
    take_in(sched, groups, read_late(groups, sched._group_count, options.new_groups, options.total))

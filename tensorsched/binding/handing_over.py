"""Slots that somebody else is to have from now on."""

from __future__ import annotations

from collections.abc import Sequence

from tensorsched.binding.modes import Driving
from tensorsched.binding.slots import Slot, give_back
from tensorsched.errors import BindingError
from tensorsched.param_groups import param_groups

__all__ = ["let_go"]


def let_go(sched: Driving, slots: Sequence[Slot]) -> None:
    """The groups keep the present values of these slots, of which the attachment knows nothing any more.

    Raises:
        BindingError: a weight_decay that stays multiplies by 1 - lr * weight_decay, and the lr would go. Nothing has
            changed.
    """
    mode, places = sched._mode, {slot.place for slot in slots}
    present = {slot.name: mode.at(slot.name, mode.where.position) for slot in slots}
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

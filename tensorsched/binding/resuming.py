"""What an attachment puts into its optimizer's checkpoint, and where it goes on after one was loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.carried import shared_out
from tensorsched.binding.registry import attachments_of
from tensorsched.binding.slots import found_at, is_near
from tensorsched.engine import Where
from tensorsched.param_groups import param_groups
from tensorsched.schedules.split import inputs_of

__all__ = ["apart", "go_on_from", "loaded", "saved"]


def saved(sched: AttachmentBase, groups: Sequence[dict[str, Any]]) -> None:
    """Replace the live views in the groups of a state_dict by the floats that they stand for.

    A filled tensor is a copy there: whoever loads it may take nothing else.
    """
    sched._mode.saved(groups)
    where = sched._next()
    for slot in sched.slots:
        if (slot.tensor or slot.filled) and slot.place.group < len(groups):
            value = sched._mode.at(slot.name, where.position)
            slot.place.write(groups, torch.full_like(slot.original, value) if slot.filled else value)
    inputs = sched._mode.inputs
    numbers = {} if inputs is None else inputs.numbers()
    sched._carrier.write(groups[: sched._group_count], where, sched._fingerprint(), numbers)


def loaded(sched: AttachmentBase) -> None:
    """The optimizer's groups and state were replaced by a checkpoint's: go on from the step that it carries.

    Raises:
        BindingError: the groups are others than those that were bound.
    """
    sched._make_graphs_stale()
    groups = param_groups(sched.optimizer)
    sched._refuse_other_groups(groups)
    every = sorted(attachments_of(sched.optimizer), key=lambda each: each._carrier.number)
    mine = shared_out([(each._carrier, each._fingerprint()) for each in every], groups[0])
    for each, carrier in zip(every, mine, strict=True):
        each._carrier = carrier
    carried = sched._carrier.read(groups)
    where, mode = sched._mode.where, sched._mode
    if carried is None and sched._told != where.position:
        present = {slot.name: mode.at(slot.name, where.position) for slot in sched.slots}
        wrong = [slot for slot in sched.slots if not is_near(slot, groups, present[slot.name])]
        if wrong:
            sched._doubt = (
                f"the optimizer's checkpoint carries no step of these schedules, and its {wrong[0].name} is "
                f"{found_at(wrong[0], groups)} where the schedule has {present[wrong[0].name]!r} at "
                f"{sched._words(where)}, which goes on; if a run is resumed, load the schedule's own state or call "
                "seek(step)"
            )
    go_on_from(sched, carried, sched._carrier.read_inputs(groups))
    sched._carrier.mark(groups[: sched._group_count], sched._originals(), sched._numbered())
    sched._bind()


def apart(sched: AttachmentBase, source: str, where: Where) -> str:
    """What is to be said of a file that is loaded, "optimizer" or "state", where the other one was of another step.

    A run that was killed between the two leaves one that is new and one that is old. Nothing is said where steps were
    made since, or somebody said where to go on; the present step is to be put behind it.
    """
    other = sched._read_from
    if (
        other is None
        or other[0] == source
        or other[1] != sched._mode.where
        or other[1].position == where.position
    ):
        return ""
    files = {source: where, other[0]: other[1]}
    return (
        f"the optimizer's checkpoint was saved at {sched._words(files['optimizer'])} and the schedule's state at "
        f"{sched._words(files['state'])}: one of the two files is older. Call seek({files['optimizer'].position}) to "
        "go on where the optimizer was, or load files that were saved together; now the schedule is at"
    )


def go_on_from(
    sched: AttachmentBase, carried: tuple[Where, int] | None, numbers: Mapping[str, float]
) -> None:
    """Take over the step that the optimizer's checkpoint carries; of other schedules, unless we were told one.

    And what the live inputs of the same schedules remember.
    """
    if carried is None:
        return
    where, fingerprint = carried
    other = apart(sched, "optimizer", where)
    if fingerprint != sched._fingerprint():
        if sched._told == sched.position:
            sched._doubt = other and f"{other} {sched._words(sched._mode.where)}"
            return
        doubt = (
            f"the optimizer's checkpoint was saved under other schedules, at {sched._words(where)}: these go on "
            "from there; load the schedule's own state to compare them, or call seek(step)"
        )
    else:
        doubt = ""
        if (inputs := sched._mode.inputs) is not None:
            cells = inputs.read_numbers(numbers)
            inputs.load(cells)
            if lost := sorted(inputs_of(list(sched._schedules().values())).keys() - cells.keys()):
                doubt = (
                    f"the optimizer's checkpoint has nothing of the live input {lost[0]!r}, which stays as it is: "
                    "load the schedule's own state"
                )
    sched._history.add("optimizer.load_state_dict", sched._made(), goes_on=where.position)
    sched._last.forget(sched._mode)
    sched._mode.go(where)
    sched._ever_stepped |= where.steps > 0
    if sched._mode.tally is not None:
        sched._mode.tally.moved(where)
    sched._doubt = doubt or (other and f"{other} {sched._words(where)}")
    sched._read_from = "optimizer", where
    if sched._face is not None:
        sched._face.moved()

"""Other schedules for an attachment, in every mode that there is, at the same step."""

from __future__ import annotations

from collections.abc import Mapping

from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.modes import Mode
from tensorsched.engine.reactive_plan import OtherProgramError
from tensorsched.schedules import Schedule
from tensorsched.schedules.live import Input
from tensorsched.schedules.split import inputs_of

__all__ = ["follow"]


def follow(sched: AttachmentBase, schedules: Mapping[str, Schedule]) -> None:
    """Follow other schedules, by column.

    Tables are written in place. Where compiled steps cannot follow so, because live inputs come, go, or act by other
    operations, what they read is made anew and they are compiled once more.

    Raises:
        BindingError: a value does not fit. Nothing has changed.
        ScheduleError: a schedule cannot be followed, or a captured graph reads what would be made anew. Nothing has
            changed.
    """
    inputs_of(list((sched._schedules() | dict(schedules)).values()))  # two of one name are none
    in_use = sched._graph is not None and sched._graph.in_use
    if sched._graph is not None:
        # The eager mode's slots: the graph of groups that were adopted just now is yet to be made.
        slots = sched._eager.slot_at.values()
        sched._graph.check_rewrite([(s, schedules[s.name]) for s in slots if s.name in schedules])
    before, numbered = inputs_of(list(sched._schedules().values())), sched._numbered()
    modes: list[Mode] = [sched._eager] if sched._graph is None else [sched._eager, sched._graph]
    try:
        commits = [mode.rewrite(schedules, grow=not in_use) for mode in modes]
    except OtherProgramError:
        if sched._graph is None or sched._graph.captured:
            raise
        modes = [sched._eager]  # what graphs read is made anew from what it has then
        commits = [sched._eager.rewrite(schedules, grow=True)]
    sched._last.keep(sched._mode)
    if remade := sched._graph is not None and len(modes) == 1:
        sched._use_eager()
    for commit in commits:
        commit()
    sched.free |= {name: schedules[name] for name in sched.free.keys() & schedules.keys()}
    sched._known_as = None
    new = {n: node for n, node in inputs_of(list(sched._schedules().values())).items() if n not in before}
    for mode in modes if new else ():
        _restart(mode, new)
    if numbered != sched._numbered() and sched._hooks.active:
        sched._carrier.mark(sched._bound, sched._originals(), sched._numbered())
    sched._bind()
    if remade and sched._graph is not None:
        sched._graph.remake()


def _restart(mode: Mode, nodes: Mapping[str, Input]) -> None:
    """Let inputs begin anew that come into use again: a run that was resumed meanwhile has nothing of them either."""
    if mode.inputs is not None:
        mode.inputs.load({name: node._cells() for name, node in nodes.items()})
        for part in mode.reactive:
            part.engine.seek(part.engine.step_count)

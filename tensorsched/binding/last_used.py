"""What the last completed step used, for loggers.

Of a schedule of steps the table knows it afterwards, and the history across changes. On a clock it depends on the
position of that step, and with live inputs on what these were then: the engines keep that, one number or one row of
values, and nothing else is recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from tensorsched.binding.group_names import group_names
from tensorsched.binding.modes import Driving, Mode
from tensorsched.binding.slots import Slots
from tensorsched.engine import ClockEngine, ClockFloatEngine, ReactiveEngine, ReactiveFloatEngine

__all__ = ["LastUsed", "last_used"]

_ON_HOST = (ClockFloatEngine, ReactiveFloatEngine)
_KEEPING = (*_ON_HOST, ClockEngine, ReactiveEngine)


class LastUsed:
    """What engines keep of the last step beyond their own end: tables are changed, modes are left.

    Engines of two modes that hold the same slots take turns: the one that has made a step since has the truth.
    """

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self._before = dict(before or {})
        self._left: list[Any] = []  # engines on a device, of a mode that was left: read when somebody asks

    def before(self) -> dict[str, float]:
        """What engines kept that are not in use any more. Synchronises where a device has it."""
        for engine in self._left:
            self._before |= engine.used()
        self._left = []
        return self._before

    def all(self, mode: Mode) -> dict[str, float]:
        """All that is kept, by name. Synchronises where a device has it."""
        return self.before() | {name: v for engine in _keeping(mode) for name, v in engine.used().items()}

    def keep(self, mode: Mode) -> None:
        """Tables are about to change, after which nobody could tell. Synchronises as `all`."""
        if engines := _keeping(mode):
            self._before = self.all(mode)
            for engine in engines:
                engine.forget_used()

    def switch(self, left: Mode, entered: Mode) -> None:
        """Other engines take over the same slots. Does not synchronise."""
        old, new = _keeping(left), _keeping(entered)
        leaving = [engine for engine in old if engine not in new]
        found = {n: v for e in leaving if isinstance(e, _ON_HOST) for n, v in e.used().items()}
        self._before |= found
        waiting = [] if found else self._left  # a step has been made since those were left
        for engine in new:
            if engine not in old and engine not in waiting:
                engine.forget_used()
        on_device = [engine for engine in leaving if not isinstance(engine, _ON_HOST)]
        self._left = [engine for engine in waiting if engine not in new] + on_device

    def forget(self, mode: Mode) -> None:
        """Another run goes on here. Does not synchronise."""
        self._before, self._left = {}, []
        for engine in _keeping(mode):
            engine.forget_used()


def last_used(sched: Driving) -> dict[str, float]:
    """What the last completed step used, by name for a logger; see `Attachment.log`."""
    mode = sched._mode
    found = {name: value for engine in _keeping(mode) for name, value in engine.used().items()}
    labels = _labels(sched)
    missing = [name for name in labels if name not in found]
    if missing and mode.tally is not None:
        found |= sched._last.before()
    elif missing:
        found |= _of_steps(sched, missing)
    return {label: found[name] for name, label in labels.items() if name in found}


def _of_steps(sched: Driving, names: Collection[str]) -> dict[str, float]:
    """What is known by the step: from the tables as it was rounded, or from the history if the plan was changed."""
    mode, history = sched._mode, sched._history
    known = mode.known_steps
    now = mode.step_count if known is None else known
    found: dict[str, float] = {}
    if history.begun(now):
        plain = [part for part in mode.parts if not isinstance(part.engine, _KEEPING)]
        found = {name: value for part in plain for name, value in _row(part, now - 1) if name in names}
        lost = [name for name in names if name not in found]
    else:
        tensors = {slot.name for slot in sched.slots if slot.tensor} | sched.free.keys()
        followed = {name: last for name in names if (last := history.last_followed(name, now))}
        lost = [name for name, (schedule, _) in followed.items() if schedule.inputs()]
        for name, (schedule, step) in followed.items():
            if not schedule.inputs():
                found[name] = float(np.float32(schedule(step))) if name in tensors else schedule(step)
    before = sched._last.before() if lost else {}
    return found | {name: before[name] for name in lost if name in before}


def _keeping(mode: Mode) -> list[Any]:
    return [part.engine for part in mode.parts if isinstance(part.engine, _KEEPING)]


def _row(part: Slots, step: int) -> Iterator[tuple[str, float]]:
    table: Any = part.engine.table
    row = min(step, table.last)
    values = table.layout.block(row, row + 1)[0].tolist()
    return ((name, values[column]) for name, column in table.live_column.items())


def _labels(sched: Driving) -> dict[str, str]:
    """For each column "lr/0", or "lr/decay" where all groups have names of their own."""
    groups = sched.optimizer.param_groups
    names = group_names(groups)
    if None in names or len(set(names)) < len(names):
        names = [str(index) for index in range(len(groups))]
    labels = {slot.name: f"{slot.place.part}/{names[slot.place.group]}" for slot in sched.slots}
    return labels | {name: name for name in sched.free}

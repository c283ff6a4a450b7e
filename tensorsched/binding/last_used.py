"""What the last completed step used, for loggers.

Of a schedule of steps the table knows it afterwards, and the history across changes. On a clock it depends on the
position of that step, and with live inputs on what these were then, which is kept (kept.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.group_names import group_names
from tensorsched.binding.kept import KEEPING, keeping
from tensorsched.binding.reactive_parts import Part

__all__ = ["last_used"]


def last_used(sched: AttachmentBase) -> dict[str, float]:
    """What the last completed step used, by name for a logger; see `Attachment.log`."""
    mode = sched._mode
    found = {name: value for engine in keeping(mode) for name, value in engine.used().items()}
    labels = _labels(sched)
    missing = [name for name in labels if name not in found]
    if missing and mode.tally is not None:
        found = sched._last.before() | found  # what was kept before is the older one
    elif missing:
        found |= _of_steps(sched, missing)
    return {label: found[name] for name, label in labels.items() if name in found}


def _of_steps(sched: AttachmentBase, names: Collection[str]) -> dict[str, float]:
    """What is known by the step: from the tables as it was rounded, or from the history if the plan was changed."""
    mode, history = sched._mode, sched._history
    known = mode.known_steps
    now = mode.step_count if known is None else known
    found: dict[str, float] = {}
    if history.begun(now):
        plain = [part for part in mode.parts if not isinstance(part.engine, KEEPING)]
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


def _row(part: Part, step: int) -> Iterator[tuple[str, float]]:
    table: Any = part.engine.table
    row = min(step, table.last)
    values = table.layout.block(row, row + 1)[0].tolist()
    return ((name, values[column]) for name, column in table.live_column.items())


def _labels(sched: AttachmentBase) -> dict[str, str]:
    """For each column "lr/0", or "lr/decay" where all groups have names of their own."""
    groups = sched.optimizer.param_groups
    names = group_names(groups)
    if None in names or len(set(names)) < len(names):
        names = [str(index) for index in range(len(groups))]
    labels = {slot.name: f"{slot.place.part}/{names[slot.place.group]}" for slot in sched.slots}
    return labels | {name: name for name in sched.free}

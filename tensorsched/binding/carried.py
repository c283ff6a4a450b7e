"""The step counter in the optimizer's own checkpoint: a run that restores the optimizer alone goes on where it was.

Each param_group carries two plain ints: the step, and what the schedules are known by. In the live groups both are 0, a
placeholder (a graph takes them for constants, and torch.distributed.checkpoint's flattened form only reads back keys
that the live groups have); the state_dict hook writes the true ones into what is saved. To a plain optimizer they are
two entries that it does not read.

Beside them stands `initial_lr`, as torch's own schedulers write it: after a checkpoint, the lr in a group is no longer
what `ts.initial` means.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tensorsched.param_groups import Group, Place, as_float
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import check_count

__all__ = ["Carrier", "carries", "fingerprint_of", "initial_key"]


class Carrier(NamedTuple):
    """The names of one attachment's two entries; a second attachment on an optimizer has others."""

    step: str
    schedules: str

    @classmethod
    def beside(cls, others: Iterable[Carrier]) -> Carrier:
        """Names that no other attachment on the optimizer has: those of the first, or of the second, ..."""
        taken = set(others)
        names = (cls(f"schedule_step{suffix}", f"schedule_fingerprint{suffix}") for suffix in _suffixes())
        return next(name for name in names if name not in taken)

    def mark(self, groups: Sequence[Group], originals: Mapping[Place, Any]) -> None:
        """Put the placeholders into live groups, and what each place held before its schedule."""
        for group in groups:
            group[self.step] = group[self.schedules] = 0
        for place, original in originals.items():
            if place.element is None and (number := as_float(original)) is not None:
                groups[place.group].setdefault(initial_key(place.key), number)

    def unmark(self, groups: Sequence[Group], places: Iterable[Place]) -> None:
        """Take the entries out of all groups, and what these places held before."""
        for group in groups:
            for name in self:
                group.pop(name, None)
        self.forget(groups, places)

    def forget(self, groups: Sequence[Group], places: Iterable[Place]) -> None:
        """Take out what these places held before."""
        for place in places:
            if place.group < len(groups):
                groups[place.group].pop(initial_key(place.key), None)

    def write(self, groups: Iterable[Group], step: int, fingerprint: int) -> None:
        """Put the true numbers into the groups of a state_dict."""
        for group in groups:
            group[self.step], group[self.schedules] = step, fingerprint

    def read(self, groups: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
        """The step and the fingerprint that groups from a checkpoint carry, if they do.

        Raises:
            ScheduleError: the step is no count.
        """
        step, fingerprint = (as_float(groups[0].get(name)) for name in self)
        if step is None or not fingerprint:  # 0: our own placeholder
            return None
        whole = int(step) if step.is_integer() else step  # a tensor too: some checkpoints make them of ints
        return check_count("the step in the optimizer's checkpoint", whole), int(groups[0][self.schedules])


def carries(group: Mapping[str, Any]) -> bool:
    """Whether a group comes from a checkpoint that was saved under a schedule."""
    return Carrier.beside(()).read([group]) is not None


def _suffixes() -> Iterator[str]:
    yield ""
    yield from (f"_{number}" for number in itertools.count(1))


def initial_key(key: str) -> str:
    """Where a group keeps what it held before its schedules: torch's name for it."""
    return f"initial_{key}"


def fingerprint_of(schedules: Mapping[str, Schedule]) -> int:
    """An int (56 bits, above 0) that equal schedules under equal names have, and practically only they."""
    known = {schedule: schedule.fingerprint for schedule in set(schedules.values())}
    text = "\n".join(f"{name}: {known[schedule]}" for name, schedule in sorted(schedules.items()))
    return 1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

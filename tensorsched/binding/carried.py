"""The step counter in the optimizer's own checkpoint: a run that restores the optimizer alone goes on where it was.

Each param_group carries two plain ints: the step, and what the schedules are known by; on a clock that does not count
steps two more, its position and what was counted in all. In the live groups all are 0, a placeholder (a graph takes
them for constants, and torch.distributed.checkpoint's flattened form only reads back keys that the live groups have);
the state_dict hook writes the true ones into what is saved. To a plain optimizer they are entries that it does not
read.

What live inputs remember (a factor, the best loss) is carried the same way, a float for each number: a run whose
plateau started anew would jump back to the full learning rate.

Beside them stands `initial_lr`, as torch's own schedulers write it: after a checkpoint, the lr in a group is no longer
what `ts.initial` means.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tensorsched.engine import Clock, Where
from tensorsched.param_groups import Group, Place, as_float
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import check_count, refuse

__all__ = ["Carrier", "carries", "fingerprint_of", "initial_key"]


class Carrier(NamedTuple):
    """The names of one attachment's entries; a second attachment on an optimizer has others."""

    step: str
    schedules: str
    clock: tuple[str, ...] = ()  # of its position, and of what was counted
    inputs: str = (
        "schedule_input"  # of live inputs each number is an entry of its own, behind this name and a dot
    )

    @classmethod
    def beside(cls, others: Iterable[Carrier], clock: Clock | None = None) -> Carrier:
        """Names that no other attachment on the optimizer has: those of the first, or of the second, ..."""
        taken = {other.step for other in others}
        suffix = next(suffix for suffix in _suffixes() if f"schedule_step{suffix}" not in taken)
        counts = () if clock is None else (f"schedule_position{suffix}", f"schedule_counted{suffix}")
        inputs = f"schedule_input{suffix}"
        return cls(f"schedule_step{suffix}", f"schedule_fingerprint{suffix}", counts, inputs)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.step, self.schedules, *self.clock)

    def mark(
        self, groups: Sequence[Group], originals: Mapping[Place, Any], inputs: Iterable[str] = ()
    ) -> None:
        """Put the placeholders into live groups, and what each place held before its schedule."""
        held = dict.fromkeys(self.names, 0) | {f"{self.inputs}.{name}": 0.0 for name in inputs}
        for group in groups:
            group.update(held)
        for place, original in originals.items():
            if place.element is None and (number := as_float(original)) is not None:
                groups[place.group].setdefault(initial_key(place.key), number)

    def unmark(self, groups: Sequence[Group], places: Iterable[Place]) -> None:
        """Take the entries out of all groups, and what these places held before."""
        for group in groups:
            for name in [*self.names, *(key for key in group if key.startswith(f"{self.inputs}."))]:
                group.pop(name, None)
        self.forget(groups, places)

    def forget(self, groups: Sequence[Group], places: Iterable[Place]) -> None:
        """Take out what these places held before."""
        for place in places:
            if place.group < len(groups):
                groups[place.group].pop(initial_key(place.key), None)

    def write(
        self, groups: Iterable[Group], where: Where, fingerprint: int, inputs: Mapping[str, float]
    ) -> None:
        """Put the true numbers into the groups of a state_dict."""
        numbers = (where.steps, fingerprint, where.position, where.counted)
        for group in groups:
            group.update(zip(self.names, numbers, strict=False))
            group.update({f"{self.inputs}.{name}": number for name, number in inputs.items()})

    def read_inputs(self, groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The numbers of live inputs that groups from a checkpoint carry."""
        start = f"{self.inputs}."
        found = {
            key.removeprefix(start): as_float(held)
            for key, held in groups[0].items()
            if key.startswith(start)
        }
        return {name: number for name, number in found.items() if number is not None}

    def read(self, groups: Sequence[Mapping[str, Any]]) -> tuple[Where, int] | None:
        """Where groups from a checkpoint say that the run stood, and their fingerprint, if they carry them.

        Raises:
            ScheduleError: a number is no count.
        """
        step, fingerprint, *counts = (_whole(groups[0].get(name)) for name in self.names)
        if step is None or not fingerprint or None in counts:  # 0: our own placeholder
            return None
        found = [check_count("the step in the optimizer's checkpoint", n) for n in (step, *counts)]
        if not isinstance(fingerprint, int):
            raise refuse(
                "what the schedules are known by in the optimizer's checkpoint", "a whole number", fingerprint
            )
        where = Where(found[1], found[0], found[2]) if self.clock else Where.at_step(found[0])
        return where, fingerprint


def carries(group: Mapping[str, Any]) -> bool:
    """Whether a group comes from a checkpoint that was saved under a schedule."""
    return Carrier.beside(()).read([group]) is not None


def _whole(found: Any) -> float | None:
    """A number in a checkpoint as an int, if it is whole: some checkpoints make tensors of ints."""
    if isinstance(found, int):
        return found
    number = as_float(found)
    return int(number) if number is not None and number.is_integer() else number


def _suffixes() -> Iterator[str]:
    yield ""
    yield from (f"_{number}" for number in itertools.count(1))


def initial_key(key: str) -> str:
    """Where a group keeps what it held before its schedules: torch's name for it."""
    return f"initial_{key}"


def fingerprint_of(schedules: Mapping[str, Schedule], clock: Clock | None = None) -> int:
    """An int (56 bits, > 0) that equal schedules under equal names, on equal clocks, have; practically only they."""
    known = {schedule: schedule.fingerprint for schedule in set(schedules.values())}
    unit = "" if clock is None else f"clock: {clock.unit}\n"
    text = unit + "\n".join(f"{name}: {known[schedule]}" for name, schedule in sorted(schedules.items()))
    return 1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

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
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tensorsched.engine import Clock, Where
from tensorsched.param_groups import Group, Place, as_float
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import check_count, refuse

__all__ = ["Carrier", "carries", "fingerprint_of", "initial_key", "shared_out"]


_ENTRY = re.compile(r"schedule_fingerprint(_(?P<number>\d{1,6}))?")


class Carrier(NamedTuple):
    """The names of one attachment's entries; a second attachment on an optimizer has others.

    Attributes:
        number: which attachment it is: 0 for the first.
        clocked: whether it is on a clock that does not count steps.
    """

    number: int = 0
    clocked: bool = False

    @property
    def _suffix(self) -> str:
        return f"_{self.number}" if self.number else ""

    @property
    def step(self) -> str:
        """Of the step."""
        return f"schedule_step{self._suffix}"

    @property
    def schedules(self) -> str:
        """Of what the schedules are known by."""
        return f"schedule_fingerprint{self._suffix}"

    @property
    def clock(self) -> tuple[str, ...]:
        """Of a clock's position, and of what was counted."""
        numbers = ("schedule_position", "schedule_counted") if self.clocked else ()
        return tuple(f"{name}{self._suffix}" for name in numbers)

    @property
    def inputs(self) -> str:
        """Of live inputs each number is an entry of its own, behind this name and a dot."""
        return f"schedule_input{self._suffix}"

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.step, self.schedules, *self.clock)

    def mark(
        self, groups: Sequence[Group], originals: Mapping[Place, Any], inputs: Iterable[str] = ()
    ) -> None:
        """Put the placeholders into live groups, those of other inputs out, and in what each place held before."""
        held = dict.fromkeys(self.names, 0) | {f"{self.inputs}.{name}": 0.0 for name in inputs}
        for group in groups:
            for name in [k for k in group if k.startswith(f"{self.inputs}.") and k not in held]:
                del group[name]
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
    return Carrier().read([group]) is not None


def shared_out(
    wanted: Sequence[tuple[Carrier, int]], group: Mapping[str, Any], taken: Iterable[Carrier] = ()
) -> list[Carrier]:
    """The entries of each of several attachments on an optimizer, whatever order they were made in.

    Args:
        wanted: the entries that each has, or would have, and its fingerprint.
        group: the first one, perhaps from a checkpoint: who finds its fingerprint under another number is that one.
        taken: entries of others, which stay theirs.
    """
    others = {other.number for other in taken}
    free = [n for n in range(_most(group) + len(wanted) + len(others)) if n not in others]
    saved = {_whole(group.get(Carrier(number).schedules)): number for number in reversed(free)}
    # Who finds its own where it looks keeps it: an equal one that has read its entries finds placeholders there.
    found = {
        at: mine.number
        for at, (mine, fingerprint) in enumerate(wanted)
        if mine.number in free and _whole(group.get(mine.schedules)) == fingerprint
    }
    for own in found.values():
        free.remove(own)
    for at, (_, fingerprint) in enumerate(wanted):
        if at not in found and (number := saved.get(fingerprint)) in free:
            found[at] = number
            free.remove(number)
    for at, (mine, _) in enumerate(wanted):
        if at not in found:
            found[at] = mine.number if mine.number in free else free[0]
            free.remove(found[at])
    return [mine._replace(number=found[at]) for at, (mine, _) in enumerate(wanted)]


def _most(group: Mapping[str, Any]) -> int:
    """The first number behind those of a group's entries."""
    found = [_ENTRY.fullmatch(str(key)) for key in group]
    return max((1 + int(entry["number"] or 0) for entry in found if entry), default=0)


def _whole(found: Any) -> float | None:
    """A number in a checkpoint as an int, if it is whole: some checkpoints make tensors of ints."""
    if isinstance(found, int):
        return found
    number = as_float(found)
    return int(number) if number is not None and number.is_integer() else number


def initial_key(key: str) -> str:
    """Where a group keeps what it held before its schedules: torch's name for it."""
    return f"initial_{key}"


def fingerprint_of(schedules: Mapping[str, Schedule], clock: Clock | None = None) -> int:
    """An int (56 bits, > 0) that equal schedules under equal names, on equal clocks, have; practically only they."""
    known = {schedule: schedule.fingerprint for schedule in set(schedules.values())}
    unit = "" if clock is None else f"clock: {clock.unit}\n"
    text = unit + "\n".join(f"{name}: {known[schedule]}" for name, schedule in sorted(schedules.items()))
    return 1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

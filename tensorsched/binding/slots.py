"""Slots: where a scheduled value lives in the param_groups, and the two ways to keep it current.

A *resident* slot is bound once: the group holds a 0-dim view of the engine's live buffer, and nothing is written after
that. A *host* slot holds a Python float, exact float64, that `HostWriter` puts there after each step.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch

from tensorsched.binding.arguments import Request
from tensorsched.engine.engine import FloatEngine, ScheduleEngine
from tensorsched.schedules import Schedule

WINDOW = 8
"""Groups of a key that are checked for foreign writes before a step; those of more groups take turns.

Another scheduler writes to all groups of a key, so any window finds it at once. A write by hand to one of many groups
may be used for one step and then be replaced: the schedule's value is absolute.
"""


@dataclasses.dataclass(frozen=True)
class Slot:
    """A request, where its value lives and why, and what the group held before (for a tuple, also the whole of it)."""

    request: Request
    resident: bool
    why: str
    original: Any
    template: Any = None

    @property
    def name(self) -> str:
        """Name of its column."""
        return self.request.name

    @property
    def schedule(self) -> Schedule:
        """What it follows."""
        return self.request.schedule

    @property
    def place(self) -> tuple[int, str, int | None]:
        """(group, key, element)."""
        return self.request.place


def held(group: Mapping[str, Any], key: str, element: int | None) -> Any:
    """What the group holds at this place."""
    return group[key] if element is None else group[key][element]


def put(group: dict[str, Any], key: str, element: int | None, value: Any) -> None:
    """Replace what the group holds at this place; a tuple is replaced whole, by one of its own type."""
    if element is None:
        group[key] = value
        return
    whole = group[key]
    parts = list(whole)
    parts[element] = value
    group[key] = whole._make(parts) if hasattr(whole, "_make") else type(whole)(parts)  # a namedtuple, or not


class HostWriter:
    """Writes the current row of a float64 table into the groups, as Python floats.

    The row is read as one list and each key takes its values from it: no tensor operation, no device and no sync is
    involved, whatever the parameters live on. The loops below run over all groups at every step, hence their plainness.
    """

    def __init__(self, engine: FloatEngine, slots: Sequence[Slot]) -> None:
        self.engine = engine
        self.slots = slots
        self._keys: list[_ScalarKey | _TupleKey] = []

    def bind(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take the places of all slots from `groups` (anew after load_state_dict replaced the dicts), and write."""
        column = self.engine.table.live_column
        places: dict[tuple[str, bool], dict[int, dict[int | None, int]]] = {}
        for slot in self.slots:
            group, key, element = slot.place
            of_key = places.setdefault((key, element is None), {})
            of_key.setdefault(group, {})[element] = column[slot.request.name]
        self._keys = [
            (_ScalarKey if scalar else _TupleKey)(key, groups, of_key)
            for (key, scalar), of_key in places.items()
        ]
        self.write()

    def write(self) -> None:
        """Put the current values into the groups, whatever they hold."""
        row = self.engine.row()
        for key in self._keys:
            key.write(row)

    def intact(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether `groups`, or a window of them that moves on with each call, hold what was put there."""
        return all([key.intact(groups) for key in self._keys])  # noqa: C419  a generator costs more than it saves

    def value(self, slot: Slot) -> float:
        """The value that the slot must hold now."""
        return self.engine.row()[self.engine.table.live_column[slot.request.name]]


class _ScalarKey:
    """One key of several groups, each of which holds a number; and what was put there last."""

    def __init__(
        self, key: str, groups: Sequence[dict[str, Any]], columns: Mapping[int, Mapping[Any, int]]
    ) -> None:
        self._key = key
        self._groups = [groups[index] for index in columns]
        self._last: Sequence[float] = ()
        places = [(index, groups[index], i) for i, index in enumerate(columns)]
        self._windows = itertools.cycle([places[i : i + WINDOW] for i in range(0, len(places), WINDOW)])
        wanted = [column[None] for column in columns.values()]
        self._in_order = wanted == list(range(len(wanted)))
        self._pick = itemgetter(*wanted) if len(wanted) > 1 else itemgetter(slice(wanted[0], wanted[0] + 1))

    def write(self, row: Sequence[float]) -> None:
        key = self._key
        self._last = values = row if self._in_order and len(row) == len(self._groups) else self._pick(row)
        for group, value in zip(self._groups, values, strict=True):
            group[key] = value

    def intact(self, groups: Sequence[dict[str, Any]]) -> bool:
        key, last = self._key, self._last
        for index, group, i in next(self._windows):
            found = group[key]
            if groups[index] is not group or (found is not last[i] and not _same(found, last[i])):
                return False
        return True


class _TupleKey:
    """One key of several groups, each of which holds a tuple; some elements are scheduled here, others elsewhere."""

    def __init__(
        self, key: str, groups: Sequence[dict[str, Any]], columns: Mapping[int, Mapping[Any, int]]
    ) -> None:
        self._key = key
        self._places = [
            (index, groups[index], element, at)
            for index, column in columns.items()
            for element, at in column.items()
        ]
        self._row: Sequence[float] = ()
        starts = range(0, len(self._places), WINDOW)
        self._windows = itertools.cycle([self._places[i : i + WINDOW] for i in starts])

    def write(self, row: Sequence[float]) -> None:
        self._row = row
        for _, group, element, at in self._places:
            put(group, self._key, element, row[at])

    def intact(self, groups: Sequence[dict[str, Any]]) -> bool:
        key, row = self._key, self._row
        for index, group, element, at in next(self._windows):
            if groups[index] is not group or not _same(group[key][element], row[at]):
                return False
        return True


def _same(found: Any, put_there: float) -> bool:
    """Equal and of the same type: a tensor in the place of a float is a foreign write, whatever its value."""
    return type(found) is float and found == put_there


_View = tuple[
    int, dict[str, Any], str, int | None, torch.Tensor
]  # of a group: index, dict, key, element, view


class ResidentBinder:
    """Puts the views of a device engine's live buffer into the groups; after that, filling live is all it takes."""

    def __init__(self, engine: ScheduleEngine, slots: Sequence[Slot]) -> None:
        self.engine = engine
        self.slots = slots
        self._patrols: list[Iterator[list[_View]]] = []

    def bind(self, groups: Sequence[dict[str, Any]]) -> None:
        """Bind all slots to the dicts in `groups`."""
        by_key: dict[str, list[_View]] = {}
        for slot in self.slots:
            index, key, element = slot.place
            put(groups[index], key, element, self.value(slot))
            by_key.setdefault(key, []).append((index, groups[index], key, element, self.value(slot)))
        self._patrols = [
            itertools.cycle([views[i : i + WINDOW] for i in range(0, len(views), WINDOW)])
            for views in by_key.values()
        ]

    def intact(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether live was written by the engine alone, and a window of `groups` that moves on holds its views."""
        for patrol in self._patrols:
            for index, group, key, element, view in next(patrol):
                found = group[key] if element is None else group[key][element]
                if found is not view or groups[index] is not group:
                    return False
        return self.engine.intact()

    def value(self, slot: Slot) -> torch.Tensor:
        """The view that the slot must hold."""
        return self.engine.value(slot.request.name)

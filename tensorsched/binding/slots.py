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

from tensorsched.binding.request import Request
from tensorsched.engine import ScheduleEngine


@dataclasses.dataclass(frozen=True)
class Slot:
    """A request, where its value lives, and what the group held before."""

    request: Request
    resident: bool
    why: str
    original: Any

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
    parts = list(group[key])
    parts[element] = value
    group[key] = type(group[key])(parts)


class HostWriter:
    """Writes the row of a float64 engine on the CPU into the groups, as Python floats.

    The row is read as one list and each key takes its values from it: no tensor operation, no device and no sync is
    involved, whatever the parameters live on. The loops below run over all groups at every step, hence their plainness.
    """

    def __init__(self, engine: ScheduleEngine, slots: Sequence[Slot]) -> None:
        self.engine = engine
        self.slots = slots
        self._row = engine.live.numpy()[0]
        self._keys: list[_HostKey] = []

    def bind(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take the places of all slots from `groups` (anew after load_state_dict replaced the dicts), and write."""
        column = self.engine.table.live_column
        places: dict[tuple[str, bool], dict[int, dict[int | None, int]]] = {}
        for slot in self.slots:
            group, key, element = slot.place
            of_key = places.setdefault((key, element is None), {})
            of_key.setdefault(group, {})[element] = column[slot.request.name]
        self._keys = [
            (_ScalarKey if scalar else _TupleKey)(key, [groups[g] for g in of_key], list(of_key.values()))
            for (key, scalar), of_key in places.items()
        ]
        self.write()

    def write(self) -> None:
        """Put the current values into the groups, whatever they hold."""
        row = self._row.tolist()
        for key in self._keys:
            key.put(key.values(row))

    def replace(self) -> bool:
        """Put the current values where the ones before still are; False, and nothing changed, if one is not."""
        row = self._row.tolist()
        for index, key in enumerate(self._keys):
            if not key.replace(key.values(row)):
                for earlier in self._keys[:index]:
                    earlier.put(earlier.before)
                return False
        return True

    def intact(self) -> bool:
        """Whether one group of each key, the next in turn, holds what was put there."""
        return all([key.next_is_intact() for key in self._keys])  # noqa: C419  no generator on the hot path

    def value(self, slot: Slot) -> float:
        """The value that the slot must hold now."""
        return float(self._row[self.engine.table.live_column[slot.request.name]])


class _HostKey:
    """One key of several groups, and what was put there last."""

    def __init__(self, key: str, groups: list[dict[str, Any]], columns: list[dict[int | None, int]]) -> None:
        self.key = key
        self.groups = groups
        self.last: Sequence[Any] = ()
        self.before: Sequence[Any] = ()
        self._patrol = itertools.cycle(range(len(groups)))
        self._prepare(columns)

    def _prepare(self, columns: list[dict[int | None, int]]) -> None:
        raise NotImplementedError

    def values(self, row: list[float]) -> Sequence[Any]:
        """What each group must hold, from the row of all columns."""
        raise NotImplementedError

    def put(self, values: Sequence[Any]) -> None:
        key = self.key
        for group, value in zip(self.groups, values, strict=True):
            group[key] = value
        self.last = values

    def replace(self, values: Sequence[Any]) -> bool:
        key = self.key
        for group, old, new in zip(self.groups, self.last, values, strict=True):
            if group[key] is not old and not _same(group[key], old):
                self._undo(group, values)
                return False
            group[key] = new
        self.before, self.last = self.last, values
        return True

    def _undo(self, foreign: dict[str, Any], values: Sequence[Any]) -> None:
        """Take back the values that were put into the groups in front of the one with a foreign value."""
        for group, old, new in zip(self.groups, self.last, values, strict=True):
            if group is foreign:
                return
            if group[self.key] is new:
                group[self.key] = old

    def next_is_intact(self) -> bool:
        index = next(self._patrol)
        found = self.groups[index][self.key]
        return found is self.last[index] or _same(found, self.last[index])


def _same(found: Any, put_there: Any) -> bool:
    """Equal and of the same type: a tensor in the place of a float is a foreign write, whatever its value."""
    return type(found) is type(put_there) and bool(found == put_there)


class _ScalarKey(_HostKey):
    """The group holds one number."""

    def _prepare(self, columns: list[dict[int | None, int]]) -> None:
        wanted = [column[None] for column in columns]
        self._pick = itemgetter(*wanted) if len(wanted) > 1 else itemgetter(slice(wanted[0], wanted[0] + 1))

    def values(self, row: list[float]) -> Sequence[Any]:
        return self._pick(row)  # type: ignore[no-any-return]


class _TupleKey(_HostKey):
    """The group holds a tuple, some of whose elements are scheduled."""

    def _prepare(self, columns: list[dict[int | None, int]]) -> None:
        self._parts = [(type(group[self.key]), list(group[self.key])) for group in self.groups]
        self._columns = [[(e, at) for e, at in column.items() if e is not None] for column in columns]

    def values(self, row: list[float]) -> Sequence[Any]:
        for (_, parts), columns in zip(self._parts, self._columns, strict=True):
            for element, column in columns:
                parts[element] = row[column]
        return [kind(parts) for kind, parts in self._parts]


class ResidentBinder:
    """Puts the views of a device engine's live buffer into the groups; after that, filling live is all it takes."""

    def __init__(self, engine: ScheduleEngine, slots: Sequence[Slot]) -> None:
        self.engine = engine
        self.slots = slots
        self._patrol: Iterator[tuple[dict[str, Any], str, int | None, torch.Tensor]] | None = None

    def bind(self, groups: Sequence[dict[str, Any]]) -> None:
        """Bind all slots to the dicts in `groups`."""
        places = [
            (groups[s.request.group], s.request.key, s.request.element, self.value(s)) for s in self.slots
        ]
        for place in places:
            put(*place)
        self._patrol = itertools.cycle(places) if places else None

    def intact(self) -> bool:
        """Whether live was written by the engine alone, and the next slot in turn still holds its view.

        A view that was replaced stays replaced until its turn comes, so one slot a step finds it at a cost that does
        not grow with the groups; another scheduler, which writes to all of them, is found at once.
        """
        if self._patrol is not None:
            group, key, element, view = next(self._patrol)
            if (group[key] if element is None else group[key][element]) is not view:
                return False
        return self.engine.intact()

    def value(self, slot: Slot) -> torch.Tensor:
        """The view that the slot must hold."""
        return self.engine.value(slot.request.name)

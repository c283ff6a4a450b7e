"""Wiring: the slots of one optimizer, and the engines and binders that keep them current.

    slot -> binder -> engine -> table

An attachment has one wiring for eager steps. Compiling a step gives it a second one, `on_device`, in which every slot
is resident. Both share the engines of the slots that are resident anyway, and of the free names: whoever holds one of
their tensors (a loss, say) goes on holding a live one, whichever wiring is in use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.slots import HostWriter, ResidentBinder, Slot
from tensorsched.engine.engine import FloatEngine, ScheduleEngine
from tensorsched.engine.tabulate import replacement, tabulate
from tensorsched.schedules import Schedule

Binder = HostWriter | ResidentBinder
Place = tuple[int, str, int | None]  # of a slot: group, key, element


class Wiring:
    """Binders that together hold all slots; all their engines count the same steps."""

    def __init__(self, binders: Sequence[Binder]) -> None:
        self.binders = tuple(binders)
        self._binder_of = {slot.place: binder for binder in self.binders for slot in binder.slots}
        # A host engine's count is there without a synchronisation.
        self._counter = min((b.engine for b in self.binders), key=lambda e: isinstance(e, ScheduleEngine))
        self._resident = [binder for binder in self.binders if isinstance(binder, ResidentBinder)]
        self._host = [binder for binder in self.binders if isinstance(binder, HostWriter)]
        self.writes_floats = bool(
            self._host
        )  # whether there are host slots, which the next advance will overwrite
        # The most common case by far, and the one whose cost is the least: one engine, no host slots. Its driver is
        # called without the engine in between.
        only = self._resident[0].engine if len(self.binders) == len(self._resident) == 1 else None
        self._advance_only = None if only is None else only.driver.advance

    @classmethod
    def build(
        cls,
        slots: Sequence[Slot],
        free: Mapping[str, Schedule],
        device: torch.device,
        capacity: int | None,
    ) -> Wiring:
        """Tables, engines and binders for these slots and free names; nothing of the optimizer changes.

        Raises:
            ScheduleError: a schedule cannot be tabulated, or does not fit into the capacity.
        """
        resident = [slot for slot in slots if slot.resident]
        host = [slot for slot in slots if not slot.resident]
        binders: list[Binder] = []
        if resident or free:
            binders.append(_on_device(resident, free, device, capacity))
        if host:
            columns = {slot.name: slot.schedule for slot in host}
            table = tabulate(columns, dtype=torch.float64, capacity=capacity)
            binders.append(HostWriter(FloatEngine(table), host))
        return cls(binders)

    def extended(self, slots: Sequence[Slot], device: torch.device, capacity: int | None) -> Wiring:
        """This wiring and more slots, at the same step; the tensors of this one stay what they are."""
        if not slots:
            return self
        more = Wiring.build(slots, {}, device, capacity)
        more.seek(self.step_count)
        return Wiring([*self.binders, *more.binders])

    def on_device(self, device: torch.device, why: str, before: Wiring | None = None) -> Wiring:
        """A wiring of the same slots in which all are resident, at any step; with the tensors of `before`, if given."""
        known = {_places(binder): binder for binder in before.binders} if before is not None else {}
        moved: list[Binder] = []
        for binder in self.binders:
            if isinstance(binder, HostWriter):
                slots = [dataclasses.replace(slot, resident=True, why=why) for slot in binder.slots]
                room = binder.engine.table.rows - 1
                moved.append(known.get(_places(binder)) or _on_device(slots, {}, device, room))
            else:
                moved.append(binder)
        return Wiring(moved)

    @property
    def slot_at(self) -> dict[Place, Slot]:
        """Every slot by its place."""
        return {slot.place: slot for binder in self.binders for slot in binder.slots}

    @property
    def room(self) -> int:
        """The last step at which a rewritten schedule may change."""
        return max(binder.engine.table.rows for binder in self.binders) - 1

    @property
    def engines(self) -> list[ScheduleEngine]:
        """The engines with tensors."""
        return [binder.engine for binder in self._resident]

    @property
    def step_count(self) -> int:
        """Completed steps. Synchronises where all slots are resident on a device that is no CPU."""
        return self._counter.step_count

    def bind(self, groups: Sequence[dict[str, Any]]) -> None:
        """Put every slot's value into `groups`."""
        for binder in self.binders:
            binder.bind(groups)

    def intact(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether the slots of `groups` (a window of them, that moves on) hold what was put there."""
        return all([binder.intact(groups) for binder in self.binders])  # noqa: C419  a generator costs more

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one step and fill the slots, unless `found_inf` is not 0. Reads it on the host for host slots only."""
        if self._advance_only is not None and found_inf is None:
            self._advance_only()
            return
        if self._host:
            if found_inf is not None and found_inf.item() != 0:
                return
            found_inf = None
            for writer in self._host:
                writer.engine.step_count += 1
                writer.write()
        for binder in self._resident:
            engine = binder.engine
            # GradScaler leaves it on the loss's device, which is another one where a model is spread over several.
            engine.advance(found_inf if found_inf is None else found_inf.to(engine.clock.device))

    def seek(self, step: int) -> None:
        """Set every engine to `step`; host slots are written by the next `bind`."""
        for binder in self.binders:
            binder.engine.seek(step)

    def rewrite(self, slots: Mapping[Place, Schedule], free: Mapping[str, Schedule]) -> Callable[[], None]:
        """Check that these schedules fit into the tables that there are; the function returned puts them there.

        Raises:
            ScheduleError: they need more rows than a table has, or names that share a column would differ.
        """
        commits: list[Callable[[], None]] = []
        for binder in self.binders:
            names = {slot.name: slots[slot.place] for slot in binder.slots if slot.place in slots}
            names |= {name: free[name] for name in free if name in binder.engine.table.live_column}
            if names:
                commits.append(_rewrite(binder, names))

        def commit() -> None:
            for each in commits:
                each()

        return commit

    def expected(self, slot: Slot) -> torch.Tensor | float:
        """What the group must hold at this slot."""
        return self._binder_of[slot.place].value(slot)

    def free_value(self, name: str) -> torch.Tensor:
        """The live tensor of a free name."""
        return next(e.value(name) for e in self.engines if name in e.table.live_column)


def _places(binder: Binder) -> tuple[Place, ...]:
    return tuple(slot.place for slot in binder.slots)


def _on_device(
    slots: Sequence[Slot], free: Mapping[str, Schedule], device: torch.device, capacity: int | None
) -> ResidentBinder:
    columns = dict(free) | {slot.name: slot.schedule for slot in slots}
    return ResidentBinder(ScheduleEngine(tabulate(columns, device=device, capacity=capacity)), slots)


def _rewrite(binder: Binder, names: Mapping[str, Schedule]) -> Callable[[], None]:
    table = binder.engine.table
    replace = replacement(table, names)

    def commit() -> None:
        replace()
        binder.engine.reload()
        binder.slots = [
            dataclasses.replace(slot, request=dataclasses.replace(slot.request, schedule=names[slot.name]))
            if slot.name in names
            else slot
            for slot in binder.slots
        ]

    return commit

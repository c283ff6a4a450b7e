"""History: every change of a run's plan, and so what each step really used.

A run is a list of stretches. Each begins with a change, at a count of completed steps, goes on at a step (the same one,
unless the counter was set), and follows one schedule a name until the next change. What was used is their values, end
to end; nothing is recorded while steps run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule
from tensorsched.schedules.algebra import chain
from tensorsched.schedules.node import brief, evaluate, sample
from tensorsched.schedules.pieces import head, tail
from tensorsched.schedules.validators import check_count, items

__all__ = ["Change", "History", "Used"]

MOST_POSITIONS = 1 << 10
"""Of a stretch on a clock, which may be billions of units long."""

MOST = 10_000
"""Changes that are kept: a loop that seeks at every step would fill the checkpoint with them."""

_Piece = tuple[int, int | None, Schedule]  # at start..stop-1, without end where stop is None

_NAMED = 3  # names in one line of a printed change


class Change(NamedTuple):
    """One change of the plan, from `Attachment.history`.

    Attributes:
        step: completed steps when it was made; on a clock the position.
        what: "attach", "rewrite", "cool_down", "extend", "adopt", "hand_over", "SWALR" (which took over), "seek",
            "load_state_dict", or "optimizer.load_state_dict".
        goes_on: the step that came next: `step`, unless the counter was set.
        schedules: for each name that changed ("lr[group 0]") what it followed before and after; None where it did not
            follow a schedule.
        unit: what `step` and `goes_on` count: "step", or the unit of the clock.
    """

    step: int
    what: str
    goes_on: int
    schedules: dict[str, tuple[Schedule | None, Schedule | None]]
    unit: str = "step"

    def __str__(self) -> str:
        """In one line; names whose schedules changed alike are named together."""
        alike: dict[tuple[Schedule | None, Schedule | None], list[str]] = {}
        for name, pair in self.schedules.items():
            alike.setdefault(pair, []).append(name)
        parts = [f"{_names(names)}: {_text(a)} -> {_text(b)}" for (a, b), names in alike.items()]
        if self.goes_on != self.step:
            parts.insert(0, f"goes on at {self._at(self.goes_on)}")
        return f"{self._at(self.step)}, {self.what}" + (f": {'; '.join(parts)}" if parts else "")

    def _at(self, number: int) -> str:
        return f"step {number}" if self.unit == "step" else f"{self.unit} {number:,}"


class Used(NamedTuple):
    """What a slot used, from `Attachment.used`: an entry for each completed step, in the order in which they were made.

    Attributes:
        steps: the step, int64 of shape (n,): 0, 1, 2, ... unless the counter was set in between. On a clock positions.
        values: what it used, float64 of shape (n,).
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


class _Entry(NamedTuple):
    """A change as it is kept: what names follow from here on, where that is other than before."""

    step: int | torch.Tensor  # a copy of the counter, where only the device knows it
    what: str
    goes_on: int | None  # None: where it was
    after: dict[str, Schedule | None]


class History:
    """The changes of one attachment, from `attach` on.

    Args:
        schedules: what each name follows.
        step: where the run begins for us.
    """

    def __init__(self, schedules: Mapping[str, Schedule], step: int = 0) -> None:
        self._entries = [_Entry(step, "attach", None, dict(schedules))]
        self._dropped = False

    def add(
        self,
        what: str,
        step: int | torch.Tensor,
        *,
        goes_on: int | None = None,
        after: Mapping[str, Schedule | None] | None = None,
    ) -> None:
        """Keep a change. One that changes nothing is none, nor is a seek after which no step was made."""
        last, changed = self._entries[-1], dict(after or {})
        if isinstance(step, int):
            if goes_on == step:
                goes_on = None
            if goes_on is not None and not last.after and _begin(last) == step:  # two seeks in a row
                self._entries.pop()
                step, goes_on = last.step, None if goes_on == last.step else goes_on
        if goes_on is None and not changed:
            return
        self._entries.append(_Entry(step, what, goes_on, changed))
        if len(self._entries) > MOST:
            self._drop()

    def copy(self) -> History:
        """Another one of the same changes."""
        other = History({})
        other._entries, other._dropped = list(self._entries), self._dropped
        return other

    def changes(self, unit: str = "step") -> list[Change]:
        """Every change, in order. Synchronises where one was made while only the device knew the step."""
        follows: dict[str, Schedule] = {}
        found = []
        for at, entry in enumerate(self._entries):
            step = self._resolved(at)
            pairs = {name: (follows.get(name), after) for name, after in entry.after.items()}
            goes_on = step if entry.goes_on is None else entry.goes_on
            found.append(Change(step, entry.what, goes_on, pairs, unit))
            _follow(follows, entry.after)
        return found

    def names(self) -> set[str]:
        """Everything that ever followed a schedule."""
        return {name for entry in self._entries for name in entry.after}

    def ever(self, name: str) -> list[Schedule]:
        """Every schedule that `name` ever followed."""
        return [s for e in self._entries if (s := e.after.get(name)) is not None]

    def followed(self, name: str) -> tuple[tuple[int, Schedule | None], ...]:
        """What `name` followed, one after the other; with the changes of the counter that is all that `drawn` needs."""
        return tuple((at, entry.after[name]) for at, entry in enumerate(self._entries) if name in entry.after)

    def stretches(self, name: str, now: int) -> Iterator[tuple[int, int, Schedule]]:
        """(start, stop, schedule) of each stretch of the run in which `name` followed one, up to the step `now`."""
        changes = self.changes()
        stops = [change.step for change in changes[1:]] + [now]
        following: Schedule | None = None
        for change, stop in zip(changes, stops, strict=True):
            if name in change.schedules:
                following = change.schedules[name][1]
            if following is not None and stop > change.goes_on:
                yield change.goes_on, stop, following

    def used(self, name: str, now: int) -> Used:
        """What `name` used at every completed step."""
        steps, values = [np.empty(0, dtype=np.int64)], [np.empty(0)]
        for start, stop, schedule in self.stretches(name, now):
            steps.append(np.arange(start, stop, dtype=np.int64))
            values.append(evaluate(schedule, start, stop))
        return Used(np.concatenate(steps), np.concatenate(values))

    def used_on_clock(self, name: str, now: int, each: int = 1) -> Used:
        """What was used at evenly spaced positions of each stretch; a value is held for `each` units."""
        steps, values = [np.empty(0, dtype=np.int64)], [np.empty(0)]
        for start, stop, schedule in self.stretches(name, now):
            count = min(stop - start, MOST_POSITIONS)
            apart = (stop - 1 - start) / max(1, count - 1)
            steps.append(start + np.floor(apart * np.arange(count)).astype(np.int64))
            values.append(_held(schedule, steps[-1], each))
        return Used(np.concatenate(steps), np.concatenate(values))

    def used_at(self, name: str, now: int, steps: object, each: int = 1) -> Used:
        """What was used at these steps, or positions; at one that was passed twice, the last time.

        Raises:
            BindingError: a position that was not passed while `name` followed a schedule.
            ScheduleError: these are no list of whole numbers.
        """
        wanted = items("used: at", steps, "steps, or of positions on a clock")
        at = np.array([check_count("used: at", step) for step in wanted], dtype=np.int64)
        values, passed = np.zeros(at.shape), np.zeros(at.shape, dtype=bool)
        for start, stop, schedule in self.stretches(name, now):
            here = (start <= at) & (at < stop)
            values[here] = _held(schedule, at[here], each)
            passed |= here
        if not passed.all():
            raise BindingError(
                f"used: {name} used nothing at {at[~passed][0]}: the run is at {now}, and what it passed under a "
                "schedule is in history()"
            )
        return Used(at, values)

    def last_followed(self, name: str, now: int) -> tuple[Schedule, int] | None:
        """What `name` followed at the last completed step, and that step; None where none was made."""
        found = None
        for _, stop, schedule in self.stretches(name, now):
            found = schedule, stop - 1
        return found

    def drawn(
        self, name: str, plan: Schedule, now: int, fixed: Callable[[Schedule], Schedule] = lambda s: s
    ) -> Schedule:
        """What was used up to `now` (of a step that was made twice, the last time), then the plan, as one schedule.

        The plan itself where it was never changed. `fixed` gives live inputs a value.
        """
        pieces: list[_Piece] = [(0, None, fixed(plan))]
        for start, stop, schedule in [*self.stretches(name, now), (now, None, plan)]:
            pieces = _laid_over(pieces, start, stop, fixed(schedule))
        parts = [
            tail(schedule, start) if stop is None else head(tail(schedule, start), stop - start)
            for start, stop, schedule in pieces
        ]
        return chain(parts)

    def to_state(self, index: Callable[[Schedule], int]) -> list[list[Any]]:
        """As lists of plain numbers and strings; `index` gives a schedule its number among the documents."""
        return [
            [
                self._resolved(at),
                entry.what,
                self._resolved(at) if entry.goes_on is None else entry.goes_on,
                [[name, None if s is None else index(s)] for name, s in entry.after.items()],
            ]
            for at, entry in enumerate(self._entries)
        ]

    @classmethod
    def of(cls, changes: Iterable[tuple[int, str, int, dict[str, Schedule | None]]]) -> History:
        """The history that a state holds."""
        history = cls({})
        history._entries = [
            _Entry(step, what, None if goes_on == step else goes_on, after)
            for step, what, goes_on, after in changes
        ]
        return history

    def begun(self, now: int) -> bool:
        """Whether a step was made since the last change."""
        entry = self._entries[-1]
        step = self._resolved(len(self._entries) - 1)
        return now > (step if entry.goes_on is None else entry.goes_on)

    def _resolved(self, at: int) -> int:
        entry = self._entries[at]
        if isinstance(entry.step, torch.Tensor):
            step = int(entry.step.item())
            self._entries[at] = entry._replace(
                step=step, goes_on=None if entry.goes_on == step else entry.goes_on
            )
            return step
        return entry.step

    def _drop(self) -> None:
        """The oldest change goes: what came before the next one is forgotten."""
        first, second = self._entries[:2]
        follows = {name: s for name, s in first.after.items() if s is not None}
        _follow(follows, second.after)
        self._entries[:2] = [second._replace(after=dict(follows))]
        if not self._dropped:
            self._dropped = True
            warnings.warn(
                f"the plan was changed {MOST} times, so the oldest changes are forgotten (history(), used()); let the "
                "schedule advance by itself instead of calling seek() at every step",
                UserWarning,
                stacklevel=4,
            )


def _held(schedule: Schedule, steps: npt.NDArray[np.int64], each: int) -> npt.NDArray[np.float64]:
    return sample(schedule, (steps - steps % each).astype(np.float64))


def _begin(entry: _Entry) -> int | torch.Tensor:
    return entry.step if entry.goes_on is None else entry.goes_on


def _follow(follows: dict[str, Schedule], after: Mapping[str, Schedule | None]) -> None:
    for name, schedule in after.items():
        if schedule is None:
            follows.pop(name, None)
        else:
            follows[name] = schedule


def _laid_over(pieces: list[_Piece], start: int, stop: int | None, schedule: Schedule) -> list[_Piece]:
    """The pieces with another one in the place of what they had at start..stop-1; equal neighbours are one."""
    cut: list[_Piece] = [(a, start if b is None else min(b, start), s) for a, b, s in pieces if a < start]
    cut.append((start, stop, schedule))
    if stop is not None:
        cut += [(max(a, stop), b, s) for a, b, s in pieces if b is None or b > stop]
    joined = cut[:1]
    for a, b, s in cut[1:]:
        if joined[-1][2] == s:
            joined[-1] = (joined[-1][0], b, s)
        else:
            joined.append((a, b, s))
    return joined


def _names(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _text(schedule: Schedule | None) -> str:
    return "no schedule" if schedule is None else brief(schedule)

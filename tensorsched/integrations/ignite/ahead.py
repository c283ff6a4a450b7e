"""The next values of handlers, evaluated at once: an event then costs a look-up and the write.

The truth stays in the handlers' attributes; what is here can be dropped at any time, and is dropped when one of them
changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorsched.errors import ScheduleError

__all__ = ["Ahead", "Forecast"]

Forecast = tuple[list[float], dict[str, Any]]
"""The values of the next events, up to where an attribute changes; the attributes that change in front of the first."""

_FIRST, _MOST, _NUMBERS = 32, 1024, 2**18
"""Events of the first look, and of the longest; numbers of the longest. Each look is twice as long as the one before: a
handler whose attributes are assigned to at every event must not pay for a thousand."""


class Ahead:
    """The rows to come of some handlers.

    Args:
        owner: who reads it: a handler itself, or a ParamGroupScheduler's own list of handlers.
        members: the handlers.
        before: what the owner read until now.

    Raises:
        ScheduleError: the very next value of a member is not finite, or its attributes contradict each other.
    """

    at: int
    count: int
    __slots__ = ("at", "copies", "count", "last", "lists", "owner", "rows", "states", "turns")

    def __init__(self, owner: object, members: Sequence[Any], before: Ahead | None) -> None:
        used_up = before is not None and 0 < before.at == len(before.rows)
        twice = 2 * before.count if before is not None and used_up else _FIRST
        self.count = min(twice, _MOST, max(_NUMBERS // len(members), 1))
        forecasts: list[Forecast] = []
        for member in members:
            try:
                forecasts.append(member._forecast(self.count))  # noqa: SLF001  one of us
            except (ScheduleError, OverflowError) as error:
                who = f"{type(member).__name__}({member.param_name!r}) at event_index {member.event_index}"
                raise ScheduleError(f"{who}: {error}. Nothing was changed") from error
        self.owner, self.at = owner, 0
        self.rows: Sequence[tuple[float, ...]] = list(zip(*(values for values, _ in forecasts), strict=False))
        self.last: tuple[Any, ...] = (None,) * len(members)  # the row that is in the groups
        self.states, self.turns = [vars(member) for member in members], [turn for _, turn in forecasts]
        # Assigning to an attribute is noticed (`BaseParamScheduler.__setattr__`); `scheduler.values[1] = 0.5` is not:
        # the lists that values are made of are compared with copies at every event.
        self.lists = [getattr(member, name) for member in members for name in member._lists]  # noqa: SLF001
        self.lists += [owner] if isinstance(owner, list) else []
        self.copies = [list(live) for live in self.lists]
        for member in members:
            member._forget()  # noqa: SLF001  whoever looked ahead for it, is wrong after the next event
            vars(member)["_ahead"] = self

    def serves(self, owner: object) -> bool:
        """Whether the next row is there and right, for this owner: a copied handler finds its original's here."""
        return self.owner is owner and self.at < len(self.rows) and self.lists == self.copies

    def passed(self) -> None:
        """The event has been, its row is in the groups: bring the handlers' attributes up to date."""
        self.last = self.rows[self.at]
        if not self.at:  # and not before: an event that fails must not have changed an attribute
            for state, turn in zip(self.states, self.turns, strict=True):
                state.update(turn)
        for state in self.states:
            state["event_index"] += 1
        self.at += 1

"""Which values an optimizer takes, and at which step a schedule leaves them: known before the run, from the table.

The ranges are those that the constructors of torch 2.13 check, and tests/binding/test_ranges.py holds each against its
constructor. A param_group is not checked by torch: a negative lr that a schedule reaches would be used. Of an optimizer
that is not torch's only lr and betas are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import optim

from tensorsched.engine import ScheduleTable
from tensorsched.engine.clock_table import ClockTable
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief, evaluate

__all__ = ["RANGES", "Range", "range_of", "refuse_now", "refuse_out_of_range", "refuse_values", "refuser"]


_ROUNDING = 2.0**-40  # of the largest value: 0.3 - 0.1 - 0.2, which is -3e-17, is meant as 0


class Range(NamedTuple):
    """An interval; `open_low` and `open_high` leave its ends out."""

    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, low: float, high: float) -> bool:
        """Whether all that is between two values is in it; a rounding beyond a closed end is none."""
        slack = _ROUNDING * max(abs(low), abs(high))
        above = low > self.low if self.open_low else low >= self.low - slack
        below = high < self.high if self.open_high else high <= self.high + slack
        return above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.open_low else 'at least'} {self.low:g}"
        if self.low == -math.inf:
            return f"at most {self.high:g}"
        return f"in {'[('[self.open_low]}{self.low:g}, {self.high:g}{'])'[self.open_high]}"


_ANY, _ABOVE, _BETA = Range(), Range(open_low=True), Range(0.0, 1.0, open_high=True)
_COMMON = {"lr": _ANY, "weight_decay": _ANY}
_BETAS = {"betas[0]": _BETA, "betas[1]": _BETA}
_ADAM = _COMMON | _BETAS | {"eps": _ANY}
_ASGD = (
    {"lambd": _ANY, "alpha": _ANY} if torch.__version__ >= "2.15" else {}
)  # looked at from that release on

RANGES: dict[type, Mapping[str, Range]] = {
    optim.Adadelta: _COMMON | {"rho": Range(0.0, 1.0), "eps": _ANY},
    optim.Adafactor: _COMMON
    | {"beta2_decay": Range(-math.inf, 0.0), "eps[0]": _ANY, "eps[1]": _ANY, "d": Range(1.0)},
    optim.Adagrad: _COMMON | {"lr_decay": _ANY, "eps": _ANY},
    optim.Adam: _ADAM,
    optim.AdamW: _ADAM,
    optim.Adamax: _ADAM,
    optim.ASGD: _COMMON | _ASGD,
    optim.LBFGS: {"lr": _ANY},
    optim.Muon: _COMMON | {"momentum": _ANY},
    optim.NAdam: _ADAM | {"momentum_decay": _ANY},
    optim.RAdam: _ADAM,
    optim.RMSprop: _COMMON | {"momentum": _ANY, "alpha": _ANY, "eps": _ANY},
    optim.Rprop: {
        "lr": _ANY,
        "etas[0]": Range(0.0, 1.0, open_low=True, open_high=True),
        "etas[1]": Range(1.0, open_low=True),
    },
    optim.SGD: _COMMON | {"momentum": _ANY},
    optim.SparseAdam: {"lr": _ABOVE, "eps": _ABOVE} | _BETAS,
}
"""By exact type, and by part of a group; a part that is not here may have any value."""

_UNKNOWN = {"lr": _ANY, "betas[2]": Range(0.0, 1.0)} | _BETAS


def range_of(optimizer: object, part: str) -> Range | None:
    """The values that an optimizer takes for "lr", "betas[1]"; None: any."""
    return RANGES.get(type(optimizer), _UNKNOWN).get(part)


class Ranged(Protocol):
    """A slot, as far as it matters here."""

    @property
    def place(self) -> Place:
        """Where it is."""

    @property
    def schedule(self) -> Schedule:
        """What it follows."""

    @property
    def limits(self) -> Range | None:
        """The values that it may have."""


def refuse_out_of_range(slots: Iterable[Ranged], table: ScheduleTable | ClockTable) -> None:
    """Check the smallest and the largest value of each slot's column.

    Raises:
        BindingError: one is out of range; the message has the first step at which it is.
    """
    checked = [slot for slot in slots if slot.limits is not None]
    if not checked:
        return
    if isinstance(table, ClockTable):
        for slot in checked:
            values = table.values_of(slot.place.name)
            refuse_values(slot, slot.schedule, values, table.positions, table.clock.unit)
        return
    lows, highs = (ends.tolist() for ends in table.layout.extremes())
    for slot in checked:
        at = table.live_column[slot.place.name]
        if slot.limits is not None and not slot.limits.holds(lows[at], highs[at]):
            values = evaluate(slot.schedule, 0, table.rows).astype(table.layout.dtype)
            refuse_values(slot, slot.schedule, values)


def refuse_values(
    slot: Ranged, schedule: Schedule, values: Any, positions: Any = None, unit: str = "step"
) -> None:
    """Check the values that a slot would have at these positions; default: at steps 0, 1, ...

    Raises:
        BindingError: as `refuse_out_of_range`.
    """
    limits = slot.limits
    if limits is None or limits.holds(values.min(), values.max()):
        return
    step = next(step for step, value in enumerate(values.tolist()) if not limits.holds(value, value))
    at = step if positions is None else int(positions[step])
    raise BindingError(
        f"{slot.place.name} must be {limits}, and is {values[step].item()!r} at {unit} {at}: {brief(schedule)}; "
        f"{_way_out(slot.place, limits)}, or pass attach(..., allow_out_of_range=True) if it is meant"
    )


def refuse_now(values: Iterable[tuple[Ranged, float]]) -> None:
    """Check what slots would hold with their live inputs as they are now; what is not finite is an error elsewhere.

    Raises:
        BindingError: one is out of range.
    """
    for slot, value in values:
        if slot.limits is not None and math.isfinite(value) and not slot.limits.holds(value, value):
            raise BindingError(
                f"{slot.place.name} must be {slot.limits}, and is {value!r} with its live inputs as they are now: "
                f"{brief(slot.schedule)}; write another value to sched.inputs, clamp the schedule, or pass "
                "attach(..., allow_out_of_range=True) if it is meant"
            )


def refuser(slots: Iterable[tuple[Ranged, int]]) -> Callable[[Sequence[float]], None]:
    """The function that makes that check of a row, in which the values of these slots are at these places.

    For each range it looks at the smallest and the largest value, and only where one is out of it at every slot.
    """
    watched: dict[Range, list[tuple[Ranged, int]]] = {}
    for slot, at in slots:
        if slot.limits is not None:
            watched.setdefault(slot.limits, []).append((slot, at))
    takes = [(limits, held, sorted({at for _, at in held})) for limits, held in watched.items()]

    def refuse(row: Sequence[float]) -> None:
        for limits, held, columns in takes:
            values = [row[at] for at in columns]
            low, high = min(values), max(values)
            if not (limits.holds(low, low) and limits.holds(high, high)):
                refuse_now((slot, row[at]) for slot, at in held)

    return refuse


def may_be(slot: Ranged, value: float) -> bool:
    """Whether a step would take this value."""
    return math.isfinite(value) and (slot.limits is None or slot.limits.holds(value, value))


def _way_out(place: Place, limits: Range) -> str:
    low = f"{limits.low:g}" if math.isfinite(limits.low) and not limits.open_low else ""
    high = f"{limits.high:g}" if math.isfinite(limits.high) and not limits.open_high else ""
    bounds = ", ".join(filter(None, (low, high and f"high={high}")))
    way_out = f"change it, for example with .clamp({bounds})" if bounds else "change it"
    return (
        f"{way_out} (to climb a gradient, build the optimizer with maximize=True)"
        if place.key == "lr"
        else way_out
    )

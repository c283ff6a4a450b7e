"""record(): any scheduler object, as schedules: the two-minute way from a scheduler to `attach`."""

from __future__ import annotations

import math
import warnings
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tensorsched.errors import ScheduleError
from tensorsched.recording import kinds
from tensorsched.recording.scheduler_copy import Group, StandIn, double
from tensorsched.schedules import Schedule, constant, from_values
from tensorsched.schedules.node import brief
from tensorsched.schedules.validators import check_count
from tensorsched.schedules.words import worded

__all__ = ["Recording", "by_key", "record"]

Place = tuple[int, str, int | None]


class Recording(dict[str, Any]):
    """What `record` returns: a dict, with long tables elided where it is shown."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: {_brief(value)}" for key, value in self.items()) + "}"


@worded
def record(
    scheduler: Any,
    steps: int,
    *,
    every: int | Sequence[int] = 1,
    increment: int | None = None,
    at: int | None = None,
) -> dict[str, Any]:
    """Step a copy of a scheduler on a stand-in optimizer, and return what it wrote as schedules for `attach`.

    Neither the scheduler nor its optimizer is touched. The values are those that the scheduler would write, bit for
    bit; their step 0 is where the scheduler stands now (its start, if it is new): the values in the param_groups now
    are what the next `optimizer.step()` uses. To go on from the middle of a run, record there and attach there, at step
    0; or record a new scheduler, attach, and `sched.seek(step)`. `ts.expression` gives formulas in place of values, for
    torch's own schedulers.

    Args:
        scheduler: a torch LRScheduler of any kind (chained, sequential, with a momentum), transformers' (which are
            LambdaLRs), any other object with `optimizer` and `step()`, a container of such (torchtitan's), a timm
            scheduler (`step_update`, or `step` where it counts epochs), an ignite ParamScheduler; or a list of
            schedulers of one optimizer, which are stepped one after the other (mmengine's; two of torch's).
        steps: how many values to record, an int >= 1; the last is held after them.
        every: optimizer steps to one step of the scheduler, an int >= 1: the steps of an epoch for a scheduler that is
            stepped once an epoch. For a list also a list, one for each; a value is then recorded at every greatest
            common divisor of them.
        increment: what one optimizer step adds, for a scheduler whose `step(increment)` must be told (Megatron-LM's:
            the samples of a global batch).
        at: the count that a scheduler was last given which is told it and keeps none (timm's, in the middle of a run).

    Returns:
        A dict for `ts.attach(optimizer, **recorded)`: for each hyperparameter that is scheduled one schedule, or where
        the groups differ a list with one a group (None: left alone), of betas a tuple with one an element. A value that
        stays the same is a `constant`, any other a `from_values` table of `steps` numbers. First drop the scheduler
        (and its `scheduler.step()` calls): two writers of one value are an error.

    Raises:
        ScheduleError: steps or every is no whole number >= 1; the scheduler follows a metric (ReduceLROnPlateau,
            GreedyLR), its optimizer (AdafactorSchedule) or a trainer's clock (Composer's), has no optimizer or several,
            draws from a generator, or stops before `steps` steps; a list steps one twice, or has clocks that differ and
            an `every` that does not; a timm scheduler is not at its start and `at` does not say where, or not there;
            a value is not finite.

    What the scheduler's functions close over is copied with it; a function that writes to globals or draws from a
    global random generator does so while it is recorded. Reads a group's tensors on the host, which synchronises.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=1.0)
        >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        >>> ts.record(scheduler, 4)
        {'lr': from_values((1.0, 0.5, 0.25, 0.125))}
        >>> sched = ts.attach(optimizer, **ts.record(scheduler, 4))
    """
    count = check_count("record: steps", steps, least=1)
    members = kinds.members(scheduler)
    holds = _holds(every, members)
    for member in members:
        kinds.check_known_before(member)
    optimizer = kinds.optimizer_of(members)
    _check_told(members, optimizer, increment, at)
    copied, stand_in = double(list(members), optimizer)
    steppers = [kinds.stepper(member, increment, at or 0) for member in copied]
    unit = math.gcd(*holds)
    columns = _Columns(stand_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the scheduler, which would say the same to its user
        for t in range(count):
            for each, hold in zip(steppers, holds, strict=True):
                turn, rest = divmod(t * unit, hold)
                if not rest and (turn or each.before_first):
                    _step(each.advance, turn, count)
            columns.note(t)
    return Recording(by_key(columns.schedules(count, unit), stand_in.param_groups[: _real_groups(optimizer)]))


def _holds(every: int | Sequence[int], members: tuple[Any, ...]) -> list[int]:
    """The optimizer steps to one step of each scheduler."""
    if isinstance(every, (list, tuple)):
        if len(every) != len(members):
            raise ScheduleError(
                f"record: every has {len(every)} entries for {len(members)} schedulers; give one for each, or a number"
            )
        return [check_count(f"record: every[{i}]", each, least=1) for i, each in enumerate(every)]
    clocks = {bool(getattr(member, "by_epoch", getattr(member, "t_in_epochs", False))) for member in members}
    if len(clocks) > 1:
        raise ScheduleError(
            "record: some of the schedulers count epochs (by_epoch) and some steps; pass every= as a list, such as "
            "[1, steps_per_epoch]"
        )
    return [check_count("record: every", every, least=1)] * len(members)


def _check_told(members: tuple[Any, ...], optimizer: Any, increment: int | None, at: int | None) -> None:
    """That what only some schedulers are told fits one of these."""
    if increment is not None and not any(map(kinds.takes_increment, members)):
        raise ScheduleError(
            "record: increment is for a scheduler with step(increment), and none of these has one"
        )
    if at is not None:
        check_count("record: at", at)
        if not any(hasattr(member, "step_update") for member in members):
            raise ScheduleError(
                "record: at is for a scheduler that is told the count (timm's); this one keeps its own, and is "
                "recorded from where it stands"
            )
    if increment is not None:
        check_count("record: increment", increment, least=1)
    for member in members:
        kinds.check_counts(member, optimizer, at)


def _real_groups(optimizer: Any) -> int:
    """How many groups attach will find: mmengine's wrapper shows a group more than its optimizer has."""
    inner = getattr(getattr(optimizer, "optimizer", None), "param_groups", None)
    return len(inner) if isinstance(inner, Sequence) and inner else len(optimizer.param_groups)


def _step(advance: Callable[[int], object], t: int, count: int) -> None:
    try:
        advance(t)
    except ScheduleError:
        raise
    except Exception as error:
        raise ScheduleError(
            f"the scheduler stopped at step {t} of the {count} to record: {type(error).__name__}: {error}; record at "
            f"most {t} steps, or repair it"
        ) from error


# -- what it writes ---------------------------------------------------------------------------------------------------


class _Columns:
    """The values of each hyperparameter that is written, step by step."""

    def __init__(self, stand_in: StandIn) -> None:
        self._groups = stand_in.param_groups
        self._held = [{key: _numbers(value) for key, value in group.items()} for group in self._groups]
        self._columns: dict[Place, array[float]] = {}
        for group in self._groups:  # a tensor may be filled in place: nobody sees that it is written
            group.written |= {key for key, value in group.items() if isinstance(value, torch.Tensor)}
            group.written |= {"lr"} & group.keys()

    def note(self, t: int) -> None:
        """Read what the groups hold at step t under the keys that are written."""
        columns = self._columns
        for index, group in enumerate(self._groups):
            for key in group.written:
                place = index, key, None
                if place in columns and type(group[key]) is float:  # the common case, a million times
                    columns[place].append(group[key])
                else:
                    self._append(index, key, group, t)

    def _append(self, index: int, key: str, group: Group, t: int) -> None:
        for element, number in _numbers(group[key]).items():
            place = index, key, element
            if place not in self._columns:
                held = self._held[index].get(key, {}).get(element)
                if held is None:
                    return  # a note of the scheduler's own (initial_lr), or no hyperparameter
                self._columns[place] = array("d", [held] * t)
            self._columns[place].append(number)

    def schedules(self, count: int, hold: int) -> dict[Place, Schedule]:
        """A schedule for each place that changes; where none does, for the learning rates."""
        changed = {place: column for place, column in self._columns.items() if self._changes(place, column)}
        kept = changed or {place: column for place, column in self._columns.items() if place[1] == "lr"}
        made: dict[bytes, Schedule] = {}
        found: dict[Place, Schedule] = {}
        for place, column in kept.items():
            values = column + array("d", column[-1:] * (count - len(column)))
            key = values.tobytes()
            if key not in made:
                made[key] = _schedule(place, values, hold)
            found[place] = made[key]
        return found

    def _changes(self, place: Place, column: array[float]) -> bool:
        index, key, element = place
        held = self._held[index][key][element]
        return any(value != held for value in column)


def _numbers(held: Any) -> dict[int | None, float]:
    """The number, or the numbers of a tuple, that a group holds under a key."""
    if isinstance(held, (tuple, list)):
        return {i: number for i, item in enumerate(held) for number in _numbers(item).values()}
    if isinstance(held, torch.Tensor):
        return {None: float(held.item())} if held.numel() == 1 and held.is_floating_point() else {}
    return {None: float(held)} if isinstance(held, (int, float)) and not isinstance(held, bool) else {}


def _schedule(place: Place, values: array[float], hold: int) -> Schedule:
    index, key, _ = place
    try:
        if all(value == values[0] for value in values):
            return constant(values[0])
        schedule: Schedule = from_values(values.tolist())
    except ScheduleError as error:
        raise ScheduleError(
            f"{key} of group {index}: {error}; record fewer steps, or repair the scheduler"
        ) from None
    return schedule if hold == 1 else schedule.hold_each(hold)


def by_key(found: Mapping[Place, Schedule], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As `attach` takes them: one for all groups where they agree, else a list."""
    made: dict[str, Any] = {}
    for key in dict.fromkeys(key for _, key, _ in found):
        entries = [_entry(found, index, key, group) for index, group in enumerate(groups)]
        made[key] = entries[0] if all(entry == entries[0] for entry in entries) else entries
    return made


def _entry(found: Mapping[Place, Schedule], index: int, key: str, group: Mapping[str, Any]) -> Any:
    if isinstance(group.get(key), (tuple, list)):
        parts = tuple(found.get((index, key, element)) for element in range(len(group[key])))
        return None if all(part is None for part in parts) else parts
    return found.get((index, key, None))


def _brief(value: Any) -> str:
    if isinstance(value, Schedule):
        return brief(value)
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_brief, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)

"""record(): any scheduler object, as schedules: the two-minute way from a scheduler to `attach`."""

from __future__ import annotations

import inspect
import warnings
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tensorsched.errors import ScheduleError
from tensorsched.recording.scheduler_copy import Group, StandIn, double
from tensorsched.schedules import Schedule, constant, from_values
from tensorsched.schedules.node import brief
from tensorsched.schedules.validators import check_count
from tensorsched.schedules.words import worded

__all__ = ["record"]

_HOLDS = (
    "_schedulers",
    "schedulers",
    "lr_scheduler",
    "scheduler",
)  # attributes under which schedulers hold schedulers
_DRIVEN = ("ReduceLROnPlateau", "PlateauLRScheduler", "ReduceLROnPlateauScheduler", "GreedyLR")

_DEEPEST = 10  # schedulers in schedulers

Place = tuple[int, str, int | None]


class Recording(dict[str, Any]):
    """What `record` returns: a dict, with long tables elided where it is shown."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: {_brief(value)}" for key, value in self.items()) + "}"


@worded
def record(scheduler: Any, steps: int, *, every: int = 1) -> dict[str, Any]:
    """Step a copy of a scheduler on a stand-in optimizer, and return what it wrote as schedules for `attach`.

    Neither the scheduler nor its optimizer is touched. The values are those that the scheduler would write, bit for
    bit; their step 0 is where the scheduler stands now (its start, if it is new): the values in the param_groups now
    are what the next `optimizer.step()` uses. To go on from the middle of a run, record there and attach there, at step
    0; or record a new scheduler, attach, and `sched.seek(step)`.

    Args:
        scheduler: a torch LRScheduler of any kind (chained, sequential, with a momentum), transformers' (which are
            LambdaLRs), any other object with `optimizer` and `step()`, a timm scheduler (`step_update`, or `step` where
            it counts epochs; it keeps no count, so record it before training starts), or an ignite ParamScheduler.
        steps: how many values to record, an int >= 1; the last is held after them.
        every: optimizer steps to one step of the scheduler, an int >= 1: the steps of an epoch for a scheduler that is
            stepped once an epoch.

    Returns:
        A dict for `ts.attach(optimizer, **recorded)`: for each hyperparameter that is scheduled one schedule, or where
        the groups differ a list with one a group (None: left alone), of betas a tuple with one an element. A value that
        stays the same is a `constant`, any other a `from_values` table of `steps` numbers. First drop the scheduler
        (and its `scheduler.step()` calls): two writers of one value are an error.

    Raises:
        ScheduleError: steps or every is no whole number >= 1; the scheduler follows a metric (ReduceLROnPlateau,
            GreedyLR), has no optimizer, draws from a generator, or stops before `steps` steps; a value is not finite.

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
    hold = check_count("record: every", every, least=1)
    for part in _parts(scheduler):
        _refuse_data_driven(part)
    copied, stand_in = double(scheduler, _optimizer(scheduler))
    columns = _Columns(stand_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the scheduler, which would say the same to its user
        advance, before_first = _advance(copied)
        for t in range(count):
            if t or before_first:
                _step(advance, t, count)
            columns.note(t)
    return Recording(_by_key(columns.schedules(count, hold), stand_in.param_groups))


# -- what kind of scheduler it is -------------------------------------------------------------------------------------


def _parts(scheduler: Any, depth: int = 0) -> Iterator[Any]:
    """A scheduler and all that it is made of; bounded, for one that holds itself."""
    yield scheduler
    for name in _HOLDS if depth < _DEEPEST else ():
        inner = vars(scheduler).get(name) if hasattr(scheduler, "__dict__") else None
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            if part is not None:
                yield from _parts(part, depth + 1)


def _refuse_data_driven(scheduler: Any) -> None:
    names = {kind.__name__ for kind in type(scheduler).__mro__}
    step = getattr(scheduler, "step", None)
    asks = (
        callable(step)
        and not isinstance(scheduler, type)
        and not hasattr(scheduler, "step_update")
        and _required(step)
    )
    if names & set(_DRIVEN) or asks:
        raise ScheduleError(
            f"{type(scheduler).__name__} follows a metric of the training, so what it will write is not known before; "
            "keep it for that hyperparameter (attach schedules to others), or write down the curve that you expect, "
            "for example with ts.warmup_cosine"
        )


def _required(method: Callable[..., Any]) -> bool:
    """Whether a step cannot be made without being told something."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(method).parameters.values()
    return any(p.default is inspect.Parameter.empty and p.kind in kinds for p in parameters)


def _optimizer(scheduler: Any) -> Any:
    found = getattr(scheduler, "optimizer", None)
    each = found if isinstance(found, (list, tuple)) else [found]
    groups = [getattr(optimizer, "param_groups", None) for optimizer in each]
    if not groups or not all(isinstance(group, Sequence) and len(group) for group in groups):
        if hasattr(scheduler, "param_groups"):
            raise ScheduleError(
                f"record() takes a scheduler, and {type(scheduler).__name__} is an optimizer: write "
                "ts.record(scheduler, steps); to schedule the optimizer, ts.attach(optimizer, lr=schedule)"
            )
        inner = getattr(scheduler, "scheduler", None)
        hint = (
            "pass the scheduler inside it, its .scheduler"
            if inner is not None
            else "pass the scheduler itself"
        )
        raise ScheduleError(
            f"record() needs a scheduler with an optimizer, and {type(scheduler).__name__} has none; {hint}"
        )
    if any(optimizer is not each[0] for optimizer in each):
        raise ScheduleError(
            f"{type(scheduler).__name__} drives {len(each)} optimizers; record the scheduler of each one by itself"
        )
    return each[0]


def _advance(scheduler: Any) -> tuple[Callable[[int], object], bool]:
    """What makes a scheduler write the values of step t, and whether it does so before the first step too."""
    if callable(scheduler) and hasattr(scheduler, "get_param"):  # ignite's, called before each iteration
        return lambda _: scheduler(None), True
    if hasattr(scheduler, "step_update"):  # timm's, which is told the count
        in_epochs = getattr(scheduler, "t_in_epochs", False)
        return (scheduler.step if in_epochs else scheduler.step_update), False
    if callable(scheduler) and hasattr(
        scheduler, "schedulers"
    ):  # ignite's ParamGroupScheduler in old versions
        return lambda _: scheduler(None), True
    if not callable(getattr(scheduler, "step", None)):
        raise ScheduleError(
            f"record() needs a scheduler that can be stepped, and {type(scheduler).__name__} has no step()"
        )
    return lambda _: scheduler.step(), False


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


def _by_key(found: dict[Place, Schedule], groups: Sequence[Group]) -> dict[str, Any]:
    """As `attach` takes them: one for all groups where they agree, else a list."""
    made: dict[str, Any] = {}
    for key in dict.fromkeys(key for _, key, _ in found):
        entries = [_entry(found, index, key, group) for index, group in enumerate(groups)]
        made[key] = entries[0] if all(entry == entries[0] for entry in entries) else entries
    return made


def _entry(found: dict[Place, Schedule], index: int, key: str, group: Group) -> Any:
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

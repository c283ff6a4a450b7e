"""From what the user wrote (`attach(optimizer, lr=..., betas=(..., None))`) to one request per slot, or an error.

Nothing here changes the optimizer.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule
from tensorsched.schedules.algebra import as_schedule, has_initial, substitute_initial
from tensorsched.schedules.validators import check_real


@dataclasses.dataclass(frozen=True)
class Request:
    """One scheduled hyperparameter: a group, its key, the element if the key holds a tuple, and the schedule."""

    group: int
    key: str
    element: int | None
    schedule: Schedule

    @property
    def place(self) -> tuple[int, str, int | None]:
        """What it claims."""
        return (self.group, self.key, self.element)

    @property
    def part(self) -> str:
        """The key, and of a tuple the element: "lr", "betas[1]"."""
        return self.key if self.element is None else f"{self.key}[{self.element}]"

    @property
    def name(self) -> str:
        """Name of its column: "lr" of group 0 is `lr[group 0]`."""
        return f"{self.part}[group {self.group}]"


def param_groups(optimizer: object) -> list[dict[str, Any]]:
    """The optimizer's own list of groups.

    Raises:
        BindingError: it has none.
    """
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, Sequence) or not groups or not all(isinstance(g, dict) for g in groups):
        raise BindingError(
            f"{type(optimizer).__name__} has no param_groups (a non-empty list of dicts), so there is nothing to "
            "attach a schedule to; pass the optimizer itself"
        )
    return groups  # type: ignore[return-value]  # torch's is a list; any sequence of dicts serves


def read_requests(groups: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> list[Request]:
    """One request for each scheduled (group, key, element), group by group.

    Raises:
        BindingError: a key that the groups do not have, a value that is no number, or a list or tuple that does not
            fit.
        ScheduleError: a number that is not finite.
    """
    requests: list[Request] = []
    for key, value in wanted.items():
        if isinstance(value, list):
            if len(value) != len(groups):
                raise BindingError(
                    f"{key}: the list has {len(value)} entries but the optimizer has {len(groups)} param_groups; "
                    "give one schedule for each group (None leaves a group alone), or a single schedule for all of them"
                )
            entries = list(enumerate(value))
        else:
            entries = [(index, value) for index in range(len(groups))]
        for index, entry in entries:
            if entry is not None:
                requests += _read_group(groups, index, key, entry)
    if not requests:
        raise BindingError(
            f"attach() was given nothing but None for {', '.join(wanted)}; pass a schedule for one group"
        )
    return sorted(requests, key=lambda request: request.group)


def read_free(groups: Sequence[Mapping[str, Any]], free: Mapping[Any, Any]) -> dict[str, Schedule]:
    """The schedules by name that belong to no group.

    Raises:
        BindingError: a name that is no string or is a hyperparameter's, or a value that is no schedule.
    """
    if not isinstance(free, Mapping):
        raise BindingError(f"free must be a dict of names and schedules, got {type(free).__name__}")
    found: dict[str, Schedule] = {}
    for name, value in free.items():
        if (
            not isinstance(name, str)
            or isinstance(value, bool)
            or not isinstance(value, (Schedule, numbers.Real))
        ):
            raise BindingError(f"free: expected a schedule for each name, got {name!r}: {value!r}")
        if any(name in group for group in groups):
            raise BindingError(
                f"free: {name!r} is a hyperparameter of the optimizer; pass it as {name}=..., or rename it"
            )
        if isinstance(value, Schedule) and has_initial(value):
            raise BindingError(
                f"free: {name!r} belongs to no group, so ts.initial means nothing in it; use a number"
            )
        found[name] = as_schedule(
            value if isinstance(value, Schedule) else check_real(f"free: {name}", value)
        )
    return found


def _read_group(groups: Sequence[Mapping[str, Any]], index: int, key: str, entry: object) -> list[Request]:
    group = groups[index]
    if key == "params" or key not in group:
        raise _no_such_key(groups, index, key)
    held = group[key]
    where = f"{key} of group {index}"
    started = group.get("initial_lr", held)
    if (
        key == "lr"
        and isinstance(entry, Schedule)
        and has_initial(entry)
        and as_float(started) != as_float(held)
    ):
        raise BindingError(
            f"{where} holds {as_float(held)}, but its initial_lr is {as_float(started)}: a torch scheduler was built "
            "on this optimizer, or its checkpoint loaded, so ts.initial would take the wrong one; set group['lr'] = "
            "group.pop('initial_lr') first, or write the number instead of ts.initial"
        )
    if not isinstance(held, (tuple, list)):
        if isinstance(entry, tuple):
            raise BindingError(
                f"{where} holds a single value, not {len(entry)}; pass one schedule instead of a tuple "
                "(or a list, one schedule for each group)"
            )
        return [Request(index, key, None, _read_schedule(where, entry, held))]
    if not isinstance(entry, tuple) or len(entry) != len(held):
        got = f"a tuple of {len(entry)}" if isinstance(entry, tuple) else "a single schedule"
        example = "(" + ", ".join(["schedule", *["None"] * (len(held) - 1)]) + ")"
        raise BindingError(
            f"{where} holds {len(held)} values, got {got}; pass a tuple of {len(held)} such as {key}={example}, "
            "where None leaves that element alone"
        )
    return [
        Request(index, key, i, _read_schedule(f"{where}, element {i}", part, held[i]))
        for i, part in enumerate(entry)
        if part is not None
    ]


def _no_such_key(groups: Sequence[Mapping[str, Any]], index: int, key: str) -> BindingError:
    keys = [name for name in groups[index] if name != "params"]
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(keys)}"
    elsewhere = [i for i, group in enumerate(groups) if key in group and key != "params"]
    if elsewhere:
        hint = f"groups {elsewhere} have it: pass a list with None for the others"
    return BindingError(f"group {index} has no hyperparameter {key!r}; {hint}")


def _read_schedule(where: str, entry: object, held: object) -> Schedule:
    if isinstance(entry, bool) or not isinstance(entry, (Schedule, numbers.Real)):
        hint = ""
        if isinstance(entry, torch.optim.lr_scheduler.LRScheduler):
            hint = " (a torch scheduler drives the optimizer by itself)"
        elif callable(entry):
            hint = " (a function: tabulate it with ts.from_function(fn, steps))"
        raise BindingError(f"{where}: expected a schedule or a number, got {type(entry).__name__}{hint}")
    value = as_float(held)
    if value is None:
        raise BindingError(f"{where} holds {held!r}, which is not a number and cannot follow a schedule")
    schedule = as_schedule(entry if isinstance(entry, Schedule) else check_real(where, entry))
    if not has_initial(schedule):
        return schedule
    if not math.isfinite(value):
        raise BindingError(
            f"{where} holds {value}, so ts.initial has no finite value; set the hyperparameter first"
        )
    return substitute_initial(schedule, value)


def as_float(held: object) -> float | None:
    """A number or one-element tensor as a float (a tensor on a device synchronises); None for anything else."""
    if isinstance(held, torch.Tensor) and held.numel() == 1:
        return float(held.item())
    return float(held) if isinstance(held, numbers.Real) and not isinstance(held, bool) else None

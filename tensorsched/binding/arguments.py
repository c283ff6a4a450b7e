"""From what the user wrote (`attach(optimizer, lr=..., betas=(..., None))`) to a schedule for each place, or an error.

Nothing here changes the optimizer.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.carried import carries, initial_key
from tensorsched.binding.doors import hint_for_key, hint_for_list, hint_for_value
from tensorsched.binding.group_names import list_by_group
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, as_float
from tensorsched.schedules import Schedule
from tensorsched.schedules.algebra import as_schedule, has_initial, substitute_initial
from tensorsched.schedules.node import brief
from tensorsched.schedules.template import fill_in, templates
from tensorsched.schedules.validators import check_count, check_real, shown

Groups = Sequence[Mapping[str, Any]]


def read_schedules(groups: Groups, wanted: Mapping[str, Any]) -> dict[Place, Schedule]:
    """The schedule of each place, group by group; `ts.initial` is what the place holds now.

    Raises:
        BindingError: a key that the groups do not have, a value that is no number, or a list, tuple or dict that does
            not fit.
        ScheduleError: a number that is not finite.
    """
    found: dict[Place, Schedule] = {}
    for key, given in wanted.items():
        value = list_by_group(groups, key, given) if isinstance(given, Mapping) else given
        if isinstance(value, list):
            if len(value) != len(groups):
                raise BindingError(
                    f"{key}: the list has {len(value)} entries but the optimizer has {len(groups)} param_groups; "
                    "give one schedule for each group (None leaves a group alone), or a single schedule for all of them"
                    f"{hint_for_list(groups, key, value)}"
                )
            entries = list(enumerate(value))
        else:
            entries = [(index, value) for index in range(len(groups))]
        for index, entry in entries:
            if entry is not None:
                found |= read_group(groups, index, key, entry)
    if not found:
        raise BindingError(
            f"attach() was given nothing but None for {', '.join(wanted)}; pass a schedule for one group"
        )
    return dict(sorted(found.items(), key=lambda item: item[0].group))


def with_total(wanted: Any, total: int | None) -> Any:
    """What the user wrote with `total` in the place of `total=?`, in every template of it."""
    if total is None:
        return wanted
    if isinstance(wanted, Schedule):
        return fill_in(wanted, total=total)
    if isinstance(wanted, Mapping):
        return {key: with_total(value, total) for key, value in wanted.items()}
    if type(wanted) in (list, tuple):
        return type(wanted)(with_total(value, total) for value in wanted)
    return wanted


def bind_total(
    total: int | None, hyperparameters: Mapping[str, Any], free: Any, *, later: bool
) -> tuple[dict[str, Any], Any]:
    """What was given to `attach`, with the total in it.

    Args:
        total: as given.
        hyperparameters: as given.
        free: as given.
        later: whether there may be schedules of groups that are added later.

    Raises:
        ScheduleError: the total is no number of steps.
        BindingError: no schedule wants it.
    """
    if total is not None:
        check_count("attach: total", total, least=1)
        if not later and not _wants_total([hyperparameters, free]):
            raise BindingError(
                "attach: total=n is what `total=?` in the text of a schedule stands for, and no schedule here has one; "
                "a schedule that was made with a total has its own (steps=n is for schedules that never settle)"
            )
    return with_total(dict(hyperparameters), total), with_total({} if free is None else free, total)


def _wants_total(wanted: Any) -> bool:
    """Whether a schedule in what the user wrote has a `total=?`."""
    if isinstance(wanted, Schedule):
        return any("total" in template.missing for template in templates(wanted))
    parts = (
        wanted.values() if isinstance(wanted, Mapping) else wanted if type(wanted) in (list, tuple) else ()
    )
    return any(map(_wants_total, parts))


def read_free(groups: Groups, free: Mapping[Any, Any]) -> dict[str, Schedule]:
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
            raise BindingError(f"free: expected a schedule for each name, got {shown(name)}: {shown(value)}")
        if any(name in group for group in groups):
            raise BindingError(
                f"free: {name!r} is a hyperparameter of the optimizer; pass it as {name}=..., or rename it"
            )
        if isinstance(value, Schedule):
            _refuse_unknown(f"free: {name}", value)
        if isinstance(value, Schedule) and has_initial(value):
            raise BindingError(
                f"free: {name!r} belongs to no group, so ts.initial means nothing in it; use a number"
            )
        found[name] = as_schedule(
            value if isinstance(value, Schedule) else check_real(f"free: {name}", value)
        )
    return found


def _fits_float64(number: numbers.Real) -> bool:
    """Also inf and nan: a loss may be either."""
    try:
        float(number)
    except OverflowError:
        return False
    return True


def read_metrics(
    reactions: Sequence[str], metric: Any, metrics: Mapping[str, Any]
) -> dict[str, torch.Tensor | float]:
    """The metric of each reaction that is shown one.

    Raises:
        BindingError: nothing reacts, no metric, an unknown name, or something that is no number.
    """
    if type(metric) is float and reactions and not metrics:
        return dict.fromkeys(reactions, metric)
    if not reactions:
        raise BindingError(
            "observe() needs something that reacts to a metric: attach a schedule such as lr * ts.plateau(patience=5)"
        )
    if (metric is None) == (not metrics):
        raise BindingError(
            "observe() takes one metric for all, or one for each by name, as in observe(loss) or "
            f"observe({reactions[0]}=loss)"
        )
    if unknown := sorted(set(metrics) - set(reactions)):
        raise BindingError(
            f"observe(): nothing that reacts is named {shown(unknown[0])}; there are {', '.join(reactions)}"
        )
    found: dict[str, torch.Tensor | float] = dict(metrics) if metrics else dict.fromkeys(reactions, metric)
    for name, given in found.items():
        fits = (
            given.numel() == 1 and not given.is_complex()
            if isinstance(given, torch.Tensor)
            else isinstance(given, numbers.Real) and not isinstance(given, bool) and _fits_float64(given)
        )
        if not fits:
            what = (
                f"a tensor of shape {tuple(given.shape)}" if isinstance(given, torch.Tensor) else shown(given)
            )
            raise BindingError(
                f"observe(): the metric for {name!r} must be a number or a tensor of one element, got {what}; take its "
                "mean() first"
            )
    return found


def read_group(groups: Groups, index: int, key: str, entry: object) -> dict[Place, Schedule]:
    """The schedules for one key of one group: one, or for a key that holds a tuple one for each element."""
    group = groups[index]
    if key == "params" or key not in group:
        raise _no_such_key(groups, index, key)
    held = group[key]
    where = f"{key} of group {index}"
    _refuse_stale_initial(group, key, entry, where)
    if not isinstance(held, (tuple, list)):
        if isinstance(entry, tuple):
            raise BindingError(
                f"{where} holds a single value, not {len(entry)}; pass one schedule instead of a tuple "
                "(or a list, one schedule for each group)"
            )
        return {Place(index, key): _read_schedule(where, entry, _started(group, key), key)}
    if not isinstance(entry, tuple) or len(entry) != len(held):
        got = f"a tuple of {len(entry)}" if isinstance(entry, tuple) else "a single schedule"
        example = "(" + ", ".join(["schedule", *["None"] * (len(held) - 1)]) + ")"
        raise BindingError(
            f"{where} holds {len(held)} values, got {got}; pass a tuple of {len(held)} such as {key}={example}, "
            "where None leaves that element alone"
        )
    return {
        Place(index, key, i): _read_schedule(f"{where}, element {i}", part, held[i], key)
        for i, part in enumerate(entry)
        if part is not None
    }


def _refuse_stale_initial(group: Mapping[str, Any], key: str, entry: object, where: str) -> None:
    """A torch scheduler leaves the decayed lr in the group, and where it began under initial_lr: which is meant?

    (Of a checkpoint that was saved under our own schedules, initial_lr is: see `_started`.)
    """
    parts = entry if isinstance(entry, tuple) else (entry,)
    if not any(isinstance(part, Schedule) and has_initial(part) for part in parts):
        return
    held, started = group[key], group.get(initial_key(key))
    if carries(group):
        if started is None:
            raise BindingError(
                f"{where} holds what a checkpoint saved in the middle of a schedule, so ts.initial would take the "
                "wrong value; attach before the checkpoint is loaded, or write the number instead of ts.initial"
            )
    elif started is not None and as_float(started) != as_float(held):
        name = initial_key(key)
        raise BindingError(
            f"{where} holds {as_float(held)}, but its {name} is {as_float(started)}: a torch scheduler was built on "
            f"this optimizer, or its checkpoint loaded, so ts.initial would take the wrong one; set group['{key}'] = "
            f"group.pop('{name}') first, or write the number instead of ts.initial"
        )


def _started(group: Mapping[str, Any], key: str) -> Any:
    """What `ts.initial` stands for: what is held; of a checkpoint that our schedules saved, what they began with."""
    return group.get(initial_key(key), group[key]) if carries(group) else group[key]


def _no_such_key(groups: Groups, index: int, key: str) -> BindingError:
    elsewhere = [i for i, group in enumerate(groups) if key in group and key != "params"]
    hint = (
        f"groups {elsewhere} have it: pass a list with None for the others"
        if elsewhere
        else hint_for_key(groups[index], key)
    )
    return BindingError(f"group {index} has no hyperparameter {key!r}; {hint}")


def _refuse_unknown(where: str, schedule: Schedule) -> None:
    """A template has no values yet."""
    for template in templates(schedule):
        names = template.missing
        way_out = f"write .bind({', '.join(f'{name}=n' for name in names)})"
        if names == ("total",):
            way_out = f"pass attach(..., total=n), the number of steps of the run, or {way_out}"
        raise BindingError(f"{where}: {', '.join(names)} of {brief(template)} is not known yet; {way_out}")


def _read_schedule(where: str, entry: object, held: object, key: str) -> Schedule:
    """The schedule for one value, with `ts.initial` replaced by what is held."""
    if isinstance(entry, bool) or not isinstance(entry, (Schedule, numbers.Real)):
        hint = hint_for_value(key, entry)
        raise BindingError(f"{where}: expected a schedule or a number, got {type(entry).__name__}{hint}")
    if isinstance(entry, Schedule):
        _refuse_unknown(where, entry)
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

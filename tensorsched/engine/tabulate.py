"""Compile schedules into a table, and compile others into its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch

from tensorsched.engine import sharing
from tensorsched.engine.layouts import Array, Layout
from tensorsched.engine.memory import existing_device, free_bytes
from tensorsched.engine.sharing import NUMPY, Plan, share_equal, share_proportional
from tensorsched.engine.table import ScheduleTable
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief, evaluate
from tensorsched.schedules.split import bounded
from tensorsched.schedules.template import Template
from tensorsched.schedules.validators import check_count, refuse

__all__ = ["SharedColumnError", "bounded", "replacement", "row_count", "tabulate"]

_NAMED = 8  # names of columns that an error lists


def tabulate(
    schedules: Mapping[str, Schedule],
    *,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    scale: bool | None = None,
    max_bytes: int | None = None,
    capacity: int | None = None,
) -> ScheduleTable:
    """Compile schedules into one table.

    Args:
        schedules: a schedule for each name.
        steps: how far to tabulate schedules that never settle (they hold their value from there on); bounded ones are
            always tabulated whole.
        device: where the table will be read.
        dtype: of the live values, torch.float32 (default) or torch.float64; rounded once from float64.
        scale: share columns that differ by a constant factor: True, False, or None (default) for tables over 64 MiB.
        max_bytes: most bytes that the table may take; default: what is free on the device.
        capacity: make room for schedules that change up to this step, for `Attachment.rewrite`; default: as far as
            these schedules change.

    Returns:
        A ScheduleTable; nothing has been allocated on the device and nothing synchronises.

    Raises:
        ScheduleError: no schedules, something that is no schedule, a schedule that never settles without `steps`, a
            value that is not finite in the dtype, a device that does not exist, or a table that does not fit (into
            memory, or into the capacity).

    Example:
        >>> import tensorsched as ts
        >>> lr = ts.warmup_cosine(3e-4, total=20_000, warmup=500)
        >>> ts.tabulate({"lr": lr, "half": 0.5 * lr, "kl_weight": ts.linear(0.0, 1.0, steps=5_000)})
        ScheduleTable(20001 rows, 3 schedules in 3 columns, torch.float32, 234.4 KiB on cpu)
    """
    where = existing_device(device)
    horizon = None if steps is None else check_count("tabulate: steps", steps)
    if dtype not in NUMPY:
        raise refuse("tabulate: dtype", "torch.float32 or torch.float64", dtype)
    rows = row_count(schedules, horizon)
    if capacity is not None:
        if rows > check_count("capacity", capacity) + 1:
            raise ScheduleError(
                f"the schedules change up to step {rows - 1}, which is beyond the capacity of {capacity} steps; pass a "
                "larger capacity, or shorten them with .take(n)"
            )
        rows = capacity + 1
    schedules = {name: bounded(schedule, horizon) for name, schedule in schedules.items()}
    unique = list(dict.fromkeys(schedules.values()))
    room = free_bytes(where) if max_bytes is None else max_bytes
    plan = Plan(schedules, rows, where, dtype, room)
    layout: Layout | None = None
    live: dict[Schedule, int] = {}
    equal_bytes = rows * len(unique) * np.dtype(plan.numpy).itemsize
    if scale or (scale is None and equal_bytes > sharing.SCALE_ABOVE):
        layout, live = share_proportional(plan, unique, equal_bytes if scale is None else None)
    if layout is None:
        layout, live = share_equal(plan, unique)
    columns = {name: live[schedule] for name, schedule in schedules.items()}
    return ScheduleTable(schedules, columns, rows, where, dtype, layout)


def row_count(schedules: Mapping[str, Schedule], steps: int | None) -> int:
    """Rows that hold every change of these schedules; one that never settles is cut at `steps`."""
    if not schedules or not isinstance(schedules, Mapping):
        raise refuse("tabulate: schedules", "a dict of at least one name and schedule", schedules)
    last = 0
    for name, schedule in schedules.items():
        if not isinstance(schedule, Schedule):
            raise refuse(f"tabulate: {name}", "a schedule", schedule)
        if schedule.inputs():
            raise ScheduleError(
                f"{name!r} depends on the run ({brief(schedule.inputs()[0])}), so no table has its values; attach() it "
                "to an optimizer, with free={...} where it is no hyperparameter"
            )
        settled = schedule.settled if schedule.settled is not None else steps
        if settled is None:
            if isinstance(schedule, Template):
                schedule(0)  # says what is missing
            raise ScheduleError(
                f"{name!r} never settles, so its table needs a length: pass steps=n, the number of steps of the run "
                f"(after it the last value is held), or bound it with .take(n): {brief(schedule)}"
            )
        last = max(last, settled)
    return last + 1


def replacement(
    table: ScheduleTable,
    schedules: Mapping[str, Schedule],
    look: Callable[[str, Array], None],
    *,
    grow: bool = False,
) -> Callable[[], ScheduleTable]:
    """Compile other schedules for some names of a table; the function returned puts them there, in place.

    Engines that read the table are told by their `reload`.

    Args:
        table: columns that are shared stay shared.
        schedules: by name.
        look: sees the values of each of these names, in the live dtype, and may refuse them.
        grow: whether there may be another table in its place, with the rows that the schedules need.

    Returns:
        The function, which returns the table that has them: the same one, or a longer one.

    Raises:
        ScheduleError: the schedules change later than the last row, are not finite in the dtype, do not fit into
            memory, or names that share a column would get different values. Nothing has changed.
    """
    rows = row_count(schedules, None)
    if rows > table.rows and not grow:
        raise ScheduleError(
            f"the new schedules change up to step {rows - 1}, and the table ends at step {table.last}. It cannot grow, "
            f"because a compiled step or a captured graph reads it where it is: pass attach(..., capacity={rows - 1}) "
            "or more when you attach"
        )
    longer, rows = rows > table.rows, max(rows, table.rows)
    layout = table.layout
    limit = free_bytes(table.device) if longer else None
    plan = Plan({**table.schedules, **schedules}, rows, table.device, table.dtype, limit)
    if longer:
        nbytes = layout.nbytes * rows // table.rows
        plan.check(nbytes)
        plan.check_host(nbytes)
    touched = table.schedules if longer else schedules
    contents = _contents(plan, table, {layout.stored_at(table.live_column[name]) for name in touched})
    for name, schedule in schedules.items():
        look(name, plan.rounded(evaluate(schedule, 0, rows), schedule))

    def commit() -> ScheduleTable:
        changed = layout.longer(rows) if longer else layout
        for at, stored in contents.items():
            changed.replace(at, stored)
        if not longer:
            table.schedules.update(schedules)
            return table
        return dataclasses.replace(table, schedules=dict(plan.schedules), rows=rows, layout=changed)

    return commit


def _contents(plan: Plan, table: ScheduleTable, touched: Collection[int]) -> dict[int, Array]:
    """What has to be stored in these columns of the table so that every name that reads one has its values."""
    layout = table.layout
    contents: dict[int, Array] = {}
    for name, schedule in plan.schedules.items():
        column = table.live_column[name]
        at = layout.stored_at(column)
        if at not in touched:
            continue
        values = evaluate(schedule, 0, plan.rows)
        plan.rounded(values, schedule)
        if at not in contents:
            contents[at] = layout.stored(column, values, plan.numpy)
        if not layout.serves(column, contents[at], values, plan.numpy):
            raise _must_stay_shared(table, name, at)
    return contents


class SharedColumnError(ScheduleError):
    """Names that share a column of a table would get different schedules."""


def _must_stay_shared(table: ScheduleTable, name: str, at: int) -> SharedColumnError:
    columns = table.live_column
    others = [n for n in columns if n != name and table.layout.stored_at(columns[n]) == at]
    return SharedColumnError(
        f"{name!r} shares a column of the table with {', '.join(map(repr, others[:_NAMED]))}"
        f"{' and others' if len(others) > _NAMED else ''}, because their schedules were {table.layout.word}, and must "
        "stay so: rewrite all of them together, or detach() and attach() again"
    )

"""Pictures with matplotlib (the extra `plot`): one schedule, several beside each other, all of an optimizer.

Lines differ in colour and in dashes, so that they stay apart in grey. What they are put together from is in `axes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import Node, make
from tensorsched.schedules.validators import check_count, refuse
from tensorsched.schedules.views.axes import (
    COLOURS,
    draw_line,
    draw_lines,
    mark_now,
    name_groups,
    name_phases,
    new_panels,
    one_each,
    scale,
    title,
)
from tensorsched.schedules.views.picture import picture, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["compare"]

S = TypeVar("S", bound=Node)


def plot_schedule(
    schedule: Node,
    *,
    steps: int | None = None,
    ax: Axes | None = None,
    log: bool | None = None,
    label: str | None = None,
    unit: str = "step",
) -> Axes:
    """Draw one schedule; see `Schedule.plot`."""
    shown = picture([schedule], last=steps)
    axes = new_panels(1)[0] if ax is None else ax
    (line,) = shown.lines
    draw_line(axes, shown, line, color=COLOURS[0], linewidth=1.8, label=label)
    scale(axes, shown, log, unit)
    name_phases(axes, line.phases, shown.last)
    axes.set_ylabel("value")
    if not axes.get_title():
        axes.set_title(title(schedule), fontsize="medium")
    return axes


def compare(
    schedules: Mapping[str, Node | float],
    *,
    steps: int | None = None,
    ax: Axes | None = None,
    log: bool | None = None,
    unit: str = "step",
) -> Axes:
    """Draw several schedules over the same steps.

    Args:
        schedules: a schedule (or number) for each name in the legend.
        steps: the last step to show; default: as far as the longest of them needs.
        ax: the matplotlib Axes to draw into; default: those of a new figure.
        log: a logarithmic value axis: True, False, or None (default) where it shows more.
        unit: what the schedules count, where that is not steps: "tokens", "epoch".

    Returns:
        The Axes.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ScheduleError: no schedules, something that is no schedule, or a value that is not finite.

    Example:
        >>> import matplotlib; matplotlib.use("agg")  # no window
        >>> import tensorsched as ts
        >>> curves = {"cosine": ts.cosine(1.0, 0.0, steps=100), "linear": ts.linear(1.0, 0.0, steps=100)}
        >>> [text.get_text() for text in ts.compare(curves).get_legend().get_texts()]
        ['cosine', 'linear']
    """
    if not schedules or not isinstance(schedules, Mapping):
        raise refuse("compare: schedules", "a dict of at least one name and schedule", schedules)
    named = {str(name): _as_schedule(name, value) for name, value in schedules.items()}
    shown = picture(named.values(), last=steps)
    axes = new_panels(1)[0] if ax is None else ax
    draw_lines(axes, shown, list(named))
    scale(axes, shown, log, unit)
    axes.set_ylabel("value")
    return axes


def plot_parts(
    parts: Mapping[str, Mapping[S, Sequence[int]]],
    step: int | Sequence[int],
    *,
    steps: int | None,
    log: bool | None,
    unit: str | Sequence[str] = "step",
) -> list[Axes]:
    """One panel for each part of an optimizer's groups, with a line for each schedule; see `Attachment.plot`.

    Args:
        parts: for each part, such as "lr" or "betas[1]", its schedules and the groups that follow each.
        step: the current step, which is marked; or that of each part.
        steps: the last step to show; default: as far as the longest schedule on the same clock needs.
        log: logarithmic value axes: True, False, or None where it shows more.
        unit: what the schedules count; or that of each part. Parts that count different things have an axis each.
    """
    units = one_each(unit, parts)
    steps = None if steps is None else check_count("plot: steps", steps, least=1)
    ends = [max(map(window, lines)) for lines in parts.values()] if steps is None else [steps] * len(parts)
    last = {unit: max(end for of, end in zip(units, ends, strict=True) if of == unit) for unit in units}
    pictures = [  # what fails fails before there is a figure
        picture(lines, last=last[of]) for of, lines in zip(units, parts.values(), strict=True)
    ]
    shared = len(last) == 1
    panels = new_panels(len(parts), shared=shared)
    now = [step] * len(parts) if isinstance(step, int) else step
    for axes, (part, lines), shown, at, of in zip(panels, parts.items(), pictures, now, units, strict=True):
        draw_lines(axes, shown, [name_groups(groups) for groups in lines.values()])
        scale(axes, shown, log, of)
        mark_now(axes, shown, at, of)
        if len({line.phases for line in shown.lines}) == 1:
            name_phases(axes, shown.lines[0].phases, shown.last)
        axes.set_ylabel(part)
        if shared and axes is not panels[-1]:
            axes.set_xlabel("")
    return panels


def _as_schedule(name: object, value: object) -> Node:
    try:
        return value if isinstance(value, Node) else cast("Node", make("constant", value))
    except ScheduleError:
        raise refuse(f"compare: {name}", "a schedule", value) from None

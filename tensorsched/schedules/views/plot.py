"""Pictures with matplotlib (the extra `plot`): one schedule, several beside each other, all of an optimizer.

matplotlib is imported when something is drawn. Lines differ in colour and in dashes, so that they stay apart in grey.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import Node, brief, make
from tensorsched.schedules.validators import refuse
from tensorsched.schedules.views.picture import AS_AT_START, Line, Phase, Picture, picture, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["compare"]

S = TypeVar("S", bound=Node)

# Eight colours after Okabe and Ito, told apart by colour-blind readers, and darkened to a contrast of 3:1 or more on
# white; with the dashes also in grey. The second eight are the same under other dashes.
_COLOURS = ("#0072b2", "#d55e00", "#000000", "#00805e", "#b0508a", "#a87400", "#2a8bc7", "#767676")
_DASHES: tuple[Any, ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 3)),
    (0, (5, 5)),
)

_MOST_LINES = 2 * len(_COLOURS)  # told apart one by one; more become a family from dark to light
_DARK, _LIGHT = (0.0, 0.25, 0.55), (0.45, 0.55, 0.75)  # the ends of a family, the light one above 3:1, too
_FIT_INSIDE, _LONG_NAME = 4, 24  # lines whose names find room among the curves; characters of such a name
_MOST_EDGES = 12  # phase boundaries that are marked
_SMALL = 0.01  # values below it are written as 3e-4, unless they differ in later digits only
_APART = 0.05  # of the width: boundaries nearer than this share one name


def plot_schedule(
    schedule: Node,
    *,
    steps: int | None = None,
    ax: Axes | None = None,
    log: bool | None = None,
    label: str | None = None,
) -> Axes:
    """Draw one schedule; see `Schedule.plot`."""
    shown = picture([schedule], last=steps)
    axes = _panels(1)[0] if ax is None else ax
    (line,) = shown.lines
    axes.plot(line.steps, line.values, color=_COLOURS[0], linewidth=1.8, label=label)
    _scale(axes, shown, log)
    _name_phases(axes, line.phases, shown.last)
    axes.set(xlabel="step", ylabel="value")
    if not axes.get_title():
        axes.set_title(_title(schedule), fontsize="medium")
    return axes


def compare(
    schedules: Mapping[str, Node | float],
    *,
    steps: int | None = None,
    ax: Axes | None = None,
    log: bool | None = None,
) -> Axes:
    """Draw several schedules over the same steps.

    Args:
        schedules: a schedule (or number) for each name in the legend.
        steps: the last step to show; default: as far as the longest of them needs.
        ax: the matplotlib Axes to draw into; default: those of a new figure.
        log: a logarithmic value axis: True, False, or None (default) where it shows more.

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
    axes = _panels(1)[0] if ax is None else ax
    _draw_lines(axes, dict(zip(named, shown.lines, strict=True)))
    _scale(axes, shown, log)
    axes.set(xlabel="step", ylabel="value")
    return axes


def plot_parts(
    parts: Mapping[str, Mapping[S, Sequence[int]]],
    step: int | Sequence[int],
    *,
    steps: int | None,
    log: bool | None,
) -> list[Axes]:
    """One panel for each part of an optimizer's groups, with a line for each schedule; see `Attachment.plot`.

    Args:
        parts: for each part, such as "lr" or "betas[1]", its schedules and the groups that follow each.
        step: the current step, which is marked; or that of each part.
        steps: the last step to show; default: as far as the longest schedule needs.
        log: logarithmic value axes: True, False, or None where it shows more.
    """
    last = max(window(line) for lines in parts.values() for line in lines) if steps is None else steps
    pictures = [
        picture(lines, last=last) for lines in parts.values()
    ]  # what fails fails before there is a figure
    panels = _panels(len(parts))
    now = [step] * len(parts) if isinstance(step, int) else step
    for axes, (part, lines), shown, at in zip(panels, parts.items(), pictures, now, strict=True):
        _draw_lines(axes, dict(zip(map(_groups, lines.values()), shown.lines, strict=True)))
        _scale(axes, shown, log)
        _mark_now(axes, shown, at)
        if len({line.phases for line in shown.lines}) == 1:
            _name_phases(axes, shown.lines[0].phases, last)
        axes.set_ylabel(part)
    panels[-1].set_xlabel("step")
    return panels


# -- pieces -----------------------------------------------------------------------------------------------------------


def new_figure(panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure that no window and no pyplot state belongs to, to be written to a file.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415  optional

    figure = Figure(figsize=_size(panels), layout="constrained")
    return figure, list(figure.subplots(panels, sharex=True, squeeze=False)[:, 0])


def _panels(count: int) -> list[Axes]:
    """The axes of a new pyplot figure, which notebooks and `plt.show()` display."""
    require_matplotlib()
    from matplotlib import pyplot as plt  # noqa: PLC0415  optional

    _, axes = plt.subplots(count, sharex=True, squeeze=False, figsize=_size(count), layout="constrained")
    return list(axes[:, 0])


def _size(panels: int) -> tuple[float, float]:
    return 7.0, 1.2 + 2.4 * panels


def require_matplotlib() -> None:
    """Raise ModuleNotFoundError, which says what to install, where matplotlib is missing."""
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415  optional
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "plots need matplotlib, which is not installed: pip install 'tensorsched[plot]'", name=error.name
        ) from None


def _as_schedule(name: object, value: object) -> Node:
    try:
        return value if isinstance(value, Node) else cast("Node", make("constant", value))
    except ScheduleError:
        raise refuse(f"compare: {name}", "a schedule", value) from None


def _draw_lines(axes: Axes, drawn: Mapping[str, Line]) -> None:
    """A line each: colours and dashes where there are few, one colour from dark to light where there are many."""
    few = len(drawn) <= _MOST_LINES
    for i, (name, line) in enumerate(drawn.items()):
        if few:
            axes.plot(
                line.steps,
                line.values,
                color=_COLOURS[i % len(_COLOURS)],
                linestyle=_DASHES[(i + i // len(_COLOURS)) % len(_DASHES)],
                linewidth=1.8,
                label=name,
            )
        else:
            part = i / (len(drawn) - 1)
            shade = tuple(a + (b - a) * part for a, b in zip(_DARK, _LIGHT, strict=True))
            ends = name if i in {0, len(drawn) - 1} else None  # a legend of all would hide the curves
            axes.plot(line.steps, line.values, color=shade, linewidth=1.2, label=ends)
    if len(drawn) > 1:
        looks: dict[str, Any] = {"fontsize": "small", "handlelength": 3.2, "title_fontsize": "small"}
        if not few:
            looks["title"] = f"{len(drawn)} lines"
        elif max(map(len, drawn)) > _LONG_NAME:
            looks |= {"bbox_to_anchor": (0.0, 1.01), "loc": "lower left", "borderaxespad": 0.0}
        elif len(drawn) > _FIT_INSIDE:  # inside they would cover the curves
            looks |= {"bbox_to_anchor": (1.01, 1.0), "loc": "upper left"}
        axes.legend(**looks)


def _scale(axes: Axes, shown: Picture, log: bool | None) -> None:  # noqa: FBT001  handed on by name
    """Values linear with 0 in sight, or logarithmic: as asked, or where much of a curve would be a flat line at 0."""
    axes.set_xlim(0, shown.last)
    values = np.concatenate([line.values for line in shown.lines])
    low, high = float(values.min()), float(values.max())
    if shown.logarithmic(log):
        axes.set_yscale("log", nonpositive="mask")
        cut, _ = shown.log_axis()
        if cut > values[values > 0.0].min():
            axes.set_ylim(bottom=cut)
    else:
        if 0.0 <= low < high / 2:
            axes.set_ylim(bottom=0.0 if low > 0.0 else None)
        if max(-low, high) < _SMALL and high - low > _SMALL * max(-low, high):
            axes.yaxis.set_major_formatter(_tick)
    axes.grid(visible=True, alpha=0.3)


def _tick(value: float, _position: float) -> str:
    """A small number as people write a learning rate: 3e-4, 2.5e-4."""
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if float(mantissa) else "0"


def _name_phases(axes: Axes, phases: Sequence[Phase], last: int) -> None:
    """A dashed line where a phase starts, and its name above the axes."""
    inside = [phase for phase in phases if phase.start < last]
    if not 1 < len(inside) <= _MOST_EDGES:
        return
    names: list[tuple[int, str]] = []
    for phase in inside:
        if phase.start:
            axes.axvline(phase.start, color="black", linestyle=(0, (2, 3)), linewidth=0.8, alpha=0.5)
        if names and phase.start - names[-1][0] < _APART * last:
            names[-1] = (names[-1][0], f"{names[-1][1]}, {phase.what} from {phase.start}")
        else:
            names.append((phase.start, f"{phase.what} from {phase.start}" if phase.start else phase.what))
    top = axes.secondary_xaxis("top")
    top.set_xticks(
        [at for at, _ in names], [text for _, text in names], rotation=20, ha="left", fontsize="small"
    )
    top.tick_params(length=0, pad=2)


def _mark_now(axes: Axes, shown: Picture, step: int) -> None:
    """The current step: a vertical line, and a dot on every curve."""
    if step > shown.last:
        return
    axes.axvline(step, color="black", linewidth=1.0)
    values = [line.schedule(step) for line in shown.lines]
    axes.plot([step] * len(values), values, "o", color="black", markersize=4, zorder=5)
    side = "right" if step > shown.last / 2 else "left"
    to_fraction = axes.transData + axes.transAxes.inverted()
    dots = [float(to_fraction.transform((step, value))[1]) for value in values]
    height = max(
        (0.04, 0.48, 0.9),
        key=lambda at: min((abs(at - dot) for dot in dots if math.isfinite(dot)), default=0.0),
    )
    axes.annotate(
        f"step {step}",
        (step, height),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if side == "right" else 4, 0),
        textcoords="offset points",
        ha=side,
        fontsize="small",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )


def _groups(groups: Sequence[int]) -> str:
    if not groups:
        return ""
    more = "" if len(groups) <= 3 else f" and {len(groups) - 2} more"  # noqa: PLR2004  a legend is narrow
    shown = groups if len(groups) <= 3 else groups[:2]  # noqa: PLR2004
    return f"group{'s' * (len(groups) > 1)} {', '.join(map(str, shown))}{more}"


def _title(schedule: Node) -> str:
    note = f" ({AS_AT_START})" if schedule.inputs() else ""
    return textwrap.fill(textwrap.shorten(brief(schedule), 150, placeholder=" ...") + note, 76)

"""What pictures with matplotlib are put together from: figures, lines, scales, names of phases.

matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorsched.schedules.node import Node, brief
from tensorsched.schedules.views import numerals
from tensorsched.schedules.views.phases import Phase, headings
from tensorsched.schedules.views.picture import AS_AT_START, Line, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Eight colours after Okabe and Ito, told apart by colour-blind readers, and darkened to a contrast of 3:1 or more on
# white; with the dashes also in grey. The second eight are the same under other dashes.
COLOURS = ("#0072b2", "#d55e00", "#000000", "#00805e", "#b0508a", "#a87400", "#2a8bc7", "#767676")
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

_MOST_LINES = 2 * len(COLOURS)  # told apart one by one; more become a family from dark to light
_DARK, _LIGHT = (0.0, 0.25, 0.55), (0.45, 0.55, 0.75)  # the ends of a family, the light one above 3:1, too
_FIT_INSIDE, _LONG_NAME = 4, 24  # lines whose names find room among the curves; characters of such a name
_MOST_EDGES = 12  # phase boundaries that are marked
_SMALL, _LARGE = (
    0.01,
    1e6,
)  # values below or above are written as 3e-4, unless they differ in later digits only
_APART = 0.05  # of the width: boundaries nearer than this share one name
_LETTER = 0.0125  # of the width: a letter of a name, about
_DOT = 7.0  # size of the dot on a value that is drawn by itself


def new_figure(panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure that no window and no pyplot state belongs to, to be written to a file.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415  optional

    figure = Figure(figsize=_size(panels), layout="constrained")
    return figure, list(figure.subplots(panels, sharex=True, squeeze=False)[:, 0])


def new_panels(count: int, *, shared: bool = True) -> list[Axes]:
    """The axes of a new pyplot figure, which notebooks and `plt.show()` display; one axis of steps, or each its own."""
    require_matplotlib()
    from matplotlib import pyplot as plt  # noqa: PLC0415  optional

    _, axes = plt.subplots(count, sharex=shared, squeeze=False, figsize=_size(count), layout="constrained")
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


def draw_line(axes: Axes, shown: Picture, line: Line, **looks: Any) -> None:
    """One line: upright where it jumps; a stair for each step, with a dot on its value, where few steps are shown."""
    x, y = line.path()
    if shown.single:
        looks |= {"marker": ".", "markersize": _DOT, "markevery": 2}
    axes.plot(x, y, **looks)


def draw_lines(axes: Axes, shown: Picture, names: Sequence[str]) -> None:
    """A line each: colours and dashes where there are few, one colour from dark to light where there are many."""
    few = len(names) <= _MOST_LINES
    for i, (name, line) in enumerate(zip(names, shown.lines, strict=True)):
        if few:
            colour, dashes = COLOURS[i % len(COLOURS)], _DASHES[(i + i // len(COLOURS)) % len(_DASHES)]
            draw_line(axes, shown, line, color=colour, linestyle=dashes, linewidth=1.8, label=name)
        else:
            part = i / (len(names) - 1)
            shade = tuple(a + (b - a) * part for a, b in zip(_DARK, _LIGHT, strict=True))
            ends = name if i in {0, len(names) - 1} else None  # a legend of all would hide the curves
            draw_line(axes, shown, line, color=shade, linewidth=1.2, label=ends)
    if len(names) > 1:
        looks: dict[str, Any] = {"fontsize": "small", "handlelength": 3.2, "title_fontsize": "small"}
        if not few:
            looks["title"] = f"{len(names)} lines"
        elif max(map(len, names)) > _LONG_NAME:
            looks |= {"bbox_to_anchor": (0.0, 1.01), "loc": "lower left", "borderaxespad": 0.0}
        elif len(names) > _FIT_INSIDE:  # inside they would cover the curves
            looks |= {"bbox_to_anchor": (1.01, 1.0), "loc": "upper left"}
        axes.legend(**looks)


def scale(axes: Axes, shown: Picture, log: bool | None, unit: str) -> None:  # noqa: FBT001  handed on by name
    """The axis of steps, or of another unit; values linear with 0 in sight, or logarithmic.

    Logarithmic as asked, or where much of a curve would be a flat line at 0.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415  optional

    axes.set_xlabel(unit)
    axes.set_xlim(0, shown.last)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: numerals.count(step)))
    values = np.concatenate([line.values for line in shown.lines])
    low, high = float(values.min()), float(values.max())
    if shown.logarithmic(log):
        _log_scale(axes, shown, values)
    else:
        if 0.0 <= low < high / 2:
            axes.set_ylim(bottom=0.0 if low > 0.0 else None)
        most = max(-low, high)
        if not _SMALL <= most < _LARGE and high - low > _SMALL * most:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: numerals.scientific(value)))
    axes.grid(visible=True, alpha=0.3)


def _log_scale(axes: Axes, shown: Picture, values: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415  optional

    axes.set_yscale("log", nonpositive="mask")
    low, high = shown.log_axis()
    if low > values[values > 0.0].min():
        axes.set_ylim(bottom=low)
    if high / low < 100.0:  # noqa: PLR2004  two powers of ten: numbers between them, too
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: numerals.number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def name_phases(axes: Axes, phases: Sequence[Phase], last: int) -> None:
    """A dashed line where a phase starts, and its name above the axes."""
    inside = headings(phases, last)
    if not 1 < len(inside) <= _MOST_EDGES:
        return
    names: list[tuple[int, str]] = []
    for start, name in inside:
        if start:
            axes.axvline(start, color="black", linestyle=(0, (2, 3)), linewidth=0.8, alpha=0.5)
        if names and start - names[-1][0] < _APART * last:
            names[-1] = (names[-1][0], f"{names[-1][1]}, {name} from {numerals.at(start)}")
        else:
            names.append((start, f"{name} from {numerals.at(start)}" if start else name))
    stops = [*(start for start, _ in names[1:]), last]
    room = all(
        len(name) * _LETTER * last < stop - start for (start, name), stop in zip(names, stops, strict=True)
    )
    top = axes.secondary_xaxis("top")
    top.set_xticks(
        [at for at, _ in names],
        [text for _, text in names],
        rotation=0 if room else 20,
        ha="left",
        fontsize="small",
    )
    top.tick_params(length=0, pad=2)


def mark_now(axes: Axes, shown: Picture, step: int, unit: str) -> None:
    """The current step, or position in another unit: a vertical line, and a dot on every curve."""
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
        numerals.placed(step, unit),
        (step, height),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if side == "right" else 4, 0),
        textcoords="offset points",
        ha=side,
        fontsize="small",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )


def name_groups(groups: Sequence[int]) -> str:
    """Param groups in a legend."""
    if not groups:
        return ""
    more = "" if len(groups) <= 3 else f" and {len(groups) - 2} more"  # noqa: PLR2004  a legend is narrow
    shown = groups if len(groups) <= 3 else groups[:2]  # noqa: PLR2004
    return f"group{'s' * (len(groups) > 1)} {', '.join(map(str, shown))}{more}"


def title(schedule: Node) -> str:
    """The expression above a picture, its numbers written short; lines end between calls where they can."""
    text = textwrap.shorten(numerals.tidy(brief(schedule)), 150, placeholder=" ...")
    note = f" ({AS_AT_START})" if schedule.inputs() else ""
    whole = "\xa0"  # no line ends there
    return textwrap.fill(text.replace(", ", f",{whole}") + note, 76).replace(whole, " ")


def one_each(told: str | Sequence[str], panels: Mapping[str, Any]) -> list[str]:
    """What is said of all panels, or of each."""
    return [told] * len(panels) if isinstance(told, str) else list(told)

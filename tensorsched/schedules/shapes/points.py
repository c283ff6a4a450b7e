"""Shapes through given values: levels, lines between points, tables."""

# ruff: noqa: N801  called like functions, as range is
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.node import Array, Mark, node
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes.weights import straight
from tensorsched.schedules.words import worded


@node
class piecewise_constant(Schedule):
    """Levels: f(t) = levels[i], where i is the number of boundaries <= t; unbounded.

    The new value is used *at* its boundary (torch MultiStepLR, optax); keras switches one step later.

    Args:
        levels: one value more than there are boundaries.
        boundaries: steps in order; may be empty. Of two that are equal the later level wins.

    Raises:
        ScheduleError: the counts do not fit, the boundaries decrease, or a value is not finite.

    Example:
        >>> import tensorsched as ts
        >>> ts.piecewise_constant([1.0, 0.1], [2]).values(4).tolist()
        [1.0, 1.0, 0.1, 0.1]
    """

    levels: Sequence[float] = f.reals()
    boundaries: Sequence[int] = f.boundaries()

    def _prepare(self) -> None:
        if len(self.levels) != len(self.boundaries) + 1:
            raise ScheduleError(
                f"piecewise_constant: {len(self.boundaries)} boundaries separate {len(self.boundaries) + 1} values, "
                f"got {len(self.levels)} values"
            )

    @property
    def constant_from(self) -> int | None:
        return self.boundaries[-1] if self.boundaries else 0

    def _at(self, t: Array) -> Array:
        return np.asarray(self.levels)[np.searchsorted(self.boundaries, t, side="right")]

    def _marks(self) -> Iterator[Mark]:
        return ((float(at), self.kind) for at in dict.fromkeys((0, *self.boundaries)))


@node
class piecewise_linear(Schedule):
    """Straight lines between the given (step, value) points; constant before the first and after the last.

    Two points at one step are a jump: the later value is used at that step.

    Args:
        points: (step, value) pairs, steps not decreasing; the length is the last one's step.

    Raises:
        ScheduleError: no points, a step that decreases or is no whole number >= 0, or a value that is not finite.

    Source: optax.piecewise_interpolate_schedule("linear"), ignite PiecewiseLinear.

    Example:
        >>> import tensorsched as ts
        >>> ts.piecewise_linear([(1, 0.0), (3, 1.0), (3, 0.5), (5, 0.0)]).values(7).tolist()
        [0.0, 0.0, 0.5, 0.5, 0.25, 0.0, 0.0]
    """

    points: Sequence[tuple[int, float]] = f.points()

    def _prepare(self) -> None:
        object.__setattr__(self, "steps", self.points[-1][0])

    def _at(self, t: Array) -> Array:
        at, value = (np.array(column, dtype=np.float64) for column in zip(*self.points, strict=True))
        # The last point at or before t; -1 in front of the first.
        before = np.searchsorted(at, t, side="right") - 1
        i, j = np.maximum(before, 0), np.minimum(before + 1, len(at) - 1)
        width = np.where(
            i == j, 1.0, at[j] - at[i]
        )  # 1 where both are the same point, whose value then stays
        line = straight(np.where(i == j, 0.0, t - at[i]), width, value[i], value[j])
        line = np.clip(line, np.minimum(value[i], value[j]), np.maximum(value[i], value[j]))
        return np.where(t <= at[i], value[i], line)

    def _marks(self) -> Iterator[Mark]:
        return ((float(at), self.kind) for at in dict.fromkeys((0, *(step for step, _ in self.points))))


@node
class from_values(Schedule):
    """Tabulated: f(t) = entries[t], the last value held; below a `stretch`, linear between the entries.

    Args:
        entries: a non-empty sequence or one-dimensional array of numbers; its length is the schedule's.

    Raises:
        ScheduleError: no values, or one that is not finite.

    Example:
        >>> import tensorsched as ts
        >>> ts.from_values([3.0, 1.0, 2.0]).values(5).tolist()
        [3.0, 1.0, 2.0, 2.0, 2.0]
    """

    entries: Sequence[float] | Array = f.reals()

    def _prepare(self) -> None:
        object.__setattr__(self, "steps", len(self.entries))

    @property
    def constant_from(self) -> int | None:
        return len(self.entries) - 1

    def _at(self, t: Array) -> Array:
        last = len(self.entries) - 1
        t = np.minimum(t, last)
        low = np.floor(t).astype(np.int64)
        part = t - low
        high = np.minimum(low + 1, last)
        # Only those that are asked for: a long schedule is evaluated in pieces, and a million numbers take their time.
        first = int(low.min(initial=last))
        entries = np.asarray(self.entries[first : int(high.max(initial=0)) + 1])
        low, high = low - first, high - first
        if not part.any():
            return entries[low]
        return np.where(part == 0.0, entries[low], entries[low] * (1.0 - part) + entries[high] * part)


@worded
def from_function(fn: Callable[[int], float], steps: int) -> Schedule:
    """Tabulate fn(0), ..., fn(steps - 1): called once each, here, and never again; the last value is held.

    Args:
        fn: called with the step, a Python int; returns a finite number.
        steps: how many steps to tabulate, an int >= 1.

    Returns:
        A `from_values` schedule: it prints, compares and saves by its values, whatever fn was.

    Raises:
        ScheduleError: steps is not a whole number >= 1, or fn returned something that is not a finite number.

    Example:
        >>> import tensorsched as ts
        >>> ts.from_function(lambda step: 1 / (1 + step), 2)
        from_values((1.0, 0.5))
    """
    n = f.check_count("from_function: steps", steps, least=1)
    return from_values([f.check_real(f"from_function: fn({step})", fn(step)) for step in range(n)])


@node
class spline(Schedule):
    """Smooth and monotone between the given (step, value) points; constant before the first and after the last.

    A cubic between two neighbours, with a continuous slope; it never goes beyond their values, so that what rises from
    point to point rises throughout. Its slope at a point is the weighted harmonic mean of those of the lines on
    either side (0 where these differ in sign), at an end that of the parabola through three points.

    Args:
        points: at least two (step, value) pairs, steps increasing; the length is the last one's step.

    Raises:
        ScheduleError: fewer than two points, steps that do not increase, or a value that is not finite.

    Source: Fritsch and Butland 1984; scipy's PchipInterpolator. For learning rates: arXiv 2603.10301.

    Example:
        >>> import tensorsched as ts
        >>> ts.spline([(0, 0.0), (2, 1.0), (4, 1.0)]).values(6).tolist()
        [0.0, 0.6875, 1.0, 1.0, 1.0, 1.0]
    """

    points: Sequence[tuple[int, float]] = f.points()

    def _prepare(self) -> None:
        steps = [step for step, _ in self.points]
        if len(steps) < 2 or any(b <= a for a, b in itertools.pairwise(steps)):  # noqa: PLR2004  a curve has two ends
            raise f.refuse("spline: points", "at least two, in increasing order of their steps", self.points)
        object.__setattr__(self, "steps", steps[-1])
        object.__setattr__(self, "_bends", bends(self.points))

    def _at(self, t: Array) -> Array:
        at, value = (np.array(column, dtype=np.float64) for column in zip(*self.points, strict=True))
        first, second = np.array(self._bends).T  # type: ignore[attr-defined]  # set in _prepare
        i = np.clip(np.searchsorted(at, t, side="right") - 1, 0, len(at) - 2)
        h = at[i + 1] - at[i]
        p = np.clip(t - at[i], 0.0, h)  # steps, not parts of h: whole numbers stay exact
        q = h - p
        curve = (value[i] * q * q * q + value[i + 1] * p * p * p) + 3.0 * p * q * (
            first[i] * q + second[i] * p
        )
        curve = np.clip(
            curve / (h * h * h), np.minimum(value[i], value[i + 1]), np.maximum(value[i], value[i + 1])
        )
        return np.select([p == 0.0, p == h], [value[i], value[i + 1]], curve)

    def _marks(self) -> Iterator[Mark]:
        return ((float(at), self.kind) for at in dict.fromkeys((0, *(step for step, _ in self.points))))


def bends(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Of each cubic the two inner control values (Bezier's), which lie between the values of its ends; rounded once."""
    exact = [(Fraction(step), Fraction(value)) for step, value in points]
    widths = [b[0] - a[0] for a, b in itertools.pairwise(exact)]
    lines = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(exact)]
    slopes = [_end_slope(widths, lines)]
    for (h, k), (a, b) in zip(itertools.pairwise(widths), itertools.pairwise(lines), strict=True):
        slopes.append(3 * (h + k) / ((2 * k + h) / a + (k + 2 * h) / b) if a * b > 0 else Fraction(0))
    slopes.append(_end_slope(widths[::-1], lines[::-1]))
    return [
        (float(value + h * slopes[i] / 3), float(following - h * slopes[i + 1] / 3))
        for i, (h, (_, value), (_, following)) in enumerate(zip(widths, exact, exact[1:], strict=False))
    ]


def _end_slope(widths: list[Fraction], lines: list[Fraction]) -> Fraction:
    """Of the parabola through the first three points, kept within what is monotone."""
    if len(lines) == 1:
        return lines[0]
    (h, k), (a, b) = widths[:2], lines[:2]
    slope = ((2 * h + k) * a - h * b) / (h + k)
    if slope * a <= 0:
        return Fraction(0)
    return 3 * a if abs(slope) > 3 * abs(a) else slope

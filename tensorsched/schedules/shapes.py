"""The shapes: one small class each, with its formula. `t` is the step (0-based), `n` the length, `p = t / n`.

A shape is called like a function and prints like one, hence the lower-case class names (as `range` and `slice`
have). To add one, make four edits: a class here, its scalar formula in `reference`, a line in tests/strategies.py and
a line of truth in tests/schedules/test_reference.py. Everything else (what the package exports, `parse`, JSON, the
command line, plots, `wsd(shape=...)`) follows from the class.

A bounded shape covers the steps 0..n-1, *reaches* its end value at n and holds it; n = 0 is a jump to the end value.
Making and evaluating a schedule touches no tensor and no device: nothing here synchronises.

No formula cancels: values are sums start * v + end * w of two weights that are each computed to full precision (never
w = 1 - v where v is close to 1), so that every value lies within 4 ulp of the exact one, relative to itself; where it
crosses 0, relative to the larger of start and end. Whole numbers come out whole.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.algebra import constant  # noqa: F401  a shape as well
from tensorsched.schedules.doubles import HALF_PI, Pair, between, product, quotient, total
from tensorsched.schedules.node import SHAPES, Array, Mark, node
from tensorsched.schedules.schedule import Schedule


Weights = tuple[Array, ...]
"""What start and end are multiplied with; two more are the low parts of these, to be multiplied likewise."""


def _mix(t: Array, n: int, start: float, end: float, weights: Callable[[Array], Weights]) -> Array:
    """start * v + end * w before step n, where (v, w) = weights(t); exactly `start` at 0 and `end` from n on."""
    out = np.full(t.shape, end)
    running = t < n
    at = t[running]
    v, w, *low = weights(at)
    values = start * v + end * w
    if low:
        values = values + (start * low[0] + end * low[1])
    out[running] = np.where(at == 0.0, start, between(start, end, values))
    return out


def _line(t: Array, n: Array | int, start: Array | float, end: Array | float) -> Array:
    """(start * (n - t) + end * t) / n for 0 <= t <= n: whole numbers stay whole."""
    values = (start * (n - t) + end * t) / n
    if np.isfinite(values).all():
        return values
    return start * ((n - t) / n) + end * (t / n)  # the products overflow, what they are parts of does not


def _fraction(t: Array, n: float) -> Pair:
    """The part t / n that has passed."""
    return quotient((t, np.zeros_like(t)), n)


def _power(base: Pair, exponent: float) -> Array:
    """base**exponent, where base > 0."""
    return _corrected(base[0] ** exponent, exponent * base[1] / base[0])


def _power_weights(t: Array, n: int, power: float) -> Weights:
    """(1 - t / n)**power and 1 minus that, for 0 <= t < n."""
    left = quotient(total(n, -t), n)
    v = _power(left, power)
    log = np.where(2.0 * t <= n, np.log1p(-t / n), np.log(left[0]))
    return v, np.where(v > 0.5, -np.expm1(power * log), 1.0 - v)  # noqa: PLR2004  half: 1 - v is exact enough below


def _elapsed_weights(t: Array, n: int, power: float) -> Weights:
    """(t / n)**power and 1 minus that, for 0 <= t < n."""
    passed = _fraction(t, n)
    with np.errstate(divide="ignore"):
        log = np.where(2.0 * t <= n, np.log(passed[0]), np.log1p(-(n - t) / n))
    w = np.where(t == 0.0, 0.0, _power((np.where(t == 0.0, 1.0, passed[0]), passed[1]), power))
    return w, np.where(w > 0.5, -np.expm1(power * log), 1.0 - w)  # noqa: PLR2004  as above


def _geometric(ratio: float, exponent: Pair) -> Array:
    """ratio**exponent, where ratio > 0."""
    return _corrected(np.power(ratio, exponent[0]), math.log(ratio) * exponent[1])


def _corrected(value: Array, relative: Array) -> Array:
    """value * (1 + relative), rounded once; inf stays inf."""
    return np.where(np.isfinite(value), value + value * relative, value)


@node
class linear(Schedule):
    """Straight line: f(t) = (start * (n - t) + end * t) / n.

    Args:
        start: value at step 0.
        end: value reached at step `steps` and held.
        steps: the length n, an int >= 0.

    Raises:
        ScheduleError: a value is not finite, or steps is not a whole number >= 0.

    Source: optax.linear_schedule, keras PolynomialDecay(power=1), Megatron "linear".

    Example:
        >>> import tensorsched as ts
        >>> ts.linear(0.0, 1.0, steps=4).values(6).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    start: float = f.real()
    end: float = f.real()
    steps: int = f.count(kw_only=True)

    def _at(self, t: Array) -> Array:
        if not self.steps:
            return np.full(t.shape, self.end)
        line = _line(np.minimum(t, self.steps), self.steps, self.start, self.end)
        return np.select([t == 0.0, t < self.steps], [self.start, between(self.start, self.end, line)], self.end)


@node
class cosine(Schedule):
    """Half a cosine wave: f(t) = start * cos(pi * t / 2n)**2 + end * sin(pi * t / 2n)**2.

    That is end + (start - end) * (1 + cos(pi * t / n)) / 2 as the papers write it, without losing digits near the end.

    Args:
        start: value at step 0.
        end: value reached at step `steps` and held (no rise after it, unlike torch's CosineAnnealingLR).
        steps: the length n, an int >= 0.

    Raises:
        ScheduleError: a value is not finite, or steps is not a whole number >= 0.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), eq. 5; optax.cosine_decay_schedule.

    Example:
        >>> import tensorsched as ts
        >>> [round(v, 4) for v in ts.cosine(1.0, 0.0, steps=4).values(6).tolist()]
        [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    start: float = f.real()
    end: float = f.real()
    steps: int = f.count(kw_only=True)

    def _at(self, t: Array) -> Array:
        return _mix(t, self.steps, self.start, self.end, self._weights)

    def _weights(self, t: Array) -> Weights:
        n = self.steps
        first = 2.0 * t <= n
        part = quotient(total(np.where(first, 0.0, n), np.where(first, t, -t)), n)  # to the nearer end: at most 1/2
        angle, low = product(part[0], HALF_PI[0])
        low = low + (part[0] * HALF_PI[1] + part[1] * HALF_PI[0])
        sine, cosine = np.sin(angle), np.cos(angle)
        near, near_low = product(cosine, cosine)
        far, far_low = product(sine, sine)
        turned = 2.0 * sine * cosine * low  # what the low part of the angle moves from one to the other
        near_low, far_low = near_low - turned, far_low + turned
        pairs = ((near, far), (far, near), (near_low, far_low), (far_low, near_low))
        return tuple(np.where(first, *pair) for pair in pairs)


@node
class polynomial(Schedule):
    """Power law: f(t) = end + (start - end) * (1 - t / n)**power; exactly `start` at step 0.

    With `of="elapsed"` the power is taken of the elapsed part instead: f(t) = start + (end - start) * (t / n)**power;
    power=0.5 is then the "1-sqrt" cool-down.

    Args:
        start: value at step 0.
        end: value reached at step `steps` and held.
        power: exponent above 0.
        steps: the length n, an int >= 0.
        of: "remaining" (default) or "elapsed".

    Raises:
        ScheduleError: a value is not finite, power is not above 0, or steps is not a whole number >= 0.

    Source: "remaining": optax.polynomial_schedule, transformers, keras, torch PolynomialLR. "elapsed" with 0.5:
    Haegele et al. 2024 (arXiv 2405.18392), Megatron "minus_sqrt", torchtitan "sqrt".

    Example:
        >>> import tensorsched as ts
        >>> ts.polynomial(1.0, 0.0, 2.0, steps=4).values(6).tolist()
        [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
        >>> ts.polynomial(1.0, 0.0, 0.5, steps=4, of="elapsed").values(5).tolist()
        [1.0, 0.5, 0.2928932188134524, 0.1339745962155614, 0.0]
    """

    start: float = f.real()
    end: float = f.real()
    power: float = f.positive(default=1.0)
    steps: int = f.count(kw_only=True)
    of: str = f.choice("remaining", "elapsed", default="remaining", kw_only=True)

    def _at(self, t: Array) -> Array:
        if self.power == 1.0:
            return linear(self.start, self.end, steps=self.steps)._at(t)
        return _mix(t, self.steps, self.start, self.end, self._weights)

    def _weights(self, t: Array) -> Weights:
        if self.of == "remaining":
            return _power_weights(t, self.steps, self.power)
        w, v = _elapsed_weights(t, self.steps, self.power)
        return v, w


@node
class exponential(Schedule):
    """Geometric from start to end: f(t) = start * (end / start)**(t / n).

    Args:
        start: value at step 0; not 0.
        end: value reached at step `steps` and held; not 0 and of the sign of start.
        steps: the length n, an int >= 0.

    Raises:
        ScheduleError: start or end is 0 or not finite, their signs differ, end / start overflows or underflows, or
            steps is not a whole number >= 0.

    Source: Megatron "exponential", torch ExponentialLR with gamma = (end / start)**(1 / n).

    Example:
        >>> import tensorsched as ts
        >>> ts.exponential(1.0, 0.0625, steps=2).values(4).tolist()
        [1.0, 0.25, 0.0625, 0.0625]
    """

    start: float = f.real()
    end: float = f.real()
    steps: int = f.count(kw_only=True)

    def _prepare(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if value == 0.0:
                raise ScheduleError(
                    f"exponential: {name} must not be 0: no constant factor leads to or from it; use a small value "
                    "such as 1e-8, or cosine or linear"
                )
        if (self.start > 0.0) != (self.end > 0.0):
            raise ScheduleError(
                f"exponential: start and end must have the same sign, got {self.start!r} and {self.end!r}: a geometric "
                "curve does not cross 0; use linear"
            )
        if not sys.float_info.min <= self.end / self.start <= sys.float_info.max:
            raise ScheduleError(
                f"exponential: end / start must fit a float64, got {self.end!r} / {self.start!r}; go there in "
                "two parts with >>"
            )

    def _at(self, t: Array) -> Array:
        out = np.full(t.shape, self.end)
        running = t < self.steps
        part = _fraction(t[running], self.steps or 1)
        ratio = self.end / self.start
        out[running] = between(self.start, self.end, self.start * _geometric(ratio, part))
        return out


@node
class rex(Schedule):
    """Reflected exponential: f(t) = end + (start - end) * (1 - p) / (1 - d * p) with p = t / n; falls late.

    Computed as (start * (n - t) + end * (1 - d) * t) / (n - t + (1 - d) * t), which loses no digits.

    Args:
        start: value at step 0.
        end: value reached at step `steps` and held.
        d: how late it falls, above 0 and below 1; near 0 it is a straight line.
        steps: the length n, an int >= 0.

    Raises:
        ScheduleError: a value is not finite, d is not between 0 and 1, or steps is not a whole number >= 0.

    Source: Chen, Wolfe and Kyrillidis 2021 (arXiv 2107.04197): (1 - p) / (1/2 + (1 - p) / 2), which is d = 0.5. The
    authors' code (REX_LR) and axolotl use d = 0.9.

    Example:
        >>> import tensorsched as ts
        >>> ts.rex(1.0, 0.0, steps=4).values(6).round(4).tolist()
        [1.0, 0.8571, 0.6667, 0.4, 0.0, 0.0]
    """

    start: float = f.real()
    end: float = f.real()
    d: float = f.positive(default=0.5, kw_only=True)
    steps: int = f.count(kw_only=True)

    def _prepare(self) -> None:
        if self.d >= 1.0:  # at 1 the curve is `start` throughout and 0 / 0 at its end; above, it has a pole
            raise f.refuse("rex: d", "a number above 0 and below 1", self.d)

    def _at(self, t: Array) -> Array:
        def weights(t: Array) -> Weights:
            left, passed = self.steps - t, (1.0 - self.d) * t
            return left / (left + passed), passed / (left + passed)

        return _mix(t, self.steps, self.start, self.end, weights)


@node
class tanh(Schedule):
    """Hyperbolic tangent: f(t) = end + (start - end) * (1 - tanh(lower * (1 - p) + upper * p)) / 2 with p = t / n.

    The formula only comes near its ends: with the defaults it is 6e-6 of the height below `start` at step 0 and 0.25 %
    of it above `end` at step n. As every shape it is exactly `start` at step 0 and `end` from step n on (timm also
    holds its lr_min from there): a small jump at either end, and the paper's values in between.

    Args:
        start: value at step 0.
        end: value taken at step `steps` and held.
        lower: argument of tanh at step 0; further below 0: a longer plateau near start.
        upper: argument of tanh at step n; further above 0: a longer tail near end, and a smaller jump to it.
        steps: the length n, an int >= 0.

    Raises:
        ScheduleError: a value is not finite, or steps is not a whole number >= 0.

    Source: Hsueh et al. 2018 (arXiv 1806.01593), HTD(-6, 3); timm TanhLRScheduler (lb=-7 or -6, ub=3 or 4 by version).

    Example:
        >>> import tensorsched as ts
        >>> ts.tanh(1.0, 0.0, steps=4).values(6).round(4).tolist()
        [1.0, 0.9994, 0.9526, 0.1824, 0.0, 0.0]
    """

    start: float = f.real()
    end: float = f.real()
    lower: float = f.real(default=-6.0, kw_only=True)
    upper: float = f.real(default=3.0, kw_only=True)
    steps: int = f.count(kw_only=True)

    def _at(self, t: Array) -> Array:
        return _mix(t, self.steps, self.start, self.end, self._weights)

    def _weights(self, t: Array) -> Weights:
        """1 / (1 + exp(2 a)) and 1 / (1 + exp(-2 a)), where a is the argument of tanh."""
        before, passed = product(self.lower, self.steps - t), product(self.upper, t)
        high, low = total(before[0], passed[0])
        a = quotient((high, low + (before[1] + passed[1])), self.steps)
        small = np.exp(-2.0 * np.abs(a[0]))
        whole = 1.0 + small
        moved = small * (2.0 * np.sign(a[0]) * a[1]) / (whole * whole)  # by the low part of a
        falling = a[0] > 0.0
        pairs = ((small / whole, 1.0 / whole), (1.0 / whole, small / whole), (-moved, moved), (moved, -moved))
        return tuple(np.where(falling, *pair) for pair in pairs)


@node
class exponential_decay(Schedule):
    """Multiply by `rate` every `every` steps: f(t) = start * rate**(t / every), unbounded.

    With `staircase` the exponent is rounded down, so that the value changes at multiples of `every` only.

    Args:
        start: value at step 0.
        rate: factor per `every` steps, above 0.
        every: number of steps (torch StepLR's step_size, optax's transition_steps), an int >= 1.
        staircase: hold between the multiples of `every` (torch StepLR) or not (default).

    Raises:
        ScheduleError: a value is not finite, rate is not above 0, or every is not a whole number >= 1.

    Source: optax.exponential_decay, keras ExponentialDecay; torch ExponentialLR is every=1, StepLR is staircase.

    Example:
        >>> import tensorsched as ts
        >>> ts.exponential_decay(1.0, 0.25, every=2).values(4).tolist()
        [1.0, 0.5, 0.25, 0.125]
        >>> ts.exponential_decay(1.0, 0.25, every=2, staircase=True).values(4).tolist()
        [1.0, 1.0, 0.25, 0.25]
    """

    start: float = f.real()
    rate: float = f.positive()
    every: int = f.count(least=1, kw_only=True)
    staircase: bool = f.flag(default=False, kw_only=True)

    def _at(self, t: Array) -> Array:
        if self.staircase:
            return self.start * np.power(self.rate, np.floor_divide(t, self.every))
        return self.start * _geometric(self.rate, _fraction(t, self.every))

    def _reach_unbounded(self) -> int:
        """Until a thousandth, or a thousandfold, is left of it."""
        pace = abs(math.log(self.rate))
        return self.every * (10 if pace == 0.0 else min(max(math.ceil(math.log(1e3) / pace), 4), 10**6))


@node
class inverse_sqrt(Schedule):
    """Inverse square root decay: f(t) = peak * sqrt(timescale / (t + timescale)), unbounded.

    Args:
        peak: value at step 0.
        timescale: number of steps, above 0, after which the value is peak / sqrt(2).

    Raises:
        ScheduleError: peak is not finite, or timescale is not above 0.

    Source: transformers get_inverse_sqrt_schedule, T5; after a warm-up of `timescale` steps it is Noam's decay.

    Example:
        >>> import tensorsched as ts
        >>> ts.inverse_sqrt(1.0, timescale=1).values(4).tolist()
        [1.0, 0.7071067811865476, 0.5773502691896257, 0.5]
    """

    peak: float = f.real()
    timescale: float = f.positive(kw_only=True)

    def _at(self, t: Array) -> Array:
        return self.peak * np.sqrt(self.timescale / (t + self.timescale))

    def _reach_unbounded(self) -> int:
        return math.ceil(min(10.0 * self.timescale, float(f.MAX_STEPS)))


@node
class piecewise_constant(Schedule):
    """Levels: f(t) = levels[i], where i is the number of boundaries <= t; unbounded.

    The new value is used *at* its boundary (torch MultiStepLR, optax); keras switches one step later.

    Args:
        levels: one value more than there are boundaries.
        boundaries: strictly increasing steps; may be empty.

    Raises:
        ScheduleError: the counts do not fit, the boundaries do not increase, or a value is not finite.

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
        width = np.where(i == j, 1.0, at[j] - at[i])  # 1 where both are the same point, whose value then stays
        line = _line(np.where(i == j, 0.0, t - at[i]), width, value[i], value[j])
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
        entries = np.asarray(self.entries)
        t = np.minimum(t, len(entries) - 1)
        low = np.floor(t).astype(np.int64)
        part = t - low
        high = np.minimum(low + 1, len(entries) - 1)
        return np.where(part == 0.0, entries[low], entries[low] * (1.0 - part) + entries[high] * part)


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


# A list that is computed is one that type checkers cannot read: they would export nothing. Left without one, they
# export what is defined here.
if not TYPE_CHECKING:
    __all__ = ["from_function", *SHAPES]  # noqa: PLE0604  names, all of them

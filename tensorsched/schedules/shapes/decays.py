"""Shapes that never end: they decay, or grow."""

# ruff: noqa: N801  called like functions, as range is
from __future__ import annotations

import math

import numpy as np

from tensorsched.schedules import validators as f
from tensorsched.schedules.doubles import quotient, total
from tensorsched.schedules.node import Array, node
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes.weights import fraction, geometric, power, scaled


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
        return self.start * geometric(self.rate, fraction(t, self.every))

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
class power_law(Schedule):
    """Power law decay: f(t) = peak * (1 + t / timescale)**-exponent, unbounded.

    Args:
        peak: value at step 0.
        exponent: above 0; 0.5 is `inverse_sqrt`, 1 is `inverse_time`.
        timescale: number of steps, above 0, after which the value is peak / 2**exponent.

    Raises:
        ScheduleError: peak is not finite, or exponent or timescale is not above 0.

    Source: Shen et al. 2024 (arXiv 2408.13359), T**-0.51; after a warm-up of `timescale` steps it is peak * (t /
    timescale)**-exponent.

    Example:
        >>> import tensorsched as ts
        >>> ts.power_law(1.0, 2.0, timescale=1).values(3).tolist()
        [1.0, 0.25, 0.1111111111111111]
    """

    peak: float = f.real()
    exponent: float = f.positive()
    timescale: float = f.positive(kw_only=True)

    def _at(self, t: Array) -> Array:
        return self.peak * power(quotient(total(t, self.timescale), self.timescale), -self.exponent)

    def _reach_unbounded(self) -> int:
        return math.ceil(min(10.0 * self.timescale, float(f.MAX_STEPS)))


@node
class inverse_time(Schedule):
    """Inverse time decay: f(t) = start / (1 + rate * t / every), unbounded.

    With `staircase`, t / every is rounded down, so that the value changes at multiples of `every` only.

    Args:
        start: value at step 0.
        rate: above 0; after `every` steps the value is start / (1 + rate).
        every: number of steps, an int >= 1.
        staircase: hold between the multiples of `every`.

    Raises:
        ScheduleError: a value is not finite, rate is not above 0, or every is not a whole number >= 1.

    Source: keras InverseTimeDecay(initial_learning_rate, decay_steps=every, decay_rate=rate).

    Example:
        >>> import tensorsched as ts
        >>> ts.inverse_time(1.0, 1.0, every=2).values(5).tolist()
        [1.0, 0.6666666666666666, 0.5, 0.4, 0.3333333333333333]
    """

    start: float = f.real()
    rate: float = f.positive()
    every: int = f.count(least=1, kw_only=True)
    staircase: bool = f.flag(default=False, kw_only=True)

    def _at(self, t: Array) -> Array:
        passed = np.floor_divide(t, self.every) if self.staircase else t / self.every
        return self.start / (1.0 + self.rate * passed)

    def _reach_unbounded(self) -> int:
        return math.ceil(min(10.0 * self.every * max(1.0, 1.0 / self.rate), float(f.MAX_STEPS)))


@node
class linear_growth(Schedule):
    """A straight line that never ends: f(t) = start + rate * t / every; `linear` without an end.

    With `staircase`, t / every is rounded down, so that the value changes at multiples of `every` only.

    Args:
        start: value at step 0.
        rate: what is added in `every` steps; below 0 it falls, through 0 and on: `.clamp(low=0)` stops it.
        every: number of steps, an int >= 1; 1 by default: rate is then what each step adds.
        staircase: hold between the multiples of `every`.

    Raises:
        ScheduleError: a value is not finite, or every is not a whole number >= 1.

    Source: DeepSpeed LRRangeTest(min_lr, step_size, step_rate), with start=min_lr, rate=min_lr * step_rate,
    every=step_size: the range test of Smith 2018 (arXiv 1803.09820).

    Example:
        >>> import tensorsched as ts
        >>> ts.linear_growth(1.0, 0.5, every=2).values(5).tolist()
        [1.0, 1.25, 1.5, 1.75, 2.0]
        >>> ts.linear_growth(1.0, 0.5, every=2, staircase=True).values(5).tolist()
        [1.0, 1.0, 1.5, 1.5, 2.0]
    """

    start: float = f.real()
    rate: float = f.real()
    every: int = f.count(least=1, default=1, kw_only=True)
    staircase: bool = f.flag(default=False, kw_only=True)

    @property
    def constant_from(self) -> int | None:
        return 0 if self.rate == 0.0 else None

    def _at(self, t: Array) -> Array:
        if self.staircase:
            return self.start + self.rate * np.floor_divide(t, self.every)
        return self.start + scaled(self.rate, t, self.every)

    def _reach_unbounded(self) -> int:
        """Until it is eleven times what it was, or has grown ten times."""
        return math.ceil(min(10.0 * self.every * max(1.0, abs(self.start / self.rate)), float(f.MAX_STEPS)))

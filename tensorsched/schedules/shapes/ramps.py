"""Shapes that go from one value to another in n steps: p = t / n is the part that has passed."""

# ruff: noqa: N801  called like functions, as range is
from __future__ import annotations

import math
import sys

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.doubles import between
from tensorsched.schedules.node import Array, node
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.shapes.weights import (
    Weights,
    before,
    elapsed_weights,
    fraction,
    geometric,
    mix,
    power_weights,
    straight,
    tanh_weights,
    wave_weights,
)


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
        line = straight(np.minimum(t, self.steps), self.steps, self.start, self.end)
        return np.select(
            [t == 0.0, t < self.steps], [self.start, between(self.start, self.end, line)], self.end
        )


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
        return mix(t, self.steps, self.start, self.end, lambda t: wave_weights(t, self.steps))


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
        >>> ts.polynomial(1.0, 0.0, 0.5, steps=4, of="elapsed").values(5).round(9).tolist()
        [1.0, 0.5, 0.292893219, 0.133974596, 0.0]
    """

    start: float = f.real()
    end: float = f.real()
    power: float = f.positive(default=1.0)
    steps: int = f.count(kw_only=True)
    of: str = f.choice("remaining", "elapsed", default="remaining", kw_only=True)

    def _at(self, t: Array) -> Array:
        if self.power == 1.0:
            return linear(self.start, self.end, steps=self.steps)._at(t)
        return mix(t, self.steps, self.start, self.end, self._weights)

    def _weights(self, t: Array) -> Weights:
        if self.of == "remaining":
            return power_weights(t, self.steps, self.power)
        w, v = elapsed_weights(t, self.steps, self.power)
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
        ratio = self.end / self.start

        def curve(t: Array) -> Array:
            values = self.start * geometric(ratio, fraction(t, self.steps))
            return between(self.start, self.end, values)

        return before(t, self.steps, self.end, curve)


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

        return mix(t, self.steps, self.start, self.end, weights)


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
        def weights(t: Array) -> Weights:
            return tanh_weights(t, self.steps, self.lower, self.upper)

        return mix(t, self.steps, self.start, self.end, weights)


@node
class logarithmic(Schedule):
    """Logarithm of the step: f(t) = start + (end - start) * log(1 + t) / log(1 + n); fast first, then slow.

    Args:
        start: value at step 0.
        end: value reached at step `steps` and held.
        steps: the length n, an int >= 0.

    Raises:
        ScheduleError: a value is not finite, or steps is not a whole number >= 0.

    Source: DeepSpeed WarmupLR(warmup_type="log"), its default: log(1 + t) / log(warmup_num_steps), which is
    steps=warmup_num_steps - 1.

    Example:
        >>> import tensorsched as ts
        >>> ts.logarithmic(0.0, 2.0, steps=3).values(5).round(9).tolist()
        [0.0, 1.0, 1.584962501, 2.0, 2.0]
    """

    start: float = f.real()
    end: float = f.real()
    steps: int = f.count(kw_only=True)

    def _at(self, t: Array) -> Array:
        whole = math.log1p(self.steps)

        def weights(t: Array) -> Weights:
            return np.log1p((self.steps - t) / (1.0 + t)) / whole, np.log1p(t) / whole

        return mix(t, self.steps, self.start, self.end, weights)

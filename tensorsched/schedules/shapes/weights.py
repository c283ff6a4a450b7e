"""What the shapes compute with: weights of their ends that lose no digits (see `doubles`)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tensorsched.schedules.doubles import Pair, between, quotient, total
from tensorsched.schedules.node import Array

Weights = tuple[Array, ...]
"""What start and end are multiplied with; two more are the low parts of these, to be multiplied likewise."""


def mix(t: Array, n: int, start: float, end: float, weights: Callable[[Array], Weights]) -> Array:
    """The sum start * v + end * w before step n, where v, w = weights(t); exactly start at 0 and end from n on."""
    out = np.full(t.shape, end)
    running = t < n
    at = t[running]
    v, w, *low = weights(at)
    values = start * v + end * w
    if low:
        values = values + (start * low[0] + end * low[1])
    out[running] = np.where(at == 0.0, start, between(start, end, values))
    return out


def straight(t: Array, n: Array | int, start: Array | float, end: Array | float) -> Array:
    """(start * (n - t) + end * t) / n for 0 <= t <= n: whole numbers stay whole."""
    values = (start * (n - t) + end * t) / n
    if np.isfinite(values).all():
        return values
    return start * ((n - t) / n) + end * (t / n)  # the products overflow, what they are parts of does not


def fraction(t: Array, n: float) -> Pair:
    """The part t / n that has passed."""
    return quotient((t, np.zeros_like(t)), n)


def power(base: Pair, exponent: float) -> Array:
    """base**exponent, where base > 0."""
    return _corrected(base[0] ** exponent, exponent * base[1] / base[0])


def _corrected(value: Array, relative: Array) -> Array:
    """The product value * (1 + relative), rounded once; inf stays inf."""
    return np.where(np.isfinite(value), value + value * relative, value)


def geometric(ratio: float, exponent: Pair) -> Array:
    """ratio**exponent, where ratio > 0."""
    return _corrected(np.power(ratio, exponent[0]), math.log(ratio) * exponent[1])


def power_weights(t: Array, n: int, exponent: float) -> Weights:
    """(1 - t / n)**exponent and 1 minus that, for 0 <= t < n."""
    left = quotient(total(n, -t), n)
    v = power(left, exponent)
    log = np.where(2.0 * t <= n, np.log1p(-t / n), np.log(left[0]))
    return v, np.where(v > 0.5, -np.expm1(exponent * log), 1.0 - v)  # noqa: PLR2004  half: 1 - v is exact enough below


def elapsed_weights(t: Array, n: int, exponent: float) -> Weights:
    """(t / n)**exponent and 1 minus that, for 0 <= t < n."""
    passed = fraction(t, n)
    with np.errstate(divide="ignore"):
        log = np.where(2.0 * t <= n, np.log(passed[0]), np.log1p(-(n - t) / n))
    w = np.where(t == 0.0, 0.0, power((np.where(t == 0.0, 1.0, passed[0]), passed[1]), exponent))
    return w, np.where(w > 0.5, -np.expm1(exponent * log), 1.0 - w)  # noqa: PLR2004  as above

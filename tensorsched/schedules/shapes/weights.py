"""What the shapes compute with: weights of their ends that lose no digits (see `doubles`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from tensorsched.schedules.doubles import EXACT, Pair, between, quotient, total
from tensorsched.schedules.node import Array

Weights = tuple[Array, ...]
"""What start and end are multiplied with; two more are the low parts of these, to be multiplied likewise."""

Mask = npt.NDArray[np.bool_]

_BLOCK = 1 << 13  # positions: 64 KiB


def mix(t: Array, n: int, start: float, end: float, weights: Callable[[Array], Weights]) -> Array:
    """The sum start * v + end * w before step n, where v, w = weights(t); exactly start at 0 and end from n on."""
    return before(t, n, end, lambda t: _mixed(t, start, end, weights(t)))


def _mixed(t: Array, start: float, end: float, parts: Weights) -> Array:
    v, w, *low = parts
    values = start * v + end * w
    if low:
        values += start * low[0] + end * low[1]
    return np.where(t == 0.0, start, between(start, end, values))


def before(t: Array, n: int, end: float, curve: Callable[[Array], Array]) -> Array:
    """`curve` before step n, and end from there on.

    In blocks, whose temporaries (dozens for a cosine) stay in the processor's cache and in memory that the process has:
    larger ones are fetched from the system and given back one by one, which takes as long again as the arithmetic.
    """
    flat = t.ravel()
    out = np.empty_like(flat)
    for low in range(0, flat.size, _BLOCK):
        at, block = flat[low : low + _BLOCK], out[low : low + _BLOCK]
        running = at < n
        if running.all():
            block[:] = curve(at)
        else:
            block[:] = end
            if running.any():
                block[running] = curve(at[running])
    return out.reshape(t.shape)


def either(chosen: Mask, pairs: Iterable[tuple[Array, Array]]) -> Weights:
    """The first of each pair where that is chosen, else the second; copied only in a block that has both."""
    if chosen.all():
        return tuple(a for a, _ in pairs)
    return tuple(np.where(chosen, a, b) if chosen.any() else b for a, b in pairs)


def straight(t: Array, n: Array | int, start: Array | float, end: Array | float) -> Array:
    """(start * (n - t) + end * t) / n for 0 <= t <= n: whole numbers stay whole."""
    values = (start * (n - t) + end * t) / n
    if np.isfinite(values).all():
        return values
    return start * ((n - t) / n) + end * (t / n)  # the products overflow, what they are parts of does not


def scaled(factor: float, t: Array, n: int) -> Array:
    """Factor * t / n for 0 <= t: whole numbers stay whole."""
    values = factor * t / n
    if np.isfinite(values).all():
        return values
    return factor * (t / n)  # the product overflows, what it is a part of does not


def fraction(t: Array, n: float) -> Pair:
    """The part t / n that has passed."""
    return quotient((t, EXACT), n)


def power(base: Pair, exponent: float) -> Array:
    """base**exponent, where base > 0."""
    return _corrected(base[0] ** exponent, exponent * base[1] / base[0])


def _corrected(value: Array, relative: Array) -> Array:
    """The product value * (1 + relative), rounded once; inf stays inf."""
    corrected = value + value * relative
    return corrected if np.isfinite(corrected).all() else np.where(np.isfinite(value), corrected, value)


def geometric(ratio: float, exponent: Pair) -> Array:
    """ratio**exponent, where ratio > 0."""
    return _corrected(np.power(ratio, exponent[0]), math.log(ratio) * exponent[1])


def power_weights(t: Array, n: int, exponent: float) -> Weights:
    """(1 - t / n)**exponent and 1 minus that, for 0 <= t < n."""
    left = quotient(total(n, -t), n)
    v = power(left, exponent)

    def log(of: Mask) -> Array:
        found: Array = np.where(2.0 * t[of] <= n, np.log1p(-t[of] / n), np.log(left[0][of]))
        return found

    return v, _rest(v, exponent, log)


def elapsed_weights(t: Array, n: int, exponent: float) -> Weights:
    """(t / n)**exponent and 1 minus that, for 0 <= t < n."""
    passed = fraction(t, n)

    def log(of: Mask) -> Array:
        found: Array = np.where(2.0 * t[of] <= n, np.log(passed[0][of]), np.log1p(-(n - t[of]) / n))
        return found

    w = np.where(t == 0.0, 0.0, power((np.where(t == 0.0, 1.0, passed[0]), passed[1]), exponent))
    return w, _rest(w, exponent, log)


def _rest(raised: Array, exponent: float, log: Callable[[Mask], Array]) -> Array:
    """1 minus a power, whose base has this logarithm, asked for where it is used."""
    rest = 1.0 - raised  # exact enough where half or less was raised
    near = raised > 0.5  # noqa: PLR2004  half
    if near.any():
        rest[near] = -np.expm1(exponent * log(near))
    return rest

"""What the shapes compute with: weights of their ends that lose no digits (see `doubles`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from tensorsched.schedules.doubles import EXACT, HALF_PI, Pair, between, product, quotient, square, total
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
    """The product factor * t / n for 0 <= t: whole numbers stay whole."""
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


def wave_weights(t: Array, n: int) -> Weights:
    """cos(pi t / 2 n)**2 and sin(pi t / 2 n)**2, for 0 <= t < n."""
    first = 2.0 * t <= n
    off = np.where(first, t, n - t)  # from the nearer end; exact, since it is at most half of n
    part, rest = quotient((off, EXACT), n)
    angle, low = product(part, HALF_PI[0])
    low = low + (part * HALF_PI[1] + rest * HALF_PI[0])
    sine, cosine = np.sin(angle), np.cos(angle)
    near, near_low = square(cosine)
    far, far_low = square(sine)
    turned = 2.0 * sine * cosine * low  # what the low part of the angle moves from one to the other
    near_low, far_low = near_low - turned, far_low + turned
    # The only parts of a half wave whose height is a fraction are its half and its thirds: exact, so that whole
    # numbers come out whole.
    half, third = 2.0 * off == n, 3.0 * off == n
    known = half | third
    if known.any():
        near[half], near[third], far[half], far[third] = 0.5, 0.75, 0.5, 0.25
        near_low[known] = far_low[known] = 0.0
    pairs = ((near, far), (far, near), (near_low, far_low), (far_low, near_low))
    return either(first, pairs)


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


def tanh_weights(t: Array, n: int, lower: float, upper: float) -> Weights:
    """1 / (1 + exp(2 a)) and 1 / (1 + exp(-2 a)), where a = (lower * (n - t) + upper * t) / n."""
    left, passed = product(lower, n - t), product(upper, t)
    high, low = total(left[0], passed[0])
    a = quotient((high, low + (left[1] + passed[1])), n)
    small = np.exp(-2.0 * np.abs(a[0]))
    whole = 1.0 + small
    moved = small * (2.0 * np.sign(a[0]) * a[1]) / (whole * whole)  # by the low part of a
    falling = a[0] > 0.0
    pairs = ((small / whole, 1.0 / whole), (1.0 / whole, small / whole), (-moved, moved), (moved, -moved))
    return either(falling, pairs)

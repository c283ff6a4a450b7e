"""Arithmetic on pairs of float64: a result and what its rounding left out, so that no formula loses digits.

A position p = t / n is rounded once; a power, an exponential or a sine of it multiplies that rounding by hundreds. The
shapes therefore carry p as a pair (high, low) whose sum is p to some 30 digits, and correct their value by the low
part. Everything is elementwise on arrays, made of correctly rounded + - * / alone: the same bits everywhere.
"""

from __future__ import annotations

import numpy as np

from tensorsched.schedules.node import Array

__all__ = ["EXACT", "HALF_PI", "Pair", "between", "product", "quotient", "square", "total"]

Pair = tuple[Array, Array]
"""(high, low): their exact sum is the number; low is at most half an ulp of high."""

HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
"""pi / 2, as such a pair."""

EXACT = np.zeros(())
"""The low part of what a float64 holds exactly."""

_SPLITTER = 134217729.0  # 2**27 + 1: cuts a float64 into two halves of 26 bits (Veltkamp)


def total(a: Array | float, b: Array | float) -> Pair:
    """The sum a + b and its rounding error, exactly (Knuth's two-sum)."""
    high = np.add(a, b)
    part = high - a
    return high, (a - (high - part)) + (b - part)


def product(a: Array | float, b: Array | float) -> Pair:
    """The product a * b and its rounding error, exactly (Dekker); an error of 0 where the halves would overflow."""
    high = np.multiply(a, b)
    a1, a2 = _halves(a)
    b1, b2 = _halves(b)
    low = a2 * b2 - (((high - a1 * b1) - a2 * b1) - a1 * b2)
    return high, low if np.isfinite(low).all() else np.where(np.isfinite(low), low, 0.0)


def square(a: Array) -> Pair:
    """The same as product(a, a), where a * a is far from overflowing."""
    high = a * a
    a1, a2 = _halves(a)
    cross = a1 * a2
    return high, a2 * a2 - (((high - a1 * a1) - cross) - cross)


def _halves(a: Array | float) -> Pair:
    scaled = np.multiply(_SPLITTER, a)
    high = scaled - (scaled - a)
    return high, a - high


def quotient(a: Pair, b: float) -> Pair:
    """The quotient a / b, where b is not 0."""
    high = a[0] / b
    back, error = product(high, b)
    return high, (((a[0] - back) - error) + a[1]) / b


def between(start: float, end: float, values: Array) -> Array:
    """The values, none of them beyond start or end by a rounding; equal ends give exactly that number."""
    return np.clip(values, min(start, end), max(start, end))

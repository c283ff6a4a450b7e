"""What the formulas compute with: scalar float64, on `math` and `fractions` alone.

A formula divides and multiplies positions exactly (`Fraction`), and calls the C library with a number in two parts:
what a float holds of it, and the rest, by which the result is corrected. The arithmetic is IEEE's, like numpy's: a
division by 0 and an overflow give inf, which a `minimum` above may bring back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any


def outside(c: Any, t: float) -> float:
    """Exactly the start at step 0, exactly the end from step n on."""
    return float(c.end if t >= c.steps else c.start)


def within(c: Any, found: float) -> float:
    """Not beyond start or end by a rounding."""
    low, high = float(min(c.start, c.end)), float(max(c.start, c.end))
    return min(max(found, low), high)


def line(t: float, n: float, start: float, end: float) -> float:
    """From start at 0 to end at n; the division comes last, so that whole numbers stay whole."""
    found = (start * (n - t) + end * t) / n
    if not math.isfinite(found):  # the products overflow, what they are parts of does not
        found = start * ((n - t) / n) + end * (t / n)
    return min(max(found, min(start, end)), max(start, end))


def parts(exact: Fraction) -> tuple[float, float]:
    """The nearest float64, and the rest; inf where there is none."""
    try:
        nearest = float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf, 0.0
    return nearest, float(exact - Fraction(nearest))


def raised(base: Fraction, exponent: float) -> float:
    """The power base**exponent, for 0 < base."""
    nearest, rest = parts(base)
    found = power(nearest, exponent)
    return found + found * (exponent * rest / nearest) if math.isfinite(found) else found


def geometric(ratio: float, exponent: Fraction) -> float:
    """The power ratio**exponent, for 0 < ratio."""
    nearest, rest = parts(exponent)
    found = power(ratio, nearest)
    return found + found * (math.log(ratio) * rest) if math.isfinite(found) else found


def power(x: float, y: float) -> float:
    """The power x**y; inf or nan where it has no value."""
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0.0 and y % 2.0 == 1.0 else math.inf
    except ValueError:  # 0 to a negative power, or a fraction of a negative number
        return math.nan if x else math.copysign(math.inf, x) if y % 2.0 == 1.0 else math.inf


def divide(a: float, b: float) -> float:
    """The quotient; by 0 it is inf or nan."""
    return a / b if b else a * math.copysign(math.inf, b)


def minimum(a: float, b: float) -> float:
    """The smaller one; nan where either is."""
    return a if a <= b or math.isnan(a) else b


def maximum(a: float, b: float) -> float:
    """The larger one; nan where either is."""
    return a if a >= b or math.isnan(a) else b


OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": divide,
    "**": power,
    "minimum": minimum,
    "maximum": maximum,
}

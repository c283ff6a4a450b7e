"""Numbers as people write them: round ticks, 3e-4 in the place of 0.0003, 20k steps, and no noise of rounding."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_TINY = 1e-300  # an axis shorter than that has no round numbers
_EXACT = 12  # digits that tell numbers apart; what a double has beyond them is noise to a reader
_SMALL, _LARGE = 0.01, 1e6  # an axis that ends below or above has numbers with an exponent
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_FLOAT = re.compile(r"(?<![\w.])(?:\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+)(?![\w.])")
_DECADES = 2.0  # of fewer a log axis has numbers between the powers of ten


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` (>= 2) round numbers within low..high: multiples of 1, 2 or 5 times a power of 10.

    The two ends where none lies between them.
    """
    span = high - low
    if not _TINY < span < math.inf:
        return [low]
    scale = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * scale for m in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if span / (m * scale) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step + 0.0 for i in range(first, last + 1)] or [low, high]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` (>= 2) numbers for a logarithmic axis low..high (both above 0): powers of 10, or 1, 2 and 5 times.

    Those of a linear axis where fewer than two lie between the ends.
    """
    first, last = math.log10(low), math.log10(high)
    powers = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    found = [10.0**k for k in powers]
    if last - first < _DECADES:
        every = (m * 10.0**k for k in range(math.floor(first), math.ceil(last) + 1) for m in (1.0, 2.0, 5.0))
        finer = [number for number in every if low * (1.0 - 1e-9) <= number <= high * (1.0 + 1e-9)]
        found = finer if len(finer) <= most else found
    if len(found) < 2:  # noqa: PLR2004  an axis has two ends
        return ticks(low, high, most)
    return found[:: -(-len(found) // most)]


def labels(numbers: Sequence[float]) -> list[str]:
    """The numbers of one axis, all with exponents or none, with as many digits as tell them apart."""
    high = max(map(abs, numbers), default=0.0)
    if high < _SMALL or high >= _LARGE:
        written = ([scientific(number, digits) for number in numbers] for digits in range(3, 18))
    else:
        written = ([f"{number:.{digits}g}" for number in numbers] for digits in range(4, 18))
    return next((texts for texts in written if len(set(texts)) == len(set(numbers))), [*map(repr, numbers)])


def scientific(number: float, digits: int = 4) -> str:
    """A number with an exponent, as people write a learning rate: 3e-4, 2.5e-4."""
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return f"{float(mantissa):.{digits}g}e{int(exponent)}" if float(mantissa) else "0"


def number(value: float, digits: int = 6) -> str:
    """A number in a text, the shorter way: 0.1, 3e-4, 3072, 1.5e9; to so many digits."""
    if value == 0.0:
        return "0"
    plain = f"{value:.{digits}g}"
    if not math.isfinite(value) or 1.0 <= abs(value) < _LARGE:
        return plain
    short = scientific(value, digits)
    if abs(value) >= _LARGE and value.is_integer():
        plain = f"{value:.0f}"
    return short if "e" in plain or len(short) < len(plain) else plain


def tidy(text: str) -> str:
    """Source text with its floats written the shorter way, to 12 digits: without what rounding left in the others."""
    return _FLOAT.sub(lambda found: min(number(float(found[0]), _EXACT), found[0], key=len), text)


def count(steps: float) -> str:
    """A number of steps, short: 20000 -> "20k", 250 billion tokens -> "250B"."""
    for unit, name in _UNITS:
        if steps >= 10 * unit or (steps >= unit and steps % (unit / 10) == 0):
            return f"{steps / unit:.4g}{name}"
    return f"{steps:.4g}"


def placed(step: int, unit: str) -> str:
    """A step, or a position in another unit: "step 6,000", "6,000 tokens"."""
    return f"step {step:,}" if unit == "step" else f"{step:,} {unit}"


def at(step: int) -> str:
    """A step, exactly: 16000 -> "16k", 16050 -> "16,050"."""
    return count(step) if all(step < unit or step % (unit / 10) == 0 for unit, _ in _UNITS) else f"{step:,}"

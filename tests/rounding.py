"""How far two correct float64 evaluations of one schedule may lie apart: a running error analysis.

A shape promises 4 ulp: each of its values, in the table and in the reference, lies within 4 float64 ulp of the exact one
(test_reference holds both to it, against 50 digits). An ulp is that of the value, or of the larger of the two ends that
the curve runs between where these differ in sign.

From there `analyse` runs the formulas of `tensorsched.schedules.reference` on `Bounded` numbers. Each carries a bound on
its distance from the exact result, so the derivation is done by the operations themselves, and a new node needs none of
its own. The table does the same operations in numpy: each of the two lies within `error` of the exact value, and so they
lie within 2 * error of each other.

The rules, with u = 2**-53, computed values a and b, and errors A and B propagated to them:

* one rounding: fl(x) = x (1 + d) + s, |d| <= u, |s| below the smallest subnormal. x is known up to its error e, and the
  other evaluation may hold x + 2 e, hence the rounding costs u (|x| + 2 e).
* a + b, a - b: A + B.  a * b: |a| B + |b| A + 3 A B (the third covers the other evaluation).
* a / b: (A + (|a| + A) B / (|b| - B)) / (|b| - 2 B); unbounded once b may be 0.
* a**b: a relative error r = (|b| + 2 B) L + B (|log a| + L) with L = A / (a - 2 A), from either side: expm1(2 r).
* minimum, maximum: that of the operand that is chosen, or the larger one where either may be.
* a multiple of m: exact, unless the next one is within the error: then m.

+ - * / and sqrt are rounded correctly everywhere. cos, exp and pow are not: C libraries stay below 1 ulp, and numpy's
vectorised variants, which it chooses by CPU, below 4 ulp. Where none was used, both evaluations did the same
correctly rounded operations and must agree to the last bit; `exact` says so.

A position is computed alike on both sides, hence every node starts with an exact one. (Were it not, the trees that are
`exact` would show it.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import tensorsched as ts
from tensorsched import Schedule, reference
from tensorsched.schedules import Floor, Round
from tensorsched.schedules.reference import arithmetic

U = 2.0**-53 * 1.001  # the thousandth covers the roundings of this arithmetic itself
TINY = 2.0**-1070  # a few subnormals
LIBRARY_ULPS = 4  # of pow; an ulp is at most 2 u |x|
SHAPE_ULPS = 4  # of a shape's value
LIBRARY = (
    "cos",
    "exp",
    "expm1",
    "log",
    "log1p",
    "pow",
    "sin",
)  # what a formula may call that is not rounded correctly


class Bounded(float):
    """A float64 result and a bound on how far the exact one lies from it."""

    error: float

    def __new__(cls, value: float, error: float = 0.0) -> Self:
        made = super().__new__(cls, value)
        made.error = error if math.isfinite(value) and error == error else math.inf  # noqa: PLR0124  nan
        return made

    def __add__(self, other: float) -> Bounded:
        return rounded(float(self) + float(other), self.error + error_of(other))

    def __sub__(self, other: float) -> Bounded:
        return rounded(float(self) - float(other), self.error + error_of(other))

    def __rsub__(self, other: float) -> Bounded:
        return Bounded(other) - self

    def __mul__(self, other: float) -> Bounded:
        a, b, ea, eb = abs(float(self)), abs(float(other)), self.error, error_of(other)
        return rounded(float(self) * float(other), a * eb + b * ea + 3.0 * ea * eb)

    def __truediv__(self, other: float) -> Bounded:
        a, b, ea, eb = abs(float(self)), abs(float(other)), self.error, error_of(other)
        error = (ea + (a + ea) * eb / (b - eb)) / (b - 2.0 * eb) if b > 2.0 * eb else math.inf
        return rounded(float(self) / float(other), error)

    def __rtruediv__(self, other: float) -> Bounded:
        return Bounded(other) / self

    __radd__ = __add__
    __rmul__ = __mul__


def error_of(x: float) -> float:
    return x.error if isinstance(x, Bounded) else 0.0


def rounded(value: float, error: float, ulps: float = 0.5) -> Bounded:
    """`value` was rounded by up to `ulps` after the errors of its operands came to `error`."""
    return Bounded(value, error + 2.0 * ulps * U * (abs(value) + 2.0 * error) + TINY)


def _pow(x: float, y: float) -> Bounded:
    value, ex, ey = math.pow(x, y), error_of(x), error_of(y)
    low = abs(float(x)) - 2.0 * ex
    if ex == ey == 0.0 or value == low == 0.0:
        return rounded(value, 0.0, LIBRARY_ULPS)
    if low <= 0.0:  # the base may be 0 on one side: both results lie between 0 and that of the largest base
        return rounded(
            value, math.pow(float(x) + 2.0 * ex, y) if y > 0.0 and ey == 0.0 else math.inf, LIBRARY_ULPS
        )
    log_error = ex / low
    relative = (abs(y) + 2.0 * ey) * log_error + ey * (abs(math.log(abs(x))) + log_error)
    return rounded(value, abs(value) * math.expm1(min(2.0 * float(relative), 700.0)), LIBRARY_ULPS)


def _chosen(pick: Callable[[float, float], float]) -> Callable[[float, float], Bounded]:
    def choose(a: float, b: float) -> Bounded:
        ea, eb, value = error_of(a), error_of(b), pick(a, b)
        apart = abs(float(a) - float(b)) > 2.0 * (ea + eb)
        return Bounded(value, error_of(value) if apart else max(ea, eb))

    return choose


@dataclass(frozen=True)
class Reading:
    """A schedule's value at a step, as the reference computes it."""

    value: float  # inf or nan where the arithmetic leads there
    error: float  # distance from the exact value, at most
    exact: bool  # only correctly rounded operations: every evaluation must give the same bits

    @property
    def apart(self) -> float:
        """How far two evaluations may lie apart."""
        return 0.0 if self.exact else 2.0 * self.error


class _Exact:
    """A node whose numbers are Bounded ones: exactly what they say."""

    def __init__(self, node: Schedule) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:
        return _exactly(getattr(self._node, name))


def _exactly(held: Any) -> Any:
    if isinstance(held, tuple):
        return tuple(map(_exactly, held))
    return Bounded(held) if isinstance(held, float) else held


def analyse(schedule: Schedule, step: int) -> Reading:
    with _instrumented() as library_calls:
        result = reference.at(schedule, Bounded(step))
        return Reading(
            float(result), error_of(result) if math.isfinite(result) else math.inf, not library_calls
        )


@contextmanager
def _instrumented() -> Iterator[list[str]]:
    """The reference on Bounded numbers; gives the list of the calls that are not correctly rounded."""
    calls: list[str] = []

    def noted(name: str) -> Callable[..., float]:
        def call(*args: float) -> float:
            calls.append(name)
            return _pow(*args) if any(isinstance(a, Bounded) for a in args) else getattr(math, name)(*args)

        return call

    formulas = {kind: partial(_formula, formula) for kind, formula in reference.FORMULAS.items()}
    chosen = {op: _chosen(arithmetic.OPERATORS[op]) for op in ("minimum", "maximum")}
    library = SimpleNamespace(**{**vars(math), **{name: noted(name) for name in LIBRARY}})
    with ExitStack() as patched:
        for module in (arithmetic, reference.shapes, reference.combinators):
            patched.enter_context(mock.patch.object(module, "math", library))
        patched.enter_context(mock.patch.dict(reference.FORMULAS, formulas))
        patched.enter_context(mock.patch.dict(arithmetic.OPERATORS, chosen))
        yield calls


def _formula(formula: Callable[[Any, float], float], node: Schedule, t: float) -> float:
    if isinstance(node, (Floor, Round)):
        inner = reference.at(node.inner, Bounded(float(t)))
        near = [float(inner) + offset * error_of(inner) for offset in (-2.0, 0.0, 2.0)]
        whole = [float(formula(_Held(node, value), float(t))) for value in near]
        if whole[0] == whole[1] == whole[2]:
            return Bounded(whole[1])
        # Next to a step between two multiples it is one of them; far beyond 2**53 many lie within the error.
        return Bounded(whole[1], max(node.to, whole[2] - whole[0]))
    if node.children():
        return formula(_Exact(node), Bounded(float(t)))
    value = formula(node, float(t))
    if type(node) in NO_ARITHMETIC or not math.isfinite(value):
        return Bounded(value)
    # Where the curve itself is subnormal, what it is multiplied with multiplies the spacing of those.
    factor = max(1.0, abs(getattr(node, "peak", 1.0)))
    return Bounded(value, SHAPE_ULPS * (math.ulp(scale(node, float(t), value)) + (factor - 1.0) * TINY))


NO_ARITHMETIC = (ts.constant, ts.piecewise_constant)


def scale(node: Schedule, t: float, value: float) -> float:
    """What an ulp is measured at: the value, or the larger end where the curve crosses 0 between its ends."""
    low, high = ends(node, t)
    return max(abs(low), abs(high)) if low * high < 0.0 else abs(value)


def ends(node: Schedule, t: float) -> tuple[float, float]:
    """The two values between which a shape runs at t; (0, 0) where it has none."""
    if isinstance(node, ts.from_values):
        i = min(int(t), len(node.entries) - 1)
        return node.entries[i], node.entries[min(i + 1, len(node.entries) - 1)]
    if hasattr(node, "points"):
        after = next((i for i, (at, _) in enumerate(node.points) if at > t), len(node.points) - 1)
        return node.points[max(after - 1, 0)][1], node.points[after][1]
    if isinstance(node, ts.linear_growth):  # what is added to the start
        return node.start, node.rate * t / node.every
    return getattr(node, "start", 0.0), getattr(node, "end", 0.0)


class _Held:
    """A Floor or Round whose inner value is given."""

    def __init__(self, node: Any, value: float) -> None:
        self.to, self.inner = node.to, ts.constant(value) if math.isfinite(value) else node.inner

"""The shapes: one small class each, with its formula. `t` is the step (0-based), `n` the length, `p = t / n`.

A shape is called like a function and prints like one, hence the lower-case class names (as `range` and `slice`
have). To add one, make four edits: a class in one of these modules (`ramps`: from one value to another; `decays`:
unbounded; `points`: through given values) and its name below, its scalar formula in `reference.shapes`, a
line in tests/strategies.py and a line of truth in tests/schedules/test_reference.py. Everything else (what the package
exports, `parse`, JSON, the command line, plots, `wsd(shape=...)`) follows from the class.

A bounded shape covers the steps 0..n-1, *reaches* its end value at n and holds it; n = 0 is a jump to the end value.
Making and evaluating a schedule touches no tensor and no device: nothing here synchronises.

No formula cancels: values are sums start * v + end * w of two weights that are each computed to full precision (never
w = 1 - v where v is close to 1), so that every value lies within 4 ulp of the exact one, relative to itself; where it
crosses 0, relative to the larger of start and end. Whole numbers come out whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorsched.schedules.algebra import constant as constant
from tensorsched.schedules.node import SHAPES
from tensorsched.schedules.shapes.decays import (
    exponential_decay as exponential_decay,
)
from tensorsched.schedules.shapes.decays import (
    inverse_sqrt as inverse_sqrt,
)
from tensorsched.schedules.shapes.decays import (
    inverse_time as inverse_time,
)
from tensorsched.schedules.shapes.decays import (
    linear_growth as linear_growth,
)
from tensorsched.schedules.shapes.decays import (
    power_law as power_law,
)
from tensorsched.schedules.shapes.points import (
    from_function as from_function,
)
from tensorsched.schedules.shapes.points import (
    from_values as from_values,
)
from tensorsched.schedules.shapes.points import (
    piecewise_constant as piecewise_constant,
)
from tensorsched.schedules.shapes.points import (
    piecewise_linear as piecewise_linear,
)
from tensorsched.schedules.shapes.points import (
    spline as spline,
)
from tensorsched.schedules.shapes.ramps import (
    cosine as cosine,
)
from tensorsched.schedules.shapes.ramps import (
    exponential as exponential,
)
from tensorsched.schedules.shapes.ramps import (
    linear as linear,
)
from tensorsched.schedules.shapes.ramps import (
    logarithmic as logarithmic,
)
from tensorsched.schedules.shapes.ramps import (
    polynomial as polynomial,
)
from tensorsched.schedules.shapes.ramps import (
    rex as rex,
)
from tensorsched.schedules.shapes.ramps import (
    tanh as tanh,
)

# A list that is computed is one that type checkers cannot read: they would export nothing. Left without one, they
# export what is defined or imported here.
if not TYPE_CHECKING:
    __all__ = ["from_function", *SHAPES]  # noqa: PLE0604  names, all of them

"""L1: schedules as data and formulas. Numpy only; nothing here imports torch."""

from __future__ import annotations

from tensorsched.schedules.algebra import Initial, Schedule, initial, maximum, minimum
from tensorsched.schedules.recipes import (
    cyclic,
    multistep,
    noam,
    one_cycle,
    step_decay,
    warm_restarts,
    warmup_constant,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
    wsd,
)
from tensorsched.schedules.serialize import from_dict, from_json
from tensorsched.schedules.shapes import (
    constant,
    cosine,
    exponential,
    exponential_decay,
    from_function,
    from_values,
    inverse_sqrt,
    linear,
    piecewise_constant,
    piecewise_linear,
    polynomial,
)
from tensorsched.schedules.transforms import Delay, HoldEach, Repeat, Skip, Stretch, Take

__all__ = [
    "Delay",
    "HoldEach",
    "Initial",
    "Repeat",
    "Schedule",
    "Skip",
    "Stretch",
    "Take",
    "constant",
    "cosine",
    "cyclic",
    "exponential",
    "exponential_decay",
    "from_dict",
    "from_function",
    "from_json",
    "from_values",
    "initial",
    "inverse_sqrt",
    "linear",
    "maximum",
    "minimum",
    "multistep",
    "noam",
    "one_cycle",
    "piecewise_constant",
    "piecewise_linear",
    "polynomial",
    "step_decay",
    "warm_restarts",
    "warmup_constant",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
    "wsd",
]

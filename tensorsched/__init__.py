"""tensorsched: schedules for PyTorch hyperparameters, compiled once into tensors and read by step."""

from __future__ import annotations

from tensorsched.binding.attach import attach, detach
from tensorsched.binding.attachment import Attachment
from tensorsched.compiled_step import CompiledStep, compile_step
from tensorsched.engine import ScheduleEngine
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.plot import compare
from tensorsched.record import record
from tensorsched.schedules import (
    Schedule,
    constant,
    cosine,
    cyclic,
    exponential,
    exponential_decay,
    from_dict,
    from_function,
    from_json,
    from_values,
    initial,
    inverse_sqrt,
    linear,
    maximum,
    minimum,
    multistep,
    noam,
    one_cycle,
    piecewise_constant,
    piecewise_linear,
    polynomial,
    step_decay,
    warm_restarts,
    warmup_constant,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
    wsd,
)
from tensorsched.table import ScheduleTable, tabulate

__version__ = "0.1.0"

__all__ = [
    "Attachment",
    "BindingError",
    "CompiledStep",
    "Schedule",
    "ScheduleEngine",
    "ScheduleError",
    "ScheduleTable",
    "__version__",
    "attach",
    "compare",
    "compile_step",
    "constant",
    "cosine",
    "cyclic",
    "detach",
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
    "record",
    "step_decay",
    "tabulate",
    "warm_restarts",
    "warmup_constant",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
    "wsd",
]

"""tensorsched: schedules for PyTorch hyperparameters, compiled once into tensors and read by step."""

from __future__ import annotations

from tensorsched.binding.attach import attach, detach
from tensorsched.binding.attachment import Attachment
from tensorsched.compiled.step import CompiledStep, compile_step
from tensorsched.engine import ScheduleEngine, ScheduleTable, tabulate
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.recording.record import record
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
    reference,
    step_decay,
    warm_restarts,
    warmup_constant,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
    wsd,
)
from tensorsched.schedules.views.plot import compare

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
    "reference",
    "step_decay",
    "tabulate",
    "warm_restarts",
    "warmup_constant",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
    "wsd",
]

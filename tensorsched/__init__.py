"""tensorsched: schedules for PyTorch hyperparameters, compiled once into tensors and read by step.

The shapes and recipes come with `*`: one that is defined in `schedules.shapes` or `schedules.recipes` is public here.
"""

# ruff: noqa: I001  it would give each `x as x`, which says that x is exported, a line of its own
from __future__ import annotations

from typing import TYPE_CHECKING

from tensorsched.binding.attach import attach as attach, detach as detach
from tensorsched.binding.attachment import Attachment as Attachment
from tensorsched.binding.checkpoint import schedules_of as schedules_of
from tensorsched.binding.known import register_optimizer as register_optimizer
from tensorsched.compiled.step import CompiledStep as CompiledStep, compile_step as compile_step
from tensorsched.engine import (
    ScheduleEngine as ScheduleEngine,
    ScheduleTable as ScheduleTable,
    tabulate as tabulate,
)
from tensorsched.errors import BindingError as BindingError, ScheduleError as ScheduleError
from tensorsched.recording.record import record as record
from tensorsched.schedules import (
    Schedule as Schedule,
    chain as chain,
    constant as constant,
    from_dict as from_dict,
    from_json as from_json,
    initial as initial,
    maximum as maximum,
    minimum as minimum,
    recipes as _recipes,
    reference as reference,
    shapes as _shapes,
)
from tensorsched.schedules.check import Finding as Finding, check as check
from tensorsched.schedules.parse import argument as argument, parse as parse
from tensorsched.schedules.recipes import *  # noqa: F403
from tensorsched.schedules.shapes import *  # noqa: F403
from tensorsched.schedules.views.plot import compare as compare

__version__ = "0.1.0"

# A list that is computed is one that type checkers cannot read: they would export nothing but what they find in it.
# Left without one, they export what is imported with `*` or `as`.
if not TYPE_CHECKING:
    __all__ = [
        "Attachment",
        "BindingError",
        "CompiledStep",
        "Finding",
        "Schedule",
        "ScheduleEngine",
        "ScheduleError",
        "ScheduleTable",
        "__version__",
        "argument",
        "attach",
        "chain",
        "check",
        "compare",
        "compile_step",
        "detach",
        "from_dict",
        "from_json",
        "initial",
        "maximum",
        "minimum",
        "parse",
        "record",
        "reference",
        "register_optimizer",
        "schedules_of",
        "tabulate",
    ]
    __all__ += _recipes.__all__
    __all__ += _shapes.__all__

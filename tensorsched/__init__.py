"""Hyperparameter schedules for PyTorch: described once, compiled into a table, moved by `optimizer.step()`.

    import tensorsched as ts

    sched = ts.attach(optimizer, lr=ts.warmup_cosine(3e-4, total=20_000, warmup=500))

A schedule is a function of the step: an int that counts completed optimizer steps from 0. Durations are in steps (or
in the unit of a `clock`), values are float64 and rounded once where an optimizer holds them otherwise.

- Shapes: `constant`, `linear`, `cosine`, `polynomial`, `exponential`, `rex`, `tanh`, `logarithmic`,
  `exponential_decay`, `linear_growth`, `inverse_time`, `inverse_sqrt`, `power_law`, `piecewise_constant`,
  `piecewise_linear`, `spline`, `from_values`, `from_function`.
- Put together: the operators and methods of `Schedule`, `chain`, `minimum`, `maximum`, and `initial`, which stands for
  what a group holds.
- Recipes: `warmup_cosine`, `warmup_linear`, `warmup_constant`, `warmup_polynomial`, `warmup_inverse_sqrt`, `wsd`,
  `wsd_s`, `infinite`, `decay_to_zero`, `one_cycle`, `warm_restarts`, `cyclic`, `wave`, `noam`, `power`, `step_decay`,
  `multistep`; `adamc` and `independent` for weight decay, `seesaw` and `batch_steps` for batch sizes.
- What the run itself decides: `live`, `plateau`, `greedy`, `spike`.
- Text and files: `parse`, `argument`, `from_dict`, `from_json`. Looked at: `check`, `compare`, `reference`.
- On an optimizer: `attach`, whose `Attachment` has the rest; `detach`, `by_parameter`, `clock`, `register_optimizer`,
  `schedules_of`. Several optimizers: `Plan`. In a graph: `compile_step`. From elsewhere: `record`, `expression`,
  `tensorsched.integrations.ignite`.
- Without an optimizer: `tabulate` and `ScheduleEngine`. Batches of planned sizes: `BatchSampler`.

Mistakes are a `ScheduleError` or a `BindingError`, both `ValueError`s, and nothing has changed after one.
"""

# The language needs numpy only and is imported here, shapes and recipes with `*`: one that is defined in
# schedules.shapes or schedules.recipes is public. What works on an optimizer needs torch, which takes seconds to
# import, and is imported when it is first asked for (PEP 562): `tensorsched show` never asks.

# ruff: noqa: I001  it would give each `x as x`, which says that x is exported, a line of its own
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tensorsched.errors import BindingError as BindingError, ScheduleError as ScheduleError
from tensorsched.schedules import (
    Schedule as Schedule,
    chain as chain,
    constant as constant,
    from_dict as from_dict,
    from_json as from_json,
    greedy as greedy,
    initial as initial,
    live as live,
    maximum as maximum,
    minimum as minimum,
    plateau as plateau,
    recipes as _recipes,
    reference as reference,
    shapes as _shapes,
    spike as spike,
)
from tensorsched.schedules.check import Finding as Finding, check as check
from tensorsched.schedules.parse import argument as argument, parse as parse
from tensorsched.schedules.recipes import *  # noqa: F403
from tensorsched.schedules.shapes import *  # noqa: F403
from tensorsched.schedules.views.plot import compare as compare

if TYPE_CHECKING:  # what `_LATER` imports, for those who read and do not run; a test holds the two equal
    from tensorsched.batch_sampler import BatchSampler as BatchSampler
    from tensorsched.binding.attach import attach as attach, detach as detach
    from tensorsched.binding.attachment import Attachment as Attachment
    from tensorsched.binding.by_parameter import by_parameter as by_parameter
    from tensorsched.binding.checkpoint import schedules_of as schedules_of
    from tensorsched.binding.known import register_optimizer as register_optimizer
    from tensorsched.compiled.step import CompiledStep as CompiledStep, compile_step as compile_step
    from tensorsched.engine.clock import Clock as Clock, clock as clock
    from tensorsched.engine.engine import ScheduleEngine as ScheduleEngine
    from tensorsched.engine.table import ScheduleTable as ScheduleTable
    from tensorsched.engine.tabulate import tabulate as tabulate
    from tensorsched.plan.plan import Plan as Plan
    from tensorsched.recording.expressions import expression as expression
    from tensorsched.recording.record import record as record

__version__ = "0.1.0"

_LATER = {
    "Attachment": "binding.attachment",
    "BatchSampler": "batch_sampler",
    "Clock": "engine.clock",
    "CompiledStep": "compiled.step",
    "Plan": "plan.plan",
    "ScheduleEngine": "engine.engine",
    "ScheduleTable": "engine.table",
    "attach": "binding.attach",
    "by_parameter": "binding.by_parameter",
    "clock": "engine.clock",
    "compile_step": "compiled.step",
    "detach": "binding.attach",
    "expression": "recording.expressions",
    "record": "recording.record",
    "register_optimizer": "binding.known",
    "schedules_of": "binding.checkpoint",
    "tabulate": "engine.tabulate",
}
"""The module of each public name that needs torch."""

# Hidden from type checkers: a module with __getattr__ has every name for them, and a list that is computed is one that
# they cannot read. Left without, they export what is imported with `*` or `as`.
if not TYPE_CHECKING:
    __all__ = [
        "BindingError",
        "Finding",
        "Schedule",
        "ScheduleError",
        "__version__",
        "argument",
        "chain",
        "check",
        "compare",
        "from_dict",
        "from_json",
        "greedy",
        "initial",
        "live",
        "maximum",
        "minimum",
        "parse",
        "plateau",
        "reference",
        "spike",
    ]
    __all__ += _LATER  # noqa: PLE0605  the keys of a dict are a list as well
    __all__ += _recipes.__all__
    __all__ += _shapes.__all__

    def __getattr__(name: str) -> Any:
        """A public name that needs torch, at its first use; from then on it is an ordinary one."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})

"""The parameter schedulers of pytorch-ignite 0.5.5 on core schedules: the same names, arguments, values and state.

    from tensorsched.integrations.ignite import CosineAnnealingScheduler

in the place of `from ignite.handlers import CosineAnnealingScheduler`. Importing this does not import ignite. A
checkpoint of theirs loads into ours and the other way round (but for `LRScheduler`). What differs:

- A group whose value is a tensor keeps it, filled in place.
- Mistakes are errors at construction.
- Values are looked up ahead, in chunks: assigning to an attribute of a scheduler starts a new one.
- `LRScheduler` steps the torch scheduler, where ignite computes around it and, on torch 2.8 and newer, gets wrong
  values for six of them; it costs more for it.
- What is wrong in ignite is right: `min_lr` of `ReduceLROnPlateauScheduler`, `simulate_values` of groups, parts of 0
  events.
- Do not mix ignite's classes and ours in one `ConcatScheduler`.
- `as_schedule()` gives the expression of a scheduler; `from_schedule` and `ScheduleHandler` make a handler of any.

A label such as `"lr (base)"` as `param_name` writes an entry that no optimizer reads, as in ignite: use `names` of a
`ParamGroupScheduler`.

    base, param     what every handler shares; one that sets an entry of param groups
    ahead           the next values, evaluated at once; binding/movers puts them into the groups
    cyclical, piecewise, bridge, state
                    which core schedule a handler reads at `event_index`
    compositions    handlers of handlers
    torch_lr, plateau, batch_size
                    what follows torch's own schedulers, a metric, a function
"""

from __future__ import annotations

from tensorsched.integrations.ignite.base import BaseParamScheduler
from tensorsched.integrations.ignite.batch_size import BatchSizeScheduler
from tensorsched.integrations.ignite.bridge import ScheduleHandler, from_schedule
from tensorsched.integrations.ignite.compositions import ConcatScheduler, ParamGroupScheduler
from tensorsched.integrations.ignite.cyclical import (
    CosineAnnealingScheduler,
    CyclicalScheduler,
    LinearCyclicalScheduler,
)
from tensorsched.integrations.ignite.param import ParamScheduler
from tensorsched.integrations.ignite.piecewise import PiecewiseLinear
from tensorsched.integrations.ignite.plateau import ReduceLROnPlateauScheduler
from tensorsched.integrations.ignite.state import (
    ExpStateScheduler,
    LambdaStateScheduler,
    MultiStepStateScheduler,
    PiecewiseLinearStateScheduler,
    StateParamScheduler,
    StepStateScheduler,
)
from tensorsched.integrations.ignite.torch_lr import LRScheduler, create_lr_scheduler_with_warmup

__all__ = [
    "BaseParamScheduler", "BatchSizeScheduler", "ConcatScheduler", "CosineAnnealingScheduler", "CyclicalScheduler",
    "ExpStateScheduler", "LRScheduler", "LambdaStateScheduler", "LinearCyclicalScheduler", "MultiStepStateScheduler",
    "ParamGroupScheduler", "ParamScheduler", "PiecewiseLinear", "PiecewiseLinearStateScheduler",
    "ReduceLROnPlateauScheduler", "ScheduleHandler", "StateParamScheduler", "StepStateScheduler",
    "create_lr_scheduler_with_warmup", "from_schedule",
]  # fmt: skip

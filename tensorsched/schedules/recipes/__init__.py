"""The schedules that people ask for by name: each an expression over the shapes and the algebra, and nothing else.

A recipe is public (as `ts.name`, in `parse`, in configs and on the command line) by standing in `__all__`.

Durations are steps (int) or, where a `total` is given, a fraction of it (float in [0, 1], rounded to a step).

Where libraries disagree on an endpoint, the default is tensorsched's own rule (a segment reaches its end value at its
length) and a named argument gives the other convention:

* `ramp="from_start"` (default): the warm-up is `start` at step 0 and `peak` at step `warmup` (optax, Megatron, keras,
  transformers). `"skip_start"`: step 0 already takes the first step of the ramp, so that `peak` is used at warmup-1
  and at warmup (torchtitan). `"reach_early"`: `start` at step 0 and `peak` at warmup-1, a slope of 1/(warmup-1)
  (ignite, mmengine).
* `last_step_ends=True`: the end value is used at step total-1 instead of from step total on (torch OneCycleLR,
  mmengine).
* transformers' cosine_with_min_lr shifts the whole curve by one: `warmup_cosine(...).skip(1)`.

What goes down (or up) is `linear` unless `shape` (`warmup_shape`) says otherwise: the name of a curve in `curves`
("1-sqrt", "minus_power(2)", "lowered_linear(0.7)", ...), a shape or its name, or a schedule from 1 to 0.
"""

from tensorsched.schedules.recipes.coupled import adamc, independent, seesaw
from tensorsched.schedules.recipes.curves import Curve as Curve
from tensorsched.schedules.recipes.curves import phase as phase
from tensorsched.schedules.recipes.cycles import cyclic, one_cycle, warm_restarts
from tensorsched.schedules.recipes.levels import batch_steps, multistep, step_decay
from tensorsched.schedules.recipes.stable import infinite, power, wsd, wsd_s
from tensorsched.schedules.recipes.warmups import (
    decay_to_zero,
    noam,
    warmup_constant,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
    warmup_polynomial,
    wave,
)

__all__ = [
    "adamc",
    "batch_steps",
    "cyclic",
    "decay_to_zero",
    "independent",
    "infinite",
    "multistep",
    "noam",
    "one_cycle",
    "power",
    "seesaw",
    "step_decay",
    "warm_restarts",
    "warmup_constant",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
    "warmup_polynomial",
    "wave",
    "wsd",
    "wsd_s",
]

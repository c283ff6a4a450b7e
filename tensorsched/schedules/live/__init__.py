"""Live inputs: numbers that the run itself gives, as nodes of an expression.

`live` is a number that is turned by hand. `plateau`, `greedy` and `spike` are factors that start at 1 and react to a
metric, which `Attachment.observe` shows them. An expression with one of them is no function of the step alone: `split`
cuts it into columns of a table, which are, and a few operations over these and the inputs.

A reaction is written once, branch-free, for Python floats and for tensors on a device: `_observed` maps the numbers
that it remembers (its cells) and a metric to new ones, with the operators that both have and an `Arithmetic` for the
rest. Nothing here synchronises, and nothing here knows of tensors.
"""

from __future__ import annotations

from tensorsched.schedules.live.greedy import greedy as greedy
from tensorsched.schedules.live.inputs import (
    FLOATS as FLOATS,
)
from tensorsched.schedules.live.inputs import (
    Arithmetic as Arithmetic,
)
from tensorsched.schedules.live.inputs import (
    Input as Input,
)
from tensorsched.schedules.live.inputs import (
    live as live,
)
from tensorsched.schedules.live.plateau import plateau as plateau
from tensorsched.schedules.live.reactions import Reaction as Reaction
from tensorsched.schedules.live.spike import spike as spike

__all__ = ["Arithmetic", "Input", "Reaction", "greedy", "live", "plateau", "spike"]

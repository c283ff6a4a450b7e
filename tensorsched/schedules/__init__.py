"""Schedules as data and formulas. Numpy only; nothing here imports torch.

The shapes and recipes come with `*`: a new one is public, here and as `ts.name`, by being defined.
"""

# ruff: noqa: I001  it would give each `x as x`, which says that x is exported, a line of its own
from __future__ import annotations

from typing import TYPE_CHECKING

from tensorsched.schedules import recipes, shapes
from tensorsched.schedules.algebra import (
    Initial as Initial,
    chain as chain,
    constant as constant,
    initial as initial,
)
from tensorsched.schedules.clocks import Mirror as Mirror, Span as Span, Warp as Warp
from tensorsched.schedules.live import (
    greedy as greedy,
    live as live,
    plateau as plateau,
    spike as spike,
)
from tensorsched.schedules.over import Over as Over
from tensorsched.schedules.recipes import *  # noqa: F403
from tensorsched.schedules.repeat import Repeat as Repeat
from tensorsched.schedules.schedule import Schedule as Schedule, maximum as maximum, minimum as minimum
from tensorsched.schedules.serialize import from_dict as from_dict, from_json as from_json
from tensorsched.schedules.shapes import *  # noqa: F403
from tensorsched.schedules.transforms import (
    Delay as Delay,
    HoldEach as HoldEach,
    Skip as Skip,
    Stretch as Stretch,
    Take as Take,
)

from tensorsched.schedules.whole import Floor as Floor, Round as Round

# A list that is computed is one that type checkers cannot read: they would export nothing but what they find in it.
# Left without one, they export what is imported with `*` or `as`.
if not TYPE_CHECKING:
    __all__ = [
        "Delay",
        "Floor",
        "HoldEach",
        "Initial",
        "Mirror",
        "Over",
        "Repeat",
        "Round",
        "Schedule",
        "Skip",
        "Span",
    ]
    __all__ += ["Stretch", "Take", "Warp", "chain", "from_dict", "from_json", "initial", "maximum", "minimum"]
    __all__ += ["greedy", "live", "plateau", "spike"]
    __all__ += recipes.__all__
    __all__ += shapes.__all__

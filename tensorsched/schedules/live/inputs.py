"""A leaf whose value the run gives, what it remembers, and `live`, which is turned by hand."""

# ruff: noqa: N801  called like a function, prints like one (see shapes)
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tensorsched.schedules import validators as f
from tensorsched.schedules.node import Array, Node, node
from tensorsched.schedules.schedule import Schedule

Cells = dict[str, Any]
"""What an input remembers, by name: a number each (a float, or a 0-dim tensor), or several (a list, or a tensor)."""


class Arithmetic(NamedTuple):
    """What a reaction needs beside the operators, for floats or for tensors.

    Attributes:
        where: (condition, a, b) -> a where the condition holds, else b; at least one of them is no literal.
        shifted: (window, x) -> the first of the window, and the window without it and with x at its end.
    """

    where: Callable[[Any, Any, Any], Any]
    shifted: Callable[[Any, Any], tuple[Any, Any]]


FLOATS = Arithmetic(lambda condition, a, b: a if condition else b, lambda w, x: (w[0], [*w[1:], x]))
"""Of Python floats."""


def check_name(where: str, value: object) -> str:
    """A name that `sched.inputs` has the input by."""
    if not isinstance(value, str) or not value.isidentifier() or len(value) > _LONGEST:
        raise f.refuse(where, f"a name such as 'lr_scale' (an identifier, at most {_LONGEST} letters)", value)
    return value


_LONGEST = 40  # letters of a name, as of a word in text


class Input(Schedule):
    """A leaf whose value the run gives. Without a run it has the value that it starts with: in pictures, in `values`.

    Attributes:
        name: by which an attachment knows it; one name is one input, wherever it stands.
    """

    name: str

    def _prepare(self) -> None:
        object.__setattr__(self, "_inputs", (self,))

    @property
    def constant_from(self) -> int | None:
        return 0

    def _cells(self) -> Cells:
        """What it remembers at the start: its value, and more."""
        raise NotImplementedError

    @property
    def _start(self) -> float:
        return float(self._cells()["value"])

    def _at(self, t: Array) -> Array:
        return np.full(t.shape, self._start)

    def _with_inputs(self, values: Mapping[str, float]) -> Node:
        return live(self.name, values[self.name]) if self.name in values else self


@node
class live(Input):
    """A number that is turned by hand during the run: write `sched.inputs[name]`, and the next step uses it.

    Args:
        name: by which `sched.inputs` has it, an identifier.
        initial: what it is until somebody writes another one.

    Raises:
        ScheduleError: name is no identifier, or initial is not finite.

    It stands under + - * / ** >> minimum, maximum and clamp; what moves time (repeat, delay, take, ...) refuses it. In
    front of >> it needs a length: `ts.constant(1.0, steps=n) * ts.live(...)`.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4) * ts.live("lr_scale", 1.0))
        >>> _ = sched.inputs["lr_scale"].fill_(0.5)
        >>> optimizer.step(), optimizer.param_groups[0]["lr"]
        (None, 0.375)
    """

    name: str = f.declare(check_name)
    initial: float = f.real()

    def _cells(self) -> Cells:
        return {"value": self.initial}

"""The nodes that expressions are made of: a constant, `initial`, `a >> b`, and `+ - * / **`, minimum and maximum.

They are built by the operators of `Schedule`. The nodes that read their inner schedule at another position (repeat,
delay, ...) are in `transforms`, `repeat` and `clocks`; what a node is, in `node`.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeGuard, cast

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.node import CALL, CHAIN, POWER, PRODUCT, SUM, Array, Mark, Node, brief, node
from tensorsched.schedules.schedule import Schedule, as_schedule, check_schedule, maximum, minimum
from tensorsched.schedules.words import worded

__all__ = [
    "Combine",
    "Initial",
    "Schedule",
    "Sequence",
    "as_schedule",
    "chain",
    "check_schedule",
    "constant",
    "has_initial",
    "initial",
    "maximum",
    "minimum",
    "substitute_initial",
]


@node
class constant(Schedule):  # noqa: N801  called like a function, prints like one (see shapes)
    """The same value at every step: f(t) = value. A plain number in an expression becomes one of these.

    Args:
        value: the value.
        steps: its length as a segment in front of `>>`; None (the default) is unbounded.

    Raises:
        ScheduleError: value is not finite, or steps is not a whole number >= 0.

    Example:
        >>> import tensorsched as ts
        >>> (ts.constant(1.0, steps=2) >> ts.constant(0.1)).values(4).tolist()
        [1.0, 1.0, 0.1, 0.1]
    """

    value: float = f.real()
    steps: int | None = f.optional_count(default=None, kw_only=True)

    @property
    def constant_from(self) -> int | None:
        return 0

    def _at(self, t: Array) -> Array:
        return np.full(t.shape, self.value)


@node
class Initial(Schedule):
    """The hyperparameter's own value when the schedule is attached; use the instance `ts.initial`.

    `ts.initial * ts.warmup_cosine(1.0, ...)` is torch.optim.lr_scheduler's multiplicative convention. Only `attach`
    gives it a value: evaluated by itself it raises ScheduleError.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.5)
        >>> sched = ts.attach(optimizer, lr=ts.initial * ts.linear(1.0, 0.0, steps=4))
        >>> sched.seek(2)
        >>> sched.value("lr")
        0.25
    """

    @property
    def constant_from(self) -> int | None:
        return 0

    def _at(self, t: Array) -> Array:  # noqa: ARG002  has no value at any position
        raise ScheduleError(
            "ts.initial has no value of its own: attach() replaces it with what each param_group holds; "
            "where no optimizer is involved, use a number"
        )

    def _with_initial(self, value: float) -> Schedule:
        return constant(value)

    def _source(self) -> tuple[str, int]:
        return "initial", CALL


initial = Initial()
"""The value that the param_group held when the schedule was attached (see `Initial`)."""


def has_initial(schedule: Node) -> bool:
    """Whether `ts.initial` occurs in the expression."""
    return schedule._with_initial(1.0) is not schedule


def substitute_initial(schedule: Schedule, value: float) -> Schedule:
    """`schedule` with every `ts.initial` in it replaced by the constant `value`; itself where there is none."""
    return cast("Schedule", schedule._with_initial(value))


def _check_chain(where: str, value: object) -> tuple[Schedule, ...]:
    """At least two schedules; sequences among them are flattened, so that >> is associative in the tree too."""
    if not isinstance(value, (list, tuple)) or len(value) < 2:  # noqa: PLR2004  fewer need no sequence
        raise f.refuse(where, "a list of at least two schedules", value)
    parts: list[Schedule] = []
    for i, item in enumerate(value):
        part = check_schedule(f"{where}[{i}]", item)
        parts.extend(part.parts if isinstance(part, Sequence) else [part])
    return tuple(parts)


@node
class Sequence(Schedule):
    """`a >> b >> ...`: each part from its own step 0, at the step where the part before it ends."""

    _at_present = True
    parts: tuple[Schedule, ...] = f.declare(_check_chain)

    def _prepare(self) -> None:
        for part in self.parts[:-1]:
            if part.steps is None:
                raise ScheduleError(
                    f"nothing can follow an unbounded schedule with >>: {brief(part)} never ends; give it a length "
                    + ("with ts.constant(1.0, steps=n) * ..." if part._inputs else "with .take(n) or steps=n")
                )
        last = self.parts[-1].steps
        # Beyond 2**53 steps two neighbouring ones would be one float64 position.
        total = f.check_count("sequence: total length", self._starts()[-1] + (last or 0))
        object.__setattr__(self, "steps", None if last is None else total)

    def _starts(self) -> list[int]:
        """The step at which each part starts."""
        return list(itertools.accumulate((part.steps or 0 for part in self.parts[:-1]), initial=0))

    @property
    def constant_from(self) -> int | None:
        last = self.parts[-1].constant_from
        return None if last is None else self._starts()[-1] + last

    def children(self) -> tuple[Schedule, ...]:
        return self.parts

    def _at(self, t: Array) -> Array:
        out = np.empty_like(t)
        starts = np.array(self._starts(), dtype=np.float64)
        # The part that is running is the last one that has started: parts of length 0 in front of it never show.
        running = np.searchsorted(starts, t, side="right") - 1
        first, last = int(running.min(initial=len(starts))), int(running.max(initial=0))
        if first == last:
            return self.parts[first]._at(t - starts[first])
        for i in range(first, last + 1):
            mine = running == i
            out[mine] = self.parts[i]._at(t[mine] - starts[i])
        return out

    def _reach_unbounded(self) -> int:
        return self._starts()[-1] + self.parts[-1]._reach()

    def _marks(self) -> Iterator[Mark]:
        for start, part in zip(self._starts(), self.parts, strict=True):
            end = math.inf if part.steps is None or part is self.parts[-1] else part.steps
            yield from ((start + at, what) for at, what in part._marks_before(end))

    def _source(self) -> tuple[str, int]:
        return " >> ".join(part._source()[0] for part in self.parts), CHAIN


@worded
def chain(parts: Iterable[Schedule | float]) -> Schedule:
    """One after the other: `chain([a, b, c])` is `a >> b >> c`, for parts that are computed.

    Args:
        parts: at least one; all but the last have a length. A number is a constant, at the end.

    Raises:
        ScheduleError: no parts, something that is neither a schedule nor a number, or one without a length in front.

    Example:
        >>> import tensorsched as ts
        >>> ts.chain(ts.linear(1.0, 0.0, steps=2) for _ in range(2)).values().tolist()
        [1.0, 0.5, 1.0, 0.5]
    """
    if isinstance(parts, (str, Schedule)) or not isinstance(parts, Iterable):
        raise f.refuse("chain: parts", "a sequence of schedules", parts)
    try:
        entries = iter(parts)
    except TypeError:  # a tensor or an array of one number
        raise f.refuse("chain: parts", "a sequence of schedules", parts) from None
    made = [as_schedule(part) for part in entries]
    if not made:
        raise f.refuse("chain: parts", "at least one schedule", [])
    return made[0] if len(made) == 1 else Sequence(tuple(made))


_OPS: dict[str, Callable[[Array, Array], Array]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
_BINDS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "**": POWER}


@node
class Combine(Schedule):
    """Two schedules step by step: f(t) = left(t) op right(t), op one of + - * / ** minimum maximum.

    As long as the longer of the two; an unbounded constant does not affect the length.
    """

    _at_present = True
    left: Schedule = f.declare(check_schedule)
    right: Schedule = f.declare(check_schedule)
    op: str = f.choice(*_OPS, kw_only=True)

    def _prepare(self) -> None:
        if self.op == "/" and isinstance(self.right, constant) and self.right.value == 0.0:
            raise ScheduleError(
                f"division by zero: ({brief(self.left)}) / 0.0; divide by another number or schedule"
            )
        timed = [s.steps for s in self.children() if s.steps is not None or s.constant_from != 0]
        length = max((n for n in timed if n is not None), default=None) if None not in timed else None
        object.__setattr__(self, "steps", length)

    @property
    def constant_from(self) -> int | None:
        left, right = self.left.constant_from, self.right.constant_from
        return None if left is None or right is None else max(left, right)

    def children(self) -> tuple[Schedule, ...]:
        return (self.left, self.right)

    def _at(self, t: Array) -> Array:
        return _OPS[self.op](self.left._at(t), self.right._at(t))

    def _marks(self) -> Iterator[Mark]:
        """Those of both sides, named `a op b`; a side that never changes does not count."""
        sides = [side for side in self.children() if side.constant_from != 0]
        if len(sides) < 2:  # noqa: PLR2004  an operator has two sides
            yield from (sides[0] if sides else self.left)._marks()
            return
        running = ["", ""]
        numbered = heapq.merge(*map(_numbered, range(2), sides), key=lambda mark: mark[0])
        for at, starting in itertools.groupby(numbered, key=lambda mark: mark[0]):
            for _, side, what in starting:
                running[side] = what
            a, b = running
            yield at, f"{a} {self.op} {b}" if self.op in _BINDS else f"{self.op[:3]}({a}, {b})"

    def _source(self) -> tuple[str, int]:
        if self.op not in _BINDS:
            return f"{self.op}({_number_or_source(self.left)}, {_number_or_source(self.right)})", CALL
        binds = _BINDS[self.op]
        # A number is written as itself where the other side keeps the expression a schedule.
        left, left_binds = self.left._source()
        if not isinstance(self.right, constant) and _is_number(self.left):
            left, left_binds = _number_or_source(self.left), CALL
        right, right_binds = (
            (_number_or_source(self.right), CALL) if _is_number(self.right) else self.right._source()
        )
        if self.op == "**":  # it alone groups from the right, and binds tighter than a minus in front
            left = left if left_binds > binds and left[0] != "-" else f"({left})"
            right = right if right_binds >= binds else f"({right})"
            return f"{left} ** {right}", binds
        left = left if left_binds >= binds else f"({left})"
        right = right if right_binds > binds else f"({right})"
        return f"{left} {self.op} {right}", binds


def _numbered(i: int, side: Schedule) -> Iterator[tuple[float, int, str]]:
    return ((at, i, what) for at, what in side._marks_and_end())


def _is_number(schedule: Schedule) -> TypeGuard[constant]:
    return isinstance(schedule, constant) and schedule.steps is None


def _number_or_source(schedule: Schedule) -> str:
    return repr(schedule.value) if _is_number(schedule) else repr(schedule)

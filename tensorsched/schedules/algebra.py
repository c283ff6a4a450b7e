"""Schedule with its operators, and the nodes that they build, in one room because each needs the other.

`a >> b` builds a Sequence, `+ - * /`, minimum and maximum a Combine; a number becomes a `constant`. The nodes that read
their inner schedule at another position (repeat, delay, ...) are in `pace`; what a node is, in `base`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules import serialize
from tensorsched.schedules import validators as f
from tensorsched.schedules.node import CALL, CHAIN, NODES, PRODUCT, SUM, Array, Node, brief, node

__all__ = ["Initial", "Schedule", "constant", "initial", "maximum", "minimum"]


class Schedule(Node):
    """A function from the step (0-based, counted in completed optimizer steps) to a float64 value.

    Immutable, hashable and comparable; `repr` gives Python source that builds an equal schedule. Build one with the
    shapes (`linear`, `cosine`, ...) and recipes (`warmup_cosine`, ...), combine with the operators:

    `a >> b` runs a, then b; `a + b`, `a - b`, `a * b`, `a / b` work step by step, also with numbers.

    Example:
        >>> import tensorsched as ts
        >>> lr = ts.linear(0.0, 1.0, steps=4) >> ts.cosine(1.0, 0.0, steps=8)
        >>> lr.steps, lr(0), lr(2), lr(4), lr(12), lr(10**6)
        (12, 0.0, 0.5, 1.0, 0.0, 0.0)
        >>> 0.5 * lr
        0.5 * (linear(0.0, 1.0, steps=4) >> cosine(1.0, 0.0, steps=8))
    """

    def __rshift__(self, other: Schedule | float) -> Schedule:
        """`a >> b`: a for its `steps`, then b from its own step 0. A number stands for a constant."""
        if not _is_operand(other):
            return NotImplemented
        return Sequence((self, as_schedule(other)))

    def __add__(self, other: Schedule | float) -> Schedule:
        """Step by step sum."""
        return _combine("+", self, other)

    def __radd__(self, other: float) -> Schedule:
        """Step by step sum."""
        return _combine("+", other, self)

    def __sub__(self, other: Schedule | float) -> Schedule:
        """Step by step difference."""
        return _combine("-", self, other)

    def __rsub__(self, other: float) -> Schedule:
        """Step by step difference."""
        return _combine("-", other, self)

    def __mul__(self, other: Schedule | float) -> Schedule:
        """Step by step product."""
        return _combine("*", self, other)

    def __rmul__(self, other: float) -> Schedule:
        """Step by step product."""
        return _combine("*", other, self)

    def __truediv__(self, other: Schedule | float) -> Schedule:
        """Step by step quotient; a divisor that reaches 0 is an error when the schedule is tabulated."""
        return _combine("/", self, other)

    def __rtruediv__(self, other: float) -> Schedule:
        """Step by step quotient."""
        return _combine("/", other, self)

    def __neg__(self) -> Schedule:
        """The same as `-1.0 * schedule`."""
        return _combine("*", -1.0, self)

    def clamp(self, low: float | Schedule | None = None, high: float | Schedule | None = None) -> Schedule:
        """Never below `low`, never above `high`: `maximum(minimum(self, high), low)`.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=4).clamp(0.2, 0.6).values(5).tolist()
            [0.2, 0.25, 0.5, 0.6, 0.6]
        """
        capped = self if high is None else minimum(self, high)
        return capped if low is None else maximum(capped, low)

    def repeat(
        self, times: int | None = None, *, length_mult: float = 1.0, value_mult: float = 1.0
    ) -> Schedule:
        """Run again from the start, `times` times or for ever; see `pace.Repeat`.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=2).repeat(2).values(6).tolist()
            [0.0, 0.5, 0.0, 0.5, 1.0, 1.0]
        """
        return _make("repeat", self, times=times, length_mult=length_mult, value_mult=value_mult)

    def delay(self, n: int) -> Schedule:
        """Hold the first value for n steps, then run.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=4).delay(2).values(5).tolist()
            [0.0, 0.0, 0.0, 0.25, 0.5]
        """
        return _make("delay", self, n)

    def take(self, n: int) -> Schedule:
        """Exactly the first n steps (holding the end value if the schedule is shorter); reaches f(n) at n.

        Example:
            >>> import tensorsched as ts
            >>> (ts.linear(0.0, 1.0, steps=4).take(2) >> 0.0).values(4).tolist()
            [0.0, 0.25, 0.0, 0.0]
        """
        return _make("take", self, n)

    def skip(self, n: int) -> Schedule:
        """Leave out the first n steps.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=4).skip(1).values(4).tolist()
            [0.25, 0.5, 0.75, 1.0]
        """
        return _make("skip", self, n)

    def hold_each(self, n: int) -> Schedule:
        """Hold every value for n steps: a schedule that counts epochs, on a clock that counts steps.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=2).hold_each(2).values(5).tolist()
            [0.0, 0.0, 0.5, 0.5, 1.0]
        """
        return _make("hold_each", self, n)

    def stretch(self, factor: float) -> Schedule:
        """The same curve, `factor` times as long (its length rounded to a whole step).

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=2).stretch(2.0).values(5).tolist()
            [0.0, 0.25, 0.5, 0.75, 1.0]
        """
        return _make("stretch", self, factor)

    def to_dict(self) -> dict[str, Any]:
        """This schedule as a versioned dict of plain numbers, strings and lists; `from_dict` reads it back.

        Example:
            >>> import tensorsched as ts
            >>> ts.constant(1.0).to_dict()["schedule"]
            {'kind': 'constant', 'value': 1.0, 'steps': None}
        """
        return serialize.to_dict(self)

    def to_json(self, *, indent: int | None = None) -> str:
        """This schedule as a JSON document; `from_json` reads it back to an equal schedule.

        Example:
            >>> import tensorsched as ts
            >>> ts.from_json(ts.constant(1.0).to_json())
            constant(1.0)
        """
        return serialize.to_json(self, indent=indent)

    @property
    def fingerprint(self) -> str:
        """32 hex digits of the SHA-256 of the canonical JSON: equal schedules, and only they, have equal ones."""
        return serialize.fingerprint(self)

    def plot(
        self, *, steps: int | None = None, ax: Any = None, log: bool | None = None, label: str | None = None
    ) -> Any:
        """Draw the values at steps 0, 1, ... with matplotlib (`pip install 'tensorsched[plot]'`).

        Args:
            steps: the last step to show; default: to the end, or the telling part of an unbounded schedule.
            ax: the matplotlib Axes to draw into; default: those of a new figure.
            log: a logarithmic value axis: True, False, or None (default) where it shows more.
            label: of the line, for a legend.

        Returns:
            The Axes. Dashed lines are where a phase starts, named above them. `ts.initial` is drawn as 1.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
            ScheduleError: a value is not finite, or steps is no whole number >= 1.

        Example:
            >>> import matplotlib; matplotlib.use("agg")  # no window
            >>> import tensorsched as ts
            >>> ax = ts.warmup_cosine(3e-4, total=20_000, warmup=500).plot()
            >>> ax.get_xlabel(), len(ax.get_lines()[0].get_xdata()) > 100
            ('step', True)
        """
        # Drawing lies above this layer: the method hands itself up, when it is called and not before. The test of the
        # layers knows of it, by name.
        from tensorsched.schedules.views.plot import plot_schedule  # noqa: PLC0415

        return plot_schedule(self, steps=steps, ax=ax, log=log, label=label)

    def _repr_svg_(self) -> str | None:
        """What notebooks show: a small curve. None (they then show text) where a value is not finite."""
        from tensorsched.schedules.views.notebook import svg  # noqa: PLC0415  it needs what this module defines

        return svg(self)

    def _repr_html_(self) -> str | None:
        """What notebooks show first: the curve and the expression."""
        from tensorsched.schedules.views.notebook import page  # noqa: PLC0415  it needs what this module defines

        return page(self)


def as_schedule(value: Schedule | float) -> Schedule:
    """A schedule as it is; a number as the constant that it stands for."""
    return value if isinstance(value, Schedule) else constant(value)


def minimum(a: Schedule | float, b: Schedule | float) -> Schedule:
    """Step by step the smaller of the two; either may be a number.

    Example:
        >>> import tensorsched as ts
        >>> ts.minimum(ts.linear(0.0, 1.0, steps=4), 0.5).values(5).tolist()
        [0.0, 0.25, 0.5, 0.5, 0.5]
    """
    return Combine(as_schedule(a), as_schedule(b), op="minimum")


def maximum(a: Schedule | float, b: Schedule | float) -> Schedule:
    """Step by step the larger of the two; either may be a number.

    Example:
        >>> import tensorsched as ts
        >>> ts.maximum(0.5, ts.linear(0.0, 1.0, steps=4)).values(5).tolist()
        [0.5, 0.5, 0.5, 0.75, 1.0]
    """
    return Combine(as_schedule(a), as_schedule(b), op="maximum")


def _make(kind: str, *args: Any, **options: Any) -> Schedule:
    """A node of `pace`, found by its kind: that module imports this one."""
    kinds: dict[str, Any] = NODES
    return cast("Schedule", kinds[kind](*args, **options))


def _is_operand(value: object) -> bool:
    return isinstance(value, (Schedule, int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _combine(op: str, left: Schedule | float, right: Schedule | float) -> Schedule:
    if not (_is_operand(left) and _is_operand(right)):
        return NotImplemented  # type: ignore[no-any-return]  # typed Any; Python then raises TypeError
    return Combine(as_schedule(left), as_schedule(right), op=op)


def check_schedule(where: str, value: object) -> Schedule:
    if not isinstance(value, Schedule):
        raise f.refuse(where, "a schedule", value)
    return value


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
class constant(Schedule):  # noqa: N801  called like a function, prints like one (see shapes)
    """The same value at every step: f(t) = value. A plain number in an expression becomes one of these.

    Args:
        value: the value.
        steps: its length as a segment in front of `>>`; None (the default) is unbounded.

    Example:
        >>> import tensorsched as ts
        >>> (ts.constant(1.0, steps=2) >> ts.constant(0.1)).values(4).tolist()
        [1.0, 1.0, 0.1, 0.1]
    """

    value: float = f.real()
    steps: int | None = f.optional_count(default=None, kw_only=True)

    @property
    def settled(self) -> int | None:
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

    def _prepare(self) -> None:
        object.__setattr__(self, "steps", None)

    @property
    def settled(self) -> int | None:
        return 0

    def _at(self, t: Array) -> Array:  # noqa: ARG002  has no value at any position
        raise ScheduleError(
            "ts.initial has no value of its own: attach() replaces it with what each param_group holds; "
            "where no optimizer is involved, use a number"
        )

    def _source(self) -> tuple[str, int]:
        return "initial", CALL


initial = Initial()
"""The value that the param_group held when the schedule was attached (see `Initial`)."""


def has_initial(schedule: Node) -> bool:
    """Whether `ts.initial` occurs in the expression."""
    return isinstance(schedule, Initial) or any(map(has_initial, schedule.children()))


def substitute_initial(schedule: Schedule, value: float) -> Schedule:
    """`schedule` with every `ts.initial` in it replaced by the constant `value`."""
    if isinstance(schedule, Initial):
        return constant(value)
    if not has_initial(schedule):
        return schedule
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(schedule):  # type: ignore[arg-type]  # every concrete node is a dataclass
        held = getattr(schedule, field.name)
        if isinstance(held, Schedule):
            changes[field.name] = substitute_initial(held, value)
        elif isinstance(held, tuple) and isinstance(held[0], Schedule):
            changes[field.name] = tuple(substitute_initial(item, value) for item in held)
    return dataclasses.replace(schedule, **changes)  # type: ignore[type-var]


@node
class Sequence(Schedule):
    """`a >> b >> ...`: each part from its own step 0, at the step where the part before it ends."""

    parts: tuple[Schedule, ...] = f.declare(_check_chain)

    def _prepare(self) -> None:
        for part in self.parts[:-1]:
            if part.steps is None:
                raise ScheduleError(
                    f"nothing can follow an unbounded schedule with >>: {brief(part)} never ends; give it a length "
                    "with .take(n) or steps=n"
                )
        last = self.parts[-1].steps
        total = f.check_count("sequence: total length", self._starts()[-1] + (last or 0))
        object.__setattr__(self, "steps", None if last is None else total)

    def _starts(self) -> list[int]:
        """The step at which each part starts."""
        return list(itertools.accumulate((part.steps or 0 for part in self.parts[:-1]), initial=0))

    @property
    def settled(self) -> int | None:
        last = self.parts[-1].settled
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

    def _source(self) -> tuple[str, int]:
        return " >> ".join(part._source()[0] for part in self.parts), CHAIN


_OPS: dict[str, Callable[[Array, Array], Array]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
_BINDS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT}


@node
class Combine(Schedule):
    """Two schedules step by step: f(t) = left(t) op right(t), op one of + - * / minimum maximum.

    As long as the longer of the two; a constant without a length has no say in that.
    """

    left: Schedule = f.declare(check_schedule)
    right: Schedule = f.declare(check_schedule)
    op: str = f.choice(*_OPS, kw_only=True)

    def _prepare(self) -> None:
        if self.op == "/" and isinstance(self.right, constant) and self.right.value == 0.0:
            raise ScheduleError(
                f"division by zero: ({brief(self.left)}) / 0.0; divide by another number or schedule"
            )
        timed = [s.steps for s in self.children() if s.steps is not None or s.settled != 0]
        length = max((n for n in timed if n is not None), default=None) if None not in timed else None
        object.__setattr__(self, "steps", length)

    @property
    def settled(self) -> int | None:
        left, right = self.left.settled, self.right.settled
        return None if left is None or right is None else max(left, right)

    def children(self) -> tuple[Schedule, ...]:
        return (self.left, self.right)

    def _at(self, t: Array) -> Array:
        return _OPS[self.op](self.left._at(t), self.right._at(t))

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
        left = left if left_binds >= binds else f"({left})"
        right = right if right_binds > binds else f"({right})"
        return f"{left} {self.op} {right}", binds


def _is_number(schedule: Schedule) -> bool:
    return isinstance(schedule, constant) and schedule.steps is None


def _number_or_source(schedule: Schedule) -> str:
    return (
        repr(schedule.value) if isinstance(schedule, constant) and schedule.steps is None else repr(schedule)
    )

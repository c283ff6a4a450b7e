"""The node that every schedule is: immutable data that knows its length, its values and its own source text.

Every node answers three questions:

* `steps`: its length as a segment, or None if it has no end. `a >> b` starts b at `a.steps`.
* `constant_from`: the first step from which the value never changes again, or None if there is none. A table needs
  exactly the rows 0..constant_from.
* `_at(t)`: its values at an array of float64 positions `t >= 0`, of any shape. Positions are whole numbers unless a
  `stretch` or a growing `repeat` lies above; whole positions are exact up to 2**53.

Past its end every bounded schedule holds its end value. For pictures a node also says how far to look (`_reach`) and
where its phases start (`_marks`); both have a default that serves a new shape.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform

import numpy as np
import numpy.typing as npt

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.words import ArgumentError, answer

Array = npt.NDArray[np.float64]
Mark = tuple[float, str]
"""A position in steps, and the name of the phase that starts there."""
NodeType = TypeVar("NodeType", bound="type[Node]")

NODES: dict[str, type[Node]] = {}
"""Every kind of node by its name in documents; filled by `node`."""

SHAPES: dict[str, type[Node]] = {}
"""Those that are called by that name, as functions are: what text may call, and a package exports; filled by `node`."""

FORMAT, VERSION = "tensorsched/schedule", 1
"""What a document of an expression says of itself; `serialize` reads it."""

MAX_DEPTH = 100
"""Deepest nesting of one expression; keeps every walk over it far from the interpreter's recursion limit."""

MAX_SIZE = 50_000
"""Most parts of one expression, a part that occurs twice counted twice: every walk visits it twice."""

CALL, POWER, PRODUCT, SUM, CHAIN = 5, 4, 3, 2, 1
"""How tightly a piece of source text binds, for `repr`."""

_BRIEF: ContextVar[bool] = ContextVar("_BRIEF", default=False)  # whether source text is for a message
_LONGEST, _ENDS = 300, 3  # characters of a schedule in a message; entries of a long tuple at either end
_CHUNK = 1 << 16  # positions evaluated at a time: bounds the temporaries of a long schedule
_PROBED = 24  # a shape that does not say how far to look is looked at up to step 2**24
_AFTER = 10  # times as far as half of its change is what a picture shows of it


@dataclass_transform(
    frozen_default=True,
    field_specifiers=(
        f.declare,
        f.real,
        f.positive,
        f.count,
        f.optional_count,
        f.flag,
        f.choice,
        f.reals,
        f.points,
    ),
)
def node(cls: NodeType) -> NodeType:
    """Make `cls` a frozen dataclass and register it under its snake_case name, which documents use.

    A class whose own name is in lower case is a shape: exports, `parse`, the command line and the recipes'
    `shape="..."` find it by that name.
    """
    cls.kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()
    NODES[cls.kind] = cls
    if cls.kind == cls.__name__:
        SHAPES[cls.kind] = cls
    made = cast("NodeType", dataclasses.dataclass(frozen=True, repr=False)(cls))
    made.__init__ = _answering(made.kind, made.__init__)  # type: ignore[method-assign]
    return made


def _answering(kind: str, init: Callable[..., None]) -> Callable[..., None]:
    """The constructor; a call that does not fit it is answered with what to write."""

    @functools.wraps(init)
    def construct(self: Node, *args: Any, **options: Any) -> None:
        try:
            init(self, *args, **options)
        except TypeError as error:
            if not isinstance(error, ArgumentError):
                answer(kind, inspect.signature(type(self)), args, options)
            raise

    return construct


class Node:
    """What every node shares; `Schedule` adds the operators, and is what the rest of the package calls it."""

    kind: ClassVar[str]
    steps: int | None = None  # what has a length declares a field of this name, or sets it in _prepare
    _depth: int
    _size: int
    _inputs: tuple[Node, ...]
    _at_present: ClassVar[bool] = (
        False  # whether it reads its children at its own step: live inputs may be in them
    )

    # Without this np.float64(0.5) * schedule becomes an array of objects; with it Python asks __rmul__.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every concrete node is a dataclass
            if "check" in field.metadata:
                value = field.metadata["check"](f"{self.kind}: {field.name}", getattr(self, field.name))
                object.__setattr__(self, field.name, value)
        depth = 1 + max((child._depth for child in self.children()), default=0)
        size = 1 + sum(child._size for child in self.children())
        if depth > MAX_DEPTH or size > MAX_SIZE:
            limit = (
                f"is nested more than {MAX_DEPTH} levels deep"
                if depth > MAX_DEPTH
                else f"has over {MAX_SIZE} parts"
            )
            raise ScheduleError(
                f"the expression {limit}; tabulate a part of it with from_values(part.values(n)), or chain with >>, "
                "which does not nest"
            )
        object.__setattr__(self, "_depth", depth)
        object.__setattr__(self, "_size", size)
        inputs = dict.fromkeys(itertools.chain.from_iterable(child._inputs for child in self.children()))
        object.__setattr__(self, "_inputs", tuple(inputs))
        if inputs and not self._at_present:
            raise ScheduleError(
                f"{self.kind} reads its schedule at another step, or changes its values as a whole, and "
                f"{brief(next(iter(inputs)))} has a value at the present step only: write it outside, as in "
                f"base.{self.kind}(...) * {next(iter(inputs)).kind}(...)"
            )
        self._prepare()

    def _prepare(self) -> None:
        """Check what concerns several fields at once, and set `steps` where it is not a field."""

    def _at(self, t: Array) -> Array:
        raise NotImplementedError

    @property
    def constant_from(self) -> int | None:
        """The first step from which the value stays the same for ever, or None if there is none."""
        return self.steps

    @property
    def settled(self) -> int | None:
        """The same as `constant_from`, under its name in tensorsched 0.1."""
        return self.constant_from

    def children(self) -> tuple[Node, ...]:
        """The schedules that this one is made of, in order."""
        return ()

    def inputs(self) -> tuple[Node, ...]:
        """The different live inputs in it (`live`, `plateau`, ...), in order; none where the step alone decides."""
        return self._inputs

    def _with_initial(self, value: float) -> Node:
        """This expression with the constant `value` instead of every `ts.initial`; itself where there is none."""
        return self._rebuilt(lambda part: part._with_initial(value))

    def _with_inputs(self, values: Mapping[str, float]) -> Node:
        """This expression with the inputs of these names at these values; itself where there are none."""
        return self._rebuilt(lambda part: part._with_inputs(values)) if self._inputs else self

    def _rebuilt(self, change: Callable[[Node], Node]) -> Node:
        """This node with what `change` makes of each child; itself where that is the child."""
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self) if self.children() else ():  # type: ignore[arg-type]  # a dataclass
            held = getattr(self, field.name)
            if isinstance(held, Node):
                changes[field.name] = change(held)
            elif isinstance(held, tuple) and isinstance(held[0], Node):
                changes[field.name] = tuple(change(part) for part in held)
        if all(_same(made, getattr(self, name)) for name, made in changes.items()):
            return self
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]  # a dataclass

    # -- values ---------------------------------------------------------------------------------------------------

    def __call__(self, step: int) -> float:
        """The value at `step`, as a Python float (float64 arithmetic, no tensor, no device).

        Raises:
            ScheduleError: `step` is negative or not an int, or the value is not finite.
        """
        at = f.check_count("step", step)
        return float(evaluate(self, at, at + 1)[0])

    def values(self, n: int | None = None) -> Array:
        """The values at steps 0..n-1 as a float64 array of shape (n,); n defaults to `self.steps`.

        Raises:
            ScheduleError: n is negative or not an int, is missing for an unbounded schedule, or a value is not finite.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(1.0, 0.0, steps=4).values(6).tolist()
            [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        """
        if n is None and self.steps is None:
            raise ScheduleError(
                f"values() of an unbounded schedule needs n, the number of steps: {brief(self)}"
            )
        return evaluate(self, 0, f.check_count("n", self.steps if n is None else n))

    # -- pictures -------------------------------------------------------------------------------------------------

    def _reach(self) -> int:
        """The last step that a picture should show, at most 2**53; 0 where nothing changes."""
        end = self.steps if self.steps is not None else self.constant_from
        if end is None:
            return min(self._reach_unbounded(), f.MAX_STEPS)
        return min(end or self.constant_from or 0, f.MAX_STEPS)

    def _reach_unbounded(self) -> int:
        """The same for a node that never ends: as far as its children reach, or as its values tell.

        A leaf is probed at the steps 1, 2, 4, ..., 2**24: shown is ten times as far as where it first is half as far
        from its value at 0 as it ever gets. Without that a new shape would show ten steps of a curve of thousands.
        """
        if children := self.children():
            return max(child._reach() for child in children)
        steps = np.array([0, *(1 << k for k in range(_PROBED + 1))], dtype=np.float64)
        with np.errstate(all="ignore"):  # it may overflow: then the picture ends before it does
            values = self._at(steps)
            finite = int(np.isfinite(values).cumprod().sum())
            apart = np.abs(values[:finite] - values[0])
        if not apart.any():
            return 0
        half = int(np.flatnonzero(apart >= apart.max() / 2)[0])
        return int(min(_AFTER * steps[half], steps[finite - 1]))

    def _marks(self) -> Iterator[Mark]:
        """Where its phases start, in order, the first at 0; lazily, since some never end."""
        yield 0.0, self.kind

    def _marks_before(self, end: float) -> Iterator[Mark]:
        return itertools.takewhile(lambda mark: mark[0] < end, self._marks())

    def _marks_and_end(self) -> Iterator[Mark]:
        """Those before the end, and the end, from where it holds: for what goes on longer than this."""
        if self.steps is None:
            return self._marks()
        return itertools.chain(self._marks_before(self.steps), [(float(self.steps), "holds")])

    # -- text -----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return self._source()[0]

    def _source(self) -> tuple[str, int]:
        """Source text that rebuilds this node, and how tightly it binds."""
        parts = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every concrete node is a dataclass
            value = getattr(self, field.name)
            if not field.init or value == field.default:
                continue
            text = _elided(value) if _BRIEF.get() else repr(value)
            parts.append(f"{field.name}={text}" if field.kw_only else text)
        return f"{self.kind}({', '.join(parts)})", CALL

    def _document(self) -> dict[str, Any]:
        """Its kind and its fields by name, all plain numbers, strings, lists and such dicts.

        A field that version 1 of the format did not have yet is left out where it holds its default.
        """
        held = {field: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        written = {
            field.name: _plain(value)
            for field, value in held.items()
            if not field.metadata.get("later") or value != field.default
        }
        return {"kind": self.kind, **written}


def _plain(held: Any) -> Any:
    if isinstance(held, Node):
        return held._document()
    return [_plain(item) for item in held] if isinstance(held, tuple) else held


def brief(schedule: Node) -> str:
    """Source text for messages: long tables are elided, and no more than 300 characters are shown."""
    token = _BRIEF.set(True)
    try:
        text = repr(schedule)
    finally:
        _BRIEF.reset(token)
    text = f.cut(text, _LONGEST)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _elided(value: object) -> str:
    if isinstance(value, tuple) and len(value) > 2 * _ENDS:
        ends = [repr(item) for item in (*value[:_ENDS], *value[-_ENDS:])]
        return f"({', '.join([*ends[:_ENDS], f'... {len(value) - 2 * _ENDS} more ...', *ends[_ENDS:]])})"
    return repr(value)


def _same(a: object, b: object) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return all(map(_same, a, b))
    return a is b


def make(kind: str, *args: Any, **options: Any) -> Any:
    """A node by its kind, for a module that the node's own module imports."""
    kinds: dict[str, Any] = NODES
    return kinds[kind](*args, **options)


def evaluate(schedule: Node, start: int, stop: int) -> Array:
    """The values at steps start..stop-1, float64 of shape (stop - start,).

    Raises:
        ScheduleError: a value is not finite; the message names the first such step.
    """
    out = np.empty(max(0, stop - start), dtype=np.float64)
    for low in range(start, stop, _CHUNK):
        high = min(stop, low + _CHUNK)
        # arange counts in int64 and converts: exact where a float arange would accumulate.
        out[low - start : high - start] = sample(schedule, np.arange(low, high).astype(np.float64))
    return out


def sample(schedule: Node, steps: Array) -> Array:
    """The values at these steps (whole numbers >= 0, as float64), an array of the same shape.

    Raises:
        ScheduleError: a value is not finite; the message names the first such step.
    """
    with np.errstate(all="ignore"):  # what is not finite is reported below, with its step
        values = schedule._at(steps)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ScheduleError(
            f"the value at step {int(steps[bad[0]])} is {values[bad[0]]}, not a finite number (a division by 0, or an "
            f"overflow); clamp the schedule or change its end: {brief(schedule)}"
        )
    return values

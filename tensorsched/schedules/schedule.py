"""Schedule: a node with the operators and methods that people write.

The nodes that these build (in `algebra` and `transforms`) derive from Schedule and are made by their kind: their
modules import this one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

import numpy as np

from tensorsched.schedules import validators as f
from tensorsched.schedules.node import FORMAT, VERSION, Node, make
from tensorsched.schedules.views import notebook, plot
from tensorsched.schedules.words import worded

__all__ = ["Schedule", "as_schedule", "check_schedule", "maximum", "minimum"]


class Schedule(Node):
    """A function from the step (0-based, counted in completed optimizer steps) to a float64 value.

    Immutable, hashable and comparable; `repr` gives Python source that builds an equal schedule. Build one with the
    shapes (`linear`, `cosine`, ...) and recipes (`warmup_cosine`, ...), combine with the operators:

    `a >> b` runs a, then b; `a + b`, `a - b`, `a * b`, `a / b`, `a ** b` work step by step, also with numbers.
    `a(step)` is the value at a step, a float; `a.values(n)` are those of steps 0..n-1, a float64 numpy array of shape
    (n,), with n = `a.steps` if it is left out. Both raise ScheduleError for what is no step count, and for a value that
    is not finite. No tensor and no device is involved in any of it.

    Attributes:
        steps: its length as a segment in steps, None without an end.
        constant_from: the first step from which the value never changes again, or None.

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
        return _make("sequence", (self, as_schedule(other)))

    def __rrshift__(self, other: float) -> Schedule:
        """`1.0 >> a` is an error that says so: a number never ends."""
        return _make("sequence", (as_schedule(other), self)) if _is_operand(other) else NotImplemented

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

    def __pow__(self, other: Schedule | float) -> Schedule:
        """Step by step power; what has no real value (a fraction of a negative number) is an error when tabulated."""
        return _combine("**", self, other)

    def __rpow__(self, other: float) -> Schedule:
        """Step by step power."""
        return _combine("**", other, self)

    def __neg__(self) -> Schedule:
        """The same as `-1.0 * schedule`."""
        return _combine("*", -1.0, self)

    def clamp(self, low: float | Schedule | None = None, high: float | Schedule | None = None) -> Schedule:
        """Never below `low`, never above `high`: `maximum(minimum(self, high), low)`.

        Args:
            low: a number or a schedule; None (the default): no bound.
            high: likewise.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=4).clamp(0.2, 0.6).values(5).tolist()
            [0.2, 0.25, 0.5, 0.6, 0.6]
        """
        capped = self if high is None else minimum(self, high)
        return capped if low is None else maximum(capped, low)

    def round(self, to: float = 1.0) -> Schedule:
        """The nearest multiple of `to` at each step; halfway, the even multiple, as Python's round.

        Args:
            to: above 0, such as 64 for a batch size that is a multiple of 64.

        Raises:
            ScheduleError: to is not above 0.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(64, 256, steps=4).round(to=64).values(5).tolist()
            [64.0, 128.0, 128.0, 192.0, 256.0]
        """
        return _make("round", self, to)

    def floor(self, to: float = 1.0) -> Schedule:
        """The largest multiple of `to` that is not above the value, at each step.

        Args:
            to: above 0.

        Raises:
            ScheduleError: to is not above 0.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0, 3, steps=4).floor().values(5).tolist()
            [0.0, 0.0, 1.0, 2.0, 3.0]
        """
        return _make("floor", self, to)

    def repeat(
        self,
        times: int | None = None,
        *,
        length_mult: float = 1.0,
        value_mult: float = 1.0,
        round_lengths: bool = True,
    ) -> Schedule:
        """Run again from the start.

        Args:
            times: how often, an int >= 1; None (the default): for ever.
            length_mult: each cycle is this much longer than the one before, rounded down (torch's T_mult, timm's
                cycle_mul).
            value_mult: multiplies the values from cycle to cycle (timm's cycle_decay, where its lr_min is 0).
            round_lengths: False: a cycle keeps the fraction of a step that length_mult gives it, and the next one
                starts between two steps (timm, keras); True (the default): rounded down (ignite).

        Raises:
            ScheduleError: an argument is out of range, or the schedule is unbounded or of length 0.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=2).repeat(2).values(6).tolist()
            [0.0, 0.5, 0.0, 0.5, 1.0, 1.0]
        """
        return _make(
            "repeat",
            self,
            times=times,
            length_mult=length_mult,
            value_mult=value_mult,
            round_lengths=round_lengths,
        )

    def mirror(self) -> Schedule:
        """The schedule, then the same backwards: twice as long, and back at its first value.

        `cosine(peak, floor, steps=n).mirror().repeat()` is the endless wave of torch's CosineAnnealingLR,
        transformers' cosine and mmengine's past their T_max.

        Raises:
            ScheduleError: the schedule is unbounded.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0, 2, steps=2).mirror().values(6).tolist()
            [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]
        """
        return _make("mirror", self)

    def warp(self, k: float) -> Schedule:
        """The same curve of the same length n, read at n * (t / n)**k: later for k above 1, earlier below.

        Args:
            k: above 0 (timm's k_decay).

        Raises:
            ScheduleError: k is not above 0, or the schedule is unbounded.

        Source: Zhang and Li 2020 (arXiv 2004.05909), k-decay.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0, 4, steps=4).warp(2).values(5).tolist()
            [0.0, 0.25, 1.0, 2.25, 4.0]
        """
        return _make("warp", self, k)

    def span(self, length: float, offset: float = 0.0) -> Schedule:
        """The whole curve laid over `length` steps, `offset` of which are over: neither need be whole.

        What `stretch` rounds is kept here: read at n * (t + offset) / length, and at its end from length - offset on.

        Args:
            length: in steps, above 0.
            offset: in steps, at least 0.

        Raises:
            ScheduleError: an argument is out of range, or the schedule is unbounded.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0, 5, steps=1).span(2.5).values(4).tolist()
            [0.0, 2.0, 4.0, 5.0]
        """
        return _make("span", self, length, offset)

    def delay(self, n: int) -> Schedule:
        """Hold the first value for n steps, then run (optax's transition_begin).

        Args:
            n: a number of steps, an int >= 0.

        Raises:
            ScheduleError: n is not a whole number >= 0.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=4).delay(2).values(5).tolist()
            [0.0, 0.0, 0.0, 0.25, 0.5]
        """
        return _make("delay", self, n)

    def take(self, n: int) -> Schedule:
        """Exactly the first n steps, holding the end value if the schedule is shorter; it reaches f(n) at n.

        What follows with `>>` starts there: `a.take(n) >> b` is optax.join_schedules([a, b], [n]), and torch's
        SequentialLR with a milestone at n.

        Args:
            n: a number of steps, an int >= 0.

        Raises:
            ScheduleError: n is not a whole number >= 0.

        Example:
            >>> import tensorsched as ts
            >>> (ts.linear(0.0, 1.0, steps=4).take(2) >> 0.0).values(4).tolist()
            [0.0, 0.25, 0.0, 0.0]
        """
        return _make("take", self, n)

    def skip(self, n: int) -> Schedule:
        """Leave out the first n steps: step 0 takes the value of step n (torch's last_epoch=n-1).

        Args:
            n: a number of steps, an int >= 0.

        Raises:
            ScheduleError: n is not a whole number >= 0.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=4).skip(1).values(4).tolist()
            [0.25, 0.5, 0.75, 1.0]
        """
        return _make("skip", self, n)

    def hold_each(self, n: int) -> Schedule:
        """Hold every value for n steps: a schedule that counts epochs, for a counter that counts steps.

        Args:
            n: the steps of an epoch, an int >= 1.

        Raises:
            ScheduleError: n is not a whole number >= 1.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=2).hold_each(2).values(5).tolist()
            [0.0, 0.0, 0.5, 0.5, 1.0]
        """
        return _make("hold_each", self, n)

    def stretch(self, factor: float) -> Schedule:
        """The same curve, `factor` times as long (its length rounded to a whole step).

        Args:
            factor: above 0.

        Raises:
            ScheduleError: factor is not above 0, or the length comes to more than 2**53 steps.

        Example:
            >>> import tensorsched as ts
            >>> ts.linear(0.0, 1.0, steps=2).stretch(2.0).values(5).tolist()
            [0.0, 0.25, 0.5, 0.75, 1.0]
        """
        return _make("stretch", self, factor)

    def over(self, batch: Schedule | float) -> Schedule:
        """The curve over what the steps consume, for a planned batch size: f(t) = self(batch(0) + ... + batch(t - 1)).

        With this schedule's durations in samples (or tokens) and `batch` in samples (or tokens) a step, the learning
        rate is where it should be while the batch grows, and needs no clock at run time.

        Args:
            batch: what each step consumes, a whole number of at least 0 at every step (`.round()`), or a number.

        Raises:
            ScheduleError: the batch is no such number at a step, or changes for more than 2**24 steps.

        Source: Megatron-LM's --rampup-batch-size counts samples so, for lr and batch size alike.

        Example:
            >>> import tensorsched as ts
            >>> batch = ts.piecewise_constant([1, 2], [4])
            >>> ts.linear(0.0, 1.0, steps=8).over(batch).values().tolist()
            [0.0, 0.125, 0.25, 0.375, 0.5, 0.75]
        """
        return _make("over", self, as_schedule(batch))

    def to_dict(self) -> dict[str, Any]:
        """This schedule as a versioned dict of plain numbers, strings and lists; `from_dict` reads it back.

        Example:
            >>> import tensorsched as ts
            >>> ts.constant(1.0).to_dict()["schedule"]
            {'kind': 'constant', 'value': 1.0, 'steps': None}
        """
        return {"format": FORMAT, "version": VERSION, "schedule": self._document()}

    def to_json(self, *, indent: int | None = None) -> str:
        """This schedule as a JSON document; `from_json` reads it back to an equal schedule, the same to the last bit.

        Example:
            >>> import tensorsched as ts
            >>> ts.from_json(ts.constant(1.0).to_json())
            constant(1.0)
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    @property
    def fingerprint(self) -> str:
        """32 hex digits of the SHA-256 of the canonical JSON: equal schedules, and only they, have equal ones."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def plot(
        self,
        *,
        steps: int | None = None,
        ax: Any = None,
        log: bool | None = None,
        label: str | None = None,
        unit: str = "step",
    ) -> Any:
        """Draw the values at steps 0, 1, ... with matplotlib (`pip install 'tensorsched[plot]'`).

        Args:
            steps: the last step to show; default: to the end, or a representative range of an
                unbounded schedule.
            ax: the matplotlib Axes to draw into; default: those of a new figure.
            log: a logarithmic value axis: True, False, or None (default) where it shows more.
            label: of the line, for a legend.
            unit: what the schedule counts, where that is not steps: "tokens", "epoch".

        Returns:
            The Axes. Dashed lines are where a phase starts, named above them: warm-up, stable, decay, cycle 2, or its
            shape. Up to 60 steps are drawn one by one. `ts.initial` is drawn as 1.

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
        return plot.plot_schedule(self, steps=steps, ax=ax, log=log, label=label, unit=unit)

    def _repr_svg_(self) -> str | None:
        """What notebooks show: a small curve. None (they then show text) where a value is not finite."""
        return notebook.svg(self)

    def _repr_html_(self) -> str | None:
        """What notebooks show first: the curve and the expression."""
        return notebook.page(self)


def _make(kind: str, *args: Any, **options: Any) -> Schedule:
    return cast("Schedule", make(kind, *args, **options))


def as_schedule(value: Schedule | float) -> Schedule:
    """A schedule as it is; a number as the constant that it stands for."""
    return value if isinstance(value, Schedule) else _make("constant", value)


@worded
def minimum(a: Schedule | float, b: Schedule | float) -> Schedule:
    """Step by step the smaller of the two schedules, as numpy.minimum; either may be a number.

    Raises:
        ScheduleError: a number that is not finite, or something that is neither.

    Example:
        >>> import tensorsched as ts
        >>> ts.minimum(ts.linear(0.0, 1.0, steps=4), 0.5).values(5).tolist()
        [0.0, 0.25, 0.5, 0.5, 0.5]
    """
    return _make("combine", as_schedule(a), as_schedule(b), op="minimum")


@worded
def maximum(a: Schedule | float, b: Schedule | float) -> Schedule:
    """Step by step the larger of the two schedules, as numpy.maximum; either may be a number.

    Raises:
        ScheduleError: a number that is not finite, or something that is neither.

    Example:
        >>> import tensorsched as ts
        >>> ts.maximum(0.5, ts.linear(0.0, 1.0, steps=4)).values(5).tolist()
        [0.5, 0.5, 0.5, 0.75, 1.0]
    """
    return _make("combine", as_schedule(a), as_schedule(b), op="maximum")


def _is_operand(value: object) -> bool:
    # Arrays are left to Python, which refuses them; True is an int there, and hardly meant.
    return isinstance(value, (Schedule, int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _combine(op: str, left: Schedule | float, right: Schedule | float) -> Schedule:
    if not (_is_operand(left) and _is_operand(right)):
        return NotImplemented  # type: ignore[no-any-return]  # typed Any; Python then raises TypeError
    return _make("combine", as_schedule(left), as_schedule(right), op=op)


def check_schedule(where: str, value: object) -> Schedule:
    """The schedule that a field holds; a number is refused here, so that a document stays what was written."""
    if not isinstance(value, Schedule):
        raise f.refuse(where, "a schedule", value)
    return value

"""Hypothesis strategies for schedules: one line a shape, and random expressions over them.

Every node kind occurs: `SHAPES` has the leaves, `_grow` the combinators. Lengths include 0 and 1; what a constructor
refuses (a repeat that shrinks to nothing, a division by the constant 0) is drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import reject
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Delay, HoldEach, Repeat, Skip, Stretch, Take
from tensorsched.schedules.algebra import Combine, Sequence
from tensorsched.schedules.fields import MAX_STEPS

LAST = MAX_STEPS - 1

values = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 3e-4, 0.1]),
    st.floats(-1e3, 1e3, allow_subnormal=False),
    st.floats(1e-8, 1.0),
)
positive = st.one_of(st.sampled_from([0.5, 1.0, 2.0]), st.floats(1e-3, 1e3))
lengths = st.one_of(st.integers(0, 3), st.integers(0, 40), st.sampled_from([1_000, 999_983]))
counts = st.integers(1, 12)
increasing = st.lists(st.integers(0, 60), unique=True, max_size=4).map(sorted)
points = st.tuples(
    st.lists(st.integers(0, 60), min_size=1, max_size=4).map(sorted), st.lists(values, min_size=4, max_size=4)
)

SHAPES: dict[str, st.SearchStrategy[ts.Schedule]] = {
    "constant": st.builds(ts.constant, values, steps=st.none() | lengths),
    "linear": st.builds(ts.linear, values, values, steps=lengths),
    "cosine": st.builds(ts.cosine, values, values, steps=lengths),
    "polynomial": st.builds(ts.polynomial, values, values, positive, steps=lengths, of=st.sampled_from(["remaining", "elapsed"])),
    "exponential": st.builds(ts.exponential, positive, positive, steps=lengths),
    "exponential_decay": st.builds(ts.exponential_decay, values, st.floats(0.5, 1.5), every=counts, staircase=st.booleans()),
    "inverse_sqrt": st.builds(ts.inverse_sqrt, values, timescale=positive),
    "piecewise_constant": increasing.flatmap(lambda at: st.builds(ts.piecewise_constant, st.lists(values, min_size=len(at) + 1, max_size=len(at) + 1), st.just(at))),
    "piecewise_linear": points.map(lambda pair: ts.piecewise_linear(list(zip(*pair, strict=False)))),
    "from_values": st.builds(ts.from_values, st.lists(values, min_size=1, max_size=9)),
}  # fmt: skip
shapes = st.one_of(*SHAPES.values())


def schedules(max_leaves: int = 5) -> st.SearchStrategy[ts.Schedule]:
    """Random expressions without `ts.initial`; about half are unbounded."""
    return st.recursive(shapes, _grow, max_leaves=max_leaves)


def bounded(inner: st.SearchStrategy[ts.Schedule] | None = None) -> st.SearchStrategy[ts.Schedule]:
    """Expressions with a length."""
    drawn = schedules() if inner is None else inner
    return st.builds(lambda s, n: s if s.steps is not None else s.take(n), drawn, lengths)


def _grow(inner: st.SearchStrategy[ts.Schedule]) -> st.SearchStrategy[ts.Schedule]:
    ended = bounded(inner)
    multiplied = {
        "length_mult": st.sampled_from([1.0, 1.0, 1.3, 2.0, 0.5]),
        "value_mult": st.sampled_from([1.0, 0.5, -0.7]),
    }
    return st.one_of(
        _made(
            Sequence,
            st.builds(lambda head, last: [*head, last], st.lists(ended, min_size=1, max_size=2), inner),
        ),
        _made(Combine, inner, inner, op=st.sampled_from(["+", "-", "*", "minimum", "maximum"])),
        _made(Combine, inner, inner.map(lambda s: s * s + 0.5), op=st.just("/")),
        _made(Combine, inner, inner, op=st.just("/")),  # may reach 0: an error in both, or in neither
        st.builds(lambda s, a, b: s.clamp(min(a, b), max(a, b)), inner, values, values),
        _made(Repeat, ended, times=st.none() | st.integers(1, 5), **multiplied),
        *(_made(kind, inner, lengths) for kind in (Delay, Take, Skip)),
        _made(HoldEach, inner, counts),
        _made(Stretch, inner, st.floats(0.05, 20.0) | st.sampled_from([0.5, 2.0, 3.0])),
    )


def _made(
    kind: type[ts.Schedule], *args: st.SearchStrategy, **options: st.SearchStrategy
) -> st.SearchStrategy[ts.Schedule]:
    def build(*args: object, **options: object) -> ts.Schedule:
        try:
            return kind(*args, **options)
        except ScheduleError:
            return reject()

    return st.builds(build, *args, **options)


def steps_to_try(schedule: ts.Schedule) -> list[int]:
    """The first two steps, every boundary with its neighbours, one past the end, and far past it."""
    edges = {0, *_edges(schedule)}
    near = {edge + offset for edge in edges for offset in (-1, 0, 1)}
    far = {max(edges) + 10**6, 10**12}
    return sorted(step for step in near | far if 0 <= step <= LAST)


def _edges(schedule: ts.Schedule) -> Iterator[int]:
    """Where something starts or ends, on the schedule's own clock or an inner one."""
    yield from (
        edge for edge in (schedule.steps, schedule.settled, getattr(schedule, "n", None)) if edge is not None
    )
    yield from getattr(schedule, "boundaries", ())
    yield from (step for step, _ in getattr(schedule, "points", ()))
    start = 0
    for child in schedule.children():
        yield from (start + edge for edge in _edges(child))
        start += (child.steps or 0) if isinstance(schedule, Sequence) else 0

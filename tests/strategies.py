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
from tensorsched.schedules import (
    Delay,
    Floor,
    HoldEach,
    Mirror,
    Over,
    Repeat,
    Round,
    Skip,
    Span,
    Stretch,
    Take,
    Warp,
)
from tensorsched.schedules.algebra import Combine, Sequence
from tensorsched.schedules.node import NODES
from tensorsched.schedules.validators import MAX_STEPS

LAST = MAX_STEPS - 1

values = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 3e-4, 0.1]),
    st.floats(-1e3, 1e3, allow_subnormal=False),
    st.floats(1e-8, 1.0),
)
positive = st.one_of(st.sampled_from([0.5, 1.0, 2.0]), st.floats(1e-3, 1e3))
lengths = st.one_of(st.integers(0, 3), st.integers(0, 40), st.sampled_from([1_000, 999_983]))
counts = st.integers(1, 12)


def several(values: st.SearchStrategy, n: int) -> st.SearchStrategy[list]:
    return st.lists(values, min_size=n, max_size=n)


def ordered(least: int, *, unique: bool) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 60), min_size=least, max_size=4, unique=unique).map(sorted)


levels = ordered(0, unique=False).flatmap(lambda at: st.tuples(several(values, len(at) + 1), st.just(at)))
points = st.builds(
    lambda at, value: list(zip(at, value, strict=False)), ordered(1, unique=False), several(values, 4)
)
knots = st.builds(
    lambda at, value: list(zip(at, value, strict=False)), ordered(2, unique=True), several(values, 4)
)
either_part = st.sampled_from(["remaining", "elapsed"])

SHAPES: dict[str, st.SearchStrategy[ts.Schedule]] = {
    "constant": st.builds(ts.constant, values, steps=st.none() | lengths),
    "linear": st.builds(ts.linear, values, values, steps=lengths),
    "cosine": st.builds(ts.cosine, values, values, steps=lengths),
    "polynomial": st.builds(ts.polynomial, values, values, positive, steps=lengths, of=either_part),
    "exponential": st.builds(ts.exponential, positive, positive, steps=lengths),
    "rex": st.builds(ts.rex, values, values, d=st.floats(1e-3, 0.999), steps=lengths),
    "tanh": st.builds(ts.tanh, values, values, lower=st.floats(-9, 9), upper=st.floats(-9, 9), steps=lengths),
    "exponential_decay": st.builds(
        ts.exponential_decay, values, st.floats(0.5, 1.5), every=counts, staircase=st.booleans()
    ),
    "logarithmic": st.builds(ts.logarithmic, values, values, steps=lengths),
    "power_law": st.builds(ts.power_law, values, positive, timescale=positive),
    "inverse_time": st.builds(ts.inverse_time, values, positive, every=counts, staircase=st.booleans()),
    "linear_growth": st.builds(ts.linear_growth, values, values, every=counts, staircase=st.booleans()),
    "inverse_sqrt": st.builds(ts.inverse_sqrt, values, timescale=positive),
    "piecewise_constant": levels.map(lambda pair: ts.piecewise_constant(*pair)),
    "piecewise_linear": st.builds(ts.piecewise_linear, points),
    "spline": st.builds(ts.spline, knots),
    "from_values": st.builds(ts.from_values, st.lists(values, min_size=1, max_size=9)),
}
shapes = st.one_of(*SHAPES.values())
batches = st.one_of(
    st.sampled_from([0.0, 1.0, 3.0, 4096.0]).map(ts.constant),
    ordered(1, unique=False).flatmap(
        lambda at: st.builds(ts.piecewise_constant, several(st.integers(0, 9), len(at) + 1), st.just(at))
    ),
    st.lists(st.integers(0, 9), min_size=1, max_size=9).map(ts.from_values),
    st.builds(ts.linear, st.integers(0, 9), st.integers(1, 500), steps=st.integers(0, 40)).map(
        ts.Schedule.round
    ),
)


def combinators(inner: st.SearchStrategy[ts.Schedule]) -> dict[str, st.SearchStrategy[ts.Schedule]]:
    """One expression more around (or over several) drawn from `inner`."""
    ended = bounded(inner)
    chains = st.builds(lambda head, last: [*head, last], st.lists(ended, min_size=1, max_size=2), inner)
    factors = st.floats(0.05, 20.0) | st.sampled_from([0.5, 2.0, 3.0])
    value_mults = st.sampled_from([1.0, 1.0, 0.5, -0.7])
    return {
        "sequence": _made(Sequence, chains),
        "combine": _made(Combine, inner, inner, op=st.sampled_from(["+", "-", "*", "minimum", "maximum"])),
        "quotient": _made(Combine, inner, inner, op=st.just("/")),  # may reach 0: an error on every side
        "safe quotient": _made(Combine, inner, inner.map(lambda s: s * s + 0.5), op=st.just("/")),
        "clamp": st.builds(lambda s, a, b: s.clamp(min(a, b), max(a, b)), inner, values, values),
        "repeat": _made(Repeat, ended, times=st.none() | st.integers(1, 5), value_mult=value_mults),
        "growing repeat": _made(
            Repeat, ended, times=st.integers(1, 5), length_mult=st.floats(0.4, 3.0), value_mult=value_mults
        ),
        "power": _made(
            Combine, inner, inner, op=st.just("**")
        ),  # may have no real value: an error on every side
        "safe power": _made(
            Combine, inner.map(lambda s: s * s + 0.5), st.floats(-2.0, 2.0).map(ts.constant), op=st.just("**")
        ),
        "round": _made(Round, inner, st.sampled_from([1.0, 0.25, 64.0, 0.3])),
        "floor": _made(Floor, inner, st.sampled_from([1.0, 0.25, 64.0, 0.3])),
        "mirror": _made(Mirror, ended),
        "warp": _made(Warp, ended, st.floats(0.2, 4.0)),
        "span": _made(Span, ended, st.floats(0.1, 60.0), st.sampled_from([0.0, 0.0, 0.3, 5.5])),
        "over": _made(Over, inner, batches),
        "fractional repeat": _made(
            Repeat,
            ended,
            times=st.integers(1, 5),
            length_mult=st.floats(0.4, 3.0),
            value_mult=value_mults,
            round_lengths=st.just(False),
        ),
        "endless repeat": _made(Repeat, ended, length_mult=st.sampled_from([1.3, 2.0])),
        "delay": _made(Delay, inner, lengths),
        "take": _made(Take, inner, lengths),
        "skip": _made(Skip, inner, lengths),
        "hold_each": _made(HoldEach, inner, counts),
        "stretch": _made(Stretch, inner, factors),
    }


def schedules(max_leaves: int = 5) -> st.SearchStrategy[ts.Schedule]:
    """Random expressions without `ts.initial`; about half are unbounded."""
    return st.recursive(shapes, lambda inner: st.one_of(*combinators(inner).values()), max_leaves=max_leaves)


def bounded(inner: st.SearchStrategy[ts.Schedule] | None = None) -> st.SearchStrategy[ts.Schedule]:
    """Expressions with a length."""
    drawn = schedules() if inner is None else inner
    return st.builds(lambda s, n: s if s.steps is not None else s.take(n), drawn, lengths)


def _chained(n: int, first: ts.Schedule, then: ts.Schedule) -> ts.Schedule:
    try:
        return ts.constant(1.0, steps=n) * first >> then
    except ScheduleError:  # the first never ends
        return reject()


LIVE = (ts.live("a", 1.0), ts.live("b", 0.5), ts.plateau())


def live_expressions() -> st.SearchStrategy[ts.Schedule]:
    """Random expressions in which at least one live input stands, of tame numbers: no powers of powers."""
    tame = st.one_of(
        st.builds(ts.linear, st.floats(0.1, 2.0), st.floats(0.1, 2.0), steps=st.integers(0, 40)),
        st.builds(ts.cosine, st.floats(0.1, 2.0), st.floats(0.1, 2.0), steps=st.integers(0, 40)),
        st.floats(0.1, 2.0).map(ts.constant),
    )
    leaf = st.one_of(st.sampled_from(LIVE), tame)

    def grow(inner: st.SearchStrategy[ts.Schedule]) -> st.SearchStrategy[ts.Schedule]:
        return st.one_of(
            *(
                _made(Combine, inner, inner, op=st.just(op))
                for op in ("+", "-", "*", "/", "minimum", "maximum")
            ),
            _made(Combine, st.sampled_from(LIVE), tame, op=st.just("**")),
            st.builds(lambda s: s.clamp(0.01, 10.0), inner),
            st.builds(_chained, st.integers(0, 20), inner, inner),
        )

    drawn = st.recursive(leaf, grow, max_leaves=6)
    return st.builds(lambda s, x: s if s.inputs() else s * x, drawn, st.sampled_from(LIVE))


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
    """The first two steps, every boundary with its neighbours, some in between, one past the end, and far past it."""
    edges = {0, *_edges(schedule)}
    last = max(edges)
    near = {edge + offset for edge in edges for offset in (-1, 0, 1)} | {last * k // 7 for k in range(1, 7)}
    return sorted(step for step in near | {last + 10**6, 10**12} if 0 <= step <= LAST)


def _edges(schedule: ts.Schedule) -> Iterator[int]:
    """Where something starts or ends, on the schedule's own clock or an inner one."""
    yield from (
        edge
        for edge in (schedule.steps, schedule.constant_from, getattr(schedule, "n", None))
        if edge is not None
    )
    yield from getattr(schedule, "boundaries", ())
    yield from (step for step, _ in getattr(schedule, "points", ()))
    start = 0
    for child in schedule.children():
        yield from (start + edge for edge in _edges(child))
        start += (child.steps or 0) if isinstance(schedule, Sequence) else 0


# -- damaged documents -------------------------------------------------------------------------------------------------

odd_numbers = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**53, 2**54, 10**400]) | st.floats()
)
words = st.text(max_size=6) | st.sampled_from(sorted({*NODES, "kind", "inner", "+", "elapsed"}))
scalars = odd_numbers | words
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)


def places(entry, path=()):
    """The path of everything inside a document."""
    yield path
    if isinstance(entry, (dict, list)):
        for key, inner in entry.items() if isinstance(entry, dict) else enumerate(entry):
            yield from places(inner, (*path, key))


def changed(entry, path, action, value):
    if not path:
        return value
    key, *rest = path
    copy = dict(entry) if isinstance(entry, dict) else list(entry)
    if not rest and action == "remove":
        del copy[key]
    elif not rest and action == "add" and isinstance(copy, dict):
        copy[f"{key}x"] = value
    else:
        copy[key] = changed(copy[key], rest, action, value)
    return copy


@st.composite
def nearly(draw, documents):
    """A good document in which something was replaced, removed or added."""
    made = draw(documents)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(made))))
        made = changed(made, path, draw(st.sampled_from(["replace", "remove", "add"])), draw(junk))
    return made

"""Pairs of a schedule and what another library gives, and the tests that each of them passes.

Both lie within their own rounding errors of the exact curve. Ours come from `rounding`; theirs are counted beside each
peer in units of u = 2**-53.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tests.rounding import analyse

rates = st.floats(1e-5, 10.0)
fractions = st.floats(0.01, 1.0)
lengths = st.integers(1, 40)
flags = st.booleans()
EXTRA = 5  # steps past the end, where the peer holds its end value too


@dataclass(frozen=True)
class Pair:
    ours: ts.Schedule
    theirs: list[float]
    allowed: Callable[[int], float]  # the peer's own rounding errors at a step

    def agrees(self, ours: ts.Schedule) -> bool:
        return all(
            abs(ours(t) - value) <= analyse(ours, t).error + self.allowed(t)
            for t, value in enumerate(self.theirs)
        )


CHANGES = {
    "frozen": lambda s: ts.constant(s(0)),
    "early": lambda s: s.skip(1),
    "late": lambda s: s.delay(1),
}


def agrees(pairs: st.SearchStrategy[Pair], examples: int) -> None:
    """Every pair that is drawn agrees."""

    @given(pairs)
    @settings(max_examples=examples)
    def check(pair):
        assert pair.agrees(pair.ours)

    check()


def another_does_not(pairs: st.SearchStrategy[Pair], change: Callable, examples: int) -> None:
    """The control: a schedule that is frozen or a step off does not, where it differs at all."""

    @given(pairs)
    @settings(max_examples=examples)
    def check(pair):
        changed = change(pair.ours)
        steps = range(len(pair.theirs))
        assume(
            any(
                abs(changed(t) - pair.ours(t)) > 2 * pair.allowed(t) + 1e-13 * max(map(abs, pair.theirs))
                for t in steps
            )
        )
        assert not pair.agrees(changed)

    check()

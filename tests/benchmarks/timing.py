"""Times competitors side by side: in one process, block by block in turn, so that a busy machine is busy for all.

Each round is one block of each competitor, in a new order: what ran before leaves its traces in the caches. For the
same reason the first call of a block is not timed. What is timed is this thread's processor time: nothing here waits,
so that is wall time less the time that other programs had the processor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Competitor:
    """Something that is called once a training step."""

    name: str
    call: Call
    rewind: Call = bool  # before each block, not timed: back to the start of the schedule
    most_calls: int = (
        9_000  # in one block: so that a schedule of 10,000 steps is still moving at the block's end
    )


@dataclasses.dataclass(frozen=True)
class Spread:
    """A sample of one number, one for each round."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        first, median, third = np.percentile(values, [25, 50, 75]).tolist()
        return cls(median, min(values), max(values), (first, third), len(values))

    @property
    def sure(self) -> tuple[float, float]:
        """Where the true median lies, about 95 % sure: median +- 1.57 IQR / sqrt(n), a box plot's notch."""
        half = 1.57 * (self.quartiles[1] - self.quartiles[0]) / self.rounds**0.5
        return self.median - half, self.median + half


@dataclasses.dataclass(frozen=True)
class Race:
    """Microseconds a call, by competitor and round."""

    us: dict[str, list[float]]

    def time(self, name: str) -> Spread:
        return Spread.of(self.us[name])

    def ratio(self, slow: str, fast: str) -> Spread:
        """How many times longer `slow` takes than `fast`, compared within each round."""
        return Spread.of([s / f for s, f in zip(self.us[slow], self.us[fast], strict=True)])

    def added(self, name: str, floor: str) -> Spread:
        """Microseconds that `name` takes more than `floor`, compared within each round."""
        return Spread.of([n - f for n, f in zip(self.us[name], self.us[floor], strict=True)])


def race(competitors: Sequence[Competitor], *, rounds: int, block_s: float) -> Race:
    """Let all take turns (A B C, B A C, ...), `rounds` blocks of about `block_s` seconds each, after a warm-up."""
    shuffle = np.random.default_rng(0).permutation
    with no_gc():
        calls = [_calls_in(competitor, block_s) for competitor in competitors]
        us: dict[str, list[float]] = {competitor.name: [] for competitor in competitors}
        for _ in range(rounds):
            for index in shuffle(len(competitors)):
                competitor, count = competitors[index], calls[index]
                us[competitor.name].append(_seconds(competitor, count) / count * 1e6)
    return Race(us)


@contextlib.contextmanager
def no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _calls_in(competitor: Competitor, block_s: float) -> int:
    """How many calls fill a block; finding out is the warm-up."""
    calls = 2
    while True:
        took = _seconds(competitor, calls)
        if took >= block_s / 2 or calls >= competitor.most_calls:
            return min(max(round(calls * block_s / took), 1), competitor.most_calls)
        calls = min(2 * calls, competitor.most_calls)


def _seconds(competitor: Competitor, calls: int) -> float:
    competitor.rewind()
    call = competitor.call
    call()
    turns = itertools.repeat(None, calls)  # the cheapest loop: about 10 ns a turn
    start = time.thread_time()
    for _ in turns:
        call()
    return time.thread_time() - start

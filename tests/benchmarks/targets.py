"""What issue 2 asks of the numbers. The benchmark says whether a run met it, and never fails over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from cases import COSINE, HOST, OURS, RESIDENT, TORCH
from timing import Race

LEAST_RATIO = ((RESIDENT, 1, 4), (RESIDENT, 128, 50), (RESIDENT, 1024, 500), (HOST, 128, 10))
"""(competitor, groups, how many times cheaper than torch's CosineAnnealingLR with a float lr)."""

MOST_BYTES = 16_000_000
"""For 1,000,000 steps of 128 groups with layer-wise learning rate decay."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target and what this run says about it; `met` is None where the run cannot tell."""

    target: str
    measured: str
    met: bool | None

    def __str__(self) -> str:
        word = {True: "met", False: "NOT MET", None: "within the noise"}[self.met]
        return f"{self.target}: {self.measured}: {word}"


def judge_schedule_steps(races: Mapping[int, Race]) -> list[Verdict]:
    found = []
    for name, groups, least in LEAST_RATIO:
        if groups in races:
            ratio = races[groups].ratio(COSINE, name).median
            target = f"{name}: at least {least}x below {COSINE}, at {groups} group{'s' * (groups > 1)}"
            found.append(Verdict(target, f"{ratio:.1f}x", ratio >= least))
    return found


def judge_whole_steps(races: Mapping[tuple[str, str], Race]) -> list[Verdict]:
    found = []
    for (kind, implementation), race in races.items():
        ratio = race.ratio(TORCH, OURS)
        low, high = ratio.sure
        met = True if low >= 1 else False if high < 1 else None
        target = f"{kind} {implementation}: whole step not slower than with torch's scheduler"
        found.append(Verdict(target, f"{ratio.median:.3f}x (95 %: {low:.3f} .. {high:.3f})", met))
    return found


def judge_bytes(rows: int, nbytes: Mapping[str, int]) -> list[Verdict]:
    found = []
    for name, size in nbytes.items():
        target = f"{name}, {rows:,} steps: at most {MOST_BYTES / 1e6:.0f} MB"
        found.append(Verdict(target, f"{size / 1e6:.1f} MB", size <= MOST_BYTES))
    return found

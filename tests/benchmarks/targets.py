"""What is asked of the numbers. The benchmark says whether a run met it, and never fails over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import peers
from cases import (
    ADDED_TO,
    COSINE,
    EQUAL,
    FLOAT_SLOTS,
    SCALED,
    TENSOR,
    TENSOR_SLOTS,
    TORCH,
    WRITES,
)
from timing import Race, Spread

LEAST_RATIO = (
    (TENSOR_SLOTS, 1, 4),
    (TENSOR_SLOTS, 128, 50),
    (TENSOR_SLOTS, 1024, 500),
    (FLOAT_SLOTS, 128, 10),
)
"""(competitor, groups, how many times cheaper than torch's CosineAnnealingLR with a float lr)."""

PEERS = (COSINE, TENSOR, peers.TRANSFORMERS, peers.TIMM_STYLE, peers.IGNITE)
"""Whose step sched.step() must be cheaper than, float and tensor slots alike."""
PEERS_AT = (1, 8, 128)

MOST_WRITES = 2.0
"""Float slots: how many times a bare loop that writes a new value to each group."""

MOST_OF_TORCH = 1 / 3
"""What a schedule adds to optimizer.step(), of what torch's CosineAnnealingLR with a float lr adds."""

MOST_SCALED = 1.5
"""A step in a scaled table on a CPU, of one in an equal table."""

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
    for groups, race in races.items():
        at = f"at {groups} group{'s' * (groups > 1)}"
        if groups in PEERS_AT:
            found += [_cheaper_than_all(race, name, at) for name in (TENSOR_SLOTS, FLOAT_SLOTS)]
        found.append(_at_most(f"{FLOAT_SLOTS}: at most {MOST_WRITES:g}x {WRITES}, {at}", race, MOST_WRITES))
        for name, count, least in LEAST_RATIO:
            if count == groups:
                ratio = race.ratio(COSINE, name).median
                target = f"{name}: at least {least}x below {COSINE}, {at}"
                found.append(Verdict(target, f"{ratio:.1f}x", ratio >= least))
    return found


def _cheaper_than_all(race: Race, name: str, at: str) -> Verdict:
    ratios = {peer: race.ratio(peer, name) for peer in PEERS if peer in race.us}
    nearest = min(ratios, key=lambda peer: ratios[peer].median)
    low, high = ratios[nearest].sure
    met = True if low > 1 else False if high <= 1 else None
    target = (
        f"{name}: sched.step() cheaper than every scheduler of torch, transformers, timm and ignite, {at}"
    )
    measured = f"the nearest, {nearest}, takes {ratios[nearest].median:.2f}x (95 %: {low:.2f} .. {high:.2f})"
    return Verdict(target, measured, met)


def _at_most(target: str, race: Race, most: float, slow: str = FLOAT_SLOTS, fast: str = WRITES) -> Verdict:
    ratio = race.ratio(slow, fast)
    low, high = ratio.sure
    met = True if high <= most else False if low > most else None
    return Verdict(target, f"{ratio.median:.2f}x (95 %: {low:.2f} .. {high:.2f})", met)


def judge_whole_steps(races: Mapping[tuple[str, str, str], Race]) -> list[Verdict]:
    found = []
    for (kind, implementation, groups), race in races.items():
        what = f"{kind} {implementation}, {groups}"
        ratio = race.ratio(TORCH, FLOAT_SLOTS)
        low, high = ratio.sure
        met = True if low >= 1 else False if high < 1 else None
        target = f"{what}: whole step not slower than with torch's scheduler"
        found.append(Verdict(target, f"{ratio.median:.3f}x (95 %: {low:.3f} .. {high:.3f})", met))
        if implementation == "fused":
            found += [_little_added(race, name, what) for name in (FLOAT_SLOTS, TENSOR_SLOTS)]
    return found


def _little_added(race: Race, name: str, what: str) -> Verdict:
    share, (low, high) = share_of_torch(race, name)
    met = True if high <= MOST_OF_TORCH else False if low > MOST_OF_TORCH else None
    target = f"{what}: {name} add at most a third of what torch's scheduler adds to optimizer.step()"
    return Verdict(target, f"{share:.2f} of it (95 %: {low:.2f} .. {high:.2f})", met)


def share_of_torch(race: Race, name: str) -> tuple[float, tuple[float, float]]:
    """What `name` adds to the optimizer's step, of what torch's scheduler adds; and where that lies, rather too wide."""
    ours, theirs = added(race, name), added(race, TORCH)
    low = ours.sure[0] / theirs.sure[1]
    high = ours.sure[1] / theirs.sure[0] if theirs.sure[0] > 0 else float("inf")
    return ours.median / theirs.median, (low, high)


def added(race: Race, name: str) -> Spread:
    """Microseconds over the same optimizer alone: the differences within each round."""
    return race.added(name, ADDED_TO[name])


def judge_layouts(groups: int, races: Mapping[str, Race]) -> list[Verdict]:
    return [
        _at_most(
            f"{groups} tensor slots, {how}: a scaled table at most {MOST_SCALED:g}x an equal one",
            race,
            MOST_SCALED,
            SCALED,
            EQUAL,
        )
        for how, race in races.items()
    ]


def judge_bytes(rows: int, nbytes: Mapping[str, int]) -> list[Verdict]:
    found = []
    for name, size in nbytes.items():
        target = f"{name}, {rows:,} steps: at most {MOST_BYTES / 1e6:.0f} MB"
        found.append(Verdict(target, f"{size / 1e6:.1f} MB", size <= MOST_BYTES))
    return found

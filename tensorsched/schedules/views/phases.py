"""The phases of a schedule: where each starts, which shape describes it, and what people call it.

Where phases start is what each node says of itself (`Node._marks`). What they are called follows from what the curve
does there, so that a recipe, the same chain written by hand and one that was loaded have the same names: a rise that
something follows is a warm-up, a level behind it is stable, a fall is a decay. A fall to a level that is then held is a
cool-down (`infinite`), levels in a row are levels (`multistep`), and what is repeated has cycles.

A curve that falls before it rises (a momentum) is no warm-up and decay: its phases are called fall, hold and rise. Of
`1.0 - a`, `c / a` and the like the phases are those of a. What goes up and down has the name of its shape.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import Array, Node, sample

MOST_PHASES = 64
"""Phases that are told apart; an endless repeat has more than anyone reads."""

HOLDS = "holds"
"""What a schedule does past its end, and a delayed one before it begins."""

_LOOKED_AT = 33  # steps of a phase: enough to tell a rise from a curve that goes up and down
_NOISE = 1e-12  # of the values: what rounding does to a level
_COUNTED = {"warm-up", "stable", "decay", "cool-down", "level", "hold", "rise", "fall"}
_CYCLE = re.compile(r", cycle (\d+)")  # as `repeat` marks its phases
_NESTED = re.compile(r", cycle \d+, cycle ")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a schedule that one shape describes: steps start..stop-1, without end where stop is None."""

    start: int
    stop: int | None
    what: str
    """Its shape, such as "linear" or "cosine, cycle 2"."""
    name: str
    """What it is called: "warm-up", "stable", "decay", "cycle 2", ...; its shape where no name fits."""

    @property
    def shape(self) -> str:
        """What it is without its cycle."""
        return _CYCLE.sub("", self.what)


class _Part(NamedTuple):
    """What the curve does in one phase."""

    what: str
    move: str  # "rise", "hold", "fall", or "" where it is none of these
    first: float
    last: float
    cycle: int  # 0 where it is in none, -1 where it is in several
    short: bool  # of one step


def phases(schedule: Node) -> tuple[Phase, ...]:
    """The phases of a schedule in order, at most 64 of them; the last may be "holds", from the end on for ever.

    A phase that takes no step does not show. `ts.initial` in it counts as 1.
    """
    end = schedule.steps
    marks = [(math.ceil(at), what) for at, what in itertools.islice(schedule._marks(), MOST_PHASES)]
    if end is not None:
        marks = [mark for mark in marks if mark[0] < end]
        marks.append((end, HOLDS))
    stops = [*(start for start, _ in marks[1:]), None]
    spans = [(start, stop, what) for (start, what), stop in zip(marks, stops, strict=True) if start != stop]
    spans = spans[:MOST_PHASES]
    return tuple(
        Phase(start, stop, what, name)
        for (start, stop, what), name in zip(spans, _names(schedule, spans), strict=True)
    )


def headings(found: Iterable[Phase], last: int) -> list[tuple[int, str]]:
    """Where names stand in a picture of the steps 0..last: those of neighbours once, of a cycle its number alone."""
    shown: list[tuple[int, str]] = []
    for phase in found:
        name = phase.name.split(",")[0] if phase.name.startswith("cycle ") else phase.name
        if phase.start < last and (not shown or shown[-1][1] != name):
            shown.append((phase.start, name))
    return shown


# -- names ------------------------------------------------------------------------------------------------------------


def _names(schedule: Node, spans: Sequence[tuple[int, int | None, str]]) -> list[str]:
    """A name for each phase; their shapes where the curve cannot be looked at."""
    try:
        parts = _parts(_core(schedule._with_initial(1.0)), spans)
    except ScheduleError:  # a value is not finite: there is no picture either
        return [what for _, _, what in spans]
    if any(part.cycle < 0 for part in parts):  # cycles within cycles, or of two repeats
        return [part.what for part in parts]
    if max((part.cycle for part in parts), default=0) < 2:  # noqa: PLR2004  one cycle is none
        return _called(parts)
    runs = [list(run) for _, run in itertools.groupby(parts, key=lambda part: part.cycle)]
    several = any(len(run) > 1 for run in runs if run[0].cycle)
    # Of what stands outside, all cycles are one part that goes up and down.
    outside = _called(
        [part for run in runs for part in (run if not run[0].cycle else [run[0]._replace(move="")])]
    )
    names: list[str] = []
    for run in runs:
        if not run[0].cycle:
            names += outside[: len(run)]
        elif several:
            names += [f"cycle {run[0].cycle}, {name}" for name in _called(run, cycle=True)]
        else:
            names.append(f"cycle {run[0].cycle}")
        outside = outside[len(run) if not run[0].cycle else 1 :]
    return names


def _core(schedule: Node) -> Node:
    """What its phases are those of: the side that changes of `1.0 - a`, `c / a`, `c * a`."""
    while schedule.kind == "combine":
        sides = [side for side in schedule.children() if side.constant_from != 0]
        if len(sides) != 1:
            break
        (schedule,) = sides
    return schedule


def _parts(core: Node, spans: Sequence[tuple[int, int | None, str]]) -> list[_Part]:
    """What the curve does in each phase, from a few of its values."""
    looked = []
    for start, stop, what in spans:
        until = stop if stop is not None else max(start + 2, core._reach())
        # Of one step: where it leads, which tells a warm-up of one step from a level.
        last = until if until - start == 1 and "constant" not in what else until - 1
        looked.append(np.unique(np.linspace(start, last, _LOOKED_AT).round()))
    values = sample(core, np.concatenate(looked))
    pieces = np.split(values, np.cumsum([len(steps) for steps in looked])[:-1])
    parts = []
    for (start, stop, what), mine in zip(spans, pieces, strict=True):
        parts.append(
            _Part(what, _move(mine), float(mine[0]), float(mine[-1]), _cycle(what), stop == start + 1)
        )
    return parts


def _cycle(what: str) -> int:
    """Which cycle a phase is in."""
    cycles = set(_CYCLE.findall(what))
    if not cycles:
        return 0
    return int(cycles.pop()) if len(cycles) == 1 and not _NESTED.search(what) else -1


def _move(values: Array) -> str:
    noise = _NOISE * float(np.abs(values).max())
    change = np.diff(values)
    if (np.abs(change) <= noise).all():
        return "hold"
    return "rise" if (change >= -noise).all() else "fall" if (change <= noise).all() else ""


def _called(parts: Sequence[_Part], *, cycle: bool = False) -> list[str]:
    """What parts that follow each other are called; numbered where a name occurs again.

    Args:
        parts: in order.
        cycle: whether they are one cycle, whose rise and fall are no warm-up and decay if nothing is held between.
    """
    shown = [part for part in parts if part.what != HOLDS]
    moves = [part.move for part in shown if part.move != "hold"]
    held = len(moves) < len(shown)
    learns = (moves[:1] == ["rise"] or "rise" not in moves) and (held or not cycle)
    words = []
    for i, part in enumerate(parts):
        before, after = parts[:i], [later for later in parts[i + 1 :] if later.what != HOLDS]
        if part.what == HOLDS or not part.move or (part.move == "hold" and len(shown) == 1):
            words.append(part.what)
        elif part.move == "hold":
            words.append(_level(part, before, after, learns=learns))
        elif not learns:
            words.append(part.move)
        elif part.move == "rise":
            words.append("warm-up" if any(later.move != "rise" for later in after) else "rise")
        else:
            words.append(_fall(part, after))
    return _numbered(parts, words)


def _level(part: _Part, before: Sequence[_Part], after: Sequence[_Part], *, learns: bool) -> str:
    """A level among others, the stable phase, or what waits for something."""
    beside = [other for other in (*before[-1:], *after[:1]) if other.move == "hold" and other.what != HOLDS]
    if part.short and before and before[-1].move == "rise" and after and after[0].first == part.first:
        return "warm-up" if learns else "rise"  # its last step
    if any(other.first != part.first for other in beside):
        return "level"
    waits = "rise" in {other.move for other in after} and all(other.move == "hold" for other in before)
    return "stable" if learns and part.first != 0.0 and not waits else "hold"


def _fall(part: _Part, after: Sequence[_Part]) -> str:
    """A decay, or a cool-down to a level; of several shapes in a row the last is, and the others keep their names."""
    run = [part, *itertools.takewhile(lambda later: later.move == "fall", after)]
    if run[-1].what != part.what:
        return part.what
    following = after[len(run) - 1 :][:1]
    goes_on = any(level.move == "hold" and 0.0 != level.first <= run[-1].last for level in following)
    return "cool-down" if goes_on else "decay"


def _numbered(parts: Sequence[_Part], words: Sequence[str]) -> list[str]:
    """The words, with a number behind those that occur again; a part that goes on with the one before counts once."""
    of: list[int] = []  # which phase each part belongs to
    called: list[str] = []
    for i, (part, word) in enumerate(zip(parts, words, strict=True)):
        before = parts[i - 1] if i and words[i - 1] == word and part.move == "hold" else None
        if before is None or (before.first != part.first and before.move != "rise"):
            called.append(word)
        of.append(len(called) - 1)
    often, seen = collections.Counter(called), collections.Counter[str]()
    for number, word in enumerate(called):
        seen[word] += 1
        if word in _COUNTED and often[word] > 1:
            called[number] = f"{word} {seen[word]}"
    return [called[number] for number in of]

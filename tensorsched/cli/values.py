"""`values`: the values of schedules at some steps, as CSV, JSON or a table, written as they are computed."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from tensorsched.cli.source import read_schedules
from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief, sample
from tensorsched.schedules.views.terminal import write

_CHUNK = 1 << 16  # values computed and written at a time
_WIDE = 13  # characters of a number with six digits, sign and exponent


def run(options: argparse.Namespace) -> int:
    """Write the values; the exit status."""
    schedules = read_schedules(options.expr)
    wanted = _wanted(options.steps, schedules)
    for schedule in schedules:
        schedule(wanted[0])  # what has no values is an error before anything is written
    {"csv": _csv, "json": _json, "table": _table}[options.format](schedules, wanted)
    return 0


def _wanted(chosen: Sequence[int] | None, schedules: Sequence[Schedule]) -> Sequence[int]:
    """The steps: those that were asked for, or all of the longest schedule, and its end."""
    if chosen is not None:
        return chosen
    lengths = [schedule.steps for schedule in schedules if schedule.steps is not None]
    if not lengths:
        raise ScheduleError(
            f"values of an unbounded schedule need --steps, for example --steps 1000: {brief(schedules[0])}"
        )
    return range(max(lengths) + 1)


def _csv(schedules: Sequence[Schedule], wanted: Sequence[int]) -> None:
    heads = ["value"] if len(schedules) == 1 else [brief(schedule) for schedule in schedules]
    csv.writer(sys.stdout, lineterminator="\n").writerow(["step", *heads])
    for steps, columns in _chunks(schedules, wanted):
        rows = zip(steps, *(map(repr, column) for column in columns), strict=True)
        write(*(",".join(map(str, row)) for row in rows))


def _table(schedules: Sequence[Schedule], wanted: Sequence[int]) -> None:
    """Columns for people: six digits, and numbers for the schedules where there are several."""
    heads = ["value"]
    if len(schedules) > 1:
        heads = [str(number) for number in range(1, len(schedules) + 1)]
        write(*(f"{head}  {brief(schedule)}" for head, schedule in zip(heads, schedules, strict=True)), "")
    first = max(len(str(wanted[0])), len(str(wanted[-1])), len("step"))
    write("  ".join(["step".rjust(first), *(head.rjust(_WIDE) for head in heads)]))
    for steps, columns in _chunks(schedules, wanted):
        for step, *numbers in zip(steps, *columns, strict=True):
            write("  ".join([str(step).rjust(first), *(f"{number:{_WIDE}.6g}" for number in numbers)]))


def _json(schedules: Sequence[Schedule], wanted: Sequence[int]) -> None:
    """One schedule and its values; of several a list each."""
    one = len(schedules) == 1
    shown = [brief(schedule) for schedule in schedules]
    head = f'"schedule": {json.dumps(shown[0])}' if one else f'"schedules": {json.dumps(shown)}'
    sys.stdout.write(f'{{{head}, "steps": [')
    _listed(map(str, steps) for steps, _ in _chunks([], wanted))
    sys.stdout.write('], "values": ' + ("" if one else "["))
    for i, schedule in enumerate(schedules):
        sys.stdout.write(", [" if i else "[")
        _listed(map(repr, column) for _, (column,) in _chunks([schedule], wanted))
        sys.stdout.write("]")
    sys.stdout.write("}\n" if one else "]}\n")


def _listed(chunks: Iterator[Iterator[str]]) -> None:
    for i, chunk in enumerate(chunks):
        sys.stdout.write((", " if i else "") + ", ".join(chunk))


def _chunks(
    schedules: Sequence[Schedule], wanted: Sequence[int]
) -> Iterator[tuple[Sequence[int], list[list[float]]]]:
    """Steps and the values of each schedule, a chunk at a time, so that `| head` does not wait for millions."""
    for low in range(0, len(wanted), _CHUNK):
        steps = wanted[low : low + _CHUNK]
        at = np.array(steps, dtype=np.float64)
        yield steps, [sample(schedule, at).tolist() for schedule in schedules]

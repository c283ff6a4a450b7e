"""Part 8: where the microseconds of a step go, by cProfile.

The profiler makes each call of a Python function dearer, and so shifts the shares towards small functions. The time of
a step is taken without it; the shares are the profiler's.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cases
import torch
from timing import Competitor, race

import tensorsched as ts

Record = dict[str, object]
Own = tuple[float, int, str, int, str]
"""Seconds in the function itself, calls, file, line, name."""

MOST_LINES = 6
HEAD = ("what is stepped", "us a step", "share", "calls", "in")


def part(options: argparse.Namespace) -> list[Record]:
    """Profile each way of stepping."""
    return [_profiled(competitor, options) for competitor in _ways()]


def rows_of(records: Sequence[Record]) -> Iterator[Sequence[str]]:
    """The table's lines: those of one way below each other."""
    for record in records:
        for number, line in enumerate(record["lines"]):  # type: ignore[arg-type]
            head = (str(record["name"]), f"{record['us']:.2f}") if number == 0 else ("", "")
            yield (*head, f"{line['share']:.0%}", f"{line['calls']:g}", line["function"])


def _ways() -> list[Competitor]:
    tensors, floats = cases.attached_steps(128)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1)) for _ in range(2)], lr=0.1)
    sched = ts.attach(optimizer, lr=ts.cosine(0.1, 0.0, steps=cases.STEPS))
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros(1)
    return [
        Competitor("sched.step(), tensor slots, 128 groups", tensors.call, tensors.rewind),
        Competitor("sched.step(), float slots, 128 groups", floats.call, floats.rewind),
        Competitor("optimizer.step() of SGD, 2 parameters", lambda: optimizer.step(), lambda: sched.seek(0)),  # noqa: PLW0108
    ]


def _profiled(competitor: Competitor, options: argparse.Namespace) -> Record:
    run = race([competitor], rounds=options.rounds, block_s=options.block_ms / 1e3)
    calls = options.profile_calls
    profile = cProfile.Profile()
    competitor.rewind()
    competitor.call()
    _run(profile, competitor.call, calls)
    own = _own(profile)
    return {
        "name": competitor.name,
        "us": round(run.time(competitor.name).median, 4),
        "by_package": _by_package(own),
        "lines": list(_lines(own, calls)),
    }


def _run(profile: cProfile.Profile, call: Callable[[], object], calls: int) -> None:
    profile.enable()
    for _ in range(calls):
        call()
    profile.disable()


def _own(profile: cProfile.Profile) -> list[Own]:
    """Every function by the time spent in itself, the largest first; not the profiler's own."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # (file, line, name) -> (.., calls, own time, ..)
    own = [(times[2], times[1], *key) for key, times in stats.items() if "_lsprof" not in key[2]]
    return sorted(own, reverse=True)


def _by_package(own: Sequence[Own]) -> dict[str, float]:
    """The shares of tensorsched's and of torch's Python functions, and of what is written in C (both call it)."""
    total = sum(seconds for seconds, *_ in own)
    shares = dict.fromkeys(("tensorsched", "torch", "C"), 0.0)
    for seconds, _, file, *_ in own:
        package = (
            "C" if file == "~" else next((p for p in ("tensorsched", "torch") if p in Path(file).parts), "")
        )
        shares[package] = shares.get(package, 0.0) + seconds / total
    return {name or "other Python": round(share, 4) for name, share in shares.items()}


def _lines(own: Sequence[Own], calls: int) -> Iterator[Record]:
    """The functions with the largest share of the time, and the rest as one."""
    total = sum(seconds for seconds, *_ in own)
    for seconds, count, *name in own[:MOST_LINES]:
        yield {"function": _name(*name), "share": round(seconds / total, 4), "calls": round(count / calls, 3)}
    rest = own[MOST_LINES:]
    if rest:
        yield {
            "function": f"{len(rest)} others",
            "share": round(sum(seconds for seconds, *_ in rest) / total, 4),
            "calls": round(sum(count for _, count, *_ in rest) / calls, 3),
        }


def sentence(record: Record) -> str:
    """How the time divides between packages."""
    shares = record["by_package"].items()  # type: ignore[attr-defined]
    return f"{record['name']}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares)


def _name(file: str, line: int, function: str) -> str:
    """As in cProfile's own tables, without the folders."""
    return (
        function.strip("<>")
        if file == "~"
        else f"{Path(file).parent.name}/{Path(file).name}:{line} {function}"
    )

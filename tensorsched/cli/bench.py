"""`bench`: what it costs the host to move every group's learning rate by one step, ours beside torch's.

All take turns in one process, block by block in a changing order, so that a busy machine is busy for all. Times are
this thread's processor time; nothing here waits for a device. Read the ratios: the microseconds belong to the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.optim import lr_scheduler

import tensorsched as ts
from tensorsched.schedules.views.terminal import table

_STEPS = 10_000  # of the schedules: they still move at the end of a block
_BLOCK_S = 2e-3
_MOST_CALLS = 2_000

Step = Callable[[], object]
Call = tuple[Step, Step]
"""What is timed, and what goes before a block of it."""


def run(options: argparse.Namespace) -> int:
    """Time, print a table, and write the JSON that was asked for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = {groups: _race(_competitors(groups), options.rounds) for groups in options.groups}
    finally:
        torch.set_num_threads(threads)
    here = _machine()
    print(*(f"{key}: {value}" for key, value in here.items()), sep="   ")
    print(
        "\nHost microseconds a step, the middle of the rounds (quartiles), and how many times less than the first:\n"
    )
    rows = [("groups", "schedule", "us", "quartiles", "ratio")]
    for groups, times in figures.items():
        slow = next(iter(times.values()))
        for name, us in times.items():
            low, middle, high = np.percentile(us, [25, 50, 75])
            ratio = statistics.median(s / t for s, t in zip(slow, us, strict=True))
            shown = f"{ratio:.1f}x" if us is not slow else ""
            rows.append((str(groups), name, f"{middle:.2f}", f"{low:.2f}..{high:.2f}", shown))
    print(*table(rows, right=(0, 2, 3, 4)), sep="\n")
    print(
        "\nFloat slots are checked for external writes as they are written; tensor slots just before the next "
        "optimizer.step(), which is not in these figures."
    )
    if options.json:
        record = {"machine": here, "us": {str(groups): times for groups, times in figures.items()}}
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"\nwrote {options.json}")
    return 0


def _competitors(groups: int) -> dict[str, Call]:
    return {
        "torch CosineAnnealingLR": _torch(groups, tensor=False),
        "torch CosineAnnealingLR, tensor lr": _torch(groups, tensor=True),
        "tensorsched, float slots": _ours(groups, resident=False),
        "tensorsched, tensor slots": _ours(groups, resident=True),
    }


def _optimizer(groups: int, *, tensor: bool) -> torch.optim.Optimizer:
    """One parameter of one element in each group: only the schedule's cost grows with the groups."""
    rates = [0.1 * (1 + i / groups) for i in range(groups)]
    made = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(lr) if tensor else lr}
        for lr in rates
    ]
    return torch.optim.SGD(made)


def _torch(groups: int, *, tensor: bool) -> Call:
    optimizer = _optimizer(groups, tensor=tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=_STEPS)
        optimizer.step()  # without gradients it does nothing; the scheduler warns where no step came before its own
        scheduler.step()
    return scheduler.step, lambda: None


def _ours(groups: int, *, resident: bool) -> Call:
    curve = ts.initial * ts.cosine(1.0, 0.0, steps=_STEPS)
    optimizer = _optimizer(groups, tensor=False)
    optimizer.step = optimizer.step  # type: ignore[method-assign]  # a step of its own: sched.step() counts every call
    sched = ts.attach(optimizer, lr=curve, advance="manual", resident=resident)

    def rewind(
        kept: torch.optim.Optimizer = optimizer,
    ) -> None:  # a schedule does not keep its optimizer alive
        del kept
        sched.seek(0)

    return sched.step, rewind


def _race(competitors: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Microseconds a call, for each competitor and round; finding out how many calls fill a block is the warm-up."""
    calls = {name: _calls(call) for name, call in competitors.items()}
    us: dict[str, list[float]] = {name: [] for name in competitors}
    names = list(competitors)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            us[name].append(_seconds(competitors[name], calls[name]) / calls[name] * 1e6)
    return us


def _calls(call: Call) -> int:
    count = 1
    while _seconds(call, count) < _BLOCK_S / 2 and count < _MOST_CALLS:
        count *= 2
    return count


def _seconds(call: Call, count: int) -> float:
    step, rewind = call
    rewind()
    step()  # what ran before has left its traces in the caches
    turns = itertools.repeat(None, count)
    began = time.thread_time()
    for _ in turns:
        step()
    return time.thread_time() - began


def _machine() -> dict[str, object]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tensorsched": ts.__version__,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"

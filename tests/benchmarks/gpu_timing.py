"""Device time, side by side: blocks of the competitors in turn, between two CUDA events each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from timing import Spread


def device_us(
    calls: Mapping[str, Callable[[], object]], rounds: int = 30, repeat: int = 50
) -> dict[str, Spread]:
    """Device microseconds a call."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            call()
            start.record()
            for _ in range(repeat):
                call()
            end.record()
            torch.cuda.synchronize()
            taken[name].append(start.elapsed_time(end) / repeat * 1e3)
    return {name: Spread.of(us) for name, us in taken.items()}

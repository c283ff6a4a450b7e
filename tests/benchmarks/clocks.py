"""Times a clock of tokens beside the step clock: `python tests/benchmarks/clocks.py [--out FILE]`.

What happens at a step, both hooks, with the lr of every group scheduled; of the token clock also `sched.count(n)` with
an int. As a device's kernels are launched: the same with the device's driver on the CPU, whose kernels are launched one
by one there too. Ratios within each round, side by side in one process; read those.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from cases import STEPS, tiny_sgd
from machine import load, machine
from timing import Competitor, race

import tensorsched as ts
from tensorsched.engine import clocked, drivers

CLOCKS = {"steps": None, "tokens": ts.clock("tokens")}
TOKENS = 1 << 19  # a step
ROWS: dict[str, dict[str, Any]] = {
    "float slots": {"resident": False},
    "tensor slots": {"resident": True},
    "tensor slots, a device's driver": {"resident": True},
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write JSON")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--block-ms", type=float, default=3.0)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 128, 1024])
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine(), "us": {}, "ratio": {}}
    for groups in options.groups:
        made = [_competitor(row, unit, groups) for row in ROWS for unit in CLOCKS]
        times = race(made, rounds=options.rounds, block_s=options.block_ms / 1000)
        for row in ROWS:
            steps, tokens = (f"{row}, {unit}" for unit in CLOCKS)
            ratio = times.ratio(tokens, steps)
            us = {unit: times.time(f"{row}, {unit}").median for unit in CLOCKS}
            print(
                f"{groups:5d} groups, {row:32s} steps {us['steps']:7.2f} us, tokens {us['tokens']:7.2f} us: "
                f"{ratio.median:.2f}x ({ratio.quartiles[0]:.2f} to {ratio.quartiles[1]:.2f})"
            )
            result["us"][f"{row}, {groups} groups"] = us
            result["ratio"][f"{row}, {groups} groups"] = [ratio.median, *ratio.quartiles]
    result["load_at_end"] = load()
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _competitor(row: str, unit: str, groups: int) -> Competitor:
    """Both hooks, and the count in front of them where there is one."""
    optimizer, clock = tiny_sgd(groups), CLOCKS[unit]
    curve = ts.initial * ts.cosine(1.0, 0.0, steps=STEPS * (1 if clock is None else TOKENS))
    device = "driver" in row
    with (
        mock.patch.object(drivers, "CpuDriver", drivers.DeviceDriver if device else drivers.CpuDriver),
        mock.patch.object(clocked, "CpuClock", clocked.DeviceClock if device else clocked.CpuClock),
    ):
        sched = ts.attach(optimizer, lr=curve, clock=clock, **ROWS[row])
    (before,) = optimizer._optimizer_step_pre_hooks.values()
    (after,) = optimizer._optimizer_step_post_hooks.values()
    args, kwargs = (optimizer,), {}

    def step() -> None:
        before(optimizer, args, kwargs)
        after(optimizer, args, kwargs)

    def counted_step() -> None:
        sched.count(TOKENS)
        before(optimizer, args, kwargs)
        after(optimizer, args, kwargs)

    return Competitor(f"{row}, {unit}", step if clock is None else counted_step, lambda: sched.seek(0))


if __name__ == "__main__":
    main()

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


HEAD = ("groups", "slots", "steps, us", "tokens, us", "tokens / steps", "IQR")


def part(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the benchmark keeps: microseconds a step on either clock, and their ratio in each round."""
    records = []
    for groups in options.groups:
        made = [_competitor(row, unit, groups) for row in ROWS for unit in CLOCKS]
        times = race(made, rounds=options.rounds, block_s=options.block_ms / 1000)
        for row in ROWS:
            steps, tokens = (f"{row}, {unit}" for unit in CLOCKS)
            ratio = times.ratio(tokens, steps)
            records.append(
                {
                    "groups": groups,
                    "slots": row,
                    "us": {unit: round(times.time(f"{row}, {unit}").median, 5) for unit in CLOCKS},
                    "ratio": {
                        "median": round(ratio.median, 4),
                        "quartiles": [round(q, 4) for q in ratio.quartiles],
                    },
                }
            )
    return records


def rows_of(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The same, as lines of a table."""
    return [
        (
            *(f"{r['groups']}", r["slots"], *(f"{r['us'][unit]:.2f}" for unit in CLOCKS)),
            f"{r['ratio']['median']:.2f}x",
            " .. ".join(f"{q:.2f}x" for q in r["ratio"]["quartiles"]),
        )
        for r in records
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write JSON")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--block-ms", type=float, default=3.0)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 128, 1024])
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine(), "clocks": part(options), "load_at_end": load()}
    for line in (HEAD, *rows_of(result["clocks"])):
        print("  ".join(cell.ljust(32) if at == 1 else cell.rjust(16) for at, cell in enumerate(line)))
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

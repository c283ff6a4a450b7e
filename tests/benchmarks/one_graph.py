"""Times compiled optimizer steps on the CPU with inductor: `make bench-graph`, or `make bench-graph ARGS='--groups 8'`.

For each number of param_groups, in one process, block by block in turn (timing.py):

    constant    the undecorated step with Python floats for lr, weight_decay and betas, as one graph
    scheduled   ts.compile_step with a schedule for lr, weight_decay and beta1 of every group, all different;
                the whole call, the check for external writes included
    stock       the same graph as `constant` with a tensor lr, and torch's CosineAnnealingLR after it (lr alone)

and how long each takes to compile, with empty caches.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import inspect
import json
import statistics
import time
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from machine import HERE, load, machine
from timing import Competitor, race

import tensorsched as ts

STEPS = 10_000
Step = Callable[[], object]


def optimizer(groups: int, *, tensor_lr: bool = False) -> torch.optim.Optimizer:
    """AdamW with one 32 x 32 parameter in each of the groups, and gradients."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(32, 32)) for _ in range(groups)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    made = torch.optim.AdamW([{"params": [p], "lr": 1e-3} for p in parameters])
    for group in made.param_groups:
        if tensor_lr:
            group["lr"] = torch.tensor(1e-3)
    return made


def constant(groups: int) -> Step:
    return _graph(optimizer(groups))


def stock(groups: int) -> Step:
    made = optimizer(groups, tensor_lr=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(made, STEPS)
    step = _graph(made)

    def call() -> None:
        step()
        scheduler.step()

    return call


def scheduled(groups: int) -> Step:
    made = optimizer(groups)
    lr = ts.cosine(1e-3, 1e-5, steps=STEPS)
    decay, beta = ts.linear(0.1, 0.01, steps=STEPS), ts.linear(0.85, 0.95, steps=STEPS)
    scale = [1 + index / groups for index in range(groups)]
    sched = ts.attach(
        made,
        lr=[s * lr for s in scale],
        weight_decay=[s * decay for s in scale],
        betas=(beta, None),
    )
    step = ts.compile_step(sched)
    step()  # eager: makes the state
    return step


def _graph(made: torch.optim.Optimizer) -> Step:
    raw = inspect.unwrap(type(made).step)
    made.step()
    for group in made.param_groups:
        group["capturable"] = True

    def step() -> None:
        raw(made)

    # A code object of its own: compiled code hangs on it.
    own = types.FunctionType(step.__code__.replace(), globals(), None, None, step.__closure__)
    compiled = torch.compile(own, fullgraph=True, dynamic=False)

    def call() -> None:
        with torch.no_grad():
            compiled()

    return call


WAYS = {"constant": constant, "scheduled": scheduled, "stock": stock}


def first_call(make: Callable[[int], Step], groups: int, repeat: int) -> tuple[Step, list[float]]:
    """The compiled step, and the seconds that each of `repeat` compilations of it took."""
    seconds = []
    for _ in range(repeat):
        gc.collect()
        step = make(groups)
        start = time.process_time()
        with torch._inductor.config.patch(fx_graph_cache=False, force_disable_caches=True, compile_threads=1):
            step()
        seconds.append(time.process_time() - start)
    return step, seconds


def measure(groups: int, options: argparse.Namespace) -> dict[str, object]:
    steps: dict[str, Step] = {}
    compile_s: dict[str, list[float]] = {}
    for name, make in WAYS.items():
        steps[name], compile_s[name] = first_call(make, groups, options.compiles)
        print(
            f"  {groups} groups, {name}: compiled in {min(compile_s[name]):.1f} s of processor time",
            flush=True,
        )
    competitors = [Competitor(name, step) for name, step in steps.items()]
    result = race(competitors, rounds=options.rounds, block_s=options.block_s)
    record: dict[str, object] = {"groups": groups}
    for name in WAYS:
        record[name] = {
            "us": dataclasses.asdict(result.time(name)),
            "to_constant": dataclasses.asdict(result.ratio(name, "constant")),
            "compile_s": compile_s[name],
            "compile_to_constant": statistics.median(compile_s[name])
            / statistics.median(compile_s["constant"]),
        }
    return record


def show(record: dict[str, object]) -> None:
    for name in WAYS:
        row = record[name]
        ratio, low_high = row["to_constant"], row["to_constant"]["quartiles"]
        print(
            f"{record['groups']:>6} {name:<10} {row['us']['median']:>10.1f} us  "
            f"{ratio['median']:.3f} of constant (quartiles {low_high[0]:.3f} .. {low_high[1]:.3f})  "
            f"compile {row['compile_to_constant']:.2f} of constant",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, nargs="+", default=[8, 128, 512])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--block-s", type=float, default=0.1)
    parser.add_argument("--compiles", type=int, default=1)
    parser.add_argument("--out", type=Path, nargs="?", const=HERE / "results" / "one_graph_cpu.json")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    result: dict[str, object] = {"machine": machine(), "records": []}
    for make in WAYS.values():  # the compiler's own first time
        make(2)()
    for groups in options.groups:
        record = measure(groups, options)
        show(record)
        result["records"].append(record)
    result["load_at_end"] = load()
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {options.out}")


if __name__ == "__main__":
    main()

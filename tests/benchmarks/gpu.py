"""What schedules cost on a GPU, side by side in one run: `make bench-gpu`; writes results/<gpu-name>.json.

frozen     update sizes of a captured AdamW step: torch's float lr and scheduler, and tensorsched
replay     a captured step with scheduled hyperparameters over the same with constants, and the kernels added
host       host microseconds to move the lr of 1, 8, 128, 1024 groups by one step, beside torch's scheduler
training   tokens a second of a small GPT: eager with torch's scheduler, and the whole step captured and replayed
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import HERE, machine
from timing import Competitor, Spread, race
from torch import nn
from torch.profiler import ProfilerActivity, profile

import tensorsched as ts

STOCK, OURS = "torch CosineAnnealingLR, tensor lr", "ours, tensor slots"
STEPS = 10_000
LR = ts.warmup_cosine(1e-3, total=STEPS, warmup=500, floor=1e-5)
WD = ts.linear(0.1, 0.01, steps=STEPS)
BETA2 = ts.linear(0.95, 0.99, steps=STEPS)
Step = Callable[[], object]


def optimizer(groups: int, *, shape: tuple[int, ...] = (256, 256), **options: Any) -> torch.optim.AdamW:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, device="cuda")) for _ in range(groups)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return torch.optim.AdamW(
        [{"params": [p]} for p in parameters], **({"lr": 1e-3, "capturable": True} | options)
    )


def capture(step: Step, warm_up: int = 3) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def kernels(call: Step) -> int:
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in seen.events())


def device_us(calls: dict[str, Step], rounds: int = 30, repeat: int = 50) -> dict[str, Spread]:
    """Device microseconds a call, blocks in turn."""
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


def frozen() -> dict[str, Any]:
    """The largest change of a parameter in each of 20 replays: with AdamW about the lr that was used."""
    found: dict[str, Any] = {"schedule": [LR(3 + i) for i in range(20)]}
    for name in ("torch", "tensorsched"):
        made = optimizer(1)
        advance: Step = bool
        if name == "torch":
            advance = torch.optim.lr_scheduler.LambdaLR(made, lambda step: LR(step) / 1e-3).step
        else:
            ts.attach(made, lr=LR)

        def step(made: Any = made) -> None:
            made.step()

        for _ in range(3):
            step()
            advance()
        graph = capture(step, warm_up=0)
        parameter, sizes = made.param_groups[0]["params"][0], []
        for _ in range(20):
            before = parameter.detach().clone()
            graph.replay()
            advance()
            sizes.append((parameter.detach() - before).abs().max().item())
        found[name] = sizes
    return found


def one_graph(groups: int, *, scheduled: bool) -> Step:
    made = optimizer(groups, foreach=True)
    if scheduled:
        step = ts.compile_step(ts.attach(made, lr=LR, weight_decay=WD, betas=(None, BETA2)))
        step()
        step()
        return step
    raw = inspect.unwrap(type(made).step)
    made.step()

    def plain() -> None:
        raw(made)

    compiled = torch.compile(plain, fullgraph=True, dynamic=False)

    def call() -> None:
        with torch.no_grad():
            compiled()

    call()
    return call


def replay(groups: Sequence[int]) -> list[dict[str, Any]]:
    records = []
    for count in groups:
        steps = {name: one_graph(count, scheduled=name == "scheduled") for name in ("constant", "scheduled")}
        launched = {name: kernels(step) for name, step in steps.items()}
        graphs = {name: capture(step) for name, step in steps.items()}
        us = device_us({name: graph.replay for name, graph in graphs.items()})
        record = {
            "groups": count,
            "us": {name: spread.median for name, spread in us.items()},
            "ratio": us["scheduled"].median / us["constant"].median,
            "kernels": launched,
        }
        eager = optimizer(count)
        before = kernels(eager.step)
        ts.attach(eager, lr=LR)
        record["kernels_added_eager"] = kernels(eager.step) - before
        print(record, flush=True)
        records.append(record)
    return records


def host(groups: Sequence[int]) -> list[dict[str, Any]]:
    records = []
    for count in groups:
        stock = optimizer(count, shape=(4,), lr=torch.tensor(1e-3, device="cuda"))
        for group in stock.param_groups:
            group["lr"] = group["lr"].clone()
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(stock, STEPS)
        sched = ts.attach(optimizer(count, shape=(4,)), lr=LR, advance="manual")
        competitors = [Competitor(STOCK, scheduler.step), Competitor(OURS, sched.step)]
        result = race(competitors, rounds=15, block_s=0.02)
        record = {"groups": count, "us": {c.name: result.time(c.name).median for c in competitors}}
        record["ratio"] = result.ratio(STOCK, OURS).median
        print(record, flush=True)
        records.append(record)
        torch.cuda.synchronize()
    return records


class GPT(nn.Module):
    """A decoder of `layers` blocks, as small as is still a GPT."""

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(context, width))
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        hidden = self.blocks(self.tokens(inputs) + self.places, mask=self.mask, is_causal=True)
        return nn.functional.cross_entropy(self.head(hidden).flatten(0, 1), targets.flatten())


def training(batch: int, context: int, width: int, layers: int, steps: int) -> dict[str, Any]:
    tokens = torch.randint(1000, (batch, context + 1), device="cuda")
    inputs, targets = tokens[:, :-1].clone(), tokens[:, 1:].clone()
    found: dict[str, Any] = {}
    for name in ("eager, torch", "captured, ours"):
        torch.manual_seed(0)
        model = GPT(1000, context, width, layers, 8).cuda()
        made = torch.optim.AdamW(model.parameters(), lr=1e-3, capturable=True)
        advance: Step = bool
        if name == "eager, torch":
            advance = torch.optim.lr_scheduler.LambdaLR(made, lambda step: LR(step) / 1e-3).step
            step: Step = made.step
        else:
            step = ts.compile_step(ts.attach(made, lr=LR, weight_decay=WD, betas=(None, BETA2)))

        def whole(model: Any = model, made: Any = made, step: Step = step) -> None:
            made.zero_grad(set_to_none=False)
            model(inputs, targets).backward()
            step()

        for _ in range(5):
            whole()
            advance()
        call: Step = whole if name == "eager, torch" else capture(whole).replay
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            call()
            advance()
        torch.cuda.synchronize()
        found[name] = batch * context * steps / (time.perf_counter() - start)
    found["ratio"] = found["captured, ours"] / found["eager, torch"]
    print({k: round(v, 3) for k, v in found.items()}, flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 8, 128])
    parser.add_argument("--host-groups", type=int, nargs="+", default=[1, 8, 128, 1024])
    parser.add_argument("--out", type=Path, help="a folder, or a file; default: results/<gpu-name>.json")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: run this where there is one")
    warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")
    name = torch.cuda.get_device_name().replace(" ", "-")
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    result: dict[str, Any] = {
        "machine": machine() | {"gpu": name, "driver": driver, "cuda": torch.version.cuda}
    }
    result["frozen"] = frozen()
    result["replay"] = replay(options.groups)
    result["host"] = host(options.host_groups)
    result["training"] = training(batch=16, context=256, width=512, layers=6, steps=100)
    out = options.out or HERE / "results"
    out = out if out.suffix == ".json" else out / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()

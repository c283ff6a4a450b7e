"""What schedules cost on a GPU, side by side in one run: `make bench-gpu`; writes results/<gpu-name>.json.

tensor_lr  device time of eager steps with the lr as a 0-dim tensor over the same with a float (gpu_tensor_lr.py)
frozen     update sizes of a captured AdamW step: torch's float lr and scheduler, and tensorsched
host       host microseconds to move the lr of 1, 8, 128, 1024 groups by one step, beside torch's scheduler
replay     a captured step with scheduled hyperparameters over the same with constants, and the kernels added
training   tokens a second of a small GPT: eager with torch's scheduler, and the whole step captured and replayed with
           a constant lr, a scheduled lr, and three scheduled hyperparameters

`make gpu-day` runs tests/gpu as well, after the first part. What is done is written after every part, so that a run
that is cut off keeps it, and a part that fails is an error in the file and not the end of the others.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gpu_tensor_lr
import torch
from gpu_timing import device_us
from machine import HERE, machine
from timing import Competitor, race
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


def replay(groups: Sequence[int], rounds: int = 30, repeat: int = 50) -> list[dict[str, Any]]:
    records = []
    for count in groups:
        steps = {name: one_graph(count, scheduled=name == "scheduled") for name in ("constant", "scheduled")}
        launched = {name: kernels(step) for name, step in steps.items()}
        graphs = {name: capture(step) for name, step in steps.items()}
        us = device_us({name: graph.replay for name, graph in graphs.items()}, rounds=rounds, repeat=repeat)
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


def host(groups: Sequence[int], rounds: int = 15) -> list[dict[str, Any]]:
    records = []
    for count in groups:
        stock = optimizer(count, shape=(4,), lr=torch.tensor(1e-3, device="cuda"))
        for group in stock.param_groups:
            group["lr"] = group["lr"].clone()
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(stock, STEPS)
        made = optimizer(count, shape=(4,))  # an attachment does not keep it alive
        made.step = made.step  # a step of its own: sched.step() counts every call
        sched = ts.attach(made, lr=LR, advance="manual")
        competitors = [Competitor(STOCK, scheduler.step), Competitor(OURS, sched.step)]
        result = race(competitors, rounds=rounds, block_s=0.02)
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


SCHEDULED: dict[str, dict[str, Any]] = {
    "eager, torch's scheduler": {},
    "captured, constant lr": {},
    "captured, lr": {"lr": LR},
    "captured, lr and weight decay and beta2": {"lr": LR, "weight_decay": WD, "betas": (None, BETA2)},
}


def training(batch: int, context: int, width: int, layers: int, rounds: int, repeat: int) -> dict[str, Any]:
    """Tokens a second; the blocks of the four take turns."""
    tokens = torch.randint(1000, (batch, context + 1), device="cuda")
    inputs, targets = tokens[:, :-1].clone(), tokens[:, 1:].clone()
    runs = {
        name: _trained(name, schedules, inputs, targets, (context, width, layers))
        for name, schedules in SCHEDULED.items()
    }
    us = device_us(runs, rounds=rounds, repeat=repeat)
    found = {name: batch * context / spread.median * 1e6 for name, spread in us.items()}
    eager = found["eager, torch's scheduler"]
    found |= {f"{name}, over eager": found[name] / eager for name in runs}
    print({k: round(v, 3) for k, v in found.items()}, flush=True)
    return found


def _trained(
    name: str,
    schedules: Mapping[str, Any],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    size: tuple[int, int, int],
) -> Step:
    """One call is one training step: of a model of its own, with what moves its hyperparameters."""
    torch.manual_seed(0)
    model = GPT(1000, *size, heads=8).cuda()
    made = torch.optim.AdamW(model.parameters(), lr=1e-3, capturable=True, foreach=True)
    step: Step = ts.compile_step(ts.attach(made, **schedules)) if schedules else made.step

    def whole() -> None:
        made.zero_grad(set_to_none=False)
        model(inputs, targets).backward()
        step()

    for _ in range(5):
        whole()
    if name.startswith("captured"):
        return capture(whole).replay
    scheduler = torch.optim.lr_scheduler.LambdaLR(made, lambda step: LR(step) / 1e-3)

    def eager() -> None:
        whole()
        scheduler.step()

    return eager


def tests() -> dict[str, Any]:
    """tests/gpu, in a process of its own; the last lines of what it printed."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-s", "--durations=10"]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=HERE.parents[1], capture_output=True, text=True, check=False, timeout=270
    )
    print(done.stdout[-4000:], done.stderr[-2000:], sep="\n", flush=True)
    tail = done.stdout.splitlines()[-60:]
    return {"status": done.returncode, "seconds": round(time.perf_counter() - start, 1), "printed": tail}


def parts(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """In order: what matters most comes first."""
    small = options.small
    first = {"tensor_lr": lambda: gpu_tensor_lr.measured(small=small)}
    if options.tests:
        first["tests"] = tests
    size = (2, 8, 16, 1, 2, 1) if small else (16, 256, 512, 6, 20, 20)
    return first | {
        "frozen": frozen,
        "host": lambda: host(options.host_groups, rounds=2 if small else 15),
        "replay": lambda: replay(options.groups, *((2, 2) if small else (30, 50))),
        "training": lambda: training(*size),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 8, 128])
    parser.add_argument("--host-groups", type=int, nargs="+", default=[1, 8, 128, 1024])
    parser.add_argument("--out", type=Path, help="a folder, or a file; default: results/<gpu-name>.json")
    parser.add_argument("--tests", action="store_true", help="run tests/gpu as well")
    parser.add_argument("--small", action="store_true", help="does it run at all: tiny sizes, few rounds")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: run this where there is one")
    warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")
    name = torch.cuda.get_device_name().replace(" ", "-")
    out = options.out or HERE / "results"
    out = out if out.suffix == ".json" else out / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "machine": machine() | {"gpu": name, "driver": _driver(), "cuda": torch.version.cuda}
    }
    failed = False
    for part, measure in parts(options).items():
        start = time.perf_counter()
        try:
            result[part] = measure()
        except Exception:  # noqa: BLE001  the other parts are worth the machine, too
            failed = True
            result[part] = {"error": traceback.format_exc()}
            print(f"{part} failed:\n{traceback.format_exc()}", flush=True)
        result.setdefault("seconds", {})[part] = round(time.perf_counter() - start, 1)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {out}")
    return int(failed or result.get("tests", {}).get("status", 0) != 0)


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())

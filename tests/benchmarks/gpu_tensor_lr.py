"""Is a 0-dim tensor lr slower than a float in torch's own eager steps? What `resident="auto"` should do hangs on it.

dion measured 10 to 30 % of device time for eager foreach and for-loop kernels (its pull request 105). Each case is a
float lr against a tensor lr on the device, the same optimizer otherwise, in turn. Where the host is slower than the
device, events between calls show the host; so each optimizer is also captured, and its replays are device time alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from gpu_timing import device_us
from torch import nn

MOST = 400_000_000
"""Elements of one case in all: parameters, gradients, two moments, of two optimizers, are 32 bytes each."""


class Case(NamedTuple):
    kind: type[torch.optim.Optimizer]
    how: str
    tensors: int
    elements: int


def cases(*, small: bool) -> Iterator[Case]:
    sizes = (
        [(2, 64)] if small else itertools.product((10, 100, 1000), (1_000, 100_000, 1_000_000, 10_000_000))
    )
    for tensors, elements in sizes:
        if tensors * elements <= MOST:
            for kind in (torch.optim.AdamW, torch.optim.SGD):
                for how in ("foreach", "loop", "fused"):
                    if (
                        how != "loop" or tensors < 1000
                    ):  # a thousand launches: the host is all that it would show
                        yield Case(kind, how, tensors, elements)


def made(case: Case, lr: Any) -> torch.optim.Optimizer:
    parameters = [nn.Parameter(torch.ones(case.elements, device="cuda")) for _ in range(case.tensors)]
    for p in parameters:
        p.grad = torch.full_like(p, 1e-3)
    options: dict[str, Any] = {case.how: True} if case.how != "loop" else {"foreach": False}
    if case.kind is torch.optim.AdamW:
        options["capturable"] = True
    else:
        options["momentum"] = 0.9
    optimizer = case.kind(parameters, lr=1e-3, **options)
    optimizer.param_groups[0]["lr"] = lr
    return optimizer


def captured(step: Callable[[], object]) -> Callable[[], object]:
    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def measured(*, small: bool = False) -> list[dict[str, Any]]:
    """A record for each case: microseconds of both, and tensor over float, eager and replayed."""
    records = []
    for case in cases(small=small):
        both = {
            "float": made(case, 1e-3).step,
            "tensor": made(case, torch.tensor(1e-3, device="cuda")).step,
        }
        record: dict[str, Any] = {
            "optimizer": case.kind.__name__, "how": case.how, "tensors": case.tensors, "elements": case.elements
        }  # fmt: skip
        rounds, repeat = (2, 2) if small else (8, 10)
        ways = {"eager": both}
        if (
            case.kind is torch.optim.AdamW or case.how == "fused"
        ):  # SGD's other steps read a tensor lr on the host
            ways["replayed"] = {key: captured(step) for key, step in both.items()}
        for name, calls in ways.items():
            us = device_us(calls, rounds=rounds, repeat=repeat)
            record[name] = {key: spread.median for key, spread in us.items()}
            record[f"{name}_ratio"] = us["tensor"].median / us["float"].median
        print(record, flush=True)
        records.append(record)
        del both, ways, calls
        torch.cuda.empty_cache()
    return records

"""Live inputs where only a GPU, or the simulated one, can show them: captured, replayed, and not waited for.

Skipped, and counted as skipped, where there is no CUDA device. Run with `make test-gpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo
from torch import nn, optim

import tensorsched as ts
from tests.gpu import test_cuda as gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
    pytest.mark.filterwarnings("ignore:.*[Pp]rofiler"),
]

kernels: Callable[[Callable[[], object]], int] = gpu.kernels  # the simulated device has its own
BASE = ts.linear(1.0, 0.0, steps=100)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch._dynamo.reset()


def sgd(groups: int = 1) -> optim.SGD:
    parameters = [nn.Parameter(torch.zeros(2, device="cuda")) for _ in range(groups)]
    for p in parameters:
        p.grad = torch.ones_like(p)
    return optim.SGD([{"params": [p]} for p in parameters], lr=0.1, fused=True)


def test_a_captured_step_follows_what_is_turned_and_observed():
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=BASE * ts.live("x", 1.0) * ts.plateau(factor=0.5, patience=0))
    scale, weight = sched.inputs["x"], optimizer.param_groups[0]["params"][0]
    loss = torch.ones((), device="cuda")

    def step() -> None:
        optimizer.step()
        sched.observe(loss)

    graph = gpu.captured(step, warm_up=1)  # the first metric is the best there is
    done = sched.step_count
    factor = sched.inputs["plateau"].item()
    for number, x in enumerate((1.0, 0.5, 2.0, 2.0)):
        scale.fill_(x)
        if number == 2:
            loss.fill_(0.5)  # better: the factor stays
        before = weight[0].item()
        graph.replay()
        torch.cuda.synchronize()
        assert before - weight[0].item() == pytest.approx(BASE(done + number) * x * factor, rel=1e-6)
        factor *= 1.0 if number == 2 else 0.5
        assert sched.inputs["plateau"].item() == factor
    assert sched.step_count == done + 4


def test_nothing_waits_for_the_device():
    optimizer = sgd(3)
    sched = ts.attach(optimizer, lr=[BASE * ts.live("x", 1.0), BASE * ts.spike(hold=2), BASE])
    loss = torch.ones((), device="cuda")
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(5):
        sched.inputs["x"].mul_(0.5)
        optimizer.step()
        sched.observe(loss)
    torch.cuda.set_sync_debug_mode("default")
    assert sched.inputs["x"].item() == 2.0**-5


@pytest.mark.parametrize("groups", [1, 64])
def test_three_kernels_for_slots_that_react_and_none_more_for_others(groups):
    factor = ts.plateau()
    plain = ts.attach(sgd_plain := sgd(groups), lr=[(i + 1.0) * BASE for i in range(groups)])
    without = kernels(plain._mode.engines[0].advance)
    reacting = ts.attach(sgd_reacting := sgd(groups), lr=[(i + 1.0) * BASE * factor for i in range(groups)])
    assert without <= 2
    assert kernels(reacting._mode.engines[0].advance) <= 3
    some = ts.attach(sgd_some := sgd(2), lr=[BASE, BASE * factor])
    assert kernels(some._mode.engines[0].advance) == without
    del sgd_plain, sgd_reacting, sgd_some


def test_a_compiled_step_and_a_traced_observe_follow():
    optimizer = sgd()
    optimizer.param_groups[0]["fused"] = False
    sched = ts.attach(optimizer, lr=BASE * ts.live("x", 1.0) * ts.plateau(factor=0.5, patience=0))
    step = ts.compile_step(sched)
    weight = optimizer.param_groups[0]["params"][0]
    for _ in range(2):
        step()
    sched.inputs["x"].fill_(0.5)
    observe = torch.compile(sched.observe, fullgraph=True)
    for _ in range(2):
        observe(torch.ones((), device="cuda"))
    before = weight[0].item()
    step()
    assert before - weight[0].item() == pytest.approx(BASE(2) * 0.25, rel=1e-6)

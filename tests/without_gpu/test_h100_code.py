"""The code that inductor generates for an H100, for every optimizer that can be one graph. Run by `make test-h100-code`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding.torch_optim import RECORDS
from tests.without_gpu.h100 import Made, body, h100, kernels, ptxas

pytestmark = pytest.mark.h100_code

ONE_GRAPH = [kind for kind, record in RECORDS.items() if record.one_graph is not None]
RAMP = ts.linear(0.1, 0.2, steps=99)
# Momentum makes them more than one line; the weight decay is there for the kernels to be the same with a scheduled one.
OPTIONS: dict[type, dict[str, Any]] = {
    optim.SGD: {"momentum": 0.9, "weight_decay": 0.1},
    optim.RMSprop: {"momentum": 0.9, "weight_decay": 0.1, "capturable": True},
    optim.Muon: {"weight_decay": 0.1},
    optim.Adagrad: {"weight_decay": 0.1},
}
HOST = r"\.item\(|empty_strided_cpu|device\(type='cpu'|device='cpu'|\.copy_\(|partition_\d+\("


def on_h100(kind: type, groups: int = 1, each: int = 3, **options: Any) -> Any:
    made = []
    for _ in range(groups):
        parameters = [nn.Parameter(torch.zeros(64, 33, device="cuda")) for _ in range(each)]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        made.append({"params": parameters})
    options = OPTIONS.get(kind, {"weight_decay": 0.1, "capturable": True}) | options
    optimizer = kind(made, lr=0.1, **options)
    optimizer._warned_capturable_if_run_uncaptured = True  # by torch, of a capturable step outside a capture
    return optimizer


def constant_step(optimizer: Any) -> Callable[[], None]:
    """The same optimizer as torch alone compiles it, without a schedule."""
    raw = inspect.unwrap(type(optimizer).step)
    optimizer.step()
    compiled = torch.compile(lambda: raw(optimizer), fullgraph=True, dynamic=False)

    def step() -> None:
        with torch.no_grad():
            compiled()

    return step


def scheduled_step(optimizer: Any, schedules: dict[str, Any], **options: Any) -> ts.CompiledStep:
    step = ts.compile_step(ts.attach(optimizer, **schedules), **options)
    if not optimizer.state:
        step()  # eager: it makes the state
    return step


def generated(make: Callable[[], Callable[[], object]], calls: int = 2) -> Made:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True), h100() as made:
        step = make()
        made.reads.clear()
        for _ in range(calls):
            step()
    torch._dynamo.reset()
    return made


@pytest.mark.parametrize("how", ["", "loop"])
@pytest.mark.parametrize("kind", ONE_GRAPH, ids=lambda kind: kind.__name__)
def test_one_module_without_the_host_and_two_kernels_more_than_constants(kind, how):
    options = {"foreach": False} if how == "loop" and kind is not optim.Muon else {}
    constants = generated(lambda: constant_step(on_h100(kind, **options)))
    wanted = [{"lr": RAMP}]
    if (
        how == "loop" or "weight_decay" in RECORDS[kind].one_graph
    ):  # else it would be a for-loop beside a foreach
        wanted.append({"lr": RAMP, "weight_decay": 0.5 * RAMP})
    for schedules in wanted:
        made = generated(lambda wanted=schedules: scheduled_step(on_h100(kind, **options), wanted))
        assert (len(made.modules), made.reads) == (1, [])
        assert not re.findall(HOST, body(made.modules[0]))
        assert len(made.launches()) <= len(constants.launches()) + 2


@pytest.mark.parametrize("amp", [False, True], ids=["", "amp"])
@pytest.mark.parametrize("kind", ONE_GRAPH, ids=lambda kind: kind.__name__)
def test_reduce_overhead_makes_a_cuda_graph_of_it(kind, amp):
    def make() -> Callable[[], object]:
        step = scheduled_step(on_h100(kind), {"lr": RAMP}, mode="reduce-overhead")
        if amp:
            step.found_inf = torch.zeros((), device="cuda")
            step.grad_scale = torch.ones((), device="cuda")
        return step.step

    made = generated(make)
    assert (len(made.modules), made.reads) == (1, [])
    ((static, mutated),) = made.cuda_graphs
    assert mutated <= static, "torch makes no CUDA graph of what writes to inputs that may move"
    assert not re.findall(HOST, body(made.modules[0]))


def muon_and_adamw() -> tuple[Any, Any]:
    return on_h100(optim.Muon), on_h100(optim.AdamW)


def scheduled_plan(muon: Any, adamw: Any, **options: Any) -> ts.CompiledStep:
    of_muon = ts.attach(muon, lr=RAMP, momentum=0.5 + RAMP)
    of_adamw = ts.attach(adamw, lr=RAMP, weight_decay=0.5 * RAMP)
    step = ts.compile_step(ts.Plan(muon=of_muon, adamw=of_adamw), **options)
    step()  # eager: it makes the state
    return step


def constant_steps(muon: Any, adamw: Any) -> Callable[[], None]:
    """Both optimizers as torch alone compiles them together, without a schedule."""
    steps = [(inspect.unwrap(type(optimizer).step), optimizer) for optimizer in (muon, adamw)]
    for _, optimizer in steps:
        optimizer.step()

    def both() -> None:
        for raw, optimizer in steps:
            raw(optimizer)

    compiled = torch.compile(both, fullgraph=True, dynamic=False)

    def step() -> None:
        with torch.no_grad():
            compiled()

    return step


def test_a_plan_of_two_optimizers_is_one_module_and_four_kernels_more_than_constants():
    """Each optimizer has a row of its own and a step counter of its own."""
    constants = generated(lambda: constant_steps(*muon_and_adamw()))
    made = generated(lambda: scheduled_plan(*muon_and_adamw()))
    assert (len(made.modules), made.reads) == (1, [])
    assert not re.findall(HOST, body(made.modules[0]))
    print(len(made.launches()), len(constants.launches()))  # noqa: T201
    assert len(made.launches()) <= len(constants.launches()) + 4


@pytest.mark.parametrize("amp", [False, True], ids=["", "amp"])
def test_reduce_overhead_makes_one_cuda_graph_of_a_plan(amp):
    def make() -> Callable[[], object]:
        step = scheduled_plan(*muon_and_adamw(), mode="reduce-overhead")
        if amp:
            step.found_inf = torch.zeros((), device="cuda")
            step.grad_scale = torch.ones((), device="cuda")
        return step.step

    made = generated(make)
    assert (len(made.modules), made.reads) == (1, [])
    ((static, mutated),) = made.cuda_graphs
    assert mutated <= static, "torch makes no CUDA graph of what writes to inputs that may move"


@pytest.mark.parametrize("foreach", [False, True])
def test_the_number_of_kernels_to_compile_does_not_grow_with_the_groups(foreach):
    counts = []
    for groups in (4, 12):
        each = {
            "lr": [(1 + i) * RAMP for i in range(groups)],
            "weight_decay": [(0.3 + i) * RAMP for i in range(groups)],
        }
        made = generated(
            lambda groups=groups, each=each: scheduled_step(
                on_h100(optim.AdamW, groups, 1, foreach=foreach), each
            )
        )
        assert len(made.launches()) <= 2 * groups + 2
        counts.append(len(kernels(made.modules[0])))
    assert counts[0] == counts[1]


def test_ptxas_needs_no_stack_for_it(tmp_path):
    """Registers are printed with -s."""
    schedules = {"lr": RAMP, "weight_decay": 0.5 * RAMP, "betas": (None, ts.linear(0.9, 0.99, steps=99))}
    made = generated(lambda: scheduled_step(on_h100(optim.AdamW, each=1), schedules))
    with h100():
        used = [ptxas(name, source, tmp_path) for name, source in kernels(made.modules[0]).items()]
    print(used)  # noqa: T201
    assert len(used) == 4
    assert all(kernel["STACK"] == 0 for kernel in used)

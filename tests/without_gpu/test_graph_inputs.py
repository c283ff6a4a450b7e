"""compile_step on fake CUDA parameters: all that its graph takes is on the device, and nothing is read on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from functorch.compile import make_boxed_func
from torch import nn, optim
from torch._dynamo.backends.common import aot_autograd

import tensorsched as ts
from tensorsched.binding.torch_optim import RECORDS
from tests.without_gpu.fake_cuda import READ, HostReads, fake_cuda

ONE_GRAPH = [kind for kind, record in RECORDS.items() if record.one_graph is not None]
# Muon has one implementation; of the others torch takes the one over all parameters at once where nothing is said.
HOW = [(kind, how) for kind in ONE_GRAPH for how in ("", "loop") if how == "" or kind is not optim.Muon]
RAMP = ts.linear(0.1, 0.2, steps=9)


@pytest.fixture
def reads() -> Iterator[list[str]]:
    with torch._dynamo.config.patch(error_on_recompile=True), fake_cuda() as seen:
        yield seen
    torch._dynamo.reset()


class Graphs:
    """A backend that keeps, of each graph, the devices of its inputs, which are written and not static, and its reads.

    A CUDA graph is only made where every input that is written is static (mode="reduce-overhead").
    """

    def __init__(self) -> None:
        self.devices: list[set[str]] = []
        self.not_static: set[int] = set()
        self.reads = 0
        self.backend = aot_autograd(fw_compiler=self._compile)

    def _compile(self, module: torch.fx.GraphModule, _: object) -> Any:
        inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        self.devices.append({node.meta["val"].device.type for node in inputs})
        about = torch._guards.TracingContext.get().fw_metadata
        self.not_static |= set(about.mutated_inp_runtime_indices) - set(about.static_input_indices)
        assert about.mutated_inp_runtime_indices
        self.reads += sum(node.target is READ for node in module.graph.nodes)
        return make_boxed_func(module.forward)


def on_cuda(kind: type, **options: Any) -> Any:
    parameters = [nn.Parameter(torch.zeros(4, 3, device="cuda")) for _ in range(2)]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    return kind(parameters, lr=0.1, **options)


def scaled(step: Any) -> None:
    """A step as GradScaler takes it."""
    step.found_inf, step.grad_scale = torch.zeros(1, device="cuda"), torch.ones(1, device="cuda")
    step.step()


@pytest.mark.parametrize("amp", [False, True], ids=["", "amp"])
@pytest.mark.parametrize(("kind", "how"), HOW, ids=[f"{kind.__name__}-{how}" for kind, how in HOW])
def test_every_input_of_the_graph_is_on_the_device_and_none_is_read(kind, how, amp, reads):
    optimizer = on_cuda(kind, **{"foreach": False} if how == "loop" else {})
    graphs = Graphs()
    step = ts.compile_step(ts.attach(optimizer, lr=RAMP), backend=graphs.backend)
    if not optimizer.state:
        step()  # eager: it makes the state
    reads.clear()
    for _ in range(2):
        scaled(step) if amp else step()
    assert graphs.devices == [{"cuda"}]
    assert (graphs.reads, reads) == (0, [])
    assert not graphs.not_static, "torch makes no CUDA graph"


@pytest.mark.parametrize("amp", [False, True], ids=["", "amp"])
def test_a_plan_of_muon_and_adamw_is_one_graph_on_the_device(amp, reads):
    muon, adamw = on_cuda(optim.Muon), on_cuda(optim.AdamW)
    graphs = Graphs()
    of_muon = ts.attach(muon, lr=RAMP, momentum=RAMP, weight_decay=RAMP)
    of_adamw = ts.attach(adamw, lr=RAMP, weight_decay=RAMP, betas=(None, RAMP))
    step = ts.compile_step(ts.Plan(muon=of_muon, adamw=of_adamw), backend=graphs.backend)
    step()  # eager: it makes the state
    reads.clear()
    for _ in range(3):
        scaled(step) if amp else step()
    assert graphs.devices == [{"cuda"}]
    assert (graphs.reads, reads) == (0, [])
    assert not graphs.not_static, "torch makes no CUDA graph"


@pytest.mark.usefixtures("reads")
def test_optimizers_on_several_devices_are_no_one_graph():
    here, there = optim.SGD([nn.Parameter(torch.zeros(2))]), on_cuda(optim.SGD)
    plan = ts.Plan(here=ts.attach(here, lr=RAMP), there=ts.attach(there, lr=RAMP))
    with pytest.raises(
        ts.BindingError, match=r"are on cpu, cuda:0; .*, or compile a step for each optimizer"
    ):
        ts.compile_step(plan)


@pytest.mark.usefixtures("reads")
@pytest.mark.parametrize(
    ("kind", "options", "resident", "most"),
    [
        (optim.AdamW, {}, {"lr"}, 1),
        (optim.NAdam, {"foreach": False}, {"lr"}, 1),
        (optim.AdamW, {"capturable": True}, {"lr"}, 0),
        (optim.AdamW, {"capturable": True}, {"lr", "weight_decay"}, 0),
        (optim.AdamW, {"capturable": True}, {"lr", "eps"}, 1),
        (optim.SGD, {"momentum": 0.9}, {"lr"}, 1),
    ],
)
def test_an_eager_step_in_between_reads_the_device_once_at_most(kind, options, resident, most):
    optimizer = on_cuda(kind, **options)
    optimizer._warned_capturable_if_run_uncaptured = True  # by torch, of a capturable step outside a capture
    step = ts.compile_step(ts.attach(optimizer, **dict.fromkeys(resident, RAMP)), backend=Graphs().backend)
    step()
    step()
    state = [dict(optimizer.state[p]) for p in optimizer.param_groups[0]["params"]]
    for _ in range(2):
        with HostReads() as between:
            optimizer.step()
        assert len(between.seen) == most, between.seen
        step()
    for p, before in zip(optimizer.param_groups[0]["params"], state, strict=True):
        assert {k: id(v) for k, v in optimizer.state[p].items()} == {k: id(v) for k, v in before.items()}, (
            "a CUDA graph of the user's own has these addresses"
        )
    with HostReads() as between:
        step.release()
    assert len(between.seen) <= 1
    on_host = {"step", "mu_product"} if not options.get("capturable") else set()
    for p in optimizer.param_groups[0]["params"]:
        for key, value in optimizer.state[p].items():
            assert value.device.type == ("cpu" if key in on_host else "cuda")


@pytest.mark.usefixtures("reads")
@pytest.mark.parametrize(
    ("kind", "options", "on_host"),
    [
        (optim.AdamW, {}, {"step"}),
        (optim.NAdam, {"foreach": False}, {"step", "mu_product"}),
        (optim.AdamW, {"capturable": True}, set()),
    ],
)
def test_a_state_dict_has_its_counts_where_torchs_own_has_them(kind, options, on_host):
    optimizer = on_cuda(kind, **options)
    optimizer._warned_capturable_if_run_uncaptured = True  # by torch, of a capturable step outside a capture
    step = ts.compile_step(ts.attach(optimizer, lr=RAMP), backend=Graphs().backend)
    step()
    step()
    with HostReads() as between:
        saved = optimizer.state_dict()["state"]
    assert len(between.seen) <= 2, "one for all counts, one for the step of the schedule"
    for index, p in enumerate(optimizer.param_groups[0]["params"]):
        for key, value in saved[index].items():
            assert value.device.type == ("cpu" if key in on_host else "cuda"), key
            assert optimizer.state[p][key].device.type == "cuda", "the graph's own stays where it is"

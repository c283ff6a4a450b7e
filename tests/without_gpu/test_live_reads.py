"""Live inputs on fake CUDA tensors: turned, observed and followed, and nothing is read on the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch._dynamo
from torch import optim

import tensorsched as ts
from tests.without_gpu.fake_cuda import HostReads, fake_cuda
from tests.without_gpu.test_graph_inputs import Graphs, on_cuda

LR = (
    ts.linear(0.1, 0.2, steps=9)
    * ts.plateau(patience=1, smoothing=0.5)
    * ts.greedy(window=4)
    * ts.spike()
    * ts.live("x", 1.0)
)


@pytest.fixture
def reads() -> Iterator[list[str]]:
    with torch._dynamo.config.patch(error_on_recompile=True), fake_cuda() as seen:
        yield seen
    torch._dynamo.reset()


@pytest.mark.parametrize("schedule", [LR, LR >> ts.live("y", 0.1), (LR + 0.1).clamp(0.1, 0.3)])
def test_eager_steps_read_nothing(schedule, reads):
    optimizer = on_cuda(optim.AdamW, capturable=True)
    sched = ts.attach(optimizer, lr=schedule)
    assert sched.slots[0].tensor
    assert sched.inputs["x"].device.type == "cuda"
    loss = torch.ones((), device="cuda")
    reads.clear()
    with HostReads() as host:
        for _ in range(3):
            sched.inputs["x"].mul_(0.5)
            optimizer.step()
            sched.observe(loss)
            sched.observe(plateau=loss.bfloat16(), spike=1.0)
    assert (reads, host.seen) == ([], [])


def test_the_probe_sees_a_read(reads):
    sched = ts.attach(optimizer := on_cuda(optim.AdamW, capturable=True), lr=LR)
    reads.clear()
    with HostReads() as host:
        sched.state_dict()
    assert reads or host.seen
    del optimizer


def test_a_compiled_step_takes_the_inputs_from_the_device(reads):
    optimizer = on_cuda(optim.AdamW)
    graphs = Graphs()
    sched = ts.attach(optimizer, lr=LR, weight_decay=0.1 * ts.plateau(patience=1, smoothing=0.5))
    step = ts.compile_step(sched, backend=graphs.backend)
    step()
    loss = torch.ones((), device="cuda")
    reads.clear()
    for _ in range(3):
        sched.inputs["x"].mul_(0.5)
        sched.observe(loss)
        step()
    assert graphs.devices == [{"cuda"}]
    assert (graphs.reads, reads) == (0, [])
    assert not graphs.not_static, "torch makes no CUDA graph"


@pytest.mark.usefixtures("reads")
def test_an_input_from_before_the_compiled_step_is_not_written_in_vain():
    sched = ts.attach(on_cuda_ := on_cuda(optim.AdamW), lr=LR, weight_decay=0.1 * ts.live("x", 1.0))
    before = sched.inputs["x"]
    step = ts.compile_step(sched, backend="aot_eager")
    assert sched.inputs["x"].device.type == "cuda" != before.device.type
    before.fill_(0.5)
    with pytest.raises(ts.BindingError, match=r"ask sched\.inputs again"):
        step()
    del on_cuda_


def test_what_reacts_together_is_floats_where_one_must_be():
    with fake_cuda():
        optimizer = on_cuda(optim.AdamW, capturable=True)
        alone = ts.attach(optimizer, lr=LR)
        assert alone.slots[0].tensor
        alone.detach()
        both = ts.attach(optimizer, lr=LR, weight_decay=0.1 * ts.live("x", 1.0))
        assert [slot.tensor for slot in both.slots] == [False, False]
        assert "so does weight_decay[group 0], which is a float slot" in str(both)
        assert both.inputs["x"].device.type == "cpu"
        both.detach()
        with pytest.raises(ts.BindingError, match=r"some are float slots .* and some are tensors on cuda"):
            ts.attach(optimizer, lr=LR, resident=False, free={"kl": 1.0 * ts.live("x", 1.0)})

"""What only a GPU can show: captured and replayed steps, no synchronisation, the number of kernels.

Skipped, and counted as skipped, where there is no CUDA device. Run with `make test-gpu`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn, optim
from torch.profiler import ProfilerActivity, profile

import tensorsched as ts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),  # at its first use
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),  # of a capture that was refused
    pytest.mark.filterwarnings("ignore:.*[Pp]rofiler"),
]

STEPS = 1_000
MANY = STEPS  # of what is only repeated
LR = ts.linear(0.0, 1e-2, steps=50) >> ts.cosine(1e-2, 1e-4, steps=900)
WD = ts.linear(0.1, 0.01, steps=STEPS)
BETA2 = ts.linear(0.95, 0.99, steps=STEPS)
U = 2.0**-24


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch._dynamo.reset()


def parameters(count: int = 3) -> list[nn.Parameter]:
    generator = torch.Generator("cuda").manual_seed(0)
    return [nn.Parameter(torch.randn(64, 33, device="cuda", generator=generator)) for _ in range(count)]


def with_gradients(optimizer: Any) -> Any:
    """Gradients that stay where they are and change with every step: g <- sin(p), by `fill`."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    return optimizer


def fill(optimizer: Any) -> None:
    with torch.no_grad():
        for group in optimizer.param_groups:
            for p in group["params"]:
                torch.sin(p, out=p.grad)


def adamw(**options: Any) -> optim.AdamW:
    return with_gradients(optim.AdamW(parameters(), **({"lr": 1e-2, "capturable": True} | options)))


def values(optimizer: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for group in optimizer.param_groups for p in group["params"]])


def captured(step: Callable[[], object], warm_up: int = 3) -> torch.cuda.CUDAGraph:
    """A CUDA graph of `step`, after `warm_up` real ones on a stream of their own."""
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


def kernels(call: Callable[[], object]) -> int:
    """CUDA kernels that a call launches."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        call()
        torch.cuda.synchronize()
    on_device = [e for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not e.is_user_annotation for e in on_device)  # such as inductor's around a whole graph


# -- the engine --------------------------------------------------------------------------------------------------------


def test_two_kernels_move_any_number_of_values_without_a_synchronisation():
    for count in (1, 100):
        columns = {f"x{i}": (1.0 + i) * LR for i in range(count)}
        table = ts.tabulate(columns, device="cuda", scale=False)
        engine = ts.ScheduleEngine(table)
        assert kernels(engine.advance) <= 2
        engine.seek(0)
        torch.cuda.set_sync_debug_mode("error")
        rows = [engine.live.clone()]
        for _ in range(STEPS):
            engine.advance()
            rows.append(engine.live.clone())
        torch.cuda.set_sync_debug_mode("default")
        expected = torch.from_numpy(table.host)
        assert torch.equal(torch.cat(rows)[: table.rows].cpu(), expected)
        assert torch.equal(rows[-1].cpu(), expected[-1:])
        assert engine.step_count == STEPS
    scaled = ts.ScheduleEngine(ts.tabulate({"a": LR, "b": 0.5 * LR}, device="cuda", scale=True))
    assert kernels(scaled.advance) == 3, "the control: the count can move"


def test_the_synchronisation_check_can_fail():
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(1, device="cuda").item()


# -- captured steps ----------------------------------------------------------------------------------------------------


def test_a_captured_float_lr_is_frozen_and_ours_follows():
    frozen = adamw()
    scheduler = optim.lr_scheduler.LambdaLR(frozen, lambda step: LR(step) / 1e-2)

    def torch_step() -> None:
        fill(frozen)
        frozen.step()

    for _ in range(3):
        torch_step()
        scheduler.step()
    graph = captured(torch_step, warm_up=0)
    seen = []
    for _ in range(20):
        before = values(frozen).clone()
        graph.replay()
        scheduler.step()
        seen.append((values(frozen) - before).abs().max().item())
    steps_taken = seen[-1] / seen[0]  # AdamW's update is about lr; the schedule rises sevenfold here
    assert steps_taken < 1.5, "torch's float lr is a constant of the graph"

    ours = adamw()
    sched = ts.attach(ours, lr=LR)

    def our_step() -> None:
        fill(ours)
        ours.step()

    graph = captured(our_step)
    assert sched.step_count == 3, "a capture is no step"
    for replayed in range(1, 21):
        graph.replay()
        assert sched.step_count == 3 + replayed
        assert ours.param_groups[0]["lr"] == torch.tensor(LR(3 + replayed), dtype=torch.float32)


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_replays_reach_what_eager_training_reaches(how):
    """A thousand to the bit, a hundred within a bound (all runs end at 0 at last, and no control would show).

    Eager training with float32 values set by hand is the same arithmetic: to the bit for the captured eager step.

    The compiler may fuse and reorder: each update, of at most about lr, is off by up to 8 float32 roundings of the
    scalars in it, 8 U / (1 - beta2) for the bias correction, twice that for the gradients that are off in their turn.
    """
    schedules = {"lr": LR} if how == "eager" else {"lr": LR, "weight_decay": WD, "betas": (None, BETA2)}
    ours, by_hand = adamw(), adamw()
    sched = ts.attach(ours, **schedules)
    step = ts.compile_step(sched) if how == "compiled" else ours.step

    def whole() -> None:
        fill(ours)
        step()

    graph = captured(whole)
    steps = (MANY if how == "eager" else 100) + 3
    for _ in range(steps - 3):
        graph.replay()
    assert sched.step_count == steps
    for number in range(steps):
        for group in by_hand.param_groups:
            group["lr"] = torch.tensor(LR(number), device="cuda")
            if how == "compiled":
                group["weight_decay"], group["betas"] = WD(number), (0.9, BETA2(number))
        fill(by_hand)
        by_hand.step()
    limit = 0.0 if how == "eager" else 2.0 * 8 * U / (1 - 0.99) * sum(LR(t) for t in range(steps))
    assert (values(ours) - values(by_hand)).abs().max() <= limit
    still = adamw()
    for _ in range(steps):
        fill(still)
        still.step()
    assert (values(still) - values(by_hand)).abs().max() > 100 * limit, "the control: a frozen lr"


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}], ids=["fused", "foreach"])
def test_a_captured_weight_decay_follows_its_schedule(options):
    """It is a multiplication of its own, and nothing else: to the bit, with the decay made by hand."""
    ours, by_hand, still = (adamw(**options) for _ in range(3))
    sched = ts.attach(ours, lr=LR, weight_decay=WD)
    assert all(slot.tensor for slot in sched.slots)

    def whole() -> None:
        fill(ours)
        ours.step()

    graph = captured(whole)
    steps = 100
    for _ in range(steps - 3):
        graph.replay()
    assert sched.step_count == steps
    for number in range(steps):
        for each, wd in ((by_hand, WD(number)), (still, WD(0))):
            group = each.param_groups[0]
            group["lr"], group["weight_decay"] = torch.tensor(LR(number), device="cuda"), 0.0
            fill(each)
            with torch.no_grad():
                torch._foreach_mul_(group["params"], 1.0 - LR(number) * wd)
            each.step()
    assert torch.equal(values(ours), values(by_hand))
    assert (values(still) - values(by_hand)).abs().max() > 1e-3, "the control: a frozen weight decay"


def test_a_decay_alone_is_near_that_of_torchs_fused_kernel():
    """Which computes p - lr * weight_decay * p: three roundings a step lie between, each at most U of p."""
    ours, kernel = adamw(fused=True), adamw(fused=True)
    ts.attach(ours, lr=LR, weight_decay=WD)
    start, steps = values(kernel), 100
    for number in range(steps):
        group = kernel.param_groups[0]
        group["lr"], group["weight_decay"] = torch.tensor(LR(number), device="cuda"), WD(number)
        kernel.step()  # with gradients of 0
        ours.step()
    off = (values(ours) - values(kernel)).abs()
    assert (off <= 3 * U * steps * start.abs()).all()
    assert (values(ours) - start).abs().max() > 1e-2, "the control: it decays"


def test_a_fused_decay_reads_nothing_and_adds_a_pass_over_the_parameters():
    """Kernels: the step's own, two that move the values, and for the decay one a parameter at most."""
    plain = adamw(fused=True, weight_decay=0.0, lr=torch.tensor(1e-2, device="cuda"))
    ours = adamw(fused=True)
    ts.attach(ours, lr=LR, weight_decay=WD)
    for each in (plain, ours):
        fill(each)
        each.step()
    torch.cuda.set_sync_debug_mode("error")
    ours.step()
    torch.cuda.set_sync_debug_mode("default")
    assert kernels(ours.step) - kernels(plain.step) <= 2 + 3


def test_a_tensor_of_the_groups_own_is_filled_inside_the_graph():
    """An optimizer of which nothing is known, whose group holds a tensor: the tensor stays, and replays fill it."""

    class Unknown(optim.SGD):
        pass

    optimizer = with_gradients(Unknown(parameters(), lr=torch.tensor(0.1, device="cuda"), fused=True))
    own = optimizer.param_groups[0]["lr"]
    sched = ts.attach(optimizer, lr=LR)
    assert sched.slots[0].filled
    torch.cuda.set_sync_debug_mode("error")
    optimizer.step()
    torch.cuda.set_sync_debug_mode("default")

    def whole() -> None:
        fill(optimizer)
        optimizer.step()

    graph = captured(whole)
    for replayed in range(1, 21):
        graph.replay()
        assert optimizer.param_groups[0]["lr"] is own
        assert own == torch.tensor(LR(4 + replayed), dtype=torch.float32)
    assert sched.step_count == 24


def test_a_capture_that_would_freeze_a_value_or_leave_out_a_parameter_is_refused():
    optimizer = adamw()
    sched = ts.attach(optimizer, lr=LR, betas=(None, BETA2))
    optimizer.step()
    with pytest.raises(ts.BindingError, match=r"betas\[1\].* is a float slot"):
        captured(optimizer.step, warm_up=0)
    sched.detach()
    ts.attach(optimizer, lr=LR)
    optimizer.param_groups[0]["params"][1].grad = None
    with pytest.raises(ts.BindingError, match="parameter 1 of group 0"):
        captured(optimizer.step, warm_up=0)


# -- compiled steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreach", [False, True])
def test_reduce_overhead_replays_graphs_and_follows(foreach):
    optimizer = adamw(foreach=foreach, capturable=False)
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, betas=(None, BETA2))
    step = ts.compile_step(sched, mode="reduce-overhead")
    torch._dynamo.utils.counters.clear()
    for number in range(30):
        fill(optimizer)
        step()
        assert optimizer.param_groups[0]["lr"] == torch.tensor(LR(number + 1), dtype=torch.float32)
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0
    assert sched.step_count == 30
    optimizer.add_param_group({"params": parameters(1)})
    with pytest.raises(ts.BindingError, match="had 1 when"):
        step()
    step.release()
    assert optimizer.param_groups[0]["capturable"] is False


def test_loading_a_checkpoint_never_replays_stale_storage():
    optimizer = adamw(capturable=False)
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD)
    step = ts.compile_step(sched, mode="reduce-overhead")
    for _ in range(5):
        fill(optimizer)
        step()
    saved, place, reached = (
        copy.deepcopy(optimizer.state_dict()),
        sched.state_dict(),
        values(optimizer).clone(),
    )
    runs = []
    for _ in range(2):
        with torch.no_grad():
            offset = 0
            for p in optimizer.param_groups[0]["params"]:
                p.copy_(reached[offset : offset + p.numel()].view_as(p))
                offset += p.numel()
        optimizer.load_state_dict(copy.deepcopy(saved))
        sched.load_state_dict(place)
        for _ in range(5):
            fill(optimizer)
            step()
        runs.append(values(optimizer).clone())
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], reached)


@pytest.mark.parametrize("how", ["eager", "compiled", "captured"])
def test_a_thousand_steps_never_synchronise(how):
    optimizer = adamw()
    wanted = {"lr": LR} if how == "eager" else {"lr": LR, "weight_decay": WD, "betas": (None, BETA2)}
    sched = ts.attach(optimizer, **wanted)
    step = optimizer.step if how == "eager" else ts.compile_step(sched)
    call = captured(step).replay if how == "captured" else step
    for _ in range(3):
        call()
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(MANY):
        call()
    torch.cuda.set_sync_debug_mode("default")
    assert sched.step_count >= MANY


@pytest.mark.parametrize("options", [{"backend": "aot_eager"}, {}, {"mode": "reduce-overhead"}], ids=str)
@pytest.mark.parametrize("kind", [optim.AdamW, optim.NAdam], ids=lambda kind: kind.__name__)
def test_a_gradscaler_s_skipped_step_is_decided_on_the_device(kind, options):
    """As the same loop with the optimizer itself: parameters, Adam's own step, and what the schedule counts."""
    runs = []
    for compiled in (True, False):
        parameter = nn.Parameter(torch.linspace(-2.0, 2.0, 64, device="cuda"))
        optimizer = kind([parameter])
        sched = ts.attach(optimizer, lr=LR, weight_decay=WD)
        step = ts.compile_step(sched, **options) if compiled else optimizer
        scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
        counts = []
        for number in range(8):
            factor = torch.inf if number == 3 else 1.0
            scaler.scale((parameter.square() * factor).sum()).backward()
            if number > 1 and compiled:
                torch.cuda.set_sync_debug_mode("error" if number > 5 or "mode" not in options else "default")
            scaler.step(step)
            torch.cuda.set_sync_debug_mode("default")
            scaler.update()
            optimizer.zero_grad()
            counts.append(sched.step_count)
        assert counts == [1, 2, 3, 3, 4, 5, 6, 7]
        runs.append((parameter.detach(), optimizer.state[parameter]["step"].item()))
    (reached, steps), (eager, steps_of_eager) = runs
    assert steps == steps_of_eager == 7
    limit = 2.0 * 8 * U / (1 - 0.99) * sum(LR(t) for t in range(7)) + 16 * U
    assert (reached - eager).abs().max() <= limit


def test_an_eager_step_between_replays_of_a_compiled_one_is_seen_by_them():
    """Adam's step counts are on the host for an eager step, and the graph has the address of those on the device."""
    ours, by_hand = adamw(capturable=False), adamw(capturable=False)
    sched = ts.attach(ours, lr=LR)
    step = ts.compile_step(sched, backend="aot_eager")
    ts.attach(by_hand, lr=LR)

    def whole() -> None:
        fill(ours)
        step()

    graph = captured(whole)
    for number in range(3, 12):
        if number in {5, 8}:
            fill(ours)
            ours.step()
        else:
            graph.replay()
    for _ in range(12):
        fill(by_hand)
        by_hand.step()
    first = ours.param_groups[0]["params"][0]
    assert (sched.step_count, ours.state[first]["step"].item()) == (12, 12)
    limit = 2.0 * 8 * U / (1 - 0.999) * sum(LR(t) for t in range(12)) + 16 * U
    assert (values(ours) - values(by_hand)).abs().max() <= limit


def test_kernels_that_a_schedule_adds():
    """Counted, not bounded: printed with -s, and recorded by the benchmark."""
    constant = adamw(foreach=True)
    raw = inspect.unwrap(type(constant).step)
    constant.step()

    def plain() -> None:
        raw(constant)

    compiled = torch.compile(plain, fullgraph=True)

    def constant_step() -> None:
        with torch.no_grad():
            compiled()

    ours = adamw(foreach=True)
    step = ts.compile_step(ts.attach(ours, lr=LR, weight_decay=WD, betas=(None, BETA2)))
    for _ in range(3):
        step()
        constant_step()
    added = kernels(step) - kernels(constant_step)
    print(f"kernels added in one graph: {added}")  # noqa: T201
    assert added <= 2


# -- a clock that is not the step --------------------------------------------------------------------------------------


def test_replays_count_what_a_tensor_on_the_device_says():
    optimizer = adamw(lr=torch.tensor(1e-2, device="cuda"))
    lr = ts.linear(1.0, 0.0, steps=1_000)
    sched = ts.attach(optimizer, lr=lr, clock=ts.clock("tokens"))
    consumed = torch.zeros((), dtype=torch.int64, device="cuda")

    def step() -> None:
        sched.count(consumed)
        optimizer.step()

    graph = captured(step)
    assert (sched.step_count, sched.position) == (3, 0)
    position = 0
    for n in (100, 0, 250, 7):
        consumed.fill_(n)
        graph.replay()
        position += n
        assert sched.position == position
        assert sched.value("lr").item() == pytest.approx(lr(position), rel=2 * U)
    assert sched.step_count == 7


def test_counting_never_synchronises():
    optimizer = adamw(lr=torch.tensor(1e-2, device="cuda"))
    sched = ts.attach(optimizer, lr=LR.stretch(1_000), clock=ts.clock("tokens"))
    consumed = torch.tensor(512, device="cuda")
    sched.count(1)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    for n in (3, consumed, consumed):
        sched.count(n)
        optimizer.step()
    torch.cuda.set_sync_debug_mode("default")
    assert sched.position == 1_028

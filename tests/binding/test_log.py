"""sched.log(): what the last step used, for loggers, without a synchronisation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn, optim
from torch.utils.tensorboard import SummaryWriter

import tensorsched as ts
from tensorsched.engine import drivers
from tests.binding.test_attach import LR, WD, M, set_gradients, train, two_groups

KINDS = pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])


def rounded(value: float, *, tensor: bool) -> float:
    return torch.tensor(value).item() if tensor else value


@KINDS
def test_it_is_what_the_last_step_used_to_the_bit(tensor):
    optimizer = two_groups(optim.SGD, momentum=0.9)
    sched = ts.attach(optimizer, lr=[LR, 0.5 * LR], momentum=M, free={"kl": WD}, resident=tensor)
    used: list[dict[str, float]] = []
    optimizer.register_step_pre_hook(
        lambda o, *_: used.append(
            {"lr/0": float(o.param_groups[0]["lr"]), "lr/1": float(o.param_groups[1]["lr"])}
            | {f"momentum/{i}": float(o.param_groups[i]["momentum"]) for i in (0, 1)}
            | {"kl": sched.value("kl").item()}
        )
    )
    assert sched.log() == {}
    for _ in range(4):
        train(optimizer, steps=1)
        assert sched.log() == used[-1]
        assert float(optimizer.param_groups[0]["lr"]) != used[-1]["lr/0"], "the group holds the next one"
        assert all(type(value) is float for value in sched.log().values())
    sched.cool_down(4)
    sched.seek(9)
    assert sched.log() == used[-1], "a change has not been used yet"
    train(optimizer, steps=1)
    assert sched.log() == used[-1] != used[-2]


def test_after_resuming_it_is_what_the_run_used_last():
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR)
    train(optimizer, steps=3)
    fresh = two_groups(optim.SGD)
    again = ts.attach(fresh, lr=LR)
    again.load_state_dict(sched.state_dict())
    assert again.log() == sched.log() == {"lr/0": LR(2), "lr/1": LR(2)}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("decay", "no_decay"), {"lr/decay", "lr/no_decay", "betas[1]/decay"}),
        (("same", "same"), {"lr/0", "lr/1", "betas[1]/0"}),
        (("decay", None), {"lr/0", "lr/1", "betas[1]/0"}),
    ],
)
def test_groups_go_by_their_names_where_all_have_different_ones(names, expected):
    groups = [{"params": [nn.Parameter(torch.ones(1))]} | ({"name": n} if n else {}) for n in names]
    optimizer = optim.AdamW(groups)
    sched = ts.attach(optimizer, lr=LR, betas=[(None, M), None])
    optimizer.step()
    assert set(sched.log()) == expected


def test_the_line_for_tensorboard(tmp_path):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=[LR, WD])
    with SummaryWriter(str(tmp_path)) as writer:
        for _ in range(4):
            train(optimizer, steps=1)
            for name, value in sched.log().items():
                writer.add_scalar(name, value, sched.step_count)
    events = EventAccumulator(str(tmp_path)).Reload()
    for name, schedule in (("lr/0", LR), ("lr/1", WD)):
        scalars = events.Scalars(name)
        assert [s.step for s in scalars] == [1, 2, 3, 4]
        assert [s.value for s in scalars] == torch.tensor(schedule.values(4)).float().tolist()


# -- where the counter is on a device ----------------------------------------------------------------------------------


@pytest.fixture
def on_device(monkeypatch):
    """CPU tensors, moved and counted as a device's are; the reads of the counter."""
    monkeypatch.setattr(drivers, "CpuDriver", drivers.DeviceDriver)
    reads: list[int] = []
    read = drivers.DeviceDriver.read

    def spied(driver: Any) -> int:
        reads.append(1)
        return read(driver)

    monkeypatch.setattr(drivers.DeviceDriver, "read", spied)
    return reads


def test_the_host_counts_along_and_nothing_is_read(on_device):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, resident=True)
    for step in range(4):
        train(optimizer, steps=1)
        assert sched.log()["lr/0"] == rounded(LR(step), tensor=True)
    sched.seek(7)
    train(optimizer, steps=1)
    assert sched.log()["lr/0"] == rounded(LR(7), tensor=True)
    assert on_device == []
    assert sched.step_count == 8
    assert on_device, "the control: this reads it"


@pytest.mark.parametrize("skipped", [False, True])
def test_after_a_step_that_the_device_may_have_skipped_it_is_read_once(on_device, skipped):
    optimizer = two_groups(optim.SGD, fused=True)
    sched = ts.attach(optimizer, lr=LR, resident=True)
    train(optimizer, steps=2)
    set_gradients(optimizer, 2)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor([1.0]), torch.tensor([float(skipped)])
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf
    assert sched.log()["lr/0"] == rounded(LR(1 if skipped else 2), tensor=True)
    assert len(on_device) == 1
    train(optimizer, steps=1)
    assert sched.log()["lr/0"] == rounded(LR(2 if skipped else 3), tensor=True)
    assert len(on_device) == 1


@pytest.mark.parametrize("device", [False, True])
def test_in_a_compiled_step_and_after_it(monkeypatch, device):
    if device:
        monkeypatch.setattr(drivers, "CpuDriver", drivers.DeviceDriver)
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, resident=True)
    step = ts.compile_step(sched, backend="aot_eager")
    for number in range(4):
        set_gradients(optimizer, number)
        step()
        assert sched.log()["lr/0"] == rounded(LR(number), tensor=True)
    step.release()
    train(optimizer, steps=1)
    assert sched.log()["lr/0"] == rounded(LR(4), tensor=True)


def test_what_was_handed_over_is_not_logged_at_what_it_once_was():
    optimizer = optim.SGD([nn.Parameter(torch.zeros(2))])
    sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
    optimizer.step()
    assert sched.log() == {"lr/0": 1.0}
    sched.hand_over("lr")
    optimizer.step()  # with what somebody else put there
    assert sched.log() == {}


# -- what no table knows afterwards: positions of a clock, live inputs -------------------------------------------------


class Spied:
    """An optimizer, what each of its steps used, and how it is stepped."""

    def __init__(self, kind: str, *, fused: bool = False, **options: Any) -> None:
        self.optimizer = two_groups(optim.SGD, momentum=0.9, fused=fused)
        self.clocked = kind == "clock"
        lr = LR if self.clocked else LR * ts.plateau(factor=0.5, patience=0)
        clock = {"clock": ts.clock("tokens")} if self.clocked else {}
        self.sched = ts.attach(self.optimizer, lr=[lr, 0.5 * lr], momentum=M, **clock, **options)
        self.used: list[float] = []
        self.positions: list[int] = []
        self.optimizer.register_step_pre_hook(self.note)
        self.step: Any = self.optimizer.step

    def note(self, *_: Any) -> None:
        self.used.append(float(self.optimizer.param_groups[1]["lr"]))
        self.positions.append(self.sched.position)

    def steps(self, times: int) -> None:
        """Each followed by a metric that reduces the factor: what comes next is another value."""
        for _ in range(times):
            set_gradients(self.optimizer, len(self.used))
            if self.clocked:
                self.sched.count(1 + len(self.used) % 3)
            self.step()
            self.judge()
            if "plateau" in self.sched.inputs:
                self.sched.observe(float(len(self.used)))
                self.judge()

    def judge(self) -> None:
        assert self.sched.log()["lr/1"] == pytest.approx(self.used[-1], rel=2**-22, abs=1e-30)


WHAT = pytest.mark.parametrize("kind", ["live", "clock"])


@WHAT
@KINDS
def test_on_a_clock_and_with_live_inputs_it_is_what_the_last_step_used(kind, tensor):
    run = Spied(kind, resident=tensor)
    assert run.sched.log() == {}
    run.steps(3)
    assert run.sched.log()["lr/1"] == run.used[-1], "to the bit"
    assert run.used[-1] != run.used[0] != float(run.optimizer.param_groups[1]["lr"]), "the control: it moves"
    run.sched.seek(2)
    run.judge()
    run.steps(1)
    run.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    run.sched.adopt(lr=LR)
    run.judge()
    assert "lr/2" not in run.sched.log()
    run.steps(1)
    assert run.sched.log()["lr/2"] == pytest.approx(LR(run.positions[-1]), rel=2**-22)
    other = copy.deepcopy((run.optimizer, run.sched))[1]
    assert other.log() == run.sched.log()
    state = run.sched.state_dict()
    run.sched.load_state_dict(state)
    assert "lr/1" not in run.sched.log(), "which step that was, another run knows"
    run.steps(1)


@KINDS
def test_on_a_clock_the_plan_may_change_before_it_is_asked(tensor):
    run = Spied("clock", resident=tensor, capacity=40)
    run.steps(3)
    run.sched.cool_down(6)
    run.judge()
    run.sched.rewrite(lr=ts.constant(0.5))
    run.judge()
    run.steps(2)
    run.sched.count(0)  # a step of nothing is one
    run.step()
    run.sched.cool_down(5)
    run.judge()
    failing = pytest.raises(ts.BindingError, match="lr")
    with failing:
        run.sched.rewrite(lr=ts.constant(-1.0))
    run.judge()


def test_with_live_inputs_the_plan_may_change_before_it_is_asked():
    run = Spied("live")
    run.steps(3)
    run.sched.rewrite(lr=ts.constant(0.5))  # no longer live
    run.judge()
    run.steps(1)
    run.sched.seek(7)
    run.judge()
    run.sched.rewrite(lr=0.5 * ts.plateau(factor=0.5, patience=0))
    run.judge()
    run.steps(2)
    run.sched.seek(1)
    run.judge()


@WHAT
@KINDS
def test_it_goes_through_graphs_and_eager_steps_in_between(kind, tensor):
    run = Spied(kind, resident=tensor)
    run.steps(2)
    eager = run.step
    run.step = step = ts.compile_step(run.sched, backend="aot_eager")
    run.judge()
    run.steps(3)
    run.step = eager
    run.steps(1)
    run.step = step
    run.steps(2)
    step.release()
    run.judge()
    run.step = eager
    run.steps(1)
    torch._dynamo.reset()


@WHAT
@pytest.mark.usefixtures("on_device")
def test_where_the_device_counts_and_decides(kind):
    """From the first question on, each step leaves behind what it used."""
    run = Spied(kind, resident=True)
    for number in range(3):
        set_gradients(run.optimizer, number)
        if run.clocked:
            run.sched.count(2)
        run.step()
    run.judge()
    if not run.clocked:
        run.sched.inputs["plateau"].fill_(0.25)
        run.judge()
    run.steps(2)
    if not run.clocked:
        fresh = Spied(kind, resident=True)
        fresh.step()
        fresh.sched.inputs["plateau"].fill_(0.25)
        assert "lr/1" not in fresh.sched.log(), "nothing was left behind yet"
        fresh.steps(2)


@pytest.mark.parametrize("skipped", [False, True])
@WHAT
@pytest.mark.usefixtures("on_device")
def test_a_step_that_the_device_has_skipped_used_nothing(kind, skipped):
    run = Spied(kind, fused=True, resident=True)
    run.sched.log()
    run.steps(2)
    before = run.sched.log()
    run.optimizer.grad_scale, run.optimizer.found_inf = torch.tensor([1.0]), torch.tensor([float(skipped)])
    if run.clocked:
        run.sched.count(2)
    set_gradients(run.optimizer, 2)
    run.step()
    del run.optimizer.grad_scale, run.optimizer.found_inf
    assert (run.sched.log() == before) == skipped


def test_a_plan_of_all_kinds():
    plain, live, clock = two_groups(optim.SGD), Spied("live"), Spied("clock")
    plan = ts.Plan(plain=ts.attach(plain, lr=LR), live=live.sched, clock=clock.sched, together=False)
    for run in (live, clock):
        run.steps(3)
    train(plain, steps=3)
    log = plan.log()
    assert [log[f"{name}/lr/1"] for name in plan] == [LR(2), live.used[-1], clock.used[-1]]
    plan.cool_down(4)
    assert plan.log() == log

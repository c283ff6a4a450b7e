"""sched.log(): what the last step used, for loggers, without a synchronisation."""

from __future__ import annotations

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

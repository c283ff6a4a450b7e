"""One stable checkpoint into several decays: the experiment of Haegele et al. 2024 (arXiv 2405.18392), as one would run it.

A long run with a constant learning rate is checkpointed once. From there several models are made, by cool-downs of
different lengths and shapes, and the long run goes on. Each branch must be, to the bit, the run of that length that was
planned as warmup-stable-decay from the start: that is what makes one long run worth several.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tests.binding.test_attach import equal

PEAK, WARMUP, STABLE = 1e-2, 4, 12
BRANCHES = [(4, "1-sqrt"), (8, "linear"), (8, "cosine")]


def model_and_optimizer() -> tuple[nn.Module, optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, optim.AdamW(model.parameters())


def train(model: nn.Module, optimizer: optim.Optimizer, steps: range) -> list[torch.Tensor]:
    for step in steps:
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.fixture(scope="module")
def stable(tmp_path_factory) -> Path:
    """The long run, as far as its checkpoint; nobody knows yet when it will end."""
    path = tmp_path_factory.mktemp("run") / "stable.pt"
    model, optimizer = model_and_optimizer()
    sched = ts.attach(optimizer, lr=ts.linear(0.0, PEAK, steps=WARMUP) >> ts.constant(PEAK))
    train(model, optimizer, range(STABLE))
    everything = {"model": model, "optimizer": optimizer, "schedule": sched}
    torch.save({name: part.state_dict() for name, part in everything.items()}, path)
    return path


def branched(stable: Path) -> tuple[nn.Module, optim.Optimizer, ts.Attachment]:
    """A fresh process would do this: the plan comes from the checkpoint."""
    saved: dict[str, Any] = torch.load(stable, weights_only=True)
    model, optimizer = model_and_optimizer()
    sched = ts.attach(optimizer, **ts.schedules_of(saved["schedule"]))
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    sched.load_state_dict(saved["schedule"])
    return model, optimizer, sched


@pytest.mark.parametrize(("decay", "shape"), BRANCHES)
def test_a_branch_is_the_run_that_was_planned_so_from_the_start(stable, decay, shape):
    model, optimizer, sched = branched(stable)
    sched.cool_down(decay, shape=shape)
    branch = train(model, optimizer, range(STABLE, STABLE + decay))
    total = STABLE + decay
    planned = ts.wsd(PEAK, total=total, warmup=WARMUP, decay=decay, shape=shape)
    whole, other = model_and_optimizer()
    ts.attach(other, lr=planned)
    assert equal(branch, train(whole, other, range(total)))
    assert sched.used("lr").values.tolist() == planned.values(total).tolist()
    model, optimizer, _ = branched(stable)
    assert not equal(branch, train(model, optimizer, range(STABLE, total))), "the control: it did cool down"


def test_the_long_run_goes_on_as_if_nothing_had_branched_off(stable):
    model, optimizer, sched = branched(stable)
    sched.cool_down(4)
    train(model, optimizer, range(STABLE, STABLE + 4))
    model, optimizer, sched = branched(stable)  # from the file again
    longer = train(model, optimizer, range(STABLE, 20))
    whole, other = model_and_optimizer()
    ts.attach(other, lr=ts.linear(0.0, PEAK, steps=WARMUP) >> ts.constant(PEAK))
    assert equal(longer, train(whole, other, range(20)))
    assert [change.what for change in sched.history()] == ["attach"]


def test_one_process_may_make_all_branches(stable):
    """The same attachment goes back to the checkpoint; what the last branch followed is given up for what was saved."""
    model, optimizer, sched = branched(stable)
    for decay, shape in BRANCHES:
        saved = torch.load(stable, weights_only=True)  # again: torch trains on in the tensors that it loaded
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        sched.load_state_dict(saved["schedule"], on_mismatch="saved")
        sched.cool_down(decay, shape=shape)
        branch = train(model, optimizer, range(STABLE, STABLE + decay))
        assert [change.what for change in sched.history()] == ["attach", "cool_down"]
        alone, other, again = branched(stable)
        again.cool_down(decay, shape=shape)
        assert equal(branch, train(alone, other, range(STABLE, STABLE + decay)))

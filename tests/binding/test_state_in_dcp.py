"""The state in torch.distributed.checkpoint, entry by entry: other schedules find every entry that they look for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn, optim
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import tensorsched as ts
from tests.binding.test_attach import LR, WD, M
from tests.binding.test_checkpoint import _first_version

OTHERS: dict[str, dict[str, Any]] = {
    "the same": {"lr": LR, "weight_decay": WD},
    "other schedules": {"lr": 0.5 * LR, "weight_decay": M},
    "fewer keys": {"lr": LR},
    "more keys": {"lr": WD, "weight_decay": WD, "betas": (M, None), "free": {"kl": LR}},
}


@pytest.fixture(autouse=True)
def _one_process():
    """torch warns that it saves for one process, which is what is wanted."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(torch.distributed is|process group).*", category=UserWarning
        )
        yield


def attached(**schedules: Any) -> tuple[nn.Module, optim.Optimizer, ts.Attachment]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    return model, optimizer, ts.attach(optimizer, **schedules)


def trained(steps: int, model: nn.Module, optimizer: optim.Optimizer) -> None:
    for step in range(steps):
        model(torch.full((1, 3), float(step))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("as_dict", [False, True])
def test_other_schedules_load_it_and_say_what_differs(tmp_path: Path, other, as_dict):
    model, optimizer, sched = attached(lr=LR, weight_decay=WD)
    trained(5, model, optimizer)
    sched.cool_down(6)
    trained(1, model, optimizer)
    dcp.save({"sched": sched.state_dict() if as_dict else sched}, checkpoint_id=tmp_path)
    _, optimizer, again = attached(**OTHERS[other], on_mismatch="error" if as_dict else "keep_step")
    if as_dict:
        state = {"sched": again.state_dict()}
        dcp.load(state, checkpoint_id=tmp_path)
        assert state["sched"] == sched.state_dict()
        with pytest.raises(ts.BindingError, match="saved under other schedules"):
            again.load_state_dict(state["sched"])
        again.load_state_dict(state["sched"], on_mismatch="keep_step")
    else:
        dcp.load({"sched": again}, checkpoint_id=tmp_path)
    assert again.step_count == 6
    assert again.used("lr").values.tolist() == sched.used("lr").values.tolist()
    assert optimizer.param_groups[0]["lr"] == again.schedule("lr")(6) != 0.0


@pytest.mark.parametrize("marked", [True, False])
def test_flat_the_optimizer_alone_carries_the_step_where_its_groups_have_the_keys(marked):
    """Only keys of live groups are read back: for that the placeholders are there. Without them it is the control."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    model, optimizer, _sched = attached(lr=LR * ts.live("x", 1.0))
    _sched.inputs["x"].fill_(0.5)
    trained(5, model, optimizer)
    state = get_optimizer_state_dict(model, optimizer, options=options)
    model, optimizer, again = attached(lr=LR * ts.live("x", 1.0))
    if not marked:
        again._carrier.unmark(optimizer.param_groups, [])
    set_optimizer_state_dict(model, optimizer, state, options=options)
    assert (again.step_count, again.inputs["x"].item()) == ((5, 0.5) if marked else (0, 1.0))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("other", ["the same", "other schedules"])
def test_with_the_optimizer_s_own_nested_and_flat(tmp_path: Path, other, flat):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer, sched = attached(lr=LR, weight_decay=WD)
    trained(5, model, optimizer)
    state = {"o": get_optimizer_state_dict(model, optimizer, options=options), "sched": sched.state_dict()}
    dcp.save(state, checkpoint_id=tmp_path)
    model, optimizer, again = attached(**OTHERS[other])
    state = {"o": get_optimizer_state_dict(model, optimizer, options=options), "sched": again.state_dict()}
    assert again.step_count == 0, "the step that makes the state is none"
    dcp.load(state, checkpoint_id=tmp_path)
    set_optimizer_state_dict(model, optimizer, state["o"], options=options)
    again.load_state_dict(state["sched"], on_mismatch="keep_step")
    trained(1, model, optimizer)
    assert again.step_count == 6
    assert optimizer.param_groups[0]["lr"] == again.schedule("lr")(6)
    assert again.used("lr").steps.tolist() == list(range(6))


def test_the_first_version_s_keys_were_not_found(tmp_path: Path):
    """Control: version 1 had the fingerprints of the schedules as keys."""
    _, _optimizer, sched = attached(lr=LR)
    _, _other, again = attached(lr=WD)
    dcp.save({"sched": _first_version(sched.state_dict())}, checkpoint_id=tmp_path)
    with pytest.raises(CheckpointException, match=r"Missing key in checkpoint state_dict: sched.documents\."):
        dcp.load({"sched": _first_version(again.state_dict())}, checkpoint_id=tmp_path)


def test_the_keys_are_the_same_for_all_schedules():
    keys = set()
    for schedules in OTHERS.values():
        _, _optimizer, sched = attached(**schedules)
        sched.seek(3)
        state = sched.state_dict()
        assert all(not isinstance(value, dict) for value in state.values())
        keys.add(tuple(state))
    assert len(keys) == 1

"""DeepSpeed: `deepspeed.initialize(optimizer=..., lr_scheduler=face)` at every ZeRO stage; its engine's checkpoints."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import pytest
import torch
from accelerate.utils import DeepSpeedPlugin
from torch import nn

import tensorsched as ts
from tests.frameworks import test_accelerate
from tests.frameworks.beside import (
    ACCUMULATION,
    EXACT,
    ROWS,
    SAVED,
    STEPS,
    Make,
    Run,
    in_two_processes,
    loader,
    make_model,
    make_optimizer,
    ours_alone,
    watch,
)

# DeepSpeed's own all-reduce for one machine is compiled at its first use, which takes a minute: gloo's does.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

CASES = [(stage, half) for stage in range(4) for half in (False, True)]


def initialize(stage: int, *, half: bool, make: Make) -> tuple[Any, Any, list[list[float]]]:
    model = make_model()
    optimizer = make_optimizer(model)
    calls = watch(optimizer)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    config = {
        "train_micro_batch_size_per_gpu": ROWS,
        "gradient_accumulation_steps": ACCUMULATION,
        "train_batch_size": ROWS * ACCUMULATION * world,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": half},
        "steps_per_print": 10**9,
    }
    scheduler = make(optimizer)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, lr_scheduler=scheduler, config=config)
    return engine, optimizer, calls


def train(
    stage: int, half: bool, make: Make, folder: Path, until: int = STEPS, *, resume: bool = False
) -> Run:
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    engine, optimizer, _ = initialize(stage, half=half, make=make)
    used, logged, done = [], [], 0
    if resume:
        engine.load_checkpoint(str(folder), tag="saved")
        done = SAVED
    while done < until:
        for x, y in loader(world=world, rank=rank):
            kind = torch.bfloat16 if half else torch.float32
            engine.backward(nn.functional.mse_loss(engine(x.to(kind)), y.to(kind)))
            if engine.is_gradient_accumulation_boundary():
                used.append([float(group["lr"]) for group in optimizer.param_groups])
                logged.append(engine.get_lr())
                done += 1
            engine.step()
            if done == until:
                break
        engine.eval()
        with torch.no_grad():
            engine(x.to(kind))
        engine.train()
    if until == SAVED:
        engine.save_checkpoint(str(folder), tag="saved")
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), enabled=stage == 3):
        params = [p.detach().clone() for p in engine.module.parameters()]
    engine.destroy()
    return Run(used, params, logged)


def over_accelerate(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    """As the HF Trainer and trl run it: Accelerate keeps the scheduler, and DeepSpeed has none."""
    config = {
        "train_micro_batch_size_per_gpu": ROWS,
        "gradient_accumulation_steps": ACCUMULATION,
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
    }
    plugin = DeepSpeedPlugin(hf_ds_config=config)
    return test_accelerate.train(make, folder, until, resume=resume, deepspeed_plugin=plugin)


RUNS = {
    f"stage{stage}{'bf16' if half else ''}": functools.partial(train, stage, half) for stage, half in CASES
}
RUNS["over Accelerate"] = over_accelerate


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> dict[str, str]:
    return in_two_processes(__name__, tmp_path_factory.mktemp("ranks"), *RUNS)


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_train_as_with_lambda_lr_and_resume(failed, run):
    assert not failed[run], failed[run]


@pytest.fixture
def one_process(monkeypatch):
    """DeepSpeed wants a process group even for one."""
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    deepspeed.init_distributed("gloo", verbose=False)
    yield
    deepspeed.comm.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("stage", range(4))
def test_attached_alone_it_is_right_or_refused(stage):
    """Not too fast, and not the second group by the first one's values: what both were."""
    engine, _, calls = initialize(stage, half=False, make=ours_alone)
    x, y = next(iter(loader()))

    def step() -> None:
        for _ in range(ACCUMULATION):
            engine.backward(nn.functional.mse_loss(engine(x), y))
            engine.step()

    if stage == 0:
        step()
        step()
        assert calls == EXACT[:2]
        return
    with pytest.raises(
        ts.BindingError, match=r"lr_scheduler=sched\.lr_scheduler\(\) to deepspeed\.initialize"
    ):
        step()

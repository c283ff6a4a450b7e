"""Accelerate: `prepare` takes the face as a scheduler; `save_state` and `load_state` keep it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import nn

import tensorsched as ts
from tests.frameworks.beside import (
    ACCUMULATION,
    CURVE,
    SAVED,
    STEPS,
    Make,
    Run,
    compare,
    in_two_processes,
    loader,
    make_model,
    make_optimizer,
    parameters,
    resume,
    theirs,
    with_tensors,
)


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False, **options: Any) -> Run:
    accelerator = accelerate.Accelerator(
        cpu=True,
        gradient_accumulation_steps=ACCUMULATION,
        # What theirs needs in two processes, where it is stepped twice; ours moves once a step however it is called.
        step_scheduler_with_optimizer=make is not theirs or int(os.environ.get("WORLD_SIZE", "1")) == 1,
        project_dir=str(folder),
        **options,
    )
    model = make_model()
    inner = make_optimizer(model)
    used, logged, done = [], [], 0
    model, optimizer, batches, scheduler = accelerator.prepare(
        model, inner, loader(world=accelerator.num_processes), make(inner)
    )
    if resume:
        accelerator.load_state(str(folder / "state"))
        done = SAVED
    while done < until:
        for x, y in batches:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.mse_loss(model(x), y))
                if accelerator.sync_gradients:
                    used.append([float(group["lr"]) for group in inner.param_groups])
                    logged.append(scheduler.get_last_lr())
                optimizer.step()
                if accelerator.sync_gradients or accelerator.step_scheduler_with_optimizer:
                    scheduler.step()
                optimizer.zero_grad()
            done += accelerator.sync_gradients
            if done == until:
                break
        with torch.no_grad():
            model(x)
    if until == SAVED:
        accelerator.save_state(str(folder / "state"))
    accelerator.free_memory()
    return Run(used, parameters(model), logged)


RUNS = {"ddp": train}


def test_it_trains_as_lambda_lr_and_resumes(tmp_path):
    resume(train, tmp_path, compare(train, tmp_path))


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_two_processes(tmp_path):
    failed = in_two_processes(__name__, tmp_path, "ddp")
    assert not failed["ddp"], failed["ddp"]


def test_a_schedule_of_the_prepared_optimizer_counts_each_step_once():
    """Attached to what `prepare` returned, which wraps the optimizer and skips its step while gradients accumulate."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATION)
    model, optimizer = accelerator.prepare(model := make_model(), make_optimizer(model))
    with pytest.raises(
        ts.BindingError, match=r"advance='manual'.*attach to the optimizer that it wraps \(its \.optimizer\)"
    ):
        ts.attach(optimizer, lr=CURVE)
    sched = ts.attach(optimizer.optimizer, lr=CURVE)
    for x, y in loader():
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.mse_loss(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
    assert sched.step_count == len(loader()) // ACCUMULATION

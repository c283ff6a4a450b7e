"""torchtitan: its OptimizersContainer and LRSchedulersContainer, and torch.distributed.checkpoint as it calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed import checkpoint as dcp
from torchtitan.components.checkpointer.base import ModelWrapper
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer, ParamGroupConfig

from tests.frameworks.beside import (
    ACCUMULATION,
    BASE,
    CURVE,
    EXACT,
    SAVED,
    STEPS,
    Make,
    Run,
    compare,
    loader,
    make_model,
    ours,
    ours_alone,
    parameters,
    resume,
    watch,
    with_tensors,
)


class Schedulers(LRSchedulersContainer):
    """torchtitan's own says how: inherit, and make other schedulers."""

    def __init__(self, optimizers: OptimizersContainer, make: Make) -> None:
        self.schedulers = [made for made in map(make, optimizers) if made is not None]


def containers(model: nn.Module, make: Make) -> tuple[OptimizersContainer, Schedulers]:
    def group(pattern: str, lr: float, decay: float) -> ParamGroupConfig:
        return ParamGroupConfig(
            pattern=pattern, optimizer_name="AdamW", optimizer_kwargs={"lr": lr, "weight_decay": decay}
        )

    config = OptimizersContainer.Config(
        param_groups=[group(r"weight$", BASE[0], 0.01), group(r"bias$", BASE[1], 0.0)],
        implementation="for-loop",
    )
    optimizers = OptimizersContainer(config, model_parts=[model])
    return optimizers, Schedulers(optimizers, make)


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    model = make_model()
    optimizers, schedulers = containers(model, make)
    states: dict[str, Any] = {"model": ModelWrapper(model), "optimizer": optimizers}
    if len(schedulers):
        states["lr_scheduler"] = schedulers
    used, logged, done = watch(next(iter(optimizers))), [], 0
    if resume:
        dcp.load(states, checkpoint_id=folder)
        done = SAVED
    while done < until:
        for number, (x, y) in enumerate(loader(), 1):
            (nn.functional.mse_loss(model(x), y) / ACCUMULATION).backward()
            if number % ACCUMULATION == 0:
                logged.append(schedulers.get_metrics())
                optimizers.step()
                schedulers.step()
                optimizers.zero_grad()
                done += 1
                if done == until:
                    break
    if until == SAVED:
        dcp.save(states, checkpoint_id=folder)
    return Run(used, parameters(model), logged)


def test_it_trains_logs_and_resumes_as_with_its_own_schedulers(tmp_path):
    whole = compare(train, tmp_path)
    assert [list(rates.values()) for rates in whole.logged] == EXACT
    resume(train, tmp_path, whole)


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_it_resumes_without_a_scheduler_in_its_container(tmp_path):
    resume(train, tmp_path, train(ours, tmp_path / "whole"), ours_alone)


def test_a_checkpoint_of_an_untrained_run_makes_the_optimizer_s_state_by_a_step_that_is_none(tmp_path):
    model = make_model()
    optimizers, schedulers = containers(model, ours)
    before = [p.clone() for p in model.parameters()]
    dcp.save({"optimizer": optimizers, "lr_scheduler": schedulers}, checkpoint_id=tmp_path)
    assert next(iter(optimizers)).state, "the control: there is state"
    assert all(map(torch.equal, before, model.parameters()))
    (face,) = schedulers
    assert (face.last_epoch, face.get_last_lr()) == (0, [base * CURVE(0) for base in BASE])

"""Plain loops of torch in two processes: DDP, FSDP2, ZeroRedundancyOptimizer; torch.save and torch.distributed.checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn, optim
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from tests.frameworks.beside import (
    ACCUMULATION,
    SAVED,
    STEPS,
    WORLD,
    Make,
    Run,
    compare,
    in_two_processes,
    loader,
    make_model,
    make_optimizer,
    parameters,
    resume,
    watch,
)


class Plain:
    """torch.save of three state_dicts by rank 0."""

    def save(self, file: Path, model: Any, optimizer: Any, scheduler: Any) -> None:
        if isinstance(optimizer, ZeroRedundancyOptimizer):
            optimizer.consolidate_state_dict(to=0)
        if not dist.is_initialized() or dist.get_rank() == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save([part.state_dict() for part in (model, optimizer, scheduler)], file)

    def load(self, file: Path, model: Any, optimizer: Any, scheduler: Any) -> None:
        for part, state in zip((model, optimizer, scheduler), torch.load(file), strict=True):
            part.load_state_dict(state)


class Sharded:
    """torch.distributed.checkpoint, flat or not, with the scheduler's state beside the model's and the optimizer's."""

    def __init__(self, *, flat: bool) -> None:
        self.options = StateDictOptions(flatten_optimizer_state_dict=flat)

    def _state(self, model: Any, optimizer: Any, scheduler: Any) -> dict[str, Any]:
        parts = get_state_dict(model, optimizer, options=self.options)
        return {"model": parts[0], "optimizer": parts[1], "scheduler": scheduler.state_dict()}

    def save(self, folder: Path, *run: Any) -> None:
        dcp.save(self._state(*run), checkpoint_id=folder)

    def load(self, folder: Path, model: Any, optimizer: Any, scheduler: Any) -> None:
        state = self._state(model, optimizer, scheduler)
        dcp.load(state, checkpoint_id=folder)
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=self.options,
        )
        scheduler.load_state_dict(state["scheduler"])


def fsdp2(model: nn.Module) -> nn.Module:
    fully_shard(model[0])  # type: ignore[index]
    return fully_shard(model)


def zero(model: nn.Module) -> Any:
    return make_optimizer(model, ZeroRedundancyOptimizer, optimizer_class=optim.AdamW, lr=0.1)


KINDS: dict[str, tuple[Callable[[nn.Module], nn.Module], Callable[[nn.Module], Any], Any]] = {
    "ddp": (DistributedDataParallel, make_optimizer, Plain()),
    "zero": (DistributedDataParallel, zero, Plain()),
    "ddp_dcp": (DistributedDataParallel, make_optimizer, Sharded(flat=False)),
    "fsdp2": (fsdp2, make_optimizer, Sharded(flat=False)),
    "fsdp2_flat": (fsdp2, make_optimizer, Sharded(flat=True)),
    "one": (lambda model: model, make_optimizer, Plain()),
}


def train(kind: str, make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    wrap, optimize, checkpoint = KINDS[kind]
    if kind != "one" and not dist.is_initialized():
        dist.init_process_group("gloo")
    model = wrap(make_model())
    optimizer = optimize(model)
    used, scheduler, logged, done = watch(optimizer), make(optimizer), [], 0
    batches = loader() if kind == "one" else loader(world=WORLD, rank=dist.get_rank())
    if resume:
        checkpoint.load(folder / "checkpoint", model, optimizer, scheduler)
        done = SAVED
    while done < until:
        for number, (x, y) in enumerate(batches, 1):
            (nn.functional.mse_loss(model(x), y) / ACCUMULATION).backward()
            if number % ACCUMULATION == 0:
                logged.append(scheduler.get_last_lr())
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                done += 1
                if done == until:
                    break
        with torch.no_grad():
            model(x)
    if until == SAVED:
        checkpoint.save(folder / "checkpoint", model, optimizer, scheduler)
    return Run(used, parameters(model), logged)


RUNS = {kind: functools.partial(train, kind) for kind in KINDS}
PAIRS = [kind for kind in KINDS if kind != "one"]


def test_one_process(tmp_path):
    resume(RUNS["one"], tmp_path, compare(RUNS["one"], tmp_path))


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> dict[str, str]:
    return in_two_processes(__name__, tmp_path_factory.mktemp("ranks"), *PAIRS)


@pytest.mark.parametrize("kind", PAIRS)
def test_two_processes(failed, kind):
    assert not failed[kind], failed[kind]

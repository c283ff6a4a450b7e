"""timm: the loop of its train.py (train_one_epoch), with its optimizer factory, its logging and its CheckpointSaver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm.optim
import timm.utils
import torch
from timm.models import resume_checkpoint
from timm.scheduler.scheduler import Scheduler
from torch import nn, optim

from tests.frameworks import beside
from tests.frameworks.beside import (
    ACCUMULATION,
    BASE,
    CURVE,
    EPOCHS,
    EXACT,
    SAVED,
    STEPS,
    STEPS_PER_EPOCH,
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


class Theirs(Scheduler):
    """timm's own base class, with our curve."""

    def __init__(self, optimizer: optim.Optimizer, curve: Any = CURVE) -> None:
        super().__init__(optimizer, "lr", t_in_epochs=False)
        self.curve = curve
        self.update_groups(self._get_lr(0))

    def _get_lr(self, t: int) -> list[float]:
        return [base * self.curve(t) for base in self.base_values]


def theirs(optimizer: optim.Optimizer) -> Any:
    return Theirs(optimizer)


def frozen(optimizer: optim.Optimizer) -> Any:
    return Theirs(optimizer, lambda _: CURVE(0))


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    model = make_model()
    optimizer = timm.optim.create_optimizer_v2(model, "adamw", lr=BASE[0], weight_decay=0.01)
    by_size = sorted(optimizer.param_groups, key=lambda group: -max(p.dim() for p in group["params"]))
    optimizer.param_groups[:] = by_size  # weights first, as everywhere here
    optimizer.param_groups[1]["lr"] = BASE[1]
    used, logged, first, updates = watch(optimizer), [], 0, 0
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        first = resume_checkpoint(model, str(folder / "last.pth.tar"), optimizer, log_info=False)
    scheduler = make(optimizer)
    if resume and scheduler is not None:
        scheduler.step_update(first * STEPS_PER_EPOCH)  # as --sched-on-updates does
    saver = timm.utils.CheckpointSaver(model, optimizer, checkpoint_dir=str(folder), recovery_dir=str(folder))
    for epoch in range(first, EPOCHS if until == STEPS else SAVED // STEPS_PER_EPOCH):
        updates = epoch * STEPS_PER_EPOCH
        for number, (x, y) in enumerate(loader(), 1):
            (nn.functional.mse_loss(model(x), y) / ACCUMULATION).backward()
            if number % ACCUMULATION:
                continue
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
            logged.append([group["lr"] for group in optimizer.param_groups])  # what train.py writes as LR
            saver.save_recovery(epoch, batch_idx=number)
            if scheduler is not None:
                scheduler.step_update(num_updates=updates, metric=0.0)
        with torch.no_grad():
            model(x)
        saver.save_checkpoint(epoch, metric=0.0)
        if scheduler is not None:
            scheduler.step(epoch + 1, 0.0)
    return Run(used, parameters(model), logged)


def test_it_trains_logs_and_resumes_as_with_timm_s_own_scheduler(tmp_path):
    whole = compare(train, tmp_path, theirs, frozen)
    assert whole.logged == EXACT
    resume(train, tmp_path, whole)


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_attached_alone_it_trains_and_resumes_but_the_log_shows_the_next_step_s_lr(tmp_path):
    """train.py reads the groups after optimizer.step(), and timm's checkpoint holds no scheduler anyway."""
    whole = train(ours, tmp_path / "whole")
    alone = train(ours_alone, tmp_path / "alone")
    assert beside.equal(alone, whole)
    assert alone.logged[:-1] == EXACT[1:]
    resume(train, tmp_path, whole, ours_alone)


def test_a_recovery_checkpoint_which_is_saved_before_the_scheduler_moves_counts_its_step(tmp_path):
    train(ours, tmp_path, until=SAVED)
    last = max(tmp_path.glob("recovery-*"))
    saved = torch.load(last, weights_only=False)
    assert saved["optimizer"]["param_groups"][0]["schedule_step"] == SAVED

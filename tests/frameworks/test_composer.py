"""Composer: `Trainer(schedulers=face, step_schedulers_every_batch=True)`, its LRMonitor and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from composer import Trainer
from composer.callbacks import LRMonitor
from composer.loggers import InMemoryLogger
from composer.models import ComposerModel
from torch import nn, optim
from torch.utils.data import DataLoader

import tensorsched as ts
from tests.frameworks.beside import (
    ACCUMULATION,
    EXACT,
    ROWS,
    SAVED,
    STEPS,
    STEPS_PER_EPOCH,
    Make,
    Rows,
    Run,
    compare,
    make_model,
    make_optimizer,
    ours,
    ours_alone,
    parameters,
    resume,
    watch,
    with_tensors,
)


class Net(ComposerModel):
    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()

    def forward(self, batch: Any) -> Any:
        return self.model(batch[0])

    def loss(self, outputs: Any, batch: Any, *_: Any) -> Any:
        return nn.functional.mse_loss(outputs, batch[1])


def batches() -> Any:
    """As large as an optimizer step: Composer cuts them into microbatches, whose gradients it adds up."""
    return DataLoader(Rows(), batch_size=ROWS * ACCUMULATION)


def trainer(optimizer: optim.Optimizer, scheduler: Any, model: Net, until: int, **options: Any) -> Trainer:
    return Trainer(
        model=model,
        optimizers=optimizer,
        schedulers=scheduler,
        train_dataloader=batches(),
        eval_dataloader=batches(),
        max_duration=f"{until // STEPS_PER_EPOCH}ep",
        device="cpu",
        device_train_microbatch_size=ROWS,
        progress_bar=False,
        log_to_console=False,
        auto_log_hparams=False,
        **options,
    )


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    model = Net()
    optimizer = make_optimizer(model)
    used, log, scheduler = watch(optimizer), InMemoryLogger(), make(optimizer)
    made = trainer(
        optimizer,
        scheduler,
        model,
        until,
        callbacks=[LRMonitor()],
        loggers=[log],
        save_folder=str(folder),
        save_filename="ep{epoch}.pt",
        save_overwrite=True,
        load_path=str(folder / f"ep{SAVED // STEPS_PER_EPOCH}.pt") if resume else None,
        **({} if scheduler is None else {"step_schedulers_every_batch": True}),
    )
    made.fit()
    made.close()
    shown = [[float(lr) for _, lr in log.data[f"lr-AdamW/group{group}"]] for group in (0, 1)]
    return Run(used, parameters(model), shown)


def test_it_trains_logs_and_resumes_as_with_lambda_lr(tmp_path):
    whole = compare(train, tmp_path)
    shown = [list(rates) for rates in zip(*whole.logged, strict=True)]
    assert shown[:-1] == EXACT[1:], (
        "LRMonitor looks after the schedulers have moved: the next step's, whosever they are"
    )
    resume(train, tmp_path, whole)


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_it_resumes_without_a_scheduler_in_composer_s_slot(tmp_path):
    resume(train, tmp_path, train(ours, tmp_path / "whole"), ours_alone)


def test_a_step_an_epoch_which_is_composer_s_default_for_schedulers_of_torch_is_refused():
    model = Net()
    optimizer = make_optimizer(model)
    made = trainer(optimizer, ours(optimizer), model, STEPS)
    with pytest.raises(ts.BindingError, match="step_schedulers_every_batch=True"):
        made.fit()
    made.close()

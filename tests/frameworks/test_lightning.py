"""Lightning: `configure_optimizers` returns the face beside the optimizer, with interval="step"."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch import nn

import tensorsched as ts
from tests.frameworks.beside import (
    ACCUMULATION,
    EPOCHS,
    EXACT,
    SAVED,
    STEPS,
    STEPS_PER_EPOCH,
    Make,
    Run,
    compare,
    equal,
    in_two_processes,
    loader,
    make_model,
    make_optimizer,
    ours,
    ours_alone,
    parameters,
    resume,
    theirs,
    watch,
    with_tensors,
)


class Module(pl.LightningModule):
    def __init__(self, make: Make, **interval: Any) -> None:
        super().__init__()
        self.model, self.make, self.interval = make_model(), make, interval or {"interval": "step"}
        self.used: list[list[float]] = []

    def training_step(self, batch: Any) -> torch.Tensor:
        return nn.functional.mse_loss(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any) -> None:
        self.log("val", nn.functional.mse_loss(self.model(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model)
        self.used = watch(optimizer)
        scheduler = self.make(optimizer)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler} | self.interval}


class Rates(CSVLogger):
    """Lightning's own logger, of which the values are kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.seen.append({k: float(v) for k, v in metrics.items() if k.startswith("lr")} | {"step": step})
        super().log_metrics(metrics, step)


def trainer(folder: Path, until: int, logger: Any, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_steps=until,
        accumulate_grad_batches=ACCUMULATION,
        logger=logger,
        log_every_n_steps=1,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    module, logger = Module(make), Rates(folder)
    trainer(
        folder,
        until,
        logger,
        callbacks=[
            LearningRateMonitor("step"),
            ModelCheckpoint(folder, save_last=True, every_n_train_steps=SAVED),
        ],
        **({"devices": world, "strategy": "ddp"} if world > 1 else {"devices": 1}),
    ).fit(
        module,
        loader(world=world, rank=rank),
        loader(),
        ckpt_path=folder / "last.ckpt" if resume else None,
        weights_only=False,
    )
    return Run(module.used, parameters(module.model), [row for row in logger.seen if len(row) > 1])


RUNS = {"ddp": train}


def test_it_trains_logs_and_resumes_as_with_lambda_lr(tmp_path):
    whole = compare(train, tmp_path)
    shown = [list(row.values())[:2] for row in whole.logged]  # LearningRateMonitor, at every batch
    assert shown == [rates for rates in EXACT for _ in range(ACCUMULATION)]
    resume(train, tmp_path, whole)


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_it_resumes_without_a_scheduler_in_lightning_s_slot(tmp_path):
    resume(train, tmp_path, train(ours, tmp_path / "whole"), ours_alone)


def test_two_processes(tmp_path):
    failed = in_two_processes(__name__, tmp_path, "ddp")
    assert not failed["ddp"], failed["ddp"]


def test_an_interval_of_epochs_which_is_the_default_is_refused(tmp_path):
    with pytest.raises(ts.BindingError, match="interval='step'"):
        trainer(tmp_path, STEPS, logger=False, enable_checkpointing=False).fit(
            Module(ours, interval="epoch"), loader()
        )


def averaged(make: Make, folder: Path) -> Run:
    module = Module(make)
    trainer(
        folder,
        -1,
        logger=False,
        max_epochs=EPOCHS,
        enable_checkpointing=False,
        callbacks=[StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2, annealing_epochs=1)],
    ).fit(module, loader())
    return Run(module.used, parameters(module.model))


def test_stochastic_weight_averaging_takes_over(tmp_path):
    reference = averaged(theirs, tmp_path)
    assert reference.used[:STEPS_PER_EPOCH] == EXACT[:STEPS_PER_EPOCH]
    assert reference.used[STEPS_PER_EPOCH:] != EXACT[STEPS_PER_EPOCH:], "the control: SWALR"
    with pytest.warns(UserWarning, match=f"SWALR has taken over lr at step {STEPS_PER_EPOCH}"):
        mine = averaged(ours, tmp_path)
    assert mine.used == reference.used
    assert equal(mine, reference)


def test_lr_find_wants_an_optimizer_without_schedules(tmp_path):
    """It writes learning rates of its own. With schedules it is refused before a value is used."""

    class Searched(Module):
        searching = True

        def configure_optimizers(self) -> Any:
            return make_optimizer(self.model) if self.searching else super().configure_optimizers()

        lr = 0.1

    def tuner() -> Tuner:
        return Tuner(trainer(tmp_path, STEPS, logger=False))

    with pytest.raises(ts.BindingError, match=r"no longer follows its schedule.*Something else writes it"):
        tuner().lr_find(Module(ours), loader(), num_training=4, update_attr=False)
    module = Searched(ours)
    assert tuner().lr_find(module, loader(), num_training=4, update_attr=False) is not None
    module.searching = False
    trainer(tmp_path, STEPS, logger=False).fit(module, loader())
    assert module.used == EXACT

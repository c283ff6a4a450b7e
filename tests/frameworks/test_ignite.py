"""ignite: a handler steps the face, as it steps torch's schedulers; ignite's Checkpoint and TensorboardLogger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, TensorboardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

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
    loader,
    make_model,
    make_optimizer,
    ours,
    ours_alone,
    parameters,
    resume,
    watch,
    with_tensors,
)

EVERY_STEP = Events.ITERATION_COMPLETED(every=ACCUMULATION)


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    model = make_model()
    optimizer = make_optimizer(model)
    used, scheduler = watch(optimizer), make(optimizer)

    def step(engine: Engine, batch: Any) -> None:
        (nn.functional.mse_loss(model(batch[0]), batch[1]) / ACCUMULATION).backward()
        if engine.state.iteration % ACCUMULATION == 0:
            optimizer.step()
            optimizer.zero_grad()

    trainer, evaluator = Engine(step), Engine(lambda _, batch: model(batch[0]).detach())
    keep = {"model": model, "optimizer": optimizer, "trainer": trainer}
    logger = TensorboardLogger(str(folder / "log"))
    logger.attach_opt_params_handler(trainer, EVERY_STEP, optimizer)
    if scheduler is not None:
        trainer.add_event_handler(EVERY_STEP, lambda _: scheduler.step())
        keep["scheduler"] = scheduler
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(loader()))
    saver = Checkpoint(
        keep, DiskSaver(str(folder), create_dir=True, require_empty=False), filename_pattern="run.pt"
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=SAVED // STEPS_PER_EPOCH), saver)
    if resume:
        Checkpoint.load_objects(keep, torch.load(folder / "run.pt"))
    trainer.run(loader(), max_epochs=until // STEPS_PER_EPOCH if until < STEPS else EPOCHS)
    logger.close()
    written = EventAccumulator(str(folder / "log")).Reload()
    shown = [[event.value for event in written.Scalars(f"lr/group_{group}")] for group in (0, 1)]
    return Run(used, parameters(model), shown)


def test_it_trains_logs_and_resumes_as_with_lambda_lr(tmp_path):
    whole = compare(train, tmp_path)
    shown = torch.tensor(whole.logged).T  # TensorBoard keeps float32
    assert torch.equal(shown, torch.tensor(EXACT))
    resume(train, tmp_path, whole)


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_it_resumes_without_a_scheduler_among_the_objects(tmp_path):
    resume(train, tmp_path, train(ours, tmp_path / "whole"), ours_alone)

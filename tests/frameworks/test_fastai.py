"""fastai: a Callback of ours, since a Learner has no place for a scheduler; `Learner.save` and `load` keep the step."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from fastai.basics import Callback, DataLoaders, Learner, OptimWrapper
from fastai.callback.schedule import ParamScheduler
from fastai.callback.training import GradientAccumulation
from torch import nn, optim

import tensorsched as ts
from tests.frameworks.beside import (
    ACCUMULATION,
    BASE,
    CURVE,
    EPOCHS,
    EXACT,
    ROWS,
    SAVED,
    STEPS,
    STEPS_PER_EPOCH,
    Make,
    Run,
    compare,
    loader,
    make_model,
    ours,
    parameters,
    resume,
    theirs,
    watch,
    with_tensors,
)


class Scheduled(Callback):
    """What a user writes; notebooks/06 shows it. fastai sets lr when fit() begins, so it attaches after that."""

    order = ParamScheduler.order  # behind the Recorder, which reads the lr after the batch

    def __init__(self, make: Make) -> None:
        self.make, self.scheduler = make, None

    def before_fit(self) -> None:
        if self.scheduler is None or self.scheduler.optimizer is not self.opt.opt:
            self.scheduler = self.make(self.opt.opt)
        else:
            self.scheduler.last_epoch = (
                0  # a second fit() is a new run of the schedule, as with fit_one_cycle
            )

    def after_batch(self) -> None:
        if self.training:
            self.scheduler.step()


def fastai_s(curve: Any) -> Any:
    """Its own: a function of the part of the run that is done, set before each batch."""

    def rates(part: float) -> list[float]:
        done = round(part * STEPS * ACCUMULATION) // ACCUMULATION
        return [base * curve(done) for base in BASE]

    return ParamScheduler({"lr": rates})


def split(model: nn.Module) -> list[list[nn.Parameter]]:
    every = list(model.parameters())
    return [[p for p in every if p.dim() > 1], [p for p in every if p.dim() == 1]]


class Watch(Callback):
    order = -100

    def before_fit(self) -> None:
        self.used = watch(self.opt.opt)


def learner(folder: Path) -> Learner:
    return Learner(
        DataLoaders(loader(), loader(), device="cpu"),
        make_model(),
        loss_func=nn.MSELoss(),
        opt_func=functools.partial(OptimWrapper, opt=optim.AdamW),
        splitter=split,
        path=folder,
        lr=BASE[0],
        wd=0.01,
    )


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    learn, seen = learner(folder), Watch()
    if resume:
        learn.load("run")
    scheduler = {theirs: fastai_s(CURVE), still: fastai_s(lambda _: CURVE(0))}.get(make) or Scheduled(make)
    epochs = (until - SAVED * resume) // STEPS_PER_EPOCH
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, lr=list(BASE), cbs=[seen, GradientAccumulation(ACCUMULATION * ROWS), scheduler])
    if until == SAVED:
        learn.save("run")
    return Run(seen.used, parameters(learn.model), [float(lr) for lr in learn.recorder.lrs])


def still(optimizer: optim.Optimizer) -> Any:
    raise NotImplementedError  # train() knows it


def test_it_trains_logs_and_resumes_as_with_fastai_s_own_scheduler(tmp_path):
    whole = compare(train, tmp_path, theirs, still)
    assert whole.logged == [biases for _, biases in EXACT for _ in range(ACCUMULATION)]
    resume(train, tmp_path, whole)


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_fit_twice_runs_the_schedule_twice(tmp_path):
    learn, seen = learner(tmp_path), Watch()
    learn.add_cb(Scheduled(ours))
    with learn.no_bar(), learn.no_logging():
        for _ in range(2):
            learn.fit(EPOCHS, lr=list(BASE), cbs=[seen, GradientAccumulation(ACCUMULATION * ROWS)])
            assert seen.used[:STEPS] == EXACT


def test_attached_before_fit_which_sets_lr_it_is_an_error_and_not_the_wrong_value(tmp_path):
    learn = learner(tmp_path)
    learn.create_opt()
    ts.attach(learn.opt.opt, lr=CURVE)
    with (
        learn.no_bar(),
        learn.no_logging(),
        pytest.raises(ts.BindingError, match="no longer follows its schedule"),
    ):
        learn.fit(1)

"""skorch: its LRScheduler callback with the face as its policy; its Checkpoint and LoadInitState."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import skorch
import torch
from skorch.callbacks import Checkpoint, LoadInitState, LRScheduler
from skorch.helper import predefined_split
from torch import nn

import tensorsched as ts
from tests.frameworks.beside import (
    ACCUMULATION,
    EPOCHS,
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
    parameters,
    resume,
    theirs,
    watch,
    with_tensors,
)


class Net(skorch.NeuralNetRegressor):
    """skorch's own, with our two param groups; `accumulate` as its FAQ has it."""

    accumulate = 1

    def initialize_optimizer(self, *_: Any, **__: Any) -> Any:
        self.optimizer_ = make_optimizer(self.module_)
        self.used_ = watch(self.optimizer_)
        return self

    def get_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return super().get_loss(*args, **kwargs) / self.accumulate

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        step = self.train_step_single(batch, **fit_params)
        if (len(self.history[-1, "batches"])) % self.accumulate == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


def net(policy: Any, folder: Path, *, accumulate: int = 1, resume: bool = False) -> Net:
    checkpoint = Checkpoint(monitor=None, dirname=str(folder))
    loading = [("init", LoadInitState(checkpoint))] if resume else []
    made = Net(
        make_model,
        criterion=nn.MSELoss,
        batch_size=ROWS * ACCUMULATION // accumulate,
        max_epochs=EPOCHS,
        iterator_train__shuffle=False,
        callbacks=[*loading, ("lr", LRScheduler(policy=policy, step_every="batch")), ("saved", checkpoint)],
        train_split=predefined_split(Rows(ROWS)),
        verbose=0,
    )
    made.accumulate = accumulate
    return made


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False, accumulate: int = 1) -> Run:
    made = net(lambda optimizer, **_: make(optimizer), folder, accumulate=accumulate, resume=resume)
    rows = Rows()
    made.fit(rows.x, rows.y, epochs=(until - SAVED * resume) // STEPS_PER_EPOCH)
    shown = [row["event_lr"] for epoch in made.history for row in epoch["batches"] if "event_lr" in row]
    return Run(made.used_, parameters(made.module_), shown)


def test_it_trains_logs_and_resumes_as_with_lambda_lr(tmp_path):
    whole = compare(train, tmp_path)
    assert whole.logged == [weights for weights, _ in EXACT]
    resume(train, tmp_path, whole)


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_gradients_of_two_batches_are_one_step_however_often_the_callback_steps_the_face(tmp_path):
    """skorch steps its schedulers after each batch: LambdaLR runs twice too fast there, and ours does not."""
    assert train(ours, tmp_path / "ours", accumulate=ACCUMULATION).used == EXACT
    assert train(theirs, tmp_path / "theirs", accumulate=ACCUMULATION).used != EXACT


def test_epochs_which_are_its_default_are_refused(tmp_path):
    made = net(ours, tmp_path).set_params(callbacks__lr=LRScheduler(policy=lambda o, **_: ours(o)))
    with pytest.raises(ts.BindingError, match="step_every='batch'"):
        made.fit(Rows().x, Rows().y)


def test_partial_fit_goes_on_with_a_policy_that_attaches_once_an_optimizer(tmp_path):
    attached = functools.cache(ours)
    made = net(lambda optimizer, **_: attached(optimizer), tmp_path)
    for _ in range(EPOCHS // 2):
        made.partial_fit(Rows().x, Rows().y, epochs=2)
    assert made.used_ == EXACT
    again = net(lambda optimizer, **_: ours(optimizer), tmp_path).fit(Rows().x, Rows().y, epochs=1)
    with pytest.raises(ts.BindingError, match=r"initial_lr is|already follows"):
        again.partial_fit(Rows().x, Rows().y)

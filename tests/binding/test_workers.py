"""Values in the workers of a DataLoader: a free name's tensor is seen as it is, everything else is refused there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset

import tensorsched as ts

CONTEXTS = pytest.mark.parametrize("context", ["fork", "spawn"])
KL = ts.linear(0.0, 1.0, steps=16)


class Reads(Dataset[Any]):
    """Reads something of a schedule for each sample."""

    def __init__(self, held: Any, what: str = "") -> None:
        self.held, self.what = held, what

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float | str:
        if not self.what:
            return float(self.held)
        try:
            found = getattr(self.held, self.what)
            found = found("lr") if self.what in ("value", "used") else found
            return float(found() if callable(found) else found)
        except ts.BindingError as error:
            return str(error)


def attached() -> tuple[optim.Optimizer, ts.Attachment]:
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))])
    return optimizer, ts.attach(optimizer, lr=KL, free={"kl": KL})


@CONTEXTS
def test_the_tensor_of_a_free_name_is_live_in_a_worker(context):
    optimizer, sched = attached()
    value = sched.value("kl")
    loader = DataLoader(
        Reads(value),
        num_workers=1,
        multiprocessing_context=context,
        persistent_workers=True,
        prefetch_factor=1,
    )
    for _ in range(2):
        expected = value.item()
        assert {batch.item() for batch in loader} == {expected}
        for _ in range(4):
            optimizer.step()
        assert value.item() == expected + 0.25, "it moves here"
    assert sched.step_count == 8


@pytest.mark.parametrize("what", ["value", "step_count", "log", "used"])
def test_what_would_stand_still_in_a_worker_is_refused_there(what):
    optimizer, sched = attached()
    optimizer.step()
    (first, *_) = DataLoader(Reads(sched, what), num_workers=1, multiprocessing_context="fork")
    assert "in a worker of a DataLoader, a process in which no step is ever made" in first[0]
    assert "attach(free={'name': schedule})" in first[0]


def test_it_is_read_where_there_is_no_worker():
    optimizer, sched = attached()
    optimizer.step()
    assert {batch.item() for batch in DataLoader(Reads(sched, "step_count"))} == {1}


def test_a_copy_that_went_to_a_worker_with_spawn_is_refused_too():
    optimizer, sched = attached()
    optimizer.step()
    (first, *_) = DataLoader(Reads((sched), "step_count"), num_workers=1, multiprocessing_context="spawn")
    assert "in a worker of a DataLoader" in first[0]


def test_a_live_value_may_be_moved_to_shared_memory():
    """It is there already. Moving it would take its memory away from where it is written."""
    optimizer, sched = attached()
    value = sched.value("kl").share_memory_()
    for step in range(1, 4):
        optimizer.step()
        assert value.item() == KL(step)

"""The face for trainers: alone, and in trainers that are real and unmodified."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR
from torch.utils.data import TensorDataset

import tensorsched as ts
from tests.binding.test_attach import LR, train, two_groups

accelerate = pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

KINDS = pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
WARMUP, STEPS = 4, 12
CURVE = ts.linear(0.0, 1.0, steps=WARMUP) >> ts.linear(1.0, 0.0, steps=STEPS - WARMUP)


def faced(tensor: bool = False, lr: Any = LR, **options: Any) -> tuple[optim.Optimizer, Any]:
    optimizer = two_groups(optim.SGD)
    return optimizer, ts.attach(optimizer, lr=lr, resident=tensor, **options).lr_scheduler()


def rates(optimizer: optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


# -- alone -------------------------------------------------------------------------------------------------------------


@KINDS
def test_it_is_a_scheduler_of_torch_that_moves_once_an_optimizer_step(tensor):
    optimizer, face = faced(tensor)
    assert isinstance(face, lr_scheduler.LRScheduler)
    assert face is face._sched.lr_scheduler()
    assert face.optimizer is optimizer
    for step in range(5):
        face.step()  # without an optimizer step it is none
        assert (face.last_epoch, face._sched.step_count, face._step_count) == (step, step, step + 1)
        assert face.get_last_lr() == pytest.approx([LR(step)] * 2, abs=0.0)
        assert all(type(lr) is float for lr in face.get_last_lr())
        assert rates(optimizer) == pytest.approx([LR(step)] * 2, rel=2**-23)
        train(optimizer, steps=1)
        assert rates(optimizer) == pytest.approx([LR(step)] * 2, rel=2**-23), "it waits for the trainer"
        face.step()
        face.step()  # Accelerate: once a process


def test_the_curve_trains_to_the_bit_as_lambda_lr():
    def run(make: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = optim.AdamW(model.parameters(), lr=0.5)
        scheduler = make(optimizer)
        for i in range(STEPS):
            model(torch.full((4, 3), float(i))).square().mean().backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        return [p.detach() for p in model.parameters()]

    ours = run(lambda o: ts.attach(o, lr=ts.initial * CURVE).lr_scheduler())
    theirs = run(lambda o: lr_scheduler.LambdaLR(o, CURVE))
    still = run(lambda o: ts.attach(o, lr=0.5).lr_scheduler())
    assert all(map(torch.equal, ours, theirs))
    assert not any(map(torch.equal, ours, still)), "the control: a frozen value"


@KINDS
def test_an_optimizer_step_before_the_trainer_has_stepped_it_is_an_error(tensor):
    optimizer, face = faced(tensor)
    train(optimizer, steps=1)
    face.step()
    train(optimizer, steps=1)
    before = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    with pytest.raises(
        ts.BindingError, match=r"called twice and the scheduler's step\(\) not in between.*interval='step'"
    ):
        train(optimizer, steps=1)
    assert all(map(torch.equal, before, (p for group in optimizer.param_groups for p in group["params"])))
    face.step()
    train(optimizer, steps=1)
    face.step()
    assert face.last_epoch == face._sched.step_count == 3


@KINDS
def test_a_first_step_that_is_repeated_made_the_state(tensor):
    """As DeepSpeed's optimizers do before they train: nothing tells it from a step but that another one follows."""
    optimizer, face = faced(tensor)
    train(optimizer, steps=1)
    train(optimizer, steps=1)
    face.step()
    assert face.last_epoch == 1
    train(optimizer, steps=1)
    with pytest.raises(ts.BindingError, match="called twice"):
        train(optimizer, steps=1)


@KINDS
@pytest.mark.parametrize("emptied", [False, True], ids=["ZeRO 1 and 2", "ZeRO 3"])
def test_a_step_made_group_by_group_is_one(tensor, emptied):
    """A group at a time in param_groups, or the parameters of one group at a time in all of them."""
    optimizer, face = faced(tensor)
    groups = optimizer.param_groups
    everything = [group["params"] for group in groups]
    used = []
    optimizer.register_step_pre_hook(lambda o, *_: used.extend(float(g["lr"]) for g in o.param_groups))

    def step() -> None:
        for index, group in enumerate(groups):
            if emptied:
                for other, parameters in zip(groups, everything, strict=True):
                    other["params"] = parameters if other is group else []
            else:
                optimizer.param_groups = [group]
            for p in everything[index]:
                p.grad = torch.ones_like(p)
            optimizer.step()
        optimizer.param_groups = groups

    for count in range(3):
        used.clear()
        step()
        assert used == pytest.approx([LR(count)] * (4 if emptied else 2), rel=2**-23)
        face.step()
        assert face.last_epoch == face._sched.step_count == count + 1
    groups[1]["lr"] = 0.7
    with pytest.raises(ts.BindingError, match=r"lr\[group 1\] no longer follows"):
        step()


def test_a_copy_of_its_optimizer_does_not_stand_still_without_a_word():
    optimizer, face = faced()
    copied = copy.deepcopy(optimizer)
    train(copied, steps=32)
    for _ in range(31):
        face.step()
    with pytest.warns(UserWarning, match=r"has made no step yet.*such as a copy"):
        face.step()
    together, again = copy.deepcopy((optimizer, face))
    train(together, steps=1)
    again.step()
    assert (again.last_epoch, rates(together)) == (1, [LR(1)] * 2)


@KINDS
@pytest.mark.parametrize("alone", [False, True])
def test_swalr_takes_over_when_it_is_stepped_and_not_when_it_is_made(tensor, alone):
    """In torch's own recipe it is made before training."""
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, resident=tensor)
    scheduler = None if alone else sched.lr_scheduler()
    swa = SWALR(optimizer, swa_lr=0.7, anneal_epochs=1)
    for step in range(3):
        assert rates(optimizer) == pytest.approx([LR(step)] * 2, rel=2**-23)
        train(optimizer, steps=1)
        if scheduler is not None:
            scheduler.step()
    swa.step()
    with pytest.warns(UserWarning, match="SWALR has taken over lr at step 3"):
        train(optimizer, steps=1)
    assert not sched.attached
    assert rates(optimizer) == pytest.approx([0.7] * 2, rel=2**-23)
    swa.step()
    train(optimizer, steps=1)
    assert rates(optimizer) == pytest.approx([0.7] * 2, rel=2**-23)


def test_swalr_beside_other_schedules_is_an_external_write():
    optimizer = two_groups(optim.SGD)
    ts.attach(optimizer, lr=LR, momentum=0.5 * LR)
    swa = SWALR(optimizer, swa_lr=0.7, anneal_epochs=1)
    train(optimizer, steps=1)
    swa.step()
    with pytest.raises(ts.BindingError, match=r"lr\[group 0\] no longer follows"):
        train(optimizer, steps=1)


def test_a_checkpoint_between_the_two_steps_goes_on_with_the_next():
    """timm saves its recovery checkpoints there."""
    optimizer, face = faced()
    train(optimizer, steps=1)
    for load in (
        lambda again, _: again.load_state_dict(optimizer.state_dict()),
        lambda _, other: other.load_state_dict(face.state_dict()),
    ):
        again, other = faced()
        load(again, other)
        assert (other.last_epoch, rates(again)) == (1, [LR(1)] * 2)


@pytest.mark.parametrize("skipped", [True, False])
def test_a_fused_step_that_gradscaler_skips_does_not_count(skipped):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = optim.AdamW([parameter], fused=True)
    face = ts.attach(optimizer, lr=LR).lr_scheduler()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(parameter.sum() * (math.inf if skipped else 1.0)).backward()
    scaler.step(optimizer)
    scaler.update()
    face.step()
    assert (face.last_epoch, face._sched.step_count) == ((0, 0) if skipped else (1, 1))


def test_it_goes_where_it_is_told():
    optimizer, face = faced()
    train(optimizer, steps=1)
    face.last_epoch = 7  # torchtitan's container
    assert (rates(optimizer), face.get_last_lr()) == ([LR(7)] * 2, [LR(7)] * 2)
    face.step()
    assert face.last_epoch == 7, "a step of before is not counted there"
    train(optimizer, steps=1)
    face.step_update(8)  # timm
    face.step_update(9)
    assert face.last_epoch == face._sched.step_count == 9
    face._sched.seek(3)
    assert face.last_epoch == 3
    assert face.base_lrs == [0.05, 0.025], "what the groups held"


def test_its_state_is_the_attachment_s_and_goes_on_as_attach_was_told():
    optimizer, face = faced()
    for _ in range(3):
        train(optimizer, steps=1)
        face.step()
    again, other = faced(lr=0.5 * LR)
    with pytest.raises(ts.BindingError, match="saved under other schedules"):
        other.load_state_dict(face.state_dict())
    third, saved = faced(lr=0.5 * LR, on_mismatch="saved")
    saved.load_state_dict(face.state_dict())
    assert (saved.last_epoch, rates(third)) == (3, rates(optimizer))
    assert rates(again) == [0.5 * LR(0)] * 2


def test_the_optimizer_s_checkpoint_alone_moves_it():
    optimizer, face = faced()
    for _ in range(3):
        train(optimizer, steps=1)
        face.step()
    again, other = faced()
    again.load_state_dict(optimizer.state_dict())
    assert (other.last_epoch, other.get_last_lr()) == (3, face.get_last_lr())


def test_what_it_refuses():
    optimizer = two_groups(optim.SGD)
    with pytest.raises(ts.BindingError, match="attach with advance='auto'"):
        ts.attach(optimizer, lr=LR, advance="manual").lr_scheduler()
    with pytest.raises(ts.BindingError, match="on_mismatch must be one of 'error', 'saved'"):
        ts.attach(two_groups(optim.SGD), lr=LR, on_mismatch="maybe")
    optimizer, face = faced()
    optimizer.param_groups[0]["lr"] = 0.7
    with pytest.raises(ts.BindingError, match=r"lr\[group 0\] no longer follows"):
        train(optimizer, steps=1)
    with pytest.raises(ts.BindingError, match="SequentialLR"):
        lr_scheduler.SequentialLR(optimizer, [face, lr_scheduler.ConstantLR(optimizer)], [3])


# -- in trainers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 3])
def test_accelerate_steps_it_once_an_optimizer_step(accumulation):
    def run(make: Any) -> tuple[list[float], list[torch.Tensor]]:
        torch.manual_seed(0)
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        model = nn.Linear(3, 2)
        optimizer = optim.AdamW(model.parameters(), lr=0.5)
        made = make(optimizer)
        model, optimizer, scheduler = accelerator.prepare(model, optimizer, made)
        used = []
        for i in range(STEPS * accumulation):
            with accelerator.accumulate(model):
                accelerator.backward(model(torch.full((4, 3), float(i))).square().mean())
                if accelerator.sync_gradients:
                    used.append(float(optimizer.param_groups[0]["lr"]))
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        return used, [p.detach() for p in model.parameters()]

    ours = run(lambda o: ts.attach(o, lr=ts.initial * CURVE).lr_scheduler())
    theirs = run(lambda o: lr_scheduler.LambdaLR(o, CURVE))
    assert ours[0] == theirs[0] == [0.5 * CURVE(step) for step in range(STEPS)]
    assert all(map(torch.equal, ours[1], theirs[1]))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.layer(x)
        return {"loss": (out - labels).square().mean(), "logits": out}


def hf(folder: Path, make: Any, *, resume: bool = False, until: int = STEPS) -> tuple[Any, list[float]]:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(STEPS * 4, 3), torch.randn(STEPS * 4, 2))
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.5)
    arguments = (
        transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=until,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            save_steps=5,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            save_safetensors=False,
        )
        if "save_safetensors" in transformers.TrainingArguments.__dataclass_fields__
        else transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=until,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            save_steps=5,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
    )
    used: list[float] = []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(float(o.param_groups[0]["lr"])))
    scheduler = make(optimizer)
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=data,
        data_collator=lambda rows: {
            "x": torch.stack([x for x, _ in rows]),
            "labels": torch.stack([y for _, y in rows]),
        },
        optimizers=(optimizer, scheduler),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer, used


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_hf_trainer_trains_logs_and_resumes_with_it(tmp_path):
    """Its own slot for a scheduler, its own checkpoint, nothing written by hand."""

    def ours(optimizer: Any) -> Any:
        return ts.attach(optimizer, lr=ts.initial * CURVE).lr_scheduler()

    exact = [0.5 * CURVE(step) for step in range(STEPS)]
    whole, used = hf(tmp_path / "ours", ours)
    theirs, _ = hf(tmp_path / "theirs", lambda o: lr_scheduler.LambdaLR(o, CURVE))
    assert used == exact
    assert all(map(torch.equal, whole.model.parameters(), theirs.model.parameters()))
    logged = [row["learning_rate"] for row in whole.state.log_history if "learning_rate" in row]
    assert logged == [row["learning_rate"] for row in theirs.state.log_history if "learning_rate" in row]
    hf(tmp_path / "cut", ours, until=5)
    resumed, rest = hf(tmp_path / "cut", ours, resume=True)
    assert rest == exact[5:]
    assert all(map(torch.equal, whole.model.parameters(), resumed.model.parameters()))

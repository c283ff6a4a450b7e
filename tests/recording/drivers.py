"""What each library's scheduler writes at steps 0, 1, 2, ..., driven as that library's own training loop does it.

`values("timm", build, steps)`: `build` is given the names that the library's module has, and `optimizer`, and makes the
scheduler.
"""

from __future__ import annotations

import functools
import importlib
import os
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler as torch_lr

from tests.recording.installed import load, require

LR = 0.1
EPOCH = 10  # steps, where a library counts epochs
Build = Callable[[Mapping[str, Any]], Any]


def sgd(lr: float = LR) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def values(library: str, build: Build, steps: int, key: str = "lr", lr: float = LR) -> list[float]:
    """The values at steps 0..steps-1."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch of a scheduler without an optimizer step, peers of their own ways
        return DRIVERS[library](build, steps, key, lr)


def names(library: str) -> Mapping[str, Any]:
    """What the library's scheduler module defines."""
    return NAMES[library]()


def _stepped(library: str, build: Build, steps: int, key: str, lr: float) -> list[float]:
    """torch's way: the scheduler, or each of a list, is stepped after each optimizer step."""
    optimizer = sgd(lr)
    made = build({**names(library), "optimizer": optimizer})
    schedulers = made if isinstance(made, list) else [made]
    seen = [optimizer.param_groups[0][key]]
    for _ in range(steps - 1):
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        seen.append(optimizer.param_groups[0][key])
    return [float(value) for value in seen]


def _ignite(build: Build, steps: int, key: str, lr: float) -> list[float]:
    """Before each iteration."""
    optimizer = sgd(lr)
    scheduler = build({**names("ignite"), "optimizer": optimizer})
    seen = []
    for _ in range(steps):
        scheduler(None)
        seen.append(optimizer.param_groups[0][key])
    return seen


def _timm(build: Build, steps: int, key: str, lr: float) -> list[float]:
    """It is told the count."""
    optimizer = sgd(lr)
    scheduler = build({**names("timm"), "optimizer": optimizer})
    seen = [optimizer.param_groups[0][key]]
    for step in range(1, steps):
        (scheduler.step if scheduler.t_in_epochs else scheduler.step_update)(step)
        seen.append(optimizer.param_groups[0][key])
    return seen


def _megatron(build: Build, steps: int, key: str, lr: float) -> list[float]:
    """step(increment); what is no matter here (weight decay, checkpoints) has a default."""
    optimizer = sgd(lr)
    plain = functools.partial(
        names("megatron")["OptimizerParamScheduler"],
        optimizer, init_lr=0.0, max_lr=LR, min_lr=0.0, lr_warmup_steps=0, lr_decay_steps=100,
        lr_decay_style="constant", start_wd=0.0, end_wd=0.0, wd_incr_steps=100, wd_incr_style="constant",
    )  # fmt: skip
    scheduler = build({"OptimizerParamScheduler": plain})
    seen = [optimizer.param_groups[0][key]]
    for _ in range(steps - 1):
        scheduler.step(1)
        seen.append(optimizer.param_groups[0][key])
    return seen


def _torchtitan(build: Build, steps: int, key: str, lr: float) -> list[float]:
    """A config, built for a training of 100 steps."""
    optimizer = sgd(lr)
    container = build(names("torchtitan")).build(optimizers=[optimizer], training_steps=100)
    seen = [optimizer.param_groups[0][key]]
    for _ in range(steps - 1):
        optimizer.step()
        container.step()
        seen.append(optimizer.param_groups[0][key])
    return seen


def composer_state(step: int, total: int = 100) -> types.SimpleNamespace:
    """What Composer's schedulers read of a trainer: its clocks, after so many batches."""
    composer = names("composer")
    time, unit = composer["Time"], composer["TimeUnit"]
    stamp = composer["Timestamp"](batch=step, epoch=step // EPOCH, batch_in_epoch=step % EPOCH)
    return types.SimpleNamespace(timestamp=stamp, max_duration=time(total, unit.BATCH), dataloader_len=EPOCH)


def _composer(build: Build, steps: int, key: str, lr: float) -> list[float]:
    """A factor, asked with the trainer's state."""
    assert key == "lr"
    scheduler = build(names("composer"))
    return [lr * scheduler(composer_state(step)) for step in range(steps)]


def _fvcore(build: Build, steps: int, key: str, lr: float) -> list[float]:  # noqa: ARG001  the value is absolute
    """Asked with the part of the training that is done; 100 steps are all of it."""
    scheduler = build(names("fvcore"))
    return [scheduler(step / 100) for step in range(steps)]


def _optax(build: Build, steps: int, key: str, lr: float) -> list[float]:  # noqa: ARG001  the value is absolute
    """A function of the step, in float64."""
    found = names("optax")
    jax = importlib.import_module("jax")
    with jax.enable_x64(True):
        return jax.vmap(build(found))(jax.numpy.arange(steps)).tolist()


def _keras(build: Build, steps: int, key: str, lr: float) -> list[float]:  # noqa: ARG001  the value is absolute
    """A function of the step, in float64."""
    found = names("keras")
    config = importlib.import_module("keras").config
    before = config.floatx()
    config.set_floatx("float64")
    try:
        schedule = build(found)
        return [float(schedule(step)) for step in range(steps)]
    finally:
        config.set_floatx(before)


def _package(module: str) -> Mapping[str, Any]:
    require(module.partition(".")[0])
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return vars(importlib.import_module(module))


NAMES: dict[str, Callable[[], Mapping[str, Any]]] = {
    "torch": lambda: vars(torch_lr),
    "transformers": lambda: _package("transformers.optimization"),
    "ignite": lambda: _package("ignite.handlers"),
    "optax": lambda: _package("optax"),
    "keras": lambda: _package("keras.optimizers.schedules"),
    **{name: functools.partial(lambda name: vars(load(name)), name) for name in (
        "timm", "fvcore", "megatron", "torchtitan", "deepspeed", "mmengine", "composer", "nemo"
    )},
}  # fmt: skip

DRIVERS: dict[str, Callable[[Build, int, str, float], list[float]]] = {
    **{
        name: functools.partial(_stepped, name)
        for name in ("torch", "transformers", "deepspeed", "mmengine", "nemo")
    },
    "ignite": _ignite,
    "timm": _timm,
    "megatron": _megatron,
    "torchtitan": _torchtitan,
    "composer": _composer,
    "fvcore": _fvcore,
    "optax": _optax,
    "keras": _keras,
}

"""Other libraries in part 1: what they do each step to move the learning rates of all groups."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import warnings
from collections.abc import Sequence
from typing import Any

import ignite_cases
import torch
from cases import STEPS, tiny_sgd
from timing import Competitor

TIMM_STYLE = "timm-style loop: formula, then assign"
TRANSFORMERS = 'transformers get_scheduler("cosine")'
IGNITE = "ignite ParamGroupScheduler, one a group"
OPTAX = "optax cosine_decay_schedule, jitted"

PACKAGES = {"transformers": "transformers", "ignite": "pytorch-ignite", "optax": "optax"}
"""What is imported, and the name it is installed under. timm's loop is written out here and needs nothing."""


def versions() -> dict[str, str | None]:
    """The version of each peer, None where it is not installed and left out."""
    return {
        name: importlib.metadata.version(package) if importlib.util.find_spec(name) else None
        for name, package in PACKAGES.items()
    }


def schedule_steps(groups: int) -> list[Competitor]:
    """Everyone who is installed, each with a new optimizer."""
    ways = {"transformers": _transformers, "ignite": _ignite, "optax": _optax}
    found = versions()
    makes = [_timm_style, *(make for name, make in ways.items() if found[name])]
    return [make(tiny_sgd(groups), STEPS) for make in makes]


def _timm_style(optimizer: torch.optim.Optimizer, steps: int) -> Competitor:
    """What timm's CosineLRScheduler does, in step_update, _get_lr and update_groups, without its options."""
    groups = optimizer.param_groups
    rates = [group["lr"] for group in groups]
    now = 0

    def step() -> None:
        nonlocal now
        now += 1
        values = [0.5 * rate * (1.0 + math.cos(math.pi * now / steps)) for rate in rates]
        for group, value in zip(groups, values, strict=True):
            group["lr"] = value * group["lr_scale"] if "lr_scale" in group else value

    def rewind() -> None:
        nonlocal now
        now = 0

    return Competitor(TIMM_STYLE, step, rewind)


def _transformers(optimizer: torch.optim.Optimizer, steps: int) -> Competitor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers  # noqa: PLC0415  only where it is installed
    scheduler = transformers.get_scheduler(
        "cosine", optimizer, num_warmup_steps=500, num_training_steps=steps
    )
    optimizer.step()  # there are no gradients; the scheduler warns unless the optimizer steps first
    return Competitor(TRANSFORMERS, scheduler.step)


def _ignite(optimizer: torch.optim.Optimizer, steps: int) -> Competitor:
    theirs = ignite_cases.ignite_handlers()
    rates = [group["lr"] for group in optimizer.param_groups]
    handler = theirs.ParamGroupScheduler(
        [
            theirs.CosineAnnealingScheduler(optimizer, "lr", rate, 0.0, steps, param_group_index=index)
            for index, rate in enumerate(rates)
        ]
    )
    return Competitor(IGNITE, lambda: handler(None))


def _optax(optimizer: torch.optim.Optimizer, steps: int) -> Competitor:
    """One jitted call: the count plus 1, and the rates of all groups as one array. In a jitted training step this is
    fused with the rest and has no call of its own.
    """
    import jax  # noqa: PLC0415  only where it is installed
    import optax  # noqa: PLC0415

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    schedule = optax.cosine_decay_schedule(1.0, steps)
    rates = jax.numpy.asarray([group["lr"] for group in optimizer.param_groups])
    advance = jax.jit(lambda count: (count + 1, rates * schedule(count)))
    state: Sequence[Any] = (jax.numpy.asarray(0),)

    def step() -> None:
        nonlocal state
        state = advance(state[0])
        state[1].block_until_ready()

    def rewind() -> None:
        nonlocal state
        state = (jax.numpy.asarray(0),)

    return Competitor(OPTAX, step, rewind)

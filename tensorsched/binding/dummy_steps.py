"""Steps that make an optimizer's state and train nothing: known by what they are.

Formats that save entry by entry need the state before there is any, and frameworks allocate it early. So they give
every parameter a gradient of zeros and step once:

    torch.distributed.checkpoint   _init_optim_state             lr 0 meanwhile, step(closure=None)
    torchtitan                     init_optim_state              the same
    DeepSpeed, ZeRO and bf16       initialize_optimizer_states   step(), with the lr that there is; ZeRO 3: several

Such a step is not counted, and the 0 in the groups is no external write. It is one where no parameter that has a
gradient has state, every gradient is 0, and either the lr of every group is 0 or a function with a name such as the
above is calling. The gradients are read last, and only then: in training nothing is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import torch

from tensorsched.param_groups import as_float

__all__ = ["is_dummy", "is_dummy_by_name"]

_MAKES_STATE = re.compile(r"_*init\w*_optim\w*_states?\w*")


def is_dummy_by_name(optimizer: Any) -> bool:
    """Whether a function that makes optimizers' state is calling step(). Reads no tensor unless one is."""
    return not _has_state(optimizer) and _maker_is_calling() and _gradients_are_zero(optimizer)


def is_dummy(optimizer: Any) -> bool:
    """Whether the step that comes only makes state: asked of one whose slots do not hold what the schedule put there.

    Synchronises where every group's lr is 0.
    """
    groups = optimizer.param_groups
    return not _has_state(optimizer) and _lr_is_zero(groups) and _gradients_are_zero(optimizer)


def _has_state(optimizer: Any) -> bool:
    state = optimizer.state
    return bool(state) and any(p in state for p in _stepped(optimizer.param_groups))


def _stepped(groups: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    return [p for group in groups for p in group["params"] if p.grad is not None]


def _lr_is_zero(groups: Sequence[Mapping[str, Any]]) -> bool:
    held = [group["lr"] for group in groups if "lr" in group]
    return bool(held) and all(as_float(lr) == 0.0 for lr in held)


def _gradients_are_zero(optimizer: Any) -> bool:
    gradients = [p.grad for p in _stepped(optimizer.param_groups)]
    return bool(gradients) and not any(bool(g.count_nonzero()) for g in gradients if g is not None)


def _maker_is_calling() -> bool:
    frame: FrameType | None = sys._getframe(2)  # the documented way to one's callers
    while frame is not None:
        if _MAKES_STATE.fullmatch(frame.f_code.co_name):
            return True
        frame = frame.f_back
    return False

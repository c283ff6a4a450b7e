"""Who calls optimizer.step(), where that decides whether a call is a step."""

from __future__ import annotations

import gc
import sys
from types import FrameType

from tensorsched.errors import BindingError

__all__ = ["refuse_pieces", "scaler_is_there"]

_SCALERS = (
    "GradScaler",
    "LossScaler",
)  # in their class's name, or a base's: torch's, Megatron's, apex's, DeepSpeed's

# Modules that make one step of several calls, or the optimizer's state by a call more, with nothing in the arguments
# or the groups that tells so; and what to do instead.
_BY_GROUPS = "deepspeed.runtime.zero.stage_1_and_2"
_IN_PIECES = {
    _BY_GROUPS: "ZeRO 1 and 2 call it for each param group",
    "deepspeed.runtime.zero.stage3": "ZeRO 3 calls it for each sub-group of parameters, and once more for its state",
    "deepspeed.runtime.fp16.fused_optimizer": "its fp16 optimizer calls it once more to make its state",
    "deepspeed.runtime.fp16.unfused_optimizer": "its fp16 optimizer calls it once more to make its state",
}


def refuse_pieces(optimizer: object, groups: int) -> None:
    """Refuse a caller of step() whose calls are not steps, which an attachment would count; once, at the first.

    Args:
        optimizer: whose step() is being called.
        groups: how many param_groups it has.

    Raises:
        BindingError: DeepSpeed makes one step of several calls.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in _IN_PIECES and (groups > 1 or module != _BY_GROUPS):
            raise BindingError(
                f"DeepSpeed does not call {type(optimizer).__name__}.step() once a step: {_IN_PIECES[module]}, and the "
                "schedule would advance at each; pass lr_scheduler=sched.lr_scheduler() to deepspeed.initialize, which "
                "then steps it"
            )
        frame = frame.f_back


def scaler_is_there() -> bool:
    """Whether somebody in this process may skip steps on the host because gradients are not finite.

    All objects are looked at, so it is asked once, before an error. A disabled scaler skips nothing.
    """
    kinds = {
        kind
        for kind in {type(each) for each in gc.get_objects()}
        if any(name in base.__name__ for base in kind.__mro__ for name in _SCALERS)
    }
    if gc.get_freeze_count():  # what is frozen is not among the objects
        return True
    return any(type(each) in kinds and getattr(each, "_enabled", True) for each in gc.get_objects())

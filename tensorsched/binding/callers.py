"""Who calls optimizer.step(), where that decides whether a call is a step."""

from __future__ import annotations

import sys
from types import FrameType

from tensorsched.errors import BindingError

__all__ = ["refuse_pieces"]

# Modules that make one step of several calls, or the optimizer's state by a call more, with nothing in the arguments
# or the groups that tells so; and what to do instead.
_IN_PIECES = {
    "deepspeed.runtime.zero.stage3": "ZeRO 3 calls it for each sub-group of parameters, and once more for its state",
    "deepspeed.runtime.fp16.fused_optimizer": "its fp16 optimizer calls it once more to make its state",
    "deepspeed.runtime.fp16.unfused_optimizer": "its fp16 optimizer calls it once more to make its state",
}


def refuse_pieces(optimizer: object) -> None:
    """Refuse a caller of step() whose calls are not steps, which an attachment would count; once, at the first.

    Raises:
        BindingError: DeepSpeed makes one step of several calls.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if (why := _IN_PIECES.get(frame.f_globals.get("__name__", ""))) is not None:
            raise BindingError(
                f"DeepSpeed does not call {type(optimizer).__name__}.step() once a step: {why}, and the schedule would "
                "advance at each; pass lr_scheduler=sched.lr_scheduler() to deepspeed.initialize, which then steps it"
            )
        frame = frame.f_back

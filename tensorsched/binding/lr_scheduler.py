"""The face that a trainer wants: a torch LRScheduler, to isinstance and to duck-typing, over an attachment.

The schedule then moves when the trainer calls `step()`: at most once for each optimizer step that was not skipped,
however often it is called (Accelerate calls once a process), and never without one. Values that no step() has moved
since the last optimizer step stand still, which is said once: a trainer that steps its schedulers once an epoch wants
a schedule that counts epochs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from tensorsched.binding.carried import initial_key
from tensorsched.binding.modes import Driving
from tensorsched.binding.movers import Groups
from tensorsched.errors import BindingError
from tensorsched.param_groups import as_float

__all__ = ["AttachmentLR"]


class AttachmentLR(LRScheduler):
    """What `Attachment.lr_scheduler` returns; hand it to a trainer wherever that takes a scheduler of torch.

    Nothing of torch's LRScheduler runs: its constructor writes param_groups and replaces `optimizer.step`.

    Attributes:
        last_epoch: number of completed steps; assigning to it goes to that step (torchtitan restores so).
        base_lrs: what the groups held before their schedules, as floats.
    """

    def __init__(self, sched: Driving, on_mismatch: str) -> None:
        self._sched = sched
        self._on_mismatch = on_mismatch
        self._stepped = False  # whether an optimizer step waits to be counted
        self._found_inf: torch.Tensor | None = None  # of that step
        self._said = False
        self._last_epoch = sched.step_count
        self._step_count = self._last_epoch + 1  # torch's own name; Accelerate adds to it
        self._get_lr_called_within_step = False

    @property
    def optimizer(self) -> Any:  # type: ignore[override]  # a plain attribute of torch's
        """What the attachment drives."""
        return self._sched.optimizer

    def step(self, *_: Any, **__: Any) -> None:
        """Count the optimizer step that was made since the last call, if one was; otherwise nothing happens.

        Arguments (an epoch, a metric, an increment) are ignored: the step counter decides. Synchronises only after a
        fused step under GradScaler, which alone knows whether it was skipped.

        Raises:
            BindingError: something else wrote to a slot, or the schedule is detached. Nothing has changed.
        """
        if self._stepped:
            found_inf = self._found_inf
            try:
                self._sched._advance(found_inf)
            except KeyboardInterrupt:  # counted or not: the counter knows
                if self._sched.step_count != self._last_epoch:
                    self.moved()
                raise
            self._stepped = False
            self._last_epoch = self._last_epoch + 1 if found_inf is None else self._sched.step_count
        self._step_count = self._last_epoch + 1

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """As timm's trainer calls it, with the number of updates so far: go there if the counter is elsewhere."""
        del metric
        self.step()
        if num_updates != self._last_epoch:
            self.last_epoch = num_updates

    @property
    def last_epoch(self) -> int:
        """Number of completed steps, without a synchronisation."""
        return self._last_epoch

    @last_epoch.setter
    def last_epoch(self, step: int) -> None:
        if sys._getframe(1).f_globals.get("__name__") == torch.optim.lr_scheduler.__name__:
            self._sched._resynchronise()  # SequentialLR has written initial_lr into the groups
            raise BindingError(
                "torch's SequentialLR winds its schedulers back, and this one counts the optimizer's steps: write one "
                "schedule, a >> b, and attach that"
            )
        if (tally := self._sched._mode.tally) is not None and step != self._last_epoch:
            raise BindingError(
                f"this schedule is on a clock of {tally.clock.unit}, and which step that is at is not known: load its "
                "state, or the optimizer's, or call seek() with a position"
            )
        if tally is None:
            self._sched.seek(step)
        self._last_epoch, self._stepped = step, False
        self._step_count = step + 1

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]  # a plain attribute of torch's
        """What each group held before its schedule."""
        groups = self.optimizer.param_groups
        return [as_float(group.get(initial_key("lr"), group["lr"])) or 0.0 for group in groups]

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """The lr of each group, as floats: what the next optimizer step uses. Of tensor slots the table is read."""
        return [float(value) for value in self._sched._now("lr", self._last_epoch)]

    def get_lr(self) -> list[float | torch.Tensor]:
        """As `get_last_lr`."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The attachment's."""
        return self._sched.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The attachment's, with the `on_mismatch` that this face was made with."""
        self._sched.load_state_dict(state_dict, on_mismatch=self._on_mismatch)
        self.moved()

    def moved(self) -> None:
        """The step counter was set from elsewhere: a seek, a checkpoint of the optimizer."""
        self._last_epoch, self._stepped = self._sched.step_count, False
        self._step_count = self._last_epoch + 1

    def note(self, _: Groups, found_inf: torch.Tensor | None) -> None:
        """An optimizer step was made: called by its hook, in the place of the mover's advance."""
        if self._stepped and not self._said:
            self._said = True
            warnings.warn(
                f"{type(self.optimizer).__name__}.step() was called twice and the scheduler's step() not in between, "
                "so the second used the values of the first; let the trainer step its scheduler after each optimizer "
                "step (in Lightning interval='step'), or schedule in epochs with .hold_each(n) and attach() alone",
                UserWarning,
                stacklevel=2,
            )
        self._stepped, self._found_inf = True, found_inf

    def __repr__(self) -> str:
        return f"AttachmentLR({self._sched!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._sched, self._stepped, self._found_inf, self._said)


def _again(sched: Any, stepped: bool, found_inf: torch.Tensor | None, said: bool) -> AttachmentLR:  # noqa: FBT001
    """The face of a copied or unpickled attachment, which then waits for it as the original does."""
    face: AttachmentLR = sched.lr_scheduler()
    face._stepped, face._found_inf, face._said = stepped, found_inf, said
    return face

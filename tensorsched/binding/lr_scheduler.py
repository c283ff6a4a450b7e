"""The face that a trainer wants: a torch LRScheduler, to isinstance and to duck-typing, over an attachment.

The schedule then moves when the trainer calls `step()`: at most once for each optimizer step that was not skipped,
however often it is called (Accelerate calls once a process), and never without one. An optimizer step before the
trainer has stepped its scheduler would use the values of the last one again, and is an error: a trainer that steps its
schedulers once an epoch is told so.

DeepSpeed's ZeRO makes one step of several calls, each for some of the parameters; and wrappers may make the optimizer's
state by a first step that is none. Calls for other parameters than those that were stepped belong to the same step, and
a first step that is repeated was none.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.carried import initial_key
from tensorsched.binding.events import advance, left_to_swalr
from tensorsched.binding.methods import saving
from tensorsched.binding.movers import Groups, Mover
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, as_float

__all__ = ["NOT_SEQUENTIAL", "AttachmentLR", "set_by_sequential_lr"]

_UNANSWERED = 32
"""Calls of step() in a row without an optimizer step; GradScaler skips about half as many at worst."""


NOT_SEQUENTIAL = (
    "torch's SequentialLR winds its schedulers back, and this one counts the optimizer's steps: write one schedule, "
    "a >> b, and attach that"
)


def set_by_sequential_lr() -> bool:
    """Whether it is torch that sets `last_epoch`, in whose setter this is called."""
    return sys._getframe(2).f_globals.get("__name__") == torch.optim.lr_scheduler.__name__


class AttachmentLR(LRScheduler):
    """What `Attachment.lr_scheduler` returns; hand it to a trainer wherever that takes a scheduler of torch.

    Nothing of torch's LRScheduler runs: its constructor writes param_groups and replaces `optimizer.step`.

    Attributes:
        last_epoch: number of completed steps; assigning to it goes to that step (torchtitan restores so).
        base_lrs: what the groups held before their schedules, as floats.
    """

    def __init__(self, sched: AttachmentBase, on_mismatch: str) -> None:
        self._sched = sched
        self._on_mismatch = on_mismatch
        self._stepped = False  # whether an optimizer step waits to be counted
        self._found_inf: torch.Tensor | None = None  # of that step
        self._pieces: set[int] = set()  # of that step: ids of the first parameter of each call
        self._first = True  # whether no step has been counted yet: the one that waits may have made the state
        self._never = True  # whether the optimizer has made no step since we are here
        self._unanswered = 0  # calls of step() since the last optimizer step
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
                advance(self._sched, found_inf)
            except KeyboardInterrupt:  # counted or not: the counter knows
                if self._sched.step_count != self._last_epoch:
                    self.moved()
                raise
            self._count_again()
            self._first = False
            self._last_epoch = self._last_epoch + 1 if found_inf is None else self._sched.step_count
        else:
            self._unanswered += 1
            if self._unanswered == _UNANSWERED and self._never:
                self._say_unanswered()
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
        if set_by_sequential_lr():
            self._sched._resynchronise()  # SequentialLR has written initial_lr into the groups
            raise BindingError(NOT_SEQUENTIAL)
        if (tally := self._sched._mode.tally) is not None and step != self._last_epoch:
            raise BindingError(
                f"this schedule is on a clock of {tally.clock.unit}, and which step that is at is not known: load its "
                "state, or the optimizer's, or call seek() with a position"
            )
        if tally is None:
            saving.seek(self._sched, step)
        self._count_again()
        self._last_epoch = step
        self._step_count = step + 1

    def way_back(self) -> Callable[[], None]:
        """What lets it wait again for the step that it waits for now, after a counter was set and set back."""
        waits = self._stepped, self._found_inf, set(self._pieces), self._first, self._unanswered

        def go_back() -> None:
            self._stepped, self._found_inf, self._pieces, self._first, self._unanswered = waits

        return go_back

    @property
    def clocked(self) -> bool:
        """Whether the schedules are on a clock that does not count steps."""
        return self._sched._mode.tally is not None

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]  # a plain attribute of torch's
        """What each group held before its schedule."""
        groups = self.optimizer.param_groups
        return [as_float(group.get(initial_key("lr"), group["lr"])) or 0.0 for group in groups]

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """The lr of each group, as floats: what the next optimizer step uses. Of tensor slots the table is read."""
        return [float(value) for value in _present(self._sched, "lr", self._last_epoch)]

    def get_lr(self) -> list[float | torch.Tensor]:
        """As `get_last_lr`."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The attachment's."""
        return saving.state_dict(self._sched)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The attachment's, with the `on_mismatch` that this face was made with."""
        saving.load_state_dict(self._sched, state_dict, on_mismatch=self._on_mismatch)
        self.moved()

    def moved(self) -> None:
        """The step counter was set from elsewhere: a seek, a checkpoint of the optimizer."""
        self._count_again()
        self._last_epoch = self._sched.step_count
        self._step_count = self._last_epoch + 1

    def mover(self, check: Callable[[Groups], bool]) -> Mover:
        """What the optimizer's hooks call: `check`, and that no step waits; then take note of the step."""
        return Mover(lambda groups: not self._stepped and check(groups), self._note)

    @property
    def pending(self) -> int:
        """1 if an optimizer step was made and is not counted yet, else 0. Synchronises after a fused step."""
        return int(self._stepped and (self._found_inf is None or self._found_inf.item() == 0))

    def before(self, groups: Groups) -> None:
        """The optimizer is about to step, perhaps before the trainer has stepped us.

        Raises:
            BindingError: it would use the same values again. Nothing has changed.
        """
        if not self._stepped or _first_parameter(groups) not in self._pieces:
            return
        if not self.pending or self._first:  # it was skipped, or it made the optimizer's state
            self._first = self._first and not self.pending
            self._count_again()
            return
        if left_to_swalr(self._sched):
            return
        raise BindingError(
            f"{type(self.optimizer).__name__}.step() was called twice and the scheduler's step() not in between, so "
            "the second would use the values of the first; let the trainer step its scheduler after each optimizer "
            "step (in Lightning interval='step', in Composer step_schedulers_every_batch=True, in skorch "
            "step_every='batch'); for values that change once an epoch write schedule.hold_each(steps_per_epoch)"
        )

    def _note(self, groups: Groups, found_inf: torch.Tensor | None) -> None:
        """An optimizer step was made: called by its hook, in the place of the mover's advance."""
        self._stepped, self._found_inf, self._never = True, found_inf, False
        self._pieces.add(_first_parameter(groups))

    def _count_again(self) -> None:
        self._stepped, self._found_inf, self._unanswered = False, None, 0
        self._pieces.clear()

    def _say_unanswered(self) -> None:
        warnings.warn(
            f"the scheduler's step() was called {_UNANSWERED} times in a row and its {type(self.optimizer).__name__} "
            "has made no step yet, so the schedule stands still: another optimizer is trained, such as a copy of "
            "this one (copy the attachment with it, or attach to the copy), or every step is skipped",
            UserWarning,
            stacklevel=3,
        )

    def __repr__(self) -> str:
        return f"AttachmentLR({self._sched!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._sched, self._stepped, self._found_inf)


def _present(sched: AttachmentBase, key: str, step: int) -> list[float]:
    """What each group has under a key at `step`, the present one: of a tensor what its table says.

    On a clock it synchronises as `position` does.
    """
    position = step if sched._options.clock is None else sched.position
    tensors = {
        slot.place: slot for slot in sched.slots if (slot.tensor or slot.filled) and slot.place.key == key
    }
    groups = sched.optimizer.param_groups
    return [
        sched._mode.at(tensors[place].name, position)
        if (place := Place(index, key)) in tensors
        else as_float(group[key]) or 0.0
        for index, group in enumerate(groups)
    ]


def _first_parameter(groups: Groups) -> int:
    """What a call of step() is known by: the id of the first parameter that it is for."""
    for group in groups:
        if group["params"]:
            return id(group["params"][0])
    return 0


def _again(sched: Any, stepped: bool, found_inf: torch.Tensor | None) -> AttachmentLR:  # noqa: FBT001
    """The face of a copied or unpickled attachment, which then waits for it as the original does."""
    face: AttachmentLR = sched.lr_scheduler()
    if stepped:
        face._note(sched.optimizer.param_groups, found_inf)
        face._first = False
    return face

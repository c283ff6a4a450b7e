"""One LRScheduler over all attachments of a plan, for trainers that take one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler

from tensorsched.binding.lr_scheduler import NOT_SEQUENTIAL, AttachmentLR, set_by_sequential_lr
from tensorsched.errors import BindingError

__all__ = ["PlanLR"]


class Planned(Protocol):
    """What the face asks of a plan, which stands above it."""

    def seek(self, step: int) -> None:
        """Go to a step, with all."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""


class PlanLR(LRScheduler):
    """What `Plan.lr_scheduler` returns; hand it to a trainer wherever that takes a scheduler of torch.

    Each schedule moves when the trainer calls `step()` and its own optimizer has stepped since.

    Attributes:
        faces: the scheduler of each attachment, in order.
    """

    def __init__(self, plan: Planned, faces: Sequence[AttachmentLR]) -> None:
        self._plan = plan
        self.faces = tuple(faces)
        self._step_count = self.last_epoch + 1  # torch's own name; Accelerate adds to it
        self._get_lr_called_within_step = False

    @property
    def optimizer(self) -> Any:  # type: ignore[override]  # a plain attribute of torch's
        """The first optimizer: trainers ask whether it is one of theirs."""
        return self.faces[0].optimizer

    def step(self, *_: Any, **__: Any) -> None:
        """Count each optimizer step that was made since the last call; arguments are ignored.

        Raises:
            BindingError: something else wrote to a slot, or a schedule is detached.
        """
        for face in self.faces:
            face.step()
        self._step_count = self.last_epoch + 1

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """As timm's trainer calls it, with the number of updates so far: go there if the counters are elsewhere."""
        del metric
        self.step()
        if any(face.last_epoch != num_updates for face in self.faces):
            self.last_epoch = num_updates

    @property
    def last_epoch(self) -> int:
        """Number of completed steps of the first optimizer, without a synchronisation."""
        return self.faces[0].last_epoch

    @last_epoch.setter
    def last_epoch(self, step: int) -> None:
        if set_by_sequential_lr():
            for face in self.faces:
                face._sched._resynchronise()  # SequentialLR has written initial_lr into the groups
            raise BindingError(NOT_SEQUENTIAL)
        if any(face.clocked for face in self.faces):
            # Which position a step is at is not known, so these can only be there already: they are asked first.
            for face in sorted(self.faces, key=lambda face: not face.clocked):
                face.last_epoch = step
        else:
            self._plan.seek(step)
        self._step_count = step + 1

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]  # a plain attribute of torch's
        """What each group of each optimizer held before its schedule."""
        return [lr for face in self.faces for lr in face.base_lrs]

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """The lr of each group of each optimizer, as floats: what the next step uses. Does not synchronise."""
        return [lr for face in self.faces for lr in face.get_last_lr()]

    def get_lr(self) -> list[float | torch.Tensor]:
        """As `get_last_lr`."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The plan's."""
        return self._plan.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The plan's, each attachment with the `on_mismatch` that was given to its `attach`."""
        self._plan.load_state_dict(state_dict)
        self._step_count = self.last_epoch + 1

    def __repr__(self) -> str:
        return f"PlanLR({self._plan!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._plan, self.faces)


def _again(plan: Any, faces: Sequence[AttachmentLR]) -> PlanLR:  # noqa: ARG001  copied with it: they know what waits
    """The face of a copied or unpickled plan."""
    face: PlanLR = plan.lr_scheduler()
    return face

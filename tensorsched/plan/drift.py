"""Whether optimizers that were meant to step together do: one that a trainer forgets is never scheduled, silently.

Each step is counted on the host, by a hook of its own (0.1 us). The step counters, which may be on a device, are only
read when those counts are apart by more than a step; a false alarm (steps that a replayed graph made, say) doubles what
it takes to read them again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from tensorsched.binding.attachment import Attachment
from tensorsched.binding.hooks import _untraced, capturing, has_hooks

__all__ = ["Drift", "apart", "listed"]

_LEAST = 2  # steps apart: within an iteration one is always ahead


def apart(counts: Mapping[str, int]) -> int:
    """How many steps lie between the first and the last."""
    return max(counts.values()) - min(counts.values())


def listed(counts: Mapping[str, int]) -> str:
    """Where each is: "muon at step 4, adamw at step 3"."""
    return ", ".join(f"{name} at step {count}" for name, count in counts.items())


class Drift:
    """Warns once when the attachments of a plan come apart.

    The optimizers hold it by their hooks; it does not hold them.
    """

    def __init__(self, attachments: Mapping[str, Attachment]) -> None:
        self._attachments = attachments
        self._steps = [0] * len(attachments)
        self._patience = 1
        self._handles: list[RemovableHandle] = []
        self._said = False
        optimizers = [sched.optimizer for sched in attachments.values()]
        if len(optimizers) > 1 and all(map(has_hooks, optimizers)):
            for index, optimizer in enumerate(optimizers):
                self._handles.append(optimizer.register_step_post_hook(self._counter(index)))

    def stop(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def reset(self) -> None:
        """They were put together, or where a checkpoint had them."""
        self._steps[:] = [0] * len(self._steps)
        self._patience, self._said = 1, False

    def say(self, counts: Mapping[str, int]) -> None:
        """Warn if they are apart, unless that was said before and they have not been together since."""
        if apart(counts) < _LEAST:
            self._said = False
        elif not self._said:
            self._said = True
            warnings.warn(
                f"the optimizers of a plan have drifted apart: {listed(counts)}. One was not stepped, or GradScaler "
                f"skipped it alone. Step all of them in each iteration, or say that it is meant, by "
                f"ts.Plan(..., together=False); plan.seek({max(counts.values())}) brings them together",
                UserWarning,
                stacklevel=2,
            )

    def _counter(self, index: int) -> Callable[..., None]:
        steps = self._steps

        @_untraced
        def after(optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001  torch's signature
            steps[index] += 1
            if steps[index] - min(steps) > self._patience:
                self._look()

        return after

    def _look(self) -> None:
        """Read the step counters: a suspicion, nothing more."""
        scheds = self._attachments.values()
        if (torch.cuda.is_available() and capturing()) or not all(sched.attached for sched in scheds):
            return
        counts = {name: sched.step_count for name, sched in self._attachments.items()}
        self.say(counts)
        self._steps[:] = [0] * len(self._steps)
        self._patience *= 2

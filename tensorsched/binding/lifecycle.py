"""What happens to an attached optimizer, and what the attachment does about it: step, save, load, detach.

torch's own hooks are used, never a wrapper around the optimizer: GradScaler, Accelerate and Lightning test for its type
and leave attributes on it.

    step pre-hook               the slots must hold what the schedule put there; otherwise an error, before the step
    step post-hook              advance, unless GradScaler's found_inf says that the step was skipped
    state_dict post-hook        plain floats instead of live views: a checkpoint that does not move afterwards
    load_state_dict post-hook   the groups are new dicts with the checkpoint's values: bind again, the clock decides
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tensorsched.errors import BindingError

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from tensorsched.binding.attach import Attachment

_HOOKS = (
    "register_step_pre_hook",
    "register_step_post_hook",
    "register_state_dict_post_hook",
    "register_load_state_dict_post_hook",
)


def has_hooks(optimizer: object) -> bool:
    """Whether the optimizer offers torch's hooks."""
    return all(hasattr(optimizer, name) for name in _HOOKS)


class Hooks:
    """The hooks of one attachment on one optimizer, removable together."""

    def __init__(self, optimizer: Any, attachment: Attachment, *, auto: bool) -> None:
        self._attachment = attachment
        self._handles: list[RemovableHandle] = []
        if has_hooks(optimizer):
            self._handles = [
                optimizer.register_state_dict_post_hook(self._saved),
                optimizer.register_load_state_dict_post_hook(self._loaded),
                optimizer.register_step_pre_hook(self._before),
            ]
            if auto:
                self._handles.append(optimizer.register_step_post_hook(self._after))

    def remove(self) -> None:
        """Remove all of them."""
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002  torch's signature
        self._attachment.verify()

    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002  torch's signature
        # GradScaler leaves found_inf on optimizers that handle it themselves (fused): there a skipped step comes by
        # here.
        self._attachment.advance(getattr(optimizer, "found_inf", None))

    def _saved(self, optimizer: Any, state_dict: dict[str, Any]) -> None:  # noqa: ARG002  torch's signature
        self._attachment.write_plain(state_dict["param_groups"])

    def _loaded(self, optimizer: Any) -> None:  # noqa: ARG002  torch's signature
        self._attachment.bind()


def displaced(name: str, expected: object, found: object, step: int) -> BindingError:
    """The error for a slot that somebody else has written to."""
    return BindingError(
        f"{name} no longer follows its schedule: at step {step} the schedule put {_shown(expected)} there and it "
        "now holds "
        f"{_shown(found)}. Something else writes it, such as a torch scheduler on the same optimizer; remove that, "
        "or call "
        "detach() and let it have the value"
    )


def _shown(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {value.device.type} tensor"
    return repr(value)

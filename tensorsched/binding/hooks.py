"""What happens to an attached optimizer, and what the attachment does about it: step, save, load, detach.

torch's own hooks are used, never a wrapper around the optimizer: GradScaler, Accelerate and Lightning test for its type
and leave attributes on it.

    step pre-hook               a step that is captured into a CUDA graph must have all its values on the device
                                the slots must hold what the schedule put there; otherwise an error, before the step
                                (the step by which distributed checkpointing makes state is no step)
    step post-hook              advance, unless GradScaler's found_inf says that the step was skipped
    state_dict post-hook        plain floats instead of live views: a checkpoint that does not move afterwards
    load_state_dict post-hook   the groups are new dicts with the checkpoint's values: bind again, the clock decides
                                (and once more before the next step, if the optimizer's own load_state_dict goes on
                                after torch's: ZeroRedundancyOptimizer then copies the checkpoint's values over ours)
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from tensorsched.errors import BindingError

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from tensorsched.binding.controls import Controls

_CHECKPOINT = "torch.distributed.checkpoint.state_dict"
_HOOKS = ("step_pre", "step_post", "state_dict_post", "load_state_dict_post")


def capturing() -> bool:
    """Whether the current CUDA stream is being captured into a graph."""
    return torch.cuda.is_current_stream_capturing()


def has_hooks(optimizer: object) -> bool:
    """Whether the optimizer's step() runs torch's hooks."""
    return (
        isinstance(optimizer, torch.optim.Optimizer)
        and all(hasattr(optimizer, f"_optimizer_{name}_hooks") for name in _HOOKS)
        # Set on the class whose step torch has wrapped; a wrapper with a step of its own has no such mark.
        and getattr(type(optimizer).step, "hooked", False)
    )


def require_hooks(optimizer: object) -> None:
    """Refuse an optimizer whose steps nothing would report.

    Raises:
        BindingError: it has no hooks, or is a wrapper whose own step() does not run them.
    """
    if not has_hooks(optimizer):
        wrapped = [
            k for k, v in getattr(optimizer, "__dict__", {}).items() if isinstance(v, torch.optim.Optimizer)
        ]
        inner = f", or attach to the optimizer that it wraps (its .{wrapped[0]})" if wrapped else ""
        raise BindingError(
            f"{type(optimizer).__name__} has no step hooks (its step() is not torch.optim.Optimizer's), so nothing "
            f"would advance the schedule; pass advance='manual' and call sched.step() after each optimizer step{inner}"
        )


class Hooks:
    """The hooks of one attachment on one optimizer, removable together."""

    def __init__(self, optimizer: Any, attachment: Controls, *, auto: bool) -> None:
        self._attachment = attachment
        self._handles: list[RemovableHandle] = []
        self._hidden = False
        self._overwritten = False
        self._has_cuda = torch.cuda.is_available()
        # More than its own step and the abstract one: a subclass whose step() may call the step() of its parent.
        self._may_nest = len({inspect.unwrap(vars(c)["step"]) for c in _classes_with_step(optimizer)}) > 2  # noqa: PLR2004
        if has_hooks(optimizer):
            self._handles = [
                optimizer.register_state_dict_post_hook(self._saved),
                optimizer.register_load_state_dict_post_hook(self._loaded),
                optimizer.register_step_pre_hook(self._before),
            ]
            after = self._after if auto else self._note
            self._handles.append(optimizer.register_step_post_hook(after))

    @property
    def active(self) -> bool:
        """Whether the optimizer reports its steps."""
        return bool(self._handles)

    def remove(self) -> None:
        """Remove all of them."""
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002  torch's signature
        if self._may_nest and _is_nested(optimizer):
            return
        self._hidden = not optimizer.state and "closure" in kwargs and _is_state_initialisation()
        if self._hidden:
            self._attachment.hide_graph(hidden=True)
            return
        if self._has_cuda and capturing():
            self._attachment.refuse_frozen_capture()
        if self._overwritten:
            self._overwritten = False
            self._attachment.bind()
        self._attachment.verify()
        if self._attachment.graph_active and not self._attachment.in_graph_step:
            self._attachment.use_eager()

    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002  torch's signature
        if self._may_nest and _is_nested(optimizer):
            return
        if self._hidden:
            self._hidden = False
            self._attachment.hide_graph(hidden=False)
            return
        if self._attachment.writes_floats:
            self._attachment.verify()  # once more: a pre-hook of somebody else may have written after ours
        # GradScaler leaves found_inf on optimizers that handle it themselves (fused): there a skipped step comes by
        # here.
        self._attachment.advance(getattr(optimizer, "found_inf", None))
        if self._attachment.has_graph and not self._attachment.in_graph_step:
            self._attachment.resume_graph()

    def _note(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002  torch's signature
        self._attachment.found_inf = getattr(optimizer, "found_inf", None)  # gone when scaler.step() returns

    def _saved(self, optimizer: Any, state_dict: dict[str, Any]) -> None:  # noqa: ARG002  torch's signature
        self._attachment.write_plain(state_dict["param_groups"])

    def _loaded(self, optimizer: Any) -> None:
        self._attachment.loaded()
        self._overwritten = type(optimizer).load_state_dict is not torch.optim.Optimizer.load_state_dict


def _classes_with_step(optimizer: object) -> list[type]:
    return [kind for kind in type(optimizer).__mro__ if "step" in vars(kind)]


def _is_nested(optimizer: object) -> bool:
    """Whether the step() whose hook this is was called by another step() of the same optimizer.

    torch wraps the step of each class that it has seen an instance of. Where a subclass's step() calls
    super().step(), the hooks run for both; only the outer one is a step of the optimizer.
    """
    wrapper = sys._getframe(2)  # noqa: SLF001  of torch, which called the hook
    frame = wrapper.f_back
    while frame is not None:
        if frame.f_code is wrapper.f_code and frame.f_locals.get("self") is optimizer:
            return True
        frame = frame.f_back
    return False


def _is_state_initialisation() -> bool:
    """Whether torch.distributed.checkpoint is making an optimizer's state by a step with zero gradients and lr = 0.

    `get_optimizer_state_dict` does that on an optimizer that has not stepped yet, and puts the lr back afterwards. It
    is no training step: the clock must not count it, and the zero in the group is no foreign write. The call is told
    by the function that makes it; this is only asked on a step(closure=None) without state, which is how it is made.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  the documented way to one's callers
    while frame is not None:
        if frame.f_globals.get("__name__") == _CHECKPOINT and frame.f_code.co_name == "_init_optim_state":
            return True
        frame = frame.f_back
    return False


def displaced(name: str, expected: object, found: object, step: int) -> BindingError:
    """The error for a slot that somebody else has written to."""
    return BindingError(
        f"{name} no longer follows its schedule: at step {step} the schedule put {_shown(expected)} there and it "
        f"now holds {_shown(found)}. Something else writes it, such as a torch scheduler on the same optimizer; "
        "remove that, or call detach() and let it have the value"
    )


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.tolist()!r} on {value.device}"
    return repr(value)

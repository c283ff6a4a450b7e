"""An optimizer's events, by torch's own hooks: step, save, load.

Hooks are used, never a wrapper around the optimizer: GradScaler, Accelerate and Lightning test for its type and leave
attributes on it.

    step pre-hook               the slots must hold what the schedule put there, otherwise an error, before the step;
                                a step that is captured into a CUDA graph must have all its values on the device
    step post-hook              advance, unless GradScaler's found_inf says that the step was skipped
    state_dict post-hook        plain floats instead of live views: a checkpoint that does not move afterwards
    load_state_dict post-hook   the groups are new dicts with the checkpoint's values: bind again, the step counter
                                decides

A step that only makes an optimizer's state does not advance the schedule (dummy_steps.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch._C._dynamo import eval_frame

from tensorsched.binding.modes import Driving
from tensorsched.binding.movers import NEVER, Mover
from tensorsched.binding.rare_steps import RareSteps, Watch, is_stepping
from tensorsched.errors import BindingError

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


# Methods that step past step(), and what to do instead.
_OTHER_DOORS = {
    (
        "first_step",
        "second_step",
    ): "attach to the optimizer that it wraps (its .base_optimizer) with advance='manual', "
    "and call sched.step() once an iteration",
    ("fused_backward",): "pass advance='manual' to attach() and call sched.step() once an iteration",
}
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


def unreported(optimizer: object) -> bool:
    """Whether steps of an optimizer with hooks may be made without them: by another door, or by a step of its own."""
    doors = any(all(callable(getattr(optimizer, d, None)) for d in names) for names in _OTHER_DOORS)
    # A method is a new object at each look, an attribute is not. Its __dict__ would say the same: but CPython keeps
    # attributes in a faster way until somebody looks at that, and torch's step reads some for each parameter.
    first, second = (getattr(optimizer, "step", None) for _ in range(2))
    return doors or first is second


def require_hooks(optimizer: object) -> None:
    """Refuse an optimizer whose steps nothing would report.

    Raises:
        BindingError: it has no hooks, or is a wrapper whose own step() does not run them.
    """
    name = type(optimizer).__name__
    for doors, way_out in _OTHER_DOORS.items():
        if all(callable(getattr(optimizer, door, None)) for door in doors):
            raise BindingError(
                f"{name} is stepped by {' and '.join(f'{door}()' for door in doors)}, which run no hooks, so the "
                f"schedule would stand still without a word; {way_out}"
            )
    if not has_hooks(optimizer):
        wrapped = [
            k for k, v in getattr(optimizer, "__dict__", {}).items() if isinstance(v, torch.optim.Optimizer)
        ]
        inner = f", or attach to the optimizer that it wraps (its .{wrapped[0]})" if wrapped else ""
        raise BindingError(
            f"{name} has no step hooks (its step() is not torch.optim.Optimizer's), so nothing "
            f"would advance the schedule; pass advance='manual' and call sched.step() after each optimizer step{inner}"
        )


class Hooks:
    """The hooks of one attachment on one optimizer, removable together.

    The optimizer holds them, and they hold the attachment, which therefore works without being kept. Nothing here holds
    the optimizer: `del optimizer` frees it at once.

    Attributes:
        active: whether the optimizer reports its steps.
        follow: tells them of the mover of a mode that was bound.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._watch: Watch | None = None
        self.active = False
        self.follow: Callable[[Mover], None] = lambda _: None

    def register(self, optimizer: Any, sched: Driving, *, auto: bool) -> None:
        """Put them on the optimizer, whose slots are bound, if it has hooks."""
        if not has_hooks(optimizer):
            return
        watch = self._watch = Watch(optimizer, sched._mode.fast(sched))
        before, after, follow = _step_hooks(sched, watch, auto=auto)
        # A load_state_dict of its own may go on after torch's: ZeroRedundancyOptimizer then copies the checkpoint's
        # values over ours. So we bind once more, before the next step.
        may_overwrite = type(optimizer).load_state_dict is not torch.optim.Optimizer.load_state_dict

        def saved(_: Any, state_dict: dict[str, Any]) -> None:
            if watch.alive:
                sched._saved(state_dict["param_groups"])
                sched._mode.saved_state(sched.optimizer, state_dict)

        def loaded(_: Any) -> None:
            if watch.alive:
                sched._loaded()
                watch.overwritten = may_overwrite
                follow(watch.mover)

        self.follow = follow
        self._handles = [
            optimizer.register_state_dict_post_hook(saved),
            optimizer.register_load_state_dict_post_hook(loaded),
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
        ]
        self.active = True
        # First of all: a hook of somebody else that saves a checkpoint, or raises, finds the step counted.
        optimizer._optimizer_step_post_hooks.move_to_end(self._handles[-1].id, last=False)

    def remove(self, optimizer: Any) -> None:
        """Remove all of them; what is called while the optimizer calls hooks stays there and does nothing."""
        if self._watch is not None:
            self._watch.alive = False
        self.follow(NEVER)
        self.follow = lambda _: None
        if not is_stepping(optimizer):  # torch walks through its hooks, which must stay as many
            for handle in self._handles:
                handle.remove()


def _step_hooks(
    sched: Driving, watch: Watch, *, auto: bool
) -> tuple[Callable[..., Any], Callable[..., None], Callable[[Mover], None]]:
    """The functions around every step, and the one that tells them of a mover.

    Here is what runs at a step that is one more; all else is left to RareSteps, and what is not right to the mode.
    """
    may_capture = torch.cuda.is_available()
    check, advance = watch.fast()

    def follow(mover: Mover) -> None:
        nonlocal check, advance
        watch.mover = mover
        check, advance = watch.fast()

    rare = RareSteps(sched, watch, follow)
    rare_before, rare_after, resynchronise = rare.before, rare.after, sched._resynchronise

    @_untraced
    def before(optimizer: Any, args: Any, kwargs: Any) -> Any:
        if may_capture and capturing():
            rare.captured()
        if kwargs or len(args) > 1 or not check(optimizer.param_groups):
            return rare_before(optimizer, args, kwargs)
        return None

    @_untraced
    def after(optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001  torch's signature
        found_inf = getattr(optimizer, "found_inf", None)
        try:
            if kwargs or advance(optimizer.param_groups, found_inf) is False:
                rare_after(optimizer, kwargs)
        except KeyboardInterrupt:  # between two counters, or two groups: they move together or not at all
            resynchronise()
            raise

    @_untraced
    def note(optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001  torch's signature
        rare.note(optimizer, kwargs)

    return before, after if auto else note, follow


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep Dynamo out of a hook and of all that it calls: a train step that users compile runs it between its graphs.

    Traced, the step counter would become a constant of the graph, and memory of a device would be written from the
    host. torch.compiler.disable does the same by a wrapper that costs 0.3 us a call, as much as the hook.
    """
    function._torchdynamo_disable = True  # type: ignore[attr-defined]  # what Dynamo looks for before it inlines
    function._torchdynamo_disable_msg = "a schedule's hook"  # type: ignore[attr-defined]
    skip = eval_frame._FrameAction.SKIP
    eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))
    return function

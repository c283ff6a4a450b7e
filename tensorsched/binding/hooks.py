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

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch._C._dynamo import eval_frame

from tensorsched.binding.dummy_steps import is_dummy, is_dummy_by_name
from tensorsched.binding.modes import Driving
from tensorsched.binding.movers import NEVER, Mover
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
_WRAPPER = (
    torch.optim.Optimizer.profile_hook_step.__code__.co_filename
)  # where the frame that runs the hooks is from
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
    # Not by its __dict__: CPython stores attributes in a faster way until somebody looks at that, and torch's step reads
    # them for each parameter (2 us a step of 64 parameters).
    mine = getattr(getattr(optimizer, "step", None), "__func__", None)
    return doors or mine is not getattr(type(optimizer), "step", None)


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
        self._alive = [True]
        self.active = False
        self.follow: Callable[[Mover], None] = lambda _: None

    def register(self, optimizer: Any, sched: Driving, *, auto: bool) -> None:
        """Put them on the optimizer, whose slots are bound, if it has hooks."""
        if not has_hooks(optimizer):
            return
        overwritten, alive = False, self._alive
        may_overwrite = type(optimizer).load_state_dict is not torch.optim.Optimizer.load_state_dict

        def rebind() -> None:
            nonlocal overwritten
            if overwritten:
                overwritten = False
                sched._bind()

        def saved(_: Any, state_dict: dict[str, Any]) -> None:
            if alive:
                sched._saved(state_dict["param_groups"])
                sched._mode.saved_state(sched.optimizer, state_dict)

        def loaded(_: Any) -> None:
            nonlocal overwritten
            if not alive:
                return
            sched._loaded()
            # A load_state_dict of its own may go on after torch's: ZeroRedundancyOptimizer then copies the checkpoint's
            # values over ours. So once more, before the next step.
            overwritten = may_overwrite

        before, after, self.follow = _step_hooks(
            optimizer, sched, auto=auto, rebind=rebind if may_overwrite else None, alive=alive
        )
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
        self._alive.clear()
        self.follow(NEVER)
        self.follow = lambda _: None
        if not _is_stepping(optimizer):  # torch walks through its hooks, which must stay as many
            for handle in self._handles:
                handle.remove()


def _step_hooks(  # noqa: C901, PLR0915  four functions
    optimizer: Any,
    sched: Driving,
    *,
    auto: bool,
    rebind: Callable[[], None] | None,
    alive: Sequence[bool],
) -> tuple[Callable[..., Any], Callable[..., None], Callable[[Mover], None]]:
    """The functions around every step, and the one that tells them of a mover.

    What is rare is asked about only where it can happen; what is not right, or not eager, is left to the mode.
    """
    # More than its own step and the abstract one: a subclass whose step() may call the step() of its parent.
    may_nest = len({inspect.unwrap(vars(c)["step"]) for c in _classes_with_step(optimizer)}) > 2  # noqa: PLR2004
    may_capture = torch.cuda.is_available()
    often = may_nest or may_capture or rebind is not None
    rare, fresh, hidden = True, True, False  # fresh: nothing was trained yet
    check, advance = sched._mode.fast(sched)

    @_untraced
    def before(optimizer: Any, args: Any, kwargs: Any) -> Any:
        if rare and done(optimizer):
            return None
        if kwargs or len(args) > 1:
            # Mid-run it is made again for an optimizer that never has any state, such as SGD's.
            if "closure" in kwargs and not optimizer.state and is_dummy_by_name(optimizer):
                hide(optimizer)
                return None
            if alive:
                _refuse_part_of_a_step(optimizer, args, kwargs)
                if (instead := _decaying_after_closure(sched, args, kwargs)) is not None:
                    return instead
        if not check(optimizer.param_groups) and alive:
            settle(optimizer)
        return None

    def done(optimizer: Any) -> bool:
        """What can only be for some optimizers, or at first; whether there is nothing more to do before this step."""
        nonlocal rare, fresh
        if may_nest and _is_nested(optimizer):
            return True
        if may_capture and capturing() and alive:
            sched._mode.before_capture(sched)
        if rebind is not None and alive:
            rebind()
        if fresh and is_dummy_by_name(optimizer):
            hide(optimizer)
            return True
        rare, fresh = often, False
        return False

    def settle(optimizer: Any) -> None:
        try:
            sched._mode.before_step(sched)
        except BindingError:
            if not is_dummy(optimizer):
                raise
            hide(optimizer)

    def hide(optimizer: Any) -> None:
        nonlocal hidden
        hidden = True
        sched._mode.hide(optimizer, hidden=True)

    @_untraced
    def after(optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001  torch's signature
        nonlocal hidden
        if may_nest and _is_nested(optimizer):
            return
        if hidden:
            hidden = False
            sched._mode.hide(optimizer, hidden=False)
            return
        # GradScaler leaves found_inf on optimizers that handle it themselves (fused): there a skipped step comes by
        # here.
        found_inf = getattr(optimizer, "found_inf", None)
        if kwargs and found_inf is None:
            found_inf = _found_by(kwargs.get("grad_scaler"), optimizer)
        try:
            if advance(optimizer.param_groups, found_inf) is False and alive:
                sched._mode.after_step(sched, found_inf)
        except KeyboardInterrupt:  # between two counters, or two groups: they move together or not at all
            sched._resynchronise()
            raise

    @_untraced
    def note(optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG001  torch's signature
        nonlocal hidden
        if hidden:
            hidden = False
            sched._mode.hide(optimizer, hidden=False)
            return
        # Gone when scaler.step() returns, and sched.step() comes after that.
        sched._found_inf = getattr(optimizer, "found_inf", None)
        if kwargs and sched._found_inf is None:
            sched._found_inf = _found_by(kwargs.get("grad_scaler"), optimizer)
        sched._stepped = True

    def follow(mover: Mover) -> None:
        nonlocal check, advance
        check, advance = mover

    return before, after if auto else note, follow


def _refuse_part_of_a_step(optimizer: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
    """Optimizers that release gradients step one parameter at a time: each would be counted as a step.

    Raises:
        BindingError: step() was given a parameter.
    """
    if isinstance(kwargs.get("param"), torch.Tensor) or any(
        isinstance(a, torch.nn.Parameter) for a in args[1:]
    ):
        raise BindingError(
            f"{type(optimizer).__name__}.step() was called for a single parameter (gradient release), which is no step "
            "of the optimizer, and the schedule would advance once a parameter; pass advance='manual' to attach() and "
            "call sched.step() once an iteration"
        )


def _decaying_after_closure(
    sched: Driving, args: Any, kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """What step() is to be called with where parameters decay: a closure computes the gradients, and decay is next.

    torch's step makes the same order: closure, decay, update. None where there is no closure, or no decay.
    """
    closure = kwargs.get("closure") or next((a for a in args[1:2] if callable(a)), None)
    if closure is None or not sched._mode.decays:
        return None
    sched._mode.before_closure(sched)

    def then_decay() -> Any:
        loss = closure()
        sched._mode.decay(sched.optimizer)
        return loss

    if "closure" in kwargs:
        return args, {**kwargs, "closure": then_decay}
    return (args[0], then_decay, *args[2:]), dict(kwargs)


def _found_by(scaler: Any, optimizer: Any) -> torch.Tensor | None:
    """What a GradScaler has found that is handed to step() itself, as apex and TransformerEngine want it."""
    states = getattr(scaler, "_per_optimizer_states", {})  # keyed by the id of what is stepped
    found = list(states[id(optimizer)]["found_inf_per_device"].values()) if id(optimizer) in states else []
    return sum((each.to(found[0].device) for each in found[1:]), found[0]) if found else None


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


def _classes_with_step(optimizer: object) -> list[type]:
    return [kind for kind in type(optimizer).__mro__ if "step" in vars(kind)]


def _is_nested(optimizer: object) -> bool:
    """Whether the step() whose hook this is was called by another step() of the same optimizer.

    torch wraps the step of each class that it has seen an instance of. Where a subclass's step() calls
    super().step(), the hooks run for both; only the outer one is a step of the optimizer.
    """
    return len(_steps_running(sys._getframe(2), optimizer)) > 1


def _is_stepping(optimizer: object) -> bool:
    """Whether a step() of the optimizer is running, and so perhaps its hooks."""
    return bool(_steps_running(sys._getframe(), optimizer))


def _steps_running(frame: FrameType | None, optimizer: object) -> list[FrameType]:
    """The frames of torch's wrapper around step(), for this optimizer, among a frame and its callers."""
    found = []
    while frame is not None:
        code = frame.f_code
        if (
            code.co_name == "wrapper"
            and code.co_filename == _WRAPPER
            and frame.f_locals.get("self") is optimizer
        ):
            found.append(frame)
        frame = frame.f_back
    return found

"""Calls of step() that are not simply one more step, for the hooks, which leave them to this.

    nested          a subclass's step() that calls its parent's runs the hooks twice: the outer one is the step
    dummy           it only makes the optimizer's state (dummy_steps.py), and is hidden from the schedule
    captured        into a CUDA graph: all values must be on the device
    with a closure  parameters decay after it has computed the gradients
    of one parameter    gradient release: refused
    skipped         GradScaler's found_inf says so
    not as it was   a slot does not hold what was put there, or there is something to say: the mode's

What can be only once, or only for some optimizers, is watched for as long as it can be: meanwhile the hooks' two fast
functions are NEVER's, and every step comes by here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch

from tensorsched.binding.dummy_steps import is_dummy, is_dummy_by_name
from tensorsched.binding.modes import Driving
from tensorsched.binding.movers import NEVER, Mover
from tensorsched.errors import BindingError

__all__ = ["RareSteps", "Watch", "is_stepping"]

_WRAPPER = (
    torch.optim.Optimizer.profile_hook_step.__code__.co_filename
)  # where the frame that runs the hooks is from


class Watch:
    """What is watched for at a step, and the mover that makes it if there is nothing.

    Attributes:
        mover: of the mode that was bound last.
        alive: whether the attachment is still there.
        nests: whether step() may call another step() of the same optimizer.
        fresh: whether nothing was trained yet: the next step may be made for the state alone.
        overwritten: whether a load_state_dict went on after torch's own, and wrote over the slots.
        hidden: whether the step that runs is hidden from the schedule.
    """

    __slots__ = ("alive", "fresh", "hidden", "mover", "nests", "overwritten")

    def __init__(self, optimizer: Any, mover: Mover) -> None:
        self.mover = mover
        self.alive, self.fresh = True, True
        self.overwritten = self.hidden = False
        # More than its own step and the abstract one: a subclass whose step() may call the step() of its parent.
        kinds = [kind for kind in type(optimizer).__mro__ if "step" in vars(kind)]
        self.nests = len({inspect.unwrap(vars(kind)["step"]) for kind in kinds}) > 2  # noqa: PLR2004

    def fast(self) -> Mover:
        """What the hooks may call at once; where there is something to watch for, what answers False."""
        ahead = self.nests or self.fresh or self.overwritten or self.hidden
        behind = self.nests or self.hidden
        return Mover(
            NEVER.check if ahead else self.mover.check, NEVER.advance if behind else self.mover.advance
        )


class RareSteps:
    """What the hooks of an attachment do where a step is not simply one more.

    Args:
        sched: the attachment.
        watch: what there is to watch for.
        follow: tells the hooks that this has changed.
    """

    def __init__(self, sched: Driving, watch: Watch, follow: Callable[[Mover], None]) -> None:
        self._sched, self._watch, self._follow = sched, watch, follow

    def captured(self) -> None:
        """The step that comes is captured into a CUDA graph.

        Raises:
            BindingError: a value would be frozen in it.
        """
        if self._watch.alive:
            self._sched._mode.before_capture(self._sched)

    def before(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        """All that the step pre-hook has to do; what step() is to be called with instead, or None.

        Raises:
            BindingError: the step would not use what the schedule says. Nothing has changed.
        """
        sched, watch = self._sched, self._watch
        if not watch.alive or (watch.nests and _is_nested(optimizer)):
            return None
        self._was_hidden(optimizer)  # and raised: torch then leaves out what comes after a step
        if watch.overwritten:
            watch.overwritten = False
            sched._bind()
        # Mid-run it is made again for an optimizer that never has any state, such as SGD's.
        may_be_dummy = watch.fresh or ("closure" in kwargs and not optimizer.state)
        if may_be_dummy and is_dummy_by_name(optimizer):
            self._hide(optimizer)
            return None
        if watch.fresh:
            watch.fresh = False
            self._follow(watch.mover)
        if kwargs or len(args) > 1:
            _refuse_part_of_a_step(optimizer, args, kwargs)
            if (instead := _decaying_after_closure(sched, args, kwargs)) is not None:
                return instead
        if not watch.mover.check(optimizer.param_groups):
            try:
                sched._mode.before_step(sched)
            except BindingError:
                if not is_dummy(optimizer):
                    raise
                self._hide(optimizer)
        return None

    def after(self, optimizer: Any, kwargs: Mapping[str, Any]) -> None:
        """All that the step post-hook has to do, where the schedule advances by itself."""
        sched, watch = self._sched, self._watch
        if (watch.nests and _is_nested(optimizer)) or self._was_hidden(optimizer):
            return
        found_inf = _found_inf(optimizer, kwargs)
        if watch.mover.advance(optimizer.param_groups, found_inf) is False and watch.alive:
            sched._mode.after_step(sched, found_inf)

    def note(self, optimizer: Any, kwargs: Mapping[str, Any]) -> None:
        """The same where the user advances it: remember the step."""
        if not self._was_hidden(optimizer):
            # Gone when scaler.step() returns, and sched.step() comes after that.
            self._sched._found_inf, self._sched._stepped = _found_inf(optimizer, kwargs), True

    def _hide(self, optimizer: Any) -> None:
        self._watch.hidden = True
        self._follow(self._watch.mover)
        self._sched._mode.hide(optimizer, hidden=True)

    def _was_hidden(self, optimizer: Any) -> bool:
        if not self._watch.hidden:
            return False
        self._watch.hidden = False
        self._follow(self._watch.mover)
        self._sched._mode.hide(optimizer, hidden=False)
        return True


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


def _found_inf(optimizer: Any, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """What GradScaler leaves on optimizers that handle it themselves (fused): there a skipped step comes by here."""
    found: torch.Tensor | None = getattr(optimizer, "found_inf", None)
    return _found_by(kwargs.get("grad_scaler"), optimizer) if kwargs and found is None else found


def _found_by(scaler: Any, optimizer: Any) -> torch.Tensor | None:
    """What a GradScaler has found that is handed to step() itself, as apex and TransformerEngine want it."""
    states = getattr(scaler, "_per_optimizer_states", {})  # keyed by the id of what is stepped
    found = list(states[id(optimizer)]["found_inf_per_device"].values()) if id(optimizer) in states else []
    return sum((each.to(found[0].device) for each in found[1:]), found[0]) if found else None


def _is_nested(optimizer: object) -> bool:
    """Whether the step() whose hook this is was called by another step() of the same optimizer.

    torch wraps the step of each class that it has seen an instance of. Where a subclass's step() calls
    super().step(), the hooks run for both; only the outer one is a step of the optimizer.
    """
    return len(_steps_running(sys._getframe(2), optimizer)) > 1


def is_stepping(optimizer: object) -> bool:
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

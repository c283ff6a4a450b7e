"""What a run tells its schedules: a step, what it consumed, a metric; or that a trainer will."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch

from tensorsched.binding.arguments import read_metrics
from tensorsched.binding.base import AttachmentBase
from tensorsched.binding.callers import scaler_is_there
from tensorsched.binding.clocked import check_counted
from tensorsched.binding.events import advance, settle
from tensorsched.binding.lr_scheduler import AttachmentLR
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.schedules.validators import MAX_STEPS

__all__ = ["count", "lr_scheduler", "observe", "progress", "step"]


def step(sched: AttachmentBase) -> None:
    """Advance by one step (only with advance="manual"), after `optimizer.step()`. Does not synchronise.

    Without an optimizer step since the last call nothing is counted, and that is said once: a step that GradScaler
    skipped, or that you skipped. Before the first optimizer step of all it is refused, unless there is a GradScaler,
    which may have skipped it: gradients are accumulated, and the call stands beside the optimizer's and not behind it.
    Of an object without torch's hooks nothing is known: every call counts.

    Raises:
        BindingError: the schedule advances by itself, is detached, something else wrote to a slot, or the optimizer has
            made no step yet. Nothing has changed.
    """
    if sched._options.auto or not sched.attached:
        sched._require_attached()
        raise BindingError(
            "this schedule advances by itself after each optimizer.step(), so step() would count twice; "
            "pass advance='manual' to attach() to call it yourself"
        )
    # Floats are checked as they are written. Tensors are, before the next optimizer.step(), where that is reported.
    if sched._hooks.active:
        if not sched._stepped:
            _say_uncounted(sched)
            return
        sched._ever_stepped = True
    elif not sched._mode.check(sched.optimizer.param_groups):
        settle(sched)
    advance(sched, sched._found_inf)
    sched._found_inf, sched._stepped = None, sched._uncertain


def count(sched: AttachmentBase, n: int | torch.Tensor) -> None:
    """Say what the optimizer step that comes consumes, in the unit of the clock that was given to `attach`.

    It is used for the steps after that one. Several calls before a step are summed (gradient accumulation); a step
    without any is an error. In a distributed run every process must count the same number: reduce it first.

    Args:
        n: an int, or a tensor of one whole number on any device, which is added there. It may be called in a
            function that torch.compile traces, together with a compiled step, and captured in a CUDA graph.

    Raises:
        BindingError: there is no such clock, it is detached, or n is a tensor of a device and there are float
            slots, which would have to wait for it.
        ScheduleError: n is no whole number of at least 0. (A tensor of a device is not looked at.)

    Does not synchronise.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=1000), clock=ts.clock("tokens"))
        >>> sched.count(100), sched.count(150), optimizer.step(), sched.value("lr")
        (None, None, None, 0.75)
    """
    if not torch.compiler.is_compiling():
        _count(sched, n)
    elif sched._mode.in_graph and sched._mode.tally is not None:
        for engine in sched._mode.clocks:
            engine.count_in_graph(n)
        sched._mode.tally.fresh = True
    else:
        _count_between_graphs(sched, n)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types for it
def progress(sched: AttachmentBase, part: float) -> None:
    """Say which part of the run will be over after the optimizer step that comes, of a progress clock.

    Args:
        part: a number in [0, 1]; in a distributed run the same in every process. It may only grow.

    Raises:
        BindingError: there is no progress clock, it asks a function of its own, it is detached, or the part is
            less than before.
        ScheduleError: part is not in [0, 1].

    Does not synchronise (a tensor of a device is read, which does).

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> lr = ts.wsd(1.0, total=1_000_000, warmup=0.01, decay=0.5)
        >>> sched = ts.attach(optimizer, lr=lr, clock=ts.clock(progress=True))
        >>> sched.progress(0.75), optimizer.step(), sched.value("lr")
        (None, None, 0.5)
    """
    sched._on_clock("progress").go_to(sched._mode.clocks, part)


def observe(sched: AttachmentBase, metric: Any = None, /, **metrics: Any) -> None:
    """Show a metric to what reacts to one (`ts.plateau`, `ts.greedy`, `ts.spike`): the next step uses what follows.

    Call it as often as you would call torch's ReduceLROnPlateau.step(metric): once an evaluation, once an epoch, or
    after every step. A skipped or repeated optimizer step makes no difference.

    Args:
        metric: for all of them: a number, or a tensor of one element, on any device (float32 is taken as it is).
        **metrics: for each by its `name`.

    Raises:
        BindingError: nothing reacts, no metric, an unknown name, or something that is no number; or, where float slots
            react, a value would be out of range. Nothing has changed.
        ScheduleError: there, a value would not be finite. Nothing has changed.

    Where tensor slots depend on it, it is decided on the device and nothing synchronises; it may be part of a graph
    of yours, and of what torch.compile traces. Where float slots do, a tensor on a device is read, which waits for
    it. In a distributed run each process decides for itself, and the same if the metric is: `dist.all_reduce(loss)`,
    `loss /= dist.get_world_size()`, `sched.observe(loss)`.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> sched = ts.attach(optimizer, lr=0.5 * ts.plateau(factor=0.5, patience=0))
        >>> sched.observe(1.0), sched.observe(torch.tensor(2.0)), optimizer.param_groups[0]["lr"]
        (None, None, 0.25)
    """
    sched._require_attached()
    inputs = sched._mode.inputs
    shown_metrics = read_metrics(sched._reactions(), metric, metrics)
    assert inputs is not None  # noqa: S101  something reacts
    changed = inputs.observe(shown_metrics)
    if not changed or torch.compiler.is_compiling():
        return  # the next step looks
    try:
        sched._mode.refresh(sched.optimizer.param_groups)
    except (BindingError, ScheduleError):
        take_back(sched)
        raise


def take_back(sched: AttachmentBase) -> None:
    """As if the last `observe` had not been, where that was decided on the host."""
    if (inputs := sched._mode.inputs) is not None:
        inputs.load(inputs.before)
        inputs.before = {}
        with contextlib.suppress(BindingError, ScheduleError):  # somebody has turned another input, too
            sched._mode.refresh(sched.optimizer.param_groups)


def lr_scheduler(sched: AttachmentBase) -> AttachmentLR:
    """A torch LRScheduler over these schedules, for trainers: from now on they move when the trainer steps it.

    At most once for each optimizer step that was not skipped, however often it is called. Its state_dict is this
    attachment's, with the `on_mismatch` that was given to `attach`.

    Returns:
        The scheduler, the same one at each call: isinstance(..., torch.optim.lr_scheduler.LRScheduler).

    Raises:
        BindingError: it was attached with advance="manual", has a compiled step, or is detached.

    Does not synchronise, but where `step_count` does.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
        >>> scheduler = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4)).lr_scheduler()
        >>> optimizer.step(), scheduler.step(), scheduler.step(), scheduler.get_last_lr()
        (None, None, None, [0.75])
    """
    sched._require_attached()
    if not sched._options.auto:
        raise BindingError(
            "lr_scheduler() needs to know of the optimizer's steps: attach with advance='auto' (the default)"
        )
    if sched._mode.in_graph:
        raise BindingError(
            "a compiled step counts by itself, so the schedule cannot wait for a trainer: call release() on what "
            "compile_step() returned first, or use it without lr_scheduler()"
        )
    if sched._face is None:
        sched._face = AttachmentLR(sched, sched._options.on_mismatch)
        sched._tell_hooks()
    face: AttachmentLR = sched._face
    return face


def _count(sched: AttachmentBase, n: int | torch.Tensor) -> None:
    tally = sched._on_clock("count")
    if type(n) is not int or not 0 <= n <= MAX_STEPS:
        n = check_counted(n, floats=sched._mode.floats)
    sched._mode.count(n)
    tally.fresh = True


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types for it
def _count_between_graphs(sched: AttachmentBase, n: int | torch.Tensor) -> None:
    _count(sched, n)


def _say_uncounted(sched: AttachmentBase) -> None:
    """Warn, once, of a step() by hand that no optimizer step came before; at the start of a run that is an error.

    In the middle of one it is not: whoever leaves out steps with gradients that are not finite would lose the run.
    """
    name = type(sched.optimizer).__name__
    if not sched._ever_stepped and not scaler_is_there():
        raise BindingError(
            f"sched.step() was called and {name}.step() was not yet, so the schedule would run ahead of the optimizer: "
            "where gradients are accumulated, or steps are left out, call sched.step() right behind optimizer.step(), "
            "as often as that (in Accelerate if accelerator.sync_gradients). With advance='auto' (the default) there "
            "is nothing to call; a trainer takes sched.lr_scheduler()"
        )
    if not sched._told_uncounted:
        sched._told_uncounted = True
        warnings.warn(
            f"sched.step() was called and {name}.step() was not since the last time, so "
            "nothing is counted: gradients are accumulated, or GradScaler skipped the step. With advance='auto' "
            "(the default) there is nothing to call; a trainer takes sched.lr_scheduler()",
            UserWarning,
            stacklevel=3,
        )

"""attach(): put schedules on an optimizer's hyperparameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tensorsched.binding.arguments import bind_total, read_free, read_schedules
from tensorsched.binding.attachment import Attachment
from tensorsched.binding.checkpoint import ON_MISMATCH
from tensorsched.binding.doors import named_only
from tensorsched.binding.hooks import require_hooks
from tensorsched.binding.placement import NewGroups, Options, live_device, place_slots, together
from tensorsched.binding.registry import attachments_of, refuse_claimed
from tensorsched.engine import Clock
from tensorsched.errors import BindingError
from tensorsched.param_groups import param_groups
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import check_count, check_flag, refuse

__all__ = ["attach", "detach"]


@named_only("attach(optimizer, lr={})")
def attach(
    optimizer: Any,
    *,
    advance: str = "auto",
    resident: bool | str = "auto",
    steps: int | None = None,
    free: Mapping[str, Schedule | float] | None = None,
    new_groups: NewGroups | None = None,
    capacity: int | None = None,
    on_mismatch: str = "error",
    total: int | None = None,
    allow_out_of_range: bool = False,
    clock: Clock | None = None,
    **hyperparameters: Any,
) -> Attachment:
    """Let schedules set an optimizer's hyperparameters; from now on they advance with its steps.

    The groups hold the values of step 0 when this returns; after each `optimizer.step()` they hold the next ones.

    Args:
        optimizer: a torch optimizer, or any object with a `param_groups` list of dicts.
        advance: "auto" (default): after each `optimizer.step()`, by torch's hook. "manual": when you call
            `sched.step()`.
        resident: "auto" (default) makes a *tensor slot*, a 0-dim tensor on the parameters' device, where the optimizer
            reads it there without a synchronisation, and a *float slot*, a Python float, elsewhere; on a CPU always a
            float, unless the group held a tensor. True or False forces one or the other.
        steps: length of the run, for schedules that never settle (inverse_sqrt, endless repeats).
        free: schedules by name that belong to no param_group (a loss weight, an EMA decay): `sched.value(name)` is a
            tensor that is always current.
        new_groups: what groups get that are added later by `add_param_group`: a dict like the hyperparameters, or a
            function of the new group that returns one. Without it such a group is an error at the next step.
        capacity: make room for schedules that change up to this step, for `sched.rewrite`; default: as far as these do.
        on_mismatch: what `load_state_dict` does with a state of other schedules where it is not told: "error"
            (default), "saved", "keep_step" or "restart". For trainers, which cannot pass it.
        total: the number of steps of the run, for schedules that were written without it:
            `ts.parse("wsd(3e-4, total=?, warmup=0.01, decay=0.2)")`; also of later groups and of `sched.rewrite`.
        allow_out_of_range: use values that the optimizer's constructor refuses, such as a negative lr (for gradient
            ascent pass maximize=True to the optimizer instead).
        clock: what the schedules count, from `ts.clock`; default: steps. Then durations (and `steps`, `capacity`) are
            in its unit, and `sched.count(n)` before each `optimizer.step()` says how many that step consumes.
        **hyperparameters: a param_group key each (lr, weight_decay, momentum, betas, ...). The value is a schedule or a
            number for every group, a list with one for each group (None leaves a group alone), a dict with one for each
            group by what it holds under "name", or, for a key that holds a tuple, a tuple with one for each element
            (None leaves an element alone). `ts.initial` in a schedule stands for what the group holds now.

    Returns:
        The Attachment; keep it to look at it, save it or detach it. It works without being kept.

    Raises:
        BindingError: the optimizer has no param_groups, a key or list does not fit, a slot already follows another
            schedule, `resident=True` would synchronise, "auto" has no hook to advance by, a total is not known yet, or
            a value is out of range at some step. The optimizer is as before.
        ScheduleError: a schedule cannot be tabulated. The optimizer is as before.

    May synchronise (it reads what the groups hold). The steps afterwards do not, with tensor slots and float slots
    alike, but for a float slot with a fused optimizer and a GradScaler: `print(sched)` says so.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))], lr=1e-3)
        >>> sched = ts.attach(optimizer, lr=ts.linear(0.0, 1e-3, steps=4) >> ts.cosine(1e-3, 0.0, steps=96))
        >>> optimizer.step(), optimizer.param_groups[0]["lr"], sched.step_count
        (None, 0.00025, 1)
    """
    groups = param_groups(optimizer)
    _check_words(
        advance=advance, resident=resident, new_groups=new_groups, on_mismatch=on_mismatch, clock=clock
    )
    if advance == "auto":
        require_hooks(optimizer)
    if steps is not None:
        check_count("attach: steps", steps)
    if capacity is not None:
        check_count("attach: capacity", capacity)
    if not hyperparameters and not free:
        raise BindingError(
            "attach() was given nothing to schedule; pass for example lr=ts.cosine(1e-3, 0.0, steps=1000)"
        )
    anything = check_flag("attach: allow_out_of_range", allow_out_of_range)
    wanted, free = bind_total(total, hyperparameters, free, later=new_groups is not None)
    free_values = read_free(groups, free)
    schedules = read_schedules(groups, wanted) if wanted else {}
    refuse_claimed(optimizer, schedules)
    auto = advance == "auto"
    options = Options(auto, resident, steps, new_groups, capacity, on_mismatch, total, anything, clock)
    with _eagerly(optimizer):
        device = live_device(groups)
        slots = place_slots(optimizer, schedules, options, device)
        return Attachment(optimizer, together(slots, device), free_values, options)


@contextlib.contextmanager
def _eagerly(optimizer: Any) -> Iterator[None]:
    """Other attachments leave graph mode; after an error they are back, for graphs of the user's own look there."""
    in_graph = [other for other in attachments_of(optimizer) if other._mode.in_graph]
    for other in in_graph:
        other._use_eager()
    try:
        yield
    except BaseException:
        for other in in_graph:
            if other._graph is not None:
                other._graph.resume(other)
        raise


def detach(optimizer: Any) -> None:
    """Detach every schedule from an optimizer: `Attachment.detach` of each, for when the handles are lost.

    Without any it does nothing. May synchronise, as `Attachment.step_count`.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.5)
        >>> _ = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
        >>> ts.detach(optimizer), optimizer.param_groups[0]["lr"]
        (None, 1.0)
    """
    for attachment in attachments_of(optimizer):
        attachment.detach()


_WORDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "advance": (lambda given: given in ("auto", "manual"), "'auto' or 'manual'"),
    "resident": (lambda given: given == "auto" or isinstance(given, bool), "'auto', True or False"),
    "new_groups": (
        lambda given: given is None or callable(given) or isinstance(given, Mapping),
        "a dict like the hyperparameters, or a function that returns one",
    ),
    "on_mismatch": (lambda given: given in ON_MISMATCH, "one of " + ", ".join(map(repr, ON_MISMATCH))),
    "clock": (lambda given: given is None or isinstance(given, Clock), "what ts.clock(...) returned"),
}
"""What an option may be, and that in words."""


def _check_words(**options: Any) -> None:
    for name, given in options.items():
        fits, rule = _WORDS[name]
        if not fits(given):
            raise BindingError(str(refuse(f"attach: {name}", rule, given)))

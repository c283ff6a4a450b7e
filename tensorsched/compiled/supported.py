"""Which optimizers, groups and schedules can be one graph, and what to do instead where they cannot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorsched.binding.attachment import Attachment
from tensorsched.binding.known import record_of
from tensorsched.binding.registry import attachments_of
from tensorsched.binding.slots import Slot
from tensorsched.binding.torch_optim import RECORDS
from tensorsched.engine import Clock
from tensorsched.engine.rows import rows_of
from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule

__all__ = ["check_supported", "refusal", "refuse_zero_momentum"]

_INSTEAD = "keep optimizer.step(), which follows the schedule too"


def check_supported(scheds: Sequence[Attachment]) -> None:
    """Refuse what cannot be one graph.

    Raises:
        BindingError: with the reason, and what to do instead.
    """
    devices = set()
    for sched in scheds:
        try:
            _check_one(sched)
        except BindingError as error:
            if len(scheds) == 1:
                raise
            which = f"optimizer {scheds.index(sched)} of the plan, {type(sched.optimizer).__name__}"
            raise BindingError(f"{error} ({which})") from None
        groups = sched.optimizer.param_groups
        devices |= {parameter.device for group in groups for parameter in group["params"]}
    if len(devices) > 1:
        more = "" if len(scheds) == 1 else ", or compile a step for each optimizer"
        raise refusal(f"the parameters are on {', '.join(sorted(map(str, devices)))}; {_INSTEAD}{more}")


def _check_one(sched: Attachment) -> None:  # noqa: C901  one reason after another
    """Refuse an optimizer.

    Raises:
        BindingError: with the reason, and what to do instead.
    """
    optimizer = sched.optimizer
    kind, record = type(optimizer), record_of(optimizer)
    if record.no_graph:
        raise refusal(f"{kind.__name__}: {record.no_graph}; {_INSTEAD}")
    if record.one_graph is None:
        ours = sorted(known.__name__ for known, record in RECORDS.items() if record.one_graph is not None)
        raise refusal(
            f"nothing is known of how {kind.__name__} steps, so a graph of it might use a frozen value; {_INSTEAD}, or "
            f"one of torch's own: {', '.join(ours)}"
        )
    if not sched._options.auto:
        raise refusal(
            "the graph counts the step itself, and advance='manual' would count it twice; attach with 'auto'"
        )
    if sched._face is not None:
        raise refusal(
            "the graph counts the step itself, and lr_scheduler() was called, which makes the schedule wait for a "
            f"trainer; detach() and attach() again without it, or {_INSTEAD}"
        )
    if len(attachments_of(optimizer)) > 1:
        raise refusal("another attachment moves values of this optimizer too; attach all of them in one call")
    for index, group in enumerate(optimizer.param_groups):
        if group.get("fused"):
            raise refusal(
                f"group {index} is fused, and torch's fused kernels cannot be traced; build the optimizer with "
                "fused=False (the compiler fuses the step by itself), or keep optimizer.step()"
            )
        if group.get("differentiable"):
            raise refusal(f"group {index} is differentiable, and the graph runs under no_grad; {_INSTEAD}")
    if filled := next((slot for slot in sched.slots if slot.filled), None):
        raise refusal(
            f"{filled.name} is a filled slot, whose tensor stays in its group, and a graph puts others there while it "
            f"is traced; {_INSTEAD}"
        )
    for slot in sched.slots:
        refuse_zero_momentum(kind, slot, slot.schedule, sched._options.clock)


def refuse_zero_momentum(kind: type, slot: Slot, schedule: Schedule, clock: Clock | None = None) -> None:
    """Refuse a momentum that touches 0, where torch skips its buffer.

    Raises:
        BindingError: it does.
    """
    if slot.place.part not in RECORDS[kind].buffered:
        return
    reach = schedule.settled or 0
    if clock is None:
        at = np.flatnonzero(schedule.values(reach + 1) == 0)
    else:
        rows = rows_of([schedule], clock, reach)
        at = rows.positions[rows.values[:, 0] == 0]
    if at.size:
        raise refusal(
            f"{slot.name} is 0 at {'step' if clock is None else clock.unit} {int(at[0])}, where torch's "
            f"{kind.__name__} leaves its momentum buffer alone, which a graph cannot do for some steps only; let the "
            "schedule stay above 0 (1e-6, say), or keep optimizer.step()"
        )


def refusal(text: str) -> BindingError:
    """The error, with the name of the function that refuses."""
    return BindingError(f"compile_step: {text}")

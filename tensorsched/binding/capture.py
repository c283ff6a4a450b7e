"""What must not be captured into a CUDA graph: a step whose replays would use a frozen value, or train a part only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensorsched.binding.known import record_of
from tensorsched.binding.slots import Slot
from tensorsched.errors import BindingError

__all__ = ["refuse_frozen_capture"]


def refuse_frozen_capture(optimizer: Any, slots: Iterable[Slot]) -> None:
    """Check that every replay of the step that is being captured will use new values, and train every parameter.

    Raises:
        BindingError: a slot is a float or a tensor on the host, the optimizer cannot be captured, or a parameter has no
            gradient yet.
    """
    if why := record_of(optimizer).no_capture:
        raise BindingError(f"{type(optimizer).__name__}.step() is being captured: {why}; step eagerly")
    for slot in slots:
        if slot.filled and slot.original.device.type == "cpu":
            raise BindingError(
                f"{slot.name} is a tensor on the host: a CUDA graph would replay today's value for ever. Put it on the "
                f"parameters' device before attach(): group[{slot.place.key!r}] = group[{slot.place.key!r}].to(device)"
            )
        if not (slot.tensor or slot.filled):
            raise BindingError(
                f"{slot.name} is a float slot ({slot.why}): a CUDA graph would replay today's value for ever. "
                f"{_way_out(optimizer, slot)}"
            )
    for index, group in enumerate(optimizer.param_groups):
        for number, parameter in enumerate(group["params"]):
            if parameter.requires_grad and parameter.grad is None:
                raise BindingError(
                    f"parameter {number} of group {index}, of shape {tuple(parameter.shape)}, requires grad and "
                    "has no .grad yet: the CUDA graph would leave it out of every replay. Run a backward pass "
                    "before the capture (and zero_grad(set_to_none=False) after it), or set requires_grad=False"
                )


def _way_out(optimizer: Any, slot: Slot) -> str:
    """What to do about a float slot in an optimizer whose step is being captured."""
    record, group = record_of(optimizer), optimizer.param_groups[slot.place.group]
    if record.baked:
        return f"{type(optimizer).__name__}: {record.baked}. Leave this one constant, or step eagerly"
    ways = []
    if slot.place.part == "weight_decay" and group.get(record.decoupled):
        ways.append(
            "attach with resident=True, which multiplies the parameters by 1 - lr * weight_decay on the device"
        )
    if group.get("fused"):
        ways.append("build the optimizer with fused=False and use ts.compile_step(sched)")
    else:
        ways.append("use ts.compile_step(sched), which keeps every value on the device")
        # One that is capturable reads this on the host all the same.
        if group.get("capturable") is False:
            ways.append("build the optimizer with capturable=True and attach again")
    text = ", or ".join(ways)
    return text[0].upper() + text[1:]

"""What is known of an optimizer: torch's by measurement, others' by reading or because a user has said so."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from torch import optim

from tensorsched.binding.third_party import NAMED
from tensorsched.binding.torch_optim import (
    FOREACH,
    IMPLEMENTATIONS,
    LOOP,
    RECORDS,
    Reads,
    Record,
    implementation,
)
from tensorsched.errors import BindingError

__all__ = ["HyperparamSupport", "record_of", "register_optimizer", "supports_tensor"]

UNKNOWN = Record()


def record_of(optimizer: object) -> Record:
    """What is known of an optimizer, by its exact type: a subclass may do anything."""
    kind = type(optimizer)
    if kind in RECORDS:
        return RECORDS[kind]
    return NAMED.get((kind.__module__.partition(".")[0], kind.__name__), UNKNOWN)


def register_optimizer(
    kind: type,
    *,
    tensors: Iterable[str] = (),
    filled: Iterable[str] = (),
    floats_only: Mapping[str, str] | None = None,
    no_effect: Mapping[str, str] | None = None,
    counts: Iterable[str] = (),
    one_graph: bool = False,
    no_capture: str = "",
) -> None:
    """Tell what an optimizer that is not torch's does with its hyperparameters; `attach` then relies on it.

    Without it every value is a Python float, which most optimizers take, and capturing its step is refused; but where a
    group holds a tensor of one element that tensor is filled, as with `filled`.

    Args:
        kind: the class; its subclasses are not meant.
        tensors: what its step reads as a 0-dim float32 tensor on the parameters' device without reading it on the
            host: keys of its groups ("lr"), elements of tuples ("betas[0]").
        filled: where a group holds a tensor, it must stay that very one: step() raises on a float (torchao), keeps the
            tensor itself, or is captured by somebody else with its address. It is filled in place after each step, and
            keeps its dtype, shape and device.
        floats_only: what must not be a tensor on any device, and why, for the error.
        no_effect: what a schedule would not change because it is read once only, and why, for the error.
        counts: what must be an int.
        one_graph: its undecorated step can be traced by torch.compile with fullgraph=True, with a tensor in the place
            of each of `tensors`: `compile_step` then takes it.
        no_capture: why capturing its step into a CUDA graph would go wrong whatever is scheduled, for the error.

    Raises:
        BindingError: not a class, one of torch's own optimizers, a part in two of `tensors`, `filled` and
            `floats_only`, or `one_graph` with something to fill.

    Does not synchronise.

    Example:
        >>> import torch, tensorsched as ts
        >>> class Lion(torch.optim.SGD):  # reads lr on the device, say
        ...     pass
        >>> ts.register_optimizer(Lion, tensors=["lr"], no_effect={"dampening": "Lion has none"})
        >>> ts.attach(Lion([torch.zeros(1)], lr=0.1), lr=ts.constant(0.1), resident=True).slots[0].why
        'resident=True'
    """
    if not isinstance(kind, type):
        raise BindingError(f"register_optimizer: expected an optimizer's class, got {kind!r}")
    if kind.__module__.startswith("torch.optim.") or kind in _BUILT_IN:
        raise BindingError(
            f"register_optimizer: what torch's {kind.__name__} does is known, from measurements; register a class of "
            "your own"
        )
    for name, given in (("tensors", tensors), ("filled", filled), ("counts", counts)):
        if isinstance(given, str):
            raise BindingError(f"register_optimizer: {name} is a list of parts, such as [{given!r}]")
    parts, own, words = frozenset(tensors), frozenset(filled), dict(floats_only or {})
    for a, b in itertools.combinations(
        ({"tensors": parts, "filled": own, "floats_only": words.keys()}).items(), 2
    ):
        if clash := a[1] & b[1]:
            raise BindingError(
                f"register_optimizer: {min(clash)!r} is in {a[0]} and in {b[0]}; name it in one"
            )
    if one_graph and own:
        raise BindingError(
            "register_optimizer: one_graph puts other tensors into the groups while it traces, and those in filled "
            "must stay what they are; leave one of the two out"
        )
    RECORDS[kind] = Record(
        reads={part: Reads(frozenset(IMPLEMENTATIONS)) for part in parts} or {"": Reads()},
        no_effect=dict(no_effect or {}),
        counts=frozenset(counts),
        floats_only=words,
        filled=own,
        no_capture=no_capture,
        one_graph=parts if one_graph else None,
    )


_BUILT_IN = frozenset(RECORDS)


@dataclasses.dataclass(frozen=True)
class HyperparamSupport:
    """Whether a hyperparameter may be a tensor, and why or why not, in words.

    Attributes:
        no_sync: the optimizer reads it on the device, without a synchronisation.
        raises: the optimizer refuses it.
    """

    no_sync: bool
    raises: bool
    why: str


def supports_tensor(optimizer: object, group: Mapping[str, Any], part: str) -> HyperparamSupport:
    """Whether the `part` ("lr", "betas[1]") of a group may be a 0-dim tensor on the parameters' device."""
    kind, record = type(optimizer), record_of(optimizer)
    if why := record.floats_only.get(part):
        return HyperparamSupport(no_sync=False, raises=True, why=why)
    if not record.reads:
        why = f"nothing is known of how {kind.__name__} reads {part}"
        if record.baked:
            why = f"{kind.__name__}: {record.baked}"
        return HyperparamSupport(no_sync=False, raises=False, why=why)
    how = implementation(group)
    if kind in (optim.Adam, optim.AdamW) and part == "lr" and how == FOREACH and group.get("foreach") is None:
        how = LOOP  # torch's own default falls back to the loop for a tensor lr that is not capturable
    reads = record.reads.get(part, Reads())
    if how in reads.raises:
        why = f"{kind.__name__} ({how}) refuses a tensor for {part}"
        return HyperparamSupport(no_sync=False, raises=True, why=why)
    where = "device" if how in reads.no_sync else "host"
    why = f"{kind.__name__} ({how}) reads {part} on the {where}"
    return HyperparamSupport(no_sync=how in reads.no_sync, raises=False, why=why)

"""Data: how each optimizer reads its hyperparameters. One record an optimizer, open to registration from outside.

Measured on torch 2.13 and checked entry by entry by tests/binding/test_torch_optim.py and tests/compiled. Everything
that has no record, third-party optimizers and subclasses included, is taken to read its hyperparameters on the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import optim

from tensorsched.errors import BindingError

__all__ = [
    "RECORDS",
    "HyperparamSupport",
    "Reads",
    "Record",
    "implementation",
    "record_of",
    "register_optimizer",
    "supports_tensor",
]

LOOP, LOOP_CAP, FOREACH, FOREACH_CAP, FUSED = (
    "loop",
    "capturable loop",
    "foreach",
    "capturable foreach",
    "fused",
)
IMPLEMENTATIONS = (LOOP, LOOP_CAP, FOREACH, FOREACH_CAP, FUSED)


@dataclasses.dataclass(frozen=True)
class Reads:
    """How an optimizer reads one hyperparameter that is a 0-dim tensor on the parameters' device.

    Attributes:
        no_sync: the implementations that never read it on the host.
        raises: those that refuse it. All others work, but read it on the host at every step: a synchronisation.
    """

    no_sync: frozenset[str] = frozenset()
    raises: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of an optimizer, by the parts of its groups ("lr", "betas[1]").

    Attributes:
        reads: how each hyperparameter is read. Empty: nothing is known.
        no_effect: what may be in a group and is never read again, and why.
        counts: what must be an int, where a schedule gives floats: the optimizer's step() would raise.
        floats_only: what may not be a tensor on any device although a step takes it, and why.
        one_graph: the undecorated step is one graph without a read on the host. Every hyperparameter may be scheduled
            there in the for-loop implementation; these may in foreach. None: that is not known.
        no_graph: why it cannot be one graph.
        on_host: the parts of its state that torch's own step reads on the host, unless a group is capturable or fused.
        buffered: where torch leaves a buffer alone while the value is 0, which a graph cannot do for some steps only.
    """

    reads: Mapping[str, Reads] = dataclasses.field(default_factory=dict)
    no_effect: Mapping[str, str] = dataclasses.field(default_factory=dict)
    counts: frozenset[str] = frozenset()
    floats_only: Mapping[str, str] = dataclasses.field(default_factory=dict)
    one_graph: frozenset[str] | None = None
    no_graph: str = ""
    on_host: frozenset[str] = frozenset({"step"})
    buffered: frozenset[str] = frozenset()


def _reads(*no_sync: str, raises: tuple[str, ...] = ()) -> Reads:
    return Reads(frozenset(no_sync), frozenset(raises))


_EPS = _reads(LOOP, LOOP_CAP)
_ADAM = Record(
    reads={
        "lr": _reads(LOOP_CAP, FOREACH_CAP, FUSED, raises=(FOREACH,)),
        "betas[0]": _reads(LOOP_CAP, raises=(FOREACH,)),
        "betas[1]": _reads(raises=(FOREACH,)),
        "eps": _EPS,
        "weight_decay": _reads(),
    },
    one_graph=frozenset({"lr", "betas[0]", "betas[1]"}),
)

RECORDS: dict[type, Record] = {
    optim.Adadelta: Record(
        {"lr": _reads(FOREACH_CAP), "rho": _reads(), "eps": _EPS, "weight_decay": _reads()},
        one_graph=frozenset({"lr"}),
    ),
    optim.Adafactor: Record(
        {"lr": _reads(), "d": _reads(), "weight_decay": _reads()},
        floats_only={"d": "Adafactor (foreach) takes a tensor until an update is clipped, and then raises"},
        no_graph="its step reads lr and the size of its update on the host, so it cannot be one graph",
    ),
    optim.Adagrad: Record(
        {
            "lr": _reads(FOREACH, FUSED),
            "lr_decay": _reads(FOREACH),
            "eps": _reads(LOOP),
            "weight_decay": _reads(),
        },
        no_effect={"initial_accumulator_value": "Adagrad reads it only when it makes its state"},
        one_graph=frozenset({"lr", "lr_decay"}),
    ),
    optim.Adam: _ADAM,
    optim.AdamW: dataclasses.replace(
        _ADAM, one_graph=frozenset({"lr", "betas[0]", "betas[1]", "weight_decay"})
    ),
    optim.Adamax: Record(
        {
            "lr": _reads(LOOP_CAP, FOREACH_CAP),
            "betas[0]": _reads(LOOP_CAP, raises=(FOREACH,)),
            "betas[1]": _reads(LOOP, LOOP_CAP, FOREACH, FOREACH_CAP),
            "eps": _EPS,
            "weight_decay": _reads(),
        },
        one_graph=frozenset({"lr", "betas[0]", "betas[1]"}),
    ),
    optim.NAdam: Record(
        {
            "lr": _reads(LOOP_CAP, FOREACH_CAP),
            "betas[0]": _reads(LOOP_CAP, raises=(LOOP, FOREACH)),
            "betas[1]": _reads(raises=(FOREACH, FOREACH_CAP)),
            "eps": _EPS,
            "momentum_decay": _reads(LOOP_CAP, raises=(LOOP, FOREACH)),
            "weight_decay": _reads(),
        },
        one_graph=frozenset({"lr", "betas[0]"}),
        on_host=frozenset({"step", "mu_product"}),
    ),
    optim.RAdam: Record(
        {
            "lr": _reads(LOOP, LOOP_CAP, FOREACH, FOREACH_CAP),
            "betas[0]": _reads(LOOP, LOOP_CAP),
            "betas[1]": _reads(raises=(FOREACH, FOREACH_CAP)),
            "eps": _EPS,
            "weight_decay": _reads(),
        },
        one_graph=frozenset({"lr", "betas[0]"}),
    ),
    optim.RMSprop: Record(
        {
            "lr": _reads(FOREACH_CAP),
            "alpha": _reads(),
            "momentum": _reads(),
            "eps": _EPS,
            "weight_decay": _reads(),
        },
        one_graph=frozenset({"lr", "momentum"}),
        buffered=frozenset({"momentum"}),
    ),
    optim.SGD: Record(
        {"lr": _reads(FUSED), "momentum": _reads(), "dampening": _reads(), "weight_decay": _reads()},
        one_graph=frozenset({"lr"}),
        buffered=frozenset({"momentum"}),
    ),
    optim.Muon: Record(  # has no foreach or fused implementation
        {"lr": _reads(), "momentum": _reads(LOOP), "weight_decay": _reads(LOOP), "eps": _reads(LOOP)},
        counts=frozenset({"ns_steps"}),
        one_graph=frozenset(),
    ),
    # Nothing is known of what these and SparseAdam read where: their eager steps do not run on fake tensors.
    optim.ASGD: Record(one_graph=frozenset({"lr"}), on_host=frozenset()),
    optim.LBFGS: Record(
        counts=frozenset({"history_size"}),
        floats_only={
            "lr": "LBFGS keeps the tensor itself as the length of its last step, and would see it change"
        },
        no_graph="its step calls the closure as often as the line search on the host wants",
    ),
    optim.Rprop: Record(
        no_effect={
            "lr": "Rprop reads lr only once, when it makes its state; schedule step_sizes or etas instead"
        }
    ),
}
"""By exact type: a subclass may do anything."""

UNKNOWN = Record()


def record_of(optimizer: object) -> Record:
    """What is known of an optimizer, by its exact type."""
    return RECORDS.get(type(optimizer), UNKNOWN)


def register_optimizer(
    kind: type,
    *,
    tensors: Iterable[str] = (),
    floats_only: Mapping[str, str] | None = None,
    no_effect: Mapping[str, str] | None = None,
    counts: Iterable[str] = (),
    one_graph: bool = False,
) -> None:
    """Tell what an optimizer that is not torch's does with its hyperparameters; `attach` then relies on it.

    Without it every value is a Python float, which any optimizer takes, and capturing its step is refused.

    Args:
        kind: the class; its subclasses are not meant.
        tensors: what its step reads as a 0-dim float32 tensor on the parameters' device without reading it on the
            host: keys of its groups ("lr"), elements of tuples ("betas[0]").
        floats_only: what must not be a tensor on any device, and why, for the error.
        no_effect: what a schedule would not change because it is read once only, and why, for the error.
        counts: what must be an int.
        one_graph: its undecorated step can be traced by torch.compile with fullgraph=True, with a tensor in the place
            of each of `tensors`: `compile_step` then takes it.

    Raises:
        BindingError: not a class, one of torch's own optimizers, or a part in `tensors` and `floats_only`.

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
            f"register_optimizer: what torch's {kind.__name__} does is known, from measurements"
        )
    parts, words = frozenset(tensors), dict(floats_only or {})
    if clash := parts & words.keys():
        raise BindingError(f"register_optimizer: {min(clash)!r} is in tensors and in floats_only")
    RECORDS[kind] = Record(
        reads={part: _reads(*IMPLEMENTATIONS) for part in parts} or {"": _reads()},
        no_effect=dict(no_effect or {}),
        counts=frozenset(counts),
        floats_only=words,
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


def implementation(group: Mapping[str, Any]) -> str:
    """Which implementation torch picks for a param_group, by its flags and its parameters' devices."""
    if group.get("fused"):
        return FUSED
    foreach = group.get("foreach")
    if foreach is None and "foreach" in group and not group.get("differentiable"):
        foreach = all(p.device.type != "cpu" for p in group.get("params", ()))
    if foreach:
        return FOREACH_CAP if group.get("capturable") else FOREACH
    return LOOP_CAP if group.get("capturable") else LOOP


def supports_tensor(optimizer: object, group: Mapping[str, Any], part: str) -> HyperparamSupport:
    """Whether the `part` ("lr", "betas[1]") of a group may be a 0-dim tensor on the parameters' device."""
    kind, record = type(optimizer), record_of(optimizer)
    if why := record.floats_only.get(part):
        return HyperparamSupport(no_sync=False, raises=True, why=why)
    if not record.reads:
        why = f"nothing is known of how {kind.__name__} reads {part}"
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

"""Data: how torch's optimizers read their hyperparameters. One record an optimizer.

Measured on torch 2.13 and checked entry by entry by tests/binding/test_torch_optim.py and tests/compiled. Those of
other packages are in third_party.py, and users add theirs by `register_optimizer` (known.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import optim

__all__ = ["IMPLEMENTATIONS", "RECORDS", "Reads", "Record", "implementation"]

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
        filled: what must stay the tensor that it is, filled in place: its step raises on a float, or replaces it.
        tensors_only: what must be a tensor on any device, and why.
        baked: what becomes of every other number in a group when a step is captured, for the error.
        no_capture: why a captured step would go wrong whatever is scheduled.
        tensor_maker: the method by which the optimizer makes the tensors of its groups, where it has one.
        decoupled: the entry of a group that says that weight_decay is p *= 1 - lr * weight_decay before the update.
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
    filled: frozenset[str] = frozenset()
    tensors_only: Mapping[str, str] = dataclasses.field(default_factory=dict)
    baked: str = ""
    no_capture: str = ""
    tensor_maker: str = ""
    decoupled: str = ""
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
    decoupled="decoupled_weight_decay",
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
        decoupled="decoupled_weight_decay",
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
        decoupled="decoupled_weight_decay",
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

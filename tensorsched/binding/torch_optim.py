"""Data: which optimizer, in which implementation, takes which hyperparameter as a device tensor without a sync.

Measured on torch 2.13 and checked row by row by tests/test_support.py. Everything that is not listed, third-party
optimizers and subclasses included, is taken to read its hyperparameters on the host and gets host slots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import optim

LOOP, LOOP_CAP, FOREACH, FOREACH_CAP, FUSED = (
    "loop",
    "capturable loop",
    "foreach",
    "capturable foreach",
    "fused",
)
IMPLEMENTATIONS = (LOOP, LOOP_CAP, FOREACH, FOREACH_CAP, FUSED)


@dataclasses.dataclass(frozen=True)
class Row:
    """What an optimizer does with one hyperparameter that is a 0-dim tensor on the parameters' device.

    `free`: implementations that never read it on the host. `raises`: those that refuse it. All others work, but read
    it on the host at every step: a synchronisation.
    """

    free: frozenset[str] = frozenset()
    raises: frozenset[str] = frozenset()


def _row(*free: str, raises: tuple[str, ...] = ()) -> Row:
    return Row(frozenset(free), frozenset(raises))


_EPS = _row(LOOP, LOOP_CAP)
_ADAM = {
    "lr": _row(LOOP_CAP, FOREACH_CAP, FUSED, raises=(FOREACH,)),
    "betas[0]": _row(LOOP_CAP, raises=(FOREACH,)),
    "betas[1]": _row(raises=(FOREACH,)),
    "eps": _EPS,
    "weight_decay": _row(),
}

ROWS: Mapping[type, Mapping[str, Row]] = {
    optim.Adadelta: {"lr": _row(FOREACH_CAP), "rho": _row(), "eps": _EPS, "weight_decay": _row()},
    optim.Adafactor: {"lr": _row(), "d": _row(), "weight_decay": _row()},
    optim.Adagrad: {
        "lr": _row(FOREACH, FUSED),
        "lr_decay": _row(FOREACH),
        "eps": _row(LOOP),
        "weight_decay": _row(),
    },
    optim.Adam: _ADAM,
    optim.AdamW: _ADAM,
    optim.Adamax: {
        "lr": _row(LOOP_CAP, FOREACH_CAP),
        "betas[0]": _row(LOOP_CAP, raises=(FOREACH,)),
        "betas[1]": _row(LOOP, LOOP_CAP, FOREACH, FOREACH_CAP),
        "eps": _EPS,
        "weight_decay": _row(),
    },
    optim.NAdam: {
        "lr": _row(LOOP_CAP, FOREACH_CAP),
        "betas[0]": _row(LOOP_CAP, raises=(LOOP, FOREACH)),
        "betas[1]": _row(raises=(FOREACH, FOREACH_CAP)),
        "eps": _EPS,
        "momentum_decay": _row(LOOP_CAP, raises=(LOOP, FOREACH)),
        "weight_decay": _row(),
    },
    optim.RAdam: {
        "lr": _row(LOOP, LOOP_CAP, FOREACH, FOREACH_CAP),
        "betas[0]": _row(LOOP, LOOP_CAP),
        "betas[1]": _row(raises=(FOREACH, FOREACH_CAP)),
        "eps": _EPS,
        "weight_decay": _row(),
    },
    optim.RMSprop: {
        "lr": _row(FOREACH_CAP),
        "alpha": _row(),
        "momentum": _row(),
        "eps": _EPS,
        "weight_decay": _row(),
    },
    optim.SGD: {"lr": _row(FUSED), "momentum": _row(), "dampening": _row(), "weight_decay": _row()},
    # No foreach or fused implementation.
    optim.Muon: {"lr": _row(), "momentum": _row(LOOP), "weight_decay": _row(LOOP), "eps": _row(LOOP)},
}
"""The exact type (a subclass may do anything) and "key" or "key[element]" -> Row.

ASGD, LBFGS, Rprop and SparseAdam are left out: their steps do not run on fake tensors, so nothing is proven of them.
"""


NO_EFFECT: Mapping[tuple[type, str], str] = {
    (
        optim.Rprop,
        "lr",
    ): "Rprop reads lr only once, when it makes its state; schedule step_sizes or etas instead",
    (optim.Adagrad, "initial_accumulator_value"): "Adagrad reads it only when it makes its state",
}
"""What may be in a param_group and is never read again."""

COUNTS: frozenset[tuple[type, str]] = frozenset({(optim.LBFGS, "history_size"), (optim.Muon, "ns_steps")})
"""What must be an int, where a schedule gives floats: the optimizer's step() would raise."""

NEVER_RESIDENT: Mapping[tuple[type, str], str] = {
    (
        optim.LBFGS,
        "lr",
    ): "LBFGS keeps the tensor itself as the length of its last step, and would see it change",
    (
        optim.Adafactor,
        "d",
    ): "Adafactor (foreach) takes a tensor until an update is clipped, and then raises",
}
"""What may not be a tensor on any device, although the step on a fake one in tests/test_support.py takes it."""

ONE_GRAPH: Mapping[type, frozenset[str]] = {
    optim.Adadelta: frozenset({"lr"}),
    optim.Adagrad: frozenset({"lr", "lr_decay"}),
    optim.Adam: frozenset({"lr", "betas[0]", "betas[1]"}),
    optim.AdamW: frozenset({"lr", "betas[0]", "betas[1]", "weight_decay"}),
    optim.Adamax: frozenset({"lr", "betas[0]", "betas[1]"}),
    optim.Muon: frozenset(),
    optim.NAdam: frozenset({"lr", "betas[0]"}),
    optim.RAdam: frozenset({"lr", "betas[0]"}),
    optim.RMSprop: frozenset({"lr", "momentum"}),
    optim.SGD: frozenset({"lr"}),
}
"""Exact types whose undecorated step is one graph without a read on the host; checked by tests/test_one_graph.py.

Every hyperparameter may be scheduled there in the for-loop implementation; these are the ones that may in foreach.
"""

NO_GRAPH: Mapping[type, str] = {
    optim.Adafactor: "its step reads lr and the size of its update on the host, so it cannot be one graph",
    optim.LBFGS: "its step calls the closure as often as the line search on the host wants",
}
"""What cannot be one graph, and why."""

BUFFERED: frozenset[tuple[type, str]] = frozenset({(optim.SGD, "momentum"), (optim.RMSprop, "momentum")})
"""Where torch leaves a buffer alone while the value is 0, which a graph cannot do for some steps only."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a slot may hold a tensor, and the reason in words."""

    free: bool
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


def judge(optimizer: object, group: Mapping[str, Any], key: str, element: int | None) -> Verdict:
    """Whether (optimizer, group, key) may hold a device tensor, and why or why not."""
    kind = type(optimizer)
    name = key if element is None else f"{key}[{element}]"
    if why := NEVER_RESIDENT.get((kind, name)):
        return Verdict(free=False, raises=True, why=why)
    if kind not in ROWS:
        return Verdict(free=False, raises=False, why=f"nothing is known of how {kind.__name__} reads {name}")
    how = implementation(group)
    if kind in (optim.Adam, optim.AdamW) and key == "lr" and how == FOREACH and group.get("foreach") is None:
        how = LOOP  # torch's own default falls back to the loop for a tensor lr that is not capturable
    row = ROWS[kind].get(name, Row())
    if how in row.raises:
        return Verdict(free=False, raises=True, why=f"{kind.__name__} ({how}) refuses a tensor for {name}")
    if how in row.free:
        return Verdict(free=True, raises=False, why=f"{kind.__name__} ({how}) reads {name} on the device")
    return Verdict(free=False, raises=False, why=f"{kind.__name__} ({how}) reads {name} on the host")


def device_of(group: Mapping[str, Any]) -> torch.device | None:
    """The one device of the group's parameters; None if there are none, or several."""
    devices = {p.device for p in group.get("params", ()) if isinstance(p, torch.Tensor)}
    return devices.pop() if len(devices) == 1 else None

"""The table in binding/torch_optim.py, row by row, on the torch that is installed.

Without a GPU: the optimizer's step runs on fake CUDA tensors, and a dispatch mode counts `aten._local_scalar_dense`,
the operation behind `.item()`, on them. Fused steps do not run on fake tensors; what they read is in their schema.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import optim
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tensorsched.binding.torch_optim import (
    FOREACH,
    FOREACH_CAP,
    FUSED,
    IMPLEMENTATIONS,
    LOOP,
    LOOP_CAP,
    RECORDS,
    implementation,
)

FLAGS: dict[str, dict[str, Any]] = {
    LOOP: {"foreach": False},
    LOOP_CAP: {"foreach": False, "capturable": True},
    FOREACH: {"foreach": True},
    FOREACH_CAP: {"foreach": True, "capturable": True},
    FUSED: {"fused": True},
}
# What must be non-zero for the optimizer to read a hyperparameter at all.
OPTIONS: dict[type, dict[str, Any]] = {
    optim.RMSprop: {"momentum": 0.9, "weight_decay": 0.01, "centered": True},
    optim.SGD: {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
    optim.Adagrad: {"lr_decay": 0.01, "weight_decay": 0.01},
    optim.Muon: {},
}
NO_CAPTURABLE = (optim.SGD, optim.Adagrad, optim.Adafactor)
HAS_FUSED = {
    optim.Adam: "_fused_adam_",
    optim.AdamW: "_fused_adamw_",
    optim.SGD: "_fused_sgd_",
    optim.Adagrad: "_fused_adagrad_",
}


class HostReads(TorchDispatchMode):
    """Counts how often a CUDA tensor is read on the host."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "cuda":
            self.count += 1
            return True if args[0].dtype == torch.bool else 0.9
        return func(*args, **(kwargs or {}))


def flags(kind: type, how: str) -> dict[str, Any] | None:
    """Constructor flags that select an implementation; None where the optimizer does not have it."""
    if kind is optim.Muon:
        return {} if how == LOOP else None
    if kind in NO_CAPTURABLE and "capturable" in FLAGS[how]:
        return None
    return FLAGS[how]


def steps_with_tensor(kind: type, how: str, key: str | None) -> int:
    """Host reads in the second step of an optimizer whose hyperparameter `key` is a fake CUDA tensor."""
    options = OPTIONS.get(kind, {"weight_decay": 0.01}) | (flags(kind, how) or {})
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.zeros(4, 4, device="cuda")) for _ in range(2)]
        optimizer = kind(params, **options)
        group = optimizer.param_groups[0]
        assert implementation(group) == how
        name, _, element = (key or "").partition("[")
        if element:
            parts = list(group[name])
            parts[int(element[0])] = torch.tensor(float(parts[int(element[0])]), device="cuda")
            group[name] = tuple(parts)
        elif key:
            group[name] = torch.tensor(float(group[name]), device="cuda")
        for _ in range(2):
            for p in params:
                p.grad = torch.zeros_like(p)
            with warnings.catch_warnings(), HostReads() as reads:
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # torch warns of a capturable step outside a capture
                optimizer.step()
    return reads.count


CASES = [
    pytest.param(kind, how, key, id=f"{kind.__name__}-{how.replace(' ', '-')}-{key}")
    for kind, record in RECORDS.items()
    for how in IMPLEMENTATIONS
    if how != FUSED and flags(kind, how) is not None
    for key in record.reads
]


@pytest.mark.parametrize(("kind", "how", "key"), CASES)
def test_a_row_says_what_torch_does(kind, how, key):
    row = RECORDS[kind].reads[key]
    if how in row.raises:
        # Several types, by where torch notices: its own check, the dispatcher, an op that has no such overload.
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            steps_with_tensor(kind, how, key)
        return
    more_than_floats = steps_with_tensor(kind, how, key) - steps_with_tensor(kind, how, None)
    assert (more_than_floats <= 0) == (how in row.no_sync), f"{more_than_floats} host reads: correct the row"


@pytest.mark.parametrize("kind", HAS_FUSED, ids=lambda kind: kind.__name__)
def test_fused_kernels_take_a_tensor_for_lr_alone(kind):
    packet = getattr(torch.ops.aten, HAS_FUSED[kind])
    schema = packet.tensor_lr._schema
    types = {argument.name: str(argument.type) for argument in schema.arguments}
    assert types.pop("lr") == "Tensor"
    scalars = {"beta1", "beta2", "weight_decay", "eps", "momentum", "dampening", "lr_decay"} & set(types)
    assert scalars
    assert {types[name] for name in scalars} == {"float"}
    no_sync = {key for key, row in RECORDS[kind].reads.items() if FUSED in row.no_sync}
    assert no_sync == {"lr"}


def test_every_optimizer_of_torch_is_in_the_table_or_left_out_on_purpose():
    of_torch = {
        kind for kind in vars(optim).values() if isinstance(kind, type) and issubclass(kind, optim.Optimizer)
    }
    left_out = {optim.Optimizer, optim.ASGD, optim.LBFGS, optim.Rprop, optim.SparseAdam}
    assert of_torch - left_out == {kind for kind, record in RECORDS.items() if record.reads}

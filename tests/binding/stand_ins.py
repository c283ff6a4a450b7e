"""Optimizers that keep the contracts of other packages' that need a GPU, or compile: what they do with a group's values.

Written from reading torchao 0.18.0, apex at commit 004da4e and dion at commit 1eb4c5e; the mathematics are torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import optim


class AdamW8bit(optim.Optimizer):
    """torchao: lr is a tensor or an error; all else is a constant of the update unless it is a tensor."""

    __module__ = "torchao.optim.adam"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.compiled: set[Any] = set()  # one entry for each time that torch.compile would have been at work

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if not isinstance(group["lr"], torch.Tensor):
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        del closure
        for group in self.param_groups:
            if not isinstance(group["lr"], torch.Tensor):
                raise RuntimeError(  # noqa: TRY004  theirs
                    "lr was changed to a non-Tensor object. If you want to update lr, please use "
                    "optim.param_groups[0]['lr'].fill_(new_lr)"
                )
            beta1, beta2 = group["betas"]
            numbers = (beta1, beta2, group["eps"], group["weight_decay"])
            self.compiled.add(tuple("tensor" if isinstance(n, torch.Tensor) else n for n in numbers))
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=torch.tensor(0.0), m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["step"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["m"].copy_(state["m"].lerp(p.grad, 1 - beta1))
                state["v"].copy_(state["v"].lerp(p.grad.square(), 1 - beta2))
                denominator = (state["v"] / (1 - beta2 ** state["step"])).sqrt() + group["eps"]
                p.sub_(group["lr"] * (state["m"] / (1 - beta1 ** state["step"])) / denominator)


class FusedAdam(optim.Optimizer):
    """apex, TransformerEngine: capturable is no entry of the groups, lr then a tensor, and step takes a GradScaler."""

    def __init__(self, params: Any, lr: float = 1e-3, *, capturable: bool = False) -> None:
        held = torch.tensor(lr, dtype=torch.float32) if capturable else lr
        super().__init__(params, {"lr": held, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1})
        self.capturable = capturable
        for group in self.param_groups if capturable else ():
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).clone()
        if capturable:
            self._step_supports_amp_scaling = True
        self._dummy_overflow_buf = torch.zeros(1, dtype=torch.int32)

    @torch.no_grad()
    def step(self, closure: Any = None, grad_scaler: Any = None) -> None:
        del closure
        for group in self.param_groups:
            if self.capturable != isinstance(group["lr"], torch.Tensor):
                raise TypeError("incompatible function arguments")  # of its C++
            found = sum(grad_scaler._check_inf_per_device(self).values()) if grad_scaler else torch.zeros(1)
            self._dummy_overflow_buf.copy_(found)
            group["step"] = group.get("step", 0) + int(self._dummy_overflow_buf.item() == 0)
            for p in group["params"]:
                if self._dummy_overflow_buf.item() == 0:
                    p.sub_(group["lr"] * (p.grad.sign() + group["weight_decay"] * p))


class Dion2(optim.Optimizer):
    """dion: the optimizer has a tensor for each group's lr, fills it with whatever it finds there, and puts it back."""

    __module__ = "dion.dion2"

    def __init__(self, params: Any, lr: float = 1e-2, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "step": 0})
        self._hyperparam_tensors: dict[int, torch.Tensor] = {}

    def _sync_hyperparam_tensors(self) -> None:
        for index, group in enumerate(self.param_groups):
            tensor = self._hyperparam_tensors.setdefault(index, torch.empty((), dtype=torch.float32))
            if group["lr"] is not tensor:
                tensor.copy_(group["lr"]) if isinstance(group["lr"], torch.Tensor) else tensor.fill_(
                    group["lr"]
                )
                group["lr"] = tensor

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        del closure
        self._sync_hyperparam_tensors()
        for group in self.param_groups:
            group["step"] += 1
            for p in group["params"]:
                p.sub_(group["lr"] * (p.grad.sign() + group["weight_decay"] * p))

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        for group in state["param_groups"]:
            for key, value in group.items():
                if key != "params" and isinstance(value, torch.Tensor) and value.ndim == 0:
                    group[key] = value.item()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._sync_hyperparam_tensors()

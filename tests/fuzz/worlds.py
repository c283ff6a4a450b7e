"""Runs that states and calls meet: an attachment, one on a clock, one with live inputs, a plan of two."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

import tensorsched as ts

CURVE = ts.warmup_cosine(1e-3, total=20, warmup=4)


def _adamw(groups: int = 1) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1e-3} for _ in range(groups)]
    )


def _plain() -> ts.Attachment:
    return ts.attach(
        _kept(_adamw()), lr=CURVE, betas=(ts.constant(0.9), None), free={"kl": 1.0 - CURVE}, steps=50
    )


def _tensors() -> ts.Attachment:
    lr = [CURVE, ts.initial * ts.linear(1.0, 0.0, steps=30)]
    return ts.attach(
        _kept(_adamw(2)), lr=lr, weight_decay=ts.constant(0.1), resident=True, steps=50, capacity=99
    )


def _clock() -> ts.Attachment:
    return ts.attach(_kept(_adamw()), lr=ts.linear(0.1, 0.0, steps=10**6), clock=ts.clock("tokens"))


def _live() -> ts.Attachment:
    return ts.attach(_kept(_adamw()), lr=CURVE * ts.plateau(patience=2) * ts.live("scale", 1.0), steps=50)


def _plan() -> ts.Plan:
    return ts.Plan(a=_plain(), b=_live())


WORLDS: dict[str, Callable[[], ts.Attachment | ts.Plan]] = {
    "plain": _plain, "tensors": _tensors, "clock": _clock, "live": _live, "plan": _plan,
}  # fmt: skip
_optimizers: list[torch.optim.Optimizer] = []  # an attachment does not keep its optimizer


def _kept(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    _optimizers.append(optimizer)
    return optimizer


class World:
    """A run in its middle, and what can be seen of it. It is made anew once something has changed.

    Attributes:
        whole: whether nothing has changed: False while something is done to it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.renew()

    def renew(self) -> None:
        _optimizers.clear()
        self.run = WORLDS[self.name]()
        self.parts = list(self.run.attachments.values()) if isinstance(self.run, ts.Plan) else [self.run]
        self.optimizers = list(_optimizers)
        for _ in range(3):
            self.step()
        self.seen = self.look()
        self.whole = True

    def step(self, n: int = 1) -> None:
        for part in self.parts:
            for _ in range(n):
                if part._options.clock is not None:
                    part.count(1_000)
                part.optimizer.step()
            if part._reactions():
                part.observe(0.5)

    def look(self) -> tuple[Any, ...]:
        """All that an error may not change."""
        return (
            repr(self.run.state_dict()),
            [repr(part.slots) for part in self.parts],
            [[part.value(name) for name in part.free] for part in self.parts],
            [part.optimizer.state_dict()["param_groups"] for part in self.parts],
            [
                [
                    {key: repr(value) for key, value in group.items() if key != "params"}
                    for group in part.optimizer.param_groups
                ]
                for part in self.parts
            ],
        )

    def unchanged(self) -> None:
        """After an error."""
        changed = [
            f"{now!r:.600} was {before!r:.600}"
            for now, before in zip(self.look(), self.seen, strict=True)
            if now != before
        ]
        assert not changed, f"{self.name}: an error has changed something: {'; '.join(changed)}"
        self.whole = True

    def goes_on(self) -> None:
        """What has changed can be trained with; a warning is a word about it, and what is foreign now is an error."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.step(2)
            self.run.state_dict()
            str(self.run)


_worlds: dict[str, World] = {}


def world(name: str) -> World:
    """The run of this name, as it is in its middle."""
    if name not in _worlds:
        _worlds[name] = World(name)
    elif not _worlds[name].whole:
        _worlds[name].renew()
    return _worlds[name]

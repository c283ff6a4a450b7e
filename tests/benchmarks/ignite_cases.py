"""Part 5: ignite's handlers and ours, called as an engine calls them, on fresh optimizers of the same groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from targets import Verdict
from timing import Competitor, Race
from torch.optim import lr_scheduler

import tensorsched.integrations.ignite as ours

IGNITE, OURS = "ignite", "ours"
CYCLE = 1000
NO_TARGET = "LRScheduler(StepLR)"  # it calls torch's own step(), where ignite computes a value beside it

Races = Mapping[tuple[str, int], Race]


def _sgd(groups: int) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)], lr=0.1)


def _one_for_all(library: Any, groups: int) -> Any:
    return library.CosineAnnealingScheduler(_sgd(groups), "lr", 0.1, 0.0, CYCLE)


def _piecewise(library: Any, groups: int) -> Any:
    return library.PiecewiseLinear(_sgd(groups), "lr", [(0, 0.0), (CYCLE, 0.1), (5 * CYCLE, 0.0)])


def _one_each(library: Any, groups: int) -> Any:
    optimizer = _sgd(groups)
    return library.ParamGroupScheduler(
        [
            library.CosineAnnealingScheduler(optimizer, "lr", 0.1 / (1 + i), 0.0, CYCLE, param_group_index=i)
            for i in range(groups)
        ]
    )


def _torch_scheduler(library: Any, groups: int) -> Any:
    optimizer = _sgd(groups)
    optimizer.step()  # there are no gradients; torch's scheduler warns unless the optimizer steps first
    return library.LRScheduler(lr_scheduler.StepLR(optimizer, CYCLE))


KINDS: dict[str, Callable[[Any, int], Any]] = {
    "ParamGroupScheduler of CosineAnnealingSchedulers": _one_each,
    "CosineAnnealingScheduler, one for all groups": _one_for_all,
    "PiecewiseLinear, one for all groups": _piecewise,
    NO_TARGET: _torch_scheduler,
}


def ignite_handlers() -> Any:
    """The module, imported where it is needed."""
    with warnings.catch_warnings():  # it imports what torch deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        import ignite.handlers as theirs  # noqa: PLC0415  only where it is installed
    return theirs


def handler_calls(kind: str, groups: int) -> list[Competitor]:
    """ignite's handler and ours."""
    theirs = ignite_handlers()
    return [
        _competitor(name, KINDS[kind](library, groups)) for name, library in ((IGNITE, theirs), (OURS, ours))
    ]


def _competitor(name: str, handler: Any) -> Competitor:
    return Competitor(name, lambda: handler(None))


def judge(races: Races) -> list[Verdict]:
    """No call but `NO_TARGET`'s may cost more than ignite's; the noise may leave it open where it costs the same."""
    found = []
    for (kind, groups), race in races.items():
        if kind != NO_TARGET:
            ratio = race.ratio(IGNITE, OURS)
            low, high = ratio.sure
            met = True if low >= 1.0 else False if high < 1.0 else None
            target = f"{kind}: no dearer than ignite, at {groups} group{'s' * (groups > 1)}"
            found.append(Verdict(target, f"{ratio.median:.2f}x (95 %: {low:.2f} .. {high:.2f})", met))
    return found

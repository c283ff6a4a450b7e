"""README's table of reasons, cell by cell: what each library does about a pain is run here, or cited."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR

import tensorsched as ts

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
STEPS = 10


def sgd() -> optim.SGD:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    return optim.SGD([weight], lr=1.0, momentum=0.9, weight_decay=0.1)


def run_torch(optimizer: optim.Optimizer) -> Callable[[], object]:
    return CosineAnnealingLR(optimizer, STEPS).step


def run_transformers(optimizer: optim.Optimizer) -> Callable[[], object]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return transformers.get_scheduler("cosine", optimizer, 0, STEPS).step


def run_ignite(optimizer: optim.Optimizer) -> Callable[[], object]:
    handlers = pytest.importorskip("ignite.handlers", reason="pytorch-ignite is not installed")
    scheduler = handlers.CosineAnnealingScheduler(optimizer, "lr", 1.0, 0.0, cycle_size=STEPS)
    scheduler(None)  # as at the event of the first iteration
    return lambda: scheduler(None)


def run_ours(optimizer: optim.Optimizer) -> Callable[[], object]:
    ts.attach(optimizer, lr=ts.cosine(1.0, 0.0, steps=STEPS))
    return bool  # it moves with the optimizer's steps


OTHERS = {"torch": run_torch, "transformers": run_transformers, "ignite": run_ignite}
ALL = OTHERS | {"tensorsched": run_ours}


def lrs(library: str, steps: int) -> list[float]:
    optimizer = sgd()
    advance = ALL[library](optimizer)
    used = []
    for _ in range(steps):
        used.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        advance()
    return used


def holds_past_the_end(library: str) -> bool:
    used = lrs(library, 2 * STEPS)
    assert used[0] == pytest.approx(1.0)
    assert used[1] < 1
    return max(used[STEPS + 1 :]) <= 1e-9


def counts_only_steps_that_were_made(library: str) -> bool:
    """A float16 overflow in the middle: GradScaler skips that step."""
    optimizer = sgd()
    advance = ALL[library](optimizer)
    weight = optimizer.param_groups[0]["params"][0]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for number in range(4):
        optimizer.zero_grad()
        scaler.scale((weight * (torch.inf if number == 1 else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch says that the order is wrong, when the first step is skipped
            advance()
    return optimizer.param_groups[0]["lr"] == pytest.approx(lrs(library, 5)[3])


def resumes_from_the_optimizer_alone(library: str) -> bool:
    optimizer = sgd()
    advance = ALL[library](optimizer)
    for _ in range(4):
        optimizer.step()
        advance()
    expected = lrs(library, 7)[5]
    resumed = sgd()
    advance = ALL[library](resumed)
    resumed.load_state_dict(optimizer.state_dict())
    resumed.step()
    advance()
    return resumed.param_groups[0]["lr"] == pytest.approx(expected)


def notices_another_writer(library: str) -> bool:
    optimizer = sgd()
    advance = ALL[library](optimizer)
    for _ in range(3):
        optimizer.step()
        advance()
    optimizer.param_groups[0]["lr"] = 0.5
    try:
        optimizer.step()
        advance()
    except ts.BindingError:
        return True
    return False


def compiles_once(library: str) -> bool:
    """SGD's step, compiled by the user: a float that changes is a new graph."""
    optimizer = sgd()
    counter = torch._dynamo.testing.CompileCounter()
    if library == "tensorsched":
        step: Any = ts.compile_step(
            ts.attach(optimizer, lr=ts.cosine(1.0, 0.0, steps=STEPS)), backend=counter
        )
        advance: Callable[[], object] = bool
        step()  # makes the state
    else:
        advance = ALL[library](optimizer)
        raw = type(optimizer).step.__wrapped__
        optimizer.step()
        torch._dynamo.reset()
        step = torch.compile(lambda: raw(optimizer), backend=counter)
    for _ in range(4):
        with torch.no_grad():
            step()
        advance()
    return counter.frame_count == 1


def schedules_weight_decay(library: str) -> bool:
    optimizer = sgd()
    if library == "ignite":
        handlers = pytest.importorskip("ignite.handlers", reason="pytorch-ignite is not installed")
        handlers.LinearCyclicalScheduler(optimizer, "weight_decay", 0.5, 0.2, cycle_size=STEPS)(None)
    elif library == "tensorsched":
        ts.attach(optimizer, weight_decay=ts.linear(0.5, 0.2, steps=STEPS))
    else:  # they know one key
        advance = ALL[library](optimizer)
        optimizer.step()
        advance()
    return optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.5)


OPTAX = "https://optax.readthedocs.io/en/latest/api/"
"""optax's cells are from its documentation: its schedules are functions that are called inside the user's jitted step."""

ROWS: dict[str, tuple[Callable[[str], bool], dict[str, str]]] = {
    "schedules weight decay, betas, momentum, ...": (
        schedules_weight_decay,
        {"torch": "no", "transformers": "no", "ignite": "yes", "optax": "yes", "tensorsched": "yes"},
    ),
    "a compiled step stays compiled while values change": (
        compiles_once,
        {"torch": "no", "transformers": "no", "ignite": "no", "optax": "yes", "tensorsched": "yes"},
    ),
    "a step that GradScaler skips is not counted": (
        counts_only_steps_that_were_made,
        {"torch": "no", "transformers": "no", "ignite": "no", "optax": "yes", "tensorsched": "yes"},
    ),
    "the optimizer's checkpoint alone resumes the schedule": (
        resumes_from_the_optimizer_alone,
        {"torch": "no", "transformers": "no", "ignite": "no", "optax": "yes", "tensorsched": "yes"},
    ),
    "a value that somebody else wrote is an error": (
        notices_another_writer,
        {"torch": "no", "transformers": "no", "ignite": "no", "optax": "-", "tensorsched": "yes"},
    ),
    "a run that is longer than its cosine holds the end": (
        holds_past_the_end,
        {"torch": "no", "transformers": "no", "ignite": "no", "optax": "yes", "tensorsched": "yes"},
    ),
}


@pytest.mark.parametrize("library", ALL)
@pytest.mark.parametrize("pain", ROWS)
def test_each_library_does_what_the_table_says(pain, library):
    experiment, cells = ROWS[pain]
    assert experiment(library) == (cells[library] == "yes")


def test_readme_has_the_table():
    libraries = [*OTHERS, "optax", "tensorsched"]
    for pain, (_, cells) in ROWS.items():
        assert f"| {pain} | {' | '.join(cells[library] for library in libraries)} |" in README
    assert OPTAX in README

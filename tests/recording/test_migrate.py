"""Every row of the page "coming from another library": their call and ours give the same numbers."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types

import pytest
import torch
from torch.optim import lr_scheduler as torch_lr

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tests.recording import migrate

LR = 0.1
CLOSE = 1e-11  # relative to the largest value: peers multiply their way from step to step, and round at each
NAMES = {"ts": ts, "lr": LR, "fn": lambda step: 1.0 / (1 + step)}

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


def sgd():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)


def evaluated(code: str, **names):
    return eval(code, {**NAMES, **names})  # noqa: S307  our own page


def stepped(row, module) -> list[float]:
    """torch's way: the scheduler is stepped after each step."""
    optimizer = sgd()
    scheduler = evaluated(row.theirs, optimizer=optimizer, **vars(module))
    seen = [optimizer.param_groups[0][row.key]]
    for _ in range(row.steps - 1):
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0][row.key])
    return seen


def in_torch(row):
    return stepped(row, torch_lr)


def in_transformers(row):
    return stepped(
        row, pytest.importorskip("transformers.optimization", reason="transformers is not installed")
    )


def in_optax(row):
    optax = pytest.importorskip("optax", reason="optax is not installed (the extra `peers` has it)")
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        schedule = evaluated(row.theirs, **vars(optax))
        return [float(schedule(step)) for step in range(row.steps)]


def in_ignite(row):
    handlers = pytest.importorskip(
        "ignite.handlers", reason="ignite is not installed (the extra `peers` has it)"
    )
    optimizer = sgd()
    scheduler = evaluated(row.theirs, optimizer=optimizer, **vars(handlers))
    seen = []
    for _ in range(row.steps):
        scheduler(None)
        seen.append(optimizer.param_groups[0][row.key])
    return seen


def in_timm(row):
    found = importlib.util.find_spec("timm")
    if found is None:
        pytest.skip("timm is not installed: it needs torchvision, which has to match torch's build")
    package = types.ModuleType("timm")  # without its own __init__, which imports torchvision and all models
    package.__path__ = list(found.submodule_search_locations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "timm", package)
        schedulers = importlib.import_module("timm.scheduler")
        optimizer = sgd()
        scheduler = evaluated(row.theirs, optimizer=optimizer, **vars(schedulers))
        seen = [optimizer.param_groups[0][row.key]]
        for step in range(1, row.steps):
            (scheduler.step if scheduler.t_in_epochs else scheduler.step_update)(step)
            seen.append(optimizer.param_groups[0][row.key])
    for name in [name for name in sys.modules if name.startswith("timm.")]:
        del sys.modules[name]
    return seen


def megatron(
    *,
    lr_decay_style,
    init_lr,
    max_lr,
    min_lr,
    lr_warmup_steps,
    lr_decay_steps,
    wsd_decay_steps=1,
    lr_wsd_decay_style=None,
):
    """OptimizerParamScheduler.get_lr as a function of the step: the formulas of its head in 2026."""
    shapes = {
        "linear": lambda p: 1.0 - p,
        "cosine": lambda p: 0.5 * (1.0 + math.cos(math.pi * p)),
        "exponential": lambda p: 2.0 * 0.5**p - 1.0,
        "minus_sqrt": lambda p: 1.0 - math.sqrt(p),
    }

    def lr(step):
        if step <= lr_warmup_steps:
            return init_lr + (max_lr - init_lr) * step / lr_warmup_steps
        if step > lr_decay_steps:
            return min_lr
        if lr_decay_style == "inverse-square-root":
            return max(min_lr, max_lr * math.sqrt(lr_warmup_steps / step))
        if lr_decay_style == "WSD":
            elapsed, shape = step - (lr_decay_steps - wsd_decay_steps), lr_wsd_decay_style
            left = shapes[shape](elapsed / wsd_decay_steps) if elapsed > 0 else 1.0
        else:
            left = shapes[lr_decay_style]((step - lr_warmup_steps) / (lr_decay_steps - lr_warmup_steps))
        return min_lr + (max_lr - min_lr) * left

    return lr


def torchtitan(*, warmup_steps, stable_steps, decay_steps, lr_decay_type, min_lr_factor):
    """linear_warmup_stable_decay, times the group's lr: the formulas of its head in 2026."""
    shapes = {
        "linear": lambda p: 1.0 - p,
        "sqrt": lambda p: 1.0 - math.sqrt(p),
        "cosine": lambda p: 0.5 * (1.0 + math.cos(math.pi * p)),
    }

    def lr(step):
        if step < warmup_steps:
            return LR * (step + 1) / warmup_steps
        progress = min(max(step - warmup_steps - stable_steps, 0) / decay_steps, 1.0)
        return LR * (min_lr_factor + (1.0 - min_lr_factor) * shapes[lr_decay_type](progress))

    return lr


def by_formula(row):
    names = {"OptimizerParamScheduler": megatron, "linear_warmup_stable_decay": torchtitan}
    return [evaluated(row.theirs, **names)(step) for step in range(row.steps)]


DRIVERS = dict(
    zip(
        migrate.TABLES,
        (in_torch, in_transformers, in_optax, in_ignite, in_timm, by_formula, by_formula),
        strict=True,
    )
)
ROWS = [
    pytest.param(DRIVERS[name], row, id=f"{name} {row.theirs} {row.key}")
    for name, rows in migrate.TABLES.items()
    for row in rows
    if row.ours
]


def apart(ours: ts.Schedule, theirs: list[float]) -> float:
    reach = max(map(abs, theirs))
    return max(abs(ours(step) - value) for step, value in enumerate(theirs)) / reach


@pytest.mark.parametrize(("drive", "row"), ROWS)
def test_both_give_the_same_numbers(drive, row):
    theirs, ours = drive(row), evaluated(row.ours)
    assert len(theirs) == row.steps
    assert apart(ours, theirs) < CLOSE
    # Controls: a curve that is frozen or one step off is told apart.
    if ours.settled != 0:
        for wrong in (ts.constant(ours(0)), ours.delay(1)):
            assert apart(wrong, theirs) > 1e-6


@pytest.mark.parametrize(
    "row", [row for rows in (migrate.TORCH, migrate.TRANSFORMERS) for row in rows if not row.ours], ids=lambda row: row.theirs
)  # fmt: skip
def test_what_has_no_row_follows_a_metric(row):
    optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
    scheduler = evaluated(row.theirs, optimizer=sgd(), **{**vars(torch_lr), **vars(optimization)})
    with pytest.raises(ScheduleError, match="follows a metric"):
        ts.record(scheduler, 5)


def test_every_scheduler_of_torch_and_every_name_of_transformers_has_a_row():
    public = {name for name in torch_lr.__all__ if isinstance(getattr(torch_lr, name), type)} - {
        "LRScheduler"
    }
    assert {row.theirs.partition("(")[0] for row in migrate.TORCH} == public
    assert len(public) == 15
    utils = pytest.importorskip("transformers.trainer_utils", reason="transformers is not installed")
    assert {row.theirs.split('"')[1] for row in migrate.TRANSFORMERS} == {
        kind.value for kind in utils.SchedulerType
    }


def test_the_page_is_the_table():
    assert migrate.PAGE.read_text(encoding="utf-8") == migrate.page(), "run python tests/migrate.py"

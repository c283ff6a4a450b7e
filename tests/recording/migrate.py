"""The "migrate from" page as data: their call, our call, and how far both give the same numbers.

`python tests/migrate.py` writes the page, notebooks/05_migrate.ipynb; test_migrate checks every row and the page.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nbformat

PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "05_migrate.ipynb"


@dataclasses.dataclass(frozen=True)
class Row:
    """Their call and ours; both are Python expressions over `optimizer`, `lr` (the group's own, 0.1) and `fn`."""

    theirs: str
    ours: str
    note: str = ""
    steps: int = 120  # how many both are compared for
    key: str = "lr"


TORCH = [
    Row("LambdaLR(optimizer, fn)", "lr * ts.from_function(fn, 120)"),
    Row("MultiplicativeLR(optimizer, lambda step: 0.95)", "ts.exponential_decay(lr, 0.95, every=1)", "a factor that changes: `ts.record`"),
    Row("StepLR(optimizer, 30, gamma=0.1)", "ts.step_decay(lr, every=30, factor=0.1)"),
    Row("MultiStepLR(optimizer, [30, 80], gamma=0.1)", "ts.multistep(lr, [30, 80], factor=0.1)"),
    Row("ConstantLR(optimizer, 0.5, total_iters=5)", "ts.constant(0.5 * lr, steps=5) >> lr"),
    Row("LinearLR(optimizer, 0.1, 1.0, total_iters=5)", "ts.linear(0.1 * lr, lr, steps=5)"),
    Row("ExponentialLR(optimizer, 0.9)", "ts.exponential_decay(lr, 0.9, every=1)"),
    Row("PolynomialLR(optimizer, 100, power=2.0)", "ts.polynomial(lr, 0.0, 2.0, steps=100)"),
    Row("CosineAnnealingLR(optimizer, 100, eta_min=0.001)", "ts.cosine(lr, 0.001, steps=100)", "ours holds 0.001 after step 100, torch's rises again", 101),
    Row("CosineAnnealingWarmRestarts(optimizer, 10, T_mult=2)", "ts.warm_restarts(lr, period=10, length_mult=2)"),
    Row('CyclicLR(optimizer, 0.01, 0.1, 20, mode="triangular2")', 'ts.cyclic(0.01, 0.1, up=20, mode="triangular2")'),
    Row('CyclicLR(optimizer, 0.01, 0.1, 20, mode="triangular2")', 'ts.cyclic(0.9, 0.8, up=20, mode="triangular2")', "its momentum", key="momentum"),
    Row("OneCycleLR(optimizer, 0.1, 100)", "ts.one_cycle(0.1, total=100, last_step_ends=True)", "torch raises after step 100", 100),
    Row("OneCycleLR(optimizer, 0.1, 100)", "ts.one_cycle(0.85, total=100, start=0.95, end=0.95, last_step_ends=True)", "its momentum", 100, "momentum"),
    Row("SequentialLR(optimizer, [LinearLR(optimizer, 0.1, 1.0, 5), CosineAnnealingLR(optimizer, 95)], [5])", "ts.linear(0.1 * lr, lr, steps=5) >> ts.cosine(lr, 0.0, steps=95)", "ours holds 0 after step 100", 101),
    Row("ChainedScheduler([ConstantLR(optimizer, 0.5, 5), ExponentialLR(optimizer, 0.9)])", "(ts.constant(0.5, steps=5) >> 1.0) * ts.exponential_decay(lr, 0.9, every=1)"),
    Row("ReduceLROnPlateau(optimizer)", "", "follows a metric: no function of the step"),
]  # fmt: skip

TRANSFORMERS = [
    Row('get_scheduler("constant", optimizer)', "ts.constant(lr)"),
    Row('get_scheduler("constant_with_warmup", optimizer, 10)', "ts.warmup_constant(lr, warmup=10)"),
    Row('get_scheduler("linear", optimizer, 10, 100)', "ts.warmup_linear(lr, total=100, warmup=10)"),
    Row('get_scheduler("cosine", optimizer, 10, 100)', "ts.warmup_cosine(lr, total=100, warmup=10)", "ours holds 0 after step 100, theirs rises again", 101),
    Row('get_scheduler("cosine_with_restarts", optimizer, 20, 100, {"num_cycles": 4})', "ts.linear(0.0, lr, steps=20) >> ts.cosine(lr, 0.0, steps=20).repeat(4)"),
    Row('get_scheduler("polynomial", optimizer, 10, 100, {"power": 2.0, "lr_end": 1e-3})', "ts.linear(0.0, lr, steps=10) >> ts.polynomial(lr, 1e-3, 2.0, steps=90)"),
    Row('get_scheduler("inverse_sqrt", optimizer, 10)', "ts.warmup_inverse_sqrt(lr, warmup=10)"),
    Row('get_scheduler("cosine_with_min_lr", optimizer, 10, 100, {"min_lr": 0.01})', "ts.warmup_cosine(lr, total=100, warmup=10, floor=0.01)", "as cosine", 101),
    Row('get_scheduler("cosine_warmup_with_min_lr", optimizer, 10, 100, {"min_lr_rate": 0.1})', "ts.warmup_cosine(lr, total=100, warmup=10, floor=0.1 * lr).skip(1)", "the whole curve is one step early", 100),
    Row('get_scheduler("warmup_stable_decay", optimizer, 10, 100, {"num_decay_steps": 20})', 'ts.wsd(lr, total=100, warmup=10, decay=20, shape="cosine")'),
    Row('get_scheduler("reduce_lr_on_plateau", optimizer)', "", "follows a metric: no function of the step"),
    Row('get_scheduler("greedy", optimizer)', "", "follows a metric: no function of the step"),
]  # fmt: skip

OPTAX = [
    Row("constant_schedule(0.1)", "ts.constant(0.1)"),
    Row("linear_schedule(0.1, 0.0, 100)", "ts.linear(0.1, 0.0, steps=100)"),
    Row("cosine_decay_schedule(0.1, 100, alpha=0.1)", "ts.cosine(0.1, 0.1 * 0.1, steps=100)"),
    Row("polynomial_schedule(0.1, 0.0, 2.0, 100)", "ts.polynomial(0.1, 0.0, 2.0, steps=100)"),
    Row("exponential_decay(0.1, 20, 0.5)", "ts.exponential_decay(0.1, 0.5, every=20)"),
    Row("piecewise_constant_schedule(0.1, {30: 0.5, 80: 0.1})", "ts.piecewise_constant([0.1, 0.05, 0.005], [30, 80])", "theirs are factors"),
    Row("warmup_cosine_decay_schedule(0.0, 0.1, 10, 100, 0.01)", "ts.warmup_cosine(0.1, total=100, warmup=10, floor=0.01)"),
    Row("warmup_constant_schedule(0.0, 0.1, 10)", "ts.warmup_constant(0.1, warmup=10)"),
    Row("cosine_onecycle_schedule(100, 0.1)", "ts.one_cycle(0.1, total=100)"),
    Row("join_schedules([linear_schedule(0.0, 0.1, 10), constant_schedule(0.1)], [10])", "ts.linear(0.0, 0.1, steps=10) >> 0.1"),
]  # fmt: skip

IGNITE = [
    Row('CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 40)', "ts.cosine(0.1, 0.0, steps=40).repeat()"),
    Row('LinearCyclicalScheduler(optimizer, "lr", 0.1, 0.0, 40)', "ts.cyclic(0.1, 0.0, up=20)"),
    Row('PiecewiseLinear(optimizer, "lr", [(10, 0.5), (20, 0.45), (30, 0.1)])', "ts.piecewise_linear([(10, 0.5), (20, 0.45), (30, 0.1)])"),
    Row('ConcatScheduler([LinearCyclicalScheduler(optimizer, "lr", 0.0, 0.1, 20), CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 40)], [10])', "ts.linear(0.0, 0.1, steps=10) >> ts.cosine(0.1, 0.0, steps=40).repeat()"),
    Row('create_lr_scheduler_with_warmup(PiecewiseLinear(optimizer, "lr", [(0, 0.1), (50, 0.0)]), 0.0, 11)', "ts.linear(0.0, 0.1, steps=10) >> ts.linear(0.1, 0.0, steps=50)", "a warm-up of n events rises in n - 1 steps"),
    Row('ParamGroupScheduler([CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 40, param_group_index=0)])', "ts.cosine(0.1, 0.0, steps=40).repeat()", "a list: `lr=[schedule, None, ...]`"),
]  # fmt: skip

TIMM = [
    Row("CosineLRScheduler(optimizer, t_initial=100, warmup_t=10, warmup_lr_init=0.01, lr_min=0.001, t_in_epochs=False)", "ts.linear(0.01, lr, steps=10) >> ts.cosine(lr, 0.001, steps=100).skip(10)", "the warm-up hides the start of the cosine"),
    Row("CosineLRScheduler(optimizer, t_initial=100, warmup_t=10, warmup_lr_init=0.01, warmup_prefix=True, t_in_epochs=False)", "ts.linear(0.01, lr, steps=10) >> ts.cosine(lr, 0.0, steps=100)"),
    Row("PolyLRScheduler(optimizer, t_initial=100, power=2.0, t_in_epochs=False)", "ts.polynomial(lr, 0.0, 2.0, steps=100)"),
    Row("StepLRScheduler(optimizer, decay_t=30, decay_rate=0.1, t_in_epochs=False)", "ts.step_decay(lr, every=30, factor=0.1)"),
    Row("CosineLRScheduler(optimizer, t_initial=10)", "ts.cosine(lr, 0.0, steps=10)", "counts epochs: `.hold_each(steps_per_epoch)`"),
    Row("TanhLRScheduler(optimizer, t_initial=100, t_in_epochs=False)", "", "no such shape: `ts.record(scheduler, 100)`"),
]  # fmt: skip

MEGATRON = [
    Row('OptimizerParamScheduler(lr_decay_style="linear", init_lr=0.0, max_lr=0.1, min_lr=0.01, lr_warmup_steps=10, lr_decay_steps=100)', "ts.warmup_linear(0.1, total=100, warmup=10, floor=0.01)"),
    Row('OptimizerParamScheduler(lr_decay_style="cosine", init_lr=0.0, max_lr=0.1, min_lr=0.01, lr_warmup_steps=10, lr_decay_steps=100)', "ts.warmup_cosine(0.1, total=100, warmup=10, floor=0.01)"),
    Row('OptimizerParamScheduler(lr_decay_style="WSD", init_lr=0.0, max_lr=0.1, min_lr=0.01, lr_warmup_steps=10, lr_decay_steps=100, wsd_decay_steps=20, lr_wsd_decay_style="minus_sqrt")', 'ts.wsd(0.1, total=100, warmup=10, decay=20, shape="1-sqrt", floor=0.01)', "linear and cosine likewise"),
    Row('OptimizerParamScheduler(lr_decay_style="WSD", init_lr=0.0, max_lr=0.1, min_lr=0.01, lr_warmup_steps=10, lr_decay_steps=100, wsd_decay_steps=20, lr_wsd_decay_style="exponential")', "ts.linear(0.0, 0.1, steps=10) >> ts.constant(0.1, steps=70) >> ts.exponential(0.18, 0.09, steps=20) - 0.08", "min_lr + (max_lr - min_lr) * (2 * 0.5**p - 1)"),
    Row('OptimizerParamScheduler(lr_decay_style="inverse-square-root", init_lr=0.0, max_lr=0.1, min_lr=0.01, lr_warmup_steps=10, lr_decay_steps=100)', "ts.warmup_inverse_sqrt(0.1, warmup=10)", "theirs jumps to min_lr after step 100", 101),
]  # fmt: skip

TORCHTITAN = [
    Row('linear_warmup_stable_decay(warmup_steps=10, stable_steps=70, decay_steps=20, lr_decay_type="linear", min_lr_factor=0.1)', 'ts.wsd(lr, total=100, warmup=10, decay=20, floor=0.1 * lr, ramp="skip_start")'),
    Row('linear_warmup_stable_decay(warmup_steps=10, stable_steps=70, decay_steps=20, lr_decay_type="sqrt", min_lr_factor=0.0)', 'ts.wsd(lr, total=100, warmup=10, decay=20, shape="1-sqrt", ramp="skip_start")'),
    Row('linear_warmup_stable_decay(warmup_steps=10, stable_steps=0, decay_steps=90, lr_decay_type="cosine", min_lr_factor=0.0)', 'ts.wsd(lr, total=100, warmup=10, decay=90, shape="cosine", ramp="skip_start")'),
]  # fmt: skip

TABLES = {
    "torch.optim.lr_scheduler": TORCH,
    "transformers": TRANSFORMERS,
    "optax": OPTAX,
    "ignite.handlers": IGNITE,
    "timm.scheduler": TIMM,
    "Megatron-LM": MEGATRON,
    "torchtitan": TORCHTITAN,
}

INTRODUCTION = """\
# Coming from another library

Any scheduler object can be taken over as it is, with `ts.record`: its values, bit for bit, without touching it.
To write the same curve down as an expression (which prints, saves and changes like one), find your call in the tables
below. `lr` is the learning rate of the group. Each row is a test: both sides give the same numbers, to rounding. (Those
of Megatron-LM and torchtitan, whose schedulers do not install by themselves, are tested against their formulas.)"""

TWO_MINUTES = """\
import torch

import tensorsched as ts

STEPS = 100
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weight], lr=0.1)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

recorded = ts.record(scheduler, STEPS)
recorded"""

ATTACHED = """\
sched = ts.attach(optimizer, **recorded)  # from here on without scheduler.step()
for _ in range(STEPS):
    assert optimizer.param_groups[0]["lr"] == recorded["lr"](sched.step_count)
    optimizer.step()

# The same as an expression: the numbers agree to rounding, since torch multiplies its way down.
expression = ts.cosine(0.1, 0.0, steps=STEPS)
print(abs(expression.values() - recorded["lr"].values()).max())
expression"""


def table(name: str, rows: list[Row]) -> str:
    """A table of the page."""

    def cell(code: str) -> str:
        return f"`{code}`" if code else "-"

    lines = [f"| {cell(row.theirs)} | {cell(row.ours)} | {row.note} |" for row in rows]
    return "\n".join([f"## {name}", "", "| theirs | ours | |", "| --- | --- | --- |", *lines])


def page() -> str:
    """The notebook, as it is stored."""
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell(INTRODUCTION), v4.new_code_cell(TWO_MINUTES), v4.new_code_cell(ATTACHED)]
    cells += [v4.new_markdown_cell(table(name, rows)) for name, rows in TABLES.items()]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02}"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return nbformat.writes(v4.new_notebook(cells=cells, metadata=kernel)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

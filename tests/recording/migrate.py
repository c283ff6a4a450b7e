"""The "migrate from" page as data: their call, our call, and how far both give the same numbers.

`python -m tests.recording.migrate` writes the page, notebooks/05_migrate.ipynb, without its outputs, and
`make notebooks ARGS='--write notebooks/05_migrate.ipynb'` runs it; test_migrate checks every row and the page.
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
    Row("CosineAnnealingLR(optimizer, 50, eta_min=0.001)", "ts.cosine(lr, 0.001, steps=50).mirror().repeat()", "the wave that torch's is past T_max"),
    Row("CosineAnnealingWarmRestarts(optimizer, 10, T_mult=2)", "ts.warm_restarts(lr, period=10, length_mult=2)"),
    Row('CyclicLR(optimizer, 0.01, 0.1, 20, mode="triangular2")', 'ts.cyclic(0.01, 0.1, up=20, mode="triangular2")'),
    Row('CyclicLR(optimizer, 0.01, 0.1, 20, mode="triangular2")', 'ts.cyclic(0.9, 0.8, up=20, mode="triangular2")', "its momentum", key="momentum"),
    Row("OneCycleLR(optimizer, 0.1, 100)", "ts.one_cycle(0.1, total=100, last_step_ends=True)", "torch raises after step 100", 100),
    Row("OneCycleLR(optimizer, 0.1, 100, pct_start=0.4, three_phase=True)", "ts.one_cycle(0.1, total=100, rise=0.4, three_phase=True, last_step_ends=True)", "", 100),
    Row("OneCycleLR(optimizer, 0.1, 100)", "ts.one_cycle(0.85, total=100, start=0.95, end=0.95, last_step_ends=True)", "its momentum", 100, "momentum"),
    Row("SequentialLR(optimizer, [LinearLR(optimizer, 0.1, 1.0, 5), CosineAnnealingLR(optimizer, 95)], [5])", "ts.linear(0.1 * lr, lr, steps=5) >> ts.cosine(lr, 0.0, steps=95)", "ours holds 0 after step 100", 101),
    Row("ChainedScheduler([ConstantLR(optimizer, 0.5, 5), ExponentialLR(optimizer, 0.9)])", "(ts.constant(0.5, steps=5) >> 1.0) * ts.exponential_decay(lr, 0.9, every=1)"),
    Row("ReduceLROnPlateau(optimizer)", "", "follows a metric: `lr * ts.plateau(...)` and `sched.observe(metric)`"),
]  # fmt: skip

TRANSFORMERS = [
    Row('get_scheduler("constant", optimizer)', "ts.constant(lr)"),
    Row('get_scheduler("constant_with_warmup", optimizer, 10)', "ts.warmup_constant(lr, warmup=10)"),
    Row('get_scheduler("linear", optimizer, 10, 100)', "ts.warmup_linear(lr, total=100, warmup=10)"),
    Row('get_scheduler("cosine", optimizer, 10, 100)', "ts.warmup_cosine(lr, total=100, warmup=10)", "ours holds 0 after step 100, theirs rises again", 101),
    Row('get_scheduler("cosine", optimizer, 10, 100, {"num_cycles": 1.5})', "ts.wave(lr, total=100, warmup=10, cycles=1.5)", "as cosine", 101),
    Row('get_scheduler("cosine_with_restarts", optimizer, 20, 100, {"num_cycles": 4})', "ts.linear(0.0, lr, steps=20) >> ts.cosine(lr, 0.0, steps=20).repeat(4)"),
    Row('get_scheduler("cosine_with_restarts", optimizer, 20, 100, {"num_cycles": 3})', "ts.linear(0.0, lr, steps=20) >> ts.cosine(lr, 0.0, steps=80).repeat(3).span(80)", "cycles of 26 2/3 steps"),
    Row('get_scheduler("polynomial", optimizer, 10, 100, {"power": 2.0, "lr_end": 1e-3})', "ts.linear(0.0, lr, steps=10) >> ts.polynomial(lr, 1e-3, 2.0, steps=90)"),
    Row('get_scheduler("inverse_sqrt", optimizer, 10)', "ts.warmup_inverse_sqrt(lr, warmup=10)"),
    Row('get_scheduler("cosine_with_min_lr", optimizer, 10, 100, {"min_lr": 0.01})', "ts.warmup_cosine(lr, total=100, warmup=10, floor=0.01)", "as cosine", 101),
    Row('get_scheduler("cosine_warmup_with_min_lr", optimizer, 10, 100, {"min_lr_rate": 0.1})', "ts.warmup_cosine(lr, total=100, warmup=10, floor=0.1 * lr).skip(1)", "the whole curve is one step early", 100),
    Row('get_scheduler("cosine_warmup_with_min_lr", optimizer, 10, 100, {"min_lr_rate": 0.1, "warmup_lr_rate": 0.05})', "ts.linear(0.05 * lr, lr, steps=9) >> ts.cosine(lr, 0.1 * lr, steps=90)", "the warm-up has 9 steps; theirs rises after step 99", 100),
    Row('get_scheduler("warmup_stable_decay", optimizer, 10, 100, {"num_decay_steps": 20})', 'ts.wsd(lr, total=100, warmup=10, decay=20, shape="cosine")'),
    Row('get_scheduler("warmup_stable_decay", optimizer, 10, 100, {"num_decay_steps": 20, "min_lr_ratio": 0.1, "decay_type": "1-sqrt"})', 'ts.wsd(lr, total=100, warmup=10, decay=20, shape="1-sqrt", floor=0.1 * lr, start=0.1 * lr)', "the warm-up starts at the floor"),
    Row('get_scheduler("reduce_lr_on_plateau", optimizer)', "", "follows a metric: `lr * ts.plateau(...)` and `sched.observe(metric)`"),
    Row('get_scheduler("greedy", optimizer)', "", "follows a metric: `lr * ts.greedy(...)` and `sched.observe(metric)`"),
]  # fmt: skip

OPTAX = [
    Row("constant_schedule(0.1)", "ts.constant(0.1)"),
    Row("linear_schedule(0.1, 0.0, 100)", "ts.linear(0.1, 0.0, steps=100)"),
    Row("cosine_decay_schedule(0.1, 100, alpha=0.1)", "ts.cosine(0.1, 0.1 * 0.1, steps=100)"),
    Row("cosine_decay_schedule(0.1, 100, alpha=0.1, exponent=2.0)", "0.1 * (0.1 + 0.9 * ts.cosine(1.0, 0.0, steps=100) ** 2.0)"),
    Row("polynomial_schedule(0.1, 0.0, 2.0, 100)", "ts.polynomial(0.1, 0.0, 2.0, steps=100)"),
    Row("exponential_decay(0.1, 20, 0.5)", "ts.exponential_decay(0.1, 0.5, every=20)"),
    Row("exponential_decay(0.1, 20, 0.5, transition_begin=10, staircase=True)", "ts.step_decay(0.1, every=20, factor=0.5).delay(10)", "transition_begin is a delay everywhere"),
    Row("warmup_exponential_decay_schedule(0.0, 0.1, 10, 20, 0.5, end_value=0.02)", "ts.linear(0.0, 0.1, steps=10) >> ts.maximum(ts.exponential_decay(0.1, 0.5, every=20), 0.02)"),
    Row("piecewise_constant_schedule(0.1, {30: 0.5, 80: 0.1})", "ts.piecewise_constant([0.1, 0.05, 0.005], [30, 80])", "theirs are factors"),
    Row("warmup_cosine_decay_schedule(0.0, 0.1, 10, 100, 0.01)", "ts.warmup_cosine(0.1, total=100, warmup=10, floor=0.01)"),
    Row("warmup_constant_schedule(0.0, 0.1, 10)", "ts.warmup_constant(0.1, warmup=10)"),
    Row("cosine_onecycle_schedule(100, 0.1)", "ts.one_cycle(0.1, total=100)"),
    Row("linear_onecycle_schedule(100, 0.1)", "ts.piecewise_linear([(0, 0.1 / 25), (30, 0.1), (85, 0.1 / 25), (100, 0.1 / 25 / 1e4)])", "it has a third phase"),
    Row('piecewise_interpolate_schedule("cosine", 0.1, {30: 0.5, 80: 0.1})', "ts.cosine(0.1, 0.05, steps=30) >> ts.cosine(0.05, 0.005, steps=50)", '"linear": `ts.piecewise_linear`'),
    Row("sgdr_schedule([dict(init_value=0.0, peak_value=peak, decay_steps=n, warmup_steps=5, end_value=0.01) for peak, n in [(0.1, 40), (0.05, 60)]])", "ts.chain([ts.warmup_cosine(peak, total=n, warmup=5, floor=0.01) for peak, n in [(0.1, 40), (0.05, 60)]])"),
    Row("join_schedules([linear_schedule(0.0, 0.1, 10), constant_schedule(0.1)], [10])", "ts.linear(0.0, 0.1, steps=10) >> 0.1"),
]  # fmt: skip

IGNITE = [
    Row('CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 40)', "ts.cosine(0.1, 0.0, steps=40).repeat()"),
    Row('CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.01, 20, start_value_mult=0.5, end_value_mult=0.8)', "ts.cosine(0.1, 0.0, steps=20).repeat(value_mult=0.5) + ts.cosine(0.0, 0.01, steps=20).repeat(value_mult=0.8)", "each end by itself; cycle_mult: `length_mult`"),
    Row('LinearCyclicalScheduler(optimizer, "lr", 0.1, 0.01, 20, monotonic=True, warmup_duration=5)', "(ts.linear(0.1, 0.01, steps=20) >> ts.linear(0.01, 0.1, steps=5)).repeat()"),
    Row('LinearCyclicalScheduler(optimizer, "lr", 0.1, 0.0, 40)', "ts.cyclic(0.1, 0.0, up=20)"),
    Row('PiecewiseLinear(optimizer, "lr", [(10, 0.5), (20, 0.45), (30, 0.1)])', "ts.piecewise_linear([(10, 0.5), (20, 0.45), (30, 0.1)])"),
    Row('ConcatScheduler([LinearCyclicalScheduler(optimizer, "lr", 0.0, 0.1, 20), CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 40)], [10])', "ts.linear(0.0, 0.1, steps=10) >> ts.cosine(0.1, 0.0, steps=40).repeat()"),
    Row('create_lr_scheduler_with_warmup(PiecewiseLinear(optimizer, "lr", [(0, 0.1), (50, 0.0)]), 0.0, 11)', "ts.linear(0.0, 0.1, steps=10) >> ts.linear(0.1, 0.0, steps=50)", "a warm-up of n events rises in n - 1 steps"),
    Row('ParamGroupScheduler([CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.0, 40, param_group_index=0)])', "ts.cosine(0.1, 0.0, steps=40).repeat()", "a list: `lr=[schedule, None, ...]`"),
]  # fmt: skip

TIMM = [
    Row("CosineLRScheduler(optimizer, t_initial=100, warmup_t=10, warmup_lr_init=0.01, lr_min=0.001, t_in_epochs=False)", "ts.linear(0.01, lr, steps=10) >> ts.cosine(lr, 0.001, steps=100).skip(10)", "the warm-up hides the start of the cosine"),
    Row("CosineLRScheduler(optimizer, t_initial=100, warmup_t=10, warmup_lr_init=0.01, warmup_prefix=True, t_in_epochs=False)", "ts.linear(0.01, lr, steps=10) >> ts.cosine(lr, 0.0, steps=100)"),
    Row("CosineLRScheduler(optimizer, t_initial=100, k_decay=1.5, t_in_epochs=False)", "ts.cosine(lr, 0.0, steps=100).warp(1.5)"),
    Row("CosineLRScheduler(optimizer, t_initial=20, cycle_mul=1.5, cycle_decay=0.5, cycle_limit=3, lr_min=0.001, t_in_epochs=False)", 'ts.warm_restarts(lr, period=20, floor=0.001, length_mult=1.5, peak_mult=0.5, mult_of="peak", round_lengths=False).take(95) >> 0.001', "after the cycles (20 + 30 + 45 steps) it holds lr_min"),
    Row("PolyLRScheduler(optimizer, t_initial=100, power=2.0, t_in_epochs=False)", "ts.polynomial(lr, 0.0, 2.0, steps=100)"),
    Row("PolyLRScheduler(optimizer, t_initial=30, cycle_limit=2, cycle_decay=0.5, lr_min=0.001, t_in_epochs=False)", "ts.polynomial(lr, 0.001, 0.5, steps=30) >> ts.polynomial(0.5 * lr, 0.001, 0.5, steps=30) >> 0.001", "noise_range_t: `ts.record`"),
    Row("TanhLRScheduler(optimizer, t_initial=100, t_in_epochs=False)", "ts.tanh(lr, 0.0, lower=-7.0, steps=100)", "below step 1 theirs is lr by its constructor"),
    Row("StepLRScheduler(optimizer, decay_t=30, decay_rate=0.1, t_in_epochs=False)", "ts.step_decay(lr, every=30, factor=0.1)"),
    Row("MultiStepLRScheduler(optimizer, decay_t=[30, 80], decay_rate=0.1, t_in_epochs=False)", "ts.multistep(lr, [29, 79], factor=0.1)", "theirs switches one step early"),
    Row("WSDLRScheduler(optimizer, t_initial=90, decay_t=20, warmup_t=10, lr_min=0.001, t_in_epochs=False)", 'ts.wsd(lr, total=100, warmup=10, decay=20, shape="1-sqrt", floor=0.001)', "t_initial is without the warm-up"),
    Row("CosineLRScheduler(optimizer, t_initial=10)", "ts.cosine(lr, 0.0, steps=10)", "counts epochs: `.hold_each(steps_per_epoch)`"),
    Row("PlateauLRScheduler(optimizer)", "", "follows a metric: `lr * ts.plateau(...)` and `sched.observe(metric)`"),
]  # fmt: skip

MEGATRON = [
    Row('OptimizerParamScheduler(lr_decay_style="linear", max_lr=0.1, min_lr=0.01, lr_warmup_steps=10)', "ts.warmup_linear(0.1, total=100, warmup=10, floor=0.01)"),
    Row('OptimizerParamScheduler(lr_decay_style="cosine", init_lr=0.001, max_lr=0.1, min_lr=0.01, lr_warmup_steps=10)', "ts.warmup_cosine(0.1, total=100, warmup=10, floor=0.01, start=0.001)"),
    Row('OptimizerParamScheduler(lr_decay_style="WSD", max_lr=0.1, min_lr=0.01, lr_warmup_steps=10, wsd_decay_steps=20, lr_wsd_decay_style="minus_sqrt")', 'ts.wsd(0.1, total=100, warmup=10, decay=20, shape="1-sqrt", floor=0.01)', "linear and cosine likewise"),
    Row('OptimizerParamScheduler(lr_decay_style="WSD", max_lr=0.1, min_lr=0.01, lr_warmup_steps=10, wsd_decay_steps=20, lr_wsd_decay_style="exponential")', "ts.linear(0.0, 0.1, steps=10) >> ts.constant(0.1, steps=70) >> ts.exponential(0.18, 0.09, steps=20) - 0.08", "min_lr + (max_lr - min_lr) * (2 * 0.5**p - 1)"),
    Row('OptimizerParamScheduler(lr_decay_style="inverse-square-root", max_lr=0.1, min_lr=0.01, lr_warmup_steps=10)', "ts.maximum(ts.warmup_inverse_sqrt(0.1, warmup=10), ts.constant(0.0, steps=10) >> 0.01)", "theirs jumps to min_lr after step 100", 101),
    Row('OptimizerParamScheduler(start_wd=0.01, end_wd=0.1, wd_incr_style="linear")', "ts.linear(0.01, 0.1, steps=100)", "its weight decay", key="weight_decay"),
    Row('OptimizerParamScheduler(start_wd=0.01, end_wd=0.1, wd_incr_style="cosine")', "ts.cosine(0.01, 0.1, steps=100)", "its weight decay", key="weight_decay"),
]  # fmt: skip

TORCHTITAN = [
    Row('LRSchedulersContainer.Config(warmup_steps=10, decay_ratio=0.2, decay_type="linear", min_lr_factor=0.1)', 'ts.wsd(lr, total=100, warmup=10, decay=0.2, floor=0.1 * lr, ramp="skip_start")', "theirs goes on below the floor after step 100", 101),
    Row('LRSchedulersContainer.Config(warmup_steps=10, decay_ratio=0.2, decay_type="sqrt")', 'ts.wsd(lr, total=100, warmup=10, decay=0.2, shape="1-sqrt", ramp="skip_start")', "", 101),
    Row('LRSchedulersContainer.Config(warmup_steps=10, decay_type="cosine")', 'ts.wsd(lr, total=100, warmup=10, decay=90, shape="cosine", ramp="skip_start")', "without decay_ratio the decay follows the warm-up", 101),
]  # fmt: skip

DEEPSPEED = [
    Row("WarmupLR(optimizer, 0.0, 0.1, warmup_num_steps=10)", "ts.logarithmic(0.0, 0.1, steps=9).delay(1)", "its first two steps have the same lr, here and below"),
    Row('WarmupLR(optimizer, 0.0, 0.1, warmup_num_steps=10, warmup_type="linear")', "ts.linear(0.0, 0.1, steps=10).delay(1)"),
    Row('WarmupDecayLR(optimizer, 100, 0.01, 0.1, warmup_num_steps=10, warmup_type="linear")', "ts.warmup_linear(0.1, total=100, warmup=10, start=0.01, floor=0.01).delay(1)", "it ends at warmup_min_lr"),
    Row("WarmupDecayLR(optimizer, 100, 0.0, 0.1, warmup_num_steps=10)", "(ts.logarithmic(0.0, 0.1, steps=9).take(10) >> ts.linear(0.1, 0.0, steps=90)).delay(1)"),
    Row('WarmupCosineLR(optimizer, 100, warmup_num_steps=10, cos_min_ratio=0.1, warmup_type="linear")', "(ts.linear(0.0, lr, steps=10) >> ts.cosine(lr, 0.1 * lr, steps=90).skip(1)).delay(1)", "it never shows the peak; with warmup_min_ratio its very first lr is still 0"),
    Row("LRRangeTest(optimizer, 0.01, lr_range_test_step_size=10, lr_range_test_step_rate=2.0)", "ts.linear_growth(0.01, 0.01 * 2.0, every=10)"),
    Row("LRRangeTest(optimizer, 0.01, lr_range_test_step_size=10, lr_range_test_step_rate=2.0, lr_range_test_staircase=True)", "ts.linear_growth(0.01, 0.01 * 2.0, every=10, staircase=True)"),
    Row("OneCycle(optimizer, 0.01, 0.1, decay_lr_rate=0.5, cycle_first_step_size=10, cycle_second_step_size=20, decay_step_size=10, cycle_momentum=False)", "ts.linear(0.01, 0.1, steps=10) >> ts.linear(0.1, 0.01, steps=20) >> ts.inverse_time(0.01, 0.5, every=10)"),
    Row("OneCycle(optimizer, 0.01, 0.1, cycle_first_step_size=10, cycle_second_step_size=20, cycle_first_stair_count=4, cycle_momentum=False)", "0.01 + 0.09 / 4 * (ts.linear(0.0, 4.0, steps=10).floor() >> ts.linear(4.0, 0.0, steps=20).floor())", "stairs"),
]  # fmt: skip

NEMO = [
    Row("WarmupPolicy(optimizer, warmup_steps=10, max_steps=100)", "ts.linear(lr / 11, lr, steps=10) >> lr", "NeMo's warm-ups start at lr / (warmup_steps + 1); min_lr (0) after step 100", 101),
    Row("CosineAnnealing(optimizer, warmup_steps=10, max_steps=100, min_lr=0.001)", "ts.warmup_cosine(lr, total=100, warmup=10, floor=0.001, start=lr / 11)"),
    Row("CosineAnnealing(optimizer, warmup_steps=10, constant_steps=20, max_steps=100, min_lr=0.001)", "ts.warmup_cosine(lr, total=80, warmup=10, floor=0.001)", "with constant_steps the warm-up starts at 0"),
    Row("WarmupAnnealing(optimizer, warmup_steps=10, max_steps=100, min_lr=0.001)", "ts.warmup_linear(lr, total=100, warmup=10, floor=0.001, start=lr / 11)"),
    Row("PolynomialDecayAnnealing(optimizer, warmup_steps=10, max_steps=100, min_lr=0.001, power=2.0)", "ts.warmup_polynomial(lr, total=100, warmup=10, power=2.0, floor=0.001, start=lr / 11)"),
    Row("PolynomialHoldDecayAnnealing(optimizer, warmup_steps=10, hold_steps=20, max_steps=100, min_lr=0.001, power=2.0)", 'ts.wsd(lr, total=100, warmup=10, decay=70, shape="power(2)", floor=0.001, start=lr / 11)'),
    Row("SquareAnnealing(optimizer, warmup_steps=10, max_steps=100, min_lr=0.001)", "ts.linear(lr / 11, lr, steps=10) >> ts.maximum(ts.polynomial(lr, 0.0, 2.0, steps=90), 0.001)"),
    Row("SquareRootAnnealing(optimizer, warmup_steps=10, max_steps=100)", "ts.linear(lr / 11, lr, steps=10).take(11) >> ts.polynomial(lr, 0.0, 0.5, steps=100).skip(11)", "the decay started at step 0, behind the warm-up"),
    Row("WarmupHoldPolicy(optimizer, warmup_steps=10, hold_steps=20, max_steps=100)", "ts.linear(lr / 11, lr, steps=10) >> lr", "min_lr (0) after step 100", 101),
    Row("WarmupHoldAnnealLinear(optimizer, warmup_steps=10, hold_steps=20, max_steps=100, min_lr=0.001)", "ts.wsd(lr, total=100, warmup=10, decay=70, floor=0.001, start=lr / 11)"),
    Row("WarmupHoldAnnealOneMinusSquareRoot(optimizer, warmup_steps=10, hold_steps=20, max_steps=100, min_lr=0.001)", 'ts.maximum(ts.wsd(lr, total=100, warmup=10, decay=70, shape="1-sqrt", start=lr / 11), 0.001)', "min_lr cuts it off"),
    Row("NoamAnnealing(optimizer, d_model=64, warmup_steps=10)", "lr * ts.noam(64, warmup=10).skip(1).delay(1)", "its first two steps have the same lr"),
    Row("NoamHoldAnnealing(optimizer, warmup_steps=10, hold_steps=20, max_steps=100, decay_rate=1.0)", "ts.linear(lr / 11, lr, steps=10) >> ts.constant(lr, steps=20) >> ts.power_law(lr, 1.0, timescale=10)", "min_lr (0) after step 100", 101),
    Row("InverseSquareRootAnnealing(optimizer, warmup_steps=10, max_steps=100)", "ts.linear(lr / 11, lr, steps=10) >> ts.inverse_sqrt(lr, timescale=11)", "min_lr (0) after step 100", 101),
    Row("T5InverseSquareRootAnnealing(optimizer, constant_steps=10, max_steps=100)", "ts.constant(10**-0.5, steps=10) >> ts.inverse_sqrt(10**-0.5, timescale=10)", "it ignores the optimizer's lr; min_lr (0) after step 100", 101),
]  # fmt: skip

MMENGINE = [
    Row("ConstantLR(optimizer, factor=0.5, begin=0, end=6, by_epoch=False)", "ts.constant(0.5 * lr, steps=5) >> lr", "a window of n steps has n - 1 of slope: end - begin - 1"),
    Row("LinearLR(optimizer, start_factor=0.1, begin=0, end=11, by_epoch=False)", "ts.linear(0.1 * lr, lr, steps=10)"),
    Row("ExponentialLR(optimizer, gamma=0.9, by_epoch=False)", "ts.exponential_decay(lr, 0.9, every=1)"),
    Row("StepLR(optimizer, step_size=30, by_epoch=False)", "ts.step_decay(lr, every=30, factor=0.1)"),
    Row("MultiStepLR(optimizer, milestones=[30, 80], by_epoch=False)", "ts.multistep(lr, [30, 80], factor=0.1)"),
    Row("PolyLR(optimizer, eta_min=0.01, power=2.0, begin=0, end=101, by_epoch=False)", "ts.polynomial(lr, 0.01, 2.0, steps=100)"),
    Row("CosineAnnealingLR(optimizer, T_max=50, eta_min=0.01, by_epoch=False)", "ts.cosine(lr, 0.01, steps=50).mirror().repeat()", "as torch's it rises again"),
    Row("CosineAnnealingLR(optimizer, T_max=100, eta_min_ratio=0.1, by_epoch=False)", "ts.cosine(lr, 0.1 * lr, steps=100)", "", 101),
    Row("CosineRestartLR(optimizer, periods=[20, 30, 50], restart_weights=[1, 0.5, 0.2], eta_min=0.001, by_epoch=False)", "ts.cosine(lr, 0.001, steps=20) >> ts.cosine(0.5 * lr, 0.001, steps=30) >> ts.cosine(0.2 * lr, 0.001, steps=50)", "theirs stops one step short of eta_min", 100),
    Row("OneCycleLR(optimizer, eta_max=0.1, total_steps=100, by_epoch=False)", "ts.one_cycle(0.1, total=100, last_step_ends=True)", "", 100),
    Row("[LinearLR(optimizer, start_factor=0.1, begin=0, end=10, by_epoch=False), CosineAnnealingLR(optimizer, T_max=100, begin=10, end=110, by_epoch=False)]", 'ts.warmup_cosine(lr, total=110, warmup=10, start=0.1 * lr, ramp="reach_early")', "its normal form, a list; stops one step short of 0", 110),
    Row("CosineAnnealingMomentum(optimizer, T_max=100, eta_min=0.5, by_epoch=False)", "ts.cosine(0.9, 0.5, steps=100)", "its momentum", 101, "momentum"),
    Row('ReduceOnPlateauLR(optimizer, monitor="loss")', "", "follows a metric: `lr * ts.plateau(...)` and `sched.observe(metric)`"),
]  # fmt: skip

COMPOSER = [
    Row('StepScheduler("30ba", gamma=0.1)', "ts.step_decay(lr, every=30, factor=0.1)", "a training of 100ba; 1ep is 10ba here"),
    Row('MultiStepScheduler(["30ba", "0.8dur"], gamma=0.1)', "ts.multistep(lr, [30, 80], factor=0.1)"),
    Row('ConstantScheduler(alpha=0.5, t_max="10ba")', "ts.constant(0.5 * lr, steps=10) >> lr"),
    Row("LinearScheduler(alpha_i=1.0, alpha_f=0.1)", "ts.linear(lr, 0.1 * lr, steps=100)"),
    Row('ExponentialScheduler(gamma=0.9, decay_period="1ep")', "ts.exponential_decay(lr, 0.9, every=10)", "every: the steps of an epoch"),
    Row("CosineAnnealingScheduler(alpha_f=0.1)", "ts.cosine(lr, 0.1 * lr, steps=100)"),
    Row('CosineAnnealingWarmRestartsScheduler("10ba", t_mult=1.5, alpha_f=0.1)', "ts.warm_restarts(lr, period=10, floor=0.1 * lr, length_mult=1.5)"),
    Row("PolynomialScheduler(power=2.0, alpha_f=0.1)", "ts.polynomial(lr, 0.1 * lr, 2.0, steps=100)"),
    Row('MultiStepWithWarmupScheduler("10ba", ["30ba", "80ba"], gamma=0.1)', "ts.linear(0.0, lr, steps=10) >> ts.multistep(lr, [30, 80], factor=0.1).skip(10)"),
    Row('ConstantWithWarmupScheduler("10ba")', "ts.warmup_constant(lr, warmup=10)"),
    Row('LinearWithWarmupScheduler("0.1dur", alpha_f=0.1)', "ts.warmup_linear(lr, total=100, warmup=0.1, floor=0.1 * lr)"),
    Row('CosineAnnealingWithWarmupScheduler("10ba", alpha_f=0.1)', "ts.warmup_cosine(lr, total=100, warmup=10, floor=0.1 * lr)"),
    Row('PolynomialWithWarmupScheduler("10ba", power=2.0, alpha_f=0.1)', "ts.warmup_polynomial(lr, total=100, warmup=10, power=2.0, floor=0.1 * lr)", "scale_schedule_ratio: `.stretch(ssr)`"),
]  # fmt: skip

FVCORE = [
    Row("ConstantParamScheduler(0.1)", "ts.constant(0.1)", "asked with where in [0, 1): 100 steps here", 100),
    Row("LinearParamScheduler(0.1, 0.01)", "ts.linear(0.1, 0.01, steps=100)", "", 100),
    Row("CosineParamScheduler(0.1, 0.01)", "ts.cosine(0.1, 0.01, steps=100)", "", 100),
    Row("ExponentialParamScheduler(0.1, decay=0.02)", "ts.exponential(0.1, 0.02 * 0.1, steps=100)", "", 100),
    Row("PolynomialDecayParamScheduler(0.1, power=0.9)", "ts.polynomial(0.1, 0.0, 0.9, steps=100)", "", 100),
    Row("MultiStepParamScheduler([0.1, 0.01, 0.001], num_updates=100, milestones=[30, 60])", "ts.piecewise_constant([0.1, 0.01, 0.001], [30, 60])", "", 100),
    Row("StepParamScheduler(100, [0.1, 0.05, 0.01, 0.001])", "ts.piecewise_constant([0.1, 0.05, 0.01, 0.001], [25, 50, 75])", "", 100),
    Row("StepWithFixedGammaParamScheduler(0.1, num_decays=3, gamma=0.1, num_updates=100)", "ts.step_decay(0.1, every=25, factor=0.1)", "", 100),
    Row('CompositeParamScheduler([LinearParamScheduler(0.01, 0.1), CosineParamScheduler(0.1, 0.0)], [0.25, 0.75], ["rescaled", "rescaled"])', "ts.linear(0.01, 0.1, steps=25) >> ts.cosine(0.1, 0.0, steps=75)", "", 100),
    Row('CompositeParamScheduler([LinearParamScheduler(0.01, 0.1), CosineParamScheduler(0.1, 0.0)], [0.25, 0.75], ["rescaled", "fixed"])', "ts.linear(0.01, 0.1, steps=25) >> ts.cosine(0.1, 0.0, steps=100).skip(25)", "fixed: the warm-up hides the start", 100),
]  # fmt: skip

KERAS = [
    Row("ExponentialDecay(0.1, 20, 0.5)", "ts.exponential_decay(0.1, 0.5, every=20)"),
    Row("ExponentialDecay(0.1, 20, 0.5, staircase=True)", "ts.step_decay(0.1, every=20, factor=0.5)"),
    Row("InverseTimeDecay(0.1, 20, 0.5)", "ts.inverse_time(0.1, 0.5, every=20)"),
    Row("PiecewiseConstantDecay([30, 80], [0.1, 0.05, 0.01])", "ts.piecewise_constant([0.1, 0.05, 0.01], [31, 81])", "theirs switches one step late"),
    Row("PolynomialDecay(0.1, 100, 0.01, power=2.0)", "ts.polynomial(0.1, 0.01, 2.0, steps=100)"),
    Row("PolynomialDecay(0.1, 40, 0.01, power=2.0, cycle=True)", "ts.constant(0.1, steps=1) >> ts.chain([ts.polynomial(0.1, 0.01, 2.0, steps=40 * k).skip(40 * k - 39).take(40) for k in (1, 2, 3)])", "one part for each cycle"),
    Row("CosineDecay(0.1, 100, alpha=0.1)", "ts.cosine(0.1, 0.1 * 0.1, steps=100)"),
    Row("CosineDecay(0.0, 90, warmup_target=0.1, warmup_steps=10)", "ts.warmup_cosine(0.1, total=100, warmup=10)", "its decay_steps are without the warm-up"),
    Row("CosineDecayRestarts(0.1, 20, t_mul=1.5, m_mul=0.5, alpha=0.1)", "ts.warm_restarts(0.1, period=20, floor=0.01, length_mult=1.5, peak_mult=0.5, round_lengths=False)"),
]  # fmt: skip

TABLES = {
    "torch.optim.lr_scheduler": TORCH,
    "transformers": TRANSFORMERS,
    "optax": OPTAX,
    "keras": KERAS,
    "ignite.handlers": IGNITE,
    "timm.scheduler": TIMM,
    "mmengine": MMENGINE,
    "Composer": COMPOSER,
    "Megatron-LM": MEGATRON,
    "DeepSpeed": DEEPSPEED,
    "NeMo": NEMO,
    "torchtitan": TORCHTITAN,
    "fvcore": FVCORE,
}

# The library behind each table, as tests/recording/drivers.py calls it.
LIBRARIES = {"torch.optim.lr_scheduler": "torch", "ignite.handlers": "ignite", "timm.scheduler": "timm", "Megatron-LM": "megatron"}  # fmt: skip

INTRODUCTION = """\
# Coming from another library

Any scheduler object can be taken over as it is, with `ts.record`: its values, bit for bit, without touching it.
To write the same curve down as an expression (which prints, saves and changes like one), find your call in the tables
below; torch's own schedulers translate themselves, with `ts.expression`. `lr` is the learning rate of the group. Each row
is a test against the library itself (`make test-peers`): both sides give the same numbers, to rounding."""

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
fresh = torch.optim.SGD([weight], lr=0.1)
expression = ts.expression(torch.optim.lr_scheduler.CosineAnnealingLR(fresh, STEPS))
assert abs(expression["lr"].values(STEPS) - recorded["lr"].values()).max() < 1e-15
expression["lr"]"""


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

"""As test_peers, beside the schedulers that `make test-peers` installs: random arguments, the whole curve.

Of each peer's value the bound is the same: its formula has at most 25 operations of at most 4 u each, and what is rounded
inside a power or a root (of positions of at most 60 steps) is multiplied by at most 30 by the slope there; 300 u of the
largest value in all. mmengine's are recursions, which gather that at every step. The controls say that this is small: a
curve that is frozen or one step off is told apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

import tensorsched as ts
from tests.recording.drivers import names, values
from tests.rounding import U
from tests.schedules.beside_peers import (
    CHANGES,
    Pair,
    agrees,
    another_does_not,
    flags,
    fractions,
    lengths,
    rates,
)

LR = 0.3
PEERS: dict[str, st.SearchStrategy[Pair]] = {}
warmups = st.integers(1, 20)
counts = st.integers(1, 5)


def peer(build: Callable[..., Pair]) -> Callable[..., Pair]:
    PEERS[build.__name__] = st.composite(build)()
    return build


def pair(library: str, ours: ts.Schedule, steps: int, build: Callable, key: str = "lr") -> Pair:
    """`build` makes the peer's scheduler from its module's names."""
    theirs = values(library, build, steps, key, LR)
    reach = max(map(abs, theirs))
    recursive = library == "mmengine"
    return Pair(ours, theirs, lambda t: 300 * U * reach * (t + 1 if recursive else 1))


# -- keras ----------------------------------------------------------------------------------------------------------------


@peer
def keras_exponential(draw):
    base, every, rate, stairs = draw(rates), draw(lengths), draw(st.floats(0.5, 1.1)), draw(flags)
    ours = ts.exponential_decay(base, rate, every=every, staircase=stairs)
    return pair("keras", ours, 60, lambda n: n["ExponentialDecay"](base, every, rate, staircase=stairs))


@peer
def keras_inverse_time(draw):
    base, every, rate, stairs = draw(rates), draw(lengths), draw(fractions), draw(flags)
    ours = ts.inverse_time(base, rate, every=every, staircase=stairs)
    return pair("keras", ours, 60, lambda n: n["InverseTimeDecay"](base, every, rate, staircase=stairs))


@peer
def keras_polynomial(draw):
    base, end, n, power = draw(rates), draw(rates), draw(lengths), draw(st.floats(0.5, 3.0))
    ours = ts.polynomial(base, end, power, steps=n)
    return pair("keras", ours, n + 3, lambda k: k["PolynomialDecay"](base, n, end, power))


@peer
def keras_polynomial_cycles(draw):
    base, end, n, power = draw(rates), draw(rates), draw(st.integers(2, 15)), draw(st.floats(1.0, 3.0))
    cycles = [ts.polynomial(base, end, power, steps=n * k).skip(n * k - n + 1).take(n) for k in (1, 2, 3)]
    ours = ts.constant(base, steps=1) >> ts.chain(cycles)
    return pair("keras", ours, 3 * n, lambda k: k["PolynomialDecay"](base, n, end, power, cycle=True))


@peer
def keras_piecewise(draw):
    at = draw(st.lists(lengths, unique=True, min_size=1, max_size=4).map(sorted))
    levels = draw(st.lists(rates, min_size=len(at) + 1, max_size=len(at) + 1))
    ours = ts.piecewise_constant(levels, [step + 1 for step in at])
    return pair("keras", ours, at[-1] + 3, lambda n: n["PiecewiseConstantDecay"](at, levels))


@peer
def keras_cosine(draw):
    base, start, w, n, alpha = draw(rates), draw(rates), draw(warmups), draw(lengths), draw(fractions)
    ours = ts.warmup_cosine(base, total=w + n, warmup=w, floor=alpha * base, start=start)
    return pair(
        "keras",
        ours,
        w + n + 3,
        lambda k: k["CosineDecay"](start, n, alpha, warmup_target=base, warmup_steps=w),
    )


@peer
def keras_restarts(draw):
    base, n, alpha = draw(rates), draw(lengths), draw(fractions)
    longer, lower = draw(st.floats(1.1, 2.5)), draw(st.floats(0.3, 1.2))
    ours = ts.warm_restarts(
        base, period=n, floor=alpha * base, length_mult=longer, peak_mult=lower, round_lengths=False
    )
    made = pair(
        "keras", ours, 60, lambda k: k["CosineDecayRestarts"](base, n, t_mul=longer, m_mul=lower, alpha=alpha)
    )
    # The logarithm that finds the cycle may round to either side of a restart on a whole step, or within 1e-9 of one.
    restarts = list(itertools.accumulate(n * longer**k for k in range(60)))

    def allowed(t):
        return (
            math.inf
            if any(abs(t - restart) < 1e-9 * max(t, 1) for restart in restarts)
            else made.allowed(t) * 60
        )

    return Pair(ours, made.theirs, allowed)


# -- timm -----------------------------------------------------------------------------------------------------------------


@peer
def timm_cosine(draw):
    n, w, prefix, low = draw(st.integers(21, 40)), draw(warmups), draw(flags), 0.1 * draw(fractions)
    down = ts.cosine(LR, low, steps=n)
    ours = ts.linear(0.01, LR, steps=w) >> (down if prefix else down.skip(w))
    return pair("timm", ours, w + n + 3, lambda k: k["CosineLRScheduler"](
        k["optimizer"], n, low, warmup_t=w, warmup_lr_init=0.01, warmup_prefix=prefix, t_in_epochs=False
    ))  # fmt: skip


@peer
def timm_k_decay(draw):
    n, k_decay = draw(lengths), draw(st.floats(0.5, 3.0))
    return pair("timm", ts.cosine(LR, 0.0, steps=n).warp(k_decay), n + 3, lambda k: k["CosineLRScheduler"](
        k["optimizer"], n, k_decay=k_decay, t_in_epochs=False
    ))  # fmt: skip


@peer
def timm_cycles(draw):
    n, cycles, lower, low = draw(lengths), draw(st.integers(1, 4)), draw(fractions), 0.1 * draw(fractions)
    ours = ts.warm_restarts(LR, period=n, floor=low, peak_mult=lower, mult_of="peak").take(n * cycles) >> low
    return pair("timm", ours, n * cycles + 3, lambda k: k["CosineLRScheduler"](
        k["optimizer"], n, low, cycle_decay=lower, cycle_limit=cycles, t_in_epochs=False
    ))  # fmt: skip


@peer
def timm_tanh(draw):
    n, low = draw(lengths), 0.1 * draw(fractions)
    lower, upper = draw(st.floats(-8.0, -1.0)), draw(st.floats(0.0, 5.0))
    return pair("timm", ts.tanh(LR, low, lower=lower, upper=upper, steps=n), n + 3, lambda k: k["TanhLRScheduler"](
        k["optimizer"], n, lower, upper, low, t_in_epochs=False
    ))  # fmt: skip


@peer
def timm_polynomial(draw):
    n, power, low = draw(lengths), draw(st.floats(0.5, 3.0)), 0.1 * draw(fractions)
    return pair("timm", ts.polynomial(LR, low, power, steps=n), n + 3, lambda k: k["PolyLRScheduler"](
        k["optimizer"], n, power, low, t_in_epochs=False
    ))  # fmt: skip


@peer
def timm_multistep(draw):
    at, rate = draw(st.lists(st.integers(2, 40), min_size=1, max_size=4).map(sorted)), draw(fractions)
    ours = ts.multistep(LR, [step - 1 for step in at], factor=rate)
    return pair("timm", ours, at[-1] + 3, lambda k: k["MultiStepLRScheduler"](
        k["optimizer"], at, rate, t_in_epochs=False
    ))  # fmt: skip


@peer
def timm_wsd(draw):
    n, w, low = draw(lengths), draw(warmups), 0.1 * draw(fractions)
    decay, power = draw(st.integers(1, n)), draw(st.floats(0.5, 3.0))
    theirs, shape = draw(st.sampled_from(
        [("linear", "linear"), ("cosine", "cosine"), ("1-sqrt", "1-sqrt"), ("power", f"minus_power({power!r})")]
    ))  # fmt: skip
    ours = ts.wsd(LR, total=w + n, warmup=w, decay=decay, shape=shape, floor=low)
    return pair("timm", ours, w + n + 3, lambda k: k["WSDLRScheduler"](
        k["optimizer"], n, decay, low, decay_fn=theirs, decay_power=power, warmup_t=w, t_in_epochs=False
    ))  # fmt: skip


# -- mmengine -------------------------------------------------------------------------------------------------------------


@peer
def mmengine_windows(draw):
    w, n, start = draw(st.integers(2, 20)), draw(lengths), draw(fractions)
    ours = ts.warmup_cosine(LR, total=w + n, warmup=w, start=start * LR, ramp="reach_early")
    return pair("mmengine", ours, w + n, lambda k: [
        k["LinearLR"](k["optimizer"], start_factor=start, begin=0, end=w, by_epoch=False),
        k["CosineAnnealingLR"](k["optimizer"], T_max=n, begin=w, end=w + n, by_epoch=False),
    ])  # fmt: skip


@peer
def mmengine_cosine(draw):
    n, ratio = draw(lengths), draw(fractions)
    ours = ts.cosine(LR, ratio * LR, steps=n).mirror().repeat()
    return pair("mmengine", ours, 2 * n + 3, lambda k: k["CosineAnnealingLR"](
        k["optimizer"], T_max=n, eta_min_ratio=ratio, by_epoch=False
    ))  # fmt: skip


@peer
def mmengine_polynomial(draw):
    n, power, low = draw(lengths), draw(st.floats(1.0, 3.0)), 0.1 * draw(fractions)
    return pair("mmengine", ts.polynomial(LR, low, power, steps=n), n + 3, lambda k: k["PolyLR"](
        k["optimizer"], low, power, begin=0, end=n + 1, by_epoch=False
    ))  # fmt: skip


@peer
def mmengine_restarts(draw):
    periods = draw(st.lists(lengths, min_size=1, max_size=3))
    weights = [
        1.0,
        *draw(st.lists(st.floats(0.2, 1.0), min_size=len(periods) - 1, max_size=len(periods) - 1)),
    ]
    low = 0.05 * draw(fractions)
    ours = ts.chain(
        [ts.cosine(weight * LR, low, steps=n) for weight, n in zip(weights, periods, strict=True)]
    )
    return pair("mmengine", ours, sum(periods), lambda k: k["CosineRestartLR"](
        k["optimizer"], periods, weights, low, by_epoch=False
    ))  # fmt: skip


# -- Composer, fvcore -----------------------------------------------------------------------------------------------------


@peer
def composer_warmups(draw):
    kind, low, w = draw(st.sampled_from(["Linear", "Cosine", "Polynomial"])), draw(fractions), draw(warmups)
    theirs = {"Linear": "LinearWithWarmup", "Cosine": "CosineAnnealingWithWarmup"}.get(
        kind, "PolynomialWithWarmup"
    )
    recipe = {"Linear": ts.warmup_linear, "Cosine": ts.warmup_cosine, "Polynomial": ts.warmup_polynomial}[
        kind
    ]
    power = {"power": draw(st.floats(0.5, 3.0))} if kind == "Polynomial" else {}
    ours = recipe(LR, total=100, warmup=w, floor=low * LR, **power)
    return pair("composer", ours, 103, lambda n: n[f"{theirs}Scheduler"](f"{w}ba", alpha_f=low, **power))


@peer
def composer_restarts(draw):
    n, longer, low = draw(st.integers(3, 40)), draw(st.floats(1.0, 2.5)), draw(fractions)
    ours = ts.warm_restarts(LR, period=n, floor=low * LR, length_mult=longer)
    return pair(
        "composer", ours, 100, lambda k: k["CosineAnnealingWarmRestartsScheduler"](f"{n}ba", longer, low)
    )


@peer
def fvcore_curves(draw):
    a, b = draw(rates), draw(rates)
    kind, ours = draw(st.sampled_from([
        ("LinearParamScheduler", ts.linear(a, b, steps=100)),
        ("CosineParamScheduler", ts.cosine(a, b, steps=100)),
        ("PolynomialDecayParamScheduler", ts.polynomial(a, 0.0, b + 0.5, steps=100)),
        ("ExponentialParamScheduler", ts.exponential(a, a * b, steps=100)),
    ]))  # fmt: skip
    return pair("fvcore", ours, 100, lambda n: n[kind](a, b + 0.5 if kind.startswith("Polynomial") else b))


# -- Megatron-LM, DeepSpeed, NeMo, torchtitan -----------------------------------------------------------------------------


@peer
def megatron(draw):
    w, n, low, start = draw(st.integers(0, 20)), draw(lengths), 0.1 * draw(fractions), 0.1 * draw(fractions)
    style, decay = draw(st.sampled_from(["linear", "cosine", "WSD", "constant"])), draw(st.integers(1, n))
    name, shape = draw(
        st.sampled_from([("linear", "linear"), ("cosine", "cosine"), ("minus_sqrt", "1-sqrt")])
    )
    shared = {"total": w + n, "warmup": w, "floor": low, "start": start}
    ours = {
        "linear": lambda: ts.warmup_linear(LR, **shared),
        "cosine": lambda: ts.warmup_cosine(LR, **shared),
        "WSD": lambda: ts.wsd(LR, **shared, decay=decay, shape=shape),
        "constant": lambda: ts.warmup_constant(LR, warmup=w, start=start),
    }[style]()
    return pair("megatron", ours, w + n + 3, lambda k: k["OptimizerParamScheduler"](
        lr_decay_style=style, init_lr=start, max_lr=LR, min_lr=low, lr_warmup_steps=w, lr_decay_steps=w + n,
        wsd_decay_steps=decay, lr_wsd_decay_style=name,
    ))  # fmt: skip


@peer
def deepspeed_warmups(draw):
    w, n, low = draw(st.integers(2, 20)), draw(lengths), 0.1 * draw(fractions)
    shape, decays = draw(st.sampled_from(["log", "linear"])), draw(flags)
    up = ts.logarithmic(low, LR, steps=w - 1).take(w) if shape == "log" else ts.linear(low, LR, steps=w)
    ours = (up >> (ts.linear(LR, low, steps=n) if decays else ts.constant(LR))).delay(1)
    options = {"warmup_min_lr": low, "warmup_max_lr": LR, "warmup_num_steps": w, "warmup_type": shape}
    return pair("deepspeed", ours, w + n + 4, lambda k: (
        k["WarmupDecayLR"](k["optimizer"], w + n, **options) if decays else k["WarmupLR"](k["optimizer"], **options)
    ))  # fmt: skip


@peer
def deepspeed_stairs(draw):
    stairs, up, down, low = draw(st.integers(2, 9)), draw(counts), draw(counts), 0.1 * draw(fractions)
    # On the way down theirs is on the lower stair from its first step on.
    ours = ts.linear(low, LR, steps=stairs).hold_each(up) >> ts.linear(LR, low, steps=stairs).hold_each(
        down
    ).skip(down - 1)
    return pair("deepspeed", ours, stairs * (up + down), lambda k: k["OneCycle"](
        k["optimizer"], low, LR, 0.0, stairs * up, stairs * down, cycle_first_stair_count=stairs, cycle_momentum=False
    ))  # fmt: skip


@peer
def deepspeed_range_test(draw):
    low, every, rate, stairs = draw(rates), draw(lengths), draw(rates), draw(flags)
    ours = ts.linear_growth(low, low * rate, every=every, staircase=stairs)
    return pair("deepspeed", ours, 100, lambda k: k["LRRangeTest"](k["optimizer"], low, every, rate, stairs))


@peer
def deepspeed_cosine(draw):
    w, n, ratio = draw(st.integers(2, 20)), draw(lengths), draw(fractions)
    ours = (ts.linear(0.0, LR, steps=w) >> ts.cosine(LR, ratio * LR, steps=n).skip(1)).delay(1)
    return pair("deepspeed", ours, w + n + 3, lambda k: k["WarmupCosineLR"](
        k["optimizer"], w + n, warmup_num_steps=w, cos_min_ratio=ratio, warmup_type="linear"
    ))  # fmt: skip


@peer
def deepspeed_one_cycle(draw):
    up, down, every, rate = draw(lengths), draw(lengths), draw(lengths), draw(fractions)
    ours = (
        ts.linear(0.01, LR, steps=up)
        >> ts.linear(LR, 0.01, steps=down)
        >> ts.inverse_time(0.01, rate, every=every)
    )
    return pair("deepspeed", ours, up + down + 10, lambda k: k["OneCycle"](
        k["optimizer"], 0.01, LR, rate, up, down, decay_step_size=every, cycle_momentum=False
    ))  # fmt: skip


@peer
def nemo_warmups(draw):
    w, n, low, power = (
        draw(warmups),
        draw(st.integers(2, 40)),
        0.01 * draw(fractions),
        draw(st.floats(0.5, 3.0)),
    )
    start, total = LR / (w + 1), w + n
    kind, more, ours = draw(st.sampled_from([
        ("CosineAnnealing", {}, ts.warmup_cosine(LR, total=total, warmup=w, floor=low, start=start)),
        ("WarmupAnnealing", {}, ts.warmup_linear(LR, total=total, warmup=w, floor=low, start=start)),
        ("PolynomialDecayAnnealing", {"power": power},
         ts.warmup_polynomial(LR, total=total, warmup=w, power=power, floor=low, start=start)),
        ("SquareAnnealing", {}, ts.linear(start, LR, steps=w) >> ts.maximum(ts.polynomial(LR, 0.0, 2.0, steps=n), low)),
    ]))  # fmt: skip
    return pair("nemo", ours, total + 3, lambda k: k[kind](
        k["optimizer"], warmup_steps=w, max_steps=total, min_lr=low, **more
    ))  # fmt: skip


@peer
def nemo_holds(draw):
    w, hold, n, low = (
        draw(warmups),
        draw(st.integers(1, 20)),
        draw(st.integers(2, 40)),
        0.01 * draw(fractions),
    )
    start, total, power = LR / (w + 1), w + hold + n, draw(st.floats(0.5, 3.0))
    wsd = {"total": total, "warmup": w, "decay": n, "start": start}
    kind, more, ours = draw(st.sampled_from([
        ("WarmupHoldAnnealLinear", {}, ts.wsd(LR, **wsd, floor=low)),
        ("WarmupHoldAnnealOneMinusSquareRoot", {}, ts.maximum(ts.wsd(LR, **wsd, shape="1-sqrt"), ts.minimum(low, start))),
        ("PolynomialHoldDecayAnnealing", {"power": power}, ts.wsd(LR, **wsd, shape=f"power({power!r})", floor=low)),
    ]))  # fmt: skip
    if kind.endswith("SquareRoot"):  # min_lr cuts off the decay, and not the warm-up
        ours = ts.wsd(LR, **wsd, shape="1-sqrt").take(w + hold) >> ts.maximum(
            ts.polynomial(LR, 0.0, 0.5, steps=n, of="elapsed"), low
        )
    return pair("nemo", ours, total + 3, lambda k: k[kind](
        k["optimizer"], warmup_steps=w, hold_steps=hold, max_steps=total, min_lr=low, **more
    ))  # fmt: skip


@peer
def nemo_noam(draw):
    w, width, rate, hold = (
        draw(warmups),
        draw(st.integers(1, 1024)),
        draw(st.floats(0.3, 1.5)),
        draw(st.integers(1, 20)),
    )
    if draw(flags):
        ours = LR * ts.noam(width, warmup=w).skip(1).delay(1)
        return pair(
            "nemo", ours, w + 40, lambda k: k["NoamAnnealing"](k["optimizer"], d_model=width, warmup_steps=w)
        )
    ours = (
        ts.linear(LR / (w + 1), LR, steps=w)
        >> ts.constant(LR, steps=hold)
        >> ts.power_law(LR, rate, timescale=w)
    )
    return pair("nemo", ours, w + hold + 40, lambda k: k["NoamHoldAnnealing"](
        k["optimizer"], warmup_steps=w, hold_steps=hold, max_steps=w + hold + 40, decay_rate=rate
    ))  # fmt: skip


@peer
def torchtitan(draw):
    w, decay, low = draw(st.integers(0, 50)), draw(st.integers(1, 50)), draw(fractions)
    name, shape = draw(st.sampled_from([("linear", "linear"), ("cosine", "cosine"), ("sqrt", "1-sqrt")]))
    ours = ts.wsd(LR, total=100, warmup=w, decay=decay, shape=shape, floor=low * LR, ramp="skip_start")
    return pair("torchtitan", ours, 101, lambda n: n["LRSchedulersContainer"].Config(
        warmup_steps=w, decay_ratio=decay / 100, decay_type=name, min_lr_factor=low
    ))  # fmt: skip


# -- the tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEERS)
def test_values_agree(name):
    names(name.partition("_")[0])  # imported, or skipped, before anything is drawn
    agrees(PEERS[name], 10 if name.startswith("keras") else 40)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("change", CHANGES)
def test_another_schedule_does_not_agree(name, change):
    names(name.partition("_")[0])
    another_does_not(PEERS[name], CHANGES[change], 3)

"""Value by value agreement with other libraries' schedulers, over random parameters, wherever conventions agree.

Each peer below builds one pair: our schedule, and the values that the other library gave at steps 0, 1, 2, ... Both lie
within their own rounding errors of the exact curve. Ours come from `rounding`; theirs are counted in the comment above
each peer in units of u = 2**-53, from the operations of their source: every + - * / rounds once, cos and pow add 2 u (one
ulp), and the argument pi * p of a cosine carries 2.4 u of its size, which is at most pi.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr

import tensorsched as ts
from tests.recording.installed import require
from tests.rounding import U
from tests.schedules.beside_peers import (
    CHANGES,
    EXTRA,
    Pair,
    agrees,
    another_does_not,
    flags,
    fractions,
    lengths,
    rates,
)

PEERS: dict[str, st.SearchStrategy[Pair]] = {}


def peer(build: Callable[..., Pair]) -> Callable[..., Pair]:
    PEERS[build.__name__] = st.composite(build)()
    return build


def drive(make, n: int, lr: float = 1.0, key: str = "lr", **options: float) -> list[float]:
    """What a torch scheduler writes into the group at steps 0..n-1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr, **options)
    scheduler = make(optimizer)
    values = [optimizer.param_groups[0][key]]
    for _ in range(n - 1):
        optimizer.step()
        scheduler.step()
        values.append(optimizer.param_groups[0][key])
    return values


# -- torch.optim.lr_scheduler -----------------------------------------------------------------------------------------


@peer
def torch_linear(draw):
    base, a, b, n = draw(rates), draw(fractions), draw(st.floats(0.0, 1.0)), draw(lengths)
    theirs = drive(lambda o: torch_lr.LinearLR(o, a, b, total_iters=n), n + EXTRA, lr=base)
    # A product a step; each factor has 7 operations, and a denominator that may cancel adds 3 u of the start; ours
    # multiplies base twice.
    return Pair(ts.linear(a * base, b * base, steps=n), theirs, lambda t: 12 * (t + 1) * U * base)


@peer
def torch_constant(draw):
    base, factor, n = draw(rates), draw(fractions), draw(lengths)
    theirs = drive(lambda o: torch_lr.ConstantLR(o, factor, total_iters=n), n + EXTRA, lr=base)
    # Times f, then times 1 / f, itself rounded; ours multiplies too.
    return Pair(ts.piecewise_constant([factor * base, base], [n]), theirs, lambda _: 4 * U * base)


@peer
def torch_exponential(draw):
    base, gamma = draw(rates), draw(st.floats(0.5, 1.1))
    theirs = drive(lambda o: torch_lr.ExponentialLR(o, gamma), 50, lr=base)
    # A product a step.
    return Pair(ts.exponential_decay(base, gamma, every=1), theirs, lambda t: t * U * theirs[t])


@peer
def torch_step(draw):
    base, gamma, n = draw(rates), draw(st.floats(0.1, 0.9)), draw(lengths)
    theirs = drive(lambda o: torch_lr.StepLR(o, n, gamma), 3 * n + EXTRA, lr=base)
    # A product each.
    return Pair(ts.step_decay(base, every=n, factor=gamma), theirs, lambda t: t // n * U * theirs[t])


@peer
def torch_multistep(draw):
    base, gamma = draw(rates), draw(st.floats(0.1, 0.9))
    at = draw(st.lists(lengths, unique=True, min_size=1, max_size=5).map(sorted))
    theirs = drive(lambda o: torch_lr.MultiStepLR(o, at, gamma), at[-1] + EXTRA, lr=base)
    # A product each; our levels are made by pow and a product, before there is a schedule to analyse.
    return Pair(ts.multistep(base, at, factor=gamma), theirs, lambda t: (len(at) + 3) * U * theirs[t])


@peer
def torch_polynomial(draw):
    base, power, n = draw(rates), draw(st.floats(0.5, 3.0)), draw(lengths)
    theirs = drive(lambda o: torch_lr.PolynomialLR(o, n, power), n + EXTRA, lr=base)

    def relative(t):
        # A step's factor is pow of (1 - t/n) / (1 - (t-1)/n). 1 - t/n is off by u, so by u n/(n - t) relatively; the
        # quotient adds u, pow multiplies all that by the power and adds 2 u, the product u.
        return sum(power * (n / (n - k) + n / (n - k + 1) + 1) + 3 for k in range(1, t + 1))

    return Pair(
        ts.polynomial(base, 0.0, power, steps=n),
        theirs,
        lambda t: relative(t) * U * theirs[t] if t < n else 0.0,
    )


@peer
def torch_cosine(draw):
    base, floor, n = draw(rates), draw(st.floats(0.0, 1.0)), draw(lengths)
    low = floor * base
    # It rises again past the end.
    theirs = drive(lambda o: torch_lr.CosineAnnealingLR(o, n, low), n + 1, lr=base)
    # A step multiplies the height by c_t / c_(t-1), c = 1 + cos: the c's telescope and leave (2.4 pi + 4) / 2 u; what
    # a step rounds (difference, quotient, product, sum: 4 u) only shrinks later.
    return Pair(ts.cosine(base, low, steps=n), theirs, lambda t: (6 + 4 * (t + 1)) * U * base)


@peer
def torch_warm_restarts(draw):
    base, floor, n, mult = draw(rates), draw(st.floats(0.0, 1.0)), draw(lengths), draw(st.integers(1, 3))
    theirs = drive(
        lambda o: torch_lr.CosineAnnealingWarmRestarts(o, n, mult, floor * base), 5 * n + EXTRA, lr=base
    )
    ours = ts.warm_restarts(base, period=n, floor=floor * base, length_mult=mult)
    return Pair(ours, theirs, lambda _: 10 * U * base)  # (2.4 pi + 4) / 2 for the wave, 3 for height and sum


def cyclic(draw, low: float, high: float, key: str) -> Pair:
    up, down, gamma = draw(lengths), draw(lengths), draw(st.floats(0.9, 1.0))
    mode = draw(st.sampled_from(["triangular", "triangular2", "exp_range"]))
    lr, momentum = ((low, high), (0.8, 0.9)) if key == "lr" else ((0.1, 0.2), (low, high))

    def make(o):
        return torch_lr.CyclicLR(
            o, *lr, up, down, mode=mode, gamma=gamma, base_momentum=momentum[0], max_momentum=momentum[1]
        )

    period, steepness = up + down, (up + down) / min(up, down)
    theirs = drive(make, 3 * period + EXTRA, lr=lr[0], key=key, momentum=0.9)
    start, turn = (low, high) if key == "lr" else (high, low)
    ours = ts.cyclic(start, turn, up=up, down=down, mode=mode, gamma=gamma)

    def allowed(t):
        # The part of the cycle, 1 + t/period - cycle, is off by 3 u (1 + t/period), its quotient with the ratio of up
        # (or down) to the period by `steepness` times that and 2 u more; height, scale and products: 6 u; the sum: u.
        return (steepness * (3 * (1 + t / period) + 2) + 8) * U * (high - low) + 2 * U * high

    return Pair(ours, theirs, allowed)


@peer
def torch_cyclic(draw):
    low, high = sorted(draw(st.tuples(rates, rates)))
    return cyclic(draw, low, high, "lr")


@peer
def torch_cyclic_momentum(draw):
    return cyclic(draw, *sorted(draw(st.tuples(fractions, fractions))), "momentum")


def one_cycle(draw, key: str) -> Pair:
    """Every total and every pct_start for which torch itself has values; phases may end between two steps."""
    total, pct = draw(st.integers(1, 80)), draw(st.floats(0.0, 1.0))
    three_phase, shape = draw(flags), draw(st.sampled_from(["cosine", "linear"]))
    peak, div, final_div = draw(rates), draw(st.floats(1.0, 50.0)), draw(st.floats(1.0, 1e5))
    low, high = sorted(draw(st.tuples(fractions, fractions)))

    def make(o):
        return torch_lr.OneCycleLR(
            o, peak, total, pct_start=pct, anneal_strategy=shape[:3] if shape == "cosine" else shape,
            base_momentum=low, max_momentum=high, div_factor=div, final_div_factor=final_div, three_phase=three_phase,
        )  # fmt: skip

    try:
        theirs = drive(make, total, key=key, momentum=0.9)
    except ZeroDivisionError:  # a phase of no length: pct_start * total is 1
        assume(False)
    start = peak / div
    ends = (peak, start, start / final_div) if key == "lr" else (low, high, high)
    turn, start, end = ends
    ours = ts.one_cycle(
        turn, total=total, rise=pct, start=start, end=end, shape=shape, three_phase=three_phase, last_step_ends=True
    )  # fmt: skip
    # The wave as in warm restarts; its p is a quotient of differences, of which 3 u of the phase's ends are left.
    first = pct * total
    ends_at = [0.0, first - 1, 2 * first - 2, total - 1] if three_phase else [0.0, first - 1, total - 1]
    shortest = min((abs(b - a) for a, b in itertools.pairwise(ends_at)), default=1.0)
    return Pair(ours, theirs, lambda _: (12 + 8 * total / max(shortest, 1e-9)) * U * max(ends))


@peer
def torch_one_cycle(draw):
    return one_cycle(draw, "lr")


@peer
def torch_one_cycle_momentum(draw):
    return one_cycle(draw, "momentum")


@peer
def torch_sequential(draw):
    base, a, w, n = draw(rates), draw(fractions), draw(lengths), draw(lengths)

    def make(o):
        parts = [torch_lr.LinearLR(o, a, 1.0, total_iters=w), torch_lr.CosineAnnealingLR(o, n)]
        return torch_lr.SequentialLR(o, parts, [w])

    theirs = drive(make, w + n + 1, lr=base)
    ours = ts.linear(a * base, base, steps=w) >> ts.cosine(base, 0.0, steps=n)
    # At most what LinearLR or CosineAnnealingLR round by themselves.
    return Pair(ours, theirs, lambda t: 12 * (t + 1) * U * base)


@peer
def torch_lambda(draw):
    base, factors = draw(rates), draw(st.lists(fractions, min_size=2, max_size=20))
    theirs = drive(lambda o: torch_lr.LambdaLR(o, factors.__getitem__), len(factors), lr=base)
    # The same product.
    return Pair(base * ts.from_function(factors.__getitem__, len(factors)), theirs, lambda _: 0.0)


# -- transformers.get_*_schedule: base times a lambda of one formula --------------------------------------------------


def hugging_face(name: str, n: int, base: float, *args: object, **options: object) -> list[float]:
    optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
    return drive(lambda o: getattr(optimization, f"get_{name}")(o, *args, **options), n, lr=base)


def warmup_and_total(draw) -> tuple[int, int]:
    w, n = draw(st.integers(0, 20)), draw(lengths)
    return w, w + n


@peer
def transformers_constant_with_warmup(draw):
    base, w = draw(rates), draw(lengths)
    theirs = hugging_face("constant_schedule_with_warmup", w + EXTRA, base, w)
    return Pair(ts.warmup_constant(base, warmup=w), theirs, lambda _: 2 * U * base)  # quotient, product


@peer
def transformers_linear(draw):
    base, (w, total) = draw(rates), warmup_and_total(draw)
    theirs = hugging_face("linear_schedule_with_warmup", total + EXTRA, base, w, total)
    return Pair(ts.warmup_linear(base, total=total, warmup=w), theirs, lambda _: 2 * U * base)


@peer
def transformers_cosine(draw):
    base, (w, total) = draw(rates), warmup_and_total(draw)
    # It rises again past the end.
    theirs = hugging_face("cosine_schedule_with_warmup", total + 1, base, w, total)
    # Wave, product.
    return Pair(ts.warmup_cosine(base, total=total, warmup=w), theirs, lambda _: 8 * U * base)


@peer
def transformers_waves(draw):
    base, (w, total), cycles = draw(rates), warmup_and_total(draw), draw(st.floats(0.1, 4.0))
    theirs = hugging_face("cosine_schedule_with_warmup", total + 1, base, w, total, cycles)
    ours = ts.wave(base, total=total, warmup=w, cycles=cycles)
    # Wave, product; the angle is 2 * cycles half waves long, and carries its 2.4 u and our position's u at every one.
    return Pair(ours, theirs, lambda _: (8 + 8 * math.pi * cycles) * U * base)


@peer
def transformers_hard_restarts(draw):
    # Powers of 2: elsewhere the peer's (cycles * progress) % 1 may round to just below 1 at a restart.
    base, w, cycles, period = (
        draw(rates),
        draw(st.integers(0, 20)),
        2 ** draw(st.integers(0, 3)),
        2 ** draw(st.integers(0, 4)),
    )
    total = w + cycles * period
    theirs = hugging_face(
        "cosine_with_hard_restarts_schedule_with_warmup", total + EXTRA, base, w, total, cycles
    )
    ours = ts.linear(0.0, base, steps=w) >> ts.cosine(base, 0.0, steps=period).repeat(cycles)
    return Pair(ours, theirs, lambda _: 8 * U * base)


@peer
def transformers_polynomial(draw):
    base, (w, total), power = draw(rates), warmup_and_total(draw), draw(st.floats(0.5, 3.0))
    end = base * draw(st.floats(0.0, 0.9))
    theirs = hugging_face("polynomial_decay_schedule_with_warmup", total + EXTRA, base, w, total, end, power)
    ours = ts.linear(0.0, base, steps=w) >> ts.polynomial(base, end, power, steps=total - w)

    def allowed(t):
        # What remains is off by 2 u at most, its power by the slope times that; pow, range, product, sum, quotient,
        # product: 8 u.
        remaining = 1 - (t - w) / (total - w)
        slope = power * remaining ** (power - 1) if w <= t < total else 0.0
        return (2 * slope + 8) * U * base

    return Pair(ours, theirs, allowed)


@peer
def transformers_inverse_sqrt(draw):
    base, w, timescale = draw(rates), draw(st.integers(0, 20)), draw(st.none() | st.integers(1, 100))
    theirs = hugging_face("inverse_sqrt_schedule", w + 50, base, w, timescale)
    # A quotient, sqrt, a quotient, a product.
    return Pair(ts.warmup_inverse_sqrt(base, warmup=w, timescale=timescale), theirs, lambda _: 4 * U * base)


@peer
def transformers_cosine_with_min_lr(draw):
    base, (w, total), rate = draw(rates), warmup_and_total(draw), draw(st.floats(0.0, 0.9))
    theirs = hugging_face(
        "cosine_with_min_lr_schedule_with_warmup", total + 1, base, w, total, min_lr=rate * base
    )
    ours = ts.warmup_cosine(base, total=total, warmup=w, floor=rate * base)
    return Pair(ours, theirs, lambda _: 12 * U * base)  # wave, rate, 1 - rate, product, sum, product


@peer
def transformers_cosine_with_min_lr_rate(draw):
    base, (w, total), rate = draw(rates), warmup_and_total(draw), draw(st.floats(0.0, 0.9))
    theirs = hugging_face(
        "cosine_with_min_lr_schedule_with_warmup_lr_rate", total, base, w, total, min_lr_rate=rate
    )
    # The recipes' docstring says so.
    ours = ts.warmup_cosine(base, total=total, warmup=w, floor=rate * base).skip(1)
    return Pair(ours, theirs, lambda _: 13 * U * base)  # as above, and our floor


@peer
def transformers_wsd(draw):
    base, w, stable, decay = draw(rates), draw(st.integers(0, 20)), draw(st.integers(0, 20)), draw(lengths)
    shapes = st.sampled_from(["linear", "cosine", "1-sqrt"])
    shape, rise, rate = draw(shapes), draw(shapes), draw(st.floats(0.0, 0.9))
    theirs = hugging_face(
        "wsd_schedule", w + stable + decay + EXTRA, base, w, decay,
        num_stable_steps=stable, decay_type=shape, warmup_type=rise, min_lr_ratio=rate,
    )  # fmt: skip
    floor, total = rate * base, w + stable + decay
    ours = ts.wsd(
        base, total=total, warmup=w, decay=decay, shape=shape, floor=floor, start=floor, warmup_shape=rise
    )
    return Pair(ours, theirs, lambda _: 13 * U * base)


# -- optax, in float64 ------------------------------------------------------------------------------------------------


def optax_values(name: str, n: int, *args: object, **options: object) -> list[float]:
    require("optax")
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    with jax.enable_x64(True):
        return jax.vmap(getattr(optax, name)(*args, **options))(jax.numpy.arange(n)).tolist()


@peer
def optax_linear(draw):
    a, b, n = draw(rates), draw(rates), draw(lengths)
    theirs = optax_values("linear_schedule", n + EXTRA, a, b, n)
    return Pair(ts.linear(a, b, steps=n), theirs, lambda _: 6 * U * max(a, b))  # / - - pow(x, 1) * +


@peer
def optax_polynomial(draw):
    a, b, power, n = draw(rates), draw(rates), draw(st.floats(1.0, 3.0)), draw(lengths)
    theirs = optax_values("polynomial_schedule", n + EXTRA, a, b, power, n)
    return Pair(ts.polynomial(a, b, power, steps=n), theirs, lambda _: (2 * power + 8) * U * max(a, b))


@peer
def optax_exponential_decay(draw):
    base, rate, n, staircase = draw(rates), draw(st.floats(0.5, 1.1)), draw(lengths), draw(flags)
    theirs = optax_values("exponential_decay", 50, base, n, rate, staircase=staircase)
    ours = ts.exponential_decay(base, rate, every=n, staircase=staircase)
    # The exponent is off by u t/n, which log(rate) <= 0.7 scales; pow (4 ulp in XLA), product.
    return Pair(ours, theirs, lambda t: (t / n + 9) * U * theirs[t])


@peer
def optax_warmup_cosine(draw):
    base, start, rate, (w, total) = draw(rates), draw(fractions), draw(fractions), warmup_and_total(draw)
    assume(w > 0)
    theirs = optax_values(
        "warmup_cosine_decay_schedule", total + EXTRA, start * base, base, w, total, rate * base
    )
    ours = ts.warmup_cosine(base, total=total, warmup=w, floor=rate * base, start=start * base)
    # The wave with XLA's cos (4 ulp), alpha, 1 - alpha, * + *.
    return Pair(ours, theirs, lambda _: 16 * U * base)


@peer
def optax_piecewise_constant(draw):
    base, at = draw(rates), draw(st.lists(lengths, unique=True, min_size=1, max_size=4).map(sorted))
    theirs = optax_values("piecewise_constant_schedule", at[-1] + EXTRA, base, dict.fromkeys(at, 0.3))
    return Pair(ts.multistep(base, at, factor=0.3), theirs, lambda t: (2 * len(at) + 4) * U * theirs[t])


@peer
def optax_one_cycle(draw):
    peak, total, div = draw(rates), draw(st.integers(6, 60)), draw(st.floats(1.0, 50.0))
    rise = draw(st.integers(1, total - 1))
    assume(int(rise / total * total) == rise)
    theirs = optax_values("cosine_onecycle_schedule", total + EXTRA, total, peak, rise / total, div, 1e4)
    ours = ts.one_cycle(peak, total=total, rise=rise, start=peak / div, end=peak / div / 1e4)
    return Pair(ours, theirs, lambda _: 16 * U * peak)


# -- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEERS)
def test_values_agree(name):
    agrees(PEERS[name], 5 if name.startswith("optax") else 40)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("change", CHANGES)
def test_another_schedule_does_not_agree(name, change):
    another_does_not(PEERS[name], CHANGES[change], 2 if name.startswith("optax") else 5)


@pytest.mark.parametrize("change", [1e-13, -1e-13])
def test_a_thirteenth_digit_does_not_agree(change):
    for name in ("torch_cosine", "transformers_cosine"):

        @given(PEERS[name])
        @settings(max_examples=5)
        def check(pair):
            assert not pair.agrees(pair.ours * (1.0 + change))

        check()


def test_every_torch_scheduler_that_is_a_function_of_the_step_has_a_peer():
    """So that a scheduler added by a later torch is not forgotten."""
    covered = {
        "LinearLR", "ConstantLR", "ExponentialLR", "StepLR", "MultiStepLR", "PolynomialLR", "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR", "SequentialLR", "LambdaLR",
    }  # fmt: skip
    # A schedule has no memory of its own value (Multiplicative) or of a metric (plateau); Chained multiplies by hand.
    left_out = {"LRScheduler", "MultiplicativeLR", "ReduceLROnPlateau", "ChainedScheduler"}
    public = {name for name in torch_lr.__all__ if inspect.isclass(getattr(torch_lr, name))}
    assert public == covered | left_out

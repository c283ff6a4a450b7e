"""The newer recipes beside the formulas of their papers and libraries, and what a recipe's `shape` may be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import OneCycleLR

import tensorsched as ts
from tensorsched import ScheduleError
from tensorsched.schedules.parse import parse
from tensorsched.schedules.recipes.curves import CURVES, phase
from tests.rounding import U

CLOSE = 2e-15  # relative to the peak: a few roundings on either side

rates = st.floats(1e-6, 10.0)
lengths = st.integers(1, 60)


def close(ours, theirs, scale: float) -> bool:
    return all(abs(ours(t) - value) <= CLOSE * 4 * scale for t, value in enumerate(theirs))


# -- OneCycleLR ---------------------------------------------------------------------------------------------------------


@given(
    st.integers(2, 120),
    st.floats(0.001, 1.0) | st.sampled_from([0.25, 0.3, 0.5, 0.75, 1.0]),
    st.booleans(),
    st.sampled_from(["cos", "linear"]),
    st.booleans(),
    rates,
)
@settings(max_examples=300)
def test_one_cycle_is_torchs_for_every_total(total, pct, three_phase, anneal, momentum, peak):
    """pct_start above a half with three phases, and phases that end between two steps, included.

    Where in its phase a step lies is torch's to the last bit. The value is not: torch's (end - start) * pct + start
    cancels, ours does not; both lie within their roundings of the same curve.
    """
    key = "momentum" if momentum else "lr"
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    try:
        scheduler = OneCycleLR(
            optimizer, peak, total, pct_start=pct, anneal_strategy=anneal, three_phase=three_phase,
            base_momentum=0.8, max_momentum=0.95,
        )  # fmt: skip
        theirs = [optimizer.param_groups[0][key]]
        for _ in range(total - 1):
            optimizer.step()
            scheduler.step()
            theirs.append(optimizer.param_groups[0][key])
    except ZeroDivisionError:
        assume(False)  # torch divides by the length of a phase that has none
    ends = {"start": 0.95, "end": 0.95} if momentum else {}
    ours = ts.one_cycle(
        0.8 if momentum else peak, total=total, rise=pct, shape={"cos": "cosine"}.get(anneal, anneal),
        three_phase=three_phase, last_step_ends=True, **ends,
    )  # fmt: skip
    assert ours.steps == total - 1
    for t, value in enumerate(theirs):
        # The wave's argument and sum: 6 u and 4 u of the larger end; the half of (end - start): u.
        assert abs(ours(t) - value) <= 12 * U * (0.95 if momentum else peak)


def test_where_in_its_phase_a_step_lies_is_torchs_to_the_last_bit():
    """On lines from 0 to 1 and back the value is that part itself, and nothing cancels."""
    for total, pct in ((97, 0.3), (50, 0.61), (13, 0.77), (1000, 1 / 3)):
        ours = ts.one_cycle(
            1.0, total=total, rise=pct, start=0.0, end=0.0, shape="linear", last_step_ends=True
        )
        first, last = pct * total - 1, total - 1
        for t in range(total):
            part = t / first if t <= first else (t - first) / (last - first)
            assert ours(t) == (part if t <= first else 1.0 - part)


def test_another_fraction_is_not_torchs():
    ours = ts.one_cycle(1.0, total=97, rise=0.3, last_step_ends=True)
    rounded = ts.one_cycle(1.0, total=97, rise=29, last_step_ends=True)
    assert max(abs(ours(t) - rounded(t)) for t in range(97)) > 1e-3


# -- curves -------------------------------------------------------------------------------------------------------------

# As epfml/schedules-and-scaling, the papers and transformers write them: 1 at x = 0, 0 at x = 1.
FALLS = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
    "square": lambda x: 1 - x**2,
    "minus_power(3)": lambda x: 1 - x**3,
    "minus_power(0.5)": lambda x: 1 - math.sqrt(x),
    "power(2)": lambda x: (1 - x) ** 2,
    "power(0.4)": lambda x: (1 - x) ** 0.4,
    "mirror_cosine": lambda x: 2 * (1 - x) - (1 + math.cos(math.pi * x)) / 2,
    "lowered_linear": lambda x: 0.7 * (1 - x),
    "lowered_linear(0.5)": lambda x: 0.5 * (1 - x),
}


@pytest.mark.parametrize("name", FALLS)
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_a_curve_is_its_formula(name, floor):
    lr = ts.wsd(2.0, total=100, warmup=10, decay=40, shape=name, floor=floor)
    assert lr == parse(f"wsd(2, total=100, warmup=10, decay=40, shape='{name}', floor={floor})")
    for t in range(40):
        assert lr(60 + t) == pytest.approx(floor + (2.0 - floor) * FALLS[name](t / 40), rel=CLOSE, abs=CLOSE)
    assert lr(100) == lr(10**6) == floor


@pytest.mark.parametrize("name", [name for name in FALLS if not name.startswith("lowered")])
def test_a_warm_up_runs_a_curve_backwards(name):
    lr = ts.wsd(2.0, total=100, warmup=40, decay=10, start=0.5, warmup_shape=name)
    for t in range(40):
        assert lr(t) == pytest.approx(0.5 + 1.5 * FALLS[name](1 - t / 40), rel=CLOSE * 4)
    assert lr(40) == 2.0


@pytest.mark.parametrize("ramp", ["skip_start", "reach_early"])
def test_a_warm_up_shape_goes_with_every_ramp(ramp):
    lr = ts.warmup_cosine(1.0, total=50, warmup=10, ramp=ramp, warmup_shape="square")
    assert lr(9) == lr(10) == 1.0
    assert lr(4) == pytest.approx(1 - (1 - (5 / 10 if ramp == "skip_start" else 4 / 9)) ** 2, rel=CLOSE)


def test_half_life_is_minicpms():
    lr = ts.wsd(2.0, total=100, warmup=10, decay=40, shape="half_life(8)")
    assert [lr(60 + t) for t in (0, 8, 16)] == [2.0, 1.0, 0.5]
    assert lr(100) == lr(10**6) == 2.0 / 2**5  # it does not come to 0
    held = ts.wsd(2.0, total=100, warmup=10, decay=40, shape="half_life(8)", floor=0.25)
    assert (held(84), held(90), held(100)) == (0.25, 0.25, 0.25)


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.0, 1.0))
def test_a_schedule_from_1_to_0_is_a_shape(n, decay, floor):
    fall = ts.cosine(1, 0, steps=n)
    lr = ts.wsd(2.0, total=decay + 5, warmup=0, decay=decay, shape=fall, floor=floor)
    other = ts.wsd(2.0, total=decay + 5, warmup=0, decay=decay, shape="cosine", floor=floor)
    for t in range(decay + 7):
        assert lr(t) == pytest.approx(other(t), rel=1e-13, abs=1e-14)
    assert lr.steps == decay + 5


@pytest.mark.parametrize(
    "shape", [ts.linear(0, 1, steps=4), ts.constant(1), ts.linear(1, 0.5, steps=4)], ids=repr
)
def test_a_schedule_that_is_no_fall_is_refused(shape):
    with pytest.raises(ScheduleError, match="must go from 1 at step 0 to 0 at its end"):
        phase("x", shape, 1.0, 0.0, 5)


def test_every_curve_has_a_formula_above():
    assert {name.partition("(")[0] for name in FALLS} | {"half_life"} >= set(CURVES)


# -- recipes ------------------------------------------------------------------------------------------------------------


@given(rates, st.integers(0, 20), lengths, st.floats(0.1, 4.0))
def test_wave_is_transformers_with_num_cycles(peak, warmup, rest, cycles):
    optimization = pytest.importorskip("transformers.optimization")
    total = warmup + rest
    theirs = [
        peak * optimization._get_cosine_schedule_with_warmup_lr_lambda(
            t, num_warmup_steps=warmup, num_training_steps=total, num_cycles=cycles
        )
        for t in range(total + 1)
    ]  # fmt: skip
    assert close(
        ts.wave(peak, total=total, warmup=warmup, cycles=cycles), theirs, peak * max(1.0, cycles) * 4
    )


@given(rates, st.integers(0, 20), lengths, st.floats(0.3, 3.0), st.floats(0.0, 0.9))
def test_warmup_polynomial_is_transformers(peak, warmup, rest, power, end):
    optimization = pytest.importorskip("transformers.optimization")
    total = warmup + rest
    theirs = [
        peak * optimization._get_polynomial_decay_schedule_with_warmup_lr_lambda(
            t, num_warmup_steps=warmup, num_training_steps=total, lr_end=end * peak, power=power, lr_init=peak
        )
        for t in range(total + 4)
    ]  # fmt: skip
    ours = ts.warmup_polynomial(peak, total=total, warmup=warmup, power=power, floor=end * peak)
    assert close(ours, theirs, peak * rest)  # near 0 a power below 1 is steep


@given(rates, st.lists(st.integers(5, 40), min_size=1, max_size=4), st.integers(1, 4))
def test_wsd_s_is_a_wsd_in_each_period(peak, periods, decay):
    lr = ts.wsd_s(peak, periods=periods, warmup=1, decay=decay)
    start = 0
    for i, n in enumerate(periods):
        one = ts.wsd(peak, total=n, warmup=1 if i == 0 else 0, decay=decay)
        assert [lr(start + t) for t in range(n)] == [one(t) for t in range(n)]
        start += n
    assert lr.steps == start
    assert lr(start) == 0.0


def infinite(t, peak, w, c, level, total, d, low):
    """Ibrahim et al. 2024, as in the code for Singh et al. 2025."""
    if t < w:
        return peak * t / w
    if t < w + c:
        return level + (peak - level) * (1 + math.cos(math.pi * (t - w) / c)) / 2
    if t < total - d:
        return level
    return level * (low / level) ** (min(t - (total - d), d) / d)


@given(rates, lengths, lengths, st.integers(0, 30), lengths, st.floats(0.05, 1.0), st.floats(0.01, 0.9))
def test_infinite_is_the_papers(peak, w, c, stay, d, level, low):
    total = w + c + stay + d
    lr = ts.infinite(
        peak, warmup=w, cooldown=c, level=level * peak, total=total, decay=d, floor=low * level * peak
    )
    theirs = [infinite(t, peak, w, c, level * peak, total, d, low * level * peak) for t in range(total + 3)]
    assert close(lr, theirs, peak)
    endless = ts.infinite(peak, warmup=w, cooldown=c, level=level * peak)
    assert endless.steps is None
    assert endless(10**9) == level * peak


@given(
    st.floats(1e-4, 1.0), st.integers(0, 50), st.floats(1e-3, 1e3), st.floats(0.1, 1.5), st.floats(1.0, 1e6)
)
def test_power_is_the_papers(peak, w, scale, exponent, tokens):
    lr = ts.power(peak, warmup=w, scale=scale, exponent=exponent, tokens=tokens)
    for t in (max(w, 1), w + 1, w + 7, w + 500, 10**6, 10**9):
        expected = min(peak, scale * (tokens * t) ** -exponent)
        assert lr(t) == pytest.approx(expected, rel=1e-12)
    assert all(lr(t) == pytest.approx(lr(w) * t / w, rel=1e-12) for t in range(w))
    ended = ts.power(
        peak, warmup=w, scale=scale, exponent=exponent, tokens=tokens, total=w + 100, decay=20, floor=1e-9
    )
    assert [ended(t) for t in range(w, w + 80)] == [lr(t) for t in range(w, w + 80)]
    assert ended(w + 100) == 1e-9


def test_decay_to_zero_is_linear_to_exactly_zero():
    assert ts.decay_to_zero(1.0, total=100) == ts.warmup_linear(1.0, total=100, warmup=0.1)
    assert ts.decay_to_zero(3e-4, total=1000, warmup=50)(1000) == 0.0


# -- what follows another ------------------------------------------------------------------------------------------------


@given(rates, st.floats(1e-4, 1.0), st.integers(2, 60))
def test_adamc_makes_the_decay_of_a_step_quadratic_in_lr(peak, wd, n):
    lr = ts.warmup_cosine(peak, total=n, warmup=1)
    decay = ts.adamc(lr, wd)
    for t in range(n + 1):
        assert lr(t) * decay(t) == pytest.approx(lr(t) ** 2 / peak * wd, rel=1e-13, abs=0.0)


@given(rates, st.floats(1e-6, 1e-2), st.integers(2, 60))
def test_independent_does_not_follow_the_peak(peak, wd, n):
    lr = ts.warmup_cosine(peak, total=n, warmup=1, floor=0.1 * peak, start=0.1 * peak)
    shape = ts.warmup_cosine(1.0, total=n, warmup=1, floor=0.1, start=0.1)
    follows, fixed = ts.independent(lr, wd), ts.independent(lr, wd, follow=False)
    for t in range(n + 1):
        assert lr(t) * follows(t) == pytest.approx(wd * shape(t), rel=1e-12)
        assert lr(t) * fixed(t) == pytest.approx(wd, rel=1e-12)


@given(st.integers(20, 400), st.sampled_from([1.5, 2.0, 4.0]), st.integers(0, 9))
def test_seesaw_keeps_lr_over_the_root_of_the_batch(n, factor, warmup):
    lr = (
        ts.linear(0.0, 1.0, steps=warmup) >> ts.cosine(1.0, 0.01, steps=n)
        if warmup
        else ts.cosine(1, 0.01, steps=n)
    )
    rate, batch = ts.seesaw(lr, factor)
    assert [rate(t) for t in range(warmup)] == [lr(t) for t in range(warmup)]
    for t in range(warmup, warmup + n):
        stairs = round(math.log(batch(t), factor))
        assert rate(t) == pytest.approx(batch(t) ** -0.5, rel=1e-12)
        # The standard scheduler's staircase: it has fallen by so many factors, and not by one more.
        assert lr(t) <= factor**-stairs * (1 + 1e-9)
        assert lr(t) > factor ** -(stairs + 1) * (1 - 1e-9)


def test_seesaw_stops_at_the_critical_batch():
    lr = ts.cosine(1.0, 0.01, steps=100)
    rate, batch = ts.seesaw(lr, 2.0, most=4.0)
    assert batch.values(101).max() == 4.0
    assert rate(99) == pytest.approx(0.5 * 2.0**-4)  # two cuts by the root of 2, then by 2


def test_batch_steps_reads_megatrons_text():
    assert ts.batch_steps("0:768 250B:1536 500B:3072") == ts.piecewise_constant(
        [768, 1536, 3072], [250 * 10**9, 500 * 10**9]
    )
    assert ts.batch_steps("0:1, 3:2") == ts.piecewise_constant([1, 2], [3])


# -- timm and keras formulas --------------------------------------------------------------------------------------------


def timm_cosine(t, peak, low, n, mul, decay):
    """timm CosineLRScheduler._get_lr without warm-up, noise and k_decay."""
    i = math.floor(math.log(1 - t / n * (1 - mul), mul)) if mul != 1 else t // n
    start = (1 - mul**i) / (1 - mul) * n if mul != 1 else i * n
    return low + 0.5 * (peak * decay**i - low) * (1 + math.cos(math.pi * (t - start) / (n * mul**i)))


@given(rates, st.floats(0.0, 0.5), st.integers(3, 30), st.sampled_from([1, 2, 1.5, 1.3]), st.floats(0.3, 1.0))
def test_warm_restarts_of_the_peak_are_timms_cycle_decay(peak, low, n, mul, decay):
    ours = ts.warm_restarts(
        peak,
        period=n,
        floor=low * peak,
        length_mult=mul,
        peak_mult=decay,
        mult_of="peak",
        round_lengths=False,
    )
    starts = {0.0, *(n * sum(mul**k for k in range(i)) for i in range(1, 8))}
    for t in range(6 * n):
        if min(abs(t - s) for s in starts) > 1e-9:  # there timm's own logarithm may fall on either side
            assert ours(t) == pytest.approx(
                timm_cosine(t, peak, low * peak, n, mul, decay), rel=1e-9, abs=1e-12
            )


@given(rates, st.floats(0.0, 0.5), st.integers(1, 30), st.floats(0.3, 0.99), st.integers(1, 3))
def test_warm_restarts_of_the_height_are_keras_m_mul(peak, low, n, m_mul, t_mul):
    """keras CosineDecayRestarts(alpha=low): ((1 - alpha) * 0.5 * m_mul**i * (1 + cos) + alpha) * peak."""
    ours = ts.warm_restarts(peak, period=n, floor=low * peak, length_mult=t_mul, peak_mult=m_mul)
    start, length, i = 0, n, 0
    for t in range(5 * n):
        if t == start + length:
            start, length, i = start + length, length * t_mul, i + 1
        wave = 0.5 * m_mul**i * (1 + math.cos(math.pi * (t - start) / length))
        assert ours(t) == pytest.approx(((1 - low) * wave + low) * peak, rel=1e-12, abs=1e-14)


@given(rates, st.floats(0.0, 0.5), lengths, st.floats(0.3, 3.0))
def test_warp_is_timms_k_decay(peak, low, n, k):
    ours = ts.cosine(peak, low * peak, steps=n).warp(k)
    for t in range(n):
        theirs = low * peak + 0.5 * (peak - low * peak) * (1 + math.cos(math.pi * t**k / n**k))
        assert ours(t) == pytest.approx(theirs, rel=1e-11, abs=1e-13 * peak)


@given(rates, st.floats(0.0, 0.9), lengths)
@settings(max_examples=30)
def test_mirror_repeat_is_torchs_endless_cosine(peak, low, n):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    ours = ts.cosine(peak, low * peak, steps=n).mirror().repeat()
    closed = [low * peak + (peak - low * peak) * (1 + math.cos(math.pi * t / n)) / 2 for t in range(5 * n)]
    assert close(ours, closed, peak * 5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n, low * peak)
    for t in range(3 * n):
        assert ours(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-6 * peak)
        optimizer.step()
        scheduler.step()


@given(rates, rates, st.integers(2, 200))
def test_logarithmic_is_deepspeeds_default_warm_up(low, high, n):
    """WarmupLR._get_gamma: log(t + 1) / log(n) below n steps, then 1."""
    ours = ts.logarithmic(low, high, steps=n - 1)
    theirs = [low + (high - low) * (math.log(t + 1) / math.log(n) if t < n else 1.0) for t in range(n + 5)]
    assert close(ours, theirs, max(low, high))


@given(rates, st.floats(0.01, 5.0), st.integers(1, 50), st.booleans())
def test_inverse_time_is_keras(start, rate, every, staircase):
    ours = ts.inverse_time(start, rate, every=every, staircase=staircase)
    for t in range(200):
        p = t / every
        assert ours(t) == pytest.approx(start / (1 + rate * (math.floor(p) if staircase else p)), rel=1e-14)


@given(rates, st.floats(0.1, 3.0), lengths)
def test_a_power_of_a_cosine_is_optaxs_exponent(peak, exponent, n):
    """optax.cosine_decay_schedule(exponent): peak * ((1 - alpha) * cosine**exponent + alpha), here alpha = 0."""
    ours = peak * ts.cosine(1.0, 0.0, steps=n) ** exponent
    for t in range(n):
        theirs = peak * (0.5 * (1 + math.cos(math.pi * t / n))) ** exponent
        assert ours(t) == pytest.approx(theirs, rel=1e-9, abs=1e-13 * peak)


def test_a_batch_size_is_whole():
    size = ts.linear(64, 1024, steps=1000).round(to=64)
    values = size.values(1001)
    assert set(np.unique(values % 64)) == {0.0}
    assert (values[0], values[-1]) == (64.0, 1024.0)
    assert int(ts.linear(0, 2000, steps=2000)(1001)) == 1001
    assert [int(ts.linear(0, 2000, steps=2000).floor()(t)) for t in range(2001)] == list(range(2001))

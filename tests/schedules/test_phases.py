"""Phases have the names that people know: of every recipe, of the same chain by hand, of what was loaded."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings

import tensorsched as ts
from tensorsched.schedules import recipes
from tensorsched.schedules.views.phases import headings, phases
from tests import strategies

WARM = ts.warmup_cosine(1.0, total=100, warmup=10)
WSD = ts.wsd(1.0, total=100, warmup=10, decay=0.2)
LR = ts.warmup_cosine(3e-4, total=1000, warmup=0.05, floor=1e-5)

NAMES = {
    "warmup_cosine": [
        (WARM, "warm-up, decay"),
        (ts.warmup_cosine(1.0, total=100, warmup=1), "warm-up, decay"),
        (ts.warmup_cosine(1.0, total=100, warmup=0), "decay"),
        (ts.warmup_cosine(1.0, total=100, warmup=10, ramp="skip_start"), "warm-up, decay"),
        (ts.warmup_cosine(1.0, total=100, warmup=10, ramp="reach_early"), "warm-up, decay"),
    ],
    "warmup_linear": [(ts.warmup_linear(1.0, total=100, warmup=10), "warm-up, decay")],
    "decay_to_zero": [(ts.decay_to_zero(1.0, total=100), "warm-up, decay")],
    "warmup_polynomial": [(ts.warmup_polynomial(1.0, total=100, warmup=10, power=2), "warm-up, decay")],
    "warmup_constant": [(ts.warmup_constant(1.0, warmup=10), "warm-up, stable")],
    "wsd": [
        (WSD, "warm-up, stable, decay"),
        (ts.wsd(1.0, total=100, warmup=0, decay=0.2), "stable, decay"),
        (ts.wsd(1.0, total=100, warmup=10, decay=0.2, ramp="skip_start"), "warm-up, stable, decay"),
        (
            ts.wsd(1.0, total=100, warmup=10, decay=0.2, ramp="reach_early", last_step_ends=True),
            "warm-up, stable, decay",
        ),
        *(
            (ts.wsd(1.0, total=100, warmup=10, decay=0.2, floor=0.01, shape=shape), "warm-up, stable, decay")
            for shape in (
                "1-sqrt",
                "half_life(5)",
                "lowered_linear(0.7)",
                "mirror_cosine",
                "exponential",
                "rex",
            )
        ),
    ],
    "wsd_s": [
        (
            ts.wsd_s([1.0, 0.5], periods=[50, 50], warmup=10, decay=0.2),
            "warm-up, stable 1, decay 1, stable 2, decay 2",
        )
    ],
    "infinite": [
        (
            ts.infinite(1.0, warmup=10, cooldown=40, level=0.3, total=100, decay=0.2),
            "warm-up, cool-down, stable, decay",
        ),
        (ts.infinite(1.0, warmup=10, cooldown=40, level=0.3), "warm-up, cool-down, stable"),
    ],
    "power": [
        (ts.power(1.0, warmup=10, scale=6.0, total=100, decay=0.1), "warm-up, stable, power_law, decay"),
        (ts.power(1.0, warmup=10, scale=1.0), "warm-up, decay"),
    ],
    "warmup_inverse_sqrt": [(ts.warmup_inverse_sqrt(1.0, warmup=10), "warm-up, decay")],
    "noam": [(ts.noam(512, warmup=10), "warm-up, decay")],
    "one_cycle": [
        (ts.one_cycle(0.1, total=100), "warm-up, decay"),
        (ts.one_cycle(0.1, total=100, last_step_ends=True), "warm-up, decay"),
        (ts.one_cycle(0.1, total=100, three_phase=True), "warm-up, decay 1, decay 2"),
        (ts.one_cycle(0.85, start=0.95, end=0.95, total=100), "fall, rise"),  # momentum
    ],
    "warm_restarts": [
        (ts.warm_restarts(1.0, period=10, length_mult=2).take(70), "cycle 1, cycle 2, cycle 3"),
        (
            ts.warm_restarts(1.0, period=10, floor=0.01, peak_mult=0.5, mult_of="peak").take(20),
            "cycle 1, cycle 2",
        ),
    ],
    "wave": [
        (
            ts.wave(1.0, total=100, warmup=10, cycles=1.5),
            "warm-up, cycle 1: fall, cycle 1: rise, cycle 2: fall",
        ),
        (ts.wave(1.0, total=100, warmup=10), "warm-up, decay"),
    ],
    "cyclic": [
        (
            ts.cyclic(0.0, 1.0, up=5, mode=mode).take(20),
            "cycle 1: rise, cycle 1: fall, cycle 2: rise, cycle 2: fall",
        )
        for mode in ("triangular", "triangular2")
    ],
    "step_decay": [(ts.step_decay(0.1, every=30), "decay")],
    "multistep": [
        (ts.multistep(0.1, [30, 60]), "level 1, level 2, level 3"),
        (ts.multistep(0.1, [1, 2]), "level 1, level 2, level 3"),
    ],
    "batch_steps": [(ts.batch_steps("0:256 300:512"), "level 1, level 2")],
    "adamc": [(ts.adamc(LR, 0.1), "warm-up, decay")],
    "independent": [
        (
            ts.independent(
                ts.wsd(1.0, total=100, warmup=10, decay=0.2, floor=0.1, start=0.1), 1e-4, follow=False
            ),
            "warm-up, stable, decay",
        )
    ],
    "seesaw": [
        (ts.seesaw(LR, most=4)[0], "warm-up, level 1, level 2, level 3, level 4, level 5"),
        (ts.seesaw(LR)[1], "level 1, level 2, level 3, level 4, level 5"),
    ],
}


def told(schedule) -> str:
    """The names in order, neighbours of one name once, without what is behind the end."""
    found = [phase.name.replace(", ", ": ") for phase in phases(schedule)]
    return ", ".join(name for name, _ in itertools.groupby(found) if name != "holds")


@pytest.mark.parametrize("name", recipes.__all__)
def test_every_recipe_has_the_names_of_its_phases(name):
    for schedule, expected in NAMES[name]:
        assert told(schedule) == expected, schedule


BY_HAND = [
    (ts.linear(0, 1, steps=10) >> ts.constant(1, steps=70) >> ts.linear(1, 0, steps=20), "warm-up, stable, decay"),
    (ts.parse("linear(0, 1, steps=10) >> cosine(1, 0, steps=90)"), "warm-up, decay"),
    (ts.from_json(WSD.to_json()), "warm-up, stable, decay"),
    (1.0 - WSD, "warm-up, stable, decay"),
    (ts.initial * WSD, "warm-up, stable, decay"),
    (WSD * ts.plateau(), "warm-up, stable, decay"),
    (WSD.skip(20), "stable, decay"),
    (WSD.over(ts.constant(4)), "warm-up, stable, decay"),
    (WSD.repeat(2), "cycle 1: warm-up, cycle 1: stable, cycle 1: decay, cycle 2: warm-up, cycle 2: stable, cycle 2: decay"),
    (ts.linear(0, 1, steps=100) >> ts.cosine(1, 0, steps=50).repeat(2), "warm-up, cycle 1, cycle 2"),
    (ts.constant(0.0, steps=5) >> WARM, "hold, warm-up, decay"),
    (WARM >> 0.0, "warm-up, decay, hold"),
    (ts.constant(1.0, steps=30) >> ts.constant(0.1), "level 1, level 2"),
    (ts.linear(0, 1, steps=10), "rise"),
    (WARM >> WARM, "warm-up 1, decay 1, warm-up 2, decay 2"),
    (WARM.take(30) >> ts.linear(0.8, 0, steps=20), "warm-up, cosine, decay"),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "expected"), BY_HAND, ids=[repr(row[0])[:60] for row in BY_HAND])
def test_what_was_not_made_by_a_recipe_has_the_same_names(schedule, expected):
    assert told(schedule) == expected


NO_NAME = [
    (ts.from_values([1, 3, 2]), "from_values"),
    (ts.constant(1.0), "constant"),
    (ts.cosine(1, 0, steps=10).repeat(2).repeat(2), "cosine: cycle 1: cycle 1"),
]


@pytest.mark.parametrize(("schedule", "first"), NO_NAME, ids=[repr(row[0]) for row in NO_NAME])
def test_where_no_name_fits_it_is_the_shape(schedule, first):
    assert told(schedule).startswith(first)


def test_a_name_follows_what_the_curve_does():
    """Control: the same shapes in the same order, with other values."""
    down = ts.linear(1, 0.5, steps=10) >> ts.constant(0.5, steps=70) >> ts.linear(0.5, 0, steps=20)
    assert [phase.what for phase in phases(down)] == [phase.what for phase in phases(WSD)]
    assert told(down) == "cool-down, stable, decay"


def test_names_are_no_part_of_a_schedule():
    by_hand = ts.linear(0.0, 1.0, steps=10) >> ts.cosine(1.0, 0.0, steps=90)
    assert by_hand == WARM
    assert by_hand.fingerprint == WARM.fingerprint
    assert "warm-up" not in WARM.to_json() + repr(WARM)


def test_headings_name_neighbours_and_cycles_once():
    assert headings(phases(ts.cyclic(0.0, 1.0, up=5)), 40) == [
        (0, "cycle 1"), (10, "cycle 2"), (20, "cycle 3"), (30, "cycle 4"),
    ]  # fmt: skip
    assert headings(phases(ts.wsd(1.0, total=100, warmup=10, decay=0.2, ramp="skip_start")), 100) == [
        (0, "warm-up"), (10, "stable"), (80, "decay"),
    ]  # fmt: skip


@given(strategies.schedules())
@settings(max_examples=100)
def test_every_phase_has_a_name_and_a_shape(schedule):
    assert all(phase.name and phase.shape for phase in phases(schedule))

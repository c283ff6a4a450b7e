"""Each recipe's values as written down once, bit by bit, in tests/schedules/golden/.

A difference is a change of what users train with. `pytest tests/schedules/test_golden.py --rewrite-golden` accepts it; the diff of
the JSON files then shows what has changed.

Values made by + - * / and sqrt alone must be the same bits on every machine. cos, tanh and pow are the C library's, or numpy's
own for the CPU at hand, and differ by some ulp between machines; `rounding` turns that into a bound for the result
(of about 1e-15 relative to the terms; near the end of a cosine to 0 that is many ulp of the small difference).
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import tensorsched as ts
from tensorsched import reference, schedules
from tests.rounding import U, analyse
from tests.strategies import steps_to_try

GOLDEN = Path(__file__).parent / "golden"

CALLS = {
    "warmup_constant": ["1e-3, warmup=7", "0.5, warmup=1000, start=0.1", "1.0, warmup=5, ramp='skip_start'"],
    "warmup_linear": [
        "3e-4, total=100, warmup=0.1",
        "1.0, total=13, warmup=3, floor=0.1, last_step_ends=True",
    ],
    "warmup_cosine": [
        "3e-4, total=20_000, warmup=500, floor=3e-5",
        "1.0, total=12, warmup=4",
        "1.0, total=12, warmup=4, ramp='reach_early', last_step_ends=True",
        "6e-4, total=1_000_000, warmup=0.002",
    ],
    "warmup_inverse_sqrt": [
        "1e-3, warmup=10",
        "2.0, warmup=0",
        "1.0, warmup=4, timescale=100, ramp='skip_start'",
    ],
    "noam": ["512, warmup=4000", "256, warmup=25, factor=2.0, first_count=1"],
    "wsd": [
        "1e-3, total=100, warmup=10, decay=20",
        "1e-3, total=100, warmup=0.1, decay=0.2, shape='cosine', floor=1e-5",
        "1e-3, total=100, warmup=10, decay=20, shape='1-sqrt'",
        "1e-3, total=100, warmup=10, decay=20, shape='rex'",
        "1e-3, total=100, warmup=10, decay=90, shape='tanh', floor=1e-5",
        "1e-3, total=100, warmup=10, decay=40, shape='mirror_cosine', warmup_shape='cosine'",
        "1e-3, total=100, warmup=10, decay=40, shape='lowered_linear(0.7)', floor=1e-5, warmup_shape='1-sqrt'",
        "1e-3, total=100, warmup=10, decay=40, shape='half_life(10)'",
        "1e-3, total=100, warmup=10, decay=40, shape='minus_power(3)'",
        "1e-3, total=100, warmup=10, decay=40, shape='power(0.4)'",
        "1e-3, total=100, warmup=10, decay=40, shape='square'",
    ],
    "one_cycle": [
        "0.1, total=100",
        "0.85, total=100, rise=30, start=0.95, end=0.95",
        "1.0, total=50, rise=10, shape='linear', three_phase=True, last_step_ends=True",
        "0.1, total=97, last_step_ends=True",
        "0.1, total=50, rise=0.61, three_phase=True, last_step_ends=True",
    ],
    "warm_restarts": [
        "0.1, period=10",
        "0.1, period=10, floor=1e-4, length_mult=1.5",
        "1.0, period=7, length_mult=2.0, peak_mult=0.8",
        "1.0, period=7, length_mult=1.3, peak_mult=0.8, floor=0.1, mult_of='peak', round_lengths=False",
    ],
    "cyclic": [
        "1e-4, 1e-2, up=8",
        "1e-4, 1e-2, up=8, down=3, mode='triangular2'",
        "1e-4, 1e-2, up=8, mode='exp_range', gamma=0.99",
    ],
    "step_decay": ["0.1, every=30", "1.0, every=7, factor=0.9"],
    "warmup_polynomial": ["1e-3, total=100, warmup=10, power=2.5, floor=1e-7"],
    "decay_to_zero": ["1e-3, total=100"],
    "wave": ["1e-3, total=100, warmup=10, cycles=1.7, floor=1e-5"],
    "wsd_s": [
        "1e-3, periods=[50, 30, 70], warmup=5",
        "[1.0, 0.5], periods=[20, 20], warmup=0.1, decay=7, shape='1-sqrt'",
    ],
    "infinite": [
        "1e-3, warmup=10, cooldown=20, level=4e-4",
        "1e-3, warmup=10, cooldown=20, level=4e-4, total=100, decay=0.2",
    ],
    "power": ["0.02, warmup=10, scale=300, tokens=4e6", "1e-3, warmup=10, scale=5e-3, total=100, decay=0.1"],
    "adamc": ["ts.warmup_cosine(3e-4, total=50, warmup=5), 0.1"],
    "independent": ["ts.warmup_cosine(3e-4, total=50, warmup=5, floor=3e-5, start=1e-6), 1e-4, follow=False"],
    "batch_steps": ["'0:768 25:1536 1K:3072'"],
    "multistep": ["0.1, [3, 3, 7], factor=0.5", "0.1, [30, 60, 80]", "1.0, [1], factor=-0.5"],
}
CASES = [(recipe, arguments) for recipe, calls in CALLS.items() for arguments in calls]


def build(recipe: str, arguments: str) -> ts.Schedule:
    return eval(f"ts.{recipe}({arguments})", {"ts": ts})  # noqa: S307  the table above


def record(schedule: ts.Schedule) -> dict[str, str]:
    """The value in hexadecimal at every edge and its neighbours, and at two dozen steps in between."""
    edges = steps_to_try(schedule)
    spread = np.unique(np.linspace(0, min(max(edges), (schedule.steps or 150) + 2), 24).astype(int)).tolist()
    return {str(t): schedule(t).hex() for t in sorted({*edges, *spread})}


@pytest.fixture(params=CALLS)
def golden(request):
    """A recipe, and what is written down for it: {arguments: {step: value}}."""
    path = GOLDEN / f"{request.param}.json"
    if request.config.getoption("--rewrite-golden"):
        made = {arguments: record(build(request.param, arguments)) for arguments in CALLS[request.param]}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        pytest.skip(f"wrote {path.name}")
    return request.param, json.loads(path.read_text(encoding="utf-8"))


# These compute their constants before there is a schedule, with the C library's pow and exp, or from a schedule's values:
# a few of them come to less than 8 ulp, and an ulp is at most 2 u.
BY_POW = dict.fromkeys(("noam", "multistep", "power", "wsd", "adamc", "independent"), 16 * U)


def follows(read, schedule: ts.Schedule, written: dict[str, str], relative: float = 0.0) -> bool:
    exact = {int(t): float.fromhex(value) for t, value in written.items()}
    return all(
        abs(read(t) - value) <= analyse(schedule, t).apart + relative * abs(value)
        for t, value in exact.items()
    )


def test_recipes_keep_their_values(golden):
    recipe, written = golden
    assert list(written) == CALLS[recipe]
    for arguments, values in written.items():
        schedule = build(recipe, arguments)
        assert follows(schedule, schedule, values, BY_POW.get(recipe, 0.0)), arguments
        assert follows(partial(reference.value, schedule), schedule, values, BY_POW.get(recipe, 0.0)), (
            arguments
        )


def test_a_frozen_value_is_found(golden):
    recipe, written = golden
    for arguments, values in written.items():
        schedule = build(recipe, arguments)
        frozen = schedule(0)
        assert not follows(lambda _t, value=frozen: value, schedule, values, 8 * U), arguments


def test_a_last_bit_is_found():
    schedule = build("warmup_linear", CALLS["warmup_linear"][0])
    written = record(schedule)
    assert follows(schedule, schedule, written)
    assert not follows(lambda t: float(np.nextafter(schedule(t), 1.0)), schedule, written)


def test_every_recipe_is_written_down():
    assert set(schedules.recipes.__all__) == set(CALLS) | {"seesaw"}  # which gives two
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CALLS)


@pytest.mark.parametrize(("recipe", "arguments"), CASES)
def test_the_live_float32_value_is_the_references_to_one_ulp(recipe, arguments):
    """DESIGN's promise, without any allowance: what a recipe computes never cancels so far that it would need one."""
    schedule = build(recipe, arguments)
    for t in map(int, record(schedule)):
        live, expected = np.float32(schedule(t)), np.float32(reference.value(schedule, t))
        assert abs(float(live) - float(expected)) <= float(np.spacing(abs(expected)))

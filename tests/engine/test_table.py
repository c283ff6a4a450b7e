"""Tables: the values of the reference in the live dtype, shared columns, sizes, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.engine import drivers, memory, sharing
from tensorsched.engine import layouts as table_module
from tensorsched.engine.tabulate import SharedColumnError, replacement
from tests import strategies
from tests.rounding import analyse

LR = ts.warmup_cosine(3e-4, total=2_000, warmup=100, floor=3e-5)


def live_at(table: ts.ScheduleTable, step: int) -> dict[str, float]:
    """Every value of a table at a step, through an engine."""
    engine = ts.ScheduleEngine(table)
    engine.seek(step)
    return {name: engine.value(name).item() for name in table.schedules}


def compiled(schedules: dict[str, ts.Schedule], **options: object) -> ts.ScheduleTable:
    """The table, or hypothesis is told to draw again where a value is not finite (test_errors covers that)."""
    try:
        return ts.tabulate(schedules, **options)
    except ts.ScheduleError as error:
        assume("finite number" not in str(error) and "overflows" not in str(error))
        raise


@given(schedule=strategies.schedules(), data=st.data(), scale=st.booleans())
def test_table_equals_reference_within_one_ulp(schedule, data, scale):
    horizon = 200
    table = compiled({"x": schedule, "y": 0.7 * schedule}, steps=horizon, scale=scale)
    known = table.rows - 1 if schedule.settled is None else 10**9
    drawn = data.draw(st.lists(st.integers(0, table.rows + 3), max_size=8))
    for step in [*drawn, table.rows - 1, table.rows, table.rows + 10**6]:
        reading = analyse(schedule, min(step, known))
        found = live_at(table, step)
        for name, factor in (("x", 1.0), ("y", 0.7)):
            exact = np.float32(factor * reading.value)
            # One ulp of the live dtype, plus how far float64 rounding may move the value (see rounding.py). Sharing
            # adds 8 float64 roundings at most: PROPORTIONAL.
            bound = np.spacing(np.abs(exact)) + reading.apart + table_module.PROPORTIONAL * abs(reading.value)
            assert abs(np.float64(found[name]) - np.float64(exact)) <= bound


@given(
    schedule=strategies.schedules(max_leaves=3),
    factors=st.lists(st.floats(0.1, 10.0), min_size=1, max_size=4),
)
def test_scaled_and_unscaled_tables_agree(schedule, factors):
    wanted = {str(i): factor * schedule for i, factor in enumerate(factors)} | {"itself": schedule}
    scaled, plain = (compiled(wanted, steps=50, scale=scale, dtype=torch.float64) for scale in (True, False))
    for step in (0, 1, 7, 50, 10**6):
        assert live_at(scaled, step) == live_at(plain, step), "a written factor is the same float64 product"


def test_equal_columns_are_stored_once():
    twin = ts.piecewise_linear([(0, 0.0), (4, 1.0)])  # another expression, the same values
    table = ts.tabulate(
        {"a": ts.linear(0.0, 1.0, steps=4), "b": ts.linear(0.0, 1.0, steps=4), "c": twin, "d": LR}
    )
    assert table.columns == 2
    assert (
        table.live_column["a"] == table.live_column["b"] == table.live_column["c"] != table.live_column["d"]
    )


@pytest.mark.parametrize(
    "write", [lambda g: 0.8**g * LR, lambda g: ts.warmup_cosine(0.8**g, total=2_000, warmup=100)]
)
def test_layer_wise_decay_is_one_column(write):
    layered = {str(g): write(g) for g in range(128)}
    assert ts.tabulate(layered, scale=True).host.shape == (1, 2_001)
    assert ts.tabulate(layered, scale=False).host.shape == (2_001, 128)


def test_what_is_not_proportional_is_not_shared():
    table = ts.tabulate({"a": ts.linear(0.0, 1.0, steps=9), "b": ts.linear(1e-3, 1.0, steps=9)}, scale=True)
    assert table.host.shape[0] == 2


def test_a_million_steps_of_128_groups_fit_in_16_mb():
    lr = ts.warmup_cosine(3e-4, total=1_000_000, warmup=1_000)
    table = ts.tabulate({str(g): 0.9**g * lr for g in range(128)})
    assert table.nbytes <= 16_000_000
    assert live_at(table, 400_000)["7"] == pytest.approx(np.float32(0.9**7 * lr(400_000)), rel=2**-24)


def test_the_last_row_is_where_everything_has_settled():
    table = ts.tabulate({"lr": LR, "kl": ts.linear(0.0, 1.0, steps=5_000), "c": ts.constant(2.0)})
    assert table.rows == 5_001
    assert live_at(table, 10**12) == {"lr": pytest.approx(3e-5, rel=2**-24), "kl": 1.0, "c": 2.0}


def test_steps_bounds_what_never_settles_and_cuts_nothing():
    noam = ts.noam(512, warmup=10)
    table = ts.tabulate({"lr": noam, "wd": ts.linear(1.0, 0.0, steps=100)}, steps=50)
    assert table.rows == 101
    assert live_at(table, 10**9)["lr"] == np.float32(noam(50)), (
        "held from there on, whatever shares the table"
    )


def test_nbytes_is_known_before_anything_is_on_the_device(monkeypatch):
    def no_allocation(*_: object) -> None:
        raise AssertionError("allocated")

    monkeypatch.setattr(ts.ScheduleTable, "to_device", no_allocation)
    assert ts.tabulate({"lr": LR}).nbytes == 2_001 * 4
    assert ts.tabulate({"lr": LR}, dtype=torch.float64).nbytes == 2_001 * 8


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"steps": 10**13},
            r"takes 40000000000004 bytes .* on cpu.* 10000000000001 rows for 'lr'\. Shorten .*take",
        ),
        (
            {"steps": 1_000, "max_bytes": 1_000},
            r"takes 4004 bytes \(3\.9 KiB\) or more on cpu, and 1000 B may be used",
        ),
        ({}, r"'lr' never settles.* pass steps=n.*\.take\(n\)"),
        ({"steps": -1}, r"tabulate: steps must be a whole number of steps of at least 0, got -1"),
        (
            {"steps": 9, "dtype": torch.float16},
            r"tabulate: dtype must be torch\.float32 or torch\.float64, got torch\.float16",
        ),
        ({"steps": 9, "device": "cuda:77"}, r"device 'cuda:77' cannot hold a table.*pass device='cpu'"),
        ({"steps": 9, "device": "warp"}, r"device 'warp' cannot hold a table"),
    ],
)
def test_what_cannot_be_tabulated(options, text):
    with pytest.raises(ts.ScheduleError, match=text):
        ts.tabulate({"lr": ts.noam(512, warmup=10)}, **options)


@pytest.mark.parametrize(
    ("schedules", "text"),
    [
        ({}, "a dict of at least one name and schedule"),
        ({"lr": 0.1}, "tabulate: lr must be a schedule, got 0.1"),
        (
            {"lr": ts.linear(0.0, 1e39, steps=4)},
            r"the value 5e\+38 at step \d overflows torch.float32; pass dtype=torch.float64",
        ),
        ({"lr": 1.0 / ts.linear(1.0, 0.0, steps=4)}, "the value at step 4 is inf, not a finite number"),
        ({"lr": ts.initial * 2.0}, "ts.initial has no value of its own"),
    ],
)
@pytest.mark.parametrize("scale", [True, False])
def test_what_is_no_table(schedules, text, scale):
    with pytest.raises(ts.ScheduleError, match=text):
        ts.tabulate(schedules, scale=scale)


def test_too_many_different_columns_say_so_before_the_last_is_computed():
    many = {str(i): ts.cosine(1.0, i / 100, steps=1_000) for i in range(100)}
    with pytest.raises(ts.ScheduleError, match=r"for '0', '1', '2' and 97 more"):
        ts.tabulate(many, max_bytes=100_000)


@pytest.mark.parametrize("families", [1, 2, 3, 4])
def test_a_table_is_scaled_where_that_takes_fewer_bytes(monkeypatch, families):
    """A family takes a column of float64, as much as two of float32."""
    monkeypatch.setattr(sharing, "SCALE_ABOVE", 0)
    curves = [ts.cosine(1.0, n / 8, steps=50) for n in range(families)]
    pairs = {f"{n}, {factor}": factor * curve for n, curve in enumerate(curves) for factor in (1.0, 2.0)}
    for schedules, scaled in ((pairs, False), (pairs | {"one more": 3.0 * curves[0]}, True)):
        for order in (dict, lambda items: dict(reversed(items))):
            table = ts.tabulate(order(list(schedules.items())))
            assert ("scaled" in repr(table)) == scaled
            assert table.nbytes <= 4 * table.rows * len(schedules) + 16 * len(schedules)


@pytest.mark.parametrize(
    ("others", "listed"),
    [(["x"], "'x'"), (list("stuvwxyz"), "'s', 't', 'u', 'v', 'w', 'x', 'y', 'z'"), (list("rstuvwxyz"), "'r', 's', 't', 'u', 'v', 'w', 'x', 'y' and others")],
)  # fmt: skip
def test_names_that_share_a_column_are_listed_but_not_all(others, listed):
    rise = ts.linear(0.0, 1.0, steps=8)
    table = ts.tabulate({"before": 2.0 * rise} | dict.fromkeys([*others, "m"], rise) | {"zz": 3.0 * rise})
    with pytest.raises(
        SharedColumnError,
        match=rf"^'m' shares a column of the table with {listed}, because their schedules were equal",
    ):
        replacement(table, dict.fromkeys(others, 4.0 * rise), lambda *_: None)
    assert live_at(table, 8) == {"before": 2.0, "zz": 3.0} | dict.fromkeys([*others, "m"], 1.0)


def test_a_table_that_cannot_grow_says_how_far_it_should_reach():
    table = ts.tabulate({"a": ts.linear(0.0, 1.0, steps=8)})
    text = (
        r"change up to step 11, and the table ends at step 8\. .*pass attach\(\.\.\., capacity=11\) or more"
    )
    with pytest.raises(ts.ScheduleError, match=text):
        replacement(table, {"a": ts.linear(0.0, 1.0, steps=11)}, lambda *_: None)
    assert table.rows == 9


def test_factors_beyond_the_exponent_range_do_not_spoil_a_shared_column():
    small, large = ts.linear(1e-300, 2e-300, steps=4), 1e30 * ts.linear(1.0, 2.0, steps=4)
    table = ts.tabulate({"small": small, "large": large}, scale=True, dtype=torch.float64)
    assert live_at(table, 4) == {"small": 2e-300, "large": 2e30}
    assert live_at(ts.tabulate({"small": small, "large": large}, scale=True), 0)["large"] == np.float32(1e30)


def test_a_column_of_subnormal_numbers_is_compared_without_a_warning():
    tiny = ts.constant(0.21875) ** 468.0  # 1e-309
    table = ts.tabulate({"tiny": tiny, "sum": 0.3 * tiny + 1.0}, scale=True)
    assert live_at(table, 0)["sum"] == 1.0


def test_many_different_columns_are_compared_by_their_look():
    table = ts.tabulate({str(i): ts.cosine(1.0, i / 400, steps=50) for i in range(200)}, scale=True)
    assert table.host.shape[0] == 200


def test_the_extremes_of_scaled_columns_are_those_of_their_values():
    lr = ts.linear(0.0, 1.0, steps=300) >> ts.linear(1.0, 0.25, steps=600)
    table = ts.tabulate({f"{n}": float(n - 3) * lr for n in range(9) if n != 3}, scale=True)
    assert "from 1 scaled" in repr(table)
    low, high = table.layout.extremes()
    values = table.layout.block(0, table.rows)
    assert low.tolist() == values.min(axis=0).tolist()
    assert high.tolist() == values.max(axis=0).tolist()


def test_a_table_that_main_memory_has_no_room_for_is_refused(monkeypatch):
    monkeypatch.setattr(sharing, "free_bytes", lambda device: 100)
    with pytest.raises(ts.ScheduleError, match=r"does not fit.* on cpu, and 100 B may be used"):
        ts.tabulate({"a": ts.linear(0.0, 1.0, steps=1000)})


def test_a_message_about_memory_names_the_longest_first():
    steps = {"short": 4, "longest": 4000, "long": 400}
    schedules = {name: ts.linear(0.0, 1.0, steps=n) for name, n in steps.items()}
    error = memory.does_not_fit(8, 4001, schedules, torch.device("cpu"), None)
    assert "for 'longest', 'long', 'short'." in str(error)


def test_a_device_without_nextafter_counts_otherwise(monkeypatch):
    assert drivers._nextafter_counts.__wrapped__(torch.device("cpu"))

    def missing(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(torch, "nextafter", missing)
    assert not drivers._nextafter_counts.__wrapped__(torch.device("cpu"))

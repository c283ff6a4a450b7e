"""Clocks: rows that the lines between them do not miss, and engines that count in memory and on a device."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.engine import ClockEngine, ClockFloatEngine, ClockTable, Where, tabulate_on_clock
from tensorsched.engine import rows as rows_module
from tensorsched.engine.clocked import CpuClock, DeviceClock
from tensorsched.errors import ScheduleError
from tensorsched.schedules import reference
from tensorsched.schedules.node import sample
from tests.strategies import bounded

TOKENS = ts.clock("tokens")
LR = ts.warmup_cosine(3e-4, total=10**12, warmup=10**9)
COUNTS = st.one_of(st.integers(0, 3), st.integers(0, 5_000), st.integers(0, 10**9))


def table_of(schedule: ts.Schedule, clock: ts.Clock = TOKENS, **options: Any) -> ClockTable:
    return tabulate_on_clock({"x": schedule}, clock, **options)


def line(table: ClockTable, position: int) -> float:
    """The oracle: the line through the two rows around a position, in exact fractions, rounded once."""
    rows = list(
        zip(table.positions[: table.used].tolist(), table.data[: table.used, 1].tolist(), strict=True)
    )
    (p, a) = [row for row in rows if row[0] <= position][-1]
    later = [row for row in rows if row[0] > position]
    if not later or table.clock.between == "hold":
        return a
    q, b = later[0]
    return float(Fraction(a) + (Fraction(b) - Fraction(a)) * Fraction(position - p, q - p))


def engines(table: ClockTable, how: type) -> ClockEngine:
    """An engine that is driven so, whatever the table's device."""

    class Driven(ClockEngine):
        _driver = staticmethod(how)

    return Driven.of(table)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_stairs_that_meet_a_line_where_it_is_halved_are_seen():
    """A whole number that falls by one every two positions is on the line at each even distance."""
    stairs = ts.power_law(115.0, 2.0, timescale=0.5).take(1000).floor().stretch(1000.0)
    table = table_of(stairs)
    assert [table.value("x", p) for p in range(9)] == [115, 114, 114, 113, 113, 112, 112, 111, 111]


@settings(max_examples=150)
@given(bounded(), st.sampled_from([1, 7, 10**3, 10**6]), st.data())
def test_a_line_is_never_further_off_than_the_error(schedule, pace, data):
    """On a clock of many units the same curve, laid over them."""
    stretched = schedule.stretch(pace) if schedule.steps else schedule
    reach = stretched.settled
    assume(reach is not None and reach < 10**9)
    try:
        table = table_of(stretched)
    except ScheduleError:  # faster than rows could follow, or not finite
        assume(False)
    positions = np.array(
        [
            *data.draw(st.lists(st.integers(0, reach + 3), min_size=20, max_size=20)),
            0,
            reach,
            max(reach - 1, 0),
        ]
    )
    found = np.array([table.value("x", int(p)) for p in positions])
    peak = np.abs(table.data[: table.used, 1]).max()
    # 4/3 of what was tried is the bound for one kink; several in one line are found by their marks or by trying.
    assert (
        np.abs(found - sample(stretched, positions.astype(float))).max() <= 4 * TOKENS.error * peak + 1e-300
    )


@pytest.mark.parametrize(
    ("schedule", "rows"),
    [
        (LR, 7_500),
        (ts.multistep(1.0, [123_456_789, 10**11], factor=0.1), 6_000),
        (ts.wsd(3e-4, total=10**13, warmup=0.01, decay=0.2, shape="1-sqrt"), 6_500),
        (ts.linear(0.0, 1.0, steps=10**9).repeat(10), 6_000),
    ],
)
def test_kinks_and_jumps_are_exact_wherever_they_are(schedule, rows):
    table = table_of(schedule)
    assert table.error <= 1e-6
    assert table.used <= rows
    marks = [int(at) for at, _ in schedule._marks_before(float(schedule.settled))]
    for at in {p for mark in marks for p in (mark - 1, mark, mark + 1) if p >= 0} - {0}:
        assert table.value("x", at) == pytest.approx(schedule(at), rel=0, abs=1e-6 * 3e-4)
    for mark in marks[1:]:
        assert table.value("x", mark) == schedule(mark)
        assert table.value("x", mark - 1) == schedule(mark - 1)


def test_a_jump_that_no_mark_tells_of_is_found():
    hidden = ts.from_function(lambda step: float(step >= 77_771), steps=100_000)
    table = table_of(hidden)
    assert [table.value("x", p) for p in (77_770, 77_771)] == [0.0, 1.0]


def test_ten_trillion_tokens_fit_in_16_megabytes():
    for clock in (TOKENS, ts.clock("tokens", resolution=2**25)):
        assert table_of(ts.cosine(3e-4, 0.0, steps=10**13), clock).nbytes < 16e6


@pytest.mark.parametrize("apex", range(1, 100))
def test_a_line_is_not_further_off_one_kink_than_is_said(apex):
    """Wherever the kink stands: 4/3 of what the four tries find is never less than it."""
    tent = ts.piecewise_linear([(0, 0.0), (apex, 1.0), (100, 0.0)])
    positions = np.array([0, 100])
    (most,) = rows_module._off(tent, positions, np.zeros(2), np.array([0]))
    assert 1.0 - 2.0**-50 <= most <= 4.0 / 3.0


def test_an_error_that_was_reached_is_enough_to_ask_for():
    first = table_of(ts.cosine(1.0, 0.0, steps=10**6))
    again = table_of(first.schedules["x"], ts.clock("t", error=first.error))
    assert (again.used, again.error) == (first.used, first.error)


def test_rows_may_take_so_many_bytes_and_no_more(monkeypatch):
    curve, clock = ts.cosine(1.0, 0.0, steps=10**6), ts.clock("t", resolution=10**6)
    used = table_of(curve, clock).used
    assert used > 100  # most of them because lines missed
    monkeypatch.setattr(rows_module, "_MOST_BYTES", 32 * used)
    assert table_of(curve, clock).used == used
    monkeypatch.setattr(rows_module, "_MOST_BYTES", 32 * used - 1)
    with pytest.raises(ScheduleError, match=rf"change faster than {used} rows could follow"):
        table_of(curve, clock)


@pytest.mark.parametrize(("columns", "spare"), [(1, 4096), (15, 4096), (63, 1024), (127, 512)])
def test_the_room_for_other_schedules_is_4096_rows_or_a_mebibyte(columns, spare):
    lines = {str(n): ts.linear(0.0, 1.0 + n, steps=4) for n in range(columns)}
    exact, roomy = (tabulate_on_clock(lines, TOKENS, capacity=n) for n in (None, 4))
    assert len(exact.positions) == exact.used + 1
    assert len(roomy.positions) == roomy.used + 1 + spare


def test_rows_stand_no_further_apart_than_the_resolution():
    table = table_of(ts.cosine(1.0, 0.0, steps=1_000), ts.clock("tokens", resolution=64))
    assert np.diff(table.positions[: table.used]).max() <= 64


def test_held_values_are_those_of_the_multiples():
    curve = ts.cosine(1.0, 0.0, steps=1_000)
    table = table_of(curve, ts.clock("tokens", resolution=64, between="hold"))
    assert [table.value("x", p) for p in (0, 63, 64, 130, 999)] == [
        curve(p - p % 64) for p in (0, 63, 64, 130, 999)
    ]
    assert table.error == pytest.approx(
        max(abs(curve(p) - curve(p - p % 64)) for p in range(1_001)), rel=0.01
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (ts.clock, "clock: unit must be what is counted"),
        (lambda: ts.clock(""), "clock: unit"),
        (lambda: ts.clock(3), "clock: unit"),
        (lambda: ts.clock("tokens", resolution=0), "clock: resolution"),
        (lambda: ts.clock("tokens", resolution=2.5), "clock: resolution"),
        (lambda: ts.clock("tokens", between="cubic"), "'linear' or 'hold'"),
        (lambda: ts.clock("tokens", between="hold"), "pass resolution=n"),
        (lambda: ts.clock("tokens", error=0.0), "clock: error"),
        (lambda: ts.clock("tokens", error=math.nan), "clock: error"),
        (lambda: ts.clock("tokens", skipped="maybe"), "'counted' or 'dropped'"),
        (lambda: ts.clock("tokens", total=3), "the schedules have their own total"),
        (lambda: ts.clock("tokens", progress=True), "takes no unit"),
        (lambda: ts.clock(progress=0.5), "clock: progress"),
        (lambda: table_of(ts.inverse_sqrt(1.0, timescale=9)), "never settles"),
        (lambda: table_of(ts.cosine(1.0, 0.0, steps=64).repeat(10**8)), "faster than"),
        (lambda: table_of(ts.cosine(1.0, 0.0, steps=10**6), ts.clock("t", resolution=10**5, between="hold", error=1e-3)), "held for"),
        (lambda: table_of(ts.linear(0.0, 1e39, steps=9)), "overflows"),
        (lambda: table_of(ts.cosine(1.0, 0.0, steps=10**15), ts.clock("t", resolution=1)), "larger resolution"),
        (lambda: table_of(LR, capacity=10**9), "beyond the capacity"),
        (lambda: table_of(LR, ts.clock(progress=True)), "whole of the progress clock is 1000000"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error(call, text):
    with pytest.raises(ScheduleError, match=text):
        call()


def test_more_error_is_let_through_where_it_is_asked_for():
    fine, coarse = (
        table_of(ts.cosine(1.0, 0.0, steps=10**6).repeat(300), ts.clock("t", error=e)) for e in (1e-6, 1e-3)
    )
    assert coarse.used < fine.used
    assert 1e-6 < coarse.error <= 1e-3


def test_equal_columns_are_one():
    table = tabulate_on_clock({"a": LR, "b": LR + 0.0, "c": 2.0 * LR}, TOKENS)
    assert table.live_column == {"a": 0, "b": 0, "c": 1}


# -- engines -----------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    bounded(),
    st.sampled_from([1, 10**3, 10**6]),
    st.lists(st.tuples(COUNTS, COUNTS, st.booleans()), max_size=12),
)
def test_all_engines_are_where_the_oracle_is(schedule, pace, runs):
    """Floats, CPU tensors, a device's kernels and the formula of a graph, over any counts and skipped steps."""
    try:
        tables = [
            table_of(schedule.stretch(pace) if schedule.steps else schedule, dtype=dtype)
            for dtype in (torch.float32, torch.float64)
        ]
    except ScheduleError:
        assume(False)
    table = tables[0]
    floats, cpu, device, graph = (
        ClockFloatEngine(tables[1]), engines(table, CpuClock), engines(table, DeviceClock), engines(table, CpuClock)
    )  # fmt: skip
    rows, position, counted, steps = floats.following(), 0, 0, 0
    for first, second, skipped in runs:
        found_inf = torch.tensor([float(skipped)])
        for engine in (floats, cpu, device):
            engine.count(first)
            engine.count(torch.tensor(second))
        graph.count_in_graph(first)
        graph.count_in_graph(torch.tensor([second]))
        counted += first + second
        for engine in (cpu, device):
            engine.advance(found_inf)
        graph.advance_in_graph(found_inf)
        if not skipped:
            next(rows)
            floats.step_count += 1
            position, steps = counted, steps + 1
        expected, peak = line(table, position), np.abs(table.data[:, 1]).max()
        for engine in (floats, cpu, device, graph):
            assert engine.where == Where(position, steps, counted)
        assert floats.row()[0] == pytest.approx(expected, rel=2**-50, abs=2**-50 * peak)
        for engine in (cpu, device, graph):
            # One rounding to float32; the product and sum in float64 are far below it, but where they cancel.
            assert engine.value("x").item() == pytest.approx(expected, rel=2**-24, abs=2**-50 * peak + 1e-45)
        assert device.intact()
        assert cpu.intact()


@pytest.mark.parametrize("how", [CpuClock, DeviceClock])
def test_a_dropped_count_is_forgotten_with_its_step(how):
    skipped = torch.ones(1)
    for clock, after in ((TOKENS, 30), (ts.clock("tokens", skipped="dropped"), 20)):
        for graph in (False, True):
            engine = engines(table_of(ts.linear(0.0, 1.0, steps=100), clock), how)
            engine.count(10)
            (engine.advance_in_graph if graph else engine.advance)(skipped)
            engine.count(20)
            (engine.advance_in_graph if graph else engine.advance)(torch.zeros(1))
            assert engine.where == Where(after, 1, after)


@pytest.mark.parametrize("how", [CpuClock, DeviceClock])
def test_seek_copy_and_counting_up_to(how):
    engine = engines(table_of(LR), how)
    engine.count(5)
    engine.advance()
    engine.seek(10**9)
    assert (engine.where, engine.value("x").item()) == (Where(10**9, 1, 10**9), np.float32(3e-4))
    engine.count_to(10**12)
    engine.advance()
    assert engine.value("x").item() == 0.0
    engine.count(3)
    engine.drop()
    assert engine.where == Where(10**12, 2, 10**12)
    for other in (
        copy.deepcopy(ClockEngine.of(engine.table)),
        pickle.loads(pickle.dumps(ClockEngine.of(engine.table))),
    ):
        other.count(7)
        other.advance()
        assert (other.where.position, engine.where.position) == (7, 10**12)


def test_the_rows_are_the_reference_of_the_schedule():
    table = table_of(ts.warmup_cosine(1.0, total=10**6, warmup=10**4))
    for position, value in zip(
        table.positions[: table.used : 97].tolist(), table.data[: table.used : 97, 1], strict=True
    ):
        assert value == pytest.approx(reference.value(table.schedules["x"], position), rel=2**-48)


@pytest.mark.parametrize("progress", [1, 1.0, 0, "yes"])
def test_progress_is_a_function_or_true_itself(progress):
    with pytest.raises(ts.ScheduleError, match=r"clock: progress must be a function .*or True"):
        ts.clock(progress=progress)

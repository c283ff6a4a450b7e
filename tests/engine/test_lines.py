"""Reading a clock's rows on a CPU: whatever was read before, a position has the value of the row that serves it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.engine import ClockFloatEngine, ClockTable, Where, replacement_on_clock, tabulate_on_clock
from tensorsched.engine.lines import reader, writer

TOTAL = 10**6
POSITIONS = st.one_of(st.integers(0, 40), st.integers(0, TOTAL), st.integers(0, 2**53))
WIDTHS = pytest.mark.parametrize("width", [1, 2, 16, 17, 40])


def table_of(width: int, dtype: torch.dtype = torch.float64, between: str = "linear") -> ClockTable:
    """Columns of their own shape each, with a jump and a part that lasts one unit."""
    schedules = {
        f"{i}": ts.linear(0.0, 1.0 + i, steps=TOTAL // (i + 2)) >> ts.cosine(0.3, 0.1 * i, steps=TOTAL // 3)
        for i in range(width)
    }
    clock = ts.clock("tokens", between=between, resolution=TOTAL // 50)
    return tabulate_on_clock(schedules, clock, dtype=dtype, capacity=TOTAL)


@WIDTHS
@pytest.mark.parametrize("between", ["linear", "hold"])
def test_it_reads_what_the_table_has_wherever_it_was_before(width, between):
    table = table_of(width, between=between)

    @settings(max_examples=40)
    @given(st.lists(POSITIONS, min_size=1, max_size=30), st.integers(1, TOTAL // 30))
    def check(jumps: list[int], stride: int) -> None:
        read = reader(table)
        for position in [*jumps, *range(0, 2 * TOTAL, stride)[:60], *reversed(jumps)]:
            assert read(position) == table.at(position).tolist()

    check()


@WIDTHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_writes_the_same_rounded_once(width, dtype):
    table = table_of(width, dtype)
    live = torch.zeros(1, width, dtype=dtype)
    write, version = writer(table, live), live._version
    for position in [0, 1, 7, *range(0, TOTAL, TOTAL // 77), 2**53, 3]:
        write(position)
        assert torch.equal(live[0], torch.from_numpy(table.at(position)).to(dtype))
    assert live._version == version, "no write of torch's: what raises it is somebody else's"


@WIDTHS
def test_after_a_replacement_another_one_reads_the_new_rows(width):
    table = table_of(width)
    old = reader(table)
    before = old(1000)
    fewer = {name: 0.5 * schedule for name, schedule in table.schedules.items()}
    replacement_on_clock(table, fewer, lambda *_: None)()
    assert reader(table)(1000) == table.at(1000).tolist() != before


def test_an_engine_of_floats_is_copied_with_its_counts():
    engine = ClockFloatEngine(table_of(2))
    engine.count(700_000)
    engine.made()
    engine.count(30)
    for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert other.where == engine.where == Where(700_000, 1, 700_030)
        other.seek(5)
        assert other.row() == other.table.at(5).tolist()
        assert engine.row() == engine.table.at(700_000).tolist() != other.row()

"""The engine: the clock, live values, both drivers, and what a step costs in operations."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import tensorsched as ts
from tensorsched.engine import Inputs, ReactiveEngine
from tensorsched.engine.drivers import DeviceDriver, _nextafter_counts
from tensorsched.engine.memory import free_bytes
from tests import strategies
from tests.engine.test_table import compiled

LR = ts.warmup_cosine(3e-4, total=2_000, warmup=100, floor=3e-5)
FAR = 10**12


class Operations(TorchDispatchMode):
    """Names every ATen operation: on a GPU each that is no view is a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def on_device(table: ts.ScheduleTable) -> ts.ScheduleEngine:
    """An engine that takes the path of a GPU, on the CPU."""
    engine = ts.ScheduleEngine(table)
    engine.driver = DeviceDriver(table, engine.live)
    engine.seek(0)
    return engine


ENGINES = pytest.mark.parametrize("build", [ts.ScheduleEngine, on_device])
LAYOUTS = pytest.mark.parametrize("scale", [True, False])


@ENGINES
@given(
    schedule=strategies.schedules(max_leaves=3),
    moves=st.lists(st.integers(0, 60), max_size=4),
    scale=st.booleans(),
)
def test_seek_is_that_many_advances(build, schedule, moves, scale):
    table = compiled({"x": schedule, "y": 0.3 * schedule + 1.0}, steps=50, scale=scale)
    walked, sought = build(table), build(table)
    total = 0
    for move in moves:
        for _ in range(move):
            walked.advance()
        total += move
        sought.seek(total)
        assert torch.equal(walked.live, sought.live)
        assert walked.step_count == sought.step_count == total


@given(schedule=strategies.schedules(max_leaves=3), scale=st.booleans(), start=st.integers(0, 60))
def test_both_drivers_give_the_same_bits(schedule, scale, start):
    table = compiled({"x": schedule, "y": -1.7 * schedule}, steps=50, scale=scale)
    host, device = ts.ScheduleEngine(table), on_device(table)
    for engine in (host, device):
        engine.seek(start)
        engine.advance()
    assert torch.equal(host.live, device.live)
    assert host.step_count == device.step_count == start + 1


@ENGINES
@LAYOUTS
def test_the_clock_is_exact_far_out(build, scale):
    engine = build(ts.tabulate({"lr": LR, "half": 0.5 * LR}, scale=scale))
    engine.seek(FAR)
    for _ in range(3):
        engine.advance()
    assert engine.step_count == FAR + 3
    assert engine.clock.dtype == torch.int64
    assert engine.value("lr").item() == torch.tensor(3e-5).item()
    engine.seek(100)
    assert engine.value("half").item() == torch.tensor(1.5e-4).item()


@ENGINES
def test_a_value_is_one_tensor_that_is_always_current(build):
    engine = build(ts.tabulate({"lr": LR}))
    value = engine.value("lr")
    seen = []
    for _ in range(5):
        seen.append(value.item())
        engine.advance()
    assert seen == [torch.tensor(LR(t)).item() for t in range(5)]
    assert len(set(seen)) == 5, "a frozen value would pass the line above only if the schedule stood still"
    assert engine.value("lr") is value
    assert value.shape == ()


@LAYOUTS
def test_a_step_on_a_device_is_two_kernels_and_a_third_for_scaled_tables(scale):
    engine = on_device(ts.tabulate({"lr": LR, "half": 0.5 * LR}, scale=scale))
    with Operations() as step:
        engine.advance()
    kernels = [name for name in step.names if "view" not in name]
    assert kernels == ["aten.nextafter.out", "aten.index_select.out", *(["aten.mul.out"] if scale else [])]
    with Operations() as control:
        torch.add(engine.live, 1.0)
        engine.step_count  # noqa: B018  the control: a read on the host is seen
    assert "aten._local_scalar_dense.default" in control.names


VIEWS = {"aten.view", "aten.slice", "aten.expand", "aten.select"}


@pytest.mark.parametrize(
    ("operations", "kernels"),
    [
        (lambda x: LR * x, ["aten.mul.out"]),
        (lambda x: (LR * x).clamp(0.0, 1.0), ["aten.mul.Tensor", "aten.minimum.default", "aten.maximum.default", "aten.copy_.default"]),
    ],
)  # fmt: skip
def test_one_operation_with_a_live_value_is_one_kernel_which_rounds(operations, kernels):
    x = ts.live("x", 0.5)
    engine = ReactiveEngine({"lr": operations(x)}, Inputs({"x": x}, torch.device("cpu")), None)
    (compute,) = engine._runs
    with Operations() as step:
        compute()
    assert [name for name in step.names if name.rpartition(".")[0] not in VIEWS] == kernels
    assert engine.value("lr") == 0.5 * torch.tensor(LR(0))


def test_counting_without_nextafter_gives_the_same():
    table = ts.tabulate({"lr": LR})
    by_bits, by_adding = on_device(table), on_device(table)
    assert _nextafter_counts(torch.device("cpu"))
    by_adding.driver._by_nextafter = False
    for start in (0, 1_998, FAR):
        by_bits.seek(start)
        by_adding.seek(start)
        for _ in range(4):
            by_bits.advance()
            by_adding.advance()
            assert torch.equal(by_bits.driver._state, by_adding.driver._state)
            assert torch.equal(by_bits.live, by_adding.live)


@ENGINES
@LAYOUTS
def test_a_skipped_step_does_not_count(build, scale):
    engine = build(ts.tabulate({"lr": LR}, scale=scale))
    for found_inf, expected in ((0.0, 1), (1.0, 1), (2.0, 1), (0.0, 2)):
        engine.advance(torch.tensor([found_inf]))
        assert engine.step_count == expected
        assert engine.value("lr").item() == torch.tensor(LR(expected)).item()


def test_deciding_about_a_skipped_step_reads_nothing_on_the_host():
    engine = on_device(ts.tabulate({"lr": LR}))
    found_inf = torch.tensor([0.0])
    with Operations() as step:
        engine.advance(found_inf)
    assert "aten._local_scalar_dense.default" not in step.names


@ENGINES
@LAYOUTS
def test_a_foreign_write_is_noticed(build, scale):
    engine = build(ts.tabulate({"lr": LR, "half": 0.5 * LR}, scale=scale))
    engine.advance()
    engine.seek(7)
    assert engine.intact()
    engine.value("half").fill_(3.0)
    assert not engine.intact()
    engine.advance()
    assert not engine.intact(), "the engine's own write does not hide it"
    engine.seek(7)
    assert engine.intact()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))])
@LAYOUTS
def test_a_copy_has_a_clock_of_its_own(duplicate, scale):
    engine = ts.ScheduleEngine(ts.tabulate({"lr": LR, "half": 0.5 * LR}, scale=scale))
    engine.seek(7)
    twin = duplicate(engine)
    assert torch.equal(twin.live, engine.live)
    twin.advance()
    assert (twin.step_count, engine.step_count) == (8, 7)
    assert twin.value("half").item() == torch.tensor(0.5 * LR(8)).item() != engine.value("half").item()


@ENGINES
def test_errors_change_nothing(build):
    engine = build(ts.tabulate({"lr": LR}))
    engine.seek(5)
    before = engine.live.clone()
    for step in (-1, 1.5, True, "3", None):
        with pytest.raises(ts.ScheduleError, match="seek: step must be a whole number of steps"):
            engine.seek(step)
    with pytest.raises(ts.ScheduleError, match="no schedule named 'lrr'; it has 'lr'"):
        engine.value("lrr")
    assert engine.step_count == 5
    assert torch.equal(engine.live, before)


# -- an engine beside another -------------------------------------------------------------------------------------


def test_an_extended_engine_moves_the_tensors_of_the_first():
    schedules = {"a": ts.linear(0.0, 1.0, steps=8), "b": ts.linear(1.0, 0.0, steps=8)}
    engine = ts.ScheduleEngine(ts.tabulate(schedules), room=2)
    held = engine.value("b")
    more = schedules | {"c": ts.linear(0.0, 4.0, steps=16)}
    both = engine.extended(ts.tabulate(more))
    assert both is not None
    assert (engine.room, both.room) == (2, 1)
    assert both.value("b") is held
    both.seek(3)
    both.advance()
    assert (held, both.value("c"), engine.value("a")) == (0.5, 1.0, 0.5)
    assert both.intact()
    engine.seek(2)
    assert (held, engine.intact(), engine.step_count, both.step_count) == (0.75, True, 2, 4)
    held.mul_(2.0)
    assert not engine.intact()


@pytest.mark.parametrize(
    "more",
    [
        {
            "b": ts.linear(0.0, 1.0, steps=8)
        },  # one stored column for two, which could not be rewritten alone any more
        {"b": ts.constant(2.0), "c": ts.constant(3.0)},  # no room
    ],
)
def test_an_engine_that_cannot_be_extended_says_so(more):
    schedules = {"a": ts.linear(0.0, 1.0, steps=8)}
    engine = ts.ScheduleEngine(ts.tabulate(schedules), room=1)
    assert engine.extended(ts.tabulate(schedules | more)) is None
    assert engine.extended(ts.tabulate(more | schedules)) is None
    assert engine.value("a") == 0.0


def test_what_torch_keeps_of_a_device_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20)
    assert free_bytes(torch.device("cuda")) == 130

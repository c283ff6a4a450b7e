"""Live inputs in expressions: what is refused, what is split, and that the decisions are torch's and transformers'."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.engine import Inputs
from tensorsched.errors import ScheduleError
from tensorsched.schedules import reference
from tensorsched.schedules.split import bounded, inputs_of, split, value_now
from tests.strategies import bounded as bounded_schedules
from tests.strategies import live_expressions, schedules

CPU = torch.device("cpu")
# What a metric may be, some of it to within the thresholds of each other.
metrics = st.lists(
    st.one_of(
        st.sampled_from([1.0, 1.0001, 0.9999, 0.5, 0.0, -1.0, math.nan, math.inf, -math.inf]),
        st.floats(-2.0, 2.0),
        st.floats(width=32),
    ),
    min_size=1,
    max_size=60,
)
common = {
    "mode": st.sampled_from(["min", "max"]),
    "factor": st.sampled_from([0.1, 0.5, 0.9]),
    "patience": st.integers(0, 3),
    "threshold": st.sampled_from([0.0, 1e-4, 0.1, 1.0]),
    "threshold_mode": st.sampled_from(["rel", "abs"]),
    "cooldown": st.integers(0, 3),
    "eps": st.sampled_from([0.0, 1e-8, 0.05]),
}
plateaus = st.fixed_dictionaries(common | {"min_scale": st.sampled_from([0.0, 0.05, 0.5, 1.0])})
greedies = st.fixed_dictionaries(
    common
    | {
        "warmup": st.integers(0, 3),
        "min_scale": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        "max_scale": st.sampled_from([1.0, 2.0, 1e3]),
        "window": st.sampled_from([0, 0, 1, 3]),
        "reset_start": st.integers(0, 3),
    }
)


def shown(reaction: ts.Schedule, metrics: list, *, tensors: bool = False) -> list[float]:
    """The factor after each metric, decided with floats or as on a device."""
    inputs = Inputs({reaction.name: reaction}, CPU)
    found = []
    for metric in metrics:
        if tensors:
            inputs._react(reaction.name, reaction, metric)
        else:
            inputs.observe({reaction.name: metric})
        found.append(float(inputs[reaction.name]))
    return found


def lr_of(scheduler, metrics: list) -> list[float]:
    """What another library's scheduler makes of an lr of 1."""
    found = []
    for metric in metrics:
        scheduler.step(metric)
        found.append(scheduler.optimizer.param_groups[0]["lr"])
    return found


def at_lr_1() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


class TestDecisions:
    @given(plateaus, metrics)
    def test_a_plateau_decides_as_torch(self, options, seen):
        theirs = {("min_lr" if key == "min_scale" else key): value for key, value in options.items()}
        expected = lr_of(torch.optim.lr_scheduler.ReduceLROnPlateau(at_lr_1(), **theirs), seen)
        assert shown(ts.plateau(**options), seen) == expected
        assert (
            shown(ts.plateau(**options), [torch.tensor(x, dtype=torch.float64) for x in seen], tensors=True)
            == expected
        )

    @given(greedies, metrics)
    def test_greedy_decides_as_transformers(self, options, seen):
        from transformers.optimization import GreedyLR  # noqa: PLC0415  a second to import

        renamed = {"min_scale": "min_lr", "max_scale": "max_lr", "window": "window_size"}
        theirs = {renamed.get(key, key): value for key, value in options.items()}
        if not theirs["window_size"]:
            theirs |= {"smooth": False, "window_size": 50}
        else:
            theirs["smooth"] = True
        expected = lr_of(GreedyLR(at_lr_1(), **theirs), seen)
        # A reset takes a new window there. Ours does the same.
        assert shown(ts.greedy(**options), seen) == expected
        assert shown(ts.greedy(**options), seen, tensors=True) == expected

    def test_a_float32_metric_is_taken_as_it_is(self):
        near = torch.tensor(
            [1.0, 1.0 - 1e-4], dtype=torch.float32
        )  # better by less, or more, once it is rounded
        options = {"patience": 0, "factor": 0.5}
        theirs = lr_of(torch.optim.lr_scheduler.ReduceLROnPlateau(at_lr_1(), **options), list(near))
        assert shown(ts.plateau(**options), list(near)) == theirs
        assert shown(ts.plateau(**options), list(near), tensors=True) == theirs

    def test_these_sequences_reduce_at_all(self):
        options = {"factor": 0.5, "patience": 1, "cooldown": 1}
        assert shown(ts.plateau(**options), [1.0] * 7)[-1] == 0.25
        raised = shown(ts.greedy(factor=0.5, patience=0, max_scale=8.0), [1.0, 0.5, 0.25, 0.25])
        assert raised == [2.0, 4.0, 8.0, 4.0]
        assert shown(ts.greedy(factor=0.5, patience=0, min_scale=0.5, reset_start=2), [1.0] * 5) == [
            1.0,
            0.5,
            1.0,
            1.0,
            0.5,
        ]

    @given(metrics, st.floats(0.1, 0.9))
    def test_a_smoothed_metric_is_its_running_mean(self, seen, part):
        mean, smoothed = None, []
        for x in seen:
            mean = mean if not math.isfinite(x) else x if mean is None else part * mean + (1.0 - part) * x
            smoothed.append(mean if math.isfinite(x) else x)
        options = {"factor": 0.5, "patience": 1}
        expected = shown(ts.plateau(**options), smoothed)
        assert shown(ts.plateau(**options, smoothing=part), seen) == expected
        assert shown(ts.plateau(**options, smoothing=part), seen, tensors=True) == expected

    def test_a_spike_cuts_what_is_left(self):
        losses = [1.0, 1.0, 5.0, 1.0, 5.0, 1.0, math.nan, 1.0, 5.0, 5.0, 1.0, 9.0]
        options = {"above": 2.0, "factor": 0.5, "times": 3, "hold": 2, "average": 0.5}
        found = shown(ts.spike(**options), losses)
        # A hold of 2 after each cut: the 5 at 4 is let pass and enters the mean, which that at 9 is not twice; NaN is a
        # spike.
        assert found == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125]
        assert shown(ts.spike(**options), losses, tensors=True) == found

    def test_no_more_cuts_than_were_asked_for(self):
        assert shown(ts.spike(hold=0, times=2, average=0.0), [1.0, 9.0, 9.0, 9.0])[-1] == 0.25
        assert shown(ts.spike(hold=0, times=3, average=0.0), [1.0, 9.0, 9.0, 9.0])[-1] == 0.125

    def test_an_infinite_loss_is_a_spike_and_enters_no_mean(self):
        found = shown(ts.spike(hold=1, average=0.5), [1.0, math.inf, 1.0, 2.5])
        assert found == [1.0, 0.5, 0.5, 0.25]

    @given(
        st.sampled_from([ts.plateau(patience=1), ts.greedy(patience=1, window=2), ts.spike(hold=1)]), metrics
    )
    def test_a_state_goes_on_where_it_was(self, reaction, seen):
        whole, halves = Inputs({reaction.name: reaction}, CPU), Inputs({reaction.name: reaction}, CPU)
        for x in seen:
            whole.observe({reaction.name: x})
        for x in seen[: len(seen) // 2]:
            halves.observe({reaction.name: x})
        resumed = Inputs({reaction.name: reaction}, CPU)
        resumed.load(resumed.read(halves.state()))
        for x in seen[len(seen) // 2 :]:
            resumed.observe({reaction.name: x})
        np.testing.assert_equal(resumed.state(), whole.state())
        again = Inputs({reaction.name: reaction}, CPU)
        again.load(again.read_numbers(whole.numbers()))
        np.testing.assert_equal(again.state(), whole.state())


class TestSplit:
    @settings(max_examples=200)
    @given(live_expressions(), st.lists(st.floats(0.1, 2.0), min_size=3, max_size=3), st.integers(0, 90))
    def test_a_program_has_the_values_of_the_reference(self, schedule, values, step):
        inputs = dict(zip(("a", "b", "plateau"), values, strict=True))
        given = {held.name: inputs[held.name] for held in schedule.inputs()}
        try:
            expected = reference.value(schedule, step, inputs=given)
        except ScheduleError:
            return
        try:
            found = value_now(schedule, step, inputs)
        except ScheduleError:  # a column is not finite, where the whole is: max(1, -1 / 0)
            return
        # A program computes what the node computes, in the same order; columns and reference are 4 ulp apart, and ** and
        # a difference enlarge that.
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)

    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_a_jump_at_the_end_is_where_it_stays(self, steps):
        jump = (ts.constant(2.0, steps=steps) * ts.live("a", 1.0)) >> ts.linear(1.0, 0.5, steps=0)
        for step in range(5):
            expected = reference.value(jump, step, inputs={"a": 3.0})
            assert value_now(jump, step, {"a": 3.0}) == expected == (6.0 if step < steps else 0.5)

    @given(live_expressions(), st.integers(0, 90))
    def test_without_a_run_an_input_is_what_it_starts_with(self, schedule, step):
        start = {held.name: held._start for held in schedule.inputs()}
        try:
            expected = value_now(schedule, step, start)
        except ScheduleError:
            return
        if math.isfinite(expected):
            assert schedule(step) == expected

    @given(schedules())
    def test_what_depends_on_the_step_alone_is_one_column_or_number(self, schedule):
        try:
            program = split(schedule)
        except ScheduleError:  # a number that is not finite
            return
        assert program.ops == ()
        assert len(program.columns) + len(program.constants) == 1

    def test_parts_are_as_large_as_they_come(self):
        a, b, x = ts.linear(0.0, 1.0, steps=4), ts.cosine(1.0, 0.0, steps=8), ts.live("x", 1.0)
        program = split((a * 2.0 >> b) * x)
        assert program.columns == (a * 2.0 >> b,)
        assert [op.name for op in program.ops] == ["*"]
        assert len(split((a * x) + (a * x) ** 2.0).ops) == 3  # a * x is computed once

    def test_a_part_that_is_not_finite_where_it_does_not_run_does_no_harm(self):
        falling = 1.0 / ts.linear(1.0, 0.0, steps=4)  # inf at its end, where the next one starts
        schedule = falling * ts.live("x", 1.0) >> ts.constant(2.0)
        assert [value_now(schedule, t, {"x": 2.0}) for t in (0, 2, 4, 5)] == [2.0, 4.0, 2.0, 2.0]

    def test_equal_structure_is_found(self):
        a, b = (ts.linear(0.0, peak, steps=4) * ts.plateau() for peak in (1.0, 2.0))
        assert split(a).structure == split(b).structure != split(a + 1.0).structure

    @given(bounded_schedules())
    def test_the_length_is_that_of_the_rest(self, schedule):
        assert (schedule * ts.plateau()).steps == schedule.steps

    def test_what_never_settles_is_bounded_inside(self):
        endless = ts.inverse_sqrt(1.0, timescale=10)
        schedule = ts.linear(0.0, 1.0, steps=5) >> endless * ts.live("x", 1.0)
        cut = bounded(schedule, 25)
        assert cut.constant_from is not None
        assert [value_now(cut, t, {"x": 2.0}) for t in (24, 25, 99)] == [
            value_now(schedule, t, {"x": 2.0}) for t in (24, 25, 25)
        ]


@pytest.mark.parametrize(
    "move",
    [
        lambda s: s.repeat(2),
        lambda s: s.delay(1),
        lambda s: s.take(1),
        lambda s: s.skip(1),
        lambda s: s.stretch(2.0),
        lambda s: s.hold_each(2),
        lambda s: s.mirror(),
        lambda s: s.warp(2.0),
        lambda s: s.span(2.5),
        lambda s: s.round(),
        lambda s: s.floor(),
    ],
)
@pytest.mark.parametrize("reaction", [ts.live("x", 1.0), ts.plateau()])
def test_what_moves_time_refuses_an_input_where_it_is_written(move, reaction):
    base = ts.linear(1.0, 0.0, steps=4)
    move(base)  # without one it is fine
    with pytest.raises(ScheduleError, match="has a value at the present step only: write it outside"):
        move(base * reaction)


def test_an_input_has_no_length():
    with pytest.raises(ScheduleError, match=r"ts.constant\(1.0, steps=n\) \* ..."):
        ts.live("x", 1.0) >> 1.0
    assert (ts.constant(1.0, steps=3) * ts.live("x", 2.0) >> 1.0).values(4).tolist() == [2.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ts.live("a b", 1.0), "name must be a name such as 'lr_scale'"),
        (lambda: ts.live("", 1.0), "name must be a name"),
        (lambda: ts.live(3, 1.0), "name must be a name"),
        (lambda: ts.live("x" * 41, 1.0), "at most 40 letters"),
        (lambda: ts.live("x", math.nan), "initial must be a finite number"),
        (lambda: ts.live("x"), "initial"),
        (lambda: ts.plateau(mode="low"), "mode must be one of 'min', 'max'"),
        (lambda: ts.plateau(factor=1.0), "factor must be above 0 and below 1"),
        (lambda: ts.plateau(factor=0.0), "factor must be"),
        (lambda: ts.plateau(patience=-1), "patience must be"),
        (lambda: ts.plateau(patience=1.5), "patience must be"),
        (lambda: ts.plateau(min_scale=1.5), "the scale starts at 1"),
        (lambda: ts.plateau(smoothing=1.0), "smoothing must be at least 0 and below 1"),
        (lambda: ts.plateau(min_lr=1e-5), "no argument 'min_lr'.*min_scale"),
        (lambda: ts.greedy(max_scale=0.5), "the scale starts there"),
        (lambda: ts.greedy(window=1001), "at most 1000 observations"),
        (lambda: ts.spike(above=1.0), "above must be above 1"),
        (lambda: ts.spike(times=0), "times must be"),
    ],
)
def test_a_mistake_is_an_error_where_it_is_written(make, text):
    with pytest.raises(ScheduleError, match=text):
        make()


def test_one_name_is_one_input():
    same = ts.linear(1.0, 0.0, steps=4) * ts.plateau(patience=3) * ts.plateau(patience=3)
    assert list(inputs_of([same])) == ["plateau"]
    with pytest.raises(ScheduleError, match="two live inputs are named 'plateau'"):
        inputs_of([same, ts.plateau(patience=4) * 1.0])


@given(live_expressions())
def test_text_and_json_bring_it_back(schedule):
    assert ts.from_json(schedule.to_json()) == schedule
    assert ts.parse(repr(schedule)) == schedule


def test_a_table_of_the_step_alone_refuses_it():
    with pytest.raises(ScheduleError, match=r"'x' depends on the run .*attach"):
        ts.tabulate({"x": ts.linear(1.0, 0.0, steps=4) * ts.plateau()})


def test_the_reference_takes_inputs_by_name():
    with pytest.raises(ScheduleError, match="no live input 'y'; it has"):
        reference.value(ts.live("x", 1.0) * 2.0, 0, inputs={"y": 1.0})


def test_a_picture_says_what_is_assumed():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    schedule = ts.linear(1.0, 0.0, steps=4) * ts.plateau()
    assert "inputs as at the start" in schedule.plot().get_title()
    assert "inputs as at the start" in schedule._repr_html_()
    assert "inputs" not in ts.linear(1.0, 0.0, steps=4).plot().get_title()


def test_check_looks_at_it_as_at_the_start():
    assert [finding.code for finding in ts.check(ts.linear(1.0, 0.0, steps=4) * ts.plateau(), steps=40)] == [
        "held-at-0"
    ]

"""Phases, windows and the points of a curve: what every picture of a schedule is drawn from."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import assume, example, given, settings

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tensorsched.schedules.node import NODES, SHAPES, node
from tensorsched.schedules.views import picture as picture_module
from tensorsched.schedules.views.numerals import count, ticks
from tensorsched.schedules.views.phases import phases
from tensorsched.schedules.views.picture import EXACT, drawable, picture, window
from tests import strategies


def curve(schedule, last, points=1000):
    (line,) = picture([schedule], last=last, points=points).lines
    return line.steps, line.values


WARM = ts.warmup_cosine(1.0, total=100, warmup=10)
ROWS = [
    (WARM, 100, [(0, 10, "linear"), (10, 100, "cosine"), (100, None, "holds")]),
    (0.5 * WARM + 1.0, 100, [(0, 10, "linear"), (10, 100, "cosine"), (100, None, "holds")]),
    (WARM.clamp(0.1, 0.9), 100, [(0, 10, "linear"), (10, 100, "cosine"), (100, None, "holds")]),
    (WARM.delay(5), 105, [(0, 5, "holds"), (5, 15, "linear"), (15, 105, "cosine"), (105, None, "holds")]),
    (WARM.delay(0), 100, [(0, 10, "linear"), (10, 100, "cosine"), (100, None, "holds")]),
    (WARM.skip(4), 96, [(0, 6, "linear"), (6, 96, "cosine"), (96, None, "holds")]),
    (WARM.skip(10), 90, [(0, 90, "cosine"), (90, None, "holds")]),
    (WARM.skip(200), 10, [(0, None, "holds")]),
    (WARM.take(50), 50, [(0, 10, "linear"), (10, 50, "cosine"), (50, None, "holds")]),
    (WARM.take(10), 10, [(0, 10, "linear"), (10, None, "holds")]),
    (WARM.hold_each(3), 300, [(0, 30, "linear"), (30, 300, "cosine"), (300, None, "holds")]),
    (WARM.stretch(0.5), 50, [(0, 5, "linear"), (5, 50, "cosine"), (50, None, "holds")]),
    (ts.wsd(1.0, total=10, warmup=0, decay=2), 10, [(0, 8, "constant"), (8, 10, "linear"), (10, None, "holds")]),
    (WARM.take(150), 150, [(0, 10, "linear"), (10, 100, "cosine"), (100, 150, "holds"), (150, None, "holds")]),
    (ts.constant(0.0).take(0).take(1), 1, [(0, 1, "holds"), (1, None, "holds")]),
    (ts.constant(1.0), 10, [(0, None, "constant")]),
    (ts.initial * WARM, 100, [(0, 10, "linear"), (10, 100, "cosine"), (100, None, "holds")]),
    (ts.multistep(1.0, [4, 8]), 10, [(0, 4, "piecewise_constant"), (4, 8, "piecewise_constant"), (8, None, "piecewise_constant")]),
    (ts.piecewise_linear([(2, 0), (4, 1)]), 4, [(0, 2, "piecewise_linear"), (2, 4, "piecewise_linear"), (4, None, "holds")]),
    (ts.linear(0, 1, steps=4) * ts.cosine(1, 0, steps=8), 8, [(0, 4, "linear * cosine"), (4, 8, "holds * cosine"), (8, None, "holds")]),
    (ts.minimum(WARM, ts.linear(1, 0, steps=50)), 100, [(0, 10, "min(linear, linear)"), (10, 50, "min(cosine, linear)"), (50, 100, "min(cosine, holds)"), (100, None, "holds")]),
    (ts.linear(0, 1, steps=4).repeat(2), 8, [(0, 4, "linear, cycle 1"), (4, 8, "linear, cycle 2"), (8, None, "holds")]),
    (ts.noam(4, warmup=10), 110, [(0, 10, "linear"), (10, None, "inverse_sqrt")]),
    (ts.exponential_decay(1.0, 0.1, every=10), 40, [(0, None, "exponential_decay")]),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "last", "expected"), ROWS, ids=[repr(row[0]) for row in ROWS])
def test_windows_and_phases(schedule, last, expected):
    assert window(schedule) == last
    assert [(phase.start, phase.stop, phase.what) for phase in phases(schedule)] == expected


def test_cycles_without_end():
    restarts = ts.warm_restarts(1.0, period=10, length_mult=2)
    assert [(phase.start, phase.what) for phase in phases(restarts)[:3]] == [
        (0, "cosine, cycle 1"),
        (10, "cosine, cycle 2"),
        (30, "cosine, cycle 3"),
    ]
    assert window(restarts) == 149  # four cycles; the fifth starts with a jump
    assert len(phases(ts.cosine(1, 0, steps=1).repeat())) == 64


UNBOUNDED = {
    "falls at 1000": (lambda t: 1.0 / (1.0 + t / 1000.0), 10_240),
    "wave": (lambda t: np.sin(t / 100.0), 640),
    "logarithm": (np.log1p, 40_960),
    "late jump": (lambda t: (t >= 5000.0) * 1.0, 81_920),
    "overflows": (lambda t: 2.0**t, 512),
    "changes from the first step on": (lambda t: np.minimum(t, 1.0), 10),
    "line": (lambda t: 1e-6 * t, 1 << 24),
    "never changes": (lambda t: 0.0 * t, 10),
    "starts at inf": (lambda t: 1.0 / t, 10),
}


@pytest.mark.parametrize(("curve_of", "last"), UNBOUNDED.values(), ids=UNBOUNDED)
def test_a_new_unbounded_shape_is_looked_at_where_it_changes(monkeypatch, curve_of, last):
    """It says nothing of itself; ten steps of it would be a flat line."""
    for registry in (NODES, SHAPES):
        monkeypatch.setitem(registry, "untold", None)

    @node
    class untold(ts.Schedule):  # noqa: N801  a shape
        def _at(self, t):
            return curve_of(t)

    assert window(untold()) == last
    assert window(untold().delay(7)) in {last + 7, 10}
    assert [phase.what for phase in phases(untold())] == ["untold"]
    assert phases(WARM.take(50) >> untold())[-1].what == "untold"


@given(strategies.schedules())
@example(ts.constant(0.0).take(0).delay(0) / ts.from_values([2.0]))
@settings(max_examples=200)
def test_phases_follow_each_other_from_the_first_step_on(schedule):
    found = phases(schedule)
    assert found[0].start == 0
    assert all(a.stop == b.start > a.start for a, b in itertools.pairwise(found))
    assert all(phase.what for phase in found)
    if len(found) < 64:
        assert found[-1].stop is None


@given(strategies.schedules())
@settings(max_examples=200)
def test_a_window_is_drawable(schedule):
    last = window(schedule)
    assert last >= 1
    assert schedule.steps is None or schedule.steps in {0, last}
    try:
        steps, values = curve(schedule, last, points=50)
    except ScheduleError:
        return
    assert steps[0] == 0
    assert steps[-1] == last
    assert (np.diff(steps) > 0).all()
    for step, value in list(zip(steps.tolist(), values.tolist(), strict=True))[:: max(1, len(steps) // 20)]:
        assert value == schedule(int(step))


def test_one_picture_holds_several_schedules():
    both = picture([WARM, 2.0 * ts.initial, ts.cosine(1.0, -1.0, steps=400)])
    assert both.last == 400
    assert both.axis() == (-1.0, 2.0)
    warm, initial, cosine = both.lines
    assert (warm.peak, warm.lowest, warm.exact) == ((1.0, 10), (0.0, 0), True)
    assert [phase.what for phase in warm.phases] == ["linear", "cosine", "holds"]
    assert (initial.schedule, set(initial.values.tolist())) == (2.0 * ts.constant(1.0), {2.0})
    assert cosine.area == float(cosine.values[:-1].sum())  # the end value belongs to what follows
    assert warm.area == float(WARM.values(401).sum())
    assert warm.values.tolist() == WARM.values(401).tolist()


def test_a_picture_ends_where_it_is_told():
    (line,) = picture([WARM], last=50).lines
    assert line.steps[-1] == 50
    assert [phase.what for phase in line.phases] == ["linear", "cosine"]
    assert picture([WARM], last=1).last == 1
    for wrong in (0, -1, 2.5):
        with pytest.raises(ScheduleError, match="plot: steps must be a whole number"):
            picture([WARM], last=wrong)


@pytest.mark.parametrize(
    ("schedule", "axis"),
    [
        (ts.constant(4.0), (2.0, 6.0)), (ts.constant(0.0), (-0.5, 0.5)), (ts.linear(1, 9, steps=9), (0.0, 9.0)),
        (ts.constant(3.0), (1.5, 4.5)), (ts.linear(5, 11, steps=9), (0.0, 11.0)), (ts.linear(-9, -4.75, steps=9), (-9.0, -4.75)),
        (ts.linear(5, 9, steps=9), (5.0, 9.0)), (ts.linear(-9, -1, steps=9), (-9.0, 0.0)), (ts.linear(-9, -5, steps=9), (-9.0, -5.0)),
    ],
    ids=repr,
)  # fmt: skip
def test_an_axis_is_never_empty_and_has_0_in_it_where_that_is_near(schedule, axis):
    assert picture([schedule]).axis() == axis


def test_thinning_loses_no_spike():
    spikes = np.zeros(100_000)
    spikes[[777, 50_001, 99_999]] = 1.0, -2.0, 3.0
    steps, values = curve(ts.from_values(spikes), 99_999, points=100)
    assert len(steps) < 1000
    assert {(777.0, 1.0), (50_001.0, -2.0), (99_999.0, 3.0)} <= set(
        zip(steps.tolist(), values.tolist(), strict=True)
    )


def test_a_very_long_curve_shows_its_warm_up():
    steps, values = curve(ts.warmup_cosine(1.0, total=100 * EXACT, warmup=100), 100 * EXACT)
    assert values.max() == 1.0
    assert len(steps) < 10_000


def test_of_a_very_long_curve_even_steps_and_both_sides_of_each_phase_are_looked_at():
    last = 60 * 199_999  # the 200,000 steps of a selection are then every 60th
    curve = ts.warmup_cosine(1.0, total=last, warmup=100)
    steps, values = picture_module._selected(curve, last, phases(curve))
    assert set(steps.tolist()) == {*range(0, last + 1, 60), 99, 100, last - 1}
    assert (np.diff(steps) > 0).all()
    assert values[steps == 100.0] == 1.0


def test_what_is_drawn_of_each_run_is_its_first_smallest_largest_and_last():
    wild = np.random.default_rng(1).permutation(1000).astype(float)
    jumps = np.array([444, 777])
    drawn = picture_module._thinned(wild, 10, jumps)
    runs = wild.reshape(10, 100)
    expected = {444, 445, 777, 778}
    for number, run in enumerate(runs.tolist()):
        expected |= {100 * number + at for at in (0, run.index(min(run)), run.index(max(run)), 99)}
    assert drawn.tolist() == sorted(expected)


def test_a_curve_of_four_values_a_point_is_drawn_whole():
    rise, none = np.arange(41.0), np.array([], dtype=np.int64)
    assert picture_module._thinned(rise[:40], 10, none).tolist() == list(range(40))
    assert picture_module._thinned(rise, 10, none).tolist() == [
        0, 3, 4, 7, 8, 11, 12, 15, 16, 19, 20, 23, 24, 27, 28, 31, 32, 35, 36, 40
    ]  # fmt: skip


def test_ticks_are_round_and_within():
    assert ticks(0.0, 3e-4, 5) == pytest.approx([0.0, 1e-4, 2e-4, 3e-4])
    assert ticks(0, 20_000, 6) == [0, 5000, 10_000, 15_000, 20_000]
    assert ticks(-4.5, -1.5, 2) == [-4.5, -1.5]  # nothing rounder in between
    assert ticks(1.0, 1.0, 5) == [1.0]


def test_counts_are_short():
    assert [count(n) for n in (0, 999, 1000, 1500, 20_000, 123_456, 2.5e6, 3e9)] == [
        "0", "999", "1k", "1.5k", "20k", "123.5k", "2.5M", "3B",
    ]  # fmt: skip


# -- what notebooks show ----------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def line(schedule) -> np.ndarray:
    picture = ET.fromstring(schedule._repr_svg_())  # noqa: S314  our own
    points = picture.find(f".//{SVG}polyline").get("points").split()
    return np.array([[float(part) for part in point.split(",")] for point in points])


def test_the_inline_picture_is_the_curve():
    x, y = line(ts.linear(0.0, 1.0, steps=100)).T
    assert np.allclose(np.diff(x), np.diff(x)[0], atol=0.11)
    assert np.allclose((y[0] - y) / (y[0] - y[-1]), (x - x[0]) / (x[-1] - x[0]), atol=0.01)


def test_another_curve_is_another_picture():
    """Control: the picture depends on the values."""
    assert ts.linear(0.0, 1.0, steps=100)._repr_svg_() != ts.cosine(0.0, 1.0, steps=100)._repr_svg_()
    y = line(ts.constant(1.0))[:, 1]
    assert (y == y[0]).all()


@given(strategies.schedules())
@settings(max_examples=100)
def test_every_schedule_has_a_picture_inside_its_frame(schedule):
    picture = schedule._repr_svg_()
    assume(picture is not None)
    x, y = line(schedule).T
    assert x.min() >= 0
    assert x.max() <= 420
    assert y.min() >= 0
    assert y.max() <= 144
    page = ET.fromstring(schedule._repr_html_())  # noqa: S314  our own
    assert page.find(f"{SVG}svg") is not None


def test_the_page_shows_the_expression_escaped_and_short():
    assert "linear(0, 1, steps=10) &gt;&gt; cosine(1, 0, steps=90)" in WARM._repr_html_()
    assert "more ..." in ts.from_values(range(10_000))._repr_html_()
    assert len(ts.from_values(range(10_000))._repr_html_()) < 20_000


def test_initial_is_drawn_as_one_and_says_so():
    assert "ts.initial</code> as 1" in (ts.initial * WARM)._repr_html_()
    assert "ts.initial" not in WARM._repr_html_()
    assert (line(ts.initial * WARM) == line(WARM)).all()
    assert drawable(WARM) is WARM


def test_what_has_no_finite_values_is_shown_as_text():
    assert (1 / ts.linear(1.0, 0.0, steps=4))._repr_html_() is None
    assert (1 / ts.linear(1.0, 0.0, steps=4))._repr_svg_() is None


# -- steps are drawn as steps -----------------------------------------------------------------------------------------

STAIRS = {
    "multistep": ts.multistep(0.1, [300, 600]),
    "hold_each": ts.cosine(1e-3, 0, steps=10).hold_each(100),
    "batch": ts.batch_steps("0:768 250B:1536 500B:3072"),
    "round": ts.linear(64, 512, steps=10_000).round(to=64),
    "step_decay": ts.step_decay(1.0, every=300, factor=0.5).take(3_000),
    "restarts": ts.constant(1.0, steps=70).repeat(2, value_mult=0.5),
    "one in a million": ts.multistep(1.0, [999_983]),
}


def slanted(x, y) -> int:
    """How many pieces of a line are neither level nor upright."""
    return int(((np.diff(x) != 0.0) & (np.diff(y) != 0.0)).sum())


@pytest.mark.parametrize("schedule", STAIRS.values(), ids=STAIRS)
def test_no_line_is_slanted_between_two_levels(schedule):
    for points in (50, 420, 1000):
        (drawn,) = picture([schedule], points=points).lines
        assert slanted(*drawn.path()) == 0
        assert slanted(drawn.steps, drawn.values) > 0  # without its corners it would be
    assert slanted(*line(schedule).T) == 0


def test_a_curve_has_no_corners():
    """Control: what is no stair stays a line, and stands where its values are."""
    (drawn,) = picture([WARM]).lines
    assert not drawn.held.any()
    assert slanted(*drawn.path()) > 90
    (jump,) = picture([ts.wsd_s(1.0, periods=[100, 100], warmup=0, decay=0.5)]).lines
    x, y = jump.path()
    assert y[x == 100.0].tolist() == [jump.schedule(99), 1.0]  # it stands until 100, and goes up there
    assert jump.held.sum() == 1


@pytest.mark.parametrize(("last", "single"), [(1, True), (12, True), (60, True), (61, False), (1000, False)])
def test_a_short_picture_shows_a_value_a_step(last, single):
    curve = ts.linear(0.0, 1.0, steps=last)
    shown = picture([curve], points=2)
    assert shown.single == single
    picture_of = ET.fromstring(curve._repr_svg_())  # noqa: S314  our own
    dots = [path for path in picture_of.iter(f"{SVG}path") if path.get("stroke-linecap") == "round"]
    assert len(dots) == single
    if single:
        (drawn,) = shown.lines
        assert slanted(*drawn.path()) == 0
        assert drawn.values.tolist() == curve.values(last + 1).tolist()
        assert dots[0].get("d").count("M") == last + 1


# -- what else an inline picture says ---------------------------------------------------------------------------------


def texts(schedule) -> list[str]:
    return [text.text for text in ET.fromstring(schedule._repr_svg_()).iter(f"{SVG}text")]  # noqa: S314  our own


def test_an_inline_picture_names_phases_and_the_axis():
    assert {"warm-up", "stable", "decay", "step"} <= set(
        texts(ts.wsd(3e-4, total=1000, warmup=50, decay=0.2))
    )
    assert {"0", "1e-4", "2e-4", "3e-4"} <= set(texts(ts.linear(2.9999999999999997e-4, 0.0, steps=100)))
    assert "decay" not in texts(ts.cosine(1.0, 0.0, steps=100))  # of one phase there is nothing to tell apart
    title = ET.fromstring(ts.linear(0.1 + 0.2, 0.0, steps=100)._repr_svg_()).find(f"{SVG}title")  # noqa: S314  our own
    assert title.text == "linear(0.3, 0, steps=100)"


def test_a_log_axis_is_cut_at_a_ten_thousandth_of_the_peak():
    falls = ts.exponential(1.0, 1e-4, steps=950) >> ts.exponential(1e-4, 1e-12, steps=50)
    assert picture([falls]).log_axis() == (1e-4, 1.0)
    tests = ts.exponential(1e-7, 10.0, steps=300)  # much of it lies below
    assert picture([tests]).log_axis() == (1e-7, 10.0)
    assert picture([ts.linear(1.0, 0.5, steps=10)]).log_axis() == (0.5, 1.0)
    assert {"1e-4", "1"} <= set(texts(falls))
    assert "1e-7" in texts(tests)
    assert line(falls)[:, 1].max() <= 122.0  # what is below stays within the frame


def test_the_inline_line_stands_out_on_white_and_on_black():
    (colour,) = re.findall(r'stroke="(#[0-9a-f]{6})"', WARM._repr_svg_())
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert min(1.05 / (bright + 0.05), (bright + 0.05) / 0.05) >= 3.0  # WCAG 2


def test_an_inline_picture_is_small_and_follows_the_curve():
    for schedule in (WARM, ts.cosine(1, 0, steps=10**6), ts.warm_restarts(1.0, period=100), *STAIRS.values()):
        assert len(schedule._repr_svg_()) < 4_000
    drawn = line(ts.cosine(1.0, 0.0, steps=1000))
    x, y = drawn.T
    at = (x - x[0]) / (x[-1] - x[0])
    assert np.abs((y[0] - y) / (y[0] - y[-1]) - np.sin(np.pi / 2 * at) ** 2).max() < 2e-4  # on the curve
    between = np.interp(np.linspace(0, 1, 1001), at, y)
    true = y[0] + (y[-1] - y[0]) * np.sin(np.pi / 2 * np.linspace(0, 1, 1001)) ** 2
    assert np.abs(between - true).max() < 0.07  # and never a tenth of a pixel from it

"""Plots show the values, name the phases and mark the step; lines stay apart without colours."""

from __future__ import annotations

import runpy
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tensorsched.schedules.views import axes as axes_module
from tensorsched.schedules.views import plot
from tensorsched.schedules.views.axes import new_figure

WARM = ts.warmup_cosine(3e-4, total=1000, warmup=100)


@pytest.fixture(autouse=True)
def closed():
    plt.switch_backend("agg")  # no windows
    yield
    plt.close("all")


def data(line):
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def inside(axes) -> None:
    """Every text lies on the figure, and no two names above the axes start at one place."""
    figure = axes.figure
    figure.canvas.draw()
    page = figure.bbox
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text()]
    assert len(texts) > 4
    for text in texts:
        box = text.get_window_extent()
        if text.get_clip_on() and not axes.bbox.overlaps(box):
            continue  # a tick label beyond the limits is not drawn
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y0 >= page.y0 - 1
        assert box.y1 <= page.y1 + 1


def names(axes) -> list[str]:
    return [
        label.get_text() for top in axes.child_axes for label in top.get_xticklabels() if label.get_text()
    ]


def test_the_line_is_the_schedule():
    axes = WARM.plot()
    steps, values = data(axes.get_lines()[0])
    assert values.tolist() == [WARM(int(step)) for step in steps]
    assert (steps[0], steps[-1]) == (0, 1000)
    assert axes.get_xlabel() == "step"
    assert axes.get_title() == "linear(0, 3e-4, steps=100) >> cosine(3e-4, 0, steps=900)"
    inside(axes)


def test_a_frozen_schedule_is_another_line():
    """Control."""
    assert len(set(data(ts.constant(WARM(0)).plot().get_lines()[0])[1])) == 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (WARM, ["warm-up", "decay from 100"]),
        (ts.wsd(1.0, total=1000, warmup=30, decay=200), ["warm-up, stable from 30", "decay from 800"]),
        (ts.cosine(1.0, 0.0, steps=100), []),
        (ts.cosine(1.0, 0.0, steps=2).repeat(100), []),  # too many to name
    ],
    ids=repr,
)
def test_phases_are_named(schedule, expected):
    axes = schedule.plot()
    assert names(axes) == expected
    axes.figure.canvas.draw()


@pytest.mark.parametrize(
    ("schedule", "scale"),
    [
        (WARM, "linear"), (ts.exponential(1.0, 1e-6, steps=100), "log"), (ts.linear(1.0, -1.0, steps=9), "linear"),
        (ts.exponential_decay(1.0, 0.5, every=1), "linear"), (ts.constant(0.0), "linear"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_log_axis_where_it_serves(schedule, scale):
    assert schedule.plot().get_yscale() == scale


def test_a_log_axis_as_asked():
    assert WARM.plot(log=True).get_yscale() == "log"
    assert ts.exponential(1.0, 1e-6, steps=100).plot(log=False).get_yscale() == "linear"


@pytest.mark.parametrize(
    ("schedule", "written"),
    [(WARM, ["0", "1e-4", "2e-4", "3e-4"]), (ts.linear(0.1, 0.0, steps=100), ["0.02", "0.10"])],
    ids=repr,
)
def test_numbers_are_written_as_people_write_them(schedule, written):
    axes = schedule.plot()
    axes.figure.canvas.draw()
    assert set(written) <= {label.get_text() for label in axes.get_yticklabels()}


def test_numbers_that_differ_late_are_told_apart():
    axes = ts.linear(1e-3, 1.00001e-3, steps=100).plot()
    axes.figure.canvas.draw()
    texts = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(texts)) == len(texts)


def test_into_given_axes_and_with_a_label():
    _, (axes,) = new_figure()
    assert WARM.plot(ax=axes, label="lr", steps=50) is axes
    assert axes.get_xlim() == (0, 50)
    assert axes.get_lines()[0].get_label() == "lr"
    assert plt.get_fignums() == []


def test_compared_lines_differ_in_colour_and_in_dashes():
    curves = {f"curve {i}": ts.linear(1.0, i / 10, steps=100) for i in range(7)}
    axes = ts.compare(curves)
    lines = axes.get_lines()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)
    assert len({line.get_color() for line in lines}) == len(lines) == 7
    assert len({str(line._dash_pattern) for line in lines}) == 7
    for line, schedule in zip(lines, curves.values(), strict=True):
        assert data(line)[1].tolist() == schedule.values(101).tolist()
    inside(axes)


def contrast(colour) -> float:
    """With white, as WCAG 2 defines it."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)
    )
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


@pytest.mark.parametrize("count", [1, 7, 16, 24])
def test_every_line_stands_out_from_the_page(count):
    axes = ts.compare({f"curve {i}": ts.linear(1.0, i / 30, steps=100) for i in range(count)})
    assert min(contrast(line.get_color()) for line in axes.get_lines()) >= 3.0
    assert contrast("#e69f00") < 3.0  # a control: an orange of the old palette


def test_sixteen_lines_are_named_and_told_apart():
    curves = {f"curve {i}": ts.linear(1.0, i / 16, steps=100) for i in range(16)}
    axes = ts.compare(curves)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)
    assert len({(line.get_color(), str(line._dash_pattern)) for line in axes.get_lines()}) == 16
    inside(axes)


def test_many_lines_are_one_family():
    axes = ts.compare({f"group {i}": ts.linear(0.9**i, 0.0, steps=50) for i in range(24)})
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["group 0", "group 23"]
    assert axes.get_legend().get_title().get_text() == "24 lines"


def test_a_number_can_be_compared():
    assert len(ts.compare({"a": 0.5, "b": WARM}, steps=10).get_lines()) == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({}, "at least one name"), ([WARM], "a dict"), ({"a": "x"}, "compare: a must be a schedule, got 'x'")],
)
def test_what_cannot_be_compared(wrong, says):
    with pytest.raises(ScheduleError, match=says):
        ts.compare(wrong)
    assert plt.get_fignums() == []


def attached(step: int = 0):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1e-3, 1e-3, 5e-4)]
    optimizer = torch.optim.AdamW(groups)
    decay = ts.linear(0.1, 0.01, steps=1000)
    sched = ts.attach(
        optimizer,
        lr=ts.initial * ts.warmup_cosine(1.0, total=1000, warmup=100),
        weight_decay=[decay, None, decay],
        betas=(ts.linear(0.85, 0.95, steps=500), None),
        free={"kl": ts.cosine(0.0, 1.0, steps=800)},
    )
    sched.seek(step)
    return sched


def test_every_slot_and_free_name_has_its_line():
    sched = attached(300)
    panels = sched.plot()
    assert [axes.get_ylabel() for axes in panels] == ["lr", "weight_decay", "betas[0]", "kl (free)"]
    legend = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert legend == ["groups 0, 1", "group 2"]
    assert data(panels[0].get_lines()[1])[1].max() == 5e-4
    for axes in panels:
        inside(axes)
    assert names(panels[0]) == ["warm-up", "decay from 100"]


@pytest.mark.parametrize("step", [0, 300, 990])
def test_the_current_step_is_marked(step):
    sched = attached(step)
    for axes in sched.plot():
        marks = [text.get_text() for text in axes.texts]
        assert marks == [f"step {step}"]
        (dots,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
        x, y = data(dots)
        assert set(x.tolist()) == {step}
        assert len(y) == 2 if axes.get_ylabel() == "lr" else 1
    assert sched.step_count == step


def test_a_step_beyond_the_picture_is_not_marked():
    assert list(attached(5000).plot(steps=100)[0].texts) == []


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (WARM.plot, lambda: ts.compare({"a": WARM}), attached().plot):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'tensorsched\[plot\]'"):
            draw()


@pytest.mark.parametrize("module", [plot, axes_module], ids=["plot", "axes"])
def test_what_draws_is_imported_without_matplotlib(monkeypatch, module):
    for name in ("matplotlib", "matplotlib.axes", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    again = runpy.run_path(module.__file__)
    assert again["COLOURS"] == axes_module.COLOURS


def upright(x, y) -> bool:
    return bool(((np.diff(x) == 0.0) | (np.diff(y) == 0.0)).all())


@pytest.mark.parametrize(
    "schedule", [ts.multistep(0.1, [30, 60, 80]), ts.linear(64, 512, steps=1000).round(to=64)], ids=repr
)
def test_levels_are_joined_upright(schedule):
    assert upright(*data(schedule.plot().get_lines()[0]))
    assert not upright(*data(WARM.plot().get_lines()[0]))


@pytest.mark.parametrize(("steps", "marker"), [(12, "."), (60, "."), (61, "None")])
def test_a_short_plot_has_a_dot_a_step(steps, marker):
    curve = ts.cosine(1.0, 0.0, steps=steps)
    (line,) = curve.plot().get_lines()
    assert line.get_marker() == marker
    if marker == ".":
        assert upright(*data(line))
        x, y = data(line)
        assert y[:: line.get_markevery()].tolist() == curve.values(steps + 1).tolist()
        assert x[:: line.get_markevery()].tolist() == list(range(steps + 1))


def test_no_noise_in_titles_ticks_and_names():
    axes = (ts.constant(0.1 + 0.2, steps=100) >> ts.linear(0.1 + 0.2, 0.0, steps=250_000 - 100)).plot()
    axes.figure.canvas.draw()
    texts = [text.get_text() for text in axes.figure.findobj(mpl.text.Text)]
    assert "50k" in texts
    assert not [text for text in texts if "00000" in text]
    log = ts.exponential(1e-6, 1.0, steps=300).plot()
    log.figure.canvas.draw()
    assert {"1e-6", "1e-3", "1"} <= {label.get_text() for label in log.get_yticklabels()}


def test_a_log_axis_is_cut_and_nothing_of_a_range_test_is():
    cosine = ts.cosine(1.0, 0.0, steps=1000).plot(log=True)
    assert cosine.get_ylim()[0] == pytest.approx(1e-4)
    assert ts.exponential(1e-7, 10.0, steps=300).plot().get_ylim()[0] <= 1e-7


def test_the_axis_says_what_is_counted():
    assert WARM.plot(unit="tokens").get_xlabel() == "tokens"
    assert ts.compare({"a": WARM, "b": 1.0}, unit="epoch").get_xlabel() == "epoch"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    sched = ts.attach(optimizer, lr=ts.linear(0.1, 0.0, steps=10**9), clock=ts.clock("tokens"))
    sched.seek(25 * 10**7)
    (axes,) = sched.plot()
    assert axes.get_xlabel() == "tokens"
    assert [text.get_text() for text in axes.texts] == ["250,000,000 tokens"]
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    plan = ts.Plan(a=sched, b=ts.attach(other, lr=WARM))
    tokens, steps = plan.plot()  # what counts different things has an axis each
    assert (tokens.get_xlabel(), steps.get_xlabel()) == ("tokens", "step")
    assert (tokens.get_xlim()[1], steps.get_xlim()[1]) == (10**9, 1000)
    first, last = attached().plot()[0], attached().plot()[-1]
    assert (first.get_xlabel(), last.get_xlabel()) == ("", "step")  # one for all of them

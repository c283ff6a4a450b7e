"""The history of a run: every change is kept, and what each step really used can be read, saved and drawn."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import nn, optim
from torch.optim.swa_utils import SWALR

import tensorsched as ts
from tensorsched.binding import history
from tests.binding.test_attach import LR, WD, M, train, two_groups
from tests.binding.test_checkpoint import saved_and_loaded, without_step

mpl.use("agg")

KINDS = pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])


def run(lr: Any, steps: int = 0, **options: Any) -> tuple[optim.Optimizer, ts.Attachment]:
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=lr, **options)
    train(optimizer, steps=steps)
    return optimizer, sched


def spied(optimizer: optim.Optimizer) -> list[float]:
    """What each step from now on uses, seen by a hook."""
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(float(o.param_groups[1]["lr"])))
    return seen


@KINDS
def test_what_was_used_is_what_a_hook_saw(tensor):
    """Through every kind of change; the plan of the end alone would say something else."""
    optimizer, sched = run([LR, 0.5 * LR], 0, resident=tensor)
    seen = spied(optimizer)
    train(optimizer, steps=5)
    sched.rewrite(lr=lambda old, now: old.take(now) >> ts.constant(0.125))
    train(optimizer, steps=2)
    sched.cool_down(6)
    train(optimizer, steps=3)
    sched.seek(4)
    train(optimizer, steps=2)
    sched.extend(10)
    train(optimizer, steps=1)
    state = sched.state_dict()
    sched.load_state_dict(state)
    sched.load_state_dict({**state, "step": 7})
    steps, values = sched.used("lr", group=1)
    assert steps.tolist() == [*range(10), *range(4, 7)]
    assert values.tolist() == pytest.approx(seen, rel=2**-22)
    assert len(values) == len(seen) == 13
    assert sched.schedule("lr", 1).values(10)[:10].tolist() != pytest.approx(seen[:10], rel=2**-22), (
        "the control"
    )


def test_history_names_every_change_and_prints_a_line_each():
    optimizer, sched = run(LR, 2)
    new = LR.take(2) >> ts.linear(LR(2), 0.0, steps=8)
    sched.rewrite(lr=new)
    sched.rewrite(lr=new)  # is none
    sched.seek(2)  # nor is this
    train(optimizer, steps=1)
    sched.seek(7)
    sched.seek(5)  # and nothing was made in between
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    sched.adopt(lr=WD)
    sched.hand_over("lr", group=0)
    found = [(c.step, c.what, c.goes_on, c.schedules) for c in sched.history()]
    assert found == [
        (0, "attach", 0, {"lr[group 0]": (None, LR), "lr[group 1]": (None, LR)}),
        (2, "rewrite", 2, {"lr[group 0]": (LR, new), "lr[group 1]": (LR, new)}),
        (3, "seek", 5, {}),
        (5, "adopt", 5, {"lr[group 2]": (None, WD)}),
        (5, "hand_over", 5, {"lr[group 0]": (new, None)}),
    ]
    lines = [str(change) for change in sched.history()]
    assert lines[1].startswith("step 2, rewrite: lr[group 0], lr[group 1]: linear(0.0, 0.1, steps=4) >> ")
    assert lines[2] == "step 3, seek: goes on at step 5"
    assert lines[4].endswith(" -> no schedule")


def test_used_of_what_came_late_or_was_let_go():
    optimizer, sched = run(LR, 2)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    sched.adopt(lr=WD)
    train(optimizer, steps=2)
    sched.hand_over("lr", group=0)
    train(optimizer, steps=2)
    assert sched.used("lr").steps.tolist() == [0, 1, 2, 3]
    assert [a.tolist() for a in sched.used("lr", group=2)] == [[2, 3, 4, 5], WD.values(6)[2:].tolist()]
    with pytest.raises(ts.BindingError, match="no slot is 'momentum' of group 0"):
        sched.used("momentum")


def test_used_of_elements_and_free_names_and_of_a_run_that_has_not_begun():
    optimizer = optim.AdamW([nn.Parameter(torch.ones(1))])
    sched = ts.attach(optimizer, betas=(None, M), free={"kl": LR})
    assert [a.tolist() for a in sched.used("betas")] == [[], []]
    train(optimizer, steps=3)
    assert (
        sched.used("betas").values.tolist()
        == sched.used("betas", element=1).values.tolist()
        == M.values(3).tolist()
    )
    assert sched.used("kl").values.tolist() == LR.values(3).tolist()


# -- on a clock, and with live inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("between", ["linear", "hold"])
def test_on_a_clock_the_values_at_positions_are_told(between):
    """At which of them steps were made is not kept; whoever has kept it asks for those."""
    clock = ts.clock("tokens", resolution=4, between=between)
    optimizer, sched = run(ts.linear(1.0, 0.0, steps=100), clock=clock)
    seen, positions = [], []

    def step(n: int) -> None:
        positions.append(sched.position)
        seen.append(optimizer.param_groups[0]["lr"])
        sched.count(n)
        train(optimizer, steps=1)

    for n in (3, 5, 7):
        step(n)
    sched.cool_down(40)
    for n in (9, 11):
        step(n)
    used = sched.used("lr", at=positions)
    assert used.steps.tolist() == positions == [0, 3, 8, 15, 24]
    assert used.values.tolist() == pytest.approx(seen, rel=1e-6)
    assert len(set(seen)) > 3, "the control"
    steps, values = sched.used("lr")
    assert steps.tolist() == list(range(35))
    assert values[positions].tolist() == pytest.approx(seen, rel=1e-6)
    sched.seek(2_000_000)
    step(1)
    sched.seek(0)
    assert [str(change)[:40] for change in sched.history()] == [
        "tokens 0, attach: lr[group 0], lr[group ",
        "tokens 15, cool_down: lr[group 0], lr[gr",
        "tokens 35, seek: goes on at tokens 2,000",
        "tokens 2,000,001, seek: goes on at token",
    ]
    with pytest.raises(ts.BindingError, match=r"used: lr\[group 0\] used nothing at 36: the run is at 0"):
        sched.used("lr", at=[3, 36])


def test_a_stretch_of_billions_is_told_at_a_thousand_positions():
    optimizer, sched = run(ts.linear(1.0, 0.0, steps=10**12), clock=ts.clock("tokens"))
    sched.count(3 * 10**9)
    train(optimizer, steps=1)
    steps, values = sched.used("lr")
    assert (len(steps), steps[0], steps[-1]) == (1024, 0, 3 * 10**9 - 1)
    assert values[-1] == pytest.approx(1 - 3e-3)


def test_of_steps_some_may_be_asked_for():
    _, sched = run(LR, 5)
    assert [a.tolist() for a in sched.used("lr", at=[4, 0, 4])] == [[4, 0, 4], [LR(4), LR(0), LR(4)]]
    for wrong, text in (([5], "used nothing at 5"), ([-1], "used: at"), ("3", "used: at"), (3, "used: at")):
        with pytest.raises(ValueError, match=text):
            sched.used("lr", at=wrong)


def test_what_live_inputs_were_is_not_kept():
    _, sched = run(LR * ts.live("x", 1.0), 3)
    with pytest.raises(
        ts.BindingError, match=r"with live inputs .* call sched\.log\(\) after each optimizer\.step"
    ):
        sched.used("lr")


def test_swalr_s_take_over_is_a_change():
    optimizer, sched = run(LR, 3)
    swa = SWALR(optimizer, swa_lr=0.7, anneal_epochs=1)
    train(optimizer, steps=1)
    swa.step()
    with pytest.warns(UserWarning, match="SWALR has taken over lr at step 4"):
        train(optimizer, steps=2)
    names = ["lr[group 0]", "lr[group 1]"]
    assert sched.history()[-1] == (4, "SWALR", 4, dict.fromkeys(names, (LR, None)), "step")
    assert sched.used("lr").steps.tolist() == [0, 1, 2, 3], "what SWALR used is SWALR's to tell"


# -- through checkpoints -----------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("sched_first", [False, True])
def test_a_resumed_run_has_the_history_of_the_run_that_was_saved(tensor, sched_first):
    optimizer, sched = run(LR, 4, resident=tensor)
    sched.cool_down(6)
    train(optimizer, steps=3)
    state = saved_and_loaded({"o": optimizer.state_dict(), "s": sched.state_dict()})
    fresh, again = run(LR, 1, resident=tensor)
    loads = [
        lambda: fresh.load_state_dict(state["o"]),
        lambda: again.load_state_dict(state["s"], on_mismatch="saved"),
    ]
    for load in reversed(loads) if sched_first else loads:
        load()
    assert again.history() == sched.history()
    for o in (optimizer, fresh):
        train(o, steps=2)
    assert again.used("lr").values.tolist() == sched.used("lr").values.tolist()
    assert again.state_dict() == sched.state_dict()
    assert again.history()[1].what == "cool_down"


@pytest.mark.parametrize(("how", "goes_on"), [("keep_step", 5), ("restart", 0)])
def test_going_on_under_other_schedules_is_a_change(how, goes_on):
    _, before = run([LR, LR], 5)
    optimizer, sched = run([0.5 * LR, None], 2)
    sched.load_state_dict(before.state_dict(), on_mismatch=how)
    change = sched.history()[-1]
    assert (change.step, change.goes_on, change.what) == (5, goes_on, f"load_state_dict(on_mismatch={how!r})")
    assert change.schedules == {"lr[group 0]": (LR, 0.5 * LR), "lr[group 1]": (LR, None)}
    train(optimizer, steps=2)
    expected = [*LR.values(5), *(0.5 * LR).values(7)[goes_on : goes_on + 2]]
    assert sched.used("lr").values.tolist() == expected
    assert sched.used("lr", group=1).values.tolist() == LR.values(5).tolist()


def test_a_checkpoint_of_the_optimizer_alone_is_a_change_of_the_counter():
    optimizer, _ = run(LR, 5)
    state = optimizer.state_dict()
    fresh, again = run(LR, 0)
    fresh.load_state_dict(state)
    train(fresh, steps=2)
    assert [(c.step, c.what, c.goes_on) for c in again.history()[1:]] == [(0, "optimizer.load_state_dict", 5)]
    assert again.used("lr").steps.tolist() == [5, 6]
    fresh, again = run(LR, 2)
    fresh.load_state_dict(without_step(optimizer.state_dict()))
    again.seek(2)
    assert len(again.history()) == 1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_has_a_history_of_its_own(duplicate):
    optimizer, sched = run(LR, 3)
    sched.cool_down(4)
    other, twin = duplicate((optimizer, sched))
    assert twin.history() == sched.history()
    train(other, steps=1)
    twin.cool_down(2)
    assert (len(sched.history()), len(twin.history())) == (2, 3)
    assert twin.used("lr").values.tolist()[:3] == LR.values(3).tolist()


def test_a_loop_that_seeks_at_every_step_forgets_the_oldest_and_says_so(monkeypatch):
    monkeypatch.setattr(history, "MOST", 20)
    optimizer, sched = run(ts.linear(1.0, 0.0, steps=1_000))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for number in range(25):
            train(optimizer, steps=1)
            sched.seek(10 * number + 5)
    assert len(said) == 1
    assert "changed 20 times, so the oldest changes are forgotten" in str(said[0].message)
    assert len(sched.history()) == 20
    assert len(sched.used("lr").steps) == 19
    assert sched.history()[0].schedules["lr[group 0]"][1] == ts.linear(1.0, 0.0, steps=1_000)


def test_seeking_again_and_again_without_a_step_is_one_change():
    _, sched = run(LR)
    for number in range(1_000):
        sched.seek(number)
    assert [(c.step, c.goes_on) for c in sched.history()] == [(0, 0), (0, 999)]
    sched.seek(0)
    assert len(sched.history()) == 1


def test_what_only_the_device_knows_is_read_later(monkeypatch):
    """A change while the counter is on a device copies it there; the number is read when the history is asked for."""
    optimizer, sched = run(LR, 3, resident=True)
    known = type(sched._mode).known_steps
    monkeypatch.setattr(type(sched._mode), "known_steps", property(lambda _: None))
    sched.seek(7)
    assert isinstance(sched._history._entries[-1].step, torch.Tensor)
    train(optimizer, steps=1)
    sched.cool_down(4)
    monkeypatch.setattr(type(sched._mode), "known_steps", known)
    assert [(c.step, c.what, c.goes_on) for c in sched.history()][1:] == [(3, "seek", 7), (8, "cool_down", 8)]
    assert sched.used("lr").steps.tolist() == [0, 1, 2, 7]


@pytest.mark.parametrize("how", ["face", "by hand"])
@pytest.mark.parametrize("change", ["rewrite", "seek"])
def test_a_step_that_waits_to_be_counted_was_made_under_the_old_plan(how, change):
    optimizer, sched = run(LR, advance="auto" if how == "face" else "manual")
    stepped = sched.lr_scheduler() if how == "face" else sched
    seen = spied(optimizer)
    for _ in range(3):
        train(optimizer, steps=1)
        stepped.step()
    train(optimizer, steps=1)
    sched.rewrite(lr=ts.constant(0.5)) if change == "rewrite" else sched.seek(8)
    assert sched.used("lr").values.tolist() == seen
    assert sched.log()["lr/0"] == seen[-1]
    if change == "rewrite":  # a seek has counted it, in a way
        stepped.step()
    train(optimizer, steps=1)
    stepped.step()
    assert sched.used("lr").values.tolist()[:5] == seen


# -- pictures ----------------------------------------------------------------------------------------------------------


def line(sched: ts.Attachment, steps: int = 20) -> list[float]:
    (axes,) = sched.plot(steps=steps)
    return axes.get_lines()[0].get_ydata()[::2].tolist()  # of a stair the value, without its corner


def test_the_plot_shows_what_was_used_and_then_the_plan():
    optimizer, sched = run(LR)
    assert line(sched) == LR.values(21).tolist()
    train(optimizer, steps=4)
    sched.rewrite(lr=ts.constant(0.5))  # the expression has forgotten what was before
    train(optimizer, steps=2)
    assert line(sched) == [*LR.values(4), *[0.5] * 17]
    sched.seek(3)
    sched.rewrite(lr=ts.constant(0.25))
    train(optimizer, steps=1)
    assert line(sched) == [*LR.values(3), 0.25, *[0.25] * 17]
    sched.seek(10)  # steps 4 and 5 were made before; what is not known is drawn as the plan has it
    assert line(sched) == [*LR.values(3), 0.25, 0.5, 0.5, *[0.25] * 15]


def test_an_unchanged_plan_is_drawn_as_itself():
    _, sched = run(LR, 4)
    assert sched._history.drawn("lr[group 0]", LR, 4) is LR

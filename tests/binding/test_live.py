"""Live inputs on an optimizer: what the next step uses, what is saved, and what is refused."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

import tensorsched as ts
from tensorsched.errors import BindingError, ScheduleError
from tensorsched.schedules import reference
from tests.strategies import live_expressions

U32 = 2.0**-24  # one rounding to float32
BASE = ts.linear(1.0, 0.0, steps=10)
KINDS = ["float", "tensor", "graph"]


class Run:
    """A small optimizer, one group for each schedule of lr, stepped eagerly or in a graph."""

    def __init__(self, kind: str, *schedules: ts.Schedule, momentum=None, **options) -> None:
        self.parameters = [nn.Parameter(torch.ones(2)) for _ in schedules]
        self.optimizer = optim.SGD([{"params": [p]} for p in self.parameters], lr=0.1, momentum=0.5)
        keys = {"lr": list(schedules)} | ({} if momentum is None else {"momentum": momentum})
        self.sched = ts.attach(self.optimizer, **keys, resident=kind == "tensor", **options)
        self.step_ = (
            ts.compile_step(self.sched, backend="aot_eager") if kind == "graph" else self.optimizer.step
        )

    def step(self) -> list[float]:
        """One step; the lr of each group that it used, measured on the parameter where that is possible."""
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
        used = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.step_()
        return used

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


def used_by_sgd(kind: str, schedule: ts.Schedule, turn) -> float:
    """What plain SGD subtracts of a gradient of 1 after `turn(sched)`."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = optim.SGD([weight], lr=0.1)
    sched = ts.attach(optimizer, lr=schedule, resident=kind == "tensor")
    step = ts.compile_step(sched, backend="aot_eager") if kind == "graph" else optimizer.step
    weight.grad = torch.ones(1)
    for _ in range(2):
        step()
    before = weight.item()
    turn(sched)
    step()
    return before - weight.item()


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_step_uses_what_was_written(kind):
    schedule = ts.constant(0.5) * ts.live("x", 1.0)
    assert (
        used_by_sgd(kind, schedule, lambda _: None) == 0.5
    )  # the partner: where nothing is written it stays
    assert used_by_sgd(kind, schedule, lambda sched: sched.inputs["x"].fill_(0.5)) == 0.25
    assert used_by_sgd(kind, schedule, lambda sched: sched.inputs["x"].mul_(4.0)) == 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_step_uses_what_was_observed(kind):
    schedule = ts.constant(0.5) * ts.plateau(factor=0.5, patience=0)

    def observe(sched):
        sched.observe(1.0)
        sched.observe(torch.tensor([2.0]))

    assert used_by_sgd(kind, schedule, observe) == 0.25
    assert used_by_sgd(kind, schedule, lambda sched: sched.observe(1.0)) == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_groups_show_it_at_once(kind):
    run = Run(kind, BASE * ts.plateau(factor=0.5, patience=0))
    run.step()
    run.sched.observe(1.0)
    run.sched.observe(1.0)
    assert run.lr == pytest.approx(0.45)
    run.step()
    assert run.lr == pytest.approx(0.4)


events = st.lists(
    st.one_of(st.just(("step", 0.0)), st.tuples(st.sampled_from(["a", "b", "observe"]), st.floats(0.1, 2.0))),
    max_size=30,
)


def turn(sched: ts.Attachment, event: str, number: float) -> None:
    """One event of a run that is no step."""
    if event in sched.inputs:
        sched.inputs[event].fill_(number)
    elif event == "observe" and "plateau" in sched.inputs:
        sched.observe(number)


@settings(max_examples=60, deadline=None)
@given(st.lists(live_expressions(), min_size=1, max_size=4), events)
def test_floats_tensors_and_reference_agree(schedules, events):
    """Whatever is turned and observed, and when: tensors to one rounding to float32."""
    try:
        floats, tensors = (
            Run(kind, *schedules, steps=100, allow_out_of_range=True) for kind in ("float", "tensor")
        )
        for event, number in [*events, ("step", 0.0)]:
            if event != "step":
                turn(floats.sched, event, number)
                turn(tensors.sched, event, number)
                continue
            inputs = {name: value.item() for name, value in floats.sched.inputs.items()}
            assert inputs == {name: value.item() for name, value in tensors.sched.inputs.items()}
            step = floats.sched.step_count
            for run in (floats, tensors):  # what the pre-hook does
                run.sched._mode.refresh(run.optimizer.param_groups)
            ours = zip(schedules, floats.step(), tensors.step(), strict=True)
            for schedule, value, tensor in ours:
                mine = {held.name: inputs[held.name] for held in schedule.inputs()}
                # ** and differences enlarge the 4 ulp of a column; no sum here cancels to less than a thousandth of 10
                assert value == pytest.approx(
                    reference.value(schedule, step, inputs=mine), rel=1e-9, abs=1e-9
                )
                assert tensor == pytest.approx(value, rel=2 * U32, abs=1e-9)
    except ScheduleError as error:
        if "not a finite number" not in str(error):
            raise


def test_a_graph_follows_as_eager_floats_do():
    schedules = [
        BASE * ts.plateau(factor=0.5, patience=0),
        (BASE * ts.live("x", 1.0)).clamp(0.1, 0.7),
        ts.constant(1.0, steps=3) * ts.live("x", 1.0) >> ts.minimum(BASE, ts.plateau(factor=0.5, patience=0)),
        BASE,
        0.5 * BASE * ts.plateau(factor=0.5, patience=0),
    ]
    eager, graph = (Run(kind, *schedules, momentum=0.5 * ts.live("m", 1.0)) for kind in ("float", "graph"))
    used = {}
    with torch._dynamo.config.patch(error_on_recompile=True):
        for run in (eager, graph):
            used[run] = []
            for step in range(8):
                if step == 3:
                    run.sched.inputs["x"].fill_(0.25)
                    run.sched.inputs["m"].fill_(0.5)
                if step in (4, 5):
                    run.sched.observe(1.0)
                used[run].append([*run.step(), float(run.optimizer.param_groups[0]["momentum"])])
    assert used[eager][0] != used[eager][-1]
    for ours, theirs in zip(used[graph], used[eager], strict=True):
        assert ours == pytest.approx(theirs, rel=U32)


def test_slots_that_do_not_react_stay_as_they_are():
    run = Run("float", BASE * ts.live("x", 1.0), BASE)
    run.sched.inputs["x"].fill_(0.5)
    run.step()
    assert run.optimizer.param_groups[1]["lr"] == 0.9


# -- every kind of hyperparameter, group and option --------------------------------------------------------------------


@pytest.mark.parametrize("resident", [True, False])
def test_elements_and_free_names_react(resident):
    optimizer = optim.Adam([nn.Parameter(torch.ones(1))], capturable=False, foreach=False)
    sched = ts.attach(
        optimizer,
        lr=BASE * ts.live("x", 1.0),
        free={"kl": ts.linear(0.0, 1.0, steps=4) * ts.live("x", 1.0)},
        resident=resident,
    )
    kl = sched.value("kl")
    optimizer.step()
    sched.inputs["x"].fill_(0.5)
    optimizer.step()
    assert kl.item() == 0.25
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.4)
    kl.fill_(3.0)
    with pytest.raises(BindingError, match="somebody wrote to 'kl'"):
        optimizer.step()


def test_an_element_of_a_tuple_reacts():
    optimizer = optim.Adam([nn.Parameter(torch.ones(1))])
    sched = ts.attach(optimizer, betas=(None, 0.5 + 0.4 * ts.live("b", 1.0)))
    sched.inputs["b"].fill_(0.0)
    optimizer.step()
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_group_may_have_an_input_of_its_own(kind):
    run = Run(kind, *(BASE * ts.live(f"scale_{i}", 1.0) for i in range(4)), BASE * ts.live("scale_1", 1.0))
    run.sched.inputs["scale_1"].fill_(0.5)
    run.step()
    assert [float(g["lr"]) for g in run.optimizer.param_groups] == pytest.approx([0.9, 0.45, 0.9, 0.9, 0.45])


def test_initial_is_what_the_group_held():
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.25)
    ts.attach(optimizer, lr=ts.initial * ts.live("x", 2.0))
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("resident", [True, False])
def test_a_late_group_reacts_too(resident):
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    sched = ts.attach(optimizer, lr=BASE * ts.live("x", 1.0), resident=resident)
    held = sched.inputs["x"]
    optimizer.step()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    sched.adopt(lr=BASE * ts.live("x", 1.0) * ts.live("y", 1.0))
    assert sched.inputs["x"] is held
    held.fill_(0.5)
    sched.inputs["y"].fill_(0.5)
    optimizer.step()
    assert [float(g["lr"]) for g in optimizer.param_groups] == pytest.approx([0.4, 0.2])


@pytest.mark.parametrize("resident", [True, False])
def test_a_skipped_step_does_not_move_but_the_input_does(resident):
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, fused=True)
    sched = ts.attach(optimizer, lr=BASE * ts.live("x", 1.0), resident=resident)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
    optimizer.found_inf = torch.tensor(1.0)
    sched.inputs["x"].fill_(0.5)
    optimizer.step()
    assert (sched.step_count, float(optimizer.param_groups[0]["lr"])) == (0, 0.5)
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert (sched.step_count, float(optimizer.param_groups[0]["lr"])) == (1, pytest.approx(0.45))


def test_by_hand_and_behind_a_trainers_scheduler():
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    sched = ts.attach(optimizer, lr=BASE * ts.plateau(factor=0.5, patience=0), advance="manual")
    sched.observe(1.0)
    sched.observe(1.0)
    optimizer.step()
    sched.step()
    assert optimizer.param_groups[0]["lr"] == 0.45
    sched.detach()
    face = (trained := ts.attach(optimizer, lr=BASE * ts.live("x", 1.0), resident=True)).lr_scheduler()
    trained.inputs["x"].fill_(0.5)
    optimizer.step()
    face.step()
    assert face.get_last_lr() == [0.45]


@pytest.mark.parametrize("kind", KINDS)
def test_somebody_elses_write_is_still_an_error(kind):
    run = Run(kind, BASE * ts.live("x", 1.0))
    run.step()
    run.step()
    run.sched.inputs["x"].fill_(0.5)
    if kind == "float":
        run.optimizer.param_groups[0]["lr"] = 7.0
    else:
        run.optimizer.param_groups[0]["lr"].fill_(7.0)
    with pytest.raises(BindingError, match="no longer follows its schedule"):
        run.step()


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", [True, False])
def test_an_input_that_is_not_finite_is_an_error_before_it_is_used(resident):
    weight = nn.Parameter(torch.ones(1))
    optimizer = optim.SGD([weight], lr=0.1)
    sched = ts.attach(optimizer, lr=BASE / ts.live("x", 1.0), resident=resident)
    weight.grad = torch.ones(1)
    for wrong in (math.nan, 0.0):
        sched.inputs["x"].fill_(wrong)
        for _ in range(2):
            with pytest.raises(ScheduleError, match=rf"not a finite number, with x = {wrong:g}"):
                optimizer.step()
    assert (weight.item(), sched.step_count) == (1.0, 0)
    sched.inputs["x"].fill_(2.0)
    optimizer.step()
    assert weight.item() == 0.5


@pytest.mark.parametrize("resident", [True, False])
def test_an_input_that_leads_out_of_range_is_an_error_before_it_is_used(resident):
    weight = nn.Parameter(torch.ones(1))
    optimizer = optim.SGD([weight], lr=0.1)
    with pytest.raises(BindingError, match=r"must be at least 0, and is -1\.0 at step 0"):
        ts.attach(optimizer, lr=BASE * ts.live("x", -1.0), resident=resident)
    sched = ts.attach(optimizer, lr=BASE * ts.live("x", 1.0), resident=resident)
    weight.grad = torch.ones(1)
    sched.inputs["x"].fill_(-1.0)
    for _ in range(2):
        with pytest.raises(
            BindingError, match=r"at least 0, and is -1\.0 with its live inputs as they are now"
        ):
            optimizer.step()
    assert (weight.item(), sched.step_count) == (1.0, 0)
    sched.inputs["x"].fill_(0.5)
    optimizer.step()
    assert weight.item() == 0.5


def test_a_clock_of_tokens_and_an_input_do_not_go_together():
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(BindingError, match="a clock other than the optimizer's steps"):
        ts.attach(optimizer, lr=BASE * ts.live("x", 1.0), clock=ts.clock("tokens", resolution=2))
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("resident", [True, False])
def test_a_root_of_a_negative_number_is_no_complex_one(resident):
    weight = nn.Parameter(torch.ones(1))
    optimizer = optim.SGD([weight], lr=0.1)
    sched = ts.attach(optimizer, lr=ts.live("x", 0.25) ** 0.5, resident=resident)
    assert optimizer.param_groups[0]["lr"] == 0.5
    weight.grad = torch.ones(1)
    sched.inputs["x"].fill_(-1.0)
    with pytest.raises(ScheduleError, match="is nan at step 0, not a finite number, with x = -1"):
        optimizer.step()
    assert (weight.item(), sched.step_count) == (1.0, 0)


def test_attach_refuses_what_is_not_finite_from_the_start():
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ScheduleError, match="x = 0"):
        ts.attach(optimizer, lr=BASE / ts.live("x", 0.0))
    with pytest.raises(ScheduleError, match="two live inputs are named 'x'"):
        ts.attach(optimizer, lr=ts.live("x", 0.1) + ts.live("x", 0.2))
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda s: s.observe(), "takes one metric for all, or one for each"),
        (lambda s: s.observe(1.0, plateau=1.0), "takes one metric for all, or one for each"),
        (lambda s: s.observe(loss=1.0), "nothing that reacts is named 'loss'; there are plateau"),
        (lambda s: s.observe(x=1.0), "nothing that reacts is named 'x'"),
        (lambda s: s.observe("1.0"), "must be a number or a tensor of one element, got '1.0'"),
        (lambda s: s.observe(True), "must be a number or a tensor"),
        (lambda s: s.observe(torch.ones(2)), r"a tensor of shape \(2,\); take its mean"),
        (lambda s: s.observe(torch.ones(1, dtype=torch.complex64)), "must be a number or a tensor"),
    ],
)
def test_a_wrong_metric_is_refused_and_nothing_has_changed(call, text):
    run = Run("float", BASE * ts.plateau(patience=0) * ts.live("x", 1.0))
    with pytest.raises(BindingError, match=text):
        call(run.sched)
    assert run.sched.state_dict()["inputs"]["plateau"]["best"] == math.inf


def test_nothing_reacts():
    run = Run("float", BASE * ts.live("x", 1.0))
    with pytest.raises(BindingError, match=r"observe.. needs something that reacts"):
        run.sched.observe(1.0)
    plain = Run("float", BASE)
    assert dict(plain.sched.inputs) == {}
    with pytest.raises(BindingError, match="needs something that reacts"):
        plain.sched.observe(1.0)
    with pytest.raises(TypeError):
        run.sched.inputs["y"] = torch.zeros(())
    run.sched.detach()
    with pytest.raises(BindingError, match="detached"):
        _ = run.sched.inputs
    with pytest.raises(BindingError, match="detached"):
        run.sched.observe(1.0)


def test_a_metric_under_autograd_and_inference_mode():
    run = Run("tensor", BASE * ts.plateau(factor=0.5, patience=0))
    loss = (nn.Parameter(torch.ones(())) * 2.0).bfloat16()
    run.sched.observe(loss)
    with torch.inference_mode():
        run.sched.observe(torch.ones((), dtype=torch.float64) * 3.0)
    assert not run.sched.inputs["plateau"].requires_grad
    assert run.sched.inputs["plateau"].item() == 0.5


# -- state -------------------------------------------------------------------------------------------------------------

REACTING = (
    BASE
    * ts.plateau(factor=0.5, patience=1)
    * ts.greedy(patience=0, window=3, factor=0.5, name="slow")
    * ts.spike(hold=1)
    * ts.live("x", 1.0)
)
LOSSES = [1.0, 1.5, 0.5, 0.6, 9.0, 0.6, math.nan, 0.6, 0.6, 0.6]


def train(run: Run, losses: list[float]) -> list[float]:
    found = []
    for loss in losses:
        found += run.step()
        run.sched.observe(loss)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", ["sched", "optimizer", "pickle", "deepcopy"])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(kind, through):
    whole = Run(kind, REACTING)
    whole.sched.inputs["x"].fill_(0.75)
    first = Run(kind, REACTING)
    first.sched.inputs["x"].fill_(0.75)
    expected = train(whole, LOSSES)
    assert train(first, LOSSES[:5]) == expected[:5]
    second = Run(kind, REACTING)
    if through == "sched":
        saved = io.BytesIO()
        torch.save(first.sched.state_dict(), saved)
        saved.seek(0)
        second.sched.load_state_dict(torch.load(saved, weights_only=True))
    elif through == "optimizer":
        saved = io.BytesIO()
        torch.save(first.optimizer.state_dict(), saved)
        saved.seek(0)
        second.optimizer.load_state_dict(torch.load(saved, weights_only=True))
    else:
        if kind == "graph":
            first.step_.release()
        copied = (
            pickle.loads(pickle.dumps(first.sched)) if through == "pickle" else copy.deepcopy(first.sched)
        )
        second.sched, second.optimizer = copied, copied.optimizer
        second.parameters = [p for group in copied.optimizer.param_groups for p in group["params"]]
        second.step_ = copied.optimizer.step
    assert train(second, LOSSES[5:]) == pytest.approx(expected[5:], rel=U32)
    assert len(set(expected)) > 5


def test_before_attach_the_optimizers_checkpoint_carries_it_too():
    first = Run("float", REACTING)
    train(first, LOSSES[:5])
    saved = first.optimizer.state_dict()
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.5)
    optimizer.load_state_dict(saved)
    sched = ts.attach(optimizer, lr=REACTING)
    mine, theirs = sched.state_dict(), first.sched.state_dict()
    assert [change[1] for change in mine.pop("history")] == ["attach", "optimizer.load_state_dict"]
    del theirs["history"]
    assert mine == theirs or math.isnan(sched.inputs["x"].item())
    sched.detach()
    assert not [key for key in optimizer.param_groups[0] if key.startswith("schedule_")]


def test_a_checkpoint_without_an_input_says_so():
    first = Run("float", BASE * ts.plateau())
    saved = first.optimizer.state_dict()
    for key in [key for key in saved["param_groups"][0] if key.startswith("schedule_input")]:
        del saved["param_groups"][0][key]
    second = Run("float", BASE * ts.plateau())
    second.optimizer.load_state_dict(saved)
    with pytest.warns(UserWarning, match="nothing of the live input 'plateau'"):
        second.step()


def test_a_state_of_another_plateau_is_refused_and_may_be_kept():
    first = Run("float", BASE * ts.plateau(patience=1, factor=0.5))
    train(first, [1.0, 1.0, 1.0, 1.0])
    state = first.sched.state_dict()
    assert state["inputs"]["plateau"]["value"] == 0.5
    second = Run("float", BASE * ts.plateau(patience=5, factor=0.5))
    with pytest.raises(BindingError, match="saved under other schedules") as refused:
        second.sched.load_state_dict(state)
    assert "patience=1" in str(refused.value)
    assert second.lr == 1.0
    second.sched.load_state_dict(state, on_mismatch="keep_step")  # its numbers fit: they go on
    assert second.lr == 0.3
    second.sched.load_state_dict(state, on_mismatch="restart")
    assert second.lr == 1.0
    second.sched.load_state_dict(state, on_mismatch="saved")
    assert (second.lr, second.sched.slots[0].schedule) == (0.3, first.sched.slots[0].schedule)
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))])
    attached = ts.attach(optimizer, **ts.schedules_of(state))
    attached.load_state_dict(state)
    assert attached.state_dict() == state


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        3,
        {},
        {"plateau": 3},
        {"plateau": {"value": 1.0}},
        {"plateau": dict.fromkeys(("value", "best", "bad", "cooldown"), "1")},
        {"plateau": dict.fromkeys(("value", "best", "bad", "cooldown"), math.nan)},
    ],
)
def test_a_malformed_state_is_refused_and_nothing_has_changed(inputs):
    run = Run("float", BASE * ts.plateau(factor=0.5, patience=0))
    train(run, [1.0, 1.0])
    state = run.sched.state_dict() | {"inputs": inputs}
    before = run.sched.state_dict()
    with pytest.raises(ScheduleError, match="inputs"):
        run.sched.load_state_dict(state)
    assert run.sched.state_dict() == before
    assert run.lr == 0.4


def test_the_state_of_schedules_without_inputs_is_as_before():
    assert "inputs" not in Run("float", BASE).sched.state_dict()
    assert not [k for k in Run("float", BASE).optimizer.state_dict()["param_groups"][0] if "input" in k]


KILLED = """
import os, signal, sys, torch, tensorsched as ts
from pathlib import Path
path, last = Path(sys.argv[1]), int(sys.argv[2])
weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=20) * ts.plateau(factor=0.5, patience=1))
if path.exists():
    optimizer.load_state_dict(torch.load(path, weights_only=True))
while sched.step_count < 12:
    weight.grad = torch.ones(1)
    print(optimizer.param_groups[0]["lr"], flush=True)
    optimizer.step()
    sched.observe(1.0)
    torch.save(optimizer.state_dict(), path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)
    if sched.step_count == last:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_is_resumed_from_the_optimizers_checkpoint_alone(tmp_path):
    def run(name: str, last: int) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path / name, str(last)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(ts.__file__).parents[1])},
        )
        assert done.stderr == ""
        return done.stdout.split()

    whole = run("whole", 0)
    assert run("killed", 5) + run("killed", 0) == whole
    assert len(set(whole)) == 12


def test_the_state_is_plain():
    state = Run("float", REACTING).sched.state_dict()
    assert json.loads(json.dumps(state["inputs"])) == state["inputs"]  # with Infinity, as json writes it


# -- changes of plan ---------------------------------------------------------------------------------------------------


def test_floats_may_begin_to_react_and_cease_to():
    run = Run("float", BASE, 0.5 * BASE)
    run.step()
    run.sched.rewrite(lr=[BASE * ts.plateau(factor=0.5, patience=0), None])
    assert run.lr == 0.9
    run.sched.observe(1.0)
    run.sched.observe(1.0)
    run.step()
    assert [g["lr"] for g in run.optimizer.param_groups] == [0.4, 0.4]
    held = run.sched.inputs["plateau"]
    run.sched.rewrite(lr=[None, 0.5 * BASE * ts.plateau(factor=0.5, patience=0) * ts.live("x", 1.0)])
    assert run.sched.inputs["plateau"] is held
    assert [g["lr"] for g in run.optimizer.param_groups] == [0.4, 0.2]
    run.sched.inputs["x"].fill_(0.5)
    run.step()
    assert [g["lr"] for g in run.optimizer.param_groups] == pytest.approx([0.35, 0.0875])
    run.sched.rewrite(lr=[BASE, BASE])
    assert [g["lr"] for g in run.optimizer.param_groups] == pytest.approx([0.7, 0.7])
    run.step()
    assert run.lr == pytest.approx(0.6)


@pytest.mark.parametrize("kind", ["tensor", "graph"])
def test_tensors_take_another_curve_in_place(kind):
    run = Run(kind, BASE * ts.live("x", 1.0), BASE, capacity=40)
    run.sched.inputs["x"].fill_(0.5)
    run.step()
    run.step()
    longer = ts.linear(1.0, 0.0, steps=40)
    view = run.optimizer.param_groups[0]["lr"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        run.sched.rewrite(lr=[longer * ts.live("x", 1.0), None])
        assert run.optimizer.param_groups[0]["lr"] is view
        assert run.lr == pytest.approx(0.475)
        run.step()
    with pytest.raises(ScheduleError, match="ends at step 40"):
        run.sched.rewrite(lr=[ts.linear(1.0, 0.0, steps=41) * ts.live("x", 1.0), None])
    assert run.lr == pytest.approx(0.5 * longer(3), rel=U32)


@pytest.mark.parametrize("kind", ["tensor", "graph"])
@pytest.mark.parametrize(
    ("rewritten", "values"),
    [
        ([BASE * ts.live("y", 0.5), None], (0.4, 0.8)),
        ([BASE + ts.live("x", 1.0), None], (1.3, 0.8)),
        ([BASE, None], (0.8, 0.8)),
        ([None, BASE * ts.live("x", 1.0)], (0.4, 0.4)),
        ([BASE, BASE * ts.live("x", 1.0)], (0.8, 0.4)),
    ],
    ids=["other-input", "other-operation", "none", "second-too", "second-instead"],
)
def test_one_slot_of_several_comes_to_follow_other_inputs(kind, rewritten, values):
    """What the others follow stays: each group has its own part, or both share one."""
    run = Run(kind, BASE * ts.live("x", 1.0), BASE, capacity=40)
    run.sched.inputs["x"].fill_(0.5)
    run.step()
    run.sched.rewrite(lr=rewritten)
    run.step()
    assert [float(g["lr"]) for g in run.optimizer.param_groups] == pytest.approx(values, rel=4 * U32)


def test_a_rewrite_that_fails_changes_nothing():
    run = Run("float", BASE * ts.live("x", 1.0))
    with pytest.raises(ScheduleError, match=r"'x' is live.* cannot become plateau"):
        run.sched.rewrite(lr=BASE * ts.plateau(name="x"))
    with pytest.raises(ScheduleError, match="y = 0"):
        run.sched.rewrite(lr=BASE / ts.live("y", 0.0))
    assert list(run.sched.inputs) == ["x"]
    assert run.step() == [1.0]


def test_a_plateau_may_become_more_patient():
    run = Run(
        "float", BASE * ts.plateau(factor=0.5, patience=0), 0.5 * BASE * ts.plateau(factor=0.5, patience=0)
    )
    train(run, [1.0, 1.0])
    patient = ts.plateau(factor=0.5, patience=1)
    with pytest.raises(ScheduleError, match="two live inputs are named 'plateau'"):
        run.sched.rewrite(lr=[BASE * patient, None])
    run.sched.rewrite(lr=[BASE * patient, 0.5 * BASE * patient])
    assert run.lr == 0.4
    run.sched.observe(1.0)
    assert run.lr == 0.4
    run.sched.observe(1.0)
    assert run.lr == 0.2


def test_seek_and_detach_leave_the_inputs_as_they_are():
    run = Run("float", BASE * ts.live("x", 1.0))
    run.sched.inputs["x"].fill_(0.5)
    run.sched.seek(5)
    assert run.lr == 0.25
    run.sched.detach()
    assert run.lr == 0.25


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_print_shows_the_inputs_as_they_are():
    run = Run("float", BASE * ts.plateau(factor=0.5, patience=0) * ts.live("x", 1.0))
    train(run, [1.0, 1.0])
    run.sched.inputs["x"].fill_(0.25)
    text = str(run.sched)
    assert "0.1    " in text  # lr, at once
    assert "-      plateau  input  0.5    plateau(factor=0.5, patience=0)" in text
    assert "-      x        input  0.25   live('x', 1.0)" in text


def test_a_plot_has_them_as_they_are_and_says_so():
    pytest.importorskip("matplotlib").use("agg")
    run = Run("float", BASE * ts.live("x", 1.0))
    run.sched.inputs["x"].fill_(0.5)
    (axes,) = run.sched.plot()
    assert "with its inputs as they are now" in axes.get_title() + axes.get_ylabel()
    assert max(max(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata()) > 5) == 0.5


def test_a_plan_shows_a_metric_to_all_that_react():
    one, two, three = (
        Run("float", schedule)
        for schedule in (
            BASE * ts.plateau(factor=0.5, patience=0),
            BASE * ts.plateau(factor=0.1, patience=0) * ts.spike(hold=0, name="jump"),
            BASE,
        )
    )
    plan = ts.Plan(one=one.sched, two=two.sched, three=three.sched)
    plan.observe(1.0)
    plan.observe(1.5)
    assert [run.lr for run in (one, two, three)] == [0.5, 0.1, 1.0]
    plan.observe(jump=9.0)
    assert [run.lr for run in (one, two, three)] == [0.5, 0.05, 1.0]
    with pytest.raises(BindingError, match="nothing that reacts is named 'dip'; there are plateau, jump"):
        plan.observe(dip=1.0)


def test_processes_that_see_one_metric_decide_alike():
    """What the docstring of observe asks for: the mean of all metrics, not each its own."""
    losses = [[1.0, 2.0], [0.9, 2.2], [0.8, 2.4]]
    own, shared = [], []
    for rank in range(2):
        for found, seen in (
            (own, [each[rank] for each in losses]),
            (shared, [sum(each) / 2 for each in losses]),
        ):
            run = Run("float", BASE * ts.plateau(factor=0.5, patience=0))
            train(run, seen)
            found.append(run.sched.inputs["plateau"].item())
    assert own[0] != own[1]
    assert shared[0] == shared[1]

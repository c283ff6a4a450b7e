"""Live inputs when something changes: metrics that are refused, inputs that go and come, and what is given back."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch._dynamo
from torch import nn, optim
from torch._dynamo.backends.debugging import aot_eager

import tensorsched as ts
from tests.binding.test_attach import set_gradients, train, two_groups

BASE = ts.linear(1.0, 0.0, steps=10)
FALLS = ts.plateau(factor=0.5, patience=0) - 0.75  # out of range once it was reduced
KINDS = pytest.mark.parametrize("resident", [False, True], ids=["float", "tensor"])


def sgd(lr: ts.Schedule, **options) -> tuple[optim.SGD, ts.Attachment]:
    optimizer = two_groups(optim.SGD)
    return optimizer, ts.attach(optimizer, lr=lr, **options)


def lr(optimizer: optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


# -- metrics -----------------------------------------------------------------------------------------------------------


@KINDS
def test_a_metric_that_leads_out_of_range_is_taken_back(resident):
    """Otherwise the next step would use the value that was refused, and the run go on from it."""
    optimizer, sched = sgd(FALLS, resident=resident)
    sched.observe(1.0)
    before = sched.state_dict()
    for _ in range(2):
        with pytest.raises(ts.BindingError, match=r"at least 0, and is -0\.25"):
            sched.observe(2.0)
        assert sched.state_dict() == before
        assert lr(optimizer) == 0.25
    train(optimizer, steps=2)
    assert lr(optimizer) == sched.log()["lr/0"] == 0.25
    sched.observe(0.5)
    assert sched.inputs["plateau"].item() == 1.0, "better than before: nothing to reduce"


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_plan_is_shown_a_metric_as_a_whole_or_not_at_all(order):
    runs = {"a": sgd(BASE * ts.plateau(factor=0.5, patience=0)), "b": sgd(FALLS)}
    plan = ts.Plan({name: runs[name][1] for name in order})
    plan.observe(1.0)
    before = plan.state_dict()
    with pytest.raises(ts.BindingError, match=r"b: lr\[group 0\] must be at least 0"):
        plan.observe(2.0)
    assert plan.state_dict() == before
    assert (lr(runs["a"][0]), lr(runs["b"][0])) == (1.0, 0.25)
    runs["b"][1].detach()
    with pytest.raises(ts.BindingError, match="b: this schedule is detached"):
        plan.observe(2.0)
    assert lr(runs["a"][0]) == 1.0
    runs["a"][1].observe(2.0)
    assert lr(runs["a"][0]) == 0.5, "the control: alone it decides"


# -- names -------------------------------------------------------------------------------------------------------------


def test_an_input_that_is_not_there_is_named_with_those_that_are():
    _, sched = sgd(BASE * ts.live("x", 1.0))
    with pytest.raises(ts.BindingError, match=r"no live input is named 'gone'; there are 'x'"):
        sched.inputs["gone"].fill_(0.5)
    assert sched.inputs.get("gone") is None
    assert "gone" not in sched.inputs
    _, plain = sgd(BASE)
    with pytest.raises(ts.BindingError, match=r"named 'x'; these schedules have none \(ts\.live"):
        plain.inputs["x"]


def test_an_element_of_what_is_no_tuple():
    optimizer = optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "name": "g1"}], lr=0.1)
    sched = ts.attach(optimizer, lr=BASE)
    with pytest.raises(
        ts.BindingError, match=r"'lr' of group 'g1', element 0 \(it is one number and no tuple"
    ):
        sched.value("lr", "g1", 0)
    with pytest.raises(ts.BindingError, match=r"no slot is 'lr' of group 3; there are lr\[group 0\]"):
        sched.value("lr", 3)


# -- inputs that go, and come again ------------------------------------------------------------------------------------


def test_a_handle_stays_good_while_its_input_is_gone_and_the_input_begins_anew():
    """A run that is resumed while it is gone has nothing of it either: both go on alike."""
    optimizer, sched = sgd(BASE * ts.live("x", 1.0))
    handle = sched.inputs["x"]
    handle.fill_(0.5)
    train(optimizer, steps=1)
    sched.rewrite(lr=BASE)
    handle.fill_(0.25)
    train(optimizer, steps=1)
    assert lr(optimizer) == BASE(2)
    resumed, again = sgd(BASE)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (sched, again):
        each.rewrite(lr=BASE * ts.live("x", 1.0))
    assert lr(optimizer) == lr(resumed) == BASE(2)
    assert sched.inputs["x"].item() == 1.0
    handle.fill_(0.5)
    train(optimizer, steps=1)
    assert (sched.log()["lr/0"], lr(optimizer)) == (0.5 * BASE(2), 0.5 * BASE(3))


def test_one_that_came_by_a_rewrite_is_in_the_optimizer_s_checkpoint():
    optimizer, sched = sgd(BASE)
    train(optimizer, steps=2)
    sched.rewrite(lr=BASE * ts.plateau(factor=0.5, patience=0))
    entries = {k for k in optimizer.param_groups[1] if k.startswith("schedule_input.")}
    assert "schedule_input.plateau.value" in entries, "placeholders, for formats that only read what is there"
    sched.observe(1.0)
    sched.observe(2.0)
    assert lr(optimizer) == 0.5 * BASE(2)
    resumed, _ = sgd(BASE * ts.plateau(factor=0.5, patience=0))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert lr(resumed) == 0.5 * BASE(2)
    sched.rewrite(lr=BASE)
    assert not any(k.startswith("schedule_input.") for k in optimizer.param_groups[1])


# -- giving back -------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("wrong", [math.inf, math.nan, -1.0])
@pytest.mark.parametrize("how", ["detach", "hand_over"])
def test_what_no_step_would_take_is_not_left_in_the_group(resident, wrong, how):
    optimizer, sched = sgd(BASE * ts.live("x", 1.0), resident=resident, free={"kl": BASE})
    train(optimizer, steps=2)
    sched.inputs["x"].fill_(wrong)
    sched.detach() if how == "detach" else sched.hand_over("lr")
    assert [type(g["lr"]) for g in optimizer.param_groups] == [float, float]
    assert lr(optimizer) == pytest.approx(BASE(2), rel=2**-23)


@KINDS
def test_what_was_turned_and_fits_is_given_back(resident):
    optimizer, sched = sgd(BASE * ts.live("x", 1.0), resident=resident)
    sched.inputs["x"].fill_(0.5)
    sched.detach()
    assert lr(optimizer) == 0.5


# -- other tensors in the place of those that there are ----------------------------------------------------------------


class Twins:
    """The same run twice: eager floats, and another way to step."""

    def __init__(self, lr: ts.Schedule, how: str, resident: bool = False, **options) -> None:
        self.runs = [sgd(lr), sgd(lr, resident=resident, **options)]
        self.graphs = 0
        optimizer, sched = self.runs[1]
        self.step = ts.compile_step(sched, backend=self.backend) if how != "eager" else optimizer.step
        if how == "traced":
            self.step = torch.compile(self.step, backend=self.backend, fullgraph=True)
            self.steps(2, inner=ts.compile_step(sched, backend="aot_eager"))  # makes the optimizer's state

    def backend(self, module, example_inputs):
        self.graphs += 1
        return aot_eager(module, example_inputs)

    def steps(self, times: int, inner=None) -> None:
        for number in range(times):
            for optimizer, step in zip(
                (run[0] for run in self.runs), (self.runs[0][0].step, inner or self.step), strict=True
            ):
                set_gradients(optimizer, number)
                step()
            mine, theirs = (run[1].log() for run in self.runs)
            assert theirs == pytest.approx(mine, rel=2**-22, abs=1e-30)
            values = [[float(g["lr"]) for g in optimizer.param_groups] for optimizer, _ in self.runs]
            assert values[1] == pytest.approx(values[0], rel=2**-22, abs=1e-30)
        a, b = ([p for g in o.param_groups for p in g["params"]] for o, _ in self.runs)
        assert all(torch.allclose(p, q, rtol=1e-5, atol=1e-7) for p, q in zip(a, b, strict=True))

    def both(self, change) -> None:
        for _, sched in self.runs:
            change(sched)


CHANGES = {
    "cool down": lambda s: s.cool_down(6, to=0.01),
    "become live": lambda s: s.rewrite(lr=lambda old, _: old * ts.live("y", 0.5)),
    "other operations": lambda s: s.rewrite(lr=0.3 * ts.plateau(factor=0.5, patience=0) + 0.01),
}


@pytest.mark.parametrize("how", ["eager", "compiled", "traced"])
@KINDS
def test_what_is_live_is_rewritten_in_tensors_and_in_graphs_too(how, resident):
    twins = Twins(BASE * ts.live("x", 1.0), how, resident, capacity=60)
    twins.steps(2)
    twins.both(lambda sched: sched.inputs["x"].fill_(0.5))
    twins.steps(2)
    for change in CHANGES.values():
        graphs = twins.graphs
        twins.both(change)
        twins.steps(3)
        if how != "eager":
            assert twins.graphs == graphs + 1, "compiled once more, and not at every step"
    twins.both(lambda sched: (sched.observe(1.0), sched.observe(2.0)))
    twins.steps(2)
    assert twins.runs[1][1].log()["lr/0"] == pytest.approx(0.16)
    assert [c.what for c in twins.runs[1][1].history()] == ["attach", "cool_down", "rewrite", "rewrite"]
    torch._dynamo.reset()


def test_what_somebody_holds_or_a_captured_graph_reads_stays_where_it_is():
    optimizer, sched = sgd(BASE * ts.live("x", 1.0), resident=True, free={"kl": BASE})
    held = sched.value("kl")
    with pytest.raises(ts.ScheduleError, match="'kl' is a tensor that depends on the step alone"):
        sched.rewrite(free={"kl": BASE * ts.live("x", 1.0)})
    sched.cool_down(4)
    train(optimizer, steps=1)
    assert held.item() == sched.value("kl").item() == pytest.approx(BASE(1), rel=2**-23)
    captured_optimizer, captured = sgd(BASE * ts.live("x", 1.0), resident=True)
    before = captured.state_dict()
    for engine in captured._mode.engines:
        engine.driver.captured = True  # as a capture of the user's leaves it
    with pytest.raises(ts.ScheduleError, match="perhaps in a graph"):
        captured.cool_down(4)
    assert captured.state_dict() == before
    compiled_optimizer, compiled = sgd(BASE * ts.live("x", 1.0))
    step = ts.compile_step(compiled, backend="aot_eager")
    compiled._graph.captured = True
    with pytest.raises(ts.ScheduleError, match="perhaps in a graph"):
        compiled.cool_down(4)
    assert (lr(captured_optimizer), lr(compiled_optimizer)) == (1.0, 1.0)
    step.release()
    torch._dynamo.reset()

"""Plan: several attachments as one run."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

import tensorsched as ts

A, B = ts.linear(1.0, 0.0, steps=8), ts.cosine(0.5, 0.1, steps=8)


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(3))


class Run:
    """Two optimizers and their plan, kept."""

    def __init__(self, *, tensors: bool = False, a: Any = A, b: Any = B, **options: Any) -> None:
        lr = torch.tensor(0.1) if tensors else 0.1
        self.a = optim.SGD([parameter()], lr=lr, momentum=0.5)
        self.b = optim.AdamW([parameter()], lr=0.2)
        self.plan = ts.Plan(
            a=ts.attach(self.a, lr=a, capacity=100),
            b=ts.attach(self.b, lr=b, weight_decay=0.5 * B),
            **options,
        )

    def step(self, count: int = 1, only: str = "ab") -> None:
        for _ in range(count):
            for name in only:
                getattr(self, name).step()

    @property
    def held(self) -> list[float]:
        return [
            float(self.a.param_groups[0]["lr"]),
            *(self.b.param_groups[0][k] for k in ("lr", "weight_decay")),
        ]


def values(a: int, b: int) -> list[float]:
    return [A(a), B(b), 0.5 * B(b)]


@pytest.fixture(params=[False, True], ids=["float", "tensor"])
def run(request) -> Run:
    return Run(tensors=request.param)


# -- as a collection ---------------------------------------------------------------------------------------------------


def test_each_attachment_is_there_by_its_name_and_counts_for_itself(run):
    assert (list(run.plan), len(run.plan), "a" in run.plan, "lr" in run.plan) == (["a", "b"], 2, True, False)
    assert run.plan["b"] is run.plan.attachments["b"]
    run.step(2)
    run.step(1, "b")
    assert run.plan.step_counts == {"a": 2, "b": 3}
    assert run.held == pytest.approx(values(2, 3), abs=1e-7)
    assert run.held != pytest.approx(values(0, 0), abs=1e-7), "the control: frozen"
    with pytest.raises(ts.BindingError, match="no attachment 'c'; there are 'a', 'b'"):
        run.plan["c"]
    with pytest.raises(TypeError):
        run.plan.attachments["c"] = run.plan["a"]


def attached(optimizer: Any = None) -> ts.Attachment:
    return ts.attach(optimizer or KEPT, lr=A)


KEPT = optim.SGD([parameter()])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (ts.Plan, "it needs at least one attachment"),
        (lambda: ts.Plan(attached()), r"give each attachment a name, ts.Plan\(muon=ts.attach"),
        (lambda: ts.Plan([attached()]), "give each attachment a name"),
        (lambda: ts.Plan({1: attached()}), "a name must be a string, got 1"),
        (lambda: ts.Plan({"": attached()}), "a name must be a string, got ''"),
        (lambda: ts.Plan(a=KEPT), r"a must be what ts.attach\(\) returned"),
        (lambda: ts.Plan(a=A), r"a must be what ts.attach\(\) returned"),
        (lambda: ts.Plan(a=None), r"a must be what ts.attach\(\) returned, got None"),
        (lambda: ts.Plan(a=(s := attached()), b=s), "a and b are the same attachment"),
        (lambda: ts.Plan(a=attached(), b=ts.attach(KEPT, momentum=A)), "a and b are of one optimizer"),
        (lambda: ts.Plan(a=(s := attached(), s.detach())[0]), "a is detached and controls nothing"),
        (lambda: ts.Plan(a=attached(optim.SGD([parameter()]))), "a: the optimizer of this schedule is gone"),
        (lambda: ts.Plan(momentum=attached()), "'momentum' is a hyperparameter"),
        (lambda: ts.Plan(a=attached(), together=1), "Plan: together must be True or False, got 1"),
        (lambda: ts.Plan({"a": attached()}, a=1), "'a' is given twice"),
        (lambda: ts.Plan(a=ts.Plan(b=attached())), r"a must be what ts.attach\(\) returned"),
    ],
)
def test_what_makes_no_plan_is_an_error(make, text):
    ts.detach(KEPT)
    with pytest.raises(ts.BindingError, match=text):
        make()


def test_a_name_may_be_that_of_an_argument():
    assert list(ts.Plan({"together": attached(optimizer := optim.SGD([parameter()]))})) == ["together"]
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_print_says_where_each_is_and_whether_that_is_meant(run):
    run.step(3)
    assert str(run.plan).splitlines()[:2] == ["2 optimizers, at step 3", "a (SGD):"]
    assert "  step 3, advances after each optimizer.step()" in str(run.plan)
    run.step(1, "b")
    assert str(run.plan).startswith(
        "2 optimizers: a at step 3, b at step 4 (they were meant to step together)\n"
    )
    free = ts.Plan(run.plan.attachments, together=False)
    assert str(free).startswith("2 optimizers: a at step 3, b at step 4\n")
    assert repr(free) == "<Plan of a, b>"


def test_optimizers_are_freed_with_the_plan_alive():
    run = Run()
    gone = weakref.ref(run.a)
    del run.a
    assert gone() is None
    assert "a (gone):" in str(run.plan)
    with pytest.raises(ts.BindingError, match="a: the optimizer of this schedule is gone"):
        run.plan.seek(3)


def test_a_plan_that_nobody_keeps_goes_away_and_its_schedules_stay():
    run = Run(together=False)
    gone = weakref.ref(run.plan)
    run.plan = None
    gc.collect()
    assert gone() is None
    run.step(2)
    assert run.held == values(2, 2)


# -- changes to all ----------------------------------------------------------------------------------------------------


def test_seek_goes_there_with_all_or_with_none(run):
    run.step(2)
    run.plan.seek(5)
    assert run.held == pytest.approx(values(5, 5), abs=1e-7)
    run.plan["b"].seek(6)
    with pytest.raises(ts.ScheduleError, match="a: seek: step must be"):
        run.plan.seek(-1)
    run.b.param_groups.append(run.b.param_groups.pop())
    run.b.add_param_group({"params": [parameter()]})
    run.b.param_groups.reverse()
    with pytest.raises(ts.BindingError, match="b: group 0 holds other parameters"):
        run.plan.seek(1)
    assert run.plan.step_counts == {"a": 5, "b": 6}
    assert float(run.a.param_groups[0]["lr"]) == pytest.approx(A(5))


def test_rewrite_for_all_for_those_that_have_it_and_for_one(run):
    run.step(2)
    run.plan.rewrite(lr=ts.constant(0.25), weight_decay=ts.constant(0.125))
    assert run.held == [0.25, 0.25, 0.125]
    run.plan.rewrite(a={"lr": 0.5}, b={"weight_decay": 0.75})
    assert run.held == [0.5, 0.25, 0.75]
    run.plan.rewrite(lr=0.0625, b={"lr": 0.03125})
    assert run.held == [0.0625, 0.03125, 0.75]
    assert run.plan.step_counts == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "rewrite\\(\\) was given nothing"),
        ({"a": {}}, None),
        ({"lr": 0.5, "eps": A}, "'eps' has a schedule in none of a, b"),
        ({"lr": 0.5, "b": 0.25}, "b is an attachment of the plan: give it a dict"),
        ({"lr": 0.5, "c": {"lr": 0.25}}, "'c' has a schedule in none of a, b, and is the name of none"),
        ({"lr": 0.5, "b": {"lr": [A, B]}}, "b: lr: the list has 2 entries"),
        ({"lr": 0.5, "b": {"eps": 1e-8}}, r"b: eps\[group 0\] has no schedule that could be replaced"),
        ({"lr": 0.5, "weight_decay": float("nan")}, "b: weight_decay of group 0 must be"),
        ({"lr": "x"}, "a: lr of group 0: expected a schedule"),
    ],
)
def test_a_rewrite_that_fails_changes_nothing(run, changes, text):
    run.step(3)
    before, states = run.held, run.plan.state_dict()
    if text is None:
        run.plan.rewrite(**changes)
    else:
        with pytest.raises((ts.BindingError, ts.ScheduleError), match=text):
            run.plan.rewrite(**changes)
    assert run.held == before
    assert run.plan.state_dict() == states
    run.step()
    assert run.held == pytest.approx(values(4, 4), abs=1e-7)


def test_what_goes_back_keeps_what_waits_to_be_said(run):
    """A checkpoint of other schedules was loaded into one, and a rewrite of both fails: the warning still comes."""
    other = Run(b=ts.constant(0.3))
    run.step(2)
    run.b.load_state_dict(other.b.state_dict())
    with pytest.raises(ts.BindingError, match="b: eps"):
        run.plan.rewrite(lr=0.5, b={"eps": 1.0})
    with pytest.warns(UserWarning, match="saved under other schedules"):
        run.b.step()


def test_a_metric_is_shown_to_all_that_react():
    run = Run(b=B * ts.plateau(factor=0.5, patience=0))
    for metric in (1.0, 2.0):
        run.plan.observe(metric)
    assert run.b.param_groups[0]["lr"] == 0.5 * B(0)
    assert run.a.param_groups[0]["lr"] == A(0)
    with pytest.raises(ts.BindingError, match="metric"):
        run.plan.observe("x")
    with pytest.raises(ts.BindingError, match="react"):
        Run().plan.observe(1.0)


@pytest.mark.parametrize("how", ["load", "rewrite", "rewrite without"])
def test_what_fails_leaves_the_live_inputs_as_they_were(how):
    a, b = (optim.SGD([parameter()], momentum=0.5) for _ in range(2))
    lr = ts.linear(1.0, 0.0, steps=8) * ts.plateau(factor=0.5, patience=0)
    plan = ts.Plan(a=ts.attach(a, lr=lr), b=ts.attach(b, lr=ts.constant(0.1)))
    state = plan.state_dict()
    for loss in (1.0, 2.0):
        plan.observe(loss)
    assert a.param_groups[0]["lr"] == 0.5
    inputs = plan["a"].state_dict()["inputs"]
    if how == "load":
        optimizer = optim.SGD([parameter()])
        state["attachments"]["b"] = ts.attach(optimizer, lr=ts.constant(0.2)).state_dict()
        with pytest.raises(ts.BindingError, match=r"b: .*other schedules"):
            plan.load_state_dict(state)
    else:
        to = ts.constant(0.3) if how == "rewrite without" else 0.1 * lr
        with pytest.raises(ts.BindingError, match=r"b: .*weight_decay"):
            plan.rewrite(a={"lr": to}, b={"weight_decay": ts.constant(0.1)})
    assert a.param_groups[0]["lr"] == 0.5
    assert plan["a"].state_dict()["inputs"] == inputs
    a.step()
    assert a.param_groups[0]["lr"] == 0.5 * 0.875


def test_detach_gives_all_back(run):
    run.step(2)
    held = run.held
    run.plan.detach()
    run.step(3)
    assert run.held == held
    assert not run.a._optimizer_step_post_hooks
    with pytest.raises(ts.BindingError, match="a: this schedule is detached"):
        run.plan.seek(0)
    assert "detached" in str(run.plan)


# -- state -------------------------------------------------------------------------------------------------------------


def test_one_state_for_all_by_torch_save(run, tmp_path):
    run.step(3)
    run.step(1, "b")
    torch.save(run.plan.state_dict(), tmp_path / "plan")
    other = Run()
    other.plan.load_state_dict(torch.load(tmp_path / "plan", weights_only=True))
    assert other.plan.step_counts == {"a": 3, "b": 4}
    assert other.held == values(3, 4)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninit:UserWarning")
@pytest.mark.parametrize("first", ["plan", "optimizers"])
def test_one_state_for_all_by_distributed_checkpoint(first, tmp_path):
    model = nn.ModuleDict({"x": nn.Linear(3, 3), "y": nn.Linear(3, 1)})

    def made() -> tuple[nn.Module, list[Any], ts.Plan]:
        model_ = copy.deepcopy(model)
        both = [optim.SGD(model_["x"].parameters(), momentum=0.5), optim.AdamW(model_["y"].parameters())]
        return (
            model_,
            both,
            ts.Plan({n: ts.attach(o, lr=s) for n, o, s in zip("ab", both, (A, B), strict=True)}),
        )

    def step(module: nn.ModuleDict, both: list[Any]) -> None:
        module["y"](module["x"](torch.ones(2, 3)).tanh()).square().sum().backward()
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad()

    def state(module: nn.Module, both: list[Any], plan: ts.Plan) -> dict[str, Any]:
        parts = {"plan": plan.state_dict(), "optimizers": get_optimizer_state_dict(module, both)}
        return {"model": module.state_dict(), first: parts.pop(first)} | parts

    module, both, plan = made()
    for _ in range(3):
        step(module, both)
    dcp.save(state(module, both, plan), checkpoint_id=tmp_path)
    for _ in range(2):
        step(module, both)
    again, optimizers, other = made()
    loaded = state(again, optimizers, other)
    dcp.load(loaded, checkpoint_id=tmp_path)
    for part in [key for key in loaded if key != "model"]:
        if part == "plan":
            other.load_state_dict(loaded["plan"])
        else:
            set_optimizer_state_dict(again, optimizers, loaded["optimizers"])
    assert other.step_counts == {"a": 3, "b": 3}
    for _ in range(2):
        step(again, optimizers)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), again.parameters(), strict=True))


def test_the_optimizers_own_checkpoints_carry_the_steps_too(run):
    run.step(3)
    other = Run()
    other.a.load_state_dict(run.a.state_dict())
    other.b.load_state_dict(run.b.state_dict())
    assert other.plan.step_counts == {"a": 3, "b": 3}


def test_another_schedule_is_an_error_that_changes_none(run):
    run.step(3)
    other = Run(b=ts.constant(0.3))
    other.step(1)
    with pytest.raises(ts.BindingError, match=r"b: this state \(step 3\) was saved under other schedules"):
        other.plan.load_state_dict(run.plan.state_dict())
    assert other.plan.step_counts == {"a": 1, "b": 1}
    other.plan.load_state_dict(run.plan.state_dict(), on_mismatch="keep_step")
    assert (other.plan.step_counts, other.b.param_groups[0]["lr"]) == ({"a": 3, "b": 3}, 0.3)
    other.plan.load_state_dict(run.plan.state_dict(), on_mismatch="saved")
    assert other.held == values(3, 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda _: None, "state must be the dict"),
        (lambda s: s["attachments"]["a"], r"format must be 'tensorsched/plan' \(one attachment's: plan\[name\]"),
        (lambda s: s | {"version": 2}, "version must be 1, got 2"),
        (lambda s: s | {"version": True}, "version must be 1"),
        (lambda s: s | {"more": 1}, "more: unknown entry of the state"),
        (lambda s: {k: v for k, v in s.items() if k != "attachments"}, "attachments: missing from the state"),
        (lambda s: s | {"attachments": [1]}, "attachments must be a dict"),
        (lambda s: s | {"attachments": {"a": s["attachments"]["a"]}}, "is of a plan of a, and this plan is of a, b"),
        (lambda s: s | {"attachments": s["attachments"] | {"b": {}}}, "b: format must be"),
        (lambda s: s | {"attachments": s["attachments"] | {"b": None}}, "b: state must be"),
    ],
)  # fmt: skip
def test_a_malformed_state_changes_nothing(change, text):
    run = Run()
    run.step(3)
    state = run.plan.state_dict()
    run.step(1)
    with pytest.raises((ts.ScheduleError, ts.BindingError), match=text):
        run.plan.load_state_dict(change(state))
    assert run.plan.step_counts == {"a": 4, "b": 4}
    assert run.held == values(4, 4)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_copies_belong_to_copied_optimizers(run, how):
    run.step(2)
    other = how(run)
    other.step(3)
    assert (run.plan.step_counts, other.plan.step_counts) == ({"a": 2, "b": 2}, {"a": 5, "b": 5})
    assert other.held == pytest.approx(values(5, 5), abs=1e-7)
    alone = how(run.plan)
    assert alone.step_counts == {"a": 2, "b": 2}
    with pytest.warns(UserWarning, match="drifted apart"):
        other.step(2, "b")


def test_plot_has_a_panel_for_each_and_marks_each_ones_step(run):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    run.step(2)
    run.step(1, "b")
    axes = run.plan.plot()
    assert [ax.get_ylabel() for ax in axes] == ["a: lr", "b: lr", "b: weight_decay"]
    marked = [text.get_text() for ax in axes for text in ax.texts if text.get_text().startswith("step ")]
    assert marked == ["step 2", "step 3", "step 3"]
    matplotlib.pyplot.close("all")


# -- drift -------------------------------------------------------------------------------------------------------------


def test_an_optimizer_that_is_forgotten_is_said_once(run, recwarn):
    run.step(1, "b")
    assert not recwarn.list, "within an iteration one is ahead"
    with pytest.warns(
        UserWarning, match=r"drifted apart: a at step 0, b at step 2. One was not stepped"
    ) as seen:
        run.step(1, "b")
    assert len(seen) == 1
    run.step(20, "b")
    assert not recwarn.list
    run.plan.seek(2)
    run.step(10)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="a at step 14, b at step 12"):
        run.step(3, "a")


def test_counters_are_read_more_and_more_rarely_where_they_do_not_come_apart(monkeypatch, recwarn):
    """Steps that no hook of b reports, as of a graph that is replayed: a suspicion each time, and never true."""
    run, read_at = Run(), []
    say = run.plan._drift.say
    monkeypatch.setattr(run.plan._drift, "say", lambda counts: (read_at.append(counts["a"]), say(counts)))
    for step in range(1, 30):
        run.plan["b"].seek(step)
        run.step(1, "a")
    assert read_at == [2, 5, 10, 19]
    run.plan.seek(0)
    for step in range(1, 6):
        run.plan["b"].seek(step)
        run.step(1, "a")
    assert read_at[4:] == [2, 5], "after a seek as at first"
    assert not recwarn.list


@pytest.mark.filterwarnings("ignore:the optimizers of a plan have drifted apart:UserWarning")
def test_dynamo_looks_into_no_count_of_a_train_step_that_users_compile():
    """A suspicion too, and what reads the counters then, would be traced and compiled as the user's own."""
    frames = []
    for together in (False, False, True):  # at first more: Dynamo remembers what it skips
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        run = Run(together=together)
        for optimizer in (run.a, run.b):
            optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
        step = torch.compile(run.step, backend="eager")
        for only in ("ab", "ab", "b", "b", "b"):
            step(1, only)
        assert run.plan.step_counts == {"a": 2, "b": 5}
        assert (run.plan._drift is not None and run.plan._drift._patience > 1) == together, (
            "one was suspected"
        )
        frames.append(torch._dynamo.utils.counters["frames"]["total"])
    assert frames[2] == frames[1] > 0
    torch._dynamo.reset()


def test_drift_that_is_meant_is_not_said(recwarn):
    run = Run(together=False)
    run.step(9, "b")
    state = run.plan.state_dict()
    run.plan.load_state_dict(state)
    assert not recwarn.list
    assert run.plan.step_counts == {"a": 0, "b": 9}


def test_a_state_in_which_they_are_apart_is_said_when_it_is_loaded():
    run, other = Run(together=False), Run()
    run.step(4, "b")
    with pytest.warns(UserWarning, match="a at step 0, b at step 4"):
        other.plan.load_state_dict(run.plan.state_dict())
    assert other.plan.step_counts == {"a": 0, "b": 4}


def test_a_gan_steps_its_discriminator_twice_and_resumes_so():
    def made() -> tuple[list[Any], ts.Plan]:
        torch.manual_seed(0)
        g, d = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        g_opt, d_opt = optim.Adam(g.parameters()), optim.Adam(d.parameters())
        plan = ts.Plan(
            g=ts.attach(g_opt, lr=ts.linear(0.01, 0.0, steps=30)),
            d=ts.attach(d_opt, lr=ts.cosine(0.02, 0.0, steps=60)),
            together=False,
        )
        assert plan.check(g, d) == []
        return [g, d, g_opt, d_opt], plan

    def iteration(parts: list[Any], number: int) -> None:
        g, d, g_opt, d_opt = parts
        generator = torch.Generator().manual_seed(number)
        for _ in range(2):
            real, noise = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
            (d(g(noise).detach()).exp().mean() - d(real).mean()).backward()
            d_opt.step()
            d_opt.zero_grad()
        d(g(torch.randn(8, 2, generator=generator))).mean().neg().backward()
        g_opt.step()
        g_opt.zero_grad()
        d_opt.zero_grad()

    parts, plan = made()
    for number in range(5):
        iteration(parts, number)
    assert plan.step_counts == {"g": 5, "d": 10}
    saved = copy.deepcopy(([part.state_dict() for part in parts], plan.state_dict()))
    for number in range(5, 10):
        iteration(parts, number)
    again, other = made()
    for part, state in zip(again, saved[0], strict=True):
        part.load_state_dict(state)
    other.load_state_dict(saved[1])
    assert other.step_counts == {"g": 5, "d": 10}
    for number in range(5, 10):
        iteration(again, number)
    for mine, theirs in zip(parts[:2], again[:2], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_a_plan_of_one_watches_nobody():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))])
    sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
    before = len(optimizer._optimizer_step_post_hooks)
    ts.Plan(a=sched)
    assert len(optimizer._optimizer_step_post_hooks) == before


def test_a_state_with_a_name_more_is_refused():
    def plan(*names):
        optimizers = {name: torch.optim.SGD([torch.nn.Parameter(torch.ones(2))]) for name in names}
        return ts.Plan(
            {name: ts.attach(o, lr=ts.linear(1.0, 0.0, steps=4)) for name, o in optimizers.items()}
        )

    with pytest.raises(ts.BindingError, match="this state is of a plan of a, b, c, and this plan is of a, b"):
        plan("a", "b").load_state_dict(plan("a", "b", "c").state_dict())

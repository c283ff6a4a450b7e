"""Bad input that ignite lets through, what ignite does wrong, and life without ignite."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tests.integrations.beside_ignite import GROUPS, Engine, Events, agree, drive, ours, sgd, theirs

ROOT = Path(__file__).resolve().parents[2]
NAN, INF = float("nan"), float("inf")
CYCLE = {"param_name": "lr", "start_value": 1.0, "end_value": 0.0, "cycle_size": 4}


def cosine(**changed):
    return ours.CosineAnnealingScheduler(sgd(), **(CYCLE | changed))


def line(*points):
    return ours.PiecewiseLinear(sgd(), "lr", list(points))


def state(kind, **options):
    return getattr(ours, kind)(param_name="p", initial_value=1.0, **options)


REFUSED = {
    "a NaN": (lambda: cosine(start_value=NAN), "start_value must be a finite number, got nan"),
    "an infinity": (lambda: cosine(end_value=INF), "end_value must be a finite number, got inf"),
    "a NaN factor": (lambda: cosine(end_value_mult=NAN), "end_value_mult must be a finite number"),
    "a word": (lambda: cosine(start_value="1"), "start_value must be a finite number, got '1'"),
    "a NaN size": (lambda: cosine(cycle_size=NAN), "cycle_size must be a whole number of at least 2 events"),
    "half an event": (lambda: cosine(cycle_size=4.5), "cycle_size must be a whole number of at least 2 events"),
    "a negative warm-up": (lambda: cosine(warmup_duration=-1), "warmup_duration must be a whole number of at least 0"),
    "a misspelt name": (lambda: cosine(param_name="lrr"), "did you mean 'lr'"),
    "a name that is none": (lambda: cosine(param_name=3), "param_name must be a str"),
    "a misspelt label": (lambda: cosine(param_name="rate (base)"), "no param group entry 'rate \\(base\\)'"),
    "an element too far": (lambda: cosine(param_name="betas[0]"), "no param group entry"),
    "a group too far": (lambda: cosine(param_group_index=GROUPS), "param_group_index must be None or an int .* 5 param_groups"),
    "a group before the first": (lambda: cosine(param_group_index=-GROUPS - 1), "param_group_index"),
    "a group by name": (lambda: cosine(param_group_index="base"), "param_group_index"),
    "a negative milestone": (lambda: line((-1, 1.0), (3, 0.0)), "events count from 0, so -1 is never"),
    "a NaN milestone": (lambda: line((0, NAN)), "milestones_values\\[0\\]: the value must be a finite number"),
    "a negative duration": (lambda: ours.ConcatScheduler([s := cosine(), s], [-3]), "durations\\[0\\] must be a whole number of at least 0"),
    "a NaN gamma": (lambda: state("ExpStateScheduler", gamma=NAN), "gamma must be a finite number"),
    "no step": (lambda: state("StepStateScheduler", gamma=0.5, step_size=0), "step_size must be a whole number of at least 1"),
    "unsorted milestones": (lambda: state("MultiStepStateScheduler", gamma=0.5, milestones=[5, 3]), "must not decrease"),
    "negative milestones": (lambda: state("MultiStepStateScheduler", gamma=0.5, milestones=[-5]), "at least 0"),
    "no schedule": (lambda: ours.from_schedule(sgd(), "lr", 0.1), "schedule must be a schedule"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_ignite_lets_through_is_refused_where_it_is_written(case):
    build, text = REFUSED[case]
    with pytest.raises(ScheduleError, match=text):
        build()


def test_what_is_right_is_let_through():
    """Control: the nearest good values."""
    cosine(cycle_size=2, cycle_mult=1.0, warmup_duration=0, param_group_index=-GROUPS)
    cosine(cycle_size=4.0, start_value=1, end_value=torch.tensor(0.5), param_name="lr (base)")
    line((0, 1), (0, 2.0))
    state("MultiStepStateScheduler", gamma=-0.5, milestones=[])


IGNITE_LETS_THROUGH = [
    {"start_value": NAN},
    {"param_name": "lrr"},
    {"param_group_index": 99},
    {"cycle_size": 4.5},
]


@pytest.mark.parametrize("arguments", IGNITE_LETS_THROUGH)
def test_ignite_still_lets_these_through(arguments):
    """If this fails, ignite has been mended: its exceptions can then be compared with ours."""
    theirs.CosineAnnealingScheduler(sgd(), **(CYCLE | arguments))


@settings(max_examples=60)
@given(
    size=st.integers(2, 40),
    mult=st.floats(0.0, 0.95),
    warmup=st.integers(0, 9),
    monotonic=st.booleans(),
    together=st.booleans(),
)
def test_a_cycle_that_shrinks_is_ignites_until_it_vanishes(size, mult, warmup, monotonic, together):
    """There it is an error here, at the event at which ignite divides by zero, and nothing has changed."""
    rows, errors = [], []
    for library in (ours, theirs):
        optimizer = sgd()
        options = {
            "start_value": 1.0,
            "end_value": 0.25,
            "cycle_size": size,
            "cycle_mult": mult,
            "end_value_mult": 0.9,
        }
        kind = library.LinearCyclicalScheduler if monotonic else library.CosineAnnealingScheduler
        options |= {"monotonic": True} if monotonic else {}
        members = [
            kind(optimizer, "lr", warmup_duration=warmup, param_group_index=i, **options)
            for i in range(GROUPS)
        ]
        scheduler = library.ParamGroupScheduler(members) if together else members[0]
        rows.append([])
        with pytest.raises((ScheduleError, ZeroDivisionError)) as error:  # noqa: PT012  at whichever event
            while len(rows[-1]) < 2000:
                before = scheduler.state_dict(), [dict(group) for group in optimizer.param_groups]
                rows[-1] += drive(scheduler, optimizer, 1)
        errors.append(error.value)
        if library is ours:
            assert (scheduler.state_dict(), [dict(group) for group in optimizer.param_groups]) == before
    assert agree(*rows, 1.0)
    assert isinstance(errors[0], ScheduleError)
    assert isinstance(errors[1], ZeroDivisionError)
    assert re.search(
        r"shrunk the cycle to nothing: end the run before, let another scheduler follow", str(errors[0])
    )


def test_a_cycle_that_shrinks_for_ever_has_no_expression_and_one_that_does_not_has():
    with pytest.raises(ScheduleError, match="shrinks the cycle to nothing"):
        cosine(cycle_mult=0.5).as_schedule()
    assert isinstance(cosine(cycle_mult=1.5).as_schedule(), ts.Schedule)


def test_a_group_without_hyperparameters_takes_the_name_that_it_is_given():
    class Other:
        param_groups = ({"params": []}, {})

    ours.PiecewiseLinear(Other, "rate", [(0, 0.5)])(None)
    assert [group["rate"] for group in Other.param_groups] == [0.5, 0.5]
    Other.param_groups[0]["ratio"] = 1.0
    with pytest.raises(ScheduleError, match="no param group entry 'rat' to schedule: did you mean 'rat"):
        ours.PiecewiseLinear(Other, "rat", [(0, 0.5)])


def test_an_event_that_fails_has_turned_no_attribute():
    optimizer = sgd(2)
    scheduler = ours.CosineAnnealingScheduler(
        optimizer, **CYCLE, start_value_mult=0.5, warmup_duration=3, param_group_index=1
    )
    drive(scheduler, optimizer, 4)
    before, group = scheduler.state_dict(), optimizer.param_groups.pop()
    for _ in range(2):
        with pytest.raises(IndexError):
            scheduler(None)
        assert scheduler.state_dict() == before
    optimizer.param_groups.append(group)
    drive(scheduler, optimizer, 1)
    assert (scheduler.start_value, scheduler.event_index) == (0.5, 5)


def test_schedulers_without_events_are_left_out_wherever_they_stand():
    """ignite leaves the first out; after that it steps over the 0, to -1, and stays with that scheduler for ever."""
    rows = []
    for library in (ours, theirs):
        optimizer = sgd(1)
        parts = [library.PiecewiseLinear(optimizer, "lr", [(0, float(i))]) for i in range(4)]
        rows.append(drive(library.ConcatScheduler(parts, [0, 0, 2]), optimizer, 4))
    assert rows == [[[2.0], [2.0], [3.0], [3.0]], [[1.0]] * 4]


def test_a_group_s_simulated_values_are_those_that_are_set():
    """ignite's come from get_param() before the event: at a new cycle's start that is still the old cycle's end."""
    found = []
    for library in (ours, theirs):
        optimizer = sgd()
        parts = [library.CosineAnnealingScheduler(optimizer, **CYCLE, param_group_index=i) for i in range(2)]
        found.append(library.ParamGroupScheduler.simulate_values(6, parts))
    assert [row[1] for row in found[0]][3:] == [pytest.approx(0.1464466), 1.0, pytest.approx(0.8535534)]
    assert [row[1] for row in found[1]][4] == 0.0
    optimizer = sgd()
    scheduler = theirs.CosineAnnealingScheduler(optimizer, **CYCLE)
    assert [row[0] for row in drive(scheduler, optimizer, 6)] == [row[1] for row in found[0]]


def test_after_an_error_nothing_has_changed():
    optimizer = sgd()

    class Once(ours.ParamScheduler):
        def get_param(self):
            return [1.0] * (3 + self.event_index)

    scheduler = Once(optimizer, "lr")
    with pytest.raises(ScheduleError, match="gave 3 values for 5 param groups"):
        scheduler(None)
    assert scheduler.event_index == 0
    loader = torch.utils.data.DataLoader([1, 2, 3], batch_size=2)
    sizes = ours.BatchSizeScheduler(loader, lambda event: [3, 0][event])
    sizes(None)
    with pytest.raises(ScheduleError, match="scheduler_fn\\(1\\) must be an int of at least 1"):
        sizes(None)
    assert (loader.batch_sampler.batch_size, sizes.event_index) == (3, 1)


def test_a_state_that_one_member_refuses_changes_no_member():
    def build(order):
        optimizer = sgd()
        kinds = [
            lambda i: ours.CosineAnnealingScheduler(optimizer, **CYCLE, param_group_index=i),
            lambda i: ours.PiecewiseLinear(optimizer, "lr", [(0, 1.0), (9, 2.0)], param_group_index=i),
        ]
        members = [kinds[k](i) for i, k in enumerate(order)]
        return optimizer, ours.ParamGroupScheduler(members)

    optimizer, saved = build([0, 0])
    drive(saved, optimizer, 3)
    _, other = build([0, 1])
    before = other.state_dict()
    with pytest.raises(ScheduleError, match="has no 'values'"):
        other.load_state_dict(saved.state_dict())
    assert other.state_dict() == before
    with pytest.raises(ScheduleError, match="named 'lr'"):
        ours.ParamGroupScheduler(build([0, 0])[1].schedulers, names=["a", "b"]).load_state_dict(
            saved.state_dict()
        )


@pytest.mark.parametrize("library", [ours, theirs])
def test_batch_sizes_that_are_refused(library):
    loader = torch.utils.data.DataLoader([1, 2, 3])
    for wrong in (None, [1, 2]):
        with pytest.raises(TypeError, match="dataloader"):
            library.BatchSizeScheduler(wrong, lambda _event: 1)
    with pytest.raises(TypeError, match="scheduler_fn"):
        library.BatchSizeScheduler(loader, 3)
    with pytest.raises(ValueError, match="BatchSampler"):
        library.BatchSizeScheduler(torch.utils.data.DataLoader([1], batch_size=None), lambda _event: 1)
    with pytest.raises(ValueError, match="scheduler_fn"):
        library.BatchSizeScheduler.simulate_values(3)
    for size in (0, 2.0, None, "3"):
        with pytest.raises(ValueError, match="scheduler_fn"):
            library.BatchSizeScheduler(loader, lambda _event, size=size: size)(None)


@pytest.mark.parametrize("library", [ours, theirs])
def test_state_attributes_that_exist_or_do_not(library):
    engine = Engine(lambda _engine, _batch: None)
    engine.state.p = 3
    made = {"lambda_obj": abs, "param_name": "p"}
    with pytest.raises(ValueError, match="already"):
        library.LambdaStateScheduler(**made, create_new=True).attach(engine)
    library.LambdaStateScheduler(**made).attach(engine)
    with pytest.warns(UserWarning, match="create_new=True"):
        library.LambdaStateScheduler(abs, "q").attach(engine, Events.EPOCH_STARTED)
    with pytest.raises(ValueError, match="callable"):
        library.LambdaStateScheduler(3, "p")
    assert engine.state.q is None
    engine.run([0] * 4)
    assert (engine.state.p, engine.state.q) == (4, 1)


# -- without ignite, without matplotlib -----------------------------------------------------------------------------


WITHOUT = """
import sys
sys.modules["ignite"] = sys.modules["ignite.engine"] = None  # import ignite raises ImportError
import torch
from tensorsched.integrations.ignite import *
import tensorsched.integrations.ignite as ours
optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
scheduler = CosineAnnealingScheduler(optimizer, "lr", 0.0, 1.0, 4)
print(scheduler.get_param(), len(ours.__all__))
scheduler(None), scheduler(None)
print(round(optimizer.param_groups[0]["lr"], 4), scheduler.state_dict()["event_index"])
print(LinearCyclicalScheduler.simulate_values(3, param_name="lr", start_value=0.0, end_value=1.0, cycle_size=4))
print(ExpStateScheduler.simulate_values(2, param_name="p", initial_value=1.0, gamma=0.5))
print(ReduceLROnPlateauScheduler.simulate_values(2, [1.0, 1.0], 0.5))
lr = create_lr_scheduler_with_warmup(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), 0.0, 3)
class Engine:
    state = type("State", (), {"p": 0})()
    add_event_handler = print
for wrong in (scheduler, ParamGroupScheduler([scheduler]), StepStateScheduler(1.0, 0.5, 2, "p")):
    try:
        wrong.attach(Engine())
    except ModuleNotFoundError as error:
        print(error)
scheduler.attach(Engine(), "an event of its own")
print("ignite" in {name.partition(".")[0] for name, module in sys.modules.items() if module is not None})
"""


def test_without_ignite_all_works_but_its_events():
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert lines[:5] == [
        "0.0 20", "0.1464 2", "[[0, 0.0], [1, 0.5], [2, 1.0]]", "[[0, 0.5], [1, 0.25]]", "[[0, 0.5], [1, 0.5]]",
    ]  # fmt: skip
    for line_, event in zip(
        lines[5:8], ["ITERATION_STARTED", "ITERATION_STARTED", "ITERATION_COMPLETED"], strict=True
    ):
        assert f"Events.{event}" in line_
        assert "pip install pytorch-ignite" in line_
    assert "an event of its own" in lines[8]
    assert lines[9] == "False"


def test_importing_it_imports_neither_ignite_nor_matplotlib():
    code = "import sys, tensorsched.integrations.ignite; print({'ignite', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "set()\n"


def test_every_name_of_ignite_is_here():
    public = {
        name
        for module in (theirs.param_scheduler, theirs.state_param_scheduler)
        for name, held in vars(module).items()
        if name[0] != "_" and getattr(held, "__module__", None) == module.__name__
    }
    assert len(public) == 18
    assert public <= set(ours.__all__)
    assert set(ours.__all__) - public == {"ScheduleHandler", "from_schedule"}


@pytest.mark.parametrize("name", sorted(set(ours.__all__) - {"ScheduleHandler", "from_schedule"}))
def test_arguments_have_ignites_order_and_defaults(name):
    def arguments(library):
        signature = inspect.signature(getattr(library, name))
        return [(p.name, p.default, p.kind) for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]

    there = theirs.param_scheduler if name == "BaseParamScheduler" else theirs
    assert arguments(ours) == arguments(there)


def test_plots_without_matplotlib_say_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="matplotlib, which is not installed: pip install"):
        ours.PiecewiseLinear.plot_values(3, param_name="lr", milestones_values=[(0, 1.0)])


def test_a_subclass_of_one_s_own_has_no_core_expression():
    class Own(ours.CosineAnnealingScheduler):
        def get_param(self):
            return 2 * super().get_param()

    for scheduler in (Own(sgd(), **CYCLE), ours.LRScheduler(torch.optim.lr_scheduler.LambdaLR(sgd(), float))):
        with pytest.raises(ScheduleError, match="no equivalent core expression"):
            scheduler.as_schedule()
    with pytest.raises(ScheduleError, match="rounds the cycle and its warm-up separately"):
        cosine(cycle_mult=1.5, warmup_duration=3).as_schedule()


def test_schedulers_of_different_groups_have_no_common_expression():
    optimizer = sgd(2)
    first, second = (ours.CosineAnnealingScheduler(optimizer, **CYCLE, param_group_index=i) for i in range(2))
    both = ours.ParamGroupScheduler([second, first])
    for scheduler in (ours.ConcatScheduler([first, second], [3]), ours.ConcatScheduler([both, first], [3])):
        with pytest.raises(ScheduleError, match="different param groups"):
            scheduler.as_schedule()
    with pytest.raises(ScheduleError, match="give each its param_group_index"):
        ours.ParamGroupScheduler([first, first]).as_schedule()
    second.end_value = 0.5
    assert both.as_schedule() == [first.as_schedule(), second.as_schedule()]  # in the order of the groups
    assert ours.ParamGroupScheduler([second]).as_schedule() == [None, second.as_schedule()]
    sched = ts.attach(optimizer, lr=both.as_schedule(), steps=100)
    assert [sched.value("lr", group=i) for i in range(2)] == [1.0, 1.0]

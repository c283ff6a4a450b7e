"""A plan of two through every event in any order: each slot holds the model's value at its own optimizer's counter.

As tests/binding/test_lifecycle_machine.py, for two attachments whose counters may part (a GAN): what is asked of the plan
happens to both or to none, what is asked of one leaves the other alone. The model is plain Python, `Model` for each
optimizer. Plain twins get before each step what the attached optimizers hold.
"""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import optim

import tensorsched as ts
from tensorsched.engine import FloatEngine
from tensorsched.engine.drivers import CpuDriver
from tensorsched.plan import plan as plan_module
from tests.binding.test_attach import LR, WD, M, set_gradients
from tests.lifecycle import (
    Values,
    at,
    cooled_down,
    follows,
    held,
    is_over,
    new_group,
    scaled,
    values_of,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:the optimizers of a plan have drifted:UserWarning"),
    pytest.mark.filterwarnings("ignore:the optimizer's checkpoint:UserWarning"),  # loaded alone: a doubt
]

Part = tuple[str, int | None]  # a hyperparameter, and the element of a tuple

SCHEDULES: dict[str, dict[Part, ts.Schedule]] = {
    "sgd": {("lr", None): LR, ("weight_decay", None): WD, ("momentum", None): M},
    "adamw": {
        ("lr", None): ts.cosine(0.05, 0.005, steps=12),
        ("weight_decay", None): 0.5 * WD,
        ("betas", 1): 0.3 + 0.5 * M,
    },
}
FIRST = {
    name: {part: values_of(schedule) for part, schedule in parts.items()} for name, parts in SCHEDULES.items()
}
NAMES = st.sampled_from(["sgd", "adamw"])
MOST_GROUPS = 3


def arguments(parts: dict[Part, Any]) -> dict[str, Any]:
    """As attach, rewrite and adopt take them."""
    return {key: value if element is None else (None, value) for (key, element), value in parts.items()}


def label(part: Part, group: int) -> str:
    key, element = part
    return f"{key}/{group}" if element is None else f"{key}[{element}]/{group}"


def times(factor: float) -> Callable[[ts.Schedule, int], ts.Schedule]:
    return lambda old, _: factor * old


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


@dataclass
class Model:
    """`plan` has the values for each part and group, `used` what each step used, as (values, step). Lists of values are
    replaced and never changed, so a shallow copy is one."""

    plan: dict[Part, list[Values]]
    clock: int = 0
    told: int = -1
    used: list[dict[str, tuple[Values, int]]] = field(default_factory=list)

    def copy(self) -> Model:
        plan = {part: list(groups) for part, groups in self.plan.items()}
        return Model(plan, self.clock, self.told, list(self.used))

    def step(self) -> None:
        self.used.append(
            {
                label(part, group): (values, self.clock)
                for part, groups in self.plan.items()
                for group, values in enumerate(groups)
            }
        )
        self.clock += 1

    def go_to(self, step: int) -> None:
        self.clock = self.told = step

    def change(self, part: Part, change: Callable[[Values], Values]) -> None:
        self.plan[part] = [change(values) for values in self.plan[part]]


class Side:
    """One optimizer, its twin, its model, and whether its slots are tensors."""

    def __init__(self, name: str, *, tensor: bool) -> None:
        kind = {"sgd": optim.SGD, "adamw": optim.AdamW}[name]
        groups = 2 if name == "sgd" else 1
        options = {"momentum": 0.9} if name == "sgd" else {}
        self.name, self.tensor = name, tensor
        self.optimizer, self.twin = (
            kind([new_group(seed) for seed in range(groups)], lr=0.1, foreach=False, **options)
            for _ in range(2)
        )
        # A decay in a tensor slot is a multiplication with a column of its own (test_decay.py), rounded once.
        self.twinned = not (tensor and name == "adamw")
        self.model = Model({part: [values] * groups for part, values in FIRST[name].items()})

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def slots(self) -> dict[tuple[Part, int], Any]:
        return {
            (part, index): group[part[0]] if part[1] is None else group[part[0]][part[1]]
            for part in self.model.plan
            for index, group in enumerate(self.groups)
        }

    def step_both_twins(self, seed: int) -> None:
        for optimizer in (self.optimizer, self.twin):
            set_gradients(optimizer, seed)
        if self.twinned:
            for plain, group in zip(self.twin.param_groups, self.groups, strict=True):
                plain.update({key: copy.deepcopy(group[key]) for key, _ in self.model.plan})
            self.twin.step()
        self.optimizer.step()

    def save(self) -> dict[str, Any]:
        weights = [p.detach() for group in self.groups for p in group["params"]]
        return copy.deepcopy(
            {"optimizer": self.optimizer.state_dict(), "twin": self.twin.state_dict(), "weights": weights}
        )

    def load(self, saved: dict[str, Any]) -> None:
        for optimizer in (self.optimizer, self.twin):
            ps = [p for group in optimizer.param_groups for p in group["params"]]
            for p, weight in zip(ps, saved["weights"], strict=True):
                p.data.copy_(weight)
        self.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
        self.twin.load_state_dict(copy.deepcopy(saved["twin"]))


def state_with(plan: ts.Plan, adamw: Any) -> dict[str, Any]:
    """The plan's state with sgd five steps further, and this as adamw's part."""
    state = copy.deepcopy(plan.state_dict())
    state["attachments"]["sgd"]["step"] += 5
    state["attachments"]["adamw"] = adamw
    return state


def foreign_state() -> dict[str, Any]:
    thing = type("Thing", (), {"param_groups": [{"lr": 1.0}]})()
    return ts.attach(thing, lr=ts.constant(0.5), advance="manual").state_dict()


INVALID: dict[str, Callable[[ts.Plan], None]] = {
    "a key that the second has not": lambda plan: plan.cool_down(2, keys=["lr", "momentum"]),
    "nothing to extend in the second": lambda plan: plan.extend(2, how="hold", keys=["momentum"]),
    "no schedule in the second": lambda plan: plan.rewrite(lr=0.5, adamw={"eps": 1e-6}),
    "out of range in the second": lambda plan: plan.rewrite(lr=0.5, adamw={"betas": (None, 1.5)}),
    "not finite in the second": lambda plan: plan.rewrite(weight_decay=0.5, adamw={"lr": float("nan")}),
    "too many groups in the second": lambda plan: plan.rewrite(lr=0.5, adamw={"lr": [LR] * 9}),
    "no step": lambda plan: plan.seek(-1),
    "no state": lambda plan: plan.load_state_dict(state_with(plan, {})),
    "others' state": lambda plan: plan.load_state_dict(state_with(plan, foreign_state())),
}
REFUSED = st.sampled_from(sorted(INVALID))


class PlanLifecycle(RuleBasedStateMachine):
    """`how` says who moves the schedules: the optimizers' hooks, a trainer's face, or the loop by hand."""

    @initialize(
        tensors=st.tuples(st.booleans(), st.booleans()), how=st.sampled_from(["auto", "face", "manual"])
    )
    def begin(self, tensors, how):
        self.how = how
        self.sides = {
            name: Side(name, tensor=tensor) for name, tensor in zip(SCHEDULES, tensors, strict=True)
        }
        self.snapshots: list[dict[str, Any]] = []
        self.updates = 0
        self._attach({name: arguments(parts) for name, parts in SCHEDULES.items()})

    def _attach(self, schedules):
        new_groups = {"sgd": arguments(SCHEDULES["sgd"]), "adamw": None}
        self.plan = ts.Plan(
            {
                name: ts.attach(
                    side.optimizer,
                    resident=side.tensor,
                    advance="manual" if self.how == "manual" else "auto",
                    new_groups=new_groups[name],
                    **schedules[name],
                )
                for name, side in self.sides.items()
            }
        )
        self.face = self.plan.lr_scheduler() if self.how == "face" else None

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _step(self, names, calls, refused=None):
        for name in names:
            self.sides[name].step_both_twins(self.updates)
        if refused:  # where schedules wait for a trainer, or for the loop, they still do
            self.ask_for_what_is_refused(refused)
        for name in names:
            if self.how == "manual":
                self.plan[name].step()
            self.sides[name].model.step()
        for _ in range(calls if self.face else 0):  # a trainer may call it as often as it likes
            self.face.step()
        self.updates += 1

    @rule(count=st.integers(1, 3), calls=st.integers(1, 2), refused=st.none() | REFUSED)
    def step_both(self, count, calls=1, refused=None):
        for _ in range(count):
            self._step(self.sides, calls, refused)

    @rule(name=NAMES, count=st.integers(1, 3), calls=st.integers(1, 2), refused=st.none() | REFUSED)
    def step_one_only(self, name, count, calls=1, refused=None):
        for _ in range(count):
            self._step([name], calls, refused)

    @precondition(lambda self: self.how == "manual")
    @rule(name=NAMES)
    def a_step_by_hand_without_the_optimizer_s(self, name):
        """It is refused at the start of a run, later it is not counted and once a warning."""
        with warnings.catch_warnings(), contextlib.suppress(ts.BindingError):
            warnings.filterwarnings("ignore", message=r"sched.step\(\) was called", category=UserWarning)
            self.plan[name].step()

    # -- changes of the plan -------------------------------------------------------------------------------------------

    @rule(
        key=st.sampled_from(["lr", "weight_decay"]),
        factor=st.sampled_from([0.5, 2.0]),
        alone=st.sampled_from(
            [None, ("sgd", ("momentum", None)), ("adamw", ("betas", 1)), ("adamw", ("lr", None))]
        ),
    )
    def rewrite(self, key, factor, alone):
        """A key of both, and what one of them alone gets, which comes before what all get."""
        changes = {(name, (key, None)): factor for name in self.sides}
        own = {}
        if alone:
            changes[alone] = 0.75
            own = {alone[0]: arguments({alone[1]: times(0.75)})}
        self.plan.rewrite(**{key: times(factor)}, **own)
        for (name, part), by in changes.items():
            self.sides[name].model.change(part, lambda values, by=by: scaled(values, by))

    @rule(steps=st.integers(0, 5), to=st.sampled_from([0.0, 0.25]))
    def cool_down(self, steps, to):
        self.plan.cool_down(steps, to=to)
        for side in self.sides.values():
            now = side.model.clock
            side.model.change(("lr", None), lambda values, now=now: cooled_down(values, now, steps, to))

    @rule(steps=st.integers(1, 4))
    def extend(self, steps):
        models, lr = [side.model for side in self.sides.values()], ("lr", None)
        try:
            self.plan.extend(steps, how="hold", keys="lr")
        except ts.BindingError:
            assert any(all(is_over(v, model.clock) for v in model.plan[lr]) for model in models)
            return
        for model in models:
            model.change(lr, lambda values, now=model.clock: held(values, now, steps))

    @rule(step=st.integers(0, 14), name=st.none() | NAMES)
    def seek(self, step, name):
        if name:
            self.plan[name].seek(step)
        elif self.face:
            self.face.last_epoch = step
        else:
            self.plan.seek(step)
        for side in [self.sides[name]] if name else self.sides.values():
            side.model.go_to(step)

    def _everything(self):
        held_now = {
            name: {slot: float(v) for slot, v in side.slots().items()} for name, side in self.sides.items()
        }
        return copy.deepcopy((held_now, self.plan.step_counts, self.plan.log(), self.plan.history()))

    @rule(what=REFUSED)
    def ask_for_what_is_refused(self, what):
        before, state = self._everything(), self.plan.state_dict()
        with pytest.raises((ts.BindingError, ts.ScheduleError)):
            INVALID[what](self.plan)
        assert self._everything() == before
        assert self.plan.state_dict() == state

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _group_counts(self):
        return [len(side.groups) for side in self.sides.values()]

    @rule()
    def save(self):
        self.snapshots.append(
            {
                "sides": {name: side.save() for name, side in self.sides.items()},
                "plan": copy.deepcopy((self.face or self.plan).state_dict()),
                "models": {name: side.model.copy() for name, side in self.sides.items()},
                "groups": self._group_counts(),
            }
        )

    def _fitting(self):
        return [saved for saved in self.snapshots if saved["groups"] == self._group_counts()]

    def _differs(self, name, saved):
        """Whether its schedules are others than those of the checkpoint, and say something else."""
        documents = ts.schedules_of(self.plan.state_dict()["attachments"][name])
        others = documents != ts.schedules_of(saved["plan"]["attachments"][name])
        return others, others and self.sides[name].model.plan != saved["models"][name].plan

    @precondition(_fitting)
    @rule(data=st.data(), plan_first=st.booleans())
    def load_both_files(self, data, plan_first):
        saved = data.draw(st.sampled_from(self._fitting()))
        if plan_first:
            self.plan.load_state_dict(saved["plan"], on_mismatch="saved")
        for name, side in self.sides.items():
            side.load(saved["sides"][name])
        if not plan_first:
            self.plan.load_state_dict(saved["plan"], on_mismatch="saved")
        for name, side in self.sides.items():
            side.model = saved["models"][name].copy()
            side.model.told = side.model.clock

    @precondition(_fitting)
    @rule(data=st.data(), name=NAMES)
    def load_one_optimizer_alone(self, data, name):
        """It carries its own step, and not the other's; under other schedules it gives way to a step that we were told."""
        saved = data.draw(st.sampled_from(self._fitting()))
        side, (others, _) = self.sides[name], self._differs(name, saved)
        side.load(saved["sides"][name])
        if not others or side.model.told != side.model.clock:
            side.model.clock = saved["models"][name].clock

    @precondition(_fitting)
    @rule(data=st.data(), how=st.sampled_from(["saved", "keep_step", "restart"]), name=st.none() | NAMES)
    def load_the_schedules_alone(self, data, how, name):
        """The plan's state, or one attachment's part of it."""
        saved = data.draw(st.sampled_from(self._fitting()))
        names = [name] if name else list(self.sides)
        differs = {each: self._differs(each, saved)[1] for each in names}
        if name:
            self.plan[name].load_state_dict(saved["plan"]["attachments"][name], on_mismatch=how)
        else:
            self.plan.load_state_dict(saved["plan"], on_mismatch=how)
        for each in names:
            model, then = self.sides[each].model, saved["models"][each].copy()
            model.go_to(0 if how == "restart" and differs[each] else then.clock)
            model.used = then.used
            if how == "saved" and differs[each]:
                model.plan = then.plan

    @precondition(_fitting)
    @rule(data=st.data())
    def attach_after_the_optimizers_were_loaded(self, data):
        saved = data.draw(st.sampled_from(self._fitting()))
        state = self.plan.state_dict()["attachments"]
        self.plan.detach()
        for name, side in self.sides.items():
            side.load(saved["sides"][name])
            side.model.clock, side.model.told, side.model.used = saved["models"][name].clock, -1, []
        self._attach({name: ts.schedules_of(state[name]) for name in self.sides})

    # -- groups, copies ------------------------------------------------------------------------------------------------

    def _add(self, name):
        side = self.sides[name]
        for optimizer in (side.optimizer, side.twin):
            optimizer.add_param_group(new_group(len(optimizer.param_groups)))

    def _bound(self, name):
        for part, values in FIRST[name].items():
            self.sides[name].model.plan[part].append(values)

    @precondition(lambda self: len(self.sides["sgd"].groups) < MOST_GROUPS)
    @rule()
    def add_a_group_that_the_rule_takes_in(self):
        self._add("sgd")
        self.plan["sgd"].rewrite(momentum=times(1.0))  # a change takes it in, as a step does
        self._bound("sgd")

    @precondition(lambda self: len(self.sides["adamw"].groups) < MOST_GROUPS)
    @rule()
    def add_a_group_and_adopt_it(self):
        self._add("adamw")
        side = self.sides["adamw"]
        set_gradients(side.optimizer, 0)
        if self.how != "manual":
            with pytest.raises(ts.BindingError, match="adopt"):
                side.optimizer.step()
        with pytest.raises(ts.BindingError, match="the list has 2 entries"):
            self.plan["adamw"].adopt(lr=[LR, LR])
        self.plan["adamw"].adopt(**arguments(SCHEDULES["adamw"]))
        self._bound("adamw")

    @rule(copied=st.sampled_from([copy.deepcopy, pickled]))
    def go_on_with_a_copy(self, copied):
        optimizers = {name: side.optimizer for name, side in self.sides.items()}
        optimizers, self.plan, self.face = copied((optimizers, self.plan, self.face))
        for name, side in self.sides.items():
            side.optimizer, side.model.told = optimizers[name], side.model.clock

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def slots_follow_the_models(self):
        clocks = {name: side.model.clock for name, side in self.sides.items()}
        assert self.plan.step_counts == clocks
        if self.face:
            assert self.face.last_epoch == clocks["sgd"]
            rates = [(values, side) for side in self.sides.values() for values in side.model.plan["lr", None]]
            for lr, (values, side) in zip(self.face.get_last_lr(), rates, strict=True):
                assert follows(lr, values, side.model.clock, tensor=side.tensor)
        for side in self.sides.values():
            for (part, group), value in side.slots().items():
                assert isinstance(value, torch.Tensor) == side.tensor
                values = side.model.plan[part][group]
                assert follows(float(value), values, side.model.clock, tensor=side.tensor)

    @invariant()
    def log_tells_what_the_last_steps_used(self):
        used = {
            f"{name}/{key}": (entry, side.tensor)
            for name, side in self.sides.items()
            for key, entry in (side.model.used or [{}])[-1].items()
        }
        logged = self.plan.log()
        assert logged.keys() == used.keys()
        for key, ((values, step), tensor) in used.items():
            assert follows(logged[key], values, step, tensor=tensor), key

    @invariant()
    def what_was_used_is_kept(self):
        for name, side in self.sides.items():
            mine = [at(*used["lr/0"]) for used in side.model.used]
            assert self.plan[name].used("lr").values.tolist() == pytest.approx(mine, rel=1e-13, abs=1e-15)

    @invariant()
    def parameters_are_those_of_plain_torch(self):
        for side in self.sides.values():
            for mine, plain in zip(side.groups, side.twin.param_groups, strict=True):
                for p, q in zip(mine["params"], plain["params"], strict=True):
                    assert not side.twinned or torch.equal(p, q)


TestPlanLifecycle = PlanLifecycle.TestCase
TestPlanLifecycle.settings = settings(
    max_examples=min(1_000, settings().max_examples * 4 // 10), stateful_step_count=25
)


def begun(tensors: tuple[bool, bool] = (True, False), how: str = "auto") -> PlanLifecycle:
    machine = PlanLifecycle()
    machine.begin(tensors, how)
    machine.step_both(2)
    machine.step_one_only("adamw", 1)
    return machine


@pytest.mark.parametrize("tensors", [(True, False), (False, True)])
def test_the_machine_would_notice_a_clock_that_stands_still(monkeypatch, tensors):
    """Control: with engines that do not advance."""
    build = CpuDriver._build

    def still(driver, *args):
        build(driver, *args)
        driver.advance = lambda _: None

    monkeypatch.setattr(CpuDriver, "_build", still)
    monkeypatch.setattr(FloatEngine, "following", lambda engine: repeat(engine.row()))
    with pytest.raises(AssertionError):
        begun(tensors).slots_follow_the_models()


@pytest.mark.parametrize("how", ["auto", "face", "manual"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("off", [-1, 1])
def test_the_machine_would_notice_a_value_one_step_off(how, name, off):
    """Control: in one of the two optimizers alone, float or tensor."""
    machine = begun(how=how)
    machine.slots_follow_the_models()
    side = machine.sides[name]
    value = at(side.model.plan["lr", None][0], side.model.clock + off)
    group = side.groups[0]
    group["lr"] = torch.tensor(value) if side.tensor else value
    machine.face = None  # it would say so itself
    with pytest.raises(AssertionError):
        machine.slots_follow_the_models()


def test_the_machine_would_notice_a_step_that_is_not_the_model_s():
    """Control: one step of an attached optimizer alone."""
    machine = begun()
    machine.parameters_are_those_of_plain_torch()
    set_gradients(machine.sides["adamw"].optimizer, 1)
    machine.sides["adamw"].optimizer.step()
    for check in (machine.parameters_are_those_of_plain_torch, machine.slots_follow_the_models):
        with pytest.raises(AssertionError):
            check()


@pytest.mark.parametrize(
    ("what", "check"),
    [
        ("clock", "slots_follow_the_models"),
        ("plan", "slots_follow_the_models"),
        ("used", "log_tells_what_the_last_steps_used"),
        ("used", "what_was_used_is_kept"),
    ],
)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_machine_would_notice_a_wrong_model(what, check, name):
    """Control: each part of each model is compared with something."""
    machine = begun(how="face")
    machine.cool_down(4, 0.25)
    machine.step_both(1)
    getattr(machine, check)()
    model = machine.sides[name].model
    wrong = {
        "clock": model.clock + 1,
        "plan": model.plan | {("lr", None): model.plan["weight_decay", None]},
        "used": model.used[:-1],
    }
    setattr(model, what, wrong[what])
    with pytest.raises(AssertionError):
        getattr(machine, check)()


@pytest.mark.parametrize(
    "what", ["a key that the second has not", "out of range in the second", "others' state"]
)
def test_the_machine_would_notice_half_a_change(monkeypatch, what):
    """Control: without the way back the first optimizer keeps what the second refused."""
    machine = begun()
    machine.ask_for_what_is_refused(what)
    monkeypatch.setattr(plan_module, "all_or_none", lambda _: contextlib.nullcontext())
    with pytest.raises(AssertionError):
        machine.ask_for_what_is_refused(what)


@pytest.mark.parametrize("what", ["no state", "others' state"])
def test_a_step_that_was_refused_is_none_that_we_were_told(what):
    """A path that is rarely drawn: a checkpoint of other schedules, loaded alone, still brings its step along."""
    machine = begun()
    machine.save()
    machine.cool_down(4, 0.25)
    machine.step_both(2)
    machine.ask_for_what_is_refused(what)
    machine.load_one_optimizer_alone(SimpleNamespace(draw=lambda _: machine.snapshots[0]), "sgd")
    assert machine.sides["sgd"].model.clock == 2
    machine.slots_follow_the_models()

"""Every lifecycle event in any order: the slots hold the model's value at the clock, the parameters those of plain torch.

The machine drives an attached optimizer and a plain twin side by side. The model is plain Python: for every group and key
a list with a value for each step, a clock, and a list of what each step used. The twin has no schedule: before each of
its steps its groups get the values that the attached one holds, which have just been compared with the model.
"""

from __future__ import annotations

import copy
import warnings
from itertools import repeat
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
from tests.binding.test_attach import LR, WD, M, set_gradients
from tests.lifecycle import at, cooled_down, follows, held, is_over, new_group, scaled, values_of

SCHEDULES = {"lr": LR, "weight_decay": WD, "momentum": M}
FIRST = {key: values_of(schedule) for key, schedule in SCHEDULES.items()}
MOST_GROUPS = 4


class Lifecycle(RuleBasedStateMachine):
    """`clock` is the model of the step count, `plan` of the schedules, `used` of what the lr of group 0 was."""

    @initialize(resident=st.booleans(), kind=st.sampled_from(["loop", "fused"]), face=st.booleans())
    def begin(self, resident, kind, face):
        self.resident = resident
        self.fused = kind == "fused"
        options = {"lr": 0.1, "momentum": 0.9, "fused": self.fused, "foreach": False}
        self.optimizer, self.twin = (optim.SGD([new_group(0), new_group(1)], **options) for _ in range(2))
        self.clock, self.updates, self.told = 0, 0, -1
        self.plan = {key: [list(values), list(values)] for key, values in FIRST.items()}
        self.used: list[float] = []
        self.snapshots: list[dict[str, Any]] = []
        self.face: Any = face  # whether a trainer steps the schedule; then the scheduler that it steps
        self._attach(SCHEDULES)

    def _attach(self, schedules):
        self.sched = ts.attach(self.optimizer, resident=self.resident, new_groups=SCHEDULES, **schedules)
        self.face = self.sched.lr_scheduler() if self.face else None

    def _schedules(self):
        groups = range(len(self.twin.param_groups))
        return {key: [self.sched.schedule(key, group) for group in groups] for key in SCHEDULES}

    @rule(times=st.integers(1, 3), calls=st.integers(1, 2))
    def step(self, times, calls=1):
        for _ in range(times):
            for optimizer in (self.optimizer, self.twin):
                set_gradients(optimizer, self.updates)
            self.used.append(at(self.plan["lr"][0], self.clock))
            with warnings.catch_warnings():  # a checkpoint that was loaded alone may have left a doubt
                warnings.filterwarnings("ignore", message="the optimizer's checkpoint", category=UserWarning)
                self.sched._take_in_new_groups()
                for plain, group in zip(self.twin.param_groups, self.optimizer.param_groups, strict=True):
                    plain.update({key: copy.deepcopy(group[key]) for key in SCHEDULES})
                self.optimizer.step()
            if self.face:
                for _ in range(calls):  # a trainer may call it as often as it likes
                    self.face.step()
            self.twin.step()
            self.clock += 1
            self.updates += 1

    def _has_momentum(self):
        """Without it torch's fused SGD keeps uninitialised memory as momentum when its first step is skipped."""
        ps = [p for group in self.optimizer.param_groups for p in group["params"]]
        return all(self.optimizer.state.get(p, {}).get("momentum_buffer") is not None for p in ps)

    @precondition(lambda self: self.fused and self._has_momentum())
    @rule()
    def step_that_gradscaler_skips(self):
        set_gradients(self.optimizer, self.updates)
        self.optimizer.grad_scale, self.optimizer.found_inf = torch.tensor([1.0]), torch.tensor([1.0])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the optimizer's checkpoint", category=UserWarning)
            self.optimizer.step()
        if self.face:
            self.face.step()
        del self.optimizer.grad_scale, self.optimizer.found_inf

    # -- changes of the plan -------------------------------------------------------------------------------------------

    @rule(factor=st.sampled_from([0.5, 2.0]), key=st.sampled_from(sorted(SCHEDULES)))
    def rewrite(self, factor, key):
        self.sched.rewrite(**{key: lambda old, _: factor * old})
        self.plan[key] = [scaled(values, factor) for values in self.plan[key]]

    @rule(steps=st.integers(0, 5), to=st.sampled_from([0.0, 0.25]))
    def cool_down(self, steps, to):
        self.sched.cool_down(steps, to=to)
        self.plan["lr"] = [cooled_down(values, self.clock, steps, to) for values in self.plan["lr"]]

    @rule(steps=st.integers(1, 4))
    def extend(self, steps):
        try:
            self.sched.extend(steps, how="hold", keys="lr")
        except ts.BindingError:
            assert all(is_over(values, self.clock) for values in self.plan["lr"])
            return
        self.plan["lr"] = [held(values, self.clock, steps) for values in self.plan["lr"]]

    @rule(step=st.integers(0, 14))
    def seek(self, step):
        if self.face:
            self.face.last_epoch = step
        else:
            self.sched.seek(step)
        self.clock = self.told = step

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    @rule()
    def save(self):
        self.sched._take_in_new_groups()
        self.snapshots.append(
            copy.deepcopy(
                {
                    "optimizer": self.optimizer.state_dict(),
                    "schedule": (self.face or self.sched).state_dict(),
                    "twin": self.twin.state_dict(),
                    "weights": [p.detach() for group in self.twin.param_groups for p in group["params"]],
                    "clock": self.clock,
                    "plan": self.plan,
                    "used": self.used,
                    "schedules": self._schedules(),
                    "groups": len(self.twin.param_groups),
                }
            )
        )

    def _fits(self):
        return any(s["groups"] == len(self.twin.param_groups) for s in self.snapshots)

    def _draw(self, data):
        fitting = [s for s in self.snapshots if s["groups"] == len(self.twin.param_groups)]
        return data.draw(st.sampled_from(fitting))

    def _load_weights_and_optimizer(self, saved):
        for optimizer in (self.optimizer, self.twin):
            ps = [p for group in optimizer.param_groups for p in group["params"]]
            for p, weight in zip(ps, saved["weights"], strict=True):
                p.data.copy_(weight)
        self.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
        self.twin.load_state_dict(copy.deepcopy(saved["twin"]))

    @precondition(_fits)
    @rule(data=st.data(), sched_first=st.booleans())
    def load_both(self, data, sched_first):
        saved = self._draw(data)
        loads = [
            lambda: self._load_weights_and_optimizer(saved),
            lambda: self.sched.load_state_dict(saved["schedule"], on_mismatch="saved"),
        ]
        for load in reversed(loads) if sched_first else loads:
            load()
        self.clock = self.told = saved["clock"]
        self.plan, self.used = copy.deepcopy(saved["plan"]), list(saved["used"])

    @precondition(_fits)
    @rule(data=st.data())
    def load_the_optimizer_alone(self, data):
        """It carries the step; under other schedules it gives way to a step that we were told."""
        saved = self._draw(data)
        others = saved["schedules"] != self._schedules()
        self._load_weights_and_optimizer(saved)
        if not others or self.told != self.clock:
            self.clock = saved["clock"]

    @precondition(_fits)
    @rule(data=st.data(), how=st.sampled_from(["saved", "keep_step", "restart"]))
    def load_the_schedule_alone(self, data, how):
        saved = self._draw(data)
        differs = (
            any(
                a != b
                for key in SCHEDULES
                for a, b in zip(saved["schedules"][key], self._schedules()[key], strict=True)
            )
            and saved["plan"] != self.plan
        )
        self.sched.load_state_dict(saved["schedule"], on_mismatch=how)
        self.clock = self.told = 0 if how == "restart" and differs else saved["clock"]
        self.used = list(saved["used"])
        if how == "saved" and differs:
            self.plan = copy.deepcopy(saved["plan"])

    @precondition(_fits)
    @rule(data=st.data())
    def attach_after_the_optimizer_was_loaded(self, data):
        saved, schedules = self._draw(data), self._schedules()
        self.sched.detach()
        self._load_weights_and_optimizer(saved)
        self._attach(schedules)
        self.clock, self.told, self.used = saved["clock"], -1, []

    @rule()
    def load_the_plain_twin_s_checkpoint(self):
        """It carries no step, so ours goes on, and says so before the next step."""
        self.optimizer.load_state_dict(copy.deepcopy(self.twin.state_dict()))  # torch shares the tensors
        self.seek(self.clock)  # the twin has taken as many steps: nothing is in doubt

    @rule()
    def load_a_foreign_schedule_s_state(self):
        thing = type("Thing", (), {"param_groups": [{"lr": 1.0}]})()
        foreign = ts.attach(thing, lr=ts.constant(0.5), advance="manual").state_dict()
        with pytest.raises(ts.BindingError, match="saved under other schedules"):
            self.sched.load_state_dict(foreign)

    # -- groups, copies ------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.twin.param_groups) < MOST_GROUPS)
    @rule()
    def add_param_group(self):
        for optimizer in (self.optimizer, self.twin):
            optimizer.add_param_group(new_group(len(optimizer.param_groups)))
        for key in SCHEDULES:
            self.plan[key].append(list(FIRST[key]))
        self.step(1)  # a late group is bound by the step that first uses it

    @rule()
    def detach_and_attach(self):
        schedules = self._schedules()
        self.sched.detach()
        assert all(type(group[key]) is float for group in self.optimizer.param_groups for key in SCHEDULES)
        self._attach(schedules)
        self.used = []
        self.seek(self.clock)

    @rule()
    def go_on_with_a_copy(self):
        self.optimizer, self.sched = copy.deepcopy((self.optimizer, self.sched))
        self.told = self.clock
        if self.face:
            self.face = self.sched.lr_scheduler()

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def slots_follow_the_model(self):
        assert self.sched.step_count == self.clock
        if self.face:
            assert self.face.last_epoch == self.clock
        for key in SCHEDULES:
            for index, group in enumerate(self.optimizer.param_groups):
                assert follows(float(group[key]), self.plan[key][index], self.clock, tensor=self.resident)
                assert isinstance(group[key], torch.Tensor) == self.resident

    @invariant()
    def what_was_used_is_kept(self):
        assert self.sched.used("lr").values.tolist() == pytest.approx(self.used, rel=1e-13, abs=1e-15)

    @invariant()
    def parameters_are_those_of_plain_torch(self):
        for mine, plain in zip(self.optimizer.param_groups, self.twin.param_groups, strict=True):
            for p, q in zip(mine["params"], plain["params"], strict=True):
                assert torch.equal(p, q)


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(
    max_examples=min(1_000, settings().max_examples * 6 // 10), stateful_step_count=25
)


def test_the_machine_would_notice_a_clock_that_stands_still(monkeypatch):
    """Control: with an engine that does not advance, the first step breaks an invariant."""
    build = CpuDriver._build

    def still(driver, *args):
        build(driver, *args)
        driver.advance = lambda _: None

    monkeypatch.setattr(CpuDriver, "_build", still)
    monkeypatch.setattr(FloatEngine, "following", lambda engine: repeat(engine.row()))
    for resident in (True, False):
        machine = Lifecycle()
        machine.begin(resident, "loop", face=False)
        machine.step(1)
        with pytest.raises(AssertionError):
            machine.slots_follow_the_model()


def test_the_machine_would_notice_parameters_that_are_not_torch_s():
    """Control: one step of the attached optimizer alone."""
    machine = Lifecycle()
    machine.begin(False, "loop", face=False)
    machine.step(1)
    machine.parameters_are_those_of_plain_torch()
    set_gradients(machine.optimizer, 1)
    machine.optimizer.step()
    with pytest.raises(AssertionError):
        machine.parameters_are_those_of_plain_torch()


@pytest.mark.parametrize(
    ("what", "check"),
    [
        ("clock", "slots_follow_the_model"),
        ("plan", "slots_follow_the_model"),
        ("used", "what_was_used_is_kept"),
    ],
)
def test_the_machine_would_notice_a_wrong_model(what, check):
    """Control: each part of the model is compared with something."""
    machine = Lifecycle()
    machine.begin(True, "loop", face=True)
    machine.step(2)
    machine.cool_down(4, 0.25)
    machine.step(1)
    getattr(machine, check)()
    wrong = {
        "clock": machine.clock + 1,
        "plan": {**machine.plan, "lr": FIRST["lr"] and machine.plan["momentum"]},
    }
    setattr(machine, what, wrong.get(what, machine.used[:-1]))
    with pytest.raises(AssertionError):
        getattr(machine, check)()

"""Every lifecycle event in any order: the slots hold the reference's value at the clock, the parameters those of plain torch.

The machine drives an attached optimizer and a plain twin side by side. The twin has no schedule: before each of its steps
its groups are set by hand from the reference. After every event both must agree to the bit.
"""

from __future__ import annotations

import copy
from itertools import repeat
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn, optim

import tensorsched as ts
from tensorsched.engine import FloatEngine
from tensorsched.engine.drivers import CpuDriver
from tensorsched.schedules import reference
from tests.binding.test_attach import LR, WD, M, set_gradients

SCHEDULES = {"lr": LR, "weight_decay": WD, "momentum": M}
MOST_GROUPS = 4


def new_group(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"params": [nn.Parameter(torch.randn(3, 2, generator=generator)) for _ in range(2)]}


class Lifecycle(RuleBasedStateMachine):
    """`clock` is the model: what the attached schedule's step count must be."""

    @initialize(resident=st.booleans(), kind=st.sampled_from(["loop", "fused"]))
    def begin(self, resident, kind):
        self.resident = resident
        self.fused = kind == "fused"
        options = {"lr": 0.1, "momentum": 0.9, "fused": self.fused, "foreach": False}
        self.optimizer, self.twin = (optim.SGD([new_group(0), new_group(1)], **options) for _ in range(2))
        self.clock, self.updates = 0, 0
        self.snapshots: list[dict[str, Any]] = []
        self._attach()

    def _attach(self):
        self.sched = ts.attach(self.optimizer, resident=self.resident, new_groups=SCHEDULES, **SCHEDULES)

    def _expected(self, key):
        value = SCHEDULES[key](self.clock)
        return torch.tensor(value) if self.resident else value

    @rule(times=st.integers(1, 3))
    def step(self, times):
        for _ in range(times):
            for optimizer in (self.optimizer, self.twin):
                set_gradients(optimizer, self.updates)
            for group in self.twin.param_groups:
                group.update({key: self._expected(key) for key in SCHEDULES})
            self.optimizer.step()
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
        self.optimizer.step()
        del self.optimizer.grad_scale, self.optimizer.found_inf

    @rule()
    def save(self):
        self.snapshots.append(
            copy.deepcopy(
                {
                    "optimizer": self.optimizer.state_dict(),
                    "schedule": self.sched.state_dict(),
                    "twin": self.twin.state_dict(),
                    "weights": [p.detach() for group in self.twin.param_groups for p in group["params"]],
                    "clock": self.clock,
                    "groups": len(self.twin.param_groups),
                }
            )
        )

    @precondition(lambda self: any(s["groups"] == len(self.twin.param_groups) for s in self.snapshots))
    @rule(data=st.data(), sched_first=st.booleans())
    def load(self, data, sched_first):
        fitting = [s for s in self.snapshots if s["groups"] == len(self.twin.param_groups)]
        saved = data.draw(st.sampled_from(fitting))
        for optimizer in (self.optimizer, self.twin):
            ps = [p for group in optimizer.param_groups for p in group["params"]]
            for p, weight in zip(ps, saved["weights"], strict=True):
                p.data.copy_(weight)
        if sched_first:
            self.sched.load_state_dict(saved["schedule"])
        self.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
        if not sched_first:
            self.sched.load_state_dict(saved["schedule"])
        self.twin.load_state_dict(copy.deepcopy(saved["twin"]))
        self.clock = saved["clock"]

    @rule()
    def load_the_plain_twin_s_checkpoint(self):
        self.optimizer.load_state_dict(copy.deepcopy(self.twin.state_dict()))  # torch shares the tensors

    @rule()
    def load_a_foreign_schedule_s_state(self):
        thing = type("Thing", (), {"param_groups": [{"lr": 1.0}]})()
        foreign = ts.attach(thing, lr=ts.constant(0.5), advance="manual").state_dict()
        with pytest.raises(ts.BindingError, match="saved under other schedules"):
            self.sched.load_state_dict(foreign)

    @precondition(lambda self: len(self.twin.param_groups) < MOST_GROUPS)
    @rule()
    def add_param_group(self):
        for optimizer in (self.optimizer, self.twin):
            optimizer.add_param_group(new_group(len(optimizer.param_groups)))
        self.step(1)  # a late group is bound by the step that first uses it

    @rule(step=st.integers(0, 14))
    def seek(self, step):
        self.sched.seek(step)
        self.clock = step

    @rule()
    def detach_and_attach(self):
        self.sched.detach()
        for group in self.optimizer.param_groups:
            assert {key: group[key] for key in SCHEDULES} == {
                key: s(self.clock) for key, s in SCHEDULES.items()
            }
            assert all(type(group[key]) is float for key in SCHEDULES)
        self._attach()
        self.sched.seek(self.clock)

    @rule()
    def go_on_with_a_copy(self):
        self.optimizer, self.sched = copy.deepcopy((self.optimizer, self.sched))

    @invariant()
    def slots_follow_the_reference(self):
        assert self.sched.step_count == self.clock
        for key, schedule in SCHEDULES.items():
            exact = reference.value(schedule, self.clock)
            # linear and cosine round at most 6 times in float64; a tensor slot once more, to float32.
            bound = abs(exact) * (6 * 2.0**-53 + (2.0**-24 if self.resident else 0.0)) + 2.0**-149
            for group in self.optimizer.param_groups:
                assert abs(float(group[key]) - exact) <= bound
                assert isinstance(group[key], torch.Tensor) == self.resident

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
        machine.begin(resident, "loop")
        machine.step(1)
        with pytest.raises(AssertionError):
            machine.slots_follow_the_reference()
        machine.step(2)
        with pytest.raises(AssertionError):
            machine.parameters_are_those_of_plain_torch()

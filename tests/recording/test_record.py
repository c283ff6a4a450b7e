"""record() gives what the scheduler would have written, bit for bit, and moves neither it nor its optimizer."""

from __future__ import annotations

import copy
import itertools
import json
import random
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr
from torch.optim.swa_utils import SWALR

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tensorsched.recording.scheduler_copy import Copier
from tests.recording.drivers import composer_state
from tests.recording.installed import load

STEPS = 14
KEYS = ("lr", "momentum", "betas", "weight_decay")

# torch warns of a scheduler that is stepped by hand before its optimizer, and of what its own schedulers do.
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


def sgd(groups: int = 2, **options) -> torch.optim.SGD:
    made = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1 * (i + 1)} for i in range(groups)]
    return torch.optim.SGD(made, **({"momentum": 0.9} | options))


def adamw() -> torch.optim.AdamW:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def tensors() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.1))


def closure():
    """A function with a memory of its own, in every place where Python keeps one."""
    calls, seen = [0], {"last": 0}
    number = 0

    def factor(step: int, memory: list[int] = []) -> float:  # noqa: B006  the trap is what is tested
        nonlocal number
        number += 1
        calls[0] += 1
        memory.append(step)
        seen["last"] = step
        return 0.9 ** (calls[0] + number + len(memory)) + seen["last"]

    return factor


def draw(values):
    """A function that uses something up."""
    return lambda _: next(values)


class Factor:
    """A callable object that counts."""

    def __init__(self) -> None:
        self.calls, self.log = 0, []

    def __call__(self, step: int) -> float:
        self.calls += 1
        self.log.append(step)
        return 1.0 / (self.calls + len(self.log))

    def method(self, step: int) -> float:
        return self(step) * 2.0


class Trainer:
    """What holds everything, the optimizer, the model and a generator included."""

    def __init__(self, optimizer) -> None:
        self.optimizer, self.model = optimizer, torch.nn.Linear(1, 1)
        self.batches = (i for i in range(3))
        self.counts = {"step": 0}

    def factor(self, _: int) -> float:
        self.counts["step"] += 1
        return self.counts["step"] * self.optimizer.param_groups[0]["lr"]


def sequential(o):
    parts = [torch_lr.LinearLR(o, 0.1, 1.0, 4), torch_lr.CosineAnnealingLR(o, 8)]
    return torch_lr.SequentialLR(o, parts, [4])


SCHEDULERS = {
    "LambdaLR": (sgd, lambda o: torch_lr.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1 / (1 + t)])),
    "LambdaLR, closure": (sgd, lambda o: torch_lr.LambdaLR(o, closure())),
    "LambdaLR, object": (sgd, lambda o: torch_lr.LambdaLR(o, [Factor(), Factor()])),
    "LambdaLR, method": (sgd, lambda o: torch_lr.LambdaLR(o, Factor().method)),
    "LambdaLR, trainer": (sgd, lambda o: torch_lr.LambdaLR(o, Trainer(o).factor)),
    "LambdaLR, iterator": (sgd, lambda o: torch_lr.LambdaLR(o, draw(iter([0.5**i for i in range(99)])))),
    "MultiplicativeLR": (sgd, lambda o: torch_lr.MultiplicativeLR(o, lambda _: 0.95)),
    "StepLR": (sgd, lambda o: torch_lr.StepLR(o, 3)),
    "MultiStepLR": (sgd, lambda o: torch_lr.MultiStepLR(o, [2, 5, 5])),
    "ConstantLR": (sgd, lambda o: torch_lr.ConstantLR(o, 0.3, 4)),
    "LinearLR": (sgd, lambda o: torch_lr.LinearLR(o, 0.3, 1.0, 7)),
    "ExponentialLR": (sgd, lambda o: torch_lr.ExponentialLR(o, 0.93)),
    "PolynomialLR": (sgd, lambda o: torch_lr.PolynomialLR(o, 9, 1.7)),
    "CosineAnnealingLR": (sgd, lambda o: torch_lr.CosineAnnealingLR(o, 7, 0.01)),
    "CosineAnnealingWarmRestarts": (sgd, lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 3, 2)),
    "CyclicLR": (sgd, lambda o: torch_lr.CyclicLR(o, 0.01, 0.1, 3)),
    "CyclicLR, own scale": (sgd, lambda o: torch_lr.CyclicLR(o, 0.01, 0.1, 3, scale_fn=lambda x: 1 / x)),
    "CyclicLR, gamma": (sgd, lambda o: torch_lr.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9)),
    "CyclicLR, betas": (adamw, lambda o: torch_lr.CyclicLR(o, 0.01, 0.1, 3)),
    "OneCycleLR": (sgd, lambda o: torch_lr.OneCycleLR(o, [0.1, 0.2], STEPS)),
    "OneCycleLR, betas": (adamw, lambda o: torch_lr.OneCycleLR(o, 0.1, STEPS, three_phase=True)),
    "OneCycleLR, no momentum": (adamw, lambda o: torch_lr.OneCycleLR(o, 0.1, STEPS, cycle_momentum=False)),
    "SequentialLR": (sgd, sequential),
    "SequentialLR in SequentialLR": (sgd, lambda o: torch_lr.SequentialLR(o, [sequential(o), torch_lr.ExponentialLR(o, 0.9)], [10])),
    "ChainedScheduler": (sgd, lambda o: torch_lr.ChainedScheduler([torch_lr.ConstantLR(o, 0.3, 4), torch_lr.ExponentialLR(o, 0.9)], o)),
    "SWALR": (sgd, lambda o: SWALR(o, 0.05, 4)),
    "tensor lr": (tensors, lambda o: torch_lr.CosineAnnealingLR(o, 7, 0.01)),
    "tensor lr, sequential": (tensors, sequential),
}  # fmt: skip


def numbers(optimizer) -> list[dict]:
    """The hyperparameters now, as Python numbers."""

    def plain(value):
        return tuple(map(plain, value)) if isinstance(value, (tuple, list)) else float(value)

    return [{key: plain(group[key]) for key in KEYS if key in group} for group in optimizer.param_groups]


def drive(scheduler, optimizer, steps: int = STEPS) -> list[list[dict]]:
    """What a training loop sees at steps 0..steps-1."""
    seen = [numbers(optimizer)]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        seen.append(numbers(optimizer))
    return seen


def play(recorded, before: list[dict], steps: int = STEPS) -> list[list[dict]]:
    """The same from what was recorded; what is not in it stays as it was."""

    def value(entry, held, t):
        if isinstance(entry, tuple):
            return tuple(value(part, was, t) for part, was in zip(entry, held, strict=True))
        return held if entry is None else entry(t)

    seen = []
    for t in range(steps):
        groups = []
        for index, held in enumerate(before):
            entries = {
                key: entry[index] if isinstance(entry, list) else entry for key, entry in recorded.items()
            }
            groups.append({key: value(entries.get(key), was, t) for key, was in held.items()})
        seen.append(groups)
    return seen


def snapshot(scheduler, optimizer) -> str:
    """All that must not move, as text: values by repr, so to the bit."""

    def state(part):
        held = dict(part.state_dict()) if hasattr(part, "state_dict") else {}
        return {**held, "last": part.__dict__.get("_last_lr"), "epoch": part.__dict__.get("last_epoch")}

    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    identities = [(id(group), [(k, id(v)) for k, v in group.items()]) for group in optimizer.param_groups]
    return repr(
        (state(scheduler), groups, identities, vars(scheduler).keys(), optimizer.state, optimizer.defaults)
    )


@pytest.mark.parametrize("done", [0, 3], ids=["new", "after 3 steps"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_is_what_the_scheduler_writes(name, done):
    make, schedule = SCHEDULERS[name]
    optimizer = make()
    scheduler = schedule(optimizer)
    drive(scheduler, optimizer, done + 1)
    before, held = snapshot(scheduler, optimizer), numbers(optimizer)
    recorded = ts.record(scheduler, STEPS - done)
    assert snapshot(scheduler, optimizer) == before
    expected = drive(scheduler, optimizer, STEPS - done)  # the real one, which nothing has moved
    assert play(recorded, held, STEPS - done) == expected
    assert ts.record(scheduler, 1) is not None


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_is_frozen_is_not_what_the_scheduler_writes(name):
    """Control: every scheduler above moves something, so a record of step 0 alone differs."""
    make, schedule = SCHEDULERS[name]
    optimizer = make()
    scheduler = schedule(optimizer)
    held = numbers(optimizer)
    frozen = ts.record(scheduler, 1)
    assert play(frozen, held) != drive(scheduler, optimizer)


def test_every_scheduler_of_torch_is_recorded_or_refused():
    public = {name for name in torch_lr.__all__ if isinstance(getattr(torch_lr, name), type)}
    covered = {name.partition(",")[0] for name in SCHEDULERS}
    assert public - covered == {"LRScheduler", "ReduceLROnPlateau"}


@given(
    st.lists(st.tuples(st.sampled_from(["linear", "cosine", "exponential", "step", "lambda"]), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(1, 30),
)  # fmt: skip
@settings(max_examples=40)
def test_random_sequences(parts, steps):
    def build(o):
        make = {
            "linear": lambda n: torch_lr.LinearLR(o, 0.2, 0.9, n), "cosine": lambda n: torch_lr.CosineAnnealingLR(o, n),
            "exponential": lambda n: torch_lr.ExponentialLR(o, 1 - 0.1 / n), "step": lambda n: torch_lr.StepLR(o, n),
            "lambda": lambda n: torch_lr.LambdaLR(o, lambda t: 1.0 / (n + t)),
        }  # fmt: skip
        made = [make[kind](n) for kind, n in parts]
        return torch_lr.SequentialLR(o, made, list(itertools.accumulate(n for _, n in parts))[:-1])

    optimizer = sgd()
    scheduler, held = build(optimizer), numbers(optimizer)
    assert play(ts.record(scheduler, steps), held, steps) == drive(scheduler, optimizer, steps)


# -- what comes back --------------------------------------------------------------------------------------------------


def test_it_is_what_attach_takes():
    for name, (make, schedule) in SCHEDULERS.items():
        optimizer = make()
        scheduler = schedule(optimizer)
        recorded = ts.record(scheduler, STEPS)
        twin = make()
        theirs = drive(schedule(twin), twin)
        ts.attach(optimizer, **recorded)
        for expected in theirs:
            assert numbers(optimizer) == expected, name
            optimizer.step()


def test_groups_that_agree_share_one_schedule():
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=1.0)
    recorded = ts.record(torch_lr.StepLR(optimizer, 2, 0.5), 4)
    assert recorded == {"lr": ts.from_values([1.0, 1.0, 0.5, 0.5])}


def test_groups_that_differ_get_one_each_and_what_stays_is_left_alone():
    optimizer = sgd(3, momentum=0.0)
    scheduler = torch_lr.LambdaLR(optimizer, [lambda t: 0.5**t, lambda _: 1.0, lambda t: 1.0 / (1 + t)])
    recorded = ts.record(scheduler, 2)
    assert recorded == {"lr": [ts.from_values([0.1, 0.05]), None, ts.from_values([0.1 * 3, 0.1 * 3 / 2])]}


def test_a_scheduler_that_changes_nothing_is_a_constant():
    assert ts.record(torch_lr.LambdaLR(adamw(), lambda _: 1.0), 5) == {"lr": ts.constant(0.1)}


def test_epochs_are_held():
    optimizer = adamw()
    recorded = ts.record(torch_lr.StepLR(optimizer, 1, 0.5), 3, every=4)
    assert recorded["lr"].values().tolist() == [0.1] * 4 + [0.05] * 4 + [0.025] * 4


def test_a_long_recording_is_shown_short():
    recorded = ts.record(torch_lr.ExponentialLR(adamw(), 0.99), 1000)
    assert repr(recorded).startswith("{'lr': from_values((0.1, ")
    assert "994 more" in repr(recorded)
    assert json.loads(recorded["lr"].to_json())["schedule"]["kind"] == "from_values"


# -- what is refused --------------------------------------------------------------------------------------------------


def generator(o):
    values = (0.5**i for i in range(9))
    return torch_lr.LambdaLR(o, lambda t: next(values) if t else 1.0)


class Metric:
    def __init__(self, optimizer) -> None:
        self.optimizer = optimizer

    def step(self, loss: float) -> None:
        raise AssertionError(loss)


REFUSED = [
    (torch_lr.ReduceLROnPlateau, 5, "ReduceLROnPlateau follows a metric of the training", "write down the curve"),
    (Metric, 5, "Metric follows a metric", "keep it for that hyperparameter"),
    (lambda o: types.SimpleNamespace(scheduler=torch_lr.ReduceLROnPlateau(o)), 5, "ReduceLROnPlateau follows", "keep it"),
    (lambda o: types.SimpleNamespace(scheduler=torch_lr.StepLR(o, 3)), 5, "SimpleNamespace has none", "its .scheduler"),
    (lambda o: o, 5, "record() takes a scheduler, and SGD is an optimizer", "write ts.record(scheduler, steps)"),
    (lambda _: types.SimpleNamespace(), 5, "record() needs a scheduler with an optimizer", "pass the scheduler itself"),
    (lambda o: types.SimpleNamespace(optimizer=o), 5, "SimpleNamespace has no step()", ""),
    (lambda o: types.SimpleNamespace(optimizer=[o, sgd()]), 5, "drives 2 optimizers", "each one by itself"),
    (lambda o: torch_lr.OneCycleLR(o, 0.1, 5), 9, "stopped at step 6 of the 9", "record at most 6 steps"),
    (generator, 5, "draws from the generator '<genexpr>'", "make a list of its values"),
    (lambda o: torch_lr.LambdaLR(o, lambda t: float("nan") if t == 2 else 1.0), 5, "lr of group 0: from_values: entries[2]", "record fewer"),
    (lambda o: torch_lr.LambdaLR(o, lambda t: 1 / (t - 3)), 5, "stopped at step 3 of the 5 to record: ZeroDivisionError", "at most 3"),
    (lambda o: torch_lr.StepLR(o, 3), 0, "record: steps must be a whole number of steps of at least 1", "got 0"),
    (lambda o: torch_lr.StepLR(o, 3), 2.5, "record: steps", "got 2.5"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "steps", "says", "way_out"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_is_refused(make, steps, says, way_out):
    optimizer = sgd()
    scheduler = make(optimizer)
    before = numbers(optimizer)
    with pytest.raises(ScheduleError) as caught:
        ts.record(scheduler, steps)
    assert says in str(caught.value)
    assert way_out in str(caught.value)
    assert numbers(optimizer) == before


def test_a_scheduler_that_holds_itself():
    optimizer = sgd()
    scheduler = torch_lr.StepLR(optimizer, 3)
    scheduler.scheduler = scheduler
    assert set(ts.record(scheduler, 5)) == {"lr"}


def test_a_refused_generator_has_lost_nothing():
    values = (0.5**i for i in range(9))
    scheduler = torch_lr.LambdaLR(sgd(), lambda t: next(values) if t else 1.0)
    with pytest.raises(ScheduleError, match="generator"):
        ts.record(scheduler, 5)
    assert next(values) == 1.0


def test_transformers_greedy_is_refused():
    optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
    scheduler = optimization.GreedyLR(adamw())
    with pytest.raises(ScheduleError, match="GreedyLR follows a metric"):
        ts.record(scheduler, 5)


# -- other libraries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
])  # fmt: skip
def test_transformers(name):
    optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
    more = {
        "cosine_with_min_lr": {"min_lr_rate": 0.1}, "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
        "warmup_stable_decay": {"num_decay_steps": 4},
    }.get(name)  # fmt: skip

    def make(o):
        return optimization.get_scheduler(name, o, 3, STEPS, scheduler_specific_kwargs=more)

    optimizer = sgd()
    scheduler, held = make(optimizer), numbers(optimizer)
    assert play(ts.record(scheduler, STEPS), held) == drive(scheduler, optimizer)


class Counted:
    """timm's protocol: told the number of updates, keeps no count; noise from a generator of its own."""

    def __init__(self, optimizer, *, t_in_epochs: bool) -> None:
        self.optimizer, self.t_in_epochs, self.calls = optimizer, t_in_epochs, 0
        self._write(0)

    def _write(self, t: int) -> None:
        noise = torch.rand(1, generator=torch.Generator().manual_seed(t)).item()
        for group in self.optimizer.param_groups:
            group["weight_decay"] = noise / (1 + t)

    def step(self, epoch: int, metric: float | None = None) -> None:  # noqa: ARG002  timm's signature
        self.calls += 1
        if self.t_in_epochs:
            self._write(epoch)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:  # noqa: ARG002  timm's signature
        self.calls += 1
        if not self.t_in_epochs:
            self._write(num_updates)


def counted(scheduler, optimizer, *, epochs: bool) -> list[list[dict]]:
    seen = [numbers(optimizer)]
    for t in range(1, STEPS):
        (scheduler.step if epochs else scheduler.step_update)(t)
        seen.append(numbers(optimizer))
    return seen


@pytest.mark.parametrize("epochs", [False, True])
def test_a_scheduler_that_is_told_the_count(epochs):
    optimizer = sgd()
    scheduler, held = Counted(optimizer, t_in_epochs=epochs), numbers(optimizer)
    recorded = ts.record(scheduler, STEPS)
    assert (scheduler.calls, set(recorded)) == (0, {"weight_decay"})
    assert play(recorded, held) == counted(scheduler, optimizer, epochs=epochs)


@pytest.mark.parametrize(
    "name",
    [
        "CosineLRScheduler",
        "TanhLRScheduler",
        "StepLRScheduler",
        "PolyLRScheduler",
        "MultiStepLRScheduler",
        "WSDLRScheduler",
    ],
)
@pytest.mark.parametrize("epochs", [False, True])
def test_timm(name, epochs):
    length = {
        "StepLRScheduler": {"decay_t": 5}, "MultiStepLRScheduler": {"decay_t": [4, 9]},
        "WSDLRScheduler": {"t_initial": 10, "decay_t": 4},
    }.get(name, {"t_initial": 10})  # fmt: skip

    def make(o):
        kind = getattr(load("timm"), name)
        return kind(o, **length, warmup_t=3, warmup_lr_init=0.01, t_in_epochs=epochs, noise_range_t=6)

    optimizer = sgd()
    scheduler, held = make(optimizer), numbers(optimizer)
    recorded = ts.record(scheduler, STEPS)
    assert numbers(optimizer) == held
    assert play(recorded, held) == counted(scheduler, optimizer, epochs=epochs)


def ignite_schedulers(handlers):
    half = lambda o: handlers.PiecewiseLinear(o, "lr", [(2, 0.5), (9, 0.1)], param_group_index=0)  # noqa: E731
    return {
        "cosine": lambda o: handlers.CosineAnnealingScheduler(o, "lr", 1.0, 0.0, 8),
        "linear": lambda o: handlers.LinearCyclicalScheduler(o, "momentum", 0.9, 0.5, 6),
        "piecewise, one group": half,
        "concat": lambda o: handlers.ConcatScheduler(
            [handlers.LinearCyclicalScheduler(o, "lr", 0.0, 1.0, 8), handlers.CosineAnnealingScheduler(o, "lr", 1.0, 0.0, 6)], [4]
        ),
        "groups": lambda o: handlers.ParamGroupScheduler(
            [half(o), handlers.CosineAnnealingScheduler(o, "lr", 1.0, 0.0, 8, param_group_index=1)]
        ),
        "wrapped": lambda o: handlers.LRScheduler(torch_lr.StepLR(o, 3)),
        "warm-up": lambda o: handlers.create_lr_scheduler_with_warmup(torch_lr.StepLR(o, 3), 0.0, 4),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["cosine", "linear", "piecewise, one group", "concat", "groups", "wrapped", "warm-up"]
)
@pytest.mark.parametrize("done", [0, 2])
def test_ignite(name, done):
    handlers = pytest.importorskip(
        "ignite.handlers", reason="ignite is not installed (the extra `peers` has it)"
    )
    optimizer = sgd()
    scheduler, held = ignite_schedulers(handlers)[name](optimizer), None
    for _ in range(done):
        scheduler(None)
    held, state = numbers(optimizer), repr(scheduler.state_dict())
    recorded = ts.record(scheduler, STEPS)
    assert (numbers(optimizer), repr(scheduler.state_dict())) == (held, state)
    expected = []
    for _ in range(STEPS):
        scheduler(None)
        expected.append(numbers(optimizer))
    assert play(recorded, held) == expected
    if name == "piecewise, one group":
        assert recorded["lr"][1] is None


# -- several at once, containers, and those that must be told ------------------------------------------------------------


def stepped(schedulers, optimizer, turns=None, steps: int = STEPS) -> list[list[dict]]:
    """What a loop sees that steps each of them after every `turns[i]` optimizer steps."""
    seen = [numbers(optimizer)]
    for t in range(1, steps):
        optimizer.step()
        for scheduler, hold in zip(schedulers, turns or [1] * len(schedulers), strict=True):
            if t % hold == 0:
                scheduler.step()
        seen.append(numbers(optimizer))
    return seen


LISTS = {
    "one on the other": lambda o: [torch_lr.ConstantLR(o, 0.3, 4), torch_lr.ExponentialLR(o, 0.9)],
    "the other on the one": lambda o: [torch_lr.ExponentialLR(o, 0.9), torch_lr.LambdaLR(o, closure())],
    "three": lambda o: [torch_lr.StepLR(o, 3), torch_lr.MultiplicativeLR(o, lambda t: 1 - 0.01 * t), SWALR(o, 0.05, 4)],
}  # fmt: skip


@pytest.mark.parametrize("done", [0, 3], ids=["new", "after 3 steps"])
@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_stepped_in_its_order(name, done):
    optimizer = sgd()
    schedulers = LISTS[name](optimizer)
    stepped(schedulers, optimizer, steps=done + 1)
    held = numbers(optimizer)
    recorded = ts.record(schedulers, STEPS - done)
    reversed_ = ts.record(tuple(reversed(schedulers)), STEPS - done)
    assert numbers(optimizer) == held
    expected = stepped(schedulers, optimizer, steps=STEPS - done)
    assert play(recorded, held, STEPS - done) == expected
    if name != "one on the other":  # two factors: the order is no matter, but for the last bit
        assert play(reversed_, held, STEPS - done) != expected


def test_a_list_with_two_clocks():
    optimizer = sgd()
    make = lambda o: [torch_lr.LinearLR(o, 0.1, 1.0, 3), torch_lr.ExponentialLR(o, 0.5)]  # noqa: E731
    recorded, held = ts.record(make(optimizer), STEPS, every=[1, 5]), None
    twin = sgd()
    schedulers = make(twin)
    held = numbers(twin)
    expected = stepped(schedulers, twin, [1, 5])
    assert play(recorded, held) == expected
    assert play(ts.record(make(sgd()), STEPS), held) != expected
    coarse = ts.record(make(sgd()), 4, every=[4, 6])  # a value every two steps
    assert coarse["lr"][0].values(8).tolist() == [v for v in coarse["lr"][0].values(8)[::2] for _ in range(2)]
    assert coarse["lr"][0](6) == pytest.approx(0.1 * 0.4 * 0.5)


class Container:
    """As torchtitan's: schedulers, stepped together, and no optimizer of its own."""

    def __init__(self, *schedulers) -> None:
        self.schedulers = list(schedulers)

    def step(self) -> None:
        for scheduler in self.schedulers:
            scheduler.step()


def test_a_container_of_one_optimizers_schedulers():
    optimizer = sgd()
    container = Container(torch_lr.StepLR(optimizer, 3), torch_lr.ConstantLR(optimizer, 0.5, 4))
    held = numbers(optimizer)
    assert play(ts.record(container, STEPS), held) == drive(container, optimizer)


class Incremented:
    """As Megatron-LM's: `step(increment)` counts samples."""

    def __init__(self, optimizer) -> None:
        self.optimizer, self.num_steps = optimizer, 0

    def step(self, increment: int) -> None:
        self.num_steps += increment
        for group in self.optimizer.param_groups:
            group["lr"] = 1.0 / (10 + self.num_steps)


def test_an_increment():
    optimizer = sgd(1)
    scheduler = Incremented(optimizer)
    scheduler.step(8)
    recorded = ts.record(scheduler, 4, increment=8)
    assert recorded == {"lr": ts.from_values([1 / 18, 1 / 26, 1 / 34, 1 / 42])}
    assert scheduler.num_steps == 8


def used(optimizer):
    """Momentum buffers are what shows that it has made steps."""
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(1)
    optimizer.step()
    return optimizer


class Clock:
    """What Composer's LambdaLR has closed over: a trainer's state."""

    timestamp, max_duration = 0, 100


def on_a_trainers_clock(o):
    state = Clock()
    return torch_lr.LambdaLR(o, lambda _: state.timestamp / state.max_duration)


def twice(o):
    scheduler = torch_lr.StepLR(o, 3)
    return [torch_lr.ChainedScheduler([scheduler], o), scheduler]


def epochs_and_steps(o):
    schedulers = [Counted(o, t_in_epochs=False), Counted(o, t_in_epochs=True)]
    o.param_groups[0]["weight_decay"] = o.param_groups[1]["weight_decay"]
    return schedulers


REFUSED_SEVERAL = [
    (lambda _: [], {}, "got an empty list"),
    (twice, {}, "StepLR is in the list twice"),
    (lambda o: [torch_lr.StepLR(o, 3), torch_lr.StepLR(sgd(), 3)], {}, "the list drives 2 optimizers"),
    (lambda o: Container(torch_lr.StepLR(o, 3), torch_lr.StepLR(sgd(), 3)), {}, "(its .schedulers), and attach to each"),
    (lambda o: [torch_lr.StepLR(o, 3)], {"every": [1, 2]}, "2 entries for 1 schedulers"),
    (lambda o: [torch_lr.StepLR(o, 3)], {"every": [0]}, "every[0] must be"),
    (epochs_and_steps, {}, "some of the schedulers count epochs"),
    (Incremented, {}, "pass increment="),
    (Incremented, {"increment": 0}, "increment must be"),
    (lambda o: torch_lr.StepLR(o, 3), {"increment": 8}, "increment is for"),
    (lambda o: torch_lr.StepLR(o, 3), {"at": 8}, "keeps its own, and is recorded from where it stands"),
    (lambda o: Counted(o, t_in_epochs=False), {"at": -1}, "at must be"),
    (lambda o: Counted(o, t_in_epochs=False), {"at": 3}, "not its value at step 3"),
    (lambda o: Counted(used(o), t_in_epochs=False), {}, "its optimizer has already made steps; pass at="),
    (on_a_trainers_clock, {}, "asks a trainer for the time"),
    (lambda _: lambda step: 0.1 * step, {}, "ts.from_function(fn, steps)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "options", "says"), REFUSED_SEVERAL, ids=[row[2] for row in REFUSED_SEVERAL]
)
def test_what_is_refused_with_its_way_out(make, options, says):
    optimizer = sgd()
    scheduler = make(optimizer)
    before = numbers(optimizer)
    with pytest.raises(ScheduleError) as caught:
        ts.record(scheduler, 5, **options)
    assert says in str(caught.value)
    assert numbers(optimizer) == before


def test_a_scheduler_that_keeps_no_count_is_taken_from_where_it_stands():
    optimizer = sgd()
    scheduler = Counted(optimizer, t_in_epochs=False)
    whole = ts.record(scheduler, STEPS)
    scheduler.step_update(3)
    with pytest.raises(ScheduleError, match="pass at=, the count that it was last given"):
        ts.record(scheduler, STEPS)
    rest = ts.record(scheduler, STEPS - 3, at=3)
    assert rest["weight_decay"].values().tolist() == whole["weight_decay"].values()[3:].tolist()


# -- those of the packages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CosineLRScheduler", "TanhLRScheduler", "StepLRScheduler"])
def test_timm_in_mid_run(name):
    length = {"StepLRScheduler": {"decay_t": 5}}.get(name, {"t_initial": 10})
    optimizer = sgd()
    scheduler = getattr(load("timm"), name)(optimizer, **length, warmup_t=3, t_in_epochs=False)
    whole = counted(scheduler, optimizer, epochs=False)
    scheduler.step_update(4)
    held = numbers(optimizer)
    assert play(ts.record(scheduler, STEPS - 4, at=4), held, STEPS - 4) == whole[4:]


def test_mmengines_normal_form():
    mm = load("mmengine")

    def make(o):
        return [
            mm.LinearLR(o, start_factor=0.1, end=4, by_epoch=False),
            mm.CosineAnnealingLR(o, T_max=8, begin=4, end=12, by_epoch=False),
            mm.CosineAnnealingMomentum(o, T_max=10, eta_min=0.5, by_epoch=False),
        ]

    optimizer = sgd()
    schedulers, held = make(optimizer), numbers(optimizer)
    recorded = ts.record(schedulers, STEPS)
    assert set(recorded) == {"lr", "momentum"}
    assert play(recorded, held) == stepped(schedulers, optimizer)
    mixed = [*make(sgd())[:1], mm.StepLR(optimizer, 3, by_epoch=True)]
    with pytest.raises(ScheduleError, match=r"every= as a list"):
        ts.record(mixed, 5)


def test_mmengines_plateau_is_refused():
    with pytest.raises(ScheduleError, match="ReduceOnPlateauLR follows a metric"):
        ts.record(load("mmengine").ReduceOnPlateauLR(sgd(), monitor="loss"), 5)


def test_megatrons_scheduler_needs_an_increment():
    optimizer = sgd()
    kind = load("megatron").OptimizerParamScheduler
    scheduler = kind(optimizer, 0.0, 0.1, 0.01, 8, 40, "cosine", 0.1, 0.2, 40, "linear")
    with pytest.raises(ScheduleError, match="global batch"):
        ts.record(scheduler, 5)
    held, recorded = numbers(optimizer), ts.record(scheduler, STEPS, increment=4)
    assert set(recorded) == {"lr", "weight_decay"}
    seen = [held]
    for _ in range(STEPS - 1):
        scheduler.step(increment=4)
        seen.append(numbers(optimizer))
    assert play(recorded, held) == seen


def test_torchtitans_container():
    optimizer, other = sgd(), sgd()
    config = load("torchtitan").LRSchedulersContainer.Config(warmup_steps=3, decay_ratio=0.5)
    container = config.build(optimizers=[optimizer], training_steps=12)
    held = numbers(optimizer)
    assert play(ts.record(container, STEPS), held) == drive(container, optimizer)
    with pytest.raises(ScheduleError, match="drives 2 optimizers"):
        ts.record(config.build(optimizers=[optimizer, other], training_steps=12), 5)


def test_composers_compiled_scheduler_is_refused_inside_a_trainer():
    composer, optimizer = load("composer"), sgd()
    state = composer_state(0)
    state.optimizers = [optimizer]
    compiled = composer.compile_composer_scheduler(composer.CosineAnnealingWithWarmupScheduler("10ba"), state)
    assert compiled.get_last_lr() == [0.0, 0.0]
    with pytest.raises(ScheduleError, match="asks a trainer for the time"):
        ts.record(compiled, 5)


def test_transformers_adafactor_schedule_is_refused():
    optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
    optimizer = optimization.Adafactor([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ScheduleError, match="AdafactorSchedule shows what Adafactor"):
        ts.record(optimization.AdafactorSchedule(optimizer), 5)


# -- the copy ---------------------------------------------------------------------------------------------------------


def test_the_copy_keeps_what_is_one_thing_one_thing():
    shared = [1]
    made = Copier()({"a": shared, "b": shared, "t": (shared, {2})})
    assert made["a"] is made["b"] is made["t"][0]
    assert made["a"] is not shared
    loop = []
    loop.append(loop)
    copied = Copier()(loop)
    assert copied[0] is copied is not loop


def test_functions_that_share_a_variable_still_do():
    count = 0

    def up():
        nonlocal count
        count += 1

    def now():
        return count

    one, other = Copier()([up, now])
    one()
    assert (other(), now(), count) == (1, 0, 0)


def test_models_parameters_and_classes_are_not_copied():
    model, kind = torch.nn.Linear(1, 1), Trainer
    assert Copier()([model, model.weight, kind, torch]) == [model, model.weight, kind, torch]
    assert Copier()(print) is print


def test_random_generators_are_copied():
    for original, draw in (
        (random.Random(0), lambda g: g.random()),  # noqa: S311  nothing is kept secret
        (torch.Generator().manual_seed(0), lambda g: torch.rand(1, generator=g).item()),
    ):
        made = Copier()(original)
        assert draw(made) == draw(original)
        draw(made)
        assert draw(made) != draw(original)


def test_what_python_cannot_copy_is_shared():
    lock = __import__("threading").Lock()
    assert Copier()(lock) is lock
    assert copy.copy(Copier()(itertools.chain([1], [2]))) is not None

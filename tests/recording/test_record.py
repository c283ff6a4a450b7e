"""record() gives what the scheduler would have written, bit for bit, and moves neither it nor its optimizer."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import itertools
import json
import random
import sys
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


@pytest.fixture
def timm_schedulers(monkeypatch):
    """timm.scheduler without timm's own __init__, which imports torchvision and all models."""
    found = importlib.util.find_spec("timm")
    if found is None:
        pytest.skip("timm is not installed: it needs torchvision, which has to match torch's build")
    package = types.ModuleType("timm")
    package.__path__ = list(found.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "timm", package)
    yield importlib.import_module("timm.scheduler")
    for name in [name for name in sys.modules if name.startswith("timm.")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name",
    ["CosineLRScheduler", "TanhLRScheduler", "StepLRScheduler", "PolyLRScheduler", "MultiStepLRScheduler"],
)
@pytest.mark.parametrize("epochs", [False, True])
def test_timm(timm_schedulers, name, epochs):
    length = {
        "StepLRScheduler": {"decay_t": 5}, "MultiStepLRScheduler": {"decay_t": [4, 9]}
    }.get(name, {"t_initial": 10})  # fmt: skip

    def make(o):
        kind = getattr(timm_schedulers, name)
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

"""compile_step of a plan: all of its optimizers in one graph, and each value as eager steps use it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn, optim
from torch._dynamo.testing import CompileCounterWithBackend

import tensorsched as ts
from tests.binding.test_attach import equal, set_gradients
from tests.compiled.test_one_graph import LR, MOMENTUM, Graphs, by_step, eager, sgd, values

STEPS = 12
MUON = {"lr": ts.warmup_cosine(0.02, total=STEPS, warmup=3), "momentum": ts.linear(0.85, 0.95, steps=STEPS)}
ADAMW = {
    "lr": {"decay": ts.warmup_cosine(3e-3, total=STEPS, warmup=3), "no_decay": ts.linear(1e-3, 0.0, steps=STEPS)},
    "weight_decay": {"decay": ts.linear(0.1, 0.01, steps=STEPS), "no_decay": None},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_recompiles() -> Iterator[None]:
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


class Transformer(nn.Module):
    """A block over 13 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(13, 16), nn.Embedding(8, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 13)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        return self.head(self.block(x))


def matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not name.startswith(("embed", "place", "head"))


def muon_and_adamw(**schedules: dict[str, Any]) -> tuple[Transformer, ts.Plan]:
    torch.manual_seed(0)
    model = Transformer()
    hidden = ts.by_parameter({matrix: {}, "*": None}, model)
    others = ts.by_parameter(
        {"*.bias": {"name": "no_decay", "weight_decay": 0.0}, "*": {"name": "decay"}}, hidden.rest
    )
    muon, adamw = optim.Muon(hidden), optim.AdamW(others, eps=1e-6)  # a key's bias has no gradient but noise
    model.kept = (muon, adamw)  # an attachment does not keep its optimizer alive
    of_each = {"muon": MUON, "adamw": ADAMW} | schedules
    plan = ts.Plan(muon=ts.attach(muon, **of_each["muon"]), adamw=ts.attach(adamw, **of_each["adamw"]))
    assert plan.check(model) == []
    return model, plan


def trained(model: nn.Module, steps: list[Callable[[], object]], count: int = STEPS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        tokens = torch.randint(0, 13, (4, 8), generator=generator)
        logits = model(tokens[:, :-1])
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for step in steps:
            step()
        model.zero_grad()
    return [p.detach().clone() for p in model.parameters()]


def farthest(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


def frozen(schedules: dict[str, Any]) -> dict[str, Any]:
    """The values of step 3 for ever: at step 0 the warm-up has an lr of 0."""

    def at(value: Any) -> Any:
        return {k: at(v) for k, v in value.items()} if isinstance(value, dict) else value and value(3)

    return at(schedules)


def test_a_transformer_s_matrices_by_muon_and_the_rest_by_adamw_in_one_graph():
    """To the bit as two graphs, one for each; and as eager steps, but for what is float32 in a graph and a Python float
    there, and what Muon rounds to bfloat16: nearer than a tenth of the way to frozen values.
    """
    model, plan = muon_and_adamw()
    counter = CompileCounterWithBackend("aot_eager")
    one = trained(model, [ts.compile_step(plan, backend=counter)])
    assert (counter.frame_count, plan.step_counts) == (1, {"muon": STEPS, "adamw": STEPS})
    model, plan = muon_and_adamw()
    two = trained(model, [ts.compile_step(plan[name], backend="aot_eager") for name in plan])
    assert equal(one, two)
    model, plan = muon_and_adamw()
    eagerly = trained(model, [plan[name].optimizer.step for name in plan])
    assert plan.step_counts == {"muon": STEPS, "adamw": STEPS}
    for name, schedules in {"muon": MUON, "adamw": ADAMW}.items():
        model, plan = muon_and_adamw(**{name: frozen(schedules)})
        still = trained(model, [plan[name].optimizer.step for name in plan])
        assert farthest(one, eagerly) < 0.1 * farthest(still, eagerly), "the control: frozen values"


# -- to the bit, with SGD ----------------------------------------------------------------------------------------------


def two(*, together: bool = True, **options: Any) -> tuple[Any, Any, ts.Plan]:
    a, b = sgd(), sgd(momentum=0.25)
    attached = {
        "a": ts.attach(a, lr=LR, momentum=MOMENTUM, **options),
        "b": ts.attach(b, lr=2.0 * LR, **options),
    }
    plan = ts.Plan(attached, together=together)
    return a, b, plan


def both(a: Any, b: Any, step: Callable[[], object], steps: range) -> list[torch.Tensor]:
    for number in steps:
        set_gradients(a, number)
        set_gradients(b, number + 100)
        step()
    return values(a) + values(b)


def eagerly(steps: int = STEPS) -> list[torch.Tensor]:
    a, b, _ = two()
    return both(a, b, lambda: (a.step(), b.step()), range(steps))


def test_one_graph_without_a_read_equals_eager_steps_to_the_bit():
    graphs = Graphs()
    a, b, plan = two()
    reached = both(a, b, ts.compile_step(plan, backend=graphs.backend), range(STEPS))
    assert graphs.host_reads == [0]
    assert plan.step_counts == {"a": STEPS, "b": STEPS}
    assert equal(reached, eagerly())
    for name in plan:  # the control
        a, b, plan = two()
        plan[name].rewrite(lr=LR(0))
        assert not equal(reached, both(a, b, lambda a=a, b=b: (a.step(), b.step()), range(STEPS)))


def test_eager_steps_of_all_and_of_one_may_come_in_between():
    graphs = Graphs()
    a, b, plan = two()
    step = ts.compile_step(plan, backend=graphs.backend)
    both(a, b, step, range(4))
    both(a, b, lambda: (a.step(), b.step()), range(4, 6))
    assert equal(both(a, b, step, range(6, STEPS)), eagerly())
    a.step()
    assert plan.step_counts == {"a": STEPS + 1, "b": STEPS}
    step()
    assert plan.step_counts == {"a": STEPS + 2, "b": STEPS + 1}
    assert graphs.host_reads == [0]


def test_a_graph_of_one_beside_the_graph_of_all():
    """A GAN may step its discriminator once more."""
    runs = []
    for compiled in (True, False):
        a, b, plan = two(together=False)
        step, alone = (lambda a=a, b=b: (a.step(), b.step())), a.step
        if compiled:
            step, alone = (ts.compile_step(sched, backend="aot_eager") for sched in (plan, plan["a"]))
        for number in range(6):
            both(a, b, step, range(number, number + 1))
            set_gradients(a, 50 + number)
            alone()
        runs.append(values(a) + values(b))
        assert plan.step_counts == {"a": 12, "b": 6}
    assert equal(*runs)


def test_a_foreign_write_to_one_is_an_error_before_either_steps():
    for first in (0, 2):  # eager at first, compiled then
        a, b, plan = two()
        step = ts.compile_step(plan, backend="aot_eager")
        before = both(a, b, step, range(first))
        b.param_groups[1]["lr"].mul_(2.0)
        with pytest.raises(ts.BindingError, match=r"lr\[group \d\] no longer follows its schedule"):
            both(a, b, step, range(first, first + 1))
        assert equal(values(a) + values(b), before or eagerly(0))
        assert plan.step_counts == {"a": first, "b": first}


def test_late_groups_checkpoints_seek_and_rewrite():
    runs = []
    for compiled in (True, False):
        a, b, plan = two(new_groups={"lr": LR}, capacity=40)
        step = (
            ts.compile_step(plan, backend="aot_eager") if compiled else lambda a=a, b=b: (a.step(), b.step())
        )
        both(a, b, step, range(3))
        b.add_param_group({"params": [nn.Parameter(torch.ones(5, 3))]})
        both(a, b, step, range(3, 6))
        plan.seek(2)
        plan.rewrite(lr=0.5 * LR)
        both(a, b, step, range(6, 9))
        b.load_state_dict(copy.deepcopy(b.state_dict()))
        runs.append(both(a, b, step, range(9, 12)))
        assert plan.step_counts == {"a": 8, "b": 8}
    assert equal(*runs)


def test_a_step_that_gradscaler_skips_is_skipped_by_both():
    a, b, plan = two()
    step = ts.compile_step(plan, backend="aot_eager")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    reached = []
    for number in range(6):
        set_gradients(a, number)
        set_gradients(b, number + 100)
        for group in step.param_groups:
            for p in group["params"]:
                p.grad.mul_(scaler.get_scale())
        if number == 3:
            b.param_groups[1]["params"][0].grad[0, 0] = torch.inf
        scaler.step(step)
        scaler.update()
        reached.append(values(a) + values(b))
        assert set(plan.step_counts.values()) == {number + (number < 3)}
    assert equal(reached[2], reached[3])
    c, d, _ = two()
    for at, number in enumerate((0, 1, 2, 4, 5)):
        by_hand = both(c, d, lambda: (c.step(), d.step()), range(number, number + 1))
        assert equal(by_hand, reached[number]), at


def test_unscaling_one_optimizer_would_divide_twice():
    a, b, plan = two()
    step = ts.compile_step(plan, backend="aot_eager")
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    set_gradients(a, 0)
    set_gradients(b, 0)
    scaler.unscale_(b)
    with pytest.raises(ts.BindingError, match=r"call scaler.unscale_\(step\) instead"):
        scaler.step(step)


def test_release_and_copies():
    a, b, plan = two()
    step = ts.compile_step(plan, backend="aot_eager")
    both(a, b, step, range(3))
    a2, b2, again = copy.deepcopy((a, b, step))
    a3, b3, unpickled = pickle.loads(pickle.dumps((a, b, step)))
    assert again.sched.step_counts == unpickled.sched.step_counts == {"a": 3, "b": 3}
    step.release()
    assert [type(o.param_groups[0]["lr"]) for o in (a, b)] == [float, float]
    runs = [both(x, y, s, range(3, 8)) for x, y, s in ((a, b, step), (a2, b2, again), (a3, b3, unpickled))]
    assert equal(*runs[:2])
    assert equal(*runs[1:])
    assert equal(runs[0], eagerly(8))


def test_one_attachment_of_a_plan_and_alone_are_the_same_step():
    a = sgd()
    plan = ts.Plan(only=ts.attach(a, lr=LR, momentum=MOMENTUM))
    step = ts.compile_step(plan, backend="aot_eager")
    assert step.optimizers == (a,)
    assert equal(by_step(a, step, range(STEPS)), eager({"lr": LR, "momentum": MOMENTUM}))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: ts.Plan(a=ts.attach(KEPT[0], lr=LR), b=ts.attach(KEPT[1], lr=LR)),
            r"is fused.*\(optimizer 1 of the plan, AdamW\)",
        ),
        (lambda: [1], r"takes what attach\(\) returned, or a ts.Plan of several, got list"),
        (lambda: KEPT[0], "takes what attach"),
        (dict, "takes what attach"),
    ],
)
def test_what_cannot_be_one_graph_is_refused_and_changes_nothing(make, text):
    KEPT[:] = [sgd(), optim.AdamW([nn.Parameter(torch.ones(3))], fused=True)]
    wanted = make()
    with pytest.raises(ts.BindingError, match=text):
        ts.compile_step(wanted)
    assert all(isinstance(o.param_groups[0]["lr"], float) for o in KEPT)
    assert all("capturable" not in g for g in KEPT[0].param_groups)


KEPT: list[Any] = []


def test_a_detached_part_is_an_error_and_the_others_do_not_step():
    a, b, plan = two()
    step = ts.compile_step(plan, backend="aot_eager")
    before = both(a, b, step, range(3))
    plan["b"].detach()
    with pytest.raises(ts.BindingError, match="detached"):
        both(a, b, step, range(3, 4))
    assert equal(values(a) + values(b), before)
    assert plan["a"].step_count == 3


def test_a_users_own_graph_takes_the_step_of_all():
    a, b, plan = two()
    step = ts.compile_step(plan, backend="aot_eager")
    both(a, b, step, range(2))  # makes the state

    @torch.compile(backend="aot_eager", fullgraph=True)
    def own() -> None:
        step()

    assert equal(both(a, b, own, range(2, STEPS)), eagerly())
    assert plan.step_counts == {"a": STEPS, "b": STEPS}

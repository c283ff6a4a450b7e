"""compile_step: one graph, no host read, no recompilation, and the values that eager steps use."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch._dynamo
from functorch.compile import make_boxed_func
from torch import nn, optim
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

import tensorsched as ts
from tensorsched.binding import hooks
from tensorsched.binding.torch_optim import RECORDS
from tensorsched.engine import drivers
from tests.binding.test_attach import equal, floats_by_hand, set_gradients
from tests.binding.test_optimizers import (
    BFLOAT16,
    OPERATIONS,
    ROWS,
    STEPS,
    Row,
    U,
    bound,
    build,
    farthest,
    frozen,
    singles,
    train_by_hand,
)

# Powers of two: float32 and float64 hold them alike and products with them are exact, so that a graph and an eager step
# of SGD agree to the bit however they round and fuse.
LR = ts.from_values([2.0**-k for k in (2, 3, 5, 4, 3, 6, 2, 4, 5, 3, 4, 6)])
MOMENTUM = ts.from_values([0.5, 0.25, 0.5, 0.125, 0.5])


class Graphs:
    """A backend that counts graphs and the host reads in them."""

    def __init__(self) -> None:
        self.host_reads: list[int] = []
        self.backend = aot_autograd(fw_compiler=self._compile)

    def _compile(self, module: torch.fx.GraphModule, _: object) -> Any:
        reads = sum("_local_scalar_dense" in str(node.target) for node in module.graph.nodes)
        self.host_reads.append(reads)
        return make_boxed_func(module.forward)


@pytest.fixture
def graphs() -> Graphs:
    return Graphs()


@pytest.fixture(autouse=True)
def no_recompiles() -> Iterator[None]:
    """A recompilation is an error, except where a test allows it."""
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


def sgd(**options: Any) -> optim.SGD:
    generator = torch.Generator().manual_seed(0)
    ps = [nn.Parameter(torch.randn(5, 3, generator=generator)) for _ in range(4)]
    return optim.SGD([{"params": ps[:2]}, {"params": ps[2:]}], **({"lr": 0.5, "momentum": 0.5} | options))


def values(optimizer: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def by_step(optimizer: Any, step: Callable[[], object], steps: range) -> list[torch.Tensor]:
    for number in steps:
        set_gradients(optimizer, number)
        step()
    return values(optimizer)


def eager(schedules: dict[str, Any], steps: int = 12, **options: Any) -> list[torch.Tensor]:
    optimizer = sgd(**options)
    ts.attach(optimizer, **schedules)
    return by_step(optimizer, optimizer.step, range(steps))


# -- every optimizer, every hyperparameter -----------------------------------------------------------------------------


ONE_GRAPH = [kind for kind, record in RECORDS.items() if record.one_graph is not None]


def graph_cases() -> Iterator[Any]:
    for name, row in ROWS.items():
        if row.kind in ONE_GRAPH:
            for how in ("loop", "foreach") if row.kind is not optim.Muon else ("loop",):
                yield pytest.param(row, how, id=f"{name}-{how}")


def train_in_graph(
    row: Row, how: str, schedules: dict[str, Any], dtype: torch.dtype, backend: Any
) -> list[torch.Tensor]:
    """As test_optimizers.train, with a compiled step."""
    optimizer = build(row, how, dtype)
    floats_by_hand(optimizer, row.schedules)(0)
    sched = ts.attach(optimizer, **schedules)
    step = ts.compile_step(sched, backend=backend)
    reached = []
    for number in range(STEPS):
        generator = torch.Generator().manual_seed(number + 1)
        ps = optimizer.param_groups[0]["params"]
        for p in ps:
            p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
        step()
        averages = [state["ax"] for state in optimizer.state.values() if "ax" in state]
        reached.append(torch.cat([t.detach().flatten() for t in [*ps, *averages]]))
    assert sched.step_count == STEPS
    return reached


@pytest.mark.parametrize(("row", "how"), list(graph_cases()))
def test_every_hyperparameter_of_every_optimizer_moves_in_one_graph(row, how, graphs):
    """Within a bound, first order: the sum of those of each hyperparameter (test_optimizers.bound), and for the
    scalars that torch computes in float32 where groups are capturable, whatever is scheduled, OPERATIONS * U of each
    update, times 1 / (1 - rate) for differences to 1 of powers of a decay rate.
    """
    schedules = {key: s for key, s in row.schedules.items() if (row.kind, key) not in BFLOAT16}
    reached = train_in_graph(row, how, schedules, torch.float64, graphs.backend)
    assert graphs.host_reads == [0]
    exact = train_by_hand(row, how, schedules, dtype=torch.float64)
    moves = sum((b - a).abs().max().item() for a, b in pairwise(exact))
    group = build(row, how).param_groups[0]
    rates = [group[key] for key in ("alpha", "rho", "momentum") if key in group] + list(
        group.get("betas", ())
    )
    rates += [part(step) for _, one in singles(schedules) for part in parts(one) for step in range(STEPS)]
    memory = max(1.0 / (1.0 - rate) for rate in rates if 0.0 <= rate < 1.0)
    limit = (
        sum(bound(row, how, one, exact) for _, one in singles(schedules)) + OPERATIONS * U * memory * moves
    )
    assert farthest(reached, exact) <= limit
    still = train_by_hand(row, how, frozen(schedules), dtype=torch.float64)
    assert limit < 0.05 * farthest(still, exact), "the control: frozen values are far outside the bound"


def parts(schedules: dict[str, Any]) -> list[ts.Schedule]:
    ((schedule,),) = [schedules.values()]
    return [s for s in (schedule if isinstance(schedule, tuple) else (schedule,)) if s is not None]


@pytest.mark.parametrize("key", ["momentum", "ns_coefficients", "eps"])
@pytest.mark.parametrize("name", ["Muon", "Muon plain"])
def test_what_muon_rounds_to_bfloat16_moves_too(name, key, graphs):
    """No bound (see BFLOAT16): nearer to what eager steps reach than a tenth of the way to frozen values."""
    row = ROWS[name]
    schedules = {key: row.schedules[key]}
    reached = train_in_graph(row, "loop", schedules, torch.float32, graphs.backend)
    exact, still = (train_by_hand(row, "loop", s) for s in (schedules, frozen(schedules)))
    assert graphs.host_reads == [0]
    assert farthest(reached, exact) < 0.1 * farthest(still, exact)


@pytest.mark.parametrize("kind", ONE_GRAPH, ids=lambda kind: kind.__name__)
def test_one_frame_over_a_hundred_steps_of_default_optimizers(kind):
    counter = CompileCounterWithBackend("aot_eager")
    optimizer = kind([nn.Parameter(torch.ones(3, 2))], lr=0.01)
    sched = ts.attach(
        optimizer, lr=ts.linear(0.01, 0.001, steps=100), weight_decay=ts.linear(0.1, 0.2, steps=100)
    )
    step = ts.compile_step(sched, backend=counter)
    for number in range(101):
        set_gradients(optimizer, number)
        step()
    assert (counter.frame_count, sched.step_count) == (1, 101)
    assert optimizer.param_groups[0]["lr"] == torch.tensor(0.001)


def test_the_counters_can_move(monkeypatch, graphs):
    """Controls: foreach reads eps on the host; a float of a group that changes is another graph."""
    record = RECORDS[optim.AdamW]
    monkeypatch.setitem(
        RECORDS, optim.AdamW, dataclasses.replace(record, one_graph=record.one_graph | {"eps"})
    )
    row = ROWS["AdamW"]
    train_in_graph(row, "foreach", {"eps": row.schedules["eps"]}, torch.float32, graphs.backend)
    assert graphs.host_reads == [1]
    optimizer = sgd()
    step = ts.compile_step(ts.attach(optimizer, lr=LR), backend="aot_eager")
    by_step(optimizer, step, range(2))
    optimizer.param_groups[0]["momentum"] = 0.25
    with pytest.raises(torch._dynamo.exc.RecompileError):
        step()


# -- what happens between steps ----------------------------------------------------------------------------------------

SCHEDULES = {"lr": LR, "momentum": MOMENTUM}
HOW = pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"foreach": True}], ids=str)


@HOW
def test_sgd_agrees_with_eager_steps_to_the_bit(options, graphs):
    optimizer = sgd(**options)
    sched = ts.attach(optimizer, **SCHEDULES)
    reached = by_step(optimizer, ts.compile_step(sched, backend=graphs.backend), range(12))
    assert graphs.host_reads == [0]
    assert equal(reached, eager(SCHEDULES, **options))
    for key, schedule in SCHEDULES.items():
        assert not equal(reached, eager(SCHEDULES | {key: schedule(0)}, **options)), "the control: frozen"


def test_eager_and_compiled_steps_may_alternate(graphs):
    optimizer = sgd()
    sched = ts.attach(optimizer, **SCHEDULES)
    step = ts.compile_step(sched, backend=graphs.backend)
    for number in range(12):
        by_step(optimizer, optimizer.step if number in {3, 4, 8} else step, range(number, number + 1))
        assert sched.value("lr") is optimizer.param_groups[0]["lr"], (
            "back in graph mode after each eager step"
        )
    assert (graphs.host_reads, sched.step_count) == ([0], 12)
    assert equal(values(optimizer), eager(SCHEDULES))


def test_seek_between_steps_needs_no_new_graph(graphs):
    runs = []
    for compiled in (True, False):
        optimizer = sgd()
        sched = ts.attach(optimizer, **SCHEDULES)
        step = ts.compile_step(sched, backend=graphs.backend) if compiled else optimizer.step
        by_step(optimizer, step, range(4))
        sched.seek(1)
        runs.append(by_step(optimizer, step, range(4, 8)))
        assert sched.step_count == 5
    assert graphs.host_reads == [0]
    assert equal(*runs)


def test_parameters_without_a_gradient_are_left_alone_until_they_have_one():
    counter = CompileCounterWithBackend("aot_eager")
    runs = []
    for compiled in (True, False):
        optimizer = sgd()
        sched = ts.attach(optimizer, **SCHEDULES)
        step = ts.compile_step(sched, backend=counter) if compiled else optimizer.step
        late = optimizer.param_groups[1]["params"][1]
        before = late.detach().clone()
        with torch._dynamo.config.patch(error_on_recompile=False):  # the set of tensors changes
            for number in range(8):
                set_gradients(optimizer, number)
                late.grad = None if number < 3 else late.grad
                step()
                assert torch.equal(late, before) == (number < 3)
        runs.append(values(optimizer))
    assert equal(*runs)
    assert (
        counter.frame_count == 2
    )  # without it, and with it after an eager step has made its momentum buffer


def test_a_group_that_is_added_is_in_the_next_graph(graphs):
    runs = []
    for compiled in (True, False):
        optimizer = sgd()
        sched = ts.attach(optimizer, new_groups={"lr": 2.0 * LR}, free={"kl": LR}, **SCHEDULES)
        kl = sched.value("kl")
        step = ts.compile_step(sched, backend=graphs.backend) if compiled else optimizer.step
        by_step(optimizer, step, range(4))
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(5, 3))]})
        runs.append(by_step(optimizer, step, range(4, 10)))
        assert sched.value("lr", group=2) == 2.0 * LR(10)
        assert kl is sched.value("kl")
        assert kl == LR(10), "a tensor that was handed out stays alive"
    assert graphs.host_reads == [0, 0]
    assert equal(*runs)


def test_a_group_that_nothing_is_said_of_is_an_error_before_the_step(graphs):
    optimizer = sgd()
    step = ts.compile_step(ts.attach(optimizer, **SCHEDULES), backend=graphs.backend)
    before = by_step(optimizer, step, range(3))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(5, 3))]})
    with pytest.raises(ts.BindingError, match="has 3 param_groups and had 2"):
        step()
    assert equal(values(optimizer)[:4], before)


def test_a_checkpoint_may_be_saved_and_loaded_between_steps(graphs):
    optimizer = sgd()
    sched = ts.attach(optimizer, **SCHEDULES)
    step = ts.compile_step(sched, backend=graphs.backend)
    reached = by_step(optimizer, step, range(5))
    saved, place = copy.deepcopy(optimizer.state_dict()), sched.state_dict()  # torch's shares the buffers
    assert [type(g["lr"]) for g in saved["param_groups"]] == [float, float]
    assert "capturable" not in saved["param_groups"][0], "the graph's flag is no part of a checkpoint"
    by_step(optimizer, step, range(50, 53))
    with torch.no_grad():
        for p, value in zip((p for g in optimizer.param_groups for p in g["params"]), reached, strict=True):
            p.copy_(value)
    optimizer.load_state_dict(saved)
    sched.load_state_dict(place)
    assert equal(by_step(optimizer, step, range(5, 12)), eager(SCHEDULES))
    assert graphs.host_reads == [0, 0]


def test_hooks_of_others_run_around_the_graph_and_a_foreign_write_is_found(graphs):
    optimizer = sgd()
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    sched = ts.attach(optimizer, **SCHEDULES)
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    step = ts.compile_step(sched, backend=graphs.backend)
    before = by_step(optimizer, step, range(3))
    assert calls == 3 * ["before", "after"]
    optimizer.param_groups[1]["lr"].mul_(2.0)
    with pytest.raises(ts.BindingError, match=re.escape("lr[group 0] no longer follows its schedule")):
        step()
    assert equal(values(optimizer), before)


def test_detach_undoes_what_a_graph_needs(graphs):
    optimizer = optim.AdamW([nn.Parameter(torch.ones(3, 2))], lr=0.01, foreach=True)
    sched = ts.attach(optimizer, lr=LR, eps=ts.linear(1e-8, 1e-7, steps=4))
    ours = {"schedule_step", "schedule_fingerprint", "initial_lr", "initial_eps"}
    flags = {k: v for k, v in optimizer.param_groups[0].items() if k not in ours | {"params", "lr", "eps"}}
    step = ts.compile_step(sched, backend=graphs.backend)
    by_step(optimizer, step, range(3))
    in_graph = {k: optimizer.param_groups[0][k] for k in ("capturable", "foreach")}
    assert in_graph == {"capturable": True, "foreach": False}
    sched.detach()
    assert {k: v for k, v in optimizer.param_groups[0].items() if k not in {"params", "lr", "eps"}} == flags
    assert (optimizer.param_groups[0]["lr"], type(optimizer.param_groups[0]["lr"])) == (LR(3), float)
    with pytest.raises(ts.BindingError, match="detached"):
        step()
    optimizer.step()


def test_after_release_steps_are_eager(graphs):
    optimizer = sgd()
    sched = ts.attach(optimizer, **SCHEDULES)
    step = ts.compile_step(sched, backend=graphs.backend)
    by_step(optimizer, step, range(4))
    compiled = weakref.ref(step._compiled)
    step.release()
    assert compiled() is None
    assert "capturable" not in optimizer.param_groups[0]
    assert optimizer.param_groups[0]["lr"] == LR(4)
    by_step(optimizer, step, range(4, 8))
    step = ts.compile_step(sched, backend=graphs.backend)
    assert equal(by_step(optimizer, step, range(8, 12)), eager(SCHEDULES))
    assert graphs.host_reads == [0, 0]


def test_many_steps_of_many_optimizers_share_no_recompile_limit(graphs):
    for _ in range(torch._dynamo.config.recompile_limit + 2):
        optimizer = sgd()
        by_step(optimizer, ts.compile_step(ts.attach(optimizer, lr=LR), backend=graphs.backend), range(2))
    assert len(graphs.host_reads) == torch._dynamo.config.recompile_limit + 2


def test_free_values_move_in_the_graph_and_stay_the_tensors_they_were(graphs):
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=LR, free={"kl": ts.linear(0.0, 1.0, steps=8)})
    kl = sched.value("kl")
    step = ts.compile_step(sched, backend=graphs.backend)
    for number in range(6):
        by_step(optimizer, step, range(number, number + 1))
        assert kl == (number + 1) / 8


def test_scaled_tables_work_in_a_graph(monkeypatch, graphs):
    monkeypatch.setattr("tensorsched.engine.sharing.SCALE_ABOVE", 0)
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=[LR, 0.5 * LR], free={"a": 0.25 * LR}, resident=True)
    assert sched._mode.engines[0].table.layout.factors is not None
    reached = by_step(optimizer, ts.compile_step(sched, backend=graphs.backend), range(12))
    monkeypatch.undo()
    assert equal(reached, eager({"lr": [LR, 0.5 * LR]}))
    assert graphs.host_reads == [0]


def test_inductor_compiles_it():
    optimizer = optim.AdamW([nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2))], lr=0.25)
    sched = ts.attach(optimizer, lr=LR, weight_decay=ts.linear(0.5, 0.25, steps=4))
    counter = CompileCounterWithBackend("inductor")
    by_step(optimizer, ts.compile_step(sched, backend=counter), range(1))
    by_step(optimizer, ts.compile_step(sched, mode="reduce-overhead"), range(1, 4))
    assert sched.step_count == 4
    assert all(p.isfinite().all() for p in values(optimizer))


def test_a_group_that_is_taken_in_between_steps_starts_where_the_others_are(graphs):
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=LR, new_groups={"lr": LR})
    step = ts.compile_step(sched, backend=graphs.backend)
    by_step(optimizer, step, range(4))
    held = sched.value("lr")
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(5, 3))]})
    sched.state_dict()
    for number in range(4, 7):
        assert [float(group["lr"]) for group in optimizer.param_groups] == [LR(number)] * 3
        by_step(optimizer, optimizer.step, range(number, number + 1))
    by_step(optimizer, step, range(7, 9))
    assert held is sched.value("lr")
    assert held == LR(9)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_are_of_their_own_and_have_their_own_flags(how):
    optimizer = optim.AdamW([nn.Parameter(torch.ones(5, 3))], foreach=True)
    sched = ts.attach(optimizer, lr=LR, eps=ts.linear(1e-8, 1e-7, steps=4))
    step = ts.compile_step(sched, backend="aot_eager")
    by_step(optimizer, step, range(3))
    whole = (optimizer, sched, step)
    other, twin, again = copy.deepcopy(whole) if how == "deepcopy" else pickle.loads(pickle.dumps(whole))
    by_step(other, again, range(3, 6))
    by_step(other, other.step, range(6, 7))
    assert (sched.step_count, twin.step_count) == (3, 7)
    twin.detach()
    other.step()
    assert [other.param_groups[0][key] for key in ("capturable", "foreach")] == [False, True]
    alone = copy.deepcopy(sched)
    by_step(alone.optimizer, alone.optimizer.step, range(3, 5))
    assert alone.step_count == 5


def test_the_step_by_which_checkpointing_makes_state_is_no_obstacle(graphs):
    model = nn.Linear(4, 3)
    optimizer = optim.AdamW(model.parameters())
    sched = ts.attach(optimizer, lr=LR)
    step = ts.compile_step(sched, backend=graphs.backend)
    saved = get_optimizer_state_dict(model, optimizer)
    assert saved["state"]
    assert sched.step_count == 0
    by_step(optimizer, step, range(3))
    assert (sched.step_count, graphs.host_reads) == (3, [0])


def test_more_variants_than_torch_compiles_are_an_error_that_says_so():
    optimizer = sgd()
    step = ts.compile_step(ts.attach(optimizer, lr=LR), backend="aot_eager")
    by_step(optimizer, step, range(2))
    ps = [p for group in optimizer.param_groups for p in group["params"]]

    def step_with_some(mask: int) -> None:
        set_gradients(optimizer, mask)
        for place, p in enumerate(ps):
            p.grad = p.grad if mask >> place & 1 else None
        step()

    with torch._dynamo.config.patch(error_on_recompile=False, recompile_limit=3):
        step_with_some(1)
        step_with_some(2)
        with pytest.raises(
            ts.BindingError, match=r"gave up after 3 graphs.*which parameters have a gradient"
        ):
            step_with_some(3)


@pytest.mark.parametrize("how", ["disabled", "stance"])
def test_where_compilation_is_switched_off_steps_are_eager(how):
    optimizer = optim.AdamW([nn.Parameter(torch.ones(5, 3))])
    sched = ts.attach(optimizer, lr=LR)
    step = ts.compile_step(sched, disable=how == "disabled")
    with torch.compiler.set_stance("force_eager" if how == "stance" else "default"):
        by_step(optimizer, step, range(4))
    assert sched.step_count == 4


def test_an_attachment_that_comes_later_is_found():
    optimizer = sgd()
    step = ts.compile_step(ts.attach(optimizer, lr=LR), backend="aot_eager")
    by_step(optimizer, step, range(2))
    ts.attach(optimizer, momentum=0.25)
    with pytest.raises(ts.BindingError, match="another attachment"):
        step()


@pytest.mark.parametrize("call", ["step", "optimizer.step"])
def test_a_foreign_write_stays_an_error_until_it_is_gone(call, graphs):
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=LR)
    step = ts.compile_step(sched, backend=graphs.backend)
    by_step(optimizer, step, range(3))
    optimizer.param_groups[0]["lr"] = 9.0
    for _ in range(2):
        with pytest.raises(ts.BindingError, match="no longer follows its schedule"):
            step() if call == "step" else optimizer.step()
    sched.seek(3)
    step()


def test_a_closure_is_refused_with_the_way_out():
    optimizer = sgd()
    step = ts.compile_step(ts.attach(optimizer, lr=LR), backend="aot_eager")
    with pytest.raises(
        ts.BindingError, match=re.escape("takes no closure") + ".*" + re.escape("call step()")
    ):
        step(lambda: 0.0)
    assert step.sched.step_count == 0


# -- mixed precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unscale", [False, True])
def test_a_gradscaler_s_skipped_steps_are_decided_in_the_graph(unscale, graphs):
    runs = []
    for compiled in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
        sched = ts.attach(optimizer, **SCHEDULES)
        stepped = ts.compile_step(sched, backend=graphs.backend) if compiled else optimizer
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
        for number in range(12):
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
            if number in {0, 5, 6}:
                inputs[0, 0] = torch.inf
            scaler.scale(model(inputs).square().mean()).backward()
            if unscale:
                scaler.unscale_(stepped)
            scaler.step(stepped)
            scaler.update()
            optimizer.zero_grad()
        runs.append((sched.step_count, scaler.get_scale(), *values(optimizer)))
    assert graphs.host_reads == [0]
    assert runs[0][:2] == runs[1][:2] == (9, runs[1][1])
    assert equal(list(runs[0][2:]), list(runs[1][2:]))


def test_gradients_that_were_unscaled_through_the_optimizer_are_not_unscaled_again(graphs):
    optimizer = sgd()
    step = ts.compile_step(ts.attach(optimizer, lr=LR), backend=graphs.backend)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(sum(p.sum() for p in optimizer.param_groups[0]["params"])).backward()
    before = values(optimizer)
    scaler.unscale_(optimizer)
    with pytest.raises(ts.BindingError, match=re.escape("call scaler.unscale_(step) instead")):
        scaler.step(step)
    assert equal(values(optimizer), before)


# -- inside the user's own graph ---------------------------------------------------------------------------------------


def own_train_step(
    how: str, optimizer: Any, model: nn.Module, step: Callable[[], object]
) -> Callable[[Any], None]:
    def breaks(inputs):
        model(inputs).square().mean().backward()
        step()
        optimizer.zero_grad()

    def whole(inputs):
        names = dict(model.named_parameters())
        detached = {name: p.detach() for name, p in names.items()}
        grads = torch.func.grad(lambda p: torch.func.functional_call(model, p, (inputs,)).square().mean())(
            detached
        )
        for name, p in names.items():
            p.grad.copy_(grads[name])
        step()

    return whole if how == "whole" else breaks


@pytest.mark.parametrize("how", ["step()", "optimizer.step()", "whole"])
def test_a_train_step_that_users_compile_follows_without_recompiling(how):
    runs = []
    for schedules in (SCHEDULES, SCHEDULES, {"lr": LR, "momentum": 0.5}):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = not runs
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
        lr_alone = {"lr": schedules["lr"]} if how == "optimizer.step()" else schedules
        sched = ts.attach(optimizer, resident=compiled and how == "optimizer.step()", **lr_alone)
        step = ts.compile_step(sched) if compiled and how != "optimizer.step()" else optimizer.step
        train_step = own_train_step(how, optimizer, model, step)
        if how == "whole":
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
        call = (
            torch.compile(train_step, backend=counter, fullgraph=how == "whole") if compiled else train_step
        )
        counts = []
        for number in range(10):
            with torch._dynamo.config.patch(
                error_on_recompile=number >= 2
            ):  # the momentum buffer is new in the second
                call(torch.randn(8, 4, generator=torch.Generator().manual_seed(number)))
            counts.append(counter.frame_count)
        assert sched.step_count == 10
        assert len(set(counts[1:])) == 1, "the first call makes the momentum buffer, the second reads it"
        assert (counts[0] == 1) == (compiled and how == "whole")
        runs.append(values(optimizer))
    assert all(
        (a - b).abs().max() <= 10 * 16 * U * b.abs().max() for a, b in zip(runs[0], runs[1], strict=True)
    )
    if how != "optimizer.step()":
        assert not equal(runs[1], runs[2]), "the control: frozen momentum shows"


def test_a_device_s_driver_is_kept_out_of_a_train_step_that_users_compile(monkeypatch):
    """Traced, its nextafter and its version counter would be in the user's graph, or break it."""
    monkeypatch.setattr(drivers, "CpuDriver", drivers.DeviceDriver)
    test_a_train_step_that_users_compile_follows_without_recompiling("optimizer.step()")


def test_eager_steps_between_calls_of_an_own_graph_are_seen_by_it():
    """The group's value, the clock and the graph stay one, whatever steps in between."""
    optimizer = sgd(momentum=0.0)
    sched = ts.attach(optimizer, lr=LR)
    step = ts.compile_step(sched, backend="aot_eager")
    own = torch.compile(lambda: step(), backend="aot_eager", fullgraph=True)  # noqa: PLW0108  a function of its own
    for number, call in enumerate((optimizer.step, own, own, step, own, optimizer.step, step, own)):
        set_gradients(optimizer, number)
        before = values(optimizer)
        call()
        moved = (before[0] - values(optimizer)[0]) / optimizer.param_groups[0]["params"][0].grad
        assert torch.allclose(moved, torch.tensor(LR(number)), rtol=1e-3)
        assert (sched.step_count, float(optimizer.param_groups[1]["lr"])) == (number + 1, LR(number + 1))
    sched.detach()
    with (
        torch._dynamo.config.patch(error_on_recompile=False),
        pytest.raises(Exception, match="schedule is detached"),
    ):
        own()


# -- other schedules in the same table ---------------------------------------------------------------------------------

COOL_DOWN = ts.from_values([2.0**-k for k in (2, 3, 5, 7, 8, 9)])


def test_a_rewritten_schedule_is_used_at_once_without_a_new_graph(graphs):
    runs = []
    for compiled in (True, False):
        optimizer = sgd()
        sched = ts.attach(optimizer, capacity=23, free={"kl": LR}, **SCHEDULES)
        step = ts.compile_step(sched, backend=graphs.backend) if compiled else optimizer.step
        by_step(optimizer, step, range(4))
        kl = sched.value("kl")
        sched.rewrite(lr=COOL_DOWN, free={"kl": COOL_DOWN})
        assert (sched.step_count, float(optimizer.param_groups[1]["lr"]), float(kl)) == (4, 2.0**-8, 2.0**-8)
        runs.append(by_step(optimizer, step, range(4, 12)))
        sched.rewrite(lr=LR >> LR)  # longer than what was attached
        runs[-1] += by_step(optimizer, step, range(12, 16))
        assert float(optimizer.param_groups[0]["lr"]) == (LR >> LR)(16)
    assert graphs.host_reads == [0]
    assert equal(*runs)
    assert not equal(runs[0][:4], eager(SCHEDULES)), "the control: the old schedule"


# -- what cannot be one graph ------------------------------------------------------------------------------------------


class Own(optim.SGD):
    """May do anything in its step."""


REFUSED = {
    "Adafactor": (
        optim.Adafactor,
        {},
        "Adafactor: its step reads lr .* on the host.*keep optimizer.step()",
    ),
    "LBFGS": (optim.LBFGS, {}, "LBFGS: its step calls the closure.*keep optimizer.step()"),
    "fused": (lambda ps: optim.AdamW(ps, fused=True), {}, "group 0 is fused.*fused=False"),
    "unknown": (Own, {}, "nothing is known of how Own steps.*one of torch's own: ASGD, Adadelta"),
    "manual": (optim.SGD, {"advance": "manual"}, "count it twice; attach with 'auto'"),
    "differentiable": (lambda ps: optim.SGD(ps, differentiable=True), {}, "group 0 is differentiable"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_one_graph_is_refused_and_nothing_changes(why):
    make, options, text = REFUSED[why]
    optimizer = make([nn.Parameter(torch.ones(3))])
    sched = ts.attach(optimizer, lr=LR, **options)
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(ts.BindingError, match=f"compile_step: .*{text}"):
        ts.compile_step(sched, backend="aot_eager")
    assert [dict(group) for group in optimizer.param_groups] == before


def test_momentum_that_touches_zero_is_refused_now_or_when_it_is_rewritten(graphs):
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=LR, momentum=ts.linear(0.5, 0.0, steps=4))
    with pytest.raises(ts.BindingError, match=re.escape("momentum[group 0] is 0 at step 4")):
        ts.compile_step(sched)
    sched.rewrite(momentum=ts.linear(0.5, 0.25, steps=4))
    step = ts.compile_step(sched, backend=graphs.backend)
    by_step(optimizer, step, range(3))
    with pytest.raises(ts.BindingError, match="is 0 at step 4"):
        sched.rewrite(momentum=ts.linear(0.5, 0.0, steps=4))
    assert sched.value("momentum") == 0.3125
    by_step(optimizer, step, range(3, 5))
    step.release()
    sched.rewrite(momentum=ts.linear(0.5, 0.0, steps=4))


def test_two_attachments_and_partial_graphs_are_refused():
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=LR)
    with pytest.raises(ts.BindingError, match="fullgraph is always True"):
        ts.compile_step(sched, fullgraph=False)
    ts.attach(optimizer, momentum=0.25)
    with pytest.raises(ts.BindingError, match=r"another attachment.*in one call"):
        ts.compile_step(sched)


# -- capture, as far as it shows without a GPU -------------------------------------------------------------------------


def test_a_refused_capture_advises_capturable_only_where_it_is_not_set(capture):
    for options, advised in (({}, True), ({"capturable": True}, False)):
        optimizer = optim.AdamW([nn.Parameter(torch.ones(3))])
        optimizer.param_groups[0].update(options)
        capture(optimizer, lr=LR)
        optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
        with pytest.raises(ts.BindingError, match="is a float slot") as refused:
            optimizer.step()
        assert ("capturable=True" in str(refused.value)) == advised


@pytest.fixture
def capture(monkeypatch):
    """Steps believe that they are captured."""
    monkeypatch.setattr(hooks, "capturing", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return ts.attach


def test_a_capture_that_would_freeze_a_value_is_refused_and_names_the_slot(capture):
    optimizer = sgd()
    capture(optimizer, lr=LR)
    set_gradients(optimizer, 0)
    before = values(optimizer)
    with pytest.raises(
        ts.BindingError, match=re.escape("lr[group 0] is a float slot") + ".*replay today's value"
    ):
        optimizer.step()
    assert equal(values(optimizer), before)
    optimizer = sgd()
    sched = capture(optimizer, lr=LR, resident=True)
    set_gradients(optimizer, 0)
    optimizer.step()
    assert sched.step_count == 1


def test_a_capture_that_would_leave_a_parameter_out_is_refused_and_names_it(capture):
    optimizer = sgd()
    capture(optimizer, lr=LR, resident=True)
    set_gradients(optimizer, 0)
    optimizer.param_groups[1]["params"][1].grad = None
    with pytest.raises(
        ts.BindingError, match=r"parameter 1 of group 1, of shape \(5, 3\), requires grad and has no"
    ):
        optimizer.step()
    optimizer.param_groups[1]["params"][1].requires_grad_(requires_grad=False)
    optimizer.step()

"""One of two real processes that train together over gloo; started by test_distributed.py, which judges what they saw.

    python -m tests.binding.distributed_worker FOLDER RANK

Each scenario opens a process group of its own (a file in FOLDER is the meeting point, so no port is taken) and returns
plain facts: values by step, parameters, and whether things were equal. What a process saw is left in FOLDER.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn, optim
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import tensorsched as ts

WORLD = 2
STEPS = 8
SAVED = 5  # a checkpoint is taken after this many steps
LR = ts.linear(0.01, 0.1, steps=3) >> ts.cosine(0.1, 0.01, steps=5)
WD = ts.linear(0.3, 0.0, steps=9)
HALF = 0.5 * WD  # of the biases
KINDS: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
    "AdamW": (optim.AdamW, {}),
    "fused AdamW": (optim.AdamW, {"fused": True}),
    "SGD": (optim.SGD, {"momentum": 0.9}),
    "SGD without state": (optim.SGD, {}),
}
GUARDS = tuple(f"tensorsched.binding.rare_steps.{name}" for name in ("is_dummy", "is_dummy_by_name"))
CASES = [
    *itertools.product(("AdamW", "SGD"), (False, True)),
    ("SGD without state", False),
]  # optimizer, resident

Model = nn.Module
Facts = dict[Any, Any]


# -- a small training run ----------------------------------------------------------------------------------------


def make_model() -> Model:
    """The same at every call and on every rank; the last layer's 3 rows do not divide by 2."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def sharded(model: Model) -> Model:
    fully_shard(model[0])  # type: ignore[index]
    return fully_shard(model)


WRAPS: dict[str, Callable[[Model], Model]] = {"ddp": DistributedDataParallel, "fsdp2": sharded}


def make_optimizer(model: Model, kind: str, *, zero: bool = False) -> Any:
    cls, options = KINDS[kind]
    ps = list(model.parameters())
    groups = [{"params": [p for p in ps if p.dim() > 1]}, {"params": [p for p in ps if p.dim() == 1]}]
    if zero:
        # Here, because on import torch's own module warns of what it uses (torch.jit.script), and tests import this one.
        from torch.distributed.optim import ZeroRedundancyOptimizer  # noqa: PLC0415

        return ZeroRedundancyOptimizer(groups, cls, lr=0.05, **options)
    return cls(groups, lr=0.05, **options)


def attach(optimizer: Any, *, resident: bool, wd_only: bool = False) -> ts.Attachment:
    wanted: dict[str, Any] = {"weight_decay": [WD, HALF]} | ({} if wd_only else {"lr": LR})
    return ts.attach(optimizer, resident=resident, **wanted)


def by_hand(optimizer: Any, *, resident: bool, frozen: bool) -> Callable[[int], None]:
    """Set what `attach` schedules before each step, the way people do; `frozen` always sets the values of step 0."""
    number = torch.tensor if resident else float

    def set_groups(step: int) -> None:
        at = 0 if frozen else step
        for group, wd in zip(optimizer.param_groups, (WD, HALF), strict=True):
            group["lr"], group["weight_decay"] = number(LR(at)), number(wd(at))

    return set_groups


def batch(step: int, rank: int) -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(100 * step + rank))


def train(
    model: Model,
    optimizer: Any,
    steps: range,
    *,
    rank: int,
    before: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Train, and return the hyperparameters that each step was taken with. `rank` chooses the data."""
    seen = []
    for step in steps:
        model(batch(step, rank)).square().sum().backward()
        if before is not None:
            before(step)
        seen.append([float(g[key]) for g in optimizer.param_groups for key in ("lr", "weight_decay")])
        optimizer.step()
        optimizer.zero_grad()
    return seen


def whole(model: Model) -> list[torch.Tensor]:
    """The parameters, put together from their shards."""
    ps = (p.detach() for p in model.parameters())
    return [(p.full_tensor() if hasattr(p, "full_tensor") else p).clone() for p in ps]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def bound(optimizer: Any, sched: ts.Attachment) -> bool:
    """Whether every slot holds what it must hold: the live view itself, or a float of the schedule's exact value."""
    for slot in sched.slots:
        group, key, _ = slot.place
        found, live = optimizer.param_groups[group][key], sched.value(key, group)
        good = found is live if slot.tensor else type(found) is float and found == live
        if not good or float(found) != (_rounded if slot.tensor else float)(slot.schedule(sched.step_count)):
            return False
    return True


def _rounded(value: float) -> float:
    return torch.tensor(value).item()


# -- the scenarios -----------------------------------------------------------------------------------------------


def training(rank: int, wrap: str, *, zero: bool = False) -> Facts:
    """The schedule's run, the same by hand, and the same with frozen values."""
    facts: Facts = {}
    for kind, resident in CASES:
        runs = {}
        for how in ("attached", "by hand", "frozen"):
            model = WRAPS[wrap](make_model())
            optimizer = make_optimizer(model, kind, zero=zero)
            before = sched = None
            if how == "attached":
                sched = attach(optimizer, resident=resident)
            else:
                before = by_hand(optimizer, resident=resident, frozen=how == "frozen")
            seen = train(model, optimizer, range(STEPS), rank=rank, before=before)
            runs[how] = {"seen": seen, "params": whole(model)}
            if sched is not None:
                runs[how] |= {"steps": sched.step_count, "bound": bound(optimizer, sched)}
        facts[kind, resident] = runs
    return facts


def plain_checkpoint(rank: int, folder: Path, *, zero: bool) -> Facts:
    """Rank 0 saves with torch.save, every rank loads into fresh objects, in either order, and all train on."""
    facts: Facts = {}
    for number, (kind, resident) in enumerate(CASES):
        file = folder / f"plain-{zero}-{number}.pt"
        model, optimizer, sched = _fresh(kind, zero=zero, resident=resident)
        train(model, optimizer, range(SAVED), rank=rank)
        if zero:
            optimizer.consolidate_state_dict(to=0)
        if rank == 0:
            saved = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "sched": sched.state_dict(),
            }
            torch.save(saved, file)
        dist.barrier()
        train(model, optimizer, range(SAVED, STEPS), rank=rank)
        facts[kind, resident] = {"uninterrupted": whole(model)}
        for order in ("optimizer first", "schedule first", "schedule forgotten"):
            again, other, resumed = _fresh(kind, zero=zero, resident=resident)
            state = torch.load(file, weights_only=True)
            again.load_state_dict(state["model"])
            if order == "schedule first":
                resumed.load_state_dict(state["sched"])
            other.load_state_dict(state["optimizer"])
            if order == "optimizer first":
                resumed.load_state_dict(state["sched"])
            train(again, other, range(SAVED, STEPS), rank=rank)
            facts[kind, resident][order] = {
                "params": whole(again),
                "steps": resumed.step_count,
                "bound": bound(other, resumed),
            }
    return facts


def _fresh(
    kind: str, *, resident: bool, zero: bool = False, wrap: str = "ddp", wd_only: bool = False
) -> tuple[Model, Any, ts.Attachment]:
    model = WRAPS[wrap](make_model())
    optimizer = make_optimizer(model, kind, zero=zero)
    return model, optimizer, attach(optimizer, resident=resident, wd_only=wd_only)


def inner_of_zero(rank: int) -> Facts:
    """The schedule attached to the optimizer inside: the outer one writes its own values over it at each step."""
    facts: Facts = {}
    for resident, starts_alike in itertools.product((False, True), (False, True)):
        model = DistributedDataParallel(make_model())
        optimizer = make_optimizer(model, "AdamW", zero=True)
        lr = ts.linear(0.05, 0.01, steps=6) if starts_alike else LR
        sched = ts.attach(optimizer.optim, lr=lr, resident=resident)
        before = whole(model)
        error, seen = "", []
        try:
            seen = train(model, optimizer, range(3), rank=rank)
        except ts.BindingError as caught:
            error = str(caught)
        facts[resident, starts_alike] = {
            "error": error,
            "steps": sched.step_count,
            "untouched": equal(before, whole(model)),
            "lr": [lrs[0] for lrs in seen],
        }
    return facts


def hidden_step(rank: int) -> Facts:
    """What get and set do to an optimizer that has not stepped: torch takes a step of its own to make the state."""
    facts: Facts = {}
    for wrap, (kind, resident) in itertools.product(WRAPS, CASES):
        donor, trained, _ = _fresh(kind, resident=resident, wrap=wrap)
        train(donor, trained, range(2), rank=rank)
        state = get_optimizer_state_dict(donor, trained)
        for name, wd_only in itertools.product(CALLS, (False, True)):
            facts[wrap, kind, resident, wd_only, name] = _around_hidden_step(
                lambda m, o, call=CALLS[name], s=state: call(m, o, s),
                _fresh(kind, resident=resident, wrap=wrap, wd_only=wd_only),
                rank,
            )
            if name == "get_state_dict":  # the control
                with mock.patch(GUARDS[0], return_value=False), mock.patch(GUARDS[1], return_value=False):
                    unguarded = _around_hidden_step(
                        get_state_dict, _fresh(kind, resident=resident, wrap=wrap, wd_only=wd_only), rank=None
                    )
                facts[wrap, kind, resident, wd_only, name]["unguarded"] = unguarded
    return facts


FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
CALLS: dict[str, Callable[[Model, Any, Any], Any]] = {
    "get_optimizer_state_dict": lambda m, o, _: get_optimizer_state_dict(m, o),
    "get_optimizer_state_dict, flat": lambda m, o, _: get_optimizer_state_dict(m, o, options=FLAT),
    "get_state_dict": lambda m, o, _: get_state_dict(m, o),
    "set_optimizer_state_dict": set_optimizer_state_dict,
    "set_state_dict": lambda m, o, state: set_state_dict(
        m, o, model_state_dict=get_model_state_dict(m), optim_state_dict=state
    ),
}


def _around_hidden_step(
    call: Callable[[Model, Any], Any], fresh: tuple[Model, Any, ts.Attachment], rank: int | None
) -> Facts:
    """`call`, made at step 3; with a rank, a training step follows."""
    model, optimizer, sched = fresh
    sched.seek(3)
    before, hidden, error = whole(model), [], ""
    handle = optimizer.register_step_post_hook(lambda *_: hidden.append(1))
    try:
        call(model, optimizer)
    except ts.BindingError as caught:
        error = str(caught)
    handle.remove()
    facts: Facts = {
        "hidden steps": len(hidden),
        "error": error,
        "steps": sched.step_count,
        "bound": bound(optimizer, sched),
        "untouched": equal(before, whole(model)),
    }
    if rank is not None:
        used = train(model, optimizer, range(1), rank=rank)[0]
        facts |= {
            "used next": used,
            "moved next": not equal(before, whole(model)),
            "steps later": sched.step_count,
            "bound later": bound(optimizer, sched),
        }
    return facts


def skipped_steps(rank: int, wrap: str) -> Facts:
    """GradScaler finds an infinity that only rank 1 has, in the gradients of steps 2 and 3."""
    facts: Facts = {}
    for kind, resident in itertools.product(("AdamW", "fused AdamW"), (False, True)):
        model, optimizer, sched = _fresh(kind, resident=resident, wrap=wrap)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        counts, moved = [], []
        for step in range(6):
            before = whole(model)
            scaler.scale(model(batch(step, rank)).square().sum()).backward()
            if step in {2, 3} and rank == 1:
                grad = next(model.parameters()).grad
                assert grad is not None
                (grad.to_local() if hasattr(grad, "to_local") else grad)[0, 0] = math.inf
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            counts.append(sched.step_count)
            moved.append(not equal(before, whole(model)))
        facts[kind, resident] = {"counts": counts, "moved": moved, "bound": bound(optimizer, sched)}
    return facts


class Run:
    """A model and its optimizer as one entry of a checkpoint, as the documentation of torch has it."""

    def __init__(self, model: Model, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )


def stateful(model: Model, optimizer: Any, sched: ts.Attachment, folder: Path, *, load: bool) -> None:
    """Everything is an object with state_dict and load_state_dict; the checkpoint calls them."""
    entries = {"run": Run(model, optimizer), "sched": sched}
    if load:
        dcp.load(entries, checkpoint_id=folder)
    else:
        dcp.save(entries, checkpoint_id=folder)


def by_parts(model: Model, optimizer: Any, sched: ts.Attachment, folder: Path, *, load: bool) -> None:
    """Plain dicts, a flat optimizer state, and the schedule's state in the same checkpoint."""
    state = {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=FLAT),
        "sched": sched.state_dict(),
    }
    if not load:
        dcp.save(state, checkpoint_id=folder)
        return
    dcp.load(state, checkpoint_id=folder)
    sched.load_state_dict(state["sched"])
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=FLAT)


STYLES = {"stateful": stateful, "by parts": by_parts}


def sharded_checkpoint(rank: int, folder: Path) -> Facts:
    """Save, train on; load into fresh objects, train on: the same. All ranks have the same data, so that one process
    alone can go on from the checkpoint as well (test_distributed.py does).
    """
    del rank
    facts: Facts = {}
    for wrap, (kind, resident), style in itertools.product(WRAPS, CASES, STYLES):
        where = folder / "-".join((wrap, kind, str(resident), style.replace(" ", "_")))
        model, optimizer, sched = _fresh(kind, resident=resident, wrap=wrap)
        train(model, optimizer, range(SAVED), rank=0)
        saved = whole(model)
        STYLES[style](model, optimizer, sched, where, load=False)
        unmoved = equal(saved, whole(model)) and sched.step_count == SAVED and bound(optimizer, sched)
        train(model, optimizer, range(SAVED, STEPS), rank=0)
        again, other, resumed = _fresh(kind, resident=resident, wrap=wrap)
        STYLES[style](again, other, resumed, where, load=True)
        facts[wrap, kind, resident, style] = {
            "saving moved nothing": unmoved,
            "saved": saved,
            "loaded": whole(again),
            "steps": resumed.step_count,
            "bound": bound(other, resumed),
            "uninterrupted": whole(model),
            "checkpoint": where,
        }
        train(again, other, range(SAVED, STEPS), rank=0)
        facts[wrap, kind, resident, style]["resumed"] = whole(again)
    return facts


def compiled(rank: int) -> Facts:
    """FSDP2's DTensors in one graph, beside eager steps with the same schedules."""
    facts: Facts = {}
    powers = ts.from_values([2.0**-k for k in (4, 5, 6, 4, 5, 7, 4, 6)])
    wanted = {
        "SGD": {"lr": powers, "weight_decay": 0.5 * powers},
        "AdamW": {"lr": LR, "weight_decay": [WD, HALF]},
    }
    for kind, schedules in wanted.items():
        graphs = 0

        def count(module: torch.fx.GraphModule, _: object) -> Any:
            nonlocal graphs
            graphs += 1
            return module.forward

        reached = {}
        for how in ("graph", "eager", "frozen"):
            model = sharded(make_model())
            optimizer = make_optimizer(model, kind)
            sched = ts.attach(optimizer, **schedules)
            step = ts.compile_step(sched, backend=count) if how == "graph" else optimizer.step
            for number in range(STEPS):
                model(batch(number, rank)).square().sum().backward()
                if how == "frozen":
                    sched.seek(0)
                step()
                optimizer.zero_grad()
            reached[how] = whole(model)
            if how == "graph":
                facts[kind] = {"steps": sched.step_count, "bound": bound(optimizer, sched)}
                step.release()
        facts[kind] |= reached | {"graphs": graphs}
    return facts


def decaying(rank: int) -> Facts:
    """A fused AdamW on FSDP2's DTensors, its weight decay multiplied on the device, beside one with floats by hand."""
    lr = ts.from_values(
        [2.0**-k for k in (4, 5, 6, 4, 5, 7, 4, 6)]
    )  # what the kernel does with it is the same
    facts: Facts = {}
    for how in ("attached", "by hand", "frozen"):
        model = sharded(make_model())
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        if how == "attached":
            sched = ts.attach(optimizer, resident=True, lr=lr, weight_decay=WD)
            facts["decays"] = [slot.decays for slot in sched.slots]
        for number in range(STEPS):
            model(batch(number, rank)).square().sum().backward()
            if how != "attached":
                wd = WD(0 if how == "frozen" else number)
                optimizer.param_groups[0].update(lr=lr(number), weight_decay=wd)
            optimizer.step()
            optimizer.zero_grad()
        facts[how] = whole(model)
    return {"AdamW": facts}


def losses(rank: int) -> list[float]:
    """What each evaluation gives on a rank: one gets better when the other does not."""
    if rank == 0:
        return [1.0, 0.75, 0.75, 0.75, 0.75, 0.75, 0.25, 0.25]
    return [1.0, 1.0, 1.0, 1.25, 0.5, 0.75, 0.25, 0.25]


def observing(rank: int) -> Facts:
    """A plateau that is shown the loss of all ranks, as the docstring of `observe` has it; or each rank its own."""
    facts: Facts = {}
    for kind, resident, reduced in itertools.product(("AdamW", "SGD"), (False, True), (False, True)):
        model = DistributedDataParallel(make_model())
        optimizer = make_optimizer(model, kind)
        sched = ts.attach(optimizer, lr=LR * ts.plateau(factor=0.5, patience=0), resident=resident)
        lrs = []
        for number, own in enumerate(losses(rank)):
            model(batch(number, rank)).square().sum().backward()
            lrs.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            optimizer.zero_grad()
            loss = torch.tensor(own)
            if reduced:
                dist.all_reduce(loss)
                loss /= dist.get_world_size()
            sched.observe(loss)
        facts[kind, resident, reduced] = {"lrs": lrs, "params": whole(model), "log": sched.log()["lr/0"]}
    return facts


def scenarios(rank: int, folder: Path) -> Iterator[tuple[str, Callable[[], Facts]]]:
    yield "ddp", lambda: training(rank, "ddp")
    yield "fsdp2", lambda: training(rank, "fsdp2")
    yield "zero", lambda: training(rank, "ddp", zero=True)
    yield "inner of zero", lambda: inner_of_zero(rank)
    yield "checkpoint of ddp", lambda: plain_checkpoint(rank, folder, zero=False)
    yield "checkpoint of zero", lambda: plain_checkpoint(rank, folder, zero=True)
    yield "skipped steps of fsdp2", lambda: skipped_steps(rank, "fsdp2")
    yield "one graph of fsdp2", lambda: compiled(rank)
    yield "decay on fsdp2", lambda: decaying(rank)
    yield "observing", lambda: observing(rank)
    yield "hidden step", lambda: hidden_step(rank)
    yield "sharded checkpoint", lambda: sharded_checkpoint(rank, folder)


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    results: dict[str, Facts] = {}
    for name, scenario in scenarios(rank, folder):
        dist.init_process_group(
            "gloo",
            init_method=(folder / f"meet-{name.replace(' ', '-')}").as_uri(),
            rank=rank,
            world_size=WORLD,
            timeout=dt.timedelta(seconds=20),
        )
        try:
            results[name] = scenario()
        except Exception:  # noqa: BLE001  it is the test's to judge, and the next scenario has a new group
            results[name] = {"failed": traceback.format_exc()}
        finally:
            dist.destroy_process_group()
    torch.save(results, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

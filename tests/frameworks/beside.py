"""What the test of every framework does: train under our schedule, under the framework's own scheduler with the same
curve, and under none, in the framework's own loop; then cut a run, let the framework resume it, and compare.

Two param groups with their own lr; gradients of two batches for a step, an evaluation after every epoch, a checkpoint of
the framework's own after half of the steps. Nothing of the schedule is saved or loaded by hand.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

import tensorsched as ts

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS_PER_EPOCH, ACCUMULATION, ROWS, WORLD = 4, 3, 2, 4, 2
STEPS, SAVED = EPOCHS * STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH
BASE = (0.05, 0.02)  # of the weights, of the biases
CURVE = ts.linear(0.1, 1.0, steps=4) >> ts.cosine(1.0, 0.1, steps=8)
EXACT = [[base * CURVE(step) for base in BASE] for step in range(STEPS)]

Make = Callable[[optim.Optimizer], Any]


def ours(optimizer: optim.Optimizer) -> Any:
    return ts.attach(optimizer, lr=ts.initial * CURVE).lr_scheduler()


def ours_alone(optimizer: optim.Optimizer) -> None:
    """Without a scheduler in the trainer's slot: the schedule moves with the optimizer."""
    ts.attach(optimizer, lr=ts.initial * CURVE)


def tensors(optimizer: optim.Optimizer) -> Any:
    """As on a GPU, where the groups hold tensors that are filled."""
    return ts.attach(optimizer, lr=ts.initial * CURVE, resident=True).lr_scheduler()


def theirs(optimizer: optim.Optimizer) -> Any:
    return LambdaLR(optimizer, CURVE)


def frozen(optimizer: optim.Optimizer) -> Any:
    """The control."""
    return LambdaLR(optimizer, lambda _: CURVE(0))


@dataclasses.dataclass
class Run:
    """What a run did: the lr of each group that each step used, the parameters at the end, what the logger shows."""

    used: list[list[float]]
    params: list[torch.Tensor]
    logged: list[Any] = dataclasses.field(default_factory=list)


Train = Callable[..., Run]  # train(make, folder, until=STEPS, resume=False)


def compare(
    train: Train, folder: Path, theirs: Make = theirs, frozen: Make = frozen, ours: Make = ours
) -> Run:
    """Our run is theirs to the bit, logs included; with frozen values it is not."""
    mine, reference, still = (train(make, folder / make.__name__) for make in (ours, theirs, frozen))
    assert mine.used == reference.used == EXACT
    assert equal(mine, reference)
    assert not equal(mine, still), "the control: a frozen value"
    assert mine.logged == reference.logged
    assert mine.logged or not still.logged
    return mine


def resume(train: Train, folder: Path, whole: Run, make: Make = ours) -> None:
    """A run that was cut goes on from the framework's own checkpoint to what the uninterrupted one reached."""
    cut = train(make, folder / "cut", until=SAVED)
    assert cut.used == EXACT[:SAVED]
    rest = train(make, folder / "cut", resume=True)
    assert rest.used == EXACT[SAVED:]
    assert equal(rest, whole)
    assert not equal(cut, whole)


def with_tensors(train: Train, folder: Path) -> None:
    """Tensor slots have each value rounded once, and resume."""
    whole = train(tensors, folder / "tensors")
    assert whole.used == [[torch.tensor(lr).item() for lr in rates] for rates in EXACT]
    train(tensors, folder / "cut tensors", until=SAVED)
    assert equal(train(tensors, folder / "cut tensors", resume=True), whole)


def equal(a: Run, b: Run) -> bool:
    return len(a.params) == len(b.params) and all(map(torch.equal, a.params, b.params))


# -- what is trained ---------------------------------------------------------------------------------------------------


class Rows(Dataset):  # type: ignore[type-arg]
    """The same rows at every call, for one epoch."""

    def __init__(self, count: int = STEPS_PER_EPOCH * ACCUMULATION * ROWS) -> None:
        made = torch.Generator().manual_seed(1)
        self.x, self.y = torch.randn(count, 3, generator=made), torch.randn(count, 2, generator=made)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


def loader(*, world: int = 1, rank: int = 0) -> DataLoader[Any]:
    """In order. With more processes each has its own rows, and as many batches."""
    rows = Rows(world * STEPS_PER_EPOCH * ACCUMULATION * ROWS)
    sampler: Any = (
        SequentialSampler(rows) if world == 1 else DistributedSampler(rows, world, rank, shuffle=False)
    )
    return DataLoader(rows, batch_size=ROWS, sampler=sampler)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def make_optimizer(model: nn.Module, kind: Any = optim.AdamW, **options: Any) -> Any:
    parameters = list(model.parameters())
    return kind(
        [
            {"params": [p for p in parameters if p.dim() > 1], "lr": BASE[0]},
            {"params": [p for p in parameters if p.dim() == 1], "lr": BASE[1], "weight_decay": 0.0},
        ],
        **options,
    )


def watch(optimizer: optim.Optimizer) -> list[list[float]]:
    """The list that gets the lr of each group at each step, where the optimizer uses it.

    But of steps with an lr of 0, which our curve has none of: checkpoints make an optimizer's state by them.
    """
    used: list[list[float]] = []

    def note(optimizer: optim.Optimizer, *_: Any) -> None:
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        if any(rates):
            used.append(rates)

    optimizer.register_step_pre_hook(note)
    return used


def parameters(model: nn.Module) -> list[torch.Tensor]:
    """Whole, put together from shards if need be."""
    found = (p.detach() for p in model.parameters())
    return [(p.full_tensor() if hasattr(p, "full_tensor") else p).clone() for p in found]


# -- two processes -----------------------------------------------------------------------------------------------------


def in_two_processes(module: str, folder: Path, *names: str) -> dict[str, str]:
    """Compare and resume runs of a test module, by their names in its RUNS, in two processes; what failed in each."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(WORLD),
        "LOCAL_WORLD_SIZE": str(WORLD),
        "TORCHELASTIC_RUN_ID": "tests",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    logs = [folder / f"rank{rank}.log" for rank in range(WORLD)]
    processes = []
    for rank, log in enumerate(logs):
        with log.open("w") as out:
            processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-W",
                        "ignore",
                        "-m",
                        "tests.frameworks.launch",
                        module,
                        str(folder),
                        *names,
                    ],
                    cwd=ROOT,
                    env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        codes = [process.wait(timeout=180) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [0] * WORLD, "\n".join(log.read_text()[-4000:] for log in logs)
    failed = [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD)]
    return {name: "\n".join(filter(None, (each[name] for each in failed))) for name in names}

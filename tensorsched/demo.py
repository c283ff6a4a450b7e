"""Train one small language model twice, under tensorsched and under LambdaLR, and compare the two bit by bit.

Run it with `python -m tensorsched.demo` (or `make demo`). The model is a character-level transformer, the text is the
language reference that every CPython carries (`pydoc_data.topics`), the optimizer is AdamW with two param groups:
weight matrices decay, biases and norms don't. The learning rate warms up and follows a cosine; the weight decay of
the first group falls linearly. Prints the slot table, writes a plot, and exits with 1 if the two runs differ.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import pydoc_data.topics
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import tensorsched as ts

PEAK, FLOOR = 3e-3, 3e-4  # learning rate
DECAY_START, DECAY_END = 0.1, 0.01  # weight decay of the first group
WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 128, 4, 2, 64, 16

# Puts an optimizer under a schedule; what it returns is called after every optimizer step.
Schedule = Callable[[torch.optim.Optimizer], Callable[[], object]]


@dataclass(frozen=True)
class Settings:
    """What the command line decides."""

    steps: int
    device: torch.device
    seed: int

    @property
    def warmup(self) -> int:
        """Steps until the learning rate reaches its peak: a twentieth of the run."""
        return self.steps // 20


def attach(optimizer: torch.optim.Optimizer, settings: Settings, *, advance: str = "auto") -> ts.Attachment:
    """With tensorsched: described once; from then on `optimizer.step()` moves it."""
    lr, decay = schedules(settings)
    return ts.attach(optimizer, lr=lr, weight_decay=[decay, None], advance=advance)


def schedules(settings: Settings) -> tuple[ts.Schedule, ts.Schedule]:
    """Of the learning rate, and of the weight decay of the matrices."""
    lr = ts.warmup_cosine(peak=PEAK, total=settings.steps, warmup=settings.warmup, floor=FLOOR)
    return lr, ts.linear(DECAY_START, DECAY_END, steps=settings.steps)


@functools.cache
def numbers(settings: Settings) -> tuple[list[float], list[float]]:
    """The values of both as lists, for whoever sets them by hand; a formula in plain Python loses last bits."""
    lr, decay = schedules(settings)
    return lr.values(settings.steps + 1).tolist(), decay.values(settings.steps + 1).tolist()


def learning_rate(step: int, settings: Settings) -> float:
    """What LambdaLR is given."""
    return numbers(settings)[0][min(step, settings.steps)]


def weight_decay(step: int, settings: Settings) -> float:
    """What is set by hand."""
    return numbers(settings)[1][min(step, settings.steps)]


def lambda_lr(optimizer: torch.optim.Optimizer, settings: Settings) -> Callable[[], None]:
    """With torch alone: LambdaLR, and the weight decay by hand. Returns what to call after each step."""
    # LambdaLR multiplies the group's own rate. That is 1 here, so the product is exactly the formula's value.
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, settings))
    matrices = optimizer.param_groups[0]
    matrices["weight_decay"] = weight_decay(0, settings)

    def advance() -> None:
        scheduler.step()
        matrices["weight_decay"] = weight_decay(scheduler.last_epoch, settings)

    return advance


class Block(nn.Module):
    """One transformer layer, norms first."""

    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.register_buffer("hidden", torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend to what came before, then the MLP; (batch, CONTEXT, WIDTH) in and out."""
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        # Spelled out, because a fused kernel's backward is not deterministic on every device.
        scores = (q @ k.mT / math.sqrt(WIDTH // HEADS)).masked_fill(self.hidden, -math.inf)
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        mixed: Tensor = x + self.mlp(self.mlp_norm(x))
        return mixed


class CharModel(nn.Module):
    """A character-level transformer: predicts the next character at every position of a text."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary))

    def forward(self, characters: Tensor) -> Tensor:
        """Logits (batch, CONTEXT, vocabulary) of what follows each of `characters` (batch, CONTEXT)."""
        logits: Tensor = self.head(self.blocks(self.token(characters) + self.position.weight))
        return logits


def load_text(device: torch.device) -> tuple[Tensor, int]:
    """Python's language reference as character numbers, and how many different characters it has."""
    text = "\n\n".join(pydoc_data.topics.topics.values())
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[character] for character in text], device=device), len(alphabet)


def adamw(model: nn.Module, device: torch.device, lr: float | Tensor) -> torch.optim.AdamW:
    """Two param groups: matrices, which decay; biases and norms, which don't."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    # fused lets the rate live on the GPU; on a CPU torch's own choice is as good.
    return torch.optim.AdamW(groups, lr=lr, fused=device.type == "cuda" or None)


@dataclass
class Run:
    """A trained model, and what its optimizer held at every step."""

    model: nn.Module
    losses: list[Tensor] = field(default_factory=list)
    lr: list[float | Tensor] = field(default_factory=list)
    decay: list[float | Tensor] = field(default_factory=list)

    def record(self, loss: Tensor, group: dict[str, Any]) -> None:
        """Keep copies, on the device where they are, so that recording waits for nothing."""
        self.losses.append(loss.detach())
        for history, key in ((self.lr, "lr"), (self.decay, "weight_decay")):
            history.append(group[key].clone() if isinstance(group[key], Tensor) else group[key])


def train(title: str, settings: Settings, lr: float | Tensor, schedule: Schedule) -> Run:
    """Build a model and its batches from the seed, and train it."""
    from tqdm import tqdm

    text, vocabulary = load_text(settings.device)
    torch.manual_seed(settings.seed)
    model = CharModel(vocabulary).to(settings.device)
    optimizer = adamw(model, settings.device, lr)
    after_step, run = schedule(optimizer), Run(model)
    batches = torch.Generator().manual_seed(settings.seed)
    window = torch.arange(CONTEXT + 1)
    often = 0.1 if sys.stderr.isatty() else 10.0  # seconds between two lines of a log
    with tqdm(range(settings.steps), desc=title, unit="step", mininterval=often) as bar:
        for step in bar:
            starts = torch.randint(len(text) - CONTEXT, (BATCH, 1), generator=batches)
            batch = text[(starts + window).to(settings.device)]
            loss = functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            run.record(loss, optimizer.param_groups[0])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            after_step()
            if step % 10 == 0 or step + 1 == settings.steps:
                bar.set_postfix(
                    loss=f"{float(run.losses[-1]):.3f}", lr=f"{float(run.lr[-1]):.2e}", refresh=False
                )
    return run


def train_attached(settings: Settings) -> Run:
    """Train with the schedule attached: nothing needs to be called after a step."""

    def schedule(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        print(attach(optimizer, settings), flush=True)
        return lambda: None

    return train("tensorsched", settings, PEAK, schedule)


def differences(ours: Run, theirs: Run) -> list[str]:
    """What is not bit-identical between two runs, one line each."""
    lines = []
    for key, held in (("lr", (ours.lr, theirs.lr)), ("weight_decay", (ours.decay, theirs.decay))):
        pairs = [(float(a), float(b)) for a, b in zip(*held, strict=True)]
        if apart := [step for step, (a, b) in enumerate(pairs) if a != b]:
            lines.append(f"{key} differs at {len(apart)} steps, first at {apart[0]}: {pairs[apart[0]]}")
    parameters = theirs.model.state_dict()
    for name, tensor in ours.model.state_dict().items():
        if not torch.equal(tensor, parameters[name]):
            distance = float((tensor - parameters[name]).abs().max())
            lines.append(f"parameter {name} differs by up to {distance:.3g}")
    return lines


def scheduling_cost(settings: Settings, lr: float | Tensor) -> tuple[float, float]:
    """Host microseconds a step that each way spends on scheduling: tensorsched, LambdaLR and decay by hand.

    In the training loop tensorsched works inside a hook of `optimizer.step()`, where a clock around it would time the
    optimizer too. So both ways run here by themselves, for as many steps and groups as the demo has: ours through
    `advance="manual"`, whose `sched.step()` is what the hook does, torch's as the loop above calls it. Only the host
    is timed; what it queues on a GPU is not waited for. Both take turns, and the shortest pass counts: whatever else
    runs on the machine only adds to it.
    """

    def microseconds(lr: float | Tensor, schedule: Schedule) -> float:
        optimizer = adamw(nn.Linear(1, 1).to(settings.device), settings.device, lr)
        optimizer.step = optimizer.step  # type: ignore[method-assign]  # a step of its own: ours then counts every call
        advance = schedule(optimizer)
        optimizer.step()  # without gradients nothing moves; LambdaLR warns where no step came before its own
        began = time.perf_counter()
        for _ in range(settings.steps):
            advance()
        return (time.perf_counter() - began) / settings.steps * 1e6

    passes = [
        (
            microseconds(PEAK, lambda optimizer: attach(optimizer, settings, advance="manual").step),
            microseconds(lr, lambda optimizer: lambda_lr(optimizer, settings)),
        )
        for _ in range(9)
    ]
    return min(ours for ours, _ in passes), min(theirs for _, theirs in passes)


def draw(ours: Run, theirs: Run, path: Path) -> None:
    """Write a PNG: learning rate, weight decay and loss at every step of both runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    panels = figure.subplots(3, sharex=True, height_ratios=(2, 2, 3))
    labels = ("learning rate", "weight decay\n(matrices)", "training loss\n(nats a character)")
    for panel, history, label in zip(panels, ("lr", "decay", "losses"), labels, strict=True):
        mine, other = ([float(value) for value in getattr(run, history)] for run in (ours, theirs))
        panel.plot(mine, color="tab:blue", linewidth=3, alpha=0.5, label="tensorsched")
        panel.plot(other, color="black", linewidth=0.8, linestyle="--", label="LambdaLR")
        panel.set(ylabel=label, ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].set_title("One model trained twice under the same schedule")
    panels[0].legend()
    panels[-1].set_xlabel("step")
    figure.align_ylabels()
    figure.savefig(path, dpi=150)


def parse(argv: Sequence[str] | None) -> tuple[Settings, Path]:
    """Read the command line."""
    parser = ArgumentParser("python -m tensorsched.demo", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.description = (__doc__ or "").partition("\n")[0]
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of each run")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    parser.add_argument("--out", type=Path, default=Path("demo.png"), help="the plot to write")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the batches")
    given = parser.parse_args(argv)
    if missing := [name for name in ("matplotlib", "tqdm") if importlib.util.find_spec(name) is None]:
        parser.error(f"the demo needs {' and '.join(missing)}: pip install 'tensorsched[demo]'")
    if given.steps < 1:
        parser.error(f"--steps must be at least 1, got {given.steps}")
    if not given.out.absolute().parent.is_dir():
        parser.error(f"--out {given.out}: there is no such folder")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    return Settings(given.steps, torch.device(given.device), given.seed), given.out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; the process's exit status."""
    settings, out = parse(argv)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS asks for
    torch.use_deterministic_algorithms(mode=True)
    ours = train_attached(settings)
    # The twin holds its rate as ours did: where tensorsched keeps it in a tensor on the device, so does LambdaLR.
    lr: float | Tensor = torch.ones_like(ours.lr[0]) if isinstance(ours.lr[0], Tensor) else 1.0
    theirs = train("LambdaLR   ", settings, lr, lambda optimizer: lambda_lr(optimizer, settings))
    draw(ours, theirs, out)
    print(f"plot: {out.resolve()}")
    mine, other = scheduling_cost(settings, lr)
    print(
        f"scheduling, host time a step: {mine:.1f} us tensorsched, {other:.1f} us LambdaLR and decay by hand"
    )
    if wrong := differences(ours, theirs):
        print(f"NOT IDENTICAL after {settings.steps:,} steps:", *wrong, sep="\n  ")
        return 1
    count = sum(p.numel() for p in ours.model.parameters())
    print(f"bit-identical: all {count:,} parameters agree after {settings.steps:,} steps under each")
    return 0


if __name__ == "__main__":
    sys.exit(main())

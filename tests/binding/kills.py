"""Runs that are killed at any statement of theirs or of the package, and resumed from what they left; for test_kills.py.

A run trains a few parameters and saves two files every few steps: what it trains, with its optimizer's state, and the
schedule's state. Each process is forked from a server that has everything imported.
"""

from __future__ import annotations

import dataclasses
import io
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import tensorsched as ts
from tensorsched.plan import plan as _  # noqa: F401  what a run uses, imported once

STEPS = 26  # the last checkpoint is not the end
EVERY = 4  # steps between checkpoints
REWRITE, COOL_DOWN = 9, 15
SKIPPED = (5, 13)  # of AMP: gradients that overflow
PACKAGE = str(Path(ts.__file__).parent)
HOWS = ("both", "optimizer", "schedule")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What a run has.

    Attributes:
        resident: tensor slots, else floats.
        unit: of the clock; None: steps.
        live: whether the lr reacts to the loss.
        amp: whether gradients are scaled, and two steps skipped.
        optimizers: one, or a plan of two.
        atomic: whether a file replaces the one before at once, or is written over it.
        changes: whether the plan is changed on the way.
    """

    resident: bool = False
    unit: str | None = None
    live: bool = False
    amp: bool = False
    optimizers: int = 1
    atomic: bool = True
    changes: bool = True


SCENARIOS = {
    "floats": Scenario(),
    "tensors": Scenario(resident=True, atomic=False),
    "never changed": Scenario(changes=False, atomic=False),
    "clock": Scenario(unit="tokens", atomic=False),
    "clock, tensors": Scenario(unit="tokens", resident=True, changes=False),
    "live": Scenario(live=True, changes=False),
    "live, tensors": Scenario(live=True, resident=True, changes=False, atomic=False),
    "live, changed": Scenario(live=True),
    "amp": Scenario(amp=True),
    "amp, tensors": Scenario(amp=True, resident=True, changes=False),
    "plan": Scenario(optimizers=2, atomic=False),
    "plan, tensors": Scenario(optimizers=2, resident=True, changes=False),
}


class Run:
    """A model, its optimizers and what schedules them."""

    def __init__(self, scenario: Scenario) -> None:
        torch.manual_seed(0)
        self.scenario = scenario
        self.model = nn.Linear(3, 2)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=16.0, enabled=scenario.amp)
        groups = [{"params": [parameter]} for parameter in self.model.parameters()]
        if scenario.optimizers == 1:
            self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=1e-2)]
        else:
            self.optimizers = [
                torch.optim.AdamW(groups[:1], lr=1e-2),
                torch.optim.SGD(groups[1:], lr=1e-2, momentum=0.9),
            ]
        attached = [self._attach(optimizer) for optimizer in self.optimizers]
        self.sched: Any = attached[0] if scenario.optimizers == 1 else ts.Plan(a=attached[0], b=attached[1])
        self.used: dict[int, list[float]] = {}

    def _attach(self, optimizer: torch.optim.Optimizer) -> ts.Attachment:
        total = STEPS if self.scenario.unit is None else STEPS * 110
        lr: ts.Schedule = ts.warmup_cosine(0.05, total=total, warmup=total // 5)
        if self.scenario.live:
            lr = lr * ts.plateau(factor=0.5, patience=1)
        decay = [ts.linear(0.2, 0.0, steps=total), None][: len(optimizer.param_groups)]
        clock = None if self.scenario.unit is None else ts.clock(self.scenario.unit)
        return ts.attach(
            optimizer,
            lr=lr,
            weight_decay=decay,
            clock=clock,
            resident=self.scenario.resident,
            capacity=2 * total,
        )

    def change(self, step: int) -> None:
        """What is decided on the way."""
        if not self.scenario.changes:
            return
        if step == REWRITE:
            self.sched.rewrite(weight_decay=lambda old, now: 0.5 * old)
        if step == COOL_DOWN:
            self.sched.cool_down(5 if self.scenario.unit is None else 500, shape="1-sqrt")

    def step(self, step: int) -> None:
        """One step, of which the values that it uses are kept."""
        self.change(step)
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        loss = (self.model(x) - x[:, :2]).square().mean()
        self.model.zero_grad()
        self.scaler.scale(loss).backward()
        if self.scenario.amp and step in SKIPPED:
            self.model.weight.grad.fill_(torch.inf)
        if self.scenario.unit is not None:
            self.sched.count(100 + step)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.used[step] = [float(group[key]) for group in groups for key in ("lr", "weight_decay")]
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        if (
            self.scenario.live and step % 3 == 2 and self.sched.inputs
        ):  # a cool-down leaves nothing that reacts
            self.sched.observe(loss.detach() + step % 2)

    def trained(self, step: int) -> dict[str, Any]:
        """Of the file of what is trained."""
        return {
            "step": step,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
        }

    def load_trained(self, saved: dict[str, Any], *, carried: bool) -> None:
        """`carried`: with what the optimizer's checkpoint carries of the schedule."""
        self.model.load_state_dict(saved["model"])
        self.scaler.load_state_dict(saved["scaler"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            if not carried:
                groups = [
                    {k: v for k, v in g.items() if not k.startswith("schedule_")}
                    for g in state["param_groups"]
                ]
                state = state | {"param_groups": groups}  # noqa: PLW2901
            optimizer.load_state_dict(state)


# -- in the process that is killed -------------------------------------------------------------------------------------

saving = False  # whether a checkpoint is being written


def train(scenario: Scenario, folder: Path, *, snapshots: bool) -> Run:
    """From the first step to the last."""
    global saving  # noqa: PLW0603  the trace looks at it
    run = Run(scenario)
    for step in range(STEPS):
        run.step(step)
        if (step + 1) % EVERY == 0:
            saving = True
            trained = run.trained(step + 1)
            save(folder / "optimizer.pt", trained, atomic=scenario.atomic)
            schedule = {"step": step + 1, "schedule": run.sched.state_dict()}
            save(folder / "schedule.pt", schedule, atomic=scenario.atomic)
            saving = False
            if snapshots:
                torch.save(trained, folder / f"{step + 1}.pt")
    return run


def save(path: Path, content: dict[str, Any], *, atomic: bool) -> None:
    """In two halves, between which a process may be killed."""
    data = io.BytesIO()
    torch.save(content, data)
    whole = data.getvalue()
    written = path.with_suffix(".new") if atomic else path
    with written.open("wb", buffering=0) as file:
        file.write(whole[: len(whole) // 2])
        file.write(whole[len(whole) // 2 :])
    if atomic:
        written.replace(path)


def traced(at_line: Callable[[], None]) -> Callable[..., Any]:
    """A trace that calls back at every line of the package and of this file."""

    def in_ours(_frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            at_line()
        return in_ours

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        file = frame.f_code.co_filename
        return in_ours if file.startswith(PACKAGE) or file == __file__ else None

    return trace


def uninterrupted(name: str, folder: Path, pipe: Connection) -> None:
    """Sends how many lines it has, which of them are in a checkpoint, and what it used and trained."""
    torch.set_num_threads(1)
    in_saves: list[bool] = []
    sys.settrace(traced(lambda: in_saves.append(saving)))
    run = train(SCENARIOS[name], folder, snapshots=True)
    sys.settrace(None)
    pipe.send((in_saves, run.used, _bits(run)))


def killed(name: str, folder: Path, line: int) -> None:
    """Is killed at this line."""
    torch.set_num_threads(1)
    left = line

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.settrace(traced(count))
    train(SCENARIOS[name], folder, snapshots=False)


# -- in the process that resumes ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Resumed:
    """How a resumed run went.

    Attributes:
        start: the step from which it went on; None where a file was torn, which torch.load says.
        warned: what was said before the first step, and at it.
        apart: whether the two files were of different steps.
        used: the values by step.
        trained: the parameters at the end.
    """

    start: int | None
    warned: list[str] = dataclasses.field(default_factory=list)
    apart: bool = False
    used: dict[int, list[float]] = dataclasses.field(default_factory=dict)
    trained: list[bytes] = dataclasses.field(default_factory=list)


def resumed(
    name: str, folder: Path, snapshots: Path, schedule_first: bool, then: str, pipe: Connection
) -> None:
    """Sends how it went from both files, and from each alone."""
    torch.set_num_threads(1)
    found: dict[str, Resumed | None] = {}
    for how in HOWS:
        found[how] = _resume(
            SCENARIOS[name], folder, snapshots, how, schedule_first=schedule_first, then=then
        )
    pipe.send(found)


def _resume(
    scenario: Scenario, folder: Path, snapshots: Path, how: str, *, schedule_first: bool, then: str
) -> Resumed | None:
    trained, schedule = _read(folder / "optimizer.pt"), _read(folder / "schedule.pt")
    if how == "schedule" and schedule:  # what is trained comes from elsewhere, and carries no step
        trained = _read(snapshots / f"{schedule['step']}.pt")
    needed = {"both": (trained, schedule), "optimizer": (trained,), "schedule": (schedule,)}[how]
    if any(part is None for part in needed):
        return None  # there is no checkpoint yet
    if not all(needed):
        return Resumed(None)
    run = Run(scenario)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loads = [lambda: run.load_trained(trained, carried=how != "schedule")]
        if how != "optimizer":
            loads.append(lambda: run.sched.load_state_dict(schedule["schedule"], on_mismatch="saved"))
        for load in reversed(loads) if schedule_first else loads:
            load()
        start = trained["step"]
        if then:  # a flaw, or what a warning advises
            at = run.sched.position if scenario.optimizers == 1 else run.sched["a"].position
            run.sched.seek(at + 1 if then == "a step off" else start)
        for step in range(start, STEPS):
            run.step(step)
    apart = how == "both" and trained["step"] != schedule["step"]
    return Resumed(start, [str(each.message) for each in told], apart, run.used, _bits(run))


def _read(path: Path) -> dict[str, Any] | None:
    """What a file holds: nothing where it is torn, None where there is none."""
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True)  # type: ignore[no-any-return]
    except (RuntimeError, EOFError, OSError):
        return {}


def _bits(run: Run) -> list[bytes]:
    return [parameter.detach().numpy().tobytes() for parameter in run.model.parameters()]


# -- the server --------------------------------------------------------------------------------------------------------


def forks() -> Any:
    """Makes processes that have everything imported: each is forked from a server that is started once.

    An optimizer's first step imports torch._dynamo, which takes as long as torch itself.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "pytest", "tensorsched", "tests.binding.kills"])
    return context

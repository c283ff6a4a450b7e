"""A real training process, killed with SIGKILL twenty times and resumed each time, ends with the same bits."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tensorsched as ts

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
    pytest.mark.xdist_group("crash"),  # the fork server is started once, by one test worker
]

KILLS = 20
EVERY = 5  # steps between checkpoints
AHEAD = 3  # lines that the process may be ahead of what the test has read
LONGEST = 16  # most lines of progress before a kill
# A killed process has read or is ahead of at most LONGEST + AHEAD lines, so twenty of them cannot reach the end.
STEPS = KILLS * (LONGEST + AHEAD) + 20
SEED = 7


# -- the process --------------------------------------------------------------------------------------------------


class Run:
    """Model, optimizer and schedules; dropout and data take from torch's generator, which is saved too."""

    def __init__(self, *, resident: bool) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.sched = ts.attach(
            self.optimizer,
            resident=resident,
            lr=ts.warmup_cosine(peak=0.02, total=STEPS, warmup=30, floor=1e-4),
            weight_decay=ts.linear(0.2, 0.0, steps=STEPS),
            betas=(ts.linear(0.8, 0.95, steps=STEPS // 2), ts.cosine(0.99, 0.999, steps=STEPS)),
        )

    def step(self) -> None:
        x = torch.randn(8, 4)
        loss = (self.model(x) - x[:, :2] * x[:, 2:]).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sched": self.sched.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def load(self, state: dict[str, Any], flaw: str) -> int:
        """Load all of it, except for the `flaw`; return the step that was saved."""
        self.model.load_state_dict(state["model"])
        if flaw == "forgets the step":
            for group in state["optimizer"]["param_groups"]:
                del group["schedule_step"]
        self.optimizer.load_state_dict(state["optimizer"])
        saved: int = state["sched"]["step"]
        if flaw not in {"forgets the schedule", "forgets the step"}:
            self.sched.load_state_dict(state["sched"])
        if flaw == "off by one":
            self.sched.seek(saved + 1)
        if flaw != "forgets the generator":
            torch.set_rng_state(state["rng"])
        return saved


def train(folder: Path, parent: Connection, resident: bool, flaw: str) -> None:
    """Train to the end, from the last checkpoint if there is one. Runs in a process of its own.

    It sends a line after each step and one while a new checkpoint is written but not yet in place; then it waits for
    the parent, so that the file is half done when the parent kills it there.
    """
    torch.set_num_threads(1)
    run, last, unread = Run(resident=resident), folder / "last.pt", 0
    start = run.load(torch.load(last, weights_only=True), flaw) if last.exists() else 0
    for step in range(start, STEPS):
        run.step()
        if (step + 1) % EVERY == 0:
            torch.save(run.state(), folder / "new.pt")
            parent.send(("writing", step))
            for _ in range(unread + 1):
                parent.recv()
            unread = 0
            (folder / "new.pt").replace(last)
        parent.send(("step", step))
        unread += 1
        if unread > AHEAD:
            parent.recv()
            unread -= 1
    for _ in range(unread):
        parent.recv()
    torch.save(run.state(), folder / "end.pt")


# -- the test's side ----------------------------------------------------------------------------------------------


Start = tuple[Any, bool]  # what makes processes, and whether the slots are resident


@pytest.fixture(scope="module", params=[False, True], ids=["host", "resident"])
def start(request) -> Start:
    """Makes processes that have torch imported: each is forked from a server that is started once.

    An optimizer's first step imports torch._dynamo, which takes as long as torch itself.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn"), request.param
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "pytest", "tensorsched"])
    return context, request.param


class Child:
    """A training process, its lines of progress, and whether it was killed."""

    def __init__(self, start: Start, folder: Path, flaw: str) -> None:
        context, resident = start
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=train, args=(folder, theirs, resident, flaw), daemon=True)
        self.process.start()
        theirs.close()

    def lines(self) -> Iterator[tuple[str, int]]:
        """Each line, until the process ends; it goes on when the next one is asked for."""
        while self.pipe.poll(60):
            try:
                line = self.pipe.recv()
            except (EOFError, ConnectionResetError):
                return
            yield line
            with contextlib.suppress(OSError):  # if it has died, the next line says so
                self.pipe.send("go on")
        pytest.fail("the training process hangs")

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)

    def exit_code(self) -> int:
        self.process.join(60)
        code: int = self.process.exitcode
        self.process.kill()
        self.pipe.close()
        return code


def finish(start: Start, folder: Path, flaw: str = "") -> list[tuple[str, int]]:
    child = Child(start, folder, flaw)
    lines = list(child.lines())
    assert child.exit_code() == 0
    return lines


def killed(start: Start, folder: Path, lines: int, *, writing: bool, flaw: str = "") -> tuple[int, int]:
    """Kill it after so many lines (`writing`: at the next checkpoint from there). Returns its first and last step."""
    child = Child(start, folder, flaw)
    steps = []
    for number, (what, step) in enumerate(child.lines(), start=1):
        steps.append(step)
        if number >= lines and (what == "writing" or not writing):
            child.kill()
            break
    assert child.exit_code() == -signal.SIGKILL
    return steps[0], steps[-1]


def same(a: Any, b: Any) -> bool:
    """To the bit, all the way down."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(itertools.starmap(same, zip(a, b, strict=True)))
    return bool(a == b)


def end_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "end.pt", weights_only=True)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def never_killed(start, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("never_killed")
    lines = finish(start, folder)
    assert [step for what, step in lines if what == "step"] == list(range(STEPS))
    return end_of(folder)


def test_twenty_kills_leave_no_trace(start, never_killed, tmp_path):
    chance = random.Random(SEED)  # noqa: S311  where to kill, no secret
    stretches, half_written = [], 0
    for kill in range(KILLS):
        writing = kill % 4 == 3
        lines = chance.randint(1, LONGEST - EVERY - 1 if writing else LONGEST)
        stretches.append(killed(start, tmp_path, lines, writing=writing))
        half_written += writing and (tmp_path / "new.pt").exists()
        assert not (tmp_path / "end.pt").exists(), "the kill came after the end"
    stretches.append((finish(start, tmp_path)[0][1], STEPS - 1))
    starts = [first for first, _ in stretches]
    assert len(stretches) == KILLS + 1
    assert starts == sorted(starts), "each goes on from a checkpoint, never from an older one"
    assert starts[0] == 0 < starts[-1]
    assert all(first % EVERY == 0 for first in starts)
    repeated = sum(last >= again for (_, last), (again, _) in itertools.pairwise(stretches))
    assert repeated > KILLS // 2, "steps that were done and lost"
    assert half_written == KILLS // 4
    assert same(end_of(tmp_path), never_killed)
    assert never_killed["sched"]["step"] == STEPS


@pytest.mark.parametrize("flaw", ["forgets the step", "off by one", "forgets the generator"])
def test_a_flaw_in_resuming_shows(start, never_killed, tmp_path, flaw):
    """Control: one kill is enough to end elsewhere if the resumed run is not quite the one that was killed."""
    killed(start, tmp_path, 12, writing=False)
    first = finish(start, tmp_path, flaw)[0][1]
    assert first > 0
    assert not same(end_of(tmp_path)["model"], never_killed["model"])


@pytest.mark.parametrize("flaw", ["", "forgets the schedule"])
def test_one_kill_and_no_flaw_does_not_show(start, never_killed, tmp_path, flaw):
    """The optimizer's own checkpoint has the step: without the schedule's state the run goes on as well."""
    killed(start, tmp_path, 12, writing=False)
    finish(start, tmp_path, flaw)
    ended = end_of(tmp_path)
    if flaw:  # what the run had used before is not known then, and nothing else
        assert [change[1] for change in ended["sched"]["history"]] == ["attach", "optimizer.load_state_dict"]
        ended["sched"] |= {name: never_killed["sched"][name] for name in ("history", "documents")}
    assert same(ended, never_killed)

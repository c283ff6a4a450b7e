"""The demo keeps its promise, and says so where the two runs are not the same."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tensorsched import demo

STEPS = 40  # two of them warm-up
CPU = demo.Settings(STEPS, torch.device("cpu"), seed=0)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """One row a batch: what is tested in this process does not depend on the amount of work."""
    monkeypatch.setattr(demo, "BATCH", 1)


@pytest.fixture
def main(tmp_path):
    """The demo in this process, with torch's switches put back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    yield lambda *arguments: demo.main(
        ["--steps", str(STEPS), "--out", str(tmp_path / "demo.png"), *arguments]
    )
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ],
)
def test_the_two_runs_are_bit_identical(tmp_path, device):
    command = [
        sys.executable,
        "-m",
        "tensorsched.demo",
        "--steps",
        str(STEPS),
        "--device",
        device,
        "--out",
        "a.png",
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^bit-identical: all [\d,]+ parameters agree after 40 steps", run.stdout, re.MULTILINE)
    assert "weight_decay" in run.stdout  # the slot table
    assert "us tensorsched" in run.stdout
    assert "loss=" in run.stderr  # the progress bar
    assert "lr=" in run.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "formula", "line"),
    [
        (
            "learning_rate",
            lambda _step, _settings: demo.PEAK,
            "lr differs at 39 steps, first at 0: (0.0, 0.003)",
        ),
        (
            "weight_decay",
            lambda _step, _settings: demo.DECAY_START,
            "weight_decay differs at 39 steps, first at 1: (",
        ),
    ],
)
def test_a_frozen_schedule_is_found(main, monkeypatch, capsys, name, formula, line):
    monkeypatch.setattr(demo, name, formula)
    assert main() == 1
    printed = capsys.readouterr().out
    assert "NOT IDENTICAL" in printed
    assert line in printed
    assert "parameter blocks.0.qkv.weight differs by up to" in printed
    assert "bit-identical" not in printed


def test_one_parameter_off_by_one_ulp_is_found():
    torch.manual_seed(0)
    ours, theirs = (demo.Run(torch.nn.Linear(3, 2)) for _ in range(2))
    theirs.model.load_state_dict(ours.model.state_dict())
    assert demo.differences(ours, theirs) == []
    with torch.no_grad():
        theirs.model.weight[1, 2] = theirs.model.weight[1, 2].nextafter(torch.tensor(torch.inf))
    (line,) = demo.differences(ours, theirs)
    assert line.startswith("parameter weight differs by up to ")


def test_the_optimizer_held_the_schedule():
    run = demo.train_attached(CPU)
    assert run.lr == [demo.learning_rate(step, CPU) for step in range(STEPS)]
    assert run.decay == [demo.weight_decay(step, CPU) for step in range(STEPS)]
    # The formulas as papers write them, which lose some last bits: at most 4 ulp of the peak.
    for step, (lr, decay) in enumerate(zip(run.lr, run.decay, strict=True)):
        part = (step - CPU.warmup) / (STEPS - CPU.warmup)
        wave = demo.FLOOR + (demo.PEAK - demo.FLOOR) * (0.5 * (1.0 + math.cos(math.pi * part)))
        plain = demo.PEAK * (step / CPU.warmup) if step < CPU.warmup else wave
        assert abs(lr - plain) <= 4 * math.ulp(demo.PEAK)
        line = demo.DECAY_START + (demo.DECAY_END - demo.DECAY_START) * (step / STEPS)
        assert abs(decay - line) <= 4 * math.ulp(demo.DECAY_START)
    assert len(set(run.lr)) == len(set(run.decay)) == STEPS  # a frozen value would be one


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--out", "nowhere/at/all.png"], "there is no such folder"),
        pytest.param(
            ["--device", "cuda"],
            "torch finds no CUDA device here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_a_wrong_option_is_refused_before_training(capsys, arguments, text):
    with pytest.raises(SystemExit) as stopped:
        demo.main(arguments)
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err
